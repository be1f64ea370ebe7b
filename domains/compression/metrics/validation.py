"""Scores that choose a model while it trains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from core.runtime.order import derive
from core.variational.diagnostics import looking_at
from core.variational.evidence import Evidence
from domains.compression.config import Config
from domains.compression.data import batches
from domains.compression.data.records import Images
from domains.compression.metrics.quality import PEAK, psnr_of
from domains.compression.model.base import ImageModel
from domains.compression.model.rates import noise_scale, price


def validate(config: Config, folder: Path, model: ImageModel) -> Mapping[str, float]:
    """Cheap scores on the validation windows, latents rounded, by the model's own estimate.

    * ``rate_distortion_cost``: bits per pixel plus the price of the squared error, each window
      weighed as in training so that all rates count; lower is better;
    * ``bits_per_pixel`` and ``psnr_db``: means over windows of all rates.
    """
    windows = batches(config, folder, "valid")
    device = next(model.parameters()).device
    with looking_at(model, derive(config.seed, "metrics", "validate")):
        parts = [
            torch.stack(scores(model, windows.batch(0, index).to(device))).cpu()
            for index in range(len(windows))
        ]
    cost, bits, error = torch.cat(parts, dim=1)
    return {
        "rate_distortion_cost": float(cost.mean()),
        "bits_per_pixel": float(bits.mean()),
        "psnr_db": math.fsum(map(psnr_of, error.tolist())) / len(error),
    }


def scores(model: ImageModel, batch: Images) -> tuple[Tensor, Tensor, Tensor]:
    """Weighed cost, bits per pixel and squared error of 8-bit values of each window."""
    evidence = model.evidence(batch)
    bits = bits_per_pixel(evidence, batch)
    error = squared_error(model, evidence, batch)
    cost = bits + price(batch.rate, model.rates).double() * error
    return model.emphasis(batch.rate).double() * cost, bits, error


def bits_per_pixel(evidence: Evidence, batch: Images) -> Float[Tensor, " batch"]:
    """Return the KL of all latents in bits per pixel."""
    _, _, height, width = batch.pixels.shape
    nats = sum(latent.kl().double().mean(0) for latent in evidence.latents)
    return torch.as_tensor(nats) / (math.log(2) * height * width)


def squared_error(model: ImageModel, evidence: Evidence, batch: Images) -> Float[Tensor, " batch"]:
    r"""Return the mean squared error in grey levels that a log-likelihood stands for.

    .. math:: \ln p = -\frac{\mathrm{SSE}}{2 \sigma^2} - \frac{n}{2} \ln 2 \pi \sigma^2

    Rounding to whole grey levels is not in it.
    """
    values = batch.pixels[0].numel()
    variance = noise_scale(batch.rate, model.rates).double() ** 2
    log_prob = torch.stack([*evidence.log_likelihood.values()]).sum(0).double().mean(0)
    scaled = -log_prob - values / 2 * (2 * math.pi * variance).log()
    return (2 * variance * scaled / values).clamp(min=0) * PEAK**2
