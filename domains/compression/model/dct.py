r"""The default codec: a learnable transform that starts as the DCT, hyperprior, channel slices.

.. math:: c = T x + f(x), \quad y = g(\lambda)\, c, \quad
    p(y \mid z) = \prod_s p(y_s \mid y_{<s}, z)

Nothing of it is new: a linear transform of blocks (JPEG's, at first), small residual networks
beside it, a hyperprior (Ballé et al., ICLR 2018, arXiv:1802.01436), channel slices of which each
is predicted from those before (Minnen and Singh, ICIP 2020, arXiv:2007.08739), and gains for a
variable rate (Cui et al., CVPR 2021, arXiv:2003.02012). Together they start as a working codec and
get better from the first step on: what else takes days takes minutes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from domains.compression.config import DCT, Rates
from domains.compression.data.records import Images
from domains.compression.model.base import TransformModel
from domains.compression.model.program import (
    LOG_STEP,
    UNIT,
    Affine,
    Network,
    Program,
    Step,
    predicting,
    shrunk,
)
from domains.compression.model.rates import Gain, place
from domains.compression.model.transforms import (
    BRANCH_UNIT,
    SIDE,
    Branch,
    Overlap,
    beside,
    block_dct,
    blocks_of,
    overlap_matrix,
    overlap_norms,
    picture_of,
    random_orthonormal,
)

STRIDE = 32
TRANSFORM_UNIT = 0.15  # how fast the transforms are learned, against the prior's networks
STEP_GREY = 20.0  # quantisation step at the middle of the rates to start with, in grey levels


class DCTCodec(TransformModel):
    """The default codec; coefficients are in units of their mean size.

    Args:
        options: Its settings.
        rates: The scale of rates.
    """

    typical: Tensor

    def __init__(self, options: DCT, rates: Rates) -> None:
        channels = sum(options.slices)
        names = [f"y{number}" for number in range(1, len(options.slices) + 1)]
        sizes = dict(zip(names, options.slices, strict=True))
        super().__init__(rates, STRIDE, _program(options, sizes), _gains(options, sizes, rates))
        self.sizes, self.space = sizes, options.space
        self.options = options
        rows = block_dct(channels) if options.start == "dct" else random_orthonormal(channels)
        pixels, width = 3 * SIDE**2, options.width
        slowly = torch.full((max(pixels, channels),), TRANSFORM_UNIT)
        self.analysis = Affine(pixels, channels, unit=slowly[:channels])
        self.synthesis = Affine(channels, pixels, unit=slowly[:pixels])
        norms = overlap_norms(channels) if options.overlap else torch.ones(channels)
        self.analysis.hold((norms[:, None] * rows)[:, :, None, None], torch.zeros(channels))
        self.synthesis.hold((rows.T / norms)[:, :, None, None], torch.zeros(pixels))
        self.lap = Overlap(overlap_matrix()) if options.overlap else None
        self.unlap = Overlap(torch.linalg.inv(overlap_matrix())) if options.overlap else None
        self.before = Branch(pixels + 1, width, channels, options.blocks)
        self.after = Branch(channels + 1, width, pixels, options.blocks)
        self.hyper = HyperAnalysis(channels, options.features, options.hyper)
        self.filter = Filter(options.filter) if options.filter else None
        self.register_buffer("typical", torch.ones(channels))
        if self.space == "steps":
            self.own = Gain(torch.full((channels,), 255 / STEP_GREY), rates)

    @torch.no_grad()
    def start(self, examples: Images) -> None:
        """Measure the mean size of each coefficient, its unit from now on."""
        x = examples.pixels.float() / 255
        sizes = self.analysis(self._blocks(x)).abs().mean((0, 2, 3)).clamp(min=1e-4)
        self.typical.copy_(sizes)
        steps = 255 / STEP_GREY * sizes
        if self.space == "steps":
            self.own.logarithm.copy_(steps.log())
            self._start_scales(steps)
            return
        for name, part in self._split(steps.view(1, -1, 1, 1)).items():
            gain = self.gains[name]
            assert isinstance(gain, Gain)
            gain.logarithm.copy_(part.flatten().log())

    def _start_scales(self, steps: Tensor) -> None:
        """Say to the prior's networks how large each latent is in steps."""
        for name, part in self._split(steps.view(1, -1, 1, 1)).items():
            network = self.program.networks[name]
            assert isinstance(network, Network)
            bias = network.last.bias.clone()
            bias[self.sizes[name] :] = UNIT + part.flatten().log() / LOG_STEP
            network.last.hold(network.last.weight, bias)

    def analyse(
        self, pixels: Float[Tensor, "batch colour height width"], rate: Int64[Tensor, " batch"]
    ) -> dict[str, Tensor]:
        """Return the coefficients of every slice and of the hyper latent."""
        blocks = self._blocks(pixels)
        coefficients = self.analysis(blocks) + self.before(beside(blocks, place(rate)))
        coefficients = coefficients / self.typical.view(1, -1, 1, 1)
        features = {"z": self.hyper(beside(coefficients, place(rate)))}
        if self.space == "steps":
            coefficients = coefficients * self.own(rate)[:, :, None, None].exp()
        return features | self._split(coefficients)

    def coefficients(
        self, group: str, features: Mapping[str, Tensor], decoded: Mapping[str, Tensor]
    ) -> Tensor:
        """Return those of a slice: here a slice's posterior sees the picture alone."""
        return features[group]

    def synthesise(
        self, decoded: Mapping[str, Tensor], rate: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch colour height width"]:
        """Return the picture that all slices stand for."""
        coefficients = torch.cat([decoded[name] for name in self.sizes], 1)
        if self.space == "steps":
            coefficients = coefficients * (-self.own(rate)[:, :, None, None]).exp()
        whole = coefficients * self.typical.view(1, -1, 1, 1)
        blocks = self.synthesis(whole) + self.after(beside(coefficients, place(rate)))
        picture = picture_of(blocks, SIDE)
        picture = picture if self.unlap is None else self.unlap(picture)
        return (picture if self.filter is None else self.filter(picture, rate)) + 0.5

    def _blocks(self, pixels: Float[Tensor, "batch colour height width"]) -> Tensor:
        centred = pixels - 0.5
        return blocks_of(centred if self.lap is None else self.lap(centred), SIDE)

    def _split(self, coefficients: Tensor) -> dict[str, Tensor]:
        parts = coefficients.split(list(self.sizes.values()), 1)
        return dict(zip(self.sizes, parts, strict=True))


class HyperAnalysis(nn.Module):
    """What is said of the scales in advance: coefficients at 1/8 to a latent at 1/32.

    Args:
        channels: Of the coefficients.
        width: Inside.
        outputs: Channels of the latent.
    """

    def __init__(self, channels: int, width: int, outputs: int) -> None:
        super().__init__()
        self.enter = Affine(channels + 1, width)
        self.halve = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.halve_again = nn.Conv2d(width, outputs, 3, stride=2, padding=1)

    def forward(self, coefficients: Float[Tensor, "batch c height width"]) -> Tensor:
        """Return coefficients of the hyper latent."""
        x = F.leaky_relu(self.enter(coefficients))
        return self.halve_again(F.leaky_relu(self.halve(x)))


class Filter(nn.Module):
    """A small residual filter over the borders of blocks, at half the resolution.

    Args:
        width: Channels inside.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.inside = Affine(13, width, 3), Affine(width, width, 3)
        self.leave = shrunk(Affine(width, 12, 3, torch.full((12,), BRANCH_UNIT)))

    def forward(
        self, picture: Float[Tensor, "batch colour height width"], rate: Int64[Tensor, " batch"]
    ) -> Tensor:
        """Return the filtered picture."""
        x = F.leaky_relu(self.enter(beside(blocks_of(picture, 2), place(rate))))
        x = self.leave(F.leaky_relu(self.inside(x)))
        return picture + picture_of(x, 2)


def _program(options: DCT, sizes: Mapping[str, int]) -> Program:
    """Hyper latent, what it says, then each slice and what is known after it."""
    features, context = options.features, options.context
    steps = [
        Step("z", options.hyper, STRIDE),
        Step("h0", features, SIDE, reads=("z", "rate"), coded=False),
    ]
    networks = {"h0": Network(options.hyper + 1, (64,), features, (3, 1), up=STRIDE // SIDE)}
    read: list[str] = []  # the slices so far
    for number, (name, channels) in enumerate(sizes.items()):
        state = f"h{number}"
        if number:
            before = read[-1]
            inputs = features + sizes[before]
            steps.append(Step(state, features, SIDE, (f"h{number - 1}", before), coded=False))
            networks[state] = Network(inputs, (features,), features, (1, 3))
        reads = (state, "rate", *read)
        steps.append(Step(name, channels, SIDE, reads))
        inputs = features + 1 + sum(sizes[other] for other in read)
        networks[name] = predicting(inputs, (context,), channels)
        read.append(name)
    return Program(steps, networks)


def _gains(options: DCT, sizes: Mapping[str, int], rates: Rates) -> dict[str, Gain]:
    start = 1.0 if options.space == "steps" else 255 / STEP_GREY
    gains = {name: Gain(torch.full((channels,), start), rates) for name, channels in sizes.items()}
    gains["z"] = Gain(torch.full((options.hyper,), 2.0), rates)
    for name in ("z", *(sizes if options.space == "steps" else ())):
        with torch.no_grad():
            gains[name].slope.zero_()
    return gains
