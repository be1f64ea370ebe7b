"""How good generated, imputed and forecast series are; every number beside what is trivial."""

from domains.series.metrics.judges import (
    discriminative_score,
    discriminative_scores,
    predictive_score,
    predictive_scores,
)

__all__ = [
    "discriminative_score",
    "discriminative_scores",
    "predictive_score",
    "predictive_scores",
]
