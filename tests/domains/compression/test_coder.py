"""Range coding by stored frequencies, against a coder in Python's integers and against log2."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import constriction
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import ndarray
from scipy.stats import norm

from core.runtime.errors import UserError
from domains.compression.model.coder import FARTHEST, PRECISION, Decoder, Encoder, Tables
from domains.compression.model.errors import CorruptBitstream
from domains.compression.model.program import SCALES, scale_of

GAUSSIAN = Tables.gaussian()
SIGMA = scale_of(torch.arange(SCALES).double()).numpy()


def coded(tables: Tables, symbols: ndarray, table: ndarray) -> bytes:
    encoder = Encoder(tables)
    encoder.put(np.asarray(symbols, np.int32), np.asarray(table))
    return encoder.finish()


def decoded(tables: Tables, payload: bytes, table: ndarray) -> ndarray:
    decoder = Decoder(tables, payload)
    symbols = decoder.take(np.asarray(table))
    decoder.finish()
    return symbols


def drawn(count: int, seed: int, wide: float = 1.0) -> tuple[ndarray, ndarray]:
    rng = np.random.default_rng(seed)
    table = rng.integers(0, SCALES, count)
    symbols = np.rint(rng.normal(size=count) * SIGMA[table] * wide).astype(np.int32)
    return np.where(table == 0, 0, symbols).astype(np.int32), table


def random_frequencies(rng: np.random.Generator, symbols: int, precision: int) -> ndarray:
    cuts = np.sort(rng.choice(np.arange(1, 1 << precision), symbols - 1, replace=False))
    return np.diff([0, *cuts, 1 << precision])


def interval(frequencies: ndarray, symbols: ndarray) -> tuple[int, int, int]:
    """Range coding as the textbook has it, in integers of any length: start, width and bits.

    The width is cut into 2^24 equal parts, and made wider by a word when it is below 2^32.
    """
    weights = [(each << 24) // int(frequencies.sum()) for each in frequencies.tolist()]
    starts = [sum(weights[:symbol]) for symbol in range(len(weights))]
    low, width, bits = 0, (1 << 64) - 1, 64
    for symbol in symbols.tolist():
        part = width >> 24
        low, width = low + part * starts[symbol], part * weights[symbol]
        if width < 1 << 32:
            low, width, bits = low << 32, width << 32, bits + 32
    return low, width, bits


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("precision", [4, 11, 16])
def test_a_stream_is_the_interval_that_the_stored_integers_alone_give(
    seed: int, precision: int
) -> None:
    rng = np.random.default_rng(seed)
    frequencies = random_frequencies(rng, int(rng.integers(2, 16)), precision)
    probabilities = frequencies / frequencies.sum()
    symbols = rng.choice(len(frequencies), 1500, p=probabilities).astype(np.int32)
    payload = coded(Tables.categorical([frequencies]), symbols, np.zeros(1500, np.int64))
    low, width, bits = interval(frequencies, symbols)
    point = int.from_bytes(payload, "big") << (bits - 8 * len(payload))
    assert low <= point < low + width
    assert len(payload) <= math.ceil((bits - math.log2(width)) / 8)


def test_equal_integers_give_equal_streams_however_they_are_held() -> None:
    symbols, table = drawn(5000, 0)
    payload = coded(GAUSSIAN, symbols, table)
    again = Tables.restore({name: a.astype("i8") for name, a in GAUSSIAN.state().items()})
    assert coded(again, symbols, table.astype(np.uint8)) == payload
    assert coded(copy.deepcopy(GAUSSIAN), symbols, table.astype(np.int32)) == payload
    assert coded(pickle.loads(pickle.dumps(GAUSSIAN)), symbols, table) == payload


def test_a_stream_of_given_integers_never_changes() -> None:
    tables = Tables(
        frequencies=np.array([1, 9, 5, 1, 16, 7, 9]),
        sizes=np.array([4, 1, 2]),
        lowest=np.array([-1, 0, 5]),
        escapes=np.array([1, 0, 0]),
    )
    symbols = [0, 5, 1, 0, -1, 6, 0, 300, 0, 5, -70000, 0, 1, 6]
    table = [0, 2, 0, 1, 0, 2, 0, 0, 1, 2, 0, 0, 0, 2]
    payload = coded(tables, np.array(symbols), np.array(table))
    assert payload.hex() == "6bc124d27544f506"
    assert decoded(tables, payload, np.array(table)).tolist() == symbols


def test_every_symbol_of_every_gaussian_table_can_be_coded() -> None:
    table = np.repeat(np.arange(SCALES), GAUSSIAN.sizes - GAUSSIAN.escapes)
    symbols = np.concatenate(
        [
            low + np.arange(size - escape)
            for low, size, escape in zip(
                GAUSSIAN.lowest, GAUSSIAN.sizes, GAUSSIAN.escapes, strict=True
            )
        ]
    )
    assert np.array_equal(decoded(GAUSSIAN, coded(GAUSSIAN, symbols, table), table), symbols)


def test_every_one_of_8192_codes_can_be_coded_the_rarest_too() -> None:
    frequencies = np.ones(8192, np.int64)
    frequencies[4000] += (1 << PRECISION) - 8192
    tables = Tables.categorical([frequencies])
    symbols = np.random.default_rng(0).permutation(8192)
    table = np.zeros(8192, np.int64)
    payload = coded(tables, symbols, table)
    assert np.array_equal(decoded(tables, payload, table), symbols)
    ideal = 8191 * PRECISION - math.log2(frequencies[4000] / (1 << PRECISION))
    assert abs(8 * len(payload) - ideal) <= 33


def test_code_lengths_are_logarithms_of_the_stored_frequencies() -> None:
    tables = Tables.categorical([[5, 2, 1], [1, 6, 1]])
    symbols, table = np.array([[0, 1, 2], [0, 1, 2]]), np.array([[0, 0, 0], [1, 1, 1]])
    expected = -np.log2(np.array([[5, 2, 1], [1, 6, 1]]) / 8)
    np.testing.assert_allclose(tables.code_length_bits(symbols, table), expected, rtol=1e-14)


@pytest.mark.parametrize("symbol", [7, -7, 8, -9, 1000, -123456, FARTHEST, -FARTHEST])
def test_an_escape_costs_what_is_said_of_it(symbol: int) -> None:
    index = int(np.searchsorted(SIGMA, 1.0))
    assert GAUSSIAN.lowest[index] == -6 - (SIGMA[index] > 1)
    symbols, table = np.full(2000, symbol), np.full(2000, index)
    payload = coded(GAUSSIAN, symbols, table)
    said = GAUSSIAN.code_length_bits(symbols, table)
    assert abs(8 * len(payload) - said.sum()) <= 33
    assert np.array_equal(decoded(GAUSSIAN, payload, table), symbols)


def test_what_lies_beyond_the_farthest_symbol_is_refused() -> None:
    with pytest.raises(ValueError, match="no symbol 16777217"):
        coded(GAUSSIAN, np.array([FARTHEST + 1]), np.array([9]))
    with pytest.raises(ValueError, match="no symbol -2147483648"):
        coded(GAUSSIAN, np.array([-(2**31)]), np.array([9]))


@pytest.mark.parametrize("count", [100, 20_000, 400_000])
@pytest.mark.parametrize("wide", [1.0, 3.0])
def test_a_stream_is_as_long_as_its_symbols_cost_within_a_word(count: int, wide: float) -> None:
    symbols, table = drawn(count, count, wide)
    payload = coded(GAUSSIAN, symbols, table)
    ideal = GAUSSIAN.code_length_bits(symbols, table).sum() / 8
    assert -1 <= len(payload) - ideal <= 4 + 5e-5 * ideal
    assert np.array_equal(decoded(GAUSSIAN, payload, table), symbols)


def test_gaussian_tables_cost_little_more_than_the_entropy() -> None:
    for index in range(1, SCALES):
        low, size = GAUSSIAN.lowest[index], GAUSSIAN.sizes[index]
        grid = np.arange(low, low + size - 1)
        edges = norm.cdf((np.append(grid, grid[-1] + 1) - 0.5) / SIGMA[index])
        masses = np.diff(edges)
        rest = 1 - masses.sum()
        cost = (masses * GAUSSIAN.lengths[index][:-1]).sum() + rest * (GAUSSIAN.lengths[index][-1])
        entropy = -(masses * np.log2(np.maximum(masses, 1e-300))).sum()
        assert entropy - 1e-9 <= cost <= entropy * 1.0015 + 2e-4, SIGMA[index]


def test_the_smallest_scale_has_one_symbol_and_costs_nothing() -> None:
    table = np.zeros(1000, np.int64)
    assert coded(GAUSSIAN, np.zeros(1000), table) == b""
    assert not decoded(GAUSSIAN, b"", table).any()
    assert GAUSSIAN.code_length_bits(np.zeros(1000, np.int64), table).sum() == 0
    with pytest.raises(ValueError, match="no symbol 1"):
        coded(GAUSSIAN, np.array([1]), np.array([0]))


def test_nothing_makes_an_empty_stream() -> None:
    none = np.zeros(0, np.int64)
    assert coded(GAUSSIAN, none, none) == b""
    assert decoded(GAUSSIAN, b"", none).shape == (0,)


def test_groups_are_read_one_after_the_other_in_their_own_shapes() -> None:
    parts = [drawn(count, count) for count in (12, 400, 0, 3000)]
    shapes = [(3, 2, 2), (400,), (0, 5), (30, 100)]
    encoder = Encoder(GAUSSIAN)
    for (symbols, table), shape in zip(parts, shapes, strict=True):
        encoder.put(symbols.reshape(shape), table.reshape(shape))
    decoder = Decoder(GAUSSIAN, encoder.finish())
    for (symbols, table), shape in zip(parts, shapes, strict=True):
        assert np.array_equal(decoder.take(table.reshape(shape)), symbols.reshape(shape))
    decoder.finish()


def test_the_position_is_what_the_symbols_read_cost() -> None:
    first, second = drawn(4000, 1), drawn(9000, 2)
    encoder = Encoder(GAUSSIAN)
    encoder.put(*first)
    encoder.put(*second)
    payload = encoder.finish()
    decoder = Decoder(GAUSSIAN, payload)
    assert decoder.position_bytes == 0
    decoder.take(first[1])
    assert abs(decoder.position_bytes - len(coded(GAUSSIAN, *first))) <= 4
    decoder.take(second[1])
    assert abs(decoder.position_bytes - len(payload)) <= 4


def test_the_order_does_not_depend_on_the_symbols() -> None:
    _, table = drawn(300, 5)
    changed = np.zeros(300, np.int32)
    place = int(np.flatnonzero(table == 30)[2])
    changed[place] = 4
    assert decoded(GAUSSIAN, coded(GAUSSIAN, changed, table), table)[place] == 4


@st.composite
def messages(draw: st.DrawFn) -> tuple[Tables, ndarray, ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    precision = draw(st.integers(3, PRECISION))
    sizes = draw(st.lists(st.integers(1, min(40, 1 << precision)), min_size=1, max_size=6))
    rows = [
        random_frequencies(rng, size, precision) if size > 1 else np.array([1 << precision])
        for size in sizes
    ]
    escapes = np.array([draw(st.integers(0, int(size > 1))) for size in sizes])
    lowest = np.array([draw(st.integers(-300, 300)) for _ in sizes])
    tables = Tables(np.concatenate(rows), np.array(sizes), lowest, escapes)
    table = rng.integers(0, len(sizes), draw(st.integers(0, 60)))
    within = lowest[table] + rng.integers(0, np.array(sizes)[table] - escapes[table])
    far = rng.integers(-(2 ** rng.integers(1, 25)), 2 ** rng.integers(1, 25), len(table))
    take_far = (escapes[table] == 1) & (rng.random(len(table)) < 0.3)
    return tables, np.where(take_far, far, within), table


@settings(max_examples=300, deadline=None)
@given(messages())
def test_any_symbols_by_any_tables_come_back(message: tuple[Tables, ndarray, ndarray]) -> None:
    tables, symbols, table = message
    payload = coded(tables, symbols, table)
    assert np.array_equal(decoded(tables, payload, table), symbols)
    cost = tables.code_length_bits(symbols, table).sum()
    assert -40 <= 8 * len(payload) - cost <= 33


def test_tables_come_back_from_their_arrays() -> None:
    state = GAUSSIAN.state()
    assert {array.dtype for array in state.values()} == {np.dtype(np.int32)}
    again = Tables.restore(state)
    assert again.precision == PRECISION
    assert all(np.array_equal(a, state[name]) for name, a in again.state().items())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("frequencies", lambda a: a * 0, "frequencies 0 to 0"),
        ("frequencies", lambda a: a * 2, "frequencies 2 to 131072"),
        ("frequencies", lambda a: np.concatenate([[a[0] - 1], a[1:]]), "sum to"),
        ("frequencies", lambda a: a[:-1], "sizes"),
        ("frequencies", lambda a: a.astype(float), ""),
        ("sizes", lambda a: a[:-1], "as many of each"),
        ("sizes", lambda a: a * 0, "at least 1"),
        ("lowest", lambda a: a - FARTHEST, "symbols beyond"),
        ("escapes", lambda a: a + 1, "an escape that"),
    ],
)
def test_arrays_that_are_no_tables_are_a_damaged_model(
    name: str, change: Callable[[ndarray], ndarray], message: str
) -> None:
    state = dict(GAUSSIAN.state())
    state[name] = change(state[name])
    with pytest.raises(UserError, match=rf"{message}[\s\S]*freeze it again"):
        Tables.restore(state)


def test_a_missing_array_is_a_damaged_model() -> None:
    state = dict(GAUSSIAN.state())
    del state["sizes"]
    with pytest.raises(UserError, match="freeze it again"):
        Tables.restore(state)


@pytest.mark.parametrize("table", [64, -1])
def test_an_index_of_no_table_is_refused(table: int) -> None:
    with pytest.raises(ValueError, match=f"tables {table} to {table}; 0 to 63"):
        coded(GAUSSIAN, np.array([0]), np.array([table]))
    with pytest.raises(ValueError, match=f"tables {table} to {table}; 0 to 63"):
        Decoder(GAUSSIAN, b"").take(np.array([table]))


def test_an_index_that_is_no_integer_is_refused() -> None:
    with pytest.raises((ValueError, TypeError), match=r"float64|f64"):  # TypeError if types are on
        coded(GAUSSIAN, np.array([0]), np.array([0.0]))


@pytest.mark.parametrize("seed", range(30))
def test_a_stream_cut_by_a_word_or_more_is_noticed(seed: int) -> None:
    symbols, table = drawn(4000, seed)
    payload = coded(GAUSSIAN, symbols, table)
    kept = int(np.random.default_rng(seed).integers(0, len(payload) - 12))
    with pytest.raises(CorruptBitstream, match=r"stream: (ends after|no stream of this model)"):
        decoded(GAUSSIAN, payload[:kept], table)


def test_bytes_left_over_are_noticed() -> None:
    symbols, table = drawn(4000, 3)
    payload = coded(GAUSSIAN, symbols, table)
    with pytest.raises(CorruptBitstream, match=r"stream: \d+ bytes are left over"):
        decoded(GAUSSIAN, payload + bytes(range(64)), table)


def test_a_stream_that_is_none_is_noticed() -> None:
    with pytest.raises(CorruptBitstream, match="no stream of this model"):
        decoded(GAUSSIAN, b"\xff" * 100, np.full(1000, 30))


class _Raising:
    """A coder of the library's whose decoding raises."""

    def __init__(self, raising: Callable[[], Any]) -> None:
        self.raising = raising

    def decode(self, model: Any, count: int) -> Any:
        return self.raising()


def _panic() -> None:
    model = constriction.stream.model.QuantizedGaussian(-9, 9)  # pyright: ignore[reportAttributeAccessIssue]
    coder = constriction.stream.queue.RangeDecoder(np.zeros(2, np.uint32))  # pyright: ignore[reportAttributeAccessIssue]
    coder.decode(model, np.zeros(1), np.full(1, np.nan))


def _interrupt() -> None:
    raise KeyboardInterrupt


def a_decoder(monkeypatch: pytest.MonkeyPatch, raising: Callable[[], Any]) -> Decoder:
    queue = constriction.stream.queue  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr(queue, "RangeDecoder", lambda words: _Raising(raising))
    decoder = Decoder(GAUSSIAN, b"")
    monkeypatch.undo()
    return decoder


def test_a_panic_of_the_library_is_a_damaged_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BaseException, match="must be positive") as raised:
        _panic()
    assert not isinstance(raised.value, Exception)
    decoder = a_decoder(monkeypatch, _panic)
    with pytest.raises(CorruptBitstream, match="no stream of this model"):
        decoder.take(np.array([9]))


def test_an_interrupt_is_no_damaged_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = a_decoder(monkeypatch, _interrupt)
    with pytest.raises(KeyboardInterrupt):
        decoder.take(np.array([9]))
