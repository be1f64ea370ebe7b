"""Linear dynamics and emissions identified from lagged moments: where their training starts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domains.series.data.records import Array, Mask

Complexes = NDArray[np.complex128]
LARGEST = 600  # rows of the Hankel matrix: its decomposition takes a second
SLOWEST = 20  # half-lives longer than so many windows cannot be told from none
FAINTEST = 1e-9  # singular values below this share of the largest are rounding
RIDGE = 1e-6
TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Identified:
    r"""Modes of :math:`x_t \approx \operatorname{Re} \sum_j h_j \lambda_j^t a_j`, strongest first.

    Args:
        eigenvalues: :math:`\lambda`, inside the unit circle and not below the real axis.
        emission: :math:`h` of shape ``(channel, mode)``, for amplitudes :math:`a` whose real and
            imaginary parts have variance 1 at the start of a window.
        drive: What is added to each part in a row, as :math:`\sigma` of `LinearDynamics`; 0 for
            modes that decay freely.
        noise: Standard deviation of what is left of each channel.
    """

    eigenvalues: Complexes
    emission: Complexes
    drive: Array
    noise: Array


def identify(values: Array, known: Mask, modes: int) -> Identified | None:
    r"""Identify modes by stochastic subspace identification from covariances.

    .. math:: R_k = \sum_{n, t} x_{n, t+k} x_{n, t}^\top = H A^k M H^\top, \quad k \ge 1

    Noise that is new in each row drops out of :math:`R_k`, so a factorisation of the block Hankel
    matrix :math:`(R_{i+j+1})_{ij}`, and of the one shifted by a row, gives :math:`A` and
    :math:`H` consistently, for stationary processes and for ring-downs alike: the sum over t is
    over the same rows for all k.

    References:
        Ho and Kalman, "Effective construction of linear state-variable models from input/output
        functions", Regelungstechnik 14, 1966. Juang and Pappa, "An eigensystem realization
        algorithm for modal parameter identification and model reduction", J. Guidance 8(5), 1985.
        Peeters and De Roeck, "Reference-based stochastic subspace identification for output-only
        modal analysis", Mechanical Systems and Signal Processing 13(6), 1999.

    Args:
        values: Windows of shape ``(window, time, channel)`` of rows one step apart.
        known: Which of the values are; the moments are of the pairs that are known.
        modes: How many modes to return.

    Returns:
        None where the windows are too short for so many modes.
    """
    _, time, channels = values.shape
    depth = min(time // 4, LARGEST // channels)
    if depth * channels < 2 * modes or depth < 2:
        return None
    filled = np.where(known, values, 0.0)
    hankel, shifted = _hankel(_moments(filled, known, 2 * depth), depth)
    transition, observe = _realise(hankel, shifted, 2 * modes, channels)
    eigenvalues, vectors = np.linalg.eig(transition.astype(np.complex128))
    upper = np.angle(eigenvalues) >= 0
    eigenvalues = _inside(eigenvalues[upper], SLOWEST * time)
    emission = (observe.astype(np.complex128) @ vectors)[:, upper]
    return _strongest(filled, known, eigenvalues, emission, modes, depth)


def _moments(filled: Array, known: Mask, lags: int) -> list[Array]:
    """Return the moments of lags 1, 2, …, each a mean over the pairs that are known."""
    rows = filled.shape[1] - lags
    seen = known.astype(np.float64)
    early, early_seen = filled[:, :rows].reshape(-1, filled.shape[2]), seen[:, :rows]
    early_seen = early_seen.reshape(early.shape)
    found = []
    for lag in range(1, lags + 1):
        late = filled[:, lag : lag + rows].reshape(early.shape)
        pairs = seen[:, lag : lag + rows].reshape(early.shape).T @ early_seen
        found.append(late.T @ early / np.maximum(pairs, 1))
    return found


def _hankel(moments: list[Array], depth: int) -> tuple[Array, Array]:
    """Return the block Hankel matrix of the moments, and the one shifted by one row."""
    blocks = [[moments[i + j] for j in range(depth)] for i in range(depth)]
    shifted = [[moments[i + j + 1] for j in range(depth)] for i in range(depth)]
    return np.block(blocks), np.block(shifted)


def _realise(hankel: Array, shifted: Array, order: int, channels: int) -> tuple[Array, Array]:
    """Return the balanced realisation of an order: transition and emission."""
    left, strength, right = np.linalg.svd(hankel, full_matrices=False)
    root = np.sqrt(np.maximum(strength[:order], FAINTEST * strength[0]))
    left, right = left[:, :order], right[:order].T
    transition = (left.T @ shifted @ right) / root[:, None] / root
    return transition, left[:channels] * root


def _inside(eigenvalues: Complexes, longest: float) -> Complexes:
    """Return them with a half-life of at least a hundredth of a row and at most so many rows."""
    modulus = np.clip(np.abs(eigenvalues), 2.0**-100, 2.0 ** (-1 / longest))
    return modulus * np.exp(1j * np.angle(eigenvalues))


def _strongest(
    filled: Array, known: Mask, eigenvalues: Complexes, emission: Complexes, modes: int, depth: int
) -> Identified:
    """Keep the modes that add most to the first rows of the windows, amplitudes of variance 1."""
    time = np.arange(depth)
    waves = eigenvalues ** time[:, None, None] * emission  # (time, channel, mode)
    early, residual = _fit(filled[:, :depth], known[:, :depth], waves)
    late, _ = _fit(filled[:, depth : 2 * depth], known[:, depth : 2 * depth], waves)
    spread = _scale(early)
    energy = spread**2 * np.square(np.abs(waves)).sum((0, 1))
    driven = _scale(late - eigenvalues**depth * early) / np.maximum(spread, TINY)
    rate = -np.log(np.abs(eigenvalues))
    driven = driven * np.sqrt(2 * rate / -np.expm1(-2 * rate * depth))
    chosen = np.argsort(-energy, kind="stable")[:modes]
    return Identified(
        eigenvalues[chosen], (emission * spread)[:, chosen], driven[chosen], residual
    )


def _scale(amplitudes: Complexes) -> Array:
    """Return the standard deviation of real and imaginary parts over windows."""
    return np.sqrt(np.square(np.abs(amplitudes)).mean(0) / 2)


def _fit(filled: Array, known: Mask, waves: Complexes) -> tuple[Complexes, Array]:
    """Fit amplitudes of the waves to each window, and return the scale of what is left."""
    basis = np.stack([waves.real, -waves.imag], -1).reshape(*waves.shape[:2], -1)
    amplitudes = _amplitudes(filled, known, basis)
    left = np.where(known, filled - np.einsum("tcp,np->ntc", basis, amplitudes), 0.0)
    scale = np.sqrt(np.square(left).sum((0, 1)) / np.maximum(known.sum((0, 1)), 1))
    return amplitudes[:, ::2] + 1j * amplitudes[:, 1::2], scale


def _amplitudes(filled: Array, known: Mask, basis: Array) -> Array:
    """Fit amplitudes to each window by least squares on what is known, shrunk a little."""
    seen = known.astype(np.float64)
    normal = np.einsum("ntc,tcp,tcq->npq", seen, basis, basis, optimize=True)
    ridge = RIDGE * np.einsum("npp->n", normal)[:, None, None] * np.eye(basis.shape[-1])
    right = np.einsum("ntc,tcp->np", filled, basis)
    return np.linalg.solve(normal + ridge + TINY * np.eye(len(ridge[0])), right[..., None])[..., 0]
