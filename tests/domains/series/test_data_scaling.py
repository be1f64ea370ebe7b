"""Scaling of channels against scikit-learn's."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from core.runtime.errors import UserError
from domains.series.data.records import Clock, Panel, Series
from domains.series.data.scaling import constant, fit, logarithms

PEERS: dict[Any, Any] = {
    "standard": StandardScaler(),
    "min-max": MinMaxScaler(),
    "robust": RobustScaler(unit_variance=True),
}


@pytest.mark.parametrize("kind", PEERS)
def test_it_agrees_with_scikit_learn_also_over_gaps(kind: Any) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal([1, -50, 1e6], [2, 0.1, 1e4], size=(300, 3))
    values[rng.random(values.shape) < 0.2] = np.nan
    scaler = fit(values, kind, "abc")
    expected = PEERS[kind].fit_transform(values)
    np.testing.assert_allclose(scaler.apply(values), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(scaler.invert(scaler.apply(values)), values, rtol=1e-12)


@pytest.mark.parametrize("kind", PEERS)
@given(
    values=arrays(
        np.float64,
        st.tuples(st.integers(1, 20), st.integers(1, 3)),
        elements=st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0, np.nan]),
    )
)
@settings(max_examples=60, deadline=None)
def test_every_channel_with_a_value_can_be_scaled_and_brought_back(
    kind: Any, values: np.ndarray
) -> None:
    values[0] = np.where(np.isnan(values[0]), 0, values[0])
    scaler = fit(values, kind, [str(j) for j in range(values.shape[1])])
    assert (scaler.scale > 0).all()
    assert (scaler.scale[constant(values)] == 1).all()
    back = scaler.invert(scaler.apply(values))
    np.testing.assert_allclose(back, values, rtol=1e-9, atol=1e-9 * np.nanmax(np.abs(values)))


@pytest.mark.parametrize("kind", PEERS)
def test_a_constant_channel_is_shifted_to_zero_and_keeps_its_unit(kind: Any) -> None:
    values = np.stack([np.full(60, 0.1), np.arange(60.0)], axis=1)
    scaler = fit(values, kind, "ab")
    assert scaler.scale[0] == 1
    assert np.array_equal(scaler.apply(values)[:, 0], np.zeros(60))
    assert constant(values).tolist() == [True, False]


def test_robust_takes_the_standard_deviation_where_half_of_the_values_are_equal() -> None:
    values = np.zeros((100, 1))
    values[:10] = 5.0
    scaler = fit(values, "robust", "a")
    assert scaler.scale[0] == pytest.approx(values.std())


def test_robust_and_standard_agree_on_normal_values() -> None:
    values = np.random.default_rng(1).normal(3, 7, size=(200_000, 1))
    robust, standard = fit(values, "robust", "a"), fit(values, "standard", "a")
    assert robust.scale[0] == pytest.approx(standard.scale[0], rel=0.01)


def test_a_channel_without_values_is_named() -> None:
    values = np.array([[1.0, np.nan], [2.0, np.nan]])
    with pytest.raises(UserError, match=r"'empty': no value in the train part"):
        fit(values, "standard", ["full", "empty"])


@pytest.mark.parametrize("kind", PEERS)
@pytest.mark.parametrize("unit", [1e-300, 1e300])
def test_squares_may_leave_floating_point(kind: Any, unit: float) -> None:
    values = np.random.default_rng(0).normal(size=(50, 1))
    wild = fit(unit * values, kind, "a")
    np.testing.assert_allclose(wild.scale, unit * fit(values, kind, "a").scale, rtol=1e-9)


@pytest.mark.parametrize("kind", PEERS)
def test_a_range_beyond_floating_point_is_refused(kind: Any) -> None:
    with pytest.raises(UserError, match=r"'wild': values from -1.7e\+308 to 1.7e\+308"):
        fit(np.array([[-1.7e308], [1.7e308]]), kind, ["wild"])


def test_logarithms_are_scaled_and_come_back() -> None:
    values = np.exp(np.random.default_rng(0).normal(size=(200, 2)) * [1.0, 5.0])
    logs = np.array([False, True])
    scaler = fit(values, "standard", ("a", "b"), logs)
    scaled = scaler.apply(values)
    np.testing.assert_allclose(scaled.std(0), 1, rtol=1e-12)
    expected = (np.log(values[:, 1]) - np.log(values[:, 1]).mean()) / np.log(values[:, 1]).std()
    np.testing.assert_allclose(scaled[:, 1], expected, rtol=1e-10)
    np.testing.assert_allclose(scaler.invert(scaled), values, rtol=1e-10)


@pytest.mark.parametrize(("names", "word"), [(("c",), "no channel"), (("b",), "no logarithm")])
def test_a_channel_without_logarithms_is_named(names: tuple[str, ...], word: str) -> None:
    values = np.array([[1.0, 2.0], [3.0, 0.0]])
    clock = Clock(kind="index", column="", zone="", form="", interval=1.0)
    series = Series("", np.arange(2.0), values)
    panel = Panel(series=(series,), channels=("a", "b"), dtypes=("float64",) * 2, clock=clock)
    with pytest.raises(UserError, match=word):
        logarithms(panel, names, "file.csv")
