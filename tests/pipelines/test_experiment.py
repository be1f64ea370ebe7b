"""The flow on a real Prefect server, embedded, with a home of this session's own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toy

pytest.importorskip("prefect")
import httpx
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings

from core.contract import Domain
from core.runtime import folder, stages
from core.runtime.errors import Interrupted, RunFailed, UserError
from pipelines import embedded, experiment
from pipelines import run as runs

TINY = {"training": {"epochs": 2}, "evaluation": {"samples": 4, "bootstrap": 20}}


class Toy:
    """The toy domain as the flow finds it, counting what it is asked to do."""

    def __init__(self, patch: pytest.MonkeyPatch, home: Path) -> None:
        self.patch = patch
        self.home = home
        self.ran: list[str] = []
        patch.setattr(experiment, "load_config", toy.Catalogue.load_config)
        patch.setattr(experiment, "load_domain", toy.Catalogue.load_domain)
        for name, function in stages.STAGES.items():
            patch.setitem(stages.STAGES, name, self._counted(name, function))

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def stage(domain: Domain[Any, Any, Any], settings: Any, run: Path) -> dict[str, Any]:
            self.ran.append(name)
            return function(domain, settings, run)

        return stage

    def new_run(self) -> Path:
        """A run folder with settings and nothing else."""
        self.home.mkdir(exist_ok=True)
        out = self.home / f"run-{len(list(self.home.iterdir()))}"
        return folder.create(toy.ToySettings.model_validate({"name": "tiny_1.0", **TINY}), out=out)

    def instead_of(self, name: str, function: Callable[..., Any]) -> None:
        """Replace a stage."""
        self.patch.setitem(stages.STAGES, name, self._counted(name, function))

    def run(self, run: Path) -> list[str]:
        """Run the flow and say which stages were really carried out."""
        self.ran.clear()
        runs.run_experiment("toy", run)
        return list(self.ran)


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Toy:
    return Toy(monkeypatch, tmp_path / "runs")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        domain = Toy(patch, tmp_path_factory.mktemp("done"))
        run = domain.new_run()
        assert domain.run(run) == ["ingest", "train", "evaluate", "report"]
    return run


def recorded(run: Path) -> FlowRun:
    with (
        temporary_settings({PREFECT_API_URL: embedded.start()}),
        get_client(sync_client=True) as client,
    ):
        return client.read_flow_run(folder.read_json(run / "lineage.json")["flow_run"])


def test_a_run_ends_with_its_report_and_is_completed_for_prefect(done: Path) -> None:
    assert (done / "report.html").is_file()
    assert folder.state(done) == "done"
    assert recorded(done).state_name == "Completed"


def test_what_passes_through_prefect_is_two_words(done: Path) -> None:
    assert recorded(done).parameters == {"domain": "toy", "run": str(done)}
    assert recorded(done).name == "/".join(done.parts[-3:])


def test_the_metrics_and_the_way_to_the_report_are_artifacts(done: Path) -> None:
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[recorded(done).id]))
    with (
        temporary_settings({PREFECT_API_URL: embedded.start()}),
        get_client(sync_client=True) as client,
    ):
        found = {
            artifact.key: artifact
            for artifact in client.read_artifacts(artifact_filter=wanted)
            if artifact.key
        }
    assert set(found) == {"toy-tiny-1-0-metrics", "toy-tiny-1-0-report"}
    assert "squared_error" in str(found["toy-tiny-1-0-metrics"].data)
    assert (done / "report.html").as_uri() in str(found["toy-tiny-1-0-report"].data)


def test_nothing_runs_twice(done: Path, domain: Toy) -> None:
    before = (done / "report.html").read_bytes()
    assert domain.run(done) == []
    assert (done / "report.html").read_bytes() == before


@pytest.mark.parametrize(
    ("lost", "expected"),
    [("report.html", ["report"]), ("metrics.json", ["evaluate", "report"])],
)
def test_a_stage_whose_output_is_gone_runs_again(
    done: Path, domain: Toy, lost: str, expected: list[str]
) -> None:
    before = (done / lost).read_bytes()
    (done / lost).unlink()
    assert domain.run(done) == expected
    assert (done / lost).read_bytes() == before


def test_a_changed_source_makes_every_stage_stale(
    done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {stage: experiment.stage_key(stage, "toy", done) for stage in stages.STAGES}
    monkeypatch.setattr(folder, "code_version", lambda domain: "edited")
    assert all(experiment.stage_key(name, "toy", done) != key for name, key in before.items())


def test_changed_data_make_what_follows_stale(done: Path) -> None:
    before = {stage: experiment.stage_key(stage, "toy", done) for stage in stages.STAGES}
    card = done / "data-card.json"
    content = card.read_text()
    card.write_text(content.replace("drawn", "drawn again"))
    after = {stage: experiment.stage_key(stage, "toy", done) for stage in stages.STAGES}
    card.write_text(content)
    assert [stage for stage in stages.STAGES if after[stage] != before[stage]] == [
        "train",
        "evaluate",
        "report",
    ]


@pytest.mark.parametrize(
    "error", [UserError("a.csv: no such file"), RunFailed("disk full"), Interrupted(Path("r"))]
)
def test_our_errors_come_through_as_they_are_after_one_try(domain: Toy, error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    domain.instead_of("ingest", fail)
    run = domain.new_run()
    with pytest.raises(type(error)) as caught:
        runs.run_experiment("toy", run)
    assert caught.value is error
    assert domain.ran == ["ingest"]
    assert recorded(run).state_name == "Failed"


def test_a_fault_of_the_network_is_tried_again(
    domain: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = stages.ingest
    faults = [ConnectionResetError("reset by peer"), TimeoutError("too slow")]

    def flaky(*arguments: Any) -> dict[str, Any]:
        if faults:
            raise faults.pop(0)
        return real(*arguments)

    domain.instead_of("ingest", flaky)
    patient = experiment.ingest.with_options(retry_delay_seconds=0)
    monkeypatch.setattr(experiment, "ingest", patient)
    assert domain.run(domain.new_run()) == ["ingest"] * 3 + ["train", "evaluate", "report"]
    assert "reset by peer" in capsys.readouterr().err


def test_prefect_says_nothing_beside_our_own_words(
    domain: Toy, capfd: pytest.CaptureFixture[str]
) -> None:
    domain.run(domain.new_run())
    said = capfd.readouterr()
    assert said.out == ""
    assert not re.search(r"Prefect|\d\d:\d\d:\d\d|Flow run|Task run", said.err)


def test_a_dead_server_is_one_line_that_offers_to_go_on_without(
    domain: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = domain.new_run()
    dead = "http://127.0.0.1:9/api"
    with (
        temporary_settings({PREFECT_API_URL: dead}),
        pytest.raises(UserError, match="--no-prefect") as caught,
    ):
        runs.run_experiment("toy", run)
    assert dead in str(caught.value)
    assert "\n" not in str(caught.value)
    assert domain.ran == []


def test_without_prefect_the_error_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prefect.context", None)
    with pytest.raises(UserError, match=r"latentworks\[flows\]"):
        runs.prepare()


def test_a_server_that_dies_does_not_take_the_run_with_it(
    done: Path, domain: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(*_: object) -> None:
        raise httpx.ConnectError("connection refused")

    monkeypatch.setattr(experiment, "experiment", gone)
    runs.run_experiment("toy", done)
    assert "the run is done" in capsys.readouterr().err
    with pytest.raises(RunFailed, match=r"refused; go on without it: .* --no-prefect"):
        runs.run_experiment("toy", domain.new_run())


START = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
import toy
from pathlib import Path
from pipelines import run
run.prepare()
from pipelines import experiment
from core.runtime import cli
experiment.load_config = toy.Catalogue.load_config
experiment.load_domain = toy.Catalogue.load_domain
{before}
sys.exit(cli.run_app(lambda *_, **__: run.run_experiment("toy", Path({run!r})), []))
"""


SLEEP = (
    "toy.DOMAIN.prepare.__code__ = (lambda config, folder: __import__('time').sleep(600)).__code__"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "during"),
    [
        (signal.SIGTERM, "ingesting"),
        (signal.SIGTERM, "training"),
        (signal.SIGINT, "training"),
        (signal.SIGKILL, "training"),
    ],
)
def test_a_stopped_run_says_how_to_go_on_and_leaves_no_server_behind(
    tmp_path: Path, sent: signal.Signals, during: str
) -> None:
    root = Path(__file__).resolve().parents[2]
    endless = {"name": "tiny", "training": {"epochs": 10_000_000}}
    run = folder.create(toy.ToySettings.model_validate(endless), out=tmp_path / "run")
    before = SLEEP if during == "ingesting" else ""
    script = START.format(root=str(root), tests=str(root / "tests"), run=str(run), before=before)
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: folder.state(run) == during, 60)
    (server,) = children(process.pid)
    process.send_signal(sent)
    said = process.communicate(timeout=60)[1]
    if sent == signal.SIGKILL:
        assert folder.state(run) == "crashed"
    else:
        assert process.returncode == 3
        assert f"latentworks resume {run}" in said
        assert "Traceback" not in said
        assert folder.state(run) == "interrupted"
    wait_for(lambda: not Path(f"/proc/{server}").exists(), 20)


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def children(parent: int) -> list[int]:
    """Processes that a process started."""
    return [
        int(word) for word in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    ]
