from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from core.runtime.errors import UserError
from domains.mri.data.masks import KINDS, mask

LINES = [kind for kind, (by_lines, _) in KINDS.items() if by_lines]
POSITIONS = [kind for kind in KINDS if kind not in LINES]
SEEDS = st.integers(0, 2**63 - 1)


def middle(shape: tuple[int, ...], side: int) -> tuple[slice, ...]:
    return tuple(slice(size // 2 - side // 2, size // 2 - side // 2 + side) for size in shape)


def columns(kind: str, width: int, acceleration: float, acs: int, seed: int) -> np.ndarray:
    """The lines that a mask by lines samples."""
    return mask(kind, (3, width), acceleration, acs, seed)[0].numpy()


@st.composite
def requests(draw: st.DrawFn, by_lines: bool) -> tuple[tuple[int, int], float, int]:
    """A shape, an acceleration and calibration lines that are possible together."""
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    sides = shape[1:] if by_lines else shape
    total = math.prod(sides)
    acceleration = draw(st.floats(1, total))
    count = round(total / acceleration)
    assume(count >= 1)
    most = min(*sides, count if by_lines else math.isqrt(count), *sides)
    return shape, acceleration, draw(st.integers(0, most))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=SEEDS)
def test_the_acceleration_is_exact_and_the_middle_full(
    kind: str, data: st.DataObject, seed: int
) -> None:
    shape, acceleration, acs = data.draw(requests(by_lines=kind in LINES))
    found = mask(kind, shape, acceleration, acs, seed)
    assert found.shape == shape
    assert found.dtype == torch.bool
    if kind in LINES:
        assert (found == found[:1]).all()
        found = found[0]
    assert int(found.sum()) == round(found.numel() / acceleration)
    assert found[middle(tuple(found.shape), acs)].all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_says_everything_and_the_global_streams_nothing(kind: str) -> None:
    np.random.seed(1)
    torch.manual_seed(1)
    first = mask(kind, (64, 60), 4.0, 6, seed=3)
    numpy_next, torch_next = np.random.random(), torch.rand(())
    np.random.seed(1)
    torch.manual_seed(1)
    assert np.random.random() == numpy_next
    assert torch.equal(torch.rand(()), torch_next)
    assert torch.equal(mask(kind, (64, 60), 4.0, 6, seed=3), first)
    others = [mask(kind, (64, 60), 4.0, 6, seed=seed) for seed in range(4, 10)]
    assert any(not torch.equal(other, first) for other in others)


@pytest.mark.parametrize("kind", KINDS)
def test_acceleration_one_samples_all(kind: str) -> None:
    assert mask(kind, (9, 8), 1.0).all()


@settings(max_examples=40, deadline=None)
@given(width=st.integers(8, 200), acceleration=st.floats(1, 8), seed=SEEDS)
def test_equispaced_lines_have_even_distances(width: int, acceleration: float, seed: int) -> None:
    gaps = np.diff(np.flatnonzero(columns("equispaced", width, acceleration, 0, seed)))
    if gaps.size:
        assert gaps.max() - gaps.min() <= 1


def test_a_whole_acceleration_takes_every_such_line_from_each_of_its_offsets() -> None:
    offsets = set()
    for seed in range(60):
        lines = np.flatnonzero(columns("equispaced", 96, 4.0, 0, seed))
        assert (np.diff(lines) == 4).all()
        offsets.add(int(lines[0]))
    assert offsets == {0, 1, 2, 3}


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(16, 200), acceleration=st.floats(2.5, 8), acs=st.integers(0, 4), seed=SEEDS
)
def test_magic_lines_are_no_mirror_images_and_interleave_with_them(
    width: int, acceleration: float, acs: int, seed: int
) -> None:
    assume(round(width / acceleration) > acs)
    lines = np.flatnonzero(columns("magic", width, acceleration, acs, seed)) - width // 2
    outside = lines[(lines < -(acs // 2)) | (lines >= acs - acs // 2)]
    frequencies = np.sort(np.abs(outside))
    assert len(np.unique(frequencies)) == len(frequencies)
    if len(frequencies) > 1:
        gaps = np.diff(frequencies)
        assert gaps.max() - gaps.min() <= 1
    sides = np.sign(outside[np.argsort(np.abs(outside))])
    inner = sides[(frequencies > acs // 2) & (frequencies < width // 2)]
    assert (inner[1:] == -inner[:-1]).all()


def test_random_lines_are_equally_likely() -> None:
    hits = sum(columns("random", 40, 4.0, 4, seed).astype(int) for seed in range(2000))
    assert isinstance(hits, np.ndarray)
    outside = np.delete(hits, np.arange(18, 22)) / 2000
    expected = 6 / 36
    assert np.abs(outside - expected).max() < 5 * math.sqrt(expected * (1 - expected) / 2000)


@pytest.mark.parametrize(
    ("kind", "shape", "acceleration", "seeds"),
    [("gaussian-1d", (1, 512), 128.0, 1500), ("gaussian-2d", (64, 64), 160.0, 300)],
)
def test_a_gaussian_density_is_half_at_a_third_of_half_a_side(
    kind: str, shape: tuple[int, int], acceleration: float, seeds: int
) -> None:
    """Few of many are drawn, so that drawing without replacement changes little."""
    drawn = sum(
        mask(kind, shape, acceleration, 0, seed).numpy().astype(int) for seed in range(seeds)
    )
    assert isinstance(drawn, np.ndarray)
    half = [max(1, size // 2) for size in shape]
    radius = np.hypot(*((np.indices(shape).T - np.array(shape) // 2) / half).T)
    near, away = drawn[radius < 0.1].mean(), drawn[np.abs(radius - 0.35) < 0.05].mean()
    assert away / near == pytest.approx(0.5, abs=0.08)


def spread(found: np.ndarray, acs: int) -> float:
    """The least distance between samples outside the middle, in the local size of discs."""
    outside = found.copy()
    outside[middle(found.shape, acs)] = False
    places = np.argwhere(outside).astype(float)
    half = np.array(found.shape) // 2
    radius = np.sqrt((((places - half) / half) ** 2).sum(1))
    inside = radius <= 1
    places, growth = places[inside], 1 + 2 * radius[inside]
    pairs = cKDTree(places).query_pairs(8, output_type="ndarray")
    away = np.linalg.norm(places[pairs[:, 0]] - places[pairs[:, 1]], axis=1)
    return float((away / np.minimum(growth[pairs[:, 0]], growth[pairs[:, 1]])).min())


@pytest.mark.parametrize("acceleration", [4.0, 8.0, 12.0])
@pytest.mark.parametrize("shape", [(96, 96), (109, 85)])
def test_poisson_samples_are_as_far_apart_as_discs_at_random_can_be(
    shape: tuple[int, int], acceleration: float
) -> None:
    """Discs put down at random cover .547 of a plane (Feder 1980), which gives their size."""
    found = mask("poisson", shape, acceleration, 12, 1).numpy()
    half = np.array(shape) // 2
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"), -1)
    radius = np.sqrt((((grid - half) / half) ** 2).sum(-1))
    free = radius <= 1
    free[middle(shape, 12)] = False
    weight = ((1 + 2 * radius[free]) ** -2.0).sum()
    expected = math.sqrt(0.547 * 4 / math.pi * weight / (found.sum() - 144))
    assert spread(found, 12) == pytest.approx(expected, rel=0.25)
    even = mask("gaussian-2d", shape, acceleration, 12, 1).numpy()
    assert spread(even, 12) < 0.65 * spread(found, 12)


@pytest.mark.parametrize("kind", ["poisson", "gaussian-2d", "radial"])
def test_the_middle_is_sampled_more_densely(kind: str) -> None:
    found = mask(kind, (96, 96), 6.0, 0, 2).numpy()
    radius = np.hypot(*(np.indices((96, 96)) - 48)) / 48
    density = [found[(radius >= low) & (radius < low + 0.25)].mean() for low in (0, 0.25, 0.5)]
    assert density[0] > 1.3 * density[1] > 1.3 * 1.2 * density[2]


@pytest.mark.parametrize("kind", ["poisson", "radial", "spiral"])
def test_corners_are_used_last(kind: str) -> None:
    radius = np.hypot(*(np.indices((64, 64)) - 32)) / 32
    assert not mask(kind, (64, 64), 3.0, 8, 0).numpy()[radius > 1.03].any()
    full = mask(kind, (64, 64), 1.1, 8, 0).numpy()
    assert full[radius < 0.9].mean() > 0.99


def test_radial_samples_lie_on_spokes_through_the_middle() -> None:
    found = mask("radial", (129, 129), 30.0, 0, 5).numpy()
    rows, columns = np.nonzero(found)
    y, x = rows - 64, columns - 64
    far = np.hypot(y, x) > 40
    angles = np.sort(np.mod(np.degrees(np.arctan2(y[far], x[far])), 180))
    gaps = np.diff(np.concatenate([angles, angles[:1] + 180]))
    spokes = int((gaps > 3).sum())
    assert found[64, 64]
    assert spokes == pytest.approx(found.sum() / 129, abs=2)


def test_spiral_samples_fill_the_ellipse_evenly() -> None:
    found = mask("spiral", (128, 128), 10.0, 0, 5).numpy()
    rows, columns = np.nonzero(found)
    radius = np.hypot(rows - 64, columns - 64)
    counts, edges = np.histogram(radius, np.linspace(12, 64, 6))
    density = counts / np.diff(edges**2)
    assert density.max() / density.min() < 1.5
    angles = np.arctan2(rows - 64, columns - 64)
    quarters, _ = np.histogram(angles, 4, (-math.pi, math.pi))
    assert quarters.max() / quarters.min() < 1.2


def test_poisson_is_fast() -> None:
    for size, limit in ((96, 0.5), (256, 3.0)):
        start = time.process_time()
        mask("poisson", (size, size), 5.0, 16, 0)
        assert time.process_time() - start < limit


@pytest.mark.parametrize(
    ("kind", "shape", "acceleration", "acs", "message"),
    [
        ("poison", (8, 8), 2.0, 0, "unknown kind 'poison'; did you mean 'poisson'"),
        ("random", (8, 8), 0.5, 0, "acceleration 0.5; expected at least 1"),
        ("random", (8, 8), math.nan, 0, "acceleration nan; expected at least 1"),
        ("random", (8, 8), math.inf, 0, "acceleration inf"),
        ("poisson", (8, 0), 2.0, 0, "'poisson' of 8 x 0: expected height and width"),
        ("poisson", (8, 6), 2.0, 7, "acs 7; expected 0 to 6"),
        ("poisson", (8, 6), 2.0, -1, "acs -1; expected 0 to 6"),
        (
            "magic",
            (8, 40),
            10.0,
            8,
            "leaves 4 lines of 40; expected at least 8, which acs 8 takes",
        ),
        ("poisson", (96, 96), 40.0, 16, "at most 36, or acs of at most 15"),
        ("gaussian-1d", (8, 6), 20.0, 0, "leaves 0 lines of 6; expected at least 1"),
    ],
)
def test_what_is_impossible_is_refused_with_what_is_possible(
    kind: str, shape: tuple[int, int], acceleration: float, acs: int, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        mask(kind, shape, acceleration, acs)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_an_error_says_is_possible_is() -> None:
    assert int(mask("poisson", (96, 96), 36.0, 16).sum()) == 256
    assert int(mask("poisson", (96, 96), 40.0, 15).sum()) == 230
