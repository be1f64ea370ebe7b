"""The prior in integers: bit for bit what whole numbers give, and near what floats give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from toy_codec import toy_codec, toy_images

from core.runtime.errors import RunFailed
from domains.compression.model import integers as module
from domains.compression.model import proof
from domains.compression.model.compiling import compile_program
from domains.compression.model.integers import (
    BIAS_BITS,
    EXACT,
    FRACTION,
    INDEX_PARTS,
    INVERSE_BITS,
    LATENT_LIMIT,
    MEAN_LIMIT,
    RATE_PARTS,
    SATURATION,
    GainTable,
    IntegerProgram,
    Integers,
    Layer,
    affines,
    networks,
)
from domains.compression.model.program import LOG_STEP, SCALES, Program, Step
from domains.compression.model.rates import INDICES, LAST, MIDDLE

Whole = np.ndarray  # of int64: nothing here is ever rounded
Said = dict[str, tuple[Whole, Whole, Whole]]  # means, indices and latents by group


@cache
def compiled() -> IntegerProgram:
    return compile_program(toy_codec(), toy_images(4))


def integers_of(
    integers: Integers, height: int, width: int, rate: int, seed: int, far: float = 0.02
) -> tuple[Said, dict[str, Tensor]]:
    """What the program in float64 says, and what it returns."""
    said: Said = {}
    symbols_of = drawn_symbols(seed, far)

    def code(step: Step, mean: Tensor, index: Tensor) -> Tensor:
        latents = mean + FRACTION * torch.from_numpy(symbols_of(index.numpy())).double()
        said[step.name] = tuple(whole(each) for each in (mean, index, latents))  # pyright: ignore[reportArgumentType]
        return latents

    program = IntegerProgram(toy_codec().program, integers)
    return said, program.run(height, width, rate, code)


def whole(values: Tensor) -> Whole:
    assert torch.equal(values, values.round())
    return values.long().numpy()


def drawn_symbols(seed: int, far: float = 0.02) -> Callable[[np.ndarray], Whole]:
    """Symbols as they are coded: none where the scale is the smallest, and a share of far ones."""
    draw = np.random.default_rng(seed)

    def symbols(index: np.ndarray) -> Whole:
        near = np.rint(draw.standard_normal(index.shape)).astype(np.int64)
        distant = draw.integers(-(2**20), 2**20, index.shape)
        return np.where(index > 0, np.where(draw.random(index.shape) < far, distant, near), 0)

    return symbols


def by_definition(
    program: Program, integers: Integers, height: int, width: int, rate: int, seed: int
) -> Said:
    """The same by the definitions of the module's docstring, in integers of 64 bits alone."""
    said: Said = {}
    results: dict[str, Whole] = {}
    symbols_of = drawn_symbols(seed)
    for step in program.steps:
        grid = (height // step.stride, width // step.stride)
        numbers, bits = spoken(program, integers, step, grid, rate, results)
        if not step.coded:
            results[step.name] = limited(rounded(numbers, -bits), SATURATION)
            continue
        table = integers.gains[step.name]
        mantissa, exponent = table.mantissa[rate].long().numpy(), table.exponent.long().numpy()
        mean = limited(rounded(*halved(numbers, -bits, 0)), MEAN_LIMIT)
        power = 6 - integers.mean_powers[step.name] - exponent
        steps = limited(rounded(mean * mantissa, power), LATENT_LIMIT)
        above, more = halved(numbers, -bits, 1)
        offset = table.offset[rate].long().numpy() << (-more - 8)
        index = np.clip(rounded(above + offset, more), 0, SCALES - 1)
        latents = steps + FRACTION * symbols_of(index)
        said[step.name] = (steps, index, latents)
        inverse = (2 ** (INVERSE_BITS + 1) + mantissa) // (2 * mantissa)
        power = integers.powers[step.name] + exponent - INVERSE_BITS - 6
        decoded = limited(latents, LATENT_LIMIT)
        results[step.name] = limited(rounded(decoded * inverse, power), SATURATION)
    return said


def spoken(
    program: Program,
    integers: Integers,
    step: Step,
    grid: tuple[int, int],
    rate: int,
    results: Mapping[str, Whole],
) -> tuple[Whole, Whole]:
    """What a step's network says, as integers, and how many binary places each has."""
    if not step.reads:
        constants = integers.constants[step.name].long().numpy()
        constants = constants << np.repeat([BIAS_BITS, 0], step.channels)
        numbers = np.broadcast_to(constants, (*grid, len(constants)))
        return numbers, np.full(numbers.shape, BIAS_BITS)
    network = dict(networks(program))[step.name]
    size = (grid[0] // network.up, grid[1] // network.up)
    plane = np.full((*size, 1), (rate - MIDDLE) * RATE_PARTS)
    x = np.concatenate([plane if n == "rate" else results[n] for n in step.reads], 2)
    *hidden, last = integers.layers[step.name]
    for layer in hidden:
        numbers, bits = affine(layer, x)
        x = np.clip(rounded(numbers, -bits), 0, SATURATION)
    numbers, bits = affine(last, x)
    return into_space(numbers, network.up), into_space(bits, network.up)


def into_space(x: Whole, up: int) -> Whole:
    height, width, _ = x.shape
    moved = x.reshape(height, width, -1, up, up).transpose(0, 3, 1, 4, 2)
    return moved.reshape(height * up, width * up, -1)


def affine(layer: Layer, x: Whole) -> tuple[Whole, Whole]:
    weight, side = layer.weight.long().numpy(), layer.weight.shape[-1]
    padded = np.pad(x, ((side // 2, side // 2), (side // 2, side // 2), (0, 0)))
    height, width = x.shape[:2]
    total = np.zeros((height, width, len(weight)), np.int64)
    for i, j in np.ndindex(side, side):
        total += padded[i : i + height, j : j + width] @ weight[:, :, i, j].T
    shift = layer.shift.long().numpy()
    bits = np.broadcast_to(np.maximum(shift, BIAS_BITS), total.shape)
    return (total << (bits - shift)) + (layer.bias.long().numpy() << (bits - BIAS_BITS)), bits


def rounded(numbers: Whole, power: Whole) -> Whole:
    """Numbers times two to the power, a half upwards."""
    left, right = np.maximum(power, 0), np.maximum(-power, 0)
    half = np.where(right > 0, 1 << np.maximum(right - 1, 0), 0)
    return ((numbers << left) + half) >> right


def halved(numbers: Whole, power: Whole, half: int) -> tuple[Whole, Whole]:
    """The half of the channels that are means (0), or scales (1)."""
    count = numbers.shape[-1] // 2
    place = slice(half * count, (half + 1) * count)
    return numbers[..., place], power[..., place]


def limited(numbers: Whole, limit: int) -> Whole:
    return np.clip(numbers, -limit, limit)


def same(some: Said, others: Said) -> bool:
    return some.keys() == others.keys() and all(
        np.array_equal(one, other)
        for name in some
        for one, other in zip(some[name], others[name], strict=True)
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, LAST), st.integers(0, 2**32 - 1))
def test_a_compiled_prior_says_what_whole_numbers_say(
    rows: int, columns: int, rate: int, seed: int
) -> None:
    program, numbers = compiled().program, compiled().integers
    said, latents = integers_of(numbers, 16 * rows, 16 * columns, rate, seed)
    assert same(said, by_definition(program, numbers, 16 * rows, 16 * columns, rate, seed))
    for name, each in latents.items():
        assert np.array_equal(whole(each), limited(said[name][2], LATENT_LIMIT))


def any_integers(program: Program, seed: int, shifts: tuple[int, int]) -> Integers:
    """Numbers from all over their types, of which many sums saturate."""
    draw = torch.Generator().manual_seed(seed)

    def of(low: int, high: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.randint(low, high + 1, shape, generator=draw).to(dtype)

    def layer(shape: tuple[int, ...]) -> Layer:
        outputs = shape[:1]
        return Layer(
            of(-SATURATION, SATURATION, shape, torch.int16),
            of(-(2**31) + 1, 2**31 - 1, outputs, torch.int32),
            of(*shifts, outputs, torch.int8),
        )

    return Integers(
        {
            name: tuple(layer(tuple(each.weight.shape)) for each in affines(network))
            for name, network in networks(program)
        },
        {
            step.name: of(-(2**20), 2**20, (2 * step.channels,), torch.int32)
            for step in program.steps
            if not step.reads
        },
        {step.name: int(of(0, 12, (1,), torch.int8)) for step in program.steps},
        {step.name: int(of(0, 16, (1,), torch.int8)) for step in program.groups},
        {
            step.name: GainTable(
                of(2**7, SATURATION, (INDICES, step.channels), torch.int16),
                of(3, 12, (step.channels,), torch.int8),
                of(-SATURATION, SATURATION, (INDICES, step.channels), torch.int16),
            )
            for step in program.groups
        },
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(-12, 26), st.integers(0, 8), st.integers(0, LAST), st.integers(0, 2**32 - 1))
def test_any_numbers_that_are_let_through_are_exact(
    low: int, more: int, rate: int, seed: int
) -> None:
    program = toy_codec().program
    numbers = any_integers(program, seed, (low, min(low + more, 26)))
    try:
        IntegerProgram(program, numbers)
    except ValueError:
        assume(False)
    said, _ = integers_of(numbers, 32, 48, rate, seed)
    assert same(said, by_definition(program, numbers, 32, 48, rate, seed))


def test_no_sum_of_a_compiled_prior_comes_near_what_float64_holds_exactly() -> None:
    numbers = compiled().integers
    for layers in numbers.layers.values():
        for layer in layers:
            shift = layer.shift.double()
            unit = shift.clamp(min=BIAS_BITS)
            sums = layer.weight.double().abs().sum((1, 2, 3)) * SATURATION * 2 ** (unit - shift)
            biases = layer.bias.double().abs() * 2 ** (unit - BIAS_BITS)
            index = (SATURATION / INDEX_PARTS + 1) * 2**unit
            assert (sums + biases + index).max() < EXACT / 2


def first_layer(numbers: Integers, name: str, **parts: Tensor) -> Integers:
    layers = (replace(numbers.layers[name][0], **parts), *numbers.layers[name][1:])
    return replace(numbers, layers={**numbers.layers, name: layers})


def test_a_layer_whose_sums_could_be_rounded_is_refused() -> None:
    numbers = compiled().integers
    shift = numbers.layers["low"][0].shift
    wide = first_layer(numbers, "low", shift=torch.full_like(shift, -40))
    with pytest.raises(ValueError, match=r"low\.0: a sum"):
        IntegerProgram(toy_codec().program, wide)


def test_a_gain_whose_products_could_be_rounded_is_refused() -> None:
    numbers = compiled().integers
    for powers in ({"mean_powers": {**numbers.mean_powers, "low": -60}},
                   {"powers": {**numbers.powers, "low": 60}}):  # fmt: skip
        with pytest.raises(ValueError, match="low: a product"):
            IntegerProgram(toy_codec().program, replace(numbers, **powers))


def test_settings_of_the_machine_and_sizes_of_blocks_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 36 x 40 positions are more than a block.
    size, numbers = (288, 320, 200, 7), compiled().integers
    wanted = by_definition(compiled().program, numbers, *size)
    for setting in proof.settings():
        with setting.holds():
            assert same(integers_of(numbers, *size)[0], wanted), setting.name
    for block in (1, 100, 10**6):
        monkeypatch.setattr(module, "BLOCK", block)
        assert same(integers_of(numbers, *size)[0], wanted), block


@pytest.mark.parametrize("rate", [0, MIDDLE, LAST])
def test_integers_say_what_the_float_networks_say(rate: int) -> None:
    """The same symbols to both: means within parts of a step, indices within one."""
    codec, batch = toy_codec(), toy_images(1)
    said, _ = integers_of(compiled().integers, 64, 64, rate, 0, far=0)
    which = torch.tensor([rate])

    def check(step: Step, mean: Tensor, index: Tensor) -> Tensor:
        means, indices, latents = (torch.from_numpy(x).permute(2, 0, 1) for x in said[step.name])
        log_gain = codec.log_gain(step.name, which)
        error = (mean * log_gain.exp() - means / FRACTION).abs()
        assert error.max() < 1.0
        assert error.mean() < 1 / FRACTION
        apart = (index + log_gain / LOG_STEP).clamp(0, SCALES - 1) - indices
        assert apart.abs().max() < 0.5 + 0.1  # half an index is lost by rounding it
        return latents[None] / FRACTION / log_gain.exp()

    with torch.no_grad():
        codec.program(*batch.pixels.shape[2:], which, check)


def test_a_gain_has_fifteen_bits_and_its_inverse_undoes_it() -> None:
    codec = toy_codec()
    for name, table in compiled().integers.gains.items():
        for rate in (0, MIDDLE, LAST):
            gain = codec.log_gain(name, torch.tensor([rate])).exp().detach().flatten()
            assert torch.allclose(table.gain(rate), gain, rtol=2.0**-8, atol=0)
            product = table.inverse()[rate] * table.mantissa[rate]
            assert (product - 2.0**INVERSE_BITS).abs().max() <= SATURATION / 2
        largest = codec.log_gain(name, torch.tensor([LAST])).exp().detach().flatten()
        assert torch.allclose(table.gain(LAST), largest, rtol=2.0**-14, atol=0)


def test_no_result_saturates_on_the_examples_that_set_the_units() -> None:
    said, _ = integers_of(compiled().integers, 64, 64, LAST, 0, far=0)
    assert all(np.abs(mean).max() < LATENT_LIMIT for mean, _, _ in said.values())
    assert all(0 < index.mean() < SCALES - 1 for _, index, _ in said.values())


def test_state_and_restore_give_the_same_integers() -> None:
    program, numbers = compiled().program, compiled().integers
    state = numbers.state()
    again = Integers.restore(program, state).state()
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], each) for name, each in state.items())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("low.0.weight", None, "missing"),
        ("low.0.weight", lambda each: each[:, :-1], "expected torch.int16 of"),
        ("low.0.bias", lambda each: each.long(), "torch.int64 of shape"),
        ("hyper.constant", lambda each: each[:-1], "expected torch.int32 of"),
        ("high.power", lambda each: each[0], r"expected torch.int8 of \(1,\)"),
        ("high.gain.mantissa", lambda each: each * 0, "not positive"),
    ],
)
def test_a_state_that_does_not_fit_is_named(name: str, change: Any, message: str) -> None:
    state = compiled().integers.state()
    value = state.pop(name)
    if change is not None:
        state[name] = change(value)
    with pytest.raises(ValueError, match=rf"{name}: .*{message}"):
        Integers.restore(compiled().program, state)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_prior_that_is_not_finite_cannot_be_compiled(value: float) -> None:
    codec = toy_codec()
    with torch.no_grad():
        affines(dict(networks(codec.program))["high"])[0].own_weight[0, 0] = value
    with pytest.raises(RunFailed, match="not finite"):
        compile_program(codec, toy_images(1))


def test_gains_of_too_wide_a_range_cannot_be_compiled() -> None:
    codec = toy_codec()
    with torch.no_grad():
        codec.gains["low"].slope[2] = 12.0  # pyright: ignore[reportIndexIssue]
    with pytest.raises(RunFailed, match=r"gain of 'low': between .* too wide"):
        compile_program(codec, toy_images(1))


def test_a_float_program_of_the_integers_weights_says_nearly_the_same() -> None:
    """`write_into` undoes the units: only the rounding of results is left between the two."""
    codec, numbers, rate = toy_codec(), compiled().integers, 77
    numbers.write_into(codec.program)
    said, _ = integers_of(numbers, 64, 64, rate, 3, far=0)

    def check(step: Step, mean: Tensor, index: Tensor) -> Tensor:
        means, _, latents = (torch.from_numpy(x).permute(2, 0, 1) for x in said[step.name])
        gain = numbers.gains[step.name].gain(rate).view(-1, 1, 1)
        error = (mean * gain - means / FRACTION).abs()
        assert error.max() < 0.1
        return (latents / FRACTION / gain)[None]

    with torch.no_grad():
        codec.program(64, 64, torch.tensor([rate]), check)
