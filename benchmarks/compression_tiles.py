"""Memory for a picture of 24 megapixels in tiles, and what tiles cost at their seams.

The Kodak pictures, each turned and mirrored, are laid side by side to one of 6000 x 4000 pixels,
which the command line encodes and decodes in tiles of 1024 and as it does by itself. Asked: a
resident set below 1.5 GiB at its largest.

Then every Kodak picture is encoded whole and in small tiles. Asked: less than 0.05 dB lost

* at the same rate index, over the whole picture and within 8 pixels of seams;
* at the same length, where the whole picture's PSNR is interpolated over the logarithm of bytes.

    python benchmarks/compression_tiles.py [--model FILE] [--root ../shared/data/compression]

Kodak: ``kodak/*.png`` below the root. The model is the one that comes with latentworks if none is
named. Writes ``compression_tiles.json`` beside itself, an entry for each model.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from domains.compression.data import read_picture
from domains.compression.data.records import Picture
from domains.compression.metrics.quality import psnr, psnr_of
from domains.compression.model import codec, store
from domains.compression.model.frozen import Frozen

RESULTS = Path(__file__).resolve().with_suffix(".json")
REPOSITORY = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT = 6000, 4000
MOST_BYTES, MOST_LOSS_DB = 3 << 29, 0.05  # asked
SIDES, RATES = (256, 128), (63, 126, 189)
NEAR, SPAN = 8, 24  # pixels on each side of a seam; rate indices on each side to interpolate in
# Runs a command and prints its CPU-seconds and largest resident set: in a process of its own and
# small, because a child is said to be as large as its parent was when it started.
WATCH = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(process.pid, 0)
print(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, 1024 * used.ru_maxrss)
"""


def mosaic(pictures: Sequence[Picture]) -> Tensor:
    """One large picture of many, none beside itself."""
    whole = torch.empty(3, HEIGHT, WIDTH, dtype=torch.uint8)
    for row, top in enumerate(range(0, HEIGHT, 512)):
        for column, left in enumerate(range(0, WIDTH, 768)):
            which = 9 * row + column
            axes = [axis for axis in (1, 2) if which // len(pictures) & axis]
            pixels = pictures[which % len(pictures)].pixels
            lying = pixels if pixels.shape[2] == 768 else pixels.transpose(1, 2)
            part = lying.flip(axes)[:, : HEIGHT - top, : WIDTH - left]
            whole[:, top : top + part.shape[1], left : left + part.shape[2]] = part
    return whole


def watched(*words: object) -> dict[str, Any]:
    """Run a verb of the command line; its CPU-seconds and memory."""
    command = [sys.executable, "-m", "domains", "compression", *words]
    run = subprocess.run(
        [sys.executable, "-c", WATCH, *map(str, command)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    status, cpu_s, peak = run.stdout.split()
    if status != "0":
        raise SystemExit(f"{' '.join(map(str, words))}: ended with {status}\n{run.stderr}")
    return {"cpu_s": round(float(cpu_s), 2), "peak_mib": round(int(peak) / 2**20)}


def large(model: Path, pictures: Sequence[Picture]) -> dict[str, Any]:
    """The large picture through the command line."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder, "large.png")
        pixels = mosaic(pictures)
        Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())).save(
            given, compress_level=1
        )
        for name, tile in (("1024", ("--tile", 1024)), ("by itself", ())):
            file, out = Path(folder, f"{name}.lwc"), Path(folder, f"{name}.png")
            own = ("--model", model.resolve())
            encoded = watched("encode", given, file, *tile, *own)
            decoded = watched("decode", file, out, *own)
            found[name] = {
                "tiles": codec.info(file.read_bytes())["tiles"],
                "bytes": file.stat().st_size,
                "psnr_db": round(psnr(pixels, read_picture(out).pixels), 3),
                "encode": encoded,
                "decode": decoded,
                "met": max(encoded["peak_mib"], decoded["peak_mib"]) * 2**20 < MOST_BYTES,
            }
    return found


def near_seams(picture: Picture, side: int) -> Tensor:
    """Return which pixels are near a seam."""
    rows, columns = (
        sum(
            (torch.arange(size) - seam + 0.5).abs() < NEAR for seam in range(side, size, side)
        ).bool()
        for size in (picture.height, picture.width)
    )
    return rows[:, None] | columns[None, :]


def squared(picture: Picture, decoded: Picture, where: Tensor | None = None) -> float:
    """Return the mean squared error, of some pixels only if asked."""
    errors = (picture.pixels.double() - decoded.pixels).square().mean(0)
    return float(errors.mean() if where is None else errors[where].mean())


def at_length(curve: Sequence[tuple[float, float]], length: float) -> float:
    """Return the PSNR of a curve of bytes and PSNR at a length."""
    sizes, values = zip(*sorted(curve), strict=True)
    if not sizes[0] <= length <= sizes[-1]:
        raise ValueError(f"{length} bytes; the curve has {sizes[0]} to {sizes[-1]}")
    return float(np.interp(math.log(length), np.log(sizes), values))


def seams(frozen: Frozen, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """What small tiles lose, for each side and rate the mean and the worst picture."""
    rows: dict[tuple[int, int], list[dict[str, float]]] = {}
    for picture in pictures:
        for rate in RATES:
            curve, whole = [], {}
            for each in (rate - SPAN, rate - SPAN // 2, rate, rate + SPAN // 2, rate + SPAN):
                data = codec.encode(frozen, picture, codec.Request(rate=each)).data
                whole[each] = codec.decode(frozen, data)
                curve.append((len(data), psnr_of(squared(picture, whole[each]))))
            for side in SIDES:
                data = codec.encode(frozen, picture, codec.Request(rate=rate, tile=side)).data
                tiled, where = codec.decode(frozen, data), near_seams(picture, side)
                reached = psnr_of(squared(picture, tiled))
                rows.setdefault((side, rate), []).append({
                    "over_all": curve[2][1] - reached,
                    "near_seams": psnr_of(squared(picture, whole[rate], where))
                    - psnr_of(squared(picture, tiled, where)),
                    "equal_length": at_length(curve, len(data)) - reached,
                    "more_bytes_percent": 100 * (len(data) / curve[2][0] - 1),
                })  # fmt: skip
    return [{"side": side, "rate": rate, **spread(own)} for (side, rate), own in rows.items()]


def spread(rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Mean and worst of each column; whether the losses are small enough."""
    found: dict[str, Any] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        found[name] = {"mean": round(sum(values) / len(values), 4), "worst": round(max(values), 4)}
    losses = [found[name]["worst"] for name in ("over_all", "near_seams", "equal_length")]
    found["met"] = max(losses) < MOST_LOSS_DB
    return found


def show(found: dict[str, Any]) -> None:
    """Print the tables."""
    print(f"{found['model']} ({found['identity']}), {WIDTH} x {HEIGHT}\n")
    print("| tiles | bytes | PSNR, dB | encode, MiB | CPU s | decode, MiB | CPU s | < 1.5 GiB |")
    print("|---|---:|---:|---:|---:|---:|---:|---|")
    for name, each in found["large"].items():
        encode, decode = each["encode"], each["decode"]
        print(f"| {name}: {each['tiles'][0]} x {each['tiles'][1]} | {each['bytes']} | "
              f"{each['psnr_db']:.2f} | {encode['peak_mib']} | {encode['cpu_s']:.1f} | "
              f"{decode['peak_mib']} | {decode['cpu_s']:.1f} | "
              f"{'met' if each['met'] else 'missed'} |")  # fmt: skip
    print("\nlost, dB: mean (worst picture)\n")
    print("| side | rate | same index | near seams | same length | more bytes | < 0.05 dB |")
    print("|---:|---:|---:|---:|---:|---:|---|")
    for each in found["seams"]:
        cells = [f"{each[name]['mean']:+.3f} ({each[name]['worst']:+.3f})"
                 for name in ("over_all", "near_seams", "equal_length")]  # fmt: skip
        more = each["more_bytes_percent"]
        print(f"| {each['side']} | {each['rate']} | {' | '.join(cells)} | "
              f"{more['mean']:+.2f} ({more['worst']:+.2f}) % | "
              f"{'met' if each['met'] else 'missed'} |")  # fmt: skip


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
    found = {"model": path.stem, "identity": frozen.identity.hex(),
             "large": large(path, pictures), "seams": seams(frozen, pictures)}  # fmt: skip
    show(found)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(known | {path.stem: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
