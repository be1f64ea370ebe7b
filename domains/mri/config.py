"""The settings of a run on accelerated MRI."""

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

from core.runtime.config import Section, Settings, Training

Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Acceleration = Annotated[float, Field(ge=1)]
Axis = Literal["axial", "coronal", "sagittal"]
Sampling = Literal[
    "equispaced", "random", "magic", "gaussian-1d", "gaussian-2d", "poisson", "radial", "spiral"
]


class Data(Section):
    """Which heads are learned from, how their k-space is simulated, and what it is tested on.

    Args:
        source: ``packaged`` takes the MNI152 template of the package nilearn, and two heads of
            Debian's mricron-data where they are installed; ``volumes`` a folder of NIfTI files;
            ``kspace`` a folder of fully sampled k-space.
        path: The folder.
        seed: Of all that is fixed, so that trainings with several seeds are tested on the same:
            heads of each split, arrangements of coils, masks, noise of validation and test.
        size: Side N of the pictures, N x N positions of k-space; k-space files keep their own.
        fov_mm: Field of view; a volume larger than that has a field as large as it is, one less
            than half as large a field a tenth larger than it is.
        axes: Along which the heads of the training are cut.
        test_axes: Along which the heads of validation and test are cut.
        span: From where to where a volume is cut, as shares of its extent.
        step: Every how many voxels it is cut for the training.
        valid_slices: Most slices that a model is chosen with, evenly spread (of each file where
            k-space is measured).
        test_slices: Most slices of each test subject (of each file), evenly spread; null takes
            all.
        blank: Slices of a smaller mean are left out; 1 is the 99.5th percentile of the head.
        valid_subjects: Whose heads a model is chosen with; none: the last slices of one head of
            the training, of which nothing else but slices of the same axis is trained on.
        test_subjects: Whose heads it is tested on; none: one that the seed chooses or, of a single
            one, the last slices.
        gap_mm: Distance between slices of one head that are in different splits.
        valid_fraction: Share of the slices of a head to choose a model with, where no subject is.
        test_fraction: Share of the slices of a head to test on, where there is but one.
        coils: Loops around the head.
        coil_sets: Arrangements of them that are trained on.
        sampling: How positions of k-space are chosen.
        accelerations: Positions divided by sampled positions.
        acs: Side of the square in the middle that is sampled fully, or lines of it.
        masks: Of each acceleration that are trained on.
        test_masks: Of each acceleration that are tested with.
        snr_db: Of the training: mean of the tissue over the standard deviation of the complex
            noise of a coil's picture, from which to which.
        test_snr_db: Of validation and test.
        noise_correlation: Of the noise of neighbouring coils, which then also differs in
            strength; 0 is white noise.
        phase_rad: Root mean square of the phase of a picture.
        contrast: Share of the train slices whose brightness is mapped anew.
        not_monotone: Share of those in which brighter may become darker.
        flips: Whether train slices are mirrored and turned by right angles.
    """

    source: Literal["packaged", "volumes", "kspace"] = "packaged"
    path: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    size: Annotated[int, Field(ge=16)] = 96
    fov_mm: PositiveFloat = 240.0
    axes: Annotated[tuple[Axis, ...], Field(min_length=1)] = ("axial", "coronal", "sagittal")
    test_axes: Annotated[tuple[Axis, ...], Field(min_length=1)] = ("axial",)
    span: tuple[Fraction, Fraction] = (0.2, 0.85)
    step: PositiveInt = 2
    valid_slices: PositiveInt = 8
    test_slices: PositiveInt | None = 16
    blank: NonNegativeFloat = 0.04
    valid_subjects: tuple[str, ...] = ()
    test_subjects: tuple[str, ...] = ()
    gap_mm: NonNegativeFloat = 10.0
    valid_fraction: Share = 0.15
    test_fraction: Share = 0.2
    coils: PositiveInt = 8
    coil_sets: PositiveInt = 80
    sampling: Sampling = "poisson"
    accelerations: Annotated[tuple[Acceleration, ...], Field(min_length=1)] = (5.0, 10.0)
    acs: NonNegativeInt = 16
    masks: PositiveInt = 20
    test_masks: PositiveInt = 4
    snr_db: tuple[float, float] = (24.0, 36.0)
    test_snr_db: float = 30.0
    noise_correlation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    phase_rad: NonNegativeFloat = 1.0
    contrast: Fraction = 0.5
    not_monotone: Fraction = 0.3
    flips: bool = True

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> Data:
        if (self.source == "packaged") != (self.path is None):
            raise ValueError(
                f"source {self.source!r} and path {self.path!r}: sources 'volumes' and 'kspace' "
                "need a path, 'packaged' has none"
            )
        return self

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Data:
        for name, (low, high) in (("span", self.span), ("snr_db", self.snr_db)):
            if low > high or (name == "span" and low == high):
                raise ValueError(
                    f"{name} from {low} to {high}: the first must be below the second"
                )
        if self.valid_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"valid_fraction {self.valid_fraction} and test_fraction {self.test_fraction}: "
                "together they must leave something to train on"
            )
        return self

    @model_validator(mode="after")
    def _a_head_is_in_one_split(self) -> Data:
        if shared := set(self.valid_subjects) & set(self.test_subjects):
            raise ValueError(
                f"valid_subjects and test_subjects: {', '.join(sorted(shared))} is in both"
            )
        return self


class MRITraining(Training):
    """How it is trained."""

    batch: PositiveInt = Field(default=1, description="slices in a step")


class Config(Settings):
    """The settings of a run on accelerated MRI."""

    domain: Literal["mri"] = "mri"
    data: Data = Data()
    training: MRITraining = MRITraining()


CONFIG = Config
