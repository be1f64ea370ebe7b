from __future__ import annotations

import gzip
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.runtime.errors import UserError
from domains.series.config import Data
from domains.series.data import Panel, format_times, read_input, read_panel, read_unchecked

Read = Callable[..., Panel]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write text into a file and read it."""

    def write_and_read(text: str, name: str = "a.csv", **options: Any) -> Panel:
        path = written(tmp_path, text, name)
        return read_panel(path, Data(source="file", path=str(path), **options))

    return write_and_read


def refusal(read: Read, text: str, name: str = "a.csv", **options: Any) -> str:
    """The one line with which a file is refused, from its name on."""
    with pytest.raises(UserError) as caught:
        read(text, name, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message[message.index(name) :] if name in message else message


HOURLY = "date,a,b\n2020-01-01 00:00,1,2.5\n2020-01-01 01:00,,3\n2020-01-01 02:00,4,5e-1\n"


# What is what


def test_time_and_channels_are_found(read: Read) -> None:
    panel = read(HOURLY)
    (one,) = panel.series
    assert panel.channels == ("a", "b")
    assert panel.dtypes == ("Int64", "float64")
    assert panel.clock.kind == "datetime"
    assert panel.clock.interval == 3600
    assert np.diff(one.times).tolist() == [3600, 3600]
    assert one.times[0] == datetime(2020, 1, 1, tzinfo=UTC).timestamp()
    np.testing.assert_array_equal(one.values, [[1, 2.5], [np.nan, 3], [4, 0.5]])
    assert one.lines is not None
    assert one.lines.tolist() == [2, 3, 4]


def test_series_of_one_file_are_told_apart_by_their_column_of_names(read: Read) -> None:
    panel = read("Ticker,Date,Open\nB,2020-01-01,1\nA,2020-01-01,5\nB,2020-01-02,2\n")
    assert panel.identifier == "Ticker"
    assert [one.name for one in panel.series] == ["B", "A"]
    assert [one.values[:, 0].tolist() for one in panel.series] == [[1, 2], [5]]
    assert [one.lines.tolist() for one in panel.series if one.lines is not None] == [[2, 4], [3]]


def test_words_that_make_repeated_times_unique_name_the_series_and_a_note_says_so(
    read: Read,
) -> None:
    panel = read("when,who,a\n2020-01-01,x,1\n2020-01-01,y,1\n2020-01-02,x,2\n2020-01-02,y,4\n")
    assert panel.identifier == "who"
    assert "'who' names the series" in panel.notes[0]


def test_an_id_that_only_counts_the_rows_is_no_channel(read: Read) -> None:
    assert read("id,a\n1,0\n2,1\n3,4\n").channels == ("a",)
    panel = read("id,date,a\n1,2020-01-01,0\n2,2020-01-02,1\n3,2020-01-03,4\n")
    assert panel.channels == ("a",)
    assert any("numbers of the rows" in note for note in panel.notes)


def test_a_column_called_a_time_that_is_none_is_noted(read: Read) -> None:
    panel = read("t,T1,T\n5,1,2\n3,2,3\n4,4,3\n")
    assert panel.clock.kind == "index"
    assert panel.channels == ("t", "T1", "T")
    assert len(panel.notes) == 1
    assert panel.notes[0].startswith("column 't' does not go on from row to row")


def test_without_times_the_row_is_the_time(read: Read) -> None:
    panel = read("Open,Close\n1,2\n3,5\n")
    assert panel.clock.kind == "index"
    assert panel.series[0].times.tolist() == [0, 1]


def test_what_is_told_goes_before_what_is_found(read: Read) -> None:
    text = "time,when,Ticker,a,b\n9,1,x,2,3\n8,2,x,3,5\n"
    panel = read(text, time="when", identifier="", values=("b", "a"))
    assert (panel.clock.column, panel.identifier) == ("when", "")
    assert panel.channels == ("b", "a")
    assert panel.series[0].values.tolist() == [[3, 2], [5, 3]]
    assert read("time,a\n9,1\n8,2\n", time="").channels == ("time", "a")


def test_labels_of_anomalies_are_no_channel(read: Read) -> None:
    panel = read("t,a,is_anomaly\n0,1,0\n1,5,1\n2,2,0\n")
    assert panel.channels == ("a",)
    assert panel.label == "is_anomaly"
    assert panel.series[0].label is not None
    assert panel.series[0].label.tolist() == [0, 1, 0]
    assert read("t,a,is_anomaly\n0,1,0\n1,5,1\n", label="").channels == ("a", "is_anomaly")


def test_columns_of_words_are_left_out_with_a_note(read: Read) -> None:
    panel = read("t,a,weather\n0,1,sun\n1,2,rain\n")
    assert panel.channels == ("a",)
    assert panel.notes == ("left out, as no numbers: weather",)


def test_year_and_quarter_are_one_time_of_equal_steps(read: Read) -> None:
    rows = [f"{1959 + i // 4},{i % 4 + 1},{i % 3}" for i in range(9)]
    panel = read("year,quarter,gdp\n" + "\n".join(rows))
    assert panel.channels == ("gdp",)
    assert panel.series[0].times.tolist() == [1959 + i / 4 for i in range(9)]
    assert panel.clock.interval == 0.25


def test_date_and_time_of_day_in_two_columns_are_one_time(read: Read) -> None:
    text = "Date;Time;CO;;\n10/03/2004;18.00.00;2,6;;\n31/03/2004;19.30.00;2;;\n;;;;\n"
    panel = read(text)
    wanted = pd.DatetimeIndex(["2004-03-10 18:00", "2004-03-31 19:30"], tz="UTC")
    assert panel.series[0].times.tolist() == [time.timestamp() for time in wanted]
    assert panel.series[0].values[:, 0].tolist() == [2.6, 2.0]  # decimal commas


# Forms of files


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", "t\ta b\n0\t1\n1\t2\n"),
        ("a.csv", "t;a b\n0;1\n1;2\n"),
        ("a.txt", "t|a b\n0|1\n1|2\n"),
        ("b.csv", '"t","a b"\n"0","1"\n\n# a remark\n"1","2"\n'),
        ("c.csv", "\ufefft,a b\n0,1\n1,2\n"),
    ],
)
def test_kin_of_csv_hold_the_same(read: Read, name: str, text: str) -> None:
    panel = read(text, name)
    assert panel.channels == ("a b",)
    assert panel.series[0].times.tolist() == [0, 1]
    assert panel.series[0].values[:, 0].tolist() == [1, 2]


def test_a_header_as_numpy_writes_it_is_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    np.savetxt(path, [[0, 1.5], [1, 2.5]], header="time x")
    panel = read_panel(path, Data(source="file", path=str(path)))
    assert panel.channels == ("x",)
    assert panel.series[0].values[:, 0].tolist() == [1.5, 2.5]


def test_spaces_separate_columns_only_if_they_do_so_in_the_rows(read: Read) -> None:
    assert read("t  a\n0 1\n1   2\n", "a.txt").channels == ("a",)
    assert read("wind speed\n1\n2\n").channels == ("wind speed",)


def test_rows_without_values_are_missing_ones(read: Read) -> None:
    panel = read("a,b\n1,2\n,\n3,4\n,\n")
    np.testing.assert_array_equal(panel.series[0].values[[1, 3]], np.full((2, 2), np.nan))
    assert len(read("time,b\n2020-01-01,2\n2020-01-02,3\n,\n,\n").series[0].times) == 2


def test_packed_csv_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(HOURLY.encode()))
    assert read_panel(path, Data(source="file", path=str(path))).channels == ("a", "b")


def test_numbers_are_read_to_the_last_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=200) * 10.0 ** np.arange(-100, 100)
    path = written(tmp_path, "x\n" + "\n".join(map(repr, values.tolist())))
    panel = read_unchecked(path, Data())
    np.testing.assert_array_equal(panel.series[0].values[:, 0], values)


def test_every_word_for_missing_is_missing(read: Read) -> None:
    panel = read("t,x\n0,1\n1,NA\n2,nan\n3,?\n4,null\n5,\n6,nil\n7,2\n")
    assert np.isnan(panel.series[0].values[1:7]).all()
    assert panel.dtypes == ("Int64",)


def test_parquet_keeps_dtypes_zones_and_nullable_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    times = pd.date_range("2020-03-29", periods=4, freq="h", tz="Europe/Berlin").as_unit("ms")
    frame = pd.DataFrame(
        {
            "n": pd.array([1, None, 3, 4], dtype="Int16"),
            "x": np.array([1, 2, np.nan, 4], dtype=np.float32),
            "b": [True, False, True, True],
            "site": pd.Categorical(["p"] * 4),
        },
        index=pd.Index(times, name="when"),
    )
    frame.to_parquet(path)
    panel = read_panel(path, Data(source="file", path=str(path)))
    assert panel.channels == ("n", "x", "b")
    assert panel.dtypes == ("Int16", "float32", "bool")
    assert panel.identifier == "site"
    assert panel.clock.column == "when"
    assert panel.clock.zone == "Europe/Berlin"
    assert panel.clock.form == "datetime64[ms]"
    assert panel.series[0].times.tolist() == [time.timestamp() for time in times]


VOWELS = """# a comment
@problemName Vowels
@timeStamps false
@univariate false
@classLabel true 1 2
@data
1,2,3:4,5,6:1
1,?:3,4:2
"""


def test_ts_files_hold_cases_of_their_own_length_without_classes(read: Read) -> None:
    panel = read(VOWELS, "a.ts")
    assert [one.name for one in panel.series] == ["1", "2"]
    assert panel.series[0].values.tolist() == [[1, 4], [2, 5], [3, 6]]
    np.testing.assert_array_equal(panel.series[1].values, [[1, 3], [np.nan, 4]])
    assert panel.notes == ("the class of each case is left out",)


def test_ts_channels_with_timestamps_meet_on_the_union_of_their_times(tmp_path: Path) -> None:
    text = "@timeStamps true\n@classLabel false\n@data\n"
    text += "(2007-01-01 00:00:00,1),(2007-01-01 02:00:00,2):(2007-01-01 01:00:00,5)\n"
    panel = read_unchecked(written(tmp_path, text, "a.ts"), Data())
    (one,) = panel.series
    assert np.diff(one.times).tolist() == [3600, 3600]
    np.testing.assert_array_equal(one.values, [[1, np.nan], [np.nan, 5], [2, np.nan]])


def written(folder: Path, text: str, name: str = "a.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def archive(folder: Path, **arrays: Any) -> Panel:
    path = folder / "a.npz"
    np.savez(path, **arrays)
    return read_panel(path, Data(source="file", path=str(path)))


def test_arrays_are_case_time_channel_unless_their_axes_are_named(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
    values[0, 1, 2] = np.nan
    turned = np.moveaxis(values, 2, 1)
    panels = [
        archive(tmp_path, X=values),
        archive(tmp_path, X=turned, axes=["n_cases", "n_channels", "n_timepoints"]),
        archive(tmp_path, X=turned, axes="NCT"),
        archive(tmp_path, X=np.moveaxis(values, 0, 2), axes="time,channel,case"),
    ]
    for panel in panels:
        assert panel.dtypes == ("float32",) * 3
        for one, wanted in zip(panel.series, values, strict=True):
            np.testing.assert_array_equal(one.values, wanted)


def test_one_series_in_arrays_has_times_and_names(tmp_path: Path) -> None:
    times = np.arange("2020-01-01", "2020-01-04", dtype="datetime64[D]")
    panel = archive(tmp_path, data=[[1, 2], [3, 4], [5, 7]], times=times, channels=["a", "b"])
    assert panel.channels == ("a", "b")
    assert panel.clock.interval == 86400
    assert panel.series[0].times[0] == datetime(2020, 1, 1, tzinfo=UTC).timestamp()


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="array 'X' is damaged or holds Python objects"):
        archive(tmp_path, X=np.array([1, "a", None], dtype=object))


def test_axes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="axes N, C, C for an array of 3 axes"):
        archive(tmp_path, X=np.zeros((2, 3, 4)), axes="NCC")
    with pytest.raises(UserError, match=r"'times' has shape \(3,\); expected \(4,\)"):
        archive(tmp_path, X=np.zeros((4, 2)), times=np.arange(3))


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
def test_netcdf_variables_over_time_are_channels_and_stations_series(
    tmp_path: Path, engine: Any
) -> None:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5py" if engine == "h5netcdf" else "scipy")
    rng = np.random.default_rng(0)
    heat, count = rng.normal(size=(5, 2)), rng.integers(0, 9, size=(2, 5)).astype(np.int16)
    dataset = xarray.Dataset(
        {
            "heat": (("time", "station"), heat),
            "count": (("station", "time"), count),
            "height": ("station", [1.0, 2.0]),
        },
        coords={"time": pd.date_range("2020", periods=5, freq="h"), "station": ["x", "y"]},
    )
    path = tmp_path / "a.nc"
    dataset.to_netcdf(path, engine=engine)
    panel = read_panel(path, Data(source="file", path=str(path)))
    assert panel.channels == ("heat", "count")
    assert panel.dtypes == ("float64", "int16")
    assert panel.identifier == "station"
    assert [one.name for one in panel.series] == ["x", "y"]
    for place, one in enumerate(panel.series):
        np.testing.assert_array_equal(one.values, np.stack([heat[:, place], count[place]], 1))
        assert np.diff(one.times).tolist() == [3600] * 4


def test_netcdf_on_a_grid_is_a_series_for_each_point(tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    values = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    path = tmp_path / "a.nc"
    xarray.Dataset(
        {"sst": (("t", "lat", "lon"), values)}, coords={"lat": [1.0, 2.0], "lon": [5.0, 6.5, 8.0]}
    ).to_netcdf(path, engine="scipy")
    panel = read_panel(path, Data(source="file", path=str(path)))
    assert panel.clock.kind == "index"
    assert panel.series[4].name == "lat=2, lon=6.5"
    np.testing.assert_array_equal(panel.series[4].values[:, 0], values[:, 1, 1])
    assert panel.dtypes == ("float32",)


def test_a_missing_library_of_netcdf_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.nc"
    path.write_bytes(b"CDF\x01")
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(UserError, match=r"a.nc: NetCDF needs xarray; install it: pip install"):
        read_panel(path, Data())


# Bad input, one line each


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.csv: empty; expected rows of a series"),
        ("a,b\n", "a.csv: names of columns and no rows"),
        ("hello\nworld\n", "a.csv: no column of numbers to model (columns: hello)"),
        ("time\n1\n2\n", "a.csv: no column of numbers to model (columns: time)"),
        ("1,2\n3,4\n", "a.csv:1: the first line holds values (1, 2…); expected the columns'"),
        ("a,a\n1,2\n", "a.csv: column 2 has name 'a' twice"),
        ("a,b\n1,2\n3\n", "a.csv:3: 1 columns, the header has 2"),
        ("a,b\n\n1,2\n3,4,5\n", "a.csv:4: 3 columns, the header has 2"),
        ('a,b\n1,"2\n3"\n', "a.csv: a quoted cell goes over several lines"),
        ("t,a\n0,1\n1,2x\n2,3\n", "a.csv:3, column 'a': '2x' is not a number"),
        ("t,a\n0,1\n1,1_0\n2,3\n", "a.csv:3, column 'a': '1_0' is not a number"),
        ("t,a\n0,1\n1,inf\n2,3\n", "a.csv:3, column 'a': inf is not finite"),
        ("t,a\n0,1\n1,1e400\n2,3\n", "a.csv:3, column 'a': inf is not finite"),
        ("t,a\n0,1\n1,-1e39\n2,3\n", "a.csv:3, column 'a': -1e+39 is beyond 3.4e+38"),
        ("t,a,b\n0,5,1\n1,5,2\n", "a.csv, column 'a': 5 throughout; expected values that vary"),
        ("t,a,b\n0,,1\n1,,2\n", "a.csv, column 'a': missing throughout"),
        ("time,a\n0,1\n2,2\n1,3\n", "a.csv:4, column 'time': time '1' after '2'"),
        ("time,a\n0,1\n2,2\n2,3\n", "a.csv:4, column 'time': time '2' twice"),
        ("time,a\n0,1\nx,2\n2,3\n", "a.csv:3, column 'time': 'x' is no number"),
        ("time,a\n0,1\n,2\n2,3\n", "a.csv:3, column 'time': no time; expected one"),
        ("date,a\n2020-01-01,1\n2020-02-30,2\n", "a.csv:3, column 'date': '2020-02-30' is no"),
        ("date,a\n01/02/2020,1\n01/03/2020,2\n", "a.csv:2, column 'date': '01/02/2020' may begin"),
        ("id,t,a\nx,0,1\n,0,2\nx,1,3\n", "a.csv:3, column 'id': no name of a series"),
        ("id,t,a\nx,0,1\ny,1,2\ny,1,3\nx,2,3\n", "a.csv:4, series 'y', column 't': time '1'"),
        ("t,a,label\n0,1,0\n1,2,2\n", "a.csv:3, column 'label': label 2; expected 0, or 1"),
    ],
)  # fmt: skip
def test_bad_tables_are_refused_with_their_place(read: Read, text: str, message: str) -> None:
    label = "label" if "label" in text else None
    assert refusal(read, text, label=label).startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": ("alpah",)}, "a.csv: data.values: no column 'alpah'; did you mean 'alpha'?"),
        ({"time": "tiem"}, "a.csv: data.time: no column 'tiem'; did you mean 'time'?"),
        ({"identifier": "x"}, "a.csv: data.identifier: no column 'x'; there are: time, alpha"),
        ({"label": "x"}, "a.csv: data.label: no column 'x'"),
    ],
)
def test_columns_that_are_not_there_are_refused(
    read: Read, options: dict[str, Any], message: str
) -> None:
    assert refusal(read, "time,alpha\n0,1\n1,2\n", **options).startswith(message)


def test_other_files_are_refused(tmp_path: Path, read: Read) -> None:
    options = Data(source="file", path="x")
    assert refusal(read, "a\n1\n", "a.xyz").startswith("a.xyz: '.xyz' is no ending that is known")
    for name, content, message in (
        ("a.csv.gz", b"\x1f\x8bxx", "damaged gzip file"),
        ("a.csv", "t,°\n1,2\n".encode("latin1"), r"a.csv:1: byte 0xb0 is not UTF-8"),
        ("a.csv", "t,a\n1,2\n".encode("utf-16"), "a binary file"),
        ("a.parquet", b"hello", "not a readable parquet file"),
        ("a.npz", b"hello", "no .npz file"),
        ("a.nc", b"hello", "no NetCDF file"),
        ("a.ts", b"1,2\n", "a.ts:1: '1,2' before @data"),
        ("a.ts", b"@data\n1,x\n", "a.ts:2, channel 1: 'x' is not a number"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_panel(tmp_path / name, options)
    (tmp_path / "b.tsv").write_text("a\n1\n")
    with pytest.raises(UserError, match=r"b.csv: no such file; there is b.tsv"):
        read_panel(tmp_path / "b.csv", options)
    with pytest.raises(UserError, match="a folder"):
        read_panel(tmp_path, options)


def test_a_change_of_frequency_is_refused_at_its_row(read: Read) -> None:
    times = [*range(50), *range(50, 300, 5)]
    text = "t,a\n" + "".join(f"{time},{time % 7}\n" for time in times)
    message = refusal(read, text)
    assert message.startswith("a.csv:52, column 't': from '50' on rows are 5 apart, before 1;")


def test_gaps_and_irregular_times_are_no_change_of_frequency(read: Read) -> None:
    gaps = [time for time in range(300) if time % 50 < 40]
    assert read("t,a\n" + "".join(f"{time},{time % 7}\n" for time in gaps)).notes == ()
    irregular = np.random.default_rng(0).exponential(size=300).cumsum()
    panel = read("t,a\n" + "".join(f"{time},{i % 7}\n" for i, time in enumerate(irregular)))
    assert panel.notes[0].startswith("times are irregular")


def test_rows_of_one_time_are_merged_as_told(read: Read) -> None:
    text = "t,a,b\n0,1,1\n1,2,\n1,5,8\n2,3,9\n"
    mean = read(text, merge="mean")
    np.testing.assert_array_equal(mean.series[0].values, [[1, 1], [3.5, 8], [3, 9]])
    assert mean.dtypes == ("float64", "Int64")
    assert mean.notes == ("1 row of a time that was there already, merged (mean)",)
    first = read(text, merge="first").series[0]
    np.testing.assert_array_equal(first.values, [[1, 1], [2, np.nan], [3, 9]])
    assert first.lines is not None
    assert first.lines.tolist() == [2, 3, 5]
    np.testing.assert_array_equal(
        read(text, merge="last").series[0].values, [[1, 1], [5, 8], [3, 9]]
    )


def test_a_file_from_last_to_first_is_turned_round_with_a_note(read: Read) -> None:
    panel = read("t,a\n3,1\n2,5\n1,4\n")
    assert panel.series[0].times.tolist() == [1, 2, 3]
    assert panel.series[0].values[:, 0].tolist() == [4, 5, 1]
    assert panel.notes == (
        "rows were from the last time to the first, and have been turned round",
    )


def test_codes_are_suspected_aloud_and_missing_only_when_told(read: Read) -> None:
    text = "t,a\n" + "".join(f"{i},{-200 if i % 7 == 0 else i % 5}\n" for i in range(60))
    panel = read(text)
    assert panel.notes[0].startswith("channel 'a': -200 comes 9 times, far from the rest")
    assert (panel.series[0].values == -200).sum() == 9
    told = read(text, na_values=(-200,))
    assert np.isnan(told.series[0].values).sum() == 9
    assert told.notes == ("9 values of -200 taken as missing",)


def test_wild_scales_and_twins_are_noted(read: Read) -> None:
    text = "t,a,b,c\n" + "".join(f"{i},{i % 5 * 1e-4},{i * 1e4},{i * 1e4}\n" for i in range(30))
    notes = read(text).notes
    assert "'b' and 'c' are the same in every row" in notes[0]
    assert "more than a million times as far" in notes[1]


def test_a_file_to_predict_from_may_have_constant_and_empty_channels(tmp_path: Path) -> None:
    path = written(tmp_path, "t,a,b\n0,5,\n1,5,\n")
    panel = read_input(path, Data())
    np.testing.assert_array_equal(panel.series[0].values, [[5, np.nan], [5, np.nan]])
    with pytest.raises(UserError, match="twice"):
        read_input(written(tmp_path, "time,a\n0,1\n0,2\n"), Data())


def test_large_whole_numbers_are_noted(read: Read) -> None:
    panel = read(f"t,a\n0,{2**53 + 1}\n1,5\n")
    assert panel.notes == ("channel 'a': numbers above 2^53 are kept to 16 digits",)
    message = refusal(read, f"time,a\n{2**60},1\n{2**60 + 1},2\n")
    assert "too large a number to be told from the next" in message


def test_epochs_stay_numbers(read: Read) -> None:
    panel = read("timestamp,a\n1467331200,1\n1467334800,2\n")
    assert panel.clock.kind == "number"
    assert format_times(panel.clock, panel.series[0].times) == ["1467331200", "1467334800"]
