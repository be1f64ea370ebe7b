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
            "importance_weighted": {"value": -118.5, "samples": 64, "se": 0.2},
            "bound": "lower",
            "unit": "nats per example",
            "beta": 1.0,
            "effective_beta": 0.8,
        },
        "latents": {
            "z": {
                "active_units": 3,
                "dimensions": 4,
                "kl_per_dimension": [1.0, 12.0, 0.0, 7.0],
                "closed_form": True,
            }
        },
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
