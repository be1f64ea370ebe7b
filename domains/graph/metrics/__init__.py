"""How well links are told from non-links, how honest the probabilities are, and what is easy."""

from domains.graph.metrics.calibration import (
    Calibration,
    brier,
    expected_calibration_error,
    fit,
    reliability,
)
from domains.graph.metrics.floors import Floor, floors, propagated_features
from domains.graph.metrics.links import (
    Scored,
    calibrated,
    calibration,
    held_out,
    metrics,
    observed,
    ranking_metrics,
    scored,
    validate,
)
from domains.graph.metrics.new_links import new_links
from domains.graph.metrics.ranking import area_under_curve, average_precision, require_few_ties

__all__ = [
    "Calibration",
    "Floor",
    "Scored",
    "area_under_curve",
    "average_precision",
    "brier",
    "calibrated",
    "calibration",
    "expected_calibration_error",
    "fit",
    "floors",
    "held_out",
    "metrics",
    "new_links",
    "observed",
    "propagated_features",
    "ranking_metrics",
    "reliability",
    "require_few_ties",
    "scored",
    "validate",
]
