"""What any mode of a picture is in 8-bit grey or sRGB, with its opacity and its ICC profile."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageCms import ImageCmsProfile

SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab "}
CONVERTED = {"CMYK": "CMYK", "YCbCr": "YCbCr", "LAB": "CIELAB", "HSV": "HSV"}
GRID = np.linspace(0, 255, 9).round().astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Colours:
    """A picture in 8-bit grey or RGB.

    Args:
        pixels: ``(height, width)`` of a grey one, else ``(height, width, 3)``.
        alpha: ``(height, width)``, None where there is none.
        profile: The ICC profile of the pixels; None for sRGB.
        notes: What was converted.
    """

    pixels: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None = None
    profile: bytes | None = None
    notes: tuple[str, ...] = ()

    @property
    def grey(self) -> bool:
        """Whether it has no colours."""
        return self.pixels.ndim == 2


def to_rgb(image: Image) -> Colours:
    """Convert a decoded picture of any mode."""
    image, alpha = _without_alpha(image)
    given = image.info.get("icc_profile") or None
    if image.mode in ("L", "RGB"):
        return _profiled(image, alpha, given)
    name = CONVERTED.get(image.mode, image.mode)
    converted, how = _to_srgb(image, given)
    notes = (f"converted from {name} to sRGB {how}",)
    return Colours(pixels=np.asarray(converted), alpha=alpha, notes=notes)


def _without_alpha(image: Image) -> tuple[Image, NDArray[np.uint8] | None]:
    """Take opacity off and palettes apart; the modes left are without either."""
    transparent = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or (
        "transparency" in image.info
    )
    if image.mode in ("1", "L", "LA", "La"):
        full, plain = "LA", "L"
    elif image.mode in ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX"):
        full, plain = "RGBA", "RGB"
    else:
        return image, None
    if not transparent:
        return image if image.mode == plain else image.convert(plain), None
    if image.mode == "1":
        image = _levels(image)
    image = image if image.mode == full else image.convert(full)
    alpha = np.asarray(image.getchannel("A"))
    info = {key: value for key, value in image.info.items() if key != "transparency"}
    bands = [image.getchannel(band) for band in plain]
    plain_image = bands[0] if plain == "L" else _merged(plain, bands)
    plain_image.info = info
    return plain_image, alpha


def _levels(image: Image) -> Image:
    """Return black and white as 0 and 255, with what is transparent at the same place."""
    level = image.info["transparency"]
    grey = image.convert("L")
    grey.info["transparency"] = 255 if level else 0
    return grey


def _merged(mode: str, bands: list[Image]) -> Image:
    from PIL import Image

    return Image.merge(mode, bands)


def _profiled(image: Image, alpha: NDArray[np.uint8] | None, given: bytes | None) -> Colours:
    """Keep a profile that fits the mode; apply one of another kind, where that can be done."""
    pixels = np.asarray(image)
    profile = None if given is None else _opened(given)
    if given is None:
        return Colours(pixels=pixels, alpha=alpha)
    if profile is None:
        notes = ("its ICC profile is damaged and left out; taken for sRGB",)
        return Colours(pixels=pixels, alpha=alpha, notes=notes)
    space = _space(profile)
    if space == "RGB " and is_srgb(profile):
        return Colours(pixels=pixels, alpha=alpha)
    if space == SPACES[image.mode]:
        return Colours(pixels=pixels, alpha=alpha, profile=given)
    if space == "RGB ":
        return _grey_by(image, profile, alpha)
    notes = (f"its ICC profile is of {space.strip()}, not of {image.mode}, and left out",)
    return Colours(pixels=pixels, alpha=alpha, notes=notes)


def _grey_by(image: Image, profile: ImageCmsProfile, alpha: NDArray[np.uint8] | None) -> Colours:
    """Convert a grey picture that has a profile of colours to sRGB."""
    pixels = np.asarray(_transformed(image.convert("RGB"), profile, "RGB"))
    if not (pixels == pixels[..., :1]).all():
        notes = ("converted from grey with a profile of colours to sRGB",)
        return Colours(pixels=pixels, alpha=alpha, notes=notes)
    notes = ("converted from grey with a profile of colours to grey of sRGB",)
    return Colours(pixels=pixels[..., 0], alpha=alpha, notes=notes)


def _opened(given: bytes) -> ImageCmsProfile | None:
    """Open a profile; None if it is damaged."""
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(given))
        return profile if _space(profile) else None
    except (OSError, ImageCms.PyCMSError, TypeError, ValueError):
        return None


def _space(profile: ImageCmsProfile) -> str:
    """Return the four letters for the colours that a profile is of."""
    return getattr(profile.profile, "xcolor_space", "")


def _srgb() -> ImageCmsProfile:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def is_srgb(profile: ImageCmsProfile) -> bool:
    """Whether colours come out of a profile as they go in, to one grey level."""
    from PIL import Image

    grid = np.stack(np.meshgrid(GRID, GRID, GRID), axis=-1).reshape(27, 27, 3)
    found = np.asarray(_transformed(Image.fromarray(grid), profile, "RGB"))
    return bool(np.abs(found.astype(int) - grid).max() <= 1)


def _transformed(image: Image, profile: ImageCmsProfile, mode: str) -> Image:
    """Convert to sRGB, whites to white."""
    from PIL import ImageCms

    transform = ImageCms.buildTransform(
        profile, _srgb(), mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC
    )
    found = ImageCms.applyTransform(image, transform)
    assert found is not None  # only None where it works in place
    return found


def _to_srgb(image: Image, given: bytes | None) -> tuple[Image, str]:
    """Convert from a mode that is neither grey nor RGB, and say how."""
    from PIL import ImageCms

    if image.mode == "LAB":
        lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        return _transformed(image, lab, "LAB"), "as the CIE defines it"
    profile = None if given is None else _opened(given)
    if profile is not None and _space(profile) == SPACES.get(image.mode):
        return _transformed(image, profile, image.mode), "by its ICC profile"
    plain = image.convert("RGB")
    return plain, "by the usual formula" if given is None else "by the usual formula, not its ICC"
