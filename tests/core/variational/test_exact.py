from __future__ import annotations

import pytest
import torch

from core.variational.exact import (
    Exact,
    LinearGaussian,
    cubature_noise,
    small_linear_gaussian,
    small_two_level,
)


@pytest.mark.parametrize("build", [small_linear_gaussian, small_two_level])
def test_samples_of_a_model_have_the_likelihood_it_claims(build: type[Exact]) -> None:
    torch.manual_seed(0)
    model = build()
    x = model.sample(40_000)
    own = model.log_evidence(x)
    # The mean log-likelihood of one's own samples is the negative entropy, known for a Gaussian.
    covariance = torch.cov(x.T)
    entropy = 0.5 * torch.linalg.slogdet(2 * torch.pi * torch.e * covariance)[1]
    assert float(own.mean() + entropy) == pytest.approx(0.0, abs=0.03)


def test_columns_that_are_not_orthogonal_are_refused() -> None:
    weight = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match="orthogonal"):
        LinearGaussian(weight, torch.zeros(2), 1.0)


def test_cubature_integrates_quadratics_exactly() -> None:
    model, x = small_two_level(), torch.zeros(1, 6, dtype=torch.float64)
    noise = cubature_noise(model, x)[:, 0]
    torch.testing.assert_close(noise.mean(0), torch.zeros(6, dtype=torch.float64))
    torch.testing.assert_close(noise.T @ noise / len(noise), torch.eye(6, dtype=torch.float64))
