"""What of a picture is kept without loss beside its colours: opacity, and the ICC profile."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray
from torch import Tensor

from core.runtime.errors import UserError
from domains.compression.model.errors import CorruptBitstream

LONGEST_PROFILE = 1 << 24
_AXES = {0: None, 1: 1, 2: 0}  # filters: none, from the left, from above
_AGAIN = "copy or make the file again"


def pack_alpha(alpha: UInt8[Tensor, "height width"]) -> bytes:
    """Return opacity as a byte for its filter and deflated differences, the shortest of three.

    Differences are modulo 256, of each pixel to the one on its left or above.

    Example:
        >>> alpha = torch.arange(12, dtype=torch.uint8).view(3, 4)
        >>> bool((unpack_alpha(pack_alpha(alpha), 3, 4) == alpha).all())
        True
    """
    values = alpha.cpu().numpy()
    packed = [
        bytes([number]) + zlib.compress(_differences(values, axis).tobytes(), 9)
        for number, axis in _AXES.items()
    ]
    return min(packed, key=len)


def unpack_alpha(packed: bytes, height: int, width: int) -> UInt8[Tensor, "height width"]:
    """Undo `pack_alpha`.

    Raises:
        CorruptBitstream: If it is no opacity of this size.
    """
    if not packed or packed[0] not in _AXES:
        raise CorruptBitstream("alpha", f"no filter that is known; {_AGAIN}")
    found = _inflated("alpha", packed[1:], height * width)
    if len(found) != height * width:
        raise CorruptBitstream("alpha", f"{len(found)} values for {height} x {width}; {_AGAIN}")
    values, axis = np.frombuffer(found, np.uint8).reshape(height, width), _AXES[packed[0]]
    whole = values.copy() if axis is None else np.cumsum(values, axis, dtype=np.uint8)
    return torch.from_numpy(whole)


def pack_profile(profile: bytes) -> bytes:
    """Return an ICC profile, deflated.

    Raises:
        UserError: If it is longer than any profile of a picture.
    """
    if len(profile) > LONGEST_PROFILE:
        raise UserError(
            f"profile: {len(profile):,} bytes; at most {LONGEST_PROFILE:,} are kept; convert the "
            "picture to sRGB"
        )
    return zlib.compress(profile, 9)


def unpack_profile(packed: bytes) -> bytes:
    """Undo `pack_profile`.

    Raises:
        CorruptBitstream: If it is no such profile.
    """
    return _inflated("profile", packed, LONGEST_PROFILE)


def _differences(values: ndarray, axis: int | None) -> ndarray:
    if axis is None:
        return values
    return np.diff(values, axis=axis, prepend=np.uint8(0))


def _inflated(section: str, packed: bytes, most: int) -> bytes:
    """Return what was deflated, of which no more than so many bytes are ever made."""
    inflate = zlib.decompressobj()
    try:
        found = inflate.decompress(packed, most + 1)
    except zlib.error as error:
        raise CorruptBitstream(section, f"not deflated data; {_AGAIN}") from error
    if len(found) > most or not inflate.eof or inflate.unused_data:
        raise CorruptBitstream(section, f"longer or shorter than it says; {_AGAIN}")
    return found
