"""What a model sees at each step: what coils measured of some slices, and the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Complex64, Float32
from numpy.typing import NDArray
from torch import Tensor

from core.contract import Split
from core.runtime.order import generator
from domains.mri.config import Config
from domains.mri.data.coils import low_resolution_maps
from domains.mri.data.contrast import varied
from domains.mri.data.fourier import ifft2
from domains.mri.data.manifest import COILS, IMAGES, TISSUES, Dataset, Item, load, masks_of
from domains.mri.data.simulation import (
    deviation_of,
    measured,
    noise,
    noise_covariance,
    phase,
    with_phase,
)

Pixels = Float32[np.ndarray, "height width"]
CALIBRATION = 24  # side of the square of full k-space from which maps of measured coils are made


@dataclass(frozen=True, kw_only=True, eq=False)
class Slices:
    """Slices of one shape as they were scanned, with what is known of them.

    Args:
        kspace: Centred, orthonormal; zero where not sampled.
        mask: Which positions were sampled.
        truth: The picture without noise or, of measured k-space, what all of it says.
        acceleration: That was asked for.
        names: Of the slices.
        subjects: Whose heads.
        maps: True sensitivities, of unit root sum of squares; None of measured k-space.
        noise_covariance: True covariance :math:`E n n^H` of the coils' noise; None if unknown.
    """

    kspace: Complex64[Tensor, "batch coil height width"]
    mask: Bool[Tensor, "batch height width"]
    truth: Complex64[Tensor, "batch height width"]
    acceleration: Float32[Tensor, " batch"]
    names: tuple[str, ...]
    subjects: tuple[str, ...]
    maps: Complex64[Tensor, "batch coil height width"] | None = None
    noise_covariance: Complex64[Tensor, "batch coil coil"] | None = None

    def __len__(self) -> int:
        return len(self.kspace)

    @property
    def target(self) -> Float32[Tensor, "batch height width"]:
        """Magnitude of the truth."""
        return self.truth.abs()

    def to(self, device: torch.device | str) -> Slices:
        """Move to a device."""
        tensors = {
            one.name: value.to(device)
            for one in fields(self)
            if isinstance(value := getattr(self, one.name), Tensor)
        }
        return replace(self, **tensors)


def batches(config: Config, folder: Path, split: Split) -> SliceBatches:
    """Return the batches of one split of the prepared data."""
    return SliceBatches(load(folder), split, config)


@dataclass(frozen=True)
class _Example:
    """A slice, and how it is scanned where that is fixed: index of acceleration and of mask."""

    item: Item
    acceleration: int = 0
    number: int = 0


@dataclass(frozen=True, eq=False)
class SliceBatches:
    """The batches of one split. A batch is a function of (seed, epoch, index) alone.

    ``train``: every slice once an epoch in random order, each time with another contrast, phase,
    arrangement of coils, noise, acceleration and mask. A last batch that is not full is left out,
    unless it is the only one.

    ``valid`` and ``test``: every slice once at each acceleration, in order, the same in every
    epoch and for every ``seed``; with coils and masks that are not trained on.

    Slices of one batch are of one shape.

    Args:
        dataset: The prepared data.
        split: Which part.
        config: The settings.
    """

    dataset: Dataset
    split: Split
    config: Config
    _orders: dict[int, list[list[_Example]]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """Steps in one epoch."""
        return len(self._order(0))

    def batch(self, epoch: int, index: int) -> Slices:
        """Batch ``index`` of ``epoch``; validation and test are the same in every epoch."""
        chosen = self._order(epoch)[index]
        if self.split != "train":
            seed = self.config.data.seed
            drawn = [generator(seed, self.split, one.number) for one in chosen]
        else:
            seed = self.config.seed
            drawn = [
                generator(seed, "slices", epoch, index, place) for place in range(len(chosen))
            ]
        scan = self._simulated if self.dataset.simulated else self._measured
        return _stacked([scan(one, random) for one, random in zip(chosen, drawn, strict=True)])

    # Which slices

    @cached_property
    def examples(self) -> list[_Example]:
        """Slices of the split; of validation and test each at every acceleration."""
        items = self.dataset.items(self.split)
        if self.split == "train":
            return [_Example(item) for item in items]
        count = len(self.config.data.accelerations)
        return [
            _Example(item, acceleration, place * count + acceleration)
            for place, item in enumerate(items)
            for acceleration in range(count)
        ]

    @cached_property
    def _buckets(self) -> list[list[_Example]]:
        """Examples of one shape each."""
        found: dict[tuple[int, ...], list[_Example]] = {}
        for one in self.examples:
            found.setdefault(self.dataset.shape(one.item), []).append(one)
        return list(found.values())

    def _order(self, epoch: int) -> list[list[_Example]]:
        epoch = epoch if self.split == "train" else 0
        if epoch not in self._orders:
            self._orders.clear()
            self._orders[epoch] = self._drawn(epoch)
        return self._orders[epoch]

    def _drawn(self, epoch: int) -> list[list[_Example]]:
        size = self.config.training.batch
        if self.split != "train":
            return [part for bucket in self._buckets for part in _parts(bucket, size)]
        random = generator(self.config.seed, "order", epoch)
        found: list[list[_Example]] = []
        for bucket in self._buckets:
            shuffled = [bucket[place] for place in random.permutation(len(bucket))]
            parts = _parts(shuffled, size)
            found += parts if len(parts) == 1 or len(parts[-1]) == size else parts[:-1]
        return [found[place] for place in random.permutation(len(found))]

    # How they are scanned

    def _simulated(self, one: _Example, random: np.random.Generator) -> Slices:
        data, train = self.config.data, self.split == "train"
        picture = self._picture(one.item, random)
        snr_db = random.uniform(*data.snr_db) if train else data.test_snr_db
        shape = (picture.shape[0], picture.shape[1])
        truth = torch.from_numpy(with_phase(picture, phase(shape, data.phase_rad, random)))
        maps = torch.from_numpy(self._maps(one, random))
        covariance = noise_covariance(
            len(maps), deviation_of(picture, snr_db), data.noise_correlation, random
        )
        drawn = torch.from_numpy(noise(covariance, shape, random))
        mask, acceleration = self._mask(one, shape, random)
        return _one(
            measured(truth, maps, drawn, mask),
            mask,
            truth,
            acceleration,
            one.item,
            maps,
            torch.from_numpy(covariance.astype(np.complex64)),
        )

    def _measured(self, one: _Example, random: np.random.Generator) -> Slices:
        array = self.dataset.array(one.item.entry.array)
        full = np.array(array[one.item.entry.first + one.item.place])
        maps = torch.from_numpy(low_resolution_maps(full, CALIBRATION))
        kspace = torch.from_numpy(full)
        truth = (maps.conj() * ifft2(kspace)).sum(0)
        mask, acceleration = self._mask(one, (full.shape[1], full.shape[2]), random)
        return _one(kspace * mask, mask, truth, acceleration, one.item)

    def _picture(self, item: Item, random: np.random.Generator) -> Pixels:
        data, entry = self.config.data, item.entry
        picture = np.array(self.dataset.array(IMAGES)[entry.first + item.place])
        if self.split != "train":
            return picture
        tissues = None
        if entry.tissues is not None:
            shares = self.dataset.array(TISSUES)[entry.tissues + item.place]
            tissues = np.asarray(shares, np.float32)
        if random.random() < data.contrast:
            picture = varied(picture, tissues, random, data.not_monotone)
        return turned(picture, int(random.integers(8))) if data.flips else picture

    def _maps(self, one: _Example, random: np.random.Generator) -> NDArray[np.complex64]:
        sets = self.config.data.coil_sets
        array = self.dataset.array(COILS)
        if self.split == "train":
            return np.array(array[random.integers(sets)])
        return np.array(array[sets + one.number % (len(array) - sets)])

    def _mask(
        self, one: _Example, shape: tuple[int, int], random: np.random.Generator
    ) -> tuple[Bool[Tensor, "height width"], float]:
        train, accelerations = self.split == "train", self.config.data.accelerations
        array = self.dataset.array(masks_of(shape, train))
        if train:
            acceleration, place = (int(random.integers(size)) for size in array.shape[:2])
        else:
            acceleration = one.acceleration
            place = one.number // len(accelerations) % array.shape[1]
        mask = torch.from_numpy(np.array(array[acceleration, place]))
        return mask, accelerations[acceleration]


def turned(picture: Pixels, turn: int) -> Pixels:
    """Return one of the eight ways to lay a square: mirrored, upside down, transposed.

    Args:
        picture: Of as many rows as columns.
        turn: 0 to 7, a bit for each.
    """
    picture = picture[:, ::-1] if turn & 1 else picture
    picture = picture[::-1] if turn & 2 else picture
    return np.ascontiguousarray(picture.T if turn & 4 else picture)


def _parts(examples: Sequence[_Example], size: int) -> list[list[_Example]]:
    return [list(examples[start : start + size]) for start in range(0, len(examples), size)]


def _one(
    kspace: Tensor,
    mask: Tensor,
    truth: Tensor,
    acceleration: float,
    item: Item,
    maps: Tensor | None = None,
    covariance: Tensor | None = None,
) -> Slices:
    return Slices(
        kspace=kspace[None],
        mask=mask[None],
        truth=truth[None],
        acceleration=torch.tensor([acceleration]),
        names=(item.name,),
        subjects=(item.entry.subject,),
        maps=None if maps is None else maps[None],
        noise_covariance=None if covariance is None else covariance[None],
    )


def _stacked(parts: Sequence[Slices]) -> Slices:
    """Lay examples of one shape into one batch."""
    first = parts[0]
    tensors = {
        one.name: torch.cat([getattr(part, one.name) for part in parts])
        for one in fields(first)
        if isinstance(getattr(first, one.name), Tensor)
    }
    names = tuple(name for part in parts for name in part.names)
    subjects = tuple(name for part in parts for name in part.subjects)
    return replace(first, names=names, subjects=subjects, **tensors)
