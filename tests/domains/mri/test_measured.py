from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from core.runtime.errors import UserError
from domains.mri.config import Config, Data, MRITraining
from domains.mri.data import formats, store
from domains.mri.data.batches import batches
from domains.mri.data.coils import plane
from domains.mri.data.manifest import load
from domains.mri.data.records import Scan
from domains.mri.data.simulation import simulated_scan
from domains.mri.data.splits import SPLITS

READ_FULL = store.read_full
SHAPES = {"a": (4, 20, 20), "b": (3, 20, 17), "c": (4, 20, 20), "d": (4, 20, 20)}


def scan_of(name: str, coils: int = 3) -> Scan:
    """A disc in slices, the last of them empty."""
    count, *shape = SHAPES[name]
    disc = ((plane((shape[0], shape[1]))[..., :2] ** 2).sum(-1) < 0.4).astype(np.float32)
    pictures = np.stack([disc] * (count - 1) + [0 * disc])
    scan = simulated_scan(
        pictures,
        torch.ones(shape[0], shape[1], dtype=torch.bool),
        name=name,
        subject=name,
        coils=coils,
        snr_db=200.0,
        noise_correlation=0.0,
        phase_rad=0.5,
        spacing_mm=(5.0, 1.0, 1.0),
        random=np.random.default_rng(ord(name)),
    )
    scan.kspace[-1] = 0
    return scan


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    for name in SHAPES:
        (tmp_path / f"{name}.h5").write_text(name)
    monkeypatch.setattr(store, "read_full", lambda path: scan_of(path.stem))
    data = Data(
        source="kspace",
        path=str(tmp_path),
        valid_subjects=("c",),
        test_subjects=("d",),
        accelerations=(2.0,),
        acs=4,
        masks=2,
        test_masks=2,
        sampling="gaussian-2d",
    )
    return Config(name="m", data=data, training=MRITraining(batch=2))


def test_measured_heads_keep_to_their_splits_and_empty_slices_are_left_out(
    config: Config, tmp_path: Path
) -> None:
    card = store.prepare(config, tmp_path / "out")
    dataset = load(tmp_path / "out")
    found = {split: [item.entry.subject for item in dataset.items(split)] for split in SPLITS}
    assert found == {"train": ["a"] * 3 + ["b"] * 2, "valid": ["c"] * 3, "test": ["d"] * 3}
    assert card.facts["matrix"] == "20 x 17, 20 x 20"
    assert any("empty slices" in note for note in card.notes)


def test_slices_of_one_batch_are_of_one_shape(config: Config, tmp_path: Path) -> None:
    store.prepare(config, tmp_path / "out")
    found = batches(config, tmp_path / "out", "train")
    shapes = [tuple(found.batch(0, index).kspace.shape) for index in range(len(found))]
    assert sorted(shapes) == [(2, 3, 20, 17), (2, 3, 20, 20)]


def test_measured_kspace_is_left_as_it_is_where_it_is_sampled(
    config: Config, tmp_path: Path
) -> None:
    store.prepare(config, tmp_path / "out")
    batch = batches(config, tmp_path / "out", "test").batch(0, 0)
    full = scan_of("d").kspace[:2]
    assert torch.equal(batch.kspace, full * batch.mask[:, None])
    assert (batch.mask.sum((1, 2)) == 200).all()
    assert batch.maps is None
    assert batch.noise_covariance is None


def test_the_truth_of_measured_kspace_is_what_its_coils_say_together(
    config: Config, tmp_path: Path
) -> None:
    store.prepare(config, tmp_path / "out")
    batch = batches(config, tmp_path / "out", "test").batch(0, 0)
    target = scan_of("d").target
    assert target is not None
    torch.testing.assert_close(batch.target, target[:2], atol=0.05, rtol=0)


def test_kspace_with_holes_has_no_truth_and_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = scan_of("a")
    scan.mask[:, ::2] = False
    monkeypatch.setattr(formats, "read_scan", lambda path: scan)
    with pytest.raises(UserError, match=r"50\.0% of k-space is sampled"):
        store.read_full(tmp_path / "a.h5")


def test_files_of_a_folder_are_read_as_the_formats_say(config: Config, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for name in "acd":
        np.save(folder / f"{name}.npy", scan_of(name).kspace.numpy())
    data = config.data.model_copy(update={"path": str(folder)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "read_full", READ_FULL)
        store.prepare(config.model_copy(update={"data": data}), tmp_path / "out")
    dataset = load(tmp_path / "out")
    stored = np.array(dataset.array(dataset.items("test")[0].entry.array))
    np.testing.assert_array_equal(stored, scan_of("d").kspace.numpy())
