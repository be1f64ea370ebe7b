"""What the figures of a report show is what was measured, and they can be read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor
from toy_codec import toy_codec, toy_images

from core.contract import Plot
from core.runtime.figures import style, svg
from domains.compression import data
from domains.compression.config import Config
from domains.compression.data import Entry, Picture
from domains.compression.metrics import classical, evaluation
from domains.compression.model import codec
from domains.compression.model.codec import Request
from domains.compression.model.frozen import Frozen
from domains.compression.model.proof import Proof, prove
from domains.compression.plots import looked, plots
from domains.compression.plots.bits import draw_bits, draw_rate_map
from domains.compression.plots.crops import SIDE, busiest
from domains.compression.plots.curves import Curve, draw_curves
from domains.compression.plots.looked import MIDDLE, QUALITIES, Looked
from domains.compression.plots.photographs import DIGITS, MOST_ROWS, draw_photographs
from domains.compression.plots.published import PUBLISHED

ASKED = (4, 24, 44, 60)
SIZES = {"a": (64, 136), "b": (80, 72)}


@dataclass(frozen=True)
class Drawn:
    """A report's figures, and what they must agree with."""

    config: Config
    folder: Path
    frozen: Frozen
    figures: Mapping[str, Plot]
    pictures: Mapping[str, Tensor]


def picture(height: int, width: int, seed: int) -> Tensor:
    """Edges, slopes and noise."""
    return toy_images(1, 160, seed).pixels[0, :, :height, :width]


def save(folder: Path, pictures: Mapping[str, Tensor]) -> Path:
    folder.mkdir()
    for name, pixels in pictures.items():
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{name}.png")
    return folder


def drawn(folder: Path, pictures: Mapping[str, Tensor]) -> Drawn:
    """The figures of an untrained codec whose test pictures these are."""
    learned = {f"photo-{seed}": picture(96, 96, seed) for seed in range(10, 13)}
    config = Config.model_validate({
        "name": "t",
        "data": {
            "source": "folder", "path": str(save(folder / "learned", learned)),
            "test": str(save(folder / "tested", pictures)), "crop": 48, "window": 32,
        },
        "evaluation": {"qualities": ASKED, "baselines": ["jpeg", "webp"], "bootstrap": 10},
    })  # fmt: skip
    data.prepare(config, folder / "data")
    model = toy_codec()
    frozen = Looked(config, folder / "data", model).frozen
    return Drawn(config, folder / "data", frozen, plots(config, folder / "data", model), pictures)


@pytest.fixture(scope="module")
def tried() -> Iterator[list[list[Tensor]]]:
    """Pictures that streams were tried with, each time; tried in earnest once, for it is slow."""
    pictures: list[list[Tensor]] = []
    proofs: list[Proof] = []

    def once(frozen: Frozen, given: list[Picture]) -> Proof:
        pictures.append([each.pixels for each in given])
        if not proofs:
            proofs.append(prove(frozen, given))
        return proofs[0]

    with pytest.MonkeyPatch.context() as patch:
        for module in (looked, evaluation):
            patch.setattr(module, "prove", once)
        yield pictures


@pytest.fixture(scope="module")
def report(tried: list[list[Tensor]], tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    tested = {name: picture(*size, seed) for seed, (name, size) in enumerate(SIZES.items())}
    return drawn(tmp_path_factory.mktemp("report"), tested)


@pytest.fixture(scope="module")
def blank(report: Drawn, tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """One test picture, all of one colour."""
    flat = torch.full((3, 64, 80), 77, dtype=torch.uint8)
    return drawn(tmp_path_factory.mktemp("blank"), {"flat": flat})


def psnr(a: Tensor, b: Tensor) -> float:
    """Somebody else's PSNR."""
    return float(peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=255))


def panel(plot: Plot, place: int = 0) -> Axes:
    return plot.figure.axes[place]


def lines(axes: Axes) -> dict[str, np.ndarray]:
    """Points of each line by its label."""
    return {
        str(line.get_label()): np.array(line.get_xydata(), np.float64) for line in axes.get_lines()
    }


# What is drawn is what was measured


def test_the_models_curve_is_that_of_its_files(report: Drawn) -> None:
    points = []
    for quality in ASKED:
        sizes, errors = [], []
        for pixels in report.pictures.values():
            file = codec.encode(report.frozen, Picture(pixels=pixels), Request(quality=quality))
            decoded = codec.decode(report.frozen, file.data).pixels
            sizes.append(8 * len(file.data) / pixels[0].numel())
            errors.append(psnr(pixels, decoded))
        points.append((np.mean(sizes), np.mean(errors)))
    shown = lines(panel(report.figures["rate-distortion"]))[report.frozen.kind]
    np.testing.assert_allclose(shown, points, rtol=1e-9)


def test_a_baselines_curve_is_that_of_its_files(report: Drawn) -> None:
    shown = lines(panel(report.figures["rate-distortion"]))["jpeg"]
    points = []
    for quality in classical.QUALITIES["jpeg"]:
        files = {
            name: classical.encode("jpeg", pixels, quality)
            for name, pixels in report.pictures.items()
        }
        bpp = [8 * len(files[name]) / p[0].numel() for name, p in report.pictures.items()]
        db = [psnr(p, classical.decode("jpeg", files[n])) for n, p in report.pictures.items()]
        points.append((np.mean(bpp), np.mean(db)))
    assert 0 < len(shown) <= len(points)
    np.testing.assert_allclose(shown, points[: len(shown)], rtol=1e-9)


def test_both_panels_of_the_curves_have_the_same_rates(report: Drawn) -> None:
    upper, lower = (lines(panel(report.figures["rate-distortion"], place)) for place in (0, 1))
    assert upper.keys() == lower.keys() == {report.frozen.kind, "jpeg", "webp"}
    for name in upper:
        assert upper[name][:, 0].tolist() == lower[name][:, 0].tolist()


def crops(report: Drawn) -> Iterator[tuple[str, str, float, float, np.ndarray]]:
    """Picture, codec, bits per pixel, PSNR and pixels of each crop of a codec."""
    name = ""
    for axes in report.figures["crops"].figure.axes:
        head, said = axes.get_title(loc="left").split("\n")
        shown = np.asarray(axes.images[0].get_array())
        if said == "original":
            name = head.removesuffix(".png")
            top, left = busiest(report.pictures[name], SIDE)
            part = report.pictures[name][:, top : top + SIDE, left : left + SIDE]
            assert (shown == part.permute(1, 2, 0).numpy()).all()
        else:
            bpp, db = map(float, re.findall(r"[\d.]+", said))
            yield name, head, bpp, db, shown


def test_labels_of_crops_are_those_of_the_files(report: Drawn) -> None:
    found = {(name, each): numbers for name, each, *numbers in crops(report)}
    assert len(found) == len(SIZES) * 3
    for name, pixels in report.pictures.items():
        own = codec.encode(report.frozen, Picture(pixels=pixels), Request(quality=MIDDLE)).data
        jpeg = classical.of_size("jpeg", pixels, len(own))
        files = {
            report.frozen.kind: (own, codec.decode(report.frozen, own).pixels),
            "jpeg": (jpeg, classical.decode("jpeg", jpeg)),
        }
        top, left = busiest(pixels, SIDE)
        for each, (file, decoded) in files.items():
            bpp, db, shown = found[name, each]
            assert bpp == pytest.approx(8 * len(file) / pixels[0].numel(), abs=5e-4)
            assert db == pytest.approx(psnr(pixels, decoded), abs=5e-3)
            part = decoded[:, top : top + SIDE, left : left + SIDE]
            assert (shown == part.permute(1, 2, 0).numpy()).all()


@pytest.mark.parametrize("baseline", ["jpeg", "webp"])
def test_no_quality_gives_a_file_nearer_to_the_size(report: Drawn, baseline: Any) -> None:
    pixels = report.pictures["a"]
    low, high = classical.QUALITIES[baseline][0], classical.QUALITIES[baseline][-1]
    sizes = [
        len(classical.encode(baseline, pixels, quality)) for quality in range(int(low), int(high))
    ]
    for size in (1, sizes[20], sizes[60] + 3, 10**6):
        found = len(classical.of_size(baseline, pixels, size))
        best = min(sizes, key=lambda each: abs(each - size))
        assert abs(found - size) <= abs(best - size) + 0.01 * best  # sizes are nearly monotone


def test_a_gradual_codec_meets_a_size_closely(report: Drawn) -> None:
    pixels = report.pictures["a"]
    wanted = len(classical.encode("jpeg2000", pixels, 31.7))
    assert len(classical.of_size("jpeg2000", pixels, wanted)) == pytest.approx(wanted, rel=0.02)


def test_stacked_bits_end_at_all_bits(report: Drawn) -> None:
    bits, shares = (panel(report.figures["bits-by-group"], place) for place in (0, 1))
    for quality in QUALITIES:
        expected = np.mean([
            codec.encode(report.frozen, Picture(pixels=p), Request(quality=quality)).bits_estimate
            / p[0].numel()
            for p in report.pictures.values()
        ])  # fmt: skip
        assert top_of_stack(bits, quality) == pytest.approx(expected, rel=1e-5)
        assert top_of_stack(shares, quality) == pytest.approx(100)
    assert [each.get_label() for each in bits.collections] == ["hyper", "low", "high"]


def top_of_stack(axes: Axes, x: float) -> float:
    corners = axes.collections[-1].get_paths()[0].vertices
    return float(np.asarray(corners)[np.asarray(corners)[:, 0] == x, 1].max())


def test_the_rate_map_holds_all_bits_of_the_file(report: Drawn) -> None:
    plot = report.figures["rate-map"]
    heat = np.asarray(panel(plot, 1).images[-1].get_array(), np.float64)
    name = re.sub(r"\.png at .*", "", plot.caption)
    encoded = codec.encode(
        report.frozen, Picture(pixels=report.pictures[name]), Request(quality=MIDDLE)
    )
    assert heat.sum() == pytest.approx(encoded.bits_estimate, rel=1e-5)
    assert f"the {round(encoded.bits_estimate / 8):,} bytes" in plot.caption
    assert 8 * len(encoded.data) >= encoded.bits_estimate


def test_a_block_of_the_map_lies_on_its_pixels() -> None:
    bits = torch.zeros(3, 4)
    bits[1, 2] = 50.0
    with style():
        plot = draw_rate_map(torch.zeros(3, 20, 30, dtype=torch.uint8), bits, "p", 10)
    heat = panel(plot, 1).images[-1]
    left, right, bottom, top = heat.get_extent()
    side = (right - left) / 4, (bottom - top) / 3
    assert side == (8, 8)
    assert (left + 2 * side[0], top + side[1]) == (15.5, 7.5)  # edges of pixels 16 and 8
    assert "100 % of them" in plot.caption


def test_a_step_is_one_over_the_gain(report: Drawn) -> None:
    model = toy_codec()
    rates = torch.tensor([Request(quality=quality).index for quality in QUALITIES])
    for name, shown in lines(panel(report.figures["gains"])).items():
        if name in ("hyper", "low", "high"):
            gain = model.log_gain(name, rates)[:, :, 0, 0].exp().detach()
            expected = (1 / gain).median(1).values
            np.testing.assert_allclose(shown[:, 1], expected, rtol=1e-5)
    assert {"hyper", "low", "high"} <= lines(panel(report.figures["gains"])).keys()


def test_the_exactness_is_that_of_the_metrics(report: Drawn, tried: list[list[Tensor]]) -> None:
    metrics = evaluation.metrics(report.config, report.folder, toy_codec())
    assert all((a == b).all() for a, b in zip(tried[0], tried[-1], strict=True))
    caption = report.figures["exactness"].caption
    exact = metrics["streams_read_exactly"]
    assert f"{exact.value:.0f} % give the latents" in caption
    assert f"{exact.floors['float networks on the same path']:.0f} % are" in caption
    cells = [text.get_text() for text in panel(report.figures["exactness"]).texts]
    counts = [tuple(map(int, c.split(" of "))) for c in cells if re.fullmatch(r"\d+ of \d+", c)]
    settings = round(len(counts) ** 0.5)
    assert len(counts) == settings**2
    assert sum(n for _, n in counts) == exact.n * settings / (settings - 1)
    assert sum(right for right, _ in counts) == sum(n for _, n in counts)


def test_every_photograph_is_listed_with_the_hash_of_its_file(report: Drawn) -> None:
    written = [text.get_text() for text in panel(report.figures["photographs"]).texts]
    folder = report.folder.parent
    files = [*(folder / "learned").iterdir(), *(folder / "tested").iterdir()]
    assert len(files) == 5
    for file in files:
        assert file.name in written
        assert hashlib.sha256(file.read_bytes()).hexdigest()[:DIGITS] in written
    assert written.count("test") == 2


def test_of_very_many_photographs_some_are_listed_and_the_rest_counted() -> None:
    entries = [
        Entry(
            name=f"{place:04d}-{'n' * 60}.jpg", licence="CC0-1.0", sha256="ab" * 32, split="train",
            width=4000, height=3000, scales=(0.5,), first=0, crops=3, detail=(1.0, 1.0, 1.0),
        )
        for place in range(1500)
    ]  # fmt: skip
    with style():
        plot = draw_photographs(entries)
    assert len(panel(plot).texts) == 6 * (MOST_ROWS + 1)
    assert f"{1500 - MOST_ROWS:,} more are left out" in plot.caption
    assert not overlaps(plot.figure)


# Figures can be read


@pytest.mark.parametrize("name", ["report", "blank"])
def test_no_text_lies_on_another(name: str, request: pytest.FixtureRequest) -> None:
    for figure, plot in request.getfixturevalue(name).figures.items():
        assert not overlaps(plot.figure), figure


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that cover each other."""
    canvas = FigureCanvasAgg(figure)
    with style():
        canvas.draw()
    renderer = canvas.get_renderer()
    unseen = {label for axes in figure.axes for label in beyond(axes)}
    boxes = [
        (text.get_text(), text.get_window_extent(renderer))
        for text in figure.findobj(Text)
        if isinstance(text, Text) and text.get_text().strip() and text not in unseen
    ]
    return [
        (a, b)
        for (a, one), (b, other) in combinations(boxes, 2)
        if min(one.x1, other.x1) - max(one.x0, other.x0) > 1
        and min(one.y1, other.y1) - max(one.y0, other.y0) > 1
    ]


def beyond(axes: Axes) -> Iterator[Text]:
    """Labels of ticks that lie outside of what is shown, and so are not drawn."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            if not low <= tick.get_loc() <= high:
                yield from (tick.label1, tick.label2)


@pytest.mark.parametrize("name", ["report", "blank"])
def test_nothing_drawn_is_not_a_number(name: str, request: pytest.FixtureRequest) -> None:
    figures = request.getfixturevalue(name).figures
    expected = {"rate-distortion", "crops", "bits-by-group", "rate-map", "gains", "exactness",
                "photographs"}  # fmt: skip
    assert figures.keys() == expected
    for plot in figures.values():
        assert not re.search(r"\b(nan|inf)\b", plot.caption + svg(plot.figure), re.IGNORECASE)
        for axes in plot.figure.axes:
            assert all(np.isfinite(points).all() for points in lines(axes).values())
            assert all(np.isfinite(image.get_array()).all() for image in axes.images)


def test_one_picture_is_spoken_of_as_one(blank: Drawn) -> None:
    captions = [plot.caption for plot in blank.figures.values()]
    assert not any(re.search(r"\b1 test pictures", caption) for caption in captions)
    assert "mean over 1 test picture." in blank.figures["rate-distortion"].caption


def test_more_groups_than_colours_stay_apart() -> None:
    bits = {f"y{place}": [0.1, 0.2, 0.3] for place in range(12)}
    with style():
        plot = draw_bits((0, 30, 60), bits, 3)
    shades = {tuple(each.get_facecolor()[0]) for each in panel(plot).collections}
    assert len(shades) == 12
    assert not overlaps(plot.figure)


def test_figures_of_others_are_dashed_and_said_to_be_published() -> None:
    own = Curve(codec="dct", bpp=(0.2, 0.9), psnr_db=(28.0, 35.0))
    with style():
        plot = draw_curves([own, *PUBLISHED], "caption")
    shown = panel(plot).get_lines()
    assert {str(line.get_label()): bool(line.is_dashed()) for line in shown} == {
        "dct": False, **{f"{curve.codec} (published)": True for curve in PUBLISHED},
    }  # fmt: skip
    patterns = {str(line.get_linestyle()) + str(line._dash_pattern) for line in shown}  # type: ignore[attr-defined]
    assert len(patterns) == len(shown)
    assert max(x for line in shown for x in np.asarray(line.get_xdata())) <= 1.25 * 0.9


def test_figures_of_others_are_drawn_beside_kodak_alone(tmp_path: Path, report: Drawn) -> None:
    assert not any("published" in name for name in lines(panel(report.figures["rate-distortion"])))
    kodak = drawn(tmp_path, {"kodim01": picture(64, 96, 3)}).figures["rate-distortion"]
    assert sum("published" in name for name in lines(panel(kodak))) == len(PUBLISHED)
    assert "others published" in kodak.caption
