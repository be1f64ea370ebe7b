from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from core.runtime.errors import UserError
from domains.mri.config import Config, Data
from domains.mri.data.manifest import CARD, IMAGES, Dataset, load, verify
from domains.mri.data.splits import SPLITS
from domains.mri.data.store import prepare

SMALL = {
    "size": 32, "fov_mm": 60.0, "coils": 4, "coil_sets": 3, "masks": 2, "test_masks": 2,
    "accelerations": (3.0,), "acs": 6, "sampling": "gaussian-2d", "gap_mm": 2.0, "test_slices": 3,
    "valid_slices": 3, "blank": 0.02,
}  # fmt: skip


def head(seed: int, size: int = 48) -> np.ndarray:
    """An ellipsoid with a shell and some blobs in it."""
    random = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*[np.linspace(-1, 1, size)] * 3, indexing="ij"))
    radius = np.sqrt((places**2 / random.uniform(0.5, 0.8, (3, 1, 1, 1))).sum(0))
    values = np.where(radius < 1, 0.5, 0.0) + np.where(np.abs(radius - 0.95) < 0.05, 0.4, 0.0)
    for _ in range(6):
        centre = random.uniform(-0.5, 0.5, (3, 1, 1, 1))
        values += 0.3 * (radius < 1) * np.exp(-((places - centre) ** 2).sum(0) / 0.02)
    return (values * 1000).astype(np.int16)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("heads")
    for seed, name in enumerate(("anna_t1", "anna_pd", "berta_t1", "carla_t1", "dora_t1")):
        nibabel.save(nibabel.Nifti1Image(head(seed), np.eye(4)), path / f"{name}.nii.gz")
    return path


def config_of(path: Path | None = None, **data: object) -> Config:
    given = {**SMALL, **({"source": "volumes", "path": str(path)} if path else {}), **data}
    return Config(name="store", data=Data.model_validate(given))


@pytest.fixture(scope="module")
def prepared(heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("prepared")
    prepare(config_of(heads, valid_subjects=("berta",), test_subjects=("anna",)), folder)
    return load(folder)


def test_no_head_is_in_two_splits(prepared: Dataset) -> None:
    found = {split: {one.entry.subject for one in prepared.items(split)} for split in SPLITS}
    assert found == {"train": {"carla", "dora"}, "valid": {"berta"}, "test": {"anna"}}


def test_every_slice_is_one_row_and_every_row_one_slice(prepared: Dataset) -> None:
    items = [item for split in SPLITS for item in prepared.items(split)]
    rows = sorted(item.entry.first + item.place for item in items)
    assert rows == list(range(len(prepared.array(IMAGES))))
    assert len({item.name for item in items}) == len(items)


def test_train_heads_are_cut_along_all_axes_and_test_heads_along_theirs(prepared: Dataset) -> None:
    axes = {split: {item.entry.axis for item in prepared.items(split)} for split in SPLITS}
    assert axes["train"] == {"axial", "coronal", "sagittal"}
    assert axes["valid"] == axes["test"] == {"axial"}


def test_slices_of_a_test_subject_are_spread_over_its_files(prepared: Dataset) -> None:
    items = prepared.items("test")
    assert len(items) == 3
    assert {item.entry.name for item in items} == {"anna_t1", "anna_pd"}


def test_masks_have_the_acceleration_asked_and_those_of_the_test_are_others(
    prepared: Dataset,
) -> None:
    train, test = (prepared.array(f"masks-{who}-32x32.npy") for who in ("train", "test"))
    assert (train.sum((2, 3)) == round(32 * 32 / 3)).all()
    assert (test.sum((2, 3)) == round(32 * 32 / 3)).all()
    both = [*train[0], *test[0]]
    assert len({mask.tobytes() for mask in both}) == len(both)


def test_preparing_again_changes_nothing(heads: Path, tmp_path: Path) -> None:
    config = config_of(heads)
    card = prepare(config, tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert prepare(config, tmp_path) == card
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written


def test_what_is_fixed_is_a_function_of_the_seed_of_the_data(heads: Path, tmp_path: Path) -> None:
    first = prepare(config_of(heads), tmp_path / "a").fingerprint
    again = config_of(heads, snr_db=(10.0, 20.0)).model_copy(update={"seed": 5})
    assert prepare(again, tmp_path / "b").fingerprint == first
    assert prepare(config_of(heads, seed=1), tmp_path / "a").fingerprint != first


def test_a_card_says_the_caveat_and_what_there_is(heads: Path, tmp_path: Path) -> None:
    card = prepare(config_of(heads), tmp_path)
    assert "optimistic" in card.notes[0]
    assert str(heads) not in str(card)
    assert card.facts["matrix"] == "32 x 32"


def test_blank_slices_are_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for seed in range(3):
        values = head(seed)
        values[:, :, 20:28] = 0
        path = tmp_path / "in" / f"head{seed}.nii"
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    card = prepare(config_of(tmp_path / "in", axes=("axial",), step=1), tmp_path / "out")
    dataset = load(tmp_path / "out")
    assert np.asarray(dataset.array(IMAGES)).mean((1, 2)).min() >= 0.02
    assert not any(
        20 <= item.entry.positions[item.place] < 28
        for split in SPLITS
        for item in dataset.items(split)
    )
    assert any("blank slices left out" in note for note in card.notes)


def test_one_head_is_parted_with_gaps_and_the_card_says_so(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("solo_t1", "solo_pd"):
        nibabel.save(nibabel.Nifti1Image(head(0), np.eye(4)), tmp_path / "in" / f"{name}.nii")
    card = prepare(config_of(tmp_path / "in", step=1), tmp_path / "out")
    dataset = load(tmp_path / "out")
    where = {
        split: [item.entry.positions[item.place] for item in dataset.items(split)]
        for split in SPLITS
    }
    assert max(where["test"]) + 2 <= min(where["train"])
    assert max(where["train"]) + 2 <= min(where["valid"])
    assert {one.axis for one in dataset.entries} == {"axial"}
    assert len({one.name for one in dataset.entries}) == 1  # the other file shows the same head
    assert any("nothing about other heads" in note for note in card.notes)


def test_the_packaged_template_is_prepared_with_its_tissues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domains.mri.data.sources.packaged.__defaults__", (tmp_path / "none",))
    config = config_of(fov_mm=240.0, step=4, gap_mm=8.0)
    card = prepare(config, tmp_path)
    dataset = load(tmp_path)
    shares = np.asarray(dataset.array("tissues.npy"), np.float32)
    train = [one for one in dataset.entries if one.split == "train"]
    assert card.facts["train subjects"] == "mni152"
    assert sum(len(one.positions) for one in train) == len(shares)
    assert 0.1 < shares.sum(1).mean() < 0.6
    assert shares.sum(1).max() < 1.3  # a low-pass overshoots at edges


def test_a_changed_array_is_noticed(heads: Path, tmp_path: Path) -> None:
    prepare(config_of(heads), tmp_path)
    verify(load(tmp_path))
    array = np.load(tmp_path / IMAGES)
    array[0, 0, 0] += 1
    np.save(tmp_path / IMAGES, array)
    with pytest.raises(UserError, match=r"images\.npy"):
        verify(load(tmp_path))
    np.save(tmp_path / IMAGES, array[1:])
    with pytest.raises(UserError, match="ingest"):
        load(tmp_path)


def test_a_folder_that_was_left_half_done_is_not_taken_for_prepared(
    heads: Path, tmp_path: Path
) -> None:
    card = prepare(config_of(heads), tmp_path)
    (tmp_path / CARD).unlink()
    with pytest.raises(UserError, match="ingest"):
        load(tmp_path)
    assert prepare(config_of(heads), tmp_path) == card


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"test_subjects": ("nobody",)}, "no subject 'nobody'"),
        ({"size": 64}, "too coarse"),
        ({"blank": 5.0, "valid_subjects": ("berta",)}, "no usable slice .*blank slices left out"),
    ],
)
def test_settings_that_leave_nothing_are_errors_that_say_why(
    heads: Path, tmp_path: Path, data: dict[str, object], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        prepare(config_of(heads, **data), tmp_path)
    assert not (tmp_path / CARD).exists()


def test_a_map_of_another_grid_is_an_error_that_names_it(tmp_path: Path) -> None:
    for name, size in (("a_t1", 48), ("a_gm", 48), ("a_wm", 40)):
        nibabel.save(nibabel.Nifti1Image(head(0, size), np.eye(4)), tmp_path / f"{name}.nii")
    with pytest.raises(UserError, match=r"a_wm\.nii"):
        prepare(config_of(tmp_path), tmp_path / "out")
