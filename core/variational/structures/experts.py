"""One posterior from what several views say, of which some may be missing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.distributions import Distribution

from core.variational.distributions import DiagonalNormal
from core.variational.distributions.normal import require_diagonal_normal
from core.variational.posteriors.mixture import NormalMixture


def product_of_experts(
    prior: Distribution,
    experts: Sequence[Distribution],
    present: Bool[Tensor, "batch view"] | None = None,
) -> DiagonalNormal:
    r"""Return the normalised product of diagonal Normals and the prior.

    .. math:: q(z \mid x_{1:V}) \propto p(z) \prod_{v : m_v} \tilde q(z \mid x_v), \quad
        \frac{1}{\sigma^2} = \frac{1}{s^2} + \sum_v \frac{m_v}{\sigma_v^2}, \quad
        \frac{\mu}{\sigma^2} = \frac{m}{s^2} + \sum_v \frac{m_v \mu_v}{\sigma_v^2}

    With no view it is the prior. Where the views are independent given the latent, the exact
    posterior is of this form, each expert proportional to the view's likelihood
    :math:`p(x_v \mid z)`.

    References:
        Wu and Goodman, "Multimodal Generative Models for Scalable Weakly-Supervised Learning",
        NeurIPS 2018, section 2.2 (arXiv:1802.05335). Hinton, "Training Products of Experts by
        Minimizing Contrastive Divergence", Neural Computation 14, 2002.

    Args:
        prior: The expert that is always there.
        experts: One for each view, over the same event.
        present: Which views each example has; None for all. The parameters of the others do not
            matter, but put zeros into the features that a network makes them from: where they
            overflow, the gradient of its weights is NaN and not 0.

    Raises:
        ValueError: If one is no diagonal Normal, events differ, or the views are not as many.

    Example:
        >>> one = DiagonalNormal(torch.ones(1, 2), torch.ones(1, 2))
        >>> product_of_experts(one, [one, one]).variance
        tensor([[0.3333, 0.3333]])
    """
    start, normals = _normals("product_of_experts", prior, experts, present)
    precision = start.scale.square().reciprocal()
    weighted = start.loc * precision
    for normal, there in normals:
        sharpness = torch.where(there, normal.scale.square().reciprocal(), 0.0)
        precision, weighted = precision + sharpness, weighted + normal.loc * sharpness
    return DiagonalNormal(weighted / precision, precision.rsqrt(), start.event_dims)


def mixture_of_experts(
    prior: Distribution,
    experts: Sequence[Distribution],
    present: Bool[Tensor, "batch view"] | None = None,
) -> NormalMixture:
    r"""Return the mixture, in equal parts, of what the views that are there say.

    .. math:: q(z \mid x_{1:V}) = \frac{1}{\sum_v m_v} \sum_{v : m_v} q(z \mid x_v)

    With no view it is the prior. No view can veto the others, and none sharpens another: it is
    wider than any product. Its samples are reparameterised implicitly (`NormalMixture`), where the
    paper draws from every component.

    References:
        Shi, Siddharth, Paige and Torr, "Variational Mixture-of-Experts Autoencoders for
        Multi-Modal Deep Generative Models", NeurIPS 2019 (arXiv:1911.03393).

    Args:
        prior: What stands for an example without any view.
        experts: One for each view, over the same vectors.
        present: As in `product_of_experts`.

    Raises:
        ValueError: If one is no diagonal Normal, events differ or are no vectors, or the views are
            not as many.
    """
    start, normals = _normals("mixture_of_experts", prior, experts, present)
    if start.event_dims != 1:
        raise ValueError(
            f"mixture_of_experts: events of shape {tuple(start.event_shape)}; a mixture is over "
            "vectors, use product_of_experts"
        )
    there = torch.stack([seen[..., 0] for _, seen in normals], -1)
    there = torch.cat([there, ~there.any(-1, keepdim=True)], -1)
    parts = [*(normal for normal, _ in normals), start]
    loc = torch.stack(torch.broadcast_tensors(*(part.loc for part in parts)), -2)
    scale = torch.stack(torch.broadcast_tensors(*(part.scale for part in parts)), -2)
    never = torch.finfo(loc.dtype).min  # its share is 0, and no infinity meets a 0
    logits = loc.new_zeros(loc.shape[:-1]).masked_fill(~there, never)
    return NormalMixture(logits, loc, scale)


def _normals(
    where: str, prior: Distribution, experts: Sequence[Distribution], present: Tensor | None
) -> tuple[DiagonalNormal, list[tuple[DiagonalNormal, Tensor]]]:
    """Return prior and experts, harmless where they are missing, and where they are there."""
    if not experts or (present is not None and present.shape[-1:] != (len(experts),)):
        given = "" if present is None else f" and a mask of shape {tuple(present.shape)}"
        raise ValueError(f"{where}: {len(experts)} experts{given}; give one for each view")
    start, *normals = (_normal(where, each) for each in (prior, *experts))
    for normal in normals:
        if normal.event_shape != start.event_shape:
            raise ValueError(
                f"{where}: events {tuple(normal.event_shape)} of an expert and "
                f"{tuple(start.event_shape)} of the prior; they must be the same"
            )
    if present is None:
        present = torch.ones(1, len(normals), dtype=torch.bool, device=start.loc.device)
    seen = [each[(..., *[None] * start.event_dims)] for each in present.unbind(-1)]
    return start, [
        (_harmless(each, there), there) for each, there in zip(normals, seen, strict=True)
    ]


def _harmless(normal: DiagonalNormal, there: Tensor) -> DiagonalNormal:
    return DiagonalNormal(
        torch.where(there, normal.loc, 0.0),
        torch.where(there, normal.scale, 1.0),
        normal.event_dims,
    )


def _normal(where: str, distribution: Distribution) -> DiagonalNormal:
    name = type(distribution).__name__
    return require_diagonal_normal(
        distribution, f"{where}: a {name}; all must be diagonal Normals"
    )
