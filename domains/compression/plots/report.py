"""Which figures a report holds: those that every model has, and those of what this one can say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from core.contract import Plot
from core.runtime.figures import style
from core.runtime.wording import number
from domains.compression.config import Config
from domains.compression.data import load
from domains.compression.metrics import Curve as Measured
from domains.compression.metrics import curves_of, saving
from domains.compression.model import ImageModel
from domains.compression.plots.bits import draw_bits, draw_rate_map
from domains.compression.plots.crops import draw_crops
from domains.compression.plots.curves import Curve, draw_curves
from domains.compression.plots.exactness import draw_exactness
from domains.compression.plots.gains import draw_gains
from domains.compression.plots.looked import MIDDLE, MOST_PICTURES, MOST_SHOWN, QUALITIES, Looked
from domains.compression.plots.photographs import draw_photographs
from domains.compression.plots.published import PUBLISHED, is_kodak


def plots(config: Config, folder: Path, model: ImageModel) -> Mapping[str, Plot]:
    """The domain's figures by file name."""
    looked = Looked(config, folder, model)
    with style():
        return dict(_drawn(looked))


def _drawn(looked: Looked) -> Iterator[tuple[str, Plot]]:
    yield "rate-distortion", _curves(looked)
    shown = looked.some(MOST_SHOWN)
    if looked.config.evaluation.baselines:
        compared = [(one[0], one[1].pixels, looked.side_by_side(one)) for one in shown]
        yield "crops", draw_crops(compared)
    n = min(len(looked.pictures), MOST_PICTURES)
    yield "bits-by-group", draw_bits(QUALITIES, looked.bits, n)
    name, picture = shown[0]
    rate_map = looked.encoded(picture).rate_map
    if rate_map is not None:
        yield "rate-map", draw_rate_map(picture.pixels, rate_map, name, MIDDLE)
    if looked.steps is not None:
        yield "gains", draw_gains(looked.steps, QUALITIES)
    yield "exactness", draw_exactness(looked.proof)
    yield "photographs", draw_photographs(load(looked.folder).entries)


def _curves(looked: Looked) -> Plot:
    measured = [*curves_of(looked.points).values()]
    shown = [
        Curve(codec=one.codec, bpp=one.bpp, psnr_db=one.psnr_db, ms_ssim_db=one.ms_ssim_db)
        for one in measured
    ]
    kodak = is_kodak([name for name, _ in looked.pictures])
    n = len(looked.pictures)
    caption = (
        f"Bits per pixel of whole files against PSNR and MS-SSIM of 8-bit RGB, mean over {n} test "
        f"picture{'s' * (n != 1)}. {_savings(measured)}"
    )
    if kodak:
        shown += PUBLISHED
        caption += " Dashed: figures that others published, of all 24 pictures of Kodak's suite."
    return draw_curves(shown, caption)


def _savings(measured: Sequence[Measured]) -> str:
    """How much rate the first codec saves over the others, in a sentence."""
    own, *others = measured
    said = []
    for other in others:
        found = saving(other, own)
        if found is None:
            said.append(f"{other.codec} n/a (too few points at a PSNR of both)")
        else:
            span = f"{found.low_db:.1f} to {found.high_db:.1f} dB"
            said.append(f"{other.codec} {_signed(found.percent)} % ({span})")
    if not said:
        return ""
    return f"Rate of {own.codec} at equal PSNR (Bjøntegaard) against {'; '.join(said)}."


def _signed(percent: float) -> str:
    return ("+" if percent > 0 else "") + number(percent, 1)
