"""Other codecs: what they write is theirs, comes back, and obeys its quality."""

from __future__ import annotations

import io
import math
import sys
from typing import get_args

import pytest
import torch
from PIL import Image, features
from sklearn.datasets import load_sample_image
from torch import Tensor

from core.runtime.errors import UserError
from domains.compression.config import Baseline
from domains.compression.metrics import classical
from domains.compression.metrics.quality import psnr

PILLOWS: tuple[Baseline, ...] = ("jpeg", "webp", "avif", "jpeg2000")
KINDS = {"jpeg": "JPEG", "webp": "WEBP", "avif": "AVIF", "jpeg2000": "JPEG2000"}


def photograph(height: int, width: int) -> Tensor:
    whole = torch.from_numpy(load_sample_image("flower.jpg").copy()).permute(2, 0, 1)
    return whole[:, 200 : 200 + height, 250 : 250 + width].contiguous()


def opened(codec: Baseline, picture: Tensor, quality: float) -> Image.Image:
    return Image.open(io.BytesIO(classical.encode(codec, picture, quality)))


def test_every_baseline_of_the_settings_is_there_with_its_qualities() -> None:
    names = set(get_args(Baseline))
    assert names == set(classical.QUALITIES) == set(classical.SETTINGS)
    assert names - {"jxl"} == set(classical.FORMATS) == set(classical.FEATURES)


@pytest.mark.parametrize("codec", get_args(Baseline))
def test_a_higher_quality_is_a_larger_file_and_a_smaller_error(codec: Baseline) -> None:
    if codec == "jxl":
        pytest.importorskip("imagecodecs")
    picture = photograph(120, 152)
    qualities = classical.QUALITIES[codec]
    files = [classical.encode(codec, picture, quality) for quality in qualities[::3]]
    errors = [psnr(picture, classical.decode(codec, data)) for data in files]
    assert [len(data) for data in files] == sorted(len(data) for data in files)
    assert errors == sorted(errors)
    assert errors[-1] > errors[0] + 5


@pytest.mark.parametrize("codec", PILLOWS)
@pytest.mark.parametrize("size", [(1, 1), (7, 33)])
def test_small_and_odd_pictures_come_back_in_their_size(
    codec: Baseline, size: tuple[int, int]
) -> None:
    picture = photograph(*size)
    quality = classical.QUALITIES[codec][-1]
    assert classical.decode(codec, classical.encode(codec, picture, quality)).shape == (3, *size)


@pytest.mark.parametrize("codec", PILLOWS)
def test_files_are_of_their_format_and_the_same_each_time(codec: Baseline) -> None:
    picture = photograph(64, 80)
    quality = classical.QUALITIES[codec][4]
    assert opened(codec, picture, quality).format == KINDS[codec]
    again = classical.encode(codec, picture, quality)
    assert again == classical.encode(codec, picture, quality)


def test_jpeg_is_progressive_at_half_the_resolution_of_colour() -> None:
    image = opened("jpeg", photograph(64, 80), 50)
    assert image.info["progressive"] == 1
    # Luma is sampled 2 x 2 times for each sample of a chroma plane.
    layers = image.layer  # pyright: ignore[reportAttributeAccessIssue]
    assert [layer[1:3] for layer in layers] == [(2, 2), (1, 1), (1, 1)]


def test_jpeg_with_optimised_tables_is_smaller_than_without() -> None:
    picture = photograph(128, 128)
    plain = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(
        plain, "JPEG", quality=50, subsampling="4:2:0"
    )
    assert len(classical.encode("jpeg", picture, 50)) < len(plain.getvalue())


def test_avif_keeps_the_resolution_of_colour() -> None:
    # Lines of red and blue one pixel wide: at half the resolution both become one purple.
    picture = torch.zeros(3, 32, 32, dtype=torch.uint8)
    picture[0, :, ::2], picture[2, :, 1::2] = 255, 255
    kept = psnr(picture, classical.decode("avif", classical.encode("avif", picture, 94)))
    lost = psnr(picture, classical.decode("jpeg", classical.encode("jpeg", picture, 94)))
    assert kept > 30 > lost + 10


def test_jpeg_2000_meets_the_decibels_asked_for() -> None:
    picture = photograph(160, 160)
    for asked in (30, 36):
        found = psnr(
            picture, classical.decode("jpeg2000", classical.encode("jpeg2000", picture, asked))
        )
        assert math.isclose(found, asked, abs_tol=1.5)


def test_without_imagecodecs_jpeg_xl_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(UserError, match=r"pip install 'latentworks\[compression-jxl\]'"):
        classical.require(["jpeg", "jxl"])


def test_a_codec_that_pillow_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda name: name != "avif")
    with pytest.raises(UserError, match=r"^avif: this Pillow was built without it"):
        classical.require(["jpeg", "avif"])
