"""Latents that are more than a flat group: with masks, in levels, shared by views, or discrete.

Most structures are a list of `Latent` and need nothing from here: shared and private groups, or
continuous and discrete ones, are drawn one after the other. Sequences are in
`core.variational.dynamics`.
"""

from core.variational.structures.experts import mixture_of_experts, product_of_experts
from core.variational.structures.masked import Masked, masked_event, masked_latent
from core.variational.structures.relaxed import Relaxed
from core.variational.structures.top_down import Level, TopDown, joined

__all__ = [
    "Level",
    "Masked",
    "Relaxed",
    "TopDown",
    "joined",
    "masked_event",
    "masked_latent",
    "mixture_of_experts",
    "product_of_experts",
]
