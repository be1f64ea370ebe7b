"""Networks from rows to features of rows: each by itself, or with the rows around it."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn

from domains.series.data import Windows
from domains.series.model.interpolation import interpolate

KERNEL = 3


class RowNetwork(nn.Sequential):
    """A perceptron that sees each row by itself; with no layers what comes in.

    Args:
        inputs: Numbers of a row.
        hidden: Units of a layer.
        layers: How many.
    """

    def __init__(self, inputs: int, hidden: int, layers: int) -> None:
        sizes = [inputs, *[hidden] * layers]
        modules = [
            module
            for size, following in itertools.pairwise(sizes)
            for module in (nn.Linear(size, following), nn.SiLU())
        ]
        super().__init__(*modules)
        self.outputs = sizes[-1]


class RowEncoder(nn.Module):
    """Features of each row from its own values and from which of them are seen.

    Args:
        channels: Of the series.
        hidden: Units of a layer.
        layers: How many; with none the values and masks themselves.
    """

    def __init__(self, channels: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.network = RowNetwork(2 * channels, hidden, layers)
        self.outputs = self.network.outputs

    def forward(self, batch: Windows) -> Float[Tensor, "batch time feature"]:
        """Return the features; of a row that is not seen they say nothing."""
        seen = batch.seen.to(batch.values)
        return self.network(torch.cat([batch.values * seen, seen], -1))


class ConvolutionEncoder(nn.Module):
    """Features of each row from the rows around it, by convolutions that reach ever further.

    Layer :math:`l` looks :math:`2^l` rows to both sides, so that the reach doubles with each. It
    sees what is interpolated in time, which values are seen, and how far away those are.

    References:
        Bai, Kolter and Koltun, "An Empirical Evaluation of Generic Convolutional and Recurrent
        Networks for Sequence Modeling", 2018 (arXiv:1803.01271), for dilations; here both ways.

    Args:
        channels: Of the series.
        hidden: Channels of a layer.
        layers: How many.
    """

    def __init__(self, channels: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.first = nn.Linear(4 * channels, hidden)
        self.layers = nn.ModuleList(
            nn.Conv1d(hidden, hidden, KERNEL, padding=2**layer, dilation=2**layer)
            for layer in range(layers)
        )
        self.outputs = hidden

    def forward(self, batch: Windows) -> Float[Tensor, "batch time feature"]:
        """Return the features; padding changes none."""
        line, since, until = interpolate(batch.values, batch.seen, batch.times)
        parts = [line, batch.seen.to(line), since.log1p(), until.log1p()]
        there = batch.present.to(line).unsqueeze(1)
        features = self.first(torch.cat(parts, -1)).transpose(1, 2)
        for layer in self.layers:
            features = features + layer(nn.functional.silu(features) * there)
        return nn.functional.silu(features).transpose(1, 2)
