import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy import ToySettings

from core.runtime import folder
from core.runtime.errors import Interrupted, RunFailed, UserError

SETTINGS = ToySettings(name="t", compute={"threads": 1})
HOLD = """
import sys, time
from pathlib import Path
from core.runtime import folder
with folder.working(Path(sys.argv[1]), "training", then="trained"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_is_named_by_time_and_identity_and_never_twice(tmp_path: Path) -> None:
    first, second = folder.create(SETTINGS, tmp_path), folder.create(SETTINGS, tmp_path)
    assert first.parent == tmp_path / "toy" / "t"
    assert first != second
    assert folder.identity(SETTINGS) in first.name


def test_threads_are_fixed_when_a_run_is_made(tmp_path: Path) -> None:
    run = folder.create(ToySettings(name="t"), tmp_path)
    assert "threads: " + str(len(os.sched_getaffinity(0))) in (run / "settings.yaml").read_text()


def test_the_identity_follows_settings_and_data() -> None:
    other = ToySettings(name="t", seed=1, compute={"threads": 1})
    identities = {
        folder.identity(SETTINGS),
        folder.identity(SETTINGS, "data"),
        folder.identity(other),
    }
    assert len(identities) == 3
    assert folder.identity(SETTINGS) == folder.identity(SETTINGS.model_copy())


def test_a_folder_with_something_in_it_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="exists already"):
        folder.create(SETTINGS, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_in_use_is_refused_and_a_killed_one_is_crashed_at_once(tmp_path: Path) -> None:
    run = folder.create(SETTINGS, tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    assert folder.state(run) == "training"
    with pytest.raises(UserError, match=f"in use by process {process.pid}"), folder.lock(run):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    assert folder.state(run) == "crashed"
    with folder.working(run, "training", then="trained"):
        pass
    assert folder.state(run) == "trained"


@pytest.mark.parametrize(
    ("error", "state"), [(RunFailed("no"), "failed"), (Interrupted(Path("r")), "interrupted")]
)
def test_the_status_says_how_a_stage_ended(tmp_path: Path, error: Exception, state: str) -> None:
    run = folder.create(SETTINGS, tmp_path)
    with pytest.raises(type(error)), folder.working(run, "training", then="trained"):
        raise error
    assert folder.state(run) == state


def test_runs_are_found_by_folder_and_by_alias(tmp_path: Path) -> None:
    runs = [folder.create(SETTINGS, tmp_path) for _ in range(3)]
    for run, value in zip(runs, (2.0, 1.0, 3.0), strict=True):
        metric = {"value": value, "direction": "lower", "primary": True}
        folder.write_json(run / "metrics.json", {"metrics": {"error": metric}})
    assert folder.locate(str(runs[0]), tmp_path) == runs[0]
    assert folder.locate("toy/t@latest", tmp_path) == sorted(runs)[-1]
    assert folder.locate("toy/t@best", tmp_path) == runs[1]


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nowhere", "no run here"),
        ("toy/tt@latest", "no run named 'toy/tt'.*did you mean 'toy/t'"),
        ("toy/t@champ", "alias 'champ' is not one of: latest, best"),
        ("toy/t@best", "none of its 1 runs has been evaluated"),
    ],
)
def test_a_reference_to_no_run_says_why(tmp_path: Path, reference: str, message: str) -> None:
    folder.create(SETTINGS, tmp_path)
    with pytest.raises(UserError, match=message):
        folder.locate(reference, tmp_path)


def test_an_atomic_write_leaves_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    folder.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        folder.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_lineage_names_code_packages_and_threads(tmp_path: Path) -> None:
    lineage = folder.read_json(folder.create(SETTINGS, tmp_path, parent="before") / "lineage.json")
    assert lineage["packages"]["torch"]
    assert lineage["threads"] == 1
    assert len(lineage["code"]["sources"]) == 64
    assert lineage["parent"] == "before"
