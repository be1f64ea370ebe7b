"""Pictures ↔ k-space: orthonormal transforms, cropping, combining coils, and what a scan measures.

The last two dimensions are height and width, the coils' comes before them, and whatever stands
before those is a batch. The middle of a side is index ``size // 2``, for odd sizes as for even.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor
from torch.nn import functional

from core.variational.inverse import LinearOperator, fourier, sampled_fourier

Origin = Literal["centre", "corner"]
PLANE = (-2, -1)


def fft2(
    pictures: Complex[Tensor, "*batch height width"], origin: Origin = "centre"
) -> Complex[Tensor, "*batch height width"]:
    r"""Return the orthonormal 2-D Fourier transform of pictures.

    .. math:: k_{uv} = \frac{1}{\sqrt{H W}} \sum_{yx} x_{yx}\,
        e^{-2 \pi \mathrm i ((u - c_H)(y - c_H) / H + (v - c_W)(x - c_W) / W)}

    Args:
        pictures: In any unit.
        origin: Where frequency 0 and the pixel without phase are: ``"centre"`` at
            :math:`c_N = \lfloor N / 2 \rfloor`, as in fastMRI's files; ``"corner"`` at index 0, as
            ``numpy.fft.fft2`` has it.

    Example:
        >>> fft2(torch.ones(3, 5, dtype=torch.complex64))[1, 2]
        tensor(3.8730+0.j)
    """
    if origin == "corner":
        return torch.fft.fft2(pictures, norm="ortho")
    return fourier(pictures.shape[-2:], PLANE)(pictures)


def ifft2(
    kspace: Complex[Tensor, "*batch height width"], origin: Origin = "centre"
) -> Complex[Tensor, "*batch height width"]:
    """Return the pictures of k-space: the inverse, and adjoint, of `fft2`.

    Args:
        kspace: In the unit of the pictures.
        origin: As for `fft2`.
    """
    if origin == "corner":
        return torch.fft.ifft2(kspace, norm="ortho")
    return fourier(kspace.shape[-2:], PLANE).adjoint(kspace)


def fitted(array: Tensor, shape: tuple[int, int], value: float = 0.0) -> Tensor:
    """Cut each side down, or fill it up, to a length; the middle stays in the middle.

    Of pictures it changes the field of view. Of centred k-space it changes the resolution, and
    pixel values by the root of the ratio of the areas: see `resampled`.

    Args:
        array: Last two dimensions height and width.
        shape: Height and width to return.
        value: What to fill up with.

    Raises:
        ValueError: If a length is not positive.

    Example:
        >>> fitted(torch.arange(5.0)[None], (1, 3)), fitted(torch.ones(1, 2), (1, 4))
        (tensor([[1., 2., 3.]]), tensor([[0., 1., 1., 0.]]))
    """
    if min(shape) < 1:
        raise ValueError(f"fitted: height and width {shape} to return; both must be positive")
    margins: list[int] = []
    for size, wanted in zip(reversed(array.shape[-2:]), reversed(shape), strict=True):
        before = wanted // 2 - size // 2
        margins += [before, wanted - size - before]
    return functional.pad(array, margins, value=value)


def resampled(
    pictures: Complex[Tensor, "*batch height width"], shape: tuple[int, int]
) -> Complex[Tensor, "*batch rows columns"]:
    """Return pictures of the same field of view on another grid, by cropping or padding k-space.

    A constant keeps its value. A frequency of half the sampling rate, which even sizes have one
    of, stays where it is and isn't split in two, so that padding can make a real picture complex.

    Args:
        pictures: In any unit.
        shape: Height and width to return.
    """
    height, width = pictures.shape[-2:]
    gain = (shape[0] * shape[1] / (height * width)) ** 0.5
    return ifft2(fitted(fft2(pictures), shape)) * gain


def root_sum_of_squares(
    pictures: Complex[Tensor, "*batch coil height width"],
) -> Float[Tensor, "*batch height width"]:
    r"""Return one magnitude picture of all coils, :math:`\sqrt{\sum_c |x_c|^2}`.

    Where all coils are 0 its gradient is 0.

    References:
        Roemer et al., "The NMR Phased Array", MRM 16, 1990.
    """
    return torch.linalg.vector_norm(pictures, dim=-3)


def reduce(
    pictures: Complex[Tensor, "*batch coil height width"],
    maps: Complex[Tensor, "*maps coil height width"],
) -> Complex[Tensor, "*all height width"]:
    r"""Combine the coils' pictures to one, :math:`\sum_c \bar S_c x_c`; the adjoint of `expand`.

    Where :math:`\sum_c |S_c|^2 = 1` that is also its inverse.
    """
    return (maps.conj() * pictures).sum(-3)


def expand(
    picture: Complex[Tensor, "*batch height width"],
    maps: Complex[Tensor, "*maps coil height width"],
) -> Complex[Tensor, "*all coil height width"]:
    r"""Return what each coil sees of a picture, :math:`S_c x`."""
    return maps * picture.unsqueeze(-3)


def sense(
    maps: Complex[Tensor, "*batch coil height width"],
    mask: Bool[Tensor, "*masks rows columns"],
) -> LinearOperator:
    r"""Return the measurement of pictures: coils, centred transform, sampling.

    .. math:: A x = (M \mathcal F S_1 x, \dots, M \mathcal F S_C x)

    Of norm at most 1 where :math:`\sum_c |S_c|^2 \le 1`. A single coil is a coil axis of 1.

    References:
        Pruessmann et al., "Advances in Sensitivity Encoding with Arbitrary k-Space Trajectories",
        MRM 46, 2001.

    Args:
        maps: Coil sensitivities :math:`S_c`, dimensionless.
        mask: Which positions :math:`M` are sampled, the same for all coils.

    Raises:
        ValueError: If the mask has another height or width.

    Example:
        >>> maps, mask = torch.ones(1, 4, 5, dtype=torch.complex64), torch.eye(4, 5) > 0
        >>> sense(maps, mask)(torch.ones(2, 4, 5, dtype=torch.complex64)).shape
        torch.Size([2, 1, 4, 5])
    """
    if mask.shape[-2:] != maps.shape[-2:]:
        raise ValueError(
            f"sense: mask of height and width {tuple(mask.shape[-2:])}, maps of "
            f"{tuple(maps.shape[-2:])}; they must be the same"
        )
    return sampled_fourier(maps, mask.unsqueeze(-3))
