"""Methods against the best classical one, on slices that are hard for all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from domains.mri.metrics.comparison import against_best, best_of
from domains.mri.metrics.protocols import Scores, calgary_campinas, fastmri

CLASSICAL = ("cg-sense", "wavelet")


def scores(slices: int = 16, blank: int = 0) -> dict[str, Scores]:
    """Of methods that differ in the noise they leave; slices differ much more."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(slices, 24, 20, generator=generator)
    target[:blank] = 0
    noise = torch.randn(slices, 24, 20, generator=generator)
    noise = noise * torch.linspace(0.02, 0.4, slices)[:, None, None]
    strengths = {"cg-sense": 1.5, "wavelet": 1.0, "rvn": 0.97, "same": 1.0, "varnet": 1.1}
    return {
        name: calgary_campinas(target + strength * noise, target, "noise-free")
        for name, strength in strengths.items()
    }


@pytest.mark.parametrize("measure", ["psnr_db", "nmse", "ssim"])
def test_a_small_gain_on_every_slice_is_seen(measure: str) -> None:
    """Paired: the gain is a tenth of the spread over slices, and its interval excludes 0."""
    found = against_best(scores(), measure, CLASSICAL)
    assert list(found) == ["rvn", "same", "varnet"]
    assert {each.baseline for each in found.values()} == {"wavelet"}
    assert [each.verdict for each in found.values()] == ["better", "undecided", "worse"]
    assert [each.won for each in found.values()] == [1.0, 0.5, 0.0]
    better = found["rvn"]
    assert better.interval is not None
    assert better.interval[0] < better.value < better.interval[1]
    assert "target: magnitude of the noise-free picture" in better.protocol
    assert better.drawn == "16 slices"


def test_the_difference_is_that_of_the_means() -> None:
    known = scores()
    found = against_best(known, "nmse", CLASSICAL)["rvn"]
    expected = known["rvn"].mean("nmse") - known["wavelet"].mean("nmse")
    assert found.value == pytest.approx(expected)
    assert found.value < 0
    assert found.verdict == "better"


def test_the_best_is_chosen_in_the_direction_of_the_measure() -> None:
    known = scores()
    for measure in known["rvn"].values:
        assert best_of(known, measure, CLASSICAL) == "wavelet", measure
    with pytest.raises(ValueError, match="tv"):
        best_of(known, "ssim", ["tv"])


def test_heads_are_drawn_with_all_their_slices() -> None:
    """The gain grows from head to head: few heads leave more in doubt than many slices."""
    known = scores(blank=2)
    subjects = [f"head {place // 4}" for place in range(16)]
    slices = against_best(known, "nmse", CLASSICAL)["rvn"]
    heads = against_best(known, "nmse", CLASSICAL, subjects)["rvn"]
    assert heads.value == pytest.approx(slices.value)
    assert (slices.drawn, heads.drawn, heads.n) == ("14 slices", "4 subjects", 14)
    assert slices.interval is not None
    assert heads.interval is not None
    assert np.ptp(heads.interval) > np.ptp(slices.interval)
    one = against_best(known, "nmse", CLASSICAL, ["a"] * 16)["rvn"]
    assert (one.interval, one.verdict, one.drawn) == (None, "undecided", "1 subject")
    with pytest.raises(ValueError, match="3 subjects of 16 slices"):
        against_best(known, "nmse", CLASSICAL, ["a", "b", "c"])


def test_other_slices_or_conventions_are_refused() -> None:
    known, x = scores(), torch.rand(16, 24, 20)
    with pytest.raises(ValueError, match="rvn"):
        against_best(known | {"rvn": scores(blank=1)["rvn"]}, "nmse", CLASSICAL)
    shifted = replace(known["rvn"], kept=np.arange(17) != 16)
    others = {name: replace(each, kept=np.arange(17) != 0) for name, each in known.items()}
    assert shifted.words == others["wavelet"].words
    with pytest.raises(ValueError, match="or other slices"):
        against_best(others | {"rvn": shifted}, "nmse", CLASSICAL)
    with pytest.raises(ValueError, match="fastMRI"):
        against_best(known | {"rvn": fastmri(x, x, "noise-free")}, "nmse", CLASSICAL)
