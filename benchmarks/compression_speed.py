"""CPU-seconds to write and to read a picture of 768 x 512, and where they go.

Every Kodak picture at three qualities, on one thread, by the exact path, with the model loaded
and the file in memory: five times each, the median; then the median over pictures. Asked: at most
0.25 s to encode and 0.20 s to decode at each quality. The stages are measured in other runs, each
without the stages inside it.

    python benchmarks/compression_speed.py [--model FILE] [--root ../shared/data/compression]

Kodak: ``kodak/*.png`` below the root. The model is the one that comes with latentworks if none is
named. Writes ``compression_speed.json`` beside itself, an entry for each model.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch

from domains.compression.data import read_picture
from domains.compression.data.records import Picture
from domains.compression.model import codec, container, store
from domains.compression.model.coder import Decoder, Encoder, Tables
from domains.compression.model.freezing import FrozenTransform
from domains.compression.model.frozen import Frozen

RESULTS = Path(__file__).resolve().with_suffix(".json")
QUALITIES, ROUNDS = (16, 32, 48), 5
ENCODE_S, DECODE_S = 0.25, 0.20  # asked


class Stages:
    """CPU-seconds by stage, each without what of it belongs to another."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inside = [0.0]

    def timed(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return the same, watched."""

        def watched(*arguments: Any, **named: Any) -> Any:
            self._inside.append(0.0)
            began = time.process_time()
            try:
                return work(*arguments, **named)
            finally:
                took = time.process_time() - began
                self.seconds[stage] += took - self._inside.pop()
                self._inside[-1] += took

        return watched

    @contextmanager
    def watching(self, frozen: Frozen) -> Iterator[None]:
        """Watch what a model does."""
        watched: list[tuple[str, Any, str]] = [
            ("range coder", Encoder, "put"),
            ("range coder", Encoder, "finish"),
            ("range coder", Decoder, "take"),
            ("cost by place", Tables, "code_length_bits"),
            ("check of the latents", container, "check_of"),
            ("container", container, "write"),
            ("container", container, "read"),
        ]
        if isinstance(frozen, FrozenTransform):
            watched += [
                ("analysis", frozen.model, "analyse"),
                ("integer networks", frozen.prior, "run"),
                ("synthesis", frozen.model, "synthesise"),
            ]
        with ExitStack() as stack:
            for stage, owner, name in watched:
                stack.enter_context(
                    mock.patch.object(owner, name, self.timed(stage, getattr(owner, name)))
                )
            yield

    def per(self, count: int) -> dict[str, float]:
        """Return the mean over so many, the largest first."""
        return {stage: round(seconds / count, 4) for stage, seconds in self.seconds.most_common()}


def cpu_s(work: Callable[[], object]) -> float:
    """Return the median CPU-seconds of a few times, after one that does not count."""
    work()
    took = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return median(took)


def stages_of(frozen: Frozen, work: Callable[[], object], stages: Stages) -> None:
    with stages.watching(frozen):
        stages.timed("all else", work)()


def measured(frozen: Frozen, pictures: list[Picture], quality: int) -> dict[str, Any]:
    """All that is reported of a quality."""
    encode_s, decode_s = [], []
    encoding, decoding = Stages(), Stages()
    request = codec.Request(quality=quality)
    for picture in pictures:
        data = codec.encode(frozen, picture, request).data

        def write(picture: Picture = picture) -> object:
            return codec.encode(frozen, picture, request)

        def read(data: bytes = data) -> object:
            return codec.decode(frozen, data)

        encode_s.append(cpu_s(write))
        decode_s.append(cpu_s(read))
        stages_of(frozen, write, encoding)
        stages_of(frozen, read, decoding)
    return {
        "encode_cpu_s": round(median(encode_s), 4),
        "decode_cpu_s": round(median(decode_s), 4),
        "slowest_encode_cpu_s": round(max(encode_s), 4),
        "slowest_decode_cpu_s": round(max(decode_s), 4),
        "met": median(encode_s) <= ENCODE_S and median(decode_s) <= DECODE_S,
        "encode_stages_cpu_s": encoding.per(len(pictures)),
        "decode_stages_cpu_s": decoding.per(len(pictures)),
    }


def show(found: dict[str, Any]) -> None:
    """Print the tables."""
    print(f"{found['model']} ({found['identity']}), {found['pictures']} pictures, one thread")
    print(f"\n| quality | encode, CPU s (asked {ENCODE_S:.2f}) | slowest | "
          f"decode, CPU s (asked {DECODE_S:.2f}) | slowest | |")  # fmt: skip
    print("|---:|---:|---:|---:|---:|---|")
    for quality, each in found["qualities"].items():
        print(f"| {quality} | {each['encode_cpu_s']:.3f} | {each['slowest_encode_cpu_s']:.3f} | "
              f"{each['decode_cpu_s']:.3f} | {each['slowest_decode_cpu_s']:.3f} | "
              f"{'met' if each['met'] else 'missed'} |")  # fmt: skip
    for verb in ("encode", "decode"):
        print(f"\n| {verb}, stage | " + " | ".join(found["qualities"]) + " |")
        print("|---|" + "---:|" * len(found["qualities"]))
        rows = [each[f"{verb}_stages_cpu_s"] for each in found["qualities"].values()]
        for stage in rows[-1]:
            print(f"| {stage} | " + " | ".join(f"{row.get(stage, 0):.3f}" for row in rows) + " |")


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
             "qualities": {str(q): measured(frozen, pictures, q) for q in QUALITIES}}  # fmt: skip
    show(found)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(known | {path.stem: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
