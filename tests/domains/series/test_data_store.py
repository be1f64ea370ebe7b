"""From a source to the run's folder and back."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from core.runtime.errors import UserError
from domains.series.config import Config, Data, Hide
from domains.series.data import Clock, Panel, Series, load, prepare, sources, store
from domains.series.data.build import build
from domains.series.data.splits import SPLITS
from domains.series.data.store import ARRAYS, CARD, NAMES

HOURS = Clock(kind="datetime", column="when", zone="Europe/Berlin", form="iso", interval=3600.0)


def a_panel(lengths: tuple[int, ...] = (300,), channels: int = 3, missing: float = 0.1) -> Panel:
    rng = np.random.default_rng(0)
    series = []
    for index, length in enumerate(lengths):
        values = rng.normal(5, 2, size=(length, channels)).cumsum(axis=0)
        values[rng.random(values.shape) < missing] = np.nan
        label = (np.arange(length) % 50 == 0).astype(np.int64)
        lines = np.arange(2, length + 2)
        series.append(Series(f"s{index}", 3600.0 * np.arange(length), values, label, lines))
    names = tuple(f"c{j}" for j in range(channels))
    return Panel(
        series=tuple(series),
        channels=names,
        dtypes=("float64",) * channels,
        clock=HOURS,
        identifier="unit",
        notes=("merged 2 rows",),
        label="bad",
        columns={"when": "object", "unit": "str", **dict.fromkeys(names, "float64"), "bad": "i8"},
    )


def with_values(panel: Panel, values: np.ndarray, series: int = 0) -> Panel:
    changed = list(panel.series)
    changed[series] = replace(changed[series], values=values)
    return replace(panel, series=tuple(changed))


def built(panel: Panel, **changes: object) -> tuple[object, tuple[str, ...]]:
    return build(panel, Data(source="sines", **changes), seed=0, place="a.csv")  # type: ignore[arg-type]


def hashes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.fixture
def from_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Settings of a file whose reader returns a panel made here."""
    path = tmp_path / "secret place" / "measured.csv"
    path.parent.mkdir()
    path.write_text("anything")
    monkeypatch.setattr(sources, "_read_file", lambda path, data: a_panel((300, 200)))
    hide = Hide(kind="block", fraction=0.3, length=5)
    return Config(name="x", data=Data(source="file", path=str(path), hide=hide))


def test_what_is_loaded_is_what_was_prepared(from_file: Config, tmp_path: Path) -> None:
    prepare(from_file, tmp_path / "data")
    found = load(tmp_path / "data")
    expected, _ = build(a_panel((300, 200)), from_file.data, from_file.seed, "a.csv")
    for one, other in zip(found.panel.series, expected.panel.series, strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one.values, other.values)
        np.testing.assert_array_equal(one.times, other.times)
        np.testing.assert_array_equal(one.label, other.label)
        np.testing.assert_array_equal(one.lines, other.lines)
    assert asdict(replace(found.panel, series=())) == asdict(replace(expected.panel, series=()))
    assert list(found.panel.columns) == ["when", "unit", "c0", "c1", "c2", "bad"]
    for name in ("hidden", "train_rows"):
        for one, other in zip(getattr(found, name), getattr(expected, name), strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(found.scaler.shift, expected.scaler.shift)
    np.testing.assert_array_equal(found.scaler.scale, expected.scaler.scale)
    assert all(np.array_equal(found.windows[name], expected.windows[name]) for name in SPLITS)
    assert (found.window, found.season, found.spacing) == (24, expected.season, "clock")


def test_preparing_again_changes_nothing_and_elsewhere_gives_the_same_bytes(
    from_file: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = prepare(from_file, tmp_path / "data")
    before = hashes(tmp_path / "data")
    assert prepare(from_file, tmp_path / "other") == card
    assert hashes(tmp_path / "other") == before
    monkeypatch.setattr(sources, "_read_file", lambda path, data: pytest.fail("read again"))
    assert prepare(from_file, tmp_path / "data") == card
    assert hashes(tmp_path / "data") == before


def test_no_path_of_the_machine_is_written(from_file: Config, tmp_path: Path) -> None:
    card = prepare(from_file, tmp_path / "data")
    assert card.source == "measured.csv"
    assert card.licence == "unknown"
    for path in (tmp_path / "data").iterdir():
        assert b"secret place" not in path.read_bytes()


def test_the_card_counts_what_there_is(from_file: Config, tmp_path: Path) -> None:
    facts = prepare(from_file, tmp_path / "data").facts
    panel = a_panel((300, 200))
    missing = np.mean([np.isnan(np.concatenate([s.values for s in panel.series])).mean()])
    assert (facts["series"], facts["channels"], facts["rows"]) == (2, 3, 500)
    assert facts["train windows"] == (210 - 23) + (140 - 23)
    assert facts["valid windows"] == 30 - 23
    assert facts["test windows"] == (60 - 23) + (40 - 23)
    assert facts["interval"] == "1 h"
    assert facts["missing share"] == pytest.approx(missing, abs=1e-6)
    assert facts["hidden share"] == pytest.approx(0.3, abs=2e-3)


@pytest.mark.parametrize("change", [{"seed": 1}, {"window": 20}, {"hide": Hide(kind="mcar")}])
def test_the_fingerprint_tells_other_data_apart(
    change: dict[str, object], from_file: Config, tmp_path: Path
) -> None:
    data = {key: value for key, value in change.items() if key != "seed"}
    other = from_file.model_copy(
        update={"seed": change.get("seed", 0), "data": from_file.data.model_copy(update=data)}
    )
    first, second = prepare(from_file, tmp_path / "data"), prepare(other, tmp_path / "data")
    assert first.fingerprint != second.fingerprint
    assert prepare(from_file, tmp_path / "data") == first


@pytest.mark.parametrize("name", [CARD, ARRAYS, NAMES])
@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_damaged_files_are_said_to_be_so_and_made_again(
    name: str, damage: str, from_file: Config, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    card = prepare(from_file, folder)
    path, whole = folder / name, (folder / name).read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        old, new = {
            CARD: (b'"fingerprint": "', b'"fingerprint": "0'),
            NAMES: (b"unit", b"item"),
        }.get(name, (whole[2000:2100], bytes(100)))
        path.write_bytes(whole.replace(old, new))
    with pytest.raises(UserError, match="run the ingest stage"):
        load(folder)
    assert prepare(from_file, folder) == card
    assert load(folder).window == 24


def test_hidden_and_later_values_do_not_reach_the_scaling() -> None:
    panel = a_panel(missing=0.0)
    data = Data(source="sines", hide=Hide(kind="rows", fraction=0.4))
    first, _ = build(panel, data, seed=0, place="")
    values = panel.series[0].values.copy()
    values[first.hidden[0] | ~first.train_rows[0][:, None]] = 1e4
    second, _ = build(with_values(panel, values), data, seed=0, place="")
    np.testing.assert_array_equal(first.hidden[0], second.hidden[0])
    np.testing.assert_array_equal(first.scaler.shift, second.scaler.shift)
    np.testing.assert_array_equal(first.scaler.scale, second.scaler.scale)
    assert first.train_rows[0].sum() == 210


def test_no_row_is_in_windows_of_two_splits() -> None:
    for kind, lengths in (("chronological", (300, 240)), ("series", (90,) * 9)):
        dataset, _ = built(a_panel(lengths), split=kind)
        rows = {
            name: {
                (s, first + k) for s, first in dataset.windows[name].tolist() for k in range(24)
            }  # type: ignore[attr-defined]
            for name in SPLITS
        }
        assert not rows["train"] & rows["valid"]
        assert not rows["train"] & rows["test"]
        assert not rows["valid"] & rows["test"]


def test_timegans_protocol_is_said_to_test_on_what_was_trained_on() -> None:
    dataset, notes = built(a_panel((100,)), split="windows")
    assert dataset.windows["train"].tolist() == dataset.windows["test"].tolist()  # type: ignore[attr-defined]
    assert len(dataset.windows["train"]) == 77  # type: ignore[attr-defined]
    assert any("TimeGAN's protocol" in note for note in notes)


def test_windows_in_which_nothing_can_be_seen_are_left_out() -> None:
    panel = a_panel((300,), missing=0.0)
    values = panel.series[0].values.copy()
    values[50:90] = np.nan
    dataset, notes = built(with_values(panel, values))
    starts = dataset.windows["train"][:, 1]  # type: ignore[attr-defined]
    assert not set(range(50, 90 - 23)) & set(starts.tolist())
    assert len(starts) == 187 - 17
    assert "17 windows without any value left out" in notes


def test_at_most_so_many_windows_are_kept_in_the_splits_proportions() -> None:
    dataset, _ = built(a_panel((1000,)), windows=200)
    counts = [len(dataset.windows[name]) for name in SPLITS]  # type: ignore[attr-defined]
    whole = np.array([677, 77, 177])
    assert sum(counts) <= 200
    np.testing.assert_allclose(counts, 200 * whole / whole.sum(), atol=1)


def test_short_series_are_refused_by_name_or_padded() -> None:
    panel = a_panel((300, 7, 12))
    with pytest.raises(UserError, match=r"a\.csv: 2 of 3 .*'s1' 7 rows, 's2' 12 .*window to 7 or"):
        built(panel)
    with pytest.raises(
        UserError, match=r"1 of 2 .*'s1' 1 rows\); leave them out, or set data\.pad"
    ):
        built(a_panel((300, 1)))
    dataset, _ = built(panel, pad=True)
    assert [1, 0] in dataset.windows["train"].tolist()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("lengths", "changes", "message"),
    [
        ((100,), {}, r"47 train windows of 24 rows; at least 50"),
        ((24,) * 60, {}, r"0 train windows .* or data.split to 'series'"),
        ((200,), {}, r"the valid part, of which the longest stretch is 20 rows; set data.valid_f"),
        ((300,), {"test_fraction": 0.05}, r"the test part, .* 15 rows; set data.test_fraction"),
        ((300, 300), {"split": "series"}, r"2 series; at least 3"),
    ],
)
def test_too_little_is_said_with_what_to_change(
    lengths: tuple[int, ...], changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        built(a_panel(lengths), **changes)
    assert "\n" not in str(caught.value)


def test_a_channel_that_is_empty_or_constant_in_the_train_part_is_named() -> None:
    panel = a_panel(missing=0.0)
    values = panel.series[0].values.copy()
    values[:, 0] = 4.0
    dataset, notes = built(with_values(panel, values))
    assert dataset.scaler.scale[0] == 1  # type: ignore[attr-defined]
    assert "constant in the train part, not scaled: c0" in notes
    values[:210, 1] = np.nan
    with pytest.raises(UserError, match="'c1': no value in the train part"):
        built(with_values(panel, values))


def test_values_far_from_the_train_part_are_pointed_out_and_wild_ones_refused() -> None:
    panel = a_panel(missing=0.0)
    values = panel.series[0].values.copy()
    values[250, 2] = -999_999.0
    _, notes = built(with_values(panel, values))
    assert any("'c2': -999999 is" in note and "na_values" in note for note in notes)
    values[250, 2] = 1e300
    with pytest.raises(UserError, match=r"a\.csv: channel 'c2': 1e\+300 .*data\.na_values"):
        built(with_values(panel, values))


def test_a_panel_without_channels_is_refused() -> None:
    with pytest.raises(UserError, match=r"a\.csv: no channel; name at least one"):
        built(a_panel(channels=0))


def test_the_embedded_sources_are_prepared(tmp_path: Path) -> None:
    card = prepare(Config(name="x", data=Data()), tmp_path / "stock")
    assert (card.facts["rows"], card.facts["channels"]) == (2148, 6)
    assert card.facts["season"] == "none found"
    assert load(tmp_path / "stock").spacing == "rows"
    data = Data(source="sines", windows=80, split="windows", scaling="min-max")
    card = prepare(Config(name="x", data=data), tmp_path / "sines")
    assert card.facts["train windows"] == 80
    values = load(tmp_path / "sines").scaler.apply(
        np.concatenate([one.values for one in load(tmp_path / "sines").panel.series])
    )
    assert (values.min(axis=0) == 0).all()
    assert (values.max(axis=0) == 1).all()


def test_months_count_as_even_and_that_is_said() -> None:
    months = np.arange("1950-01", "1990-01", dtype="datetime64[M]").astype("datetime64[s]")
    panel = a_panel((480,))
    one = replace(panel.series[0], times=months.astype(np.int64).astype(float))
    clock = replace(HOURS, interval=31 * 86_400.0)
    _, notes = built(replace(panel, series=(one,), clock=clock))
    assert "times within a tenth of a step of an even grid count as even" in notes
    assert not any("even grid" in note for note in built(panel)[1])


@pytest.mark.parametrize(
    ("kind", "interval", "words"),
    [
        ("datetime", 86_400.0, "1 day"),
        ("datetime", 7 * 86_400.0, "7 days"),
        ("datetime", 0.02, "0.02 s"),
        ("number", 0.25, "0.25"),
        ("index", 1.0, "1 row"),
    ],
)
def test_an_interval_is_written_with_its_unit(kind: str, interval: float, words: str) -> None:
    clock = Clock(kind=kind, column="", zone="", form="", interval=interval)  # type: ignore[arg-type]
    assert store.interval_words(clock) == words
