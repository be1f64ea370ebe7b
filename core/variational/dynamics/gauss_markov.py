"""Normal distributions over sequences in which each latent depends on the one before."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Size, Tensor
from torch.distributions import (
    Distribution,
    Independent,
    MultivariateNormal,
    constraints,
    register_kl,
)

from core.variational.distributions import (
    DiagonalNormal,
    as_diagonal_normal,
    check_same_event,
    stop_gradient,
)
from core.variational.distributions.base import at_least_single
from core.variational.distributions.normal import HALF_LOG_TWO_PI
from core.variational.dynamics.scan import Elements, associative_scan, in_full_precision
from core.variational.dynamics.steps import cut_padding


class GaussMarkov(Distribution):
    r"""A linear-Gaussian Markov chain :math:`z_{1:T}`; the whole path is one event.

    .. math:: z_t = A_t z_{t-1} + b_t + L_t \epsilon_t, \quad \epsilon_t \sim \mathcal N(0, I),
        \quad z_0 = 0

    Every Normal distribution whose precision is block-tridiagonal has this form
    (`from_information`), and so has the smoothing distribution of a linear-Gaussian state space
    (`smoothing_distribution`). Density, entropy and KL take no loop over time; samples and
    moments take a parallel scan.

    References:
        Archer et al., "Black Box Variational Inference for State Space Models", 2015
        (arXiv:1511.07367), for the block-tridiagonal Normal as a posterior.
        Särkkä and García-Fernández, "Temporal Parallelization of Bayesian Smoothers", IEEE TAC
        66(1), 2021 (arXiv:1905.13002), for the scans.

    Args:
        transition: :math:`A_{2:T}` of shape ``(*batch, time - 1, latent, latent)``.
        offset: :math:`b_{1:T}` of shape ``(*batch, time, latent)``; the first is the mean of
            :math:`z_1`.
        scale_tril: :math:`L_{1:T}` of shape ``(*batch, time, latent, latent)``, lower triangular
            with a positive diagonal; the first is that of :math:`z_1`.

    The three batch shapes broadcast.

    Raises:
        ValueError: If the shapes do not fit together.

    Example:
        >>> path = GaussMarkov(0.9 * torch.eye(2).expand(4, 2, 2), torch.zeros(3, 5, 2),
        ...     torch.eye(2).expand(5, 2, 2))
        >>> path.rsample((7,)).shape, path.log_prob(path.mean).shape
        (torch.Size([7, 3, 5, 2]), torch.Size([3]))
    """

    has_rsample = True

    def __init__(self, transition: Tensor, offset: Tensor, scale_tril: Tensor) -> None:
        self.transition = at_least_single(transition)
        self.offset = at_least_single(offset)
        self.scale_tril = at_least_single(scale_tril)
        time, latent = offset.shape[-2:]
        expected = (time - 1, latent, latent), (time, latent, latent)
        if (transition.shape[-3:], scale_tril.shape[-3:]) != expected:
            raise ValueError(
                f"GaussMarkov: transition {tuple(transition.shape)} and scale_tril "
                f"{tuple(scale_tril.shape)} with offset {tuple(offset.shape)}; they must end in "
                f"{expected[0]} and {expected[1]}"
            )
        batch = torch.broadcast_shapes(
            transition.shape[:-3], offset.shape[:-2], scale_tril.shape[:-3]
        )
        super().__init__(batch, Size((time, latent)), validate_args=False)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """What the parameters may be."""
        return {
            "transition": constraints.independent(constraints.real, 3),
            "offset": constraints.independent(constraints.real, 2),
            "scale_tril": constraints.independent(constraints.lower_cholesky, 1),
        }

    @property
    def support(self) -> constraints.Constraint:
        """The values that it covers."""
        return constraints.independent(constraints.real, 2)

    @classmethod
    @in_full_precision
    def from_information(
        cls,
        diagonal: Float[Tensor, "*batch time latent latent"],
        lower: Float[Tensor, "*batch interval latent latent"],
        linear: Float[Tensor, "*batch time latent"],
    ) -> GaussMarkov:
        r"""Return the Normal distribution with a block-tridiagonal precision :math:`J`.

        .. math:: p(z) \propto \exp\left(-\tfrac12 z^\top J z + h^\top z\right)

        The messages from the future are suffix products of pairwise potentials, the common
        neighbour integrated out: a parallel scan. Accuracy is that of block elimination, whose
        differences lose digits in proportion to the condition number of :math:`J`.

        Args:
            diagonal: :math:`J_{tt}`, symmetric.
            lower: :math:`J_{t+1, t}`.
            linear: :math:`h_t`.
        """
        diagonal, lower, linear = map(at_least_single, (diagonal, lower, linear))
        batch = torch.broadcast_shapes(diagonal.shape[:-3], lower.shape[:-3], linear.shape[:-2])
        diagonal, lower = (_expand(each, batch, 3) for each in (diagonal, lower))
        linear = _expand(linear, batch, 2).unsqueeze(-1)
        message, linear_message = _messages_from_the_future(diagonal, lower, linear)
        scale_tril = _tril_of_inverse(diagonal + message)
        covariance = scale_tril @ scale_tril.mT
        offset = (covariance @ (linear + linear_message)).squeeze(-1)
        return cls(-covariance[..., 1:, :, :] @ lower, offset, scale_tril)

    @in_full_precision
    def information(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the arguments that `from_information` makes this distribution of."""
        precision = self._whitening.mT @ self._whitening
        later = precision[..., 1:, :, :] @ self.transition
        push = precision @ self.offset.unsqueeze(-1)
        back = self.transition.mT @ push[..., 1:, :, :]
        diagonal = precision + _before_zero(self.transition.mT @ later)
        return diagonal, -later, (push - _before_zero(back)).squeeze(-1)

    @property
    def mean(self) -> Tensor:
        """The means of the marginals, of shape ``(*batch, time, latent)``."""
        return self._marginals.mean

    @property
    def mode(self) -> Tensor:
        """The most probable path."""
        return self._marginals.mean

    @property
    def covariance_matrix(self) -> Tensor:
        """The covariances of the marginals, of shape ``(*batch, time, latent, latent)``."""
        return self._marginals.covariance

    @property
    def lag_covariance(self) -> Tensor:
        r"""The covariances :math:`Cov(z_t, z_{t-1})` for :math:`t = 2 \dots T`."""
        return self.transition @ self.covariance_matrix[..., :-1, :, :]

    @property
    def variance(self) -> Tensor:
        """The variances of the marginals, of shape ``(*batch, time, latent)``."""
        return self.covariance_matrix.diagonal(dim1=-2, dim2=-1)

    def expand(self, batch_shape: Size | Sequence[int], _instance: None = None) -> GaussMarkov:
        """Return the same distribution with the batch shape given."""
        return GaussMarkov(
            _expand(self.transition, batch_shape, 3),
            _expand(self.offset, batch_shape, 2),
            _expand(self.scale_tril, batch_shape, 3),
        )

    def rsample(self, sample_shape: Size | Sequence[int] = ()) -> Tensor:
        """Draw paths of shape ``(*sample, *batch, time, latent)``."""
        shape = self._extended_shape(Size(sample_shape))
        noise = torch.randn(shape, dtype=self.offset.dtype, device=self.offset.device)
        return self.from_noise(noise)

    @in_full_precision
    def from_noise(
        self, noise: Float[Tensor, "*shape time latent"]
    ) -> Float[Tensor, "*shape time latent"]:
        r"""Return the paths that this standard normal noise :math:`\epsilon` makes."""
        columns = self._columns(noise)
        inputs = self.offset.unsqueeze(-1) + self.scale_tril @ columns
        paths = associative_scan(_affine, (self._steps, inputs), dim=-3)[1]
        return paths.movedim(-1, 0).reshape(noise.shape)

    @in_full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density in nats; ``value`` may have further leading dimensions."""
        if value.shape[-2:] != self._event_shape:
            raise ValueError(
                f"GaussMarkov: value of shape {tuple(value.shape)} does not end in the event "
                f"shape {tuple(self._event_shape)}"
            )
        shape = torch.broadcast_shapes(value.shape, self._batch_shape + self._event_shape)
        paths = self._columns(value.expand(shape))
        predicted = self.transition @ paths[..., :-1, :, :]
        surprise = paths - self.offset.unsqueeze(-1) - _after_zero(predicted)
        squares = (self._whitening @ surprise).square().sum((-3, -2))
        squares = squares.movedim(-1, 0).reshape(shape[:-2])
        return -0.5 * squares - self._log_scale - self._event_shape.numel() * HALF_LOG_TWO_PI

    def entropy(self) -> Tensor:
        """Return the differential entropy in nats, of shape ``batch``."""
        constant = self._event_shape.numel() * (0.5 + HALF_LOG_TWO_PI)
        return (self._log_scale + constant).expand(self._batch_shape)

    @property
    def _log_scale(self) -> Tensor:
        return _diagonal(self.scale_tril).log().sum((-2, -1))

    @property
    def _steps(self) -> Tensor:
        return _after_zero(self.transition)

    @functools.cached_property
    def _whitening(self) -> Tensor:
        """The inverses of the scales, computed once."""
        with torch.enable_grad():  # a value cached without gradients would lose them later
            identity = torch.eye(self._event_shape[-1]).to(self.scale_tril)
            return torch.linalg.solve_triangular(self.scale_tril, identity, upper=False)

    @functools.cached_property
    def _marginals(self) -> Marginals:
        with torch.enable_grad():
            return _marginals(self)

    def _columns(self, paths: Tensor) -> Tensor:
        """Put what goes before the batch shape last: one matrix product for all samples."""
        batch_and_event = self._batch_shape + self._event_shape
        extra = paths.shape[: paths.dim() - len(batch_and_event)]
        # A batch of paths larger than ours where ours is 1 stays where it is.
        return paths.reshape(extra.numel(), *paths.shape[len(extra) :]).movedim(0, -1)


class Marginals(NamedTuple):
    """Means and covariances of every step."""

    mean: Tensor
    covariance: Tensor


@in_full_precision
def _marginals(path: GaussMarkov) -> Marginals:
    offset = _expand(path.offset, path.batch_shape, 2).unsqueeze(-1)
    noise = _expand(path.scale_tril @ path.scale_tril.mT, path.batch_shape, 3)
    _, mean, covariance = associative_scan(gaussian_affine, (path._steps, offset, noise), dim=-3)
    return Marginals(mean.squeeze(-1), symmetric(covariance))


def _affine(first: Elements, second: Elements) -> Elements:
    r"""Compose :math:`z \mapsto A z + b`."""
    return second[0] @ first[0], second[0] @ first[1] + second[1]


def gaussian_affine(first: Elements, second: Elements) -> Elements:
    r"""Compose :math:`z \mapsto \mathcal N(A z + b, C)`; b is a column."""
    transition, offset, covariance = second
    return (
        transition @ first[0],
        transition @ first[1] + offset,
        transition @ first[2] @ transition.mT + covariance,
    )


def _messages_from_the_future(
    diagonal: Tensor, lower: Tensor, linear: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what integrating out all later steps adds to each step's information."""
    later = diagonal[..., 1:, :, :], linear[..., 1:, :, :]
    pairs = torch.zeros_like(later[0]), lower, later[0], torch.zeros_like(later[1]), later[1]
    near, cross, far, near_linear, far_linear = associative_scan(
        _eliminate, pairs, dim=-3, reverse=True
    )
    gain = _solve_positive(far, cross).mT
    message = symmetric(near - gain @ cross)
    linear_message = near_linear - gain @ far_linear
    return _before_zero(message), _before_zero(linear_message)


def _eliminate(first: Elements, second: Elements) -> Elements:
    """Multiply two pairwise potentials and integrate out what they share."""
    shared = first[2] + second[0]
    linear = first[4] + second[3]
    from_first, from_second = first[1], second[1].mT
    solved = _solve_positive(shared, torch.cat([from_first, from_second, linear], -1))
    size = shared.shape[-1]
    left, right, middle = solved.split([size, size, 1], -1)
    return (
        symmetric(first[0] - from_first.mT @ left),
        -from_second.mT @ left,
        symmetric(second[2] - from_second.mT @ right),
        first[3] - from_first.mT @ middle,
        second[4] - from_second.mT @ middle,
    )


def _solve_positive(matrix: Tensor, columns: Tensor) -> Tensor:
    return torch.cholesky_solve(columns, torch.linalg.cholesky(matrix))


def _tril_of_inverse(matrix: Tensor) -> Tensor:
    """Return the lower Cholesky factor of the inverse, without forming the inverse."""
    reversed_factor = torch.linalg.cholesky(matrix.flip(-2, -1))
    factor = reversed_factor.flip(-2, -1).mT  # lower, and its transpose times itself is the matrix
    identity = torch.eye(matrix.shape[-1]).to(matrix)
    return torch.linalg.solve_triangular(factor, identity, upper=False)


def conditional_kl(posterior: Distribution, prior: Distribution) -> Float[Tensor, "*batch time"]:
    r"""Return the KL of each step given the one before, in nats; their sum is the KL of the paths.

    .. math:: KL(q(z_{1:T}) \| p(z_{1:T})) =
        \sum_t \mathbb E_{q(z_{t-1})} KL(q(z_t \mid z_{t-1}) \| p(z_t \mid z_{t-1}))

    :math:`z_{t-1}` is from :math:`q` on both sides. With :math:`W = L_p^{-1}` and
    :math:`D = A_q - A_p` a step is half of

    .. math:: \|W L_q\|^2 - d - \log\frac{|L_q|^2}{|L_p|^2} + \|W (D m_{t-1} + b_q - b_p)\|^2
        + \operatorname{tr}(W D P_{t-1} D^\top W^\top)

    where :math:`m, P` are the moments of :math:`q(z_{t-1})`: sums of squares, no differences.

    References:
        Cover and Thomas, "Elements of Information Theory", 2nd ed., 2006, theorem 2.5.3.

    Raises:
        NotImplementedError: If one of the two is no linear-Gaussian chain.
        ValueError: If the events differ.
    """
    check_same_event(posterior, prior)
    return _conditional_kl(as_gauss_markov(posterior), as_gauss_markov(prior))


@in_full_precision
def _conditional_kl(posterior: GaussMarkov, prior: GaussMarkov) -> Tensor:
    whitening = prior._whitening
    mean = _after_zero(posterior.mean[..., :-1, :].unsqueeze(-1))
    covariance = _after_zero(posterior.covariance_matrix[..., :-1, :, :])
    gain = whitening @ (posterior._steps - prior._steps)
    shift = whitening @ (posterior.offset - prior.offset).unsqueeze(-1) + gain @ mean
    ratio = whitening @ posterior.scale_tril
    spread = ((gain @ covariance) * gain).sum((-2, -1))
    squares = ratio.square().sum((-2, -1)) + shift.square().sum((-2, -1)) + spread
    return 0.5 * (squares - posterior.event_shape[-1]) - _diagonal(ratio).log().sum(-1)


def dense(path: GaussMarkov) -> MultivariateNormal:
    """Return the joint distribution of short sequences over ``time * latent`` variables.

    Memory and time grow with the square and the cube of the length: to check against, not to use.
    """
    time, latent = path.event_shape
    path = path.expand(path.batch_shape)
    whitening = path._whitening
    root = path.offset.new_zeros(*path.batch_shape, time, latent, time, latent)
    for t in range(time):
        root[..., t, :, t, :] = whitening[..., t, :, :]
        if t:
            root[..., t, :, t - 1, :] = (
                -whitening[..., t, :, :] @ path.transition[..., t - 1, :, :]
            )
    root = root.reshape(*path.batch_shape, time * latent, time * latent)
    scale_tril = torch.linalg.solve_triangular(
        root, torch.eye(time * latent).to(root), upper=False
    )
    return MultivariateNormal(path.mean.flatten(-2), scale_tril=scale_tril, validate_args=False)


@functools.singledispatch
def as_gauss_markov(distribution: Distribution) -> GaussMarkov:
    """Return the same distribution as a `GaussMarkov`.

    Raises:
        NotImplementedError: If it is no linear-Gaussian chain over (time, latent); what torch's
            registry says for "no closed form".
    """
    raise NotImplementedError(f"{type(distribution).__name__} is no linear-Gaussian chain")


@as_gauss_markov.register
def _(distribution: GaussMarkov) -> GaussMarkov:
    return distribution


@as_gauss_markov.register(DiagonalNormal)
@as_gauss_markov.register(Independent)
def _(distribution: Distribution) -> GaussMarkov:
    normal = as_diagonal_normal(distribution)
    if len(normal.event_shape) != 2:
        raise NotImplementedError(
            f"an event of shape {tuple(normal.event_shape)} is no (time, latent)"
        )
    time, latent = normal.event_shape
    transition = normal.loc.new_zeros(time - 1, latent, latent)
    return GaussMarkov(transition, normal.loc, torch.diag_embed(normal.scale))


@stop_gradient.register
def _(distribution: GaussMarkov) -> GaussMarkov:
    return GaussMarkov(
        distribution.transition.detach(),
        distribution.offset.detach(),
        distribution.scale_tril.detach(),
    )


@cut_padding.register
def _(distribution: GaussMarkov, present: Bool[Tensor, "*batch time"] | None) -> GaussMarkov:
    if present is None:
        return distribution
    there = present[..., None, None]
    identity = torch.eye(distribution.event_shape[-1]).to(distribution.scale_tril)
    return GaussMarkov(
        torch.where(there[..., 1:, :, :], distribution.transition, 0.0),
        torch.where(present[..., None], distribution.offset, 0.0),
        torch.where(there, distribution.scale_tril, identity),
    )


@register_kl(GaussMarkov, GaussMarkov)
@register_kl(GaussMarkov, DiagonalNormal)
@register_kl(GaussMarkov, Independent)
@register_kl(DiagonalNormal, GaussMarkov)
@register_kl(Independent, GaussMarkov)
def chain_rule_kl(posterior: Distribution, prior: Distribution) -> Float[Tensor, "*batch"]:
    """Return the KL of two linear-Gaussian chains, in nats: the sum of `conditional_kl`."""
    return conditional_kl(posterior, prior).sum(-1)


def symmetric(matrix: Tensor) -> Tensor:
    """Return the symmetric part; rounding leaves another."""
    return 0.5 * (matrix + matrix.mT)


def _expand(tensor: Tensor, batch: Size | Sequence[int], event_dims: int) -> Tensor:
    return tensor.expand(*batch, *tensor.shape[tensor.dim() - event_dims :])


def _after_zero(steps: Tensor) -> Tensor:
    """Put a zero before the first of (*batch, time - 1, row, column)."""
    return torch.nn.functional.pad(steps, (0, 0, 0, 0, 1, 0))


def _before_zero(steps: Tensor) -> Tensor:
    """Put a zero after the last of (*batch, time - 1, row, column)."""
    return torch.nn.functional.pad(steps, (0, 0, 0, 0, 0, 1))


def _diagonal(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1)
