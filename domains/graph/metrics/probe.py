"""What the latents know of the labels: a linear classifier on top of them."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from core.contract import Metric
from core.runtime.statistics import bootstrap_interval
from domains.graph.data import Dataset, generator
from domains.graph.metrics.floors import Matrix, propagated_features
from domains.graph.metrics.ranking import mean

Array = NDArray[np.float64]
MOST_NODES = 5000


def probe(dataset: Dataset, embedding: Array, resamples: int, seed: int) -> dict[str, Metric]:
    """Accuracy of a multinomial logistic regression from the latents to the labels.

    A random half of the labelled nodes (5,000 at most) is learned from, the other half tested on.
    Labels were not used in any other place. The floors are the most frequent class and the same
    classifier on the untrained propagated features.
    """
    labels = dataset.labels
    assert labels is not None
    known = np.flatnonzero(labels >= 0)
    known = generator(seed, "probe").permutation(known)[:MOST_NODES]
    train, test = known[: len(known) // 2], known[len(known) // 2 :]
    if len(test) < 2 or len(np.unique(labels[train])) < 2:
        return {}
    right = _right(embedding, labels, train, test)
    values, counts = np.unique(labels[train], return_counts=True)
    untrained = _right(propagated_features(dataset), labels, train, test)
    interval = bootstrap_interval(mean, right, resamples=resamples, seed=seed)
    return {
        "linear_probe_accuracy": Metric(
            value=float(right.mean()),
            unit="",
            direction="higher",
            n=len(test),
            interval=interval,
            method="multinomial logistic regression on standardised posterior means, L2 weight 1, "
            f"learned from {len(train)} random nodes, bootstrap {resamples:,} over nodes",
            floors={
                "most frequent class": float((labels[test] == values[counts.argmax()]).mean()),
                "untrained propagated features": float(untrained.mean()),
            },
            ceiling=1.0,
            group="What the latents know of the labels",
        )
    }


def _right(
    inputs: Matrix, labels: NDArray[np.int64], train: NDArray[np.int64], test: NDArray[np.int64]
) -> Array:
    """1 for each test node that is classified as it is labelled."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if sparse.issparse(inputs):
        deviation = np.sqrt(np.asarray(inputs[train].power(2).mean(axis=0)).ravel())
        inputs = (inputs @ sparse.diags_array(1 / np.maximum(deviation, 1e-12))).tocsr()
    else:
        deviation = np.maximum(inputs[train].std(axis=0), 1e-12)
        inputs = (inputs - inputs[train].mean(axis=0)) / deviation
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(max_iter=200).fit(inputs[train], labels[train])
    return (model.predict(inputs[test]) == labels[test]).astype(np.float64)
