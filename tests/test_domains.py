"""What every domain must do; a new one is tested by being there."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import domains
from core.runtime import cli, engine, folder
from core.runtime.errors import UserError
from core.runtime.methods import AnyEstimator, AnyObjective
from core.runtime.sections import sections_in

REPOSITORY = Path(__file__).resolve().parents[1]
GOLDEN = REPOSITORY / "tests" / "golden"
ROOMS = ("config", "data", "model", "metrics", "plots", "cli", "domain")
NAMES = domains.domain_names()

pytestmark = pytest.mark.parametrize("name", NAMES)


def smoke(name: str) -> Path:
    return REPOSITORY / "configs" / name / "smoke.yaml"


def latentworks(*words: object) -> int:
    arguments = [str(word) for word in words]
    return cli.run_app(cli.build_app(domains, arguments), arguments)


def settings_of(run: Path) -> Any:
    return cli.load(domains, run / "settings.yaml", ())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A finished smoke run of each domain, made by its own verbs."""
    runs = {}
    for name in NAMES:
        run = tmp_path_factory.mktemp(name) / "run"
        assert latentworks(name, "ingest", smoke(name), "--out", run) == 0
        assert latentworks(name, "train", run) == 0
        assert latentworks(name, "evaluate", run) == 0
        runs[name] = run
    return runs


def test_the_rooms_exist_and_the_domain_says_what_it_is(name: str) -> None:
    for room in ROOMS:
        assert importlib.util.find_spec(f"domains.{name}.{room}"), room
    line = domains.domain_line(name)
    assert line.endswith(".")
    assert "\n" not in line
    assert domains.load_domain(name).name == name


def test_a_run_leaves_everything_in_its_folder(name: str, finished: Mapping[str, Path]) -> None:
    run = finished[name]
    made = {path.name for path in run.iterdir()}
    assert made >= {
        "settings.yaml", "lineage.json", "status.json", "history.jsonl", "metrics.json",
        "checkpoints", "examples", "figures", "report.html", "report.md", "data-card.json",
    }  # fmt: skip
    assert folder.state(run) == "done"
    assert any((run / "examples").iterdir())


def test_every_metric_is_finite_and_says_what_it_is(
    name: str, finished: Mapping[str, Path]
) -> None:
    metrics = json.loads((finished[name] / "metrics.json").read_text())["metrics"]
    assert sum(metric["primary"] for metric in metrics.values()) == 1
    for key, metric in metrics.items():
        assert math.isfinite(metric["value"]), key
        assert metric["n"] > 0, key
        assert metric["method"], key
        if metric["interval"] is not None:
            low, high = metric["interval"]
            assert low <= metric["value"] <= high, key


def test_the_smoke_run_gives_the_numbers_on_record(
    name: str, finished: Mapping[str, Path]
) -> None:
    """LATENTWORKS_RECORD=1 writes them anew; the diff shows what a change did to the results."""
    results = json.loads((finished[name] / "metrics.json").read_text())
    numbers = {key: metric["value"] for key, metric in results["metrics"].items()}
    numbers |= {"elbo": results["evidence"]["elbo"]}
    record = GOLDEN / f"{name}.json"
    if os.environ.get("LATENTWORKS_RECORD") == "1":
        record.write_text(json.dumps(numbers, indent=2, sort_keys=True) + "\n")
    assert numbers == pytest.approx(json.loads(record.read_text()), rel=1e-3, abs=0.005)


def test_the_evidence_has_one_finite_number_for_each_sample_and_example(
    name: str, finished: Mapping[str, Path]
) -> None:
    config = settings_of(finished[name])
    domain, data = domains.load_domain(name), finished[name] / "data"
    batch = domain.batches(config, data, "train").batch(0, 0)
    evidence = domain.model(config, data).evidence(batch, samples=3)
    shapes = {tuple(term.shape) for term in evidence.log_likelihood.values()}
    shapes |= {tuple(latent.kl().shape) for latent in evidence.latents}
    shapes |= {tuple(latent.log_ratio().shape) for latent in evidence.latents}
    assert len(shapes) == 1
    assert next(iter(shapes))[0] == 3
    for term in (*evidence.log_likelihood.values(), *(latent.kl() for latent in evidence.latents)):
        assert bool(torch.isfinite(term).all())


def test_the_gradient_of_the_objective_reaches_every_parameter(
    name: str, finished: Mapping[str, Path]
) -> None:
    config = settings_of(finished[name])
    domain, data = domains.load_domain(name), finished[name] / "data"
    torch.manual_seed(0)
    model, objective = domain.model(config, data), engine.build_objective(config)
    batch = domain.batches(config, data, "train").batch(0, 0)
    objective(model.evidence(batch, objective.samples)).loss.backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert bool((parameter.grad != 0).any()), key


METHODS = [
    *[(f"objective.kind={section.model_fields['kind'].default}",)
      for section in sections_in(AnyObjective)],
    *[(f"estimator.kind={section.model_fields['kind'].default}", "objective.samples=2")
      for section in sections_in(AnyEstimator)],
    ("schedule.kind=linear",), ("schedule.kind=cosine",), ("schedule.kind=cyclical",),
]  # fmt: skip


@pytest.mark.parametrize("changes", METHODS, ids=lambda changes: changes[0])
def test_every_method_trains_the_domain_or_says_in_one_line_why_not(
    name: str, finished: Mapping[str, Path], changes: tuple[str, ...]
) -> None:
    if changes[0] == "objective.kind=beta-tc":
        changes = (*changes, "objective.examples=1000")
    try:
        config = cli.load(domains, finished[name] / "settings.yaml", changes)
        domain, data = domains.load_domain(name), finished[name] / "data"
        torch.manual_seed(0)
        objective = engine.build_objective(config)
        with engine.reasons(config):
            evidence = domain.model(config, data).evidence(
                domain.batches(config, data, "train").batch(0, 0), objective.samples
            )
            engine.require_estimator(evidence, config)
            loss = objective(evidence, 0.5)
    except UserError as error:
        reason = str(error)
    else:
        reason = None
    if reason is not None:
        assert "\n" not in reason
        assert len(reason) > 40
        return
    loss.loss.backward()
    assert bool(torch.isfinite(loss.loss))
    assert bool(torch.isfinite(loss.value))
    assert loss.bound in ("lower", "upper", "none")


def test_a_batch_is_a_function_of_its_place_alone(name: str, finished: Mapping[str, Path]) -> None:
    config = settings_of(finished[name])
    domain, data = domains.load_domain(name), finished[name] / "data"
    model, objective = domain.model(config, data).eval(), engine.build_objective(config)

    def value(batches: Any, epoch: int) -> float:
        torch.manual_seed(0)
        return float(objective(model.evidence(batches.batch(epoch, 0))).value)

    first, second = (domain.batches(config, data, "train") for _ in range(2))
    later = value(first, 3)
    assert value(first, 1) == value(second, 1)
    assert value(second, 3) == later


def test_a_model_with_latents_has_its_diagnosis_in_the_report(
    name: str, finished: Mapping[str, Path]
) -> None:
    run = finished[name]
    diagnosis = json.loads((run / "metrics.json").read_text())["diagnosis"]
    html, markdown = ((run / file).read_text() for file in ("report.html", "report.md"))
    assert ('id="latents"' in html) == bool(diagnosis["latents"])
    drawn = {path.stem for path in (run / "figures").glob("diagnosis-*.svg")}
    assert bool(drawn) == bool(diagnosis["latents"])
    for group in diagnosis["latents"]:
        assert f"Latents: {group}" in html
        assert f"### Latents: {group}" in markdown
    for figure in drawn:
        assert f"(figures/{figure}.svg)" in markdown
        assert f'id="figure-{figure}"' in html


def test_diagnose_prints_the_numbers_of_the_evaluation(
    name: str, finished: Mapping[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run, out = finished[name], tmp_path / "diagnosis.html"
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert latentworks(name, "diagnose", run, "--json", "--out", out) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["diagnosis"] == json.loads((run / "metrics.json").read_text())["diagnosis"]
    assert out.read_text().startswith("<!DOCTYPE html>")
    assert latentworks(name, "diagnose", run, "--out", out) == 2
    assert "--force" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_the_same_settings_write_the_same_bytes(
    name: str, finished: Mapping[str, Path], tmp_path: Path
) -> None:
    first, second = finished[name], tmp_path / "again"
    assert latentworks("run", smoke(name), "--out", second) == 0
    names = ["metrics.json", "report.html", "report.md", "history.jsonl"]
    names += [path.relative_to(first).as_posix() for path in first.glob("figures/*.svg")]
    for file in names:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file
    one, other = (sorted(run.glob("checkpoints/*/model.safetensors")) for run in (first, second))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def test_killed_and_resumed_writes_the_same_bytes(
    name: str, finished: Mapping[str, Path], tmp_path: Path
) -> None:
    whole, run = finished[name], tmp_path / "run"
    assert latentworks(name, "ingest", smoke(name), "--out", run) == 0
    rows = (whole / "history.jsonl").read_text().count("\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "domains", name, "train", str(run)], cwd=REPOSITORY
    )
    history = run / "history.jsonl"
    while process.poll() is None and not (
        history.exists() and history.read_text().count("\n") >= rows // 2
    ):
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert folder.state(run) == "crashed"
    assert latentworks("resume", run) == 0
    for file in ("metrics.json", "report.html", "history.jsonl"):
        assert (run / file).read_bytes() == (whole / file).read_bytes(), file


@pytest.mark.parametrize(
    ("verb", "first"), [("train", "ingest"), ("evaluate", "train"), ("report", "evaluate")]
)
def test_a_stage_run_too_early_names_the_command_to_run_first(
    name: str, verb: str, first: str, tmp_path: Path
) -> None:
    from core.runtime import stages

    config = cli.load(domains, smoke(name), ())
    run = folder.create(config, out=tmp_path / "run")
    with pytest.raises(UserError, match=f"first run: latentworks {name} {first} ") as caught:
        stages.STAGES[verb](domains.load_domain(name), config, run)
    assert "\n" not in str(caught.value)


def test_results_are_not_overwritten_without_force(
    name: str, finished: Mapping[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = shutil.copytree(finished[name], tmp_path / "copy")
    before = (run / "report.html").read_bytes()
    assert latentworks(name, "evaluate", run) == 2
    assert "--force" in capsys.readouterr().err
    assert latentworks("report", run, "--force") == 0
    assert (run / "report.html").read_bytes() == before
