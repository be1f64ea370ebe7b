"""Generated windows of 24 rows under TimeGAN's protocol: three model seeds, ten judges each.

Through the stages of the product. CPU seconds are those of the training stage, validation and the
fit of the density included, on one thread; generation is timed for 10,000 windows. Beside each
score stand what the judges make of an exact copy (its best possible value) and of channel Normals.
Koopman VAE's own code cannot be installed and has no licence: its figures are quoted. Results as
JSON beside it.

Files: ``stock_data.csv`` and ``energy_data.csv.gz`` of TimeGAN's repository in ``--root``; Sines
are generated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import domains
from core.runtime import cli, folder, stages

REPOSITORY = Path(__file__).resolve().parents[1]
FILES = {"stock-24": "stock_data.csv", "sines-24": None, "stock-24-half": "stock_data.csv"}
FILES["energy-24"] = "energy_data.csv.gz"
GENERATED = 10_000
QUOTED = {
    "sines-24": {"KoVAE, published": 0.005, "KoVAE's code, 80 epochs, 630 CPU s here": 0.034},
    "stock-24": {"KoVAE, published": 0.009, "KoVAE's code, 230 epochs, 636 CPU s here": 0.040},
    "stock-24-half": {"KoVAE, published": 0.092},
    "energy-24": {"KoVAE, published": 0.143, "Diffusion-TS, published": 0.122},
}


def one(config: str, seed: int, root: Path) -> dict[str, Any]:
    """Train, generate and judge one seed."""
    file = FILES[config]
    overrides = [f"seed={seed}"] + ([f"data.path={root / file}"] if file else [])
    path = REPOSITORY / "configs" / "series" / f"{config}.yaml"
    domain, settings = domains.load_domain("series"), cli.load(domains, path, overrides)
    with tempfile.TemporaryDirectory() as place:
        run = folder.create(settings, out=Path(place) / "run")
        stages.ingest(domain, settings, run)
        began = time.process_time()
        stages.train(domain, settings, run)
        trained = time.process_time()
        model = stages.load_model(domain, settings, run)
        times = torch.arange(settings.data.window).float().expand(GENERATED, -1)
        generating = time.process_time()
        with torch.no_grad():
            model.draw_windows(times)
        generated = time.process_time()
        stages.evaluate(domain, settings, run)
        metrics = folder.read_json(run / "metrics.json")["metrics"]
    return {
        "seed": seed,
        "train_cpu_s": round(trained - began, 1),
        "generate_10000_cpu_s": round(generated - generating, 2),
        "metrics": {
            name: {
                "value": round(metric["value"], 5),
                "interval": metric["interval"],
                "floors": metric["floors"],
                "copy": metric["ceiling"],
            }
            for name, metric in metrics.items()
            if "/" not in name
        },
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Mean ± sd over the model seeds of everything measured."""
    columns = {
        name: [row["metrics"][name]["value"] for row in rows] for name in rows[0]["metrics"]
    }
    columns |= {
        name: [row[name] for row in rows] for name in ("train_cpu_s", "generate_10000_cpu_s")
    }
    spread = {n: statistics.stdev(v) if len(v) > 1 else 0.0 for n, v in columns.items()}
    return {n: f"{statistics.fmean(v):.4f} ± {spread[n]:.4f}" for n, v in columns.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=REPOSITORY.parent / "shared/data/series")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("configs", nargs="*", default=[*FILES])
    given = parser.parse_args()
    path = Path(__file__).with_suffix(".json")
    results = json.loads(path.read_text()) if path.exists() else {}
    for config in given.configs:
        rows: list[dict[str, Any]] = []
        for seed in range(given.seeds):
            rows.append(one(config, seed, given.root.resolve()))
            results[config] = {"mean": summary(rows), "quoted": QUOTED[config], "seeds": rows}
            path.write_text(json.dumps(results, indent=2) + "\n")
        print(config, json.dumps(results[config]["mean"], indent=2), flush=True)


if __name__ == "__main__":
    main()
