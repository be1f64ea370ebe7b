"""Link prediction on Cora and CiteSeer: the reported settings over five seeds.

Through the stages of the product. The seed decides the split, the negatives and the weights. The
checkpoint is chosen on validation and the test links are looked at once. CPU seconds are those of
the training stage, validation included, on one thread. Results as JSON beside it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import domains
from core.runtime import cli, folder, stages
from core.runtime.statistics import t_interval

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = ("cora", "citeseer", "cora-vgae-reference", "citeseer-vgae-reference")
SHOWN = ("auc", "average_precision", "mrr", "hits_at_10", "auc_degree_matched", "auc_two_hop")
SHOWN += ("calibration_error", "linear_probe_accuracy")


def one(config: str, seed: int, root: str | None) -> dict[str, Any]:
    """Train and evaluate one seed."""
    overrides = [f"seed={seed}"] + ([f"data.root={root}"] if root else [])
    path = REPOSITORY / "configs" / "graph" / f"{config}.yaml"
    domain, settings = domains.load_domain("graph"), cli.load(domains, path, overrides)
    with tempfile.TemporaryDirectory() as place:
        run = folder.create(settings, out=Path(place) / "run")
        stages.ingest(domain, settings, run)
        began = time.process_time()
        stages.train(domain, settings, run)
        seconds = time.process_time() - began
        stages.evaluate(domain, settings, run)
        results = folder.read_json(run / "metrics.json")
    metrics = results["metrics"]
    return {
        "seed": seed,
        "train_cpu_s": round(seconds, 1),
        "epoch": results["checkpoint"]["epoch"],
        "floors": metrics["auc"]["floors"],
        **{name: round(metrics[name]["value"], 5) for name in SHOWN},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", help="folder of the Planetoid files; downloaded if not given")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--first", type=int, default=0, help="the first seed; others are kept apart"
    )
    parser.add_argument("configs", nargs="*", default=CONFIGS)
    given = parser.parse_args()
    path = Path(__file__).with_suffix(".json")
    results = json.loads(path.read_text()) if path.exists() else {}
    for config in given.configs:
        rows = [
            one(config, seed, given.root) for seed in range(given.first, given.first + given.seeds)
        ]
        mean = {}
        for name in ("train_cpu_s", *SHOWN):
            values = [row[name] for row in rows]
            low, high = t_interval(values)
            center = sum(values) / len(values)
            mean[name] = {"mean": round(center, 4), "t_interval": [round(low, 4), round(high, 4)]}
        name = f"{config}, seeds from {given.first}" if given.first else config
        results[name] = {"mean": mean, "seeds": rows}
        print(config, {name: mean[name]["mean"] for name in mean}, flush=True)
        path.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
