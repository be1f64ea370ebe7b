from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageCms

from core.runtime.errors import UserError
from domains.compression.data.errors import TooLarge
from domains.compression.data.pictures import TURNED, read_picture, write_picture
from domains.compression.data.records import Picture
from domains.compression.data.sources import pictures_below

LOSSLESS = [".png", ".webp", ".tiff", ""]
EXIF_ORIENTATION = 0x0112


def noise(height: int = 5, width: int = 7, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def saved(path: Path, image: Image.Image | np.ndarray, **options: Any) -> Path:
    made = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    made.save(path, **options)
    return path


def rows(picture: Picture) -> np.ndarray:
    return picture.pixels.permute(1, 2, 0).numpy()


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def with_red_and_green_swapped(profile: bytes) -> bytes:
    """A profile of RGB that is not sRGB: its primaries of red and green in each other's place."""
    data = bytearray(profile)
    (count,) = struct.unpack(">I", data[128:132])
    tags = {bytes(data[at : at + 4]): at for at in range(132, 132 + 12 * count, 12)}
    red, green = tags[b"rXYZ"] + 4, tags[b"gXYZ"] + 4
    data[red : red + 8], data[green : green + 8] = data[green : green + 8], data[red : red + 8]
    return bytes(data)


def ink_profile() -> bytes:
    """A profile of CMYK in which black ink alone counts: CIE L* falls evenly from 100 to 0."""
    identity = bytes(range(256))
    corners = b"".join(
        bytes([0 if index & 1 else 255, 128, 128])
        for index in range(16)  # black is the last
    )
    matrix = struct.pack(">9i", *(65536 if index % 4 == 0 else 0 for index in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + identity * 4 + corners
    table += identity * 3
    text = b"text" + bytes(4) + b"none\0" + bytes(3)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    parts = [(b"A2B0", table), (b"cprt", text), (b"wtpt", white)]
    start, listed, body = 128 + 4 + 12 * len(parts), b"", b""
    for name, part in parts:
        listed += name + struct.pack(">II", start + len(body), len(part))
        body += part + bytes(-len(part) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12s4s4s44xIII", start + len(body), bytes(4), 0x02400000, b"prtr", b"CMYK",
        b"Lab ", bytes(12), b"acsp", bytes(4), 0, 0, 0,
    )  # fmt: skip
    header = header[:68] + struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    return header + struct.pack(">I", len(parts)) + listed + body


def srgb_of_lightness(lightness: float) -> float:
    """The grey level that a CIE lightness is in sRGB."""
    luminance = ((lightness + 16) / 116) ** 3
    return 255 * (1.055 * luminance ** (1 / 2.4) - 0.055)


# What is read


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (3, 5), (257, 1)])
@pytest.mark.parametrize("ending", LOSSLESS)
def test_any_size_comes_back_as_it_was_written(
    tmp_path: Path, size: tuple[int, int], ending: str
) -> None:
    picture = Picture(pixels=torch.from_numpy(noise(*size)).permute(2, 0, 1).contiguous())
    path = tmp_path / f"picture{ending}"
    write_picture(path, picture)
    found = read_picture(path)
    assert (found.height, found.width) == size
    assert torch.equal(found.pixels, picture.pixels)
    assert (found.alpha, found.profile, found.grey, found.notes) == (None, None, False, ())


@settings(max_examples=30, deadline=None)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(4))),
    st.sampled_from([".png", ".webp", ".tiff"]),
)
def test_opacity_comes_back_with_the_colours_below_it(
    tmp_path_factory: pytest.TempPathFactory, values: np.ndarray, ending: str
) -> None:
    planes = torch.from_numpy(values).permute(2, 0, 1).contiguous()
    path = tmp_path_factory.mktemp("opacity") / f"picture{ending}"
    write_picture(path, Picture(pixels=planes[:3], alpha=planes[3]))
    found = read_picture(path)
    assert torch.equal(found.pixels, planes[:3])
    if (values[..., 3] == 255).all():
        assert found.alpha is None
    else:
        assert found.alpha is not None
        assert torch.equal(found.alpha, planes[3])


def test_a_grey_picture_is_marked_so_and_written_so(tmp_path: Path) -> None:
    levels = noise(channels=1)
    found = read_picture(saved(tmp_path / "grey.png", levels))
    assert found.grey
    assert (found.pixels.numpy() == levels).all()
    write_picture(tmp_path / "again.png", found)
    with Image.open(tmp_path / "again.png") as again:
        assert again.mode == "L"
        assert (np.asarray(again) == levels).all()


def test_black_and_white_is_0_and_255(tmp_path: Path) -> None:
    levels = np.where(noise(channels=1) > 127, 255, 0).astype(np.uint8)
    found = read_picture(saved(tmp_path / "line.png", Image.fromarray(levels).convert("1")))
    assert found.grey
    assert (found.pixels.numpy() == levels).all()


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    found = read_picture(saved(tmp_path / "palette.png", image))
    assert rows(found).tolist() == [[[10, 20, 30], [40, 50, 60]], [[70, 80, 90], [40, 50, 60]]]
    assert found.alpha is None
    assert not found.grey


def test_a_palette_with_transparent_entries_has_opacity(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    found = read_picture(saved(tmp_path / "p.png", image, transparency=bytes([0, 128, 255])))
    assert rows(found)[0, 0].tolist() == [10, 20, 30]
    assert found.alpha is not None
    assert found.alpha.tolist() == [[0, 128], [255, 128]]


def test_a_transparent_colour_is_opacity_0_where_it_is(tmp_path: Path) -> None:
    values = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    found = read_picture(saved(tmp_path / "key.png", values, transparency=(4, 5, 6)))
    assert found.alpha is not None
    assert found.alpha.tolist() == [[255, 0]]
    assert (rows(found) == values).all()


def test_a_transparent_level_of_grey_is_opacity_0_where_it_is(tmp_path: Path) -> None:
    levels = np.array([[7, 8, 7]], np.uint8)
    found = read_picture(saved(tmp_path / "key.png", levels, transparency=7))
    assert found.grey
    assert found.alpha is not None
    assert found.alpha.tolist() == [[0, 255, 0]]


def test_grey_with_opacity_stays_grey(tmp_path: Path) -> None:
    values = noise(channels=2)
    path = saved(tmp_path / "la.png", Image.fromarray(values, mode="LA"))
    found = read_picture(path)
    assert found.grey
    assert found.alpha is not None
    assert (found.alpha.numpy() == values[..., 1]).all()
    assert (found.pixels[0].numpy() == values[..., 0]).all()


def test_opacity_of_255_throughout_is_none(tmp_path: Path) -> None:
    values = noise(channels=4)
    values[..., 3] = 255
    assert read_picture(saved(tmp_path / "opaque.png", values)).alpha is None


def test_cmyk_without_a_profile_is_what_paper_leaves_of_white(tmp_path: Path) -> None:
    inks = noise(channels=4)
    found = read_picture(saved(tmp_path / "inks.tif", Image.fromarray(inks, mode="CMYK")))
    cyan_magenta_yellow, black = inks[..., :3].astype(float), inks[..., 3:].astype(float)
    expected = (255 - cyan_magenta_yellow) * (255 - black) / 255
    assert np.abs(rows(found) - expected).max() <= 1
    assert found.notes == ("converted from CMYK to sRGB by the usual formula",)


def test_cmyk_with_a_profile_becomes_what_the_profile_says(tmp_path: Path) -> None:
    black = np.array([[0, 51, 102, 153, 204]], np.uint8)
    inks = np.stack([np.full_like(black, 99)] * 3 + [black], axis=-1)
    image = Image.fromarray(inks, mode="CMYK")
    found = read_picture(saved(tmp_path / "inks.tif", image, icc_profile=ink_profile()))
    expected = [srgb_of_lightness(100 - 100 * ink / 255) for ink in black[0].tolist()]
    assert np.abs(rows(found)[0] - np.array(expected)[:, None]).max() <= 1.5
    assert found.notes == ("converted from CMYK to sRGB by its ICC profile",)
    assert found.profile is None


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", [".png", ".webp", ".tiff", ".jpg"])
def test_a_picture_is_turned_as_its_camera_was_held(
    tmp_path: Path, orientation: int, ending: str
) -> None:
    upright = np.zeros((16, 32), np.uint8)
    upright[:8, :16] = 255  # one corner white, and the sides differ
    undo = {
        1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud, 5: np.transpose,
        6: lambda x: np.rot90(x, 1), 7: lambda x: np.rot90(x.T, 2), 8: lambda x: np.rot90(x, 3),
    }  # fmt: skip
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    quality = {"lossless": True} if ending == ".webp" else {}
    found = read_picture(saved(tmp_path / f"held{ending}", stored, exif=exif, **quality))
    assert np.abs(found.pixels[0].numpy().astype(int) - upright).max() <= 3
    assert any("EXIF" in note for note in found.notes) == (orientation in TURNED)


def test_a_profile_of_other_colours_is_kept_byte_for_byte(tmp_path: Path) -> None:
    profile = with_red_and_green_swapped(srgb())
    found = read_picture(saved(tmp_path / "wide.png", noise(), icc_profile=profile))
    assert found.profile == profile
    assert (rows(found) == noise()).all()
    for ending in (".png", ".webp", ".tiff", ".jpg"):
        write_picture(tmp_path / f"again{ending}", found)
        assert read_picture(tmp_path / f"again{ending}").profile == profile


def test_the_profile_of_srgb_is_not_kept(tmp_path: Path) -> None:
    found = read_picture(saved(tmp_path / "plain.png", noise(), icc_profile=srgb()))
    assert found.profile is None
    assert (rows(found) == noise()).all()


def test_a_damaged_profile_is_left_out_with_a_note(tmp_path: Path) -> None:
    found = read_picture(saved(tmp_path / "p.png", noise(), icc_profile=b"no profile" * 20))
    assert found.profile is None
    assert found.notes == ("its ICC profile is damaged and left out; taken for sRGB",)


def test_a_profile_of_inks_on_colours_is_left_out_with_a_note(tmp_path: Path) -> None:
    found = read_picture(saved(tmp_path / "p.png", noise(), icc_profile=ink_profile()))
    assert found.profile is None
    assert found.notes == ("its ICC profile is of CMYK, not of RGB, and left out",)


def test_of_an_animation_the_first_picture_is_read(tmp_path: Path) -> None:
    first, second = noise(seed=1), noise(seed=2)
    more = [Image.fromarray(second)]
    path = saved(tmp_path / "moving.png", first, save_all=True, append_images=more)
    found = read_picture(path)
    assert (rows(found) == first).all()
    assert found.notes == ("the first of 2 pictures in the file; the others are left out",)


def test_an_animated_gif_is_read_with_its_colours(tmp_path: Path) -> None:
    flat = [Image.new("RGB", (4, 4), colour) for colour in ("#102030", "#405060", "#708090")]
    path = saved(tmp_path / "moving.gif", flat[0], save_all=True, append_images=flat[1:])
    found = read_picture(path)
    assert (rows(found) == [0x10, 0x20, 0x30]).all()
    assert "the first of 3" in found.notes[0]


def test_of_a_stereo_photograph_the_first_picture_is_read(tmp_path: Path) -> None:
    left, right = Image.new("RGB", (8, 8), "#808080"), Image.new("RGB", (8, 8), "#ffffff")
    path = saved(tmp_path / "stereo.jpg", left, format="MPO", save_all=True, append_images=[right])
    found = read_picture(path)
    assert np.abs(rows(found).astype(int) - 0x80).max() <= 1
    assert found.notes == ("the first of 2 pictures in the file; the others are left out",)


def test_the_content_of_a_file_decides_not_its_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "picture.jpg", noise(), format="PNG")
    assert (rows(read_picture(path)) == noise()).all()


# Arrays


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_an_array_of_bytes_is_a_picture_as_it_is(tmp_path: Path, channels: int) -> None:
    values = noise(channels=channels)
    np.save(tmp_path / "a.npy", values)
    found = read_picture(tmp_path / "a.npy")
    assert found.grey == (channels < 3)
    assert (found.alpha is not None) == (channels % 2 == 0)
    colour = values[..., None] if channels == 1 else values[..., : 1 if channels == 2 else 3]
    assert (rows(found) == colour).all()


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_an_array_of_floats_is_rounded_to_the_nearest_of_256(
    tmp_path: Path, kind: type[np.floating]
) -> None:
    values = (noise().astype(np.float64) / 255).astype(kind)
    np.save(tmp_path / "a.npy", values)
    assert (rows(read_picture(tmp_path / "a.npy")) == noise()).all()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array([[0.5, np.nan]]), "row 0, column 1: [nan] is not finite"),
        (np.array([[0.5], [np.inf]]), "row 1, column 0: [inf] is not finite"),
        (np.array([[0.0, 1.5]]), "floats from 0 to 1.5; expected 0 to 1"),
        (np.array([[-0.1, 1.0]]), "floats from -0.1 to 1; expected 0 to 1"),
        (np.array([[1, 2]]), "an array of int64"),
        (np.array([[1, 2]], np.uint16), "an array of uint16"),
        (np.array([[True]]), "an array of bool"),
        (np.zeros((2, 2), dtype=[("red", "u1")]), "an array of [('red', 'u1')]"),
        (np.zeros((2, 2, 5), np.uint8), "shape (2, 2, 5)"),
        (np.zeros(4, np.uint8), "shape (4,)"),
        (np.zeros((0, 4), np.uint8), "4 x 0 pixels"),
    ],
)
def test_an_array_that_is_no_picture_is_refused(
    tmp_path: Path, values: np.ndarray, said: str
) -> None:
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(UserError) as error:
        read_picture(tmp_path / "a.npy")
    assert said in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "a.npy"))


def test_an_array_of_python_objects_is_never_loaded(tmp_path: Path) -> None:
    class Marks:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    array = np.empty((1, 1), dtype=object)
    array[0, 0] = Marks()
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match="an array of object"):
        read_picture(tmp_path / "a.npy")
    assert not (tmp_path / "executed").exists()


def test_an_array_is_as_large_as_its_header_says_or_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (1_000_000, 1_000_000)}
    np.lib.format.write_array_header_1_0(file, header)
    (tmp_path / "bomb.npy").write_bytes(file.getvalue())
    with pytest.raises(TooLarge, match="1000000 x 1000000"):
        read_picture(tmp_path / "bomb.npy")


# What is refused


@pytest.mark.parametrize("ending", [".png", ".tiff"])
def test_16_bits_are_refused_and_not_cut(tmp_path: Path, ending: str) -> None:
    image = Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000)
    with pytest.raises(UserError, match="16 bits of each colour; expected 8"):
        read_picture(saved(tmp_path / f"deep{ending}", image))


def test_colours_of_16_bits_are_refused_though_the_decoder_would_cut_them(tmp_path: Path) -> None:
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    body = zlib.compress(b"\0" + bytes(range(12)))
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", body), chunk(b"IEND", b"")]
    path = tmp_path / "deep.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with Image.open(path) as image:
        assert image.mode == "RGB"
    with pytest.raises(UserError, match="16 bits of each colour; expected 8"):
        read_picture(path)


def test_a_ppm_of_16_bits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.ppm"
    path.write_bytes(b"P6\n# a comment\n2 1\n65535\n" + bytes(12))
    with pytest.raises(UserError, match="16 bits of each colour"):
        read_picture(path)


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    image = Image.fromarray(np.ones((2, 2), np.float32))
    with pytest.raises(UserError, match="floating-point pixels; expected 8 bits"):
        read_picture(saved(tmp_path / "float.tiff", image))


def test_a_bomb_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "large.png", Image.new("L", (3000, 2000)))

    def never(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    with pytest.raises(TooLarge) as error:
        read_picture(path, max_pixels=5_999_999)
    assert "3000 x 2000 is 6,000,000 pixels; allowed are 5,999,999" in str(error.value)
    assert "--max-pixels 6000000" in str(error.value)


def test_as_many_pixels_as_allowed_are_read_whatever_pillow_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    found = read_picture(saved(tmp_path / "a.png", noise(6, 6)), max_pixels=36)
    assert found.pixels.shape == (3, 6, 6)
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize(
    "ending", [".png", ".jpg", ".webp", ".tiff", ".gif", ".bmp", ".ppm", ".npy"]
)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_truncated_file_is_refused_or_read_whole(
    tmp_path: Path, ending: str, share: float
) -> None:
    values, path = noise(40, 50), tmp_path / f"cut{ending}"
    if ending == ".npy":
        np.save(path, values)
    else:
        saved(path, values)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match=r"damaged|no picture that can be read"):
        read_picture(path)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"]), st.data())
def test_a_file_with_wrong_bytes_is_a_picture_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    file = io.BytesIO()
    Image.fromarray(noise(9, 11)).save(file, kind)
    content = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("wrong") / "picture"
    path.write_bytes(content)
    said = refusal(path)
    assert said is None or (said.startswith(str(path)) and "\n" not in said)


def refusal(path: Path) -> str | None:
    """What is said about a file that is not read; whatever is no error of the user passes."""
    try:
        read_picture(path, max_pixels=10_000)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty; expected a picture"),
        (b"no picture at all", "of no known format"),
        (b"%PDF-1.4\n%%EOF", "expected one of PNG, JPEG"),
        (b"\x93NUMPY\x01\x00", "damaged .npy file"),
        (b"\x93NUMPY\x09\x00" + bytes(50), "damaged .npy file"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "picture.png").write_bytes(content)
    with pytest.raises(UserError) as error:
        read_picture(tmp_path / "picture.png")
    assert said in str(error.value)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a folder; expected a file"):
        read_picture(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.png: no such file"):
        read_picture(tmp_path / "missing.png")


# What is written


def plain(**more: Any) -> Picture:
    return Picture(pixels=torch.from_numpy(noise()).permute(2, 0, 1).contiguous(), **more)


def test_a_file_that_is_there_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")
    with pytest.raises(UserError, match="--force"):
        write_picture(path, plain())
    assert path.read_bytes() == b"precious"
    write_picture(path, plain(), force=True)
    assert (rows(read_picture(path)) == noise()).all()


def test_a_jpeg_holds_no_opacity(tmp_path: Path) -> None:
    opacity = torch.zeros(5, 7, dtype=torch.uint8)
    with pytest.raises(UserError, match="a JPEG file holds no opacity"):
        write_picture(tmp_path / "a.jpg", plain(alpha=opacity))
    assert not list(tmp_path.iterdir())


def test_an_unknown_ending_is_refused_with_those_that_are_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'\.bmp' is no ending .* \.png, \.jpg"):
        write_picture(tmp_path / "a.bmp", plain())


def test_a_picture_that_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    wide = Picture(pixels=torch.zeros(3, 1, 16_384, dtype=torch.uint8))
    with pytest.raises(UserError, match="WEBP cannot hold this picture of 16384 x 1"):
        write_picture(tmp_path / "a.webp", wide)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(UserError, match="a folder; give the name of a file"):
        write_picture(tmp_path / "a.png", plain(), force=True)


def test_the_same_picture_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_picture(tmp_path / name, plain())
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


# Folders


def test_pictures_below_a_folder_are_found_by_name_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    for name in ("b.PNG", "deep/deeper/a.jpg", ".hidden/c.png", "deep/.d.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    found = [path.relative_to(tmp_path).as_posix() for path in pictures_below(tmp_path)]
    assert found == ["b.PNG", "deep/deeper/a.jpg"]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no picture in this folder; expected"):
        pictures_below(tmp_path)
    with pytest.raises(UserError, match=r"data\.test: .*: no such folder"):
        pictures_below(tmp_path / "missing", "data.test")
