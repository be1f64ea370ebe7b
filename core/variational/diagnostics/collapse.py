"""Which latent dimensions must collapse: what the theory of linear models says beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from core.contract import Model
from core.variational.diagnostics.estimate import NORMAL_QUANTILE, Estimate, Unavailable
from core.variational.diagnostics.looking import looking_at
from core.variational.diagnostics.rows import normal_likelihood, seen


@dataclass(frozen=True)
class CollapsePrediction:
    r"""How many latent dimensions a linear model of the data can use.

    Args:
        active: :math:`\min(k, \#\{\lambda_i > \beta \sigma^2\})`; its interval comes from that of
            the eigenvalues, if the number of data is known.
        latent: Dimensions :math:`k` of the latent.
        threshold: :math:`\beta \sigma^2`.
        eigenvalues: The :math:`k` largest of the data covariance, largest first.
        rates: KL of each dimension at the optimum, in nats, largest first.
    """

    active: Estimate
    latent: int
    threshold: float
    eigenvalues: list[float]
    rates: list[float]


def collapse_prediction(
    eigenvalues: Float[Tensor, " feature"],
    noise_variance: float,
    beta: float,
    latent: int,
    n: int = 0,
) -> CollapsePrediction:
    r"""Return how many latents of a linear model with Normal noise survive at the optimum.

    At every global optimum of :math:`\mathbb E \log p(x \mid z) - \beta KL` with
    :math:`p(x \mid z) = \mathcal N(W z + b, \sigma^2 I)` and a linear encoder, the singular values
    of :math:`W` satisfy :math:`w_i^2 = \max(0, \lambda_i - \beta \sigma^2)` with the largest
    eigenvalues :math:`\lambda_i` of the data covariance. A dimension with
    :math:`\lambda_i \le \beta \sigma^2` collapses; another has, in nats,

    .. math:: KL_i = \tfrac12 \log \frac{\lambda_i}{\beta \sigma^2}, \quad
        \operatorname{Var}_x \mathbb E_q z_i = 1 - \frac{\beta \sigma^2}{\lambda_i},

    which is reverse water-filling. With a deep decoder it is a guide, not a theorem.

    References:
        Lucas et al., "Don't Blame the ELBO! A Linear VAE Perspective on Posterior Collapse",
        NeurIPS 2019 (arXiv:1911.02469), for :math:`\beta = 1`; Wang and Ziyin, "Posterior Collapse
        of a Linear Latent Variable Model", NeurIPS 2022 (arXiv:2205.04009); Dang et al., "Beyond
        Vanilla Variational Autoencoders: Detecting Posterior Collapse in Conditional and
        Hierarchical Variational Autoencoders", ICLR 2024 (arXiv:2306.05023): in a conditional one
        :math:`\lambda_i` are those of the covariance given the condition.

    Args:
        eigenvalues: Of the data covariance, in squared units of the data.
        noise_variance: :math:`\sigma^2` of the likelihood, in the same units.
        beta: Weight of the KL.
        latent: Number of latent dimensions :math:`k`.
        n: Number of data behind the eigenvalues, 0 if they are exact. Each then has the standard
            error :math:`\lambda \sqrt{2 / n}` of Normal data.

    Raises:
        ValueError: If variance or weight is not positive, or there is no latent dimension.

    Example:
        >>> collapse_prediction(torch.tensor([4.0, 2.0, 0.5]), 1.0, 1.0, latent=3).active.value
        2.0
    """
    if not (noise_variance > 0 and beta > 0 and latent >= 1):
        raise ValueError(
            f"collapse_prediction: noise_variance={noise_variance}, beta={beta}, latent={latent}; "
            "the first two must be positive and the last at least 1"
        )
    threshold = beta * noise_variance
    largest = eigenvalues.detach().double().cpu().sort(descending=True).values[:latent]
    rates = 0.5 * (largest / threshold).clamp(min=1).log()
    missing = [0.0] * (latent - len(largest))
    return CollapsePrediction(
        Estimate(float((largest > threshold).sum()), _interval(largest, threshold, n), n),
        latent,
        threshold,
        largest.tolist() + missing,
        rates.tolist() + missing,
    )


def predicted_collapse(
    model: Model,
    batches: Iterable[Any],
    beta: float = 1.0,
    observed: Callable[[Any], Tensor] | None = None,
    rows: int = 2000,
    seed: int = 0,
) -> CollapsePrediction | Unavailable:
    r"""Predict the active units of a model with a Normal likelihood from its data.

    The data are divided by the standard deviations that the likelihood has now (their mean square
    over data, where they differ), so that :math:`\sigma^2 = 1`.

    Args:
        model: Any model; a reason comes back where its likelihood is not Normal.
        batches: What its ``evidence`` takes, on its device.
        beta: Weight of the KL in training.
        observed: The data of a batch, of shape ``(batch, *feature)``; the one tensor of that shape
            in the batch if not given.
        rows: Examples at most.
        seed: Seed of the passes.
    """
    data, variances, widths = [], [], []
    with looking_at(model, seed):
        for batch in batches:
            found = normal_likelihood(model, batch, observed)
            if isinstance(found, Unavailable):
                return found
            evidence, likelihood, values = found
            if any(len(latent.posterior.event_shape) > 1 for latent in evidence.latents):
                return Unavailable("an example holds many latents; the theory is for one")
            widths = [latent.value.shape[2:].numel() for latent in evidence.latents]
            data.append(seen(evidence, values.flatten(1)).double().cpu())
            variances.append(likelihood.scale.double().square().flatten(2).mean((0, 1)).cpu())
            if sum(map(len, data)) >= rows:
                break
    table = torch.cat(data)[:rows] if data else torch.zeros(0, 1)
    if len(table) < 2 or not widths:
        return Unavailable(f"{len(table)} examples, {len(widths)} latent groups")
    scaled = (table - table.mean(0)) / torch.stack(variances).mean(0).sqrt()
    if not bool(torch.isfinite(scaled).all()):
        return Unavailable("the data or the scale of the likelihood is not finite")
    eigenvalues = torch.linalg.svdvals(scaled).square() / (len(table) - 1)
    return collapse_prediction(eigenvalues, 1.0, beta, sum(widths), len(table))


def _interval(largest: Tensor, threshold: float, n: int) -> tuple[float, float] | None:
    if n < 2:
        return None
    relative = NORMAL_QUANTILE * math.sqrt(2 / n)
    low = largest * max(0.0, 1 - relative) > threshold
    high = largest * (1 + relative) > threshold
    return float(low.sum()), float(high.sum())
