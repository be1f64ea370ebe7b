"""Randomness as a function of the seed and a place, so that nothing has to be replayed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch

ItemT = TypeVar("ItemT")
BatchT = TypeVar("BatchT")


def derive(seed: int, *place: str | int) -> int:
    """Return a 63-bit seed for a place such as ``("train", step)``: equal places, equal streams.

    Example:
        >>> derive(0, "train", 1) == derive(0, "train", 1) != derive(0, "train", 2)
        True
    """
    text = "/".join(map(str, (seed, *place)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *place: str | int) -> np.random.Generator:
    """A numpy generator for a place."""
    return np.random.default_rng(derive(seed, *place))


def seed_everything_at(seed: int, *place: str | int) -> None:
    """Seed torch's default generators for a place, on every device."""
    value = derive(seed, *place)
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(value)


@dataclass(frozen=True)
class Shuffled(Generic[ItemT, BatchT]):
    """Batches of a map-style data set in an order that (seed, epoch) alone decides.

    Args:
        examples: Indexable and sized.
        batch_size: Examples in a batch; the last, smaller batch is kept.
        collate: Turns a list of examples into a batch.
        seed: The run's seed.
        shuffle: Off for validation and test.
    """

    examples: Sequence[ItemT]
    batch_size: int
    collate: Callable[[list[ItemT]], BatchT]
    seed: int
    shuffle: bool = True

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """The order of the examples in an epoch."""
        n = len(self.examples)
        return (
            generator(self.seed, "order", epoch).permutation(n) if self.shuffle else np.arange(n)
        )

    def batch(self, epoch: int, index: int) -> BatchT:
        """Batch ``index`` of ``epoch``."""
        chosen = self.order(epoch)[index * self.batch_size : (index + 1) * self.batch_size]
        return self.collate([self.examples[i] for i in chosen])
