"""Discrete latents that are drawn as relaxed ones: half of a mixed latent such as JointVAE's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.distributions import Distribution, Independent, OneHotCategorical
from torch.nn import functional

from core.variational.estimators import REPARAMETERISED, Draw, Estimator, Target
from core.variational.posteriors import GumbelSoftmax
from core.variational.posteriors.base import over_event


@dataclass(frozen=True)
class Relaxed(Estimator):
    r"""Draws of a one-hot posterior by Gumbel-softmax: differentiable, biased.

    .. math:: z_k = \operatorname{softmax}((l + g) / \tau)_k, \quad g_k \sim \text{Gumbel}(0, 1)

    The posterior, and so the KL, is the categorical one: in closed form, and at most
    :math:`\log K` against a uniform prior, so that it can be held at a capacity. The likelihood
    is looked at between the corners of the simplex, so the value is that of the discrete model
    only with ``straight_through``: one-hot values, whose gradient is that of the relaxed ones.
    For a bound of a relaxed model in its place, draw from a `GumbelSoftmax` posterior by
    `Reparameterised`.

    References:
        Jang, Gu and Poole, "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017, eq. 2
        and section 2.2 for straight-through (arXiv:1611.01144).
        Dupont, "Learning Disentangled Joint Continuous and Discrete Representations", NeurIPS
        2018, for a categorical KL over relaxed draws (arXiv:1804.00104).

    Args:
        temperature: :math:`\tau > 0`; low is close to one-hot, with noisy gradients.
        straight_through: Whether values are one-hot.

    Raises:
        ValueError: If the temperature is not positive.
    """

    temperature: float
    straight_through: bool = False
    kind: ClassVar[str] = "relaxed"
    unbiased_for: ClassVar[frozenset[Target]] = frozenset()

    @property
    def is_draw(self) -> bool:
        """Whether its values are one-hot; between the corners it is another model's likelihood."""
        return self.straight_through

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"Relaxed: temperature {self.temperature!r} is not positive")

    def draw(self, posterior: Distribution, samples: int) -> Draw:
        """Draw points of the simplex, or its corners.

        Raises:
            ValueError: If the posterior is not over one-hot vectors.
        """
        base = posterior
        while isinstance(base, Independent):
            base = base.base_dist
        if not isinstance(base, OneHotCategorical):
            raise ValueError(
                f"{self.kind}: the posterior is a {type(base).__name__}; it must be a "
                "OneHotCategorical, as CategoricalPosterior gives"
            )
        relaxed = over_event(
            GumbelSoftmax(self.temperature, base.logits), len(posterior.event_shape)
        )
        value = REPARAMETERISED.draw(relaxed, samples).value
        if self.straight_through:
            corner = functional.one_hot(value.argmax(-1), value.shape[-1]).to(value)
            value = corner + (value - value.detach())
        return Draw(value)
