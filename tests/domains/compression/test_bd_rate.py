"""Savings of rate, against curves whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.interpolate import PchipInterpolator

from domains.compression.metrics.bd_rate import bd_rate

DB = [28.0, 30.0, 33.0, 37.0, 40.0]
RATE = [0.1, 0.2, 0.45, 1.0, 1.9]


@given(st.floats(0.05, 20))
@settings(max_examples=30, deadline=None)
def test_a_constant_factor_of_rate_is_found_exactly(factor: float) -> None:
    found = bd_rate(RATE, DB, [factor * rate for rate in RATE], DB)
    assert found is not None
    assert found.percent == pytest.approx(100 * (factor - 1), abs=1e-9)


def test_a_shift_in_decibels_of_log_linear_curves_has_a_closed_form() -> None:
    # ln R = q / 5 for the one, (q - 1) / 5 for the other: pchip of a line is that line.
    anchor, other = np.linspace(25, 45, 9), np.linspace(24, 46, 7)
    found = bd_rate(
        np.exp(anchor / 5).tolist(), anchor.tolist(), np.exp((other - 1) / 5).tolist(),
        other.tolist(),
    )  # fmt: skip
    assert found is not None
    assert found.percent == pytest.approx(100 * math.expm1(-1 / 5), rel=1e-9)
    assert (found.low_db, found.high_db) == (25, 45)


def test_only_the_qualities_that_both_reach_count() -> None:
    # Above 36 dB the other wastes rate, which the anchor does not reach to compare with.
    low = [(rate, db) for rate, db in zip(RATE, DB, strict=True) if db < 35]
    anchor_rate, anchor_db = [[*each] for each in zip(*low, strict=True)]
    found = bd_rate(anchor_rate, anchor_db, [*anchor_rate, 50.0], [*anchor_db, 44.0])
    assert found is not None
    assert (found.low_db, found.high_db, found.inside) == (28.0, 33.0, (3, 3))


def test_the_integral_is_that_of_quadrature() -> None:
    rate, db = [0.08, 0.17, 0.3, 0.5, 0.8, 1.5], [27.0, 29.5, 31.5, 34.0, 36.5, 39.0]
    found = bd_rate(RATE, DB, rate, db)
    assert found is not None
    curves = [PchipInterpolator(q, np.log(r)) for q, r in ((DB, RATE), (db, rate))]
    area = quad(lambda q: float(curves[1](q) - curves[0](q)), 28, 39, limit=500)[0]
    assert found.percent == pytest.approx(100 * math.expm1(area / 11), rel=1e-6)


@given(st.permutations(range(5)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_points_does_not_matter(order: list[int]) -> None:
    rate = [0.9 * each for each in RATE]
    found = bd_rate(RATE, DB, [rate[place] for place in order], [DB[place] for place in order])
    assert found == bd_rate(RATE, DB, rate, DB)


def test_exchanging_the_codecs_inverts_the_factor() -> None:
    rate, db = [0.08, 0.17, 0.3, 0.5, 0.8, 1.5], [27.0, 29.5, 31.5, 34.0, 36.5, 39.0]
    one, other = bd_rate(RATE, DB, rate, db), bd_rate(rate, db, RATE, DB)
    assert one is not None
    assert other is not None
    assert (1 + one.percent / 100) * (1 + other.percent / 100) == pytest.approx(1)


@pytest.mark.parametrize(
    ("rate", "db"),
    [
        ([0.2, 0.4, 0.8], [10.0, 12.0, 14.0]),  # disjoint
        ([0.2, 0.4, 0.8], [36.0, 39.0, 42.0]),  # two of three
        ([0.5], [33.0]),  # one point
        ([0.2, 0.3, 0.4], [30.0, 30.0, 30.0]),  # one quality
    ],
)
def test_too_few_points_in_common_give_no_number(rate: list[float], db: list[float]) -> None:
    assert bd_rate(RATE, DB, rate, db) is None


def test_of_two_points_of_one_quality_the_cheaper_counts() -> None:
    dearer = bd_rate(RATE, DB, [*RATE, 0.7], [*DB, 33.0])
    assert dearer is not None
    assert dearer.percent == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("rate", [[0.0, 1, 2], [math.nan, 1, 2], [1, 2]])
def test_impossible_points_are_refused(rate: list[float]) -> None:
    with pytest.raises(ValueError, match="rates"):
        bd_rate(RATE, DB, rate, [30.0, 32.0, 34.0])
