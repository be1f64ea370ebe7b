"""Planar and radial flows: one direction, or one centre, a layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.variational.distributions.base import at_least_single
from core.variational.flows.bijection import Bijection, Step
from core.variational.flows.conditioner import Conditioner

LEAST = 1e-3  # no layer shrinks a direction to less: its inverse stays well conditioned
AT_ZERO = math.log(math.expm1(1 - LEAST))


class RankOne(nn.Module):
    """A layer whose parameters are learned numbers, or linear in the context.

    Args:
        size: How many parameters one layer has.
        context: Length of the context; 0 for none.
    """

    def __init__(self, size: int, context: int) -> None:
        super().__init__()
        self.conditioner = Conditioner(context, (), size)

    def raw(self, context: Tensor | None) -> Tensor:
        """Return the layer's parameters in this context."""
        known = next(self.parameters()).new_zeros(0) if context is None else context
        return at_least_single(self.conditioner(known))


class Planar(RankOne):
    r"""A layer that pushes away from, or towards, a hyperplane.

    .. math:: y = x + \hat u \tanh(w^T x + b), \quad
        \det J = 1 + (1 - \tanh^2(w^T x + b)) w^T \hat u

    with :math:`\hat u = u + (m(w^T u) - w^T u) w / \|w\|^2` and :math:`m > -1`, so that the layer
    is invertible. Deviation from the paper: :math:`m(a) = \operatorname{softplus}(a + c) - 1 +
    10^{-3}` with :math:`c` such that :math:`m(0) = 0`. A layer with :math:`u = 0` then is the
    identity, and no determinant is below :math:`10^{-3}`. The inverse has no closed form; it is
    the root of a monotone function of :math:`w^T x`.

    References:
        Rezende and Mohamed, "Variational Inference with Normalizing Flows", ICML 2015, eq. 10 to
        12 and appendix A.1 (arXiv:1505.05770).

    Args:
        latent: Length of the vectors.
        context: Length of the context; 0 for none.
    """

    def __init__(self, latent: int, context: int) -> None:
        super().__init__(2 * latent + 1, context)
        self.latent = latent

    def forward(self, context: Tensor | None) -> Bijection:
        """Return the layer for this context."""
        u, w, b = self.raw(context).split([self.latent, self.latent, 1], -1)
        squared = w.square().sum(-1, keepdim=True).clamp(min=torch.finfo(w.dtype).tiny)
        along = (w * u).sum(-1, keepdim=True)
        return PlanarBijection(u + (above_minus_one(along) - along) * w / squared, w, b)


class PlanarBijection:
    """A `Planar` layer in one context."""

    def __init__(self, u: Tensor, w: Tensor, b: Tensor) -> None:
        self.u, self.w, self.b = u, w, b
        self.along = (u * w).sum(-1, keepdim=True)

    def forward(self, x: Tensor) -> Step:
        """Map noise to value."""
        bent = torch.tanh((self.w * x).sum(-1, keepdim=True) + self.b)
        slope = 1 - bent.square()
        determinant = 1 + slope * self.along

        @torch.no_grad()
        def pull(score: Tensor) -> Tensor:
            # Sherman and Morrison on J = I + u (h' w)', and h'' = -2 h h'.
            of_log_det = -2 * bent * slope * self.along / determinant * self.w
            rest = score - of_log_det
            onto = (self.u * rest).sum(-1, keepdim=True) * slope / determinant
            return rest - onto * self.w

        return Step(x + self.u * bent, determinant.log().squeeze(-1), pull)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise of a value, and the log-determinant of `forward` there."""
        one = torch.ones_like(self.along)
        onto = monotone_root((self.w * y).sum(-1, keepdim=True), self.along, one, self.b)
        bent = torch.tanh(onto + self.b)
        determinant = 1 + (1 - bent.square()) * self.along
        return y - self.u * bent, determinant.log().squeeze(-1)


class Radial(RankOne):
    r"""A layer that pushes away from, or towards, a centre.

    .. math:: y = x + \frac{\beta}{\alpha + r} (x - c), \quad r = \|x - c\|, \quad
        \det J = \left(1 + \frac{\beta}{\alpha + r}\right)^{d - 1}
        \left(1 + \frac{\alpha \beta}{(\alpha + r)^2}\right)

    with :math:`\alpha = \operatorname{softplus}(a)` and :math:`\beta = \alpha m(b) > -\alpha`, the
    :math:`m` of `Planar`: the identity at :math:`b = 0`. The inverse is in closed form, since
    :math:`r` solves a quadratic equation.

    References:
        Rezende and Mohamed, "Variational Inference with Normalizing Flows", ICML 2015, eq. 14 and
        appendix A.2 (arXiv:1505.05770).

    Args:
        latent: Length of the vectors.
        context: Length of the context; 0 for none.
    """

    def __init__(self, latent: int, context: int) -> None:
        super().__init__(latent + 2, context)
        self.latent = latent

    def forward(self, context: Tensor | None) -> Bijection:
        """Return the layer for this context."""
        centre, alpha, beta = self.raw(context).split([self.latent, 1, 1], -1)
        alpha = LEAST + functional.softplus(alpha)
        return RadialBijection(centre, alpha, alpha * above_minus_one(beta))


class RadialBijection:
    """A `Radial` layer in one context."""

    def __init__(self, centre: Tensor, alpha: Tensor, beta: Tensor) -> None:
        self.centre, self.alpha, self.beta = centre, alpha, beta

    def forward(self, x: Tensor) -> Step:
        """Map noise to value."""
        away = x - self.centre
        radius = _norm(away)
        push = self.beta / (self.alpha + radius)

        @torch.no_grad()
        def pull(score: Tensor) -> Tensor:
            # J = (1 + push) I - (push / (alpha + r)) r e e', with the unit vector e.
            unit = away / radius.clamp(min=torch.finfo(radius.dtype).tiny)
            across, out, of_log_det = self._slopes(radius, push, away.shape[-1])
            rest = score - of_log_det * unit
            onto = (unit * rest).sum(-1, keepdim=True)
            return (rest - onto * unit) / across + onto / out * unit

        return Step(x + push * away, self._log_det(radius, push, x.shape[-1]), pull)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise of a value, and the log-determinant of `forward` there."""
        away = y - self.centre
        distance = _norm(away)
        # r (1 + beta / (alpha + r)) = distance; the positive root, without cancellation.
        half = 0.5 * (distance - self.alpha - self.beta)
        product = distance * self.alpha
        root = (half.square() + product).sqrt()
        tiny = torch.finfo(y.dtype).tiny
        radius = torch.where(half > 0, half + root, product / (root - half).clamp(min=tiny))
        push = self.beta / (self.alpha + radius)
        return self.centre + away / (1 + push), self._log_det(radius, push, y.shape[-1])

    def _log_det(self, radius: Tensor, push: Tensor, latent: int) -> Tensor:
        out = 1 + push * self.alpha / (self.alpha + radius)
        return ((latent - 1) * (1 + push).log() + out.log()).squeeze(-1)

    def _slopes(self, radius: Tensor, push: Tensor, latent: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the slopes across the radius and along it, and that of the log-determinant."""
        total = self.alpha + radius
        across, out = 1 + push, 1 + push * self.alpha / total
        of_out = -2 * push * self.alpha / total.square() / out
        return across, out, of_out - (latent - 1) * push / total / across


def above_minus_one(a: Tensor) -> Tensor:
    r"""Return :math:`m(a) > -1`, increasing, with :math:`m(0) = 0`."""
    return functional.softplus(a + AT_ZERO) - (1 - LEAST)


def monotone_root(y: Tensor, r: Tensor, s: Tensor, c: Tensor) -> Tensor:
    r"""Solve :math:`x + r \tanh(s x + c) = y` for :math:`x`, given :math:`r s > -1`.

    Newton's method inside a shrinking bracket, which is halved where Newton's step leaves it or
    is not half of the step before; to the last digit. The gradient is that of the implicit
    function, exact to first order, as one more Newton step.

    Args:
        y: The right-hand side.
        r: Height of the step.
        s: Its steepness.
        c: Its place.
    """
    with torch.no_grad():
        y_, r_, s_, c_ = torch.broadcast_tensors(y, r, s, c)
        low, high = y_ - r_.abs(), y_ + r_.abs()
        x, moved = y_, high - low
        for _ in range(200):
            bent = torch.tanh(s_ * x + c_)
            excess = x + r_ * bent - y_
            low, high = torch.where(excess > 0, low, x), torch.where(excess > 0, x, high)
            step = -excess / (1 + r_ * s_ * (1 - bent.square()))
            quick = (x + step >= low) & (x + step <= high) & (step.abs() <= 0.5 * moved.abs())
            new = torch.where(quick, x + step, 0.5 * (low + high))
            if torch.equal(new, x):
                break
            x, moved = new, new - x
    bent = torch.tanh(s * x + c)
    return x - (x + r * bent - y) / (1 + r * s * (1 - bent.square())).detach()


def _norm(away: Tensor) -> Tensor:
    return torch.linalg.vector_norm(away, dim=-1, keepdim=True)
