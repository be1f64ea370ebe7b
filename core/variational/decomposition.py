r"""What the KL of a latent is made of over a dataset, and the moments of the aggregated posterior.

The aggregated posterior is the mixture of all posteriors of the dataset,
:math:`q(z) = \frac1N \sum_n q(z \mid x_n)`.
"""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
)

from core.variational.distributions.base import Diagonal, at_least_single

SAMPLINGS = ("stratified", "weighted")


@dataclass(frozen=True, eq=False)
class Decomposition:
    r"""Estimates of the three parts of the KL, whose sum is :math:`\log q(z \mid x) - \log p(z)`.

    Args:
        mutual_information: :math:`\log q(z \mid x) - \log q(z)`, index-code mutual information.
        total_correlation: :math:`\log q(z) - \sum_j \log q(z_j)`.
        dimension_wise_kl: :math:`\sum_j \log q(z_j) - \log p(z)`.
    """

    mutual_information: Float[Tensor, "samples batch"]
    total_correlation: Float[Tensor, "samples batch"]
    dimension_wise_kl: Float[Tensor, "samples batch"]


def decompose_kl(
    posterior: Distribution,
    prior: Distribution,
    value: Tensor,
    dataset_size: int,
    sampling: str = "stratified",
) -> Decomposition:
    r"""Split the KL of a batch into mutual information, total correlation and dimension-wise KL.

    .. math:: \mathbb E_{p(n)} KL(q(z \mid n) \| p(z)) = I_q(z; n) + KL\Bigl(q(z) \Big\|
        \prod_j q(z_j)\Bigr) + \sum_j KL(q(z_j) \| p(z_j))

    Each part is estimated at the samples, with the aggregated posterior of
    `aggregated_log_prob`. Their sum is the one-sample estimate of the KL whatever that estimate
    is. With a prior that does not factorise, the last part is what is left, no sum over
    dimensions. The densities of all pairs are held at once:
    :math:`\text{samples} \times \text{batch}^2 \times \text{latent}` numbers.

    References:
        Chen et al., "Isolating Sources of Disentanglement in Variational Autoencoders", NeurIPS
        2018, eq. 2 (arXiv:1802.04942).

    Args:
        posterior: :math:`q(z \mid x)` with independent elements, of batch shape ``(batch,)``.
        prior: :math:`p(z)`.
        value: Samples of ``posterior``, of shape ``(samples, batch, *event)``.
        dataset_size: Number of examples :math:`N` that the batch was drawn from.
        sampling: How the batch stands for the dataset, one of `SAMPLINGS`.

    Returns:
        Nats per example.

    Raises:
        ValueError: If the batch is smaller than 2 or larger than the dataset, the posterior
            depends on sampled parents, or its elements are not independent.

    Example:
        >>> from core.variational.distributions import CentredNormal, DiagonalNormal
        >>> q = DiagonalNormal(torch.zeros(4, 2), torch.ones(4, 2))
        >>> parts = decompose_kl(q, CentredNormal(q.loc), q.rsample((3,)), dataset_size=10)
        >>> parts.total_correlation.shape
        torch.Size([3, 4])
    """
    joint, marginals = aggregated_log_prob(posterior, value, dataset_size, sampling)
    product = marginals.sum(-1)
    return Decomposition(
        posterior.log_prob(value) - joint, joint - product, product - prior.log_prob(value)
    )


def aggregated_log_prob(
    posterior: Distribution,
    value: Tensor,
    dataset_size: int,
    sampling: str = "stratified",
) -> tuple[Float[Tensor, "samples batch"], Float[Tensor, "samples batch latent"]]:
    r"""Return estimates of :math:`\log q(z)` and of each :math:`\log q(z_j)` from one batch.

    ``"stratified"`` takes the example that a sample came from with its share :math:`1 / N`, and
    the :math:`M - 1` others of the batch for all others of the dataset,

    .. math:: \hat q(z) = \frac1N q(z \mid n^*) + \frac{N - 1}{N (M - 1)} \sum_{m \ne n^*}
        q(z \mid n_m) .

    Over batches drawn without replacement :math:`\hat q` is unbiased, and exact if the batch is
    the dataset; its logarithm is too low by Jensen's inequality. The paper puts another weight on
    one of the others, so that the result depends on the order of the batch; this is its average
    over the orders, with the same mean and less variance.

    ``"weighted"`` is the mean over the batch divided by :math:`N`: an importance-sampled lower
    bound, off by up to :math:`\log N`, yet with useful gradients at small batches.

    References:
        Chen et al., "Isolating Sources of Disentanglement in Variational Autoencoders", NeurIPS
        2018, eq. 3 and appendix C.1 for weighted, C.2 for stratified (arXiv:1802.04942).

    Args:
        posterior: :math:`q(z \mid x)` with independent elements, of batch shape ``(batch,)``.
        value: Samples of ``posterior``, of shape ``(samples, batch, *event)``.
        dataset_size: Number of examples :math:`N` that the batch was drawn from.
        sampling: One of `SAMPLINGS`.

    Returns:
        Nats: of the whole latent, and of each of its elements.

    Raises:
        ValueError: If the batch is smaller than 2 or larger than the dataset, the posterior
            depends on sampled parents, or its elements are not independent.
    """
    elements = independent_elements(posterior)
    log_shares = _log_shares(posterior.batch_shape, dataset_size, sampling).to(value.device)
    pairs = elements.log_prob(value.unsqueeze(2)).flatten(3)  # (samples, batch, batch, latent)
    log_shares = log_shares.to(pairs.dtype)
    joint = torch.logsumexp(pairs.sum(-1) + log_shares, 2)
    return joint, torch.logsumexp(pairs + log_shares[..., None], 2)


@functools.singledispatch
def independent_elements(distribution: Distribution) -> Distribution:
    """Return the same distribution with its event moved to the batch, element by element.

    A new distribution of independent elements registers how:
    ``@independent_elements.register``.

    Raises:
        ValueError: If its elements are not independent.

    Example:
        >>> from core.variational.distributions import DiagonalNormal
        >>> independent_elements(DiagonalNormal(torch.zeros(3, 2), torch.ones(3, 2))).batch_shape
        torch.Size([3, 2])
    """
    raise ValueError(
        f"independent_elements: {type(distribution).__name__} does not say that its elements are "
        "independent; use a diagonal posterior"
    )


@independent_elements.register
def _(distribution: Diagonal) -> Distribution:
    elements = copy.copy(distribution)
    elements.event_dims = 0
    elements._batch_shape = distribution.batch_shape + distribution.event_shape
    elements._event_shape = torch.Size()
    return elements


@independent_elements.register
def _(distribution: Independent) -> Distribution:
    base = distribution.base_dist
    return independent_elements(base) if base.event_shape else base


def mean_covariance(posterior: Distribution) -> Float[Tensor, "latent latent"]:
    r"""Return the covariance over the data of the posterior's mean, what DIP-I looks at.

    .. math:: \operatorname{Cov}_{p(x)} [\mu(x)]

    All but the last dimension is data, as in `latent_use`: the nodes of a graph count as rows.
    Divided by the number of rows less one, so unbiased.

    References:
        Kumar et al., "Variational Inference of Disentangled Latent Concepts from Unlabeled
        Observations", ICLR 2018, eq. 6 (arXiv:1711.00848).

    Args:
        posterior: :math:`q(z \mid x)` with an event of at least one dimension.

    Raises:
        ValueError: If there are fewer than 2 rows, or the event is a scalar.
    """
    if not posterior.event_shape:
        raise ValueError("mean_covariance: the posterior's event is a scalar; it has no columns")
    rows = at_least_single(posterior.mean).flatten(0, -2)
    if len(rows) < 2:
        raise ValueError(
            f"mean_covariance: {len(rows)} posterior; a batch of at least 2 is needed, use a "
            "larger one"
        )
    centred = rows - rows.mean(0)
    with torch.autocast(rows.device.type, enabled=False):
        return centred.T @ centred / (len(rows) - 1)


def aggregated_covariance(posterior: Distribution) -> Float[Tensor, "latent latent"]:
    r"""Return the covariance of the aggregated posterior, what DIP-II looks at.

    .. math:: \operatorname{Cov}_{q(z)} [z] = \mathbb E_{p(x)} \operatorname{Cov}_{q(z \mid x)} [z]
        + \operatorname{Cov}_{p(x)} [\mu(x)]

    References:
        Kumar et al., "Variational Inference of Disentangled Latent Concepts from Unlabeled
        Observations", ICLR 2018, eqs. 5 and 7 (arXiv:1711.00848).

    Args:
        posterior: :math:`q(z \mid x)`: independent elements, or a full or low-rank normal.

    Raises:
        ValueError: If there are fewer than 2 rows, or the covariance of the posterior is unknown.
    """
    return mean_covariance(posterior) + _mean_within(posterior)


def covariance_penalty(
    covariance: Float[Tensor, "latent latent"], off_diagonal: float, diagonal: float
) -> Float[Tensor, ""]:
    r"""Return the distance of a covariance from the identity.

    .. math:: \lambda_{od} \sum_{i \ne j} C_{ij}^2 + \lambda_d \sum_i (C_{ii} - 1)^2

    References:
        Kumar et al., "Variational Inference of Disentangled Latent Concepts from Unlabeled
        Observations", ICLR 2018, eqs. 6 and 7 (arXiv:1711.00848).

    Args:
        covariance: :math:`C`, of `mean_covariance` or `aggregated_covariance`.
        off_diagonal: :math:`\lambda_{od} \ge 0`.
        diagonal: :math:`\lambda_d \ge 0`.

    Example:
        >>> covariance_penalty(torch.full((2, 2), 3.0), off_diagonal=1.0, diagonal=10.0)
        tensor(98.)
    """
    variances = covariance.diagonal()
    crossed = covariance - variances.diag()
    return off_diagonal * crossed.square().sum() + diagonal * (variances - 1).square().sum()


def _log_shares(shape: torch.Size, size: int, sampling: str) -> Float[Tensor, "batch batch"]:
    """Return the log weight of each posterior of the batch for the samples of each."""
    if len(shape) != 1:
        raise ValueError(
            f"aggregated_log_prob: posterior of batch shape {tuple(shape)}; it must be (batch,), "
            "a posterior that depends on sampled parents has no one aggregate"
        )
    batch = shape[0]
    if batch < 2:
        raise ValueError(
            f"aggregated_log_prob: {batch} posterior; a batch of at least 2 is needed, use a "
            "larger one"
        )
    if size < batch:
        raise ValueError(
            f"aggregated_log_prob: a batch of {batch} from a dataset of {size}; give the number "
            "of examples that the batches are drawn from"
        )
    if sampling == "weighted":
        return torch.full((batch, batch), -math.log(size * batch))
    if sampling != "stratified":
        raise ValueError(f"aggregated_log_prob: sampling {sampling!r}; stratified or weighted")
    others = math.log((size - 1) / (size * (batch - 1)))
    shares = torch.full((batch, batch), others, dtype=torch.float64)
    return shares.fill_diagonal_(-math.log(size))


def _mean_within(posterior: Distribution) -> Tensor:
    if isinstance(posterior, MultivariateNormal | LowRankMultivariateNormal):
        return posterior.covariance_matrix.flatten(0, -3).mean(0)
    variances = at_least_single(independent_elements(posterior).variance)
    return variances.flatten(0, -2).mean(0).diag()
