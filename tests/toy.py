"""A domain small enough to train in a blink: four-dimensional Gaussians and a linear VAE."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from core.contract import DataCard, Domain, Metric, Plot
from core.runtime.config import Section, Settings
from core.runtime.order import Shuffled
from core.variational.distributions import DiagonalNormal
from core.variational.evidence import Evidence, Latent


class Data(Section):
    """How many points, and whether one of them is broken."""

    points: int = 40
    batch_size: int = 8
    broken_at: int | None = None


class Model(Section):
    """Size of the latent."""

    latent: int = 2


class ToySettings(Settings):
    """The settings of the toy domain."""

    domain: Literal["toy"] = "toy"
    data: Data = Data()
    model: Model = Model()


@dataclass(frozen=True)
class Points:
    """A batch of points."""

    values: Tensor

    def to(self, device: torch.device) -> Points:
        """Move to a device."""
        return Points(self.values.to(device))


class LinearVAE(nn.Module):
    """Encoder and decoder of one layer each, with dropout so that the random stream matters."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 2 * latent)
        self.decoder = nn.Linear(latent, 4)
        self.dropout = nn.Dropout(0.1)

    def evidence(self, batch: Points, samples: int = 1) -> Evidence:
        """What the model says about a batch of points."""
        loc, log_scale = self.encoder(self.dropout(batch.values)).chunk(2, -1)
        posterior = DiagonalNormal(loc, log_scale.exp())
        z = posterior.rsample((samples,))
        likelihood = DiagonalNormal(self.decoder(z), torch.ones(()))
        prior = DiagonalNormal(torch.zeros_like(loc), torch.ones(()))
        return Evidence(
            {"x": likelihood.log_prob(batch.values)}, [Latent("z", z, posterior, prior)]
        )


def prepare(config: ToySettings, folder: Path) -> DataCard:
    """Draw the points."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = torch.Generator().manual_seed(config.seed)
    mixing = torch.tensor([[1.0, 0.5, 0.0, 0.0], [0.0, 1.0, 0.5, 0.0]])
    points = torch.randn(config.data.points, 2, generator=draw) @ mixing
    if config.data.broken_at is not None:
        points[config.data.broken_at, 0] = float("nan")
    torch.save(points, folder / "points.pt")
    return DataCard(
        source="drawn",
        licence="none",
        fingerprint=f"{config.seed:064d}",
        facts={"points": len(points)},
    )


def batches(config: ToySettings, folder: Path, split: str) -> Shuffled[Tensor, Points]:
    """The points in batches; every split is the same ones."""
    points = list(torch.load(folder / "points.pt", weights_only=True))
    return Shuffled(
        points,
        config.data.batch_size,
        lambda rows: Points(torch.stack(rows)),
        config.seed,
        split == "train",
    )


def metrics(config: ToySettings, folder: Path, model: LinearVAE) -> dict[str, Metric]:
    """The reconstruction error."""
    points = torch.load(folder / "points.pt", weights_only=True)
    error = float((model.decoder(model.encoder(points).chunk(2, -1)[0]) - points).square().mean())
    return {
        "squared_error": Metric(
            value=error,
            unit="",
            direction="lower",
            n=len(points),
            primary=True,
            floors={"mean": 1.0},
        )
    }


def plots(config: ToySettings, folder: Path, model: LinearVAE) -> dict[str, Plot]:
    """The points."""
    figure = Figure()
    figure.subplots().plot([0, 1], [0, 1])
    return {"points": Plot(figure=figure, caption="A line.")}


def examples(config: ToySettings, folder: Path, model: LinearVAE, out: Path) -> None:
    """The weights as text."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "weights.txt").write_text(str(model.decoder.weight.tolist()))


DOMAIN: Domain[ToySettings, Points, LinearVAE] = Domain(
    name="toy",
    config=ToySettings,
    prepare=prepare,
    batches=batches,
    model=lambda config, folder: LinearVAE(config.model.latent),
    validate=lambda config, folder, model: {
        "error": metrics(config, folder, model)["squared_error"].value
    },
    metrics=metrics,
    plots=plots,
    examples=examples,
)


class Catalogue:
    """A catalogue that holds the toy domain only."""

    @staticmethod
    def domain_names() -> list[str]:
        """The one name."""
        return ["toy"]

    @staticmethod
    def domain_line(name: str) -> str:
        """What it is."""
        return "A toy."

    @staticmethod
    def load_config(name: str) -> type[ToySettings]:
        """Its settings."""
        return ToySettings

    @staticmethod
    def load_verbs(name: str) -> dict[str, Any]:
        """It has no verbs of its own."""
        return {}

    @staticmethod
    def load_domain(name: str) -> Domain[Any, Any, Any]:
        """Its record."""
        return DOMAIN
