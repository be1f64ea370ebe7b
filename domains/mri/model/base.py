"""What every learned reconstruction says of slices: a picture and how sure it is of each pixel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Complex64, Float, Float32
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Laplace

from core.variational.evidence import Evidence
from domains.mri.data.batches import Slices
from domains.mri.model.classical import scale_of
from domains.mri.model.maps import Method, calibration_box, maps
from domains.mri.model.similarity import ssim

WIDTH = 16  # channels of the head that says scales
FLOOR = 2e-3  # least scale of a pixel, in the unit of pictures: below it a background's is no news


@dataclass(frozen=True, eq=False)
class ReadyScan:
    """Slices made ready for a network: divided by their unit, with maps.

    Args:
        kspace: Of size about 1 as a picture.
        mask: Where it is sampled.
        maps: Sensitivities.
        unit: What it was divided by.
    """

    kspace: Complex64[Tensor, "batch coil height width"]
    mask: Bool[Tensor, "batch height width"]
    maps: Complex64[Tensor, "batch coil height width"]
    unit: Float32[Tensor, " batch"]


@dataclass(frozen=True, eq=False)
class Estimate:
    """A reconstruction, in the unit of the scan.

    Args:
        picture: Magnitude of each pixel.
        scale: Of the Laplace distribution of its error.
        iterates: Magnitudes of the start and of each step.
        maps: Sensitivities that were used in the end.
    """

    picture: Float32[Tensor, "batch height width"]
    scale: Float32[Tensor, "batch height width"]
    iterates: Sequence[Float32[Tensor, "batch height width"]] = field(default=())
    maps: Complex64[Tensor, "batch coil height width"] | None = None

    @property
    def distribution(self) -> Distribution:
        """Of the true magnitudes; one event is a picture."""
        return Independent(Laplace(self.picture, self.scale), 2)


class Reconstruction(nn.Module, ABC):
    """A module from a scan to an estimate, trained on pictures that are known.

    Args:
        map_method: How maps are made.
        absolute: Weight of the mean absolute error, over the mean of the truth.
        squared: Weight of the mean squared error, over the mean square of the truth.
        similarity: Weight of 1 - SSIM.
    """

    def __init__(
        self, map_method: Method, absolute: float, squared: float, similarity: float
    ) -> None:
        super().__init__()
        self.map_method: Method = map_method
        self.weights = {"absolute": absolute, "squared": squared, "similarity": similarity}

    @abstractmethod
    def forward(self, scan: ReadyScan) -> Estimate:
        """Return the estimate of a scan."""

    def ready(
        self,
        kspace: Complex64[Tensor, "batch coil height width"],
        mask: Bool[Tensor, "batch height width"],
        given: Complex64[Tensor, "batch coil height width"] | None = None,
    ) -> ReadyScan:
        """Return a scan in its own unit, with maps made of its middle or those given.

        Raises:
            TooFewLines: If the middle is too small for maps.
        """
        unit = scale_of(kspace)
        measured = kspace / unit[:, None, None, None]
        if given is None:
            boxes = [calibration_box(each) for each in mask]
            box = min(rows for rows, _ in boxes), min(columns for _, columns in boxes)
            given = maps(measured, box, self.map_method)
        return ReadyScan(measured, mask, given, unit)

    def evidence(self, batch: Slices, samples: int = 1) -> Evidence:
        r"""Return :math:`\log p(|x|)` of the true magnitudes, and what trains the picture.

        The likelihood trains the scale alone: its gradient on the picture would count sure pixels
        more. The picture is trained by errors and similarity, each times the number of pixels.

        References:
            Seitzer et al., "On the Pitfalls of Heteroscedastic Uncertainty Estimation", ICLR 2022
            (arXiv:2203.09168).
        """
        scan = self.ready(batch.kspace, batch.mask)
        estimate = self(scan)
        truth = batch.target / scan.unit[:, None, None]
        held = Estimate(estimate.picture.detach(), estimate.scale)
        # The density is that of the picture in the file's unit.
        jacobian = truth[0].numel() * scan.unit.log()
        log_likelihood = held.distribution.log_prob(truth) - jacobian
        return Evidence(
            log_likelihood={"picture": log_likelihood.expand(samples, -1)},
            penalties=self._errors(estimate.picture, truth),
        )

    def _errors(self, picture: Tensor, truth: Tensor) -> dict[str, Float[Tensor, " batch"]]:
        pixels, dims = truth[0].numel(), (-2, -1)
        tiny = 1e-6
        peak = truth.amax(dims).clamp(min=tiny)
        error = picture - truth
        found = {
            "absolute": error.abs().mean(dims) / truth.mean(dims).clamp(min=tiny),
            "squared": error.square().mean(dims) / truth.square().mean(dims).clamp(min=tiny),
            "similarity": 1 - ssim(picture, truth, peak),
        }
        return {
            name: pixels * self.weights[name] * each
            for name, each in found.items()
            if self.weights[name]
        }


class ScaleHead(nn.Module):
    """Say how far each pixel may be off, of what a network knows at its end.

    Args:
        features: Channels that it sees.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(features, WIDTH, 3, padding=1, padding_mode="replicate"),
            nn.LeakyReLU(0.1),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, padding_mode="replicate"),
            nn.LeakyReLU(0.1),
            nn.Conv2d(WIDTH, 1, 1),
        )
        last = self.layers[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, -3.5)

    def forward(
        self, features: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch height width"]:
        """Return scales in the unit of pictures; no gradient reaches the features."""
        return FLOOR + self.layers(features.detach())[:, 0].clamp(-12, 4).exp()


def magnitude(
    picture: Complex64[Tensor, "batch height width"],
) -> Float32[Tensor, "batch height width"]:
    """Return the size of each pixel, with a gradient at 0."""
    return torch.view_as_real(picture).square().sum(-1).add(1e-12).sqrt()
