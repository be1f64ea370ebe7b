"""Bias, variance and signal to noise of the gradient estimators, for 1, 5 and 50 samples.

One observation of a linear-Gaussian model (6 features, 3 latents, float64) and a posterior that
is 0.7 exact scales off and 35 % too wide; gradients of the importance-weighted bound in (loc,
log scale), one a draw. ``max_z`` is the largest difference of a component's mean from that of the
reference, in standard errors: from the exact gradient of the ELBO for one sample; for more from
DReG, and DReG itself from the plain reparameterised gradient. The path derivative (sticking the
landing) is unbiased for one sample only, and its ``max_z`` has to be large for more.
``signal_to_noise`` is the length of the mean over the root of the total variance; what is not
well above ``signal_to_noise_floor``, one over the root of the draws, is noise of the mean itself.

The measurement is that of ``latentworks doctor --self-test``.

    python benchmarks/estimators.py [draws]

writes ``estimators.json`` beside itself.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from pathlib import Path

import torch

from core.variational.estimators import (
    VIMCO,
    DoublyReparameterised,
    Estimator,
    Reparameterised,
    ScoreFunction,
)
from core.variational.objectives import IWAE
from core.variational.selftest.check import z_limit
from core.variational.selftest.gradients import GradientSample, PathEverywhere, misfit

SAMPLES = (1, 5, 50)
KINDS: dict[str, Estimator] = {
    "reparameterised": Reparameterised(),
    "path": PathEverywhere(),
    "dreg": DoublyReparameterised(),
    "vimco": VIMCO(),
    "score": ScoreFunction(),
}


def measure(samples: int, draws: int) -> dict[str, object]:
    problem, objective = misfit(), IWAE(samples)
    found, cpu_s = {}, {}
    for name, estimator in KINDS.items():
        if name == "vimco" and samples < 2:
            continue  # its baseline is from the other samples
        begun = time.process_time()
        found[name] = problem.gradients(objective, estimator, draws)
        cpu_s[name] = time.process_time() - begun
    rows = {}
    for name, sample in found.items():
        reference, whose = _reference(name, samples, found)
        rows[name] = {
            "total_variance": _digits(sample.total_variance),
            "signal_to_noise": _digits(sample.signal_to_noise),
            "max_z": _digits(sample.distance(reference)),
            "reference": whose,
            "declared_unbiased": name != "path" or samples == 1,
            "us_per_gradient": _digits(1e6 * cpu_s[name] / draws),
        }
        print(f"K = {samples:3} {name:16} {rows[name]}")
    floor = _digits(draws**-0.5)
    head = {"samples": samples, "draws": draws, "signal_to_noise_floor": floor}
    return {**head, "estimators": rows}


def _reference(
    name: str, samples: int, found: dict[str, GradientSample]
) -> tuple[GradientSample, str]:
    if samples == 1:
        return misfit().exact_gradient(), "exact gradient"
    if name == "dreg":
        return found["reparameterised"], "reparameterised"
    return found["dreg"], "dreg"


def _digits(number: float) -> float:
    return float(f"{number:.3g}")


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    rows = [measure(samples, draws) for samples in SAMPLES]
    comparisons = 6 * sum(len(KINDS) - (samples == 1) for samples in SAMPLES)
    figures = {
        "setting": {
            "features": 6,
            "latents": 3,
            "dtype": "float64",
            "threads": 1,
            "seed": 0,
            "z_limit_bonferroni": _digits(z_limit(comparisons, most=9.0)),
            "torch": torch.__version__,
            "machine": platform.processor() or platform.machine(),
        },
        "rows": rows,
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
