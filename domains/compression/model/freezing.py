r"""A model of transforms made fast and exact: what its files are written and read with.

What a decoder must agree on to the last bit is done in integers: the prior's program
(`domains.compression.model.integers`), the gains and the tables of frequencies. What only draws
the picture stays in floating point, with weights of 16 bits: there a last bit that differs is at
most a grey level of some pixel, and destroys nothing.

A latent is held in 64ths of a quantisation step: 64 times the coded symbol, plus the mean. Where a
scale is the smallest, nothing is coded and the latent is the mean.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int32, UInt8
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from core.runtime.errors import RunFailed, UserError
from core.runtime.files import json_bytes
from core.variational.diagnostics import own_random_stream
from domains.compression.config import DCT, Hyperprior, QRes, Rates
from domains.compression.data.records import Images
from domains.compression.model import construct
from domains.compression.model.base import TransformModel
from domains.compression.model.coder import Decoder, Encoder, Tables
from domains.compression.model.compiling import compile_program
from domains.compression.model.frozen import Coded, Frozen, Halo, Latents, Provenance
from domains.compression.model.integers import FRACTION, Code, GainTable, IntegerProgram, Integers
from domains.compression.model.program import LOG_STEP, SCALES, Affine, Step
from domains.compression.model.rates import MIDDLE
from domains.compression.model.transforms import SIDE

OPTIONS = {"dct": DCT, "hyperprior": Hyperprior, "qres": QRes}
ENTROPY_PATH = ("program.", "gains.")  # what integers take the place of
LARGEST_SYMBOL = 2**20
LARGEST_HALO = 1024


def freeze(model: TransformModel, examples: Images) -> FrozenTransform:
    """Make a trained model fast and exact; the model itself stays as it is.

    Args:
        model: Trained.
        examples: Pictures that show how large its numbers get.

    Raises:
        RunFailed: If a number is not finite, or too large or varied for its type.
    """
    own = _folded(copy.deepcopy(model))
    for name, tensor in _transforms(own):
        tensor.data.copy_(tensor.half())
        if not tensor.isfinite().all():
            raise RunFailed(f"{name}: 16 bits cannot hold a weight; a model cannot be frozen so")
    return FrozenTransform(own, compile_program(own, examples).integers, Tables.gaussian())


class Prior(Protocol):
    """What says means and scales: `IntegerProgram`, or float networks in its place."""

    def run(self, height: int, width: int, rate: int, code: Code) -> dict[str, Tensor]:
        """See `IntegerProgram.run`."""
        ...


class FrozenTransform(Frozen):
    """A model of transforms whose prior is in integers.

    Args:
        model: The transforms; it is taken over, and its prior becomes that of the integers.
        integers: The prior.
        tables: Frequencies of the symbols, by scale index.
        header: What `state` says beside the tensors, if it was read from a file.
        provenance: Where it is from.

    Raises:
        ValueError: If a sum of the integers could leave the range in which float64 is exact.
    """

    def __init__(
        self,
        model: TransformModel,
        integers: Integers,
        tables: Tables,
        header: Mapping[str, Any] | None = None,
        provenance: Provenance | None = None,
    ) -> None:
        integers.write_into(model.program)
        model.gains = nn.ModuleDict(
            {name: TabulatedGain(table) for name, table in integers.gains.items()}
        )
        self.model = model.requires_grad_(False).eval()
        self.integers, self.tables = integers, tables
        self.prior: Prior = IntegerProgram(model.program, integers)
        self._inputs = _layout(True)
        self._header = dict(header or _header(model))
        self.kind = self._header["kind"]
        self.rates, self.stride = model.rates, model.stride
        self.levels = tuple("+".join(groups) for groups in model.levels)
        self.provenance = provenance or Provenance()
        drawing, reach = _drawing(model)
        self.halo = max(model.halo, reach)
        self.identity = self._digest(drawing)

    @torch.inference_mode()
    def encode(
        self,
        pixels: UInt8[Tensor, "colour height width"],
        rate: int,
        effort: int = 0,
        halo: Halo | None = None,
    ) -> Coded:
        """Code a picture; see `Frozen.encode`."""
        x = self._pixels(pixels)
        seen, around = self.model.analyse(x, self._rate(rate)), halo or Halo()
        height = x.shape[2]
        features = {name: _inner(each, around, height) for name, each in seen.items()}
        inner = _inner(x, around, height)
        writing = _Writing(self.tables, self._posterior(features, inner, rate, effort))
        latents = self.prior.run(inner.shape[2], inner.shape[3], rate, writing)
        return Coded(
            payload=writing.encoder.finish(),
            latents=_integers(latents),
            bits={name: float(bits.sum()) for name, bits in writing.bits.items()},
            rate_map=_rate_map(writing.bits, inner.shape[2]),
        )

    @torch.inference_mode()
    def decode(
        self, payload: bytes, height: int, width: int, rate: int, level: int | None = None
    ) -> dict[str, Int32[Tensor, "channel row column"]]:
        """Read the latents of a picture of this padded size; see `Frozen.decode`."""
        decoder = Decoder(self.tables, payload)
        read = {name for names in self.model.levels[:level] for name in names}

        def code(step: Step, mean: Tensor, index: Tensor) -> Tensor:
            if step.name not in read:
                return mean
            symbols = torch.from_numpy(decoder.take(_table(index)))
            return symbols.to(mean).mul_(FRACTION).add_(mean)

        latents = self.prior.run(height, width, rate, code)
        if len(read) == len(latents):
            decoder.finish()
        return _integers(latents)

    @torch.inference_mode()
    def render(
        self, latents: Latents, rate: int
    ) -> UInt8[Tensor, "colour padded_height padded_width"]:
        """Return the picture that latents stand for."""
        decoded = {name: self._coefficients(name, latents[name], rate) for name in latents}
        picture = self.model.synthesise(decoded, self._rate(rate))[0]
        return picture.mul(255).round_().clamp_(0, 255).to(torch.uint8).cpu().contiguous()

    def to(self, device: torch.device | str) -> FrozenTransform:
        """Return it on a device; symbols are coded on the CPU."""
        return self._of(copy.deepcopy(self.model).to(device))

    def laid_out(self, inputs: bool = True, weights: bool = False) -> FrozenTransform:
        """Return it with another layout of memory.

        Args:
            inputs: Whether what goes into the transforms is channels-last.
            weights: Whether their weights are.
        """
        model = convert_conv2d_weight_memory_format(copy.deepcopy(self.model), _layout(weights))
        other = self._of(model)
        other._inputs = _layout(inputs)
        return other

    def floating(self) -> FrozenTransform:
        """Return the same with float networks on the entropy path, as other codecs have them.

        It shows what the integers are for; what it writes is of no other use.
        """
        other = copy.copy(self)
        other.prior = FloatProgram(self.model, self.integers)
        other.identity = hashlib.sha256(b"floating" + self.identity).digest()[:8]
        return other

    def _of(self, model: TransformModel) -> FrozenTransform:
        """Return the same with another copy of its model."""
        other = copy.copy(self)
        other.model = model
        if isinstance(self.prior, FloatProgram):
            other.prior = FloatProgram(model, self.integers)
        else:
            other.prior = IntegerProgram(model.program, self.integers, other._device)
        return other

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return its weights in 16 bits, its integers and tables; and its settings."""
        tensors = {f"model.{name}": _stored(each) for name, each in _transforms(self.model)}
        tensors |= {f"prior.{name}": each for name, each in self.integers.state().items()}
        arrays = self.tables.state()
        tensors |= {f"tables.{name}": torch.from_numpy(each) for name, each in arrays.items()}
        return tensors, dict(self._header)

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> FrozenTransform:
        """Return the one whose `state` these are.

        Raises:
            UserError: If they do not fit together.
        """
        kind = header.get("kind")
        try:
            options = OPTIONS[str(kind)].model_validate(header["options"])
            with own_random_stream(0):
                model = construct(options, Rates.model_validate(header["rates"]))
            assert isinstance(model, TransformModel)
            _load(_folded(model), _below("model.", tensors))
            integers = Integers.restore(model.program, _below("prior.", tensors))
            arrays = {name: each.numpy() for name, each in _below("tables.", tensors).items()}
            return cls(model, integers, Tables.restore(arrays), header)
        except (LookupError, RuntimeError, TypeError, ValueError, RunFailed) as error:
            told = " ".join(line.strip() for line in str(error).splitlines()[:3])
            raise UserError(f"{kind}: {told}; a damaged model, freeze it again") from error

    def _digest(self, drawing: frozenset[str]) -> bytes:
        """Return the hash of what decoding depends on: not of what only chooses the latents."""
        tensors, header = self.state()
        digest = hashlib.sha256(json_bytes(header))
        for name, each in sorted(tensors.items()):
            if not name.startswith("model.") or name.removeprefix("model.") in drawing:
                digest.update(f"{name} {each.dtype} {tuple(each.shape)}\n".encode())
                digest.update(each.numpy().tobytes())
        return digest.digest()[:8]

    def _posterior(
        self, features: Mapping[str, Tensor], inner: Tensor, rate: int, effort: int
    ) -> Callable[[str, Mapping[str, Tensor]], Tensor]:
        """Return what says the latents of a group in steps, given those before it."""
        if effort:
            from domains.compression.model.refine import refine

            refined = refine(self.model, inner, features, rate, effort)
            return lambda group, latents: refined[group]

        def steps(group: str, latents: Mapping[str, Tensor]) -> Tensor:
            decoded = {
                name: self._coefficients(name, _channels_first(each), rate)
                for name, each in latents.items()
            }
            gain = self._gain(group, rate)
            return self.model.coefficients(group, features, decoded) * gain

        return steps

    def _coefficients(self, group: str, latents: Tensor, rate: int) -> Tensor:
        gain = self._gain(group, rate)
        decoded = latents[None].to(gain.device, torch.float32) / (gain * FRACTION)
        return decoded.contiguous(memory_format=self._inputs)

    def _gain(self, group: str, rate: int) -> Float[Tensor, "1 channel 1 1"]:
        gain = self.integers.gains[group].gain(rate)
        return gain.to(self._device).view(1, -1, 1, 1)

    def _pixels(self, pixels: Tensor) -> Float[Tensor, "1 colour height width"]:
        x = pixels[None].to(self._device).contiguous(memory_format=self._inputs)
        return x.float() / 255

    def _rate(self, rate: int) -> Tensor:
        return torch.tensor([rate], device=self._device)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


class TabulatedGain(nn.Module):
    """A gain whose values at all rates are those of the integers.

    Args:
        table: The integers.
    """

    logarithm: Tensor

    def __init__(self, table: GainTable) -> None:
        super().__init__()
        gain = torch.stack([table.gain(rate) for rate in range(len(table.mantissa))])
        self.register_buffer("logarithm", gain.double().log().float(), persistent=False)

    def forward(self, rate: Tensor) -> Float[Tensor, "batch channel"]:
        """Return the logarithm of the gain."""
        return self.logarithm[rate]


class FloatProgram:
    """The prior with float networks, whose last bits depend on the machine.

    Args:
        model: Whose program it is.
        integers: Its gains.
    """

    def __init__(self, model: TransformModel, integers: Integers) -> None:
        self.model, self.integers = model, integers

    def run(self, height: int, width: int, rate: int, code: Code) -> dict[str, Tensor]:
        """See `IntegerProgram.run`."""
        latents: dict[str, Tensor] = {}
        which = torch.tensor([rate], device=next(self.model.parameters()).device)

        def rounded(step: Step, mean: Tensor, index: Tensor) -> Tensor:
            log_gain = self.model.log_gain(step.name, which)
            unit = log_gain.exp() * FRACTION
            means = (mean * unit).round()
            tables = (index + log_gain / LOG_STEP).round().clamp(0, SCALES - 1)
            decoded = code(step, _channels_last(means), _channels_last(tables))
            latents[step.name] = decoded
            return _channels_first(decoded)[None].float() / unit

        self.model.program(height, width, which, rounded)
        return latents


@dataclass(eq=False)
class _Writing:
    """Codes group after group into a stream, and counts its bits."""

    tables: Tables
    posterior: Callable[[str, Mapping[str, Tensor]], Tensor]
    encoder: Encoder = field(init=False)
    latents: dict[str, Tensor] = field(default_factory=dict)
    bits: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.encoder = Encoder(self.tables)

    def __call__(self, step: Step, mean: Tensor, index: Tensor) -> Tensor:
        y = _channels_last(self.posterior(step.name, self.latents))
        residual = (y - mean / FRACTION).round_().clamp_(-LARGEST_SYMBOL, LARGEST_SYMBOL)
        residual.mul_(index > 0)
        symbols, table = residual.to(torch.int32).cpu().numpy(), _table(index)
        self.encoder.put(symbols, table)
        self.bits[step.name] = self._cost(symbols, table)
        self.latents[step.name] = residual.mul_(FRACTION).add_(mean)
        return self.latents[step.name]

    def _cost(self, symbols: np.ndarray, table: np.ndarray) -> Tensor:
        return torch.from_numpy(self.tables.code_length_bits(symbols, table)).sum(2)


def _header(model: TransformModel) -> dict[str, Any]:
    options = model.options
    if options is None:  # of no file: one that a test made, say
        return {"kind": type(model).__name__, "rates": model.rates.model_dump(mode="json")}
    return {
        "kind": options.kind,
        "options": options.model_dump(mode="json"),
        "rates": model.rates.model_dump(mode="json"),
    }


def _folded(model: TransformModel) -> TransformModel:
    """Let every affine map hold its weights themselves, not in units that only learning needs."""
    for module in model.modules():
        if isinstance(module, Affine) and module.unit is not None:
            weight, bias = module.weight.detach().clone(), module.bias.detach().clone()
            module.unit = None
            module.hold(weight, bias)
    return model


def _transforms(model: TransformModel) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that no integers take the place of."""
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not name.startswith(ENTROPY_PATH):
            yield name, tensor


def _stored(tensor: Tensor) -> Tensor:
    plain = tensor.detach().cpu().contiguous()
    return plain.half() if plain.is_floating_point() else plain


@torch.no_grad()
def _load(model: TransformModel, tensors: Mapping[str, Tensor]) -> None:
    expected = dict(_transforms(model))
    if wrong := sorted(expected.keys() ^ tensors.keys()):
        missing = wrong[0] in expected
        raise ValueError(f"model.{wrong[0]}: {'missing' if missing else 'unknown'}")
    for name, tensor in expected.items():
        given, stored = tensors[name], _stored(tensor)
        if given.shape != stored.shape or given.dtype != stored.dtype:
            raise ValueError(
                f"model.{name}: {given.dtype} of shape {tuple(given.shape)}; expected "
                f"{stored.dtype} of {tuple(stored.shape)}"
            )
        if not given.isfinite().all():
            raise ValueError(f"model.{name}: a value that is not finite")
        tensor.copy_(given)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): each
        for name, each in tensors.items()
        if name.startswith(prefix)
    }


def _drawing(model: TransformModel) -> tuple[frozenset[str], int]:
    """Return which tensors a picture is drawn with, and pixels that it looks at around a place.

    Raises:
        RunFailed: If it looks at more than any tile could have around it.
    """
    margin = model.halo
    while margin <= LARGEST_HALO:
        names, reach = _traced(model, margin)
        if reach < margin:
            return names, -(-reach // model.stride) * model.stride
        margin *= 2
    raise RunFailed(f"model: draws from beyond {LARGEST_HALO} pixels around; tiles cannot have it")


@torch.inference_mode(False)
@torch.enable_grad()
def _traced(model: TransformModel, margin: int) -> tuple[frozenset[str], int]:
    """Follow the gradient of the pixels in the middle back to all that they come from."""
    side, draw = model.stride + 2 * margin, torch.Generator().manual_seed(0)
    tensors = {name: each for name, each in _transforms(model) if each.is_floating_point()}
    device = next(iter(tensors.values())).device
    groups = [
        torch.randn(1, step.channels, *[side // step.stride] * 2, generator=draw).to(device)
        for step in model.program.groups
    ]
    sources = [*groups, *tensors.values()]
    for each in sources:
        each.requires_grad_()
    decoded = dict(zip([step.name for step in model.program.groups], groups, strict=True))
    picture = model.synthesise(decoded, torch.tensor([MIDDLE], device=device))
    middle = picture[0, :, margin : side - margin, margin : side - margin]
    weights = torch.randn(middle.shape, generator=draw).to(device)
    found = torch.autograd.grad((middle * weights).sum(), sources, allow_unused=True)
    for each in tensors.values():
        each.requires_grad_(False)
    reach = max(_reach(gradient, side, margin) for gradient in found[: len(groups)])
    used = zip(tensors, found[len(groups) :], strict=True)
    return frozenset(name for name, gradient in used if gradient is not None), reach


def _reach(gradient: Tensor | None, side: int, margin: int) -> int:
    """Return how many pixels before the middle the first place is that has a gradient."""
    if gradient is None or not gradient.any():
        return 0
    seen = gradient[0].abs().sum(0)
    first = min(int(seen.sum(axis).nonzero()[0]) for axis in (0, 1))
    last = max(int(seen.sum(axis).nonzero()[-1]) for axis in (0, 1)) + 1
    stride = side // seen.shape[0]
    return max(0, margin - first * stride, last * stride - (side - margin))


def _inner(x: Tensor, halo: Halo, height: int) -> Tensor:
    """Return what is inside the halo, of something of pixels of this height."""
    stride = height // x.shape[2]
    rows = slice(halo.top // stride, x.shape[2] - halo.bottom // stride)
    columns = slice(halo.left // stride, x.shape[3] - halo.right // stride)
    return x[:, :, rows, columns]


def _layout(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


def _table(index: Tensor) -> np.ndarray:
    return index.to(torch.uint8).cpu().numpy()


def _channels_last(x: Float[Tensor, "1 channel row column"]) -> Tensor:
    return x[0].permute(1, 2, 0).double()


def _channels_first(x: Float[Tensor, "row column channel"]) -> Tensor:
    return x.permute(2, 0, 1)


def _integers(
    latents: Mapping[str, Tensor],
) -> dict[str, Int32[Tensor, "channel row column"]]:
    return {name: _channels_first(each.to(torch.int32).cpu()) for name, each in latents.items()}


def _rate_map(bits: Mapping[str, Tensor], height: int) -> Float[Tensor, "row column"]:
    """Spread the bits of each place over its blocks of 8 x 8 pixels."""
    total = torch.zeros(())
    for each in bits.values():
        stride = height // len(each)
        if stride < SIDE:
            spread = F.avg_pool2d(each[None], SIDE // stride)[0] * (SIDE // stride) ** 2
        else:
            side = stride // SIDE
            spread = each.repeat_interleave(side, 0).repeat_interleave(side, 1) / side**2
        total = total + spread
    return total
