"""Likelihoods of what a network sees in the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Size, Tensor, nn
from torch.distributions import Distribution

from core.variational.distributions import DiagonalNormal
from core.variational.distributions.base import at_least_single

Backbone = Callable[[Tensor], Tensor | Sequence[Tensor]]


class FeatureNormal(Distribution):
    r"""A Normal of the features of the data around the features of a reconstruction.

    .. math:: \sum_l \log \mathcal N(\phi_l(x); \phi_l(\hat x), s_l^2 I)

    A density of the features: of the data themselves it is none.

    Args:
        reconstruction: :math:`\hat x` of shape ``(*batch, *event)``.
        backbone: :math:`\phi`, of ``(examples, *event)`` to one or several ``(examples, …)``.
        scales: :math:`s_l`, one for all layers or one for each.
        event_dims: How many of the last dimensions are one event.
    """

    def __init__(
        self, reconstruction: Tensor, backbone: Backbone, scales: Sequence[float], event_dims: int
    ) -> None:
        self.loc, self.backbone, self.scales = reconstruction, backbone, scales
        self.event_dims = event_dims
        split = reconstruction.dim() - event_dims
        shape = reconstruction.shape
        super().__init__(shape[:split], shape[split:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The reconstruction; its features are the mean of the features."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """The reconstruction, than which nothing has likelier features."""
        return self.loc

    def expand(self, batch_shape: Size | Sequence[int], _instance: None = None) -> FeatureNormal:
        """Return the same distribution with the batch shape given."""
        loc = self.loc.expand(torch.Size(batch_shape) + self._event_shape)
        return FeatureNormal(loc, self.backbone, self.scales, self.event_dims)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of the features of ``value``, in nats."""
        expected, seen = self._features(self.loc), self._features(value)
        scales = [*self.scales] * len(seen) if len(self.scales) == 1 else self.scales
        if len(scales) != len(seen):
            raise ValueError(
                f"FeatureNormal: {len(scales)} scales for {len(seen)} layers of the backbone; "
                "give one for all or one for each"
            )
        terms = [
            DiagonalNormal(at_least_single(mean), mean.new_tensor(scale)).log_prob(layer)
            for mean, layer, scale in zip(expected, seen, scales, strict=True)
        ]
        return torch.stack(terms).sum(0)

    def _features(self, x: Tensor) -> list[Tensor]:
        """Return each layer's features as vectors, of shape ``(*batch, feature)``."""
        batch = x.shape[: x.dim() - self.event_dims]
        found = self.backbone(x.reshape(-1, *self._event_shape))
        layers = [found] if isinstance(found, Tensor) else list(found)
        return [layer.reshape(*batch, -1) for layer in layers]


class PerceptualLikelihood(nn.Module):
    r"""Holds a reconstruction against the data in the feature maps of a user's backbone.

    .. math:: \log p(\phi(x) \mid \hat x)
        = \sum_l \log \mathcal N(\phi_l(x); \phi_l(\hat x), s_l^2 I)

    This is **no likelihood of the pixels**: the backbone forgets, so that different images share
    all features, and its Jacobian is missing. An objective with this term bounds nothing about
    :math:`p(x)` (`bound` says so), and its nats compare only with those of the same backbone and
    scales. Beside a pixel likelihood it is a regulariser.

    A backbone that is a module is frozen: its parameters want no gradient and it stays in
    evaluation mode, whatever the mode of the rest. It is part of the state dict.

    References:
        Hou et al., "Deep Feature Consistent Variational Autoencoder", WACV 2017
        (arXiv:1610.00291).

    Args:
        backbone: Gives for examples of shape ``(examples, *event)`` one tensor of features or a
            sequence of them, one for each layer.
        scales: Standard deviations :math:`s_l` in the features' units, one for all layers or one
            for each.
        event_dims: Event dimensions of the data, e.g. 3 for images with channels.

    Raises:
        ValueError: If a scale is not positive.
    """

    bound: Literal["none"] = "none"

    def __init__(self, backbone: Backbone, scales: Sequence[float], event_dims: int) -> None:
        super().__init__()
        if not scales or not all(0 < scale < math.inf for scale in scales):
            raise ValueError(
                f"PerceptualLikelihood: scales {tuple(scales)}; at least one, all positive and "
                "finite"
            )
        self.backbone, self.scales, self.event_dims = backbone, tuple(scales), event_dims
        if isinstance(backbone, nn.Module):
            backbone.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> PerceptualLikelihood:
        """Set the mode; the backbone stays in evaluation mode."""
        super().train(mode)
        if isinstance(self.backbone, nn.Module):
            self.backbone.eval()
        return self

    def forward(self, features: Tensor) -> FeatureNormal:
        """Return the likelihood for reconstructions of shape ``(*batch, *event)``."""
        return FeatureNormal(features, self.backbone, self.scales, self.event_dims)
