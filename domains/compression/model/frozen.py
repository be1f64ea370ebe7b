"""A model made fast and exact: what files are written and read with."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from domains.compression.config import Rates

Latents = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Halo:
    """Pixels around the part of a picture that is coded, which its transform may look at.

    Each is a multiple of the model's stride, 0 at a border of the picture.
    """

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Coded:
    """A picture, or a tile of one, as a stream.

    Args:
        payload: The stream.
        latents: What it decodes to: integers of shape ``(channel, height, width)`` by group.
        bits: What the frozen tables say that each group costs, in bits, by group.
        rate_map: The same for each block of 8 x 8 pixels, of shape ``(height, width)``; None if
            the model does not say.
    """

    payload: bytes
    latents: Latents
    bits: Mapping[str, float]
    rate_map: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a frozen model is from; it travels in its file and does not change its identity.

    Args:
        code: Version of the code that trained it.
        seed: Of its training.
        settings: Its complete settings as YAML.
        data: The data card of what it was trained on: source, licence, fingerprint, facts.
        photographs: A line for each photograph: name, licence, SHA-256.
        training: What the training took: steps, CPU-seconds, device.
    """

    code: str = ""
    seed: int = 0
    settings: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    photographs: Sequence[Mapping[str, str]] = ()
    training: Mapping[str, Any] = field(default_factory=dict)


class Frozen(abc.ABC):
    """A model whose entropy path is fixed; one for each kind of model.

    Attributes:
        kind: Of the model's settings.
        rates: The scale of rates.
        stride: Sides are padded to a multiple of it.
        halo: Pixels that a tile's transforms look at on each side, a multiple of the stride.
        levels: Names of the levels that a file decodes progressively in, from the coarsest.
        identity: Hash of everything that decoding depends on, 8 bytes.
        provenance: Where it is from.
    """

    kind: str
    rates: Rates
    stride: int
    halo: int
    levels: tuple[str, ...]
    identity: bytes
    provenance: Provenance

    @abc.abstractmethod
    def encode(
        self,
        pixels: UInt8[Tensor, "colour height width"],
        rate: int,
        effort: int = 0,
        halo: Halo | None = None,
    ) -> Coded:
        """Code a picture whose sides, the halo included, are multiples of the stride.

        Args:
            pixels: With the halo around what is coded.
            rate: Rate index.
            effort: How hard a better code is looked for, 0 to 3.
            halo: What of the pixels is only looked at.
        """

    @abc.abstractmethod
    def decode(
        self, payload: bytes, height: int, width: int, rate: int, level: int | None = None
    ) -> Latents:
        """Read the latents of a picture of this padded size.

        Args:
            payload: The stream; of a damaged one anything may come, or `CorruptBitstream`.
            height: A multiple of the stride.
            width: Likewise.
            rate: Rate index.
            level: How many levels to read; the others are what the prior expects.

        Raises:
            CorruptBitstream: If the stream cannot be of this model and size.
        """

    @abc.abstractmethod
    def render(
        self, latents: Latents, rate: int
    ) -> UInt8[Tensor, "colour padded_height padded_width"]:
        """Return the picture that latents stand for."""

    @abc.abstractmethod
    def to(self, device: torch.device | str) -> Frozen:
        """Return it on a device."""

    @abc.abstractmethod
    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all its tensors, and all else as JSON can hold it, without the provenance."""
