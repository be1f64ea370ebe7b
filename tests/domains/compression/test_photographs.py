from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from core.runtime.errors import UserError
from domains.compression import data
from domains.compression.config import Config, Data
from domains.compression.data import sources
from domains.compression.data.arrays import GrowingArray
from domains.compression.data.crops import busiest, detail, downscale, scales_of, tiles_of
from domains.compression.data.splits import split

CROP = 16


def photograph(seed: int, height: int = 40, width: int = 56) -> np.ndarray:
    """Smooth colours with a busy corner, no two alike."""
    random = np.random.default_rng(seed)
    slopes = random.uniform(-2, 2, (2, 3))
    place = np.indices((height, width)).transpose(1, 2, 0) @ slopes
    values = place + random.uniform(60, 180, 3)
    values[: height // 2, : width // 2] += random.normal(0, 40, (height // 2, width // 2, 3))
    return values.clip(0, 255).astype(np.uint8)


def folder_of_photographs(path: Path, count: int = 8, first: int = 0) -> Path:
    path.mkdir(parents=True)
    for index in range(first, first + count):
        Image.fromarray(photograph(index)).save(path / f"photo_{index:02d}.png")
    return path


def config_of(path: Path, seed: int = 0, **more: Any) -> Config:
    chosen = {"crop": CROP, "window": 8, "scales": (0.5, 1.0), **more}
    return Config(
        name="photographs",
        seed=seed,
        data=Data(source="folder", path=str(path), **chosen),
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return folder_of_photographs(tmp_path / "photos")


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# Crops


@settings(max_examples=30, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 7), st.integers(2, 7), st.just(3))))
def test_detail_is_the_mean_absolute_gradient_of_luma(pixels: np.ndarray) -> None:
    luma = pixels.astype(np.float64) @ [0.299, 0.587, 0.114]
    down, right = np.abs(luma[1:] - luma[:-1]), np.abs(luma[:, 1:] - luma[:, :-1])
    expected = (down.sum() + right.sum()) / (down.size + right.size)
    assert detail(pixels) == pytest.approx(expected, abs=6e-4)


def test_the_busiest_crops_come_first() -> None:
    found = busiest(photograph(0, 48, 64), CROP, None)
    assert len(found.pixels) == 12
    assert list(found.detail) == sorted(found.detail, reverse=True)
    for planes, said in zip(found.pixels, found.detail, strict=True):
        assert detail(planes.transpose(1, 2, 0)) == said
    few = busiest(photograph(0, 48, 64), CROP, 3)
    assert (few.pixels == found.pixels[:3]).all()
    assert few.detail == found.detail[:3]


def test_tiles_put_side_by_side_are_the_middle_of_the_picture() -> None:
    pixels = photograph(1, 35, 54)
    tiles = tiles_of(pixels, CROP)
    again = np.concatenate([np.concatenate(list(tiles[row : row + 3]), 1) for row in (0, 3)])
    assert (again == pixels[1 : 1 + 2 * CROP, 3 : 3 + 3 * CROP]).all()


@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.lists(st.floats(0.05, 1), min_size=1, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_at_every_scale_of_a_photograph_a_crop_fits(
    width: int, height: int, scales: list[float]
) -> None:
    found = scales_of(width, height, CROP, scales)
    assert bool(found) == (min(width, height) >= CROP)
    assert len(set(found)) == len(found)
    for scale in found:
        smaller = downscale(np.zeros((height, width, 3), np.uint8), scale)
        assert min(smaller.shape[:2]) >= CROP
        assert scale in scales or min(smaller.shape[:2]) == CROP


def test_making_smaller_keeps_waves_that_the_new_grid_can_hold_and_no_others() -> None:
    columns = np.arange(240)
    slow = 128 + 60 * np.sin(2 * np.pi * columns / 40)
    fast = 60 * np.sin(2 * np.pi * columns / 2.6)  # at half the size shorter than two pixels
    picture = np.repeat(np.repeat((slow + fast)[None, :, None], 32, 0), 3, 2)
    smaller = downscale(picture.round().clip(0, 255).astype(np.uint8), 0.5)[8, 10:-10, 0]
    centres = 2 * np.arange(10, 110) + 0.5
    expected = 128 + 60 * np.sin(2 * np.pi * centres / 40)
    assert np.abs(smaller - expected).max() < 6


# Splits


@given(st.integers(0, 2**40), st.integers(3, 60), st.floats(0.02, 0.4), st.floats(0.02, 0.4))
@settings(max_examples=60, deadline=None)
def test_each_split_has_its_share_and_at_least_one(
    seed: int, count: int, valid: float, test: float
) -> None:
    names = split([f"{i:064x}" for i in range(count)], seed, valid, test, "here")
    assert names.count("valid") == max(round(valid * count), 1)
    assert names.count("test") == max(round(test * count), 1)
    assert names.count("train") >= 1


def test_which_split_a_photograph_is_in_does_not_depend_on_the_order() -> None:
    hashes = [f"{i:064x}" for i in range(20)]
    names = dict(zip(hashes, split(hashes, 3, 0.2, 0.2, "here"), strict=True))
    turned = dict(zip(hashes[::-1], split(hashes[::-1], 3, 0.2, 0.2, "here"), strict=True))
    assert names == turned
    assert names != dict(zip(hashes, split(hashes, 4, 0.2, 0.2, "here"), strict=True))


# Preparing


def test_every_crop_is_cut_from_the_photograph_that_it_is_said_to_be_of(
    photos: Path, tmp_path: Path
) -> None:
    data.prepare(config_of(photos), tmp_path / "run")
    dataset = data.load(tmp_path / "run")
    for entry in dataset.entries:
        pixels = np.asarray(Image.open(photos / entry.name))
        expected = np.concatenate(
            [busiest(downscale(pixels, scale), CROP, None).pixels for scale in (0.5, 1.0)]
        )
        found = dataset.crops[entry.first : entry.first + entry.crops]
        assert (found == expected).all()
        assert entry.detail == tuple(detail(crop.transpose(1, 2, 0)) for crop in found)


def test_a_photograph_is_whole_in_one_split_and_each_crop_in_one(
    photos: Path, tmp_path: Path
) -> None:
    data.prepare(config_of(photos, valid_fraction=0.25, test_fraction=0.25), tmp_path / "run")
    dataset = data.load(tmp_path / "run")
    counts = [sum(one.split == name for one in dataset.entries) for name in ("valid", "test")]
    assert counts == [2, 2]
    indices = np.concatenate([dataset.indices(name) for name in ("train", "valid", "test")])
    assert sorted(indices.tolist()) == list(range(len(dataset.crops)))


def test_preparing_again_reads_nothing_and_says_the_same(photos: Path, tmp_path: Path) -> None:
    config = config_of(photos)
    card = data.prepare(config, tmp_path / "run")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert data.prepare(config, tmp_path / "run") == card
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == times


def test_preparing_elsewhere_writes_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "elsewhere" / "photos")
    first = data.prepare(config_of(photos), tmp_path / "a")
    second = data.prepare(config_of(tmp_path / "elsewhere" / "photos"), tmp_path / "b")
    assert first == second
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


@pytest.mark.parametrize("change", [{"scales": (1.0,)}, {"crops": 2}, {"seed": 1}])
def test_other_settings_prepare_other_crops(
    photos: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    before = data.prepare(config_of(photos), tmp_path / "run")
    after = data.prepare(config_of(photos, **change), tmp_path / "run")
    assert before.fingerprint != after.fingerprint
    assert after == data.prepare(config_of(photos, **change), tmp_path / "new")
    assert files_of(tmp_path / "run") == files_of(tmp_path / "new")


def test_settings_of_training_alone_prepare_nothing_anew(photos: Path, tmp_path: Path) -> None:
    data.prepare(config_of(photos), tmp_path / "run")
    time = (tmp_path / "run" / "crops.npy").stat().st_mtime_ns
    data.prepare(config_of(photos, window=4, flips=False, busy=0), tmp_path / "run")
    assert (tmp_path / "run" / "crops.npy").stat().st_mtime_ns == time


def test_batches_and_examples_come_from_what_was_prepared(photos: Path, tmp_path: Path) -> None:
    config = config_of(photos)
    data.prepare(config, tmp_path / "run")
    dataset = data.load(tmp_path / "run")
    for name in ("train", "valid", "test"):
        batch = data.batches(config, tmp_path / "run", name).batch(0, 0)
        assert batch.pixels.shape[1:] == (3, 8, 8)
    found = data.examples(dataset, 4)
    train = {crop.tobytes() for crop in dataset.crops[dataset.indices("train")]}
    assert {crop.tobytes() for crop in found.pixels.numpy()} <= train


def test_packaged_photographs_are_enough_for_every_split(tmp_path: Path) -> None:
    config = Config(name="packaged", data=Data(crop=128, window=64, scales=(0.6,)))
    card = data.prepare(config, tmp_path / "run")
    assert "sklearn" in card.source
    for name in ("train", "valid", "test"):
        assert len(data.batches(config, tmp_path / "run", name).batch(0, 0)) >= 1
    licences = {line["licence"] for line in data.photographs(data.load(tmp_path / "run"))}
    assert sources.UNKNOWN not in licences


def test_packaged_photographs_without_their_package_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'latentworks\[compression\]'"):
        sources.packaged()


# What is tested


def test_whole_photographs_are_tested_at_the_first_scale(photos: Path, tmp_path: Path) -> None:
    config = config_of(photos)
    data.prepare(config, tmp_path / "run")
    (found,) = data.test_pictures(config, tmp_path / "run")
    expected = downscale(np.asarray(Image.open(photos / found[0])), 0.5)
    assert (found[1].pixels.permute(1, 2, 0).numpy() == expected).all()


def test_pictures_of_a_test_folder_are_tested_whole_and_as_they_are(
    photos: Path, tmp_path: Path
) -> None:
    tested = folder_of_photographs(tmp_path / "tested", 3, first=50)
    grey = photograph(9)[..., 0]
    Image.fromarray(grey).save(tested / "a_grey.png")
    Image.fromarray(photograph(8)[:5, :9]).save(tested / "small.png")
    config = config_of(photos, test=str(tested))
    card = data.prepare(config, tmp_path / "run")
    found = dict(data.test_pictures(config, tmp_path / "run"))
    assert sorted(found) == sorted(path.name for path in tested.iterdir())
    for name, picture in found.items():
        original = data.read_picture(tested / name)
        assert torch.equal(picture.pixels, original.pixels)
        assert picture.grey == (name == "a_grey.png")
    assert card.source == "photos; tested on tested"
    assert card.facts["train photographs"] == 7
    assert card.facts["test photographs"] == 5


def test_a_picture_of_the_test_among_the_photographs_is_refused(
    photos: Path, tmp_path: Path
) -> None:
    tested = folder_of_photographs(tmp_path / "tested", 2, first=50)
    shutil.copy(photos / "photo_03.png", tested / "renamed.png")
    with pytest.raises(UserError, match=r"renamed\.png is the same file as photo_03\.png"):
        data.prepare(config_of(photos, test=str(tested)), tmp_path / "run")


def test_a_picture_of_the_test_that_cannot_be_read_is_an_error(
    photos: Path, tmp_path: Path
) -> None:
    tested = folder_of_photographs(tmp_path / "tested", 2, first=50)
    (tested / "damaged.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"damaged\.png: no picture"):
        data.prepare(config_of(photos, test=str(tested)), tmp_path / "run")
    with pytest.raises(UserError, match="run the ingest stage first"):
        data.load(tmp_path / "run")


def test_a_test_folder_without_a_picture_as_large_as_a_crop_is_refused(
    photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "tested").mkdir()
    Image.fromarray(photograph(8)[:5, :9]).save(tmp_path / "tested" / "small.png")
    with pytest.raises(UserError, match=r"no picture is as large as data\.crop 16"):
        data.prepare(config_of(photos, test=str(tmp_path / "tested")), tmp_path / "run")


def test_a_picture_of_the_test_that_was_changed_is_refused(photos: Path, tmp_path: Path) -> None:
    config = config_of(photos)
    data.prepare(config, tmp_path / "run")
    path = tmp_path / "run" / "test" / "0000.png"
    picture = data.read_picture(path)
    changed = replace(picture, pixels=picture.pixels ^ 1)
    data.write_picture(path, changed, force=True)
    with pytest.raises(UserError, match=r"0000\.png: changed since it was written"):
        data.test_pictures(config, tmp_path / "run")


# What a person is told


def test_licences_are_those_of_the_longest_name_that_fits(photos: Path, tmp_path: Path) -> None:
    rows = "name,licence,more\nphoto_0,CC0-1.0,x\nphoto_03,CC-BY-4.0,y\n"
    (photos / "LICENSES.csv").write_text(rows)
    shutil.copy(photos / "photo_01.png", photos / "other.png")  # the same file
    Image.fromarray(photograph(99)).save(photos / "unlisted.png")
    card = data.prepare(config_of(photos), tmp_path / "run")
    lines = {line["name"]: line for line in data.photographs(data.load(tmp_path / "run"))}
    assert lines["photo_03.png"]["licence"] == "CC-BY-4.0"
    assert lines["photo_04.png"]["licence"] == "CC0-1.0"
    assert lines["unlisted.png"]["licence"] == "unknown"
    assert card.licence == "CC0-1.0 (7), CC-BY-4.0 (1), unknown (1)"
    assert "other.png is the same file as photo_01.png; it is used once" in card.notes
    assert all(len(line["sha256"]) == 64 for line in lines.values())


def test_a_list_of_licences_without_the_columns_is_refused(photos: Path, tmp_path: Path) -> None:
    (photos / "LICENSES.csv").write_text("file,terms\nphoto,CC0\n")
    with pytest.raises(UserError, match="columns file, terms; expected 'name' and 'licence'"):
        data.prepare(config_of(photos), tmp_path / "run")


def test_what_cannot_be_used_is_left_out_with_a_note(photos: Path, tmp_path: Path) -> None:
    (photos / "damaged.jpg").write_bytes(b"nothing")
    Image.fromarray(photograph(20)[:10]).save(photos / "flat.png")
    opacity = np.dstack([photograph(21), np.zeros((40, 56), np.uint8)])
    Image.fromarray(opacity).save(photos / "glass.png")
    Image.fromarray(photograph(22)[..., 0]).save(photos / "grey.png")
    Image.fromarray(photograph(23)[:20, :20]).save(photos / "small.png")
    shutil.copy(photos / "photo_01.png", photos / "twice.png")
    card = data.prepare(config_of(photos), tmp_path / "run")
    notes = "\n".join(card.notes)
    for said in (
        "damaged.jpg: no picture that can be read",
        "flat.png: 56 x 10 is smaller than a crop of 16; left out",
        "glass.png: has opacity; left out",
        "grey photographs: 1",
        "used at larger ones: small.png",
        "twice.png is the same file as photo_01.png; it is used once",
    ):
        assert said in notes
    assert str(photos) not in notes
    names = {entry.name for entry in data.load(tmp_path / "run").entries}
    assert names == {*(f"photo_{i:02d}.png" for i in range(8)), "grey.png", "small.png"}


def test_too_few_photographs_say_why_others_are_not_used(tmp_path: Path) -> None:
    photos = folder_of_photographs(tmp_path / "photos", 2)
    (photos / "damaged.jpg").write_bytes(b"nothing")
    with pytest.raises(UserError) as error:
        data.prepare(config_of(photos), tmp_path / "run")
    said = str(error.value)
    assert "2 usable photographs" in said
    assert "expected at least one for each of train, valid and test" in said
    assert "damaged.jpg" in said


# What was changed afterwards


def test_without_prepared_photographs_the_stage_to_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no prepared photographs; run the ingest stage first"):
        data.load(tmp_path)


def prepared(photos: Path, tmp_path: Path) -> Path:
    data.prepare(config_of(photos), tmp_path / "run")
    return tmp_path / "run"


def test_a_changed_manifest_is_refused_and_prepared_again(photos: Path, tmp_path: Path) -> None:
    folder = prepared(photos, tmp_path)
    before = files_of(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["photographs"][0]["split"] = "test"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="have been changed; run the ingest stage again"):
        data.load(folder)
    data.prepare(config_of(photos), folder)
    assert files_of(folder) == before


def test_a_truncated_array_is_refused(photos: Path, tmp_path: Path) -> None:
    folder = prepared(photos, tmp_path)
    os.truncate(folder / "crops.npy", 1000)
    with pytest.raises(UserError, match="no prepared photographs"):
        data.load(folder)


def test_a_single_changed_pixel_is_found(photos: Path, tmp_path: Path) -> None:
    folder = prepared(photos, tmp_path)
    data.verify(data.load(folder))
    content = bytearray((folder / "crops.npy").read_bytes())
    content[-1] ^= 1
    (folder / "crops.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"crops\.npy: changed since it was written"):
        data.verify(data.load(folder))


def test_an_array_that_fails_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "crops.npy"
    path.write_bytes(b"before")
    array = GrowingArray(path, (2,))
    with pytest.raises(ValueError, match="of shape"), array:
        array.append(np.zeros((3, 3), np.uint8))
    assert path.read_bytes() == b"before"
    assert [one.name for one in tmp_path.iterdir()] == ["crops.npy"]


def test_the_card_counts_crops_and_names_no_folder(photos: Path, tmp_path: Path) -> None:
    card = data.prepare(config_of(photos, crops=2), tmp_path / "run")
    assert card.facts["train crops"] == 6 * (1 + 2)
    assert str(tmp_path) not in repr(card)
