"""Distances between two sets of samples, or two normal laws, that need no density ratio."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, LowRankMultivariateNormal, MultivariateNormal

from core.variational.distributions import DiagonalNormal, check_same_event
from core.variational.distributions.base import at_least_single
from core.variational.distributions.normal import require_diagonal_normal

KERNEL_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def inverse_multiquadric(squared: Tensor, width: float) -> Tensor:
    r"""Return :math:`w / (w + d^2)` of squared distances: heavy tails, so far points still pull.

    Args:
        squared: Squared distances :math:`d^2`.
        width: :math:`w`, in the same unit.
    """
    return width / (width + squared)


def gaussian(squared: Tensor, width: float) -> Tensor:
    r"""Return :math:`\exp(-d^2 / w)` of squared distances (the radial basis function).

    Args:
        squared: Squared distances :math:`d^2`.
        width: :math:`w`, in the same unit.
    """
    return torch.exp(-squared / width)


def laplace(squared: Tensor, width: float) -> Tensor:
    r"""Return :math:`\exp(-d / \sqrt w)` of squared Euclidean distances.

    Args:
        squared: Squared distances :math:`d^2`.
        width: :math:`w`, in the same unit.
    """
    # The root has no slope at 0, where a point meets itself.
    return torch.exp(-squared.clamp(min=torch.finfo(squared.dtype).tiny).sqrt() / width**0.5)


KERNELS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "imq": inverse_multiquadric,
    "rbf": gaussian,
    "laplace": laplace,
}


def mmd(
    x: Float[Tensor, "batch latent"],
    y: Float[Tensor, "other latent"],
    kernel: str = "imq",
    scale: float = 1.0,
) -> Float[Tensor, ""]:
    r"""Return the squared maximum mean discrepancy of two samples, unbiased.

    .. math:: \frac{1}{n(n-1)} \sum_{i \ne j} k(x_i, x_j) + \frac{1}{m(m-1)} \sum_{i \ne j}
        k(y_i, y_j) - \frac{2}{nm} \sum_{ij} k(x_i, y_j)

    The kernel is a sum over the seven widths :math:`2 d s^2 c`, :math:`c \in \{0.1, 0.2, 0.5, 1,
    2, 5, 10\}`, where :math:`2 d s^2` is the expected squared distance of two points of a prior
    of scale :math:`s` in :math:`d` dimensions. Being unbiased it is 0 on average for equal laws,
    and so below 0 about half of the time.

    References:
        Gretton et al., "A Kernel Two-Sample Test", JMLR 13, 2012, eq. 3.
        Tolstikhin et al., "Wasserstein Auto-Encoders", ICLR 2018, algorithm 2 (arXiv:1711.01558),
        for the kernel ``"imq"`` and its width; the seven widths are those of their experiments.

    Args:
        x: One sample; a gradient flows to both.
        y: The other, of any size.
        kernel: One of `KERNELS`.
        scale: Standard deviation :math:`s` of the prior, in the unit of the latents.

    Raises:
        ValueError: If a sample has fewer than 2 points, their dimensions differ, the kernel is
            unknown or the scale not positive.

    Example:
        >>> x = torch.tensor([[0.0], [2.0]])
        >>> float(mmd(x, x + 100.0)) > float(mmd(x, x + 1.0))
        True
    """
    x, y = _two_samples("mmd", x, y)
    if kernel not in KERNELS or not 0 < scale < math.inf:
        raise ValueError(
            f"mmd: kernel {kernel!r} of scale {scale!r}; the kernel must be one of "
            f"{', '.join(KERNELS)}, the scale finite and above 0"
        )
    widths = [2 * x.shape[1] * scale**2 * factor for factor in KERNEL_SCALES]

    def similarity(squared: Tensor) -> Tensor:
        return torch.stack([KERNELS[kernel](squared, width) for width in widths]).sum(0)

    within = [_mean_of_pairs(similarity(squared_distances(each, each))) for each in (x, y)]
    return within[0] + within[1] - 2 * similarity(squared_distances(x, y)).mean()


def squared_distances(
    x: Float[Tensor, "batch latent"], y: Float[Tensor, "other latent"]
) -> Float[Tensor, "batch other"]:
    """Return the squared Euclidean distance of every pair, in single precision at least.

    Example:
        >>> squared_distances(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
        tensor([[25.]])
    """
    x, y = at_least_single(x), at_least_single(y)
    centre = y.detach().mean(0)  # far from the origin, the products would cancel
    x, y = x - centre, y - centre
    squares = x.square().sum(1)[:, None] + y.square().sum(1)
    return (squares - 2 * _product(x, y.T)).clamp(min=0)


def sliced_wasserstein(
    x: Float[Tensor, "batch latent"],
    y: Float[Tensor, "other latent"],
    projections: int,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    r"""Return the squared sliced 2-Wasserstein distance of two samples.

    .. math:: \mathbb E_\theta \, W_2^2(\theta^T x, \theta^T y), \quad \theta \sim U(S^{d-1})

    One-dimensional transport is exact, for samples of different sizes too. The directions come in
    orthonormal bases, each direction uniform: the estimate is unbiased over the directions, and a
    shift of the mean costs the same in every basis, so it has no variance. Two samples of one law
    are at a distance that falls like the inverse of their size, not at 0.

    References:
        Kolouri et al., "Sliced-Wasserstein Autoencoder", ICLR 2019 (arXiv:1804.01947).
        Rowland et al., "Orthogonal Estimation of Wasserstein Distances", AISTATS 2019
        (arXiv:1903.03784), for the orthogonal directions.

    Args:
        x: One sample; a gradient flows to both.
        y: The other, of any size.
        projections: Number of directions.
        generator: Where the directions come from; None for the global stream.

    Returns:
        In squared units of the latents; per direction, so a shift by :math:`\delta` costs
        :math:`|\delta|^2 / d`.

    Raises:
        ValueError: If a sample has fewer than 2 points, their dimensions differ, or there are no
            projections.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [5.0]])
        >>> sliced_wasserstein(x, x + 2.0, projections=3)
        tensor(4.)
    """
    x, y = _two_samples("sliced_wasserstein", x, y)
    if projections < 1:
        raise ValueError(f"sliced_wasserstein: {projections} projections; give at least 1")
    directions = _directions(x, projections, generator)
    sorted_x, sorted_y = (_product(directions, each.T).sort(-1).values for each in (x, y))
    if len(x) == len(y):
        return (sorted_x - sorted_y).square().mean()
    rows_x, rows_y, mass = _monotone_plan(len(x), len(y), x)
    return (sorted_x[:, rows_x] - sorted_y[:, rows_y]).square().mean(0) @ mass


def wasserstein2_gaussian(p: Distribution, q: Distribution) -> Float[Tensor, " *batch"]:
    r"""Return the squared 2-Wasserstein distance of two normal distributions.

    .. math:: |\mu_p - \mu_q|^2 + \operatorname{tr} \Sigma_p + \operatorname{tr} \Sigma_q
        - 2 \operatorname{tr} (\Sigma_p^{1/2} \Sigma_q \Sigma_p^{1/2})^{1/2}

    The last trace is the sum of the singular values of :math:`L_p^T L_q`, with
    :math:`\Sigma = L L^T`: no root of a matrix, and a gradient even where eigenvalues meet. With
    diagonal covariances the last three terms are :math:`\sum_j (\sigma_{pj} - \sigma_{qj})^2`.

    References:
        Givens and Shortt, "A class of Wasserstein metrics for probability distributions", Michigan
        Mathematical Journal 31, 1984, proposition 7.

    Args:
        p: A `DiagonalNormal`, ``Independent(Normal)``, ``MultivariateNormal`` or
            ``LowRankMultivariateNormal``.
        q: The same, over the same event.

    Returns:
        In squared units of the event, of shape ``batch``.

    Raises:
        ValueError: If one is not normal, or the events differ.

    Example:
        >>> one = DiagonalNormal(torch.zeros(1, 2), torch.ones(1, 2))
        >>> wasserstein2_gaussian(one, DiagonalNormal(torch.ones(1, 2), 3 * torch.ones(1, 2)))
        tensor([10.])
    """
    check_same_event(p, q)
    if not _is_full(p) and not _is_full(q):
        diagonal_p, diagonal_q = _diagonal(p), _diagonal(q)
        shift = diagonal_p.loc - diagonal_q.loc
        terms = shift.square() + (diagonal_p.scale - diagonal_q.scale).square()
        return terms.flatten(-len(p.event_shape)).sum(-1) if p.event_shape else terms
    root_p, root_q = _root(p), _root(q)
    overlap = torch.linalg.svdvals(_product(root_p.mT, root_q)).sum(-1)
    traces = root_p.square().sum((-2, -1)) + root_q.square().sum((-2, -1))
    return (p.mean - q.mean).square().sum(-1) + traces - 2 * overlap


def sinkhorn_divergence(
    x: Float[Tensor, "batch latent"],
    y: Float[Tensor, "other latent"],
    temperature: float,
    iterations: int = 2000,
    tolerance: float = 1e-3,
) -> Float[Tensor, ""]:
    r"""Return the debiased entropic transport cost of two samples.

    .. math:: S_\epsilon(x, y) = OT_\epsilon(x, y) - \tfrac12 OT_\epsilon(x, x)
        - \tfrac12 OT_\epsilon(y, y), \qquad OT_\epsilon(x, y) = \min_\pi \langle \pi, C \rangle
        + \epsilon KL(\pi \| \alpha \otimes \beta)

    with :math:`C_{ij} = |x_i - y_j|^2`: from the squared 2-Wasserstein distance at
    :math:`\epsilon \to 0` to the squared distance of the means at :math:`\epsilon \to \infty`. It
    is solved in the logarithm, from a high temperature down to :math:`\epsilon`, and is 0 for
    equal samples. The gradient is the optimal plan's, by the envelope theorem: nothing is
    differentiated through the iterations.

    References:
        Feydy et al., "Interpolating between Optimal Transport and MMD using Sinkhorn Divergences",
        AISTATS 2019, eq. 3 and section 3 (arXiv:1810.08278).

    Args:
        x: One sample; a gradient flows to both.
        y: The other, of any size.
        temperature: :math:`\epsilon`, in squared units of the latents.
        iterations: Most iterations for each of the three costs.
        tolerance: Largest error of a marginal of the plan, as a fraction.

    Raises:
        ValueError: If a sample has fewer than 2 points, their dimensions differ, the temperature
            is not positive, or the iterations don't reach the tolerance.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [5.0]])
        >>> round(float(sinkhorn_divergence(x, x + 2.0, temperature=0.1)), 4)
        4.0
    """
    x, y = _two_samples("sinkhorn_divergence", x, y)
    if not 0 < temperature < math.inf:
        raise ValueError(
            f"sinkhorn_divergence: temperature is {temperature!r}; it must be finite and above 0"
        )
    across, one, other = (
        _entropic_cost(squared_distances(*pair), temperature, iterations, tolerance)
        for pair in ((x, y), (x, x), (y, y))
    )
    return across - 0.5 * (one + other)


def _two_samples(where: str, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    shapes = f"samples of shapes {tuple(x.shape)} and {tuple(y.shape)}"
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"{where}: {shapes}; both must be (batch, latent) with the same latent")
    if min(len(x), len(y)) < 2:
        raise ValueError(f"{where}: {shapes}; a batch of at least 2 is needed, use a larger one")
    return at_least_single(x), at_least_single(y)


def _product(left: Tensor, right: Tensor) -> Tensor:
    with torch.autocast(left.device.type, enabled=False):  # distances need all their digits
        return left @ right


def _mean_of_pairs(similarities: Tensor) -> Tensor:
    """Return the mean without the diagonal, where a point meets itself."""
    size = len(similarities)
    return (similarities.sum() - similarities.trace()) / (size * (size - 1))


def _directions(like: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Return unit rows, orthonormal within each block of as many as there are dimensions."""
    size = like.shape[1]
    width = min(size, count)
    shape = (math.ceil(count / width), size, width)
    noise = torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
    # The sign of a direction is not random, and changes no distance.
    return torch.linalg.qr(noise).Q.mT.reshape(-1, size)[:count]


def _monotone_plan(rows: int, columns: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return which sorted points meet and with what mass, counted in units of 1 / (n m)."""
    ends = torch.cat(
        [
            torch.arange(1, rows + 1, device=like.device) * columns,
            torch.arange(1, columns + 1, device=like.device) * rows,
        ]
    ).unique()
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    mass = (ends - starts).to(like) / (rows * columns)
    return starts // columns, starts // rows, mass


def _is_full(normal: Distribution) -> bool:
    return isinstance(normal, MultivariateNormal | LowRankMultivariateNormal)


def _diagonal(normal: Distribution) -> DiagonalNormal:
    return require_diagonal_normal(
        normal,
        f"wasserstein2_gaussian: {type(normal).__name__} is not normal; use samples and "
        "sliced_wasserstein",
    )


def _root(normal: Distribution) -> Tensor:
    """Return a factor of the covariance."""
    if isinstance(normal, MultivariateNormal | LowRankMultivariateNormal):
        return normal.scale_tril
    return torch.diag_embed(_diagonal(normal).scale)


def _entropic_cost(cost: Tensor, temperature: float, iterations: int, tolerance: float) -> Tensor:
    """Return the dual value, whose derivative in the cost is the plan."""
    f, g = _potentials(cost.detach(), temperature, iterations, tolerance)
    mass = torch.exp((f[:, None] + g - cost) / temperature).mean()
    return f.mean() + g.mean() - temperature * (mass - 1)


@torch.no_grad()
def _potentials(
    cost: Tensor, temperature: float, iterations: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    f, g = cost.new_zeros(cost.shape[0]), cost.new_zeros(cost.shape[1])
    current = max(float(cost.max()), temperature)
    change = math.inf
    for _ in range(iterations):
        best_f, best_g = _soft_minimum(cost - g, 1, current), _soft_minimum(cost.T - f, 1, current)
        # Measured in temperatures, this is the relative error of the marginals.
        change = max(float((best_f - f).abs().max()), float((best_g - g).abs().max())) / current
        # Half way, both at once: the same numbers for equal samples, and no swinging.
        f, g = (f + best_f) / 2, (g + best_g) / 2
        if current == temperature and change <= tolerance:
            return _soft_minimum(cost - g, 1, temperature), g
        current = max(current / 2, temperature)
    raise ValueError(
        f"sinkhorn_divergence: marginals wrong by {change:.2g} after {iterations} iterations at "
        f"temperature {temperature:.3g}; the tolerance is {tolerance:.2g}, raise the temperature "
        "or the iterations"
    )


def _soft_minimum(values: Tensor, dim: int, temperature: float) -> Tensor:
    size = values.shape[dim]
    return -temperature * (torch.logsumexp(-values / temperature, dim) - math.log(size))
