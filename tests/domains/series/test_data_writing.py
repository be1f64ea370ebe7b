from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.runtime.errors import UserError
from domains.series.config import Data
from domains.series.data import Clock, Panel, Series, read_panel, read_unchecked, write_panel

LIMITS: Mapping[str, tuple[float, float]] = {
    "int64": (-(2.0**53), 2.0**53),
    "Int64": (-(2.0**53), 2.0**53),
    "uint8": (0, 255),
    "Int16": (-32768, 32767),
}
FORMS = {
    "%Y-%m-%d %H:%M:%S": (1.0, ""),
    "%Y-%m-%dT%H:%M:%S.%3fZ": (0.001, "UTC"),
    "%d.%m.%Y %H:%M": (60.0, ""),
    "%Y-%m-%dT%H:%M%:z": (60.0, "+05:30"),
    "%Y%m%d": (86400.0, ""),
    "%Y-%m-%d": (86400.0, ""),
}


def reread(path: Path, **options: Any) -> Panel:
    return read_unchecked(path, Data(source="file", path=str(path), **options))


def assert_same(one: Panel, other: Panel, dtypes: bool = True) -> None:
    assert one.channels == other.channels
    assert one.clock == other.clock
    assert one.identifier == other.identifier
    assert one.label == other.label
    if dtypes:
        assert one.dtypes == other.dtypes
    for left, right in zip(one.series, other.series, strict=True):
        assert left.name == right.name
        np.testing.assert_array_equal(left.times, right.times)
        np.testing.assert_array_equal(left.values, right.values)
        if left.label is not None:
            np.testing.assert_array_equal(left.label, right.label)


@st.composite
def panels(draw: st.DrawFn) -> Panel:
    """Panels as a file may hold them."""
    dtypes = draw(st.lists(st.sampled_from(["float64", "int64", "Int64"]), min_size=1, max_size=4))
    clock, unit = draw(clocks())
    count = draw(st.integers(1, 3))
    labelled = draw(st.booleans())
    series = []
    for number in range(count):
        rows = draw(st.integers(2, 6))
        steps = draw(st.lists(st.integers(1, 999), min_size=rows, max_size=rows))
        start = round(1e9 / 86400) * round(86400 / unit) if clock.kind == "datetime" else -10
        times = np.arange(rows) if clock.kind == "index" else (start + np.cumsum(steps)) * unit
        if clock.kind == "datetime":
            times = np.rint(times * 1e6) / 1e6
        values = np.stack([column(draw, kind, rows) for kind in dtypes], axis=1)
        label = np.array(draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows)))
        series.append(
            Series(
                f"s{number}" if count > 1 else "",
                times.astype(np.float64),
                values,
                label if labelled else None,
            )
        )
    return Panel(
        series=tuple(series),
        channels=tuple(f"x {place}" for place in range(len(dtypes))),
        dtypes=tuple(dtypes),
        clock=clock,
        identifier="id" if count > 1 else "",
        label="is_anomaly" if labelled else "",
    )


@st.composite
def clocks(draw: st.DrawFn) -> tuple[Clock, float]:
    kind = draw(st.sampled_from(["datetime", "number", "index"]))
    if kind == "datetime":
        form = draw(st.sampled_from(sorted(FORMS)))
        unit, zone = FORMS[form]
        if zone == "+05:30":
            return Clock(kind=kind, column="time", zone=zone, form=form, interval=1.0), unit
        return Clock(kind=kind, column="time", zone=zone, form=form, interval=1.0), unit
    if kind == "number":
        form = draw(st.sampled_from(["int64", "float64"]))
        unit = 1.0 if form == "int64" else 0.37
        return Clock(kind=kind, column="time", zone="", form=form, interval=1.0), unit
    return Clock(kind="index", column="", zone="", form="", interval=1.0), 1.0


def column(draw: st.DrawFn, dtype: str, rows: int) -> np.ndarray:
    """Values of a dtype; some unknown where it has room for them."""
    if dtype == "float64":
        numbers = st.floats(allow_nan=True, allow_infinity=False)
    else:
        low, high = LIMITS[dtype]
        numbers = st.integers(int(low), int(high)).map(float)
        numbers = numbers | st.just(np.nan) if dtype == "Int64" else numbers
    values = np.array(draw(st.lists(numbers, min_size=rows, max_size=rows)), dtype=np.float64)
    if dtype == "Int64":  # read again, a column without gaps is int64, one without numbers text
        values[0], values[1] = np.nan, 5
    if dtype == "float64":
        values[0] = 0.5
    return values


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(panel=panels(), ending=st.sampled_from([".csv", ".tsv", ".csv.gz", ".parquet", ".npz"]))
def test_what_is_written_is_read_again_to_the_last_bit(
    panel: Panel, ending: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a{ending}"
    write_panel(path, panel)
    found = reread(path)
    if ending == ".parquet" and panel.clock.kind == "datetime":
        assert found.clock.form == "datetime64[us]"
        found = replace(found, clock=replace(found.clock, form=panel.clock.form))
    assert_same(replace(panel, clock=replace(panel.clock, interval=found.clock.interval)), found)
    again = tmp_path / f"b{ending}"
    write_panel(again, reread(path))
    assert_same(reread(path), reread(again))
    if ending != ".npz":
        assert again.read_bytes() == path.read_bytes()


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(panel=panels())
def test_ts_files_hold_times_and_values_without_names(panel: Panel, tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    write_panel(path, panel)
    found = reread(path)
    for left, right in zip(panel.series, found.series, strict=True):
        np.testing.assert_array_equal(left.times, right.times)
        np.testing.assert_array_equal(left.values, right.values)


TABLES = {
    "interleaved series": "Open,Ticker,Date\n1.5,B,2020-01-01\n2.5,A,2020-01-01\n"
    "3.5,B,2020-01-02\n4.25,A,2020-01-02\n",
    "last first": "date,a\n2020-01-03,1\n2020-01-02,\n2020-01-01,3\n",
    "year and quarter": "gdp,year,quarter\n1,1959,3\n2,1959,4\n5,1960,1\n",
    "year, month, day": "year,month,day,a\n1959,3,31\n".replace("31\n", "31,1\n") + "1959,4,1,2\n",
    "date and time": "Date,Time,a\n31/12/2003,17:00,1\n01/01/2004,18:00,2\n",
    "labels": "timestamp,a,is_anomaly\n1970-01-01 00:04:40.000,1,0\n1970-01-01 00:04:40.015,5,1\n",
    "months": "month,a\nJan-2004,1\nFeb-2004,2\n",
    "truths": "t,a\n0,True\n1,False\n",
    "zones": "time,a\n2016-03-27T01:00:00+01:00,1\n2016-03-27T03:00:00+01:00,2\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_written_as_it_was(name: str, tmp_path: Path) -> None:
    path, out = tmp_path / "a.csv", tmp_path / "b.csv"
    path.write_text(TABLES[name])
    write_panel(out, reread(path))
    assert out.read_text() == TABLES[name]


def test_filled_values_of_whole_numbers_are_rounded_into_their_dtype(tmp_path: Path) -> None:
    path, out = tmp_path / "a.parquet", tmp_path / "b.parquet"
    frame = pd.DataFrame({"t": [0, 1, 2], "n": pd.array([1, None, 3], dtype="UInt8"), "x": 0.5})
    frame["x"] = frame["x"].astype("float32")
    frame.to_parquet(path)
    panel = reread(path)
    assert panel.dtypes == ("UInt8", "float32")
    values = panel.series[0].values.copy()
    values[:, 0] = [1, -3.7, 300]
    values[1, 1] = 0.1
    write_panel(out, replace(panel, series=(replace(panel.series[0], values=values),)))
    table = pyarrow.parquet.read_table(out)
    assert [str(kind) for kind in table.schema.types] == ["int64", "uint8", "float"]
    assert table["n"].to_pylist() == [1, 0, 255]
    assert table["x"].to_pylist()[1] == float(np.float32(0.1))


def test_gaps_that_remain_make_a_whole_column_nullable(tmp_path: Path) -> None:
    panel = Panel(
        series=(Series("", np.arange(3.0), np.array([[1.2], [np.nan], [3.0]])),),
        channels=("n",),
        dtypes=("int64",),
        clock=Clock(kind="index", column="", zone="", form="", interval=1.0),
    )
    write_panel(tmp_path / "a.csv", panel)
    assert (tmp_path / "a.csv").read_text() == 'n\n1\n""\n3\n'
    write_panel(tmp_path / "a.parquet", panel)
    column = pyarrow.parquet.read_table(tmp_path / "a.parquet")["n"]
    assert (str(column.type), column.to_pylist()) == ("int64", [1, None, 3])


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_parquet_times_keep_their_unit_and_zone(
    unit: Any, zone: str | None, tmp_path: Path
) -> None:
    times = pd.date_range("2016-03-26 23:00", periods=4, freq="h", tz=zone).as_unit(unit)
    frame = pd.DataFrame({"time": times, "a": [1.0, 2.0, 3.0, 5.0]})
    frame.to_parquet(tmp_path / "a.parquet")
    write_panel(tmp_path / "b.parquet", reread(tmp_path / "a.parquet"))
    one, other = (pyarrow.parquet.read_table(tmp_path / f"{name}.parquet") for name in "ab")
    assert one.schema.remove_metadata() == other.schema.remove_metadata()
    assert one.to_pylist() == other.to_pylist()


def test_parquet_keeps_dates_text_and_whole_identifiers(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"id": [7, 7, 8, 8], "day": ["2020-01-01", "2020-01-02"] * 2, "a": [1.0, 2.0, 3.0, 5.0]}
    )
    frame.to_parquet(tmp_path / "a.parquet")
    write_panel(tmp_path / "b.parquet", reread(tmp_path / "a.parquet"))
    assert pyarrow.parquet.read_table(tmp_path / "b.parquet").to_pylist() == frame.to_dict(
        "records"
    )
    frame["day"] = pd.to_datetime(frame["day"]).dt.date
    frame.to_parquet(tmp_path / "a.parquet")
    write_panel(tmp_path / "b.parquet", reread(tmp_path / "a.parquet"))
    table = pyarrow.parquet.read_table(tmp_path / "b.parquet")
    assert str(table.schema.field("day").type) == "date32[day]"
    assert str(table.schema.field("id").type) == "int64"
    assert table.to_pylist() == frame.to_dict("records")


def test_new_channels_come_behind_the_old_columns(tmp_path: Path) -> None:
    path, out = tmp_path / "a.csv", tmp_path / "b.csv"
    path.write_text("b,time,a\n1,0,2\n2,1,5\n")
    panel = reread(path)
    (one,) = panel.series
    wider = replace(
        panel,
        series=(replace(one, values=np.concatenate([one.values, one.values + 0.5], 1)),),
        channels=(*panel.channels, "b_upper", "a_upper"),
        dtypes=(*panel.dtypes, "float64", "float64"),
    )
    write_panel(out, wider)
    assert out.read_text() == "b,time,a,b_upper,a_upper\n1,0,2,1.5,2.5\n2,1,5,2.5,5.5\n"


def test_the_same_panel_is_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(TABLES["labels"])
    panel = reread(tmp_path / "a.csv")
    for ending in (".csv.gz", ".parquet", ".npz", ".ts"):
        first, second = tmp_path / f"1{ending}", tmp_path / f"2{ending}"
        write_panel(first, panel)
        write_panel(second, panel)
        assert first.read_bytes() == second.read_bytes()
    assert gzip.decompress((tmp_path / "1.csv.gz").read_bytes()).decode() == TABLES["labels"]


@pytest.mark.parametrize("name", ["a.xlsx", "a.nc", "a.npz.gz", "a"])
def test_other_endings_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n2\n")
    panel = read_panel(tmp_path / "a.csv", Data())
    with pytest.raises(UserError, match="is no ending that series are written in"):
        write_panel(tmp_path / name, panel)
    assert not (tmp_path / name).exists()
