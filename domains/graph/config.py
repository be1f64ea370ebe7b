"""The settings of a link-prediction run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from core.runtime.config import Section, Settings

Fraction = Annotated[float, Field(gt=0, lt=0.5)]
Probability = Annotated[float, Field(ge=0, lt=1)]


class Data(Section):
    """Where the graph comes from and how its links are split.

    Args:
        source: What is read; ``airline-routes`` comes with an installed package.
        name: Which Planetoid graph.
        root: The file to read, or the folder of the Planetoid files; None downloads those.
        features: A file of node features for an edge list: CSV, parquet or npz.
        directed: Whether direction counts; to be said where the source leaves it open.
        allow_pickle: Whether arrays and csr matrices may be read from objects in an npz file.
        use_features: Whether models see the node features.
        valid_fraction: Share of the links to choose a model with.
        test_fraction: Share of the links to test on, once.
        batch_edges: Links explained at a step when neighbourhoods are sampled.
    """

    source: Literal["airline-routes", "planetoid", "npz", "edges", "graphml"] = "airline-routes"
    name: Literal["Cora", "CiteSeer", "PubMed"] = "Cora"
    root: str | None = None
    features: str | None = None
    directed: bool | None = None
    allow_pickle: bool = False
    use_features: bool = True
    valid_fraction: Fraction = 0.05
    test_fraction: Fraction = 0.10
    batch_edges: PositiveInt = 4096

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> Data:
        if self.source in ("npz", "edges", "graphml") and self.root is None:
            raise ValueError(f"source {self.source!r} needs 'root', the file to read")
        if self.features is not None and self.source != "edges":
            raise ValueError(f"'features' belongs to source 'edges', not to {self.source!r}")
        return self
