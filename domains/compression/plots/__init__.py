"""The figures of the report."""

from domains.compression.plots.report import plots

__all__ = ["plots"]
