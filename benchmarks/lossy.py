"""A decoder of limited receptive field against a factorised one on MNIST (S119).

Same encoder, latent, decoder body and optimiser, one thread; dynamic binarisation. With field 0
the pixels are independent given the latent. That decoder's step costs about a quarter, so it is
measured twice: trained for as many CPU seconds, and for as many steps, as the one that sees its
neighbours. The claims: the KL falls as the field grows and stays above 0, and the negative
log-likelihood is at least 3 nats below the factorised decoder's; `claims` says which hold.
At equal steps it is, by far; at equal CPU seconds it was not in any of four runs of 24 to 35 s,
whose gains were 2.0, 2.4, 0.7 and, recorded here, 2.1 nats.

    python benchmarks/lossy.py --root FOLDER [--seconds 28] [--field 3]

reads ``train-images-idx3-ubyte`` and ``t10k-images-idx3-ubyte``, gzipped or not, from the folder
and writes ``lossy.json`` beside itself. Without a folder there is nothing to measure. Exit status
2 if the files are missing.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.variational.diagnostics import importance_weighted_log_likelihood
from core.variational.evidence import Evidence, Latent
from core.variational.likelihoods import AutoregressiveLikelihood
from core.variational.objectives import ELBO
from core.variational.posteriors import DiagonalNormalPosterior
from core.variational.priors import StandardNormal

HIDDEN, LATENT, CHANNELS, BATCH, LEARNING_RATE = 300, 32, 16, 100, 2e-3
TEST_IMAGES, SAMPLES = 500, 100


class Lossy(nn.Module):
    """784-300-300-32 and back, then a decoder of limited receptive field."""

    def __init__(self, receptive_field: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(784, HIDDEN), nn.ELU(), nn.Linear(HIDDEN, HIDDEN), nn.ELU()
        )
        self.posterior, self.prior = DiagonalNormalPosterior(HIDDEN, LATENT), StandardNormal()
        self.decoder = nn.Sequential(
            nn.Linear(LATENT, HIDDEN), nn.ELU(), nn.Linear(HIDDEN, HIDDEN), nn.ELU()
        )
        self.likelihood = AutoregressiveLikelihood(HIDDEN, (28, 28), receptive_field, CHANNELS)

    def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
        """The log-likelihood of a batch of images, and the latent."""
        posterior = self.posterior(self.encoder(batch))
        z = posterior.rsample((samples,))
        log_prob = self.likelihood(self.decoder(z)).log_prob(batch)
        return Evidence({"x": log_prob}, [Latent("z", z, posterior, self.prior(posterior))])


def images(root: Path, name: str) -> Tensor:
    """Return the grey levels in [0, 1] of an IDX file of images."""
    plain, zipped = root / name, root / f"{name}.gz"
    if not plain.exists() and not zipped.exists():
        print(f"benchmarks/lossy.py: no {name} or {name}.gz in {root}", file=sys.stderr)
        sys.exit(2)
    raw = plain.read_bytes() if plain.exists() else gzip.decompress(zipped.read_bytes())
    count, height, width = (int.from_bytes(raw[at : at + 4], "big") for at in (4, 8, 12))
    pixels = np.frombuffer(raw, np.uint8, offset=16).reshape(count, height, width)
    return torch.from_numpy(pixels.copy()).float() / 255


def trained(
    receptive_field: int, train: Tensor, seconds: float = math.inf, steps: float = math.inf
) -> tuple[Lossy, int, float]:
    """Train for so many CPU seconds or steps, the learning rate falling to 0 by half a cosine."""
    torch.manual_seed(0)
    model, objective, step = Lossy(receptive_field), ELBO(), 0
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    began = time.process_time()
    while (done := max((time.process_time() - began) / seconds, step / steps)) < 1:
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * done))
        batch = torch.bernoulli(train[torch.randint(len(train), (BATCH,))])
        optimizer.zero_grad()
        objective(model.evidence(batch)).loss.backward()
        optimizer.step()
        step += 1
    return model.eval(), step, time.process_time() - began


def measured(test: Tensor, model: Lossy, steps: int, seconds: float) -> dict[str, Any]:
    with torch.no_grad():
        loss = ELBO()(model.evidence(test, samples=5))
    found = importance_weighted_log_likelihood(model, test, samples=SAMPLES, chunk=10)
    return {
        "steps": steps,
        "training_cpu_s": seconds,
        "negative_elbo_nats": -float(loss.value),
        "kl_nats": float(loss.terms["kl/z"]),
        "nll": -found.log_likelihood,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, help="folder of the IDX files")
    parser.add_argument("--seconds", type=float, default=28, help="CPU seconds of a training")
    parser.add_argument("--field", type=int, default=3)
    given = parser.parse_args()
    if given.root is None:
        print("benchmarks/lossy.py: not measured; give the folder of MNIST's files as --root")
        return
    torch.set_num_threads(1)
    began = time.process_time()
    train = images(given.root, "train-images-idx3-ubyte")
    test = images(given.root, "t10k-images-idx3-ubyte")
    generator = torch.Generator().manual_seed(0)
    seeded = test[torch.randperm(len(test), generator=generator)[:TEST_IMAGES]]
    seeded = torch.bernoulli(seeded, generator=generator)
    lossy = measured(seeded, *trained(given.field, train, given.seconds))
    found = {
        f"field {given.field}": lossy,
        "field 0, equal CPU seconds": measured(seeded, *trained(0, train, given.seconds)),
        "field 0, equal steps": measured(seeded, *trained(0, train, steps=lossy["steps"])),
    }
    nll = lossy["nll"]
    for figures in found.values():
        other = figures.pop("nll")
        above = other - nll
        figures["nll_nats"] = float(other.mean())
        figures["nll_standard_error"] = float(other.std() / len(other) ** 0.5)
        figures["nll_above_lossy_nats"] = float(above.mean())
        figures["nll_above_lossy_standard_error"] = float(above.std() / len(above) ** 0.5)
    factorised = {name: figures for name, figures in found.items() if figures is not lossy}
    claims = {
        f"kl below {name}": f["kl_nats"] > lossy["kl_nats"] for name, f in factorised.items()
    }
    claims["kl above 0"] = lossy["kl_nats"] > 0.1
    for name, figures in factorised.items():
        claims[f"nll 3 nats below {name}"] = figures["nll_above_lossy_nats"] >= 3
    report = {
        "what": "a decoder of limited receptive field against a factorised one, dynamic MNIST",
        "network": f"784-{HIDDEN}-{HIDDEN}-{LATENT}, {CHANNELS} channels, batch {BATCH}",
        "test": f"{TEST_IMAGES} seeded test images, {SAMPLES} importance samples",
        "cpu_s": round(time.process_time() - began, 1),
        "machine": {"processor": platform.processor() or platform.machine(), "threads": 1},
        "torch": torch.__version__,
        "results": {
            name: {key: round(value, 3) for key, value in figures.items()}
            for name, figures in found.items()
        },
        "claims": claims,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
