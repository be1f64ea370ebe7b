"""What flow posteriors cost and how exact they are, kind by kind.

One thread, CPU time, interleaved rounds in one process. Absolute figures move with the load of the
machine; the ratios inside one run are the claims:

* a rational-quadratic spline coupling flow draws samples and knows their log density for at most 3
  times what an affine coupling flow takes, with 100 vectors in a batch; with 1000 long ones it
  does not (the JSON says by how much): its network has 11 outputs a number to the affine's 2;
  splines in an autoregressive flow are refused where they would be drawn from by its inverse;
* the fast path gradient takes at most 1.6 times the reparameterised one.

    python benchmarks/flow_posterior.py [rounds]

writes ``flow_posterior.json`` beside itself. Exit status 1 if a claim does not hold.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.variational.distributions import stop_gradient
from core.variational.flows import FLOWS, FlowDistribution
from core.variational.posteriors import FlowPosterior

FEATURES, CONTEXT, LAYERS, HIDDEN = 32, 16, 4, (64, 64)
SIZES = [(8, 100), (40, 100), (40, 1000)]  # latent, batch
SPLINE_TARGET, PATH_TARGET = 3.0, 1.6
COUPLING = ["nice", "realnvp", "nsf"]
PATH_KINDS = ["realnvp", "nsf", "planar", "radial", "sylvester"]
PATH_WIDTHS = {"(64, 64)": (64, 64), "(256, 256)": (256, 256)}


def posterior(kind: str, latent: int, hidden: tuple[int, ...] = HIDDEN) -> FlowPosterior:
    """A flow posterior of one kind, the same from call to call."""
    torch.manual_seed(0)
    return FlowPosterior(FEATURES, latent, kind, LAYERS, CONTEXT, hidden, allow_slow=True)


def draw(head: FlowPosterior, features: Tensor) -> tuple[FlowDistribution, Tensor, Tensor]:
    """Sample once and know the log density."""
    q = head(features)
    z = q.rsample()
    return q, z, q.log_prob(z)


def sampling(head: FlowPosterior, features: Tensor) -> None:
    """Sampling and log density, nothing recorded."""
    with torch.no_grad():
        draw(head, features)


def training(head: FlowPosterior, features: Tensor) -> None:
    """The reparameterised gradient of E[log q(z) - log p(z)] for a standard Normal p."""
    _, z, log_prob = draw(head, features)
    (log_prob + 0.5 * z.square().sum(-1)).mean().backward()


def path(head: FlowPosterior, features: Tensor) -> None:
    """The path gradient of the same, in one pass."""
    q = head(features)
    z = q.rsample()
    (stop_gradient(q).log_prob(z) + 0.5 * z.square().sum(-1)).mean().backward()


def path_by_inverse(head: FlowPosterior, features: Tensor) -> None:
    """The path gradient of the same as it is usually had: through the inverse."""
    q = head(features)
    z = q.rsample()
    q._last = None
    (stop_gradient(q).log_prob(z) + 0.5 * z.square().sum(-1)).mean().backward()


def density(head: FlowPosterior, features: Tensor) -> None:
    """The log density of values from elsewhere, nothing recorded."""
    with torch.no_grad():
        q = head(features)
        q.log_prob(torch.zeros(len(features), q.event_shape[-1]))


Case = tuple[Callable[[FlowPosterior, Tensor], None], FlowPosterior, Tensor]


def interleaved(cases: dict[str, Case], rounds: int) -> dict[str, list[float]]:
    """CPU milliseconds of each case, in turns."""
    spent: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(-2, rounds):  # the first two warm up
        for name, (work, head, features) in cases.items():
            start = time.process_time()
            for _ in range(2):
                work(head, features)
            if turn >= 0:
                spent[name].append(1e3 * (time.process_time() - start) / 2)
    return spent


def ratio(spent: dict[str, list[float]], above: str, below: str) -> float:
    """Median over rounds of one case's time over another's."""
    pairs = zip(spent[above], spent[below], strict=True)
    return round(statistics.median(a / b for a, b in pairs), 3)


def medians(spent: dict[str, list[float]]) -> dict[str, float]:
    """Median milliseconds of each case."""
    return {name: round(statistics.median(each), 3) for name, each in spent.items()}


def costs(rounds: int) -> list[dict[str, Any]]:
    """Every kind's sampling, training and density, and the coupling kinds against each other."""
    table: list[dict[str, Any]] = []
    for latent, batch in SIZES:
        features = torch.randn(batch, FEATURES)
        heads = {kind: posterior(kind, latent) for kind in FLOWS}
        for name, work in (("sample", sampling), ("train", training), ("density", density)):
            kinds = [k for k in FLOWS if name != "train" or "sample" in FLOWS[k].fast]
            if batch > 100:
                kinds = COUPLING
            spent = interleaved({k: (work, heads[k], features) for k in kinds}, rounds)
            row: dict[str, Any] = {"latent": latent, "batch": batch, "what": name}
            row |= {"ms": medians(spent), "nsf_over_realnvp": ratio(spent, "nsf", "realnvp")}
            table.append(row)
    return table


def path_costs(rounds: int) -> list[dict[str, Any]]:
    """The fast path gradient against the reparameterised one, and against the inverse."""
    table: list[dict[str, Any]] = []
    for latent, batch in SIZES:
        features = torch.randn(batch, FEATURES)
        for kind in PATH_KINDS:
            for widths, hidden in PATH_WIDTHS.items():
                if kind not in COUPLING and hidden != HIDDEN:
                    continue
                head = posterior(kind, latent, hidden)
                cases: dict[str, Case] = {
                    "reparameterised": (training, head, features),
                    "path": (path, head, features),
                    "path through the inverse": (path_by_inverse, head, features),
                }
                spent = interleaved(cases, max(rounds // 2, 3))
                table.append(
                    {
                        "latent": latent,
                        "batch": batch,
                        "kind": kind,
                        "hidden": widths,
                        "ms": medians(spent),
                        "path_over_reparameterised": ratio(spent, "path", "reparameterised"),
                        "inverse_over_reparameterised": ratio(
                            spent, "path through the inverse", "reparameterised"
                        ),
                    }
                )
    return table


def errors(kind: str, dtype: torch.dtype) -> dict[str, float]:
    """How far the inverse is from the noise, and the log-determinant from autograd's."""
    latent, batch = 8, 50
    head = posterior(kind, latent).to(dtype)
    q = head(torch.randn(batch, FEATURES, dtype=dtype))
    z = q.rsample()
    noise = z.detach()
    for bijection in reversed(q.bijections):
        noise, _ = bijection.inverse(noise)
    one = FlowDistribution(q.base, q.flow, q.context[:1])

    def forward(u: Tensor) -> Tensor:
        for bijection in one.bijections:
            u = bijection.forward(u).value
        return u

    jacobian = torch.autograd.functional.jacobian(
        lambda u: forward(u.unsqueeze(0)).squeeze(0), q._last.noise[0].detach()
    )
    log_det = sum(each[0] for each in q._last.log_dets)
    difference = q.log_prob(z) - q.log_prob(z.detach())
    return {
        "inverse": float((noise - q._last.noise).detach().abs().max()),
        "log_det": float((torch.linalg.slogdet(jacobian)[1] - log_det).detach().abs()),
        "log_prob_of_sample_nats": float(difference.detach().abs().max()),
    }


def claim(
    table: list[dict[str, Any]], column: str, target: float, of: Callable[[dict[str, Any]], bool]
) -> dict[str, object]:
    """The worst of some rows against a target."""
    worst = max(float(row[column]) for row in table if of(row))
    return {"value": worst, "target": target, "met": worst <= target}


def main(rounds: int = 9) -> int:
    """Measure, print and write the JSON."""
    torch.set_num_threads(1)
    exactness = {
        kind: {str(dtype)[6:]: errors(kind, dtype) for dtype in (torch.float32, torch.float64)}
        for kind in FLOWS
    }
    costs_table, path_table = costs(rounds), path_costs(rounds)
    claims = {
        "nsf / realnvp, 100 vectors, worst of sampling and training": claim(
            costs_table,
            "nsf_over_realnvp",
            SPLINE_TARGET,
            lambda row: row["what"] != "density" and row["batch"] == 100,
        ),
        "path / reparameterised, all but splines, worst": claim(
            path_table, "path_over_reparameterised", PATH_TARGET, lambda row: row["kind"] != "nsf"
        ),
        "path / reparameterised, splines, worst": claim(
            path_table, "path_over_reparameterised", PATH_TARGET, lambda row: row["kind"] == "nsf"
        ),
    }
    limits = {
        "nsf / realnvp, 1000 vectors of 40, worst of sampling and training": claim(
            costs_table,
            "nsf_over_realnvp",
            SPLINE_TARGET,
            lambda row: row["what"] != "density" and row["batch"] == 1000,
        ),
    }
    record = {
        "what": "flow posteriors: CPU milliseconds, 1 thread, interleaved rounds in one process",
        "layers": LAYERS,
        "hidden": HIDDEN,
        "context": CONTEXT,
        "features": FEATURES,
        "rounds": rounds,
        "machine": {"processor": platform.processor() or platform.machine(), "threads": 1},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "zuko": version("zuko"),
        },
        "claims": claims,
        "not_claimed": limits,
        "errors": exactness,
        "costs": costs_table,
        "path_gradient": path_table,
    }
    target = Path(__file__).with_suffix(".json")
    target.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps({"claims": claims, "not claimed": limits}, indent=2))
    for row in [*costs_table, *path_table]:
        print(json.dumps(row))
    print(f"wrote {target.name}")
    return 0 if all(claim["met"] for claim in claims.values()) else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
