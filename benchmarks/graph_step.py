"""Time of one epoch of our VGAE reference against PyTorch Geometric's GAE and VGAE.

All do the same work: full-batch GCN encoder (sparse raw features, 32 hidden, 16 latent), weighted
cross-entropy over all pairs, Adam. PyG's decoder has no such loss, so its ``forward_all`` and
``binary_cross_entropy_with_logits`` with ``pos_weight`` stand for it, as in Kipf's own code; its
encoder is given our features as a sparse tensor and a cached normalised adjacency, its fastest
way. One thread, CPU time, interleaved rounds in one process; the ratios are the claim. PyG's own
example samples as many non-links as links instead; that cheaper step is there for orientation.

    python benchmarks/graph_step.py --root FOLDER [--name Cora] [epochs in a round] [rounds]

writes ``graph_step.json`` beside itself. Exit status 2 if torch_geometric is missing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.variational.objectives import ELBO
from domains.graph import data
from domains.graph.config import CONFIG, Config, resolve
from domains.graph.model import build

try:
    from torch_geometric.nn import GAE, VGAE, GCNConv
except ModuleNotFoundError as error:
    print(f"benchmarks/graph_step.py: no {error.name!r}; install it to compare", file=sys.stderr)
    sys.exit(2)


class Encoder(nn.Module):
    """The encoder of PyG's example, with the paper's sizes and without bias."""

    def __init__(self, features: int, variational: bool) -> None:
        super().__init__()
        options = {"cached": True, "bias": False}
        self.first = GCNConv(features, 32, **options)
        self.heads = nn.ModuleList(
            GCNConv(32, 16, **options) for _ in range(2 if variational else 1)
        )

    def forward(self, x: Tensor, edges: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Location, or location and log scale."""
        h = self.first(x, edges).relu()
        out = tuple(head(h, edges) for head in self.heads)
        return out if len(out) > 1 else out[0]


def ours(config: Config, place: Path) -> Callable[[], None]:
    batches = data.batches(config, place, "train")
    model, objective = build(config, place), ELBO()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)

    def step() -> None:
        loss = objective(model.evidence(batches.batch(0, 0))).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def theirs(graph: data.Graph, variational: bool, sampled: bool) -> Callable[[], None]:
    x, nodes = graph.features, len(graph.nodes)
    encoder = Encoder(x.shape[1], variational)
    model = VGAE(encoder) if variational else GAE(encoder)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    target = torch.eye(nodes)
    target[graph.messages[0], graph.messages[1]] = 1
    ones = graph.messages.shape[1]
    weight = torch.tensor((nodes**2 - ones) / ones)
    norm = nodes**2 / (2 * (nodes**2 - ones))

    def step() -> None:
        optimizer.zero_grad()
        z = model.encode(x, graph.messages)
        if sampled:
            loss = model.recon_loss(z, graph.messages)
        else:
            logits = model.decoder.forward_all(z, sigmoid=False)
            loss = norm * functional.binary_cross_entropy_with_logits(
                logits, target, pos_weight=weight
            )
        if variational:
            loss = loss + model.kl_loss() / nodes
        loss.backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", help="folder of the Planetoid files; downloaded if not given")
    parser.add_argument("--name", default="Cora")
    parser.add_argument("epochs", nargs="?", type=int, default=10)
    parser.add_argument("rounds", nargs="?", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    given_data = {"source": "planetoid", "name": given.name, "root": given.root}
    steps: dict[str, Callable[[], None]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("vgae", "gae"):
            tree = {"domain": "graph", "name": "x", "data": given_data, "model": {"kind": kind}}
            config = CONFIG.model_validate(tree)
            data.prepare(config, Path(folder))
            config, _ = resolve(config, len(data.load(Path(folder)).names))
            steps[f"latentworks {kind}"] = ours(config, Path(folder))
        graph = data.batches(config, Path(folder), "train").batch(0, 0)
    steps["PyG VGAE"] = theirs(graph, variational=True, sampled=False)
    steps["PyG GAE"] = theirs(graph, variational=False, sampled=False)
    steps["PyG VGAE, sampled non-links"] = theirs(graph, variational=True, sampled=True)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
        step()
    for _ in range(given.rounds):
        for name, step in steps.items():
            began = time.process_time()
            for _ in range(given.epochs):
                step()
            times[name].append((time.process_time() - began) / given.epochs)
    middle = {name: statistics.median(found) for name, found in times.items()}
    path = Path(__file__).with_suffix(".json")
    results = json.loads(path.read_text()) if path.exists() else {}
    results[given.name] = {
        "cpu_s_per_epoch": {name: round(value, 5) for name, value in middle.items()},
        "vgae_of_pyg": round(middle["latentworks vgae"] / middle["PyG VGAE"], 3),
        "gae_of_pyg": round(middle["latentworks gae"] / middle["PyG GAE"], 3),
        "torch": torch.__version__,
        "torch_geometric": version("torch_geometric"),
    }
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results[given.name], indent=2))


if __name__ == "__main__":
    main()
