"""How surprising each row of a series is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.runtime.progress import Progress
from domains.series.cli.covering import Covered, chunks
from domains.series.cli.opened import Trained
from domains.series.cli.stamps import stamp
from domains.series.cli.tables import with_values
from domains.series.data import Panel, Windows, panel_windows
from domains.series.metrics.anomalies import average_precision, judged_by_the_rest
from domains.series.model.scores import filtered_scores
from domains.series.model.structured import StructuredKoopmanVAE

Array = NDArray[np.float64]
OVERLAP = 4  # windows that most rows are scored in


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of rows.

    Args:
        surprise: For each series the surprise of each value in nats, ``(time, channel)``, NaN
            where there is no value or nothing to judge it by.
        score: For each series that of each row, per value, ``(time,)``.
    """

    surprise: list[Array]
    score: list[Array]


def score(opened: Trained, panel: Panel, samples: int) -> Scored:
    r"""Score rows by :math:`-\log p(x \mid \text{seen})` of their values, mean over windows.

    What is seen is what the run was trained to see: a model of task generate sees the whole
    window (the reconstruction probability of An and Cho, 2015), one of task impute the other
    three quarters of the window, one of task forecast the rows before. A model that filters
    judges each row by all rows before it, the channels jointly. Nats are of scaled values.

    Args:
        opened: The run.
        panel: Series of its channels.
        samples: Posterior draws behind each density.
    """
    if isinstance(opened.model, StructuredKoopmanVAE) and opened.model.filters:
        return _filtered(opened, opened.model, panel, samples)
    covered = Covered(opened.dataset, panel, _stride(opened))
    every = np.arange(len(covered.starts))
    total, count = np.zeros((2, sum(covered.lengths), len(panel.channels)))
    with Progress("scoring", len(every)) as progress:
        for part in chunks(every, samples * opened.dataset.window * len(panel.channels)):
            surprise, judged = _surprise(opened, covered.windows(part), samples)
            rows = covered.rows(part)
            np.add.at(total, rows, np.where(judged, surprise, 0))
            np.add.at(count, rows, judged)
            progress.show(int(part[-1]) + 1, {})
    found = covered.split(total / np.where(count, count, np.nan))
    return Scored(found, [_mean_of_known(each) for each in found])


def _filtered(opened: Trained, model: StructuredKoopmanVAE, panel: Panel, samples: int) -> Scored:
    """Each series as one window, however long; its rows jointly, its values one by one."""
    surprise, score = [], []
    with Progress("scoring", len(panel.series)) as progress:
        for number, one in enumerate(panel.series):
            alone = replace(panel, series=(one,))
            (joint,) = filtered_scores(model, opened.dataset, alone, samples)
            whole = panel_windows(opened.dataset, alone, window=len(one.times))
            values = model.surprise(whole.to(opened.device), samples)[0].cpu().double().numpy()
            known = np.isfinite(one.values)
            surprise.append(np.where(known, values, np.nan))
            score.append(joint / np.where(known.any(1), known.sum(1), np.nan))
            progress.show(number + 1, {})
    return Scored(surprise, score)


def scores_table(panel: Panel, scored: Scored) -> Panel:
    """Columns score, rank (1 is the most surprising row), score_<channel>; labels stay."""
    rank = np.full(sum(map(len, scored.score)), np.nan)
    order = ranked(scored)
    rank[order] = np.arange(1, len(order) + 1)
    ranks = np.split(rank, np.cumsum([len(each) for each in scored.score])[:-1])
    values = [
        np.column_stack(columns)
        for columns in zip(scored.score, ranks, scored.surprise, strict=True)
    ]
    channels = ("score", "rank", *(f"score_{name}" for name in panel.channels))
    whole = "Int64" if len(order) < len(rank) else "int64"
    dtypes = ("float64", whole, *("float64" for _ in panel.channels))
    return with_values(panel, values, channels=channels, dtypes=dtypes, columns={})


def ranked(scored: Scored) -> NDArray[np.int64]:
    """Rows with a score, the most surprising first, counted through all series."""
    flat = np.concatenate(scored.score)
    order = np.argsort(-np.nan_to_num(flat, nan=-np.inf), kind="stable")
    return order[~np.isnan(flat[order])]


def summary(panel: Panel, scored: Scored, count: int) -> dict[str, Any]:
    """The most surprising rows, and how well labels are found where there are any."""
    flat = np.concatenate(scored.score)
    known = ~np.isnan(flat)
    found: dict[str, Any] = {
        "rows": len(flat),
        "scored": int(known.sum()),
        "top": [_named(panel, scored, int(place)) for place in ranked(scored)[:count]],
    }
    if has_labels(panel):
        labels = np.concatenate([one.label for one in panel.series if one.label is not None])
        share = float(labels[known].mean())
        found |= {"labelled": int(labels.sum()), "auc_pr_floor": share}
        found["auc_pr"] = average_precision(labels[known], flat[known]) if 0 < share < 1 else None
    return found


def text(found: Mapping[str, Any]) -> str:
    """The same for a person."""
    width = max([len(row["time"]) for row in found["top"]], default=4)
    lines = [f"{'rank':>4}  {'time':<{width}}  nats per value  most from"]
    for place, row in enumerate(found["top"], 1):
        series = f"  {row['series']}" if row["series"] else ""
        lines.append(
            f"{place:>4}  {row['time']:<{width}}  {row['score']:>14.3f}  {row['channel']}{series}"
        )
    if "auc_pr" in found:
        value = "undefined: all scored rows have one label"
        if found["auc_pr"] is not None:
            value = f"{found['auc_pr']:.3f} (at random {found['auc_pr_floor']:.3f})"
        lines.append(f"AUC-PR: {value}, {found['labelled']} of {found['rows']} rows labelled")
    return "\n".join(lines)


def has_labels(panel: Panel) -> bool:
    """Whether every series has labels."""
    return all(one.label is not None for one in panel.series)


def _named(panel: Panel, scored: Scored, place: int) -> dict[str, Any]:
    ends = np.cumsum([len(each) for each in scored.score])
    series = int(np.searchsorted(ends, place, side="right"))
    row = place - int(ends[series]) + len(scored.score[series])
    one = panel.series[series]
    return {
        "series": one.name,
        "row": row,
        "time": stamp(panel.clock, float(one.times[row])),
        "score": float(scored.score[series][row]),
        "channel": panel.channels[int(np.nanargmax(scored.surprise[series][row]))],
    }


def _stride(opened: Trained) -> int:
    task, window = opened.config.task, opened.dataset.window
    span = task.horizon if task.kind == "forecast" else window
    return max(1, span // OVERLAP)


def _surprise(opened: Trained, batch: Windows, samples: int) -> tuple[Array, NDArray[np.bool_]]:
    """The surprise of each value, and which values there was something to judge by."""
    total = torch.zeros(batch.values.shape)
    judged = torch.zeros(batch.values.shape, dtype=torch.bool)
    task = opened.config.task
    horizon = task.horizon if task.kind == "forecast" else 0
    for shown, wanted in judged_by_the_rest(batch, task.kind, horizon):
        surprise = opened.model.surprise(shown.to(opened.device), samples).cpu()
        total, judged = torch.where(wanted, surprise, total), judged | wanted
    return total.double().numpy(), judged.numpy()


def _mean_of_known(values: Array) -> Array:
    known = ~np.isnan(values)
    count = known.sum(1)
    return np.where(known, values, 0).sum(1) / np.where(count, count, np.nan)
