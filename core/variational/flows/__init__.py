"""Normalising flows, from noise to value, and which of their directions is fast."""

from core.variational.flows.bijection import Bijection, Step
from core.variational.flows.distribution import FlowDistribution, frozen
from core.variational.flows.table import FLOWS, Flow, FlowKind, check_direction

__all__ = [
    "FLOWS",
    "Bijection",
    "Flow",
    "FlowDistribution",
    "FlowKind",
    "Step",
    "check_direction",
    "frozen",
]
