"""KL divergences between a diagonal normal and one with a full or low-rank covariance."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    register_kl,
)

from core.variational.distributions.base import check_same_event
from core.variational.distributions.normal import DiagonalNormal, as_diagonal_normal


@register_kl(DiagonalNormal, MultivariateNormal)
@register_kl(Independent, MultivariateNormal)
def _kl_diagonal_full(posterior: Distribution, prior: MultivariateNormal) -> Tensor:
    r"""From a diagonal to a full covariance.

    .. math:: \tfrac12 \left(\|L^{-1} \operatorname{diag} \sigma\|_F^2
        + \|L^{-1} (\mu - m)\|^2 - d\right) + \sum_j \log L_{jj} - \log \sigma_j

    with :math:`S = L L^\top` the prior's covariance.
    """
    check_same_event(posterior, prior)
    normal = as_diagonal_normal(posterior)
    columns = torch.cat(
        [torch.diag_embed(normal.scale), (normal.loc - prior.loc).unsqueeze(-1)], -1
    )
    solved = torch.linalg.solve_triangular(prior.scale_tril, columns, upper=False)
    squares = solved.square().sum((-2, -1)) - prior.event_shape.numel()
    return 0.5 * squares + _log_diagonal(prior.scale_tril) - normal.scale.log().sum(-1)


@register_kl(MultivariateNormal, DiagonalNormal)
@register_kl(MultivariateNormal, Independent)
def _kl_full_diagonal(posterior: MultivariateNormal, prior: Distribution) -> Tensor:
    r"""From a full to a diagonal covariance.

    .. math:: \tfrac12 \sum_j \left(\frac{S_{jj} + (\mu_j - m_j)^2}{s_j^2} - 1\right)
        + \log s_j - \log L_{jj}
    """
    check_same_event(posterior, prior)
    log_volume = _log_diagonal(posterior.scale_tril)
    return _to_diagonal(posterior, as_diagonal_normal(prior), log_volume)


@register_kl(DiagonalNormal, LowRankMultivariateNormal)
@register_kl(Independent, LowRankMultivariateNormal)
def _kl_diagonal_low_rank(posterior: Distribution, prior: LowRankMultivariateNormal) -> Tensor:
    r"""From a diagonal to a low-rank covariance :math:`S = W W^\top + D`.

    By Woodbury's identity, at the cost of the rank's cube and not of the dimension's:
    :math:`x^\top S^{-1} x = \|u - B y\|^2 + \|y\|^2` with :math:`u = D^{-1/2} x`,
    :math:`B = D^{-1/2} W` and :math:`y = (I + B^\top B)^{-1} B^\top u`. This sum of squares,
    unlike their usual difference, keeps its digits when :math:`W` is much larger than :math:`D`.
    """
    check_same_event(posterior, prior)
    normal = as_diagonal_normal(posterior)
    root = prior.cov_diag.sqrt()
    factor = prior.cov_factor / root.unsqueeze(-1)
    columns = torch.cat([torch.diag_embed(normal.scale), (normal.loc - prior.loc)[..., None]], -1)
    columns = columns / root.unsqueeze(-1)
    capacitance = torch.linalg.cholesky(_capacitance(factor))
    solved = torch.cholesky_solve(factor.mT @ columns, capacitance)
    residual = columns - factor @ solved
    squares = residual.square().sum((-2, -1)) + solved.square().sum((-2, -1))
    log_volume = root.log().sum(-1) + _log_diagonal(capacitance)
    constant = prior.event_shape.numel()
    return 0.5 * (squares - constant) + log_volume - normal.scale.log().sum(-1)


@register_kl(LowRankMultivariateNormal, DiagonalNormal)
@register_kl(LowRankMultivariateNormal, Independent)
def _kl_low_rank_diagonal(posterior: LowRankMultivariateNormal, prior: Distribution) -> Tensor:
    """From a low-rank to a diagonal covariance."""
    check_same_event(posterior, prior)
    root = posterior.cov_diag.sqrt()
    factor = posterior.cov_factor / root.unsqueeze(-1)
    capacitance = torch.linalg.cholesky(_capacitance(factor))
    log_volume = root.log().sum(-1) + _log_diagonal(capacitance)
    return _to_diagonal(posterior, as_diagonal_normal(prior), log_volume)


def _to_diagonal(posterior: Distribution, prior: DiagonalNormal, log_volume: Tensor) -> Tensor:
    squares = posterior.variance + (posterior.mean - prior.loc).square()
    terms = 0.5 * (squares / prior.scale.square() - 1) + prior.scale.log()
    return terms.sum(-1) - log_volume


def _capacitance(factor: Tensor) -> Tensor:
    identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    return identity + factor.mT @ factor


def _log_diagonal(triangle: Tensor) -> Tensor:
    """Half the log-determinant of the matrix whose Cholesky factor is given."""
    return triangle.diagonal(dim1=-2, dim2=-1).log().sum(-1)
