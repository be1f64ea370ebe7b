"""Damaged and foreign files: each must give a typed error, soon, in little memory, and no picture.

From files of the Kodak pictures (plain; in tiles; with opacity and an ICC profile; grey) 1,000
are made that are cut off, have bits flipped, ranges swapped, removed, repeated or overwritten, or
are no such files at all. A quarter as many have damaged streams, opacity or profiles under checks
that were made to fit again, as no accident but an attacker would: there only the check of the
latents is left, and what decodes to the very same picture is no failure.

They are decoded in a process of its own that may take 1 GiB beyond what the model and its
libraries do, and is killed when a file takes 20 CPU s. Then some of them go through the command
line, which must end with status 2, one line, and no file written. Asked: 1,000 of 1,000 typed
errors.

    python benchmarks/compression_damage.py [--model FILE] [--root ../shared/data/compression]

Kodak: ``kodak/*.png`` below the root. The model is the one that comes with latentworks if none is
named. Writes ``compression_damage.json`` beside itself, an entry for each model.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageCms

from core.runtime.errors import UserError
from domains.compression.data import read_picture
from domains.compression.data.records import Picture
from domains.compression.model import codec, container, store
from domains.compression.model.frozen import Frozen

RESULTS = Path(__file__).resolve().with_suffix(".json")
REPOSITORY = Path(__file__).resolve().parents[1]
DAMAGED, RESEALED, BY_COMMAND = 1_000, 250, 8
MEMORY_BYTES, PATIENCE_S = 1 << 30, 20
Rng = np.random.Generator


@dataclass(frozen=True)
class Case:
    """A file that is not what it was.

    Args:
        kind: What was done to it.
        data: Its bytes.
        original: The bytes before; nothing of foreign files.
    """

    kind: str
    data: bytes
    original: bytes = b""


def sources(frozen: Frozen, files: Sequence[Path]) -> list[bytes]:
    """Files to be damaged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    made = []
    for number, file in enumerate(files):
        picture = read_picture(file)
        ramp = torch.arange(picture.width).expand(picture.height, -1) // 3 % 256
        whole = replace(picture, alpha=ramp.to(torch.uint8), profile=profile)
        grey = Picture(pixels=codec.grey_of(picture.pixels[:, :200, :300]), grey=True)
        for each, tile in ((picture, None), (picture, 256), (whole, None), (whole, 128),
                           (grey, None)):  # fmt: skip
            request = codec.Request(quality=10 + 6 * number, tile=tile)
            made.append(codec.encode(frozen, each, request).data)
    return made


def truncated(data: bytes, rng: Rng) -> bytes:
    return data[: rng.integers(len(data))]


def flipped(data: bytes, rng: Rng) -> bytes:
    changed = bytearray(data)
    for place in rng.choice(len(data), rng.integers(1, 9), replace=False):
        changed[place] ^= 1 << rng.integers(8)
    return bytes(changed)


def head_flipped(data: bytes, rng: Rng) -> bytes:
    """The same in the first bytes, where lengths and sizes are."""
    return flipped(data[:48], rng) + data[48:]


def ranges(data: bytes, rng: Rng, count: int) -> list[int]:
    """Ends of so many random ranges that do not overlap."""
    return sorted(rng.choice(len(data) + 1, 2 * count, replace=False).tolist())


def swapped(data: bytes, rng: Rng) -> bytes:
    a, b, c, d = ranges(data, rng, 2)
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def removed(data: bytes, rng: Rng) -> bytes:
    a, b = ranges(data, rng, 1)
    return data[:a] + data[b:]


def repeated(data: bytes, rng: Rng) -> bytes:
    a, b = ranges(data, rng, 1)
    return data[:b] + data[a:b] + data[b:]


def overwritten(data: bytes, rng: Rng) -> bytes:
    a, b = ranges(data, rng, 1)
    return data[:a] + (rng.bytes(b - a) if rng.integers(2) else bytes(b - a)) + data[b:]


def appended(data: bytes, rng: Rng) -> bytes:
    return data + rng.bytes(rng.integers(1, 2000))


def other_model(data: bytes, rng: Rng) -> bytes:
    """A whole file, but of another model."""
    file = container.read(data, 1 << 30)
    return container.write(replace(file, header=replace(file.header, model=rng.bytes(8))))


DAMAGES: dict[str, Callable[[bytes, Rng], bytes]] = {
    "cut off": truncated,
    "bits flipped": flipped,
    "bits flipped in the head": head_flipped,
    "ranges swapped": swapped,
    "range removed": removed,
    "range repeated": repeated,
    "range overwritten": overwritten,
    "bytes appended": appended,
    "other model's": other_model,
}


def foreign(number: int, files: Sequence[Path], rng: Rng) -> Case:
    """Something else altogether."""
    file = files[number % len(files)]
    image = Image.open(file).convert("RGB").crop((0, 0, 64, 64 + number % 64))
    kinds = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "random", "magic, then random", "zeros",
             "text", "pickle", "empty")  # fmt: skip
    kind = kinds[number % len(kinds)]
    if kind == "PNG":
        data = file.read_bytes()
    elif kind in ("JPEG", "WEBP", "TIFF", "BMP", "GIF"):
        stream = io.BytesIO()
        image.save(stream, kind)
        data = stream.getvalue()
    else:
        noise = rng.bytes(rng.integers(1, 100_000))
        data = {
            "random": noise,
            "magic, then random": container.MAGIC + bytes([container.VERSION]) + noise,
            "zeros": bytes(len(noise)),
            "text": file.name.encode() * 99,
            "pickle": pickle.dumps({"weights": noise}),
            "empty": b"",
        }[kind]
    return Case(f"foreign: {kind}", data)


def resealed(data: bytes, rng: Rng) -> Case:
    """Damage to a section or the header under checks that fit again."""
    file = container.read(data, 1 << 30)
    section = rng.choice(
        ["stream", "alpha", "profile", "rate", "size"], p=[0.6, 0.1, 0.1, 0.1, 0.1]
    )
    damage = DAMAGES[rng.choice([name for name in DAMAGES if not name.startswith("other")])]
    header = file.header
    if section == "alpha" and file.alpha is not None:
        file = replace(file, alpha=damage(file.alpha, rng))
    elif section == "profile" and file.profile is not None:
        file = replace(file, profile=damage(file.profile, rng))
    elif section == "rate":
        file = replace(
            file, header=replace(header, rate=(header.rate + int(rng.integers(1, 253))) % 253)
        )
    elif section == "size" and not header.tile:
        sides = {"width": int(rng.integers(1, 4000)), "height": int(rng.integers(1, 4000))}
        file = replace(file, header=replace(header, **sides))
    else:
        section = "stream"
        tiles = list(file.tiles)
        which = int(rng.integers(len(tiles)))
        tiles[which] = damage(tiles[which], rng)
        file = replace(file, tiles=tuple(tiles))
    return Case(f"checks made to fit, {section}", container.write(file), data)


def cases(whole: Sequence[bytes], files: Sequence[Path]) -> list[Case]:
    """All that is tried, the same every time."""
    rng, made = np.random.default_rng(0), list[Case]()
    kinds = [*DAMAGES, "foreign"]
    while len(made) < DAMAGED:
        number = len(made)
        kind, original = kinds[number % len(kinds)], whole[int(rng.integers(len(whole)))]
        if kind == "foreign":
            made.append(foreign(number // len(kinds), files, rng))
        elif (data := DAMAGES[kind](original, rng)) != original:
            made.append(Case(kind, data, original))
    while len(made) < DAMAGED + RESEALED:
        case = resealed(whole[int(rng.integers(len(whole)))], rng)
        if case.data != case.original:
            made.append(case)
    return made


def outcome(frozen: Frozen, case: Case) -> str:
    """What comes of a file: the name of a typed error, or what went wrong."""
    try:
        picture = codec.decode(frozen, case.data)
    except UserError as error:
        return type(error).__name__ if str(error).count("\n") == 0 else "error of several lines"
    except MemoryError:
        return "out of memory"
    except Exception as error:
        return f"untyped {type(error).__name__}: {error}".splitlines()[0]
    if case.original and _same(picture, codec.decode(frozen, case.original)):
        return "the very same picture"
    return "another picture"


def _same(a: Picture, b: Picture) -> bool:
    def parts(picture: Picture) -> tuple[object, ...]:
        alpha = None if picture.alpha is None else picture.alpha.numpy().tobytes()
        return picture.pixels.shape, picture.pixels.numpy().tobytes(), alpha, picture.profile

    return parts(a) == parts(b)


def peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def virtual_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def work(model: Path, kept: Path, first: int) -> None:
    """Decode files from one on, with a line for each; what `limited` starts."""
    torch.set_num_threads(1)
    frozen = store.load(model)
    every: list[Case] = pickle.loads(kept.read_bytes())
    codec.decode(frozen, max((case.original for case in every), key=len))  # libraries are in
    before = peak_bytes()
    limit = virtual_bytes() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for number in range(first, len(every)):
        signal.setitimer(signal.ITIMER_PROF, PATIENCE_S)
        began = time.process_time()
        came = outcome(frozen, every[number])
        seconds = time.process_time() - began
        signal.setitimer(signal.ITIMER_PROF, 0)
        row = {"number": number, "came": came, "cpu_s": seconds, "peak": peak_bytes() - before}
        print(json.dumps(row), flush=True)


def limited(model: Path, kept: Path, count: int) -> list[dict[str, Any]]:
    """Decode all in other processes: one, and one more after each that dies."""
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        command = [sys.executable, __file__, "--work", model, kept, str(len(rows))]
        run = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        rows += [json.loads(line) for line in run.stdout.splitlines()]
        if run.returncode:
            died = "hang" if run.returncode == -signal.SIGPROF else f"crash {run.returncode}"
            told = (run.stderr.splitlines() or [""])[-1]
            rows.append({"number": len(rows), "came": f"{died}: {told}", "cpu_s": 0.0, "peak": 0})
    return rows


def by_command(model: Path, chosen: Sequence[Case]) -> dict[str, Any]:
    """Decode some by the command line."""
    right, wrong = 0, []
    with tempfile.TemporaryDirectory() as folder:
        for case in chosen:
            given, out = Path(folder, "in.lwc"), Path(folder, "out.png")
            given.write_bytes(case.data)
            command = [sys.executable, "-m", "domains", "compression", "decode", given, out,
                       "--model", model.resolve()]  # fmt: skip
            run = subprocess.run(list(map(str, command)), cwd=REPOSITORY, capture_output=True,
                                 text=True)  # fmt: skip
            lines = run.stderr.strip().splitlines()
            fine = run.returncode == 2 and len(lines) == 1 and not out.exists()
            right += fine
            wrong += [] if fine else [{"kind": case.kind, "status": run.returncode, "said": lines}]
    return {"asked": len(chosen), "right": right, "wrong": wrong}


def summed(every: Sequence[Case], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is reported."""
    kinds: dict[str, Counter[str]] = {}
    for case, row in zip(every, rows, strict=True):
        kinds.setdefault(case.kind.split(":")[0], Counter())[row["came"]] += 1
    typed = {"CorruptBitstream", "ModelMismatch", "TooLarge"}
    first, second = rows[:DAMAGED], rows[DAMAGED:]
    return {
        "damaged": len(first),
        "typed_errors": sum(row["came"] in typed for row in first),
        "resealed": len(second),
        "resealed_typed_errors": sum(row["came"] in typed for row in second),
        "resealed_same_picture": sum(row["came"] == "the very same picture" for row in second),
        "longest_cpu_s": round(max(row["cpu_s"] for row in first), 4),
        "resealed_longest_cpu_s": round(max(row["cpu_s"] for row in second), 4),
        "peak_above_a_decode_mib": round(max(row["peak"] for row in rows) / 2**20, 1),
        "by_kind": {kind: dict(counts.most_common()) for kind, counts in kinds.items()},
    }


def show(found: dict[str, Any]) -> None:
    """Print the tables."""
    print(
        f"{found['model']} ({found['identity']})\n\n| what | files | what came |\n|---|---:|---|"
    )
    for kind, counts in found["by_kind"].items():
        came = ", ".join(f"{count} {name}" for name, count in counts.items())
        print(f"| {kind} | {sum(counts.values())} | {came} |")
    print(
        f"\n{found['typed_errors']} typed errors of {found['damaged']} damaged files; checks made "
        f"to fit: {found['resealed_typed_errors']} typed errors and "
        f"{found['resealed_same_picture']} times the very same picture of {found['resealed']}; "
        f"longest {found['longest_cpu_s']:.3f} and {found['resealed_longest_cpu_s']:.3f} CPU s; "
        f"{found['peak_above_a_decode_mib']:.0f} MiB more at most than to decode a whole file"
    )
    commands = found["commands"]
    print(f"by the command line: {commands['right']} of {commands['asked']} as they must be")
    print("met" if found["met"] else "missed")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--root", type=Path, default=Path("../shared/data/compression"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    path = asked.model or store.shipped()
    frozen = store.load(path)
    files = sorted(asked.root.glob("kodak/*.png"))
    if not files:
        parser.error(f"{asked.root}/kodak: no pictures")
    every = cases(sources(frozen, files), files)
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder, "cases")
        kept.write_bytes(pickle.dumps(every))
        rows = limited(path, kept, len(every))
    commands = by_command(path, every[: DAMAGED : DAMAGED // BY_COMMAND + 1])
    found = {"model": path.stem, "identity": frozen.identity.hex(), **summed(every, rows),
             "commands": commands}  # fmt: skip
    found["met"] = (
        found["typed_errors"] == found["damaged"]
        and found["resealed_typed_errors"] + found["resealed_same_picture"] == found["resealed"]
        and commands["right"] == commands["asked"]
    )
    show(found)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(known | {path.stem: found}, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
