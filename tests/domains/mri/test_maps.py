"""Maps: ESPIRiT finds what was simulated; boxes are the largest; supports are the body's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scanned import scanned
from torch import Tensor

from domains.mri.model.espirit import espirit
from domains.mri.model.maps import TooFewLines, calibration_box, maps


def agreement(found: Tensor, true: Tensor, inside: Tensor) -> Tensor:
    """Size of the cosine between maps at each pixel of a region: their phase is free."""
    return (found.conj() * true).sum(0).abs()[inside]


@pytest.mark.parametrize("method", ["espirit", "rss"])
def test_maps_are_those_of_the_coils_in_the_body(method: str) -> None:
    kspace, true, picture = scanned(noise=0.01)
    (found,) = maps(kspace[None], (20, 20), method)
    inside = picture.abs() > 0.5
    assert agreement(found, true, inside).mean() > {"espirit": 0.999, "rss": 0.99}[method]
    assert torch.allclose(found.abs().square().sum(0)[inside], torch.ones(1), atol=1e-4)


def test_espirit_knows_where_the_body_is() -> None:
    kspace, _, picture = scanned(noise=0.02)
    (found,) = maps(kspace[None], (24, 24))
    outside = torch.nn.functional.max_pool2d(picture.abs()[None], 9, 1, 4)[0] == 0
    assert (found.abs().sum(0)[picture.abs() > 0.3] > 0).float().mean() > 0.99
    assert (found.abs().sum(0)[outside] == 0).float().mean() > 0.7


def test_eigenvalues_are_one_in_the_body() -> None:
    kspace, _, picture = scanned()
    values = espirit(kspace[None, :, 20:44, 20:44], (64, 64))[1][0]
    assert values[picture.abs() > 0.5].min() > 0.97
    assert values.max() < 1.0 + 1e-3


def test_a_phase_common_to_all_coils_is_none_of_the_maps() -> None:
    kspace, _, picture = scanned(noise=0.01)
    turned = kspace * torch.polar(torch.tensor(1.0), torch.tensor(0.9))
    inside = picture.abs() > 0.3
    (found,), (plain,) = maps(turned[None], (20, 20)), maps(kspace[None], (20, 20))
    torch.testing.assert_close(found[:, inside], plain[:, inside], atol=1e-3, rtol=1e-3)


def test_maps_do_not_depend_on_the_scale_of_the_data() -> None:
    kspace, _, picture = scanned(noise=0.01)
    inside = picture.abs() > 0.3
    (large,), (plain,) = maps(1e6 * kspace[None], (20, 20)), maps(kspace[None], (20, 20))
    torch.testing.assert_close(large[:, inside], plain[:, inside], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("size", [31, 48])
def test_any_size_and_nothing_at_all(size: int) -> None:
    nothing = torch.zeros(1, 4, size, size + 1, dtype=torch.complex64)
    assert torch.isfinite(torch.view_as_real(maps(nothing, (12, 12)))).all()
    assert torch.isfinite(torch.view_as_real(maps(nothing, (12, 12), "rss"))).all()


def test_one_coil_has_no_maps() -> None:
    kspace, _, _ = scanned(coils=1)
    assert torch.equal(maps(kspace[None], (0, 0)), torch.ones_like(kspace[None]))


def test_too_few_lines_are_refused() -> None:
    kspace, _, _ = scanned(size=32)
    with pytest.raises(TooFewLines, match="6 x 20 calibration lines"):
        maps(kspace[None], (6, 20))


@given(st.integers(9, 24), st.integers(9, 24), st.integers(0, 9), st.integers(0, 9), st.data())
def test_the_box_is_sampled_and_no_larger_one_is(
    height: int, width: int, rows: int, columns: int, data: st.DataObject
) -> None:
    seed = data.draw(st.integers(0, 1000))
    mask = torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) < 0.5
    top, left = height // 2 - rows // 2, width // 2 - columns // 2
    mask[top : top + rows, left : left + columns] = True
    box = calibration_box(mask)
    full = [
        (r, c)
        for r in range(1, height + 1)
        for c in range(1, width + 1)
        if bool(mask[height // 2 - r // 2 :][:r, width // 2 - c // 2 :][:, :c].all())
    ]
    areas = [r * c for r, c in full]
    assert box[0] * box[1] == max(areas, default=0)
    assert box == (0, 0) or box in full
