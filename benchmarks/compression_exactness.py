"""Is what one setting of a machine writes read by every other, and is a file as long as estimated?

Every Kodak picture at three rates is written under each setting that this machine has (one thread,
two, without oneDNN, other layouts of memory, a GPU) and read under every one: by the integers of
the frozen model, and by its float networks in their place, which is what codecs usually do. Asked:
100 % of the latents identical by integers, no pixel off by more than one grey level.

Then the length of each file against what the frozen tables say that its symbols cost. Asked:
within 0.5 %, and 45 bytes for the header.

    python benchmarks/compression_exactness.py [--model FILE] [--root ../shared/data/compression]

Kodak: ``kodak/*.png`` below the root. The model is the one that comes with latentworks if none is
named. Writes ``compression_exactness.json`` beside itself, an entry for each model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from domains.compression.data import read_picture
from domains.compression.data.records import Picture
from domains.compression.model import codec, proof, store
from domains.compression.model.frozen import Frozen
from domains.compression.model.rates import LAST, MIDDLE

RESULTS = Path(__file__).resolve().with_suffix(".json")
RATES = (LAST // 4, MIDDLE, LAST - LAST // 4)
WITHIN_PERCENT, HEADER_BYTES = 0.5, 45  # asked
ESTIMATED = range(0, LAST + 1, 42)


def crossed(frozen: Frozen, pictures: Sequence[Picture]) -> dict[str, Any]:
    """What settings read of what others wrote."""
    found = proof.prove(frozen, pictures, RATES)
    return {
        "settings": list(found.settings),
        "identical_share": {
            path: found.identical_share(path) for path in (proof.INTEGERS, proof.FLOATS)
        },
        "largest_difference_grey_levels": found.largest_difference,
        "pairs": [
            {
                "path": pair.path,
                "written": pair.written,
                "read": pair.read,
                "identical": pair.identical,
                "streams": pair.streams,
                "largest_difference": pair.largest_difference,
            }
            for pair in found.pairs
        ],
        "met": found.exact and found.largest_difference <= 1,
    }


def lengths(frozen: Frozen, pictures: Sequence[Picture]) -> dict[str, Any]:
    """Files against their estimates."""
    rows = []
    for picture in pictures:
        for rate in ESTIMATED:
            encoded = codec.encode(frozen, picture, codec.Request(rate=rate))
            stream = 8 * (len(encoded.data) - encoded.header_bytes)
            over = 100 * (stream / encoded.bits_estimate - 1)
            apart = abs(8 * len(encoded.data) - encoded.bits_estimate)
            allowed = encoded.bits_estimate * WITHIN_PERCENT / 100 + 8 * HEADER_BYTES
            rows.append((over, encoded.header_bytes, apart <= allowed))
    return {
        "files": len(rows),
        "worst_stream_over_estimate_percent": round(max((row[0] for row in rows), key=abs), 4),
        "largest_header_bytes": max(row[1] for row in rows),
        "files_within": sum(row[2] for row in rows),
        "met": all(row[2] and row[1] <= HEADER_BYTES for row in rows),
    }


def show(found: dict[str, Any]) -> None:
    """Print the tables."""
    print(f"{found['model']} ({found['identity']}), {found['pictures']} pictures")
    across, names = found["settings"], found["settings"]["settings"]
    for path, share in across["identical_share"].items():
        if share is None:
            continue
        own = {(p["written"], p["read"]): p for p in across["pairs"] if p["path"] == path}
        print(f"\n| {path}: written | " + " | ".join(f"read: {name}" for name in names) + " |")
        print("|---|" + "---:|" * len(names))
        for written in names:
            cells = [own[written, read] for read in names]
            print(f"| {written} | "
                  + " | ".join(f"{each['identical']} of {each['streams']}" for each in cells)
                  + " |")  # fmt: skip
        print(f"\n{path}: {100 * share:.1f} % identical under another setting")
    print(f"pixels of the same latents: {across['largest_difference_grey_levels']} grey levels "
          f"apart at most: {'met' if across['met'] else 'missed'}")  # fmt: skip
    files = found["lengths"]
    print(f"\n{files['files_within']} of {files['files']} files within {WITHIN_PERCENT:g} % + "
          f"{HEADER_BYTES} bytes of their estimate; streams "
          f"{files['worst_stream_over_estimate_percent']:+.3f} % at worst, headers of "
          f"{files['largest_header_bytes']} bytes at most: "
          f"{'met' if files['met'] else 'missed'}")  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--root", type=Path, default=Path("../shared/data/compression"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    path = asked.model or store.shipped()
    frozen = store.load(path)
    pictures = [read_picture(file) for file in sorted(asked.root.glob("kodak/*.png"))]
    if not pictures:
        parser.error(f"{asked.root}/kodak: no pictures")
    found = {"model": path.stem, "identity": frozen.identity.hex(), "pictures": len(pictures),
             "rates": RATES, "lengths": lengths(frozen, pictures),
             "settings": crossed(frozen, pictures)}  # fmt: skip
    show(found)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(known | {path.stem: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
