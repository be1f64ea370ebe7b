from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from core.variational.diagnostics import (
    CollapsePrediction,
    Unavailable,
    collapse_prediction,
    latent_use,
    predicted_collapse,
)
from core.variational.distributions import DiagonalNormal
from core.variational.evidence import Evidence, Latent
from core.variational.exact import small_linear_gaussian
from core.variational.likelihoods import BernoulliLikelihood, NormalLikelihood
from core.variational.priors import StandardNormal

FEATURES, LATENT, ROWS = 6, 4, 200


class LinearVAE(nn.Module):
    """Linear encoder and decoder, a Normal of fixed noise."""

    def __init__(self, likelihood: nn.Module, features: int = FEATURES) -> None:
        super().__init__()
        self.encoder = nn.Linear(features, LATENT)
        self.log_scale = nn.Parameter(torch.zeros(LATENT))
        self.likelihood, self.prior = likelihood, StandardNormal()

    def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
        loc = self.encoder(batch)
        posterior = DiagonalNormal(loc, self.log_scale.exp())
        z = posterior.rsample((samples,))
        likelihood = self.likelihood(z)
        return Evidence(
            {"x": likelihood.log_prob(batch)}, [Latent("z", z, posterior, self.prior(posterior))]
        )


def normal_vae(scale: float) -> LinearVAE:
    return LinearVAE(NormalLikelihood(LATENT, FEATURES, scale)).double()


def best_encoder(weight: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """The encoder's weight and the posterior variances that are best for a decoder."""
    gram = weight.T @ weight
    encoder = torch.linalg.solve(gram + threshold * torch.eye(LATENT).double(), weight.T)
    return encoder, threshold / (gram.diagonal() + threshold)


def exact_loss(weight: Tensor, covariance: Tensor, scale: float, beta: float) -> Tensor:
    """The negative beta-ELBO at the best encoder, in closed form, up to a constant."""
    encoder, variance = best_encoder(weight, beta * scale**2)
    rest = torch.eye(FEATURES).double() - weight @ encoder
    error = (rest @ covariance @ rest.T).trace() + (weight.square() * variance).sum()
    spread = (encoder @ covariance @ encoder.T).trace()
    return error / (2 * scale**2) + 0.5 * beta * (variance.sum() + spread - variance.log().sum())


def train(model: LinearVAE, x: Tensor, scale: float, beta: float) -> None:
    """Bring a model to the optimum for these data, from where its decoder starts."""
    mean, weight = x.mean(0), model.likelihood.head.weight
    covariance = torch.cov(x.T, correction=0)
    optimizer = torch.optim.LBFGS(
        [weight],
        max_iter=200,
        history_size=20,
        tolerance_change=0,
        tolerance_grad=1e-7,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = exact_loss(weight, covariance, scale, beta)
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        encoder, variance = best_encoder(weight, beta * scale**2)
        model.likelihood.head.bias.copy_(mean)
        model.encoder.weight.copy_(encoder)
        model.encoder.bias.copy_(-encoder @ mean)
        model.log_scale.copy_(variance.log() / 2)


def problem(seed: int) -> tuple[Tensor, float, float]:
    """Data with a random spectrum around the noise variance, the noise and beta."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.exp(2 * torch.randn(FEATURES, generator=generator, dtype=torch.float64))
    noise = torch.randn(ROWS, FEATURES, generator=generator, dtype=torch.float64)
    mixing = torch.linalg.qr(
        torch.randn(FEATURES, FEATURES, generator=generator, dtype=torch.float64)
    ).Q
    scale, beta = 0.5 + torch.rand(2, generator=generator).double()
    return (noise * spectrum.sqrt()) @ mixing, float(scale), float(beta)


def test_s091_a_linear_vae_at_its_optimum_has_as_many_active_units_as_predicted() -> None:
    right = 0
    for seed in range(50):
        torch.manual_seed(seed)
        x, scale, beta = problem(seed)
        model = normal_vae(scale)
        train(model, x, scale, beta)
        predicted = predicted_collapse(model, [x], beta)
        assert isinstance(predicted, CollapsePrediction)
        right += latent_use(model, [x])["z"].active_units == predicted.active.value
    assert right >= 49


def test_s091_the_kl_of_each_dimension_at_the_optimum_is_as_predicted() -> None:
    x, scale, beta = problem(3)
    x = x - x.mean(0)
    model = normal_vae(scale)
    train(model, x, scale, beta)
    # The optimum of the expected loss is of the covariance over all rows, without Bessel's factor.
    eigenvalues = torch.linalg.eigvalsh(x.T @ x / len(x))
    predicted = collapse_prediction(eigenvalues, scale**2, beta, LATENT)
    use = latent_use(model, [x])["z"]
    assert use.kl is not None
    kl = use.kl.sort(descending=True).values
    torch.testing.assert_close(kl, torch.tensor(predicted.rates).double(), atol=2e-3, rtol=1e-3)
    variance = (1 - predicted.threshold / torch.tensor(predicted.eigenvalues)).clamp(min=0)
    torch.testing.assert_close(
        use.variance.sort(descending=True).values * (len(x) - 1) / len(x),
        variance.double(),
        atol=2e-3,
        rtol=1e-3,
    )


def test_the_prediction_counts_eigenvalues_above_the_noise_and_no_more_than_latents() -> None:
    eigenvalues = torch.tensor([0.5, 8.0, 2.0, 4.0])
    assert collapse_prediction(eigenvalues, 1.0, 1.0, 4).active.value == 3
    assert collapse_prediction(eigenvalues, 1.0, 3.0, 4).active.value == 2
    assert collapse_prediction(eigenvalues, 1.0, 1.0, 2).active.value == 2
    many = collapse_prediction(eigenvalues, 1.0, 1.0, 6)
    assert many.active.value == 3
    assert many.rates == pytest.approx(
        [0.5 * math.log(8), 0.5 * math.log(4), 0.5 * math.log(2), 0, 0, 0]
    )


def test_few_data_give_the_count_an_interval() -> None:
    eigenvalues = torch.tensor([8.0, 1.1, 0.9])
    assert collapse_prediction(eigenvalues, 1.0, 1.0, 3).active.interval is None
    assert collapse_prediction(eigenvalues, 1.0, 1.0, 3, n=50).active.interval == (1.0, 3.0)
    assert collapse_prediction(eigenvalues, 1.0, 1.0, 3, n=100_000).active.interval == (2.0, 2.0)


@pytest.mark.parametrize(
    ("noise", "beta", "latent"), [(0.0, 1.0, 1), (1.0, 0.0, 1), (1.0, 1.0, 0)]
)
def test_impossible_settings_are_refused(noise: float, beta: float, latent: int) -> None:
    with pytest.raises(ValueError, match=f"noise_variance={noise}, beta={beta}, latent={latent}"):
        collapse_prediction(torch.ones(3), noise, beta, latent)


def test_noise_that_differs_by_feature_scales_the_data() -> None:
    model = normal_vae(1.0)
    scales = torch.tensor([0.1, 0.2, 1.0, 2.0, 5.0, 10.0])
    model.likelihood.log_scale.data = scales.log().double()
    x = torch.randn(500, FEATURES).double()
    found = predicted_collapse(model, [x[:100], x[100:]])
    assert isinstance(found, CollapsePrediction)
    expected = torch.linalg.eigvalsh(torch.cov((x / scales).T)).flip(0)[:LATENT]
    assert found.eigenvalues == pytest.approx(expected.tolist(), rel=1e-6)
    assert found.active.n == 500


def test_the_data_are_found_in_a_mapping_or_given() -> None:
    class Mapped(LinearVAE):
        """Takes a mapping."""

        def evidence(self, batch: dict[str, Tensor], samples: int = 1) -> Evidence:  # pyright: ignore[reportIncompatibleMethodOverride]
            return super().evidence(batch["values"], samples)

    model = Mapped(NormalLikelihood(LATENT, FEATURES, 1.0))
    x = torch.randn(50, FEATURES)
    found = predicted_collapse(model, [{"values": x, "label": torch.zeros(50)}])
    assert isinstance(found, CollapsePrediction)
    twice = {"values": x, "mask": torch.ones_like(x)}
    missing = predicted_collapse(model, [twice])
    assert isinstance(missing, Unavailable)
    assert missing.reason.startswith("2 tensors of shape (50, 6)")
    assert predicted_collapse(model, [twice], observed=lambda batch: batch["values"]) == found


def test_a_model_without_a_normal_likelihood_has_a_reason() -> None:
    bernoulli = LinearVAE(BernoulliLikelihood(LATENT, FEATURES))
    exact = small_linear_gaussian()
    binary = torch.ones(5, FEATURES)
    for found in (
        predicted_collapse(bernoulli, [binary]),
        predicted_collapse(exact, [binary.double()]),
    ):
        assert isinstance(found, Unavailable)
        assert found.reason.startswith("0 Normal likelihoods")
