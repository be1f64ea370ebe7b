"""What is reported of files: means, costs, savings, and that the files are real ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from block_means import BlockMeans, photograph
from toy_codec import toy_codec, toy_images

from domains.compression.config import Config, Rates
from domains.compression.data.records import Images, Picture
from domains.compression.metrics import evaluation, rd, validation
from domains.compression.metrics.bd_rate import bd_rate
from domains.compression.metrics.curves import Point, csv_text, curves_of
from domains.compression.metrics.evaluation import Evaluated, exactness, middle, prices
from domains.compression.metrics.quality import psnr_of
from domains.compression.metrics.rd import measure
from domains.compression.model import codec
from domains.compression.model.proof import FLOATS, INTEGERS, Pair, Proof
from domains.compression.model.rates import index_of, noise_scale, price

QUALITIES: tuple[int, ...] = (0, 20, 40, 60)


def points_of(name: str, factor: float, pictures: int = 4, reach: float = 1.0) -> list[Point]:
    """Files of a codec that needs ``factor`` of the rate of another; 6 dB a bit."""
    return [
        Point(
            codec=name,
            quality=quality,
            picture=f"picture {place}",
            bytes=1000,
            bpp=factor * 0.1 * (1 + place) * 2 ** (quality / 20),
            squared_error=200 * 4 ** (-reach * quality / 20) * (1 + 0.1 * place),
            ms_ssim=0.9,
            bits_estimate=7900.0,
        )
        for place in range(pictures)
        for quality in QUALITIES
    ]


def evaluated(points: list[Point]) -> dict[str, Any]:
    config = Config.model_validate(
        {"name": "t", "evaluation": {"qualities": QUALITIES, "bootstrap": 100}}
    )
    return Evaluated(config, tuple(points)).all()


def test_a_curve_is_the_mean_of_rates_and_of_decibels() -> None:
    points = points_of("a", 1.0)
    curve = curves_of(points)["a"]
    of_first = [point for point in points if point.quality == 0]
    assert curve.bpp[0] == pytest.approx(0.25)
    assert curve.psnr_db[0] == pytest.approx(np.mean([point.psnr_db for point in of_first]))
    assert curve.qualities == QUALITIES
    assert len(curve.pictures) == 4


def test_a_picture_that_lacks_a_quality_is_no_part_of_a_mean() -> None:
    with pytest.raises(ValueError, match="no point at quality 60 of 'picture 3'"):
        curves_of(points_of("a", 1.0)[:-1])


def test_the_table_has_a_row_for_each_file() -> None:
    lines = csv_text(points_of("a", 1.0, pictures=1)).splitlines()
    assert lines[0] == "codec,quality,picture,bytes,bpp,psnr_db,ms_ssim,squared_error"
    assert lines[1] == "a,0,picture 0,1000,0.100000,25.120504,0.900000,200.000000"
    assert len(lines) == 5


def test_the_cost_is_bits_plus_the_price_of_the_error() -> None:
    points = points_of("own", 1.0)
    each = prices(Rates(), QUALITIES).tolist()
    of_error: dict[float, float] = dict(zip(QUALITIES, each, strict=True))
    expected = np.mean([p.bpp + of_error[p.quality] * p.squared_error for p in points])
    metric = evaluated(points)["rate_distortion_cost"]
    assert metric.value == pytest.approx(expected, rel=1e-12)
    assert metric.primary
    assert metric.interval[0] < metric.value < metric.interval[1]


def test_prices_span_the_settings_evenly_in_the_logarithm() -> None:
    found = np.log(prices(Rates(), (0, 21, 42, 63)))
    assert np.exp(found[[0, -1]]) == pytest.approx([Rates().lowest, Rates().highest], rel=1e-6)
    assert np.diff(found) == pytest.approx(np.diff(found)[0], rel=1e-5)


def test_the_floor_is_the_best_setting_of_another_codec_at_each_price() -> None:
    own, other = points_of("own", 1.0), points_of("jpeg", 1.0)
    metric = evaluated(own + other)["rate_distortion_cost"]
    (floor,) = metric.floors.values()
    curve = curves_of(other)["jpeg"]
    choices = [
        [bpp + each * error for bpp, error in zip(curve.bpp, curve.squared_error, strict=True)]
        for each in prices(Rates(), QUALITIES)
    ]
    assert floor == pytest.approx(np.mean([min(row) for row in choices]))
    assert floor <= metric.value


def test_the_saved_rate_is_that_of_the_mean_curves_within_its_interval() -> None:
    own, other = points_of("own", 0.8), points_of("jpeg", 1.0)
    metric = evaluated(own + other)["bd_rate_jpeg"]
    assert metric.value == pytest.approx(-20, abs=1e-6)
    assert metric.unit == "%"
    assert metric.interval == pytest.approx((-20, -20), abs=1e-6)


def test_curves_that_meet_too_little_have_no_saved_rate() -> None:
    own, far = points_of("own", 1.0), points_of("jpeg", 1.0, reach=0.2)
    assert "bd_rate_jpeg" not in evaluated(own + far)


def test_two_pictures_have_no_interval() -> None:
    found = evaluated(points_of("own", 0.8, 2) + points_of("jpeg", 1.0, 2))
    assert {metric.interval for metric in found.values()} == {None}
    assert found["bd_rate_jpeg"].n == 2


def test_files_over_their_estimate_are_in_percent() -> None:
    metric = evaluated(points_of("own", 1.0))["file_over_estimate"]
    assert metric.value == pytest.approx(100 * (8000 / 7900 - 1))
    assert "12.5 bytes a file" in metric.method


def test_points_are_of_the_files_that_the_model_and_others_write() -> None:
    frozen, pixels = BlockMeans(), photograph(40, 56)
    points = [*measure(frozen, [("a", Picture(pixels=pixels))], (0, 63), ["jpeg"])]
    own = [point for point in points if point.codec == "toy"]
    assert len(points) - len(own) == 13
    for point in own:
        encoded = codec.encode(
            frozen, Picture(pixels=pixels), codec.Request(rate=index_of(int(point.quality)))
        )
        decoded = codec.decode(frozen, encoded.data).pixels
        error = float((decoded.double() - pixels.double()).square().mean())
        assert point.bytes == len(encoded.data)
        assert point.bpp == pytest.approx(8 * len(encoded.data) / (40 * 56))
        assert point.squared_error == pytest.approx(error)
        assert point.bits_estimate == encoded.bits_estimate


def test_opacity_and_profile_do_not_count() -> None:
    frozen, pixels = BlockMeans(), photograph(32, 32)
    more = Picture(
        pixels=pixels, alpha=torch.arange(1024).reshape(32, 32).to(torch.uint8), profile=b"p" * 500
    )
    with_more, without = (
        [*measure(frozen, [("a", picture)], (30,))] for picture in (more, Picture(pixels=pixels))
    )
    assert with_more == without


def test_metrics_are_of_the_frozen_model_and_the_pictures_of_the_test(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    frozen, model = BlockMeans(), toy_codec()
    pictures = [(str(seed), Picture(pixels=photograph(48, 48, seed))) for seed in range(3)]
    monkeypatch.setattr(evaluation, "load", lambda folder: folder)
    monkeypatch.setattr(evaluation, "examples", lambda dataset, count: toy_images(count))
    monkeypatch.setattr(evaluation, "test_pictures", lambda config, folder: pictures)
    monkeypatch.setattr(model, "freeze", lambda examples: frozen)
    config = Config.model_validate(
        {"name": "t", "evaluation": {"qualities": (0, 30, 60), "bootstrap": 50,
                                     "baselines": ("jpeg",)}}
    )  # fmt: skip
    found = evaluation.metrics(config, tmp_path, model)
    again = evaluation.metrics(config, tmp_path, model)
    assert found == again
    points = [*rd.measure(frozen, pictures, (0, 30, 60))]
    expected = np.mean([point.bpp for point in points if point.quality == 30])
    assert found["bits_per_pixel/30"].value == pytest.approx(expected)
    assert [name for name, metric in found.items() if metric.primary] == ["rate_distortion_cost"]
    assert all(math.isfinite(metric.value) for metric in found.values())
    assert found["streams_read_exactly"].value == 100.0


def pair(path: str, written: str, read: str, identical: int, difference: int = 0) -> Pair:
    return Pair(path=path, written=written, read=read, streams=4, identical=identical,
                largest_difference=difference)  # fmt: skip


def test_only_streams_that_another_setting_read_count_as_exact() -> None:
    pairs = [pair(INTEGERS, "a", "a", 4), pair(INTEGERS, "a", "b", 4, 1)]
    pairs += [pair(INTEGERS, "b", "a", 3), pair(INTEGERS, "b", "b", 4)]
    pairs += [pair(FLOATS, "a", "b", 1), pair(FLOATS, "b", "a", 1), pair(FLOATS, "a", "a", 4)]
    found = exactness(Proof(settings=("a", "b"), pairs=tuple(pairs)))
    assert found["streams_read_exactly"].value == pytest.approx(100 * 7 / 8)
    assert found["streams_read_exactly"].floors == {"float networks on the same path": 25.0}
    assert found["streams_read_exactly"].n == 8
    assert found["pixels_apart"].value == 1.0


def test_the_middle_of_a_picture_is_proved() -> None:
    pixels = photograph(300, 40)
    assert torch.equal(middle(Picture(pixels=pixels)).pixels, pixels[:, 22:278])


def toy_batch() -> Images:
    return toy_images(count=4, side=64)


def test_the_validated_error_is_that_of_the_picture_which_the_latents_stand_for() -> None:
    model, batch = toy_codec(), toy_batch()
    decoded: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        _, bits, error = validation.scores(model, batch)
        evidence = model.evidence(batch)
        for latent in evidence.latents:
            gain = model.log_gain(latent.name, batch.rate).exp()
            decoded[latent.name] = latent.value[0] / gain
        picture = model.synthesise(decoded, batch.rate)
    expected = (255 * picture.double() - batch.pixels.double()).square().mean((1, 2, 3))
    nats = torch.stack([latent.kl()[0].double() for latent in evidence.latents]).sum(0)
    assert error.numpy() == pytest.approx(expected.numpy(), rel=1e-3)
    assert bits.numpy() == pytest.approx((nats / math.log(2) / 64**2).numpy())


def test_the_validated_cost_is_the_negative_bound_of_the_model_in_bits() -> None:
    model, batch = toy_codec(), toy_batch()
    with torch.no_grad():
        evidence = model.evidence(batch)
        cost, bits, error = validation.scores(model, batch)
        bound = evidence.log_joint_ratio()[0].double()
    scale = noise_scale(batch.rate, model.rates).double()
    constant = 3 * 64**2 / 2 * (2 * math.pi * scale**2).log()
    expected = (-bound - constant) / math.log(2) / 64**2
    plain = bits + price(batch.rate, model.rates).double() * error
    assert plain.numpy() == pytest.approx(expected.numpy(), rel=1e-3)
    weighed = plain * model.emphasis(batch.rate)
    assert cost.numpy() == pytest.approx(weighed.numpy())


def test_validation_is_the_mean_over_all_windows_and_leaves_the_model_in_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Windows:
        def __len__(self) -> int:
            return 2

        def batch(self, epoch: int, index: int) -> Images:
            return toy_images(count=3 - index, side=64, seed=index)

    monkeypatch.setattr(validation, "batches", lambda config, folder, split: Windows())
    model = toy_codec().train()
    found = validation.validate(Config.model_validate({"name": "t"}), tmp_path, model)
    assert model.training
    model.eval()
    with torch.no_grad():
        parts = [validation.scores(model, Windows().batch(0, index)) for index in range(2)]
    cost, bits, error = (torch.cat(each) for each in zip(*parts, strict=True))
    assert found["rate_distortion_cost"] == pytest.approx(float(cost.mean()))
    assert found["bits_per_pixel"] == pytest.approx(float(bits.mean()))
    assert found["psnr_db"] == pytest.approx(np.mean([psnr_of(each) for each in error.tolist()]))


def test_the_saved_rate_of_a_table_is_that_of_its_curves() -> None:
    curves = curves_of(points_of("own", 0.7) + points_of("jpeg", 1.0, reach=1.1))
    own, jpeg = curves["own"], curves["jpeg"]
    expected = bd_rate(jpeg.bpp, jpeg.psnr_db, own.bpp, own.psnr_db)
    assert expected is not None
    found = evaluated(points_of("own", 0.7) + points_of("jpeg", 1.0, reach=1.1))
    assert found["bd_rate_jpeg"].value == expected.percent
