from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.runtime.errors import UserError
from domains.series.data import Clock, following, format_times
from domains.series.data.times import Source, Stamps, parse_texts


def parse(*cells: str, zone: str | None = None) -> Stamps:
    source = Source("t", lambda row: f"a.csv:{row + 2}", zone)
    return parse_texts(np.array(cells, dtype=object), source)


def clock_of(stamps: Stamps) -> Clock:
    return Clock(kind=stamps.kind, column="t", zone=stamps.zone, form=stamps.form, interval=1.0)


def seconds(*texts: str) -> list[float]:
    """Seconds since 1970 by pandas."""
    return [float(pd.Timestamp(text).timestamp()) for text in texts]  # pyright: ignore


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        (("2016-07-01 00:00:00", "2016-07-01 01:00:00"), ("2016-07-01", "2016-07-01 01:00")),
        (("19580329", "19580405"), ("1958-03-29", "1958-04-05")),
        (("195803", "195804"), ("1958-03-01", "1958-04-01")),
        (("201607011200", "201607011305"), ("2016-07-01 12:00", "2016-07-01 13:05")),
        (("20160701T120000Z", "20160701T120501Z"), ("2016-07-01 12:00Z", "2016-07-01 12:05:01Z")),
        (("2016-02-15T00:00:00Z", "2016-02-15T00:30:00Z"), ("2016-02-15", "2016-02-15 00:30")),
        (("1970-01-01 00:04:40.000", "1970-01-01 00:04:40.015"),
         ("1970-01-01 00:04:40", "1970-01-01 00:04:40.015")),
        (("2016-07-01 05:30:00+0530", "2016-07-01 06:30:00+0530"),
         ("2016-07-01", "2016-07-01 01:00")),
        (("2016-07-01T00:00-02:00", "2016-07-01T01:00-02:00"),
         ("2016-07-01 02:00", "2016-07-01 03:00")),
        (("31.12.2003 17:00", "01.01.2004 18:00"), ("2003-12-31 17:00", "2004-01-01 18:00")),
        (("1/2/2004 5:07", "1/13/2004 15:08"), ("2004-01-02 05:07", "2004-01-13 15:08")),
        (("1/2/2004 5:07 PM", "1/13/2004 12:08 AM"), ("2004-01-02 17:07", "2004-01-13 00:08")),
        (("13/2/2004", "1/3/2004"), ("2004-02-13", "2004-03-01")),
        (("Mar-2004", "Apr-2004"), ("2004-03-01", "2004-04-01")),
        (("March 1, 2004", "April 11, 2004"), ("2004-03-01", "2004-04-11")),
        (("1-Jan-99", "2-Feb-99"), ("1999-01-01", "1999-02-02")),
        (("2016/7/1", "2016/7/12"), ("2016-07-01", "2016-07-12")),
        (("1700-01-01", "2300-12-31"), ("1700-01-01", "2300-12-31")),
    ],
)  # fmt: skip
def test_times_of_many_forms_are_read_and_written_back(
    cells: tuple[str, ...], wanted: tuple[str, ...]
) -> None:
    stamps = parse(*cells)
    assert stamps.times.tolist() == seconds(*wanted)
    assert format_times(clock_of(stamps), stamps.times) == list(cells)


@settings(max_examples=60, deadline=None)
@given(
    times=st.lists(
        st.datetimes(datetime(1699, 1, 1), datetime(2242, 1, 1)), min_size=1, max_size=5
    ),
    form=st.sampled_from(
        [
            "%Y-%m-%d %H:%M:%S.%f",
            "%Y-%m-%dT%H:%M:%S.%fZ",
            "%Y-%m-%dT%H:%M:%S.%f+05:45",
            "%Y/%m/%d %H:%M:%S.%f",
            "%d.%m.%Y %H:%M:%S,%f",
            "%Y%m%dT%H%M%S.%f",
        ]
    ),
)
def test_every_microsecond_comes_back(times: list[datetime], form: str) -> None:
    cells = [time.strftime(form).rjust(len(times[0].strftime(form)), "0") for time in times]
    stamps = parse(*cells)
    offset = timedelta(hours=5, minutes=45) if "+" in form else timedelta(0)
    exact = [(time - offset - datetime(1970, 1, 1)) / timedelta(microseconds=1) for time in times]
    np.testing.assert_allclose(stamps.times, np.array(exact) / 1e6, rtol=1e-15, atol=1e-9)
    assert format_times(clock_of(stamps), stamps.times) == cells


def test_finer_times_than_a_microsecond_are_rounded_with_a_note() -> None:
    stamps = parse("2016-02-15T00:00:00.123456789Z", "2016-02-15T00:30:00.000000000Z")
    assert "kept to a microsecond" in stamps.notes[0]
    assert stamps.times[0] == seconds("2016-02-15 00:00:00.123457")[0]


def test_microseconds_that_a_float_cannot_hold_are_noted() -> None:
    stamps = parse(*(f"2300-01-01 00:00:00.{tick:06d}" for tick in range(50)))
    assert "microseconds are lost" in stamps.notes[0]
    assert parse("2300-01-01 00:00:00.253", "2300-01-01 00:00:00.254").notes == ()


def test_days_and_months_are_told_apart_by_the_order_of_rows() -> None:
    assert parse("05/01/2020", "01/02/2020").times.tolist() == seconds("2020-01-05", "2020-02-01")
    assert parse("01/05/2020", "02/01/2020").times.tolist() == seconds("2020-01-05", "2020-02-01")
    with pytest.raises(UserError, match="may begin with the day or the month"):
        parse("01/02/2020", "01/03/2020")


def test_mixed_zones_are_refused_or_brought_to_the_one_that_is_told() -> None:
    cells = ("2016-03-27T01:00+01:00", "2016-03-27T03:00+02:00")
    with pytest.raises(UserError, match=r"a.csv:3, column 't': time zone \+02:00, but \+01:00"):
        parse(*cells)
    stamps = parse(*cells, zone="Europe/Berlin")
    assert np.diff(stamps.times).tolist() == [3600]
    assert stamps.zone == "Europe/Berlin"
    assert format_times(clock_of(stamps), stamps.times) == list(cells)


def test_times_with_and_without_zone_do_not_mix_unless_it_is_told() -> None:
    cells = ("2016-01-01T00:00Z", "2016-01-01T01:00")
    with pytest.raises(UserError, match="time zone none, but Z"):
        parse(*cells)
    assert parse(*cells, zone="Asia/Tokyo").times.tolist() == seconds(
        "2016-01-01T00:00Z", "2016-01-01T01:00+09:00"
    )


def test_naive_times_are_local_to_the_zone_that_is_told() -> None:
    stamps = parse("2016-03-27 01:30", "2016-03-27 03:30", zone="Europe/Berlin")
    assert stamps.times.tolist() == seconds("2016-03-27T00:30Z", "2016-03-27T01:30Z")
    assert format_times(clock_of(stamps), stamps.times) == ["2016-03-27 01:30", "2016-03-27 03:30"]


def test_an_hour_that_comes_twice_is_told_by_its_order_and_one_that_never_comes_refused() -> None:
    cells = ("2016-10-30 01:00", "2016-10-30 02:00", "2016-10-30 02:00", "2016-10-30 03:00")
    assert np.diff(parse(*cells, zone="Europe/Berlin").times).tolist() == [3600] * 3
    with pytest.raises(
        UserError, match=r"a.csv:3, column 't': 2016-03-27 02:30:00 comes twice or"
    ):
        parse("2016-03-27 01:30", "2016-03-27 02:30", zone="Europe/Berlin")
    with pytest.raises(
        UserError, match=r"a.csv:2, column 't': 2016-10-30 02:00:00 comes twice or"
    ):
        parse("2016-10-30 02:00", "2016-10-30 03:00", zone="Europe/Berlin")


def test_a_zone_that_is_not_there_is_refused() -> None:
    with pytest.raises(
        UserError, match="no time zone 'Europe/Berln'; did you mean 'Europe/Berlin"
    ):
        parse("2016-03-27 01:30", zone="Europe/Berln")


@pytest.mark.parametrize("cell", ["2016-13-01", "2016-07-01 25:00", "tomorrow", "2016-07-01 0:60"])
def test_what_is_no_time_is_refused_at_its_line(cell: str) -> None:
    with pytest.raises(UserError, match=f"a.csv:4, column 't': '{cell}' is no time"):
        parse("2016-07-01 00:00", "2016-07-02 01:00", cell)


def test_a_form_too_coarse_for_new_times_gives_way_to_iso() -> None:
    clock = Clock(kind="datetime", column="t", zone="", form="%d.%m.%Y", interval=1.0)
    assert format_times(clock, np.array([0.0, 86400.0])) == ["01.01.1970", "02.01.1970"]
    assert format_times(clock, np.array([0.0, 0.5])) == [
        "1970-01-01 00:00:00.000",
        "1970-01-01 00:00:00.500",
    ]


# Beyond the last row


def daily(form: str = "%Y-%m-%d", zone: str = "") -> Clock:
    return Clock(kind="datetime", column="t", zone=zone, form=form, interval=86400.0)


@pytest.mark.parametrize(
    ("past", "wanted"),
    [
        (["2020-01-31", "2020-02-29", "2020-03-31"], ["2020-04-30", "2020-05-31"]),
        (["2020-10-01", "2020-11-01", "2020-12-01"], ["2021-01-01", "2021-02-01"]),
        (["2020-04-01", "2020-07-01", "2020-10-01"], ["2021-01-01", "2021-04-01"]),
        (["2020-01-02", "2020-01-03", "2020-01-06", "2020-01-07", "2020-01-08", "2020-01-09"],
         ["2020-01-10", "2020-01-13"]),
        (["2020-01-03", "2020-01-04", "2020-01-05"], ["2020-01-06", "2020-01-07"]),
    ],
)  # fmt: skip
def test_times_go_on_in_their_calendar(past: list[str], wanted: list[str]) -> None:
    times = np.array(seconds(*past))
    assert format_times(daily(), following(daily(), times, 2)) == wanted


def test_days_go_on_over_a_change_of_the_clock() -> None:
    clock = daily("%Y-%m-%d %H:%M", "Europe/Berlin")
    times = np.array(seconds("2016-03-24T23:00Z", "2016-03-25T23:00Z", "2016-03-26T23:00Z"))
    assert format_times(clock, times)[-1] == "2016-03-27 00:00"
    assert format_times(clock, following(clock, times, 1)) == ["2016-03-28 00:00"]


def test_hours_go_on_by_the_interval() -> None:
    clock = Clock(kind="datetime", column="t", zone="Europe/Berlin", form="iso", interval=3600.0)
    times = np.array(seconds("2016-03-26T23:00Z", "2016-03-27T00:00Z", "2016-03-27T01:00Z"))
    assert np.diff(following(clock, times, 3)).tolist() == [3600, 3600]
