"""What ``--effort`` 1 to 3 is worth: the cost of rate and distortion against no effort.

Every Kodak picture at three qualities to real files, headers included, read again: bits per pixel
plus the price of the quality times the mean squared error in grey levels. Each is compared with
the file of the same picture and quality without effort, in per cent; the mean of a picture over
its qualities is one value, and what is said is the mean of these with Student's 95 % interval over
pictures. Beside it bits and PSNR on their own, and CPU-seconds to encode on one thread. Asked: a
cost at least 4 % lower with ``--effort 2``.

    python benchmarks/compression_effort.py [--model FILE] [--root ../shared/data/compression]
        [--effort 1 2 3] [--pictures 8]

Kodak: ``kodak/*.png`` below the root, of which the first so many are taken. The model is the one
that comes with latentworks if none is named. Writes ``compression_effort.json`` beside itself, an
entry for each model and effort. A picture takes a CPU-minute and more at each quality with
``--effort 2``, and three times as long with 3.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from core.runtime.statistics import t_interval
from domains.compression.data import read_picture
from domains.compression.metrics import rd
from domains.compression.metrics.curves import Point
from domains.compression.model import store
from domains.compression.model.frozen import Frozen
from domains.compression.model.rates import index_of, price
from domains.compression.model.targets import psnr_db

RESULTS = Path(__file__).resolve().with_suffix(".json")
QUALITIES = (8, 32, 56)
ASKED = {2: -4.0}  # per cent, by effort


def cost(point: Point, frozen: Frozen) -> float:
    """Bits per pixel plus price times error."""
    rate = torch.tensor([index_of(int(point.quality))])
    return point.bpp + float(price(rate, frozen.rates)) * point.squared_error


def change(value: float, plain: float) -> float:
    """By how much a value is more than without effort, in per cent."""
    return 100 * (value / plain - 1)


def compared(plain: Sequence[Point], points: Sequence[Point], frozen: Frozen) -> dict[str, Any]:
    """What the effort changes, picture by picture and quality by quality."""
    pairs = list(zip(plain, points, strict=True))
    assert all((a.picture, a.quality) == (b.picture, b.quality) for a, b in pairs)
    costs = {(b.picture, b.quality): change(cost(b, frozen), cost(a, frozen)) for a, b in pairs}
    names = list(dict.fromkeys(name for name, _ in costs))
    by_picture = {name: fmean(costs[name, quality] for quality in QUALITIES) for name in names}
    return {
        "cost_percent": summary(by_picture.values()),
        "by_quality": {
            str(quality): {
                "cost_percent": summary(costs[name, quality] for name in names),
                "bits_percent": round(
                    fmean(change(b.bpp, a.bpp) for a, b in pairs if a.quality == quality), 2
                ),
                "psnr_db": round(
                    fmean(
                        psnr_db(b.squared_error) - psnr_db(a.squared_error)
                        for a, b in pairs
                        if a.quality == quality
                    ),
                    3,
                ),
            }
            for quality in QUALITIES
        },
        "by_picture": {name: round(value, 2) for name, value in by_picture.items()},
        "encode_cpu_s": round(median(b.encode_s for b in points), 2),
        "encode_cpu_s_without": round(median(a.encode_s for a in plain), 2),
    }


def summary(values: Iterable[float]) -> dict[str, Any]:
    """The mean of pictures, and its interval where there are enough of them."""
    each = list(values)
    found: dict[str, Any] = {"mean": round(fmean(each), 2)}
    if len(each) > 1:
        found["t_interval"] = [round(end, 2) for end in t_interval(each)]
    return found


def shown(value: dict[str, Any]) -> str:
    """A summary as text."""
    low, high = value.get("t_interval", (float("nan"),) * 2)
    return f"{value['mean']:+.2f} % ({low:+.2f} to {high:+.2f})"


def show(found: dict[str, Any]) -> None:
    """Print what one effort is worth."""
    asked = ASKED.get(found["effort"])
    met = "" if asked is None else (
        f"; asked {asked:+.0f} %: {'met' if found['cost_percent']['mean'] <= asked else 'missed'}"
    )  # fmt: skip
    print(f"\n{found['model']} ({found['identity']}), effort {found['effort']}, "
          f"{found['pictures']} pictures: cost {shown(found['cost_percent'])}{met}; "
          f"CPU s to encode {found['encode_cpu_s']:.1f}, "
          f"without {found['encode_cpu_s_without']:.2f}")  # fmt: skip
    print("\n| quality | cost, 95 % interval | bits | PSNR, dB |\n|---:|---|---:|---:|")
    for quality, each in found["by_quality"].items():
        print(f"| {quality} | {shown(each['cost_percent'])} | {each['bits_percent']:+.2f} % | "
              f"{each['psnr_db']:+.3f} |", flush=True)  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--root", type=Path, default=Path("../shared/data/compression"))
    parser.add_argument("--effort", type=int, nargs="+", choices=(1, 2, 3), default=[1, 2, 3])
    parser.add_argument("--pictures", type=int, default=None)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    path = asked.model or store.shipped()
    frozen = store.load(path)
    files = sorted(asked.root.glob("kodak/*.png"))[: asked.pictures]
    if not files:
        parser.error(f"{asked.root}/kodak: no pictures")
    pictures = [(file.name, read_picture(file)) for file in files]

    def written(effort: int) -> list[Point]:
        return [p for name, picture in pictures
                for p in rd.of_model(frozen, name, picture, QUALITIES, effort)]  # fmt: skip

    plain = written(0)
    for effort in asked.effort:
        gained = compared(plain, written(effort), frozen)
        found = {"model": path.stem, "identity": frozen.identity.hex(), "effort": effort,
                 "pictures": len(pictures), **gained}  # fmt: skip
        show(found)
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        known |= {f"{path.stem}, effort {effort}": found}
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
