"""Kill a training with SIGKILL at random moments, resume it, and compare with one never killed.

Equal, byte for byte: the chosen weights, history.jsonl, metrics.json and report.html.
Results in ``kill_resume.json``.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
COMPARED = ("history.jsonl", "metrics.json", "report.html")


def latentworks(*words: object) -> None:
    """Run a command to its end."""
    command = [sys.executable, "-m", "domains", *map(str, words)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)


def rows(run: Path) -> int:
    history = run / "history.jsonl"
    return history.read_text().count("\n") if history.exists() else 0


def killed_at(run: Path, domain: str, row: int) -> bool:
    """Start the training, kill it when its history has so many rows; whether it still lived."""
    command = [sys.executable, "-m", "domains", domain, "train", str(run)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    while process.poll() is None and rows(run) < row:
        time.sleep(0.001)
    process.kill()
    return process.wait() == -signal.SIGKILL


def result_of(run: Path) -> list[bytes]:
    best = sorted(run.glob("checkpoints/best-*/model.safetensors"))[-1]
    return [path.read_bytes() for path in (best, *(run / name for name in COMPARED))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/graph/smoke.yaml")
    parser.add_argument("--kills", type=int, default=20)
    given = parser.parse_args()
    domain, moments = Path(given.config).parent.name, random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        latentworks("run", given.config, "--out", whole)
        expected, total = result_of(whole), rows(whole)
        kills = equal = 0
        while kills < given.kills:
            run = Path(folder) / f"run-{kills}"
            latentworks(domain, "ingest", given.config, "--out", run)
            row = moments.randrange(1, total)
            if not killed_at(run, domain, row):
                subprocess.run(["rm", "-r", str(run)], check=True)
                continue
            kills += 1
            latentworks("resume", run)
            equal += result_of(run) == expected
            print(f"killed after row {row} of {total}: {equal} of {kills} equal", flush=True)
    result = {"config": given.config, "kills": kills, "equal": equal, "compared": COMPARED}
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(equal != kills)


if __name__ == "__main__":
    main()
