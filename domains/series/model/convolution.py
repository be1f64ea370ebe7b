"""Convolutions over time that reach twice as far with each layer: any length, at linear cost."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional


class TemporalConvolution(nn.Module):
    """A convolution that sees a row and one a few rows before and after it; zeros beyond the ends.

    As one matrix product of the three rows side by side, which on a CPU is faster than
    ``nn.Conv1d`` at these sizes and keeps channels last.

    Args:
        inputs: Numbers at each row.
        outputs: Numbers that it gives for each row.
        dilation: How many rows before and after.
    """

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.linear, self.dilation = nn.Linear(3 * inputs, outputs), dilation

    def forward(
        self, rows: Float[Tensor, "batch time feature"]
    ) -> Float[Tensor, "batch time output"]:
        """Return what it makes of each row."""
        time, far = rows.shape[1], self.dilation
        padded = functional.pad(rows, (0, 0, far, far))
        return self.linear(torch.cat([padded[:, :time], rows, padded[:, 2 * far :]], -1))


class ResidualConvolution(nn.Module):
    """A convolution added to what it saw; at first it adds nothing.

    Args:
        hidden: Numbers at each row.
        dilation: How many rows before and after it sees.
    """

    def __init__(self, hidden: int, dilation: int) -> None:
        super().__init__()
        self.normalise = nn.LayerNorm(hidden)
        self.convolution = TemporalConvolution(hidden, hidden, dilation)
        self.last = zeroed(nn.Linear(hidden, hidden))

    def forward(
        self,
        rows: Float[Tensor, "batch time feature"],
        present: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time feature"]:
        """Return the rows and what is added; padding looks like what is beyond the ends."""
        normal = self.normalise(rows)
        if present is not None:
            normal = normal * present.unsqueeze(-1)
        return rows + self.last(functional.gelu(self.convolution(normal)))


class Convolutions(nn.Module):
    r"""Residual convolutions with dilations 1, 2, 4, …: a row sees :math:`2^L - 1` around it.

    References:
        Bai et al., "An Empirical Evaluation of Generic Convolutional and Recurrent Networks for
        Sequence Modeling", 2018 (arXiv:1803.01271), for residual dilated convolutions; those are
        causal, these see both sides.

    Args:
        inputs: Numbers at each row.
        outputs: Numbers that it gives for each row.
        hidden: Numbers at each row in between.
        layers: How many convolutions :math:`L`.

    Example:
        >>> Convolutions(inputs=3, outputs=2, hidden=8, layers=4)(torch.zeros(5, 100, 3)).shape
        torch.Size([5, 100, 2])
    """

    def __init__(self, inputs: int, outputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.layers = nn.ModuleList(ResidualConvolution(hidden, 2**i) for i in range(layers))
        self.normalise, self.last = nn.LayerNorm(hidden), nn.Linear(hidden, outputs)

    def forward(
        self,
        steps: Float[Tensor, "batch time feature"],
        present: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time output"]:
        """Return what it makes of each row.

        Args:
            steps: The rows.
            present: False for padding, which no other row sees; None where there is none.
        """
        rows = self.first(steps)
        for layer in self.layers:
            rows = layer(rows, present)
        return self.last(self.normalise(rows))


def zeroed(layer: nn.Linear) -> nn.Linear:
    """Return a layer that gives 0 until it is trained."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
