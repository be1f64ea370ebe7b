"""Rate and distortion of a frozen model on the Kodak pictures, beside other codecs.

The model writes every picture at ten qualities to real files, headers included, and reads them
again. Beside it stand JPEG, WebP, AVIF, JPEG 2000 and JPEG XL, written here at the same settings
as in the report of a run and kept in the JSON from one time to the next, and MozJPEG, whose points
on the same pictures are read from a table (it has no Python package). For each: the Bjøntegaard
difference of rate with the PSNR between which it is taken. Then the points, by how much files
exceed what the frozen tables say, and CPU-seconds per picture, the median over pictures, on one
thread.

    python benchmarks/compression_rd.py [--model FILE] [--root ../shared/data/compression]
        [--effort 0] [--again]

Kodak: ``kodak/*.png`` below the root; MozJPEG: ``classical_kodak/mozjpeg-420.csv``. The model is
the one that comes with latentworks if none is named. Writes ``compression_rd.json`` beside itself,
an entry for each model and effort.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, get_args

import torch

from domains.compression.config import Baseline
from domains.compression.data import read_picture
from domains.compression.data.records import Picture
from domains.compression.metrics import classical, rd
from domains.compression.metrics.curves import Curve, Point, curves_of, saving
from domains.compression.metrics.quality import PEAK
from domains.compression.model import store

HERE = Path(__file__).resolve()
RESULTS = HERE.with_suffix(".json")
QUALITIES = (0, 7, 14, 21, 28, 35, 42, 49, 56, 63)
MOZJPEG = "mozjpeg"

Named = tuple[str, Picture]


def others(pictures: Sequence[Named], known: dict[str, Any], again: bool) -> dict[str, Any]:
    """Curves of other codecs, kept from last time where pictures and settings are the same."""
    found = {}
    for codec in get_args(Baseline):
        settings = (codec, classical.SETTINGS[codec], classical.QUALITIES[codec])
        digest = hashlib.sha256(repr(settings).encode())
        for name, picture in pictures:
            digest.update(name.encode() + picture.pixels.numpy().tobytes())
        key = digest.hexdigest()[:16]
        if again or known.get(codec, {}).get("key") != key:
            (curve,) = curves_of(
                point
                for name, picture in pictures
                for point in rd.of_baseline(codec, name, picture)
            ).values()
            found[codec] = {"key": key, **rounded(curve)}
        else:
            found[codec] = known[codec]
    return found


def rounded(curve: Curve) -> dict[str, Any]:
    """A curve as JSON."""
    values = dataclasses.asdict(curve)
    return {
        name: [round(each, 6) if isinstance(each, float) else each for each in value]
        if isinstance(value, tuple)
        else value
        for name, value in values.items()
    }


def restored(kept: dict[str, Any]) -> Curve:
    """A curve that was kept."""
    values: dict[str, Any] = {name: value for name, value in kept.items() if name != "key"}
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return Curve(**(values | lists))


def mozjpeg(root: Path, pictures: Sequence[Named]) -> list[Point]:
    """Points of MozJPEG on these pictures, from its table."""
    names = {name for name, _ in pictures}
    with (root / "classical_kodak" / "mozjpeg-420.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["image"] in names]
    return [
        Point(
            codec=MOZJPEG,
            quality=float(row["quality"]),
            picture=row["image"],
            bytes=0,
            bpp=float(row["bpp"]),
            squared_error=PEAK**2 / 10 ** (float(row["psnr_rgb"]) / 10),
            ms_ssim=float(row["ms_ssim"]),
        )
        for row in rows
    ]


def savings(own: Curve, curves: dict[str, Curve]) -> dict[str, Any]:
    """How much less rate than each other codec, and where it was taken."""
    found: dict[str, Any] = {}
    for codec, curve in curves.items():
        saved = saving(curve, own)
        found[codec] = None if saved is None else {
            "percent": round(saved.percent, 2),
            "from_db": round(saved.low_db, 2),
            "to_db": round(saved.high_db, 2),
            "points_inside": list(saved.inside),
        }  # fmt: skip
    return found


def measured(points: Sequence[Point], curves: dict[str, Curve]) -> dict[str, Any]:
    """All that is reported of a model."""
    (own,) = curves_of(points).values()
    bits = [point.bits_estimate or 0.0 for point in points]
    means = zip(own.qualities, own.bpp, own.psnr_db, own.ms_ssim, strict=True)
    return {
        "pictures": len(own.pictures),
        "bd_rate": savings(own, curves),
        "points": [
            {"quality": quality, "bpp": round(bpp, 5), "psnr_db": round(db, 3),
             "ms_ssim": round(similar, 5)}
            for quality, bpp, db, similar in means
        ],
        "file_over_estimate_percent": round(
            100 * (8 * sum(point.bytes for point in points) / sum(bits) - 1), 3
        ),
        "bytes_beside_estimate": round(
            fmean(point.bytes - each / 8 for point, each in zip(points, bits, strict=True)), 2
        ),
        "encode_cpu_s": round(median(point.encode_s for point in points), 3),
        "decode_cpu_s": round(median(point.decode_s for point in points), 3),
    }  # fmt: skip


def show(found: dict[str, Any]) -> None:
    """Print the tables."""
    print(f"{found['model']} ({found['identity']}), effort {found['effort']}, "
          f"{found['pictures']} pictures")  # fmt: skip
    print("\n| codec | rate at equal PSNR | between | points inside |\n|---|---:|---|---|")
    for codec, saved in found["bd_rate"].items():
        if saved is None:
            print(f"| {codec} | n/a | | |")
            continue
        inside = " and ".join(map(str, saved["points_inside"]))
        between = f"{saved['from_db']:.2f} to {saved['to_db']:.2f} dB"
        print(f"| {codec} | {saved['percent']:+.1f} % | {between} | {inside} |")
    print("\n| quality | bits per pixel | PSNR, dB | MS-SSIM |\n|---:|---:|---:|---:|")
    for point in found["points"]:
        print(f"| {point['quality']:g} | {point['bpp']:.4f} | {point['psnr_db']:.2f} | "
              f"{point['ms_ssim']:.4f} |")  # fmt: skip
    print(f"\nfiles over their estimate: {found['file_over_estimate_percent']:+.2f} %, "
          f"{found['bytes_beside_estimate']:.1f} bytes each; CPU-seconds: "
          f"encode {found['encode_cpu_s']:.3f}, decode {found['decode_cpu_s']:.3f}")  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--root", type=Path, default=Path("../shared/data/compression"))
    parser.add_argument("--effort", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="write the other codecs' files anew")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    path = asked.model or store.shipped()
    frozen = store.load(path)
    pictures = [(file.name, read_picture(file)) for file in sorted(asked.root.glob("kodak/*.png"))]
    if not pictures:
        parser.error(f"{asked.root}/kodak: no pictures")
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    baselines = others(pictures, known.get("others", {}), asked.again)
    curves = {codec: restored(kept) for codec, kept in baselines.items()}
    curves |= curves_of(mozjpeg(asked.root, pictures))
    own = [p for n, picture in pictures for p in rd.of_model(frozen, n, picture, QUALITIES,
                                                             asked.effort)]  # fmt: skip
    found = {"model": path.stem, "identity": frozen.identity.hex(), "kind": frozen.kind,
             "effort": asked.effort, **measured(own, curves)}  # fmt: skip
    show(found)
    models = known.get("models", {}) | {f"{path.stem}, effort {asked.effort}": found}
    text = json.dumps({"models": models, "others": baselines}, indent=1)
    RESULTS.write_text(text + "\n")


if __name__ == "__main__":
    main()
