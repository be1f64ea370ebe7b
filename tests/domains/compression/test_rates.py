"""The rate index, the price of an error, the Normal that it is, and gains."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from domains.compression.config import DCT, Rates
from domains.compression.data.records import LAST_RATE
from domains.compression.model import construct
from domains.compression.model.base import ImageModel
from domains.compression.model.rates import (
    INDICES,
    LAST,
    MIDDLE,
    Gain,
    index_of,
    noise_scale,
    place,
    price,
)

RATES = Rates()
ALL = torch.arange(INDICES)


def test_qualities_are_every_fourth_index() -> None:
    assert [index_of(quality) for quality in (0, 1, 63)] == [0, 4, LAST]
    assert LAST == LAST_RATE  # what pictures may ask for


def test_places_are_even_from_minus_1_to_1() -> None:
    torch.testing.assert_close(place(ALL), torch.linspace(-1, 1, INDICES))


def test_prices_are_even_in_their_logarithm_between_those_of_the_settings() -> None:
    expected = torch.logspace(math.log10(0.0015), math.log10(0.08), INDICES, dtype=torch.float64)
    torch.testing.assert_close(price(ALL, RATES).double(), expected, rtol=1e-5, atol=0)


@given(st.integers(0, LAST), st.floats(1e-4, 0.01), st.floats(1.1, 100))
def test_the_scale_gives_the_price_back(rate: int, lowest: float, ratio: float) -> None:
    rates = Rates(lowest=lowest, highest=lowest * ratio)
    scale = noise_scale(torch.tensor([rate]), rates).double().item()
    back = 3 / (2 * scale**2 * math.log(2) * 255**2)
    assert back == pytest.approx(price(torch.tensor([rate]), rates).item(), rel=1e-5)


def test_an_error_costs_its_price_in_bits() -> None:
    torch.manual_seed(0)
    small = DCT(slices=(3,), width=4, blocks=1, hyper=2, features=4, context=4, filter=0)
    model = construct(small, RATES)
    assert isinstance(model, ImageModel)
    rate, height, width = torch.tensor([0, MIDDLE, LAST]), 8, 12
    pixels, picture = torch.rand(3, 3, height, width), torch.rand(3, 3, height, width)
    exact, off = model.likelihood(pixels, rate), model.likelihood(picture, rate)
    bits = (exact.log_prob(pixels) - off.log_prob(pixels)) / math.log(2)
    grey_levels = (255 * (pixels - picture)).square().mean((1, 2, 3))
    expected = price(rate, RATES) * grey_levels * height * width
    torch.testing.assert_close(bits, expected, rtol=1e-4, atol=0)


def test_emphasis_counts_a_low_rate_more_by_a_power_of_its_price() -> None:
    small = DCT(slices=(3,), width=4, blocks=1, hyper=2, features=4, context=4, filter=0)
    model = construct(small, Rates(emphasis=0.5))
    low, middle, high = model.emphasis(torch.tensor([0, MIDDLE, LAST]))  # pyright: ignore[reportCallIssue]
    assert low / high == pytest.approx((0.08 / 0.0015) ** 0.5, rel=1e-5)
    assert middle == pytest.approx(1.0, rel=1e-5)


def test_a_gain_starts_as_the_root_of_the_price() -> None:
    start = torch.tensor([0.5, 2.0, 300.0])
    gain = Gain(start, RATES)(ALL).exp()
    assert gain.shape == (INDICES, 3)
    relative = (price(ALL, RATES) / price(torch.tensor([MIDDLE]), RATES)).sqrt()
    torch.testing.assert_close(gain, relative[:, None] * start, rtol=1e-5, atol=0)


def test_a_gain_without_a_slope_is_the_same_at_all_rates() -> None:
    gain = Gain(torch.tensor([3.0, 7.0]), RATES)
    torch.nn.init.zeros_(gain.slope)
    torch.testing.assert_close(gain(ALL).exp(), torch.tensor([3.0, 7.0]).expand(INDICES, 2))
