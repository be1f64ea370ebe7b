"""How often a file meets what was asked of it: bits per pixel, bytes, or PSNR.

Every target that a Kodak picture can have at all is asked, and measured on the file that comes:
its length, and the PSNR of what it decodes to. Asked: within 1 % of bits per pixel and of bytes,
within 0.05 dB of PSNR, and at most 8 trial encodings, every time. What a picture cannot have must
be refused.

    python benchmarks/compression_targets.py [--model FILE] [--root ../shared/data/compression]
        [--effort 0]

Kodak: ``kodak/*.png`` below the root. The model is the one that comes with latentworks if none is
named. Writes ``compression_targets.json`` beside itself, an entry for each model and effort.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from core.runtime.errors import UserError
from domains.compression.data import read_picture
from domains.compression.data.records import Picture
from domains.compression.metrics.quality import psnr
from domains.compression.model import codec, store
from domains.compression.model.frozen import Frozen
from domains.compression.model.rates import LAST

RESULTS = Path(__file__).resolve().with_suffix(".json")
ASKED = {
    "target_bpp": (0.12, 0.2, 0.35, 0.6, 1.0, 1.6),
    "target_bytes": (6_000, 12_000, 25_000, 50_000, 100_000),
    "target_psnr": (26.0, 29.0, 32.0, 35.0, 38.0, 41.0),
}
WITHIN = {"target_bpp": (1.0, "%"), "target_bytes": (1.0, "%"), "target_psnr": (0.05, "dB")}
MOST_TRIALS = 8


def reached(frozen: Frozen, picture: Picture, data: bytes) -> dict[str, float]:
    """Return what a file has, measured on it."""
    return {
        "target_bpp": 8 * len(data) / (picture.height * picture.width),
        "target_bytes": float(len(data)),
        "target_psnr": psnr(picture.pixels, codec.decode(frozen, data).pixels),
    }


def span(frozen: Frozen, picture: Picture) -> tuple[dict[str, float], dict[str, float]]:
    """Return what the lowest and the highest rate give."""
    low, high = (
        reached(frozen, picture, codec.encode(frozen, picture, codec.Request(rate=rate)).data)
        for rate in (0, LAST)
    )
    return low, high


def miss_of(option: str, wanted: float, value: float) -> float:
    """Return how far off, in per cent or dB."""
    return value - wanted if option == "target_psnr" else 100 * (value / wanted - 1)


def asked_of(
    frozen: Frozen, name: str, picture: Picture, effort: int
) -> list[dict[str, Any]]:  # fmt: skip
    """Ask all targets of a picture."""
    low, high = span(frozen, picture)
    found = []
    for option, values in ASKED.items():
        for wanted in values:
            within = WITHIN[option][0]
            possible = (
                miss_of(option, wanted, low[option]) <= within
                and miss_of(option, wanted, high[option]) >= -within
            )
            each: dict[str, Any] = {"picture": name, "option": option, "wanted": wanted,
                                    "possible": possible}  # fmt: skip
            found.append(each)
            began = time.process_time()
            try:
                request = codec.Request(**{option: wanted}, effort=effort)
                encoded = codec.encode(frozen, picture, request)
            except UserError as error:
                each["refused"] = str(error)
                continue
            each["cpu_s"] = time.process_time() - began
            value = reached(frozen, picture, encoded.data)[option]
            each |= {"miss": miss_of(option, wanted, value), "trials": encoded.trials}
            each["met"] = abs(each["miss"]) <= within and encoded.trials <= MOST_TRIALS
    return found


def summed(option: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What is reported of a kind of target."""
    own = [row for row in rows if row["option"] == option]
    possible = [row for row in own if row["possible"]]
    written = [row for row in possible if "miss" in row]
    worst = max(written, key=lambda row: abs(row["miss"]))
    return {
        "asked": len(possible),
        "met": sum(row.get("met", False) for row in possible),
        "worst_miss": round(worst["miss"], 4),
        "worst_of": f"{worst['picture']}, {worst['wanted']:g}",
        "mean_trials": round(fmean(row["trials"] for row in written), 2),
        "most_trials": max(row["trials"] for row in written),
        "mean_cpu_s": round(fmean(row["cpu_s"] for row in written), 2),
        "out_of_reach": len(own) - len(possible),
        "refused_of_these": sum("refused" in row for row in own if not row["possible"]),
        "missed": [
            {name: row.get(name) for name in ("picture", "wanted", "miss", "trials", "refused")}
            for row in possible
            if not row.get("met", False)
        ],
    }


def show(found: dict[str, Any]) -> None:
    """Print the table."""
    print(f"{found['model']} ({found['identity']}), effort {found['effort']}\n")
    print("| target | asked | met | worst miss | of | mean trials | most trials | CPU s | "
          "out of reach | refused of these |")  # fmt: skip
    print("|---|---:|---:|---:|---|---:|---:|---:|---:|---:|")
    for option, each in found["targets"].items():
        within, unit = WITHIN[option]
        print(f"| {option.removeprefix('target_')}, within {within:g} {unit} | {each['asked']} | "
              f"{each['met']} | {each['worst_miss']:+.3f} {unit} | {each['worst_of']} | "
              f"{each['mean_trials']:.1f} | {each['most_trials']} | {each['mean_cpu_s']:.2f} | "
              f"{each['out_of_reach']} | {each['refused_of_these']} |")  # fmt: skip
    print("\nevery target met" if found["every_target_met"] else "\ntargets were missed")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--root", type=Path, default=Path("../shared/data/compression"))
    parser.add_argument("--effort", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    path = asked.model or store.shipped()
    frozen = store.load(path)
    pictures = [(file.name, read_picture(file)) for file in sorted(asked.root.glob("kodak/*.png"))]
    if not pictures:
        parser.error(f"{asked.root}/kodak: no pictures")
    rows = [row for name, picture in pictures
            for row in asked_of(frozen, name, picture, asked.effort)]  # fmt: skip
    targets = {option: summed(option, rows) for option in ASKED}
    every = all(
        each["met"] == each["asked"] and each["refused_of_these"] == each["out_of_reach"]
        for each in targets.values()
    )
    found = {"model": path.stem, "identity": frozen.identity.hex(), "effort": asked.effort,
             "targets": targets, "every_target_met": every}  # fmt: skip
    show(found)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known |= {f"{path.stem}, effort {asked.effort}": found}
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
