"""Networks from rows to features of rows: each by itself, or with the rows around it."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn

from domains.series.data import Windows
from domains.series.model.convolution import Convolutions
from domains.series.model.interpolation import interpolate


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
    """Features of each row from the rows around it.

    Sees what is interpolated in time, which values are seen, and how far away those are.

    Args:
        channels: Of the series.
        hidden: Numbers of a row between the layers.
        layers: How many convolutions.
    """

    def __init__(self, channels: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.network = Convolutions(4 * channels, hidden, hidden, layers)
        self.outputs = hidden

    def forward(self, batch: Windows) -> Float[Tensor, "batch time feature"]:
        """Return the features; padding changes none."""
        line, since, until = interpolate(batch.values, batch.seen, batch.times)
        parts = [line, batch.seen.to(line), since.log1p(), until.log1p()]
        return self.network(torch.cat(parts, -1), batch.present)
