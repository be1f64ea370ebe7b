r"""QRes-VAE: a top-down hierarchy of quantised latents; a file decodes progressively.

.. math:: p(x, z_{1 \dots L}) = p(x \mid z_{1 \dots L}) \prod_i p(z_i \mid z_{<i}), \quad
    q(z_i \mid x, z_{<i}) = U(\mu_i \pm \tfrac12), \quad
    p(z_i \mid z_{<i}) = \mathcal N(\hat\mu_i, \sigma_i^2) \circledast U(-\tfrac12, \tfrac12)

Blocks of latents are coded from coarse to fine. What a block's posterior is centred on is the
encoder's features of its stride, seen beside what the decoder knows from the blocks before. Read
up to some block only, the blocks after it are what the prior expects, and the picture is coarser.

Ours, not the paper's:

* The prior is a `Program` of its own that reads nothing but decoded latents, apart from the
  decoder that draws the picture. In the paper both are one network, all of which is on the entropy
  path; here the path is small, and exact in integers.
* Beside the networks there are linear maps that start as transforms: the lapped DCT of blocks of
  8 x 8 pixels at the finest stride, at each coarser one the 2 x 2 DCT of the means below. The
  untrained model is a transform code, critically sampled. Channels that a stride has
  beyond its share of the transform are free; at the coarser strides they start as logarithms of
  how large the coefficients of the finest stride are, which the prior's scales need, since free
  channels that start at random were found to be empty after training.
* A coarse block need not be subtracted by hand from the finer ones: a finer block's symbols are
  counted from the prior's mean, which is the prediction, and its posterior may look at what was
  decoded.
* Strides begin at 8, in place of 4, and dense convolutions in bottlenecks take the place of
  depthwise ones, which are slow on a CPU. Rates are those of `Gain`; networks see the rate as one
  more channel, in place of the normalisation by it that the paper's successor has.
* There is no lossless mode. The paper's codes what a decoded picture lacks as Normal noise, pixel
  by pixel, and takes 10.4 bits a pixel on Kodak where WebP takes 9.5 and JPEG XL 8.7.

References:
    Duan, Lu, Ma and Zhu, "Lossy Image Compression with Quantized Hierarchical VAEs", WACV 2023
    (arXiv:2208.13056).
    Duan et al., "QARV: Quantization-Aware ResNet VAE for Lossy Image Compression", TPAMI 2023
    (arXiv:2302.08899), for one model of all rates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from domains.compression.config import QRes, Rates
from domains.compression.data.records import Images
from domains.compression.model.base import TransformModel
from domains.compression.model.dct import STEP_GREY, TRANSFORM_UNIT, Filter
from domains.compression.model.program import Affine, Network, Program, Step, predicting, shrunk
from domains.compression.model.rates import Gain, place
from domains.compression.model.transforms import (
    BRANCH_UNIT,
    SIDE,
    Block,
    Branch,
    Overlap,
    beside,
    block_dct,
    blocks_of,
    dct_matrix,
    overlap_matrix,
    picture_of,
)

COLOURS = 3
PIXELS = COLOURS * SIDE**2
FREE_STEPS = 2.0  # steps per unit of the free channels, which is a factor e in size
SMALLEST_MEAN = 0.05  # that a logarithm is taken of, in typical sizes
SMALLEST_SIZE = 1e-4  # of a coefficient, in pixels of 0 to 1
REACH = 10  # pixels on each side that the filter at the end and the overlap of blocks look at


@dataclass(frozen=True)
class Group:
    """A block of latents.

    Args:
        name: In the program.
        stage: Which stride, 0 for the finest.
        channels: Of its latents.
        bands: Which coefficients of the stage's transform its first channels are; the channels
            beyond are free.
    """

    name: str
    stage: int
    channels: int
    bands: range

    @property
    def free(self) -> int:
        """How many channels are of no transform."""
        return self.channels - len(self.bands)


class QResVAE(TransformModel):
    """The hierarchy; latents are in units of the mean size of their coefficient.

    Args:
        options: Its settings.
        rates: The scale of rates.
    """

    def __init__(self, options: QRes, rates: Rates) -> None:
        groups = _groups(options.latents)
        gains = {group.name: _gain(group, rates) for group in groups}
        widths, stages = options.widths, range(len(options.widths))
        super().__init__(rates, _stride(stages[-1]), _program(options, groups), gains)
        self.groups, self.blocks = {group.name: group for group in groups}, options.blocks
        self.options = options
        latents = [sum(blocks) for blocks in options.latents]
        told = [*widths[:-1], 0]  # what a stride is told by the next coarser one
        self.pyramid = Pyramid(
            [sum(len(group.bands) for group in self._of_stage(stage)) for stage in stages]
        )
        below = (PIXELS + 1, *(4 * width for width in widths))
        self.ascent = nn.ModuleList(
            Trunk(inputs, width, options.blocks)
            for inputs, width in zip(below, widths, strict=False)
        )
        self.descent = nn.ModuleList(
            Descent(latents[stage] + told[stage], widths[stage], widths[stage - 1], options.blocks)
            for stage in stages[1:]
        )
        self.posterior = nn.ModuleDict()
        for group in groups:
            earlier = sum(other.channels for other in self._before(group))
            inputs = widths[group.stage] + told[group.stage] + earlier
            self.posterior[group.name] = Posterior(inputs, options.context, group)
        self.after = Branch(latents[0] + told[0] + 1, widths[0], PIXELS, options.blocks)
        self.filter = Filter(options.filter) if options.filter else None

    @property
    def halo(self) -> int:
        """Pixels that the transforms look at around a tile, a multiple of the stride."""
        strides = sum(_stride(stage) for stage in range(len(self.ascent)))
        return -(-(self.blocks * strides + REACH) // self.stride) * self.stride

    @torch.no_grad()
    def start(self, examples: Images) -> None:
        """Measure the mean size of each coefficient, its unit from now on."""
        self.pyramid.measure(self.pyramid.cut(examples.pixels.float() / 255 - 0.5))
        for group in self.groups.values():
            gain = self.gains[group.name]
            assert isinstance(gain, Gain)
            bands = group.bands
            sizes = self.pyramid.sizes[group.stage][bands.start : bands.stop]
            gain.logarithm[: len(bands)].copy_((255 / STEP_GREY * sizes).log())

    def analyse(
        self, pixels: Float[Tensor, "batch colour height width"], rate: Int64[Tensor, " batch"]
    ) -> dict[str, Tensor]:
        """Return what each block starts as, and the encoder's features at each stride."""
        blocks = self.pyramid.cut(pixels - 0.5)
        coefficients = self.pyramid(blocks)
        features = {
            group.name: torch.cat(
                [
                    coefficients[group.stage][:, group.bands.start : group.bands.stop],
                    log_sizes(coefficients[0].detach(), 2**group.stage, group.free),
                ],
                1,
            )
            for group in self.groups.values()
        }
        hidden = beside(blocks, place(rate))
        for stage, trunk in enumerate(self.ascent):
            hidden = trunk(blocks_of(hidden, 2) if stage else hidden)
            features[f"encoder{stage}"] = hidden
        return features

    def coefficients(
        self, group: str, features: Mapping[str, Tensor], decoded: Mapping[str, Tensor]
    ) -> Tensor:
        """Return what the posterior of a block is centred on, given the blocks before it."""
        which = self.groups[group]
        seen = [features[f"encoder{which.stage}"], *self._told(which.stage, decoded)]
        seen += [decoded[other.name] for other in self._before(which)]
        return features[group] + self.posterior[group](torch.cat(seen, 1))

    def synthesise(
        self, decoded: Mapping[str, Tensor], rate: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch colour height width"]:
        """Return the picture that all blocks stand for."""
        known = torch.cat([*self._latents(0, decoded), *self._told(0, decoded)], 1)
        blocks = self.pyramid.inverse(
            [self._coefficients(stage, decoded) for stage in range(len(self.ascent))]
        )
        blocks = blocks + self.after(beside(known, place(rate)))
        picture = self.pyramid.joined(blocks)
        return (picture if self.filter is None else self.filter(picture, rate)) + 0.5

    def _told(self, stage: int, decoded: Mapping[str, Tensor]) -> list[Tensor]:
        """Return what the decoder knows at a stride from coarser ones; nothing at the coarsest."""
        if stage == len(self.descent):
            return []
        known = [*self._latents(stage + 1, decoded), *self._told(stage + 1, decoded)]
        return [self.descent[stage](torch.cat(known, 1))]

    def _of_stage(self, stage: int) -> list[Group]:
        return [group for group in self.groups.values() if group.stage == stage]

    def _latents(self, stage: int, decoded: Mapping[str, Tensor]) -> list[Tensor]:
        return [decoded[group.name] for group in self._of_stage(stage)]

    def _coefficients(self, stage: int, decoded: Mapping[str, Tensor]) -> Tensor:
        of_stage = self._of_stage(stage)
        return torch.cat([decoded[g.name][:, : len(g.bands)] for g in of_stage], 1)

    def _before(self, group: Group) -> list[Group]:
        """Return the blocks of the same stride that are coded before."""
        of_stage = self._of_stage(group.stage)
        return of_stage[: of_stage.index(group)]


class Pyramid(nn.Module):
    """The lapped DCT of blocks of 8 x 8, then at each coarser stride the 2 x 2 DCT of their means.

    The means are handed on to the next coarser stride; the other coefficients, and at the coarsest
    stride all, are what is coded, in units of their mean size. The maps are learned, slowly.

    Args:
        coded: How many coefficients of each stride are coded, from the finest.
    """

    typical: Tensor

    def __init__(self, coded: Sequence[int]) -> None:
        super().__init__()
        *finer, coarsest = coded
        kept = [*(COLOURS + count for count in finer), coarsest]
        matrices = [block_dct(kept[0]), *(_means_dct()[:count] for count in kept[1:])]
        self.coded = tuple(coded)
        self.lap = Overlap(overlap_matrix())
        self.unlap = Overlap(torch.linalg.inv(overlap_matrix()))
        self.analysis = nn.ModuleList(_slow(matrix) for matrix in matrices)
        self.synthesis = nn.ModuleList(_slow(matrix.T) for matrix in matrices)
        self.register_buffer("typical", torch.ones(sum(coded)))
        self._normalise()

    def cut(self, x: Float[Tensor, "batch colour height width"]) -> Tensor:
        """Return the blocks of a picture, after pixels at their borders are mixed."""
        return blocks_of(self.lap(x), SIDE)

    def joined(self, blocks: Float[Tensor, "batch pixel row column"]) -> Tensor:
        """Undo `cut`."""
        return self.unlap(picture_of(blocks, SIDE))

    def forward(self, blocks: Float[Tensor, "batch pixel row column"]) -> list[Tensor]:
        """Return the coefficients of each stride, from the finest."""
        return [
            coefficients / typical.view(1, -1, 1, 1)
            for coefficients, typical in zip(self._analysed(blocks), self.sizes, strict=True)
        ]

    def inverse(self, coefficients: Sequence[Tensor]) -> Float[Tensor, "batch pixel row column"]:
        """Return the blocks that coefficients stand for."""
        means: list[Tensor] = []
        for stage in reversed(range(len(self.coded))):
            own = coefficients[stage] * self.sizes[stage].view(1, -1, 1, 1)
            below = self.synthesis[stage](torch.cat([*means, own], 1))
            means = [picture_of(below, 2)] if stage else [below]
        return means[0]

    @property
    def sizes(self) -> tuple[Float[Tensor, " coefficient"], ...]:
        """The mean size of the coefficients of each stride, from the finest."""
        return self.typical.split(list(self.coded))

    def measure(self, blocks: Float[Tensor, "batch pixel row column"]) -> None:
        """Take the mean sizes from the blocks of pictures."""
        sizes = [each.abs().mean((0, 2, 3)) for each in self._analysed(blocks)]
        self.typical.copy_(torch.cat(sizes).clamp(min=SMALLEST_SIZE))

    @torch.no_grad()
    def _normalise(self) -> None:
        """Make a unit of every coefficient as large in the picture: a norm of one."""
        for stage, (analysis, synthesis) in enumerate(
            zip(self.analysis, self.synthesis, strict=True)
        ):
            assert isinstance(analysis, Affine)
            assert isinstance(synthesis, Affine)
            norms = torch.ones(len(analysis.bias))
            functions = self.joined(self.inverse(self._units(stage)))
            norms[len(norms) - self.coded[stage] :] = functions.flatten(1).norm(dim=1)
            analysis.hold(analysis.weight * norms.view(-1, 1, 1, 1), analysis.bias)
            synthesis.hold(synthesis.weight / norms.view(1, -1, 1, 1), synthesis.bias)

    def _units(self, stage: int) -> list[Tensor]:
        """Return one of each coefficient of a stride in turn, in the middle of a picture."""
        count, coarsest = self.coded[stage], len(self.coded) - 1
        sides = [3 * 2 ** (coarsest - each) for each in range(len(self.coded))]
        units = [
            torch.zeros(count, coded, side, side)
            for coded, side in zip(self.coded, sides, strict=True)
        ]
        middle = sides[stage] // 2
        units[stage][:, :, middle, middle] = torch.eye(count)
        return units

    def _analysed(self, blocks: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        means = blocks
        for stage, analysis in enumerate(self.analysis):
            whole = analysis(blocks_of(means, 2) if stage else means)
            handed = whole.shape[1] - self.coded[stage]
            means = whole[:, :handed]
            found.append(whole[:, handed:])
        return found


class Trunk(nn.Module):
    """In, then residual blocks.

    Args:
        inputs: Channels.
        width: Channels inside and of the result.
        blocks: How many blocks.
    """

    def __init__(self, inputs: int, width: int, blocks: int) -> None:
        super().__init__()
        self.enter = Affine(inputs, width)
        self.blocks = nn.Sequential(*(Block(width, width // 2) for _ in range(blocks)))

    def forward(self, x: Float[Tensor, "batch c height width"]) -> Tensor:
        """Apply it."""
        return F.leaky_relu(self.blocks(self.enter(x)))


class Descent(nn.Module):
    """What a stride tells the next finer one.

    Args:
        inputs: Channels of what is known at the stride.
        width: Channels inside.
        outputs: Channels at the finer stride.
        blocks: Residual blocks.
    """

    def __init__(self, inputs: int, width: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.trunk = Trunk(inputs, width, blocks)
        self.leave = Affine(width, 4 * outputs)

    def forward(self, known: Float[Tensor, "batch c height width"]) -> Tensor:
        """Apply it."""
        return picture_of(self.leave(self.trunk(known)), 2)


class Posterior(nn.Module):
    """What networks add to what the posterior's centre starts as; little at first.

    Args:
        inputs: Channels of the encoder's features and of what is decoded.
        inner: Units of the hidden layer.
        group: The block of latents.
    """

    def __init__(self, inputs: int, inner: int, group: Group) -> None:
        super().__init__()
        unit = torch.full((group.channels,), BRANCH_UNIT)
        self.enter = Affine(inputs, inner)
        self.leave = shrunk(Affine(inner, group.channels, unit=unit))

    def forward(self, seen: Float[Tensor, "batch c height width"]) -> Tensor:
        """Apply it."""
        return self.leave(F.leaky_relu(self.enter(seen)))


def log_sizes(
    coefficients: Float[Tensor, "batch coefficient row column"], side: int, count: int
) -> Float[Tensor, "batch {count} row/{side} column/{side}"]:
    """Return how large coefficients are around a place, as numbers that say different things.

    Coefficients fall into bands of growing width; of the logarithms of the mean sizes in the bands
    this is the DCT: first how large all are, then how the high ones differ from the low.

    Args:
        coefficients: From the lowest frequency, in units of their typical size.
        side: How many places a side a mean is taken over.
        count: How many numbers; those for which there are no coefficients are zero.
    """
    batch, channels, rows, columns = coefficients.shape
    bands = min(count, channels) if side > 1 else 0
    said = coefficients.new_zeros(batch, count, rows // side, columns // side)
    if bands:
        edges = [max(k, round(channels * (k / bands) ** 2)) for k in range(1, bands)]
        parts = coefficients.abs().tensor_split(edges, 1)
        sizes = F.avg_pool2d(torch.cat([part.mean(1, keepdim=True) for part in parts], 1), side)
        logarithms = sizes.clamp(min=SMALLEST_MEAN).log()
        matrix = dct_matrix(bands).to(coefficients)
        said[:, :bands] = torch.einsum("kb,nbhw->nkhw", matrix, logarithms)
    return said


def _stride(stage: int) -> int:
    return SIDE * 2**stage


def _groups(latents: Sequence[Sequence[int]]) -> list[Group]:
    """Return the blocks in coding order, from the coarsest."""
    return [group for stage in reversed(range(len(latents))) for group in _staged(latents, stage)]


def _staged(latents: Sequence[Sequence[int]], stage: int) -> list[Group]:
    """Return the blocks of a stride: bands as long as there are any, then free channels."""
    handed = 0 if stage == len(latents) - 1 else COLOURS
    last = (4 * COLOURS if stage else PIXELS) - handed
    groups, first = [], 0
    for number, channels in enumerate(latents[stage], 1):
        bands = range(min(first, last), min(first + channels, last))
        groups.append(Group(f"z{_stride(stage)}_{number}", stage, channels, bands))
        first += channels
    return groups


def _gain(group: Group, rates: Rates) -> Gain:
    """Bands start with the step of a transform code; free channels with one for all rates."""
    steps = torch.full((group.channels,), FREE_STEPS)
    steps[: len(group.bands)] = 255 / STEP_GREY
    gain = Gain(steps, rates)
    with torch.no_grad():
        gain.slope[len(group.bands) :] = 0.0
    return gain


def _program(options: QRes, groups: Sequence[Group]) -> Program:
    """The coarsest block has constants; each other one reads what is known when it is coded."""
    steps = [Step(groups[0].name, groups[0].channels, _stride(groups[0].stage))]
    networks: dict[str, Network] = {}
    for number, group in enumerate(groups[1:], 1):
        known = f"h{group.name[1:]}"
        same = [other for other in groups[:number] if other.stage == group.stage]
        read = _told(steps, groups[number - 1])
        steps.append(Step(known, options.known, _stride(group.stage), read, coded=False))
        networks[known] = _knowing(options.known, _inputs(steps, read), groups[number - 1], group)
        read = (known, "rate", *(other.name for other in same))
        networks[group.name] = predicting(_inputs(steps, read), (options.context,), group.channels)
        steps.append(Step(group.name, group.channels, _stride(group.stage), read))
    return Program(steps, networks)


def _told(steps: Sequence[Step], before: Group) -> tuple[str, ...]:
    """Return what a block's knowledge is made of: what was known before, and what came then."""
    known = [step.name for step in steps if not step.coded][-1:]
    return (*known, before.name, "rate")


def _knowing(known: int, inputs: int, before: Group, group: Group) -> Network:
    """Look around where it costs least: before channels are moved into space, or at the end."""
    up = 2 ** (before.stage - group.stage)
    return Network(inputs, (known,), known, (3, 1) if up > 1 else (1, 3), up=up)


def _inputs(steps: Sequence[Step], read: Sequence[str]) -> int:
    channels = {step.name: step.channels for step in steps} | {"rate": 1}
    return sum(channels[name] for name in read)


def _means_dct() -> Float[Tensor, "frequency position"]:
    """Return the 2 x 2 DCT of every colour, means first, columns in the order of `blocks_of`."""
    plane = torch.kron(dct_matrix(2), dct_matrix(2))
    return torch.kron(plane, torch.eye(COLOURS))


def _slow(matrix: Float[Tensor, "output input"]) -> Affine:
    outputs, inputs = matrix.shape
    affine = Affine(inputs, outputs, unit=torch.full((outputs,), TRANSFORM_UNIT))
    affine.hold(matrix[:, :, None, None], torch.zeros(outputs))
    return affine
