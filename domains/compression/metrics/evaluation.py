"""The metrics of a run: the model's own files of whole test pictures, beside those of others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from core.contract import Metric
from core.runtime.order import derive
from core.runtime.statistics import Interval, bootstrap_interval
from core.variational.diagnostics import looking_at
from domains.compression.config import Config, Rates
from domains.compression.data import examples, load, test_pictures
from domains.compression.metrics import classical
from domains.compression.metrics.bd_rate import bd_rate
from domains.compression.metrics.curves import Curve, Point, curves_of, saving
from domains.compression.metrics.rd import measure
from domains.compression.model.base import ImageModel
from domains.compression.model.proof import FLOATS, INTEGERS, PROVED, Proof, middle, prove
from domains.compression.model.rates import index_of, price

CALIBRATION = 64  # train crops that show the ranges of the prior's networks
FEWEST = 3  # pictures for an interval
SAVED = "Rate at equal PSNR"
FILES = "Files at each quality"
KEPT = "Whether files are what the model says"

Array = NDArray[np.float64]


def metrics(config: Config, folder: Path, model: ImageModel) -> Mapping[str, Metric]:
    """Everything that is reported of the test pictures, from real files."""
    classical.require(config.evaluation.baselines)
    options = config.evaluation
    with looking_at(model, derive(config.seed, "metrics")):
        frozen = model.freeze(examples(load(folder), CALIBRATION))
        pictures = test_pictures(config, folder)
        points = measure(frozen, pictures, options.qualities, options.baselines, options.effort)
        found = Evaluated(config, tuple(points)).all()
        return found | exactness(prove(frozen, [middle(each) for _, each in pictures[:PROVED]]))


def exactness(proof: Proof) -> dict[str, Metric]:
    """What is reported of streams that one setting of the machine wrote and another read."""
    crossed = [p for p in proof.pairs if p.path == INTEGERS and p.written != p.read]
    streams, share = sum(pair.streams for pair in crossed), proof.identical_share(INTEGERS)
    floats = proof.identical_share(FLOATS)
    if share is None:
        return {}
    said = f"written under one of {', '.join(proof.settings)} and read under each other one"
    return {
        "streams_read_exactly": Metric(
            value=100 * share,
            unit="%",
            direction="higher",
            n=streams,
            method=f"streams whose latents came back to the last bit, {said}",
            floors={} if floats is None else {"float networks on the same path": 100 * floats},
            ceiling=100.0,
            group=KEPT,
        ),
        "pixels_apart": Metric(
            value=float(proof.largest_difference),
            unit="grey levels",
            direction="lower",
            n=streams,
            method=f"largest difference of a pixel drawn from the same latents, {said}",
            ceiling=0.0,
            group=KEPT,
        ),
    }


def prices(rates: Rates, qualities: Sequence[float]) -> Array:
    """Return the price of an error at each quality, in bits per pixel and (grey level)²."""
    indices = torch.tensor([index_of(int(quality)) for quality in qualities])
    return price(indices, rates).double().numpy()


@dataclass(frozen=True, eq=False)
class Evaluated:
    """All that is reported of some files.

    Args:
        config: The settings.
        points: The first codec's are the model's.
    """

    config: Config
    points: tuple[Point, ...]

    def all(self) -> dict[str, Metric]:
        """Every metric, the primary one first."""
        return self._cost() | self._savings() | self._each_quality() | self._overhead()

    @cached_property
    def curves(self) -> tuple[Curve, ...]:
        """Means over the pictures: the model's, then the baselines'."""
        return tuple(curves_of(self.points).values())

    @property
    def pictures(self) -> int:
        """How many."""
        return len(self.curves[0].pictures)

    @property
    def _own(self) -> list[Point]:
        return [point for point in self.points if point.codec == self.curves[0].codec]

    def _table(self, curve: Curve, quantity: str) -> Array:
        """A quantity of every file of a codec, of shape ``(picture, quality)``."""
        found = {
            (point.picture, point.quality): getattr(point, quantity)
            for point in self.points
            if point.codec == curve.codec
        }
        return np.array([[found[n, q] for q in curve.qualities] for n in curve.pictures])

    def _interval(self, values: Array) -> Interval | None:
        """Of a mean over pictures."""
        if self.pictures < FEWEST:
            return None
        return bootstrap_interval(np.mean, values, resamples=self.config.evaluation.bootstrap)

    @property
    def _over(self) -> str:
        """What is said of every number with an interval."""
        if self.pictures < FEWEST:
            return "too few pictures for an interval"
        return f"bootstrap over pictures, {self.config.evaluation.bootstrap}"

    def _cost(self) -> dict[str, Metric]:
        own, *others = self.curves
        of_error = prices(self.config.rates, own.qualities)
        error = self._table(own, "squared_error")
        costs = (self._table(own, "bpp") + of_error * error).mean(1)
        floors = {classical.SETTINGS[each.codec]: lowest_cost(each, of_error) for each in others}
        metric = Metric(
            value=float(costs.mean()),
            unit="bits/pixel",
            direction="lower",
            n=self.pictures,
            interval=self._interval(costs),
            method="bits per pixel of whole files plus the price of the squared error, mean over "
            f"{len(own.qualities)} qualities; {self._over}; of other codecs the setting of the "
            "lowest cost at each price",
            floors=floors,
            primary=True,
        )
        return {"rate_distortion_cost": metric}

    def _savings(self) -> dict[str, Metric]:
        own, *others = self.curves
        found = {}
        for anchor in others:
            saved = saving(anchor, own)
            if saved is None:
                continue
            found[f"bd_rate_{anchor.codec}"] = Metric(
                value=saved.percent,
                unit="%",
                direction="lower",
                n=self.pictures,
                interval=self._saving_interval(anchor, own),
                method=f"Bjøntegaard difference to {classical.SETTINGS[anchor.codec]}, pchip over "
                f"{saved.low_db:.2f} to {saved.high_db:.2f} dB, points inside: {saved.inside[0]} "
                f"and {saved.inside[1]}; below 0 is less rate; {self._over}",
                floors={classical.SETTINGS[anchor.codec]: 0.0},
                group=SAVED,
            )
        return found

    def _saving_interval(self, anchor: Curve, own: Curve) -> Interval | None:
        """None also where resamples of the pictures do not reach common qualities."""
        if self.pictures < FEWEST:
            return None
        tables = [
            self._table(curve, quantity)
            for curve in (anchor, own)
            for quantity in ("bpp", "psnr_db")
        ]

        def percent(*rows: Array) -> float:
            found = bd_rate(*(row.mean(0).tolist() for row in rows))
            return math.nan if found is None else found.percent

        try:
            return bootstrap_interval(percent, *tables, resamples=self.config.evaluation.bootstrap)
        except ValueError:  # undefined in too many resamples
            return None

    def _each_quality(self) -> dict[str, Metric]:
        units = {"bpp": ("bits_per_pixel", "bits/pixel"), "psnr_db": ("psnr_db", "dB")}
        units["ms_ssim"] = ("ms_ssim", "")
        found = {}
        for quantity, (name, unit) in units.items():
            table = self._table(self.curves[0], quantity)
            for quality, column in zip(self.curves[0].qualities, table.T, strict=True):
                found[f"{name}/{quality:02g}"] = Metric(
                    value=float(column.mean()),
                    unit=unit,
                    direction="none",
                    n=self.pictures,
                    interval=self._interval(column),
                    method=f"quality {quality:g}, whole files, 8-bit RGB; {self._over}",
                    group=FILES,
                )
        return found

    def _overhead(self) -> dict[str, Metric]:
        bits = math.fsum(8 * point.bytes for point in self._own)
        estimate = math.fsum(point.bits_estimate or 0 for point in self._own)
        if estimate <= 0:
            return {}
        count = len(self._own)
        bytes_more = (bits - estimate) / 8 / count
        metric = Metric(
            value=100 * (bits / estimate - 1),
            unit="%",
            direction="lower",
            n=count,
            method="bits of whole files over what the frozen tables say that their latents cost; "
            f"{bytes_more:.1f} bytes a file, header and checks included",
            ceiling=0.0,
            group=KEPT,
        )
        return {"file_over_estimate": metric}


def lowest_cost(curve: Curve, of_error: Array) -> float:
    """Return the mean over prices of the cost at the best of a codec's settings."""
    costs = np.array(curve.bpp) + of_error[:, None] * np.array(curve.squared_error)
    return float(costs.min(1).mean())
