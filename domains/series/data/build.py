"""From a panel to a dataset: split, hide, cut into windows, scale, and say what is odd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from core.contract import Split
from core.runtime.errors import UserError
from core.runtime.order import generator
from domains.series.config import Data
from domains.series.data import masks, scaling
from domains.series.data.records import Array, Dataset, Mask, Panel
from domains.series.data.seasons import season
from domains.series.data.splits import SPLITS, Stretches, rows_of, split
from domains.series.data.windows import Starts, cut, step_of, steps_of, thin

FEWEST_WINDOWS = 50
FAR, TOO_FAR = 1e3, 1e9  # scales between a value and the train part
LONGEST = 10  # series that are looked at for a season


def build(panel: Panel, data: Data, seed: int, place: str) -> tuple[Dataset, tuple[str, ...]]:
    """Split, hide, cut and scale a panel.

    Args:
        panel: As read.
        data: The settings.
        seed: Of the split by series and of what is hidden.
        place: What messages call the source.

    Returns:
        The dataset, and a line for everything a reader should know.

    Raises:
        UserError: If there is too little to train, choose or test on.
    """
    lengths = [len(one.times) for one in panel.series]
    _check_lengths(panel, lengths, data, place)
    stretches = split(lengths, data, seed)
    hidden = _hidden(panel, data, seed)
    visible = [
        np.isfinite(one.values) & ~mask for one, mask in zip(panel.series, hidden, strict=True)
    ]
    windows, notes = _windows(stretches, visible, data)
    _check_windows(windows, stretches, panel, data, place)
    train = rows_of(stretches["train"], lengths)
    learnt = _learnt(panel, hidden, train)
    logs = scaling.logarithms(panel, data.logarithms, place)
    scaler = scaling.fit(np.concatenate(learnt), data.scaling, panel.channels, logs)
    dataset = Dataset(
        panel=panel,
        hidden=hidden,
        scaler=scaler,
        window=data.window,
        windows=windows,
        train_rows=train,
        season=_season(learnt),
        spacing=data.spacing or ("rows" if data.source == "google-stock" else "clock"),
    )
    notes = (*_notes(dataset, data, np.concatenate(learnt)), *notes, *_far(dataset, place))
    return dataset, notes


def _evened(dataset: Dataset) -> bool:
    """Say whether steps of a model are not exactly the clock's."""
    interval = step_of(dataset, dataset.panel)
    return interval is not None and any(
        not np.allclose(
            steps_of(one.times, interval), (one.times - one.times[0]) / interval, 0, 1e-4
        )
        for one in dataset.panel.series
    )


def _far(dataset: Dataset, place: str) -> tuple[str, ...]:
    """Name channels with values far from those of the train part.

    Raises:
        UserError: If one is so far that a model could not compute with it.
    """
    values = np.concatenate([one.values for one in dataset.panel.series])
    with np.errstate(over="ignore"):
        distance = np.nan_to_num(np.abs(dataset.scaler.apply(values)))
    notes = []
    for channel in np.flatnonzero(distance.max(axis=0) > FAR):
        row = distance[:, channel].argmax()
        found = (
            f"channel {dataset.channels[channel]!r}: {values[row, channel]:g} is "
            f"{distance[row, channel]:.2g} times its scale away from the train part"
        )
        if distance[row, channel] > TOO_FAR:
            raise UserError(
                f"{place}: {found}; at most {TOO_FAR:g} is possible; if it stands for a missing "
                "value, name it in data.na_values, else give the channel in another unit"
            )
        notes.append(f"{found}; is it a code for a missing value (data.na_values)?")
    return tuple(notes)


def _check_lengths(panel: Panel, lengths: Sequence[int], data: Data, place: str) -> None:
    """Refuse a panel without channels, and series that are shorter than a window."""
    if not panel.channels:
        raise UserError(f"{place}: no channel; name at least one column in data.values")
    short = [
        (one.name, rows)
        for one, rows in zip(panel.series, lengths, strict=True)
        if rows < data.window
    ]
    if not short or data.pad:
        return
    named = ", ".join(f"{name!r} {rows} rows" for name, rows in short[:3])
    more = f" and {len(short) - 3} more" if len(short) > 3 else ""
    least = min(lengths)
    change = f"set data.window to {least} or less" if least > 1 else "leave them out"
    raise UserError(
        f"{place}: {len(short)} of {len(lengths)} series are shorter than data.window "
        f"{data.window} ({named}{more}); {change}, or set data.pad to true"
    )


def _hidden(panel: Panel, data: Data, seed: int) -> tuple[Mask, ...]:
    """Choose what is hidden of each series."""
    kind, fraction, length = data.hide.kind, data.hide.fraction, data.hide.length
    return tuple(
        masks.hide(generator(seed, "hide", k), one.values, kind, fraction, length)
        for k, one in enumerate(panel.series)
    )


def _windows(
    stretches: Mapping[Split, Stretches], visible: Sequence[Mask], data: Data
) -> tuple[dict[str, Starts], tuple[str, ...]]:
    """Cut the windows of each split, without those in which nothing can be seen."""
    sums = np.concatenate([[0], np.cumsum(np.concatenate(visible).any(axis=1))])
    first = np.concatenate([[0], np.cumsum([len(mask) for mask in visible])])
    found: dict[str, Starts] = {}
    dropped = 0
    for name in SPLITS:
        starts = cut(stretches[name], data.window, data.stride, data.pad)
        begin = first[starts[:, 0]] + starts[:, 1]
        end = np.minimum(begin + data.window, first[starts[:, 0] + 1])
        kept = sums[end] > sums[begin]
        dropped += int((~kept).sum())
        found[name] = starts[kept]
    total = (
        sum(len(starts) for starts in found.values())
        if data.split != "windows"
        else len(found["train"])
    )
    if data.windows and total > data.windows:
        found = {
            name: thin(starts, max(data.windows * len(starts) // total, 1))
            for name, starts in found.items()
        }
    notes = (f"{dropped} windows without any value left out",) if dropped else ()
    return found, notes


def _check_windows(
    windows: Mapping[str, Starts],
    stretches: Mapping[Split, Stretches],
    panel: Panel,
    data: Data,
    place: str,
) -> None:
    """Refuse a split that leaves too little to train on, or nothing to choose or test on."""
    one_window = data.split == "chronological" and len(panel.series) > 2
    hint = ", or data.split to 'series'" if one_window else ""
    if len(windows["train"]) < FEWEST_WINDOWS:
        raise UserError(
            f"{place}: {len(windows['train'])} train windows of {data.window} rows; at least "
            f"{FEWEST_WINDOWS} are needed to learn from; give longer series, set data.window or "
            f"data.stride to less{hint}"
        )
    for name in ("valid", "test"):
        if len(windows[name]):
            continue
        longest = int(np.diff(stretches[name][:, 1:]).max(initial=0))
        raise UserError(
            f"{place}: no window of {data.window} rows fits into the {name} part, of which the "
            f"longest stretch is {longest} rows; set data.{name}_fraction to more or data.window "
            f"to less{hint}"
        )


def _learnt(panel: Panel, hidden: Sequence[Mask], train: Sequence[Mask]) -> list[Array]:
    """Return of each series the train rows, hidden values as NaN."""
    return [
        np.where(mask, np.nan, one.values)[rows]
        for one, mask, rows in zip(panel.series, hidden, train, strict=True)
    ]


def _season(learnt: Sequence[Array]) -> int:
    """Return the season that most of the longest series agree on."""
    longest = sorted(learnt, key=len, reverse=True)[:LONGEST]
    return int(np.bincount([season(values) for values in longest]).argmax())


def _notes(dataset: Dataset, data: Data, learnt: Array) -> tuple[str, ...]:
    """Say what a reader of the report should know."""
    notes = []
    if data.split == "windows":
        notes.append(
            "split 'windows' (TimeGAN's protocol): train, valid and test are the same windows and "
            "the scaling is fitted on all rows; scores say nothing about unseen data"
        )
    if dataset.spacing == "rows" and dataset.panel.clock.kind != "index":
        notes.append("each row counts as one step, however far apart their times are")
    elif _evened(dataset):
        notes.append("times within a tenth of a step of an even grid count as even")
    names = [
        name for name, flat in zip(dataset.channels, scaling.constant(learnt), strict=True) if flat
    ]
    if names:
        notes.append(f"constant in the train part, not scaled: {', '.join(names)}")
    return tuple(notes)
