r"""QRes-VAE: a top-down hierarchy of quantised latents; a file decodes progressively.

.. math:: p(x, z_{1 \dots L}) = p(x \mid z_{1 \dots L}) \prod_i p(z_i \mid z_{<i}), \quad
    q(z_i \mid x, z_{<i}) = U(\mu_i \pm \tfrac12), \quad
    p(z_i \mid z_{<i}) = \mathcal N(\hat\mu_i, \sigma_i^2) \circledast U(-\tfrac12, \tfrac12)

Blocks of latents are coded from coarse to fine. What a block's posterior is centred on is the
encoder's features of its stride against what the decoder knows from the blocks before. Read up to
some block only, the blocks after it are what the prior expects, and the picture is coarser.

Ours, not the paper's:

* The prior is a `Program` of its own that reads nothing but decoded latents, apart from the
  decoder that draws the picture. In the paper both are one network, all of which is on the entropy
  path; here the path is small, and exact in integers.
* Beside every network there is a linear map that starts as an orthonormal transform: the DCT of
  blocks of 8 x 8 at the finest stride; at each coarser one the 2 x 2 DCT of the means below. The
  untrained model is a transform code, critically sampled, and channels that a stride has beyond
  its share of the transform hold what is learned.
* Strides begin at 8, in place of 4, and dense convolutions of bottlenecks take the place of
  depthwise ones, which are slow on a CPU. Gains per channel and rate, as in QARV's successor of the
  task, in place of normalisation by the rate; networks see the rate as one more channel.
* There is no lossless mode: the paper's takes 10.4 bits a pixel on Kodak, WebP's 9.5.

References:
    Duan, Lu, Ma and Zhu, "Lossy Image Compression with Quantized Hierarchical VAEs", WACV 2023
    (arXiv:2208.13056).
    Duan et al., "QARV: Quantization-Aware ResNet VAE for Lossy Image Compression", TPAMI 2023
    (arXiv:2302.08899), for one model of all rates.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from domains.compression.config import QRes, Rates
from domains.compression.model.base import TransformModel
from domains.compression.model.transforms import (
    SIDE,
    block_dct,
)

COLOURS = 3
MEANS = 4 * COLOURS  # four means of each colour become four coefficients at the next stride
STEP_GREY = 20.0  # quantisation step at the middle of the rates to start with, in grey levels
FREE_STEPS = 2.0  # steps per unit of the channels that no transform starts
SLOWLY = 0.15  # how fast an orthonormal transform is learned, against other weights


@dataclass(frozen=True)
class Group:
    """A block of latents.

    Args:
        name: In the program.
        stage: Which stride, 0 for the finest.
        channels: Of its latents.
        bands: Which coefficients of the stage's transform its first channels start as.
    """

    name: str
    stage: int
    channels: int
    bands: range


@dataclass(frozen=True, eq=False)
class State:
    """What the decoder knows at some stride.

    Args:
        stage: Which stride, 0 for the finest.
        canvas: Coefficients of the stage's transform, as far as decoded.
        hidden: What else the networks know.
    """

    stage: int
    canvas: Float[Tensor, "batch band height width"]
    hidden: Float[Tensor, "batch c height width"]


class QResVAE(TransformModel):
    """The hierarchy; latents are in units of the mean size of their coefficient.

    Args:
        options: Its settings.
        rates: The scale of rates.
    """

    def __init__(self, options: QRes, rates: Rates) -> None:
        groups = _groups(options.latents)
        gains = {group.name: _gain(group, rates) for group in groups}
        stages = len(options.widths)
        super().__init__(rates, SIDE * 2 ** (stages - 1), _program(options, groups), gains)
        self.groups = {group.name: group for group in groups}
        self.blocks = options.blocks
        bands = [
            1 + max((i for g in groups if g.stage == stage for i in g.bands), default=0)
            for stage in range(stages)
        ]
        self.analysis = _orthonormal(block_dct(bands[0]))
        self.synthesis = _orthonormal(block_dct(bands[0]).T)
        self.ascent = nn.ModuleList(
            Ascent(below, width, bands[stage], options.blocks, stage > 0)
            for stage, (below, width) in enumerate(
                zip((0, *options.widths), options.widths, strict=False)
            )
        )
        self.descent = nn.ModuleList(
            Descent(width, above, stage)
            for stage, (width, above) in enumerate(
                zip(options.widths, (*options.widths[1:], 0), strict=True)
            )
        )
