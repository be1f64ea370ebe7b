"""The settings of a run on image compression."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from core.runtime.config import Evaluation, Section, Settings, Training

Share = Annotated[float, Field(gt=0, lt=1)]
Factor = Annotated[float, Field(gt=0, le=1)]
Baseline = Literal["jpeg", "webp", "avif", "jpeg2000", "jxl"]


class Data(Section):
    """Which photographs are learned from, and which pictures it is tested on.

    Args:
        source: ``packaged`` takes photographs that come with installed packages, ``folder`` reads
            every picture below ``path``.
        path: The folder of photographs.
        test: A folder of pictures that are never trained on and tested whole; null takes whole
            photographs out of the source.
        crop: Side of a stored crop in pixels.
        scales: Factors by which a photograph is made smaller before crops are taken: below 1 the
            marks of a lossy format go away, several show more of the world. A whole photograph of
            the test is made smaller by the first.
        crops: Crops of a photograph at each scale, the busiest first; null takes all.
        window: Side of what a training step sees of a crop, at a random place.
        flips: Whether windows are mirrored and turned at random.
        busy: How much more often a crop with much detail is drawn, as the power of its mean
            absolute gradient that the chance is proportional to; 0 draws each once an epoch.
        valid_fraction: Share of the photographs to choose a model with.
        test_fraction: Share of the photographs to test on, where ``test`` is null.
    """

    source: Literal["packaged", "folder"] = "packaged"
    path: str | None = None
    test: str | None = None
    crop: PositiveInt = 256
    scales: Annotated[tuple[Factor, ...], Field(min_length=1)] = (0.5,)
    crops: PositiveInt | None = None
    window: PositiveInt = 128
    flips: bool = True
    busy: NonNegativeFloat = 0.7
    valid_fraction: Share = 0.05
    test_fraction: Share = 0.1

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> Data:
        if (self.source == "folder") != (self.path is not None):
            raise ValueError(
                f"source {self.source!r} and path {self.path!r}: source 'folder' needs a path, "
                "'packaged' has none"
            )
        if self.window > self.crop:
            raise ValueError(
                f"window {self.window} and crop {self.crop}: a window is a part of a crop"
            )
        return self


class Rates(Section):
    """The price of an error at both ends of the quality scale, in bits.

    A step minimises bits per pixel plus the price times the mean squared error of an 8-bit value;
    the qualities between are spaced evenly in the logarithm.

    Args:
        lowest: Price at quality 0.
        highest: Price at quality 63.
        emphasis: How much more a low quality counts in training, as the power of the price that
            its gradient is divided by; 0 counts all alike, and high qualities then decide.
    """

    lowest: PositiveFloat = 0.0015
    highest: PositiveFloat = 0.08
    emphasis: NonNegativeFloat = 0.7

    @model_validator(mode="after")
    def _ordered(self) -> Rates:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest {self.lowest} must be below highest {self.highest}")
        return self


class DCT(Section):
    """A learnable transform that starts as the DCT of blocks, hyperprior and channel slices."""

    kind: Literal["dct"] = "dct"
    start: Literal["dct", "orthonormal"] = Field(
        default="dct", description="what the transform starts as; orthonormal is a random one"
    )
    overlap: bool = Field(
        default=True,
        description="whether pixels on both sides of a block's border are mixed before: a lapped "
        "transform",
    )
    space: Literal["coefficients", "steps"] = Field(
        default="coefficients",
        description="what the prior's networks read: coefficients, the gain taken off, or "
        "quantisation steps",
    )
    slices: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = Field(
        default=(6, 18, 40, 64), description="channels of each slice, in coding order"
    )
    width: PositiveInt = Field(default=96, description="channels of the residual branches")
    blocks: PositiveInt = Field(default=2, description="residual blocks of each branch")
    hyper: PositiveInt = Field(default=24, description="channels of the hyper latent")
    features: PositiveInt = Field(
        default=48, description="numbers that it says of each block of 8 x 8"
    )
    context: PositiveInt = Field(
        default=96, description="units of the networks that predict a slice from earlier ones"
    )
    filter: NonNegativeInt = Field(
        default=16, description="channels of the filter at half resolution at the end; 0 for none"
    )


class Hyperprior(Section):
    """The mean-scale hyperprior: four strided convolutions with GDN, one hyper latent."""

    kind: Literal["hyperprior"] = "hyperprior"
    channels: PositiveInt = Field(default=48, description="channels of the transforms (N)")
    latent: PositiveInt = Field(default=64, description="channels of the latent (M)")


class QRes(Section):
    """A top-down hierarchy of quantised latents (QRes-VAE); files decode progressively.

    Args:
        widths: Channels at strides 8, 16, 32 and so on.
        latents: Channels of the latent blocks at each of these strides, from stride 8, in coding
            order; the first are frequencies of a transform, from the lowest (189 at stride 8, 12
            at the coarsest, 9 between), channels beyond are free.
        blocks: Residual blocks at each stride.
        known: Numbers that the prior hands on from a block to the next.
        context: Units of the prior's networks, and of those of the posteriors.
        filter: Channels of the filter at half resolution at the end; 0 for none.
    """

    kind: Literal["qres"] = "qres"
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] = (96, 64, 64)
    latents: tuple[Annotated[tuple[PositiveInt, ...], Field(min_length=1)], ...] = (
        (21, 40, 64), (9,), (3, 13),
    )  # fmt: skip
    blocks: PositiveInt = 2
    known: PositiveInt = 48
    context: PositiveInt = 96
    filter: NonNegativeInt = 16

    @model_validator(mode="after")
    def _strides_agree(self) -> QRes:
        if len(self.widths) != len(self.latents):
            raise ValueError(
                f"widths {self.widths} and latents {self.latents}: one of each a stride"
            )
        return self


class MCQ(Section):
    """Multi-codebook vector quantisation in a cascade of levels (McQuic).

    Args:
        channels: Channels at 1/8 of the resolution.
        coarse: Channels that a level hands to the next, coarser one.
        groups: Codebooks of each level, from the finest, at 1/16.
        codes: Vectors of a codebook, for each level.
        dimensions: Dimensions of a codebook's vectors.
        width: Channels of the residual branches.
        blocks: Residual blocks of each branch.
        filter: Channels of the filter at half resolution at the end.
        commitment: Weight of what moves features towards their codes.
        dropout: Share of the train pictures of which only some first groups are sent.
    """

    kind: Literal["mcq"] = "mcq"
    channels: PositiveInt = 96
    coarse: PositiveInt = 32
    groups: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (24, 8, 4)
    codes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (512, 256, 128)
    dimensions: PositiveInt = 8
    width: PositiveInt = 64
    blocks: PositiveInt = 1
    filter: PositiveInt = 16
    commitment: NonNegativeFloat = 0.25
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _levels_agree(self) -> MCQ:
        if len(self.groups) != len(self.codes):
            raise ValueError(f"groups {self.groups} and codes {self.codes}: one of each a level")
        return self


Model = Annotated[DCT | Hyperprior | QRes | MCQ, Field(discriminator="kind")]


class CompressionTraining(Training):
    """How it is trained."""

    epochs: PositiveInt = Field(default=100, description="passes over the train crops")
    batch: PositiveInt = Field(default=8, description="windows in a step")
    learning_rate: PositiveFloat = Field(default=1.5e-3, description="step size after the warm-up")
    decay: Literal["constant", "cosine"] = Field(
        default="cosine", description="what the learning rate does after the warm-up"
    )
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.01,
        description="fraction of the training over which the learning rate grows from 0",
    )
    clip_norm: PositiveFloat | None = Field(
        default=1.0, description="largest norm of the gradient"
    )
    monitor: str = Field(
        default="rate_distortion_cost", description="validation score that chooses the checkpoint"
    )
    direction: Literal["higher", "lower"] = Field(
        default="lower", description="which way the monitored score is better"
    )
    validate_every: PositiveInt = Field(default=10, description="epochs between validations")
    checkpoint_every: PositiveInt = Field(default=200, description="steps between checkpoints")
    log_every: PositiveInt = Field(default=20, description="steps between rows of the history")


class CompressionEvaluation(Evaluation):
    """How the result is measured.

    Args:
        samples: Draws behind the diagnosis of the latents.
        qualities: Qualities at which every test picture is written to a file.
        baselines: Codecs that the same pictures are written with; ``jxl`` needs imagecodecs.
        effort: How hard the encoder looks for a better code of each picture, 0 to 3.
    """

    samples: PositiveInt = 2
    qualities: Annotated[tuple[Annotated[int, Field(ge=0, le=63)], ...], Field(min_length=3)] = (
        0, 12, 24, 36, 48, 60,
    )  # fmt: skip
    baselines: tuple[Baseline, ...] = ("jpeg", "webp", "avif", "jpeg2000")
    effort: Annotated[int, Field(ge=0, le=3)] = 0


class Config(Settings):
    """The settings of a run on image compression."""

    domain: Literal["compression"] = "compression"
    data: Data = Data()
    rates: Rates = Rates()
    model: Model = DCT()
    training: CompressionTraining = CompressionTraining()
    evaluation: CompressionEvaluation = CompressionEvaluation()


CONFIG = Config
