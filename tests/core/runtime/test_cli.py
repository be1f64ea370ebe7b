import json
import subprocess
import sys
from pathlib import Path

import pytest
from toy import Catalogue

from core.runtime import cli, folder

TINY = "domain: toy\ntraining: {epochs: 4, log_every: 2}\ncompute: {threads: 1}\n"


def latentworks(*words: object) -> int:
    arguments = [str(word) for word in words]
    return cli.run_app(cli.build_app(Catalogue, arguments), arguments)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture
def run(tiny: Path) -> Path:
    assert latentworks("run", tiny, "--runs", tiny.parent / "runs") == 0
    return folder.all_runs(tiny.parent / "runs")[0]


def test_run_does_everything_and_says_where_the_report_is(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert latentworks("run", tiny, "--runs", tiny.parent / "runs", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["state"] == "done"
    assert Path(result["report"]).is_file()
    assert result["primary"]["name"] == "squared_error"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "no.yaml"], "no.yaml"),
        (["run", "{}", "--set", "training.epoch=3"], "did you mean 'epochs'"),
        (["run", "{}", "--set", "training.epochs=-1"], "greater than 0, got -1"),
        (["run", "{}", "--set", "training"], "training"),
        (["run", "{}", "--sett", "a=1"], "--sett"),
        (["resume", "nowhere"], "nowhere: no run here"),
        (["compare", "nowhere"], "name two or more"),
        (["nothing"], "nothing"),
        (["toy", "evaluate"], "RUN"),
        (["config", "explain", "{}", "training.epoch"], "epoch"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_status_2(
    tiny: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert latentworks(*(word.format(tiny) for word in words)) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert not Path("runs/toy").exists()


def test_the_states_of_runs_are_listed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert latentworks("runs", "--runs", run.parents[2], "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["run"], row["state"]) == (run.as_posix(), "done")
    assert row["result"].startswith("squared_error ")


def test_a_finished_run_is_not_resumed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "status.json").read_bytes()
    assert latentworks("resume", run) == 0
    assert "nothing to resume" in capsys.readouterr().err
    assert (run / "status.json").read_bytes() == before


def test_an_interrupted_run_is_resumed_to_its_report(tiny: Path) -> None:
    run = tiny.parent / "r"
    assert latentworks("toy", "ingest", tiny, "--out", run) == 0
    assert latentworks("resume", run) == 0
    assert (run / "report.html").is_file()


def test_reproduce_agrees_with_the_run_to_the_bit(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert latentworks("reproduce", run, "--runs", run.parents[2]) == 0
    assert "squared_error" in capsys.readouterr().out
    again = folder.all_runs(run.parents[2])[1]
    assert (again / "report.html").read_bytes() == (run / "report.html").read_bytes()
    assert folder.read_json(again / "lineage.json")["parent"] == run.name


def test_reproduce_says_which_metric_does_not_agree(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = folder.read_json(run / "metrics.json")
    metrics["metrics"]["squared_error"]["value"] *= 1.001
    folder.write_json(run / "metrics.json", metrics)
    assert latentworks("reproduce", run, "--runs", run.parents[2]) == 1
    assert "does not agree" in capsys.readouterr().err
    assert latentworks("reproduce", run, "--tolerance", "0.01", "--runs", run.parents[2]) == 0


def test_compare_shows_only_the_settings_that_differ(
    tiny: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = run.parents[2]
    assert latentworks("run", tiny, "--set", "seed=1", "--runs", runs) == 0
    capsys.readouterr()
    out = runs / "compare.html"
    assert latentworks("compare", *folder.all_runs(runs), "--out", out) == 0
    text = capsys.readouterr().out
    assert "seed" in text
    assert "epochs" not in text
    assert "squared_error" in out.read_text()
    assert latentworks("compare", *folder.all_runs(runs), "--out", out) == 2


def test_a_run_in_use_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; from pathlib import Path; from core.runtime import folder\n"
        "with folder.lock(Path(sys.argv[1])): print(1, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert latentworks("toy", "evaluate", run, "--force") == 2
        process.kill()
    assert "in use by process" in capsys.readouterr().err


def test_an_unknown_domain_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import domains

    path = tmp_path / "x.yaml"
    path.write_text("domain: grpah\n")
    arguments = ["run", str(path)]
    assert cli.run_app(cli.build_app(domains, arguments), arguments) == 2
    assert "no domain 'grpah'; did you mean 'graph'" in capsys.readouterr().err


def test_a_run_of_several_devices_is_evaluated_by_one_process(run: Path) -> None:
    settings = run / "settings.yaml"
    several = settings.read_text().replace("devices: 1", "devices: 2")
    settings.write_text(several)
    for record in run.glob("checkpoints/*/checkpoint.json"):
        record.write_text(record.read_text().replace('"devices": 1', '"devices": 2'))
    assert latentworks("toy", "evaluate", run, "--force") == 0
