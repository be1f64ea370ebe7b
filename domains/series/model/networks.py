"""Networks from windows to windows: all steps at once, or convolutions over time."""

from __future__ import annotations

import itertools

from jaxtyping import Float
from torch import Tensor, nn


class WindowMLP(nn.Module):
    """A perceptron that sees a window of fixed length as one vector.

    Args:
        time: Rows in a window.
        inputs: Numbers at each step.
        outputs: Numbers that it gives for each step.
        hidden: Units of a layer.
        layers: How many hidden layers.
    """

    def __init__(self, time: int, inputs: int, outputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.time = time
        sizes = [time * inputs, *[hidden] * layers]
        modules: list[nn.Module] = [nn.Flatten(1)]
        for size, following in itertools.pairwise(sizes):
            modules += [nn.Linear(size, following), nn.SiLU()]
        modules += [nn.Linear(sizes[-1], time * outputs), nn.Unflatten(1, (time, outputs))]
        self.layers = nn.Sequential(*modules)

    def forward(
        self, steps: Float[Tensor, "batch time feature"]
    ) -> Float[Tensor, "batch time output"]:
        """Return the features of each step.

        Raises:
            ValueError: If the window has another length.
        """
        if steps.shape[1] != self.time:
            raise ValueError(
                f"WindowMLP: a window of {steps.shape[1]} rows; this network sees {self.time}; "
                "set model.network to 'convolution' for others"
            )
        return self.layers(steps)


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return a perceptron of two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.SiLU(),
        nn.Linear(hidden, hidden),
        nn.SiLU(),
        nn.Linear(hidden, outputs),
    )
