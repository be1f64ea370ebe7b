"""Autoregressive likelihoods that see only so far: what is further away is left to the latent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Size, Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional

from core.variational.distributions import DiagonalNormal, LogitsBernoulli
from core.variational.distributions.base import at_least_single


class Autoregressive(Distribution):
    r"""A distribution of an image or a sequence, element after element in raster order.

    .. math:: \log p(x) = \sum_i \log p(x_i \mid x_{<i})

    One pass gives the log-probability; a sample takes one pass for each element.

    Args:
        given: Returns for values of shape ``(*batch, *event)`` the distribution of every element
            given those before it, with event shape ``event``.
        batch_shape: Shape of the batch.
        event_shape: Shape of an example.
        like: A tensor of the type and device that samples have.
    """

    def __init__(
        self,
        given: Callable[[Tensor], Distribution],
        batch_shape: Size,
        event_shape: Size,
        like: Tensor,
    ) -> None:
        self.given, self.like = given, like
        super().__init__(batch_shape, event_shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability in nats; ``value`` may have further leading dimensions."""
        if value.shape[-len(self._event_shape) :] != self._event_shape:
            raise ValueError(
                f"Autoregressive: value of shape {tuple(value.shape)} does not end in the event "
                f"shape {tuple(self._event_shape)}"
            )
        return self.given(value.to(self.like)).log_prob(value)

    @torch.no_grad()
    def sample(self, sample_shape: Size | Sequence[int] = ()) -> Tensor:
        """Draw examples of shape ``(*sample, *batch, *event)``, one element at a time."""
        shape = torch.Size(sample_shape) + self._batch_shape
        x = self.like.new_zeros(shape + self._event_shape)
        flat = x.view(*shape, -1)
        for index in range(self._event_shape.numel()):
            flat[..., index] = self.given(x).sample().reshape(flat.shape)[..., index]
        return x


class AutoregressiveLikelihood(nn.Module):
    r"""A decoder that also looks at the elements just before: the variational lossy autoencoder.

    .. math:: p(x \mid z) = \prod_i p(x_i \mid x_{N_r(i)}, z)

    where :math:`N_r(i)` are the elements before :math:`i` in raster order that are at most
    :math:`r` rows and columns away. What they tell need not be told by the latent, so a larger
    :math:`r` lowers the KL; structure further than :math:`r` must pass through it. With
    :math:`r = 0` the elements are independent given the latent, and the numbers are those of the
    plain linear head.

    The parameters of element :math:`i` are :math:`(W h + b)_i + f(x_{N_r(i)}, (W h + b)_i)`. One
    masked convolution as wide as the receptive field, then convolutions of size 1: no element in
    the field is missed and none outside is seen, which a stack of small masked convolutions does
    not achieve.

    References:
        Chen et al., "Variational Lossy Autoencoder", ICLR 2017, section 3.1 (arXiv:1611.02731).
        van den Oord et al., "Pixel Recurrent Neural Networks", ICML 2016, section 3.4, for masked
        convolutions (arXiv:1601.06759).

    Args:
        features: Size of the last dimension of its input.
        shape: Shape of an example: ``(height, width)`` of an image or ``(time,)``.
        receptive_field: :math:`r`, in elements; 0 for none.
        channels: Width of the network :math:`f`.
        elements: ``"bernoulli"`` for binary data, ``"normal"`` for real data with a predicted
            scale.

    Raises:
        ValueError: If the shape has not 1 or 2 dimensions, the receptive field is negative or the
            elements are unknown.
    """

    def __init__(
        self,
        features: int,
        shape: Sequence[int],
        receptive_field: int,
        channels: int,
        elements: str = "bernoulli",
    ) -> None:
        super().__init__()
        self.shape, self.receptive_field = torch.Size(shape), receptive_field
        if len(shape) not in (1, 2) or receptive_field < 0 or elements not in _ELEMENTS:
            raise ValueError(
                f"AutoregressiveLikelihood: shape={tuple(shape)}, "
                f"receptive_field={receptive_field}, elements={elements!r}; allowed are 1 or 2 "
                f"dimensions, a field of at least 0, and {sorted(_ELEMENTS)}"
            )
        self.parameters_each, self.build = _ELEMENTS[elements]
        self.head = nn.Linear(features, self.parameters_each * self.shape.numel())
        self.context = (
            CausalContext(self.shape, receptive_field, channels, self.parameters_each)
            if receptive_field
            else None
        )

    def forward(self, features: Tensor) -> Autoregressive:
        """Return the likelihood for features of shape ``(*batch, features)``."""
        plain = self.head(features).unflatten(-1, (self.parameters_each, *self.shape))

        def given(value: Tensor) -> Distribution:
            parameters = plain if self.context is None else self.context(value, plain)
            return self.build(at_least_single(parameters), len(self.shape))

        return Autoregressive(given, features.shape[:-1], self.shape, at_least_single(plain))


class CausalContext(nn.Module):
    """Adds to the parameters of each element what the elements before it say.

    Args:
        shape: Shape of an example.
        receptive_field: How many rows and columns away an element is still seen.
        channels: Width of the network.
        parameters_each: Parameters of an element.
    """

    mask: Tensor

    def __init__(
        self, shape: Size, receptive_field: int, channels: int, parameters_each: int
    ) -> None:
        super().__init__()
        self.shape = shape
        self.rows, self.columns = (1, *shape)[-2:]
        above = min(receptive_field, self.rows - 1)
        beside = min(receptive_field, self.columns - 1)
        self.padding = (beside, beside, above, 0)
        self.before = nn.Conv2d(1, channels, (above + 1, 2 * beside + 1))
        self.plain = nn.Conv2d(parameters_each, channels, 1, bias=False)
        self.hidden = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, parameters_each, 1)
        mask = torch.ones_like(self.before.weight)
        mask[:, :, -1, beside:] = 0  # the element itself and those after it
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, value: Tensor, plain: Tensor) -> Tensor:
        """Return the parameters of every element.

        Args:
            value: Examples of shape ``(*batch, *shape)``.
            plain: What the latent alone says, of shape ``(*batch, parameter, *shape)``; the two
                batch shapes broadcast.
        """
        dims = len(self.shape)
        seen = self._each_image(self._seen, value.unsqueeze(-dims - 1))
        said = self._each_image(self.plain, plain)
        # Values are convolved once, however many samples of the latent they are held against.
        return plain + self._each_image(self._mix, seen + said)

    def _seen(self, value: Tensor) -> Tensor:
        padded = functional.pad(value, self.padding)
        return functional.conv2d(padded, self.before.weight * self.mask, self.before.bias)

    def _mix(self, hidden: Tensor) -> Tensor:
        # In place: two maps of all channels fewer to keep for the backward pass.
        return self.out(functional.elu_(self.hidden(functional.elu_(hidden))))

    def _each_image(self, network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Apply a network of images to ``(*batch, channel, *shape)``."""
        split = x.dim() - len(self.shape) - 1
        images = x.reshape(-1, x.shape[split], self.rows, self.columns).to(self.mask)
        out = network(images)
        return out.reshape(*x.shape[:split], out.shape[1], *self.shape)


def _binary(parameters: Tensor, dims: int) -> LogitsBernoulli:
    return LogitsBernoulli(parameters.squeeze(-dims - 1), dims)


def _real(parameters: Tensor, dims: int) -> DiagonalNormal:
    loc, log_scale = parameters.unbind(-dims - 1)
    return DiagonalNormal(loc, log_scale.exp(), dims)


_ELEMENTS: dict[str, tuple[int, Callable[[Tensor, int], Distribution]]] = {
    "bernoulli": (1, _binary),
    "normal": (2, _real),
}
