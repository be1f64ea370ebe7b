"""How good reconstructions are, and what their intervals are worth."""

from domains.mri.metrics import coverage, quality
from domains.mri.metrics.comparison import Difference, against_best, best_of
from domains.mri.metrics.protocols import (
    PROTOCOLS,
    Protocol,
    Scores,
    calgary_campinas,
    fastmri,
    together,
)

__all__ = [
    "PROTOCOLS",
    "Difference",
    "Protocol",
    "Scores",
    "against_best",
    "best_of",
    "calgary_campinas",
    "coverage",
    "fastmri",
    "quality",
    "together",
]
