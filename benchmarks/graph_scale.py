"""Peak memory of a whole run on a graph of 20,000 nodes and 200,000 links.

A made-up graph of communities goes as files through every stage of the product in a process of
its own, whose peak resident memory is read from the kernel. A node × node tensor of single
precision would take 1.6 GB; nothing of that size may exist.

    python benchmarks/graph_scale.py [nodes] [links]

writes ``graph_scale.json`` beside itself.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve()
MODELS = ("cosine-vgae", "vgae")
LIMIT_MB = 2000


def write_graph(place: Path, nodes: int, links: int) -> None:
    """Communities of 100 nodes, nine links in ten inside; features that betray them a little."""
    rng = np.random.default_rng(0)
    group = np.arange(nodes) // 100
    source = rng.integers(0, nodes, 2 * links)
    inside = group[source] * 100 + rng.integers(0, 100, 2 * links)
    target = np.where(rng.random(2 * links) < 0.9, inside, rng.integers(0, nodes, 2 * links))
    target = np.minimum(target, nodes - 1)
    pairs = np.stack([np.minimum(source, target), np.maximum(source, target)])
    pairs = np.unique(pairs[:, pairs[0] != pairs[1]], axis=1)
    pairs = pairs[:, np.sort(rng.permutation(pairs.shape[1])[:links])]
    lines = [f"n{a},n{b}" for a, b in pairs.T]
    (place / "edges.csv").write_text("source,target\n" + "\n".join(lines) + "\n")
    centres = rng.standard_normal((group.max() + 1, 16))
    features = centres[group] + 2 * rng.standard_normal((nodes, 16))
    rows = [f"n{i}," + ",".join(f"{x:.3f}" for x in row) for i, row in enumerate(features)]
    names = ",".join(f"f{i}" for i in range(16))
    (place / "features.csv").write_text(f"node,{names}\n" + "\n".join(rows) + "\n")


def child(place: Path, kind: str) -> None:
    """All stages; prints peak memory, times and scores."""
    from core.runtime import folder, stages
    from core.runtime.config import load_config
    from domains.graph.domain import DOMAIN

    settings = {
        "domain": "graph",
        "name": kind,
        "data": {
            "source": "edges",
            "root": str(place / "edges.csv"),
            "features": str(place / "features.csv"),
            "directed": False,
        },
        "model": {"kind": kind} | ({"latent": 32, "hops": [0, 1, 2]} if "cos" in kind else {}),
        "training": {"epochs": 40, "learning_rate": 0.02 if "cos" in kind else 0.01},
        "evaluation": {"samples": 8, "bootstrap": 200},
        "compute": {"threads": 1},
    }
    file = place / f"{kind}.yaml"
    file.write_text(json.dumps(settings))
    config = load_config(DOMAIN.config, file)
    run = folder.create(config, out=place / kind)
    seconds = {}
    for name, stage in stages.STAGES.items():
        began = time.process_time()
        stage(DOMAIN, config, run)
        seconds[name] = round(time.process_time() - began, 1)
    metrics = json.loads((run / stages.METRICS).read_text())["metrics"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    result = {
        "peak_rss_mb": round(peak),
        "cpu_s": seconds,
        "auc": round(metrics["auc"]["value"], 4),
        "floors": {key: round(value, 4) for key, value in metrics["auc"]["floors"].items()},
    }
    print(json.dumps(result))


def main() -> None:
    nodes, links = (int(x) for x in [*sys.argv[1:], 20_000, 200_000][:2])
    results = {"nodes": nodes, "links": links, "limit_mb": LIMIT_MB}
    with tempfile.TemporaryDirectory() as folder:
        write_graph(Path(folder), nodes, links)
        for kind in MODELS:
            done = subprocess.run(
                [sys.executable, str(HERE), "--child", folder, kind],
                check=True,
                stdout=subprocess.PIPE,
            )
            results[kind] = json.loads(done.stdout)
            print(kind, results[kind], flush=True)
    HERE.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n")
    if any(results[kind]["peak_rss_mb"] >= LIMIT_MB for kind in MODELS):
        sys.exit(1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), sys.argv[3])
    else:
        main()
