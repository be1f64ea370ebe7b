"""Points of other codecs on the 24 Kodak pictures, as their authors published them.

Means over the pictures of bits per pixel and of the PSNR of 8-bit RGB, from the result files of
the projects named. They are drawn dashed, for nothing of them was measured here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from domains.compression.plots.curves import Curve

KODAK = re.compile(r"kodim(0[1-9]|1\d|2[0-4])")


def is_kodak(names: Sequence[str]) -> bool:
    """Whether pictures are, by their names, of the Kodak suite: kodim01 to kodim24.

    Example:
        >>> is_kodak(["kodim01", "kodim24.png"]), is_kodak(["kodim01", "china"]), is_kodak([])
        (True, False, False)
    """
    return bool(names) and all(KODAK.match(name) for name in names)


PUBLISHED = (
    # CompressAI's model zoo, results/ (Bégaint et al., arXiv:2011.03029)
    Curve(
        codec="factorized prior",
        bpp=(0.1226, 0.1885, 0.2878, 0.4404, 0.6481, 0.9670, 1.3512, 1.8333),
        psnr_db=(26.909, 28.218, 29.617, 31.277, 32.956, 35.381, 37.397, 39.621),
        published=True,
    ),
    Curve(
        codec="hyperprior",
        bpp=(0.1313, 0.2089, 0.3199, 0.4784, 0.6687, 0.9388, 1.2592, 1.6602),
        psnr_db=(27.582, 29.197, 30.972, 32.838, 34.526, 36.743, 38.584, 40.557),
        published=True,
    ),
    # lossy-vae, results/ (Duan et al., WACV 2023)
    Curve(
        codec="QRes-VAE",
        bpp=(0.1834, 0.3012, 0.4520, 0.6738, 0.9542, 1.2869, 1.7481, 2.3567),
        psnr_db=(30.023, 31.981, 33.891, 36.112, 38.166, 40.263, 42.249, 44.355),
        published=True,
    ),
    # VTM 18.0, the reference encoder of H.266, as run for the same results
    Curve(
        codec="VTM 18.0",
        bpp=(0.1330, 0.2133, 0.3310, 0.4936, 0.7076, 0.9774, 1.3155, 1.7450, 2.3439),
        psnr_db=(29.055, 30.690, 32.471, 34.330, 36.222, 38.092, 39.882, 41.617, 43.432),
        published=True,
    ),
)
