"""The integer tables that a cascade's codes are written and read by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy import ndarray
from torch import Tensor

from core.runtime.errors import UserError
from core.variational.quantization import frequency_table
from domains.compression.model.cascade import BANDS, CONTEXTS, SEEN, Cascade, contexts
from domains.compression.model.coder import PRECISION, Decoder, Encoder, Tables


@dataclass(frozen=True, eq=False)
class CodeTables:
    """Tables of all groups, level by level from the coarsest.

    Of a group first one for each band and context, which says whether there is a code, then one
    that says which. A group's activity is coded at all positions, then its codes where there are
    any: so contexts, which are activity only, are known in time.

    Args:
        tables: Level by level and group by group.
        groups: How many groups each level has.
        codes: How many codes each group of a level has.

    Raises:
        UserError: If the tables are not those of so many groups and codes.
    """

    tables: Tables
    groups: tuple[int, ...]
    codes: tuple[int, ...]

    def __post_init__(self) -> None:
        flags = [2] * (BANDS * CONTEXTS)
        levels = zip(self.groups, self.codes, strict=True)
        sizes = [size for groups, codes in levels for size in (*flags, codes) * groups]
        plain = not self.tables.escapes.any() and not self.tables.lowest.any()
        if self.tables.sizes.tolist() != sizes or not plain:
            raise UserError(
                f"mcq: {len(self.tables)} tables that are not those of {self.groups} groups of "
                f"{self.codes} codes; a damaged model, freeze it again"
            )

    @classmethod
    def counted(cls, cascades: Sequence[Cascade]) -> CodeTables:
        """Make them of the counts of levels, the coarsest first."""
        rows: list[ndarray] = []
        for cascade in cascades:
            flags = (-cascade.activity_nats.double()).exp()
            for group in range(len(cascade.books)):
                rows += [*_frequencies(flags[group].flatten(0, 1))]
                rows += [*_frequencies((-cascade.book(group).nats.double()).exp()[None])]
        groups = tuple(len(cascade.books) for cascade in cascades)
        codes = tuple(len(cascade.book(0).codebook) for cascade in cascades)
        return cls(Tables.categorical(rows), groups, codes)

    def write(
        self,
        encoder: Encoder,
        level: int,
        codes: Int64[Tensor, "group height width"],
        band: int,
        before: Int64[Tensor, "seen height width"],
    ) -> Float64[ndarray, "group height width"]:
        """Code a level; return the bits that each code costs."""
        lengths = np.zeros(codes.shape)
        maps = torch.cat([before, (codes > 0).long()])
        for group, symbols in enumerate(codes.numpy()):
            flags = self._flags(level, group, band, maps[group : group + SEEN])
            active = symbols > 0
            named = symbols[active] - 1
            which = np.full(named.shape, self._codes(level, group))
            for part, tables in ((active.astype(np.int32), flags), (named, which)):
                encoder.put(part, tables)
            lengths[group] = self.tables.code_length_bits(active.astype(np.int32), flags)
            lengths[group][active] += self.tables.code_length_bits(named, which)
        return lengths

    def read(
        self,
        decoder: Decoder,
        level: int,
        shape: Sequence[int],
        band: int,
        before: Int64[Tensor, "seen height width"],
    ) -> Int64[Tensor, "group height width"]:
        """Read a level of this shape.

        Raises:
            CorruptBitstream: If the stream ends before, or is none of these tables.
        """
        maps = [*before]
        codes = np.zeros(tuple(shape), np.int64)
        for group in range(len(codes)):
            flags = self._flags(level, group, band, torch.stack(maps[group : group + SEEN]))
            active = decoder.take(flags) > 0
            which = np.full(int(active.sum()), self._codes(level, group))
            codes[group][active] = decoder.take(which) + 1
            maps.append(torch.from_numpy(active).long())
        return torch.from_numpy(codes)

    def _flags(
        self, level: int, group: int, band: int, seen: Int64[Tensor, "seen height width"]
    ) -> ndarray:
        """Return the table of each position's activity."""
        start = self._codes(level, group) - (BANDS - band) * CONTEXTS
        return start + contexts(seen[None])[0].numpy()

    def _codes(self, level: int, group: int) -> int:
        """Return the table of a group's codes."""
        return (sum(self.groups[:level]) + group + 1) * (BANDS * CONTEXTS + 1) - 1


def _frequencies(masses: Tensor) -> ndarray:
    return frequency_table(masses, PRECISION).frequencies
