"""The network that makes the parameters of a layer from what the layer knows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

START = 0.1  # of the usual size of the last layer: flows start near the identity


class Conditioner(nn.Module):
    """A multilayer perceptron with rectified units; learned constants if nothing goes in.

    Args:
        inputs: How many numbers go in; 0 for none.
        hidden: Widths of the hidden layers.
        outputs: How many numbers come out.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        widths = [inputs, *(hidden if inputs else ())]
        layers = [nn.Linear(before, after) for before, after in itertools.pairwise(widths)]
        last = START * torch.randn(outputs, widths[-1]) / max(widths[-1], 1) ** 0.5
        # Not a Linear each: torch warns about one without inputs.
        self.weights = nn.ParameterList([*(layer.weight for layer in layers), last])
        self.biases = nn.ParameterList(
            [*(layer.bias for layer in layers), START * torch.randn(outputs)]
        )

    def forward(self, known: Tensor) -> Tensor:
        """Return the numbers for every vector of a batch."""
        return functional.linear(self._seen(known)[-1], self.weights[-1], self.biases[-1])

    def columns(self, known: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the numbers as columns, of shape ``(outputs, vectors)``, and the hidden units.

        Args:
            known: Of shape ``(vectors, inputs)``.
        """
        seen = self._seen(known)
        bias = self.biases[-1].unsqueeze(-1)
        return torch.addmm(bias, self.weights[-1], seen[-1].mT), seen[1:]

    def _seen(self, known: Tensor) -> list[Tensor]:
        """Return what goes into each layer."""
        seen = [known]
        # A slice of a ParameterList would be a new module each time.
        for weight, bias in itertools.islice(
            zip(self.weights, self.biases, strict=True), len(self.weights) - 1
        ):
            seen.append(torch.relu(functional.linear(seen[-1], weight, bias)))
        return seen

    @torch.no_grad()
    def pull(self, weights: Tensor, hidden: Sequence[Tensor], inputs: int) -> Tensor:
        """Return the gradient of a weighted sum of the columns by the first inputs.

        By hand, for a third of what ``torch.autograd.grad`` costs here: it needs no gradient of
        the parameters, nor of the inputs that are context.

        Args:
            weights: Of shape ``(outputs, vectors)``.
            hidden: What was hidden when the columns were made.
            inputs: How many of the inputs.
        """
        first, *others = self.weights
        gradient = weights.mT
        for weight, seen in zip(reversed(others), reversed(hidden), strict=True):
            gradient = (gradient @ weight) * (seen > 0)
        return gradient @ first[:, :inputs]
