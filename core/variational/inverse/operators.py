"""Linear measurement operators with their adjoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, eq=False)
class LinearOperator:
    r"""A linear map :math:`A` of one example's shape to another, and its adjoint.

    .. math:: \operatorname{Re} \langle A x, y \rangle = \operatorname{Re} \langle x, A^* y \rangle

    Both take any leading batch dimensions. On real domains inside complex ranges the adjoint is
    that of the real inner product, which is why there is a real part above. ``A @ B`` composes.

    Args:
        forward: :math:`A`, of ``(*batch, *domain)`` to ``(*batch, *range)``.
        adjoint: :math:`A^*`, the other way.
        domain: Shape of an example :math:`x`.
        range: Shape of a measurement :math:`A x`.
        complex_domain: Whether :math:`x` is complex.
        complex_range: Whether :math:`A x` is complex.
        observed: Which entries of the range are measured at all; the others are 0 and no data.
            Broadcasts against ``range``; None for all.
    """

    forward: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]
    domain: tuple[int, ...]
    range: tuple[int, ...]
    complex_domain: bool = False
    complex_range: bool = False
    observed: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        r"""Return :math:`A x`.

        Raises:
            ValueError: If ``x`` does not end in the domain's shape.
        """
        if tuple(x.shape[-len(self.domain) :]) != self.domain:
            raise ValueError(
                f"LinearOperator: x of shape {tuple(x.shape)} does not end in the domain's shape "
                f"{self.domain}"
            )
        return self.forward(x)

    def normal(self, x: Tensor) -> Tensor:
        r"""Return :math:`A^* A x`."""
        return self.adjoint(self(x))

    def __matmul__(self, inner: LinearOperator) -> LinearOperator:
        """Return the operator that applies ``inner`` first.

        Raises:
            ValueError: If the range of ``inner`` is not this domain.
        """
        if (inner.range, inner.complex_range) != (self.domain, self.complex_domain):
            raise ValueError(
                f"LinearOperator: {_words(inner.range, inner.complex_range)} of the inner range "
                f"against {_words(self.domain, self.complex_domain)} of the outer domain; the two "
                "must be the same"
            )
        return LinearOperator(
            lambda x: self.forward(inner.forward(x)),
            lambda y: inner.adjoint(self.adjoint(y)),
            inner.domain,
            self.range,
            inner.complex_domain,
            self.complex_range,
            self.observed,
        )


def matrix(entries: Tensor) -> LinearOperator:
    """Return the operator of a real or complex matrix of shape ``(range, domain)``.

    Example:
        >>> operator = matrix(torch.tensor([[1.0, 2.0]]))
        >>> operator(torch.ones(3, 2)).shape, operator.adjoint(torch.ones(3, 1)).shape
        (torch.Size([3, 1]), torch.Size([3, 2]))
    """
    rows, columns = entries.shape
    is_complex = entries.is_complex()
    return LinearOperator(
        lambda x: x @ entries.T,
        lambda y: y @ entries.conj(),
        (columns,),
        (rows,),
        is_complex,
        is_complex,
    )


def mask(
    observed: Bool[Tensor, "*entries"], shape: Sequence[int], complex: bool = False
) -> LinearOperator:
    """Return the operator that keeps the entries observed and sets the others to 0.

    Args:
        observed: True where kept; broadcasts against ``(*batch, *shape)``, so that every example
            may have a mask of its own.
        shape: Shape of an example.
        complex: Whether examples are complex.
    """

    def keep(x: Tensor) -> Tensor:
        return torch.where(observed, x, torch.zeros((), dtype=x.dtype, device=x.device))

    shape = tuple(shape)
    return LinearOperator(keep, keep, shape, shape, complex, complex, observed)


def fourier(shape: Sequence[int], dims: Sequence[int], real: bool = False) -> LinearOperator:
    r"""Return the centred orthonormal Fourier transform: its adjoint is its inverse.

    .. math:: \hat x_k = \frac{1}{\sqrt{N}} \sum_n x_n e^{-2 \pi i k n / N}

    with frequency 0 and origin at index :math:`\lfloor N / 2 \rfloor` of each dimension.

    Args:
        shape: Shape of an example.
        dims: Dimensions to transform, negative, counted from the last.
        real: Whether the domain is real; the adjoint is then the real part of the inverse.

    Raises:
        ValueError: If a dimension is not negative or the shape has no such dimension.
    """
    shape, dims = tuple(shape), tuple(dims)
    if not dims or not all(-len(shape) <= dim < 0 for dim in dims):
        raise ValueError(
            f"fourier: dims={dims} of an example of shape {shape}; each must be from "
            f"{-len(shape)} to -1"
        )

    def adjoint(y: Tensor) -> Tensor:
        x = _centred(torch.fft.ifftn, y, dims)
        return x.real if real else x

    def forward(x: Tensor) -> Tensor:
        return _centred(torch.fft.fftn, x, dims)

    return LinearOperator(forward, adjoint, shape, shape, not real, True)


def coils(maps: Complex[Tensor, "*batch coil *space"], dims: int = 2) -> LinearOperator:
    r"""Return the operator that looks at an image through the sensitivity of each receive coil.

    .. math:: (S x)_c = S_c x, \quad S^* y = \sum_c \bar S_c y_c

    Args:
        maps: Sensitivities :math:`S_c`, dimensionless; with batch dimensions for maps that differ
            between examples.
        dims: Number of space dimensions.
    """
    channel = -dims - 1
    shape = tuple(maps.shape[-dims:])
    return LinearOperator(
        lambda x: maps * x.unsqueeze(channel),
        lambda y: (maps.conj() * y).sum(channel),
        shape,
        (maps.shape[channel], *shape),
        True,
        True,
    )


def sampled_fourier(
    maps: Complex[Tensor, "*batch coil *space"], observed: Bool[Tensor, "*entries"], dims: int = 2
) -> LinearOperator:
    r"""Return the operator of parallel magnetic resonance imaging, :math:`M F S`.

    Coil sensitivities, centred orthonormal Fourier transform, sampling. Of norm at most 1 where
    the maps' squares sum to at most 1.

    References:
        Pruessmann et al., "SENSE: Sensitivity Encoding for Fast MRI", MRM 42, 1999.

    Args:
        maps: Sensitivities of the coils, dimensionless.
        observed: Sampled frequencies; broadcasts against ``(*batch, coil, *space)``.
        dims: Number of space dimensions.
    """
    sensitivity = coils(maps, dims)
    shape = sensitivity.range
    transform = fourier(shape, range(-dims, 0))
    return mask(observed, shape, complex=True) @ transform @ sensitivity


def convolution(kernel: Tensor, shape: Sequence[int]) -> LinearOperator:
    r"""Return the convolution of a real signal with a kernel, zeros beyond the border.

    .. math:: (k * x)_n = \sum_m k_m x_{n - m}

    with the origin in the middle of the kernel; the range has the shape of the domain.

    Args:
        kernel: Odd sizes in 1 to 3 dimensions.
        shape: Shape of an example, of as many dimensions.

    Raises:
        ValueError: If a size is even or the dimensions differ.
    """
    shape, sizes = tuple(shape), tuple(kernel.shape)
    if len(shape) != len(sizes) or len(sizes) > 3 or not all(size % 2 for size in sizes):
        raise ValueError(
            f"convolution: kernel of shape {sizes} on an example of shape {shape}; it needs as "
            "many dimensions, 1 to 3, and odd sizes"
        )
    correlate = (functional.conv1d, functional.conv2d, functional.conv3d)[len(shape) - 1]
    middle = [size // 2 for size in sizes]
    flipped = kernel.flip(tuple(range(kernel.dim())))

    def apply(weight: Tensor) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            flat = x.reshape(-1, 1, *shape)
            return correlate(flat, weight.to(x)[None, None], padding=middle).reshape(x.shape)

        return run

    return LinearOperator(apply(flipped), apply(kernel), shape, shape)


def check_adjoint(
    operator: LinearOperator,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    trials: int = 3,
    seed: int = 0,
) -> float:
    r"""Return how far an operator's adjoint is from being one, relative.

    .. math:: \frac{|\operatorname{Re} \langle A x, y \rangle
        - \operatorname{Re} \langle x, A^* y \rangle|}{\|A x\| \|y\|}

    the largest over random :math:`x, y`; about the precision's epsilon for a true adjoint.

    Args:
        operator: Any, without batch dimensions of its own.
        dtype: Real type to draw in.
        device: Where its tensors are.
        trials: Number of draws.
        seed: Seed of these draws; the global random stream is not touched.
    """
    generator = torch.Generator().manual_seed(seed)
    gaps = []
    for _ in range(trials):
        x = _draw(operator.domain, operator.complex_domain, generator, dtype, device)
        y = _draw(operator.range, operator.complex_range, generator, dtype, device)
        seen, back = operator(x), operator.adjoint(y)
        gap = inner(seen, y, seen.dim()) - inner(x, back, x.dim())
        size = seen.abs().square().sum().sqrt() * y.abs().square().sum().sqrt()
        gaps.append(float(gap.abs() / size.clamp(min=torch.finfo(dtype).tiny)))
    return max(gaps)


def operator_norm(
    operator: LinearOperator,
    iterations: int = 100,
    tolerance: float = 1e-6,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> float:
    r"""Return :math:`\|A\|`, the largest singular value, by power iteration.

    It is approached from below: leave some room in a step size made from it.

    References:
        Golub and Van Loan, "Matrix Computations", 4th edition, section 8.2.1.

    Args:
        operator: Any; with batch dimensions of its own the largest over the batch.
        iterations: At most so many products with :math:`A^* A`.
        tolerance: Relative change of the estimate at which it stops.
        dtype: Real type to compute in.
        device: Where its tensors are.
        seed: Seed of the start; the global random stream is not touched.

    Example:
        >>> round(operator_norm(matrix(torch.diag(torch.tensor([3.0, 1.0])))), 4)
        3.0
    """
    generator = torch.Generator().manual_seed(seed)
    x = _draw(operator.domain, operator.complex_domain, generator, dtype, device)
    dims, estimate = x.dim(), 0.0
    for _ in range(iterations):
        length = inner(x, x, dims).sqrt()
        x = operator.normal(x / torch.where(length > 0, length, 1))
        squared = float(inner(x, x, dims).sqrt().max())
        if abs(squared - estimate) <= tolerance * squared:
            return math.sqrt(squared)
        estimate = squared
    return math.sqrt(estimate)


def inner(left: Tensor, right: Tensor, dims: int) -> Float[Tensor, "*sums"]:
    r"""Return :math:`\operatorname{Re} \langle a, b \rangle` over the last dimensions, kept."""
    over = tuple(range(-dims, 0))
    if left.is_complex() or right.is_complex():
        return (left.conj() * right).real.sum(over, keepdim=True)
    return (left * right).sum(over, keepdim=True)


def _centred(transform: Callable[..., Tensor], x: Tensor, dims: tuple[int, ...]) -> Tensor:
    shifted = torch.fft.ifftshift(x, dims)
    return torch.fft.fftshift(transform(shifted, dim=dims, norm="ortho"), dims)


def _draw(
    shape: tuple[int, ...],
    is_complex: bool,
    generator: torch.Generator,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Tensor:
    real = torch.randn(shape, generator=generator, dtype=dtype)
    if not is_complex:
        return real.to(device)
    return torch.complex(real, torch.randn(shape, generator=generator, dtype=dtype)).to(device)


def _words(shape: tuple[int, ...], is_complex: bool) -> str:
    return f"{'complex' if is_complex else 'real'} {shape}"
