"""The distributions that torch lacks, and lean ones for the hot path; all else is torch's own."""

from core.variational.distributions.bernoulli import LogitsBernoulli
from core.variational.distributions.fixed import stop_gradient
from core.variational.distributions.normal import (
    CentredNormal,
    DiagonalNormal,
    as_diagonal_normal,
    check_same_event,
    diagonal_normal_kl_terms,
)

__all__ = [
    "CentredNormal",
    "DiagonalNormal",
    "LogitsBernoulli",
    "as_diagonal_normal",
    "check_same_event",
    "diagonal_normal_kl_terms",
    "stop_gradient",
]
