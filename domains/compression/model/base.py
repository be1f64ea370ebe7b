r"""What every model of images is, and what those have in common whose prior is a program.

Bits plus a price times the error is a negative ELBO: the rate index of a picture sets the scale of
a Normal likelihood, the KL of the quantised latents is the rate.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.distributions import Distribution

from core.variational.distributions import DiagonalNormal, UniformConvolvedNormal, UnitUniform
from core.variational.evidence import Evidence, Latent
from core.variational.quantization import straight_through, uniform_noise
from domains.compression.config import DCT, Hyperprior, QRes, Rates
from domains.compression.data.records import Images
from domains.compression.model.program import LOG_STEP, Program, Step, scale_of
from domains.compression.model.rates import Gain, noise_scale, price

if TYPE_CHECKING:
    from domains.compression.model.frozen import Frozen


class ImageModel(nn.Module, abc.ABC):
    """A model of pictures at any rate. Pixels are 0 to 1 inside, 0 to 255 in and out.

    Args:
        rates: The scale of rates.
        stride: Sides are padded to a multiple of it, by repeating the last row and column.
    """

    def __init__(self, rates: Rates, stride: int) -> None:
        super().__init__()
        self.rates, self.stride = rates, stride

    @abc.abstractmethod
    def evidence(self, batch: Images, samples: int = 1) -> Evidence:
        """What the model says about a batch, from ``samples`` posterior draws."""

    @abc.abstractmethod
    def freeze(self, examples: Images) -> Frozen:
        """Return what files are written and read with; the examples show its ranges."""

    def start(self, examples: Images) -> None:
        """Set what is best started from data, once before training; nothing by default."""

    def likelihood(
        self, mean: Float[Tensor, "batch colour height width"], rate: Int64[Tensor, " batch"]
    ) -> Distribution:
        """The Normal around a picture whose scale the rate sets."""
        scale = noise_scale(rate, self.rates).view(-1, 1, 1, 1).expand_as(mean)
        return DiagonalNormal(mean, scale, event_dims=3)

    def emphasis(self, rate: Int64[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """How much the gradient of each picture counts in training."""
        relative = price(rate, self.rates) / (self.rates.lowest * self.rates.highest) ** 0.5
        return relative**-self.rates.emphasis


class TransformModel(ImageModel):
    """A model whose prior is a program: transforms on the outside, latents by a gain in steps.

    Args:
        rates: The scale of rates.
        stride: Of the coarsest group.
        program: The prior.
        gains: Steps per coefficient of each coded group, by name.

    Attributes:
        options: Its settings; None of a model that no settings make, which no file can hold.
    """

    options: DCT | Hyperprior | QRes | None = None

    def __init__(
        self, rates: Rates, stride: int, program: Program, gains: Mapping[str, Gain]
    ) -> None:
        super().__init__(rates, stride)
        self.program = program
        self.gains = nn.ModuleDict(dict(gains))

    @property
    def levels(self) -> tuple[tuple[str, ...], ...]:
        """Which groups make a level of a file that decodes progressively, from the coarsest."""
        return tuple((step.name,) for step in self.program.groups)

    @property
    def halo(self) -> int:
        """Pixels that the transforms look at around a tile, a multiple of the stride."""
        return self.stride

    @abc.abstractmethod
    def analyse(
        self, pixels: Float[Tensor, "batch colour height width"], rate: Int64[Tensor, " batch"]
    ) -> dict[str, Tensor]:
        """Return features of pictures whose sides are multiples of the stride.

        Each is of shape ``(batch, channel, height / s, width / s)`` for some stride ``s``: a part
        of the picture has a part of each.
        """

    @abc.abstractmethod
    def coefficients(
        self, group: str, features: Mapping[str, Tensor], decoded: Mapping[str, Tensor]
    ) -> Tensor:
        """Return what the posterior of a group is centred on, given those decoded before it."""

    @abc.abstractmethod
    def synthesise(
        self, decoded: Mapping[str, Tensor], rate: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch colour height width"]:
        """Return the picture that coefficients of all groups stand for, not clamped."""

    def log_gain(self, group: str, rate: Int64[Tensor, " batch"]) -> Tensor:
        """Return the log of the steps per coefficient, of shape ``(batch, channel, 1, 1)``."""
        return self.gains[group](rate)[:, :, None, None]

    def evidence(self, batch: Images, samples: int = 1) -> Evidence:
        """What the model says about a batch, from ``samples`` posterior draws.

        In training the rate is that of noise and the error that of rounding with the gradient of
        the identity: each is right on average, together no bound. In evaluation latents are
        rounded, and the value is a bound.
        """
        pixels, rate = batch.pixels, batch.rate
        if samples > 1:
            pixels, rate = pixels.repeat(samples, 1, 1, 1), rate.repeat(samples)
        x = (pixels.float() / 255).contiguous(memory_format=torch.channels_last)
        weight = self.emphasis(rate) if self.training else None
        latents: list[Latent] = []
        features = self.analyse(x, rate)
        decoded: dict[str, Tensor] = {}

        def code(step: Step, mean: Tensor, index: Tensor) -> Tensor:
            log_gain = self.log_gain(step.name, rate)
            gain, index = log_gain.exp(), index + log_gain / LOG_STEP
            y = self.coefficients(step.name, features, decoded) * gain
            mean, scale = mean * gain, scale_of(index)
            residual = (y - mean).detach().round()
            if self.training:
                rounded = straight_through(y, residual + mean)
                centre, value = y, y + uniform_noise(y)
            else:  # as files have it: what is all but certain is not coded
                rounded = centre = value = torch.where(index < 0.5, 0.0, residual) + mean
            latents.append(self._latent(step.name, value, centre, mean, scale, weight, samples))
            decoded[step.name] = rounded / gain
            return decoded[step.name]

        self.program(x.shape[2], x.shape[3], rate, code)
        picture = weighed(self.synthesise(decoded, rate), weight)
        log_prob = self.likelihood(picture, rate).log_prob(x)
        return Evidence(
            log_likelihood={"pixels": log_prob.unflatten(0, (samples, -1))},
            latents=latents,
            joint=not self.training,
        )

    def _latent(
        self,
        name: str,
        value: Tensor,
        centre: Tensor,
        mean: Tensor,
        scale: Tensor,
        weight: Tensor | None,
        samples: int,
    ) -> Latent:
        shaped = [
            weighed(each.expand_as(centre), weight).unflatten(0, (samples, -1))
            for each in (value, mean, scale)
        ]
        posterior = UnitUniform(centre.unflatten(0, (samples, -1)).detach(), event_dims=3)
        prior = UniformConvolvedNormal(shaped[1], shaped[2], event_dims=3)
        return Latent(name, shaped[0], posterior, prior)

    def freeze(self, examples: Images) -> Frozen:
        """Return what files are written and read with; the examples show its ranges."""
        from domains.compression.model.freezing import freeze

        return freeze(self, examples)


def padded(
    pixels: UInt8[Tensor, "colour height width"], stride: int
) -> UInt8[Tensor, "colour padded_height padded_width"]:
    """Repeat the last row and column until both sides are multiples of a stride."""
    _, height, width = pixels.shape
    rows = torch.arange(-(-height // stride) * stride).clamp(max=height - 1)
    columns = torch.arange(-(-width // stride) * stride).clamp(max=width - 1)
    return pixels[:, rows][:, :, columns]


def weighed(value: Tensor, weight: Float[Tensor, " batch"] | None) -> Tensor:
    """Return the value itself, whose gradient counts ``weight`` times for each example."""
    if weight is None:
        return value
    return _Weighed.apply(value, weight.view(-1, *[1] * (value.dim() - 1)))  # pyright: ignore[reportReturnType]


class _Weighed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, value: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return gradients[0] * weight, None
