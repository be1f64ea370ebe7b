"""Files → series → a validated, split, scaled and fingerprinted dataset → windows for a model."""

from domains.series.data.batches import WindowBatches, batches, every_window, window_values
from domains.series.data.masks import hide
from domains.series.data.records import (
    Clock,
    Dataset,
    Panel,
    Scaler,
    Series,
    Windows,
)
from domains.series.data.store import load, prepare
from domains.series.data.unseen import panel_windows

__all__ = [
    "Clock",
    "Dataset",
    "Panel",
    "Scaler",
    "Series",
    "WindowBatches",
    "Windows",
    "batches",
    "every_window",
    "hide",
    "load",
    "panel_windows",
    "prepare",
    "window_values",
]
