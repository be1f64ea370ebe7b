r"""The f-divergences: one record a divergence, each with the weight of its gradient.

The convention, for all of them: :math:`q` is the law that is sampled and fitted, :math:`p` the
target, :math:`r = p / q` their ratio, and

.. math:: D_f(p \| q) = \mathbb E_q f(r), \qquad f \text{ convex}, \quad f(1) = f'(1) = 0

so that **reverse** is :math:`KL(q \| p)`, what the ELBO minimises, and **forward** is
:math:`KL(p \| q)`. A generator is free up to a multiple of :math:`r - 1`, whose mean is 0; the
choice :math:`f'(1) = 0` makes every term of an estimate at least 0. Functions take
:math:`u = \log r`, in nats, and are stable where the two laws agree and where they are far apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

LOG_2 = math.log(2)
Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FDivergence:
    r"""One f-divergence, as functions of :math:`\log r = \log p - \log q`.

    References:
        Xu et al., "One-step Diffusion Models with f-Divergence Distribution Matching", 2025
        (arXiv:2502.15681), theorem 1 and table 1, for the weight :math:`h`.
        Nowozin et al., "f-GAN", NeurIPS 2016, table 2 (arXiv:1606.00709), for the conjugates.

    Args:
        name: What it is called.
        generator: :math:`\log r \mapsto f(r)`.
        slope: :math:`\log r \mapsto f'(r)`.
        log_weight: :math:`\log r \mapsto \log h(r)` with :math:`h(r) = f''(r) r^2`; None where
            :math:`f` has no second derivative.
        conjugate: :math:`t \mapsto f^*(t) = \sup_{r \ge 0} rt - f(r)`, infinite outside its
            domain; None where it has no closed form. :math:`D_f = \sup_T \mathbb E_p T -
            \mathbb E_q f^*(T)`, reached at :math:`T = f'(r)`.
        dual: Name of the divergence with :math:`p` and :math:`q` exchanged, the generator
            :math:`r f(1 / r)`; None where it is not in the table.
        maximum: Its largest value, in nats for those made of logarithms.
    """

    name: str
    generator: Function
    slope: Function
    log_weight: Function | None
    conjugate: Function | None
    dual: str | None
    maximum: float = math.inf

    def weight(self, log_ratio: Tensor) -> Tensor:
        r"""Return :math:`h(r) = f''(r) r^2`, what the gradient multiplies the scores by.

        Raises:
            ValueError: If the generator has no second derivative.
        """
        return self._log_weight(log_ratio).exp()

    def curvature(self, log_ratio: Tensor) -> Tensor:
        r"""Return the second derivative :math:`f''(r)`.

        Raises:
            ValueError: If the generator has no second derivative.
        """
        return (self._log_weight(log_ratio) - 2 * log_ratio).exp()

    def _log_weight(self, log_ratio: Tensor) -> Tensor:
        if self.log_weight is None:
            raise ValueError(
                f"{self.name}: its generator has a kink and no second derivative, so no weight "
                "of the scores; use another divergence"
            )
        return self.log_weight(log_ratio)


def estimate(
    divergence: FDivergence, log_ratio: Float[Tensor, " samples *batch"]
) -> Float[Tensor, " *batch"]:
    r"""Return the Monte Carlo estimate of :math:`D_f(p \| q)`.

    Unbiased if both densities are normalised; every term is at least 0, up to rounding. With
    :math:`p` known only up to a factor (a joint for a posterior) it is no divergence. For those
    that grow like a power of the ratio the variance may be infinite.

    Args:
        divergence: Which.
        log_ratio: :math:`\log p(z) - \log q(z)` in nats at samples of :math:`q`.

    Example:
        >>> estimate(F_DIVERGENCES["reverse-kl"], torch.zeros(8))
        tensor(0.)
    """
    return divergence.generator(log_ratio).mean(0)


def path_loss(
    divergence: FDivergence, log_ratio: Float[Tensor, " samples *batch"]
) -> Float[Tensor, " *batch"]:
    r"""Return a loss whose gradient is that of :math:`D_f(p \| q)`; its value means nothing.

    .. math:: \nabla_\phi D_f = -\mathbb E_\epsilon \left[ h(r(z)) \, (\nabla_z \log p(z) -
        \nabla_z \log q(z)) \, \frac{\partial z}{\partial \phi} \right], \quad z = g_\phi(\epsilon)

    The weight is held fixed, and the gradient is unbiased for every divergence in the table, with
    no variance where :math:`q = p`. An unknown factor of :math:`p` scales the weight only.

    References:
        Xu et al., "One-step Diffusion Models with f-Divergence Distribution Matching", 2025,
        theorem 1 (arXiv:2502.15681).

    Args:
        divergence: Which; it must have a weight.
        log_ratio: :math:`\log p(z) - \log q_{\bar\phi}(z)` at reparameterised samples, with the
            parameters of **both** laws held fixed (`stop_gradient`), so that it depends on
            :math:`\phi` through :math:`z` alone.

    Raises:
        ValueError: If the generator has no second derivative.
    """
    return -(divergence.weight(log_ratio.detach()) * log_ratio).mean(0)


def alpha_divergence(order: float) -> FDivergence:
    r"""Return the divergence of the α family of an order.

    .. math:: f_\alpha(r) = \frac{r^\alpha - \alpha r - (1 - \alpha)}{\alpha (\alpha - 1)}, \qquad
        h(r) = r^\alpha

    It is the reverse KL at 0, the forward KL at 1, four times the squared Hellinger distance at
    1/2, half of Pearson's χ² at 2 and half of Neyman's at −1.

    References:
        Cichocki and Amari, "Families of Alpha- Beta- and Gamma- Divergences", Entropy 12, 2010.

    Args:
        order: :math:`\alpha`: the higher, the more it costs to miss mass of :math:`p`.

    Raises:
        ValueError: If the order is not finite.

    Example:
        >>> float(alpha_divergence(2.0).generator(torch.tensor(3.0).log()))
        2.0
    """
    if not math.isfinite(order):
        raise ValueError(f"alpha_divergence: order is {order!r}; it must be finite")
    name, dual = f"alpha({order:g})", f"alpha({1 - order:g})"
    if order in (0, 1):
        limit = _REVERSE_KL if order == 0 else _FORWARD_KL
        return FDivergence(
            name, limit.generator, limit.slope, limit.log_weight, limit.conjugate, dual
        )
    maximum = 1 / (order * (1 - order)) if 0 < order < 1 else math.inf
    return FDivergence(
        name,
        lambda u: (torch.expm1(order * u) - order * torch.expm1(u)) / (order * (order - 1)),
        lambda u: torch.expm1((order - 1) * u) / (order - 1),
        lambda u: order * u,
        _alpha_conjugate(order),
        dual,
        maximum,
    )


def f_divergence(kind: str, order: float | None = None) -> FDivergence:
    """Return the divergence of a kind, or of an order of the α family.

    Args:
        kind: A key of `F_DIVERGENCES`, or ``"alpha"``.
        order: The order of ``"alpha"``; None for the others.

    Raises:
        ValueError: If there is no such kind, or the order is missing or too much.

    Example:
        >>> f_divergence("alpha", 0.5).name
        'alpha(0.5)'
    """
    if (kind == "alpha") != (order is not None):
        raise ValueError(
            f"f_divergence: kind {kind!r} with order {order!r}; 'alpha' needs an order, the "
            "others have none"
        )
    if order is not None:
        return alpha_divergence(order)
    if kind not in F_DIVERGENCES:
        known = ", ".join([*F_DIVERGENCES, "alpha"])
        raise ValueError(f"f_divergence: no kind {kind!r}; there is {known}")
    return F_DIVERGENCES[kind]


def _up_to(limit: float, conjugate: Function) -> Function:
    """Return the function with infinity beyond its limit, where its gradient is 0 and not NaN."""

    def limited(t: Tensor) -> Tensor:
        inside = t <= limit
        return torch.where(inside, conjugate(torch.where(inside, t, limit - 1)), torch.inf)

    return limited


def _alpha_conjugate(order: float) -> Function:
    def conjugate(t: Tensor) -> Tensor:
        # Above order 1 the supremum is at r = 0 for every slope below that of f there.
        base = (1 + (order - 1) * t).clamp(min=0)
        return (base.pow(order / (order - 1)) - 1) / order

    return conjugate if order > 1 else _up_to(1 / (1 - order), conjugate)


def _pearson_conjugate(t: Tensor) -> Tensor:
    inner = t.clamp(min=-2)  # below, the supremum is at r = 0
    return inner.square() / 4 + inner


_REVERSE_KL = FDivergence(
    "reverse-kl",
    lambda u: torch.expm1(u) - u,
    lambda u: -torch.expm1(-u),
    torch.zeros_like,
    _up_to(1, lambda t: -torch.log1p(-t)),
    "forward-kl",
)

_FORWARD_KL = FDivergence(
    "forward-kl",
    lambda u: u.exp() * u - torch.expm1(u),
    lambda u: u,
    lambda u: u,
    torch.expm1,
    "reverse-kl",
)

# In table 1 of Xu et al. without the half; with it the divergence is at most log 2.
_JENSEN_SHANNON = FDivergence(
    "jensen-shannon",
    lambda u: 0.5 * (LOG_2 - softplus(u) + u.exp() * (LOG_2 - softplus(-u))),
    lambda u: 0.5 * (LOG_2 - softplus(-u)),
    lambda u: -softplus(-u) - LOG_2,
    _up_to(LOG_2 / 2, lambda t: -0.5 * (2 - (2 * t).exp()).log()),
    "jensen-shannon",
    LOG_2,
)

_PEARSON = FDivergence(
    "pearson-chi2",
    lambda u: torch.expm1(u).square(),
    lambda u: 2 * torch.expm1(u),
    lambda u: 2 * u + LOG_2,
    _pearson_conjugate,
    "neyman-chi2",
)

_NEYMAN = FDivergence(
    "neyman-chi2",
    lambda u: torch.expm1(u) * -torch.expm1(-u),
    lambda u: -torch.expm1(-2 * u),
    lambda u: LOG_2 - u,
    _up_to(1, lambda t: 2 - 2 * (1 - t).sqrt()),
    "pearson-chi2",
)

# The half makes it 1 minus the Bhattacharyya coefficient, at most 1.
_HELLINGER = FDivergence(
    "squared-hellinger",
    lambda u: 0.5 * torch.expm1(u / 2).square(),
    lambda u: -0.5 * torch.expm1(-u / 2),
    lambda u: u / 2 - 2 * LOG_2,
    _up_to(0.5, lambda t: t / (1 - 2 * t)),
    "squared-hellinger",
    1.0,
)

_TOTAL_VARIATION = FDivergence(
    "total-variation",
    lambda u: 0.5 * torch.expm1(u).abs(),
    lambda u: 0.5 * u.sign(),
    None,
    _up_to(0.5, lambda t: t.clamp(min=-0.5)),
    "total-variation",
    1.0,
)

_JEFFREYS = FDivergence(
    "jeffreys",
    lambda u: torch.expm1(u) * u,
    lambda u: u - torch.expm1(-u),
    softplus,
    None,
    "jeffreys",
)

_SOFTENED_REVERSE_KL = FDivergence(
    "softened-reverse-kl",
    lambda u: (u.exp() + 1) * (softplus(-u) - LOG_2) + torch.expm1(u),
    lambda u: softplus(-u) - LOG_2 - torch.expm1(-u),
    lambda u: -softplus(u),
    None,
    None,
)

F_DIVERGENCES: Mapping[str, FDivergence] = MappingProxyType(
    {
        record.name: record
        for record in (
            _REVERSE_KL,
            _FORWARD_KL,
            _JENSEN_SHANNON,
            _PEARSON,
            _NEYMAN,
            _HELLINGER,
            _TOTAL_VARIATION,
            _JEFFREYS,
            _SOFTENED_REVERSE_KL,
        )
    }
)
