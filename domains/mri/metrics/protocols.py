"""The two conventions of the field, each number with its data range and target in words.

On the same pictures they differ by several hundredths of SSIM, so a number without its convention
can't be compared with one from elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from domains.mri.metrics import quality

Pictures = Float[Tensor, "slice height width"]
Mask = Bool[Tensor, "slice height width"] | None
Array = NDArray[np.float64]
Target = Literal["noise-free", "full-data"]

TARGETS: Mapping[Target, str] = {
    "noise-free": "magnitude of the noise-free picture",
    "full-data": "root sum of squares of the fully sampled, noisy k-space",
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How pictures are scaled and compared, in words.

    Args:
        name: Of the challenge that has it.
        scaling: What pictures are divided by.
        data_range: Of PSNR and SSIM.
        unit: What one value is of.
        pooling: How values become one number.
        crop: Height and width of the middle that is compared, if not all.
    """

    name: str
    scaling: str
    data_range: str
    unit: Literal["slice", "volume"]
    pooling: str
    crop: tuple[int, int] | None = None

    @property
    def words(self) -> str:
        """All of it in one line."""
        cropped = f"; middle {self.crop[0]} x {self.crop[1]}" if self.crop else ""
        return (
            f"{self.name}: {self.scaling}; data range: {self.data_range}; {self.pooling}{cropped}"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """Values of each measure, with what they mean.

    Measures whose windows don't fit into the pictures are missing: SSIM below 7 pixels a side,
    VIF below 41.

    Args:
        protocol: How they were taken.
        target: What pictures were compared with, in words.
        values: By the names of `quality.BETTER`, one for each slice or volume.
        kept: Which slices or volumes have values, of all that were given; the target of the others
            is blank, or the mask empty.
        masked: Whether errors were taken in a mask only.
    """

    protocol: Protocol
    target: str
    values: Mapping[str, Array]
    kept: NDArray[np.bool_]
    masked: bool

    def __len__(self) -> int:
        """Slices or volumes that have values."""
        return int(self.kept.sum())

    @property
    def left_out(self) -> int:
        """Slices or volumes that have none."""
        return len(self.kept) - len(self)

    @property
    def words(self) -> str:
        """The protocol, the target, the mask and what was left out, in one line."""
        where = "inside the mask" if self.masked else "whole picture"
        out = f"; {self.left_out} blank left out" if self.left_out else ""
        count = f"{len(self)} {self.protocol.unit}{'' if len(self) == 1 else 's'}"
        return f"{self.protocol.words}; target: {self.target}; {where}; {count}{out}"

    def mean(self, name: str) -> float:
        """Return the mean of a measure.

        Raises:
            ValueError: If no slice or volume has a value.
        """
        if not len(self):
            raise ValueError(f"{name}: no {self.protocol.unit} to average; {self.words}")
        return float(self.values[name].mean())

    def text(self) -> str:
        """Return a line for the convention and one for each measure."""
        lines = [self.words]
        for name in self.values if len(self) else ():
            unit = quality.UNITS.get(name, "")
            lines.append(f"  {name.removesuffix('_db')} {self.mean(name):.4f} {unit}".rstrip())
        return "\n".join(lines)


CALGARY_CAMPINAS = Protocol(
    name="Calgary-Campinas",
    scaling=f"each slice over the maximum of its target (VIF: noise {quality.SIGMA_NSQ})",
    data_range="least to largest value of picture and target together, of each slice",
    unit="slice",
    pooling="mean over slices",
)
FASTMRI = Protocol(
    name="fastMRI",
    scaling=f"volume over the maximum of its target (VIF: noise {quality.SIGMA_NSQ})",
    data_range="maximum of the target volume",
    unit="volume",
    pooling="errors over the whole volume (SSIM and VIF: mean over its slices), mean over volumes",
)


def calgary_campinas(
    picture: Pictures, target: Pictures, kind: Target, mask: Mask = None
) -> Scores:
    """Score the slices of a volume as the Calgary-Campinas challenge does.

    NMSE, NRMSE and HFEN are no part of the challenge; they are taken slice by slice as well. The
    maximum and the data range are those of whole slices, with a mask too.

    References:
        Beauferris et al., "Multi-Coil MRI Reconstruction Challenge", Frontiers in Neuroscience
        16, 2022.

    Args:
        picture: Magnitudes.
        target: What they should be, in the same unit.
        kind: What the target is.
        mask: Where errors are taken; everywhere by default.

    Raises:
        ValueError: If shapes differ, or values aren't finite.
    """
    quality.check(picture, target, mask)
    kept = (target.amax((1, 2)) > 0) & quality.comparable(mask, _shape(target)).to(target.device)
    inside = None if mask is None else mask[kept]
    peak = target[kept].double().amax((1, 2), keepdim=True)
    x, y = picture[kept].double() / peak, target[kept].double() / peak
    if not len(x):
        return _scores(CALGARY_CAMPINAS, kind, _nothing(target), kept, mask)
    spread = torch.maximum(x, y).amax((1, 2)) - torch.minimum(x, y).amin((1, 2))
    values = {
        "psnr_db": quality.psnr(x, y, spread, inside),
        "nmse": quality.nmse(x, y, inside),
        "nrmse": quality.nrmse(x, y, inside),
        "hfen": quality.hfen(x, y, inside),
    } | _structure(x, y, spread, inside)
    return _scores(CALGARY_CAMPINAS, kind, values, kept, mask)


def fastmri(
    picture: Pictures,
    target: Pictures,
    kind: Target,
    mask: Mask = None,
    crop: tuple[int, int] | None = None,
) -> Scores:
    """Score a volume as the fastMRI challenges do: one value of each measure.

    Blank slices count as the challenge has them, only a blank volume is left out. NRMSE, HFEN and
    VIF are no part of the challenge; the mean of VIF is over slices whose target isn't blank.

    References:
        Zbontar et al., "fastMRI: An Open Dataset and Benchmarks for Accelerated MRI", 2018
        (arXiv:1811.08839).

    Args:
        picture: Magnitudes.
        target: What they should be, in the same unit.
        kind: What the target is.
        mask: Where errors are taken; everywhere by default. Slices where it is empty count in no
            mean.
        crop: Height and width of the middle to compare: 320 x 320 of knees.

    Raises:
        ValueError: If shapes differ, values aren't finite, or pictures are smaller than the crop.
    """
    quality.check(picture, target, mask)
    protocol = FASTMRI if crop is None else replace(FASTMRI, crop=crop)
    if crop is not None:
        picture, target = centre_cropped(picture, crop), centre_cropped(target, crop)
        mask = None if mask is None else centre_cropped(mask, crop)
    kept = quality.comparable(mask, _shape(target)).to(target.device)
    peak, scored = target.double().max(), (target[kept] > 0).any().reshape(1)
    if not bool(scored):
        return _scores(protocol, kind, _nothing(target), scored, mask)
    x, y = picture[kept].double() / peak, target[kept].double() / peak
    inside = None if mask is None else mask[kept]
    everywhere = None if inside is None else _as_one(inside)
    whole = _as_one(x), _as_one(y)
    values = {
        "psnr_db": quality.psnr(*whole, 1.0, everywhere),
        "nmse": quality.nmse(*whole, everywhere),
        "nrmse": quality.nrmse(*whole, everywhere),
        "hfen": quality.nrmse(_as_one(quality.edges(x)), _as_one(quality.edges(y)), everywhere),
    }
    slices = _structure(x, y, 1.0, inside)
    values |= {name: each.mean(0, keepdim=True) for name, each in slices.items()}
    return _scores(protocol, kind, values, scored, mask)


PROTOCOLS: Mapping[str, Callable[..., Scores]] = {
    "calgary-campinas": calgary_campinas,
    "fastmri": fastmri,
}


def together(scores: Sequence[Scores]) -> Scores:
    """Return the scores of several volumes as one, in their order.

    Measures that only some have, because others were too small, are left out.

    Raises:
        ValueError: If there are none, or they were taken in different ways.
    """
    ways = {(each.protocol, each.target, each.masked) for each in scores}
    if len(ways) != 1:
        raise ValueError(f"scores taken in {len(ways)} ways; expected one protocol, target, mask")
    names = [name for name in scores[0].values if all(name in each.values for each in scores)]
    values = {name: np.concatenate([each.values[name] for each in scores]) for name in names}
    return replace(scores[0], values=values, kept=np.concatenate([each.kept for each in scores]))


def centre_cropped(picture: Tensor, crop: tuple[int, int]) -> Tensor:
    """Return the middle of pictures; of an odd rest the larger half is cut at the end.

    Raises:
        ValueError: If they are smaller than that.

    Example:
        >>> centre_cropped(torch.arange(5)[None, None], (1, 2)).tolist()
        [[[1, 2]]]
    """
    height, width = picture.shape[-2:]
    if not (0 < crop[0] <= height and 0 < crop[1] <= width):
        raise ValueError(
            f"crop of {crop[0]} x {crop[1]}; expected sides of 1 or more, and at most the "
            f"{height} x {width} of the pictures"
        )
    top, left = (height - crop[0]) // 2, (width - crop[1]) // 2
    return picture[..., top : top + crop[0], left : left + crop[1]]


def _as_one(volume: Tensor) -> Tensor:
    """Slices below one another, as a single picture."""
    return volume.flatten(0, 1)[None]


def _structure(
    x: Pictures, y: Pictures, data_range: Float[Tensor, " slice"] | float, mask: Mask
) -> dict[str, Tensor]:
    """The measures with windows, of each slice, as far as windows fit."""
    found, side = {}, min(x.shape[1:])
    if side >= quality.WINDOW:
        found["ssim"] = quality.ssim(x, y, data_range, mask)
    if side >= quality.SMALLEST_VIF:
        found["vif"] = quality.vif(x, y, mask)[y.amax((1, 2)) > 0]
    return found


def _nothing(target: Pictures) -> dict[str, Tensor]:
    """No value of each measure that pictures of this size would have."""
    least = {"ssim": quality.WINDOW, "vif": quality.SMALLEST_VIF}
    side = min(target.shape[1:])
    return {name: torch.zeros(0) for name in quality.BETTER if side >= least.get(name, 1)}


def _scores(
    protocol: Protocol, kind: Target, values: Mapping[str, Tensor], kept: Tensor, mask: Mask
) -> Scores:
    arrays = {name: values[name].cpu().numpy().astype(np.float64) for name in quality.BETTER
              if name in values}  # fmt: skip
    return Scores(
        protocol=protocol,
        target=TARGETS[kind],
        values=arrays,
        kept=kept.cpu().numpy(),
        masked=mask is not None,
    )


def _shape(picture: Tensor) -> tuple[int, int, int]:
    slices, height, width = picture.shape
    return slices, height, width
