"""Tables of rate and distortion: read, averaged and compared as one would by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from core.runtime.errors import UserError
from domains.compression.cli import tables
from domains.compression.cli.measured import row_of
from domains.compression.cli.tables import Row, compare, compared, csv_text, curves_of, read_rows
from domains.compression.metrics.curves import Point

DECIBELS = (28.0, 31.0, 34.0, 37.0)


def rows(codec: str, factor: float = 1.0, pictures: tuple[str, ...] = ("a", "b")) -> list[Row]:
    """A codec whose rate doubles with 3 dB, on pictures of which each needs more than the last."""
    return [
        Row(
            codec=codec,
            quality=str(quality),
            picture=picture,
            bpp=factor * (place + 1) * 0.1 * 2**quality,
            psnr_db=decibels,
            ms_ssim=0.9 + 0.02 * quality,
            bytes=1000 + quality,
        )
        for place, picture in enumerate(pictures)
        for quality, decibels in enumerate(DECIBELS)
    ]


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = read_rows(table(tmp_path / "t.csv", csv_text(rows("own"))))
    assert len(found) == len(rows("own"))
    for read, written in zip(found, rows("own"), strict=True):
        assert replace(read, bpp=0, ms_ssim=0) == replace(written, bpp=0, ms_ssim=0)
        assert read.bpp == pytest.approx(written.bpp, abs=1e-6)
        assert read.ms_ssim == pytest.approx(written.ms_ssim, abs=1e-6)


def test_a_measured_file_is_a_row_of_the_table() -> None:
    point = Point(codec="dct", quality=8, picture="a", bytes=900, bpp=0.25, squared_error=65.025,
                  ms_ssim=0.95)  # fmt: skip
    assert row_of(point) == Row(codec="dct", quality="8", picture="a", bytes=900, bpp=0.25,
                                psnr_db=point.psnr_db, ms_ssim=0.95)  # fmt: skip
    assert point.psnr_db == pytest.approx(30.0)


def test_a_codec_of_one_name_and_other_numbers_goes_by_its_table_too(tmp_path: Path) -> None:
    old = table(tmp_path / "old.csv", csv_text(rows("dct") + rows("jpeg")))
    new = table(tmp_path / "new.csv", csv_text(rows("dct", 0.9) + rows("jpeg")))
    found = compare([old, new], "jpeg")
    assert [curve.codec for curve in found.curves] == ["dct old", "jpeg", "dct new"]
    assert found.rates["dct new"] == pytest.approx((-10.0, 28.0, 37.0))


def test_a_curve_is_the_mean_over_the_pictures_that_every_codec_has() -> None:
    curves, pictures = curves_of(rows("own", pictures=("a", "b", "c")) + rows("jpeg"))
    assert pictures == 2
    assert curves[0].bpp == pytest.approx([0.15, 0.3, 0.6, 1.2])
    assert curves[0].psnr_db == DECIBELS
    assert curves[0].ms_ssim_db[0] == pytest.approx(-10 * math.log10(0.1))


def test_a_quality_that_a_picture_lacks_is_left_out() -> None:
    some = [row for row in rows("own") if (row.picture, row.quality) != ("b", "2")]
    curves, _ = curves_of(some)
    assert len(curves[0].bpp) == 3


def test_a_codec_at_80_percent_of_the_rate_saves_20_percent() -> None:
    found = compared(rows("own", 0.8) + rows("jpeg"), "jpeg")
    saved = found.rates["own"]
    assert not isinstance(saved, str)
    assert saved == pytest.approx((-20.0, 28.0, 37.0))
    assert "−20.0 %" in tables.text(found)


def test_the_anchor_may_be_the_beginning_of_a_name_that_only_one_codec_has() -> None:
    both = rows("own") + rows("jpeg-420")
    assert compared(both, "jpeg").anchor == "jpeg-420"
    with pytest.raises(UserError, match="2 codecs begin with 'jpeg'"):
        compared(both + rows("jpeg-444"), "jpeg")
    with pytest.raises(UserError, match="no codec 'jpg-420'; did you mean 'jpeg-420'"):
        compared(both, "jpg-420")


def test_curves_that_share_no_psnr_have_no_difference_but_a_reason() -> None:
    low = [
        Row(codec="own", quality=row.quality, picture=row.picture, bpp=row.bpp, psnr_db=10.0)
        for row in rows("own")
    ]
    found = compared(low + rows("jpeg"), "jpeg")
    assert found.rates["own"] == "no PSNR that both reach"
    assert "n/a (no PSNR that both reach)" in tables.text(found)
    assert found.as_json()["codecs"]["own"]["bd_rate_percent"] is None


def test_a_curve_of_two_points_has_no_difference() -> None:
    few = [row for row in rows("own") if row.quality in "01"]
    assert "fewer than 3" in str(compared(few + rows("jpeg"), "jpeg").rates["own"])


def test_codecs_without_a_common_picture_are_not_compared() -> None:
    with pytest.raises(UserError, match="no picture that all of own, jpeg have"):
        curves_of(rows("own", pictures=("a",)) + rows("jpeg", pictures=("b",)))


def test_a_file_without_a_column_of_codecs_is_named_by_itself(tmp_path: Path) -> None:
    text = "bpp,psnr\n0.2,28\n0.4,31\n0.8,34\n"
    first, second = table(tmp_path / "own.csv", text), table(tmp_path / "jpeg.csv", text)
    found = compare([first, second], "jpeg")
    assert [curve.codec for curve in found.curves] == ["own", "jpeg"]
    assert found.rates["own"] == pytest.approx((0.0, 28.0, 34.0), abs=1e-9)
    assert found.pictures == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("codec,psnr_db\nown,30\n", "no column 'bpp'"),
        ("codec,bbp,psnr_db\nown,1,30\n", "did you mean 'bbp'"),
        ("codec,bpp,psnr_db\n", "no rows under its head"),
        ("codec,bpp,psnr_db\nown,much,30\n", "t.csv:2: bpp: got 'much', expected a number"),
        ("codec,bpp,psnr_db\nown,0.5,nan\n", "t.csv:2: psnr_db: got 'nan'"),
        ("codec,bpp,psnr_db\nown,0,30\n", "t.csv:2: bpp: got 0, expected more than 0"),
        ("codec,bpp,psnr_db\nown,0.5\n", "t.csv:2: psnr_db: got None"),
        ("", "empty; expected a table"),
    ],
)
def test_a_table_that_is_none_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = table(tmp_path / "t.csv", text)
    with pytest.raises(UserError) as caught:
        read_rows(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_page_holds_the_curves_and_the_table(tmp_path: Path) -> None:
    found = compared(rows("own", 0.8) + rows("<jpeg>"), "<jpeg>")
    page, drawing, picture = (tmp_path / f"c{ending}" for ending in (".html", ".svg", ".png"))
    for path in (page, drawing, picture):
        tables.write(path, found)
    html = page.read_text()
    assert "<svg" in html
    assert "−20.0 %" in html
    assert "&lt;jpeg&gt;" in html
    assert "<jpeg>" not in html
    assert drawing.read_text().startswith("<?xml")
    assert picture.read_bytes().startswith(b"\x89PNG")
