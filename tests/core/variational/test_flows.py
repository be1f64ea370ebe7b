from __future__ import annotations

import copy
import math
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Distribution

from core.variational.distributions import DiagonalNormal, stop_gradient
from core.variational.flows import FLOWS, Flow, FlowDistribution, check_direction
from core.variational.posteriors import FlowPosterior

KINDS = sorted(FLOWS)


def flow_distribution(
    kind: str, latent: int, context: int = 0, batch: int = 3, dtype: torch.dtype = torch.float64
) -> FlowDistribution:
    """A flow whose parameters are away from where they start."""
    flow = Flow(kind, latent, layers=3, context=context, hidden=(16,)).to(dtype)
    with torch.no_grad():
        for parameter in flow.parameters():
            steep = "nsf" in kind or "af" in kind
            parameter.add_((0.1 if steep else 0.3) * torch.randn_like(parameter))
    loc = torch.randn(batch, latent, dtype=dtype, requires_grad=True)
    base = DiagonalNormal(loc, torch.full((batch, latent), 0.8, dtype=dtype))
    known = torch.randn(batch, context, dtype=dtype) if context else None
    return FlowDistribution(base, flow, known)


def noise_of(q: FlowDistribution, value: Tensor) -> tuple[Tensor, Tensor]:
    total = torch.zeros(value.shape[:-1], dtype=value.dtype)
    for bijection in reversed(q.bijections):
        value, log_det = bijection.inverse(value)
        total = total + log_det
    return value, total


def forward(q: FlowDistribution, noise: Tensor) -> tuple[Tensor, Tensor]:
    total = torch.zeros(noise.shape[:-1], dtype=noise.dtype)
    for bijection in q.bijections:
        step = bijection.forward(noise)
        noise, total = step.value, total + step.log_det
    return noise, total


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(latent=st.integers(1, 5), context=st.sampled_from([0, 2]), seed=st.integers(0, 999))
@settings(max_examples=3, deadline=None)
def test_the_inverse_of_a_flow_gives_back_the_noise(
    kind: str, dtype: torch.dtype, latent: int, context: int, seed: int
) -> None:
    torch.manual_seed(seed)
    q = flow_distribution(kind, latent, context, dtype=dtype)
    noise = q.base.rsample((4,)).detach()
    value, log_det = forward(q, noise)
    back, log_det_back = noise_of(q, value)
    tolerance = 1e-4 if dtype is torch.float32 else 1e-8
    # Where a flow contracts, what one rounding loses is multiplied on the way back.
    slope = max(1.0, float((-log_det.detach().min()).exp()))
    assert float((back - noise).detach().abs().max()) <= tolerance * slope
    assert float((log_det_back - log_det).detach().abs().max()) <= 50 * tolerance * slope


@pytest.mark.parametrize("kind", KINDS)
@given(latent=st.integers(1, 5), context=st.sampled_from([0, 2]), seed=st.integers(0, 999))
@settings(max_examples=3, deadline=None)
def test_s001_the_log_determinant_is_that_of_the_jacobian(
    kind: str, latent: int, context: int, seed: int
) -> None:
    torch.manual_seed(seed)
    q = flow_distribution(kind, latent, context, batch=1)
    noise = torch.randn(1, latent, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(
        lambda u: forward(q, u.unsqueeze(0))[0].squeeze(0), noise[0]
    )
    _, log_det = forward(q, noise)
    assert float(log_det.detach()) == pytest.approx(
        float(torch.linalg.slogdet(jacobian)[1]), abs=1e-8
    )


@pytest.mark.parametrize("kind", KINDS)
def test_s001_the_log_determinant_is_that_of_the_jacobian_in_single_precision(kind: str) -> None:
    q = flow_distribution(kind, 4, 2, batch=1, dtype=torch.float32)
    noise = torch.randn(1, 4)
    jacobian = torch.autograd.functional.jacobian(
        lambda u: forward(q, u.unsqueeze(0))[0].squeeze(0), noise[0]
    )
    _, log_det = forward(q, noise)
    exact = float(torch.linalg.slogdet(jacobian.double())[1])
    assert float(log_det.detach()) == pytest.approx(exact, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_density_of_a_flow_integrates_to_one_on_the_line(kind: str) -> None:
    q = flow_distribution(kind, 1, batch=1)
    grid = torch.linspace(-40, 40, 16_001, dtype=torch.float64)
    density = q.log_prob(grid.view(-1, 1, 1)).exp().detach()
    tolerance = 1e-2 if "-nsf" in kind else 1e-3  # zuko's splines start steeper than the grid
    total = float(torch.trapezoid(density.squeeze(-1), grid))
    assert total == pytest.approx(1, abs=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_the_density_of_a_flow_integrates_to_one_in_the_plane(kind: str) -> None:
    q = flow_distribution(kind, 2, batch=1)
    with torch.no_grad():
        draws = q.sample((2000,)).flatten(0, 1)
        low, high = draws.amin(0) - 2, draws.amax(0) + 2
        axes = [torch.linspace(float(a), float(b), 140) for a, b in zip(low, high, strict=True)]
        x, y = (axis.double() for axis in axes)
        grid = torch.cartesian_prod(x, y).unsqueeze(1)
        density = q.log_prob(grid).exp().view(140, 140)
        total = torch.trapezoid(torch.trapezoid(density, y, dim=1), x, dim=0)
    # Where a layer is steep the grid is coarse; an error in the density would be of order 1.
    assert float(total) == pytest.approx(1, abs=2e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flow_knows_the_density_of_its_last_sample_without_inverting(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    q = flow_distribution(kind, 3, 2)
    z = q.rsample((5,))
    inverted = q.log_prob(z.clone()).detach()

    def refuse(*_: object) -> None:
        raise AssertionError("inverted")

    for bijection in q.bijections:
        monkeypatch.setattr(bijection, "inverse", refuse)
    torch.testing.assert_close(q.log_prob(z).detach(), inverted, rtol=1e-7, atol=1e-7)
    with pytest.raises(AssertionError, match="inverted"):
        q.log_prob(z.clone())


def test_a_sample_changed_in_place_is_inverted() -> None:
    q = flow_distribution("realnvp", 3)
    z = q.sample()
    remembered = q.log_prob(z)
    z.add_(1.0)
    with torch.no_grad():
        torch.testing.assert_close(q.log_prob(z), q.log_prob(z.clone()))
    assert float((q.log_prob(z) - remembered).detach().abs().max()) > 0.1


@pytest.mark.parametrize("kind", ["realnvp", "planar", "iaf"])
def test_a_sample_without_gradients_still_has_the_gradient_of_its_density(kind: str) -> None:
    q = flow_distribution(kind, 3, 2)
    z = q.sample()
    q.log_prob(z).sum().backward(retain_graph=True)
    remembered = [parameter.grad.clone() for parameter in q.flow.parameters()]
    q.flow.zero_grad()
    q.log_prob(z.clone()).sum().backward()
    for parameter, gradient in zip(q.flow.parameters(), remembered, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
        assert float(gradient.abs().sum()) > 0


def test_the_gradient_of_an_inverse_is_that_of_finite_differences() -> None:
    for kind in ("planar", "sylvester", "radial", "nsf"):
        q = flow_distribution(kind, 2, batch=1)
        value = torch.randn(1, 2, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(q.log_prob(value).sum(), value)
        step = 1e-5
        for i in range(2):
            moved = torch.zeros(1, 2, dtype=torch.float64)
            moved[0, i] = step
            difference = q.log_prob(value + moved) - q.log_prob(value - moved)
            numerical = float(difference.detach()) / (2 * step)
            assert float(gradient[0, i]) == pytest.approx(numerical, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("kind", ["planar", "radial"])
def test_a_flow_stays_invertible_whatever_its_parameters(kind: str) -> None:
    flow = Flow(kind, 3, layers=1, context=0, hidden=())
    for scale in (1e-3, 1.0, 30.0, 300.0):
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter.copy_(scale * torch.randn_like(parameter))
        flow64 = copy.deepcopy(flow).double()
        q = FlowDistribution(
            DiagonalNormal(torch.zeros(500, 3).double(), torch.ones(()).double()), flow64
        )
        noise = q.base.sample()
        value, log_det = forward(q, noise)
        assert log_det.isfinite().all()
        back, _ = noise_of(q, value)
        assert float((back - noise).detach().abs().max()) < 1e-6


@pytest.mark.parametrize("kind", ["planar", "radial"])
def test_a_planar_or_radial_layer_with_parameters_zero_is_the_identity(kind: str) -> None:
    flow = Flow(kind, 3, layers=2, context=0, hidden=())
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.zero_()
    noise = torch.randn(7, 3)
    for bijection in flow():
        step = bijection.forward(noise)
        torch.testing.assert_close(step.value, noise, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(step.log_det, torch.zeros(7), atol=1e-6, rtol=0)


def test_further_event_dimensions_are_mapped_one_by_one_and_added_up() -> None:
    flow = Flow("realnvp", 2, layers=2, context=0, hidden=(8,))
    nodes = FlowDistribution(DiagonalNormal(torch.zeros(5, 4, 2), torch.ones(()), 2), flow)
    single = FlowDistribution(DiagonalNormal(torch.zeros(5, 4, 2), torch.ones(())), flow)
    value = torch.randn(3, 5, 4, 2)
    assert nodes.event_shape == (4, 2)
    torch.testing.assert_close(nodes.log_prob(value), single.log_prob(value).sum(-1))
    z = nodes.rsample((3,))
    torch.testing.assert_close(nodes.log_prob(z), single.log_prob(z.detach()).sum(-1))


def test_a_flow_with_its_parameters_held_fixed_has_the_same_density_and_no_gradient() -> None:
    for kind in KINDS:
        q = flow_distribution(kind, 3, 2)
        value = torch.randn(4, 3, 3, dtype=torch.float64, requires_grad=True)
        fixed = stop_gradient(q).log_prob(value)
        torch.testing.assert_close(fixed, q.log_prob(value))
        (by_value,) = torch.autograd.grad(fixed.sum(), value, retain_graph=True)
        assert float(by_value.abs().sum()) > 0
        unused = torch.autograd.grad(
            fixed.sum(), [*q.flow.parameters(), q.base.loc], allow_unused=True
        )
        assert all(gradient is None for gradient in unused)


def test_an_expanded_flow_has_the_same_density() -> None:
    q = flow_distribution("realnvp", 3, 2)
    wide = q.expand((5, 3))
    value = torch.randn(3, 3, dtype=torch.float64)
    assert wide.batch_shape == (5, 3)
    torch.testing.assert_close(wide.log_prob(value), q.log_prob(value).expand(5, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_a_flow_is_refused_in_its_slow_direction_with_the_reason(kind: str) -> None:
    for direction in ("sample", "density"):
        if direction in FLOWS[kind].fast:
            check_direction(kind, direction, "test")
        else:
            with pytest.raises(ValueError, match=f"test: flow '{kind}' is slow") as refusal:
                check_direction(kind, direction, "test")
            assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("kind", "direction"), [(k, d) for k in KINDS for d in ("sample", "density")]
)
def test_the_fast_directions_run_each_network_once(kind: str, direction: str) -> None:
    if kind in ("planar", "radial", "sylvester", "householder"):
        pytest.skip("no network inside")
    q = flow_distribution(kind, 6, 2)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    for module in q.flow.modules():
        inner = getattr(module, "hyper", None)
        if inner is not None:
            inner.register_forward_hook(count)
        if hasattr(module, "columns"):
            columns = module.columns
            module.columns = lambda known, columns=columns: (count(), columns(known))[1]
    if direction == "sample":
        q.log_prob(q.rsample())
    else:
        q.log_prob(torch.randn(3, 6, dtype=torch.float64))
    assert (calls <= 3) == (direction in FLOWS[kind].fast)


def test_an_unknown_kind_of_flow_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="no kind 'gf'; there are 'nice', 'realnvp'"):
        Flow("gf", 2, layers=1, context=0, hidden=())


def test_zuko_leaves_the_validation_of_distributions_as_it_was() -> None:
    # In a process of its own: here zuko may have been imported already.
    program = (
        "import sys\n"
        "from torch.distributions import Distribution, Normal\n"
        "before = dict(vars(Distribution))\n"
        "from core.variational.flows import Flow\n"
        "assert 'zuko' not in sys.modules\n"
        "Flow('maf', 3, layers=2, context=0, hidden=(8,))\n"
        "assert 'zuko' in sys.modules\n"
        "assert vars(Distribution)['_validate_args'] is before['_validate_args']\n"
        "assert vars(Distribution)['arg_constraints'] is before['arg_constraints']\n"
        "try:\n"
        "    Normal(0.0, -1.0)\n"
        "except ValueError:\n"
        "    print('validated')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "validated"
    assert Distribution._validate_args


def walls(z: Tensor) -> Tensor:
    return 0.5 * ((z.abs() - 4).clamp(min=0) / 0.4).square().sum(-1)


def wave(z: Tensor) -> Tensor:
    return torch.sin(math.pi / 2 * z[..., 0])


def bump(x: Tensor, width: float) -> Tensor:
    return -0.5 * (x / width).square()


def energy_1(z: Tensor) -> Tensor:
    ring = 0.5 * ((z.norm(dim=-1) - 2) / 0.4).square()
    return ring - torch.logaddexp(bump(z[..., 0] - 2, 0.6), bump(z[..., 0] + 2, 0.6))


def energy_2(z: Tensor) -> Tensor:
    return -bump(z[..., 1] - wave(z), 0.4)


def energy_3(z: Tensor) -> Tensor:
    fork = 3 * bump(z[..., 0] - 1, 0.6).exp()
    off = z[..., 1] - wave(z)
    return -torch.logaddexp(bump(off, 0.35), bump(off + fork, 0.35))


def energy_4(z: Tensor) -> Tensor:
    fork = 3 * torch.sigmoid((z[..., 0] - 1) / 0.3)
    off = z[..., 1] - wave(z)
    return -torch.logaddexp(bump(off, 0.4), bump(off + fork, 0.35))


ENERGIES: dict[str, Callable[[Tensor], Tensor]] = {
    "U1": energy_1,
    "U2": energy_2,
    "U3": energy_3,
    "U4": energy_4,
}


def log_normaliser(energy: Callable[[Tensor], Tensor]) -> float:
    axis = torch.linspace(-9, 9, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    spacing = float(axis[1] - axis[0])
    log_density = -(energy(grid) + walls(grid))
    return float(log_density.logsumexp(0)) + 2 * math.log(spacing)


def fitted_kl(energy: Callable[[Tensor], Tensor], kind: str, layers: int, steps: int) -> float:
    """The KL divergence after a fit with path gradients, from fresh draws, in nats."""
    posterior = FlowPosterior(None, 2, kind, layers, context=0, hidden=(32,))
    raw = torch.zeros(1, 4, requires_grad=True)
    parameters = [raw, *posterior.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        heat = min(1.0, 0.1 + 2 * step / steps)
        q = posterior(raw)
        z = q.rsample((256,))
        target = heat * (energy(z) + walls(z))
        loss = (stop_gradient(q).log_prob(z) + target).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        q = posterior(raw)
        z = q.rsample((20_000,))
        kl = (q.log_prob(z) + energy(z) + walls(z)).mean()
    return float(kl) + log_normaliser(energy)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ENERGIES))
def test_s001_a_planar_flow_fits_two_dimensional_energies_better_than_a_normal(name: str) -> None:
    """As in table 1 of Rezende and Mohamed, with walls at 4: three of them have no integral."""
    normal = min(fitted_kl(ENERGIES[name], "planar", 0, 300) for _ in range(2))
    flow = fitted_kl(ENERGIES[name], "planar", 16, 600)
    assert -0.02 <= flow <= normal - 0.5


@pytest.mark.parametrize("name", ["U1", "U3"])
def test_s001_a_spline_flow_fits_two_dimensional_energies_better_than_a_normal(name: str) -> None:
    """The same with two spline layers, which need a quarter of the steps."""
    normal = min(fitted_kl(ENERGIES[name], "planar", 0, 200) for _ in range(2))
    flow = fitted_kl(ENERGIES[name], "nsf", 2, 150)
    assert -0.02 <= flow <= normal - 0.5


def test_s001_no_layers_is_the_normal_itself() -> None:
    posterior = FlowPosterior(5, 3, "planar", 0, context=0, hidden=())
    features = torch.randn(4, 5)
    q = posterior(features)
    loc, log_scale = posterior.head(features).chunk(2, -1)
    value = torch.randn(6, 4, 3)
    assert type(q) is DiagonalNormal
    assert torch.equal(q.log_prob(value), DiagonalNormal(loc, log_scale.exp()).log_prob(value))
