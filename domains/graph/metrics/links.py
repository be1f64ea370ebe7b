"""The metrics of a run: each with its number of examples, interval, protocol and floors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.contract import Metric
from core.runtime.statistics import bootstrap_interval
from domains.graph.config import Config
from domains.graph.data import Dataset, Graph, LinkBatches, corruptions, generator, load
from domains.graph.metrics import calibration as calibrating
from domains.graph.metrics.calibration import Calibration
from domains.graph.metrics.floors import Floor, floors
from domains.graph.metrics.probe import probe
from domains.graph.metrics.ranking import Array, Order, mean, ranks, require_few_ties
from domains.graph.model import LinkModel

Pairs = NDArray[np.int64]
CORRUPTIONS = 500
MOST_RANKED = 2000  # test links
RANKING = "Links among non-links"
HARD = "Against harder non-links"
CORRUPTED = "Rank of the true end among 500 others"
HONEST = "Honesty of the probabilities"


@dataclass(frozen=True, eq=False)
class Scored:
    """Pairs with their scores in one array, links first.

    Args:
        pairs: ``(2, pair)``.
        labels: 1 for a link, 0 for none.
        logits: The model's, float64.
    """

    pairs: Pairs
    labels: Array
    logits: Array


def scored(model: LinkModel, graph: Graph, edges: Pairs, non_edges: Pairs) -> Scored:
    """Score links and non-links together."""
    pairs = np.concatenate([edges, non_edges], axis=1)
    labels = np.repeat([1.0, 0.0], [edges.shape[1], non_edges.shape[1]])
    device = next(model.parameters()).device
    logits = model.score(graph.to(device), torch.from_numpy(pairs).to(device))
    return Scored(pairs, labels, logits)


def observed(config: Config, dataset: Dataset) -> Graph:
    """The graph as it is after training: messages pass along the train links and no others."""
    return LinkBatches(dataset, "valid", config.seed, 0.0, 1, None, 1).batch(0, 0)


def held_out(config: Config, dataset: Dataset, model: LinkModel) -> Scored:
    """The validation links and as many uniform non-links, scored."""
    split = dataset.split
    return scored(model, observed(config, dataset), split.valid, split.valid_non_edges)


def validate(config: Config, folder: Path, model: LinkModel) -> dict[str, float]:
    """AUC and average precision on the validation links and as many non-links, and their sum."""
    found = held_out(config, load(folder), model)
    order = Order(found.labels, found.logits)
    auc, precision = float(order.area_under_curve()), float(order.average_precision())
    return {"auc": auc, "average_precision": precision, "auc_plus_ap": auc + precision}


def calibrated(config: Config, dataset: Dataset, model: LinkModel) -> Calibration:
    """Logits → probabilities, with temperature and bias from the validation split."""
    found = held_out(config, dataset, model)
    return calibrating.fit(found.labels, found.logits)


def calibration(config: Config, folder: Path, model: LinkModel) -> Calibration:
    """The same for a folder of prepared data."""
    return calibrated(config, load(folder), model)


def metrics(config: Config, folder: Path, model: LinkModel) -> dict[str, Metric]:
    """Everything that is reported of the test links.

    Raises:
        RunFailed: If the scores tie so much that a ranking means nothing.
    """
    dataset = load(folder)
    split, untrained, graph = dataset.split, floors(dataset), observed(config, dataset)
    look = _Look(config, dataset, model, graph, untrained)
    uniform = scored(model, graph, split.test, split.test_non_edges)
    require_few_ties(uniform.logits, "test links and non-links")
    others = {name: floor.pairs(uniform.pairs) for name, floor in untrained.items()}
    found = rank(uniform, others, config.evaluation.bootstrap, config.seed)
    found |= look.hard("degree_matched", split.test_degree_matched, "as popular as linked nodes")
    found |= look.hard("two_hop", split.test_two_hop, "with a common neighbour")
    found |= look.corrupted()
    found |= look.honesty(uniform)
    if dataset.labels is not None:
        device = next(model.parameters()).device
        embedding = model.embed(graph.to(device)).double().cpu().numpy()
        found |= probe(dataset, embedding, config.evaluation.bootstrap, config.seed)
    return found


def ranking_metrics(
    positive: Array, negative: Array, resamples: int, seed: int
) -> dict[str, Metric]:
    """AUC and average precision of the logits of given links and of uniform non-links."""
    logits = np.concatenate([positive, negative])
    labels = np.repeat([1.0, 0.0], [len(positive), len(negative)])
    require_few_ties(logits, "links and non-links")
    return rank(Scored(np.zeros((2, 0), dtype=np.int64), labels, logits), {}, resamples, seed)


def rank(
    found: Scored, others: Mapping[str, Array], resamples: int, seed: int
) -> dict[str, Metric]:
    """AUC and average precision of links among uniform non-links."""
    order = Order(found.labels, found.logits)
    rest = {name: Order(found.labels, scores) for name, scores in others.items()}
    statistics: dict[str, Callable[..., Any]] = {
        "auc": Order.area_under_curve,
        "average_precision": Order.average_precision,
    }
    return {
        name: Metric(
            value=float(statistic(order)),
            unit="",
            direction="higher",
            n=len(found.labels),
            interval=order.interval(partial(statistic, order), resamples, seed),
            method=f"uniform non-links 1:1, bootstrap {resamples:,} over pairs",
            floors={other: float(statistic(its)) for other, its in rest.items()},
            ceiling=1.0,
            primary=name == "auc",
            group=RANKING,
        )
        for name, statistic in statistics.items()
    }


@dataclass(frozen=True, eq=False)
class _Look:
    """A model's metrics on one test split."""

    config: Config
    dataset: Dataset
    model: LinkModel
    graph: Graph
    floors: Mapping[str, Floor]

    @property
    def resamples(self) -> int:
        return self.config.evaluation.bootstrap

    def hard(self, name: str, non_edges: Pairs, words: str) -> dict[str, Metric]:
        if not non_edges.shape[1]:
            return {}
        found = scored(self.model, self.graph, self.dataset.split.test, non_edges)
        order = Order(found.labels, found.logits)
        others = {
            other: float(Order(found.labels, floor.pairs(found.pairs)).area_under_curve())
            for other, floor in self.floors.items()
        }
        return {
            f"auc_{name}": Metric(
                value=float(order.area_under_curve()),
                unit="",
                direction="higher",
                n=len(found.labels),
                interval=order.interval(order.area_under_curve, self.resamples, self.config.seed),
                method=f"non-links {words}, bootstrap {self.resamples:,} over pairs",
                floors=others,
                ceiling=1.0,
                group=HARD,
            )
        }

    def corrupted(self) -> dict[str, Metric]:
        split, seed = self.dataset.split, self.config.seed
        chosen = generator(seed, "ranked").permutation(split.test.shape[1])[:MOST_RANKED]
        test = split.test[:, np.sort(chosen)]
        both = np.concatenate([test, test[::-1]], axis=1)
        targets = corruptions(self.dataset, both, CORRUPTIONS, seed)
        kept = np.tile((targets >= 0).all(axis=1).reshape(2, -1).all(axis=0), 2)
        both, targets = both[:, kept], targets[kept]
        if not both.size:
            return {}
        device = next(self.model.parameters()).device
        graph = self.graph.to(device)

        def own(pairs: Pairs) -> Array:
            return self.model.score(graph, torch.from_numpy(pairs).to(device))

        ranked = _ranks(own, both, targets)
        untrained = {name: _ranks(f.pairs, both, targets) for name, f in self.floors.items()}
        found = {"mrr": self._rank_metric(lambda r: 1 / r, ranked, untrained)}
        for k in (1, 10, 50):
            found[f"hits_at_{k}"] = self._rank_metric(
                lambda r, k=k: (r <= k).astype(np.float64), ranked, untrained
            )
        return found

    def _rank_metric(
        self, gain: Callable[[Array], Array], own: Array, untrained: Mapping[str, Array]
    ) -> Metric:
        def per_link(found: Array) -> Array:
            return gain(found).reshape(2, -1).mean(axis=0)

        gains, bootstrap = per_link(own), self.resamples
        return Metric(
            value=float(gains.mean()),
            unit="",
            direction="higher",
            n=len(gains),
            interval=bootstrap_interval(mean, gains, resamples=bootstrap, seed=self.config.seed),
            method=f"each end among {CORRUPTIONS} uniform non-neighbours of the other, "
            f"{MOST_RANKED:,} links at most, ties count half, bootstrap {bootstrap:,} over links",
            floors={name: float(per_link(found).mean()) for name, found in untrained.items()},
            ceiling=1.0,
            group=CORRUPTED,
        )

    def honesty(self, found: Scored) -> dict[str, Metric]:
        valid = held_out(self.config, self.dataset, self.model)
        fitted = calibrating.fit(valid.labels, valid.logits)
        own = fitted(found.logits)
        said = {
            name: calibrating.fit(valid.labels, floor.pairs(valid.pairs))(floor.pairs(found.pairs))
            for name, floor in self.floors.items()
        }
        squares = (found.labels - own) ** 2
        bootstrap, seed = self.resamples, self.config.seed
        n, method = len(own), "temperature and bias fitted on validation, uniform non-links 1:1"
        error = calibrating.expected_calibration_error
        return {
            "brier": Metric(
                value=float(squares.mean()),
                unit="",
                direction="lower",
                n=n,
                interval=bootstrap_interval(mean, squares, resamples=bootstrap, seed=seed),
                method=f"{method}, bootstrap {bootstrap:,} over pairs; 0.25 is a coin",
                floors={k: calibrating.brier(found.labels, p) for k, p in said.items()},
                ceiling=0.0,
                group=HONEST,
            ),
            "calibration_error": Metric(
                value=error(found.labels, own),
                unit="",
                direction="lower",
                n=n,
                method=f"{method}; {calibrating.BINS} bins of equally many pairs",
                floors={k: error(found.labels, p) for k, p in said.items()},
                ceiling=0.0,
                group=HONEST,
            ),
            "temperature": Metric(
                value=fitted.temperature,
                unit="",
                direction="none",
                n=len(valid.labels),
                method="fitted on validation; above 1 the model was too sure of itself",
                group=HONEST,
            ),
        }


def _ranks(score: Callable[[Pairs], Array], both: Pairs, targets: Pairs) -> Array:
    """The rank of each link's target among its corruptions."""
    source = np.repeat(both[0], CORRUPTIONS)
    corrupted = score(np.stack([source, targets.ravel()])).reshape(targets.shape)
    return ranks(score(both), corrupted)
