"""The embedded example: which US airports an airline flew between in July 2026.

From the data files of the package ``bokeh-sampledata``, which is not imported. It is a real graph
with original names, positions to draw it on a map, features that say nothing about routes, and no
download.
"""

from __future__ import annotations

import csv
import importlib.util
import io
from pathlib import Path

import numpy as np

from core.runtime.errors import UserError
from domains.graph.data.files import existing, read_text
from domains.graph.data.records import RawGraph

FEET_TO_KM = 0.3048e-3
LICENCE = (
    "public domain; airports: OurAirports contributors; flights: U.S. Department of "
    "Transportation, Bureau of Transportation Statistics, Reporting Carrier On-Time Performance"
)


def locate() -> dict[str, Path]:
    """The two files in the installed package.

    Raises:
        UserError: If the package is not installed or has other files.
    """
    spec = importlib.util.find_spec("bokeh_sampledata")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "data.source 'airline-routes' needs the package 'bokeh-sampledata'; install it: "
            "pip install 'latentworks[graph]'"
        )
    folder = Path(spec.submodule_search_locations[0]) / "_data"
    setting = "the package bokeh-sampledata (2026.1 or later)"
    return {
        "airports": existing(folder / "airports.csv", setting),
        "routes": existing(folder / "routes.csv.gz", setting),
    }


def read() -> RawGraph:
    """Airports as nodes, linked where any airline flew; features are place and height only.

    The size class of an airport is its label and no feature, as traffic decides it. Airports
    without a reported flight are left out: as negatives they would be told apart by having no
    link at all.

    Raises:
        UserError: If the package is not there or its files have changed their form.
    """
    files = locate()
    airports = _table(files["airports"], ("IATA", "Name", "City", "Latitude", "Longitude", "Type"))
    routes = _table(files["routes"], ("Source", "Destination"))
    served = {row[end] for row in routes for end in ("Source", "Destination")}
    unserved = sum(row["IATA"] not in served for row in airports)
    airports = [row for row in airports if row["IATA"] in served]
    index = {row["IATA"]: place for place, row in enumerate(airports)}
    try:
        pairs = sorted({(index[row["Source"]], index[row["Destination"]]) for row in routes})
        degrees = np.array([[float(row["Longitude"]), float(row["Latitude"])] for row in airports])
        height_km = FEET_TO_KM * np.array([float(row["Altitude"]) for row in airports])
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{files['airports']}: unexpected value {error}; install bokeh-sampledata 2026.1"
        ) from error
    longitude, latitude = np.radians(degrees.T)
    place = [
        np.cos(latitude) * np.cos(longitude),
        np.cos(latitude) * np.sin(longitude),
        np.sin(latitude),
    ]
    height = (height_km - height_km.mean()) / height_km.std()
    large = [row["Type"] == "large_airport" for row in airports]
    return RawGraph(
        names=list(index),
        pairs=np.array(pairs, dtype=np.int64).T,
        directed=False,
        source="US airline routes of July 2026 (bokeh-sampledata)",
        place=str(files["routes"]),
        licence=LICENCE,
        features=np.stack([*place, height], axis=1),
        labels=np.array(large, dtype=np.int64),
        titles=[f"{row['Name']}, {row['City']}" for row in airports],
        positions=degrees,
        notes=(
            "airports are linked when any reporting airline flew between them, either way, at "
            "least four times in the month; not a complete network",
            f"{unserved} airports without a reported flight left out",
            "features: place on the unit sphere (3), standardised altitude; label: large airport",
        ),
    )


def _table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO(read_text(path))))
    if not rows or not set(columns) <= rows[0].keys():
        raise UserError(
            f"{path}: expected columns {', '.join(columns)}; install bokeh-sampledata 2026.1 or "
            "later"
        )
    return rows
