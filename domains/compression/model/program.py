r"""The prior as a program: which latent groups are coded in which order, given which others.

A decoder runs it too, and must come to the same numbers to the last bit. Its networks are
therefore made of little: affine maps of single positions or of 3 x 3 neighbourhoods, rectifiers,
and moving channels into space. `domains.compression.model.integers` runs the same program in
integers.

A coded group's value is in coefficients: the latents of the quantiser with the gain of its rate
taken off, so that networks need not learn the scale of rates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from domains.compression.model.rates import place

SCALES = 64
SMALLEST, LARGEST = 0.11, 64.0
LOG_STEP = math.log(LARGEST / SMALLEST) / (SCALES - 1)
UNIT = math.log(1 / SMALLEST) / LOG_STEP  # the index of a standard deviation of 1


@dataclass(frozen=True)
class Step:
    """One step of the program.

    Args:
        name: What its result is called.
        channels: Of the result.
        stride: Pixels between two of its positions.
        reads: Names of earlier results that its network reads, side by side; ``"rate"`` is a plane
            that holds the rate's place between -1 and 1. A step that reads nothing has constants.
        coded: Whether the result is a group of latents, which the network gives a mean and a scale
            for; else it is what the network says.
    """

    name: str
    channels: int
    stride: int
    reads: tuple[str, ...] = ()
    coded: bool = True


class Affine(nn.Module):
    """An affine map of each position, or of its 3 x 3 neighbourhood with zeros around.

    Args:
        inputs: Channels.
        outputs: Channels.
        kernel: 1 or 3.
        unit: What one of each output is in the parameters' own units, so that outputs of large
            numbers are learned as fast as those of small ones; 1 if not given.
    """

    unit: Tensor | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        unit: Float[Tensor, " output"] | None = None,
    ) -> None:
        super().__init__()
        self.kernel = kernel
        made = nn.Conv2d(inputs, outputs, kernel)  # its way of starting
        assert made.bias is not None
        self.own_weight, self.own_bias = made.weight, made.bias
        self.register_buffer("unit", unit, persistent=False)

    @property
    def weight(self) -> Float[Tensor, "output input row column"]:
        """What multiplies; not to be written to, see `hold`."""
        unit = self.unit
        return self.own_weight if unit is None else self.own_weight * unit.view(-1, 1, 1, 1)

    @property
    def bias(self) -> Float[Tensor, " output"]:
        """What is added; not to be written to, see `hold`."""
        return self.own_bias if self.unit is None else self.own_bias * self.unit

    @torch.no_grad()
    def hold(self, weight: Tensor, bias: Tensor) -> None:
        """Take these in place of its own."""
        unit = torch.ones_like(bias) if self.unit is None else self.unit.to(bias)
        self.own_weight.copy_(weight / unit.view(-1, 1, 1, 1))
        self.own_bias.copy_(bias / unit)

    def forward(self, x: Float[Tensor, "batch c height width"]) -> Tensor:
        """Apply it."""
        if self.kernel == 1:
            # oneDNN's 1 x 1 convolutions are several times slower on a CPU than this product.
            rows = F.linear(x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias)
            return rows.permute(0, 3, 1, 2)
        return F.conv2d(x, self.weight, self.bias, padding=1)


class Network(nn.Module):
    """Affine maps with rectifiers between, then channels moved into space.

    Args:
        inputs: Channels read.
        hidden: Units of each hidden layer.
        outputs: Channels of the result.
        kernels: 1 or 3 for each layer, one more than hidden layers.
        up: By how much the result is finer than what is read.
        unit: Of the last layer, see `Affine`.
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        kernels: Sequence[int],
        up: int = 1,
        unit: Float[Tensor, " output"] | None = None,
    ) -> None:
        super().__init__()
        sizes = list(pairwise([inputs, *hidden, outputs * up * up]))
        units = [*[None] * len(hidden), unit]
        self.layers = nn.ModuleList(
            Affine(*size, kernel, unit)
            for size, kernel, unit in zip(sizes, kernels, units, strict=True)
        )
        self.up = up

    @property
    def last(self) -> Affine:
        """The layer that says the result."""
        layer = self.layers[-1]
        assert isinstance(layer, Affine)
        return layer

    def forward(self, x: Float[Tensor, "batch c height width"]) -> Tensor:
        """Apply it."""
        for index, layer in enumerate(self.layers):
            x = layer(x if index == 0 else F.relu(x))
        return F.pixel_shuffle(x, self.up) if self.up > 1 else x


def shrunk(layer: Affine, factor: float = 0.02) -> Affine:
    """Return the layer, its output made small: all but absent, yet with a gradient."""
    layer.hold(layer.weight * factor, torch.zeros_like(layer.bias))
    return layer


def scale_units(channels: int) -> Float[Tensor, " output"]:
    """Return the units of means, 1, and of scale indices: those of a natural logarithm."""
    return torch.cat([torch.ones(channels), torch.full((channels,), 1 / LOG_STEP)])


def predicting(inputs: int, hidden: Sequence[int], channels: int) -> Network:
    """Return a network whose means start near 0 and whose scales start near 1."""
    kernels = (1,) * (len(hidden) + 1)
    network = Network(inputs, hidden, 2 * channels, kernels, unit=scale_units(channels))
    last = shrunk(network.last, 0.1)
    last.hold(last.weight, torch.cat([torch.zeros(channels), torch.full((channels,), UNIT)]))
    return network


Code = Callable[[Step, Tensor, Tensor], Tensor]


class Program(nn.Module):
    """The steps, and the network or the constants of each.

    Args:
        steps: In coding order.
        networks: Of each step that reads something, by its name: ``channels`` outputs for a
            feature, ``2 * channels`` for a coded group (means, then scales).
    """

    def __init__(self, steps: Sequence[Step], networks: Mapping[str, Network]) -> None:
        super().__init__()
        self.steps = tuple(steps)
        self.networks = nn.ModuleDict(dict(networks))
        self.own_constants = nn.ParameterDict(
            {
                step.name: torch.cat(
                    [torch.zeros(step.channels), torch.full((step.channels,), UNIT * LOG_STEP)]
                )
                for step in steps
                if not step.reads
            }
        )

    @property
    def constants(self) -> dict[str, Float[Tensor, " twice_channel"]]:
        """Means and scale indices of the groups that read nothing; see `hold_constants`."""
        return {
            name: own * scale_units(len(own) // 2).to(own)
            for name, own in self.own_constants.items()
        }

    @torch.no_grad()
    def hold_constants(self, name: str, value: Float[Tensor, " twice_channel"]) -> None:
        """Take these in place of a group's own."""
        own = self.own_constants[name]
        own.copy_(value / scale_units(len(own) // 2).to(value))

    @property
    def groups(self) -> tuple[Step, ...]:
        """The coded groups, in order."""
        return tuple(step for step in self.steps if step.coded)

    def forward(
        self, height: int, width: int, rate: Int64[Tensor, " batch"], code: Code
    ) -> dict[str, Tensor]:
        """Run it.

        Args:
            height: Of the picture in pixels, a multiple of every stride.
            width: Likewise.
            rate: Index of each picture.
            code: From a coded group, its means and its scales to its value, all in coefficients,
                of shape ``(batch, channel, height, width)``. A scale is an index: the standard
                deviation is ``SMALLEST * exp(LOG_STEP * index)``.

        Returns:
            The value of every step by name.
        """
        results: dict[str, Tensor] = {}
        for step in self.steps:
            grid = (height // step.stride, width // step.stride)
            said = self._said(step, grid, rate, results)
            results[step.name] = code(step, *said.chunk(2, 1)) if step.coded else said
        return results

    def _said(
        self, step: Step, grid: tuple[int, int], rate: Tensor, results: Mapping[str, Tensor]
    ) -> Tensor:
        if not step.reads:
            constants = self.constants[step.name]
            return constants.view(1, -1, 1, 1).expand(len(rate), -1, *grid)
        network = self.networks[step.name]
        assert isinstance(network, Network)
        size = (grid[0] // network.up, grid[1] // network.up)
        plane = place(rate).view(-1, 1, 1, 1).expand(-1, 1, *size)
        read = [plane if name == "rate" else results[name] for name in step.reads]
        return network(torch.cat(read, 1))


def scale_of(index: Tensor) -> Tensor:
    """Return the standard deviation that a scale index stands for, within those of the tables.

    The gradient passes where it would lead an index back.
    """
    bounded: Any = _Bounded.apply(index)
    return SMALLEST * torch.exp(LOG_STEP * bounded)


class _Bounded(torch.autograd.Function):
    """Between the first index and the last; the gradient passes where it leads back."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        ctx.save_for_backward(value)
        return value.clamp(0, SCALES - 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (value,), (gradient,) = ctx.saved_tensors, gradients
        stuck = ((value < 0) & (gradient > 0)) | ((value > SCALES - 1) & (gradient < 0))
        return gradient.masked_fill(stuck, 0.0)
