"""A frozen model for tests that needs no training: means of blocks, through the range coder."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from domains.compression.config import Rates
from domains.compression.model.coder import Decoder, Encoder, Tables
from domains.compression.model.errors import CorruptBitstream
from domains.compression.model.frozen import Coded, Frozen, Halo, Latents, Provenance

TABLES = Tables.gaussian()
COARSE, FINE = 40, 24  # tables


class BlockMeans(Frozen):
    """Means of 16 x 16 in whole grey levels, what means of 8 x 8 differ by in steps, a blur.

    Both transforms look 1 pixel beyond what they are asked for. The lower the rate, the larger
    the steps: index 0 has 40 grey levels, 252 one.
    """

    def __init__(self, identity: bytes = b"blockmns") -> None:
        self.kind, self.rates, self.stride, self.halo = "toy", Rates(), 16, 16
        self.levels, self.identity = ("coarse", "fine"), identity
        self.provenance = Provenance()
        self.read: list[tuple[int, int]] = []  # sizes of what was decoded

    def encode(
        self, pixels: Tensor, rate: int, effort: int = 0, halo: Halo | None = None
    ) -> Coded:
        assert pixels.dtype == torch.uint8
        assert pixels.shape[1] % 16 == 0
        assert pixels.shape[2] % 16 == 0
        around = halo or Halo()
        _, height, width = pixels.shape
        seen = _blur(pixels.double())
        inner = seen[:, around.top : height - around.bottom, around.left : width - around.right]
        coarse = F.avg_pool2d(inner, 16).round().int()
        rest = F.avg_pool2d(inner, 8) - coarse.repeat_interleave(2, 1).repeat_interleave(2, 2)
        fine = (rest / _step(rate)).round().int()
        encoder, bits = Encoder(TABLES), {}
        maps = torch.zeros(fine.shape[1:], dtype=torch.float64)
        for name, symbols, table in (("coarse", coarse - 128, COARSE), ("fine", fine, FINE)):
            index = np.full(tuple(symbols.shape), table)
            encoder.put(symbols.numpy(), index)
            cost = torch.from_numpy(TABLES.code_length_bits(symbols.numpy(), index))
            bits[name] = float(cost.sum())
            more = fine.shape[1] // symbols.shape[1]
            maps += cost.sum(0).repeat_interleave(more, 0).repeat_interleave(more, 1) / more**2
        return Coded(
            payload=encoder.finish(),
            latents={"coarse": coarse, "fine": fine},
            bits=bits,
            rate_map=maps,
        )

    def decode(
        self, payload: bytes, height: int, width: int, rate: int, level: int | None = None
    ) -> Latents:
        self.read.append((height, width))
        decoder = Decoder(TABLES, payload)
        coarse = decoder.take(np.full((3, height // 16, width // 16), COARSE)) + 128
        fine = np.zeros((3, height // 8, width // 8), np.int32)
        if level != 1:
            fine = decoder.take(np.full(fine.shape, FINE))
            decoder.finish()
        if np.abs(coarse).max() > 1000:
            raise CorruptBitstream("stream", "no grey levels")
        return {"coarse": torch.from_numpy(coarse), "fine": torch.from_numpy(fine)}

    def render(self, latents: Latents, rate: int) -> Tensor:
        coarse = latents["coarse"].double().repeat_interleave(2, 1).repeat_interleave(2, 2)
        means = coarse + latents["fine"].double() * _step(rate)
        picture = means.repeat_interleave(8, 1).repeat_interleave(8, 2)
        return _blur(picture).round().clamp(0, 255).to(torch.uint8)

    def to(self, device: torch.device | str) -> BlockMeans:
        return self

    def state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        return {}, {}


def photograph(height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth colours with some noise."""
    draw = torch.Generator().manual_seed(seed)
    size = (height // 24 + 2, width // 24 + 2)
    coarse = torch.rand(1, 3, *size, generator=draw, dtype=torch.float64)
    smooth = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)[0]
    noise = torch.randn(smooth.shape, generator=draw, dtype=torch.float64) * 0.03
    return ((smooth + noise) * 255).round().clamp(0, 255).to(torch.uint8)


def _step(rate: int) -> float:
    return 40.0 ** (1 - rate / 252)


def _blur(picture: Tensor) -> Tensor:
    """Means of 3 x 3, weighed; sums of integers over 16, so exact in any order."""
    padded = F.pad(picture[None], (1, 1, 1, 1), mode="replicate")[0]
    across = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    return (across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]) / 16
