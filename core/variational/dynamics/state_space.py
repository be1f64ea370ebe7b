"""Linear-Gaussian state spaces: Kalman filter, smoother and smoothing distribution.

Each is here twice, step by step (``sequential_…``, the reference) and by a parallel scan, which
takes a logarithmic number of batched steps. Every covariance is a sum of squares (the form of
Joseph) and never a difference, so that it stays positive as far as its condition number fits the
type: about 1e6 in float32. All is differentiable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from core.variational.distributions.normal import HALF_LOG_TWO_PI
from core.variational.dynamics.gauss_markov import GaussMarkov, gaussian_affine, symmetric
from core.variational.dynamics.scan import Elements, associative_scan, in_full_precision


@dataclass(frozen=True, eq=False)
class StateSpace:
    r"""A linear-Gaussian chain seen through noisy linear measurements.

    .. math:: y_t = H_t z_t + c_t + N_t \eta_t, \quad \eta_t \sim \mathcal N(0, I)

    Args:
        dynamics: The prior of the states :math:`z_{1:T}`; its parameters may vary with time.
        emission: :math:`H_t` of shape ``(feature, latent)``, after it ``time`` and ``batch`` if it
            varies: all these broadcast against ``(*batch, time, feature, latent)``.
        offset: :math:`c_t`, broadcasts against ``(*batch, time, feature)``.
        noise_tril: :math:`N_t`, lower triangular with a positive diagonal, broadcasts against
            ``(*batch, time, feature, feature)``.
    """

    dynamics: GaussMarkov
    emission: Tensor
    offset: Tensor
    noise_tril: Tensor

    def observe(self, z: Float[Tensor, "*shape time latent"]) -> Tensor:
        """Draw measurements of these states, of shape ``(*shape, time, feature)``."""
        loc = (self.emission @ z.unsqueeze(-1)).squeeze(-1) + self.offset
        return loc + (self.noise_tril @ torch.randn_like(loc).unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True, eq=False)
class Filtered:
    """What the measurements up to each step say of its state.

    Args:
        loc: Means of :math:`p(z_t | y_{1:t})`.
        covariance: Their covariances.
        step_log_likelihood: :math:`log p(y_t | y_{1:t-1})` of what was observed, in nats.
    """

    loc: Float[Tensor, "*batch time latent"]
    covariance: Float[Tensor, "*batch time latent latent"]
    step_log_likelihood: Float[Tensor, "*batch time"]

    @property
    def log_likelihood(self) -> Float[Tensor, "*batch"]:
        """The log-likelihood of each sequence, in nats."""
        return self.step_log_likelihood.sum(-1)


@dataclass(frozen=True, eq=False)
class Smoothed:
    """What all measurements say of each state.

    Args:
        loc: Means of :math:`p(z_t | y_{1:T})`.
        covariance: Their covariances.
        lag_covariance: :math:`Cov(z_{t+1}, z_t | y_{1:T})`.
    """

    loc: Float[Tensor, "*batch time latent"]
    covariance: Float[Tensor, "*batch time latent latent"]
    lag_covariance: Float[Tensor, "*batch interval latent latent"]


class _Terms(NamedTuple):
    """A state space and its data in full shapes, columns for vectors, the missing taken out."""

    transition: Tensor  # the first is zero
    offset: Tensor
    covariance: Tensor
    emission: Tensor  # zero rows where nothing was observed
    residual: Tensor  # measurement minus offset, zero there
    noise: Tensor  # identity there
    observed: Tensor  # how many features of each step, as a number by itself

    def at(self, t: int) -> _Terms:
        """Return one step."""
        return _Terms(*(each[..., t, :, :] for each in self))


@in_full_precision
def kalman_filter(
    model: StateSpace,
    y: Float[Tensor, "*batch time feature"],
    observed: Bool[Tensor, ...] | None = None,
) -> Filtered:
    r"""Filter by a parallel scan, in :math:`O(\log T)` batched steps.

    Each step is an element :math:`(A, b, C, \eta, J)`: the conditional
    :math:`\mathcal N(z_t; A z_{t-1} + b, C)` and the likelihood
    :math:`\exp(\eta^\top z_{t-1} - \tfrac12 z_{t-1}^\top J z_{t-1})`. The product of two is the
    paper's; its covariances are written here as sums of squares.

    References:
        Särkkä and García-Fernández, "Temporal Parallelization of Bayesian Smoothers", IEEE TAC
        66(1), 2021, section IV (arXiv:1905.13002).

    Args:
        model: The state space.
        y: The measurements; what was not observed may hold anything, NaN included.
        observed: Which were, of shape ``(*batch, time)`` or, feature by feature,
            ``(*batch, time, feature)``; None for all. Padding at the end is not observed.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    terms = _terms(model, y, observed)
    _, loc, covariance, _, _ = associative_scan(_join, _elements(terms), dim=-3)
    covariance = symmetric(covariance)
    before = _shifted(loc), _shifted(covariance)
    predicted, spread = _predict(terms, *before)
    likelihoods = _step_log_likelihood(terms, predicted, _surprise_factor(terms, spread))
    return Filtered(loc.squeeze(-1), covariance, likelihoods)


@in_full_precision
def sequential_kalman_filter(
    model: StateSpace,
    y: Float[Tensor, "*batch time feature"],
    observed: Bool[Tensor, ...] | None = None,
) -> Filtered:
    """Filter step by step: the reference of `kalman_filter`, whose arguments it takes.

    References:
        Särkkä, "Bayesian Filtering and Smoothing", 2013, theorem 4.2, with the covariance in the
        form of Bucy and Joseph.
    """
    terms = _terms(model, y, observed)
    loc, covariance = (
        torch.zeros_like(terms.offset[..., 0, :, :]),
        torch.zeros_like(terms.covariance[..., 0, :, :]),
    )
    locs, covariances, likelihoods = [], [], []
    for t in range(y.shape[-2]):
        step = terms.at(t)
        predicted, spread = _predict(step, loc, covariance)
        factor = _surprise_factor(step, spread)
        likelihoods.append(_step_log_likelihood(step, predicted, factor))
        gain = _gain(step, spread, factor)
        loc = predicted + gain @ (step.residual - step.emission @ predicted)
        covariance = _joseph(step, gain, spread)
        locs.append(loc.squeeze(-1))
        covariances.append(covariance)
    return Filtered(
        torch.stack(locs, -2), torch.stack(covariances, -3), torch.stack(likelihoods, -1)
    )


@in_full_precision
def rts_smoother(model: StateSpace, filtered: Filtered) -> Smoothed:
    """Smooth what `kalman_filter` gave, by a parallel scan from the end.

    References:
        Särkkä and García-Fernández, "Temporal Parallelization of Bayesian Smoothers", IEEE TAC
        66(1), 2021, section IV (arXiv:1905.13002).
    """
    gain, offset, noise = _backward_steps(model, filtered)
    last = (filtered.loc[..., -1:, :].unsqueeze(-1), filtered.covariance[..., -1:, :, :])
    elements = (
        torch.cat([gain, torch.zeros_like(last[1])], -3),
        torch.cat([offset, last[0]], -3),
        torch.cat([noise, last[1]], -3),
    )
    # A later step is the one that is known first: the composition runs backward.
    _, loc, covariance = associative_scan(
        lambda early, late: gaussian_affine(late, early), elements, dim=-3, reverse=True
    )
    covariance = symmetric(covariance)
    return Smoothed(loc.squeeze(-1), covariance, covariance[..., 1:, :, :] @ gain.mT)


@in_full_precision
def sequential_rts_smoother(model: StateSpace, filtered: Filtered) -> Smoothed:
    """Smooth step by step: the reference of `rts_smoother`, whose arguments it takes.

    References:
        Rauch, Tung and Striebel, "Maximum Likelihood Estimates of Linear Dynamic Systems", AIAA
        Journal 3(8), 1965.
    """
    gain, offset, noise = _backward_steps(model, filtered)
    loc, covariance = filtered.loc[..., -1, :].unsqueeze(-1), filtered.covariance[..., -1, :, :]
    locs, covariances = [loc.squeeze(-1)], [covariance]
    for t in reversed(range(gain.shape[-3])):
        step = gain[..., t, :, :]
        loc = step @ loc + offset[..., t, :, :]
        covariance = step @ covariance @ step.mT + noise[..., t, :, :]
        locs.append(loc.squeeze(-1))
        covariances.append(covariance)
    stacked = torch.stack(covariances[::-1], -3)
    lag = stacked[..., 1:, :, :] @ gain.mT
    return Smoothed(torch.stack(locs[::-1], -2), stacked, lag)


@in_full_precision
def smoothing_distribution(
    model: StateSpace,
    y: Float[Tensor, "*batch time feature"],
    observed: Bool[Tensor, ...] | None = None,
) -> GaussMarkov:
    r"""Return the joint :math:`p(z_{1:T} \mid y_{1:T})`, of which `rts_smoother` gives marginals.

    The suffix products of the elements of `kalman_filter` hold the likelihood
    :math:`p(y_{t+1:T} \mid z_t)`; each step times what follows it is
    :math:`p(z_t \mid z_{t-1}, y_{t:T})`. Its ``rsample`` draws from the smoothing distribution.

    Args:
        model: The state space.
        y: The measurements; what was not observed may hold anything, NaN included.
        observed: Which were, as in `kalman_filter`.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    elements = _elements(_terms(model, y, observed))
    transition, offset, covariance, _, _ = elements
    *_, linear, precision = associative_scan(_join, elements, dim=-3, reverse=True)
    linear = torch.cat([linear[..., 1:, :, :], torch.zeros_like(linear[..., :1, :, :])], -3)
    precision = torch.cat(
        [precision[..., 1:, :, :], torch.zeros_like(precision[..., :1, :, :])], -3
    )
    shrink, posterior = _condition(covariance, symmetric(precision))
    loc = shrink @ (offset + covariance @ linear)
    scale_tril = torch.linalg.cholesky(posterior)
    return GaussMarkov((shrink @ transition)[..., 1:, :, :], loc.squeeze(-1), scale_tril)


def _terms(model: StateSpace, y: Tensor, observed: Tensor | None) -> _Terms:
    path = model.dynamics
    time, latent = path.event_shape
    if y.shape[-2] != time or model.emission.shape[-2:] != (y.shape[-1], latent):
        raise ValueError(
            f"state space: measurements {tuple(y.shape)} of states {tuple(path.event_shape)} by "
            f"an emission {tuple(model.emission.shape)}; they must be (*batch, time, feature), "
            "(time, latent) and (..., feature, latent)"
        )
    seen = _seen(y, observed)
    residual = torch.where(seen, y.to(model.emission) - model.offset, 0.0)
    noise = model.noise_tril @ model.noise_tril.mT
    both = seen.unsqueeze(-1) & seen.unsqueeze(-2)
    identity = torch.eye(y.shape[-1]).to(noise)
    matrices = [
        path._steps,
        path.offset.unsqueeze(-1),
        path.scale_tril @ path.scale_tril.mT,
        torch.where(seen.unsqueeze(-1), model.emission, 0.0),
        residual.unsqueeze(-1),
        torch.where(both, noise, identity),
        seen.sum(-1).to(residual)[..., None, None],
    ]
    batch = torch.broadcast_shapes(*(each.shape[:-2] for each in matrices))
    return _Terms(*(each.expand(*batch, *each.shape[-2:]) for each in matrices))


def _seen(y: Tensor, observed: Tensor | None) -> Tensor:
    if observed is None:
        return torch.ones_like(y, dtype=torch.bool)
    each = observed.unsqueeze(-1) if observed.dim() == y.dim() - 1 else observed
    fits = each.dim() == y.dim() and all(
        size in (1, whole) for size, whole in zip(each.shape, y.shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"state space: observed {tuple(observed.shape)} with measurements {tuple(y.shape)}; "
            "it must be (*batch, time) or (*batch, time, feature)"
        )
    return each.expand_as(y)


def _elements(terms: _Terms) -> Elements:
    factor = _surprise_factor(terms, terms.covariance)
    gain = _gain(terms, terms.covariance, factor)
    keep = torch.eye(terms.offset.shape[-2]).to(gain) - gain @ terms.emission
    surprise = terms.residual - terms.emission @ terms.offset
    seen = torch.linalg.solve_triangular(factor, terms.emission @ terms.transition, upper=False)
    whitened = torch.linalg.solve_triangular(factor, surprise, upper=False)
    return (
        keep @ terms.transition,
        terms.offset + gain @ surprise,
        _joseph(terms, gain, terms.covariance),
        seen.mT @ whitened,
        seen.mT @ seen,
    )


def _join(first: Elements, second: Elements) -> Elements:
    transition, offset, covariance, linear, precision = first
    next_transition, next_offset, next_covariance, next_linear, next_precision = second
    shrink, conditioned = _condition(covariance, next_precision)
    ahead = next_transition @ shrink
    back = shrink @ transition
    # (I + J C)^-1 J as a sum of squares: with N = D^T J, N = D^T J D + N C N^T.
    informed = shrink.mT @ next_precision
    information = informed @ shrink + informed @ covariance @ informed.mT
    return (
        ahead @ transition,
        ahead @ (offset + covariance @ next_linear) + next_offset,
        next_transition @ conditioned @ next_transition.mT + next_covariance,
        back.mT @ (next_linear - next_precision @ offset) + linear,
        transition.mT @ information @ transition + precision,
    )


def _condition(covariance: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return :math:`D = (I + C J)^{-1}` and :math:`D C = D C D^\top + (D C) J (D C)^\top`.

    The eigenvalues of :math:`I + C J` are at least 1; C and J may be singular. The sum of squares
    is positive, and an error in D enters only in second order.
    """
    identity = torch.eye(covariance.shape[-1]).to(covariance)
    shrink = torch.linalg.inv(identity + covariance @ precision)
    conditioned = shrink @ covariance
    spread = conditioned @ shrink.mT + conditioned @ precision @ conditioned.mT
    return shrink, symmetric(spread)


def _predict(terms: _Terms, loc: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    moved = terms.transition @ covariance @ terms.transition.mT
    return terms.transition @ loc + terms.offset, symmetric(moved + terms.covariance)


def _surprise_factor(terms: _Terms, covariance: Tensor) -> Tensor:
    """Return the Cholesky factor of the covariance of the measurements."""
    seen = terms.emission @ covariance @ terms.emission.mT
    return torch.linalg.cholesky(symmetric(seen + terms.noise))


def _gain(terms: _Terms, covariance: Tensor, factor: Tensor) -> Tensor:
    return torch.cholesky_solve(terms.emission @ covariance, factor).mT


def _joseph(terms: _Terms, gain: Tensor, covariance: Tensor) -> Tensor:
    keep = torch.eye(covariance.shape[-1]).to(gain) - gain @ terms.emission
    return symmetric(keep @ covariance @ keep.mT + gain @ terms.noise @ gain.mT)


def _step_log_likelihood(terms: _Terms, loc: Tensor, factor: Tensor) -> Tensor:
    surprise = terms.residual - terms.emission @ loc
    whitened = torch.linalg.solve_triangular(factor, surprise, upper=False)
    log_scale = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    squares = whitened.square().sum((-2, -1))
    return -0.5 * squares - log_scale - terms.observed[..., 0, 0] * HALF_LOG_TWO_PI


def _backward_steps(model: StateSpace, filtered: Filtered) -> tuple[Tensor, Tensor, Tensor]:
    """Return gain, offset and covariance of each state given the next and the past."""
    path = model.dynamics
    transition = path.transition
    noise = (path.scale_tril @ path.scale_tril.mT)[..., 1:, :, :]
    loc, covariance = filtered.loc[..., :-1, :].unsqueeze(-1), filtered.covariance[..., :-1, :, :]
    predicted = symmetric(transition @ covariance @ transition.mT + noise)
    factor = torch.linalg.cholesky(predicted)
    gain = torch.cholesky_solve(transition @ covariance, factor).mT
    keep = torch.eye(covariance.shape[-1]).to(gain) - gain @ transition
    offset = loc - gain @ (transition @ loc + path.offset[..., 1:, :].unsqueeze(-1))
    return gain, offset, symmetric(keep @ covariance @ keep.mT + gain @ noise @ gain.mT)


def _shifted(steps: Tensor) -> Tensor:
    return torch.nn.functional.pad(steps, (0, 0, 0, 0, 1, -1))
