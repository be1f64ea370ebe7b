from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from domains.mri.data.contrast import curve, gains, remapped, reweighted, varied

GREYS = np.linspace(0, 1.3, 64, dtype=np.float32).reshape(8, 8)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), monotone=st.booleans())
def test_air_stays_dark_and_nothing_grows_brighter_than_the_brightest(
    seed: int, monotone: bool
) -> None:
    heights = curve(np.random.default_rng(seed), monotone)
    mapped = remapped(GREYS, heights)
    assert mapped.flat[0] == 0
    assert mapped.min() >= 0
    assert mapped.max() <= 1
    assert heights.max() == 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_monotone_curve_keeps_the_order_of_brightness(seed: int) -> None:
    mapped = remapped(GREYS, curve(np.random.default_rng(seed), monotone=True)).ravel()
    assert (np.diff(mapped) >= 0).all()


def test_a_curve_that_is_not_monotone_can_turn_the_order_round() -> None:
    curves = [curve(np.random.default_rng(seed), monotone=False) for seed in range(20)]
    assert any((np.diff(one) < 0).any() for one in curves)


def test_equal_gains_leave_a_picture_as_it_is() -> None:
    shares = np.random.default_rng(0).dirichlet([1, 1, 1], (8, 8)).astype(np.float32)
    tissues = np.moveaxis(shares, -1, 0)[:2]
    np.testing.assert_allclose(
        reweighted(GREYS, tissues, np.ones(3, np.float32)), GREYS, rtol=1e-5
    )


def test_a_gain_scales_its_tissue_alone() -> None:
    tissues = np.zeros((2, 8, 8), np.float32)
    tissues[0, :4], tissues[1, 4:] = 1, 1
    found = reweighted(GREYS, tissues, np.float32([0.5, 2.0, 9.0]))
    np.testing.assert_allclose(found[:4], 0.5 * GREYS[:4])
    np.testing.assert_allclose(found[4:], 2.0 * GREYS[4:])


def test_gains_reach_contrasts_in_which_fluid_is_brighter_than_white_matter() -> None:
    drawn = np.array([gains(np.random.default_rng(seed)) for seed in range(50)])
    assert (drawn[:, 2] >= drawn[:, 1]).all()
    assert drawn[:, 1].min() < 0.3
    assert drawn.max() == 1


def test_a_varied_slice_is_a_function_of_its_generator() -> None:
    drawn = [varied(GREYS, None, np.random.default_rng(7), 0.3) for _ in range(2)]
    assert np.array_equal(*drawn)
    assert not np.array_equal(drawn[0], varied(GREYS, None, np.random.default_rng(8), 0.3))
