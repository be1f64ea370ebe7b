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
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int = 1) -> None:
        super().__init__()
        self.kernel = kernel
        made = nn.Conv2d(inputs, outputs, kernel)  # its way of starting
        self.weight, self.bias = made.weight, nn.Parameter(made.bias.data)  # pyright: ignore

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
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        kernels: Sequence[int],
        up: int = 1,
    ) -> None:
        super().__init__()
        sizes = [inputs, *hidden, outputs * up * up]
        self.layers = nn.ModuleList(
            Affine(a, b, kernel) for (a, b), kernel in zip(pairwise(sizes), kernels, strict=True)
        )
        self.up = up

    def forward(self, x: Float[Tensor, "batch c height width"]) -> Tensor:
        """Apply it."""
        for index, layer in enumerate(self.layers):
            x = layer(x if index == 0 else F.relu(x))
        return F.pixel_shuffle(x, self.up) if self.up > 1 else x


def shrunk(layer: Affine, factor: float = 0.02) -> Affine:
    """Return the layer, its output made small: all but absent, yet with a gradient."""
    with torch.no_grad():
        layer.weight.mul_(factor)
        layer.bias.zero_()
    return layer


def predicting(inputs: int, hidden: Sequence[int], channels: int) -> Network:
    """Return a network whose means start near 0 and whose scales start near 1."""
    network = Network(inputs, hidden, 2 * channels, (1,) * (len(hidden) + 1))
    last = network.layers[-1]
    assert isinstance(last, Affine)
    shrunk(last, 0.1)
    with torch.no_grad():
        last.bias[channels:] = UNIT
        last.weight[channels:] *= 10
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
        self.constants = nn.ParameterDict(
            {
                step.name: torch.cat(
                    [torch.zeros(step.channels), torch.full((step.channels,), UNIT)]
                )
                for step in steps
                if not step.reads
            }
        )

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
    """Return the standard deviation that a scale index stands for, never below the smallest.

    The gradient passes where it would raise a scale that is below.
    """
    return SMALLEST * torch.exp(LOG_STEP * _at_least_zero(index))


def _at_least_zero(index: Tensor) -> Tensor:
    return _LowerBound.apply(index)  # pyright: ignore[reportReturnType]


class _LowerBound(torch.autograd.Function):
    """Not below zero; the gradient passes where it leads back."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, value: Tensor) -> Tensor:
        ctx.save_for_backward(value)
        return value.clamp(min=0)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        (value,) = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        return torch.where((value >= 0) | (gradient < 0), gradient, 0.0)
