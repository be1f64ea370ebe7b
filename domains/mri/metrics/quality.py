"""How far pictures are from the truth, slice by slice: PSNR, SSIM, NMSE, NRMSE, HFEN and VIF.

All is computed in 64 bits and finite, on blank slices too; what the number of a blank slice means
is said with each. A mask limits where pictures are compared, not what they are filtered with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn import functional as F

from domains.mri.model.similarity import WINDOW, ssim_map

Pictures = Float[Tensor, "slice height width"]
Mask = Bool[Tensor, "slice height width"] | None
Values = Float64[Tensor, " slice"]
Range = Float[Tensor, " slice"] | float

BETTER: Mapping[str, Literal["higher", "lower"]] = {
    "psnr_db": "higher", "ssim": "higher", "nmse": "lower", "nrmse": "lower", "hfen": "lower",
    "vif": "higher",
}  # fmt: skip
UNITS: Mapping[str, str] = {"psnr_db": "dB"}

MOST_PSNR_DB = 99.99  # what equal pictures get, so that means and intervals stay finite
EDGE_WINDOW, EDGE_DEVIATION = 15, 1.5  # of HFEN's filter, in pixels
SIGMA_NSQ = 0.4  # what the Calgary-Campinas challenge takes for pictures of maximum 1
VIF_WINDOWS = (17, 9, 5, 3)
SMALLEST_VIF = 41  # side of a picture that all four windows fit into
VIF_FLOOR = 1e-10  # variances below are none


def psnr(picture: Pictures, target: Pictures, data_range: Range, mask: Mask = None) -> Values:
    r"""Return the peak signal-to-noise ratio of each slice in dB, 99.99 at most.

    .. math:: 10 \log_{10} \frac{\text{range}^2}{\mathrm{MSE}}

    Args:
        picture: Magnitudes.
        target: What they should be.
        data_range: Difference of the largest and the smallest possible value; where it is 0, that
            of both slices together is taken, or 1 if they are constant.
        mask: Where the error is taken; everywhere by default.

    Raises:
        ValueError: If shapes differ, values aren't finite, or a mask is empty in a slice.

    Example:
        >>> x = torch.ones(1, 4, 4)
        >>> float(psnr(x + 0.1, x, 1.0)[0].round(decimals=3))
        20.0
    """
    x, y, inside = _checked(picture, target, mask)
    spread = _spread(x, y, data_range)
    error = ((x - y).square() * inside).sum((1, 2)) / inside.sum((1, 2))
    found = 20 * spread.log10() - 10 * error.clamp(min=1e-300).log10()
    return found.clamp(max=MOST_PSNR_DB)


def ssim(picture: Pictures, target: Pictures, data_range: Range, mask: Mask = None) -> Values:
    """Return the mean structural similarity of each slice, see `similarity.ssim_map`.

    The mean is over uniform windows of 7 x 7 that lie wholly inside the picture, as scikit-image
    has it; with a mask, over those whose middle is in it.

    Args:
        picture: Magnitudes.
        target: What they should be.
        data_range: As in `psnr`.
        mask: Where it is taken; everywhere by default.

    Raises:
        ValueError: If shapes differ, values aren't finite, a picture is smaller than a
            window, or a mask holds the middle of no window of a slice.
    """
    x, y, inside = _checked(picture, target, mask)
    similarity = ssim_map(x, y, _spread(x, y, data_range))
    middles = _middles(inside, WINDOW)
    _require(middles, f"middle of an SSIM window of {WINDOW} x {WINDOW}")
    return (similarity * middles).sum((1, 2)) / middles.sum((1, 2))


def nmse(picture: Pictures, target: Pictures, mask: Mask = None) -> Values:
    r"""Return the squared error over the energy of the target, :math:`\|x - y\|^2 / \|y\|^2`.

    A blank target has no energy to compare with: 0 if the picture is blank too, else 1.

    Args:
        picture: Magnitudes.
        target: What they should be.
        mask: Where both are taken; everywhere by default.

    Raises:
        ValueError: If shapes differ, values aren't finite, or a mask is empty in a slice.

    Example:
        >>> float(nmse(torch.zeros(1, 4, 4), torch.ones(1, 4, 4))[0])
        1.0
    """
    x, y, inside = _checked(picture, target, mask)
    error, energy = (((each * inside) ** 2).sum((1, 2)) for each in (x - y, y))
    blank = (energy == 0) * (error > 0)
    return torch.where(energy > 0, error / energy.clamp(min=1e-300), blank.double())


def nrmse(picture: Pictures, target: Pictures, mask: Mask = None) -> Values:
    r"""Return :math:`\|x - y\| / \|y\|`, the root of `nmse`.

    It is scikit-image's ``normalized_root_mse`` with the normalisation ``euclidean``; others
    divide by the target's range or mean.
    """
    return nmse(picture, target, mask).sqrt()


def hfen(picture: Pictures, target: Pictures, mask: Mask = None) -> Values:
    """Return the high-frequency error norm: `nrmse` of what a Laplacian of Gaussian leaves.

    References:
        Ravishankar and Bresler, "MR Image Reconstruction From Highly Undersampled k-Space Data by
        Dictionary Learning", IEEE TMI 30, 2011.

    Args:
        picture: Magnitudes.
        target: What they should be.
        mask: Where filtered pictures are compared; everywhere by default.

    Raises:
        ValueError: If shapes differ, values aren't finite, or a mask is empty in a slice.
    """
    _checked(picture, target, mask)
    return nrmse(edges(picture), edges(target), mask)


def edges(picture: Pictures) -> Float64[Tensor, "slice height width"]:
    """Return pictures under the Laplacian of Gaussian of HFEN: 15 x 15, deviation 1.5 pixels.

    Its weights sum to 0 and pictures are continued by zeros, as MATLAB's ``fspecial('log')`` and
    ``imfilter`` have it, which the authors used.
    """
    line = torch.arange(EDGE_WINDOW, dtype=torch.float64) - EDGE_WINDOW // 2
    square = line[:, None] ** 2 + line**2
    gaussian = torch.exp(-square / (2 * EDGE_DEVIATION**2))
    weights = gaussian / gaussian.sum() * (square - 2 * EDGE_DEVIATION**2) / EDGE_DEVIATION**4
    weights = (weights - weights.mean()).to(picture.device)
    padded = picture.double()[:, None]
    return F.conv2d(padded, weights[None, None], padding=EDGE_WINDOW // 2)[:, 0]


def vif(
    picture: Pictures, target: Pictures, mask: Mask = None, sigma_nsq: float = SIGMA_NSQ
) -> Values:
    r"""Return the visual information fidelity of each slice, in its form for pixels.

    .. math:: \frac{\sum \log(1 + g^2 \sigma_y^2 / (\sigma_v^2 + \sigma_n^2))}
        {\sum \log(1 + \sigma_y^2 / \sigma_n^2)}

    over windows of four scales, :math:`x = g y + v` in each. It isn't symmetric, above 1 where
    contrast is raised, and depends on the unit of the pictures through :math:`\sigma_n^2`. It is
    the ``vifp_mscale`` of the authors, as the package sewar has it. Where no window of the target
    varies it is 1 for an equal picture, else 0.

    References:
        Sheikh and Bovik, "Image Information and Visual Quality", IEEE TIP 15, 2006.

    Args:
        picture: Magnitudes.
        target: What they should be.
        mask: Where the middles of windows are; everywhere by default.
        sigma_nsq: Variance of the noise of seeing, in the squared unit of the pictures; the
            authors take 2 for pictures of 0 to 255.

    Raises:
        ValueError: If shapes differ, values aren't finite, a picture has a side below 41,
            ``sigma_nsq`` isn't above 0, or a mask holds the middle of no window of a slice.
    """
    x, y, inside = _checked(picture, target, mask)
    if min(x.shape[1:]) < SMALLEST_VIF or not sigma_nsq > 0:
        raise ValueError(
            f"vif: pictures of {x.shape[1]} x {x.shape[2]}, sigma_nsq {sigma_nsq}; four scales "
            f"need sides of {SMALLEST_VIF} or more, and a variance above 0"
        )
    _require(_middles(inside, VIF_WINDOWS[0]), "middle of a VIF window of 17 x 17")
    seen, known = torch.zeros_like(x[:, 0, 0]), torch.zeros_like(x[:, 0, 0])
    for scale, window in enumerate(VIF_WINDOWS):
        if scale:
            x, y = (_blurred(each[:, None], window)[:, 0, ::2, ::2] for each in (x, y))
            inside = _middles(inside, window)[:, ::2, ::2]
        middles = _middles(inside, window)
        for total, bits in zip((seen, known), _information(x, y, window, sigma_nsq), strict=True):
            total += (bits * middles).sum((1, 2))
    equal = (picture == target).all(-1).all(-1).double()
    return torch.where(known > 0, seen / known.clamp(min=1e-300), equal)


def check(picture: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
    """Make sure that pictures can be compared.

    Raises:
        ValueError: If shapes differ or aren't (slice, height, width), or values aren't finite.
    """
    shapes = [tuple(each.shape) for each in (picture, target, mask) if each is not None]
    if len(set(shapes)) != 1 or picture.dim() != 3 or not picture.numel():
        raise ValueError(
            f"picture, target and mask of shapes {shapes}; expected one shape of "
            "(slice, height, width)"
        )
    infinite = ~(picture.isfinite() & target.isfinite()).flatten(1).all(1)
    if bool(infinite.any()):
        raise ValueError(f"slice {int(infinite.nonzero()[0])} holds NaN or infinite values")


def comparable(mask: Mask, shape: tuple[int, int, int]) -> Bool[Tensor, " slice"]:
    """Return in which slices a mask holds the middle of a window of every measure that fits.

    Args:
        mask: Where pictures are to be compared; everywhere if None.
        shape: Slices, height and width.
    """
    if mask is None:
        return torch.ones(shape[0], dtype=torch.bool)
    window = VIF_WINDOWS[0] if min(shape[1:]) >= SMALLEST_VIF else min(WINDOW, *shape[1:])
    return _middles(mask, window).flatten(1).any(1)


def _information(x: Tensor, y: Tensor, window: int, sigma_nsq: float) -> tuple[Tensor, Tensor]:
    """Of each window: information on the target in the picture, and in the target itself."""
    means = _blurred(torch.stack((x, y, x * x, y * y, x * y), 1), window)
    mean_x, mean_y, xx, yy, xy = means.unbind(1)
    variance_x, variance_y = (xx - mean_x**2).clamp(min=0), (yy - mean_y**2).clamp(min=0)
    covariance = xy - mean_x * mean_y
    gain = covariance / (variance_y + VIF_FLOOR)
    rest = variance_x - gain * covariance
    flat_x, flat_y = variance_x < VIF_FLOOR, variance_y < VIF_FLOOR
    rest = torch.where(flat_y | (gain < 0), variance_x, rest)
    rest = torch.where(flat_x, 0.0, rest).clamp(min=VIF_FLOOR)
    gain = torch.where(flat_x | flat_y | (gain < 0), 0.0, gain)
    variance_y = torch.where(flat_y, 0.0, variance_y)
    return (
        torch.log1p(gain**2 * variance_y / (rest + sigma_nsq)),
        torch.log1p(variance_y / sigma_nsq),
    )


def _blurred(stacked: Float[Tensor, "slice kind height width"], window: int) -> Tensor:
    """Means under a Gaussian of a fifth of its window, wherever that fits."""
    line = torch.arange(window, dtype=torch.float64, device=stacked.device) - window // 2
    weights = torch.exp(-(line**2) / (2 * (window / 5) ** 2))
    weights = weights / weights.sum()
    flat = stacked.flatten(0, 1)[:, None]
    flat = F.conv2d(F.conv2d(flat, weights[None, None, :, None]), weights[None, None, None])
    return flat[:, 0].unflatten(0, stacked.shape[:2])


def _middles(inside: Tensor, window: int) -> Tensor:
    """What a mask says of the middles of the windows that fit."""
    edge = window // 2
    height, width = inside.shape[1:]
    return inside[:, edge : height - edge, edge : width - edge]


def _spread(x: Tensor, y: Tensor, data_range: Range) -> Values:
    given = torch.as_tensor(data_range, dtype=torch.float64, device=x.device).expand(len(x))
    if not bool((torch.isfinite(given) & (given >= 0)).all()):
        raise ValueError(f"data range of {given.tolist()}; expected finite numbers, 0 or more")
    own = torch.maximum(x.amax((1, 2)), y.amax((1, 2)))
    own = own - torch.minimum(x.amin((1, 2)), y.amin((1, 2)))
    own = torch.where(own > 0, own, 1.0)
    return torch.where(given > 0, given, own)


def _checked(picture: Tensor, target: Tensor, mask: Mask) -> tuple[Tensor, Tensor, Tensor]:
    """Both in 64 bits, and where to compare them."""
    check(picture, target, mask)
    inside = torch.ones_like(picture, dtype=torch.bool) if mask is None else mask
    _require(inside, "pixel")
    return picture.double(), target.double(), inside


def _require(inside: Tensor, what: str) -> None:
    without = (~inside.flatten(1).any(1)).nonzero().flatten().tolist()
    if without:
        raise ValueError(f"the mask holds no {what} in slice {without[0]}; leave that slice out")
