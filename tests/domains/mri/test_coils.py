from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from domains.mri.data.coils import (
    loop_field,
    loops,
    low_resolution_maps,
    normalised,
    plane,
    sensitivities,
)
from domains.mri.data.fourier import fft2

UP = np.array([0.0, 0.0, 1.0])


def summed(points: np.ndarray, radius: float, segments: int = 4000) -> np.ndarray:
    """Biot–Savart, added up over short straight pieces of a loop in the plane z = 0."""
    angles = (np.arange(segments) + 0.5) * 2 * np.pi / segments
    zero = np.zeros(segments)
    places = np.stack([radius * np.cos(angles), radius * np.sin(angles), zero], -1)
    steps = np.stack([-np.sin(angles), np.cos(angles), zero], -1) * (2 * np.pi * radius / segments)
    away = points[:, None] - places
    return (np.cross(steps, away) / np.linalg.norm(away, axis=-1, keepdims=True) ** 3).sum(1) / (
        4 * np.pi
    )


@pytest.mark.parametrize("height", [-2.0, 0.0, 0.3, 5.0])
def test_the_field_on_the_axis_of_a_loop_is_the_one_of_textbooks(height: float) -> None:
    radius = 0.6
    field = loop_field(height * UP, UP, radius, wire=0.0)
    expected = radius**2 / (2 * (radius**2 + height**2) ** 1.5)
    np.testing.assert_allclose(field, expected * UP, rtol=1e-12)


def test_the_field_off_the_axis_is_what_short_pieces_of_wire_add_up_to() -> None:
    random = np.random.default_rng(0)
    points = random.uniform(-1.5, 1.5, (40, 3))
    np.testing.assert_allclose(
        loop_field(points, UP, 0.5, wire=0.0), summed(points, 0.5), rtol=2e-5, atol=1e-8
    )


def test_a_turned_loop_has_a_turned_field() -> None:
    random = np.random.default_rng(1)
    turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
    points = random.uniform(-1, 1, (20, 3))
    turned = loop_field(points @ turn.T, turn @ UP, 0.5)
    np.testing.assert_allclose(turned, loop_field(points, UP, 0.5) @ turn.T, atol=1e-12)


def test_the_field_far_away_is_that_of_a_dipole() -> None:
    radius, point = 0.5, np.array([30.0, 10.0, 20.0])
    distance = np.linalg.norm(point)
    moment, direction = np.pi * radius**2, point / distance
    dipole = moment * (3 * direction * direction[2] - UP) / (4 * np.pi * distance**3)
    error = loop_field(point, UP, radius, wire=0.0) - dipole
    assert np.linalg.norm(error) < 1e-3 * np.linalg.norm(dipole)


def test_no_field_is_infinite_on_the_wire() -> None:
    assert np.isfinite(loop_field(np.array([0.5, 0.0, 0.0]), UP, 0.5)).all()


@settings(max_examples=15, deadline=None)
@given(
    coils=st.integers(1, 9),
    height=st.integers(5, 24),
    width=st.integers(5, 24),
    seed=st.integers(0, 2**32),
)
def test_maps_have_unit_root_sum_of_squares_everywhere(
    coils: int, height: int, width: int, seed: int
) -> None:
    maps = sensitivities(loops(coils, np.random.default_rng(seed)), (height, width))
    assert maps.shape == (coils, height, width)
    np.testing.assert_allclose((np.abs(maps) ** 2).sum(0), 1, atol=1e-5)


def test_a_loop_sees_best_what_is_near_it() -> None:
    found = loops(8, np.random.default_rng(3))
    maps = np.abs(sensitivities(found, (33, 33)))
    for coil, centre in enumerate(found.centres):
        near = np.linalg.norm(plane((33, 33)) - centre, axis=-1).argmin()
        assert maps[coil].flat[near] > maps[coil, 16, 16]
        assert maps[coil].flat[near] > maps[coil][::-1, ::-1].flat[near]


def test_loops_are_drawn_from_their_generator_alone() -> None:
    np.random.seed(0)
    first = loops(4, np.random.default_rng(5)).centres
    np.random.seed(1)
    assert np.array_equal(first, loops(4, np.random.default_rng(5)).centres)


def test_maps_of_no_signal_are_zero() -> None:
    assert not normalised(np.zeros((3, 4, 4), complex)).any()


@pytest.mark.parametrize("shape", [(32, 32), (31, 40)])
def test_low_resolution_maps_of_an_even_picture_are_near_the_true_maps(
    shape: tuple[int, int],
) -> None:
    true = sensitivities(loops(6, np.random.default_rng(2)), shape)
    inside = (plane(shape)[..., :2] ** 2).sum(-1) < 0.6
    kspace = fft2(torch.from_numpy((true * inside).astype(np.complex64))).numpy()
    found = low_resolution_maps(kspace, 16)
    middle = (plane(shape)[..., :2] ** 2).sum(-1) < 0.3
    agreement = np.abs((true.conj() * found).sum(0))[middle]
    assert agreement.min() > 0.99
