r"""Range coding of integers by tables of stored frequencies.

A table has an integer frequency for each of its symbols; the frequencies of a table sum to
:math:`2^b` and a symbol costs :math:`b - \log_2 f` bits. Tables are part of a frozen model, so
that a decoder computes no probability.

Symbols are coded table by table, within a table in the order in which they are given: an order
that encoder and decoder both know from the tables' indexes alone. What a table with an escape has
no symbol for is coded after them, by its distance m from the table's end: the bits of m less one
(5 bits), which end (1 bit), and all bits of m but the leading one.

References:
    Martin, "Range Encoding: an Algorithm for Removing Redundancy from a Digitised Message", 1979.
    Elias, "Universal Codeword Sets and Representations of the Integers", IEEE Transactions on
    Information Theory 21, 1975, for the lengths in front of the bits.
    Bamler, "Understanding Entropy Coding With Asymmetric Numeral Systems (ANS): a Statistician's
    Perspective", 2022 (arXiv:2201.01741), for constriction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import constriction
import numpy as np
import torch
from jaxtyping import Float64, Int, Int32, Integer
from numpy import ndarray

from core.runtime.errors import UserError
from core.variational.distributions import UniformConvolvedNormal
from core.variational.quantization import frequency_table, grid_masses
from domains.compression.model.errors import CorruptBitstream
from domains.compression.model.program import SCALES, scale_of

_stream: Any = constriction.stream  # pyright: ignore[reportAttributeAccessIssue]

PRECISION = 16
"""Bits of the frequencies that are made here, and the most that are allowed."""
FARTHEST = 1 << 24
"""The largest magnitude of a symbol."""

_REACH, _WIDEST = 6.0, 255  # standard deviations and symbols on each side of a Gaussian table
_WEIGHT_BITS, _WORD_BITS = 24, 32  # constriction's fixed point and its unit of output
_LENGTH_BITS = 5


@dataclass(frozen=True, eq=False)
class Tables:
    """Frequencies of symbols, table by table; a table of one symbol is never coded.

    Args:
        frequencies: Of all symbols of the first table, then of the second and so on; each at
            least 1, those of a table sum to the same power of two, at most ``2 ** PRECISION``.
        sizes: How many symbols each table has, an escape included.
        lowest: The first symbol of each table; the others follow it.
        escapes: 1 where the last symbol of a table is an escape to any other value, 0 where not.

    Raises:
        ValueError: If they are not so.

    Example:
        >>> tables = Tables.categorical([[2, 1, 1], [1, 1, 2]])
        >>> tables.code_length_bits(np.array([0, 0]), np.array([0, 1]))
        array([1., 2.])
    """

    frequencies: ndarray
    sizes: ndarray
    lowest: ndarray
    escapes: ndarray

    def __post_init__(self) -> None:
        for name in ("frequencies", "sizes", "lowest", "escapes"):
            given = np.asarray(getattr(self, name))
            if given.dtype.kind not in "iu" or given.ndim != 1:
                raise ValueError(f"tables: {name} {given.dtype}{given.shape}; a row of integers")
            object.__setattr__(self, name, given.astype(np.int64))
        count = len(self.sizes)
        if not count or {len(self.lowest), len(self.escapes)} != {count}:
            lengths = (count, len(self.lowest), len(self.escapes))
            raise ValueError(f"tables: {lengths} sizes, lowest and escapes; as many of each")
        self._check_values()

    def _check_values(self) -> None:
        if not (self.sizes >= 1).all() or self.sizes.sum() != len(self.frequencies):
            raise ValueError(
                f"tables: sizes from {self.sizes.min()} that sum to {self.sizes.sum()}; at least "
                f"1 and the {len(self.frequencies)} frequencies in all"
            )
        if not ((self.escapes == 0) | (self.escapes == 1) & (self.sizes >= 2)).all():
            raise ValueError("tables: an escape that is not 0 or 1, or that is all of a table")
        if not (np.abs(self.lowest) + self.sizes < FARTHEST).all():
            raise ValueError(f"tables: symbols beyond {FARTHEST}")
        small, large = self.frequencies.min(), self.frequencies.max()
        if small < 1 or large > 1 << PRECISION:
            raise ValueError(f"tables: frequencies {small} to {large}; 1 to {1 << PRECISION}")
        sums = np.unique(np.add.reduceat(self.frequencies, self._starts))
        total = int(sums[0])
        if len(sums) > 1 or total & (total - 1) or total > 1 << PRECISION:
            raise ValueError(
                f"tables: frequencies sum to {sums[:3].tolist()}; one power of two up to "
                f"{1 << PRECISION} for all"
            )

    @classmethod
    def gaussian(cls) -> Tables:
        """Make the tables of the scale indexes of `domains.compression.model.program`.

        A residual is an integer counted from the mean of a Normal of the scale; each table reaches
        6 standard deviations, at most 255 symbols, to both sides and has an escape. That of index
        0 has the symbol 0 alone.
        """
        rows, lowest = [np.array([1 << PRECISION])], [0]
        for scale in scale_of(torch.arange(SCALES, dtype=torch.float64))[1:].tolist():
            reach = min(max(2, math.ceil(_REACH * scale)), _WIDEST)
            prior = UniformConvolvedNormal(
                torch.zeros(1, dtype=torch.float64), torch.tensor([scale]).double(), event_dims=0
            )
            masses = grid_masses(prior, -reach, reach)[0]
            rows.append(frequency_table(masses, PRECISION).frequencies)
            lowest.append(-reach)
        escapes = np.minimum(np.arange(SCALES), 1)
        return cls(np.concatenate(rows), np.array([*map(len, rows)]), np.array(lowest), escapes)

    @classmethod
    def categorical(cls, frequencies: Sequence[Any] | ndarray) -> Tables:
        """Make tables whose symbols count from 0, such as the codes of a codebook.

        Args:
            frequencies: A row of integers for each table, which may be of several lengths; see
                `core.variational.quantization.frequency_table`.
        """
        rows = [np.asarray(row) for row in frequencies]
        none = np.zeros(len(rows), np.int64)
        return cls(np.concatenate(rows), np.array([*map(len, rows)]), none, none)

    @classmethod
    def restore(cls, state: Mapping[str, ndarray]) -> Tables:
        """Return the tables of which `state` gave the arrays.

        Raises:
            UserError: If they are not arrays of tables.
        """
        try:
            return cls(**{name: np.asarray(array) for name, array in state.items()})
        except (TypeError, ValueError) as error:
            raise UserError(f"{error}; a damaged model, freeze it again") from error

    def state(self) -> dict[str, Int32[ndarray, " any"]]:
        """Return them as arrays of integers, by name."""
        names = ("frequencies", "sizes", "lowest", "escapes")
        return {name: getattr(self, name).astype(np.int32) for name in names}

    def __len__(self) -> int:
        return len(self.sizes)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Tables.restore, (self.state(),))

    @cached_property
    def precision(self) -> int:
        """Bits of a frequency: those of a table sum to two to the power of it."""
        return int(self.frequencies[: self.sizes[0]].sum()).bit_length() - 1

    @cached_property
    def models(self) -> list[Any]:
        """What constriction codes the symbols of each table with; None for a single symbol."""
        rows = np.split(self.frequencies, self._starts[1:])
        return [_model(row, self.precision) if len(row) > 1 else None for row in rows]

    @cached_property
    def lengths(self) -> list[Float64[ndarray, " symbol"]]:
        """Bits that each symbol costs, by table."""
        return np.split(self.precision - np.log2(self.frequencies), self._starts[1:])

    def code_length_bits(
        self, symbols: Integer[ndarray, "*shape"], table: Integer[ndarray, "*shape"]
    ) -> Float64[ndarray, "*shape"]:
        """Return the bits that each symbol costs by the stored frequencies, escapes included.

        Args:
            symbols: What would be coded.
            table: Index of each one's table.

        Raises:
            ValueError: If a table has neither a symbol for one nor an escape.
        """
        symbols, table = np.asarray(symbols), np.asarray(table)
        _check_indexes(table, len(self))
        place = symbols.astype(np.int64) - self.lowest[table]
        last = self.sizes[table] - 1
        escapes = self.escapes[table] == 1
        outside = (place < 0) | (place > last) | (escapes & (place == last))
        if (outside & ~escapes).any():
            raise ValueError(_no_symbol(symbols[outside & ~escapes]))
        bits = np.concatenate(self.lengths)[self._starts[table] + np.where(outside, last, place)]
        away = place[outside]
        bits[outside] += _LENGTH_BITS + _bit_length(np.maximum(-away, away - last[outside] + 1))
        return bits

    @cached_property
    def _starts(self) -> ndarray:
        return np.cumsum(self.sizes) - self.sizes


class Encoder:
    """Writes symbols into one stream.

    Args:
        tables: What they are coded by.

    Example:
        >>> encoder = Encoder(Tables.gaussian())
        >>> encoder.put(np.array([3, -1, 500], np.int32), np.array([20, 1, 20]))
        >>> payload = encoder.finish()
        >>> Decoder(Tables.gaussian(), payload).take(np.array([20, 1, 20]))
        array([  3,  -1, 500], dtype=int32)
    """

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self._coder = _stream.queue.RangeEncoder()

    def put(self, symbols: Integer[ndarray, "*shape"], table: Integer[ndarray, "*shape"]) -> None:
        """Code symbols, each by its table.

        Raises:
            ValueError: If a table has neither a symbol for one nor an escape.
        """
        symbols = np.asarray(symbols, np.int32)
        order, runs = _grouped(np.asarray(table), len(self.tables))
        values = symbols.ravel()[order]
        far = [self._put_run(number, values[start:stop]) for number, start, stop in runs]
        self._put_far(np.concatenate([np.zeros(0, np.int64), *far]))

    def _put_run(self, number: int, values: Int32[ndarray, " symbol"]) -> ndarray:
        """Code the symbols of one table; return the distances that its escapes leave to code.

        A distance is negative below the table.
        """
        tables = self.tables
        last = int(tables.sizes[number]) - 1
        escapes = bool(tables.escapes[number])
        place = values - np.int32(tables.lowest[number])
        # As an unsigned number what is below the table is far above it.
        outside = place.view(np.uint32) > last - escapes
        far = np.zeros(0, np.int64)
        if outside.any():
            if not escapes or np.abs(values[outside].astype(np.int64)).max() > FARTHEST:
                raise ValueError(_no_symbol(values[outside]))
            away = place[outside].astype(np.int64)
            far = np.where(away < 0, away, away - (last - 1))
            place[outside] = last
        if tables.models[number] is not None:
            self._coder.encode(place, tables.models[number])
        return far

    def _put_far(self, far: Int[ndarray, " escape"]) -> None:
        if not len(far):
            return
        distance = np.abs(far)
        lengths = _bit_length(distance)
        owner, index = _bits_of(lengths)
        bits = np.where(index == 0, far[owner] < 0, distance[owner] >> np.maximum(index - 1, 0))
        self._coder.encode((lengths - 1).astype(np.int32), _LENGTHS)
        self._coder.encode((bits & 1).astype(np.int32), _BIT)

    def finish(self) -> bytes:
        """Return the shortest stream of bytes that decodes to these symbols."""
        words = self._coder.get_compressed()
        done, (low, width) = self._coder.pos()
        start, end = words[:done].astype(">u4").tobytes(), words[done:].astype(">u4").tobytes()
        point = int.from_bytes(end.ljust(8, b"\0"), "big")
        carry, end = divmod(_roundest(point, (point - low) % (1 << 64), width), 1 << 64)
        start = (int.from_bytes(start, "big") + carry).to_bytes(len(start), "big")
        return start + end.to_bytes(8, "big").rstrip(b"\0")


class Decoder:
    """Reads symbols from a stream.

    A damaged stream is only noticed when it runs out, or ends late, or is none at all; that it is
    whole is for a checksum to say.

    Args:
        tables: What it was coded by.
        payload: The stream.
    """

    def __init__(self, tables: Tables, payload: bytes) -> None:
        self.tables = tables
        self._size_bits = 8 * len(payload)
        self._bits, self._symbols = 0.0, 0
        # The coder looks up to two words ahead.
        padded = payload + bytes(-len(payload) % 4 + 8)
        words = np.frombuffer(padded, ">u4").astype(np.uint32)
        self._coder = _stream.queue.RangeDecoder(words)

    @property
    def position_bytes(self) -> int:
        """How many bytes what was read so far is worth, within 4."""
        return min(math.ceil(self._bits / 8), self._size_bits // 8)

    def take(self, table: Integer[ndarray, "*shape"]) -> Int32[ndarray, "*shape"]:
        """Read symbols, in the shape of the indexes of their tables.

        Raises:
            CorruptBitstream: If the stream is none of these tables, or ends before.
        """
        table = np.asarray(table)
        order, runs = _grouped(table, len(self.tables))
        values = np.zeros(table.size, np.int32)
        escaped = [start + self._take_run(n, values[start:stop]) for n, start, stop in runs]
        numbers = np.repeat([number for number, *_ in runs], [*map(len, escaped)])
        if len(numbers):
            values[np.concatenate(escaped)] = self._take_far(numbers)
        symbols = np.empty_like(values)
        symbols[order] = values
        return symbols.reshape(table.shape)

    def _take_run(self, number: int, values: Int32[ndarray, " symbol"]) -> ndarray:
        """Fill in the symbols of one table and return the places of its escapes."""
        tables = self.tables
        model = tables.models[number]
        if model is not None:
            values[:] = self._decode(model, len(values))
            self._advance(float(tables.lengths[number][values].sum()), len(values))
        last = tables.sizes[number] - 1 if tables.escapes[number] else -1
        escaped = np.flatnonzero(values == last)
        values += np.int32(tables.lowest[number])
        return escaped

    def _take_far(self, number: Int[ndarray, " escape"]) -> Int[ndarray, " escape"]:
        """Read what escaped, given the table of each."""
        lengths = self._decode(_LENGTHS, len(number)).astype(np.int64) + 1
        # Before they are read: so many bits as a damaged stream may ask for are not there.
        self._advance(float(_LENGTH_BITS * len(number) + lengths.sum()), int(lengths.sum()))
        owner, index = _bits_of(lengths)
        bits = self._decode(_BIT, len(owner)).astype(np.int64)
        above = bits[index == 0] == 0
        powers = np.where(index == 0, 0, bits << np.maximum(index - 1, 0))
        distance = (1 << (lengths - 1)) + np.add.reduceat(powers, np.cumsum(lengths) - lengths)
        low = self.tables.lowest[number]
        high = low + self.tables.sizes[number] - 2
        values = np.where(above, high + distance, low - distance)
        if np.abs(values).max() > FARTHEST:
            raise _corrupt("an escape to beyond what is coded")
        return values

    def finish(self) -> None:
        """Check that nothing much is left over.

        Raises:
            CorruptBitstream: If there is more than what was read can have taken.
        """
        left = self._size_bits - self._bits - self._symbols * _LOSS_BITS
        if left > 2 * _WORD_BITS + 1:
            raise _corrupt(f"{math.ceil(left / 8)} bytes are left over of {self._size_bits // 8}")

    def _decode(self, model: Any, count: int) -> Int32[ndarray, " count"]:
        try:
            return self._coder.decode(model, count)
        except (AssertionError, ValueError) as error:
            raise _corrupt("no stream of this model") from error
        except BaseException as error:
            # A panic of constriction's is no Exception; neither is an interrupt, which passes.
            if type(error).__name__ != "PanicException":
                raise
            raise _corrupt("no stream of this model") from error

    def _advance(self, bits: float, symbols: int) -> None:
        """Count bits; more than there are, and one word, only come from beyond the end."""
        self._bits += bits
        self._symbols += symbols
        if self._bits > self._size_bits + _WORD_BITS + 1:
            raise _corrupt(f"ends after {self._size_bits // 8} bytes, before its symbols do")


def _model(frequencies: Int[ndarray, " symbol"], precision: int) -> Any:
    """Return constriction's model whose fixed point is these frequencies, and nothing else."""
    # Categorical(p, perfect=False) gives symbol i the numbers of 24 bits from
    # trunc((p_0 + ... + p_(i-1)) * s) + i on, with s = (2^24 - n) / (p_0 + ... + p_(n-1)). With
    # weights w that sum to 2^24 and p = w - 1 the scale s is exactly 1, all sums are integers
    # below 2^53, and symbol i starts at w_0 + ... + w_(i-1): nothing is rounded anywhere.
    weights = frequencies << (_WEIGHT_BITS - precision)
    return _stream.model.Categorical((weights - 1).astype(np.float64), perfect=False)


_LENGTHS = _model(np.ones(1 << _LENGTH_BITS, np.int64), _LENGTH_BITS)
_BIT = _model(np.ones(2, np.int64), 1)
_LOSS_BITS = -math.log2(1 - 2.0 ** (_WEIGHT_BITS - _WORD_BITS))
"""The most that a symbol costs above its code length: the coder's interval is at least 2^32 wide
and cut into 2^24 equal parts, what remains is lost."""


def _check_indexes(table: ndarray, count: int) -> None:
    if table.dtype.kind not in "iu":
        raise ValueError(f"coder: indexes of tables are {table.dtype}; integers")
    if table.size and not 0 <= table.min() <= table.max() < count:
        raise ValueError(f"coder: tables {table.min()} to {table.max()}; 0 to {count - 1}")


def _grouped(table: ndarray, count: int) -> tuple[ndarray, list[tuple[int, int, int]]]:
    """Return the order table by table, and each table that occurs with where its part is."""
    _check_indexes(table, count)
    flat = table.ravel().astype(np.min_scalar_type(count))  # few bits are sorted by radix
    stops = np.cumsum(np.bincount(flat, minlength=count)).tolist()
    parts = zip(range(count), [0, *stops[:-1]], stops, strict=True)
    return np.argsort(flat, kind="stable"), [part for part in parts if part[1] < part[2]]


def _bit_length(positive: Int[ndarray, " number"]) -> Int[ndarray, " number"]:
    return np.frexp(positive.astype(np.float64))[1].astype(np.int64)


def _bits_of(lengths: Int[ndarray, " number"]) -> tuple[ndarray, ndarray]:
    """Return for each bit of numbers of these lengths whose it is, and its index there."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _roundest(point: int, above: int, width: int) -> int:
    """Return the number with the most zero bytes at its end, up to 8, in an interval.

    Args:
        point: A number in it.
        above: How far that is from its lower end.
        width: Of the interval.
    """
    for zeros in range(8, 0, -1):
        unit = 1 << (8 * zeros)
        down = point // unit * unit
        if point - down <= above:
            return down
        if down + unit - point < width - above:
            return down + unit
    return point


def _no_symbol(symbols: ndarray) -> str:
    symbol = int(symbols.flat[0])
    return f"coder: the table has no symbol {symbol}, and no escape to it"


def _corrupt(problem: str) -> CorruptBitstream:
    return CorruptBitstream("stream", f"{problem}; copy or make the file again")
