"""A wanted size or PSNR is met in few trials, or what can be had is said."""

from __future__ import annotations

import math

import pytest
import torch
from block_means import BlockMeans, photograph
from hypothesis import given, settings
from hypothesis import strategies as st

from core.runtime.errors import UserError
from domains.compression.data.records import Picture
from domains.compression.model.codec import Request, decode, encode, grey_of
from domains.compression.model.rates import INDICES, LAST
from domains.compression.model.targets import Found, Kind, Target, psnr_db, refuse, search

MODEL = BlockMeans()
PICTURE = Picture(pixels=photograph(120, 180))


def searched(values: list[float], target: Target) -> tuple[Found, list[int]]:
    """What is found in a list of values, and which indices were asked."""
    asked: list[int] = []

    def measure(rate: int) -> float:
        asked.append(rate)
        return values[rate]

    return search(measure, target), asked


def near(values: list[float], target: Target) -> bool:
    return any(target.met(value) for value in values)


@settings(max_examples=200, deadline=None)
@given(st.floats(0.004, 0.012), st.floats(-0.3, 0.3), st.floats(0, 1))
def test_a_size_on_a_smooth_curve_is_met_within_1_percent_in_8_trials(
    slope: float, bend: float, place: float
) -> None:
    logs = [slope * (i + bend * (i - LAST / 2) ** 2 / LAST) for i in range(INDICES)]
    values = [0.1 * math.exp(each) for each in logs]
    target = Target("bpp", values[0] * (values[-1] / values[0]) ** place)
    found, asked = searched(values, target)
    assert abs(found.value / target.value - 1) <= 0.0101
    assert found.value == values[found.rate]
    assert len(asked) == found.trials <= 8
    assert len(set(asked)) == len(asked)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 8), st.floats(0.004, 0.012), st.floats(0, 1))
def test_where_several_indices_give_the_same_a_size_is_met_if_one_has_it(
    width: int, slope: float, place: float
) -> None:
    values = [1000 * math.exp(slope * width * (i // width)) for i in range(INDICES)]
    target = Target("bytes", values[0] * (values[-1] / values[0]) ** place)
    found, asked = searched(values, target)
    assert len(asked) <= 8
    assert target.met(found.value) or not near(values, target)
    nearest = min(abs(target.off(value)) for value in values)
    assert abs(target.off(found.value)) <= max(nearest, target.within) + 1e-9


@settings(max_examples=200, deadline=None)
@given(st.floats(0.03, 0.08), st.lists(st.floats(-0.015, 0.015), min_size=16), st.floats(0, 1))
def test_a_psnr_is_met_within_a_twentieth_of_a_decibel_though_it_does_not_always_grow(
    slope: float, noise: list[float], place: float
) -> None:
    values = [28 + slope * i + noise[i * 7 % len(noise)] for i in range(INDICES)]
    target = Target("psnr", values[0] + place * (values[-1] - values[0]))
    found, asked = searched(values, target)
    assert abs(found.value - target.value) <= 0.05
    assert len(asked) <= 8


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 0.5), min_size=INDICES, max_size=INDICES), st.floats(0.05, 60))
def test_whatever_a_growing_curve_is_like_trials_are_few_and_the_nearest_of_them_is_returned(
    steps: list[float], wanted: float
) -> None:
    values = [0.1 + sum(steps[: i + 1]) for i in range(INDICES)]
    target = Target("bpp", wanted)
    found, asked = searched(values, target)
    assert len(asked) == len(set(asked)) <= 8
    assert min(abs(target.off(values[each])) for each in asked) == abs(target.off(found.value))
    if found.outside:
        assert not values[0] < wanted < values[-1]


@pytest.mark.parametrize(("wanted", "end"), [(0.01, 0), (5.0, LAST)])
def test_out_of_reach_is_noticed_by_the_last_index_of_that_side(wanted: float, end: int) -> None:
    values = [0.1 * 1.01**i for i in range(INDICES)]
    found, asked = searched(values, Target("bpp", wanted))
    assert found.outside
    assert found.rate == end
    assert len(asked) <= 4


@pytest.mark.parametrize("end", [0, LAST])
def test_what_the_first_and_the_last_index_give_can_be_had(end: int) -> None:
    values = [0.1 * 1.01**i for i in range(INDICES)]
    found, _ = searched(values, Target("bpp", values[end]))
    assert not found.outside
    assert found.rate in range(end - 1, end + 2)


def test_what_can_be_had_is_said() -> None:
    with pytest.raises(UserError, match=r"--target-bytes: got 9; .* 1,200 to 80,000 bytes"):
        refuse(Target("bytes", 9), 1200, 80000)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_target_is_a_number_above_0(value: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Target("psnr", value)


def test_psnr_is_that_of_8_bits() -> None:
    assert psnr_db(1.0) == pytest.approx(20 * math.log10(255))
    assert psnr_db(0.0) == 99.99


def reached(picture: Picture, data: bytes, kind: Kind) -> float:
    """What a file has, from its bytes alone."""
    if kind == "psnr":
        error = decode(MODEL, data).pixels.double() - picture.pixels
        return 10 * math.log10(255**2 / float(error.square().mean()))
    return len(data) * (8 / (picture.height * picture.width) if kind == "bpp" else 1)


@pytest.mark.parametrize("tile", [1024, 64])
@pytest.mark.parametrize(("kind", "value"), [("bpp", 0.6), ("bytes", 1800), ("psnr", 26.0)])
def test_a_file_has_what_was_asked_for(kind: Kind, value: float, tile: int) -> None:
    asked = {f"target_{kind}": value}
    encoded = encode(MODEL, PICTURE, Request(tile=tile, **asked))  # pyright: ignore[reportArgumentType]
    assert Target(kind, value).met(reached(PICTURE, encoded.data, kind))
    assert encoded.reached == pytest.approx(reached(PICTURE, encoded.data, kind))
    assert 1 <= encoded.trials <= 8
    assert encoded.data == encode(MODEL, PICTURE, Request(rate=encoded.rate, tile=tile)).data


def test_the_psnr_of_a_grey_picture_is_that_of_the_grey_one_that_is_decoded() -> None:
    picture = Picture(pixels=grey_of(PICTURE.pixels), grey=True)
    encoded = encode(MODEL, picture, Request(target_psnr=29.0))
    assert encoded.reached == pytest.approx(reached(picture, encoded.data, "psnr"))


def test_opacity_counts_for_the_size() -> None:
    alpha = torch.randint(0, 256, (120, 180), generator=torch.Generator().manual_seed(0))
    picture = Picture(pixels=PICTURE.pixels, alpha=alpha.to(torch.uint8))
    with pytest.raises(UserError, match="--target-bytes: got 1,800; this picture can have 2"):
        encode(MODEL, picture, Request(target_bytes=1800))


def test_effort_is_for_the_last_trials_only() -> None:
    asked: list[int] = []

    class Refining(BlockMeans):
        def encode(self, pixels: torch.Tensor, rate: int, effort: int = 0, halo: object = None):  # noqa: ANN202
            asked.append(effort)
            return super().encode(pixels, max(rate - 8 * effort, 0), 0, None)

    encoded = encode(Refining(), PICTURE, Request(target_bpp=0.6, effort=2))
    assert Target("bpp", 0.6).met(8 * len(encoded.data) / (120 * 180))
    assert len(asked) == encoded.trials <= 8
    assert asked == sorted(asked)
    assert set(asked) == {0, 2}
