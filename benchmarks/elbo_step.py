"""Time of one ELBO training step against hand-written torch, pythae and Pyro.

Same networks, data and optimiser for everybody, one thread, CPU time, interleaved rounds in one
process. Absolute figures move with the load of the machine; the ratios inside one run are the
claims. Pyro is measured as its users run it (``SVI.step``, validation off; the claim is against
the faster of two losses) and, beside it, by differentiating its loss directly, which leaves out
its parameter store and its optimisers. The peers live in an environment of their own:
``pip install --no-deps pythae pyro-ppl pyro-api opt_einsum``.

    python benchmarks/elbo_step.py [steps in a round] [rounds]

writes ``elbo_step.json`` beside itself. Exit status 2 if a peer is missing.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.variational.distributions import LogitsBernoulli
from core.variational.evidence import Evidence, Latent, per_draw
from core.variational.objectives import ELBO
from core.variational.posteriors import DiagonalNormalPosterior
from core.variational.priors import StandardNormal

try:
    import pyro
    import pyro.optim
    import pythae
    from pyro import distributions as pyro_distributions
    from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
except ModuleNotFoundError as error:
    print(
        f"benchmarks/elbo_step.py: no {error.name!r}; it compares with pythae and pyro; "
        "install: pip install --no-deps pythae pyro-ppl pyro-api opt_einsum",
        file=sys.stderr,
    )
    sys.exit(2)

OURS, HAND = "latentworks", "hand-written torch"
PYTHAE = "pythae VAE.forward"
SVI_PEERS = ["pyro SVI TraceMeanField_ELBO", "pyro SVI Trace_ELBO"]
DIRECT_PEERS = ["pyro loss TraceMeanField_ELBO", "pyro loss Trace_ELBO"]


@dataclass(frozen=True)
class Size:
    """One network: encoder data-hidden-hidden-2×latent, decoder the mirror image, tanh."""

    data: int
    hidden: int
    latent: int
    batch: int

    @property
    def name(self) -> str:
        """The sizes in the order of the literature."""
        return f"{self.data}-{self.hidden}-{self.hidden}-{self.latent}, batch {self.batch}"


SIZES = [Size(784, 200, 50, 100), Size(64, 64, 8, 64)]
TARGETS = {PYTHAE: 1.10, "fastest pyro SVI": 1.30}  # for the first size


def body(inputs: int, hidden: int) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh()
    )


class Ours(nn.Module):
    """The plain VAE on the contract."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.encoder = body(size.data, size.hidden)
        self.posterior = DiagonalNormalPosterior(size.hidden, size.latent)
        output = nn.Linear(size.hidden, size.data)
        self.decoder = nn.Sequential(*body(size.latent, size.hidden), output)
        self.prior = StandardNormal()
        self.objective = ELBO()

    def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
        """What the model says about a batch of binary vectors."""
        posterior = self.posterior(self.encoder(batch))
        z = posterior.rsample((samples,))
        likelihood = LogitsBernoulli(per_draw(self.decoder, z))
        return Evidence(
            {"x": likelihood.log_prob(batch)}, [Latent("z", z, posterior, self.prior(posterior))]
        )

    def forward(self, batch: Tensor) -> Tensor:
        """Loss in nats per example."""
        return self.objective(self.evidence(batch)).loss


class Plain(nn.Module):
    """The networks alone, as the others use them."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.encoder = body(size.data, size.hidden)
        self.to_latent = nn.Linear(size.hidden, 2 * size.latent)
        self.decoder = body(size.latent, size.hidden)
        self.to_data = nn.Linear(size.hidden, size.data)


class HandWritten(Plain):
    """What one writes without a library."""

    def forward(self, batch: Tensor) -> Tensor:
        """Loss in nats per example."""
        loc, log_scale = self.to_latent(self.encoder(batch)).chunk(2, -1)
        scale = log_scale.exp()
        logits = self.to_data(self.decoder(loc + torch.randn_like(scale) * scale))
        distortion = functional.binary_cross_entropy_with_logits(logits, batch, reduction="sum")
        rate = (0.5 * (loc.square() + scale.square() - 1) - log_scale).sum()
        return (distortion + rate) / len(batch)


class Pythae(nn.Module):
    """pythae's VAE with the same networks; its cross-entropy takes probabilities."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        config = VAEConfig(
            input_dim=(size.data,), latent_dim=size.latent, reconstruction_loss="bce"
        )
        plain = Plain(size)
        self.vae = VAE(config, encoder=PythaeEncoder(plain), decoder=PythaeDecoder(plain))

    def forward(self, batch: Tensor) -> Tensor:
        """Loss in nats per example."""
        return self.vae({"data": batch}).loss


class PythaeEncoder(BaseEncoder):
    """The encoder as pythae wants it."""

    def __init__(self, plain: Plain) -> None:
        super().__init__()
        self.encoder, self.to_latent = plain.encoder, plain.to_latent

    def forward(self, batch: Tensor) -> ModelOutput:
        """Mean and log variance."""
        loc, log_variance = self.to_latent(self.encoder(batch)).chunk(2, -1)
        return ModelOutput(embedding=loc, log_covariance=log_variance)


class PythaeDecoder(BaseDecoder):
    """The decoder as pythae wants it."""

    def __init__(self, plain: Plain) -> None:
        super().__init__()
        self.decoder, self.to_data = plain.decoder, plain.to_data

    def forward(self, z: Tensor) -> ModelOutput:
        """Probabilities."""
        return ModelOutput(reconstruction=self.to_data(self.decoder(z)).sigmoid())


class Pyro(Plain):
    """A Pyro model and guide, its loss differentiated directly."""

    def __init__(self, size: Size, elbo: Trace_ELBO) -> None:
        super().__init__(size)
        self.elbo, self.latent = elbo, size.latent

    def model(self, batch: Tensor) -> None:
        """The generative model."""
        with pyro.plate("data", len(batch)):
            prior = pyro_distributions.Normal(
                batch.new_zeros(len(batch), self.latent), batch.new_ones(len(batch), self.latent)
            )
            z = pyro.sample("z", prior.to_event(1))
            logits = self.to_data(self.decoder(z))
            likelihood = pyro_distributions.Bernoulli(logits=logits).to_event(1)
            pyro.sample("x", likelihood, obs=batch)

    def guide(self, batch: Tensor) -> None:
        """The posterior."""
        with pyro.plate("data", len(batch)):
            loc, log_scale = self.to_latent(self.encoder(batch)).chunk(2, -1)
            posterior = pyro_distributions.Normal(loc, log_scale.exp())
            pyro.sample("z", posterior.to_event(1))

    def forward(self, batch: Tensor) -> Tensor:
        """Loss in nats per example."""
        return self.elbo.differentiable_loss(self.model, self.guide, batch) / len(batch)


class Registered(Pyro):
    """The same, with its networks known to Pyro's parameter store, as SVI needs them."""

    def model(self, batch: Tensor) -> None:
        """The generative model."""
        pyro.module("decoder", self.decoder)
        pyro.module("to_data", self.to_data)
        super().model(batch)

    def guide(self, batch: Tensor) -> None:
        """The posterior."""
        pyro.module("encoder", self.encoder)
        pyro.module("to_latent", self.to_latent)
        super().guide(batch)


class Run:
    """One contestant in training."""

    def __init__(self, build: Callable[[Size], nn.Module], size: Size, fused: bool) -> None:
        torch.manual_seed(0)
        self.model = build(size)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=fused)

    def step(self, batch: Tensor) -> None:
        """Train on one batch."""
        self.optimizer.zero_grad(set_to_none=True)
        self.model(batch).backward()
        self.optimizer.step()

    def steps(self, batches: list[Tensor]) -> float:
        """Train on the batches and return the CPU seconds of it."""
        start = time.process_time()
        for batch in batches:
            self.step(batch)
        return time.process_time() - start


class SVIRun(Run):
    """One contestant in training through Pyro's SVI."""

    def __init__(self, build: Callable[[Size], nn.Module], size: Size, fused: bool) -> None:
        super().__init__(build, size, fused)
        self.store = pyro.get_param_store().get_state()
        optimizer = pyro.optim.PyroOptim(torch.optim.Adam, {"lr": 1e-3, "fused": fused})
        self.svi = SVI(self.model.model, self.model.guide, optimizer, loss=self.model.elbo)

    def step(self, batch: Tensor) -> None:
        """Train on one batch."""
        self.svi.step(batch)

    def steps(self, batches: list[Tensor]) -> float:
        """Train with a parameter store of its own: the names of the two SVIs are the same."""
        pyro.get_param_store().set_state(self.store)
        spent = super().steps(batches)
        self.store = pyro.get_param_store().get_state()
        return spent


CONTESTANTS: dict[str, tuple[type[Run], Callable[[Size], nn.Module]]] = {
    OURS: (Run, Ours),
    HAND: (Run, HandWritten),
    PYTHAE: (Run, Pythae),
    SVI_PEERS[0]: (SVIRun, lambda size: Registered(size, TraceMeanField_ELBO())),
    SVI_PEERS[1]: (SVIRun, lambda size: Registered(size, Trace_ELBO())),
    DIRECT_PEERS[0]: (Run, lambda size: Pyro(size, TraceMeanField_ELBO())),
    DIRECT_PEERS[1]: (Run, lambda size: Pyro(size, Trace_ELBO())),
}


def first_loss(run: Run, batches: list[Tensor]) -> float:
    """Mean loss before training: everybody must compute the same thing."""
    with torch.no_grad():
        return float(torch.stack([run.model(batch) for batch in batches]).mean())


def compare(size: Size, fused: bool, steps: int, rounds: int) -> dict[str, object]:
    """Time everybody on one size, in turns."""
    generator = torch.Generator().manual_seed(1)
    shape = (steps, size.batch, size.data)
    batches = list(torch.bernoulli(torch.full(shape, 0.3), generator=generator))
    pyro.clear_param_store()
    runs = {name: run(build, size, fused) for name, (run, build) in CONTESTANTS.items()}
    losses = {name: first_loss(run, batches) for name, run in runs.items()}
    spread = max(losses.values()) - min(losses.values())
    if spread > 0.02 * losses[HAND]:
        raise RuntimeError(f"the contestants compute different things: {losses}")
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(-1, rounds):  # the first round warms up and is not counted
        names = list(runs)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            spent = runs[name].steps(batches)
            if turn >= 0:
                seconds[name].append(spent)
    return {
        "size": size.name,
        "optimiser": f"Adam(lr=1e-3, fused={fused})",
        "loss_before_training_nats": losses,
        "steps_per_cpu_second": {
            name: round(steps / statistics.median(spent), 1) for name, spent in seconds.items()
        },
        "ratios": ratios(seconds, size),
    }


def ratios(seconds: dict[str, list[float]], size: Size) -> dict[str, object]:
    """How many times faster we are, as the median over rounds, with its targets."""
    medians = {name: statistics.median(spent) for name, spent in seconds.items()}
    rivals = {
        HAND: HAND,
        PYTHAE: PYTHAE,
        "fastest pyro SVI": min(SVI_PEERS, key=medians.__getitem__),
        "fastest pyro loss": min(DIRECT_PEERS, key=medians.__getitem__),
    }
    table: dict[str, object] = {}
    for label, rival in rivals.items():
        each = [theirs / ours for theirs, ours in zip(seconds[rival], seconds[OURS], strict=True)]
        median = statistics.median(each)
        row = {
            "against": rival,
            "median": round(median, 3),
            "lowest": round(min(each), 3),
            "highest": round(max(each), 3),
        }
        if size == SIZES[0] and label in TARGETS:
            row |= {"target": TARGETS[label], "met": median >= TARGETS[label]}
        table[label] = row
    return table


def processor() -> str:
    """The processor's name, as Linux tells it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def main(steps: int = 60, rounds: int = 9) -> None:
    """Measure, print the ratios and write the JSON."""
    torch.set_num_threads(1)
    pyro.enable_validation(False)  # after the imports, each of which sets the global switch
    torch.distributions.Distribution.set_default_validate_args(False)
    cases = [(size, fused) for size in SIZES for fused in (True, False)]
    results = [compare(size, fused, steps, rounds) for size, fused in cases]
    record = {
        "what": "ELBO training step, CPU time, 1 thread, interleaved rounds in one process",
        "steps_per_round": steps,
        "rounds": rounds,
        "validation_of_arguments": "off for everybody",
        "sizes": [asdict(size) for size in SIZES],
        "machine": {"processor": processor(), "system": platform.system(), "threads": 1},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "pythae": version(pythae.__name__),
            "pyro-ppl": pyro.__version__,
        },
        "results": results,
    }
    target = Path(__file__).with_suffix(".json")
    target.write_text(json.dumps(record, indent=2) + "\n")
    for result in results:
        print(result["size"], result["optimiser"], json.dumps(result["steps_per_cpu_second"]))
        print("  ", json.dumps(result["ratios"]))
    print(f"wrote {target.name}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
