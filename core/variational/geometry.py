"""The Riemannian geometry that a model's posteriors give its latent space."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, LowRankMultivariateNormal, MultivariateNormal

from core.variational.distributions import as_diagonal_normal


class PosteriorMetric:
    r"""A metric that is large where the posteriors of the data are narrow.

    .. math:: G(z) = \sum_i \Sigma_i^{-1}
        \exp\left(-\frac{(z - \mu_i)^T \Sigma_i^{-1} (z - \mu_i)}{\rho^2}\right)
        + \lambda e^{-\tau \|z\|^2} I

    with the posteriors :math:`\mathcal N(\mu_i, \Sigma_i)` of chosen data. It is symmetric and
    positive definite everywhere for :math:`\lambda > 0`, and the volume of the whole space is
    finite for :math:`\tau > 0`. Distances are dimensionless: standard deviations of a posterior,
    next to its mean.

    The cost of a point is linear in the number of posteriors: give some hundreds, such as the
    medoids of clusters (the paper's choice).

    References:
        Chadebec and Allassonnière, "A Geometric Perspective on Variational Autoencoders", NeurIPS
        2022 (arXiv:2209.07370).

    Args:
        means: :math:`\mu_i`.
        precisions: :math:`\Sigma_i^{-1}`.
        temperature: :math:`\rho`, the reach of a posterior in its standard deviations; see
            `neighbour_distance`.
        floor: :math:`\lambda`.
        decay: :math:`\tau`.

    Raises:
        ValueError: If shapes disagree, a number is out of range, or a precision is not positive
            definite.

    Example:
        >>> metric = PosteriorMetric(torch.zeros(1, 2), torch.eye(2)[None], 1.0, 0.5, 0.1)
        >>> metric(torch.zeros(2))
        tensor([[1.5000, 0.0000],
                [0.0000, 1.5000]])
    """

    def __init__(
        self,
        means: Float[Tensor, "centre latent"],
        precisions: Float[Tensor, "centre latent latent"],
        temperature: float,
        floor: float,
        decay: float,
    ) -> None:
        if precisions.shape != (*means.shape, means.shape[-1]):
            raise ValueError(
                f"PosteriorMetric: means of shape {tuple(means.shape)}, precisions of shape "
                f"{tuple(precisions.shape)}; expected (centre, latent) and (centre, latent, "
                "latent)"
            )
        if not (temperature > 0 and floor > 0 and decay >= 0):
            raise ValueError(
                f"PosteriorMetric: temperature={temperature}, floor={floor}, decay={decay}; the "
                "first two must be positive, the last at least 0"
            )
        failed = torch.linalg.cholesky_ex(precisions).info != 0
        if failed.any():
            raise ValueError(
                f"PosteriorMetric: {int(failed.sum())} of {len(means)} precisions are not "
                "positive definite"
            )
        self.means = means.detach()
        self.precisions = precisions.detach()
        self.temperature = temperature
        self.floor = floor
        self.decay = decay

    def __call__(self, z: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch latent latent"]:
        """Return the metric at points; `log_volume` stays finite where this underflows."""
        log_scale, scaled = self._scaled(z)
        return scaled * log_scale.exp()[..., None, None]

    def log_volume(self, z: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch"]:
        r"""Return the log volume element :math:`\log \sqrt{\det G(z)}`, in nats."""
        log_scale, scaled = self._scaled(z)
        return 0.5 * (z.shape[-1] * log_scale + torch.logdet(scaled))

    def log_volume_gradient(
        self, z: Float[Tensor, "*batch latent"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch latent"]]:
        r"""Return the log volume element and its gradient, in closed form.

        .. math:: \partial_k \log \sqrt{\det G} = \tfrac12 \operatorname{tr}(G^{-1} \partial_k G)
        """
        pulled, exponents = self._pulled(z)
        log_scale, weights, flat = self._weights(z, exponents)
        factor = torch.linalg.cholesky(self._sum(weights, flat))
        log_volume = 0.5 * z.shape[-1] * log_scale + _diagonal(factor).log().sum(-1)
        inverse = torch.cholesky_inverse(factor)
        traces = inverse.flatten(-2) @ self.precisions.flatten(1).T  # of G^-1 Sigma_i^-1
        centres = (weights * traces).unsqueeze(-2) @ pulled / self.temperature**2
        floor = self.decay * flat * _diagonal(inverse).sum(-1)
        return log_volume, -centres.squeeze(-2) - floor.unsqueeze(-1) * z

    def speed_gradient(
        self, z: Float[Tensor, "*batch latent"], velocity: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch latent"]:
        r"""Return :math:`\nabla_z \tfrac12 v^T G(z) v` at a fixed velocity, in closed form."""
        pulled, weights = self._pulled(z)
        squares = velocity.unsqueeze(-1) * velocity.unsqueeze(-2)
        speeds = squares.flatten(-2) @ self.precisions.flatten(1).T
        centres = ((weights.exp() * speeds).unsqueeze(-2) @ pulled).squeeze(-2)
        flat = self._log_floor(z).exp() * velocity.square().sum(-1)
        return -centres / self.temperature**2 - self.decay * flat.unsqueeze(-1) * z

    def _pulled(self, z: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return :math:`\Sigma_i^{-1} (z - \mu_i)` and the exponents of the posteriors."""
        difference = z.unsqueeze(-2) - self.means
        pulled = torch.einsum("...ni,nij->...nj", difference, self.precisions)
        return pulled, -(pulled * difference).sum(-1) / self.temperature**2

    def _log_floor(self, z: Tensor) -> Tensor:
        return math.log(self.floor) - self.decay * z.square().sum(-1)

    def _weights(self, z: Tensor, exponents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log of a common factor, a constant of z, and the weights over it.

        The largest weight becomes 1, so that they do not all underflow.
        """
        floor = self._log_floor(z)
        log_scale = torch.maximum(exponents.amax(-1), floor).detach()
        return log_scale, (exponents - log_scale.unsqueeze(-1)).exp(), (floor - log_scale).exp()

    def _sum(self, weights: Tensor, flat: Tensor) -> Tensor:
        total = (weights @ self.precisions.flatten(1)).unflatten(-1, self.precisions.shape[1:])
        return total + torch.diag_embed(flat.unsqueeze(-1).expand(*flat.shape, total.shape[-1]))

    def _scaled(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log of a positive factor, a constant of z, and the metric over it."""
        log_scale, weights, flat = self._weights(z, self._pulled(z)[1])
        return log_scale, self._sum(weights, flat)


def posterior_metric(
    posterior: Distribution, floor: float, decay: float, temperature: float | None = None
) -> PosteriorMetric:
    """Return the metric of a batch of Normal posteriors.

    Args:
        posterior: Diagonal, low-rank or full, of batch shape ``(batch,)``.
        floor: See `PosteriorMetric`.
        decay: See `PosteriorMetric`.
        temperature: The `neighbour_distance` of the means if not given, as in the paper.

    Raises:
        NotImplementedError: If the posterior is not Normal.
        ValueError: If numbers are out of range.

    Example:
        >>> from core.variational.distributions import DiagonalNormal
        >>> posterior = DiagonalNormal(torch.randn(9, 2), torch.ones(9, 2))
        >>> posterior_metric(posterior, 0.1, 0.1)(torch.zeros(3, 2)).shape
        torch.Size([3, 2, 2])
    """
    if isinstance(posterior, MultivariateNormal | LowRankMultivariateNormal):
        precisions = posterior.precision_matrix
    else:
        precisions = torch.diag_embed(as_diagonal_normal(posterior).variance.reciprocal())
    if temperature is None:
        temperature = float(neighbour_distance(posterior.mean))
    return PosteriorMetric(posterior.mean, precisions, temperature, floor, decay)


def neighbour_distance(points: Float[Tensor, "centre latent"]) -> Float[Tensor, ""]:
    r"""Return the largest distance of a point to its nearest neighbour.

    .. math:: \rho = \max_i \min_{j \ne i} \|\mu_i - \mu_j\|

    Raises:
        ValueError: If there are fewer than two points.

    Example:
        >>> neighbour_distance(torch.tensor([[0.0], [1.0], [3.0]]))
        tensor(2.)
    """
    if len(points) < 2:
        raise ValueError(f"neighbour_distance: {len(points)} points; there must be at least 2")
    points = points.detach()
    distances = torch.cdist(points, points)
    return distances.fill_diagonal_(torch.inf).amin(1).amax()


def curve_length(
    metric: PosteriorMetric, curve: Float[Tensor, "*batch point latent"], subdivisions: int = 16
) -> Float[Tensor, "*batch"]:
    r"""Return the length of polygons, by the midpoint rule on each of their pieces' parts.

    .. math:: \int \sqrt{\dot\gamma^T G(\gamma) \dot\gamma}\, dt

    Args:
        metric: The metric.
        curve: Corners of each polygon.
        subdivisions: Parts of each straight piece.
    """
    return _speeds(metric, curve, subdivisions).sqrt().mean(-1).sum(-1)


def curve_energy(
    metric: PosteriorMetric, curve: Float[Tensor, "*batch point latent"], subdivisions: int = 16
) -> Float[Tensor, "*batch"]:
    r"""Return the energy of polygons run through in unit time, as long in each piece.

    .. math:: \int \dot\gamma^T G(\gamma) \dot\gamma\, dt \ge \text{length}^2

    with equality at constant speed.

    Args:
        metric: The metric.
        curve: Corners of each polygon.
        subdivisions: Parts of each straight piece.
    """
    pieces = curve.shape[-2] - 1
    return pieces * _speeds(metric, curve, subdivisions).mean(-1).sum(-1)


@dataclass(frozen=True, eq=False)
class Geodesics:
    """Shortest curves between pairs of points, as far as they were found.

    Args:
        curve: Corners of each curve, the ends included.
        length: Its length.
        straight_length: The length of the straight line, never less.
    """

    curve: Float[Tensor, "pair point latent"]
    length: Float[Tensor, " pair"]
    straight_length: Float[Tensor, " pair"]


def geodesics(
    metric: PosteriorMetric,
    start: Float[Tensor, "pair latent"],
    end: Float[Tensor, "pair latent"],
    pieces: int = 16,
    steps: int = 50,
    subdivisions: int = 4,
) -> Geodesics:
    r"""Find curves of least energy between pairs of points, from the straight line on.

    A polygon's inner corners are moved downhill, preconditioned by the Hessian that the energy has
    for a metric constant along each piece; first of few pieces, which are then halved. Each pair
    has its own step size, so that no pair depends on another. The optimum is local, and so is a
    geodesic. With a decay the far parts of the space are close to each other: a long curve may
    be led around through them, and is shorter.

    Length is measured on a finer grid than what was minimised; a curve that is longer there than
    the straight line is given up for it, so that none is ever longer.

    References:
        Arvanitidis et al., "Latent Space Oddity", ICLR 2018 (arXiv:1710.11379), for
        least energy as least length at constant speed.

    Args:
        metric: The metric.
        start: Where the curves start.
        end: Where they end.
        pieces: Straight pieces of each, best a power of 2.
        steps: Steps at each number of pieces.
        subdivisions: Parts of each piece on which the energy is integrated.

    Raises:
        ValueError: If there are fewer than 2 pieces, or points of different shapes.
    """
    if pieces < 2 or start.shape != end.shape:
        raise ValueError(
            f"geodesics: {pieces} pieces from {tuple(start.shape)} to {tuple(end.shape)}; there "
            "must be at least 2, between as many points"
        )
    straight = _straight(start.detach(), end.detach(), pieces)
    levels = [pieces]
    while levels[0] % 2 == 0 and levels[0] > 2:
        levels.insert(0, levels[0] // 2)
    curve = _straight(start.detach(), end.detach(), levels[0])
    for level in levels:
        if level > levels[0]:
            curve = _refined(curve)
        curve = _least_energy(metric, curve, steps, subdivisions * pieces // level)
    with torch.no_grad():
        length = curve_length(metric, curve, 4 * subdivisions)
        straight_length = curve_length(metric, straight, 4 * subdivisions)
    shorter = length < straight_length  # not where a length is no number
    curve = torch.where(shorter[:, None, None], curve, straight)
    return Geodesics(curve, torch.where(shorter, length, straight_length), straight_length)


def exponential_map(
    metric: PosteriorMetric,
    start: Float[Tensor, "*batch latent"],
    velocity: Float[Tensor, "*batch latent"],
    steps: int = 32,
) -> Float[Tensor, "*batch latent"]:
    r"""Follow the geodesic from a point with a velocity for a unit of time.

    Hamilton's equations of :math:`H = \tfrac12 p^T G(z)^{-1} p`, by Runge–Kutta of order 4:

    .. math:: \dot z = G(z)^{-1} p = v, \quad \dot p = \nabla_z \tfrac12 v^T G(z) v,
        \quad p(0) = G(z_0) v_0

    Args:
        metric: The metric.
        start: Points.
        velocity: Tangent vectors there.
        steps: Steps of the integrator.

    Example:
        >>> flat = PosteriorMetric(torch.zeros(1, 2), 1e-6 * torch.eye(2)[None], 1.0, 1.0, 0.0)
        >>> exponential_map(flat, torch.zeros(2), torch.tensor([1.0, 2.0])).round(decimals=3)
        tensor([1., 2.])
    """
    momentum = (metric(start) @ velocity.unsqueeze(-1)).squeeze(-1)
    state, step = (start, momentum), 1 / steps
    for _ in range(steps):
        first = _flow(metric, *state)
        second = _flow(metric, *_moved(state, first, step / 2))
        third = _flow(metric, *_moved(state, second, step / 2))
        fourth = _flow(metric, *_moved(state, third, step))
        slopes = [
            (a + 2 * b + 2 * c + d) / 6
            for a, b, c, d in zip(first, second, third, fourth, strict=True)
        ]
        state = _moved(state, (slopes[0], slopes[1]), step)
    return state[0]


@dataclass(frozen=True, eq=False)
class Logarithm:
    """Velocities that lead from points to others.

    Args:
        velocity: Tangent vectors at the start.
        residual: Euclidean distance between where they lead and where they should.
    """

    velocity: Float[Tensor, "pair latent"]
    residual: Float[Tensor, " pair"]


def logarithm_map(
    metric: PosteriorMetric,
    start: Float[Tensor, "pair latent"],
    end: Float[Tensor, "pair latent"],
    steps: int = 32,
    iterations: int = 20,
    tolerance: float = 1e-9,
) -> Logarithm:
    r"""Find the velocity whose `exponential_map` is the end: shooting from a geodesic.

    Newton's method on :math:`\exp_z(v) = z'`, its steps halved until the distance falls. Look at
    the residual: beyond a conjugate point there may be no or many solutions.

    Args:
        metric: The metric.
        start: Points.
        end: Others.
        steps: Steps of the integrator.
        iterations: Of Newton's method, at most.
        tolerance: Residual at which all is found.
    """
    curve = geodesics(metric, start, end).curve
    velocity = (curve[:, 1] - curve[:, 0]) * (curve.shape[1] - 1)
    with torch.no_grad():
        residual = (exponential_map(metric, start, velocity, steps) - end).norm(dim=-1)
    size = torch.ones_like(residual)
    for _ in range(iterations):
        if bool((residual <= tolerance).all()):
            break
        direction = _newton_step(metric, start, end, velocity, steps)
        candidate = velocity + size.unsqueeze(-1) * direction
        with torch.no_grad():
            distance = (exponential_map(metric, start, candidate, steps) - end).norm(dim=-1)
        better = distance < residual
        velocity = torch.where(better.unsqueeze(-1), candidate, velocity)
        residual = torch.where(better, distance, residual)
        size = torch.where(better, (2 * size).clamp(max=1.0), size / 2)
    return Logarithm(velocity, residual)


@dataclass(frozen=True, eq=False)
class UniformSamples:
    """Draws from the uniform distribution of a manifold.

    Args:
        value: Points of the latent space.
        acceptance_rate: Of the proposals after the burn-in, between 0 and 1.
    """

    value: Float[Tensor, "draw chain latent"]
    acceptance_rate: float


def sample_uniform(
    metric: PosteriorMetric,
    chains: int,
    draws: int,
    step_size: float,
    leapfrog: int,
    burn_in: int,
    thin: int,
    seed: int,
) -> UniformSamples:
    r"""Draw points uniformly by volume, by Hamiltonian Monte Carlo.

    .. math:: p(z) = \sqrt{\det G(z)} \Big/ \int \sqrt{\det G(z')}\, dz'

    with unit masses, and each trajectory's step size drawn within 20 % of the one given, so that
    none is periodic. The chains start at posterior means drawn at random; to decode the draws is
    the paper's way of generating.

    References:
        Chadebec and Allassonnière, "A Geometric Perspective on Variational Autoencoders", NeurIPS
        2022 (arXiv:2209.07370).
        Neal, "MCMC using Hamiltonian dynamics", Handbook of Markov Chain Monte Carlo, 2011
        (arXiv:1206.1901).

    Args:
        metric: The metric, of a finite volume: its decay must be positive.
        chains: Chains side by side.
        draws: Draws of each.
        step_size: Of the leapfrog integrator, in units of the latent.
        leapfrog: Steps of a trajectory.
        burn_in: Trajectories before the first draw.
        thin: Trajectories from one draw to the next.
        seed: Seed of the sampler's own random numbers.

    Raises:
        ValueError: If the decay is 0, or a number is not positive.
    """
    if metric.decay == 0:
        raise ValueError("sample_uniform: decay is 0, the volume infinite; it must be positive")
    if min(chains, draws, leapfrog, thin) < 1 or burn_in < 0 or not step_size > 0:
        raise ValueError(
            f"sample_uniform: chains={chains}, draws={draws}, leapfrog={leapfrog}, thin={thin}, "
            f"burn_in={burn_in}, step_size={step_size}; all must be positive, burn_in at least 0"
        )
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(len(metric.means), (chains,), generator=generator)
    z = metric.means[first.to(metric.means.device)]
    values, accepted = [], []
    for trajectory in range(1, burn_in + draws * thin + 1):
        z, moved = _trajectory(metric, z, step_size, leapfrog, generator)
        if trajectory > burn_in:
            accepted.append(moved.float().mean())
            if (trajectory - burn_in) % thin == 0:
                values.append(z)
    return UniformSamples(torch.stack(values), float(torch.stack(accepted).mean()))


def _speeds(metric: PosteriorMetric, curve: Tensor, subdivisions: int) -> Tensor:
    """Return squared lengths of the pieces, as seen from each of their parts' midpoints."""
    pieces, points = _parts(curve, subdivisions)
    pieces = pieces.expand_as(points)
    return ((metric(points) @ pieces.unsqueeze(-1)).squeeze(-1) * pieces).sum(-1)


def _parts(curve: Tensor, subdivisions: int) -> tuple[Tensor, Tensor]:
    """Return the pieces of curves, and the midpoints of their parts."""
    pieces = curve.diff(dim=-2).unsqueeze(-2)
    middles = ((torch.arange(subdivisions) + 0.5) / subdivisions).to(curve)[:, None]
    return pieces, curve[..., :-1, :].unsqueeze(-2) + middles * pieces


def _straight(start: Tensor, end: Tensor, pieces: int) -> Tensor:
    times = torch.linspace(0, 1, pieces + 1).to(start)[:, None]
    return torch.lerp(start[:, None], end[:, None], times)


def _refined(curve: Tensor) -> Tensor:
    """Return the same curve with a corner more in the middle of each piece."""
    middles = 0.5 * (curve[:, :-1] + curve[:, 1:])
    corners = torch.stack([curve[:, :-1], middles], 2).flatten(1, 2)
    return torch.cat([corners, curve[:, -1:]], 1)


def _least_energy(metric: PosteriorMetric, curve: Tensor, steps: int, subdivisions: int) -> Tensor:
    """Descend from a curve; each pair of points has a step size of its own."""
    energy, gradient, pull = _energy_and_gradient(metric, curve, subdivisions)
    size = torch.ones_like(energy)
    reach = 0.25 * (curve[:, -1] - curve[:, 0]).norm(dim=-1)
    for _ in range(steps):
        direction = -_solve(pull, gradient)
        farthest = direction.norm(dim=-1).amax(1).clamp(min=torch.finfo(energy.dtype).tiny)
        direction = direction * (reach / farthest).clamp(max=1.0)[:, None, None]
        candidate = curve.clone()
        candidate[:, 1:-1] += size[:, None, None] * direction
        found = _energy_and_gradient(metric, candidate, subdivisions)
        expected = 1e-4 * size * (gradient * direction).sum((1, 2))
        better = found[0] <= energy + expected
        curve, energy, gradient, pull = (
            torch.where(better.view(-1, *[1] * (old.dim() - 1)), new, old)
            for new, old in zip((candidate, *found), (curve, energy, gradient, pull), strict=True)
        )
        size = torch.where(better, (2 * size).clamp(max=1.0), 0.5 * size)
    return curve


def _energy_and_gradient(
    metric: PosteriorMetric, curve: Tensor, subdivisions: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return energies, their gradients by the inner corners, and the pieces' mean metrics."""
    count = curve.shape[1] - 1
    pieces, points = _parts(curve, subdivisions)
    pull = metric(points)
    forces = metric.speed_gradient(points, pieces.expand_as(points)) * (2 * count / subdivisions)
    nearness = ((torch.arange(subdivisions) + 0.5) / subdivisions).to(curve)[:, None]
    pull = pull.mean(2)
    along = (pull @ curve.diff(dim=1).unsqueeze(-1)).squeeze(-1)
    energy = count * (along * curve.diff(dim=1)).sum((1, 2))
    right = 2 * count * along + (nearness * forces).sum(2)
    left = -2 * count * along + ((1 - nearness) * forces).sum(2)
    return energy, right[:, :-1] + left[:, 1:], 2 * count * pull


def _solve(pull: Tensor, gradient: Tensor) -> Tensor:
    """Solve for the steps of the corners as if the metric were constant along each piece."""
    pairs, corners, latent = gradient.shape
    matrix = gradient.new_zeros(pairs, corners, corners, latent, latent)
    index = torch.arange(corners)
    matrix[:, index, index] = pull[:, :-1] + pull[:, 1:]
    matrix[:, index[:-1], index[1:]] = -pull[:, 1:-1]
    matrix[:, index[1:], index[:-1]] = -pull[:, 1:-1]
    matrix = matrix.transpose(2, 3).flatten(3).flatten(1, 2)
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    diagonal += 1e-9 * diagonal.amax(1, keepdim=True)  # far away the metric all but vanishes
    return torch.linalg.solve(matrix, gradient.flatten(1)).view_as(gradient)


def _flow(metric: PosteriorMetric, z: Tensor, momentum: Tensor) -> tuple[Tensor, Tensor]:
    velocity = torch.linalg.solve(metric(z), momentum.unsqueeze(-1)).squeeze(-1)
    return velocity, metric.speed_gradient(z, velocity)


def _moved(
    state: tuple[Tensor, Tensor], slope: tuple[Tensor, Tensor], step: float
) -> tuple[Tensor, Tensor]:
    return state[0] + step * slope[0], state[1] + step * slope[1]


def _newton_step(
    metric: PosteriorMetric, start: Tensor, end: Tensor, velocity: Tensor, steps: int
) -> Tensor:
    with torch.enable_grad():
        velocity = velocity.detach().requires_grad_()
        reached = exponential_map(metric, start, velocity, steps)
        rows = [
            torch.autograd.grad(reached[:, dimension].sum(), velocity, retain_graph=True)[0]
            for dimension in range(reached.shape[-1])
        ]
    jacobian = torch.stack(rows, 1)
    # Normal equations with a trace of a ridge: lstsq is not bitwise repeatable on the CPU, and a
    # Jacobian is singular at a conjugate point.
    gram = jacobian.mT @ jacobian
    ridge = 1e-12 * gram.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    wanted = jacobian.mT @ (end - reached.detach()).unsqueeze(-1)
    return torch.linalg.solve(gram + ridge * identity, wanted).squeeze(-1)


def _trajectory(
    metric: PosteriorMetric,
    z: Tensor,
    step_size: float,
    leapfrog: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return the next state of each chain, and which proposals were accepted."""
    momentum = torch.randn(z.shape, generator=generator, dtype=z.dtype).to(z.device)
    jitter = 0.8 + 0.4 * torch.rand(len(z), 1, generator=generator, dtype=z.dtype).to(z.device)
    step = step_size * jitter
    before, slope = metric.log_volume_gradient(z)
    point, speed, after = z, momentum, before
    for _ in range(leapfrog):
        speed = speed + 0.5 * step * slope
        point = point + step * speed
        after, slope = metric.log_volume_gradient(point)
        speed = speed + 0.5 * step * slope
    gain = after - before + 0.5 * (momentum.square() - speed.square()).sum(-1)
    uniform = torch.rand(len(z), generator=generator, dtype=z.dtype).to(z.device)
    accepted = uniform.log() < gain
    return torch.where(accepted.unsqueeze(-1), point, z), accepted


def _diagonal(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1)
