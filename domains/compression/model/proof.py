"""Is what one setting of a machine writes read by every other? Tried, not argued.

Streams are written under each setting and read under every one: other numbers of threads, other
convolutions, another layout of memory, a GPU. Each of them changes the order in which floating
point sums are added, and so their last bits. The integers of a frozen model must not notice; its
float networks, tried beside them, do.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from domains.compression.data.records import Picture
from domains.compression.model.base import padded
from domains.compression.model.errors import CorruptBitstream
from domains.compression.model.freezing import FrozenTransform
from domains.compression.model.frozen import Coded, Frozen, Latents
from domains.compression.model.rates import LAST, MIDDLE

INTEGERS, FLOATS = "integers", "floats"
RATES = (LAST // 4, MIDDLE + LAST // 4)
PROVED, PROVED_SIDE = 4, 256  # pictures that a model is proved on; of their middle


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What came of streams that one setting wrote and one read.

    Args:
        path: What the entropy path was done in, ``"integers"`` or ``"floats"``.
        written: The setting that wrote.
        read: The setting that read.
        streams: How many there were.
        identical: How many gave the latents that were written.
        largest_difference: Of a pixel that both settings drew from the same latents, in grey
            levels.
    """

    path: str
    written: str
    read: str
    streams: int
    identical: int
    largest_difference: int


@dataclass(frozen=True, kw_only=True)
class Proof:
    """All pairs of settings; a setting is also read by itself.

    Args:
        settings: Their names.
        pairs: What came of each pair.
    """

    settings: tuple[str, ...]
    pairs: tuple[Pair, ...]

    @property
    def exact(self) -> bool:
        """Whether every stream of the integers gave the latents that were written."""
        return self.identical_share(INTEGERS) == 1.0

    @property
    def largest_difference(self) -> int:
        """Of a pixel of the same latents under two settings, in grey levels."""
        return max(pair.largest_difference for pair in self.pairs)

    def identical_share(self, path: str) -> float | None:
        """Return the share of streams that another setting than the writing one read rightly.

        Args:
            path: ``"integers"`` or ``"floats"``.

        Returns:
            None if there were none.
        """
        crossed = [p for p in self.pairs if p.path == path and p.written != p.read]
        streams = sum(pair.streams for pair in crossed)
        return sum(pair.identical for pair in crossed) / streams if streams else None


@dataclass(frozen=True)
class Setting:
    """A way in which a machine may compute.

    Args:
        name: Of it.
        holds: Sets it, and back.
        changed: A frozen model as it is under the setting.
    """

    name: str
    holds: Callable[[], AbstractContextManager[object]] = nullcontext
    changed: Callable[[Frozen], Frozen] = copy.copy


def settings() -> tuple[Setting, ...]:
    """Return the settings that this machine can be put in.

    Memory is channels-last for what goes in, not so for weights; two settings change either.
    """
    found = (
        Setting("1 thread", lambda: _threads(1)),
        Setting("2 threads", lambda: _threads(2)),
        Setting("oneDNN off", _without_onednn),
        Setting("channels_last", changed=_weights_channels_last),
        Setting("contiguous", changed=_inputs_contiguous),
    )
    if not torch.cuda.is_available():
        return found
    return (*found, Setting("cuda", changed=lambda frozen: frozen.to("cuda")))


def middle(picture: Picture) -> Picture:
    """Return the middle of a picture, of sides up to 256."""
    height, width = (min(side, PROVED_SIDE) for side in (picture.height, picture.width))
    top, left = (picture.height - height) // 2, (picture.width - width) // 2
    return Picture(pixels=picture.pixels[:, top : top + height, left : left + width].contiguous())


def prove(frozen: Frozen, pictures: Sequence[Picture], rates: Sequence[int] = RATES) -> Proof:
    """Write pictures under each setting and read them under every one.

    Args:
        frozen: The model. Where it can, its float networks are tried beside its integers.
        pictures: What is written.
        rates: Rate indices at which they are.

    Raises:
        ValueError: If there is nothing to write.
    """
    if not pictures or not rates:
        raise ValueError(f"proof: {len(pictures)} pictures, {len(rates)} rates; some of both")
    paths = {INTEGERS: frozen}
    if isinstance(frozen, FrozenTransform):
        paths[FLOATS] = frozen.floating()
    every = settings()
    pairs: list[Pair] = []
    for path, model in paths.items():
        machines = [(setting, setting.changed(model)) for setting in every]
        outcomes = [
            outcome
            for picture in pictures
            for rate in rates
            for outcome in _crossed(machines, padded(picture.pixels, frozen.stride), rate)
        ]
        pairs += [_summed(path, w.name, r.name, outcomes) for w in every for r in every]
    return Proof(settings=tuple(setting.name for setting in every), pairs=tuple(pairs))


@dataclass(frozen=True)
class _Outcome:
    written: str
    read: str
    identical: bool
    difference: int


def _crossed(
    machines: Sequence[tuple[Setting, Frozen]], pixels: Tensor, rate: int
) -> list[_Outcome]:
    """Write one picture under each setting, then read all of them under each.

    What several settings wrote alike is read once by each: it would come to the same again.
    """
    written: dict[str, int] = {}
    streams: list[Coded] = []
    for setting, model in machines:
        with setting.holds():
            written[setting.name] = _place(model.encode(pixels, rate), streams)
    read: dict[str, list[bool]] = {}
    drawn: dict[str, list[Tensor]] = {}
    for setting, model in machines:
        with setting.holds():
            read[setting.name] = [_reads(model, coded, pixels, rate) for coded in streams]
            drawn[setting.name] = [model.render(coded.latents, rate).int() for coded in streams]
    return [
        _Outcome(
            writer,
            reader,
            read[reader][stream],
            int((drawn[reader][stream] - drawn[writer][stream]).abs().max()),
        )
        for writer, stream in written.items()
        for reader in read
    ]


def _place(coded: Coded, streams: list[Coded]) -> int:
    """Return where among the streams this one is, which it is added to if it is new."""
    for place, other in enumerate(streams):
        if other.payload == coded.payload and _same(other.latents, coded.latents):
            return place
    streams.append(coded)
    return len(streams) - 1


def _same(some: Latents, others: Latents) -> bool:
    return some.keys() == others.keys() and all(
        torch.equal(some[name], others[name]) for name in some
    )


def _reads(model: Frozen, coded: Coded, pixels: Tensor, rate: int) -> bool:
    """Whether a model reads the latents that were written."""
    try:
        latents = model.decode(coded.payload, pixels.shape[1], pixels.shape[2], rate)
    except CorruptBitstream:
        return False
    return _same(latents, coded.latents)


def _summed(path: str, written: str, read: str, outcomes: Sequence[_Outcome]) -> Pair:
    own = [each for each in outcomes if (each.written, each.read) == (written, read)]
    return Pair(
        path=path,
        written=written,
        read=read,
        streams=len(own),
        identical=sum(each.identical for each in own),
        largest_difference=max(each.difference for each in own),
    )


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _without_onednn() -> Iterator[None]:
    # Not torch.backends.mkldnn.flags: it sets TF32 as well, which warns where no Intel GPU is.
    enabled, _, _, precision = torch.backends.mkldnn.set_flags(_enabled=False)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(_enabled=enabled, _fp32_precision=precision)


def _weights_channels_last(frozen: Frozen) -> Frozen:
    return frozen.laid_out(weights=True) if isinstance(frozen, FrozenTransform) else frozen


def _inputs_contiguous(frozen: Frozen) -> Frozen:
    return frozen.laid_out(inputs=False) if isinstance(frozen, FrozenTransform) else frozen
