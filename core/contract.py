"""What a domain gives to the rest: a record of functions; nothing to override or inherit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from core.variational.evidence import Evidence

Split = Literal["train", "valid", "test"]
ConfigT = TypeVar("ConfigT")
BatchT = TypeVar("BatchT")
BatchT_co = TypeVar("BatchT_co", covariant=True)


@runtime_checkable
class Batches(Protocol[BatchT_co]):
    """The batches of one split, each a function of (seed, epoch, index) alone.

    That is what makes a resumed run end with the same bytes as an uninterrupted one: nothing has
    to be replayed to find the next batch.
    """

    def __len__(self) -> int:
        """Steps in one epoch."""
        ...

    def batch(self, epoch: int, index: int) -> BatchT_co:
        """Batch ``index`` of ``epoch``: a tensor, a mapping, or an object with ``to(device)``."""
        ...


@runtime_checkable
class Model(Protocol):
    """A `torch.nn.Module` with one method of ours."""

    def evidence(self, batch: Any, samples: int = 1) -> Evidence:
        """What the model says about a batch, from ``samples`` posterior draws."""
        ...


ModelT = TypeVar("ModelT", bound=Model)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number with everything that it claims.

    Args:
        value: The number.
        unit: Its unit, ``""`` for a dimensionless one.
        direction: Which way is better.
        n: Number of examples behind it.
        interval: 95 % interval, or None when it has none.
        method: Protocol in a few words, e.g. ``"uniform negatives 1:1, bootstrap 1,000"``.
        floors: Named values of trivial methods on the same examples.
        ceiling: The best value possible under the protocol, if known.
        primary: Whether this is the number that decides between runs.
        group: Heading under which the report shows it.
    """

    value: float
    unit: str
    direction: Literal["higher", "lower", "none"]
    n: int
    interval: tuple[float, float] | None = None
    method: str = ""
    floors: Mapping[str, float] = field(default_factory=dict)
    ceiling: float | None = None
    primary: bool = False
    group: str = "Results"


@dataclass(frozen=True, kw_only=True)
class DataCard:
    """What ingest found, as the report prints it.

    Args:
        source: Where the data came from, without absolute paths or host names.
        licence: Its licence, ``"unknown"`` if it could not be found out.
        fingerprint: SHA-256 of the prepared examples and their splits.
        facts: Counts and choices, e.g. ``{"nodes": 2708}``.
        notes: One line for anything a reader should know (merged duplicates, imputed values).
    """

    source: str
    licence: str
    fingerprint: str
    facts: Mapping[str, float | int | str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A figure of the report with the sentence under it."""

    figure: Figure
    caption: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Domain(Generic[ConfigT, BatchT, ModelT]):
    """What a domain implements.

    Each function takes the settings and the folder of prepared data first, then the model.

    Args:
        name: The folder's name.
        config: The settings class, a subclass of `core.runtime.config.Settings`.
        prepare: Write validated examples and splits into the folder; idempotent.
        batches: The batches of a split of the prepared data.
        model: A new, initialised model that fits the prepared data.
        validate: Cheap scores on the validation split, larger or smaller is better as
            ``training.monitor`` says; looked at during training.
        metrics: The field's metrics on the test split; run once, at the end.
        plots: The domain's figures by file name.
        examples: Write reconstructions, samples or predictions in the field's own formats.
        verbs: The commands that only this domain has.
        finish: Called once after the training with the chosen weights, in evaluation mode and on a
            random stream of its own: fit in place what is fitted and not learned by gradients,
            such as a density of the aggregated posterior. Called again after a kill, it must do
            the same again.
    """

    name: str
    config: type[ConfigT]
    prepare: Callable[[ConfigT, Path], DataCard]
    batches: Callable[[ConfigT, Path, Split], Batches[BatchT]]
    model: Callable[[ConfigT, Path], ModelT]
    validate: Callable[[ConfigT, Path, ModelT], Mapping[str, float]]
    metrics: Callable[[ConfigT, Path, ModelT], Mapping[str, Metric]]
    plots: Callable[[ConfigT, Path, ModelT], Mapping[str, Plot]]
    examples: Callable[[ConfigT, Path, ModelT, Path], None]
    verbs: Mapping[str, Callable[..., object]] = field(default_factory=dict)
    finish: Callable[[ConfigT, Path, ModelT], None] | None = None
