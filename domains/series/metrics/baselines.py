"""Predictions that cost nothing or next to it; every reported error stands beside theirs.

Each gives a value for every place of a batch and keeps what is seen. Values are scaled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from domains.series.data import Windows
from domains.series.model.interpolation import interpolate

RIDGES = (1e-6, 1e-4, 1e-2, 1.0)  # in units of the mean square of the inputs

Predicted = Float[Tensor, "batch time channel"]


def last_value(batch: Windows) -> Predicted:
    """Carry the last value that is seen; before the first one, that one; 0 where none is.

    Args:
        batch: Windows.
    """
    length = batch.values.shape[1]
    place = torch.arange(length, device=batch.values.device)[None, :, None]
    last = torch.where(batch.seen, place, -1).cummax(1).values
    first = torch.where(batch.seen, place, length).amin(1, keepdim=True)
    known = torch.where(batch.seen, batch.values, 0)
    return known.gather(1, torch.where(last >= 0, last, first).clamp(max=length - 1))


def linear_interpolation(batch: Windows) -> Predicted:
    """Interpolate between the values that are seen, linearly in time; carry those at the ends.

    Args:
        batch: Windows.
    """
    return interpolate(batch.values, batch.seen, batch.times)[0]


def seasonal_naive(batch: Windows, season: int) -> Predicted:
    """Repeat what was seen one season before, or two, and so on; else carry the last value.

    Where nothing is seen a whole number of seasons before, what is seen as many after serves.

    Args:
        batch: Windows with as many rows for each season.
        season: Rows of a season.

    Raises:
        ValueError: If a season has no row.
    """
    if season < 1:
        raise ValueError(f"season {season}: a season has one row or more")
    found, values = batch.seen.clone(), torch.where(batch.seen, batch.values, 0)
    length = values.shape[1]
    for shift in (sign * k for sign in (1, -1) for k in range(season, length, season)):
        to, start = slice(max(shift, 0), length + min(shift, 0)), max(-shift, 0)
        source = slice(start, start + length - abs(shift))
        new = batch.seen[:, source] & ~found[:, to]
        values[:, to] = torch.where(new, batch.values[:, source], values[:, to])
        found[:, to] |= new
    return torch.where(found, values, last_value(batch))


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A Normal for each channel, whatever is seen.

    Args:
        loc: Mean of each channel over the train windows.
        scale: Its deviation.
    """

    loc: Float[Tensor, " channel"]
    scale: Float[Tensor, " channel"]

    def __call__(self, batch: Windows) -> Predicted:
        """Predict the mean of the channel."""
        return torch.where(batch.seen, batch.values, self.loc.to(batch.values))

    def surprise(self, values: Float[Tensor, "*row channel"]) -> Float[Tensor, "*row channel"]:
        """Return the negative log density of each value, in nats."""
        normal = torch.distributions.Normal(self.loc.to(values), self.scale.to(values))
        return -normal.log_prob(values)

    def crps(self, values: Float[Tensor, "*row channel"]) -> Float[Tensor, "*row channel"]:
        r"""Return the continuous ranked probability score of each value, in closed form.

        .. math:: \sigma \left( z (2 \Phi(z) - 1) + 2 \varphi(z) - \pi^{-1/2} \right)

        References:
            Gneiting et al., "Calibrated Probabilistic Forecasting Using Ensemble Model Output
            Statistics", Monthly Weather Review 133 (2005), 1098-1118, eq. 5.

        Example:
            >>> standard = Gaussian(torch.zeros(1), torch.ones(1))
            >>> standard.crps(torch.zeros(1))
            tensor([0.2337])
        """
        scale = self.scale.to(values)
        z = (values - self.loc.to(values)) / scale
        density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        inner = z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi)
        return scale * inner


def gaussian(batches: Iterable[Windows]) -> Gaussian:
    """Fit a Normal to each channel of the values that are seen in some windows.

    A channel that is never seen, or constant, has deviation 1.

    Args:
        batches: Train windows.
    """
    moments = [_moments(batch) for batch in batches]
    count, total, square = (torch.stack(each).sum(0) for each in zip(*moments, strict=True))
    loc = total / count.clamp(min=1)
    variance = (square / count.clamp(min=1) - loc**2).clamp(min=0)
    scale = torch.where(variance > 1e-12, variance.sqrt(), 1)
    return Gaussian(loc, scale)


def _moments(batch: Windows) -> tuple[Tensor, Tensor, Tensor]:
    values = torch.where(batch.seen, batch.values, 0).double()
    return batch.seen.sum((0, 1)).double(), values.sum((0, 1)), values.square().sum((0, 1))


@dataclass(frozen=True, eq=False)
class Linear:
    r"""One linear map of the past to the horizon, shrunk towards the last value.

    .. math:: \hat y_h = x_P + \sum_{p < P} W_{hp} (x_p - x_P) + W_{hP} x_P + b_h

    References:
        Zeng et al., "Are Transformers Effective for Time Series Forecasting?", AAAI 2023
        (arXiv:2205.13504), whose NLinear has no :math:`W_{hP}` and cannot return to a mean; here
        in closed form.

    Args:
        weight: For each channel, or one for all.
        bias: Likewise.
        ridge: Penalty that the validation windows chose, in units of the inputs' mean square.
    """

    weight: Float[Tensor, "maps past horizon"]
    bias: Float[Tensor, "maps horizon"]
    ridge: float

    @property
    def horizon(self) -> int:
        """Rows that it predicts."""
        return self.weight.shape[2]

    def __call__(self, batch: Windows) -> Predicted:
        """Predict the last rows of windows; keep the rest as interpolated."""
        line = linear_interpolation(_past_only(batch, self.horizon))
        past, last = _differences(line, self.horizon)
        weight, bias = self.weight.to(line), self.bias.to(line)
        future = torch.einsum("bpc,cph->bhc", past, weight.expand(past.shape[2], -1, -1))
        predicted = torch.cat([line[:, : -self.horizon], future + last + bias.T], dim=1)
        return torch.where(batch.seen, batch.values, predicted)


def linear_model(train: Windows, valid: Windows, horizon: int) -> Linear:
    """Fit a linear forecast by ridge regression; validation chooses penalty and sharing.

    What is missing in the past is interpolated; a window counts for a channel whose whole future
    is known. One map is shared by all channels or each has its own.

    Args:
        train: Windows to fit on.
        valid: Windows to choose on.
        horizon: Rows to predict.

    Raises:
        ValueError: If no window has a known future.
    """
    fitted = [model for shared in (True, False) for model in _ridges(train, horizon, shared)]
    errors = [_error(model, valid) for model in fitted]
    return fitted[min(range(len(fitted)), key=lambda place: errors[place])]


def _error(model: Linear, batch: Windows) -> float:
    future = batch.known[:, -model.horizon :]
    difference = model(batch.seeing(_past_only(batch, model.horizon).seen)) - batch.values
    absolute = torch.where(future, difference[:, -model.horizon :], 0).double().abs()
    return float(absolute.sum() / future.sum().clamp(min=1))


def _past_only(batch: Windows, horizon: int) -> Windows:
    seen = batch.seen.clone()
    seen[:, -horizon:] = False
    return batch.seeing(seen)


def _differences(line: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
    """The past, all but its last row counted from that row, and that row."""
    past, last = line[:, : -horizon - 1], line[:, -horizon - 1, None]
    return torch.cat([past - last, last], dim=1), last


def _ridges(train: Windows, horizon: int, shared: bool) -> Sequence[Linear]:
    """One fit for each penalty, all from the same normal equations, in double precision."""
    line = linear_interpolation(_past_only(train, horizon)).double()
    past, last = _differences(line, horizon)
    whole = train.known[:, -horizon:].all(1)
    if not whole.any():
        raise ValueError("a linear forecast: no train window has a known future")
    future = train.values[:, -horizon:].double() - last
    inputs, outputs = (each.permute(2, 0, 1) * whole.T[:, :, None] for each in (past, future))
    counted = whole.T.double()
    gram, cross, sum_x, sum_y, count = (
        torch.einsum("cbp,cbq->cpq", inputs, inputs),
        torch.einsum("cbp,cbh->cph", inputs, outputs),
        inputs.sum(1),
        outputs.sum(1),
        counted.sum(1),
    )
    if shared:
        gram, cross, sum_x, sum_y, count = (
            each.sum(0, keepdim=True) for each in (gram, cross, sum_x, sum_y, count)
        )
    return [_solve(gram, cross, sum_x, sum_y, count.clamp(min=1), ridge) for ridge in RIDGES]


def _solve(
    gram: Tensor, cross: Tensor, sum_x: Tensor, sum_y: Tensor, count: Tensor, ridge: float
) -> Linear:
    mean_x, mean_y = sum_x / count[:, None], sum_y / count[:, None]
    gram = gram - count[:, None, None] * mean_x[:, :, None] * mean_x[:, None]
    cross = cross - count[:, None, None] * mean_x[:, :, None] * mean_y[:, None]
    size = gram.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
    eye = torch.eye(gram.shape[1], dtype=gram.dtype)
    weight = torch.linalg.solve(gram + ridge * size[:, None, None] * eye, cross)
    return Linear(weight, mean_y - (mean_x[:, None] @ weight)[:, 0], ridge)
