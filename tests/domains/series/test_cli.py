"""The verbs as a person uses them, on small trained runs."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

import domains
from core.runtime import cli

ROWS, WINDOW = 420, 16
START = datetime(2024, 3, 1)


def latentworks(*words: object) -> int:
    arguments = [str(word) for word in words]
    return cli.run_app(cli.build_app(domains, arguments), arguments)


def measured(seed: int = 0, rows: int = ROWS) -> np.ndarray:
    """A daily rhythm in a temperature, and people counted that follow it."""
    rng = np.random.default_rng(seed)
    hour = np.arange(rows)
    rhythm = np.sin(2 * np.pi * hour / 24)
    temperature = 15 + 5 * rhythm + rng.normal(0, 0.3, rows)
    people = np.rint(200 + 80 * rhythm + rng.normal(0, 5, rows))
    return np.stack([temperature, people], axis=1)


def write(
    path: Path, values: np.ndarray, start: datetime = START, label: int | None = None
) -> Path:
    """A file as a person has it: dates, a float and a whole number, gaps as nothing."""
    names = ["time", "temperature", "people"] + (["broken"] if label is not None else [])
    lines = [",".join(names)]
    for row, (temperature, people) in enumerate(values):
        cells = [(start + timedelta(hours=row)).strftime("%Y-%m-%d %H:%M")]
        cells.append("" if np.isnan(temperature) else f"{temperature:.3f}")
        cells.append("" if np.isnan(people) else f"{people:.0f}")
        cells += [str(int(row == label))] if label is not None else []
        lines.append(",".join(cells))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each task on one file."""
    folder = tmp_path_factory.mktemp("series")
    write(folder / "data.csv", measured())
    for task in ("generate", "impute", "forecast"):
        horizon = ", horizon: 4" if task == "forecast" else ""
        judges = ", judges: 0" if task == "generate" else ""
        (folder / f"{task}.yaml").write_text(
            "domain: series\n"
            f"data: {{source: file, path: '{folder}/data.csv', window: {WINDOW}}}\n"
            f"task: {{kind: {task}{horizon}{judges}}}\n"
            "model: {kind: koopman-vae, latent: 4, hidden: 32, layers: 2}\n"
            "density: {kind: mixture, components: [2, 4]}\n"
            "training: {epochs: 40, batch: 64, validate_every: 40}\ncompute: {threads: 1}\n"
        )
        words = ("series", "train", folder / f"{task}.yaml", "--out", folder / task)
        assert latentworks(*words) == 0
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    opened = gzip.open(path, "rt") if path.suffix == ".gz" else path.open()
    with opened as file:
        return list(csv.DictReader(file))


def column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) if row[name] else np.nan for row in rows])


def test_generated_series_look_like_the_data_in_every_format(folder: Path, tmp_path: Path) -> None:
    for ending in ("csv", "parquet", "npz", "csv.gz"):
        words = ("--n", 40, "--out", tmp_path / f"g.{ending}", "--seed", 1)
        assert latentworks("series", "generate", folder / "generate", *words) == 0
    rows = rows_of(tmp_path / "g.csv")
    assert list(rows[0]) == ["series", "time", "temperature", "people"]
    assert len(rows) == 40 * WINDOW
    assert len({row["series"] for row in rows}) == 40
    assert rows[0]["time"] == "2024-03-19 00:00"
    assert rows[1]["time"] == "2024-03-19 01:00"
    assert all(row["people"].isdecimal() for row in rows)
    assert rows_of(tmp_path / "g.csv.gz") == rows
    table = parquet.read_table(tmp_path / "g.parquet")
    assert str(table.schema.field("people").type) == "int64"
    assert str(table.schema.field("time").type).startswith("timestamp")
    assert table.column("temperature").to_numpy() == pytest.approx(column(rows, "temperature"))
    real = measured()
    for place, name in enumerate(("temperature", "people")):
        spread = real[:, place].std()
        assert abs(column(rows, name).mean() - real[:, place].mean()) < spread / 2
        assert 0.5 * spread < column(rows, name).std() < 2 * spread


def test_an_array_of_generated_windows_has_series_time_and_channel(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "g.npz"
    assert latentworks("series", "generate", folder / "generate", "--n", 7, "--out", out) == 0
    with np.load(out, allow_pickle=False) as arrays:
        shapes = {name: arrays[name].shape for name in arrays.files}
    assert (7, WINDOW, 2) in shapes.values()


def test_the_same_seed_generates_the_same_bytes_and_another_does_not(
    folder: Path, tmp_path: Path
) -> None:
    words = ("series", "generate", folder / "generate", "--n", 5, "--out")
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert latentworks(*words, tmp_path / f"{name}.csv", "--seed", seed) == 0
    a, b, c = ((tmp_path / f"{name}.csv").read_bytes() for name in "abc")
    assert a == b != c


def test_imputing_keeps_what_is_given_and_finds_the_rest(folder: Path, tmp_path: Path) -> None:
    truth = measured(seed=5, rows=120)
    holes = truth.copy()
    rng = np.random.default_rng(0)
    holes[rng.random(holes.shape) < 0.2] = np.nan
    write(tmp_path / "in.csv", holes, START + timedelta(days=30))
    words = ("series", "impute", folder / "impute", tmp_path / "in.csv", tmp_path / "out.csv")
    assert latentworks(*words, "--samples", 40, "--interval", 90, "--draws", 2) == 0
    given, filled = rows_of(tmp_path / "in.csv"), rows_of(tmp_path / "out.csv")
    assert list(given[0]) == list(filled[0])
    for before, after in zip(given, filled, strict=True):
        assert before["time"] == after["time"]
        assert after["people"].isdecimal()
        for name in ("temperature", "people"):
            if before[name]:
                assert float(before[name]) == float(after[name])
    error = np.abs(column(filled, "temperature") - truth[:, 0])[np.isnan(holes[:, 0])]
    assert error.mean() < 1.5  # the deviation of the data is 3.5
    cells = rows_of(tmp_path / "out.filled.csv")
    assert len(cells) == np.isnan(holes).any(1).sum()
    low, high = column(cells, "people_lower"), column(cells, "people_upper")
    assert np.isnan(low).sum() == len(cells) - np.isnan(holes[:, 1]).sum()
    assert np.all(low[~np.isnan(low)] <= high[~np.isnan(low)])
    assert "temperature_draw2" in cells[0]


def test_a_file_without_gaps_comes_back_as_it_was(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in.csv", measured(seed=2, rows=50))
    words = ("series", "impute", folder / "impute", tmp_path / "in.csv", tmp_path / "out.csv")
    assert latentworks(*words, "--json") == 0
    assert json.loads(capsys.readouterr().out)["filled"] == 0
    given, filled = rows_of(tmp_path / "in.csv"), rows_of(tmp_path / "out.csv")
    for before, after in zip(given, filled, strict=True):
        assert {**before, "temperature": ""} == {**after, "temperature": ""}
        assert float(before["temperature"]) == float(after["temperature"])


@pytest.mark.parametrize(("task", "rolls"), [("forecast", 3), ("generate", 2)])
def test_a_forecast_goes_on_in_time_and_stays_near_the_data(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, rolls: int
) -> None:
    out = tmp_path / "f.csv"
    words = ("series", "forecast", folder / task, "--horizon", 12, "--out", out, "--samples", 50)
    assert latentworks(*words, "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["rolls"] == rolls
    assert "rolling on" in said.err
    rows = rows_of(out)
    assert rows[0]["time"] == (START + timedelta(hours=ROWS)).strftime("%Y-%m-%d %H:%M")
    assert rows[11]["time"] == (START + timedelta(hours=ROWS + 11)).strftime("%Y-%m-%d %H:%M")
    low, middle, high = (column(rows, f"temperature{end}") for end in ("_lower", "", "_upper"))
    assert np.all((low <= middle) & (middle <= high))
    assert np.abs(middle - 15).max() < 10


def test_a_forecast_of_another_file_starts_at_its_end(folder: Path, tmp_path: Path) -> None:
    later = START + timedelta(days=100)
    write(tmp_path / "new.csv", measured(seed=3, rows=60), later)
    words = ("--data", tmp_path / "new.csv", "--horizon", 4, "--out", tmp_path / "f.parquet")
    assert latentworks("series", "forecast", folder / "forecast", *words) == 0
    table = parquet.read_table(tmp_path / "f.parquet")
    assert table.num_rows == 4
    assert table.column("time")[0].as_py() == later + timedelta(hours=60)


@pytest.mark.parametrize("task", ["generate", "impute", "forecast"])
def test_a_broken_row_is_the_most_surprising(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    values = measured(seed=4, rows=90)
    values[50] = [40, 20]
    write(tmp_path / "new.csv", values, label=50)
    words = ("--data", tmp_path / "new.csv", "--label", "broken", "--out", tmp_path / "s.csv")
    assert latentworks("series", "anomaly", folder / task, *words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["top"][0]["row"] == 50
    assert found["top"][0]["time"] == "2024-03-03 02:00"
    assert found["auc_pr"] == 1
    rows = rows_of(tmp_path / "s.csv")
    assert rows[50]["rank"] == "1"
    assert rows[50]["broken"] == "1"
    assert float(rows[50]["score"]) == found["top"][0]["score"]
    assert latentworks("series", "anomaly", folder / task, *words, "--force") == 0
    assert "AUC-PR: 1.000 (at random 0.01" in capsys.readouterr().out


def test_a_model_that_filters_judges_rows_by_all_before_them(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    linear = (
        "model.network=linear", "prior.kind=linear-dynamics", "posterior.kind=gauss-markov",
        "likelihood.kind=normal",
        "likelihood.learned=per_variable", "density.kind=none", "training.epochs=5",
    )  # fmt: skip
    changes = [word for each in linear for word in ("--set", each)]
    words = (folder / "generate.yaml", *changes, "--out", tmp_path / "run")
    assert latentworks("series", "train", *words) == 0
    values = measured(seed=4, rows=90)
    values[50] = [40, 20]
    values[7, 1] = np.nan
    write(tmp_path / "new.csv", values)
    scores = {}
    for rows in (90, 30):  # what comes later changes nothing
        write(tmp_path / f"{rows}.csv", values[:rows])
        words = ("--data", tmp_path / f"{rows}.csv", "--out", tmp_path / f"s{rows}.csv")
        assert latentworks("series", "anomaly", tmp_path / "run", *words) == 0
        scores[rows] = column(rows_of(tmp_path / f"s{rows}.csv"), "score")
    assert scores[90].argmax() == 50
    assert np.isfinite(scores[90]).all()
    assert scores[90][:30] == pytest.approx(scores[30], rel=1e-3)
    assert "temperature" in capsys.readouterr().out


def test_the_spectrum_is_a_table_a_figure_a_page_and_numbers(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for ending in ("json", "svg", "html"):
        out = tmp_path / f"s.{ending}"
        assert latentworks("series", "spectrum", folder / "generate", "--out", out) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "s.json").read_text())
    assert found["unit"] == "s"
    assert found["interval"] == 3600
    modes = found["modes"]
    assert sum(mode["energy"] for mode in modes) == pytest.approx(1)
    for mode in modes:
        assert 0 < mode["modulus"] < 1
        steps = np.log(0.5) / np.log(mode["modulus"])
        assert mode["half_life_steps"] == pytest.approx(steps, rel=1e-3)
        assert mode["half_life"] == pytest.approx(3600 * steps, rel=1e-3)
    assert printed.count("|λ|") == 3
    assert (tmp_path / "s.svg").read_text().count("</svg>") == 1
    assert (tmp_path / "s.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("kind", ["mcar", "block", "rows"])
def test_a_masked_file_and_its_hidden_values_make_the_file_again(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "masked.csv"
    words = ("--kind", kind, "--fraction", 0.3, "--out", out)
    assert latentworks("series", "mask", folder / "data.csv", *words) == 0
    whole, left = rows_of(folder / "data.csv"), rows_of(out)
    truth = {row["time"]: row for row in rows_of(tmp_path / "masked.hidden.csv")}
    hidden = 0
    for before, after in zip(whole, left, strict=True):
        for name in ("temperature", "people"):
            found = after[name] or truth[after["time"]][name]
            hidden += not after[name]
            assert float(found) == float(before[name])
    assert hidden == pytest.approx(0.3 * 2 * ROWS, abs=2)


def test_inspect_says_what_a_file_holds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert latentworks("series", "inspect", folder / "data.csv") == 0
    said = capsys.readouterr().out
    assert "temperature" in said
    assert "people" in said
    assert latentworks("series", "inspect", folder / "data.csv", "--json") == 0
    assert isinstance(json.loads(capsys.readouterr().out), dict)


@pytest.mark.slow
def test_scores_tell_a_copy_from_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A copy is as good as the floor by construction; white noise is told at once."""
    values = measured(rows=150)
    write(tmp_path / "real.csv", values)
    write(tmp_path / "copy.csv", values)
    rng = np.random.default_rng(0)
    write(tmp_path / "noise.csv", rng.permutation(values))
    found = {}
    for name in ("copy", "noise"):
        words = (tmp_path / "real.csv", tmp_path / f"{name}.csv", "--window", 8, "--judges", 2)
        assert latentworks("series", "score", *words, "--json") == 0
        found[name] = json.loads(capsys.readouterr().out)["scores"]
    for score in ("discriminative_score", "predictive_score"):
        floor = found["copy"][score]["floor"]
        assert found["copy"][score]["value"] == pytest.approx(floor, rel=1e-3)
    assert found["copy"]["correlational_score"]["value"] == pytest.approx(0, abs=1e-9)
    noise = found["noise"]["discriminative_score"]
    assert noise["value"] > 0.15 > 0.1 > noise["floor"]  # a judge has one unit here


MISTAKES = [
    (["generate", "{run}", "--out", "g.txt"], "expected .csv"),
    (["generate", "{run}", "--out", "{data}"], "exists already"),
    (["generate", "{run}", "--out", "g.csv", "--n", "0"], "--n: got 0, expected at least 1"),
    (["generate", "{run}", "--out", "g.csv", "--start", "soon"], "--start: got 'soon'"),
    (["generate", "{run}", "--out", "g.csv", "--length", "9"], "--length: got 9"),
    (["generate", "nowhere", "--out", "g.csv"], "no run here"),
    (["generate", "{graph}", "--out", "g.csv"], "is a run of domain 'graph'"),
    (["generate", "{untrained}", "--out", "g.csv"], "first run: latentworks series train"),
    (["impute", "{run}", "no.csv", "o.csv"], "no.csv: no such file"),
    (["impute", "{run}", "{other}", "o.csv"], "no channel 'people'; the run was trained on"),
    (
        ["impute", "{run}", "{timeless}", "o.csv"],
        "has no times; the run was trained on series with times",
    ),
    (["impute", "{run}", "{data}", "{data}"], "exists already"),
    (["impute", "{run}", "{data}", "o.csv", "--interval", "0.9x"], "--interval"),
    (["impute", "{run}", "{data}", "o.csv", "--interval", "120"], "--interval: got 120"),
    (["impute", "{run}", "{data}", "o.csv", "--draws", "200"], "at most --samples, 100"),
    (["forecast", "{run}", "--horizon", "421", "--out", "f.csv"], "expected 1 to 420"),
    (["forecast", "{run}", "--samples", "1", "--out", "f.csv"], "--samples: got 1"),
    (["anomaly", "{run}", "--label", "x", "--out", "s.csv"], "belongs to --data"),
    (["spectrum", "{run}", "--out", "s.pdf"], "expected .html, .svg, .json"),
    (["mask", "{data}", "--fraction", "2", "--out", "m.csv"], "--fraction: got 2"),
    (["mask", "{data}", "--kind", "some", "--out", "m.csv"], "some"),
    (["score", "{data}", "{other}"], "no channel 'people'"),
    (["score", "{data}", "{data}", "--window", "400"], "21 windows of 400 rows"),
    (["score", "{data}", "{holes}", "--window", "8"], "is missing in row 3"),
    (["inspect", "{graph}"], "a folder"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=lambda each: " ".join(each[:1]))
def test_a_mistake_is_one_line_and_nothing_is_written(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    given = tmp_path / "given"
    (given / "graph").mkdir(parents=True)
    (given / "graph" / "settings.yaml").write_text("domain: graph\nname: g\n")
    (given / "other.csv").write_text(
        "time,temperature\n" + "".join(f"2024-01-{day:02d},{day}.5\n" for day in range(1, 30))
    )
    (given / "timeless.csv").write_text(
        "temperature,people\n" + "".join(f"{row}.5,{row}\n" for row in range(30))
    )
    values = measured()
    values[3, 0] = np.nan
    write(given / "holes.csv", values)
    if "{untrained}" in words:
        settings = folder / "generate.yaml"
        assert latentworks("series", "ingest", settings, "--out", given / "untrained") == 0
    places = {"untrained": given / "untrained"}
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    places |= {path.stem: path for path in given.iterdir()}
    places |= {"run": folder / "generate", "data": folder / "data.csv"}
    before = places["data"].read_bytes()
    capsys.readouterr()
    assert latentworks("series", *(word.format(**places) for word in words)) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.strip().count("\n") == 0
    assert said.out == ""
    assert places["data"].read_bytes() == before
    assert list((tmp_path / "here").iterdir()) == []


VERBS = [
    ["generate", "--n", "3", "--out", "g.csv"],
    ["generate", "--n", "3", "--length", "7", "--out", "l.csv"],
    ["impute", "{holes}", "o.csv", "--samples", "4", "--interval", "80"],
    ["forecast", "--horizon", "9", "--samples", "4", "--out", "f.csv"],
    ["anomaly", "--data", "{holes}", "--samples", "2", "--out", "s.csv"],
    ["spectrum", "--json"],
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["koopman-vae-paper", "tv-inr", "process-vae", "degradation-cvae"]
)
def test_every_model_does_what_a_verb_asks_or_says_in_one_line_why_not(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    values = measured(seed=6, rows=60)
    values[10:13, 0] = values[30, :] = np.nan
    holes = write(tmp_path / "holes.csv", values)
    (tmp_path / "run.yaml").write_text(
        "domain: series\nname: run\n"
        f"data: {{source: file, path: '{folder}/data.csv', window: {WINDOW}}}\n"
        "task: {kind: generate, judges: 0}\n"
        f"model: {{kind: {model}, latent: 4, hidden: 16}}\ndensity: {{kind: none}}\n"
        "training: {epochs: 2, batch: 64, validate_every: 2}\ncompute: {threads: 1}\n"
    )
    assert latentworks("series", "train", "run.yaml", "--out", "run") == 0
    done = set()
    for verb, *words in VERBS:
        capsys.readouterr()
        status = latentworks("series", verb, "run", *(word.format(holes=holes) for word in words))
        said = capsys.readouterr()
        assert status in (0, 2), said.err
        if status == 2:
            assert said.err.strip().count("\n") == 0
            assert not list(tmp_path.glob(words[-1]))
        else:
            done.add(verb)
    assert done >= {"impute", "forecast", "anomaly"}
    assert np.isfinite(column(rows_of(tmp_path / "o.csv"), "temperature")).all()
    assert np.isfinite(column(rows_of(tmp_path / "f.csv"), "people_upper")).all()
