from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from core.contract import Batches
from domains.mri.config import Config, Data, MRITraining
from domains.mri.data.batches import SliceBatches, Slices, batches, turned
from domains.mri.data.fourier import fft2, ifft2
from domains.mri.data.store import prepare

SIZE = 31  # odd


def settings(path: Path, seed: int = 0, batch: int = 3, **data: object) -> Config:
    given = {
        "source": "volumes", "path": str(path), "size": SIZE, "fov_mm": 44.0, "coils": 4,
        "coil_sets": 5, "masks": 3, "test_masks": 2, "accelerations": (2.0, 4.0), "acs": 6,
        "sampling": "gaussian-2d", "test_slices": 3, "valid_slices": 2, "axes": ("axial",),
        "valid_subjects": ("b",), "test_subjects": ("c",), **data,
    }  # fmt: skip
    training = MRITraining(batch=batch)
    return Config(name="b", seed=seed, data=Data.model_validate(given), training=training)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("heads")
    places = np.stack(np.meshgrid(*[np.linspace(-1, 1, 40)] * 3, indexing="ij"))
    for number, name in enumerate("abc"):
        radius = (places**2).sum(0) + 0.1 * number * places[0]
        values = np.where(radius < 0.6, 0.6 + 0.4 * np.sin(5 * places).prod(0), 0)
        nibabel.save(
            nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), path / f"{name}.nii"
        )
    return path


@pytest.fixture(scope="module")
def folder(heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prepared")
    prepare(settings(heads), path)
    return path


def of_split(heads: Path, folder: Path, split: str, **given: object) -> SliceBatches:
    return batches(settings(heads, **given), folder, split)  # pyright: ignore[reportArgumentType]


def same(a: Slices, b: Slices) -> bool:
    return torch.equal(a.kspace, b.kspace) and torch.equal(a.mask, b.mask) and a.names == b.names


def test_batches_are_what_the_contract_asks_for(heads: Path, folder: Path) -> None:
    assert isinstance(of_split(heads, folder, "train"), Batches)


def test_a_batch_depends_on_seed_epoch_and_index_alone(heads: Path, folder: Path) -> None:
    first = of_split(heads, folder, "train")
    late = first.batch(3, 1)
    np.random.seed(4)
    torch.manual_seed(4)
    fresh = of_split(heads, folder, "train")
    assert same(fresh.batch(3, 1), late)
    assert not same(fresh.batch(4, 1), late)
    assert not same(of_split(heads, folder, "train", seed=1).batch(3, 1), late)


def test_an_epoch_sees_every_train_slice_at_most_once(heads: Path, folder: Path) -> None:
    found = of_split(heads, folder, "train")
    names = [name for index in range(len(found)) for name in found.batch(0, index).names]
    assert len(set(names)) == len(names)
    assert len(names) == len(found.examples) // 3 * 3


def test_validation_and_test_are_fixed_whatever_the_seed(heads: Path, folder: Path) -> None:
    for split in ("valid", "test"):
        first, other = (of_split(heads, folder, split, seed=seed) for seed in (0, 7))
        for index in range(len(first)):
            assert same(first.batch(0, index), other.batch(5, index))


def test_test_slices_are_seen_at_every_acceleration(heads: Path, folder: Path) -> None:
    found = of_split(heads, folder, "test")
    seen = [
        (name, float(acceleration))
        for index in range(len(found))
        for name, acceleration in zip(
            found.batch(0, index).names, found.batch(0, index).acceleration, strict=True
        )
    ]
    assert len(seen) == len(set(seen)) == 2 * 3
    assert {acceleration for _, acceleration in seen} == {2.0, 4.0}


def test_the_mask_has_the_acceleration_that_is_said(heads: Path, folder: Path) -> None:
    batch = of_split(heads, folder, "train").batch(0, 0)
    for mask, acceleration in zip(batch.mask, batch.acceleration, strict=True):
        assert int(mask.sum()) == round(SIZE * SIZE / float(acceleration))


def test_kspace_is_the_truth_seen_by_the_coils_with_the_noise_that_is_said(
    heads: Path, folder: Path
) -> None:
    batch = of_split(heads, folder, "train", batch=6, noise_correlation=0.3).batch(0, 0)
    assert batch.maps is not None
    assert batch.noise_covariance is not None
    clean = fft2(batch.maps * batch.truth[:, None]) * batch.mask[:, None]
    residual = batch.kspace - clean
    assert not batch.kspace[~batch.mask[:, None].expand_as(batch.kspace)].any()
    for noise, mask, covariance in zip(residual, batch.mask, batch.noise_covariance, strict=True):
        drawn = noise[:, mask]
        found = drawn @ drawn.conj().T / drawn.shape[1]
        error = torch.linalg.matrix_norm(found - covariance)
        assert error < 0.5 * torch.linalg.matrix_norm(covariance)


def test_the_noise_of_the_test_is_as_strong_as_asked(heads: Path, folder: Path) -> None:
    batch = of_split(heads, folder, "test", test_snr_db=20.0).batch(0, 0)
    assert batch.noise_covariance is not None
    for truth, covariance in zip(batch.target, batch.noise_covariance, strict=True):
        tissue = truth[truth > 0.1 * truth.max()].mean()
        deviation = covariance.diagonal().real.mean().sqrt()
        assert float(20 * torch.log10(tissue / deviation)) == pytest.approx(20, abs=1e-3)


def test_test_slices_keep_their_contrast(heads: Path, folder: Path) -> None:
    found = of_split(heads, folder, "test", contrast=1.0)
    batch = found.batch(0, 0)
    stored = found.dataset.array("images.npy")
    rows = [one.item.entry.first + one.item.place for one in found.examples[:3]]
    torch.testing.assert_close(batch.target, torch.from_numpy(np.array(stored[rows])))


def test_coils_of_the_test_are_not_trained_on(heads: Path, folder: Path) -> None:
    train, test = (of_split(heads, folder, split) for split in ("train", "test"))
    sets = np.array(train.dataset.array("coils.npy")[:5])
    for index in range(len(test)):
        maps = test.batch(0, index).maps
        assert maps is not None
        assert not any(np.array_equal(one, other) for one in maps.numpy() for other in sets)


def test_train_slices_vary_from_epoch_to_epoch(heads: Path, folder: Path) -> None:
    found = of_split(heads, folder, "train", batch=1)
    seen: dict[str, list[Slices]] = {}
    for epoch in range(2):
        for index in range(len(found)):
            batch = found.batch(epoch, index)
            seen.setdefault(batch.names[0], []).append(batch)
    assert all(not torch.equal(a.kspace, b.kspace) for a, b in seen.values())


def test_nothing_is_varied_that_is_not_asked_for(heads: Path, folder: Path) -> None:
    given = {"contrast": 0.0, "flips": False, "phase_rad": 0.0, "batch": 1}
    found = of_split(heads, folder, "train", **given)
    rows = {item.name: item for item in found.dataset.items("train")}
    batch = found.batch(0, 0)
    item = rows[batch.names[0]]
    stored = np.array(found.dataset.array("images.npy")[item.entry.first + item.place])
    torch.testing.assert_close(batch.target[0], torch.from_numpy(stored))


def test_moving_to_a_device_keeps_everything(heads: Path, folder: Path) -> None:
    batch = of_split(heads, folder, "valid").batch(0, 0)
    moved = batch.to("cpu")
    assert same(batch, moved)
    assert len(moved) == len(moved.names) == len(moved.subjects)
    assert moved.to("meta").kspace.device.type == "meta"


def test_the_eight_ways_to_lay_a_picture_are_eight() -> None:
    picture = np.arange(9, dtype=np.float32).reshape(3, 3)
    ways = {turned(picture, turn).tobytes() for turn in range(8)}
    assert len(ways) == 8
    assert turned(picture, 0).tobytes() == picture.tobytes()


def test_more_samples_bring_zero_filling_nearer_to_the_truth(heads: Path, folder: Path) -> None:
    found = of_split(heads, folder, "test", batch=2)
    batch = found.batch(0, 0)
    assert batch.names[0] == batch.names[1]
    root = ifft2(batch.kspace).abs().square().sum(1).sqrt()
    errors = (root - batch.target).square().mean((1, 2))
    assert batch.acceleration.tolist() == [2.0, 4.0]
    assert errors[0] < errors[1]
