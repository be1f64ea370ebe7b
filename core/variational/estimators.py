"""How a latent is drawn, and how the gradient of an expectation then reaches its posterior.

An objective never asks how a latent was drawn. It finds in each `Latent` the value and whatever
the estimator added: a score whose gradient it multiplies by its learning signal, weights that
turn a mean over samples into a sum, or the wish that the density's parameters be held fixed.

Each estimator declares in ``unbiased_for`` for which objectives its gradient is unbiased:
``"elbo"`` for means over samples, ``"multi-sample"`` for functions of all of them such as IWAE.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.distributions import (
    Beta,
    Dirichlet,
    Distribution,
    Gamma,
    Independent,
    MultivariateNormal,
)

from core.variational.distributions import DiagonalNormal
from core.variational.distributions.normal import require_diagonal_normal

Target = Literal["elbo", "multi-sample"]
Baseline = Literal["none", "batch", "leave-one-out"]
BOTH: frozenset[Target] = frozenset(("elbo", "multi-sample"))
ELBO_ONLY: frozenset[Target] = frozenset(("elbo",))
MOST_POINTS = 4096


@dataclass(frozen=True, eq=False)
class Draw:
    """Samples of a posterior with what their estimator adds.

    Args:
        value: Of shape ``(samples, batch, *event)``.
        score: Of shape ``(samples, batch)``: its gradient times the learning signal is added.
        weights: Of shape ``(samples, batch)``, summing to 1 over the samples; None for equal ones.
    """

    value: Tensor
    score: Tensor | None = None
    weights: Tensor | None = None


@dataclass(frozen=True)
class Estimator(abc.ABC):
    r"""What the estimators share; the flags tell an objective what to do.

    ``holds_density``: the parameters of :math:`q` inside :math:`\log q(z)` are held fixed.
    ``doubly``: the gradient through a value is weighted once more by its importance weight.
    ``baseline``: what is taken from the learning signal before it multiplies the score.
    """

    kind: ClassVar[str] = ""
    unbiased_for: ClassVar[frozenset[Target]] = BOTH
    holds_density: ClassVar[bool] = False
    doubly: ClassVar[bool] = False
    baseline: ClassVar[Baseline] = "none"

    @property
    def is_draw(self) -> bool:
        """Whether its values are drawn from the posterior, so that their mean is a bound."""
        return True

    @abc.abstractmethod
    def draw(self, posterior: Distribution, samples: int) -> Draw:
        """Draw from a posterior of batch shape ``(batch,)`` or ``(samples, batch)``."""


@dataclass(frozen=True)
class Reparameterised(Estimator):
    r"""Samples as a differentiable function of noise, :math:`z = g(\epsilon, \phi)`.

    For Gamma, Beta, Dirichlet and Student-t, torch differentiates the sample implicitly, without
    an explicit :math:`g`; that is the same estimator.

    References:
        Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, eq. 4 (arXiv:1312.6114).
        Figurnov et al., "Implicit Reparameterization Gradients", NeurIPS 2018 (arXiv:1805.08498).
    """

    kind: ClassVar[str] = "reparameterised"

    def draw(self, posterior: Distribution, samples: int) -> Draw:
        """Draw differentiable samples.

        Raises:
            ValueError: If the posterior has none.
        """
        return Draw(_rsample(posterior, samples, self.kind))


@dataclass(frozen=True)
class Path(Estimator):
    r"""The path derivative alone, without the score.

    The part left out, :math:`\nabla_\phi \log q_\phi(z)` at fixed :math:`z`, has expectation 0
    under a mean over samples, so the gradient of an ELBO stays unbiased, and has no
    variance where :math:`q` is exact. Under the importance weights of a multi-sample bound that
    expectation is not 0: there it is biased, use `DoublyReparameterised`.

    References:
        Roeder et al., "Sticking the Landing", NeurIPS 2017 (arXiv:1703.09194).
    """

    kind: ClassVar[str] = "path"
    unbiased_for: ClassVar[frozenset[Target]] = ELBO_ONLY
    holds_density: ClassVar[bool] = True

    def draw(self, posterior: Distribution, samples: int) -> Draw:
        """Draw differentiable samples."""
        return Draw(_rsample(posterior, samples, self.kind))


@dataclass(frozen=True)
class DoublyReparameterised(Estimator):
    r"""The score inside a multi-sample bound, reparameterised a second time.

    .. math:: \nabla_\phi \mathcal L_K =
        \mathbb E \sum_k \tilde w_k^2 \frac{\partial \log w_k}{\partial z_k} \nabla_\phi z_k

    For an ELBO it is `Path`. It needs posteriors that depend on the data alone: the score of a
    posterior whose parameters are a function of a sampled parent would have to be kept.

    References:
        Tucker et al., "Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives",
        ICLR 2019 (arXiv:1810.04152). Bauer and Mnih, "Generalized Doubly Reparameterized Gradient
        Estimators", ICML 2021 (arXiv:2101.11046), for hierarchies.
    """

    kind: ClassVar[str] = "dreg"
    holds_density: ClassVar[bool] = True
    doubly: ClassVar[bool] = True

    def draw(self, posterior: Distribution, samples: int) -> Draw:
        """Draw differentiable samples."""
        return Draw(_rsample(posterior, samples, self.kind))


@dataclass(frozen=True)
class ScoreFunction(Estimator):
    r"""The score times the learning signal, for any posterior with a density.

    .. math:: \nabla_\phi \mathbb E_q f = \mathbb E_q (f - b) \nabla_\phi \log q_\phi(z)
        + \mathbb E_q \nabla_\phi f

    References:
        Williams, "Simple Statistical Gradient-Following Algorithms", Machine Learning 8, 1992.

    Args:
        baseline: What :math:`b` is: ``"none"``; ``"batch"``, the mean signal of the other
            examples; ``"leave-one-out"``, from the example's other samples as in `VIMCO`.
    """

    baseline: Baseline = "none"  # pyright: ignore[reportIncompatibleVariableOverride]
    kind: ClassVar[str] = "score"

    def draw(self, posterior: Distribution, samples: int) -> Draw:
        """Draw samples without a gradient, and their score."""
        value = _sample(posterior, samples)
        return Draw(value, score=posterior.log_prob(value))


@dataclass(frozen=True)
class VIMCO(Estimator):
    r"""The score with a baseline for each sample from the others.

    .. math:: b_k = \mathcal L(w_1, \dots, \bar w_{-k}, \dots, w_K), \quad
        \log \bar w_{-k} = \frac{1}{K - 1} \sum_{j \ne k} \log w_j

    Needs two samples or more. For an ELBO it is the leave-one-out baseline (RLOO).

    References:
        Mnih and Rezende, "Variational Inference for Monte Carlo Objectives", ICML 2016
        (arXiv:1602.06725).
    """

    kind: ClassVar[str] = "vimco"
    baseline: ClassVar[Baseline] = "leave-one-out"

    def draw(self, posterior: Distribution, samples: int) -> Draw:
        """Draw samples without a gradient, and their score.

        Raises:
            ValueError: If there is only one sample.
        """
        if samples < 2:
            raise ValueError(f"vimco: {samples} sample; a baseline needs 2 or more")
        return ScoreFunction().draw(posterior, samples)


@dataclass(frozen=True)
class Enumeration(Estimator):
    r"""Every value of a discrete latent with its probability: no noise at all.

    .. math:: \mathbb E_q f = \sum_z q_\phi(z)\, f(z)

    The samples are the values, repeated as often as samples are asked for.
    """

    kind: ClassVar[str] = "enumeration"

    def draw(self, posterior: Distribution, samples: int) -> Draw:
        """Return the support and its probabilities.

        Raises:
            ValueError: If the support cannot be enumerated.
        """
        try:
            support = posterior.enumerate_support()
        except NotImplementedError:
            raise ValueError(
                f"enumeration: the values of a {_name(posterior)} with events of shape "
                f"{tuple(posterior.event_shape)} cannot be enumerated; it takes one discrete "
                "variable per example"
            ) from None
        value = support.repeat(samples, *[1] * (support.dim() - 1))
        weights = posterior.log_prob(value).exp() / samples
        return Draw(value, weights=weights.expand(value.shape[: weights.dim()]))


@dataclass(frozen=True)
class SigmaPoints(Estimator):
    r"""Points that match mean and covariance of a Normal posterior, instead of random samples.

    .. math:: \mu, \quad \mu \pm \sqrt{d + \kappa}\, L_j, \qquad
        \text{weights } \frac{\kappa}{d + \kappa}, \; \frac{1}{2 (d + \kappa)}

    Exact for quadratic integrands and without variance, otherwise biased. With
    :math:`\kappa = 0` the centre has no weight and is left out.

    References:
        Janjoš et al., "Unscented Autoencoder", ICML 2023 (arXiv:2306.05256).
        Julier and Uhlmann, "Unscented Filtering and Nonlinear Estimation", Proc. IEEE 92, 2004.

    Args:
        kappa: :math:`\kappa \ge 0`, how far out the points lie.
    """

    kappa: float = 0.0
    kind: ClassVar[str] = "sigma-points"
    unbiased_for: ClassVar[frozenset[Target]] = frozenset()

    @property
    def is_draw(self) -> bool:
        """They are points of a rule, and their mean is exact for quadratics only."""
        return False

    def draw(self, posterior: Distribution, samples: int) -> Draw:
        """Return the points and their weights; how many samples are asked for does not matter.

        Raises:
            ValueError: If the posterior is no Normal or has too many dimensions.
        """
        loc, columns = _mean_and_columns(posterior)
        dimensions = columns.shape[0]
        spread = math.sqrt(dimensions + self.kappa) * columns
        points = [loc + spread, loc - spread]
        weight = 0.5 / (dimensions + self.kappa)
        weights = torch.full((2 * dimensions,), weight, dtype=loc.dtype, device=loc.device)
        if self.kappa:
            points.append(loc[None])
            weights = torch.cat([weights, weights.new_tensor([2 * self.kappa * weight])])
        value = torch.cat(points)
        shape = (len(value), *posterior.batch_shape)
        return Draw(value, weights=weights.view(-1, *[1] * len(shape[1:])).expand(shape))


@dataclass(frozen=True)
class Rejection(Estimator):
    r"""Gamma and Dirichlet latents through the proposal of their rejection sampler.

    With :math:`z = h(\epsilon, \phi)` and :math:`\pi` the density of an accepted proposal noise,

    .. math:: \nabla_\phi \mathbb E f = \mathbb E\, \nabla_z f\, \nabla_\phi h
        + \mathbb E\, f\, \nabla_\phi
        \log \frac{q(h(\epsilon, \phi); \phi)}{r(h(\epsilon, \phi); \phi)}

    with Marsaglia and Tsang's sampler, and the shape raised by ``boost`` so that nearly every
    proposal is accepted and the second term nearly vanishes.

    References:
        Naesseth et al., "Reparameterization Gradients through Acceptance-Rejection Sampling
        Algorithms", AISTATS 2017 (arXiv:1610.05683).

    Args:
        boost: By how much the shape is raised, :math:`B`.
        baseline: As in `ScoreFunction`.
    """

    boost: int = 4
    baseline: Baseline = "none"  # pyright: ignore[reportIncompatibleVariableOverride]
    kind: ClassVar[str] = "rejection"

    def draw(self, posterior: Distribution, samples: int) -> Draw:
        """Draw through the rejection sampler.

        Raises:
            ValueError: If the posterior is no Gamma and no Dirichlet.
        """
        base: Any = posterior
        while isinstance(base, Independent):
            base = base.base_dist
        if isinstance(base, Gamma):
            unit, score = _marsaglia_tsang(base.concentration, samples, self.boost)
            value = unit / base.rate
        elif isinstance(base, (Dirichlet, Beta)):
            inner = base if isinstance(base, Dirichlet) else base._dirichlet
            unit, score = _marsaglia_tsang(inner.concentration, samples, self.boost)
            value, score = unit / unit.sum(-1, keepdim=True), score.sum(-1)
            value = value if base is inner else value[..., 0]
        else:
            raise ValueError(
                f"rejection: the posterior is a {_name(posterior)}; it must be a Gamma, Beta or "
                "Dirichlet; use estimator 'reparameterised' or 'score'"
            )
        leading = 1 + len(posterior.batch_shape)
        return Draw(
            value, score=score.flatten(leading).sum(-1) if score.dim() > leading else score
        )


@dataclass(frozen=True)
class MeasureValued(Estimator):
    r"""Differences between two draws for each parameter of a Normal posterior.

    .. math:: \partial_{\mu} \mathbb E f = \tfrac{1}{\sigma \sqrt{2 \pi}} \mathbb E
        [f(\mu + \sigma W) - f(\mu - \sigma W)], \quad
        \partial_{\sigma} \mathbb E f =
        \tfrac1\sigma \mathbb E [f(\mu + \sigma M) - f(\mu + \sigma N)]

    with :math:`W` of Weibull(:math:`\sqrt 2`, 2), :math:`M` of the double-sided Maxwell and
    :math:`N` of the standard Normal distribution, one coordinate at a time: the weights of the
    further values are 0 and only their gradient is not. Costs :math:`1 + 4 d` values.

    References:
        Mohamed et al., "Monte Carlo Gradient Estimation in Machine Learning", JMLR 21, 2020,
        section 6 and table 1 (arXiv:1906.10652).
    """

    kind: ClassVar[str] = "measure-valued"
    unbiased_for: ClassVar[frozenset[Target]] = ELBO_ONLY

    def draw(self, posterior: Distribution, samples: int) -> Draw:
        """Draw a value without a gradient and the pairs that carry it.

        Raises:
            ValueError: If the posterior is no diagonal Normal, or has too many dimensions.
        """
        normal = _diagonal(posterior, self.kind)
        batch, size = normal.batch_shape, normal.event_shape.numel()
        if len(batch) > 1:
            raise ValueError(f"{self.kind}: the posterior depends on sampled parents")
        _check_points(1 + 4 * size, self.kind)
        loc, scale = (
            part.reshape(*batch, size).expand(samples, *batch, size)
            for part in (normal.loc, normal.scale)
        )
        held, spread = loc.detach(), scale.detach()
        start = held + spread * torch.randn_like(held)
        weibull = (-2 * torch.rand_like(held).log()).sqrt()
        maxwell = torch.randn_like(held.expand(3, *held.shape)).norm(dim=0)
        maxwell = torch.where(torch.rand_like(held) < 0.5, maxwell, -maxwell)
        normal_noise = torch.randn_like(held)
        shift = (loc - held) / (spread * math.sqrt(2 * math.pi))
        widen = (scale - spread) / spread
        pairs = [(weibull, -weibull, shift), (maxwell, normal_noise, widen)]
        values, weights = [start[:, None]], [torch.ones_like(start[:, None, ..., 0])]
        for plus, minus, change in pairs:
            for noise, sign in ((plus, 1.0), (minus, -1.0)):
                values.append(_one_coordinate_each(start, held + spread * noise))
                weights.append(sign * change.movedim(-1, 1))
        value, weight = torch.cat(values, 1), torch.cat(weights, 1) / samples
        value = value.reshape(-1, *batch, *normal.event_shape)
        return Draw(value, weights=weight.reshape(-1, *batch))


REPARAMETERISED = Reparameterised()
ESTIMATORS: dict[str, type[Estimator]] = {
    each.kind: each
    for each in (
        Reparameterised,
        Path,
        DoublyReparameterised,
        ScoreFunction,
        VIMCO,
        Enumeration,
        SigmaPoints,
        Rejection,
        MeasureValued,
    )
}


def learning_signal(signal: Tensor, baseline: Baseline) -> Tensor:
    """Return the signal of each sample less its baseline, for a mean over samples.

    Args:
        signal: What is learned from, of shape ``(samples, batch)``; no gradient.
        baseline: Which one.

    Raises:
        ValueError: If there is nothing to take a baseline from.
    """
    signal = signal.detach()
    if baseline == "none":
        return signal
    along, what = (0, "samples") if baseline == "leave-one-out" else (1, "examples in the batch")
    count = signal.shape[along]
    if count < 2:
        raise ValueError(f"baseline {baseline!r}: {count} {what}; it needs 2 or more")
    return (signal - signal.mean(along, keepdim=True)) * (count / (count - 1))


def _rsample(posterior: Distribution, samples: int, kind: str) -> Tensor:
    if not posterior.has_rsample:
        raise ValueError(
            f"{kind}: a {_name(posterior)} has no differentiable samples; use estimator 'score', "
            "'vimco' or 'enumeration'"
        )
    return posterior.rsample(_leading(posterior, samples))


def _sample(posterior: Distribution, samples: int) -> Tensor:
    with torch.no_grad():
        return posterior.sample(_leading(posterior, samples))


def _leading(posterior: Distribution, samples: int) -> torch.Size:
    """A posterior given sampled parents has the samples in its batch shape already."""
    return torch.Size((samples,) if len(posterior.batch_shape) < 2 else ())


def _mean_and_columns(posterior: Distribution) -> tuple[Tensor, Tensor]:
    """Return the mean, and each column of a square root of the covariance as an event."""
    if isinstance(posterior, MultivariateNormal):
        return posterior.loc, posterior.scale_tril.movedim(-1, 0)
    normal = _diagonal(posterior, SigmaPoints.kind)
    size = normal.event_shape.numel()
    _check_points(2 * size + 1, SigmaPoints.kind)
    eye = torch.eye(size, dtype=normal.scale.dtype, device=normal.scale.device)
    shape = (size, *[1] * len(normal.batch_shape), *normal.event_shape)
    return normal.loc, eye.view(shape) * normal.scale


def _diagonal(posterior: Distribution, kind: str) -> DiagonalNormal:
    return require_diagonal_normal(
        posterior, f"{kind}: the posterior is a {_name(posterior)}; it must be a Normal"
    )


def _check_points(points: int, kind: str) -> None:
    if points > MOST_POINTS:
        raise ValueError(
            f"{kind}: {points} points for the dimensions of one example; at most {MOST_POINTS}; "
            "use estimator 'reparameterised'"
        )


def _one_coordinate_each(start: Tensor, changed: Tensor) -> Tensor:
    """Return a copy of the start for each coordinate, with that one changed."""
    size = start.shape[-1]
    mask = torch.eye(size, dtype=torch.bool, device=start.device)
    mask = mask.view(1, size, *[1] * (start.dim() - 2), size)
    return torch.where(mask, changed[:, None], start[:, None])


def _marsaglia_tsang(concentration: Tensor, samples: int, boost: int) -> tuple[Tensor, Tensor]:
    """Return Gamma samples of rate 1 and the log-ratio whose gradient corrects them."""
    shape = (samples, *concentration.shape)
    raised = (concentration + boost).expand(shape)
    noise = _accepted_noise(raised.detach())
    third = raised - 1 / 3
    inner = 1 + noise * (9 * third).rsqrt()
    accepted = third * inner**3
    log_density = (raised - 1) * accepted.log() - accepted - torch.lgamma(raised)
    # |dh/de| = 3 d c v^2 with d = third, c = 1 / sqrt(9 d): sqrt(d) v^2.
    score = log_density + 0.5 * third.log() + 2 * inner.log()
    value = accepted
    for step in range(boost):
        uniform = torch.rand(shape, dtype=raised.dtype, device=raised.device).clamp(min=1e-12)
        value = value * uniform ** (1 / (concentration + step))
    return value, score


@torch.no_grad()
def _accepted_noise(concentration: Tensor) -> Tensor:
    third = concentration - 1 / 3
    noise = torch.zeros_like(concentration)
    waiting = torch.ones_like(concentration, dtype=torch.bool)
    while bool(waiting.any()):
        proposal, uniform = torch.randn_like(noise), torch.rand_like(noise)
        inner = (1 + proposal * (9 * third).rsqrt()) ** 3
        bound = 0.5 * proposal.square() + third * (1 - inner + inner.clamp(min=1e-30).log())
        good = waiting & (inner > 0) & (uniform.log() < bound)
        noise = torch.where(good, proposal, noise)
        waiting = waiting & ~good
    return noise


def _name(distribution: Distribution) -> str:
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return type(distribution).__name__
