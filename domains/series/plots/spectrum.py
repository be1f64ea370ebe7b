"""The modes of a model's linear dynamics, on the unit circle and in real units."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Arc
from numpy.typing import NDArray

from core.contract import Plot
from core.runtime.figures import GREY, INK
from domains.series.data import Clock
from domains.series.model.base import Spectrum
from domains.series.plots.drawing import HUES, WIDTH, Array, duration, unit_of_times

Complex = NDArray[np.complex128]
MOST_LISTED = 7
ALIKE = 1e-5
NEVER = "does not fade"
LITTLE = 0.01  # share of the energy below which a mode is not spoken of
LARGEST, SMALLEST = 240.0, 5.0  # area of a dot in square points
HALF_LIVES = (1, 2, 5)  # guide circles, in steps
PERIODS = (2, 3, 4, 6, 12)  # guide spokes, in steps


@dataclass(frozen=True, eq=False)
class Modes:
    """Modes in the order of their energy, conjugates taken together.

    Args:
        eigenvalues: In the upper half plane.
        half_lives: In steps, infinite on the circle.
        periods: In steps, infinite for a mode that does not turn.
        energy: Shares that sum to 1.
    """

    eigenvalues: Complex
    half_lives: Array
    periods: Array
    energy: Array

    def __len__(self) -> int:
        """Number of modes."""
        return len(self.energy)


def modes(spectrum: Spectrum) -> Modes:
    """Return the modes, of which a mode and its conjugate are one, the largest energy first.

    Both turn in the same time and fade in the same time; in real terms they are one rotation.
    """
    values = spectrum.eigenvalues.detach().cpu().numpy().astype(complex)
    upper = np.real(values) + 1j * np.abs(np.imag(values))
    energy = spectrum.energy.detach().cpu().double().numpy()
    half_lives, periods = (
        np.abs(each.detach().cpu().double().numpy())
        for each in (spectrum.half_lives, spectrum.periods)
    )
    kept: list[int] = []
    shares: list[float] = []
    for place in np.argsort(-energy, kind="stable").tolist():
        twin = _twin(values, upper, kept, place)
        if twin is None:
            kept.append(place)
            shares.append(float(energy[place]))
        else:
            shares[twin] += float(energy[place])
    order = np.argsort(-np.array(shares), kind="stable")
    chosen = np.array(kept, dtype=int)[order]
    return Modes(upper[chosen], half_lives[chosen], periods[chosen], np.array(shares)[order])


def draw_spectrum(spectrum: Spectrum, clock: Clock) -> Plot:
    """Draw eigenvalues on the upper half of the unit circle, and list them in real units."""
    found = modes(spectrum)
    listed = min(len(found), MOST_LISTED)
    rows = listed + 1 + (len(found) > listed)
    heights = (2.35, 0.19 * rows)
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.15))
    disc, table = figure.subplots(2, height_ratios=heights)
    colours = _colours(found)
    _guides(disc, clock)
    _dots(disc, found, colours)
    _table(table, found, colours, clock, listed, rows)
    return Plot(figure=figure, caption=_caption(found, clock))


def _twin(values: Complex, upper: Complex, kept: list[int], place: int) -> int | None:
    """Which of those kept is the conjugate of an eigenvalue."""
    for index, other in enumerate(kept):
        opposite = values[other].imag * values[place].imag < 0
        if opposite and abs(upper[other] - upper[place]) < ALIKE:
            return index
    return None


def _colours(found: Modes) -> list[str]:
    turning = found.periods[np.isfinite(found.periods)]
    low, high = (turning.min(), turning.max()) if len(turning) else (1.0, 2.0)
    scale = LogNorm(low / 1.01, high * 1.01)
    return [
        to_hex(HUES(float(scale(each)))) if math.isfinite(each) else GREY for each in found.periods
    ]


def _guides(axes: Axes, clock: Clock) -> None:
    """The unit circle, circles of equal half-lives and spokes of equal periods."""
    pale = {"color": GREY, "linewidth": 0.5}
    axes.add_patch(Arc((0, 0), 2, 2, theta1=0, theta2=180, edgecolor=INK, linewidth=0.9))
    axes.plot([-1, 1], [0, 0], **pale, alpha=0.6)
    for place, steps in enumerate(HALF_LIVES):
        radius = 0.5 ** (1 / steps)
        axes.add_patch(
            Arc((0, 0), 2 * radius, 2 * radius, theta1=0, theta2=180, edgecolor=GREY,
                linewidth=0.6, linestyle=(0, (3, 2)))
        )  # fmt: skip
        axes.annotate(duration(steps, clock), (-radius, 0), xytext=(0, -3 - 8 * (place % 2)),
                      va="top", ha="center", textcoords="offset points", fontsize=6.5,
                      color=GREY)  # fmt: skip
    for steps in PERIODS:
        turn = 2 * math.pi / steps
        x, y = math.cos(turn), math.sin(turn)
        axes.plot([0.0, x], [0.0, y], **pale, alpha=0.35)
        side = "left" if x > 0.1 else "right" if x < -0.1 else "center"
        axes.text(1.06 * x, 1.06 * y, duration(steps, clock), fontsize=7, ha=side,
                  va="center" if steps == 2 else "bottom")  # fmt: skip
    axes.set(xlim=(-1.2, 1.25), ylim=(-0.24, 1.12), aspect="equal")
    axes.set_axis_off()


def _dots(axes: Axes, found: Modes, colours: list[str]) -> None:
    area = np.maximum(LARGEST * found.energy / max(found.energy.max(), 1e-12), SMALLEST)
    axes.scatter(found.eigenvalues.real, found.eigenvalues.imag, s=area, color=colours, alpha=0.75,
                 linewidths=0, zorder=3, clip_on=False)  # fmt: skip


def _table(
    axes: Axes, found: Modes, colours: list[str], clock: Clock, listed: int, rows: int
) -> None:
    axes.set(xlim=(0, 1), ylim=(rows - 0.3, -0.7))
    axes.set_axis_off()
    for x, head, side in ((0.33, "period", "right"), (0.6, "half-life", "right"),
                          (0.66, "share of the energy", "left")):  # fmt: skip
        axes.text(x, 0, head, ha=side, va="center", fontsize=8, color=GREY)
    full = 0.24 / max(found.energy.max(), 1e-12)
    for place in range(listed):
        row, share = place + 1, float(found.energy[place])
        axes.plot(0.03, row, "o", color=colours[place], markersize=5, markeredgewidth=0)
        axes.text(0.33, row, _period(found.periods[place], clock), ha="right", va="center",
                  fontsize=8)  # fmt: skip
        axes.text(0.6, row, _half_life(found.half_lives[place], clock), ha="right", va="center",
                  fontsize=8)  # fmt: skip
        axes.barh(row, share * full, left=0.66, height=0.55, color=colours[place], alpha=0.75)
        axes.text(0.67 + share * full, row, _share(share), va="center", fontsize=8)
    if len(found) > listed:
        left = f"{len(found) - listed} more"
        axes.text(0.33, listed + 1, left, ha="right", va="center", fontsize=8, color=GREY)
        axes.text(0.67, listed + 1, _share(float(found.energy[listed:].sum())), va="center",
                  fontsize=8, color=GREY)  # fmt: skip


def _caption(found: Modes, clock: Clock) -> str:
    counted = np.flatnonzero(found.energy >= min(LITTLE, found.energy.max()))
    slowest = counted[np.argmax(found.half_lives[counted])]
    half_life = float(found.half_lives[slowest])
    fades = f"halves in {duration(half_life, clock)}" if math.isfinite(half_life) else NEVER
    return (
        f"Eigenvalues of the latents' linear dynamics for one step of {duration(1, clock)}: the "
        "angle is the period, the distance from the unit circle the half-life (dashed), the area "
        "the share of the energy; conjugates are one mode. "
        f"Modes that hold 1 % or more each: {len(counted)} of {len(found)}. The slowest of them "
        f"{fades} and holds {_share(float(found.energy[slowest]))}; "
        f"{_periods(found, counted, clock)}.{unit_of_times(clock)}"
    )


def _periods(found: Modes, counted: NDArray[np.int64], clock: Clock) -> str:
    """The shortest and the longest period of some modes, with their energy."""
    turning = counted[np.isfinite(found.periods[counted])]
    order = turning[np.argsort(found.periods[turning], kind="stable")]
    ends = [
        f"{duration(float(found.periods[mode]), clock)} ({_share(float(found.energy[mode]))})"
        for mode in order
    ]
    if not ends:
        return "none turns"
    return (
        f"periods run from {ends[0]} to {ends[-1]}" if len(ends) > 1 else f"one turns in {ends[0]}"
    )


def _half_life(steps: float, clock: Clock) -> str:
    return duration(steps, clock) if math.isfinite(steps) else NEVER


def _period(steps: float, clock: Clock) -> str:
    return duration(steps, clock) if math.isfinite(steps) else "does not turn"


def _share(value: float) -> str:
    return "< 0.1 %" if 0 < value < 0.001 else f"{100 * value:.{0 if value >= 0.0995 else 1}f} %"
