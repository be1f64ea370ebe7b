"""The figures of a report on time series."""

from domains.series.plots.report import plots

__all__ = ["plots"]
