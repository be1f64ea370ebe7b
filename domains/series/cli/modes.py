"""The spectrum of a model as a table, and as numbers for a program."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from core.runtime import folder
from core.runtime.errors import UserError
from core.runtime.figures import inline, style, svg
from domains.series.cli.opened import Trained
from domains.series.data import Clock
from domains.series.model import Spectrum
from domains.series.plots.drawing import duration
from domains.series.plots.spectrum import Modes, draw_spectrum, modes

UNITS = {"datetime": "s", "number": "unit of the times", "index": "rows"}


def spectrum_of(opened: Trained, batches: Any) -> Spectrum:
    """The modes of the model's dynamics, with their energy on the train windows.

    Raises:
        UserError: If it has no linear dynamics.
    """
    found = opened.model.spectrum(batches.batch(0, index) for index in range(len(batches)))
    if found is None:
        raise UserError(
            f"spectrum: model.kind {opened.config.model.kind!r} has no linear dynamics; "
            "koopman-vae has"
        )
    return found


def described(spectrum: Spectrum, clock: Clock) -> dict[str, Any]:
    """The modes as JSON; null stands for infinity: a mode that does not fade, or not turn."""
    found = modes(spectrum)
    return {
        "interval": clock.interval,
        "unit": UNITS[clock.kind],
        "modes": [_mode(found, place, clock.interval) for place in range(len(found))],
    }


def _mode(found: Modes, place: int, interval: float) -> dict[str, Any]:
    value = complex(found.eigenvalues[place])
    half_life, period = float(found.half_lives[place]), float(found.periods[place])
    return {
        "eigenvalue": [value.real, value.imag],
        "modulus": abs(value),
        "half_life_steps": _finite(half_life),
        "half_life": _finite(half_life * interval),
        "period_steps": _finite(period),
        "period": _finite(period * interval),
        "energy": float(found.energy[place]),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def write(path: Path, spectrum: Spectrum, clock: Clock) -> None:
    """Write the table as JSON, or the figure as SVG or as a page of its own."""
    if path.suffix == ".json":
        folder.write_json(path, described(spectrum, clock))
        return
    with style():
        plot = draw_spectrum(spectrum, clock)
        drawing = svg(plot.figure)
    page = f"""<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>Spectrum</title>
<meta name="viewport" content="width=device-width">
<style>
:root {{ color-scheme: light dark; }}
body {{ max-width: 44rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 sans-serif; }}
svg {{ width: 100%; height: auto; }}
pre {{ overflow-x: auto; }}
</style>
<h1>Spectrum</h1>
{inline(drawing, "spectrum", "Eigenvalues on the unit circle")}
<p>{escape(plot.caption)}</p>
<pre>{escape(text(spectrum, clock))}</pre>
</html>
"""
    folder.write_atomic(path, page if path.suffix == ".html" else drawing)


def text(spectrum: Spectrum, clock: Clock) -> str:
    """A table of the modes, the most energy first."""
    found = modes(spectrum)
    lines = [f"{'|λ|':>8}  {'half-life':>12}  {'period':>12}  {'energy':>7}"]
    for place in range(len(found)):
        half_life, period = (
            duration(float(each[place]), clock) if np.isfinite(each[place]) else "∞"
            for each in (found.half_lives, found.periods)
        )
        modulus = abs(found.eigenvalues[place])
        share = f"{100 * found.energy[place]:.1f} %"
        lines.append(f"{modulus:>8.5f}  {half_life:>12}  {period:>12}  {share:>7}")
    step = [] if clock.kind == "index" else [f"one step: {duration(1, clock)}"]
    return "\n".join([*lines, *step])
