"""Probabilities that mean what they say: a temperature and a bias fitted on validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
BINS = 15


@dataclass(frozen=True)
class Calibration:
    r"""Probability of a link from its logit, :math:`\sigma(l / T + b)`.

    It is the probability among as many links as non-links, as in the validation split.

    Args:
        slope: :math:`1/T`.
        bias: :math:`b`.
    """

    slope: float
    bias: float

    def __call__(self, logits: Array) -> Array:
        """The probabilities."""
        return 0.5 * (1 + np.tanh((self.slope * logits + self.bias) / 2))

    @property
    def temperature(self) -> float:
        """By what the logits are divided; above 1, the model was too sure."""
        return 1 / self.slope if self.slope else float("inf")


def fit(labels: Array, logits: Array, tolerance: float = 1e-12, most: int = 200) -> Calibration:
    r"""Fit slope and bias by maximum likelihood, with Newton's method.

    The problem is convex. Targets are Platt's :math:`(n_1 + 1)/(n_1 + 2)` and
    :math:`1/(n_0 + 2)` in place of 1 and 0, so that it has a solution for separable scores too.

    References:
        Platt, "Probabilistic Outputs for Support Vector Machines", 1999, section 2.2; Lin et al.,
        "A Note on Platt's Probabilistic Outputs", Machine Learning 68 (2007), 267-276.

    Args:
        labels: 1 for a link, 0 for none.
        logits: Of the same pairs.
        tolerance: Size of the Newton decrement to stop at.
        most: Steps at most.
    """
    links = float(labels.sum())
    targets = np.where(labels > 0, (links + 1) / (links + 2), 1 / (len(labels) - links + 2))
    centre, spread = float(logits.mean()), float(logits.std()) or 1.0
    design = np.stack([(logits - centre) / spread, np.ones_like(logits)], axis=1)

    def loss(weights: Array) -> float:
        scores = design @ weights
        return float((np.logaddexp(0, scores) - targets * scores).sum())

    weights = np.zeros(2)
    for _ in range(most):
        probabilities = 0.5 * (1 + np.tanh(design @ weights / 2))
        gradient = design.T @ (probabilities - targets)
        curvature = design * (probabilities * (1 - probabilities))[:, None]
        step = np.linalg.solve(curvature.T @ design + 1e-12 * np.eye(2), gradient)
        decrement = float(gradient @ step)
        if decrement < tolerance:
            break
        size = 1.0
        while (
            loss(weights - size * step) > loss(weights) - 1e-4 * size * decrement and size > 1e-8
        ):
            size /= 2
        weights = weights - size * step
    slope = float(weights[0]) / spread
    return Calibration(slope, float(weights[1]) - slope * centre)


def brier(labels: Array, probabilities: Array) -> float:
    """Return the mean squared error of the probabilities; 0.25 is a coin."""
    return float(((labels - probabilities) ** 2).mean())


def reliability(
    labels: Array, probabilities: Array, bins: int = BINS
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Mean probability, share of links and size of bins that hold equally many pairs."""
    order = np.argsort(probabilities, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    said = np.array([probabilities[part].mean() for part in parts])
    true = np.array([labels[part].mean() for part in parts])
    return said, true, np.array([len(part) for part in parts])


def expected_calibration_error(labels: Array, probabilities: Array, bins: int = BINS) -> float:
    """Return the mean distance of probability and share of links over equally large bins."""
    said, true, sizes = reliability(labels, probabilities, bins)
    return float((sizes * np.abs(said - true)).sum() / sizes.sum())
