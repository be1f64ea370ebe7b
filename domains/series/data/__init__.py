"""Files → series → a validated, split, scaled and fingerprinted dataset → windows for a model."""

from domains.series.data.batches import WindowBatches, batches, every_window, window_values
from domains.series.data.inspection import describe, describe_text
from domains.series.data.masks import hide
from domains.series.data.reading import read_input, read_panel, read_unchecked
from domains.series.data.records import (
    Clock,
    Dataset,
    Panel,
    Scaler,
    Series,
    Windows,
)
from domains.series.data.store import load, prepare
from domains.series.data.times import following, format_times
from domains.series.data.unseen import panel_windows
from domains.series.data.writing import write_panel

__all__ = [
    "Clock",
    "Dataset",
    "Panel",
    "Scaler",
    "Series",
    "WindowBatches",
    "Windows",
    "batches",
    "describe",
    "describe_text",
    "every_window",
    "following",
    "format_times",
    "hide",
    "load",
    "panel_windows",
    "prepare",
    "read_input",
    "read_panel",
    "read_unchecked",
    "window_values",
    "write_panel",
]
