r"""McQuic: multi-codebook vector quantisation in a cascade of levels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from core.variational.evidence import Evidence
from domains.compression.config import MCQ, Rates
from domains.compression.data.records import Images
from domains.compression.model.base import ImageModel, weighed
from domains.compression.model.cascade import BANDS, SEEN, Cascade, principal
from domains.compression.model.dct import Filter
from domains.compression.model.program import Affine
from domains.compression.model.rates import INDICES, noise_scale, place
from domains.compression.model.transforms import SIDE, Branch, beside, block_dct


def band_of(rate):
    return rate * BANDS // INDICES


class McQuic(ImageModel):
    def __init__(self, options: MCQ, rates: Rates) -> None:
        levels = len(options.codes)
        super().__init__(rates, SIDE * 2**levels)
        C, E, W = options.channels, options.coarse, options.width
        self.count = levels
        self.commitment = options.commitment
        pixels = 3 * SIDE**2
        self.analysis, self.synthesis = Affine(pixels, C), Affine(C, pixels)
        self.before = Branch(pixels + 1, W, C, options.blocks)
        self.after = Branch(C + 1, W, pixels, options.blocks)
        self.filter = Filter(options.filter)
        sizes = [4 * C] + [4 * E] * (levels - 1)
        self.down = nn.ModuleList(Affine(s, E) for s in sizes[:-1])
        self.down_branch = nn.ModuleList(Branch(s + 1, W, E, options.blocks) for s in sizes[:-1])
        self.up = nn.ModuleList(Affine(E, s) for s in sizes[:-1])
        self.up_branch = nn.ModuleList(Branch(E + 1, W, s, options.blocks) for s in sizes[:-1])
        self.mean = nn.Parameter(torch.zeros(sizes[-1]))
        self.cascades = nn.ModuleList(
            Cascade(g, k, options.dimensions, s)
            for g, k, s in zip(options.groups, options.codes, sizes, strict=True)
        )
        rows = block_dct(C)
        with torch.no_grad():
            self.analysis.weight.copy_(rows[:, :, None, None])
            self.synthesis.weight.copy_(rows.T[:, :, None, None])
            self.analysis.bias.zero_()
            self.synthesis.bias.zero_()

    def analyse(self, x, rate):
        blocks = F.pixel_unshuffle(x - 0.5, SIDE)
        f = self.analysis(blocks) + self.before(beside(blocks, place(rate)))
        features = [F.pixel_unshuffle(f, 2)]
        for down, branch in zip(self.down, self.down_branch, strict=True):
            x = features[-1]
            features.append(F.pixel_unshuffle(down(x) + branch(beside(x, place(rate))), 2))
        return features

    def expected(self, level, coarser, rate, like=None):
        if coarser is None:
            return self.mean.view(1, -1, 1, 1).expand(like)
        y = F.pixel_shuffle(coarser, 2)
        return self.up[level](y) + self.up_branch[level](beside(y, place(rate)))

    def synthesise(self, finest, rate):
        f = F.pixel_shuffle(finest, 2)
        blocks = self.synthesis(f) + self.after(beside(f, place(rate)))
        return self.filter(F.pixel_shuffle(blocks, SIDE), rate) + 0.5

    @torch.no_grad()
    def start(self, examples: Images) -> None:
        was = self.training
        self.eval()
        n = len(examples)
        rate = torch.linspace(0, INDICES - 1, n).round().long()
        x = examples.pixels.float() / 255 - 0.5
        f = self.analysis(F.pixel_unshuffle(x, SIDE))
        features = [F.pixel_unshuffle(f, 2)]
        for level, (down, up) in enumerate(zip(self.down, self.up, strict=True)):
            y = features[-1]
            rows = y.permute(0, 2, 3, 1).flatten(0, 2)
            P = principal(rows, down.weight.shape[0])
            down.weight.copy_(P[:, :, None, None])
            down.bias.zero_()
            up.weight.copy_(P.T[:, :, None, None])
            up.bias.zero_()
            features.append(F.pixel_unshuffle(down(y), 2))
        self.mean.copy_(features[-1].mean((0, 2, 3)))
        weight = 0.5 / noise_scale(rate, self.rates).square()
        before = history(None, features[-1])
        value = None
        for level in reversed(range(self.count)):
            cascade = self.cascades[level]
            y = features[level]
            p = (
                self.mean.view(1, -1, 1, 1)
                if value is None
                else self.up[level](F.pixel_shuffle(value, 2))
            )
            coded = cascade.start(y - p, weight, band_of(rate), before)
            codes = cascade(y - p, weight, band_of(rate), before).codes
            before = history(codes, None)
            value = p + coded
        self.train(was)

    def code(self, x, rate, inside=None):
        features = self.analyse(x, rate)
        weight = 0.5 / noise_scale(rate, self.rates).square()
        band = band_of(rate)
        out, value, before = {}, None, None
        commitment = 0
        for level in reversed(range(self.count)):
            y = features[level]
            p = self.expected(level, value, rate, y.shape)
            before = history(None, y) if before is None else before
            c = self.cascades[level](y.detach() - p.detach(), weight, band, before)
            v, r = c.value, y - p
            share = (
                ((v * r).sum((2, 3), True) / r.square().sum((2, 3), True).clamp(min=1e-9))
                .clamp(0, 1)
                .detach()
            )
            value = p + v + share * (r - r.detach())
            far = (y.detach() - p - v).square() + self.commitment * (y - p.detach() - v).square()
            commitment = commitment + weight * far.flatten(1).sum(1)
            out[f"level{level + 1}"] = (c.codes, self.cascades[level].nats(c.codes, band, before))
            before = history(c.codes, None)
        return out, value, commitment

    def evidence(self, batch: Images, samples: int = 1) -> Evidence:
        x = (batch.pixels.float() / 255).contiguous(memory_format=torch.channels_last)
        rate = batch.rate
        out, value, commitment = self.code(x, rate)
        emphasis = self.emphasis(rate) if self.training else None
        picture = weighed(self.synthesise(value, rate), emphasis)
        ll = self.likelihood(picture, rate).log_prob(x)
        self.last = out
        self.picture = picture
        return (
            ll,
            {k: n.flatten(1).sum(1) for k, (c, n) in out.items()},
            commitment * (emphasis if emphasis is not None else 1),
        )

    def freeze(self, examples):
        raise NotImplementedError


def history(codes, like):
    if codes is None:
        return torch.zeros(like.shape[0], SEEN, *like.shape[2:], dtype=torch.long)
    active = (codes[:, -SEEN:] > 0).long()
    if active.shape[1] < SEEN:
        active = F.pad(active, (0, 0, 0, 0, SEEN - active.shape[1], 0))
    return active.repeat_interleave(2, 2).repeat_interleave(2, 3)
