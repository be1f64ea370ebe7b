"""ESPIRiT: coil sensitivities as eigenvectors of what calibration lines say of each other."""

from __future__ import annotations

import torch
from jaxtyping import Complex64, Float32
from torch import Tensor

KERNEL = 6
SMALLEST = 8  # calibration lines along each axis, below which there is nothing to learn from
POWER_ITERATIONS = 20


@torch.no_grad()
def espirit(
    calibration: Complex64[Tensor, "batch coil rows columns"],
    shape: tuple[int, int],
    kernel: int = KERNEL,
    threshold: float = 0.02,
) -> tuple[Complex64[Tensor, "batch coil height width"], Float32[Tensor, "batch height width"]]:
    r"""Return sensitivities of unit root sum of squares, and how far each pixel agrees with them.

    Every patch of the calibration data lies in the row space of the matrix of all of them. In the
    picture that says :math:`W_q s_q = s_q` at each pixel :math:`q` inside the body; :math:`s_q` is
    the first eigenvector of :math:`W_q`, and its eigenvalue is near 1 there and smaller where
    there is nothing but noise. The phase is that of the first principal coil: it is smooth.

    References:
        Uecker et al., "ESPIRiT — an eigenvalue approach to autocalibrating parallel MRI", MRM 71,
        2014.

    Args:
        calibration: The fully sampled middle of k-space.
        shape: Rows and columns of the picture, each at least as large as the kernel.
        kernel: Side of a patch.
        threshold: Singular values below this share of the largest are noise.

    Raises:
        ValueError: If the calibration data has fewer than `SMALLEST` rows or columns.
    """
    rows, columns = calibration.shape[-2:]
    if min(rows, columns) < max(SMALLEST, kernel + 1):
        raise ValueError(
            f"espirit: {rows} x {columns} calibration lines; at least {SMALLEST} x {SMALLEST}"
        )
    scale = calibration.abs().flatten(1).amax(1).clamp(min=torch.finfo(torch.float32).tiny)
    principal, rotation = _principal(calibration / scale[:, None, None, None])
    agreement = _agreement(_row_space(principal, kernel, threshold), kernel, shape)
    vectors, values = _first_eigenvector(agreement)
    # The first principal coil sees most: with its phase taken off, the others' are smooth.
    first = vectors[..., :1]
    vectors = vectors * (first.conj() / first.abs().clamp(min=1e-12))
    maps = torch.einsum("bhwc,bdc->bdhw", vectors, rotation)
    return maps.contiguous(), values


def _principal(calibration: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate the coils onto their principal components; return the way back as well."""
    flat = calibration.flatten(2)
    _, vectors = torch.linalg.eigh(flat @ flat.mH)
    rotation = vectors.flip(-1)
    return torch.einsum("bdc,bdhw->bchw", rotation.conj(), calibration), rotation


def _row_space(calibration: Tensor, kernel: int, threshold: float) -> Tensor:
    """Projector onto the space of patches, of shape ``(batch, coil * k * k, coil * k * k)``."""
    patches = calibration.unfold(-2, kernel, 1).unfold(-2, kernel, 1)
    rows = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    values, vectors = torch.linalg.eigh(rows.mH @ rows)
    kept = values.clamp(min=0) > threshold**2 * values[:, -1:]
    return vectors * kept[:, None, :]


def _agreement(kernels: Tensor, kernel: int, shape: tuple[int, int]) -> Tensor:
    """The matrix of each pixel, of shape ``(batch, height, width, coil, coil)``.

    The kernels' correlations are summed in k-space first, so that there is one transform for each
    pair of coils and none for each kernel.
    """
    batch, size, _ = kernels.shape
    coils = size // kernel**2
    gram = (kernels @ kernels.mH).view(batch, coils, kernel, kernel, coils, kernel, kernel)
    side = 2 * kernel - 1
    lags = gram.new_zeros(batch, coils, coils, side, side)
    for row in range(kernel):
        for column in range(kernel):
            r, c = kernel - 1 - row, kernel - 1 - column
            lags[..., r : r + kernel, c : c + kernel] += gram[:, :, row, column]
    height, width = shape
    return _transformed(lags, height, width) / kernel**2


def _transformed(lags: Tensor, height: int, width: int) -> Tensor:
    """Fourier series of lags at the pixels of a picture whose middle is ``size // 2``."""
    reach = lags.shape[-1] // 2

    def phases(size: int) -> Tensor:
        pixels = torch.arange(size, device=lags.device) - size // 2
        lag = torch.arange(-reach, reach + 1, device=lags.device)
        angle = 2 * torch.pi * torch.outer(lag, pixels) / size
        return torch.polar(torch.ones_like(angle), angle)

    rows = torch.einsum("bcdij,jw->bcdiw", lags, phases(width))
    return torch.einsum("bcdiw,ih->bhwcd", rows, phases(height)).conj()


def _first_eigenvector(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Largest eigenvalue and its vector of Hermitian positive matrices, by power iteration."""
    # The column of largest norm is no bad start, and never orthogonal to what is looked for.
    start = matrices.square().abs().sum(-2).argmax(-1)
    x = torch.take_along_dim(matrices, start[..., None, None], -1)
    for _ in range(POWER_ITERATIONS):
        x = matrices @ (x / torch.linalg.vector_norm(x, dim=-2, keepdim=True).clamp(min=1e-12))
    length = torch.linalg.vector_norm(x, dim=-2, keepdim=True).clamp(min=1e-12)
    return (x / length)[..., 0], length[..., 0, 0]
