"""The kinds of flow, and which of their two directions takes one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor, nn

from core.variational.flows.bijection import Bijection, Reversed
from core.variational.flows.coupling import ELEMENTWISE, Coupling
from core.variational.flows.library import autoregressive
from core.variational.flows.planar import Planar, Radial
from core.variational.flows.sylvester import HouseholderSylvester, OrthogonalSylvester

Direction = Literal["sample", "density"]
RANK = 4  # of a Sylvester layer, at most the length of the vectors


@dataclass(frozen=True)
class FlowKind:
    """A row of the table.

    Args:
        layer: From latent, context, hidden widths and the layer's index to the layer.
        fast: The directions that take one pass.
        slow: What the other direction costs; empty if there is none.
        reverse: Whether a layer maps value to noise, and so makes samples by its inverse.
        source: Where it was published.
    """

    layer: Callable[[int, int, Sequence[int], int], nn.Module]
    fast: frozenset[Direction]
    slow: str
    source: str
    reverse: bool = False


def _coupling(name: str) -> Callable[[int, int, Sequence[int], int], nn.Module]:
    return lambda latent, context, hidden, index: Coupling(
        latent, context, hidden, ELEMENTWISE[name](), swap=bool(index % 2)
    )


BOTH: frozenset[Direction] = frozenset({"sample", "density"})
SAMPLE: frozenset[Direction] = frozenset({"sample"})
DENSITY: frozenset[Direction] = frozenset({"density"})
SEQUENTIAL = "one pass of the network for every latent dimension"
ROOTS = "a root, found by iteration, in every layer"

FLOWS: dict[str, FlowKind] = {
    "nice": FlowKind(_coupling("nice"), BOTH, "", "Dinh et al. 2015, arXiv:1410.8516"),
    "realnvp": FlowKind(_coupling("realnvp"), BOTH, "", "Dinh et al. 2017, arXiv:1605.08803"),
    "nsf": FlowKind(_coupling("nsf"), BOTH, "", "Durkan et al. 2019, arXiv:1906.04032"),
    "iaf": FlowKind(
        partial(autoregressive, spline=False),
        SAMPLE,
        SEQUENTIAL,
        "Kingma et al. 2016, arXiv:1606.04934",
    ),
    "maf": FlowKind(
        partial(autoregressive, spline=False),
        DENSITY,
        SEQUENTIAL,
        "Papamakarios et al. 2017, arXiv:1705.07057",
        reverse=True,
    ),
    "iaf-nsf": FlowKind(
        partial(autoregressive, spline=True),
        SAMPLE,
        SEQUENTIAL,
        "Durkan et al. 2019, arXiv:1906.04032",
    ),
    "maf-nsf": FlowKind(
        partial(autoregressive, spline=True),
        DENSITY,
        SEQUENTIAL,
        "Durkan et al. 2019, arXiv:1906.04032",
        reverse=True,
    ),
    "planar": FlowKind(
        lambda latent, context, hidden, index: Planar(latent, context),
        SAMPLE,
        ROOTS,
        "Rezende and Mohamed 2015, arXiv:1505.05770",
    ),
    "radial": FlowKind(
        lambda latent, context, hidden, index: Radial(latent, context),
        BOTH,
        "",
        "Rezende and Mohamed 2015, arXiv:1505.05770",
    ),
    "sylvester": FlowKind(
        lambda latent, context, hidden, index: OrthogonalSylvester(
            latent, min(RANK, latent), context
        ),
        SAMPLE,
        ROOTS,
        "van den Berg et al. 2018, arXiv:1803.05649",
    ),
    "householder": FlowKind(
        lambda latent, context, hidden, index: HouseholderSylvester(
            latent, min(RANK, latent), context
        ),
        SAMPLE,
        ROOTS,
        "van den Berg et al. 2018, arXiv:1803.05649",
    ),
}


class Flow(nn.Module):
    """Layers of one kind, from noise to value.

    Args:
        kind: A key of `FLOWS`.
        latent: Length of the vectors.
        layers: How many; 0 for the identity.
        context: Length of the context that the layers know; 0 for none.
        hidden: Widths of the hidden layers of the networks inside, where the kind has any.

    Raises:
        ValueError: If the kind is unknown or a number is out of range.

    Example:
        >>> import torch
        >>> bijections = Flow("planar", 2, layers=3, context=0, hidden=())(None)
        >>> bijections[0].forward(torch.zeros(5, 2)).log_det.shape
        torch.Size([5])
    """

    def __init__(
        self, kind: str, latent: int, layers: int, context: int, hidden: Sequence[int]
    ) -> None:
        super().__init__()
        row = _row(kind)
        if latent < 1 or layers < 0 or context < 0:
            raise ValueError(
                f"Flow: latent={latent}, layers={layers}, context={context}; latent must be at "
                "least 1, the others at least 0"
            )
        self.kind, self.latent, self.context = kind, latent, context
        self.layers = nn.ModuleList(
            row.layer(latent, context, hidden, index) for index in range(layers)
        )

    def forward(self, context: Tensor | None = None) -> list[Bijection]:
        """Return the layers for a context of shape ``(*batch, context)``."""
        bijections: list[Bijection] = [layer(context) for layer in self.layers]
        if not _row(self.kind).reverse:
            return bijections
        return [Reversed(bijection) for bijection in reversed(bijections)]


def check_direction(kind: str, direction: Direction, user: str) -> None:
    """Refuse a flow in the direction that takes more than one pass.

    Args:
        kind: A key of `FLOWS`.
        direction: ``"sample"`` to draw and know the density of what was drawn, as a posterior
            does; ``"density"`` for the density of a value from elsewhere, as a prior does.
        user: Who asks, for the message.

    Raises:
        ValueError: If that direction is the slow one.
    """
    row = _row(kind)
    if direction in row.fast:
        return
    fast = ", ".join(repr(name) for name, other in FLOWS.items() if direction in other.fast)
    raise ValueError(
        f"{user}: flow {kind!r} is slow in the {direction} direction, {row.slow}; "
        f"fast are {fast}; allow it with allow_slow=True"
    )


def _row(kind: str) -> FlowKind:
    if kind not in FLOWS:
        known = ", ".join(map(repr, FLOWS))
        raise ValueError(f"Flow: no kind {kind!r}; there are {known}")
    return FLOWS[kind]
