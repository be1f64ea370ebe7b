"""How good generated, imputed and forecast series are; every number beside what is trivial."""

from domains.series.metrics import baselines
from domains.series.metrics.anomalies import average_precision, hit, judged_by_the_rest, row_scores
from domains.series.metrics.forecasts import (
    Errors,
    coverage,
    crps,
    forecast_errors,
    interval_score,
)
from domains.series.metrics.generation import generated_like
from domains.series.metrics.judges import (
    discriminative_score,
    discriminative_scores,
    predictive_score,
    predictive_scores,
)
from domains.series.metrics.prediction import predicted_errors
from domains.series.metrics.similarity import (
    Neighbours,
    autocorrelation_distance,
    autocorrelations,
    correlational_score,
    marginal_distance,
    memorisation,
    neighbours,
    wasserstein_distances,
)
from domains.series.metrics.strict import Strict, strict_discriminative
from domains.series.metrics.table import metrics, validate

__all__ = [
    "Errors",
    "Neighbours",
    "Strict",
    "autocorrelation_distance",
    "autocorrelations",
    "average_precision",
    "baselines",
    "correlational_score",
    "coverage",
    "crps",
    "discriminative_score",
    "discriminative_scores",
    "forecast_errors",
    "generated_like",
    "hit",
    "interval_score",
    "judged_by_the_rest",
    "marginal_distance",
    "memorisation",
    "metrics",
    "neighbours",
    "predicted_errors",
    "predictive_score",
    "predictive_scores",
    "row_scores",
    "strict_discriminative",
    "validate",
    "wasserstein_distances",
]
