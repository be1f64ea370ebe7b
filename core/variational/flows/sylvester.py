"""Sylvester flows: planar flows of rank M, with a determinant of M factors."""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from core.variational.flows.bijection import Step
from core.variational.flows.planar import LEAST, RankOne, monotone_root


class Sylvester(RankOne, abc.ABC):
    r"""A layer that bends :math:`M` directions at once.

    .. math:: y = x + Q R \tanh(\tilde R Q^T x + b), \quad
        \log |\det J| = \sum_{i=1}^M \log(1 + (1 - \tanh^2(\cdot)_i) R_{ii} \tilde R_{ii})

    :math:`Q` has orthonormal columns, :math:`R` and :math:`\tilde R` are upper triangular, and
    their diagonals are between -1 and 1, so that :math:`R_{ii} \tilde R_{ii} > -1`: the layer is
    invertible, one root after another from the last direction to the first.

    References:
        van den Berg et al., "Sylvester Normalizing Flows for Variational Inference", UAI 2018,
        theorem 2 (arXiv:1803.05649).

    Args:
        latent: Length of the vectors.
        rank: How many directions :math:`M`.
        orthogonal: How many parameters :math:`Q` has.
        context: Length of the context; 0 for none.
    """

    def __init__(self, latent: int, rank: int, orthogonal: int, context: int) -> None:
        self.sizes = [orthogonal, rank * rank, rank, rank, rank]
        super().__init__(sum(self.sizes), context)
        self.latent, self.rank = latent, rank

    @abc.abstractmethod
    def directions(self, raw: Tensor) -> Tensor:
        """Return the matrix with orthonormal columns."""

    def forward(self, context: Tensor | None) -> SylvesterBijection:
        """Return the layer for this context."""
        raw, square, first, second, b = self.raw(context).split(self.sizes, -1)
        square = square.unflatten(-1, (self.rank, self.rank))
        # Both triangles off the diagonal come from one square: one above it, one below.
        outer = square.triu(1) + _diagonal(first)
        inner = square.tril(-1).mT + _diagonal(second)
        return SylvesterBijection(self.directions(raw), outer, inner, b)


class OrthogonalSylvester(Sylvester):
    """A Sylvester layer whose directions are the Q of a QR decomposition.

    Deviation from the paper, which orthogonalises by an iteration that converges only near
    orthogonal matrices: QR is exact for any.

    Args:
        latent: Length of the vectors.
        rank: How many directions, at most ``latent``.
        context: Length of the context; 0 for none.
    """

    def __init__(self, latent: int, rank: int, context: int) -> None:
        super().__init__(latent, rank, latent * rank, context)
        self.start: Tensor
        self.register_buffer("start", torch.linalg.qr(torch.randn(latent, rank))[0])

    def directions(self, raw: Tensor) -> Tensor:
        """Return the matrix with orthonormal columns."""
        # Without something fixed to add, raw parameters near 0 would have no directions.
        matrix = self.start + raw.unflatten(-1, (self.latent, self.rank))
        return torch.linalg.qr(matrix)[0]


class HouseholderSylvester(Sylvester):
    r"""A Sylvester layer whose directions are a product of reflections, as many as dimensions.

    .. math:: Q = \prod_{h=1}^H \left(I - 2 \frac{v_h v_h^T}{\|v_h\|^2}\right)

    Args:
        latent: Length of the vectors.
        rank: How many reflections :math:`H`.
        context: Length of the context; 0 for none.
    """

    def __init__(self, latent: int, rank: int, context: int) -> None:
        super().__init__(latent, latent, rank * latent, context)
        self.start: Tensor
        self.register_buffer("start", torch.randn(rank, latent))

    def directions(self, raw: Tensor) -> Tensor:
        """Return the orthogonal matrix."""
        normals = self.start + raw.unflatten(-1, (-1, self.latent))
        normals = normals / torch.linalg.vector_norm(normals, dim=-1, keepdim=True)
        matrix = torch.eye(self.latent, dtype=raw.dtype, device=raw.device)
        for normal in normals.unbind(-2):
            onto = (matrix * normal.unsqueeze(-2)).sum(-1, keepdim=True)
            matrix = matrix - 2 * onto * normal.unsqueeze(-2)
        return matrix


class SylvesterBijection:
    """A `Sylvester` layer in one context."""

    def __init__(self, q: Tensor, outer: Tensor, inner: Tensor, b: Tensor) -> None:
        self.q, self.outer, self.inner, self.b = q, outer, inner, b
        self.product = _diagonal_of(outer) * _diagonal_of(inner)

    def forward(self, x: Tensor) -> Step:
        """Map noise to value."""
        bent = torch.tanh(_times(self.inner, _times(self.q.mT, x)) + self.b)
        slope = 1 - bent.square()
        factors = 1 + slope * self.product

        @torch.no_grad()
        def pull(score: Tensor) -> Tensor:
            of_log_det = -2 * bent * slope * self.product / factors
            rest = _times(self.q.mT, score) - _times(self.inner.mT, of_log_det)
            identity = torch.eye(rest.shape[-1], dtype=rest.dtype, device=rest.device)
            jacobian = identity + self.outer @ (slope.unsqueeze(-1) * self.inner)
            solved = torch.linalg.solve_triangular(
                jacobian.mT, rest.unsqueeze(-1), upper=False
            ).squeeze(-1)
            return score + _times(self.q, solved - _times(self.q.mT, score))

        value = x + _times(self.q, _times(self.outer, bent))
        return Step(value, factors.log().sum(-1), pull)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise of a value, and the log-determinant of `forward` there."""
        seen = _times(self.q.mT, y)
        rank = seen.shape[-1]
        values: list[Tensor] = [seen] * rank
        bends: list[Tensor] = [seen] * rank
        for i in reversed(range(rank)):  # the rows of upper triangles, from the last
            goal, place = seen[..., i], self.b[..., i]
            for j in range(i + 1, rank):
                goal = goal - self.outer[..., i, j] * bends[j]
                place = place + self.inner[..., i, j] * values[j]
            height, steepness = self.outer[..., i, i], self.inner[..., i, i]
            values[i] = monotone_root(goal, height, steepness, place)
            bends[i] = torch.tanh(steepness * values[i] + place)
        bent = torch.stack(bends, -1)
        log_det = (1 + (1 - bent.square()) * self.product).log().sum(-1)
        return y - _times(self.q, _times(self.outer, bent)), log_det


def _diagonal(raw: Tensor) -> Tensor:
    return torch.diag_embed((1 - LEAST) * torch.tanh(raw))


def _diagonal_of(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)
