"""Where series come from: generated sines, the quotes of an installed package, a file."""

from __future__ import annotations

import csv
import gzip
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from core.runtime.errors import UserError
from core.runtime.order import generator
from domains.series.config import Data
from domains.series.data.files import existing
from domains.series.data.oscillator import oscillator, panel_of
from domains.series.data.records import Clock, Panel, Series
from domains.series.data.simulated import SIMULATED

SINES, RING_DOWNS = 10_000, 300
FASTEST = 0.1
DAY_S = 86_400.0
QUOTES = ("Open", "High", "Low", "Close", "Volume", "Adj Close")


@dataclass(frozen=True)
class Source:
    """A source that has been found and not yet read.

    Args:
        title: What a report calls it, without absolute paths.
        place: What an error message calls it.
        licence: Its licence, ``unknown`` if it could not be found out.
        files: The files it is read from.
        read: Reads it.
    """

    title: str
    place: str
    licence: str
    files: tuple[Path, ...]
    read: Callable[[], Panel]


def find(data: Data, seed: int) -> Source:
    """Find the source that the settings name.

    Raises:
        UserError: If it is not there.
    """
    if data.source in GENERATED:
        generate = GENERATED[data.source]
        return Source(
            title=f"{data.source}, generated",
            place=f"data.source {data.source!r}",
            licence="none needed: generated numbers",
            files=(),
            read=lambda: generate(data, seed),
        )
    if data.source == "google-stock":
        return Source(
            title="daily GOOG quotes, 2004-08-19 to 2013-03-01 (bokeh-sampledata)",
            place="data.source 'google-stock'",
            licence="public domain: Quandl WIKI Prices, as archived by marketneutral on Kaggle",
            files=(_quotes_file(),),
            read=google_stock,
        )
    path = existing(Path(data.path or ""))
    return Source(
        title=path.name,
        place=str(path),
        licence="unknown",
        files=(path,),
        read=lambda: _read_file(path, data),
    )


def _read_file(path: Path, data: Data) -> Panel:
    from domains.series.data.reading import read_panel  # it loads pandas

    return read_panel(path, data)


def sines(count: int, window: int, channels: int = 5, seed: int = 0) -> Panel:
    r"""Draw independent sines, the field's standard toy.

    .. math:: x_{tj} = \tfrac12 (\sin(\eta_j t + \theta_j) + 1), \quad
        \eta_j, \theta_j \sim U[0, 0.1], \quad t = 0, 1, …

    Frequencies and phases are those of TimeGAN's published code; its paper says
    :math:`[0, 1]` and :math:`[-\pi, \pi]`, which nobody's scores are about.

    References:
        Yoon et al., "Time-series Generative Adversarial Networks", NeurIPS 2019.

    Args:
        count: Series, each of one window.
        window: Rows of each.
        channels: Sines side by side, independent of each other.
        seed: The same seed gives the same series.

    Example:
        >>> sines(3, 24).series[2].values.shape
        (24, 5)
    """
    rng = generator(seed, "sines")
    frequency, phase = rng.uniform(0, FASTEST, size=(2, count, 1, channels))
    times = np.arange(window, dtype=np.float64)
    return panel_of((np.sin(frequency * times[:, None] + phase) + 1) / 2)


GENERATED: Mapping[str, Callable[[Data, int], Panel]] = {
    "sines": lambda data, seed: sines(data.windows or SINES, data.window, seed=seed),
    "oscillator": lambda data, seed: oscillator(
        data.windows or RING_DOWNS, data.window, seed=seed
    ),
    **SIMULATED,
}


def google_stock() -> Panel:
    """Read the daily quotes of Google's stock on its 2,148 trading days up to March 2013.

    From the data files of the package ``bokeh-sampledata``, which is not imported: real series
    with original names and dates, and no download. The field's own stock data are the same six
    columns of a longer period (3,685 days), which is not there to be shipped.

    Raises:
        UserError: If the package is not there or its file has changed its form.
    """
    path = _quotes_file()
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["Ticker"] == "GOOG"]
        values = np.array([[float(row[name]) for name in QUOTES] for row in rows])
        times = np.array([_midnight(row["Date"]) for row in rows])
    except (OSError, EOFError, KeyError, ValueError) as error:
        raise UserError(
            f"{path}: unexpected content ({error}); install bokeh-sampledata 2026.1"
        ) from error
    return Panel(
        series=(Series("", times, values),),
        channels=QUOTES,
        dtypes=tuple("int64" if name == "Volume" else "float64" for name in QUOTES),
        clock=Clock(kind="datetime", column="Date", zone="", form="%Y-%m-%d", interval=DAY_S),
        notes=(
            "trading days only; prices are as quoted, and the adjusted close also knows splits "
            "and dividends after the period",
        ),
    )


def _midnight(date: str) -> float:
    return datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()


def _quotes_file() -> Path:
    """Where the installed package keeps its quotes."""
    spec = importlib.util.find_spec("bokeh_sampledata")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "data.source 'google-stock' needs the package 'bokeh-sampledata'; install it: "
            "pip install 'latentworks[series]'"
        )
    path = Path(spec.submodule_search_locations[0]) / "_data" / "stocks.csv.gz"
    if not path.is_file():
        raise UserError(f"{path}: no such file; install bokeh-sampledata 2026.1 or later")
    return path
