"""A mixture of Normals with samples that can be differentiated."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Size, Tensor
from torch.distributions import Categorical, Distribution, MixtureSameFamily

from core.variational.distributions import DiagonalNormal, stop_gradient
from core.variational.distributions.base import at_least_single
from core.variational.posteriors.base import Posterior, over_event


class NormalMixture(MixtureSameFamily):
    r"""A mixture of diagonal Normals over vectors, reparameterised implicitly.

    .. math:: q(z) = \sum_k \pi_k \prod_i \mathcal N(z_i; \mu_{ki}, \sigma_{ki}^2)

    A sample is drawn component first. Its gradient is that of the distributional transform
    :math:`u_i = S_i(z) = F(z_i \mid z_{<i})`, whose :math:`u` is uniform whatever the parameters:

    .. math:: \nabla_\phi z = -(\nabla_z S)^{-1} \nabla_\phi S, \quad
        F(z_i \mid z_{<i}) = \sum_k w_{ki} \Phi_{ki}, \quad
        w_{ki} \propto \pi_k \prod_{j < i} \mathcal N(z_j; \mu_{kj}, \sigma_{kj}^2)

    Here :math:`\nabla_z S` is a lower triangle in closed form, with
    :math:`\partial S_i / \partial z_j = \sum_k s_{kj} w_{ki} (\Phi_{ki} - F_i)` for :math:`j < i`,
    :math:`s_{kj} = (\mu_{kj} - z_j) / \sigma_{kj}^2`, and the conditional densities on its
    diagonal. Unbiased for every parameter, the weights too. Two warnings: its variance grows
    without bound as components draw apart (the gradient by a weight moves mass through the gap
    between them), and memory grows with ``latent ** 2`` a sample. The gradient is exact to first
    order only.

    References:
        Figurnov, Mohamed and Mnih, "Implicit Reparameterization Gradients", NeurIPS 2018
        (arXiv:1805.08498). Graves, "Stochastic Backpropagation through Mixture Density
        Distributions", 2016 (arXiv:1607.05690).

    Args:
        logits: Unnormalised log weights of shape ``(*batch, components)``.
        loc: Means of shape ``(*batch, components, latent)``.
        scale: Standard deviations, of the same shape.

    Example:
        >>> loc = torch.zeros(5, 3, 2, requires_grad=True)
        >>> mixture = NormalMixture(torch.zeros(5, 3), loc, torch.ones(5, 3, 2))
        >>> mixture.rsample((7,)).sum(-1).shape
        torch.Size([7, 5])
    """

    has_rsample = True

    def __init__(self, logits: Tensor, loc: Tensor, scale: Tensor) -> None:
        self.logits, self.loc, self.scale = logits, loc, scale
        super().__init__(
            Categorical(logits=logits, validate_args=False),
            DiagonalNormal(loc, scale),
            validate_args=False,
        )

    def expand(self, batch_shape: Size | Sequence[int], _instance: None = None) -> NormalMixture:
        """Return the same distribution with the batch shape given."""
        batch = torch.Size(batch_shape)
        components, latent = self.loc.shape[-2:]
        return NormalMixture(
            self.logits.expand(*batch, components),
            self.loc.expand(*batch, components, latent),
            self.scale.expand(*batch, components, latent),
        )

    def rsample(self, sample_shape: Size | Sequence[int] = ()) -> Tensor:
        """Draw values of shape ``(*sample, *batch, latent)``."""
        value = self.sample(torch.Size(sample_shape))
        if not torch.is_grad_enabled():
            return value
        transform = self._transform(value)
        with torch.no_grad():
            slopes = self._slopes(value)
        change = (transform - transform.detach()).unsqueeze(-1)
        return value - torch.linalg.solve_triangular(slopes, change, upper=False).squeeze(-1)

    def _transform(self, value: Tensor) -> Tensor:
        """Return the distributional transform of a constant: uniform numbers."""
        weights, standard = self._conditional_weights(value)
        return (weights * _normal_cdf(standard)).sum(-2)

    def _conditional_weights(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return each component's weight given the dimensions before, and the standard scores."""
        standard = (value.unsqueeze(-2) - self.loc) / self.scale
        log_density = -0.5 * standard.square() - self.scale.log()
        before = log_density.cumsum(-1) - log_density
        return (self.logits.unsqueeze(-1) + before).softmax(-2), standard

    def _slopes(self, value: Tensor) -> Tensor:
        """Return the Jacobian of the transform by the value: a lower triangle."""
        weights, standard = self._conditional_weights(value)
        normal_cdf = _normal_cdf(standard)
        excess = weights * (normal_cdf - (weights * normal_cdf).sum(-2, keepdim=True))
        below = (excess.mT @ (-standard / self.scale)).tril(-1)
        density = torch.exp(-0.5 * standard.square()) / (self.scale * math.sqrt(2 * math.pi))
        tiny = torch.finfo(value.dtype).tiny
        return below + torch.diag_embed((weights * density).sum(-2).clamp(min=tiny))


class MixturePosterior(Posterior):
    r"""A mixture of diagonal Normals, with a guard against components that collapse.

    .. math:: q(z \mid x) = \sum_k \pi_k \mathcal N(\mu_k, \operatorname{diag} \sigma_k^2), \quad
        \sigma_{ki}^2 = e^{2 l_{ki}} + \rho^2 V_i, \quad
        V_i = \sum_k \pi_k (\mu_{ki} - \bar\mu_i)^2

    :math:`V` is the spread of the means. Without the guard a component can shrink to a point, and
    the gradient of the weights gets lost in the gap between components; with it no component is
    narrower than :math:`\rho` times the spread, in any dimension. Where the components agree the
    guard does nothing. Deviation from Rivera ("How to Train Your VAE", arXiv:2309.13160), who
    penalises small variances: this cannot be outweighed.

    Samples are reparameterised implicitly (see `NormalMixture`); the KL is Monte Carlo.

    Args:
        features: Size of the last dimension of its input; None if that is the raw parameters.
        latent: Number of latent dimensions.
        components: How many.
        floor: The guard :math:`\rho`, e.g. 0.1; 0 for none.
        event_dims: Event dimensions of the distribution, the latent one included.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        features: int | None,
        latent: int,
        components: int,
        floor: float,
        event_dims: int = 1,
    ) -> None:
        if components < 1 or not 0 <= floor < math.inf:
            raise ValueError(
                f"MixturePosterior: components={components}, floor={floor}; there must be at "
                "least one component and a finite floor of at least 0"
            )
        super().__init__(features, components * (1 + 2 * latent), event_dims)
        self.latent, self.components, self.floor = latent, components, floor

    def forward(self, features: Tensor) -> Distribution:
        """Return the posterior for features of shape ``(*batch, features)``."""
        raw = at_least_single(self.head(features))
        many = self.components * self.latent
        logits, loc, log_scale = raw.split([self.components, many, many], -1)
        shape = (self.components, self.latent)
        loc, scale = loc.unflatten(-1, shape), log_scale.unflatten(-1, shape).exp()
        mixture = NormalMixture(logits, loc, guarded(logits, loc, scale, self.floor))
        return over_event(mixture, self.event_dims)


def guarded(logits: Tensor, loc: Tensor, scale: Tensor, floor: float) -> Tensor:
    """Return scales that are at least ``floor`` times the spread of the components' means."""
    weights = logits.softmax(-1).unsqueeze(-1)
    centre = (weights * loc).sum(-2, keepdim=True)
    spread = (weights * (loc - centre).square()).sum(-2, keepdim=True)
    return (scale.square() + floor**2 * spread).sqrt()


def _normal_cdf(standard: Tensor) -> Tensor:
    return torch.special.ndtr(standard)


@stop_gradient.register
def _(distribution: NormalMixture) -> NormalMixture:
    parameters = (distribution.logits, distribution.loc, distribution.scale)
    return NormalMixture(*(parameter.detach() for parameter in parameters))
