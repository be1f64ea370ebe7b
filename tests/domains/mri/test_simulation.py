from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.runtime.errors import UserError
from domains.mri.config import Data
from domains.mri.data.coils import loops, plane, sensitivities
from domains.mri.data.fourier import ifft2
from domains.mri.data.simulation import (
    deviation_of,
    measured,
    noise,
    noise_covariance,
    phase,
    scan_of,
    simulated_scan,
    tissue_mean,
    with_phase,
)


def disc(shape: tuple[int, int] = (32, 30)) -> np.ndarray:
    inside = (plane(shape)[..., :2] ** 2).sum(-1) < 0.5
    return np.where(inside, 0.8, 0).astype(np.float32)


@pytest.mark.parametrize("correlation", [0.0, 0.4])
def test_the_covariance_of_the_noise_is_the_one_asked_for(correlation: float) -> None:
    random = np.random.default_rng(0)
    covariance = noise_covariance(5, 0.3, correlation, random)
    drawn = noise(covariance, (200, 200), random).reshape(5, -1)
    found = drawn @ drawn.conj().T / drawn.shape[1]
    np.testing.assert_allclose(found, covariance, atol=4 * 0.09 / 200)


def test_real_and_imaginary_parts_of_the_noise_are_alike_and_independent() -> None:
    covariance = noise_covariance(3, 1.0, 0.5, np.random.default_rng(1))
    drawn = noise(covariance, (200, 200), np.random.default_rng(2)).reshape(3, -1)
    assert np.abs(drawn @ drawn.T / drawn.shape[1]).max() < 0.03


@settings(max_examples=30, deadline=None)
@given(coils=st.integers(1, 16), correlation=st.floats(0, 0.95), seed=st.integers(0, 2**32))
def test_a_covariance_is_hermitian_positive_and_of_the_variance_asked(
    coils: int, correlation: float, seed: int
) -> None:
    covariance = noise_covariance(coils, 0.2, correlation, np.random.default_rng(seed))
    np.testing.assert_allclose(covariance, covariance.conj().T)
    assert np.linalg.eigvalsh(covariance).min() > 0
    assert np.trace(covariance).real / coils == pytest.approx(0.04)


def test_noise_without_correlation_is_white() -> None:
    covariance = noise_covariance(4, 0.5, 0.0, np.random.default_rng(0))
    np.testing.assert_allclose(covariance, 0.25 * np.eye(4))


@pytest.mark.parametrize("snr_db", [10.0, 30.0])
def test_the_signal_to_noise_ratio_in_a_coils_picture_is_the_one_asked(snr_db: float) -> None:
    picture, random = disc(), np.random.default_rng(3)
    covariance = noise_covariance(1, deviation_of(picture, snr_db), 0.0, random)
    drawn = [ifft2(torch.from_numpy(noise(covariance, picture.shape, random))) for _ in range(40)]
    deviation = float(torch.stack(drawn).abs().square().mean().sqrt())
    assert 20 * np.log10(0.8 / deviation) == pytest.approx(snr_db, abs=0.15)


def test_air_does_not_count_as_tissue() -> None:
    assert tissue_mean(disc()) == pytest.approx(0.8)
    assert tissue_mean(np.zeros((4, 4), np.float32)) == 0


@pytest.mark.parametrize("shape", [(32, 32), (31, 33), (20, 27)])
def test_all_samples_without_noise_give_the_truth_back(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(4)
    truth = torch.from_numpy(with_phase(disc(shape), phase(shape, 1.0, random)))
    maps = torch.from_numpy(sensitivities(loops(4, random), shape))
    nothing, everything = torch.zeros_like(maps), torch.ones(shape, dtype=torch.bool)
    kspace = measured(truth, maps, nothing, everything)
    combined = (maps.conj() * ifft2(kspace)).sum(0)
    torch.testing.assert_close(combined, truth, atol=1e-5, rtol=0)
    root = ifft2(kspace).abs().square().sum(0).sqrt()
    torch.testing.assert_close(root, truth.abs(), atol=1e-5, rtol=0)


def test_what_is_not_sampled_is_zero_and_the_rest_untouched() -> None:
    shape, random = (16, 16), np.random.default_rng(5)
    truth = torch.from_numpy(with_phase(disc(shape), phase(shape, 1.0, random)))
    maps = torch.from_numpy(sensitivities(loops(3, random), shape))
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.4
    full = measured(truth, maps, torch.zeros_like(maps), torch.ones_like(mask))
    some = measured(truth, maps, torch.zeros_like(maps), mask)
    assert not some[:, ~mask].any()
    assert torch.equal(some[:, mask], full[:, mask])


@settings(max_examples=20, deadline=None)
@given(
    height=st.integers(4, 40),
    width=st.integers(4, 40),
    amplitude=st.floats(0, 2),
    seed=st.integers(0, 2**32),
)
def test_a_phase_has_the_amplitude_asked(
    height: int, width: int, amplitude: float, seed: int
) -> None:
    drawn = phase((height, width), amplitude, np.random.default_rng(seed))
    assert drawn.std() == pytest.approx(amplitude, abs=1e-4)


def test_a_phase_is_smooth() -> None:
    drawn = phase((96, 96), 1.0, np.random.default_rng(6))
    steps = [np.abs(np.diff(drawn, axis=axis)).max() for axis in (0, 1)]
    assert max(steps) < 0.5


def test_a_phase_leaves_the_magnitude() -> None:
    picture = disc()
    found = with_phase(picture, phase((32, 30), 1.0, np.random.default_rng(7)))
    np.testing.assert_allclose(np.abs(found), picture, rtol=1e-5)


def test_a_simulated_scan_holds_what_it_was_made_from() -> None:
    pictures = np.stack([disc(), 0.5 * disc(), 0 * disc()])
    mask = torch.ones(32, 30, dtype=torch.bool)
    scan = simulated_scan(
        pictures,
        mask,
        name="disc",
        subject="nobody",
        coils=4,
        snr_db=60.0,
        noise_correlation=0.2,
        phase_rad=1.0,
        spacing_mm=(5.0, 2.0, 2.0),
        random=np.random.default_rng(8),
    )
    assert scan.maps is not None
    found = (scan.maps.conj() * ifft2(scan.kspace)).sum(1).abs()
    torch.testing.assert_close(found, torch.from_numpy(pictures), atol=5e-3, rtol=0)
    assert scan.acceleration == 1
    assert not torch.equal(scan.maps[0], scan.maps[2])  # the loops are at another height
    assert "optimistic" in str(scan.header["note"])


def test_a_volume_is_scanned_whole_with_its_place_in_space(tmp_path: Path) -> None:
    values = np.zeros((40, 40, 40), np.float32)
    values[8:32, 8:32, 8:32] = 100
    path = tmp_path / "cube_t1.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 2, 2, 1])), path)
    data = Data(size=20, fov_mm=80.0, coils=3, step=4, acs=4)
    scan = scan_of(path, torch.ones(20, 20, dtype=torch.bool), data, snr_db=40.0)
    assert scan.subject == "cube"
    assert scan.spacing_mm == (8.0, 4.0, 4.0)
    assert scan.kspace.shape == (7, 3, 20, 20)
    assert scan.affine is not None
    assert np.linalg.norm(scan.affine[:3, :3], axis=0).tolist() == [4.0, 4.0, 8.0]
    again = scan_of(path, torch.ones(20, 20, dtype=torch.bool), data, snr_db=40.0)
    assert torch.equal(scan.kspace, again.kspace)
    with pytest.raises(UserError, match=r"cube_t1\.nii\.gz.*too coarse"):
        scan_of(
            path, torch.ones(64, 64, dtype=torch.bool), data.model_copy(update={"size": 64}), 40.0
        )
