"""Every kind of flow: its inverse, its log-determinant and its density."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from core.variational.distributions import DiagonalNormal
from core.variational.flows import FLOWS, Flow, FlowDistribution
from core.variational.selftest.check import Check, largest, worst_of

LATENT, CONTEXT, LAYERS, HIDDEN = 4, 2, 3, (16,)
INVERSE = {torch.float64: 1e-8, torch.float32: 1e-4}
STEEP = 0.1  # how far the parameters of splines and autoregressive layers are moved
NAMES = {torch.float64: "float64", torch.float32: "float32"}


def check_flows() -> list[Check]:
    """Hold each kind of flow to the inverse, the Jacobian and the integral that it claims."""
    checks = []
    for dtype, limit in INVERSE.items():
        errors = {kind: _errors(kind, dtype) for kind in FLOWS}
        inverse, jacobian = ({kind: both[i] for kind, both in errors.items()} for i in (0, 1))
        checks += [
            worst_of(f"inverse, {NAMES[dtype]}", inverse, limit, "absolute"),
            worst_of(f"log-determinant − autograd's, {NAMES[dtype]}", jacobian, limit, "nats"),
        ]
    remembered = {kind: _remembered_density(kind) for kind in FLOWS}
    integral = {kind: _integral(kind) for kind in FLOWS}
    return [
        *checks,
        worst_of("density of the last sample − inverted", remembered, 1e-7, "nats"),
        worst_of("integral of the density − 1", integral, 1e-3, "absolute"),
    ]


def _flow(kind: str, latent: int, context: int, dtype: torch.dtype) -> FlowDistribution:
    """Return a flow of one example whose parameters are away from where they start."""
    flow = Flow(kind, latent, LAYERS, context, HIDDEN).to(dtype)
    networks = "nsf" in kind or "af" in kind
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_((STEEP if networks else 3 * STEEP) * torch.randn_like(parameter))
    base = DiagonalNormal(torch.zeros(1, latent, dtype=dtype), torch.ones((), dtype=dtype))
    known = torch.randn(1, context, dtype=dtype) if context else None
    return FlowDistribution(base, flow, known)


def _errors(kind: str, dtype: torch.dtype) -> tuple[float, float]:
    """Return the largest error of the noise found again, and of the log-determinant."""
    q = _flow(kind, LATENT, CONTEXT, dtype)
    noise = torch.randn(8, 1, LATENT, dtype=dtype)
    value, log_det = _forward(q, noise)
    back, log_det_back = _inverse(q, value.detach())
    gaps = []
    for index, u in enumerate(noise):
        jacobian = torch.as_tensor(torch.autograd.functional.jacobian(_values(q), u))
        exact = torch.linalg.slogdet(jacobian[0, :, 0].double()).logabsdet
        gaps.append(log_det[index] - exact)
    both_ways = torch.cat([torch.cat(gaps), (log_det_back - log_det).flatten()])
    return largest(back - noise), largest(both_ways)


def _values(q: FlowDistribution) -> Callable[[Tensor], Tensor]:
    return lambda noise: _forward(q, noise)[0]


def _forward(q: FlowDistribution, noise: Tensor) -> tuple[Tensor, Tensor]:
    total = torch.zeros_like(noise[..., 0])
    for bijection in q.bijections:
        step = bijection.forward(noise)
        noise, total = step.value, total + step.log_det
    return noise, total


def _inverse(q: FlowDistribution, value: Tensor) -> tuple[Tensor, Tensor]:
    total = torch.zeros_like(value[..., 0])
    for bijection in reversed(q.bijections):
        value, log_det = bijection.inverse(value)
        total = total + log_det
    return value, total


@torch.no_grad()
def _remembered_density(kind: str) -> float:
    q = _flow(kind, LATENT, CONTEXT, torch.float64)
    z = q.rsample(torch.Size((100,)))
    return largest(q.log_prob(z) - q.log_prob(z.clone()))


@torch.no_grad()
def _integral(kind: str) -> float:
    q = _flow(kind, 1, 0, torch.float64)
    # As many points where the density is steep as where it is flat.
    noise = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    grid = _forward(q, noise.view(-1, 1, 1))[0].flatten()
    density = q.log_prob(grid.view(-1, 1, 1)).exp().flatten()
    return largest(torch.trapezoid(density, grid).abs() - 1)
