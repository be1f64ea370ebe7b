"""The report of a run: one page that can be believed, the same bytes for the same run.

It reads the run folder and nothing else: no clock, no host, no path gets in. Everything that came
from data is escaped; the page holds no script and fetches nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from core.contract import Plot
from core.runtime import figures
from core.runtime.config import Settings, default_values, flat_settings
from core.runtime.diagnosis.claims import claims, trust
from core.runtime.diagnosis.plots import plots as diagnosis_plots
from core.runtime.diagnosis.tables import checked, gain, notes, reason, tables
from core.runtime.errors import UserError
from core.runtime.folder import read_json, write_atomic
from core.runtime.strict_yaml import read_yaml, shown
from core.runtime.wording import (
    ARROWS,
    best_floor,
    between,
    compare_with_floor,
    decimals_for,
    number,
    verdict,
)

TEMPLATES = Path(__file__).parent / "template"
MOST_CURVES = 9
SHOWN_FIRST = ("elbo", "loss")
NAME_OF_FIGURE = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class Record:
    """What a run folder says of its run."""

    settings: Mapping[str, Any]
    lineage: Mapping[str, Any]
    card: Mapping[str, Any]
    results: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]

    @property
    def diagnosis(self) -> Mapping[str, Any]:
        """The diagnosis of a model with latents; nothing of one without."""
        found = self.results.get("diagnosis") or {}
        return found if found.get("latents") else {}


@dataclass(frozen=True)
class Drawing:
    """A figure as it goes into the page and into ``figures/``."""

    name: str
    svg: str
    caption: str

    @property
    def inline(self) -> Markup:
        """The figure for the inside of a page."""
        return Markup(figures.inline(self.svg, self.name, self.caption))


def render(run: Path, plots: Mapping[str, Plot], schema: type[Settings] = Settings) -> None:
    """Write ``figures/*.svg``, ``report.html`` and ``report.md``, each whole or not at all.

    Args:
        run: The run folder; ingest, train and evaluate are done.
        plots: The domain's figures by file name.
        schema: The domain's settings class, which knows the defaults.

    Raises:
        UserError: If a file of the run is missing or unreadable.
    """
    record = read_record(run)
    drawn = {
        "diagnosis": diagnosis_drawings(record.diagnosis),
        "curves": _curve_drawings(record),
        "domain": [_drawing(name, plot) for name, plot in plots.items()],
    }
    content = _content(record, schema) | {"drawings": drawn}
    _write_figures(run / "figures", [drawing for group in drawn.values() for drawing in group])
    write_atomic(run / "report.html", page("report.html", content))
    write_atomic(run / "report.md", page("report.md", content))


def read_record(run: Path) -> Record:
    """Read what the stages left in a run folder.

    Raises:
        UserError: If a file is missing or unreadable.
    """
    return Record(
        settings=read_yaml(run / "settings.yaml").value,
        lineage=read_json(run / "lineage.json"),
        card=read_json(run / "data-card.json"),
        results=read_results(run / "metrics.json"),
        history=read_history(run / "history.jsonl"),
    )


def read_results(path: Path) -> dict[str, Any]:
    """Read what `evaluate` measured.

    Raises:
        UserError: If the file is missing, or does not hold that.
    """
    results = read_json(path)
    checked(results.get("diagnosis"), path)
    return results


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object a line.

    Raises:
        UserError: If the file is missing or a line is no JSON.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    rows = []
    for place, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{place}: not JSON: {error.msg}") from error
    return rows


def page(name: str, content: Mapping[str, Any]) -> str:
    """Fill a template; every value is escaped for HTML or for Markdown."""
    markdown = name.endswith(".md")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=not markdown,
        finalize=_markdown if markdown else None,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": number, "shown": public, "whisker": whisker, "code": _code}
    text = environment.get_template(f"{name}.j2").render(content)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in text.splitlines())) + "\n"


def public(value: Any) -> str:
    """Return a value as the report prints it: of an absolute path only the last part."""
    text = value if isinstance(value, str) else shown(value, limit=200)
    return re.sub(
        r"(?<![\w.:/~])(?:~|/|[A-Za-z]:[\\/])[^\s,;'\"]*[\\/]([^\s,;'\"/\\]+)", r"…/\1", text
    )


def metric_rows(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each table by its heading; the primary metric and its group first."""
    ordered = sorted(metrics.items(), key=lambda item: (not item[1].get("primary"), item[0]))
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, metric in ordered:
        groups.setdefault(metric.get("group") or "Results", []).append(_metric_row(name, metric))
    return groups


def whisker(metric: Mapping[str, Any]) -> Markup:
    """Draw interval, floors and ceiling of a metric on one line, small enough for a table."""
    interval, ceiling = metric.get("interval"), metric.get("ceiling")
    floors = list((metric.get("floors") or {}).values())
    marks = [metric["value"], *floors, *(interval or ()), *([] if ceiling is None else [ceiling])]
    low, high = min(marks), max(marks)
    if not high > low:
        return Markup("")

    def x(value: float) -> str:
        return f"{6 + 108 * (value - low) / (high - low):.1f}"

    parts = ['<path class="w-rule" d="M2 10H118"/>']
    parts += [f'<path class="w-floor" d="M{x(floor)} 4V16"/>' for floor in sorted(floors)]
    if ceiling is not None:
        parts.append(f'<path class="w-ceiling" d="M{x(ceiling)} 4V16"/>')
    if interval:
        parts.append(f'<path class="w-interval" d="M{x(interval[0])} 10H{x(interval[1])}"/>')
    parts.append(f'<circle class="w-value" cx="{x(metric["value"])}" cy="10" r="2.6"/>')
    head = '<svg class="whisker" viewBox="0 0 120 20" aria-hidden="true">'
    return Markup(f"{head}{''.join(parts)}</svg>")


def score_curves(
    history: Sequence[Mapping[str, Any]], axis: str
) -> dict[str, dict[str, tuple[list, list]]]:
    """Return the curves ``(x, y)`` of each score by split, over ``epoch`` or ``step``."""
    found: dict[str, dict[str, tuple[list, list]]] = {}
    for row in history:
        for key, value in row.items():
            split, _, score = key.partition("/")
            if score and split in ("train", "valid") and isinstance(value, (int, float)):
                x, y = found.setdefault(score, {}).setdefault(split, ([], []))
                x.append(row[axis])
                y.append(value)
    return found


def x_axis(history: Sequence[Mapping[str, Any]]) -> str:
    """Return what the curves run over: epochs if no epoch has two rows, else steps."""
    epochs = [row.get("epoch") for row in history]
    return "epoch" if len(set(epochs)) == len(epochs) > 1 else "step"


def unit_of(score: str, metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the unit of a score in the history: the metric's, nats for a term of the evidence."""
    if score in metrics:
        return metrics[score]["unit"]
    terms = ("log_likelihood/", "kl/", "penalty/")
    nats = score in ("elbo", "loss", "value", "kl") or score.startswith(terms)
    return "nats" if nats else ""


def _content(record: Record, schema: type[Settings]) -> dict[str, Any]:
    values = flat_settings(record.settings)
    defaults = default_values(schema, record.settings)
    metrics = record.results.get("metrics") or {}
    return {
        "domain": record.settings["domain"],
        "name": record.settings["name"],
        "identity": str(record.lineage.get("identity", "")),
        "card": record.card,
        "metrics": metrics,
        "verdict": verdict(metrics),
        "groups": metric_rows(metrics),
        "evidence": _evidence(record),
        "diagnosis": diagnosis_content(record.diagnosis),
        "checkpoint": record.results.get("checkpoint"),
        "examples": record.results.get("examples"),
        "changed": {
            key: (value, defaults.get(key))
            for key, value in values.items()
            if key not in defaults or repr(defaults[key]) != repr(value)
        },
        "has_default": set(defaults),
        "settings": values,
        "lineage": _lineage(record.lineage),
        "css": Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
    }


def _metric_row(name: str, metric: Mapping[str, Any]) -> dict[str, Any]:
    interval = metric.get("interval")
    decimals = decimals_for(interval)
    floors = sorted((metric.get("floors") or {}).items())
    ceiling, floor = metric.get("ceiling"), best_floor(metric)
    return {
        "name": name,
        "metric": metric,
        "value": number(float(metric["value"]), decimals),
        "exact": repr(float(metric["value"])),
        "unit": metric["unit"],
        "arrow": ARROWS[metric["direction"]],
        "better": {"none": ""}.get(metric["direction"], f"{metric['direction']} is better"),
        "interval": between(interval),
        "n": number(metric["n"]),
        "floors": [(floor, number(float(value), decimals)) for floor, value in floors],
        "ceiling": "" if ceiling is None else number(float(ceiling), decimals),
        "method": metric.get("method", ""),
        "primary": bool(metric.get("primary")),
        "standing": compare_with_floor(metric) if floor else "",
    }


def _evidence(record: Record) -> dict[str, Any] | None:
    """The split of the bound into its terms, signed as they add up."""
    evidence = record.results.get("evidence")
    if not evidence:
        return None
    terms = [("log-likelihood", name, value) for name, value in evidence["log_likelihood"].items()]
    terms += [
        ("\N{MINUS SIGN} KL", name, -value) for name, value in (evidence.get("kl") or {}).items()
    ]
    objective = record.settings.get("objective") or {}
    closed = evidence.get("kl_closed_form") or {}
    return {
        "terms": [
            (kind, name, value, "by Monte Carlo" if closed.get(name) is False else "")
            for kind, name, value in terms
        ],
        "total": evidence.get("elbo"),
        "unit": evidence.get("unit", "nats per example"),
        "bound": evidence.get("bound"),
        "beta": evidence.get("beta", objective.get("beta")),
        "effective_beta": evidence.get("effective_beta"),
        "free_bits": evidence.get("free_bits", objective.get("free_bits")),
        "kl": evidence.get("kl") or {},
        "weights": evidence.get("weights") or {},
        "penalties": evidence.get("penalties") or {},
        "weighted": _weighted(record.diagnosis),
    }


def _weighted(diagnosis: Mapping[str, Any]) -> dict[str, Any] | None:
    """The importance-weighted log-likelihood, None where there is none."""
    importance = diagnosis.get("importance")
    if importance is None or reason(importance) or reason(importance["log_likelihood"]):
        return None
    return {
        "value": importance["log_likelihood"]["value"],
        "n": importance["log_likelihood"]["n"],
        "error": importance["standard_error"],
        "samples": importance["samples"],
        "gain": gain(diagnosis),
        "trust": trust(importance),
    }


def _lineage(lineage: Mapping[str, Any]) -> dict[str, str]:
    """What decides the bytes of a result, and nothing that only says when and where it ran."""
    code, hardware = lineage.get("code") or {}, lineage.get("hardware") or {}
    known = {
        "sources": code.get("sources"),
        "Python": lineage.get("python"),
        "processor": hardware.get("processor"),
        "machine": hardware.get("machine"),
        "accelerator": hardware.get("accelerator"),
        "threads": lineage.get("threads"),
        "seed": lineage.get("seed"),
    }
    packages = dict(sorted((lineage.get("packages") or {}).items()))
    return {
        name: str(value) for name, value in (known | packages).items() if value not in (None, "")
    }


def _drawing(name: str, plot: Plot) -> Drawing:
    if not NAME_OF_FIGURE.fullmatch(name):
        raise ValueError(
            f"a figure's name is lower-case letters, digits, '-' and '_', got {name!r}"
        )
    return Drawing(name, figures.svg(plot.figure), plot.caption)


def diagnosis_drawings(diagnosis: Mapping[str, Any]) -> list[Drawing]:
    """The figures of a diagnosis; none for none."""
    plots = diagnosis_plots(diagnosis) if diagnosis else {}
    return [_drawing(name, plot) for name, plot in plots.items()]


def diagnosis_content(diagnosis: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the templates show of a diagnosis."""
    if not diagnosis:
        return None
    return {"claims": claims(diagnosis), "tables": tables(diagnosis), "notes": notes(diagnosis)}


def _curve_drawings(record: Record) -> list[Drawing]:
    if not record.history:
        return []
    axis, metrics = x_axis(record.history), record.results.get("metrics") or {}
    curves = score_curves(record.history, axis)
    chosen = (record.results.get("checkpoint") or {}).get(axis)
    drawings = []
    for score in curve_order(curves, record.settings)[:MOST_CURVES]:
        unit = unit_of(score, metrics)
        label = score.replace("_", " ") + (f", {unit}" if unit else "")
        figure = figures.curve(curves[score], axis, label, chosen)
        caption = f"{score} on {' and '.join(sorted(curves[score]))}"
        drawings.append(_drawing(f"curve-{slug(score)}", Plot(figure=figure, caption=caption)))
    return drawings


def curve_order(
    curves: Mapping[str, Mapping[str, tuple[list, list]]], settings: Mapping[str, Any]
) -> list[str]:
    """Return the scores that move, the monitored one first, then the bound and its terms."""
    first = [(settings.get("training") or {}).get("monitor"), *SHOWN_FIRST]

    def moves(score: str) -> bool:
        return any(len(set(y)) > 1 for _, y in curves[score].values()) or score == first[0]

    def rank(score: str) -> tuple[int, bool, str]:
        place = first.index(score) if score in first else len(first)
        return place, "valid" not in curves[score] and "/" not in score, score

    return sorted(filter(moves, curves), key=rank)


def slug(name: str) -> str:
    """Return a name as a file name has it."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"


def _write_figures(folder: Path, drawings: Sequence[Drawing]) -> None:
    """Write the figures and remove those of an earlier rendering."""
    names = {f"{drawing.name}.svg" for drawing in drawings}
    for drawing in drawings:
        write_atomic(folder / f"{drawing.name}.svg", drawing.svg)
    for path in folder.glob("*.svg"):
        if path.name not in names:
            path.unlink()


def _markdown(value: Any) -> Any:
    """Escape what Markdown or HTML inside it would take for markup."""
    if isinstance(value, (Markup, jinja2.Undefined)):
        return value
    text = str(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", " ".join(text.split()))


def _code(value: Any) -> Markup:
    """A code span of Markdown, safe inside a table."""
    text = " ".join(str(value).replace("`", "'").replace("|", "\\|").split())
    return Markup(f"`{text}`" if text else "")
