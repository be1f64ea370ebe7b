"""Gumbel–softmax: the discrete KL that stands for that of the relaxed distributions."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    OneHotCategorical,
    RelaxedOneHotCategorical,
    kl_divergence,
)


def categorical_kl(posterior: Distribution, prior: Distribution) -> Tensor:
    r"""Return the KL divergence of the categorical distributions with the same logits, in nats.

    .. math:: \sum_k \pi_k (\log \pi_k - \log p_k)

    Exact for categorical distributions. For a ``RelaxedOneHotCategorical`` it is the usual
    surrogate (Jang et al., JointVAE) and **not** the KL of the relaxed densities. That one does
    not depend on a common temperature and is larger (the class is a function of the relaxed
    vector), so that with relaxed samples the objective is no lower bound of the evidence; it tends
    to the bound of the discrete model as the temperature goes to 0. The surrogate is at most
    :math:`\log K` against a uniform prior. The KL of the relaxed densities (Maddison et al.) is
    what `kl` estimates from relaxed samples.

    References:
        Jang et al., "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017
        (arXiv:1611.01144); Maddison et al., "The Concrete Distribution", ICLR 2017
        (arXiv:1611.00712); Dupont, "Learning Disentangled Joint Continuous and Discrete
        Representations", NeurIPS 2018 (arXiv:1804.00104).

    Args:
        posterior: A ``RelaxedOneHotCategorical``, ``OneHotCategorical`` or ``Categorical``.
        prior: One of these over as many classes, not necessarily of the same kind.

    Raises:
        ValueError: If either is of another family, or they have different numbers of classes.

    Example:
        >>> import torch
        >>> posterior = RelaxedOneHotCategorical(torch.tensor(0.5), logits=torch.zeros(3))
        >>> categorical_kl(posterior, OneHotCategorical(logits=torch.zeros(3)))
        tensor(0.)
    """
    ours, theirs = _categorical(posterior), _categorical(prior)
    classes = ours.logits.shape[-1], theirs.logits.shape[-1]
    if classes[0] != classes[1]:
        raise ValueError(f"categorical_kl: {classes[0]} classes against {classes[1]}")
    return kl_divergence(ours, theirs)


def _categorical(distribution: Distribution) -> Categorical:
    if not isinstance(distribution, RelaxedOneHotCategorical | OneHotCategorical | Categorical):
        raise ValueError(
            f"categorical_kl: {type(distribution).__name__} is not one of Categorical, "
            "OneHotCategorical and RelaxedOneHotCategorical"
        )
    return Categorical(logits=distribution.logits, validate_args=False)
