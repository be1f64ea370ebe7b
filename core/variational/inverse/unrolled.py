"""Gradient descent on an energy, unrolled into a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.variational.inverse.fidelity import DataFidelity


@dataclass(frozen=True, eq=False)
class Trace:
    """The way an iterative solver went.

    Args:
        iterates: The start and the image after each step, of shape ``(*batch, *domain)`` each.
        energies: The data fidelity of each in nats, of shape ``(steps + 1, *batch)``; no gradient.
        state: What the regulariser carries after the last step.
    """

    iterates: Sequence[Tensor]
    energies: Tensor
    state: Any = None

    @property
    def x(self) -> Tensor:
        """The last iterate."""
        return self.iterates[-1]


class UnrolledSolver(nn.Module):
    r"""Steps down the data fidelity, each with a learned length and a learned correction.

    .. math:: x_{t+1} = x_t - \alpha_t \nabla D(x_t) + w_t(x_t, h_t)

    With no regularisers it is gradient descent, and lowers the energy at every step for
    :math:`0 < \alpha_t < 2 \sigma^2 / \|A\|^2`. The correction :math:`w_t` stands for
    :math:`\nabla \log p(x)` but need be no gradient of anything: of the result no density and no
    bound can be claimed.

    References:
        Adler and Öktem, "Learned Primal-Dual Reconstruction", IEEE TMI 37(6), 2018, for the
        learned gradient step. Yiasemis et al., "Recurrent Variational Network", CVPR 2022
        (arXiv:2111.09639), for the recurrent one.

    Args:
        steps: Number of steps.
        step_size: Where every :math:`\alpha_t` starts, in squared units of the image per nat.
        regularisers: One module for each step, or one for all, that takes ``(x, state)`` and
            returns the correction and the next state; ``state`` is None at first. Empty for none.

    Raises:
        ValueError: If there are no steps, or another number of regularisers.
    """

    def __init__(
        self, steps: int, step_size: float, regularisers: Sequence[nn.Module] = ()
    ) -> None:
        super().__init__()
        if steps < 1 or len(regularisers) not in (0, 1, steps):
            raise ValueError(
                f"UnrolledSolver: {steps} steps, {len(regularisers)} regularisers; there must be "
                "at least one step, and no regulariser, one, or one for each step"
            )
        if not math.isfinite(step_size):
            raise ValueError(f"UnrolledSolver: step_size {step_size!r} is not finite")
        self.step_sizes = nn.Parameter(torch.full((steps,), step_size))
        self.regularisers = nn.ModuleList(regularisers)

    def forward(
        self, fidelity: DataFidelity, start: Tensor | None = None, state: Any = None
    ) -> Trace:
        """Return the trace from ``start``, by default the back-projection of the measurement."""
        x = fidelity.back_projection() if start is None else start
        iterates, energies = [x], []
        for step, length in enumerate(self.step_sizes):
            energy, gradient = fidelity.energy_and_gradient(x)
            following = x - length * gradient
            if self.regularisers:
                regulariser = self.regularisers[step % len(self.regularisers)]
                correction, state = regulariser(x, state)
                following = following + correction
            x = following
            iterates.append(x)
            energies.append(energy.detach())
        with torch.no_grad():
            energies.append(fidelity(x))
        return Trace(iterates, torch.stack(energies), state)
