"""The verbs that only images have: freeze a model, write and read files, compare with codecs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from core.runtime import folder
from core.runtime.cli import Force, Json, Root, StageVerbs, show_result
from core.runtime.errors import UserError
from domains.compression.cli import asked

FIGURES = (".html", ".svg", ".png", ".csv")
Model = Annotated[
    str | None,
    Parameter(
        name="--model",
        help="A frozen model (.safetensors) or a run; that of latentworks if not given.",
    ),
]
Effort = Annotated[int, Parameter(help="How hard a better code is looked for, 0 to 3.")]
Pixels = Annotated[
    int | None, Parameter(name="--max-pixels", help="Refuse pictures of more pixels.")
]
Side = Annotated[
    int | None, Parameter(help="Side of the tiles in pixels; large pictures get tiles anyway.")
]


def freeze(
    run: str,
    /,
    *,
    out: Annotated[Path, Parameter(help="File to write, .safetensors.")],
    force: Force = False,
    runs: Root = folder.RUNS,
    as_json: Json = False,
) -> None:
    """Make the model of a trained run fast and exact, prove that, and write it to one file.

    The networks on the entropy path become integers. The proof encodes test pictures under one
    setting and decodes them under others (threads, oneDNN, memory layout, a GPU if there is one):
    the latents must be the same, or nothing is written. Beside it stands what the same networks
    do in floating point.

    Args:
        run: A run folder, or compression/<name>@latest.
    """
    free(out, force)
    require_ending(out, (".safetensors",))
    from domains.compression.cli import freezing

    found = freezing.freeze(run, runs, out, force)
    show_result(found, as_json, freezing.text(found))


def encode(
    picture: Annotated[Path, Parameter(name="IN")],
    out: Annotated[Path, Parameter(name="OUT")],
    /,
    *,
    model: Model = None,
    quality: int | None = None,
    target_bpp: float | None = None,
    target_bytes: int | None = None,
    target_psnr: float | None = None,
    effort: Effort = 0,
    tile: Side = None,
    max_pixels: Pixels = None,
    force: Force = False,
    runs: Root = folder.RUNS,
    as_json: Json = False,
) -> None:
    """Compress a picture to a .lwc file, at quality 32 if nothing else is asked for.

    EXIF orientation is applied, CMYK and palettes become RGB, alpha and the ICC profile are kept.

    Args:
        picture: PNG, JPEG, WebP, AVIF, TIFF, JPEG 2000, BMP or PPM; or .npy of 0 to 1 or uint8.
        out: File to write.
        quality: 0 (smallest file) to 63 (best).
        target_bpp: Bits per pixel that the file should have.
        target_bytes: Bytes that the file should have.
        target_psnr: PSNR in dB that the decoded picture should have.
    """
    target = asked.one_target(quality, target_bpp, target_bytes, target_psnr)
    request = target | {"effort": asked.effort(effort), "tile": asked.side(tile)}
    limit = asked.pixels(max_pixels)
    free(out, force)
    from domains.compression.cli import coding

    found = coding.encode(picture, out, request, model, runs, limit)
    show_result(found, as_json, coding.encoded_text(found))


def decode(
    file: Annotated[Path, Parameter(name="IN")],
    out: Annotated[Path, Parameter(name="OUT")],
    /,
    *,
    model: Model = None,
    level: int | None = None,
    tile: str | None = None,
    max_pixels: Pixels = None,
    force: Force = False,
    runs: Root = folder.RUNS,
    as_json: Json = False,
) -> None:
    """Write the picture that a .lwc file holds; a damaged file gives an error and no picture.

    Args:
        file: A .lwc file.
        out: File to write; its ending says how: .png, .webp, .tif, ….
        level: Read only so many levels, from the coarsest: a rough picture from a part of the
            file. `info` says how many there are.
        tile: Decode one tile only, as row,column counted from 0.
    """
    if level is not None and level < 1:
        raise UserError(f"--level: got {level}, expected at least 1")
    place, limit = asked.place_of(tile), asked.pixels(max_pixels)
    free(out, force)
    from domains.compression.cli import coding

    found = coding.decode(file, out, model, runs, level, place, limit, force)
    show_result(found, as_json, coding.decoded_text(found))


def info(
    file: Annotated[Path, Parameter(name="FILE|MODEL")],
    /,
    *,
    model: Model = None,
    runs: Root = folder.RUNS,
    as_json: Json = False,
) -> None:
    """Say what a .lwc file holds, or where a frozen model is from.

    Of a file: size, rate, the bytes of its tiles and other parts and, where the model that wrote
    it is at hand, its levels. Of a model: identity, kind, rates, settings, data, photographs.

    Args:
        file: A .lwc file or a .safetensors model.
    """
    from domains.compression.cli import told

    found = told.info(file, model, runs)
    show_result(found, as_json, told.text(found))


def verify(
    file: Path,
    /,
    *,
    model: Model = None,
    max_pixels: Pixels = None,
    runs: Root = folder.RUNS,
    as_json: Json = False,
) -> None:
    """Check a .lwc file to its last latent, without making a picture of it.

    Args:
        file: A .lwc file.
    """
    limit = asked.pixels(max_pixels)
    from domains.compression.cli import coding

    found = coding.verify(file, model, runs, limit)
    show_result(found, as_json, f"{file}: whole, and of this model")


def evaluate(
    target: Annotated[str, Parameter(name="RUN|DIR")],
    /,
    *,
    model: Model = None,
    baselines: Annotated[str | None, Parameter(help="jpeg,webp,avif,jxl,jpeg2000")] = None,
    qualities: Annotated[str | None, Parameter(help="As 0,20,40,60.")] = None,
    effort: Effort = 0,
    out: Annotated[
        Path | None, Parameter(help="A page (.html) or a plot (.svg, .png), a .csv beside it.")
    ] = None,
    force: Force = False,
    runs: Root = folder.RUNS,
    as_json: Json = False,
) -> None:
    """Measure a run on its test pictures, or a model and other codecs on a folder of pictures.

    Of a run: the stage, with its report. Of a folder: every picture is written by each codec at
    several qualities, to real files in memory; the table and the plot hold bits per pixel of the
    whole file, PSNR of 8-bit RGB, MS-SSIM and the Bjøntegaard rate difference to the first
    baseline.

    Args:
        target: A run folder, or compression/<name>@latest; or a folder of pictures.
        baselines: Codecs to compare with; jpeg, webp, avif and jpeg2000 if not given.
        qualities: Qualities to write at, 0 to 63.
    """
    if names_run(target):
        asked.refuse_for_runs(
            {"--model": model, "--baselines": baselines, "--qualities": qualities, "--out": out}
        )
        import domains

        stages = StageVerbs(domains, "compression")
        stages.evaluate(target, force=force, runs=runs, as_json=as_json)
        return
    codecs, places = asked.baselines(baselines), asked.qualities(qualities)
    asked.effort(effort)
    if out is not None:
        for path in (out, out.with_suffix(".csv")):
            free(path, force)
        require_ending(out, FIGURES)
    from domains.compression.cli import measured

    found = measured.measure(Path(target), model, runs, codecs, places, effort)
    if out is not None:
        measured.write(out, found)
    show_result(found.as_json(), as_json, measured.text(found))


def rd_curve(
    tables: Annotated[tuple[Path, ...], Parameter(name="CSV")],
    /,
    *,
    out: Annotated[Path | None, Parameter(help="A plot: .svg, .png or .html.")] = None,
    anchor: str = "jpeg",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Draw rate–distortion tables over each other, and say how much rate each codec saves.

    A table has columns codec (else the file's name is it), bpp and psnr_db, a row for each picture
    and quality or for each quality, as `evaluate` writes it. Curves are means over the pictures
    that every codec has. The Bjøntegaard rate difference is that of the codec to the anchor over
    the PSNR that both reach, which stands beside it.

    Args:
        tables: One or more .csv files.
        anchor: Codec that the others are compared with.
    """
    if out is not None:
        free(out, force)
        require_ending(out, FIGURES[:3])
    from domains.compression.cli import tables as read

    found = read.compare(tables, anchor)
    if out is not None:
        read.write(out, found)
    show_result(found.as_json(), as_json, read.text(found))


def names_run(target: str) -> bool:
    """Whether a word names a run: a folder with settings, or ``<domain>/<name>@<alias>``."""
    return (Path(target) / "settings.yaml").is_file() or "@" in Path(target).name


def free(path: Path, force: bool) -> None:
    """Refuse a file that exists, a folder in any case, and a place where none can be written.

    Raises:
        UserError: If it is one of these.
    """
    if path.is_dir():
        raise UserError(f"{path}: a folder; name the file to write")
    if path.exists() and not force:
        raise UserError(f"{path}: exists already; name another file, or --force to replace it")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise UserError(f"{path}: {above} is a file, not a folder; name another file to write")
    if not os.access(above, os.W_OK):
        raise UserError(f"{path}: no permission to write in {above}; name another file to write")


def require_ending(path: Path, endings: tuple[str, ...]) -> None:
    """Refuse a file of another kind.

    Raises:
        UserError: If its name ends otherwise.
    """
    if path.suffix not in endings:
        given = f"ends in {path.suffix!r}" if path.suffix else "has no ending"
        raise UserError(f"{path}: {given}; expected {', '.join(endings)}")


VERBS = {
    "freeze": freeze,
    "encode": encode,
    "decode": decode,
    "info": info,
    "verify": verify,
    "evaluate": evaluate,
    "rd-curve": rd_curve,
}
