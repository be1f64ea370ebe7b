"""A run folder as the stages leave it, with made-up numbers, and a reader of its report."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure

from core.contract import Plot
from core.runtime.config import Section, Settings, Training, dump_settings

VOID = {"meta", "br", "hr", "img", "link", "input"}
MISCHIEF = "<script>alert('|')</script>"


class Data(Section):
    """Where it comes from."""

    root: str = "inside"


class Net(Section):
    """The model."""

    kind: Literal["net"] = "net"
    width: int = 32


class Toy(Settings):
    """Settings of a made-up domain."""

    domain: Literal["toy"] = "toy"
    data: Data = Data()
    model: Net = Net()


def metric(
    value: float, interval: tuple[float, float] | None = None, **changes: Any
) -> dict[str, Any]:
    """A metric as ``metrics.json`` holds it."""
    plain = {
        "value": value,
        "unit": "",
        "direction": "higher",
        "n": 1054,
        "interval": interval,
        "method": "bootstrap 1,000",
        "floors": {},
        "ceiling": None,
        "primary": False,
        "group": "Results",
    }
    return plain | changes


def diagnosis(heavy: int = 0, names: tuple[str, ...] = ("z",)) -> dict[str, Any]:
    """What `Diagnosis.to_dict` gives, for 100 examples.

    Args:
        heavy: How many of them have a k-hat above 0.7.
        names: The latent groups.
    """
    return {
        "examples": 100,
        "seed": 1,
        "rate_distortion": {
            "rate": estimate(20.0, (19.0, 21.0)),
            "rates": {name: estimate(20.0, (19.0, 21.0)) for name in names},
            "distortion": estimate(100.0, (97.0, 103.0)),
            "distortions": {"links": estimate(100.0, (97.0, 103.0))},
            "negative_elbo": estimate(120.0, (117.0, 123.0)),
            "bits_per_dimension": unavailable("the number of dimensions was not given"),
            "points": [[20.0 + i / 5, 100.0 - i / 10] for i in range(-50, 50)],
            "unobserved": 0,
        },
        "importance": {
            "log_likelihood": estimate(-118.5, (-121.5, -115.5)),
            "standard_error": 0.2,
            "effective_sample_size": 9.5,
            "samples": 64,
            "heavy_share": estimate(heavy / 100, (0.0, 1.0)),
            "k_hat": {
                "edges": [0.0, 0.5, 0.7, 1.0],
                "counts": [80 - heavy, 20, heavy],
                "below": 0,
                "above": 0,
                "undefined": 0,
            },
            "curve": [
                {"samples": samples, "bound": estimate(bound, (bound - 3, bound + 3))}
                for samples, bound in ((1, -120.0), (10, -119.0), (64, -118.5))
            ],
        },
        "latents": {name: _latent() for name in names},
        "collapse": unavailable("0 Normal likelihoods in the model"),
        "gradients": {
            group: {
                "signal": estimate(4.0, (3.0, 5.0), 20),
                "variance": estimate(1.0, (0.5, 1.5), 20),
                "signal_to_noise": estimate(2.0, (1.5, 2.5), 20),
                "parameters": 300,
            }
            for group in ("all", "decoder", "encoder")
        },
        "generated": unavailable("the model has no method 'generate(examples) -> batch'"),
    }


def _latent() -> dict[str, Any]:
    return {
        "dimensions": 4,
        "active_units": estimate(3.0, (3.0, 4.0)),
        "threshold": 0.01,
        "variance_of_mean": [0.5, 0.9, 0.0, 0.2],
        "kl_per_dimension": [12.0, 7.0, 1.0, 0.0],
        "information": {
            "mutual_information": unavailable("at least 4.6 nats"),
            "lower": estimate(4.6, (4.6, 4.6)),
            "upper": estimate(18.0, (17.0, 19.0)),
            "rate": estimate(20.5, (19.0, 22.0)),
            "marginal_kl": estimate(2.5, (2.0, 3.0)),
            "limit": 4.605,
            "rows": 100,
        },
        "aggregated": {
            "distance": {
                "value": 0.4, "floor": 0.001, "floor_95": 0.02, "p_value": 0.005, "n": 100,
            },
            "mean": [0.0, 0.1, 0.0, 0.2],
            "variance": [1.0, 1.2, 1.0, 0.8],
            "prior_mean": [0.0, 0.0, 0.0, 0.0],
            "prior_variance": [1.0, 1.0, 1.0, 1.0],
            "points": [[math.sin(i), math.cos(2 * i)] for i in range(100)],
            "prior_points": [[math.cos(3 * i), math.sin(5 * i)] for i in range(100)],
            "explained": 0.7,
        },
    }  # fmt: skip


def estimate(value: float, interval: tuple[float, float] | None, n: int = 100) -> dict[str, Any]:
    """A number of a diagnosis."""
    return {"value": value, "interval": None if interval is None else [*interval], "n": n}


def unavailable(reason: str) -> dict[str, Any]:
    """What stands where there is none."""
    return {"value": None, "reason": reason}


def results() -> dict[str, Any]:
    """What ``metrics.json`` holds."""
    return {
        "metrics": {
            "auc": metric(
                0.957, (0.949, 0.964), floors={"trivial": 0.936}, ceiling=1.0, primary=True
            ),
            "brier": metric(0.08, (0.07, 0.09), direction="lower", group="Calibration", n=77),
            "rate": metric(12.5, None, unit="nats", direction="none"),
            MISCHIEF: metric(0.5, (0.4, 0.6), floors={MISCHIEF: 0.3}, method=MISCHIEF),
        },
        "evidence": {
            "elbo": -120.0,
            "log_likelihood": {"links": -100.0},
            "kl": {"z": 20.0},
            "bound": "lower",
            "unit": "nats per example",
            "beta": 1.0,
            "effective_beta": 0.8,
        },
        "diagnosis": diagnosis(),
        "checkpoint": {"step": 30, "epoch": 15, "chosen_by": "valid auc"},
        "examples": 1054,
    }


def write(run: Path, content: dict[str, Any] | None = None, **settings: Any) -> Path:
    """Write the folder of a finished run and return it."""
    run.mkdir(parents=True, exist_ok=True)
    chosen = Toy(
        name="elm",
        data=Data(root="/home/somebody/secret/cora"),
        training=Training(epochs=20, monitor="auc"),
        **settings,
    )
    (run / "settings.yaml").write_text(dump_settings(chosen))
    (run / "metrics.json").write_text(json.dumps(content or results()))
    (run / "history.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in _history()))
    card = {
        "source": "a made-up graph at /home/somebody/secret/raw.csv",
        "licence": "CC0-1.0",
        "fingerprint": "f" * 64,
        "facts": {"nodes": 2708, "kind": MISCHIEF},
        "notes": ["151 duplicates were merged."],
    }
    (run / "data-card.json").write_text(json.dumps(card))
    lineage = {
        "identity": "a41f09c2be7d",
        "code": {"sources": "b" * 64, "commit": "c" * 40},
        "packages": {"torch": "2.13.0", "numpy": "2.4.6"},
        "python": "3.11.7",
        "hardware": {"machine": "x86_64", "processor": "some processor", "cores": 2},
        "threads": 1,
        "seed": 0,
        "parent": str(run / "parent"),
        "host": "somehost.example",
        "started": "2026-11-23T13:00:00",
    }
    (run / "lineage.json").write_text(json.dumps(lineage))
    return run


def plots() -> dict[str, Plot]:
    """A domain's figures, drawn in matplotlib's own style and with bad words in them."""
    figure = Figure(figsize=(4, 3))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], "k--", label=MISCHIEF)
    axes.set(xlabel="predicted", ylabel="observed", title=MISCHIEF)
    axes.legend()
    return {"calibration": Plot(figure=figure, caption=f"Calibration. {MISCHIEF}")}


def _history() -> list[dict[str, Any]]:
    return [
        {
            "step": 2 * epoch,
            "epoch": epoch,
            "train/loss": 200 * math.exp(-epoch / 5),
            "train/elbo": -200 * math.exp(-epoch / 5),
            "train/kl/z": 20 - epoch / 10,
            "train/beta": 1.0,
            "valid/auc": 0.95 - 0.4 * math.exp(-epoch / 5),
        }
        for epoch in range(1, 21)
    ]


class Page(HTMLParser):
    """Checks that tags are closed in order; collects tags, attributes and ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
