"""A prior over codes: of a vector quantiser, or of categorical latents."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, OneHotCategorical

from core.variational.posteriors import GumbelSoftmax
from core.variational.priors.base import Prior, learned, over_event_of, refuse_context


class Codebook(Prior):
    r"""A categorical prior over :math:`K` codes, the same for every variable.

    .. math:: p(z = e_k) = \pi_k

    With uniform codes, the KL of a deterministic posterior (a vector quantiser's) is the constant
    :math:`\log K` for every variable. A relaxed posterior gets the relaxed prior of its own
    temperature, so that the bound is one of the relaxed model.

    References:
        van den Oord et al., "Neural Discrete Representation Learning", NeurIPS 2017, section 3.1
        (arXiv:1711.00937).

    Args:
        codes: How many :math:`K`.
        learned_weights: Whether :math:`\pi` is learned, or uniform.

    Raises:
        ValueError: If there are no codes.
    """

    def __init__(self, codes: int, learned_weights: bool) -> None:
        super().__init__()
        if codes < 1:
            raise ValueError(f"Codebook: codes={codes}; at least 1 is needed")
        self.codes = codes
        self.logits = learned(codes).requires_grad_(learned_weights)

    def forward(self, posterior: Distribution, context: Tensor | None = None) -> Distribution:
        """Return the prior of the posterior's kind and shapes.

        Raises:
            ValueError: If the posterior is over no codes, or over others.
        """
        refuse_context(self, context)
        base = posterior.base_dist if isinstance(posterior, Independent) else posterior
        if not isinstance(base, (Categorical, OneHotCategorical, GumbelSoftmax)):
            raise ValueError(
                f"Codebook: the posterior is a {type(base).__name__}; a codebook needs one over "
                "codes, e.g. CategoricalPosterior"
            )
        if base.logits.shape[-1] != self.codes:
            raise ValueError(
                f"Codebook: {self.codes} codes; the posterior is over {base.logits.shape[-1]}"
            )
        return over_event_of(posterior, _of_kind(base, self.logits.expand(base.logits.shape)))


def _of_kind(
    base: Categorical | OneHotCategorical | GumbelSoftmax, logits: Tensor
) -> Distribution:
    if isinstance(base, GumbelSoftmax):
        return GumbelSoftmax(base.temperature, logits)
    return type(base)(logits=logits, validate_args=False)
