"""RecurrentVarNet as a reconstruction: warm start, maps, output and uncertainty around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from domains.mri.data.fourier import ifft2, root_sum_of_squares
from domains.mri.model.base import Estimate, ReadyScan, Reconstruction, ScaleHead, magnitude
from domains.mri.model.classical import cg_sense
from domains.mri.model.maps import Method
from domains.mri.model.recurrent_varnet import MapRefiner, RecurrentVarNet, Steps, looking

START_WEIGHT, START_ITERATIONS = 1e-2, 8


class RVN(Reconstruction):
    """RecurrentVarNet from a start, through maps, to magnitudes with scales.

    Args:
        network: The unrolled network.
        refiner: Of the maps, or None.
        hidden: Channels of the network's state.
        start: ``"cg-sense"`` solves the least squares a few steps, ``"zero-filled"`` is the
            measured k-space itself.
        output: ``"sense"`` sees the last k-space through the maps, ``"rss"`` is the root sum of
            squares over coils; must be what the target is.
        map_method: How maps are made.
        absolute: See `Reconstruction`.
        squared: See `Reconstruction`.
        similarity: See `Reconstruction`.
    """

    def __init__(
        self,
        network: RecurrentVarNet,
        refiner: MapRefiner | None,
        hidden: int,
        start: Literal["cg-sense", "zero-filled"],
        output: Literal["sense", "rss"],
        map_method: Method,
        absolute: float,
        squared: float,
        similarity: float,
    ) -> None:
        super().__init__(map_method, absolute, squared, similarity)
        self.network, self.refiner = network, refiner
        self.start, self.output = start, output
        self.head = ScaleHead(hidden + 3)

    def forward(self, scan: ReadyScan) -> Estimate:
        """Return the estimate of a scan."""
        maps = scan.maps if self.refiner is None else self.refiner(scan.maps)
        steps = self.network(scan.kspace, scan.mask, maps, self._start(scan, maps))
        picture = self._magnitude(steps.kspace[-1], maps)
        with torch.no_grad():
            iterates = [self._magnitude(each, maps) for each in steps.kspace[:-1]]
        scale = self.head(self._known(steps, scan, picture, iterates))
        return Estimate(picture, scale, (*iterates, picture), maps)

    def _start(self, scan: ReadyScan, maps: Tensor) -> Tensor | None:
        if self.start == "zero-filled":
            return None
        return cg_sense(scan.kspace, maps, scan.mask, START_WEIGHT, START_ITERATIONS)

    def _magnitude(self, kspace: Tensor, maps: Tensor) -> Tensor:
        if self.output == "sense":
            return magnitude(looking(maps).adjoint(kspace))
        pictures = ifft2(kspace)
        return torch.view_as_real(pictures).square().sum((1, -1)).add(1e-12).sqrt()

    def _known(
        self, steps: Steps, scan: ReadyScan, picture: Tensor, iterates: Sequence[Tensor]
    ) -> Tensor:
        """The state, the picture, its last change, and what the data still contradicts."""
        assert steps.state is not None
        missed = torch.where(scan.mask[:, None], steps.kspace[-1] - scan.kspace, 0)
        left = root_sum_of_squares(ifft2(missed))
        own = torch.stack((picture, (picture - iterates[-1]).abs(), left), 1)
        return torch.cat((steps.state[-1], own), 1)
