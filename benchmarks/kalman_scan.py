"""Time and error of the Kalman filter and smoother by parallel scan, against the loop over time.

One thread, CPU time, the best of interleaved repeats in one process, float32: what a training
uses. Forward is the log-likelihood; forward and backward adds the gradient of the transitions;
smoothing is the joint smoothing distribution by scan against the sequential filter and smoother.
Errors are against the sequential recursion in float64. Absolute figures move with the load of the
machine; the ratios are the claims. The loop is the library's own reference, batched over examples
and not tuned further.

    python benchmarks/kalman_scan.py [repeats]

writes ``kalman_scan.json`` beside itself.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from core.variational.dynamics import (
    GaussMarkov,
    StateSpace,
    kalman_filter,
    rts_smoother,
    sequential_kalman_filter,
    sequential_rts_smoother,
    smoothing_distribution,
)

LENGTHS = (100, 1000, 4000)
BATCH, LATENT, FEATURE = 8, 4, 6


def state_space(steps: int, dtype: torch.dtype) -> StateSpace:
    """A damped rotation of two pairs, seen through six noisy features."""
    generator = torch.Generator().manual_seed(0)
    angles = torch.tensor([0.3, 0.05], dtype=torch.float64)
    blocks = [
        0.98 * torch.stack([torch.stack([a.cos(), -a.sin()]), torch.stack([a.sin(), a.cos()])])
        for a in angles
    ]
    transition = torch.block_diag(*blocks).expand(steps - 1, LATENT, LATENT)
    scale = torch.full((steps,), 0.2, dtype=torch.float64)
    scale[0] = 1.0
    scale_tril = scale[:, None, None] * torch.eye(LATENT, dtype=torch.float64)
    emission = torch.randn(FEATURE, LATENT, generator=generator, dtype=torch.float64)
    parts = transition, torch.zeros(steps, LATENT, dtype=torch.float64), scale_tril
    return StateSpace(
        GaussMarkov(*(part.to(dtype) for part in parts)),
        emission.to(dtype),
        torch.zeros(FEATURE, dtype=dtype),
        0.5 * torch.eye(FEATURE, dtype=dtype),
    )


def cpu_seconds(task: Callable[[], object]) -> float:
    start = time.process_time()
    task()
    return time.process_time() - start


def gradient(filtering: Callable[..., object], model: StateSpace, y: Tensor) -> Tensor:
    leaf = model.dynamics.transition.detach().clone().requires_grad_()
    dynamics = GaussMarkov(leaf, model.dynamics.offset, model.dynamics.scale_tril)
    space = StateSpace(dynamics, model.emission, model.offset, model.noise_tril)
    result = filtering(space, y)
    return torch.autograd.grad(result.log_likelihood.sum(), leaf)[0]  # type: ignore[attr-defined]


def tasks(model: StateSpace, y: Tensor) -> dict[str, tuple[Callable, Callable]]:
    """Name of what is measured: by scan, and by the loop."""
    return {
        "filter forward": (
            lambda: kalman_filter(model, y),
            lambda: sequential_kalman_filter(model, y),
        ),
        "filter forward and backward": (
            lambda: gradient(kalman_filter, model, y),
            lambda: gradient(sequential_kalman_filter, model, y),
        ),
        "smoothing": (
            lambda: smoothing_distribution(model, y).mean,
            lambda: sequential_rts_smoother(model, sequential_kalman_filter(model, y)),
        ),
    }


def errors(single: StateSpace, double: StateSpace, y: Tensor) -> dict[str, dict[str, float]]:
    """Largest errors against the loop in float64, by scan and by loop in float32."""
    truth = sequential_kalman_filter(double, y)
    smooth = sequential_rts_smoother(double, truth)
    found = {}
    pairs = {
        "scan float32": (kalman_filter, rts_smoother, single),
        "loop float32": (sequential_kalman_filter, sequential_rts_smoother, single),
        "scan float64": (kalman_filter, rts_smoother, double),
    }
    for name, (filtering, smoothing, model) in pairs.items():
        filtered = filtering(model, y)
        smoothed = smoothing(model, filtered)
        relative = filtered.log_likelihood.double() / truth.log_likelihood - 1
        found[name] = {
            "log_likelihood_relative": float(relative.abs().max()),
            "filtered_loc": float((filtered.loc.double() - truth.loc).abs().max()),
            "smoothed_loc": float((smoothed.loc.double() - smooth.loc).abs().max()),
        }
    return found


def measure(steps: int, repeats: int) -> dict[str, object]:
    torch.manual_seed(0)
    single, double = state_space(steps, torch.float32), state_space(steps, torch.float64)
    y = double.observe(double.dynamics.rsample((BATCH,)))
    row: dict[str, object] = {"steps": steps, "error": errors(single, double, y)}
    for name, (scan, loop) in tasks(single, y.float()).items():
        scan()
        pairs = [(cpu_seconds(scan), cpu_seconds(loop)) for _ in range(repeats)]
        by_scan, by_loop = (min(column) for column in zip(*pairs, strict=True))
        row[name] = {
            "scan_ms": round(1e3 * by_scan, 2),
            "loop_ms": round(1e3 * by_loop, 2),
            "loop_over_scan": round(by_loop / by_scan, 1),
        }
        print(f"{steps:5} steps, {name}: {row[name]}")
    return row


def main() -> None:
    torch.set_num_threads(1)
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    figures = {
        "setting": {
            "batch": BATCH,
            "latent": LATENT,
            "feature": FEATURE,
            "dtype": "float32",
            "threads": 1,
            "repeats": repeats,
            "torch": torch.__version__,
            "machine": platform.processor() or platform.machine(),
        },
        "rows": [measure(steps, repeats) for steps in LENGTHS],
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
