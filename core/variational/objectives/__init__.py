"""Objectives: the ELBO and its family, each a function of `Evidence` and nothing else."""

from core.variational.objectives.aggregate import DIP, WAE, BetaTC, InfoVAE
from core.variational.objectives.base import Bound, Loss, Objective, elbo_of, elbo_value
from core.variational.objectives.elbo import (
    ELBO,
    VIB,
    AutoGen,
    Capacity,
    EnergyMAP,
    MultiBeta,
    RateDistortion,
)
from core.variational.objectives.importance import (
    CUBO,
    IWAE,
    VIS,
    Renyi,
    effective_sample_size,
)

OBJECTIVES = {
    "elbo": ELBO,
    "capacity": Capacity,
    "autogen": AutoGen,
    "multi-beta": MultiBeta,
    "vib": VIB,
    "rate-distortion": RateDistortion,
    "energy": EnergyMAP,
    "iwae": IWAE,
    "renyi": Renyi,
    "vis": VIS,
    "info-vae": InfoVAE,
    "wae": WAE,
    "beta-tc": BetaTC,
    "dip": DIP,
}

__all__ = [
    "CUBO",
    "DIP",
    "ELBO",
    "IWAE",
    "OBJECTIVES",
    "VIB",
    "VIS",
    "WAE",
    "AutoGen",
    "BetaTC",
    "Bound",
    "Capacity",
    "EnergyMAP",
    "InfoVAE",
    "Loss",
    "MultiBeta",
    "Objective",
    "RateDistortion",
    "Renyi",
    "effective_sample_size",
    "elbo_of",
    "elbo_value",
]
