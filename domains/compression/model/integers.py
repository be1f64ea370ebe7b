r"""The prior's program in integers: the same numbers on every machine, backend and thread count.

What a decoder computes between two symbols decides how it reads the next one, so a last bit that
differs destroys the rest of the file. Here every number is an integer times a fixed power of two
and every sum stays below :math:`2^{53}` of its smallest unit: float64 holds such sums exactly, in
whatever order and with whatever instructions they are added. Only products of matrices, sums,
products by fixed numbers, floors and clamps occur: no exponential, no division, no rounding.

* Weights have 16 bits, and each output a power of two of its own.
* Results that are read, and hidden units, have 16 bits and one power of two each, then saturate.
* The mean of a group is worth ``2 ** -power`` coefficients; times the gain of the rate, an integer
  of 15 bits, it is rounded to 64ths of a quantisation step. A decoded latent is 64 times its
  symbol plus that. Times the inverse gain, again an integer, it is what later networks read.
* The scale's index gains the logarithm of the gain in 256ths of an index, and is rounded.

`domains.compression.model.compiling` finds these numbers for a trained model.

References:
    Ballé, Johnston and Minnen, "Integer Networks for Data Compression with Latent-Variable
    Models", ICLR 2019, for the problem and the idea of integers; they train with them, here they
    come after training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8, Int16, Int32
from torch import Tensor

from domains.compression.model.program import SCALES, Affine, Network, Program, Step
from domains.compression.model.rates import INDICES, MIDDLE

FRACTION = 64  # parts of a quantisation step that a mean is rounded to
SATURATION = 2**15 - 1
MEAN_LIMIT = 2**20
LATENT_LIMIT = 2**26
EXACT = 2.0**53
BIAS_BITS = 8  # of a bias below the unit of its output
INDEX_PARTS = 256  # of an index, that the gain's part of it is rounded to
INVERSE_BITS = 30
RATE_PARTS = 256  # the plane of the rate is so many times the index's distance from the middle
BLOCK = 1024  # positions that are worked on at once where they need no neighbours

Code = Callable[[Step, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Layer:
    """An affine map: ``(weight * 2 ** -shift) @ x + bias * 2 ** -BIAS_BITS`` in output units.

    Args:
        weight: Of each output and input.
        bias: Of each output.
        shift: The power of two that each output's weights are worth.
    """

    weight: Int16[Tensor, "output input kernel kernel"]
    bias: Int32[Tensor, " output"]
    shift: Int8[Tensor, " output"]


@dataclass(frozen=True, eq=False)
class GainTable:
    """The gains of a group by rate index.

    Args:
        mantissa: ``mantissa * 2 ** -exponent`` steps are one coefficient.
        exponent: Of each channel.
        offset: What the gain adds to the scale's index, in 256ths.
    """

    mantissa: Int16[Tensor, "rate channel"]
    exponent: Int8[Tensor, " channel"]
    offset: Int16[Tensor, "rate channel"]

    def gain(self, rate: int) -> Float[Tensor, " channel"]:
        """Return the steps per coefficient: what a transform multiplies by, exact in 32 bits."""
        return by_power(self.mantissa[rate].double(), -self.exponent.int()).float()

    def inverse(self) -> Float[Tensor, "rate channel"]:
        """Return ``2 ** INVERSE_BITS / mantissa``, rounded to integers."""
        mantissa = self.mantissa.long()
        return ((2**INVERSE_BITS + mantissa // 2) // mantissa).double()


@dataclass(frozen=True, eq=False)
class Integers:
    """Everything that the integer program of a model consists of.

    Args:
        layers: Of each step's network.
        constants: Of each step without a network, in its result's unit; of a coded group the
            means, then the indices in 256ths.
        powers: A result as networks read it is worth ``2 ** -power``, by step.
        mean_powers: A mean is worth ``2 ** -power`` coefficients, by coded group.
        gains: By coded group.
    """

    layers: Mapping[str, tuple[Layer, ...]]
    constants: Mapping[str, Int32[Tensor, " channel"]]
    powers: Mapping[str, int]
    mean_powers: Mapping[str, int]
    gains: Mapping[str, GainTable]

    def state(self) -> dict[str, Tensor]:
        """Return all of it as tensors by name."""
        found: dict[str, Tensor] = {}
        for name, layers in self.layers.items():
            for number, layer in enumerate(layers):
                found |= {f"{name}.{number}.{part}": value for part, value in vars(layer).items()}
        for name, table in self.gains.items():
            found |= {f"{name}.gain.{part}": value for part, value in vars(table).items()}
        found |= {f"{name}.constant": value for name, value in self.constants.items()}
        found |= {f"{name}.power": _byte(power) for name, power in self.powers.items()}
        return found | {f"{name}.mean_power": _byte(p) for name, p in self.mean_powers.items()}

    @classmethod
    def restore(cls, program: Program, state: Mapping[str, Tensor]) -> Integers:
        """Return what `state` returned, for a program of the same steps and sizes.

        Raises:
            ValueError: If a tensor is missing, or of another shape or type.
        """
        read = _Reader(state)
        return cls(
            {
                name: tuple(
                    read.layer(f"{name}.{number}", affine)
                    for number, affine in enumerate(affines(network))
                )
                for name, network in networks(program)
            },
            {step.name: read.constant(step) for step in program.steps if not step.reads},
            {step.name: read.power(f"{step.name}.power") for step in program.steps},
            {step.name: read.power(f"{step.name}.mean_power") for step in program.groups},
            {step.name: read.gain(step) for step in program.groups},
        )

    @torch.no_grad()
    def write_into(self, program: Program) -> None:
        """Give a float program the weights that these integers stand for.

        Its hidden units are then in the units of the integers: a rectifier does not mind.
        """
        for name, network in networks(program):
            step = step_of(program, name)
            inputs = input_units(step, program, self.powers)
            for affine, layer in zip(affines(network), self.layers[name], strict=True):
                last = layer is self.layers[name][-1]
                outputs = self._output_units(step, network) if last else torch.ones(1).double()
                weight = by_power(layer.weight.double(), -_columns(layer.shift.int()))
                affine.hold(
                    weight * _columns(outputs) / inputs.view(1, -1, 1, 1),
                    layer.bias.double() * 2.0**-BIAS_BITS * outputs,
                )
                inputs = torch.ones(len(layer.bias), dtype=torch.float64)
        for name, value in self.constants.items():
            step = step_of(program, name)
            program.hold_constants(name, value * self.constant_units(step))

    def _output_units(self, step: Step, network: Network) -> Tensor:
        return output_units(step, network.up, self.powers, self.mean_powers)

    def constant_units(self, step: Step) -> Float[Tensor, " channel"]:
        """Return what one of each constant of a step is worth."""
        units = output_units(step, 1, self.powers, self.mean_powers)
        if step.coded:
            units[step.channels :] = 1 / INDEX_PARTS
        return units


class IntegerProgram:
    """Runs a program in integers. Tensors are of one picture, of float64, channels last.

    Args:
        program: The steps, and how their networks are built; its weights do not matter.
        integers: The numbers.
        device: Where it runs.

    Raises:
        ValueError: If a sum could leave the range in which float64 is exact.
    """

    def __init__(
        self, program: Program, integers: Integers, device: torch.device | str = "cpu"
    ) -> None:
        self.program, self.integers, self.device = program, integers, torch.device(device)
        self._products: dict[str, list[_Product]] = {}
        for name, network in networks(program):
            made = _products(step_of(program, name), network, program, integers.layers[name])
            self._products[name] = [product.to(self.device) for product in made]
        self._groups = {
            step.name: _Group.of(step, integers).to(self.device) for step in program.groups
        }
        self._read = {name for step in program.steps for name in step.reads}

    def to(self, device: torch.device | str) -> IntegerProgram:
        """Return it on a device."""
        return IntegerProgram(self.program, self.integers, device)

    @torch.inference_mode()
    def run(self, height: int, width: int, rate: int, code: Code) -> dict[str, Tensor]:
        """Run it on one picture.

        Args:
            height: Of the picture in pixels, a multiple of every stride.
            width: Likewise.
            rate: Rate index.
            code: From a coded group, its means in 64ths of a step and the indices of its scales,
                0 to 63, to its latents in 64ths of a step; of shape ``(height, width, channel)``.

        Returns:
            The latents of every coded group by name, of shape ``(height, width, channel)``.
        """
        plane = float((rate - MIDDLE) * RATE_PARTS)
        results: dict[str, Tensor] = {}
        latents: dict[str, Tensor] = {}
        for step in self.program.steps:
            grid = (height // step.stride, width // step.stride)
            said = self._said(step, grid, plane, results)
            if not step.coded:
                results[step.name] = said.floor_().clamp_(-SATURATION, SATURATION)
                continue
            group = self._groups[step.name]
            mean, index = group.predicted(said, rate)
            decoded = code(step, mean, index).clamp(-LATENT_LIMIT, LATENT_LIMIT)
            latents[step.name] = decoded
            if step.name in self._read:
                results[step.name] = group.coefficients(decoded, rate)
        return latents

    def _said(
        self, step: Step, grid: tuple[int, int], plane: float, results: Mapping[str, Tensor]
    ) -> Tensor:
        """What a step's network or constants say, before it is rounded."""
        if not step.reads:
            constants = self.integers.constants[step.name].to(self.device).double()
            if step.coded:
                constants[step.channels :] /= INDEX_PARTS
                constants += 0.5
            return constants.expand(*grid, -1).contiguous()
        read = [results[name] for name in step.reads if name != "rate"]
        products = self._products[step.name]
        if all(product.kernel == 1 for product in products):
            said = _in_blocks(products, read, plane)
        else:
            said = _applied(products, read, plane)
        return _into_space(said, self._up(step))

    def _up(self, step: Step) -> int:
        network = self.program.networks[step.name]
        assert isinstance(network, Network)
        return network.up


@dataclass(frozen=True, eq=False)
class _Product:
    """A layer ready to run: one matrix for each tap of the kernel.

    Args:
        taps: The matrices for the results read, side by side.
        plane: What the rate's plane is multiplied by in each tap; None where it is not read.
        bias: With the half that makes a floor a rounding.
        kernel: 1 or 3.
    """

    taps: Float[Tensor, "tap input output"]
    plane: Float[Tensor, "tap 1 output"] | None
    bias: Float[Tensor, " output"]
    kernel: int

    def to(self, device: torch.device) -> _Product:
        plane = None if self.plane is None else self.plane.to(device)
        return _Product(self.taps.to(device), plane, self.bias.to(device), self.kernel)

    def __call__(self, read: list[Tensor], plane: float) -> Tensor:
        return self._points(read, plane) if self.kernel == 1 else self._around(read, plane)

    def _points(self, read: list[Tensor], plane: float) -> Tensor:
        bias = self.bias if self.plane is None else self.bias + self.plane[0, 0] * plane
        x = read[0] if len(read) == 1 else torch.cat(read, 2)
        return torch.addmm(bias, x.reshape(-1, x.shape[2]), self.taps[0]).view(*x.shape[:2], -1)

    def _around(self, read: list[Tensor], plane: float) -> Tensor:
        """Nine products of the padded rows, each shifted; two columns a row are of no picture."""
        taps = self.taps
        if self.plane is not None:
            read = [*read, read[0].new_full((*read[0].shape[:2], 1), plane)]
            taps = torch.cat([taps, self.plane], 1)
        x = F.pad(read[0] if len(read) == 1 else torch.cat(read, 2), (0, 0, 1, 1, 1, 1))
        rows, height, width = x.view(-1, x.shape[2]), x.shape[0] - 2, x.shape[1] - 2
        count = height * (width + 2) - 2
        out = self.bias.expand(height * (width + 2), -1).contiguous()
        for tap, matrix in enumerate(taps):
            start = tap // 3 * (width + 2) + tap % 3
            out[:count].addmm_(rows[start : start + count], matrix)
        return out.view(height, width + 2, -1)[:, :width]


@dataclass(frozen=True, eq=False)
class _Group:
    """What turns a network's words into means, indices and coefficients of a coded group.

    Args:
        channels: Of the group.
        gain: 64ths of a step per unit of a mean.
        inverse: Units of a result per 64th of a step.
        offset: What is added to the index.
    """

    channels: int
    gain: Float[Tensor, "rate channel"]
    inverse: Float[Tensor, "rate channel"]
    offset: Float[Tensor, "rate channel"]

    @classmethod
    def of(cls, step: Step, integers: Integers) -> _Group:
        table = integers.gains[step.name]
        exponent = table.exponent.int()
        down = integers.mean_powers[step.name] + exponent - 6
        up = integers.powers[step.name] + exponent - INVERSE_BITS - 6
        _require_exact(step.name, MEAN_LIMIT * table.mantissa.double(), down)
        _require_exact(step.name, LATENT_LIMIT * table.inverse(), -up)
        return cls(
            step.channels,
            by_power(table.mantissa.double(), -down),
            by_power(table.inverse(), up),
            table.offset.double() / INDEX_PARTS,
        )

    def to(self, device: torch.device) -> _Group:
        moved = (each.to(device) for each in (self.gain, self.inverse, self.offset))
        return _Group(self.channels, *moved)

    def predicted(self, said: Tensor, rate: int) -> tuple[Tensor, Tensor]:
        mean, index = said.split(self.channels, 2)
        mean = mean.floor().clamp_(-MEAN_LIMIT, MEAN_LIMIT).mul_(self.gain[rate])
        mean = mean.add_(0.5).floor_().clamp_(-LATENT_LIMIT, LATENT_LIMIT)
        return mean, (index + self.offset[rate]).floor_().clamp_(0, SCALES - 1)

    def coefficients(self, decoded: Tensor, rate: int) -> Tensor:
        value = (decoded * self.inverse[rate]).add_(0.5).floor_()
        return value.clamp_(-SATURATION, SATURATION)


class _Reader:
    """Takes integers out of a state, each as it must be."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = state

    def tensor(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        value = self.state.get(name)
        if value is None:
            raise ValueError(f"{name}: missing")
        if value.shape != shape or value.dtype != dtype:
            raise ValueError(
                f"{name}: {value.dtype} of shape {tuple(value.shape)}; expected {dtype} of {shape}"
            )
        return value

    def layer(self, name: str, affine: Affine) -> Layer:
        outputs = len(affine.bias)
        return Layer(
            self.tensor(f"{name}.weight", tuple(affine.weight.shape), torch.int16),
            self.tensor(f"{name}.bias", (outputs,), torch.int32),
            self.tensor(f"{name}.shift", (outputs,), torch.int8),
        )

    def gain(self, step: Step) -> GainTable:
        name, shape = f"{step.name}.gain", (INDICES, step.channels)
        mantissa = self.tensor(f"{name}.mantissa", shape, torch.int16)
        if (mantissa <= 0).any():
            raise ValueError(f"{name}.mantissa: a gain that is not positive")
        return GainTable(
            mantissa,
            self.tensor(f"{name}.exponent", (step.channels,), torch.int8),
            self.tensor(f"{name}.offset", shape, torch.int16),
        )

    def constant(self, step: Step) -> Tensor:
        channels = 2 * step.channels if step.coded else step.channels
        return self.tensor(f"{step.name}.constant", (channels,), torch.int32)

    def power(self, name: str) -> int:
        return int(self.tensor(name, (1,), torch.int8))


def networks(program: Program) -> Iterator[tuple[str, Network]]:
    """Yield the networks of a program by the names of their steps."""
    for name, network in program.networks.items():
        assert isinstance(network, Network)
        yield name, network


def affines(network: Network) -> list[Affine]:
    """Return the layers of a network."""
    return [layer for layer in network.layers if isinstance(layer, Affine)]


def step_of(program: Program, name: str) -> Step:
    """Return the step of a name."""
    return next(step for step in program.steps if step.name == name)


def input_units(
    step: Step, program: Program, powers: Mapping[str, int]
) -> Float[Tensor, " input"]:
    """Return what one of each integer that a step's network reads is worth."""
    units = []
    for name in step.reads:
        if name == "rate":
            units.append(torch.tensor([1 / (MIDDLE * RATE_PARTS)], dtype=torch.float64))
        else:
            channels = step_of(program, name).channels
            units.append(torch.full((channels,), 2.0 ** -powers[name], dtype=torch.float64))
    return torch.cat(units)


def output_units(
    step: Step, up: int, powers: Mapping[str, int], mean_powers: Mapping[str, int]
) -> Float[Tensor, " output"]:
    """Return what one of each output of a step's network is worth; of an index, one."""
    if not step.coded:
        return torch.full((step.channels * up * up,), 2.0 ** -powers[step.name]).double()
    mean = torch.full((step.channels * up * up,), 2.0 ** -mean_powers[step.name]).double()
    return torch.cat([mean, torch.ones_like(mean)])


def _applied(products: list[_Product], read: list[Tensor], plane: float) -> Tensor:
    *hidden, last = products
    for product in hidden:
        read = [product(read, plane).floor_().clamp_(0, SATURATION)]
    return last(read, plane)


def _in_blocks(products: list[_Product], read: list[Tensor], plane: float) -> Tensor:
    """Do the same a few rows at a time, so that what is between the layers stays in the cache."""
    height, width = read[0].shape[:2]
    rows = max(1, BLOCK // width)
    out = read[0].new_empty(height, width, len(products[-1].bias))
    for top in range(0, height, rows):
        part = [x[top : top + rows] for x in read]
        out[top : top + rows] = _applied(products, part, plane)
    return out


def _products(
    step: Step, network: Network, program: Program, layers: tuple[Layer, ...]
) -> list[_Product]:
    limits = torch.full((_inputs(step, program),), float(SATURATION), dtype=torch.float64)
    products = []
    for number, layer in enumerate(layers):
        _require_sums_exact(f"{step.name}.{number}", layer, limits)
        parts = _parts(step, program) if number == 0 else {"": len(limits)}
        product = _prepared(layer, parts)
        products.append(_reordered(product, network.up) if layer is layers[-1] else product)
        limits = torch.full((len(layer.bias),), float(SATURATION), dtype=torch.float64)
    return products


def _parts(step: Step, program: Program) -> dict[str, int]:
    """Channels of each result that a step reads."""
    return {name: 1 if name == "rate" else step_of(program, name).channels for name in step.reads}


def _inputs(step: Step, program: Program) -> int:
    return sum(_parts(step, program).values())


def _prepared(layer: Layer, parts: Mapping[str, int]) -> _Product:
    weight = by_power(layer.weight.double(), -_columns(layer.shift.int()))
    matrices = weight.permute(2, 3, 1, 0).flatten(0, 1)
    split = dict(zip(parts, matrices.split(list(parts.values()), 1), strict=True))
    plane = split.pop("rate", None)
    bias = layer.bias.double() * 2.0**-BIAS_BITS + 0.5
    return _Product(torch.cat([*split.values()], 1), plane, bias, weight.shape[-1])


def _reordered(product: _Product, up: int) -> _Product:
    """Outputs in the order place, channel instead of channel, place: what moves into space."""
    if up == 1:
        return product
    order = torch.arange(len(product.bias)).view(-1, up * up).T.flatten()
    plane = None if product.plane is None else product.plane[:, :, order]
    return _Product(product.taps[:, :, order], plane, product.bias[order], product.kernel)


def _into_space(said: Tensor, up: int) -> Tensor:
    if up == 1:
        return said
    height, width, _ = said.shape
    moved = said.reshape(height, width, up, up, -1).permute(0, 2, 1, 3, 4)
    return moved.reshape(height * up, width * up, -1)


def _require_sums_exact(name: str, layer: Layer, limits: Tensor) -> None:
    """Refuse a layer any of whose sums could be too large for float64 to hold exactly."""
    weight = layer.weight.double().abs().sum((2, 3)) @ limits
    shift = layer.shift.int()
    largest = by_power(weight, -shift) + layer.bias.double().abs() * 2.0**-BIAS_BITS
    largest += 2.0**15 / INDEX_PARTS + 1  # the gain's part of an index, and the half
    unit = shift.clamp(min=BIAS_BITS)
    if not (by_power(largest, unit) < EXACT / 2).all():
        raise ValueError(f"{name}: a sum could leave the range in which integers are exact")


def _require_exact(name: str, largest: Tensor, power: Tensor) -> None:
    """Refuse products, given in units of ``2 ** -power``, that a half cannot be added to."""
    whole = by_power(largest, -power) + 1
    if not (by_power(whole, power.clamp(min=1)) < EXACT / 2).all():
        raise ValueError(f"{name}: a product could leave the range in which integers are exact")


def by_power(value: Float[Tensor, ...], power: Int32[Tensor, ...]) -> Tensor:
    """Return ``value * 2 ** power`` exactly; torch's own way there goes through `pow`."""
    table = torch.tensor([2.0**each for each in range(-128, 129)], dtype=torch.float64)
    return value * table[power.long() + 128]


def _columns(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _byte(value: int) -> Tensor:
    return torch.tensor([value], dtype=torch.int8)
