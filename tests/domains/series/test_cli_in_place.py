"""Filling cells of a text file changes those cells and no other byte."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from domains.series.cli.in_place import write_like
from domains.series.config import Data
from domains.series.data import Panel
from domains.series.data.reading import read_input


def read(path: Path, **options: object) -> Panel:
    return read_input(path, Data(source="file", path=str(path)).model_copy(update=options))


def filled(panel: Panel, number: float) -> Panel:
    series = tuple(
        replace(one, values=np.where(np.isnan(one.values), number, one.values))
        for one in panel.series
    )
    return replace(panel, series=series)


def test_trailing_zeros_remarks_quotes_and_line_ends_stay(tmp_path: Path) -> None:
    text = (
        "date,price,count,remark\r\n"
        "2024-01-01,1.50,3,fine\r\n"
        '2024-01-02,,4,"dull, grey"\r\n'
        "# a comment\r\n"
        "2024-01-03,2.00e0,NA,\r\n"
        "2024-01-04,-0.10,,x\r\n"
    )
    source, out = tmp_path / "a.csv", tmp_path / "b.csv"
    source.write_bytes(text.encode())
    panel = read(source)
    write_like(source, out, panel, filled(panel, 7.0))
    expected = text.replace("-02,,", "-02,7.0,").replace("NA", "7").replace("0.10,,", "0.10,7,")
    assert out.read_bytes().decode() == expected


def test_series_of_one_file_are_filled_where_their_rows_stand(tmp_path: Path) -> None:
    text = "id,day,x\nb,1,\na,1,5\nb,2,6\na,2,\nb,3,8\na,3,9\n"
    source, out = tmp_path / "a.csv", tmp_path / "b.csv"
    source.write_text(text)
    panel = read(source, identifier="id", time="day")
    assert [one.name for one in panel.series] == ["b", "a"]
    series = tuple(
        replace(one, values=np.where(np.isnan(one.values), number, one.values))
        for one, number in zip(panel.series, (1.0, 2.0), strict=True)
    )
    write_like(source, out, panel, replace(panel, series=series))
    assert out.read_text() == text.replace("b,1,", "b,1,1").replace("a,2,", "a,2,2")


def test_decimal_commas_are_written_as_such(tmp_path: Path) -> None:
    text = "zeit;wert;n\n01.02.2024 00:00;1,50;1\n01.02.2024 01:00;;2\n01.02.2024 02:00;2,25;3\n"
    source, out = tmp_path / "a.csv", tmp_path / "b.csv"
    source.write_text(text)
    panel = read(source)
    write_like(source, out, panel, filled(panel, 1.75))
    assert out.read_text() == text.replace(";;", ";1,75;")


def test_a_packed_file_is_the_same_text_packed(tmp_path: Path) -> None:
    source, out = tmp_path / "a.csv.gz", tmp_path / "b.csv.gz"
    source.write_bytes(gzip.compress(b"t,x,y\n1,0.10,2\n2,,3\n3,0.30,4\n"))
    panel = read(source)
    write_like(source, out, panel, filled(panel, 0.2))
    assert gzip.decompress(out.read_bytes()) == b"t,x,y\n1,0.10,2\n2,0.2,3\n3,0.30,4\n"


def test_hiding_empties_the_cells(tmp_path: Path) -> None:
    source, out = tmp_path / "a.csv", tmp_path / "b.csv"
    source.write_text("t,x,y\n1,0.10,2\n2,0.5,3\n3,0.30,4\n")
    panel = read(source)
    (one,) = panel.series
    values = one.values.copy()
    values[1, 0] = values[2, 1] = np.nan
    write_like(source, out, panel, replace(panel, series=(replace(one, values=values),)))
    assert out.read_text() == "t,x,y\n1,0.10,2\n2,,3\n3,0.30,\n"


@pytest.mark.parametrize("ending", ["parquet", "tsv"])
def test_another_format_holds_the_same_values(tmp_path: Path, ending: str) -> None:
    source, out = tmp_path / "a.csv", tmp_path / f"b.{ending}"
    source.write_text("t,x,y\n1,0.10,2\n2,,3\n3,0.30,4\n")
    panel = read(source)
    write_like(source, out, panel, filled(panel, 0.2))
    again = read(out)
    assert again.series[0].values.tolist() == [[0.1, 2], [0.2, 3], [0.3, 4]]
    assert again.channels == ("x", "y")


def test_merged_rows_are_written_anew(tmp_path: Path) -> None:
    source, out = tmp_path / "a.csv", tmp_path / "b.csv"
    source.write_text("t,x,y\n1,1,2\n1,3,2\n2,,3\n3,5,4\n")
    panel = read(source, time="t", merge="mean")
    write_like(source, out, panel, filled(panel, 4.0))
    again = read(out, time="t")
    assert again.series[0].values.tolist() == [[2, 2], [4, 3], [5, 4]]
