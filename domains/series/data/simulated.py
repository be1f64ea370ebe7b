"""Simulated series of which everything is known: random processes, sines, ageing lasers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.runtime.order import generator
from domains.series.config import Data
from domains.series.data.records import Array, Clock, Panel, Series

PATHS = 2_000
DEVICES, ROWS = 150, 240
HURST = (0.1, 0.9)
MEMORY = (1.0, 30.0)  # rows
TURNS = (1.0, 8.0)
INDEX = Clock(kind="index", column="", zone="", form="", interval=1.0)

# Of a laser that is driven by a constant current.
ACTIVATION_EV, BOLTZMANN_EV = 0.5, 8.617333262e-5
CURRENT_EXPONENT = 2.0
REFERENCE_CURRENT_MA, REFERENCE_CELSIUS = 100.0, 45.0
REFERENCE_LIFE = 2_500.0  # rows in which the power falls by the factor e
END_OF_LIFE = 0.5  # of the power that gradual ageing would have left


@dataclass(frozen=True, eq=False)
class Simulated:
    """Series, and what they were made with.

    Args:
        panel: The series.
        parameters: By name one number for each series.
    """

    panel: Panel
    parameters: Mapping[str, Array]


def fractional_noise(rng: np.random.Generator, hurst: Array, steps: int) -> Array:
    r"""Draw the increments of fractional Brownian motion, exactly, by circulant embedding.

    .. math:: \gamma_k = \tfrac12 \left(|k + 1|^{2H} - 2 |k|^{2H} + |k - 1|^{2H}\right)

    The covariance matrix is a corner of a circulant one of twice the size, whose eigenvalues are a
    Fourier transform and, for every :math:`0 < H < 1`, not negative.

    References:
        Davies and Harte, "Tests for Hurst effect", Biometrika 74, 1987; Craigmile, "Simulating a
        class of stationary Gaussian processes using the Davies–Harte algorithm", Journal of Time
        Series Analysis 24, 2003, for the eigenvalues.

    Args:
        rng: Of the draws.
        hurst: :math:`H` of each path, of shape ``(path,)``.
        steps: Increments of a path, of variance 1.

    Returns:
        Of shape ``(path, step)``.

    Example:
        >>> fractional_noise(np.random.default_rng(0), np.array([0.3, 0.7]), 5).shape
        (2, 5)
    """
    row = np.concatenate([np.arange(steps + 1), np.arange(steps - 1, 0, -1)])
    eigenvalues = np.fft.fft(fractional_covariance(hurst, row)).real.clip(min=0)
    noise = rng.standard_normal((2, len(hurst), 2 * steps))
    spectrum = np.sqrt(eigenvalues / (2 * steps)) * (noise[0] + 1j * noise[1])
    return np.fft.fft(spectrum).real[:, :steps]


def fractional_covariance(hurst: Array, lag: NDArray[np.int64]) -> Array:
    r"""Return the covariance :math:`\gamma_k` of fractional noise, of shape ``(path, lag)``."""
    power = 2 * np.asarray(hurst)[:, None]
    return (abs(lag + 1) ** power - 2 * abs(lag) ** power + abs(lag - 1) ** power) / 2


def fractional_brownian(
    paths: int, steps: int, seed: int, hurst: tuple[float, float] = HURST
) -> Simulated:
    r"""Draw paths of fractional Brownian motion that start at 0.

    .. math:: \operatorname{Var}(x_t - x_s) = |t - s|^{2H}

    Args:
        paths: How many.
        steps: Rows of each.
        seed: The same seed gives the same paths.
        hurst: Smallest and largest :math:`H`, the only parameter, uniform between them.
    """
    rng = generator(seed, "fbm")
    h = rng.uniform(*hurst, paths)
    moves = fractional_noise(rng, h, steps)
    values = np.concatenate([np.zeros((paths, 1)), moves[:, 1:].cumsum(1)], axis=1)
    return Simulated(_panel(values), {"hurst": h})


def ornstein_uhlenbeck(
    paths: int, steps: int, seed: int, memory: tuple[float, float] = MEMORY
) -> Simulated:
    r"""Draw stationary paths of Ornstein–Uhlenbeck processes of variance 1, exactly.

    .. math:: x_t = e^{-1/\tau} x_{t-1} + \sqrt{1 - e^{-2/\tau}}\, \epsilon_t

    Args:
        paths: How many.
        steps: Rows of each.
        seed: The same seed gives the same paths.
        memory: Smallest and largest :math:`\tau` in rows, the only parameter, its logarithm
            uniform between them.
    """
    rng = generator(seed, "ou")
    tau = np.exp(rng.uniform(np.log(memory[0]), np.log(memory[1]), paths))
    keep, noise = np.exp(-1 / tau), rng.standard_normal((paths, steps))
    values = noise.copy()
    for step in range(1, steps):
        values[:, step] = keep * values[:, step - 1] + np.sqrt(1 - keep**2) * noise[:, step]
    return Simulated(_panel(values), {"tau": tau})


def random_sines(
    paths: int, steps: int, seed: int, turns: tuple[float, float] = TURNS
) -> Simulated:
    r"""Draw a sine of random frequency and phase for each window.

    .. math:: x_t = \sin(2\pi f t / T + \phi)

    Nothing is missing: ``data.hide`` hides from models what metrics may then compare with.

    Args:
        paths: How many.
        steps: Rows :math:`T` of each.
        seed: The same seed gives the same sines.
        turns: Smallest and largest :math:`f`, uniform between them.
    """
    rng = generator(seed, "random-sines")
    frequency, phase = rng.uniform(*turns, paths), rng.uniform(0, 2 * np.pi, paths)
    angles = 2 * np.pi * np.outer(frequency, np.arange(steps) / steps)
    return Simulated(_panel(np.sin(angles + phase[:, None])), {"turns": frequency, "phase": phase})


def laser_ageing(
    devices: int, rows: int, seed: int, failing: float = 0.1, noise: float = 0.01
) -> Simulated:
    r"""Age lasers at constant current and temperature, of which some break down.

    .. math:: P_t = P_0 e^{-t / \tau}, \quad
        \frac1\tau \propto I^2 e^{-E_a / k_B T}

    with the current :math:`I` and temperature :math:`T` that a device is run at, and spread of
    :math:`P_0` and :math:`\tau` among devices. The power of one that fails is multiplied by
    :math:`2^{-s^2}` from its onset (:math:`s = 0`) to half of its power, which ends its life
    (:math:`s = 1`). Its rows from the onset on are labelled 1.

    Args:
        devices: How many.
        rows: Measurements in a whole life; a device that fails has fewer.
        seed: The same seed gives the same devices.
        failing: Share of devices that fail.
        noise: Standard deviation of a measured power, as a share of it.

    Returns:
        Channels ``power_mw``, ``current_ma``, ``temperature_c``; parameters ``failing`` (0 or 1),
        ``onset`` and ``life`` in rows (a whole life if it does not fail) and ``tau``.
    """
    rng = generator(seed, "laser-ageing")
    fails = np.arange(devices) < round(failing * devices)
    rng.shuffle(fails)
    life = np.where(fails, rng.uniform(0.5, 1.0, devices) * rows, rows).astype(np.int64)
    onset = np.where(fails, np.rint(rng.uniform(0.4, 0.6, devices) * life), life)
    current = rng.uniform(0.8, 1.2, devices) * REFERENCE_CURRENT_MA
    celsius = rng.uniform(-20.0, 20.0, devices) + REFERENCE_CELSIUS
    tau = REFERENCE_LIFE / acceleration(current, celsius) * np.exp(0.15 * rng.normal(size=devices))
    power = 0.1 * current * np.exp(0.03 * rng.normal(size=devices))
    series = []
    for k in range(devices):
        time = np.arange(life[k])
        late = np.clip((time - onset[k]) / max(life[k] - 1 - onset[k], 1), 0, None)
        clean = power[k] * np.exp(-time / tau[k]) * END_OF_LIFE ** (late**2)
        drift = np.stack([current[k] + 0 * time, celsius[k] + 0 * time])
        drift = drift + np.array([[0.1], [0.3]]) * rng.standard_normal(drift.shape)
        measured = clean * (1 + noise * rng.standard_normal(len(time)))
        label = (fails[k] & (time >= onset[k])).astype(np.int64)
        values = np.column_stack([measured, *drift])
        series.append(Series(_name(k, devices), time.astype(np.float64), values, label))
    panel = Panel(
        series=tuple(series),
        channels=("power_mw", "current_ma", "temperature_c"),
        dtypes=("float64",) * 3,
        clock=INDEX,
        identifier="series",
    )
    truth = {"failing": fails, "onset": onset, "life": life, "tau": tau}
    return Simulated(panel, {name: each.astype(np.float64) for name, each in truth.items()})


def acceleration(current_ma: Array, celsius: Array) -> Array:
    r"""Return how much faster a laser ages than at the reference current and temperature.

    .. math:: \left(\frac{I}{I_0}\right)^n
        \exp \frac{E_a}{k_B} \left(\frac1{T_0} - \frac1T\right)

    Arrhenius' law with a power of the current, temperatures in kelvin.

    Example:
        >>> acceleration(np.array([100.0, 200.0]), np.array([45.0, 45.0]))
        array([1., 4.])
    """
    kelvin, reference = celsius + 273.15, REFERENCE_CELSIUS + 273.15
    heat = ACTIVATION_EV / BOLTZMANN_EV * (1 / reference - 1 / kelvin)
    return (current_ma / REFERENCE_CURRENT_MA) ** CURRENT_EXPONENT * np.exp(heat)


def _panel(values: Array) -> Panel:
    """Return paths ``(path, time)`` as series of one channel."""
    times = np.arange(values.shape[1], dtype=np.float64)
    series = (
        Series(_name(k, len(values)), times, path) for k, path in enumerate(values[:, :, None])
    )
    return Panel(
        series=tuple(series),
        channels=("x",),
        dtypes=("float64",),
        clock=INDEX,
        identifier="series",
    )


def _name(index: int, count: int) -> str:
    return f"{index:0{len(str(count - 1))}d}"


def _of_windows(simulate: Callable[..., Simulated]) -> Callable[[Data, int], Panel]:
    """Return what makes a panel of paths that are each a window long."""
    return lambda data, seed: simulate(data.windows or PATHS, data.window, seed).panel


SIMULATED: Mapping[str, Callable[[Data, int], Panel]] = {
    "fbm": _of_windows(fractional_brownian),
    "ou": _of_windows(ornstein_uhlenbeck),
    "random-sines": _of_windows(random_sines),
    "laser-ageing": lambda data, seed: laser_ageing(DEVICES, ROWS, seed).panel,
}
