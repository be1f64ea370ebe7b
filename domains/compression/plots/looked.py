"""What the figures of a report are drawn from, each part made when the first asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from domains.compression import data
from domains.compression.config import Config
from domains.compression.data import Picture
from domains.compression.metrics import Point, classical, psnr, rd
from domains.compression.metrics.evaluation import CALIBRATION
from domains.compression.model import ImageModel, codec
from domains.compression.model.base import TransformModel
from domains.compression.model.codec import Encoded, Request
from domains.compression.model.frozen import Frozen
from domains.compression.model.proof import PROVED, Proof, middle, prove
from domains.compression.model.rates import index_of
from domains.compression.plots.crops import Shown
from domains.compression.plots.drawing import spread

QUALITIES = (0, 8, 16, 24, 32, 40, 48, 56, 63)
MIDDLE = 24  # quality that pictures are shown at: where codecs still differ to the eye
MOST_PICTURES = 4  # behind the bits of groups
MOST_SHOWN = 3
MOST_COMPARED = 3  # codecs beside the model

Named = tuple[str, Picture]


@dataclass(frozen=True, eq=False)
class Looked:
    """A trained model and the test pictures.

    Args:
        config: The settings.
        folder: Of prepared data.
        model: The trained model.
    """

    config: Config
    folder: Path
    model: ImageModel

    @cached_property
    def frozen(self) -> Frozen:
        """What the model's files are written with."""
        return self.model.freeze(data.examples(data.load(self.folder), CALIBRATION))

    @cached_property
    def pictures(self) -> list[Named]:
        """The test pictures, their colours only."""
        return [
            (name, Picture(pixels=picture.pixels, grey=picture.grey))
            for name, picture in data.test_pictures(self.config, self.folder)
        ]

    def some(self, most: int) -> list[Named]:
        """At most so many of the test pictures, from all over them."""
        return [self.pictures[place] for place in spread(len(self.pictures), most)]

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """Every test picture written by the model and by the baselines."""
        options = self.config.evaluation
        found = rd.measure(
            self.frozen, self.pictures, options.qualities, options.baselines, options.effort
        )
        return tuple(found)

    def encoded(self, picture: Picture, quality: int = MIDDLE) -> Encoded:
        """A picture written by the model."""
        return codec.encode(self.frozen, picture, Request(quality=quality))

    @cached_property
    def bits(self) -> dict[str, list[float]]:
        """Bits per pixel at each of `QUALITIES` by group, mean over some pictures."""
        pictures = [picture for _, picture in self.some(MOST_PICTURES)]
        found: dict[str, list[float]] = {}
        for quality in QUALITIES:
            shares = [_shares(self.encoded(picture, quality), picture) for picture in pictures]
            for name in shares[0]:
                found.setdefault(name, []).append(fmean(share[name] for share in shares))
        return found

    @cached_property
    def steps(self) -> dict[str, Tensor] | None:
        """The quantiser's step at each of `QUALITIES`, by group and channel.

        None of a model that has no such step.
        """
        if not isinstance(self.model, TransformModel):
            return None
        device = next(self.model.parameters()).device
        rates = torch.tensor([index_of(quality) for quality in QUALITIES], device=device)
        groups = [step.name for step in self.model.program.groups]
        with torch.no_grad():
            gains = {name: self.model.log_gain(name, rates)[:, :, 0, 0] for name in groups}
        return {name: (-gain).exp().cpu() for name, gain in gains.items()}

    @cached_property
    def proof(self) -> Proof:
        """What the settings of this machine make of each other's streams."""
        return prove(self.frozen, [middle(picture) for _, picture in self.pictures[:PROVED]])

    def side_by_side(self, named: Named) -> list[Shown]:
        """A picture by the model, and by each baseline at the size of file nearest to it."""
        _, picture = named
        own = self.encoded(picture)
        decoded = codec.decode(self.frozen, own.data)
        shown = [_shown(self.frozen.kind, picture, decoded.pixels, len(own.data))]
        for baseline in self.config.evaluation.baselines[:MOST_COMPARED]:
            written = classical.of_size(baseline, picture.pixels, len(own.data))
            pixels = classical.decode(baseline, written)
            shown.append(_shown(baseline, picture, pixels, len(written)))
        return shown


def _shares(encoded: Encoded, picture: Picture) -> Mapping[str, float]:
    pixels = picture.height * picture.width
    return {name: bits / pixels for name, bits in encoded.bits.items()}


def _shown(name: str, picture: Picture, pixels: Tensor, size: int) -> Shown:
    return Shown(
        codec=name,
        pixels=pixels,
        bpp=8 * size / (picture.height * picture.width),
        psnr_db=psnr(picture.pixels, pixels),
    )
