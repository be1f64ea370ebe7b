"""What the engine adds to a step of a plain loop: the same tiny MLP, optimiser and batches.

CPU time of one thread, interleaved rounds in one process, median; results as JSON beside it.
The engine's side holds all that it does in a step: its random stream, the finite check, the meter,
progress; and, spread over the steps, its history, one validation and one checkpoint.
"""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.contract import DataCard, Domain
from core.runtime import engine
from core.runtime.config import Settings
from core.runtime.order import Shuffled
from core.variational.distributions import DiagonalNormal
from core.variational.evidence import Evidence
from core.variational.objectives import ELBO

STEPS, ROUNDS, BATCH = 4000, 7, 32
FEATURES, HIDDEN = 16, 32


class Autoencoder(nn.Module):
    """A 16-32-16 perceptron with a Normal likelihood."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, FEATURES)
        )
        self.register_buffer("scale", torch.ones(()))

    def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
        """The log-likelihood of a batch."""
        likelihood = DiagonalNormal(self.layers(batch), self.scale)
        return Evidence({"x": likelihood.log_prob(batch).unsqueeze(0)})


class FixedBatches:
    """Ready batches, so that only the loop is timed."""

    def __init__(self) -> None:
        points = torch.randn(64, BATCH, FEATURES, generator=torch.Generator().manual_seed(0))
        self.ready = list(points)

    def __len__(self) -> int:
        return STEPS

    def batch(self, epoch: int, index: int) -> Tensor:
        """One of them."""
        return self.ready[index % len(self.ready)]


def plain(batches: FixedBatches) -> float:
    """Seconds of CPU a step, in a plain loop."""
    model, objective = Autoencoder(), ELBO()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    began = time.process_time()
    for step in range(STEPS):
        loss = objective(model.evidence(batches.batch(0, step))).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return (time.process_time() - began) / STEPS


def with_engine(batches: FixedBatches) -> float:
    """Seconds of CPU a step, in the engine, its start-up and its one checkpoint included."""
    short = Shuffled([torch.randn(FEATURES)] * BATCH, BATCH, torch.stack, 0)
    domain: Domain[Any, Any, Any] = Domain(
        name="mlp",
        config=Settings,
        prepare=lambda config, folder: DataCard(source="", licence="", fingerprint=""),
        batches=lambda config, folder, split: batches if split == "train" else short,
        model=lambda config, folder: Autoencoder(),
        validate=lambda config, folder, model: {},
        metrics=lambda config, folder, model: {},
        plots=lambda config, folder, model: {},
        examples=lambda config, folder, model, out: None,
    )
    settings = Settings.model_validate(
        {
            "domain": "mlp",
            "name": "overhead",
            "training": {"epochs": 1, "log_every": 100, "checkpoint_every": STEPS},
            "compute": {"threads": 1, "accelerator": "cpu"},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        engine.train(domain, settings, Path(folder))
        return (time.process_time() - began) / STEPS


def main() -> None:
    torch.set_num_threads(1)
    batches = FixedBatches()
    rounds = [(plain(batches), with_engine(batches)) for _ in range(ROUNDS + 1)][1:]
    loop, run = ([1e6 * pair[i] for pair in rounds] for i in (0, 1))
    result = {
        "unit": "µs of CPU a step, one thread, median of rounds",
        "steps": STEPS,
        "rounds": ROUNDS,
        "plain_loop": round(statistics.median(loop), 1),
        "engine": round(statistics.median(run), 1),
        "overhead": round(statistics.median(b - a for a, b in zip(loop, run, strict=True)), 1),
        "overhead_min_max": [
            round(f(b - a for a, b in zip(loop, run, strict=True)), 1) for f in (min, max)
        ],
        "limit": 150,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    print(path.read_text(), end="")


if __name__ == "__main__":
    main()
