r"""A hierarchy of latent groups, drawn from the top down.

.. math:: p(z) = p(z_L) \prod_{l < L} p(z_l \mid z_{>l}), \quad
    q(z \mid x) = q(z_L \mid x) \prod_{l < L} q(z_l \mid z_{>l}, x)

Inference runs in the direction of generation, and every prior is built from the parents that were
drawn from the posterior: the KL of each level given its parents adds up to that of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from core.variational.distributions import DiagonalNormal, as_diagonal_normal
from core.variational.estimators import REPARAMETERISED, Estimator
from core.variational.evidence import Latent
from core.variational.structures.experts import product_of_experts


class Level(nn.Module):
    r"""One level: its prior given what was drawn above, and how what is recognised changes it.

    ``"ladder"``: the features alone give a Normal that is multiplied with the prior, so that
    precisions add and the data only say what they know better than the levels above.

    .. math:: q \propto \mathcal N(\hat\mu(x), \hat\sigma^2(x))\, p(z_l \mid z_{>l})

    The paper takes :math:`\mathcal N(\hat\mu, \hat\sigma^2)` by itself on the top level; here it
    is multiplied with the prior there too. Where each level's evidence is Normal this is Bayes'
    rule.

    ``"residual"``: features and what was drawn above give the posterior relative to the prior, as
    in NVAE; if they say :math:`\mathcal N(0, 1)` it is the prior and the KL is 0.

    .. math:: q = \mathcal N(\mu + \Delta\mu, (\sigma\, \Delta\sigma)^2), \quad
        p = \mathcal N(\mu, \sigma^2)

    ``"joint"``: they give the posterior itself, of any family, as in VDVAE.

    References:
        Sønderby et al., "Ladder Variational Autoencoders", NeurIPS 2016 (arXiv:1602.02282).
        Vahdat and Kautz, "NVAE", NeurIPS 2020, section 3.2 (arXiv:2007.03898).
        Child, "Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on
        Images", ICLR 2021 (arXiv:2011.10650).

    Args:
        recognition: From the features, joined with what was drawn above unless in a ladder, to a
            distribution: a module of `core.variational.posteriors`.
        prior: A module of `core.variational.priors`, whose context is what was drawn above.
        inference: How the posterior is made: ``"ladder"``, ``"residual"`` or ``"joint"``.
        state: From this level's value and what this level knew of those above to what the next
            one knows; None for the value alone. Above the top nothing is known (None).
        joined_along: Dimension along which features and what was drawn above are put side by side;
            -3 for images with channels first.

    Raises:
        ValueError: If the way of inference is unknown.
    """

    def __init__(
        self,
        recognition: nn.Module,
        prior: nn.Module,
        inference: str,
        state: Callable[[Tensor, Tensor | None], Tensor] | None = None,
        joined_along: int = -1,
    ) -> None:
        super().__init__()
        if inference not in _COMBINATIONS:
            raise ValueError(f"Level: inference {inference!r}; one of {sorted(_COMBINATIONS)}")
        self.recognition, self.prior, self.state = recognition, prior, state
        self.inference, self.joined_along = inference, joined_along

    def forward(
        self, features: Tensor, above: Tensor | None = None
    ) -> tuple[Distribution, Distribution]:
        """Return posterior and prior.

        Args:
            features: Of shape ``(batch, *features)``.
            above: What is known of the levels above, of shape ``(samples, batch, *state)``; None
                on the top level.
        """
        if above is not None and self.inference != "ladder":
            features = joined(features, above, dim=self.joined_along)
        recognised = self.recognition(features)
        if above is not None and recognised.batch_shape != above.shape[:2]:
            recognised = recognised.expand(above.shape[:2])
        prior = self.prior(recognised, above)
        return _COMBINATIONS[self.inference](recognised, prior), prior

    def known_below(self, value: Tensor, above: Tensor | None) -> Tensor:
        """Return what the next level knows of this one and those above."""
        return value if self.state is None else self.state(value, above)


class TopDown(nn.Module):
    r"""The latents of a hierarchy from bottom-up features, one set for each level.

    From the second level on posterior and prior have batch shape ``(samples, batch)``. A path
    estimator leaves out, with the score of each level, what of :math:`\log q(z_l \mid z_{>l})`
    depends on the parents: unbiased for an ELBO, though not free of variance at an exact
    posterior, as with one level.

    References:
        As in `Level`.

    Args:
        levels: From the top to the bottom.
        names: Of the latent groups, from the top; ``z1`` is the lowest if none are given.

    Raises:
        ValueError: If there is not one name for each level.

    Example:
        >>> from core.variational.posteriors import DiagonalNormalPosterior
        >>> from core.variational.priors import ConditionalNormal, StandardNormal
        >>> top = Level(DiagonalNormalPosterior(5, 2), StandardNormal(), "ladder")
        >>> prior = ConditionalNormal(2, 3, hidden=())
        >>> bottom = Level(DiagonalNormalPosterior(7, 3), prior, "ladder")
        >>> features = torch.zeros(4, 5), torch.zeros(4, 7)
        >>> [latent.value.shape for latent in TopDown([top, bottom])(features, samples=6)]
        [torch.Size([6, 4, 2]), torch.Size([6, 4, 3])]
    """

    def __init__(self, levels: Sequence[Level], names: Sequence[str] | None = None) -> None:
        super().__init__()
        if names is None:
            names = [f"z{index}" for index in range(len(levels), 0, -1)]
        if len(names) != len(levels):
            raise ValueError(f"TopDown: {len(levels)} levels and {len(names)} names")
        self.levels, self.names = nn.ModuleList(levels), tuple(names)

    def forward(
        self,
        features: Sequence[Tensor],
        samples: int,
        estimator: Estimator | Sequence[Estimator] = REPARAMETERISED,
    ) -> list[Latent]:
        """Draw from the posterior, level by level.

        Args:
            features: Of each level, from the top, of shape ``(batch, *features)``.
            samples: Draws of the whole hierarchy for each example.
            estimator: How to draw, or one for each level. Only the top level may be enumerated or
                taken at points.

        Raises:
            ValueError: If the features are not as many as the levels, or an estimator cannot be
                used on its level.
        """
        chosen = [estimator] * len(self.levels) if isinstance(estimator, Estimator) else estimator
        latents: list[Latent] = []

        def draw(posterior: Distribution, prior: Distribution) -> Tensor:
            index = len(latents)
            name, how = self.names[index], chosen[index]
            latents.append(Latent.draw(name, posterior, prior, samples, how))
            if index and latents[-1].value.shape[:2] != latents[0].value.shape[:2]:
                raise ValueError(
                    f"TopDown: estimator {how.kind!r} on level {name!r} makes samples of its own; "
                    "below the top there is one for each of the parents'"
                )
            return latents[-1].value

        self._descend(features, draw)
        return latents

    def generate(self, features: Sequence[Tensor], samples: int) -> list[Tensor]:
        """Draw from the prior, level by level; only the shapes of the features matter."""
        values: list[Tensor] = []

        def draw(posterior: Distribution, prior: Distribution) -> Tensor:
            values.append(prior.sample(torch.Size(() if values else (samples,))))
            return values[-1]

        self._descend(features, draw)
        return values

    def _descend(
        self, features: Sequence[Tensor], draw: Callable[[Distribution, Distribution], Tensor]
    ) -> None:
        if len(features) != len(self.levels):
            raise ValueError(f"TopDown: features of {len(features)} for {len(self.levels)} levels")
        above = None
        for level, seen in zip(self.levels, features, strict=True):
            assert isinstance(level, Level)
            value = draw(*level(seen, above))
            above = level.known_below(value, above)


def joined(*tensors: Tensor, dim: int = -1) -> Tensor:
    """Put tensors side by side, repeating those that have fewer leading dimensions.

    Features ``(batch, …)`` meet draws ``(samples, batch, …)``.

    Args:
        tensors: Alike in all other dimensions from the batch on.
        dim: Along which dimension, counted from the end.

    Example:
        >>> joined(torch.zeros(4, 5), torch.ones(3, 4, 2)).shape
        torch.Size([3, 4, 7])
    """
    last = [tensor.movedim(dim, -1) for tensor in tensors]
    shape = torch.broadcast_shapes(*(tensor.shape[:-1] for tensor in last))
    return torch.cat([tensor.expand(*shape, -1) for tensor in last], -1).movedim(-1, dim)


def _ladder(recognised: Distribution, prior: Distribution) -> Distribution:
    return product_of_experts(prior, [recognised])


def _residual(recognised: Distribution, prior: Distribution) -> Distribution:
    relative, normal = as_diagonal_normal(recognised), as_diagonal_normal(prior)
    scale = normal.scale * relative.scale
    return DiagonalNormal(normal.loc + relative.loc, scale, normal.event_dims)


def _joint(recognised: Distribution, prior: Distribution) -> Distribution:
    return recognised


_COMBINATIONS: dict[str, Callable[[Distribution, Distribution], Distribution]] = {
    "ladder": _ladder,
    "residual": _residual,
    "joint": _joint,
}
