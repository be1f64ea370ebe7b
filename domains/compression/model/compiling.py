"""From a trained program to integers: how large numbers get on examples decides their units."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from core.runtime.errors import RunFailed
from core.variational.diagnostics import looking_at
from domains.compression.data.records import Images
from domains.compression.model.base import TransformModel, padded
from domains.compression.model.integers import (
    BIAS_BITS,
    INDEX_PARTS,
    MEAN_LIMIT,
    SATURATION,
    GainTable,
    IntegerProgram,
    Integers,
    Layer,
    affines,
    input_units,
    networks,
    output_units,
    step_of,
)
from domains.compression.model.program import LOG_STEP, Affine, Step
from domains.compression.model.rates import INDICES, LAST, MIDDLE

MARGIN = 2.0  # how much larger than on the examples a number may get before it saturates
CALIBRATED = (0, LAST // 4, MIDDLE, LAST - LAST // 4, LAST)
BATCH = 8
LARGEST_SHIFT = 26
SMALLEST_MANTISSA = 2**7
BYTE = 127

_Look = Callable[[str, Tensor], None]


def compile_program(model: TransformModel, examples: Images) -> IntegerProgram:
    """Return the prior of a model in integers.

    Args:
        model: Trained.
        examples: Pictures that show how large its numbers get; their rates do not matter.

    Raises:
        RunFailed: If a number is not finite, or varies too much for integers.
    """
    program, largest = model.program, _largest(model, examples)
    integers = Integers(
        layers={},
        constants={},
        powers={step.name: _power(largest[step.name], SATURATION) for step in program.steps},
        mean_powers={
            step.name: _power(largest[f"{step.name}.mean"], MEAN_LIMIT) for step in program.groups
        },
        gains={step.name: _gain_table(model, step) for step in program.groups},
    )
    constants = {
        name: _rounded(value.double().cpu() / integers.constant_units(step_of(program, name)))
        for name, value in program.constants.items()
    }
    layers = {
        name: _layers(model, step_of(program, name), integers, largest)
        for name, _ in networks(program)
    }
    return IntegerProgram(program, replace(integers, layers=layers, constants=constants))


def _largest(model: TransformModel, examples: Images) -> dict[str, float]:
    """Return the largest absolute value of each result, mean and hidden layer, by name."""
    largest: dict[str, float] = {}

    def look(name: str, value: Tensor) -> None:
        seen = float(value.abs().max())
        if not math.isfinite(seen):
            raise RunFailed(f"{name}: not finite on the examples; a model cannot be frozen so")
        largest[name] = max(largest.get(name, 0.0), seen)

    device = next(model.parameters()).device
    pixels = torch.stack([padded(each, model.stride) for each in examples.pixels])
    with looking_at(model, 0), ExitStack() as hooks:
        for name, network in networks(model.program):
            for number, layer in enumerate(affines(network)):
                hooks.callback(_watched(layer, f"{name}.{number}", look).remove)
        for part in pixels.split(BATCH):
            for rate in CALIBRATED:
                _run(model, part.to(device), torch.full((len(part),), rate, device=device), look)
    return largest


def _watched(layer: Affine, name: str, look: _Look) -> RemovableHandle:
    def hook(module: nn.Module, args: object, output: Tensor) -> None:
        look(name, output.relu())

    return layer.register_forward_hook(hook)


def _run(
    model: TransformModel, pixels: Tensor, rate: Int64[Tensor, " batch"], look: _Look
) -> None:
    """Run the float program as a decoder of these pictures would."""
    features = model.analyse(pixels.float() / 255, rate)
    decoded: dict[str, Tensor] = {}

    def code(step: Step, mean: Tensor, index: Tensor) -> Tensor:
        gain = model.log_gain(step.name, rate).exp()
        center = mean * gain
        y = model.coefficients(step.name, features, decoded) * gain
        decoded[step.name] = ((y - center).round() + center) / gain
        look(f"{step.name}.mean", mean)
        return decoded[step.name]

    results = model.program(pixels.shape[2], pixels.shape[3], rate, code)
    for name, value in results.items():
        look(name, value)


def _power(largest: float, limit: int) -> int:
    """Return how fine a unit may be for a number that was so large at most."""
    if largest == 0:
        return 0
    return max(-BYTE, min(BYTE, math.floor(math.log2(limit / (MARGIN * largest)))))


def _layers(
    model: TransformModel, step: Step, integers: Integers, largest: dict[str, float]
) -> tuple[Layer, ...]:
    network = dict(networks(model.program))[step.name]
    inputs = input_units(step, model.program, integers.powers)
    *hidden, last = affines(network)
    layers = []
    for number, affine in enumerate(hidden):
        unit = 2.0 ** -_power(largest[f"{step.name}.{number}"], SATURATION)
        outputs = torch.full((len(affine.bias),), unit, dtype=torch.float64)
        layers.append(_layer(f"{step.name}.{number}", affine, inputs, outputs))
        inputs = outputs
    outputs = output_units(step, network.up, integers.powers, integers.mean_powers)
    return (*layers, _layer(f"{step.name}.{len(hidden)}", last, inputs, outputs))


def _layer(
    name: str,
    affine: Affine,
    inputs: Float[Tensor, " input"],
    outputs: Float[Tensor, " output"],
) -> Layer:
    """Return a layer between integers of these units, each output's weights as fine as 16 bits."""
    weight = affine.weight.detach().double().cpu() * inputs.view(1, -1, 1, 1)
    weight = weight / outputs.view(-1, 1, 1, 1)
    bias = affine.bias.detach().double().cpu() / outputs * 2.0**BIAS_BITS
    largest = weight.abs().amax((1, 2, 3))
    if not (largest.isfinite().all() and bias.isfinite().all()):
        raise RunFailed(f"{name}: a weight is not finite; a model cannot be frozen so")
    shift = (15 - largest.frexp().exponent).clamp(-LARGEST_SHIFT, LARGEST_SHIFT)
    scaled = (weight * 2.0 ** shift.double().view(-1, 1, 1, 1)).round()
    return Layer(
        scaled.clamp(-SATURATION, SATURATION).to(torch.int16), _rounded(bias), shift.to(torch.int8)
    )


def _gain_table(model: TransformModel, step: Step) -> GainTable:
    """Round the gains of a group at every rate."""
    rate = torch.arange(INDICES, device=next(model.parameters()).device)
    with torch.no_grad():
        log_gain = model.log_gain(step.name, rate).flatten(1).double().cpu()
    gain = log_gain.exp()
    exponent = 15 - gain.amax(0).frexp().exponent
    mantissa = (gain * 2.0 ** exponent.double()).round().clamp(max=SATURATION)
    offset = (log_gain / LOG_STEP * INDEX_PARTS).round()
    sound = mantissa.isfinite().all() and (mantissa >= SMALLEST_MANTISSA).all()
    if not sound or offset.abs().max() > SATURATION or exponent.abs().max() > BYTE:
        raise RunFailed(
            f"gain of {step.name!r}: between {float(gain.min()):.3g} and {float(gain.max()):.3g} "
            "steps per coefficient over all rates; too wide a range to freeze"
        )
    return GainTable(mantissa.to(torch.int16), exponent.to(torch.int8), offset.to(torch.int16))


def _rounded(value: Float[Tensor, "*shape"]) -> Tensor:
    return value.detach().round().clamp(-(2**31 - 1), 2**31 - 1).to(torch.int32)
