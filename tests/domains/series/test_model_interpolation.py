"""Interpolation in real time, against numpy and against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from domains.series.model.convolution import Convolutions, TemporalConvolution
from domains.series.model.interpolation import interpolate


def case(seed: int, time: int, share: float) -> tuple[Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    values = torch.from_numpy(rng.normal(size=(4, time, 3)))
    seen = torch.from_numpy(rng.random((4, time, 3)) < share)
    times = torch.from_numpy(np.cumsum(rng.exponential(size=(4, time)) + 1e-3, axis=1))
    return values, seen, times - times[:, :1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.floats(0, 1))
def test_the_line_is_that_of_numpy_at_irregular_times(seed: int, time: int, share: float) -> None:
    values, seen, times = case(seed, time, share)
    line, _, _ = interpolate(torch.where(seen, values, math.nan), seen, times)
    for window in range(4):
        for channel in range(3):
            known = seen[window, :, channel].numpy()
            expected = np.zeros(time)
            if known.any():
                at = times[window].numpy()
                expected = np.interp(at, at[known], values[window, :, channel].numpy()[known])
            np.testing.assert_allclose(line[window, :, channel], expected, rtol=0, atol=1e-12)


def test_gaps_are_counted_in_time_and_are_the_whole_window_where_nothing_is_seen() -> None:
    values, seen, times = case(1, 20, 0.3)
    _, since, until = interpolate(values, seen, times)
    for window, row, channel in np.ndindex(4, 20, 3):
        places = np.flatnonzero(seen[window, :, channel])
        before, after = places[places <= row], places[places >= row]
        at, span = times[window], times[window, -1]
        expected = at[row] - at[before[-1]] if len(before) else span
        assert since[window, row, channel] == pytest.approx(float(expected), abs=1e-12)
        expected = at[after[0]] - at[row] if len(after) else span
        assert until[window, row, channel] == pytest.approx(float(expected), abs=1e-12)


def test_values_that_are_seen_come_back_bit_by_bit_in_single_precision() -> None:
    values, seen, times = case(2, 50, 0.5)
    line, since, until = interpolate(values.float(), seen, times.float())
    assert torch.equal(line[seen], values.float()[seen])
    assert not since[seen].any()
    assert not until[seen].any()


def test_a_temporal_convolution_is_that_of_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = TemporalConvolution(3, 5, 4), torch.nn.Conv1d(3, 5, 3, padding=4, dilation=4)
    with torch.no_grad():
        theirs.weight.copy_(ours.linear.weight.unflatten(1, (3, 3)).transpose(1, 2))
        theirs.bias.copy_(ours.linear.bias)  # pyright: ignore[reportOptionalMemberAccess]
    for time in (1, 3, 4, 17):
        rows = torch.randn(2, time, 3)
        torch.testing.assert_close(ours(rows), theirs(rows.transpose(1, 2)).transpose(1, 2))


def test_convolutions_see_so_many_rows_to_both_sides_and_no_further() -> None:
    torch.manual_seed(0)
    network = Convolutions(inputs=1, outputs=1, hidden=4, layers=3).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    rows = torch.randn(1, 41, 1, dtype=torch.float64, requires_grad=True)
    network(rows)[0, 20, 0].backward()
    assert rows.grad is not None
    reached = rows.grad[0, :, 0].nonzero().flatten()
    assert (int(reached.min()), int(reached.max())) == (20 - 7, 20 + 7)
