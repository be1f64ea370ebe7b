"""A small codec for tests: a fixed DCT, and a prior of small random networks that nobody trained.

Three coded groups: ``hyper`` of constants at stride 16, then ``low`` and ``high`` at stride 8,
which read what the feature ``context`` makes of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domains.compression.config import Rates
from domains.compression.data.records import Images
from domains.compression.model.base import TransformModel
from domains.compression.model.program import Affine, Network, Program, Step
from domains.compression.model.rates import Gain

LOW, HIGH, HYPER = 6, 18, 4


class ToyCodec(TransformModel):
    """Red, green and blue by the DCT of blocks of 8 x 8, of which 24 coefficients are kept.

    Args:
        rates: The scale of rates.
        wide: Whether it looks at its neighbours: a blur of 3 x 3 after the synthesis.
    """

    basis: Tensor

    def __init__(self, rates: Rates, wide: bool = False) -> None:
        kept = LOW + HIGH
        program = Program(
            [
                Step("hyper", HYPER, 16),
                Step("context", 12, 8, ("hyper",), coded=False),
                Step("low", LOW, 8, ("context", "rate")),
                Step("high", HIGH, 8, ("context", "rate", "low")),
            ],
            {
                "context": Network(HYPER, [16], 12, [3, 1], up=2),
                "low": Network(13, [24, 24], 2 * LOW, [1, 3, 1]),
                "high": Network(13 + LOW, [32], 2 * HIGH, [1, 1]),
            },
        )
        step = {"hyper": 40.0, "low": 20.0, "high": 20.0}
        sizes = {"hyper": HYPER, "low": LOW, "high": HIGH}
        gains = {n: Gain(torch.full((sizes[n],), 255 / step[n]), rates) for n in sizes}
        super().__init__(rates, 16, program, gains)
        self.register_buffer("basis", _basis()[:kept])
        self.wide = nn.Parameter(torch.tensor(0.1 if wide else 0.0))

    @property
    def halo(self) -> int:
        """Pixels that the transforms look at on each side."""
        return self.stride

    def analyse(self, pixels: Tensor, rate: Tensor) -> dict[str, Tensor]:
        """The DCT of each block, and how large its coefficients are on average over 16 x 16."""
        blocks = F.pixel_unshuffle(pixels - 0.5, 8)
        y = torch.einsum("kc,bchw->bkhw", self.basis, blocks)
        size = F.avg_pool2d(y.abs(), 2).sqrt()
        return {"y": y, "size": size.unflatten(1, (HYPER, -1)).mean(2) - 0.4}

    def coefficients(
        self, group: str, features: Mapping[str, Tensor], decoded: Mapping[str, Tensor]
    ) -> Tensor:
        """The coefficients themselves."""
        if group == "hyper":
            return features["size"]
        return features["y"][:, :LOW] if group == "low" else features["y"][:, LOW:]

    def synthesise(self, decoded: Mapping[str, Tensor], rate: Tensor) -> Tensor:
        """The inverse DCT, then a blur of the weight ``wide``."""
        y = torch.cat([decoded["low"], decoded["high"]], 1)
        picture = F.pixel_shuffle(torch.einsum("kc,bkhw->bchw", self.basis, y), 8) + 0.5
        around = F.avg_pool2d(F.pad(picture, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        return picture + self.wide * (around - picture)


def _basis() -> Tensor:
    """The orthonormal DCT of each colour, lowest frequencies first: rows of 3 x 64."""
    n = torch.arange(8)
    dct = torch.cos(math.pi / 8 * (n[None] + 0.5) * n[:, None]) / 2
    dct[0] /= math.sqrt(2)
    order = sorted(((u, v) for u in range(8) for v in range(8)), key=lambda f: (sum(f), f))
    planes = [torch.outer(dct[u], dct[v]).flatten() for u, v in order]
    return torch.stack([torch.kron(torch.eye(3)[c], plane) for plane in planes for c in range(3)])


def toy_codec(seed: int = 0, wide: bool = False) -> ToyCodec:
    """The codec with weights drawn from a seed, whose scales suit photographs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        codec = ToyCodec(Rates(), wide)
        with torch.no_grad():
            for name, network in codec.program.networks.items():
                assert isinstance(network, Network)
                last = network.layers[-1]
                assert isinstance(last, Affine)
                half = len(last.bias) // 2
                if name != "context":
                    # Standard deviations of a tenth to a fortieth: what coefficients vary by.
                    last.bias[half:] += 4.0 - 6.0 * torch.linspace(0, 1, half)
                    last.weight[half:] *= 6.0
    return codec.eval()


def toy_images(count: int = 2, side: int = 64, seed: int = 0) -> Images:
    """Smooth random pictures with edges and a little noise, at rates from all over the scale."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, side // 16 + 1, side // 16 + 1, generator=draw)
    smooth = F.interpolate(coarse, (side, side), mode="bilinear", align_corners=True)
    edge = (torch.rand(count, 3, 2, 2, generator=draw) - 0.5).repeat_interleave(side // 2, 2)
    noise = torch.randn(smooth.shape, generator=draw) * 0.02
    pixels = smooth + 0.4 * edge.repeat_interleave(side // 2, 3) + noise
    rate = torch.linspace(0, 252, count).long()
    return Images((pixels * 255).round().clamp(0, 255).to(torch.uint8), rate)
