from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from core.runtime.errors import RunFailed, UserError
from domains.mri.data import bart
from domains.mri.data.axes import LAYOUTS, arranged, layout_of, parted, turned
from domains.mri.data.formats import read_scan, write_scan
from domains.mri.data.fourier import fft2, ifft2
from domains.mri.data.records import Scan
from domains.mri.data.writing import whole

AFFINE = np.array([[0, -2.0, 0, 10], [1.5, 0, 0, -7], [0, 0, 3.0, 4], [0, 0, 0, 1]])
FORMS = [
    ("a.h5", None),
    ("a.h5", "calgary"),
    ("a.mrd", None),
    ("a.cfl", None),
    ("a.npy", None),
    ("a.npz", None),
]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.normal(size=shape) + 1j * random.normal(size=shape)).astype(np.complex64)


def scan_of(
    kspace: np.ndarray, mask: np.ndarray | None = None, name: str = "a", **more: Any
) -> Scan:
    chosen = np.ones((1, *kspace.shape[2:]), bool) if mask is None else mask
    return Scan(
        name=name,
        subject=name,
        kspace=torch.from_numpy(kspace * chosen[:, None]),
        mask=torch.from_numpy(chosen),
        **more,
    )


def head(size: int = 16, coils: int = 2, slices: int = 2) -> Scan:
    """A scan of a bright box, whose energy is around the zero frequency."""
    picture = torch.zeros(slices, coils, size, size + 2, dtype=torch.complex64)
    picture[..., 3:9, 4:12] = 1
    picture[:, 0] *= 1j
    return scan_of(fft2(picture).numpy() + 0.01 * noise(slices, coils, size, size + 2))


# Round trips


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(2, 7), st.integers(2, 7)),
    each=st.booleans(),
    share=st.sampled_from([0.3, 1.0]),
    form=st.sampled_from(FORMS),
    seed=st.integers(0, 2**16),
)
def test_a_scan_that_was_written_reads_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int, int, int],
    each: bool,
    share: float,
    form: tuple[str, Any],
    seed: int,
) -> None:
    slices, _, height, width = shape
    mask = np.random.default_rng(seed).random((slices if each else 1, height, width)) < share
    mask[:, height // 2, width // 2] = True
    name, kind = form
    if kind == "calgary":  # more pixels than numbers of a pixel, as its files have
        shape = (slices, 1, height + 2, width + 2)
        mask = np.pad(mask, ((0, 0), (2, 0), (2, 0)))
    scan = scan_of(noise(*shape, seed=seed), mask)
    path = tmp_path_factory.mktemp("trip") / name
    write_scan(scan, path, force=False, form=kind)
    back = read_scan(path)
    even = shape[2] % 2 == shape[3] % 2 == 0
    if kind == "calgary" and not even:  # phases of odd sizes are rounded
        torch.testing.assert_close(back.kspace, scan.kspace, rtol=1e-5, atol=1e-6)
    else:
        assert torch.equal(back.kspace, scan.kspace)
    assert torch.equal(back.mask.expand(slices, -1, -1), scan.mask.expand(slices, -1, -1))


@pytest.mark.parametrize("name", ["a.h5", "a.npz"])
def test_what_is_beside_kspace_comes_back(tmp_path: Path, name: str) -> None:
    scan = replace(
        head(),
        maps=torch.from_numpy(noise(2, 2, 16, 18, seed=1)),
        target=torch.rand(2, 16, 18, generator=torch.Generator().manual_seed(0)),
        noise_covariance=torch.tensor([[2, 1j], [-1j, 3]], dtype=torch.complex64),
        spacing_mm=(3.3, 1.1, 0.7),
        affine=AFFINE,
    )
    assert write_scan(scan, tmp_path / name, force=False) == ()
    back = read_scan(tmp_path / name)
    for field in ("maps", "target", "noise_covariance"):
        assert torch.equal(getattr(back, field), getattr(scan, field)), field
    assert back.spacing_mm == scan.spacing_mm
    np.testing.assert_array_equal(back.affine, AFFINE)


def test_what_a_format_cannot_hold_is_said(tmp_path: Path) -> None:
    scan = replace(head(), maps=torch.from_numpy(noise(2, 2, 16, 18)), affine=AFFINE)
    assert write_scan(scan, tmp_path / "a.npy", force=False) == ("affine", "maps")
    assert write_scan(scan, tmp_path / "a.mrd", force=False) == ("maps",)


def test_one_mask_of_all_slices_stays_one_though_a_slice_is_blank(tmp_path: Path) -> None:
    scan = head(slices=3)
    kspace = scan.kspace.clone()
    kspace[1] = 0
    kspace[..., ::2, :3] = 0
    write_scan(replace(scan, kspace=kspace), tmp_path / "a.npy", force=False)
    back = read_scan(tmp_path / "a.npy")
    assert back.mask.shape[0] == 1
    assert not back.mask[0, ::2, :3].any()
    assert back.mask.sum() == 16 * 18 - 8 * 3


def test_nothing_is_replaced_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.cfl"
    write_scan(head(), path, force=False)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"a\.hdr: exists already.*--force"):
        write_scan(head(size=20), path, force=False)
    assert path.read_bytes() == before
    write_scan(head(size=20), path, force=True)
    assert read_scan(path).kspace.shape == (2, 2, 20, 22)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.cfl", "a.hdr"]


def write_until_the_disk_is_full(paths: list[Path]) -> None:
    with whole(paths, force=True) as places:
        places[0].write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    paths = [tmp_path / "a.hdr", tmp_path / "a.cfl"]
    write_scan(head(), paths[0], force=False)
    before = [one.read_bytes() for one in paths]
    with pytest.raises(RunFailed, match=r"a\.hdr: cannot write: No space left on device"):
        write_until_the_disk_is_full(paths)
    assert [one.read_bytes() for one in paths] == before
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_an_ending_for_no_scan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'\.doc' is no ending that scans are written in"):
        write_scan(head(), tmp_path / "a.doc", force=False)


# Forms of single formats


def fastmri_file(path: Path, kspace: np.ndarray, **datasets: Any) -> Path:
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace
        for name, value in datasets.items():
            file[name] = value
    return path


def test_single_coil_of_fastmri_is_one_coil(tmp_path: Path) -> None:
    scan = head(coils=1)
    back = read_scan(fastmri_file(tmp_path / "a.h5", scan.kspace[:, 0].numpy()))
    assert torch.equal(back.kspace, scan.kspace)


def test_a_mask_of_columns_counts_for_all_rows_but_not_for_padding(tmp_path: Path) -> None:
    columns = np.zeros(18, np.float32)
    columns[[0, 3, 7, 8, 9, 10, 14, 17]] = 1
    kspace = head().kspace.numpy() * columns
    kspace[..., [0, 17]] = 0  # never measured
    back = read_scan(fastmri_file(tmp_path / "a.h5", kspace, mask=columns))
    columns[[0, 17]] = 0
    assert back.mask.shape == (1, 16, 18)
    np.testing.assert_array_equal(back.mask[0].numpy(), np.tile(columns > 0, (16, 1)))


def test_fastmri_tells_patient_contrast_spacing_and_crop(tmp_path: Path) -> None:
    header = """<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
    <encodedSpace><matrixSize><x>16</x><y>18</y><z>1</z></matrixSize>
    <fieldOfView_mm><x>32</x><y>54</y><z>5</z></fieldOfView_mm></encodedSpace>
    <reconSpace><matrixSize><x>8</x><y>10</y><z>1</z></matrixSize>
    <fieldOfView_mm><x>16</x><y>30</y><z>5</z></fieldOfView_mm></reconSpace>
    <trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"""
    path = fastmri_file(tmp_path / "a.h5", head().kspace.numpy(), ismrmrd_header=header)
    with h5py.File(path, "a") as file:
        file["reconstruction_rss"] = np.ones((2, 8, 10), np.float32)
        file.attrs["patient_id"], file.attrs["acquisition"] = "patient-7", "AXT2"
        file.attrs["max"] = 3.5
    scan = read_scan(path)
    assert (scan.subject, scan.contrast, scan.spacing_mm) == ("patient-7", "AXT2", (5.0, 2.0, 3.0))
    assert scan.header["picture_height"], scan.header["picture_width"] == (8, 10)
    assert scan.header["max"] == 3.5
    assert scan.target is None  # it is cropped, k-space is not


def test_who_it_is_of_is_written_only_if_asked(tmp_path: Path) -> None:
    scan = replace(
        head(), subject="patient-7", header={"PatientID": "patient-7", "PatientName": "Doe"}
    )
    for name in ("a.h5", "a.mrd"):
        write_scan(scan, tmp_path / name, force=True)
        assert read_scan(tmp_path / name).subject == "a"
        assert b"Doe" not in (tmp_path / name).read_bytes()
        assert b"patient-7" not in (tmp_path / name).read_bytes()
        write_scan(scan, tmp_path / name, force=True, keep_phi=True)
        back = read_scan(tmp_path / name)
        assert (back.subject, back.header["PatientName"]) == ("patient-7", "Doe")


def test_calgary_is_what_numpy_makes_of_pictures(tmp_path: Path) -> None:
    """Its challenge reads files so: interleaved numbers, ifft2 without any shift, magnitude."""
    random = np.random.default_rng(0)
    pictures = np.zeros((3, 24, 20, 2))  # slice, height, width, coil
    pictures[:, 5:18, 3:9] = random.random((3, 13, 6, 2)) + 1
    kspace = np.fft.fftshift(np.fft.fft2(pictures, axes=(1, 2)), axes=(1, 2))
    pairs = np.empty((3, 24, 20, 4), np.float32)
    pairs[..., ::2], pairs[..., 1::2] = kspace.real, kspace.imag
    scan = read_scan(fastmri_file(tmp_path / "e1.h5", pairs))
    found = ifft2(scan.kspace).abs() / np.sqrt(24 * 20)
    np.testing.assert_allclose(found.numpy(), pictures.transpose(0, 3, 1, 2), atol=1e-5)
    write_scan(scan, tmp_path / "back.h5", force=False, form="calgary")
    with h5py.File(tmp_path / "back.h5") as file:
        np.testing.assert_array_equal(file["kspace"][()], pairs)


def test_bart_dimensions_are_readout_phases_coil_and_slice(tmp_path: Path) -> None:
    values = np.arange(2 * 3 * 2, dtype=np.float32)
    (tmp_path / "b.hdr").write_text("# Dimensions\n1 2 3 2 1\n# Command\nfft\n")
    (values + 1j).astype(np.complex64).tofile(tmp_path / "b.cfl")
    scan = read_scan(tmp_path / "b")
    np.testing.assert_array_equal(
        scan.kspace[0].real.numpy(), values.reshape(2, 3, 2).transpose(0, 2, 1)
    )


def test_a_volume_of_bart_is_transformed_along_its_readout(tmp_path: Path) -> None:
    volume = noise(4, 6, 5, 2)
    shifted = np.fft.ifftshift(volume, axes=0)
    kspace = np.fft.fftshift(np.fft.fft(shifted, axis=0, norm="ortho"), axes=0)
    (tmp_path / "b.hdr").write_text("# Dimensions\n4 6 5 2\n")
    kspace.astype(np.complex64).ravel(order="F").tofile(tmp_path / "b.cfl")
    found = read_scan(tmp_path / "b.hdr").kspace.numpy()
    np.testing.assert_allclose(found, volume.transpose(0, 3, 1, 2), atol=1e-6)


def test_bart_without_its_other_half_names_it(tmp_path: Path) -> None:
    (tmp_path / "b.cfl").write_bytes(b"\0" * 8)
    with pytest.raises(UserError, match=r"b\.hdr: no such file; expected b\.hdr and b\.cfl"):
        read_scan(tmp_path / "b.cfl")
    (tmp_path / "b.hdr").write_text("# Dimensions\n2 2\n")
    with pytest.raises(UserError, match=r"8 bytes; b\.hdr says 2 x 2 complex numbers, 32 bytes"):
        read_scan(tmp_path / "b.cfl")
    (tmp_path / "b.hdr").write_text("hello\n")
    with pytest.raises(UserError, match="no line of sizes after '# Dimensions'"):
        read_scan(tmp_path / "b.cfl")


def test_bart_with_several_echoes_says_how_to_take_one(tmp_path: Path) -> None:
    (tmp_path / "b.hdr").write_text("# Dimensions\n1 2 3 2 1 2\n")
    noise(24).tofile(tmp_path / "b.cfl")
    with pytest.raises(UserError, match=r"dimension 5 \(echo time\) is 2 long.*bart slice 5 0"):
        read_scan(tmp_path / "b.cfl")


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_matlab_has_height_width_coil(tmp_path: Path, version: str) -> None:
    kspace = head(slices=1).kspace[0].numpy()
    path, values = tmp_path / "a.mat", kspace.transpose(1, 2, 0).astype(np.complex128)
    if version == "5":
        savemat(path, {"kspaceData": values, "im": values.real, "maps": values})
    else:
        with h5py.File(path, "w", userblock_size=512) as file:
            pairs = np.empty(values.T.shape, [("real", "<f8"), ("imag", "<f8")])
            pairs["real"], pairs["imag"] = values.T.real, values.T.imag
            file["kspaceData"], file["maps"] = pairs, pairs
        with path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file")
    np.testing.assert_array_equal(read_scan(path).kspace[0].numpy(), kspace)
    np.testing.assert_array_equal(read_scan(path / "maps").kspace[0].numpy(), kspace)


def test_matlab_with_several_complex_variables_asks_which(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"x": noise(4, 4), "y": noise(4, 4)})
    with pytest.raises(UserError, match=r"2 complex variables; found 'x' \(4, 4\).*a\.mat/NAME"):
        read_scan(tmp_path / "a.mat")


# Layouts


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 4)] * 4),
    names=st.permutations(["slice", "coil", "height", "width", "complex"]),
)
def test_any_order_of_axes_is_brought_into_ours(shape: tuple[int, ...], names: list[str]) -> None:
    kspace = noise(*shape)
    parts = np.stack([kspace.real, kspace.imag], -1)
    ours = ["slice", "coil", "height", "width", "complex"]
    array = parts.transpose([ours.index(name) for name in names])
    found = arranged(Path("a"), "x", array, layout_of(",".join(names)))
    np.testing.assert_array_equal(found, kspace)


def test_parts_beside_coils_are_pairs_or_halves() -> None:
    kspace = noise(2, 3, 4, 5)
    pairs = parted(kspace)
    found = arranged(Path("a"), "x", pairs, layout_of("slice,height,width,coil*complex"))
    np.testing.assert_array_equal(found, kspace)
    halves = np.concatenate([pairs[..., ::2], pairs[..., 1::2]], -1)
    found = arranged(Path("a"), "x", halves, layout_of("slice,height,width,complex*coil"))
    np.testing.assert_array_equal(found, kspace)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9))
def test_uncentred_is_what_numpy_makes_of_a_picture(height: int, width: int) -> None:
    picture = noise(height, width)
    kspace = np.fft.fft2(picture, norm="ortho")
    found = arranged(Path("a"), "x", kspace, layout_of("uncentred:height,width"))
    ours = ifft2(torch.from_numpy(found.astype(np.complex64)))
    np.testing.assert_allclose(ours[0, 0].numpy(), picture, atol=1e-5)
    np.testing.assert_allclose(turned(turned(kspace), inverse=True), kspace, atol=1e-6)


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ("height,widht", r"unknown axis 'widht'; did you mean 'width'\?"),
        ("slice,coil,height", "expected height, width and each axis once"),
        ("coil,coil*complex,height,width", "each axis once"),
    ],
)
def test_a_layout_that_is_none_is_refused(layout: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        layout_of(layout)


def test_a_layout_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((4, 5, 3), np.float32))
    with pytest.raises(UserError, match=r"3 axes.*names 5"):
        read_scan(path, layout="slice,coil,height,width,complex")
    with pytest.raises(UserError, match=r"axis 2 \(complex\) is 3 long; expected 2"):
        read_scan(path, layout="height,width,complex")
    with pytest.raises(UserError, match="add 'complex'"):
        read_scan(path, layout="coil,height,width")
    np.save(path, noise(2, 4, 5))
    with pytest.raises(UserError, match="take out 'complex'"):
        read_scan(path, layout="complex,height,width")


# Masks and maps of their own files


def test_a_mask_samples_a_full_scan(tmp_path: Path) -> None:
    scan, mask = head(), np.zeros((16, 18), bool)
    mask[4:12, 5:14] = True
    write_scan(scan, tmp_path / "a.h5", force=False)
    np.save(tmp_path / "m.npy", mask)
    back = read_scan(tmp_path / "a.h5", mask=tmp_path / "m.npy")
    assert torch.equal(back.mask, torch.from_numpy(mask)[None])
    assert torch.equal(back.kspace, scan.kspace * back.mask[:, None])


def test_a_mask_that_disagrees_with_the_zeros_says_how_much(tmp_path: Path) -> None:
    mask = np.ones((16, 18), np.uint8)
    kspace = head().kspace.numpy().copy()
    kspace[..., :9, :4] = 0  # an eighth
    path = fastmri_file(tmp_path / "a.h5", kspace, mask=mask)
    with pytest.raises(
        UserError,
        match=r"a\.h5: mask: disagrees .* at 12\.5% of the positions: 12\.5% .* but zero, 0\.0%",
    ):
        read_scan(path)
    np.save(tmp_path / "a.npy", kspace)
    np.save(tmp_path / "m.npy", mask)
    with pytest.raises(UserError, match=r"m\.npy: mask: disagrees .* 12\.5%"):
        read_scan(tmp_path / "a.npy", mask=tmp_path / "m.npy")


def test_a_mask_of_another_shape_or_with_weights_is_refused(tmp_path: Path) -> None:
    write_scan(head(), tmp_path / "a.npy", force=False)
    for array, words in (
        (np.ones((16, 16)), r"shape \(16, 16\); k-space is 16 x 18"),
        (np.full((16, 18), 0.5), "values other than 0 and 1"),
        (np.zeros((16, 18)), "samples nothing"),
    ):
        np.save(tmp_path / "m.npy", array)
        with pytest.raises(UserError, match=words):
            read_scan(tmp_path / "a.npy", mask=tmp_path / "m.npy")


@pytest.mark.parametrize("form", ["cfl", "npy", "h5", "npz"])
def test_maps_come_from_any_format(tmp_path: Path, form: str) -> None:
    scan, maps = head(), noise(1, 2, 16, 18, seed=3)
    write_scan(scan, tmp_path / "a.npy", force=False)
    path = tmp_path / f"s.{form}"
    if form == "cfl":
        bart.write_array(path, maps, force=False)
    elif form == "npy":
        np.save(path, maps[0])
    elif form == "npz":
        np.savez(path, s=maps)
    else:
        with h5py.File(path, "w") as file:
            file["sensitivity_map"] = maps
    back = read_scan(tmp_path / "a.npy", maps=path)
    assert torch.equal(back.maps, torch.from_numpy(maps).expand(2, -1, -1, -1))


def test_maps_of_other_coils_are_refused(tmp_path: Path) -> None:
    write_scan(head(), tmp_path / "a.npy", force=False)
    np.save(tmp_path / "s.npy", noise(3, 16, 18))
    with pytest.raises(UserError, match=r"s\.npy: maps: shape .*3, 16, 18\); k-space is \(2, 2"):
        read_scan(tmp_path / "a.npy", maps=tmp_path / "s.npy")


# Bad input


def test_a_missing_dataset_names_what_is_there(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/ksp"] = noise(1, 2, 4, 4)
    with pytest.raises(
        UserError, match=r"no dataset 'kspace'; found 'group/ksp' \(1, 2, 4, 4\) complex64; name"
    ):
        read_scan(tmp_path / "a.h5")
    assert read_scan(tmp_path / "a.h5/group/ksp").kspace.shape == (1, 2, 4, 4)


def test_a_file_of_pictures_is_told_from_kspace(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["reconstruction"] = np.ones((1, 4, 4), np.float32)
    with pytest.raises(UserError, match="which are pictures; expected k-space"):
        read_scan(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((3, 2, 16, 18, 2), "slice,coil,height,width,complex"),
        ((2, 3, 16, 18), "complex,coil,height,width"),
        ((16, 18, 6), r"height,width,coil\*complex"),
    ],
)
def test_real_kspace_is_explained(tmp_path: Path, shape: tuple[int, ...], layout: str) -> None:
    np.save(tmp_path / "a.npy", np.ones(shape, np.float32))
    with pytest.raises(UserError, match=f"real numbers .float32.*--layout {layout}.*simulate"):
        read_scan(tmp_path / "a.npy")
    read_scan(tmp_path / "a.npy", layout=layout.replace("\\", ""))


@pytest.mark.parametrize("name", ["a.h5", "a.npy", "a.cfl", "a.mrd"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_names_its_slice(
    tmp_path: Path, name: str, value: float
) -> None:
    scan = head()
    scan.kspace[1, 1, 3, 4] = value
    write_scan(scan, tmp_path / name, force=False)
    with pytest.raises(UserError, match=r"slice 1: 1 of 576 values are NaN or infinite"):
        read_scan(tmp_path / name)


def test_numbers_too_large_for_single_precision_are_not_finite(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((2, 4, 4), 1e300 + 0j))
    with pytest.raises(UserError, match="slice 0: 32 of 32 values are NaN or infinite"):
        read_scan(tmp_path / "a.npy")


@pytest.mark.parametrize("name", ["a.h5", "a.mrd", "a.npy", "a.npz", "a.mat"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.6])
def test_a_damaged_file_is_one_line(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    if name.endswith(".mat"):
        savemat(path, {"kspace": noise(16, 18)})
    else:
        write_scan(head(), path, force=False)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=name) as caught:
        read_scan(path)
    assert "\n" not in str(caught.value)
    assert "again" in str(caught.value)


def test_text_named_h5_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_text("404: Not Found")
    with pytest.raises(UserError, match="no HDF5 file, although it ends so"):
        read_scan(tmp_path / "a.h5")


def test_folders_and_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a folder; expected a file of k-space"):
        read_scan(tmp_path)
    with pytest.raises(UserError, match=r"b\.h5: no such file"):
        read_scan(tmp_path / "b.h5")


@pytest.mark.parametrize("shape", [(4,), (1, 1, 2, 3, 4), (0, 2, 4, 4)])
def test_other_numbers_of_axes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", noise(*shape))
    with pytest.raises(
        UserError, match=r"expected \(slice, coil, height, width\), none of them 0"
    ):
        read_scan(tmp_path / "a.npy")


def test_an_array_of_objects_is_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object))
    with pytest.raises(UserError, match="or one of objects"):
        read_scan(tmp_path / "a.npy")


def test_kspace_of_zeros_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 4, 4), np.complex64))
    with pytest.raises(UserError, match="all zero"):
        read_scan(tmp_path / "a.npy")


def test_uncentred_kspace_is_noticed(tmp_path: Path) -> None:
    shifted = np.fft.ifftshift(head().kspace.numpy(), axes=(-2, -1))
    np.save(tmp_path / "a.npy", shifted)
    with pytest.raises(UserError, match=r"zero frequency seems to be at index 0.*--layout uncent"):
        read_scan(tmp_path / "a.npy")
    found = read_scan(tmp_path / "a.npy", layout=f"uncentred:{LAYOUTS['fastmri']}").kspace
    np.testing.assert_array_equal(found.abs().numpy(), head().kspace.abs().numpy())


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.dcm", b"\0" * 128 + b"DICM"),
        ("a.nii", (348).to_bytes(4, "little") + b"\0" * 400),
        ("a.nii.gz", b"\x1f\x8b"),
        ("a.png", b"\x89PNG\r\n\x1a\n"),
    ],
)
def test_magnitude_is_only_for_simulate(tmp_path: Path, name: str, start: bytes) -> None:
    (tmp_path / name).write_bytes(start)
    with pytest.raises(UserError, match=r"magnitude; k-space cannot be had.*mri simulate"):
        read_scan(tmp_path / name)
