from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from core.contract import Batches, Split
from domains.compression.config import CompressionTraining, Config, Data
from domains.compression.data.batches import (
    VALIDATED,
    CropBatches,
    drawn,
    examples,
    spread_out,
    spread_rates,
    stratified_rates,
    turned,
)
from domains.compression.data.manifest import Dataset, Entry
from domains.compression.data.records import LAST_RATE
from domains.compression.model.rates import LAST, index_of

SIDE, WINDOW = 16, 6


def settings_of(batch: int = 4, seed: int = 0, **data: object) -> Config:
    chosen = Data(crop=SIDE, window=WINDOW, **data)  # pyright: ignore[reportArgumentType]
    training = CompressionTraining(batch=batch)
    return Config(name="batches", seed=seed, data=chosen, training=training)


def dataset_of(
    train: int = 10, valid: int = 3, test: int = 2, detail: list[float] | None = None
) -> Dataset:
    """Crops whose pixels say where they are: row, column, index of the crop."""
    counts: list[tuple[Split, int]] = [("train", train), ("valid", valid), ("test", test)]
    count = train + valid + test
    places = np.indices((SIDE, SIDE), dtype=np.uint8)
    crops = np.empty((count, 3, SIDE, SIDE), np.uint8)
    crops[:, :2], crops[:, 2] = places, np.arange(count, dtype=np.uint8)[:, None, None]
    said = detail or [1.0] * count
    entries, first = [], 0
    for split, number in counts:
        entries.append(
            Entry(
                name=split,
                licence="CC0-1.0",
                sha256=split,
                split=split,
                width=SIDE,
                height=SIDE,
                scales=(1.0,),
                first=first,
                crops=number,
                detail=tuple(said[first : first + number]),
            )
        )
        first += number
    return Dataset(crops, tuple(entries), Path("nowhere"), "")


def crops_of(batches: CropBatches, epoch: int) -> list[int]:
    """The crops that an epoch sees, one after the other."""
    return [
        int(crop)
        for index in range(len(batches))
        for crop in batches.batch(epoch, index).pixels[:, 2, 0, 0]
    ]


def test_batches_are_what_the_contract_asks_for() -> None:
    assert isinstance(CropBatches(dataset_of(), "train", settings_of()), Batches)


def test_a_batch_depends_on_seed_epoch_and_index_alone() -> None:
    first = CropBatches(dataset_of(), "train", settings_of(batch=3))
    again = CropBatches(dataset_of(), "train", settings_of(batch=3))
    asked = [(1, 0), (0, 2), (0, 0), (1, 0), (1, 2)]
    found = {place: first.batch(*place) for place in asked}
    for place in reversed(asked):
        batch = again.batch(*place)
        assert torch.equal(batch.pixels, found[place].pixels)
        assert torch.equal(batch.rate, found[place].rate)


@pytest.mark.parametrize("other", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_seed_epoch_and_index_each_change_a_batch(other: tuple[int, int, int]) -> None:
    def windows(seed: int, epoch: int, index: int) -> torch.Tensor:
        config = settings_of(batch=3, seed=seed)
        return CropBatches(dataset_of(), "train", config).batch(epoch, index).pixels

    assert not torch.equal(windows(0, 0, 0), windows(*other))


def test_a_train_window_is_a_part_of_its_crop() -> None:
    batches = CropBatches(dataset_of(), "train", settings_of(flips=False))
    for epoch in range(30):
        for window in batches.batch(epoch, 0).pixels.numpy():
            top, left = int(window[0, 0, 0]), int(window[1, 0, 0])
            rows, columns = np.indices((WINDOW, WINDOW))
            assert (window[0] == top + rows).all()
            assert (window[1] == left + columns).all()
            assert (window[2] == window[2, 0, 0]).all()


def test_windows_lie_everywhere_in_a_crop() -> None:
    batches = CropBatches(dataset_of(), "train", settings_of(flips=False))
    corners = torch.cat([batches.batch(epoch, 0).pixels[:, :2, 0, 0] for epoch in range(100)])
    for axis in range(2):
        assert sorted(set(corners[:, axis].tolist())) == list(range(SIDE - WINDOW + 1))


def test_windows_are_laid_in_all_eight_ways() -> None:
    batches = CropBatches(dataset_of(), "train", settings_of())
    corners = {
        tuple(np.concatenate([np.sign(window[:2, 0, -1].astype(int) - window[:2, 0, 0]),
                              np.sign(window[:2, -1, 0].astype(int) - window[:2, 0, 0])]).tolist())
        for epoch in range(60)
        for window in batches.batch(epoch, 0).pixels.numpy()
    }  # fmt: skip
    assert len(corners) == 8


def test_the_eight_ways_to_lay_a_square_are_the_rotations_and_their_mirror_images() -> None:
    window = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    found = {turned(window, turn).tobytes() for turn in range(8)}
    planes = [window, window[:, :, ::-1]]
    expected = {np.rot90(one, k, (1, 2)).tobytes() for one in planes for k in range(4)}
    assert found == expected


def test_without_a_liking_for_detail_an_epoch_sees_each_crop_once() -> None:
    detail = [float(value) for value in range(15)]
    batches = CropBatches(dataset_of(detail=detail), "train", settings_of(batch=5, busy=0))
    for epoch in range(5):
        assert sorted(crops_of(batches, epoch)) == list(range(10))


def test_epochs_see_crops_in_different_orders() -> None:
    batches = CropBatches(dataset_of(), "train", settings_of(batch=5, busy=0))
    assert crops_of(batches, 0) != crops_of(batches, 1)


def test_crops_are_drawn_in_proportion_to_a_power_of_their_detail() -> None:
    detail = [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 0.0, 3.0, 1.5, 6.0] + [1.0] * 5
    batches = CropBatches(dataset_of(detail=detail), "train", settings_of(batch=10, busy=0.7))
    epochs = 100
    counts = np.zeros(10)
    for epoch in range(epochs):
        counts += np.bincount(crops_of(batches, epoch), minlength=10)
    weights = np.array(detail[:10]) ** 0.7
    expected = 10 * weights / weights.sum()
    # A crop is drawn once more or less than np at most, so a mean's standard error is below 1/2.
    assert np.abs(counts / epochs - expected).max() < 3 * 0.5 / epochs**0.5


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=40), st.integers(0, 2**32 - 1))
def test_each_item_is_drawn_its_share_of_times_rounded_down_or_up(
    weights: list[float], seed: int
) -> None:
    array = np.array(weights)
    counts = np.bincount(drawn(array, np.random.default_rng(seed)), minlength=len(array))
    share = array / array.sum() if array.any() else np.full(len(array), 1 / len(array))
    assert counts.sum() == len(array)
    assert (counts >= np.floor(share * len(array) - 1e-9)).all()
    assert (counts <= np.ceil(share * len(array) + 1e-9)).all()


def test_a_last_batch_that_is_not_full_is_left_out() -> None:
    batches = CropBatches(dataset_of(train=10), "train", settings_of(batch=4))
    assert len(batches) == 2
    assert [len(batches.batch(0, index)) for index in range(2)] == [4, 4]


def test_the_only_batch_is_kept_though_it_is_not_full() -> None:
    batches = CropBatches(dataset_of(train=3), "train", settings_of(batch=4))
    assert len(batches) == 1
    assert len(batches.batch(0, 0)) == 3


def test_the_rates_of_a_batch_are_one_from_each_part_of_the_scale() -> None:
    batches = CropBatches(dataset_of(train=11), "train", settings_of(batch=11))
    for epoch in range(20):
        parts = batches.batch(epoch, 0).rate // 23  # 253 rates are 11 parts of 23
        assert sorted(parts.tolist()) == list(range(11))


def test_train_rates_are_uniform_at_every_place_of_a_batch() -> None:
    random = np.random.default_rng(0)
    rates = np.stack([stratified_rates(4, random) for _ in range(2000)])
    assert rates.min() == 0
    assert rates.max() == LAST_RATE
    for place in range(4):
        counts = np.bincount(rates[:, place] * 11 // (LAST_RATE + 1), minlength=11)
        assert chisquare(counts).pvalue > 1e-3


def test_rates_end_where_those_of_the_model_do() -> None:
    assert LAST_RATE == LAST == index_of(63)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_looking_sees_the_middle_of_each_crop_once_in_every_epoch(split: Split) -> None:
    dataset = dataset_of(train=4, valid=5, test=5)
    batches = CropBatches(dataset, split, settings_of(batch=2))
    assert crops_of(batches, 0) == crops_of(batches, 7) == dataset.indices(split).tolist()
    middle = slice((SIDE - WINDOW) // 2, (SIDE - WINDOW) // 2 + WINDOW)
    for index in range(len(batches)):
        found = batches.batch(index, index)
        for window in found.pixels.numpy():
            assert (window == dataset.crops[window[2, 0, 0]][:, middle, middle]).all()
        assert torch.equal(found.rate, batches.batch(0, index).rate)


def test_looking_spreads_its_rates_over_the_scale() -> None:
    rates = np.sort(spread_rates(VALIDATED))
    ideal = (np.arange(VALIDATED) + 0.5) / VALIDATED * (LAST_RATE + 1)
    assert np.abs(rates - ideal).max() < 2 * (LAST_RATE + 1) / VALIDATED


def test_a_model_is_chosen_with_few_crops_of_all_photographs() -> None:
    dataset = dataset_of(train=3, valid=200, test=1)
    batches = CropBatches(dataset, "valid", settings_of(batch=10))
    seen = crops_of(batches, 0)
    assert len(seen) == len(set(seen)) == VALIDATED
    assert np.diff(seen).max() <= 200 / VALIDATED + 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 300), st.integers(1, 100))
def test_what_is_spread_out_is_each_once_and_at_even_distances(count: int, most: int) -> None:
    found = spread_out(np.arange(count), most)
    assert len(found) == min(count, most)
    if len(found) > 1:
        gaps = np.diff(found)
        assert gaps.min() >= 1
        assert gaps.max() - gaps.min() <= 1


def test_examples_are_whole_train_crops_at_many_rates() -> None:
    dataset = dataset_of(train=40, valid=3)
    found = examples(dataset, 8)
    crops = found.pixels[:, 2, 0, 0].tolist()
    assert len(set(crops)) == 8
    assert set(crops) <= set(range(40))
    assert all(
        (one == dataset.crops[crop]).all()
        for one, crop in zip(found.pixels.numpy(), crops, strict=True)
    )
    assert len(set((found.rate * 8 // (LAST_RATE + 1)).tolist())) >= 6


def test_examples_are_all_train_crops_where_there_are_few() -> None:
    assert len(examples(dataset_of(train=5), 64)) == 5
