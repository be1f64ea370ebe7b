"""Pictures as PNG: 16 bits of grey, one scale for all slices of a volume."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from domains.mri.data.fastmri import RESEARCH_ONLY
from domains.mri.data.records import Reconstruction
from domains.mri.data.writing import whole

LEVELS = 2**16 - 1
Pictures = Float32[np.ndarray, "slice height width"]


def write(path: Path, picture: Reconstruction, force: bool) -> list[Path]:
    """Write a file per slice: ``NAME.png`` of a single one, else ``NAME-000.png`` and so on.

    Half-widths of intervals are in ``NAME-width….png``. 0 is black and the largest value of the
    volume white; the file says how much a level of grey is (``Scale``).

    Args:
        path: Ends in ``.png``.
        picture: The picture.
        force: Whether files that are there are replaced.

    Returns:
        The files.
    """
    files = _named(path, picture.image.numpy(), picture.method)
    if picture.width is not None:
        beside = path.with_name(f"{path.stem}-width{path.suffix}")
        files |= _named(beside, picture.width.numpy(), f"{picture.method}, half-width")
    with whole(list(files), force) as places:
        for place, data in zip(places, files.values(), strict=True):
            place.write_bytes(data)
    return list(files)


def _named(path: Path, pictures: Pictures, words: str) -> dict[Path, bytes]:
    top = float(pictures.max(initial=0)) or 1.0
    digits = max(3, len(str(len(pictures) - 1)))
    return {
        path
        if len(pictures) == 1
        else path.with_name(f"{path.stem}-{place:0{digits}}{path.suffix}"): _bytes(one, top, words)
        for place, one in enumerate(pictures)
    }


def _bytes(picture: Float32[np.ndarray, "height width"], top: float, words: str) -> bytes:
    from PIL import Image, PngImagePlugin

    levels = np.rint(np.clip(picture / top, 0, 1) * LEVELS).astype(np.uint16)
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Software", "latentworks")
    notes.add_text("Description", f"{words}; {RESEARCH_ONLY}")
    notes.add_text("Scale", repr(top / LEVELS))
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG", pnginfo=notes)
    return file.getvalue()
