"""Pictures as files hold them: read upright in 8 bits, written whole or not at all."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from core.runtime.errors import UserError
from core.runtime.folder import refuse_existing, write_atomic
from domains.compression.data import colours, depths
from domains.compression.data.errors import TooLarge
from domains.compression.data.records import Picture

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 2**28
# Pillow opens MPO, a JPEG file of several pictures, as JPEG.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "AVIF", "JPEG2000", "GIF", "BMP", "PPM", "QOI")
READ = (
    ".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".avif", ".jp2", ".j2k", ".gif", ".bmp",
    ".ppm", ".pgm", ".pbm", ".qoi", ".npy",
)  # fmt: skip
WRITTEN = {
    "": "PNG", ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF",
    ".tiff": "TIFF",
}  # fmt: skip
OPTIONS = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4", "optimize": True},
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}
ORIENTATION = 0x0112
TURNED = {
    2: "mirrored", 3: "turned by 180°", 4: "mirrored and turned by 180°",
    5: "mirrored and turned by 90°", 6: "turned by 90°", 7: "mirrored and turned by 90°",
    8: "turned by 90°",
}  # fmt: skip


def read_picture(path: Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a picture, upright, in 8 bits, with what belongs to it and what was done to it.

    * Grey pictures stay marked as such; palettes become colours.
    * Opacity is kept apart, unless the picture is opaque throughout.
    * CMYK, YCbCr and CIELAB become sRGB, by their ICC profile if they have one.
    * An ICC profile that fits the picture is kept, unless it is sRGB's.
    * EXIF's orientation is applied.
    * Of several pictures in a file, as in an animation, the first is read.
    * An array (``.npy``) of shape ``(height, width)`` or ``(height, width, 1 to 4 channels)``
      holds 0 to 255 as ``uint8``, or 0 to 1 as floats.

    Args:
        path: A file of one of the formats that `FORMATS` names; its content decides, but for
            ``.npy``.
        max_pixels: More are refused before anything is decoded.

    Raises:
        UserError: If there is no such file, it is damaged, no picture, or of more than 8 bits.
        TooLarge: If it has more pixels than allowed.
    """
    data = _bytes(path)
    if data.startswith(b"\x93NUMPY"):
        return _array(path, data, max_pixels)
    from PIL import Image

    with _without_limits():
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except Exception as error:  # whatever a decoder raises, the file is to blame
            raise UserError(
                f"{path}: no picture that can be read ({_reason(error)}); expected one of "
                f"{', '.join(FORMATS)}"
            ) from error
        _check_size(path, *image.size, max_pixels)
        try:
            if (problem := depths.problem(image, data)) is not None:
                raise UserError(f"{path}: {problem}")
            return _picture(image)
        except (UserError, MemoryError):
            raise
        except Exception as error:
            raise UserError(
                f"{path}: damaged {image.format} file ({_reason(error)}); copy it again"
            ) from error


def _bytes(path: Path) -> bytes:
    if path.is_dir():
        raise UserError(f"{path}: a folder; expected a file that holds a picture")
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if not data:
        raise UserError(f"{path}: empty; expected a picture")
    return data


@contextlib.contextmanager
def _without_limits() -> Iterator[None]:
    """Take Pillow's own limit of pixels away, as ours is checked, and keep it quiet."""
    from PIL import Image

    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _check_size(path: Path, width: int, height: int, limit: int) -> None:
    if width < 1 or height < 1:
        raise UserError(f"{path}: {width} x {height} pixels; expected at least one")
    if width * height > limit:
        raise TooLarge(width, height, limit, str(path))


def _reason(error: Exception) -> str:
    """What a decoder says, in a few words of one line."""
    words = " ".join(str(error).split()) or type(error).__name__
    return "of no known format" if words.startswith("cannot identify") else words[:120]


def _picture(image: Image) -> Picture:
    """Decode."""
    from PIL import ImageOps

    notes = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        notes.append(f"the first of {frames} pictures in the file; the others are left out")
    turned = TURNED.get(image.getexif().get(ORIENTATION, 1))
    image.load()
    if turned is not None:
        image = ImageOps.exif_transpose(image)  # a TIFF file's is applied by now
        notes.append(f"{turned}, as its EXIF orientation says")
    found = colours.to_rgb(image)
    return Picture(
        pixels=tensor(found.pixels),
        grey=found.grey,
        alpha=_opacity(found.alpha),
        profile=found.profile,
        notes=(*notes, *found.notes),
    )


def tensor(pixels: NDArray[np.uint8]) -> torch.Tensor:
    """Return rows of pixels as red, green and blue planes."""
    if pixels.ndim == 2:
        return torch.from_numpy(pixels.copy()).expand(3, -1, -1).contiguous()
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _opacity(alpha: NDArray[np.uint8] | None) -> torch.Tensor | None:
    if alpha is None or bool((alpha == 255).all()):
        return None
    return torch.from_numpy(alpha.copy())


# Arrays


def _array(path: Path, data: bytes, max_pixels: int) -> Picture:
    """Read an array as a picture."""
    shape, kind = _array_header(path, data)
    channels = shape[2] if len(shape) == 3 else 1
    if len(shape) not in (2, 3) or channels not in (1, 2, 3, 4):
        raise UserError(
            f"{path}: an array of shape {shape}; expected (height, width) or (height, width, "
            "channel) with 1 channel for grey, 3 for colour, and one more for opacity"
        )
    _check_size(path, shape[1], shape[0], max_pixels)
    if kind != np.uint8 and kind.kind != "f":
        raise UserError(
            f"{path}: an array of {kind}; expected uint8 from 0 to 255 or floats from 0 to 1; "
            "convert it first"
        )
    try:
        values = np.load(io.BytesIO(data), allow_pickle=False).reshape(*shape[:2], channels)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{path}: damaged .npy file ({_reason(error)})") from error
    values = values if kind == np.uint8 else _in_8_bits(path, values)
    colour, alpha = (values, None) if channels % 2 else (values[..., :-1], values[..., -1])
    grey = channels < 3
    return Picture(
        pixels=tensor(colour[..., 0] if grey else colour), grey=grey, alpha=_opacity(alpha)
    )


def _array_header(path: Path, data: bytes) -> tuple[tuple[int, ...], np.dtype]:
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, kind = read(file)
    except (ValueError, KeyError, EOFError, OSError) as error:
        raise UserError(f"{path}: damaged .npy file ({_reason(error)})") from error
    return shape, kind


def _in_8_bits(path: Path, values: np.ndarray) -> NDArray[np.uint8]:
    if not np.isfinite(values).all():
        row, column, _ = np.argwhere(~np.isfinite(values))[0]
        raise UserError(
            f"{path}: row {row}, column {column}: {values[row, column].tolist()} is not finite; "
            "expected numbers from 0 to 1; fill or mend it first"
        )
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        raise UserError(
            f"{path}: floats from {low:g} to {high:g}; expected 0 to 1; divide them by the "
            "largest value that there can be, or write 0 to 255 as uint8"
        )
    return np.rint(values * 255).astype(np.uint8)


# Writing


def write_picture(path: Path, picture: Picture, force: bool = False) -> None:
    """Write a picture in the format that the ending of its name says, whole or not at all.

    PNG (also where there is no ending), WebP and TIFF hold every pixel as it is; JPEG is written
    at quality 95 in full colour resolution. Opacity and ICC profile are kept.

    Args:
        path: Its ending is .png, .webp, .tif, .tiff, .jpg, .jpeg or nothing.
        picture: The picture.
        force: Whether a file that is there may be replaced.

    Raises:
        UserError: If the ending is another, the file exists, or its format cannot hold the
            picture.
        RunFailed: If the disk is full or not writable.
    """
    kind = WRITTEN.get(path.suffix.lower())
    if kind is None:
        endings = ", ".join(ending for ending in WRITTEN if ending)
        raise UserError(
            f"{path}: {path.suffix!r} is no ending that pictures are written in; expected one of "
            f"{endings}"
        )
    if path.is_dir():
        raise UserError(f"{path}: a folder; give the name of a file")
    refuse_existing(path, force)
    if kind == "JPEG" and picture.alpha is not None:
        raise UserError(f"{path}: a JPEG file holds no opacity, and the picture has; write a .png")
    write_atomic(path, _encoded(path, picture, kind))


def image_of(picture: Picture) -> Image:
    """Return a picture as Pillow has it."""
    from PIL import Image

    rows = picture.pixels.permute(1, 2, 0).cpu().numpy()
    image = Image.fromarray(np.ascontiguousarray(rows[..., 0] if picture.grey else rows))
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha.cpu().numpy()))
    return image


def _encoded(path: Path, picture: Picture, kind: str) -> bytes:
    image, profile = image_of(picture), picture.profile
    if kind == "WEBP" and picture.grey and profile is not None:
        raise UserError(
            f"{path}: a WebP file has no grey, which the picture's profile is of; write a .png"
        )
    file = io.BytesIO()
    kept = {} if profile is None else {"icc_profile": profile}
    try:
        image.save(file, format=kind, **OPTIONS.get(kind, {}), **kept)
    except Exception as error:
        raise UserError(
            f"{path}: {kind} cannot hold this picture of {picture.width} x {picture.height} "
            f"({_reason(error)}); write a .png"
        ) from error
    return file.getvalue()
