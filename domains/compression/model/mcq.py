r"""McQuic: multi-codebook vector quantisation in a cascade of levels.

.. math:: \hat y_l = u_l(\hat y_{l+1}) + \sum_g e^{(l,g)}_{k_{l,g}}, \quad
    \hat x = s(\hat y_1), \quad p(k) = \prod_{l,g} p(k_{l,g} \mid \text{activity before})

Features at 1/8 become those of the finest level at 1/16; each coarser level halves the resolution
again. Decoding goes from coarse to fine: a level is what the coarser one lets expect, and the
vectors that the codes of its groups name. No network stands between the stream and its codes:
their probabilities are integers that were counted, so that files decode to the same codes
everywhere by construction.

What a rate index means. It sets the price of an error, as in every model here, and with it how
many groups are sent, for each position by itself: code 0 of a group says nothing, and is taken
wherever no vector is worth its bits. Any prefix of the groups is a code: all further ones are 0.
No two indexes are alike to the encoder; indexes of one band (`cascade.BANDS` of them over the
scale) share their tables, and all share the codebooks. In training only a prefix, of random
length, of some pictures is sent (nested dropout), so that what is read so far draws a picture.

How the encoder learns. With the residual r, its price w and its code's vector e,

.. math:: J(r) = \min_k w \|r - e_k\|^2 + R(k), \quad \frac{\partial J}{\partial r} = 2 w (r - e)

because at the minimum nothing changes with k. Where a share s of r is coded, e is taken to move as
s r does (straight through); what is left of J's gradient, 2 s w (r - e), is that of the rate, and
the commitment has it. It pulls features to their codes, and where no code is it does nothing. In
trials a quarter of it learned best: s is no more than an estimate.

Ours, not the paper's:

* The linear parts start as the DCT of blocks of 8 x 8 and as principal components; codebooks start
  as clusters of the residuals and are running k-means from then on. In the paper all is learned
  from noise, with Gumbel-softmax.
* The paper has no rate in its objective: the number of codebooks sets it, one model a rate. Here
  codes are chosen by their cost (entropy-constrained vector quantisation), which makes one model
  of all rates and spends nothing on empty sky.
* Each group codes what the groups before it leave, in the directions where that is most, in
  place of its own share of the channels.
* The finest level is coded last, given the coarser ones; the paper codes residuals the other way
  round and adds side features.

References:
    Zhu et al., "Unified Multivariate Gaussian Mixture for Efficient Neural Image Compression",
    CVPR 2022 (arXiv:2203.10897).
    Rippel, Gelbart and Adams, "Learning Ordered Representations with Nested Dropout", ICML 2014
    (arXiv:1402.0915).
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy import ndarray
from torch import Tensor, nn

from core.runtime.errors import UserError
from core.variational.distributions import Delta
from core.variational.evidence import Evidence, Latent
from domains.compression.config import MCQ, Rates
from domains.compression.data.records import Images
from domains.compression.model.base import ImageModel, weighed
from domains.compression.model.cascade import Cascade, CodePrior, band_of, history, principal
from domains.compression.model.code_tables import CodeTables
from domains.compression.model.coder import Decoder, Encoder, Tables
from domains.compression.model.dct import Filter
from domains.compression.model.frozen import Coded, Frozen, Halo, Latents, Provenance
from domains.compression.model.program import Affine
from domains.compression.model.rates import INDICES, noise_scale, place
from domains.compression.model.transforms import (
    SIDE,
    Branch,
    beside,
    block_dct,
    blocks_of,
    picture_of,
)

LINEAR_UNIT = 0.15  # how fast the linear maps are learned, against other weights


@dataclass(frozen=True, eq=False)
class Level:
    """What a level of the cascade codes.

    Args:
        name: Of the level.
        codes: Its codes.
        before: Activity that their contexts begin with, see `cascade.history`.
    """

    name: str
    codes: Int64[Tensor, "batch group height width"]
    before: Int64[Tensor, "batch seen height width"]


@dataclass(frozen=True, eq=False)
class Cascaded:
    """What a picture becomes.

    Args:
        levels: From the coarsest.
        value: Features of the finest level that the codes stand for; gradients pass through.
        uncoded: What codes leave of the residuals where they code, priced as an error, in nats.
    """

    levels: tuple[Level, ...]
    value: Float[Tensor, "batch channel height width"]
    uncoded: Float[Tensor, " batch"]


class McQuic(ImageModel):
    """Codebooks in a cascade of levels.

    Args:
        options: Its settings.
        rates: The scale of rates.
    """

    def __init__(self, options: MCQ, rates: Rates) -> None:
        count = len(options.codes)
        super().__init__(rates, SIDE * 2**count)
        self.options = options
        pixels, width, blocks = 3 * SIDE**2, options.width, options.blocks
        channels, coarse = options.channels, options.coarse
        rows = block_dct(channels)
        self.analysis, self.synthesis = _slow(pixels, channels), _slow(channels, pixels)
        self.analysis.hold(rows[:, :, None, None], torch.zeros(channels))
        self.synthesis.hold(rows.T[:, :, None, None], torch.zeros(pixels))
        self.before = Branch(pixels + 1, width, channels, blocks)
        self.after = Branch(channels + 1, width, pixels, blocks)
        self.filter = Filter(options.filter)
        sizes = [4 * channels, *[4 * coarse] * (count - 1)]
        self.down = nn.ModuleList(Step(size, width, coarse, blocks) for size in sizes[:-1])
        self.up = nn.ModuleList(Step(coarse, width, size, blocks) for size in sizes[:-1])
        self.mean = nn.Parameter(torch.zeros(sizes[-1]))
        self.cascades = nn.ModuleList(
            Cascade(groups, codes, options.dimensions, size)
            for groups, codes, size in zip(options.groups, options.codes, sizes, strict=True)
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Of the levels, from the coarsest."""
        return tuple(f"level{number}" for number in range(len(self.cascades), 0, -1))

    def cascade(self, level: int) -> Cascade:
        """The codebooks of a level, 0 for the finest."""
        cascade = self.cascades[level]
        assert isinstance(cascade, Cascade)
        return cascade

    def analyse(
        self, x: Float[Tensor, "batch colour height width"], rate: Int64[Tensor, " batch"]
    ) -> list[Tensor]:
        """Return the features of every level, from the finest."""
        blocks = blocks_of(x - 0.5, SIDE)
        y = self.analysis(blocks) + self.before(beside(blocks, place(rate)))
        features = [blocks_of(y, 2)]
        for down in self.down:
            features.append(blocks_of(down(features[-1], rate), 2))
        return features

    def expected(
        self, level: int, coarser: Tensor | None, rate: Int64[Tensor, " batch"], grid: torch.Size
    ) -> Float[Tensor, "batch channel height width"]:
        """Return what the coarser level lets expect of a level; of the coarsest its mean.

        Args:
            level: 0 for the finest.
            coarser: What the codes of the next coarser level stand for.
            rate: Of each picture.
            grid: Height and width.
        """
        if coarser is None:
            return self.mean.view(1, -1, 1, 1).expand(len(rate), -1, *grid)
        return self.up[level](picture_of(coarser, 2), rate)

    def synthesise(
        self, finest: Float[Tensor, "batch channel row column"], rate: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch colour height width"]:
        """Return the picture that features of the finest level stand for, not clamped."""
        y = picture_of(finest, 2)
        blocks = self.synthesis(y) + self.after(beside(y, place(rate)))
        return self.filter(picture_of(blocks, SIDE), rate) + 0.5

    def decode(
        self, codes: dict[str, Tensor], rate: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch colour height width"]:
        """Return the picture that codes of all levels stand for, not clamped."""
        value: Tensor | None = None
        for name, level in zip(self.names, reversed(range(len(self.names))), strict=True):
            grid = codes[name].shape[2:]
            expected = self.expected(level, value, rate, grid)
            value = expected + self.cascade(level).decode(codes[name])
        assert value is not None
        return self.synthesise(value, rate)

    def code(
        self,
        x: Float[Tensor, "batch colour height width"],
        rate: Int64[Tensor, " batch"],
        inside: Int64[Tensor, "row column"] | None = None,
        passes: int = 0,
    ) -> Cascaded:
        """Choose the codes of pictures, level by level.

        Args:
            x: Pictures.
            rate: Of each.
            inside: 1 where a position of the finest level is coded, 0 in the halo.
            passes: How often each code is reconsidered given all others of its level.
        """
        features, weight = self.analyse(x, rate), 0.5 / noise_scale(rate, self.rates).square()
        sent = self._sent(rate)
        uncoded, value = torch.zeros_like(weight), None
        levels: list[Level] = []
        for name, level in zip(self.names, reversed(range(len(self.names))), strict=True):
            y, cascade = features[level], self.cascade(level)
            expected = self.expected(level, value, rate, y.shape[2:])
            mask = None if inside is None else inside[:: 2**level, :: 2**level]
            before = history(levels[-1].codes if levels else None, y, _coarser(mask))
            residual = y - expected
            chosen = cascade(residual.detach(), weight, band_of(rate), before, mask, sent, passes)
            share = _share(residual.detach(), chosen.value)
            left = share * (residual - chosen.value).square()
            uncoded = uncoded + weight * left.flatten(1).sum(1)
            value = expected + chosen.value + share * (residual - residual.detach())
            levels.append(Level(name, chosen.codes, before))
            sent = sent - len(cascade.books)
        assert value is not None
        return Cascaded(tuple(levels), value, uncoded)

    def _sent(self, rate: Tensor) -> Int64[Tensor, " batch"]:
        """Draw how many groups are sent of each picture: in evaluation all."""
        total = sum(self.options.groups)
        every = torch.full_like(rate, total)
        if not self.training:
            return every
        drawn = torch.randint(total, rate.shape, device=rate.device)
        cut = torch.rand(rate.shape, device=rate.device) < self.options.dropout
        return torch.where(cut, drawn, every)

    def evidence(self, batch: Images, samples: int = 1) -> Evidence:
        """What the model says about a batch; its posterior is certain, all samples are alike.

        The KL of a level is the length of its codes by the frequencies counted so far. It has no
        gradient: codes are chosen by it. In evaluation the value is a bound; in training it is
        none, for how many groups are sent is drawn at random and not paid for.
        """
        rate = batch.rate
        x = (batch.pixels.float() / 255).contiguous(memory_format=torch.channels_last)
        weight = self.emphasis(rate) if self.training else None
        coded = self.code(x, rate)
        picture = weighed(self.synthesise(coded.value, rate), weight)
        log_prob = self.likelihood(picture, rate).log_prob(x)
        latents = [
            self._latent(level, index, rate, samples)
            for level, index in zip(coded.levels, reversed(range(len(self.names))), strict=True)
        ]
        return Evidence(
            log_likelihood={"pixels": log_prob.expand(samples, -1)},
            latents=latents,
            penalties={"commitment": self.options.commitment * weighed(coded.uncoded, weight)},
            joint=not self.training,
        )

    def _latent(self, level: Level, index: int, rate: Tensor, samples: int) -> Latent:
        prior = CodePrior(self.cascade(index), band_of(rate), level.before)
        value = level.codes.expand(samples, *level.codes.shape)
        return Latent(level.name, value, Delta(level.codes, event_dims=3), prior)

    @torch.no_grad()
    def start(self, examples: Images) -> None:
        """Start coarser levels as principal components, codebooks as clusters of residuals."""
        rate = torch.linspace(0, INDICES - 1, len(examples)).round().long()
        rate = rate.to(examples.pixels.device)
        y = self.analysis(blocks_of(examples.pixels.float() / 255 - 0.5, SIDE))
        features = [blocks_of(y, 2)]
        for down, up in zip(self.down, self.up, strict=True):
            assert isinstance(down, Step)
            assert isinstance(up, Step)
            rows = features[-1].permute(0, 2, 3, 1).flatten(0, 2)
            main = principal(rows, self.options.coarse)
            down.linear.hold(main[:, :, None, None], torch.zeros(len(main)))
            up.linear.hold(main.T[:, :, None, None], torch.zeros(main.shape[1]))
            features.append(blocks_of(down.linear(features[-1]), 2))
        self.mean.copy_(features[-1].mean((0, 2, 3)))
        self._start_codebooks(features, rate)

    def _start_codebooks(self, features: list[Tensor], rate: Tensor) -> None:
        weight = 0.5 / noise_scale(rate, self.rates).square()
        value = codes = None
        for level in reversed(range(len(features))):
            y = features[level]
            expected = self.expected(level, value, rate, y.shape[2:])
            before = history(codes, y)
            chosen = self.cascade(level).start(y - expected, weight, band_of(rate), before)
            value, codes = expected + chosen.value, chosen.codes

    def freeze(self, examples: Images) -> Frozen:
        """Return what files are written and read with; the counts of training are its tables."""
        cascades = [self.cascade(level) for level in reversed(range(len(self.names)))]
        return FrozenMcQuic(self, CodeTables.counted(cascades))


class FrozenMcQuic(Frozen):
    """A cascade of codebooks whose counts have become tables of integers.

    Args:
        model: Where codes are chosen, and what draws the picture.
        tables: What codes are written and read by.
        provenance: Where it is from.
    """

    kind = "mcq"

    def __init__(
        self, model: McQuic, tables: CodeTables, provenance: Provenance | None = None
    ) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.tables = tables
        self.provenance = provenance or Provenance()
        self.rates, self.stride = model.rates, model.stride
        self.levels, self.halo = model.names, _halo(model)
        tensors, header = self.state()
        self.identity = _digest(_for_decoding(tensors), header)

    @torch.no_grad()
    def encode(
        self,
        pixels: UInt8[Tensor, "colour height width"],
        rate: int,
        effort: int = 0,
        halo: Halo | None = None,
    ) -> Coded:
        """Code a picture; the effort is how often each code is reconsidered, given the others."""
        halo = halo or Halo()
        device = self.model.mean.device
        x = pixels[None].to(device).float() / 255
        index = torch.tensor([rate], device=device)
        inside = _inside(halo, *pixels.shape[1:]).to(device)
        coded = self.model.code(x, index, inside, effort)
        codes = {
            level.name: _within(level.codes[0].cpu(), halo, self._stride(level.name))
            for level in coded.levels
        }
        encoder = Encoder(self.tables.tables)
        lengths = [
            self.tables.write(encoder, number, codes[name], band, before)
            for number, name, band, before in self._in_order(codes, rate)
        ]
        bits = dict(zip(self.levels, lengths, strict=True))
        return Coded(
            payload=encoder.finish(),
            latents={name: each.int() for name, each in codes.items()},
            bits={name: float(each.sum()) for name, each in bits.items()},
            rate_map=self._rate_map(bits),
        )

    def decode(
        self, payload: bytes, height: int, width: int, rate: int, level: int | None = None
    ) -> dict[str, Tensor]:
        """Read the codes of a picture of this padded size; those not read are 0."""
        codes: dict[str, Tensor] = {}
        for name, groups in zip(self.levels, self.tables.groups, strict=True):
            stride = self._stride(name)
            codes[name] = torch.zeros(groups, height // stride, width // stride).long()
        decoder = Decoder(self.tables.tables, payload)
        wanted = len(self.levels) if level is None else level
        for number, name, band, before in self._in_order(codes, rate, wanted):
            codes[name].copy_(self.tables.read(decoder, number, codes[name].shape, band, before))
        if wanted >= len(self.levels):
            decoder.finish()
        return {name: each.int() for name, each in codes.items()}

    @torch.no_grad()
    def render(
        self, latents: Latents, rate: int
    ) -> UInt8[Tensor, "colour padded_height padded_width"]:
        """Return the picture that codes stand for."""
        device = self.model.mean.device
        codes = {name: latents[name][None].long().to(device) for name in self.levels}
        picture = self.model.decode(codes, torch.tensor([rate], device=device))[0]
        return (picture * 255).round().clamp(0, 255).byte().cpu()

    def to(self, device: torch.device | str) -> FrozenMcQuic:
        """Return it on a device; streams are written and read on the CPU."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model).to(device)
        return other

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return its weights and tables, and its settings."""
        tensors = {f"model.{name}": each.cpu() for name, each in self.model.state_dict().items()}
        arrays = self.tables.tables.state()
        tensors |= {f"tables.{name}": torch.from_numpy(each) for name, each in arrays.items()}
        options = self.model.options.model_dump(mode="json")
        return tensors, {
            "kind": self.kind,
            "options": options,
            "rates": self.rates.model_dump(mode="json"),
        }

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> FrozenMcQuic:
        """Return the one whose `state` these are.

        Raises:
            UserError: If they do not fit together.
        """
        try:
            options = MCQ.model_validate(header["options"])
            model = McQuic(options, Rates.model_validate(header["rates"]))
            model.load_state_dict(_below("model.", tensors))
            arrays = {name: each.numpy() for name, each in _below("tables.", tensors).items()}
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            told = " ".join(line.strip() for line in str(error).splitlines()[:3])
            raise UserError(f"mcq: {told}; a damaged model, freeze it again") from error
        groups, codes = options.groups[::-1], options.codes[::-1]
        return cls(model, CodeTables(Tables.restore(arrays), groups, codes))

    def _stride(self, name: str) -> int:
        return self.stride >> self.levels.index(name)

    def _in_order(
        self, codes: Mapping[str, Tensor], rate: int, count: int | None = None
    ) -> Iterator[tuple[int, str, int, Tensor]]:
        """Go through levels; of each its number, name, band and the activity before it.

        What is coarser has to be known by the time that a level is asked for.
        """
        band = int(band_of(torch.tensor([rate])))
        for number, name in enumerate(self.levels[:count]):
            coarser = codes[self.levels[number - 1]][None] if number else None
            yield number, name, band, history(coarser, codes[name][None])[0]

    def _rate_map(self, bits: Mapping[str, ndarray]) -> Float[Tensor, "row column"]:
        """Spread the bits of each position over its blocks of 8 x 8."""
        total = torch.zeros(())
        for name, each in bits.items():
            side = self._stride(name) // SIDE
            here = torch.from_numpy(each).sum(0).float() / side**2
            total = total + here.repeat_interleave(side, 0).repeat_interleave(side, 1)
        return total


class Step(nn.Module):
    """From one level to the next: a linear map and a branch beside it.

    Args:
        inputs: Channels.
        width: Channels inside the branch.
        outputs: Channels.
        blocks: Residual blocks of the branch.
    """

    def __init__(self, inputs: int, width: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.linear = _slow(inputs, outputs)
        self.branch = Branch(inputs + 1, width, outputs, blocks)

    def forward(
        self, x: Float[Tensor, "batch c height width"], rate: Int64[Tensor, " batch"]
    ) -> Tensor:
        """Apply it."""
        return self.linear(x) + self.branch(beside(x, place(rate)))


def _slow(inputs: int, outputs: int) -> Affine:
    """Return a linear map that starts good, and is learned slowly."""
    return Affine(inputs, outputs, unit=torch.full((outputs,), LINEAR_UNIT))


def _share(residual: Tensor, value: Tensor) -> Float[Tensor, "batch channel height width"]:
    """Return which share of the residuals' energy is coded.

    Of each channel, times that of each position, by that of the picture.
    """
    energy, coded = residual.square(), value * residual

    def share(dims: tuple[int, ...]) -> Tensor:
        least = energy.sum(dims, keepdim=True).clamp(min=1e-9)
        return (coded.sum(dims, keepdim=True) / least).clamp(1e-3, 1)

    return (share((2, 3)) * share((1,)) / share((1, 2, 3))).clamp(max=1)


def _coarser(inside: Tensor | None) -> Tensor | None:
    return None if inside is None else inside[::2, ::2]


def _inside(halo: Halo, height: int, width: int) -> Int64[Tensor, "row column"]:
    """Return 1 where a position of the finest level is coded, 0 in the halo."""
    mask = torch.zeros(height, width, dtype=torch.long)
    mask[halo.top : height - halo.bottom, halo.left : width - halo.right] = 1
    return mask[:: 2 * SIDE, :: 2 * SIDE]


def _within(codes: Tensor, halo: Halo, stride: int) -> Tensor:
    """Return the codes without those of the halo."""
    rows, columns = codes.shape[1:]
    top, left = halo.top // stride, halo.left // stride
    return codes[:, top : rows - halo.bottom // stride, left : columns - halo.right // stride]


def _halo(model: McQuic) -> int:
    """Pixels that codes depend on at each side: features of all levels, then expectations."""
    strides = [SIDE << level for level in range(len(model.names))]
    reach = model.options.blocks * (sum(strides) + sum(strides[1:]))
    return -(-reach // model.stride) * model.stride


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {name: each for name, each in tensors.items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): each for name, each in found.items()}


def _for_decoding(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out what only the choice of codes depends on."""
    chooses = (".analysis.", ".before.", ".down.")
    counts = (".counts", ".sums", ".activity")
    return {
        name: each
        for name, each in tensors.items()
        if not name.endswith(counts) and not any(part in name for part in chooses)
    }


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> bytes:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, each in sorted(tensors.items()):
        digest.update(f"{name} {each.dtype} {tuple(each.shape)}\n".encode())
        digest.update(np.ascontiguousarray(each.numpy()).tobytes())
    return digest.digest()[:8]
