"""Reconstructions without learning: what a network has to beat."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Complex64
from torch import Tensor

from core.variational.inverse import DataFidelity, conjugate_gradients, total_variation
from domains.mri.data.fourier import ifft2, root_sum_of_squares, sense

ITERATIONS = {"cg-sense": 30, "wavelet": 60, "tv": 100}
WAVELET, LEVELS = "db2", 3


def scale_of(kspace: Complex64[Tensor, "batch coil height width"]) -> Tensor:
    """Return the unit of pictures: the 99th percentile of the back-projection's size.

    Weights of penalties and networks are of pictures divided by it.
    """
    pictures = root_sum_of_squares(ifft2(kspace))
    found = torch.quantile(pictures.flatten(1), 0.99, dim=1)
    return torch.where(found > 0, found, 1.0)


def zero_filled(kspace: Complex64[Tensor, "batch coil height width"]) -> Tensor:
    """Return the root sum of squares of what was sampled."""
    return root_sum_of_squares(ifft2(kspace))


@torch.no_grad()
def cg_sense(
    kspace: Complex64[Tensor, "batch coil height width"],
    maps: Complex64[Tensor, "batch coil height width"],
    mask: Bool[Tensor, "batch height width"],
    weight: float,
    iterations: int = ITERATIONS["cg-sense"],
) -> Complex64[Tensor, "batch height width"]:
    r"""Return :math:`\arg\min_x \|M F S x - y\|^2 + \lambda \|x\|^2`.

    References:
        Pruessmann et al., "Advances in Sensitivity Encoding with Arbitrary k-Space Trajectories",
        MRM 46, 2001.

    Args:
        kspace: :math:`y`, zero where not sampled.
        maps: :math:`S`.
        mask: :math:`M`.
        weight: :math:`\lambda`, dimensionless.
        iterations: Of conjugate gradients.
    """
    operator = sense(maps, mask)

    def regularised(x: Tensor) -> Tensor:
        return operator.normal(x) + weight * x

    return conjugate_gradients(regularised, operator.adjoint(kspace), 2, iterations, 1e-5).x


@torch.no_grad()
def wavelet(
    kspace: Complex64[Tensor, "batch coil height width"],
    maps: Complex64[Tensor, "batch coil height width"],
    mask: Bool[Tensor, "batch height width"],
    weight: float,
    iterations: int = ITERATIONS["wavelet"],
    seed: int = 0,
) -> Complex64[Tensor, "batch height width"]:
    r"""Return :math:`\arg\min_x \tfrac12 \|M F S x - y\|^2 + \lambda \|W x\|_1` by FISTA.

    :math:`W` is an orthonormal wavelet transform of details, shifted at random in each iteration
    so that no grid of blocks shows. The weight counts in units of `scale_of`.

    References:
        Lustig et al., "Sparse MRI", MRM 58, 2007. Beck and Teboulle, "A Fast Iterative
        Shrinkage-Thresholding Algorithm", SIAM J. Imaging Sci. 2, 2009. Figueiredo and Nowak,
        "An EM Algorithm for Wavelet-Based Image Restoration", IEEE TIP 12, 2003, for the shifts.

    Args:
        kspace: :math:`y`, zero where not sampled.
        maps: :math:`S`, of root sum of squares at most 1.
        mask: :math:`M`.
        weight: :math:`\lambda`.
        iterations: Of FISTA.
        seed: Of the shifts.
    """
    operator, unit = sense(maps, mask), scale_of(kspace)[:, None, None]
    threshold = weight * unit
    y = kspace
    generator = np.random.default_rng(seed)
    x = ahead = torch.zeros_like(kspace[:, 0])
    momentum = 1.0
    for _ in range(iterations):
        before = x
        descended = ahead - operator.adjoint(operator(ahead) - y)
        rows, columns = generator.integers(0, 1 << LEVELS, 2)
        x = _shrunk(descended, threshold, (int(rows), int(columns)))
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = x + (momentum - 1) / following * (x - before)
        momentum = following
    return _seen(x, maps)


@torch.no_grad()
def tv(
    kspace: Complex64[Tensor, "batch coil height width"],
    maps: Complex64[Tensor, "batch coil height width"],
    mask: Bool[Tensor, "batch height width"],
    weight: float,
    iterations: int = ITERATIONS["tv"],
) -> Complex64[Tensor, "batch height width"]:
    r"""Return :math:`\arg\min_x \tfrac12 \|M F S x - y\|^2 + \lambda \|\nabla x\|_{2,1}`.

    By the primal-dual method of Chambolle and Pock, see `total_variation`. The weight counts in
    units of `scale_of`.

    Args:
        kspace: :math:`y`, zero where not sampled.
        maps: :math:`S`, of root sum of squares at most 1.
        mask: :math:`M`.
        weight: :math:`\lambda`.
        iterations: Of the primal-dual method.
    """
    unit = scale_of(kspace)
    fidelity = DataFidelity(sense(maps, mask), kspace / unit[:, None, None, None], scale=1.0)
    found = total_variation(fidelity, weight, iterations, norm=1.0)
    return _seen(found, maps) * unit[:, None, None]


def _seen(picture: Tensor, maps: Tensor) -> Tensor:
    """Leave out what no coil sees: there a penalty alone says what the picture is."""
    return torch.where(maps.abs().sum(1) > 0, picture, 0)


def _shrunk(x: Tensor, threshold: Tensor, shift: tuple[int, int]) -> Tensor:
    """Soft-threshold the wavelet details of pictures, shifted."""
    import pywt

    height, width = x.shape[-2:]
    multiple = 1 << LEVELS
    rows, columns = -height % multiple, -width % multiple
    rolled = torch.roll(torch.nn.functional.pad(x, (0, columns, 0, rows)), shift, (-2, -1))
    coarse, *details = pywt.wavedec2(
        rolled.numpy(), WAVELET, mode="periodization", level=LEVELS, axes=(-2, -1)
    )
    limit = threshold.numpy()
    kept = [tuple(_soft(part, limit) for part in level) for level in details]
    back = pywt.waverec2([coarse, *kept], WAVELET, mode="periodization", axes=(-2, -1))
    shrunk = torch.roll(torch.from_numpy(back), (-shift[0], -shift[1]), (-2, -1))
    return shrunk[..., :height, :width].to(x.dtype)


def _soft(values: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    size = np.abs(values)
    return values * np.maximum(0, 1 - threshold / np.maximum(size, 1e-30))
