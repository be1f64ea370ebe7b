"""What a training step costs in the length of the series: CPU time and memory, linear in T.

The Koopman VAE with convolutions, and the structured one with its exact posterior (Kalman smoother
by parallel scan) and with a recognition network, each on sines of 100 to 10,000 rows, five
channels, four windows, one thread. A step is evidence, gradient and update, the evidence by itself
is without gradients; the best of three repeats. Memory is the growth of the peak resident memory
over one step, in a process of its own for each length. The slope of log time on log T is 1 where
cost is linear; it is fitted from 1,000 rows on, below which the overhead of each operation counts.

And the CPU time of an epoch of the Koopman VAE in closed form beside that of the published one, on
the same windows of 24 daily GOOG quotes, each with its own batch size; the best of three epochs.

    python benchmarks/series_cost.py [--epochs]

writes ``series_cost.json`` beside itself; with ``--epochs`` only the epochs are measured anew.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import domains
from core.runtime import cli, methods
from core.runtime.order import seed_everything_at
from domains.series import data
from domains.series.config import Config
from domains.series.model import build

HERE = Path(__file__).resolve()
LENGTHS = (100, 300, 1000, 3000, 10_000)
LINEAR_FROM, REPEATS, BATCH = 1000, 3, 4
STRUCTURED = {"prior": {"kind": "linear-dynamics"}, "posterior": {"kind": "gauss-markov"}}
MODELS: dict[str, dict[str, Any]] = {
    "koopman-vae, convolution": {"model": {"network": "convolution"}},
    "structured, linear": {"model": {"network": "linear"}, **STRUCTURED},
    "structured, mlp": {"model": {"network": "mlp"}, **STRUCTURED},
}


def settings(name: str, length: int) -> Config:
    given = MODELS[name]
    model = {"kind": "koopman-vae", "latent": 8, "hidden": 64, "layers": 3} | given["model"]
    return Config.model_validate(
        {
            "domain": "series",
            "name": "cost",
            "density": {"kind": "none"},
            "data": {"source": "sines", "windows": 80, "window": length, "split": "series"},
            "training": {"batch": BATCH},
            **given,
            "model": model,
        }
    )


def best_ms(task: Callable[[], object]) -> float:
    """The least CPU time of some repeats, in milliseconds."""
    found = []
    for _ in range(REPEATS):
        began = time.process_time()
        task()
        found.append(time.process_time() - began)
    return round(1000 * min(found), 2)


def child(name: str, length: int) -> None:
    """Measure one model at one length, and print what was found."""
    torch.set_num_threads(1)
    config = settings(name, length)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data.prepare(config, folder)
        seed_everything_at(0, "model")
        model = build(config, folder)
        batch = data.batches(config, folder, "train").batch(0, 0)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    objective = methods.build_objective(config.objective, config.schedule)

    def step() -> None:
        optimizer.zero_grad()
        objective(model.evidence(batch, 1), 1.0).loss.backward()
        optimizer.step()

    @torch.no_grad()
    def evidence() -> None:
        model.evidence(batch, 1)

    evidence()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    found = {"step_ms": best_ms(step), "evidence_ms": best_ms(evidence), "step_mb": grown / 1024}
    print(json.dumps(found))


def epoch_s(name: str) -> dict[str, float]:
    """CPU seconds of an epoch with the settings of a file, on quotes that come with a package."""
    torch.set_num_threads(1)
    quotes = ["data.source=google-stock", "data.path=null", "data.split=windows"]
    config = cli.load(domains, HERE.parents[1] / "configs" / "series" / f"{name}.yaml", quotes)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data.prepare(config, folder)
        seed_everything_at(0, "model")
        model, batches = build(config, folder), data.batches(config, folder, "train")
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, fused=True)
    objective = methods.build_objective(config.objective, config.schedule)

    def epoch() -> None:
        for index in range(len(batches)):
            optimizer.zero_grad()
            objective(model.evidence(batches.batch(0, index), 1), 1.0).loss.backward()
            optimizer.step()

    windows = len(batches.dataset.windows["train"])
    return {"windows": windows, "steps": len(batches), "epoch_s": best_ms(epoch) / 1000}


def epochs() -> dict[str, Any]:
    """An epoch of ours and of the published model, and how many of the first the second costs."""
    found: dict[str, Any] = {name: epoch_s(name) for name in ("stock-24", "stock-paper")}
    ours, published = (found[name]["epoch_s"] for name in ("stock-24", "stock-paper"))
    found["published_over_ours"] = round(published / ours, 2)
    print("an epoch", found, flush=True)
    return found


def slope(rows: dict[int, dict[str, float]], key: str) -> float:
    """The power of T that a cost grows with, from 1,000 rows on."""
    lengths = [length for length in rows if length >= LINEAR_FROM]
    costs = [rows[length][key] for length in lengths]
    return round(float(np.polyfit(np.log(lengths), np.log(costs), 1)[0]), 3)


def main(names: Iterable[str]) -> None:
    path = HERE.with_suffix(".json")
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    results |= {"windows": BATCH, "channels": 5, "repeats": REPEATS, "epochs": epochs()}
    for name in names:
        rows: dict[int, dict[str, float]] = {}
        for length in LENGTHS:
            done = subprocess.run(
                [sys.executable, str(HERE), "--child", name, str(length)],
                check=True,
                stdout=subprocess.PIPE,
            )
            rows[length] = json.loads(done.stdout.splitlines()[-1])
            print(f"{name:26} {length:>6} rows", rows[length], flush=True)
        powers = {key: slope(rows, key) for key in ("step_ms", "evidence_ms", "step_mb")}
        print(f"{name:26} grows with T to the power", powers, flush=True)
        results[name] = {"rows": rows, "power_of_T": powers}
    path.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], int(sys.argv[3]))
    else:
        main([] if sys.argv[1:] == ["--epochs"] else MODELS)
