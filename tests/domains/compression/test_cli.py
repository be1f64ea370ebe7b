"""Pictures to files and back through the command line, and what it says of what it cannot do."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from block_means import photograph
from numpy.typing import NDArray
from PIL import Image, ImageCms

import domains
from core.runtime import cli
from domains.compression.config import Rates
from domains.compression.data.pictures import MAX_PIXELS
from domains.compression.model import container, store

HEIGHT, WIDTH = 70, 101
SETTINGS = """\
domain: compression
data: {{source: folder, path: '{photographs}', crop: 64, window: 64, scales: [1.0]}}
model: {{kind: dct, slices: [6, 18], width: 8, blocks: 1, hyper: 4, features: 8, context: 8,
         filter: 4}}
training: {{epochs: 1, batch: 4, validate_every: 1}}
evaluation: {{qualities: [8, 32, 56], baselines: [jpeg], bootstrap: 10}}
compute: {{threads: 1}}
"""


def latentworks(*words: object) -> int:
    arguments = ["compression", *(str(word) for word in words)]
    return cli.run_app(cli.build_app(domains, arguments), arguments)


def pixels(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return photograph(height, width, seed).permute(1, 2, 0).numpy()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run, one that is not, a frozen model, a picture and its file."""
    place = tmp_path_factory.mktemp("compression")
    (place / "photographs").mkdir()
    for seed in range(8):
        Image.fromarray(pixels(64, 80, seed)).save(place / "photographs" / f"{seed}.png")
    settings = place / "settings.yaml"
    settings.write_text(SETTINGS.format(photographs=place / "photographs"))
    assert latentworks("ingest", settings, "--out", place / "ingested") == 0
    assert latentworks("train", settings, "--out", place / "run") == 0
    assert latentworks("freeze", place / "run", "--out", place / "model.safetensors") == 0
    Image.fromarray(pixels(HEIGHT, WIDTH, 9)).save(place / "picture.png")
    file, model = place / "picture.lwc", place / "model.safetensors"
    assert latentworks("encode", place / "picture.png", file, "--model", model) == 0
    return place


@pytest.fixture
def run(place: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Run a verb with the frozen model and return the JSON that it prints."""

    def run(verb: str, *words: object) -> dict[str, Any]:
        model = ("--model", place / "model.safetensors")
        assert latentworks(verb, *words, *model, "--json") == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return run


def read(path: Path) -> NDArray[np.int64]:
    return np.asarray(Image.open(path)).astype(np.int64)


def psnr_db(first: Path, second: Path) -> float:
    return 10 * math.log10(255**2 / np.square(read(first) - read(second)).mean())


# Round trips


def test_a_picture_goes_through_encode_info_verify_and_decode(
    place: Path, tmp_path: Path, run: Callable[..., dict[str, Any]]
) -> None:
    file, out = tmp_path / "p.lwc", tmp_path / "p.png"
    written = run("encode", place / "picture.png", file, "--quality", 50)
    told = run("info", file)
    assert {key: told[key] for key in told.keys() & written.keys()} == {
        key: written[key] for key in told.keys() & written.keys()
    }
    assert (told["width"], told["height"], told["quality"]) == (WIDTH, HEIGHT, 50)
    assert told["bytes"] == file.stat().st_size
    assert told["bpp"] == 8 * file.stat().st_size / (WIDTH * HEIGHT)
    assert sum(told["sections"].values()) + told["container_bytes"] == told["bytes"]
    assert told["container_bytes"] <= 45
    assert run("verify", file)["whole"]
    assert run("decode", file, out)["quality"] == 50
    assert read(out).shape == (HEIGHT, WIDTH, 3)
    assert psnr_db(place / "picture.png", out) > 28


def test_the_model_that_ships_is_used_if_none_is_named(place: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "p.lwc", tmp_path / "p.png"
    assert latentworks("encode", place / "picture.png", file, "--quality", 63) == 0
    assert container.read_header(file.read_bytes()).model == store.load(store.shipped()).identity
    assert latentworks("decode", file, out) == 0
    assert psnr_db(place / "picture.png", out) > 31


def test_more_quality_is_more_bytes_and_a_better_picture(
    place: Path, tmp_path: Path, run: Callable[..., dict[str, Any]]
) -> None:
    found = []
    for quality in (0, 30, 63):
        file, out = tmp_path / f"{quality}.lwc", tmp_path / f"{quality}.png"
        size = run("encode", place / "picture.png", file, "--quality", quality)["bytes"]
        run("decode", file, out)
        found.append((size, psnr_db(place / "picture.png", out)))
    assert found == sorted(found)
    assert found[0][1] + 1 < found[2][1]


def test_a_run_writes_the_same_file_as_the_model_that_was_frozen_of_it(
    place: Path, tmp_path: Path
) -> None:
    file = tmp_path / "p.lwc"
    assert latentworks("encode", place / "picture.png", file, "--model", place / "run") == 0
    assert file.read_bytes() == (place / "picture.lwc").read_bytes()


@pytest.mark.parametrize(
    ("mode", "size", "written"),
    [
        ("RGB", (1, 1), "RGB"),
        ("L", (1, 19), "L"),
        ("RGBA", (33, 17), "RGBA"),
        ("P", (20, 20), "RGB"),
        ("CMYK", (16, 15), "RGB"),
        ("1", (9, 8), "L"),
    ],
)
def test_a_picture_of_any_kind_and_size_comes_back(
    mode: str, size: tuple[int, int], written: str, tmp_path: Path, run: Callable[..., Any]
) -> None:
    width, height = size
    image = Image.fromarray(pixels(height, width)).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(size))
    picture, file, out = tmp_path / "in.tif", tmp_path / "p.lwc", tmp_path / "p.png"
    image.save(picture)
    assert run("encode", picture, file)["grey"] == (written == "L")
    run("decode", file, out)
    with Image.open(out) as found:
        assert (found.mode, found.size) == (written, size)
        if mode == "RGBA":
            assert found.getchannel("A").tobytes() == image.getchannel("A").tobytes()


def test_orientation_is_applied_and_a_profile_kept_and_said(
    tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, file, out = tmp_path / "in.jpg", tmp_path / "p.lwc", tmp_path / "p.png"
    image = Image.fromarray(pixels(40, 24))
    turn = image.getexif()
    turn[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    profile = profile[:16] + b"RGB " + profile[20:]
    image.save(picture, exif=turn, icc_profile=profile)
    model = ("--model", place / "model.safetensors")
    assert latentworks("encode", picture, file, *model) == 0
    captured = capsys.readouterr()
    assert "turned by 90°" in captured.err
    assert captured.out.startswith("40 x 24: ")
    assert latentworks("decode", file, out, *model) == 0
    with Image.open(out) as found:
        assert found.size == (40, 24)
        assert found.info["icc_profile"] == profile


# What can be asked for


def test_a_target_is_met_as_one_would_measure_it(
    place: Path, tmp_path: Path, run: Callable[..., dict[str, Any]]
) -> None:
    picture, file, out = place / "picture.png", tmp_path / "p.lwc", tmp_path / "p.png"
    usual = (place / "picture.lwc").stat().st_size
    for option, wanted in (
        ("--target-bytes", round(1.15 * usual)),
        ("--target-bpp", 8 * 1.15 * usual / (WIDTH * HEIGHT)),
    ):
        found = run("encode", picture, file, option, wanted, "--force")
        assert file.stat().st_size == pytest.approx(1.15 * usual, rel=0.012)
        assert found["trials"] <= 8
    found = run("encode", picture, file, "--target-psnr", 30, "--force")
    run("decode", file, out)
    assert found["reached"] == pytest.approx(psnr_db(picture, out), abs=1e-9)
    assert found["reached"] == pytest.approx(
        30, abs=0.15
    )  # a rate index changes a small picture so
    assert found["trials"] <= 8


def test_effort_lowers_the_cost_of_rate_and_distortion(
    place: Path, tmp_path: Path, run: Callable[..., dict[str, Any]]
) -> None:
    rates = Rates()
    costs = []
    for effort in (0, 1):
        file, out = tmp_path / f"{effort}.lwc", tmp_path / f"{effort}.png"
        words = ("--quality", 20, "--effort", effort)
        found = run("encode", place / "picture.png", file, *words)
        run("decode", file, out)
        price = rates.lowest * (rates.highest / rates.lowest) ** (found["rate_index"] / 252)
        error = np.square(read(place / "picture.png") - read(out)).mean()
        costs.append(found["bpp"] + price * error)
    assert costs[1] < 0.99 * costs[0]


def test_a_tile_is_the_part_of_the_picture_that_it_covers(
    place: Path, tmp_path: Path, run: Callable[..., dict[str, Any]]
) -> None:
    file, whole, part = (tmp_path / name for name in ("p.lwc", "whole.png", "part.png"))
    written = run("encode", place / "picture.png", file, "--tile", 32)
    assert written["tiles"] == [3, 4]
    assert [name for name in written["sections"] if name.startswith("tile")][-1] == "tile 2,3"
    run("decode", file, whole)
    found = run("decode", file, part, "--tile", "1,3")
    assert (found["width"], found["height"]) == (WIDTH - 96, 32)
    assert np.array_equal(read(part), read(whole)[32:64, 96:])


def test_each_level_brings_the_picture_nearer(
    place: Path, tmp_path: Path, run: Callable[..., dict[str, Any]]
) -> None:
    file = place / "picture.lwc"
    levels = run("info", file)["levels"]
    assert len(levels) == 3
    found = []
    for level in (1, 2, 3):
        out = tmp_path / f"{level}.png"
        assert run("decode", file, out, "--level", level)["level"] == level
        found.append(psnr_db(place / "picture.png", out))
    assert found == sorted(found)
    run("decode", file, tmp_path / "all.png")
    assert np.array_equal(read(tmp_path / "3.png"), read(tmp_path / "all.png"))


def test_words_for_a_person_go_to_stdout_and_what_was_written_to_stderr(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new folder" / "p.lwc"
    model = ("--model", place / "model.safetensors")
    capsys.readouterr()
    assert latentworks("encode", place / "picture.png", file, *model) == 0
    captured = capsys.readouterr()
    assert captured.err == f"wrote {file}\n"
    assert captured.out.startswith(f"{WIDTH} x {HEIGHT}: ")
    assert latentworks("info", file, *model) == 0
    assert "levels:      z, y1, y2\n" in capsys.readouterr().out
    assert latentworks("verify", file, *model) == 0
    assert capsys.readouterr().out == f"{file}: whole, and of this model\n"


def test_a_frozen_model_says_where_it_is_from_and_names_no_folder(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert latentworks("info", place / "model.safetensors", "--json") == 0
    text = capsys.readouterr().out
    found = json.loads(text)
    assert found["model"] == store.load(place / "model.safetensors").identity.hex()
    assert found["bytes"] == (place / "model.safetensors").stat().st_size
    assert {line["name"] for line in found["photographs"]} < {f"{n}.png" for n in range(8)}
    assert "kind: dct" in found["settings"]
    assert str(place) not in text.replace(found["file"], "")


def test_what_is_there_is_replaced_only_with_force(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("--model", place / "model.safetensors")
    for verb, given, name in (
        ("encode", "picture.png", "p.lwc"),
        ("decode", "picture.lwc", "p.png"),
    ):
        out = tmp_path / name
        out.write_text("mine")
        error = refused(tmp_path, capsys, verb, place / given, out, *model)
        assert "exists already" in error
        assert "--force" in error
        assert "--out" not in error
        assert latentworks(verb, place / given, out, *model, "--force") == 0
        assert out.stat().st_size > 100
    out = tmp_path / "m.safetensors"
    out.write_text("mine")
    assert "--force" in refused(tmp_path, capsys, "freeze", place / "run", "--out", out)


# Tables of a folder of pictures


def test_a_folder_is_measured_by_real_files_and_its_table_drawn_again(
    place: Path, tmp_path: Path, run: Callable[..., dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder, page, table = (tmp_path / name for name in ("pictures", "c.html", "c.csv"))
    (folder / "below").mkdir(parents=True)
    shutil.copy(place / "picture.png", folder / "below" / "a.png")
    Image.fromarray(pixels(64, 64, 3)).save(folder / "b.webp", lossless=True)
    found = run("evaluate", folder, "--baselines", "jpeg", "--qualities", "8,32,56", "--out", page)
    rows = list(csv.DictReader(table.open()))
    assert {row["picture"] for row in rows} == {"below/a.png", "b.webp"}
    assert {row["codec"] for row in rows} == {*found["codecs"]}
    assert found["files"] == len(rows)
    own = [row for row in rows if row["codec"] != found["anchor"]]
    measured = {int(row["quality"]): row for row in own if row["picture"] == "below/a.png"}
    assert [*measured] == [8, 32, 56]
    assert int(measured[32]["bytes"]) == (place / "picture.lwc").stat().st_size
    run("decode", place / "picture.lwc", tmp_path / "d.png")
    assert float(measured[32]["psnr_db"]) == pytest.approx(
        psnr_db(place / "picture.png", tmp_path / "d.png"), abs=1e-3
    )
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert latentworks("rd-curve", table, "--out", tmp_path / "again.svg", "--json") == 0
    again = json.loads(capsys.readouterr().out)
    for codec, numbers in found["codecs"].items():
        assert again["codecs"][codec]["psnr_db"] == pytest.approx(numbers["psnr_db"], abs=1e-3)
        assert again["codecs"][codec]["bpp"] == pytest.approx(numbers["bpp"], rel=1e-4)
    assert "<svg" in (tmp_path / "again.svg").read_text()


# What cannot be done


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run what must be refused in one line, without a trace in the folder; return the line."""
    before = contents(folder)
    capsys.readouterr()
    status = latentworks(*words)
    captured = capsys.readouterr()
    assert status == 2, captured.err
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("latentworks: ")
    assert contents(folder) == before
    return captured.err.strip()


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def of_another_model(data: bytes) -> bytes:
    file = container.read(data, MAX_PIXELS)
    return container.write(replace(file, header=replace(file.header, model=b"another!")))


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]


DAMAGED = {
    "empty": (lambda data: b"", "magic: the file is empty"),
    "of one byte": (lambda data: data[:1], "magic: the file ends after 1 byte"),
    "cut in its header": (lambda data: data[:12], "header: the file ends after 12 bytes"),
    "cut in its stream": (lambda data: data[:100], r"tile 0,0: the file ends after 100 of \d+"),
    "cut in its trailer": (lambda data: data[:-1], "trailer: the file ends after"),
    "longer": (lambda data: data + b"more", "trailer: 4 bytes follow the end"),
    "flipped in its version": (lambda data: flipped(data, 4), "version: 17; 1 is read"),
    "flipped in its size": (lambda data: flipped(data, 14), "header: damaged"),
    "flipped in its stream": (lambda data: flipped(data, 99), "tile 0,0: damaged"),
    "flipped in its check": (lambda data: flipped(data, -6), "trailer: damaged"),
    "a picture": (lambda data: b"\x89PNG\r\n\x1a\n" + data, "magic: this is a PNG picture"),
    "a text": (lambda data: b"latents and so on", "magic: starts with 6c 61 74 65"),
    "of another model": (
        of_another_model,
        f"model: written with {b'another!'.hex()}, here is [0-9a-f]{{16}}; .*--model",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_named_with_its_section_and_gives_no_picture(
    kind: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, message = DAMAGED[kind]
    file, model = tmp_path / "p.lwc", ("--model", place / "model.safetensors")
    file.write_bytes(damage((place / "picture.lwc").read_bytes()))
    asked = [("decode", file, tmp_path / "p.png"), ("verify", file)]
    if kind != "of another model":  # whose files say what they are
        asked.append(("info", file))
    for words in asked:
        error = refused(tmp_path, capsys, *words, *model)
        assert error.startswith(f"latentworks: {file}: ")
        assert re.search(message, error), error


def test_a_file_of_another_model_names_both(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "p.lwc"
    file.write_bytes(of_another_model((place / "picture.lwc").read_bytes()))
    error = refused(tmp_path, capsys, "verify", file, "--model", place / "model.safetensors")
    assert b"another!".hex() in error
    assert store.load(place / "model.safetensors").identity.hex() in error


MODEL = ("--model", "{model}")
ENCODE = ("encode", "{picture}", "{out}.lwc", *MODEL)
DECODE = ("decode", "{file}", "{out}.png", *MODEL)
BAD = [
    # Pictures that cannot be read
    (("encode", "{here}/none.png", "{out}.lwc", *MODEL), "none.png: no such file"),
    (("encode", "{here}", "{out}.lwc", *MODEL), ": a folder; expected a file that holds a pict"),
    (("encode", "{here}/nan.npy", "{out}.lwc", *MODEL), "nan.npy: row 3, column 5: .*not finite"),
    (("encode", "{here}/high.npy", "{out}.lwc", *MODEL), "high.npy: floats from 0 to 200"),
    (("encode", "{here}/cut.png", "{out}.lwc", *MODEL), "cut.png: damaged PNG file .*copy it ag"),
    (("encode", "{here}/deep.png", "{out}.lwc", *MODEL), "deep.png: .*16"),
    (("encode", "{here}/empty.png", "{out}.lwc", *MODEL), "empty.png: empty; expected a picture"),
    (("encode", "{here}/text.png", "{out}.lwc", *MODEL), "text.png: no picture that can be read"),
    (("encode", "{here}/bomb.png", "{out}.lwc", *MODEL),
     r"bomb.png: 65535 x 65535 is 4,294,836,225 pixels; allowed are 268,435,456.*--max-pixels"),
    ((*ENCODE, "--max-pixels", "7069"),
     "picture.png: 101 x 70 is 7,070 pixels; allowed are 7,069"),
    (("encode", "{file}", "{out}.lwc", *MODEL), "picture.lwc: no picture that can be read"),
    # Files that cannot be read
    (("decode", "{here}/none.lwc", "{out}.png", *MODEL), "none.lwc: no such file"),
    (("decode", "{here}", "{out}.png", *MODEL), ": a folder; expected a .lwc file"),
    (("verify", "{here}/none.lwc", *MODEL), "none.lwc: no such file"),
    (("verify", "{here}", *MODEL), ": a folder; expected a .lwc file"),
    (("info", "{here}/none.lwc"), "none.lwc: no such file"),
    (("info", "{here}/none.safetensors"), "none.safetensors: cannot be read .No such file"),
    ((*DECODE, "--max-pixels", "7069"), "picture.lwc: picture: 101 x 70 is 7,070 pixels"),
    (("verify", "{file}", "--max-pixels", "7069", *MODEL), "--max-pixels 7070"),
    (("decode", "{picture}", "{out}.png", *MODEL), "picture.png: magic: this is a PNG picture"),
    # Places that cannot be written to
    (("encode", "{picture}", "{here}", *MODEL), ": a folder; name the file to write"),
    (("decode", "{file}", "{here}", *MODEL), ": a folder; name the file to write"),
    (("encode", "{picture}", "{picture}", "--force", *MODEL), "is the file that is read"),
    (("decode", "{file}", "{file}", "--force", *MODEL), "is the file that is read"),
    (("decode", "{file}", "{out}.xyz", *MODEL), "x.xyz: ends in '.xyz'; expected one of .png"),
    (("encode", "{picture}", "{here}/text.png/x.lwc", *MODEL), "text.png is a file, not a folder"),
    (("decode", "{file}", "{here}/text.png/a/x.png", *MODEL), "text.png is a file, not a folder"),
    # What is asked for
    ((*ENCODE, "--quality", "64"), r"--quality: got 64, expected 0 \(smallest\) to 63"),
    ((*ENCODE, "--quality=-1"), "--quality: got -1"),
    ((*ENCODE, "--quality", "high"), "--quality"),
    ((*ENCODE, "--quality", "9", "--target-bpp", "1"),
     "--quality and --target-bpp: .*one of them"),
    ((*ENCODE, "--target-psnr", "9", "--target-bytes", "1"), "--target-bytes and --target-psnr: "),
    ((*ENCODE, "--target-bpp", "nan"), "--target-bpp: got nan, expected more than 0"),
    ((*ENCODE, "--target-bytes", "0"), "--target-bytes: got 0, expected more than 0"),
    ((*ENCODE, "--target-bytes", "10"), r"--target-bytes: got 10; this picture can have \d+ to"),
    ((*ENCODE, "--target-psnr", "90"),
     r"--target-psnr: got 90.*; this picture can have [\d.]+ to"),
    ((*ENCODE, "--effort", "4"), r"--effort: got 4, expected 0 \(fast\) to 3"),
    ((*ENCODE, "--tile", "0"), "--tile: got 0, expected pixels of a side"),
    ((*ENCODE, "--tile", "50"), "--tile: got 50, expected a multiple of 32, .*take 32 or 64"),
    ((*ENCODE, "--max-pixels", "0"), "--max-pixels: got 0, expected at least 1"),
    ((*DECODE, "--level", "0"), "--level: got 0, expected at least 1"),
    ((*DECODE, "--level", "4"), "--level: got 4, expected 1 to 3: z, y1, y2"),
    ((*DECODE, "--tile", "1"), "--tile: got '1', expected row,column"),
    ((*DECODE, "--tile", "0,1"), "--tile: got 0,1; the whole picture is one tile"),
    (("encode", "{picture}"), "OUT"),
    (("encode", "{picture}", "{out}.lwc", "--qualty", "9"), "--qualty"),
    # Models
    (("encode", "{picture}", "{out}.lwc", "--model", "{here}/no.safetensors"),
     "no.safetensors: cannot be read .No such file"),
    (("encode", "{picture}", "{out}.lwc", "--model", "{picture}"),
     "picture.png: no safetensors file, or damaged"),
    (("encode", "{picture}", "{out}.lwc", "--model", "{here}/flipped.safetensors"),
     "flipped.safetensors: sha256: "),
    (("encode", "{picture}", "{out}.lwc", "--model", "{here}"), "no settings.yaml"),
    (("encode", "{picture}", "{out}.lwc", "--model", "{place}/ingested"),
     "first run: latentworks compression train"),
    (("decode", "{file}", "{out}.png", "--model", "{here}/no.safetensors"),
     "no.safetensors: cannot be read .No such file"),
    (("freeze", "{place}/ingested", "--out", "{out}.safetensors"),
     "first run: latentworks compression train"),
    (("freeze", "{here}/norun", "--out", "{out}.safetensors"), "norun: no run here"),
    (("freeze", "{place}/run", "--out", "{out}.pt"), "x.pt: ends in '.pt'; expected .safetensors"),
    (("freeze", "{place}/run", "--out", "{here}"), ": a folder; name the file to write"),
    (("freeze", "{place}/run", "--out", "{out}"), "x: has no ending; expected .safetensors"),
    (("freeze", "{place}/run"), "--out"),
    # Folders of pictures
    (("evaluate", "{here}/void", *MODEL), "void: no picture in this folder"),
    (("evaluate", "{here}/nowhere", *MODEL), "nowhere: no such folder"),
    (("evaluate", "{picture}", *MODEL), "picture.png: a file; expected a folder of pictures"),
    (("evaluate", "{place}/photographs", "--baselines", "jpeg,wepb", *MODEL),
     "--baselines: no codec 'wepb'; did you mean 'webp'"),
    (("evaluate", "{place}/photographs", "--qualities", "0,64", *MODEL), "--qualities: got '64'"),
    (("evaluate", "{place}/photographs", "--qualities", "9", *MODEL), "expected two or more"),
    (("evaluate", "{place}/photographs", "--out", "{out}.pdf", *MODEL), "x.pdf: ends in '.pdf'"),
    (("evaluate", "{place}/photographs", "--effort", "9", *MODEL), "--effort: got 9"),
    (("evaluate", "{place}/run", "--baselines", "jpeg"), "--baselines: belongs to a folder"),
    (("rd-curve", "{here}/none.csv"), "none.csv: cannot be read .No such file"),
    (("rd-curve", "{here}/text.png"), "text.png: no column 'bpp'"),
    (("rd-curve",), "CSV requires an argument"),
]  # fmt: skip


@pytest.fixture(scope="module")
def here(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what is not as it should be."""
    here = tmp_path_factory.mktemp("bad")
    (here / "void").mkdir()
    values = np.zeros((8, 9, 3))
    values[0, 0] = 200
    np.save(here / "high.npy", values)
    values[0, 0], values[3, 5, 1] = 1, math.nan
    np.save(here / "nan.npy", values)
    whole = (place / "picture.png").read_bytes()
    (here / "cut.png").write_bytes(whole[: len(whole) // 2])
    (here / "empty.png").write_bytes(b"")
    (here / "text.png").write_text("no picture\n")
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(here / "deep.png")
    size = whole.index(b"IHDR") + 4
    bomb = whole[size - 4 : size] + (65535).to_bytes(4, "big") * 2 + whole[size + 8 : size + 13]
    check = zlib.crc32(bomb).to_bytes(4, "big")
    (here / "bomb.png").write_bytes(whole[: size - 4] + bomb + check + whole[size + 17 :])
    model = (place / "model.safetensors").read_bytes()
    (here / "flipped.safetensors").write_bytes(flipped(model, -9))
    return here


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    words: tuple[str, ...], message: str, place: Path, here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    names = {
        "here": here, "place": place, "out": here / "x", "picture": place / "picture.png",
        "file": place / "picture.lwc", "model": place / "model.safetensors",
    }  # fmt: skip
    before = contents(place)
    error = refused(here, capsys, *(word.format(**names) for word in words))
    assert contents(place) == before
    assert re.search(message, error), error


def test_without_a_model_at_hand_it_says_how_to_give_one(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(store, "shipped", lambda: tmp_path / "none.safetensors")
    error = refused(tmp_path, capsys, "encode", place / "picture.png", tmp_path / "p.lwc")
    assert "--model" in error
