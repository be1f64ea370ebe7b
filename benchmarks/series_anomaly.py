"""Labelled anomalies of real series, found by how surprising each row is given those before.

A linear dynamical system is trained on the first part, by ``configs/series/anomaly-*.yaml``, and
scores the rest row by row. Printed are the area under the precision-recall curve, and whether the
most surprising row is in the labelled stretch or at most 100 rows off (the criterion of the UCR
archive), each beside three floors: random scores, the size of the first difference, and the
distance from a rolling mean, both in standard deviations summed over channels.

The file of Daphnet that can be had without a download labels no row as anomalous, so there is
nothing to find in it. Faults of one of its three sensors, a second long, are injected into its
test part instead: detached (reads 0), frozen (repeats a row), noisy (as much noise as signal).
Steps are as extreme as faults, so single rows do not tell; the surprise of stretches as long as a
window of the settings does, where faults are about as long: a second in Daphnet. That score was
chosen on other draws of the same kinds of faults.

    python benchmarks/series_anomaly.py [--root ../shared/data/series]

writes ``series_anomaly.json`` beside itself, and ends with status 1 if a labelled stretch is
missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.runtime import folder, stages
from core.runtime.config import load_config
from core.runtime.order import generator
from domains.series.data import Dataset, Panel, load
from domains.series.domain import DOMAIN
from domains.series.metrics.anomalies import average_precision, hit
from domains.series.model.scores import filtered_scores, stretch_scores, typical

HERE = Path(__file__).resolve()
CONFIGS = HERE.parent.parent / "configs" / "series"
ROLLING = 25
FAULT = 64
DRAWS = range(10, 20)  # the score of stretches was chosen on draws 0 to 9
Scores = Callable[[Panel], np.ndarray]


def trained(name: str, root: Path, place: Path) -> tuple[Any, Dataset, float]:
    """The model of a file of settings, its data, and the CPU seconds of its training."""
    plain = load_config(DOMAIN.config, CONFIGS / f"{name}.yaml")
    path = root / plain.data.path
    config = load_config(DOMAIN.config, CONFIGS / f"{name}.yaml", [f"data.path={path}"])
    run = folder.create(config, out=place / name)
    stages.ingest(DOMAIN, config, run)
    began = time.process_time()
    stages.train(DOMAIN, config, run)
    seconds = time.process_time() - began
    return stages.load_model(DOMAIN, config, run), load(run / "data"), seconds


def scorers(model: Any, dataset: Dataset) -> dict[str, Scores]:
    """The model's score and the floors, each from a panel of one series to its rows."""
    scale = dataset.scaler

    def values(panel: Panel) -> np.ndarray:
        return scale.apply(panel.series[0].values)

    def difference(panel: Panel) -> np.ndarray:
        steps = np.diff(values(panel), axis=0, prepend=values(panel)[:1])
        return np.abs((steps - steps.mean(0)) / steps.std(0)).sum(1)

    def rolling(panel: Panel) -> np.ndarray:
        window = np.ones(ROLLING) / ROLLING
        means = [np.convolve(one, window, "same") for one in values(panel).T]
        return np.abs(values(panel) - np.stack(means, 1)).sum(1)

    usual = typical(model, dataset, dataset.window)
    return {
        "surprise": lambda panel: filtered_scores(model, dataset, panel)[0],
        "untypical stretch": lambda panel: stretch_scores(model, dataset, panel, usual)[0],
        "first difference": difference,
        "rolling mean": rolling,
    }


def judged(labels: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    return {
        "auc_pr": round(average_precision(labels, scores), 4),
        "hit": hit(labels, scores),
        "argmax": int(np.nanargmax(scores)),
    }


def labelled(model: Any, dataset: Dataset) -> dict[str, Any]:
    """How well labels are found after the train rows."""
    labels = dataset.panel.series[0].label
    assert labels is not None
    after = int(np.flatnonzero(dataset.train_rows[0]).max()) + 1
    found: dict[str, Any] = {"rows": len(labels) - after, "labelled": int(labels[after:].sum())}
    if not found["labelled"]:
        return found | {"note": "no row is labelled as anomalous: nothing can be found or missed"}
    found["random"] = {"auc_pr": round(float(labels[after:].mean()), 4)}
    for name, score in scorers(model, dataset).items():
        found[name] = judged(labels[after:], score(dataset.panel)[after:])
        found[name]["argmax"] += after
    return found


def faulty(panel: Panel, kind: str, draw: int, first: int) -> tuple[Panel, np.ndarray]:
    """A panel with a fault of one sensor, and which rows have it."""
    rng = generator(draw, "fault")
    series, labels = panel.series[0], np.zeros(len(panel.series[0].times), dtype=np.int64)
    row, sensor = int(rng.integers(first, len(labels) - FAULT)), 3 * int(rng.integers(3))
    values, there = series.values.copy(), (slice(row, row + FAULT), slice(sensor, sensor + 3))
    if kind == "noisy":
        spread = series.values[:, there[1]].std(0)
        values[there] += spread * rng.standard_normal(values[there].shape)
    else:
        values[there] = 0.0 if kind == "detached" else values[there][0]
    labels[there[0]] = 1
    return dataclasses.replace(panel, series=(dataclasses.replace(series, values=values),)), labels


def injected(model: Any, dataset: Dataset) -> dict[str, Any]:
    """Mean results over injected faults, each kind by itself."""
    length = len(dataset.panel.series[0].times)
    first = int(dataset.windows["test"][:, 1].min())
    results: dict[str, Any] = {"faults": len(DRAWS), "rows": FAULT, "test_rows": length - first}
    results["random"] = {
        "auc_pr": round(FAULT / (length - first), 4),
        "hits": round((FAULT + 200) / (length - first), 2),
    }
    scores = scorers(model, dataset)
    for kind in ("detached", "frozen", "noisy"):
        every: dict[str, list[dict[str, Any]]] = {}
        for draw in DRAWS:
            panel, labels = faulty(dataset.panel, kind, draw, first)
            for name, score in scores.items():
                every.setdefault(name, []).append(judged(labels[first:], score(panel)[first:]))
        results[kind] = {
            name: {
                "auc_pr": round(float(np.mean([one["auc_pr"] for one in found])), 4),
                "hits": round(float(np.mean([one["hit"] for one in found])), 2),
            }
            for name, found in every.items()
        }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("../shared/data/series"))
    root = parser.parse_args().root.resolve()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        for name in ("anomaly-ucr135", "anomaly-daphnet"):
            model, dataset, seconds = trained(name, root, Path(place))
            results[name] = {"train_cpu_s": round(seconds, 1)} | labelled(model, dataset)
            if not results[name]["labelled"]:
                results[name]["injected"] = injected(model, dataset)
            print(json.dumps({name: results[name]}, indent=1), flush=True)
    HERE.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n")
    if not results["anomaly-ucr135"]["surprise"]["hit"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
