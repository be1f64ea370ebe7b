"""Simulated ring-downs of a damped oscillator with three modes, whose spectrum is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.runtime.order import generator
from domains.series.data.records import Array, Clock, Panel, Series

Complexes = NDArray[np.complex128]


@dataclass(frozen=True)
class Modes:
    """The modes of a linear oscillator.

    Args:
        periods: In rows.
        half_lives: Rows in which each mode halves.
    """

    periods: tuple[float, ...]
    half_lives: tuple[float, ...]

    @property
    def eigenvalues(self) -> Complexes:
        r""":math:`\lambda = 2^{-1 / \text{half-life}} e^{2 \pi i / \text{period}}` of one row."""
        rate = np.log(2) / np.array(self.half_lives)
        return np.exp(-rate + 2j * np.pi / np.array(self.periods))


OSCILLATOR = Modes(periods=(7.0, 13.0, 29.0), half_lives=(20.0, 35.0, 60.0))


def oscillator(
    count: int = 300,
    window: int = 100,
    channels: int = 6,
    seed: int = 0,
    noise: float = 0.1,
    modes: Modes = OSCILLATOR,
) -> Panel:
    r"""Draw ring-downs: a linear system let go from random states, seen by noisy sensors.

    .. math:: x_{tj} = \operatorname{Re} \sum_m h_{jm} \lambda_m^t a_m + \sigma \epsilon_{tj},
        \quad a_m \sim \mathcal{CN}(0, 2)

    The mixing :math:`h`, complex Normal, is the same for all series. A mode's damping can be told
    from free decays; of a process driven by noise, a row says next to nothing about it.

    Args:
        count: Series.
        window: Rows of each.
        channels: Sensors.
        seed: The same seed gives the same series.
        noise: Standard deviation :math:`\sigma` of each sensor.
        modes: Periods and half-lives.

    Example:
        >>> oscillator(3, 24).series[2].values.shape
        (24, 6)
    """
    rng = generator(seed, "oscillator")
    mixing = _complex_normal(rng, len(modes.periods), channels)
    states = _complex_normal(rng, count, 1, len(modes.periods))
    times = np.arange(window, dtype=np.float64)
    clean = ((states * modes.eigenvalues ** times[:, None]) @ mixing).real
    values = clean + noise * rng.standard_normal(clean.shape)
    return panel_of(values)


def panel_of(values: Array) -> Panel:
    """Return generated series of one length, ``(series, time, channel)``, as a panel."""
    count, window, channels = values.shape
    times, digits = np.arange(window, dtype=np.float64), len(str(count - 1))
    return Panel(
        series=tuple(Series(f"{k:0{digits}d}", times, values[k]) for k in range(count)),
        channels=tuple(f"x{j + 1}" for j in range(channels)),
        dtypes=("float64",) * channels,
        clock=Clock(kind="index", column="", zone="", form="", interval=1.0),
        identifier="series",
    )


def _complex_normal(rng: np.random.Generator, *shape: int) -> Complexes:
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
