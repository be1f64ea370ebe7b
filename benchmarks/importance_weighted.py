"""Time of the importance-weighted log-likelihood against pythae's ``get_nll``.

The same networks with the same weights and data, 5,000 samples for each image, one thread, CPU
time, interleaved rounds in one process. Absolute figures move with the load of the machine; the
ratios inside one run are the claims. pythae takes one image at a time and is measured as it comes,
with 100 samples at a time, and with the 1,000 that suit it better. Ours takes ten images and 100
samples, the fastest of the sizes under ``by_chunk``. The values must agree within their standard
errors. Memory is measured in processes of their own, one for each chunk size. pythae lives in an
environment of its own: ``pip install --no-deps pythae``.

    python benchmarks/importance_weighted.py [images] [rounds]

writes ``importance_weighted.json`` beside itself. Exit status 2 if pythae is missing.
"""

from __future__ import annotations

import functools
import json
import math
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from core.variational.diagnostics import (
    importance_weighted_log_likelihood,
    log_importance_weights,
)
from core.variational.evidence import Evidence, Latent
from core.variational.likelihoods import BernoulliLikelihood
from core.variational.objectives import ELBO
from core.variational.posteriors import DiagonalNormalPosterior
from core.variational.priors import StandardNormal

try:
    import pythae
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
except ModuleNotFoundError as error:
    print(
        f"benchmarks/importance_weighted.py: no {error.name!r}; it compares with pythae; "
        "install: pip install --no-deps pythae",
        file=sys.stderr,
    )
    sys.exit(2)

DATA, HIDDEN, LATENT = 784, 200, 50
SAMPLES, BATCH, CHUNK = 5000, 10, 100
CHUNKS = (10, 100, 1000)
THEIR_CHUNKS = (100, 1000)
OURS = "latentworks"
TARGET = 2.5


class Ours(nn.Module):
    """The plain VAE on the contract."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = body(DATA)
        self.posterior = DiagonalNormalPosterior(HIDDEN, LATENT)
        self.decoder = body(LATENT)
        self.likelihood = BernoulliLikelihood(HIDDEN, DATA)
        self.prior = StandardNormal()

    def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
        """What the model says about a batch of binary vectors."""
        posterior = self.posterior(self.encoder(batch))
        z = posterior.rsample((samples,))
        likelihood = self.likelihood(self.decoder(z))
        return Evidence(
            {"x": likelihood.log_prob(batch)}, [Latent("z", z, posterior, self.prior(posterior))]
        )


class PythaeEncoder(BaseEncoder):
    """The encoder as pythae wants it."""

    def __init__(self, model: Ours) -> None:
        super().__init__()
        self.encoder, self.head = model.encoder, model.posterior.head

    def forward(self, batch: Tensor) -> ModelOutput:
        """Mean and log variance."""
        loc, log_scale = self.head(self.encoder(batch)).chunk(2, -1)
        return ModelOutput(embedding=loc, log_covariance=2 * log_scale)


class PythaeDecoder(BaseDecoder):
    """The decoder as pythae wants it."""

    def __init__(self, model: Ours) -> None:
        super().__init__()
        self.decoder, self.head = model.decoder, model.likelihood.head

    def forward(self, z: Tensor) -> ModelOutput:
        """Probabilities."""
        return ModelOutput(reconstruction=self.head(self.decoder(z)).sigmoid())


@dataclass(frozen=True)
class Result:
    """What one contestant found, and in what time."""

    value: float
    seconds: float


def body(inputs: int) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh()
    )


def patterns(rows: int, seed: int) -> Tensor:
    """Binary images with structure: soft blobs, thresholded at random."""
    generator = torch.Generator().manual_seed(seed)
    centre = 8 + 12 * torch.rand(rows, 2, 1, 1, generator=generator)
    axis = torch.arange(28.0)
    distance = (axis[:, None] - centre[:, 0]).square() + (axis - centre[:, 1]).square()
    return torch.bernoulli(torch.exp(-distance / 30).clamp(0.01, 0.99), generator=generator)


def trained() -> Ours:
    """A model after a few steps: an untrained one has a posterior that fits nothing."""
    torch.manual_seed(0)
    model, objective = Ours(), ELBO()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    data = patterns(2000, 1).flatten(1)
    for step in range(300):
        batch = data[
            torch.randint(len(data), (100,), generator=torch.Generator().manual_seed(step))
        ]
        optimizer.zero_grad()
        objective(model.evidence(batch)).loss.backward()
        optimizer.step()
    return model.eval()


def ours(model: Ours, images: Tensor, seed: int, chunk: int = CHUNK) -> Result:
    """Ours, in batches of ten images."""
    start = time.process_time()
    estimates = [
        importance_weighted_log_likelihood(model, batch, SAMPLES, chunk, seed).log_likelihood
        for batch in images.split(BATCH)
    ]
    return Result(float(torch.cat(estimates).mean()), time.process_time() - start)


def theirs(vae: VAE, images: Tensor, seed: int, chunk: int) -> Result:
    """pythae's, which takes one image after the other."""
    torch.manual_seed(seed)
    start = time.process_time()
    with torch.no_grad():
        value = vae.get_nll(images, n_samples=SAMPLES, batch_size=chunk)
    return Result(float(value), time.process_time() - start)


def their_name(chunk: int) -> str:
    """What a contestant is called."""
    return f"pythae get_nll, {chunk} samples at a time"


def standard_error(model: Ours, images: Tensor) -> float:
    """Of the mean of one run, in nats."""
    estimate = importance_weighted_log_likelihood(model, images, SAMPLES, CHUNK, 99)
    return float(estimate.standard_error.square().sum().sqrt() / len(images))


def peak_of(images: int, chunk: int) -> float:
    """Peak memory above what is there before the weights are drawn, in MiB, in a new process."""
    command = [sys.executable, __file__, "memory", str(images), str(chunk)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def memory(images: int, chunk: int) -> None:
    torch.set_num_threads(1)
    model, data = Ours(), patterns(images, 2).flatten(1)
    log_importance_weights(model, data[:1], 2, 1)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
    before = peak_kib()
    log_importance_weights(model, data, SAMPLES, chunk)
    print((peak_kib() - before) / 1024)


def peak_kib() -> int:
    """Peak memory since it was last forgotten, as Linux tells it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def processor() -> str:
    """The processor's name, as Linux tells it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def main(images: int = 20, rounds: int = 5) -> None:
    """Measure, print the ratio and write the JSON."""
    torch.set_num_threads(1)
    model = trained()
    config = VAEConfig(input_dim=(DATA,), latent_dim=LATENT, reconstruction_loss="bce")
    vae = VAE(config, encoder=PythaeEncoder(model), decoder=PythaeDecoder(model)).eval()
    data = patterns(images, 2).flatten(1)
    contestants: dict[str, Callable[[int], Result]] = {
        OURS: lambda seed: ours(model, data, seed),
        **{
            their_name(chunk): functools.partial(theirs, vae, data, chunk=chunk)
            for chunk in THEIR_CHUNKS
        },
    }
    runs: dict[str, list[Result]] = {name: [] for name in contestants}
    for turn in range(rounds):
        for name in list(contestants)[:: 1 if turn % 2 else -1]:
            runs[name].append(contestants[name](turn))
    chunks = {chunk: [ours(model, data, seed, chunk) for seed in range(3)] for chunk in CHUNKS}
    record = summary(runs, chunks, standard_error(model, data), images, rounds)
    target = Path(__file__).with_suffix(".json")
    target.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record["ratios"]), json.dumps(record["value_nats"]))
    print(f"wrote {target.name}")


def ratio(ours: list[Result], theirs: list[Result]) -> dict[str, object]:
    """How many times faster we are, as the median over rounds, with its target."""
    each = [b.seconds / a.seconds for a, b in zip(ours, theirs, strict=True)]
    median = statistics.median(each)
    return {
        "median": round(median, 3),
        "lowest": round(min(each), 3),
        "highest": round(max(each), 3),
        "target": TARGET,
        "met": median >= TARGET,
        "met_in_every_round": min(each) >= TARGET,
    }


def summary(
    runs: dict[str, list[Result]],
    chunks: dict[int, list[Result]],
    error: float,
    images: int,
    rounds: int,
) -> dict[str, object]:
    """The record of the run."""
    medians = {name: statistics.median(r.seconds for r in found) for name, found in runs.items()}
    rivals = [their_name(chunk) for chunk in THEIR_CHUNKS]
    means = {name: statistics.mean(r.value for r in found) for name, found in runs.items()}
    difference = max(abs(means[OURS] - means[rival]) for rival in rivals)
    allowed = 3 * error * math.sqrt(2 / rounds)
    return {
        "what": "importance-weighted log-likelihood, CPU time, 1 thread, interleaved rounds",
        "network": f"{DATA}-{HIDDEN}-{HIDDEN}-{LATENT}, tanh, Bernoulli",
        "samples": SAMPLES,
        "images_and_samples_at_a_time": [BATCH, CHUNK],
        "images": images,
        "rounds": rounds,
        "ms_per_image": {
            name: round(1000 * seconds / images, 1) for name, seconds in medians.items()
        },
        "ratios": {rival: ratio(runs[OURS], runs[rival]) for rival in rivals},
        "value_nats": means
        | {
            "standard_error_of_a_run": error,
            "difference": difference,
            "allowed": allowed,
            "same_within_3_se": difference <= allowed,
        },
        "by_chunk": {
            str(chunk): {
                "ms_per_image": round(
                    1000 * statistics.median(r.seconds for r in found) / images, 1
                ),
                "peak_memory_mib_of_a_batch": round(peak_of(BATCH, chunk), 1),
            }
            for chunk, found in chunks.items()
        },
        "machine": {"processor": processor(), "system": platform.system(), "threads": 1},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "pythae": version(pythae.__name__),
        },
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        memory(*map(int, sys.argv[2:]))
    else:
        main(*map(int, sys.argv[1:]))
