from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, OneHotCategorical, StudentT

from core.variational.diagnostics import (
    Diagnosis,
    Estimate,
    GeneratedLoss,
    Importance,
    Unavailable,
    diagnose,
    generated_loss,
    k_hat_histogram,
    rate_distortion,
)
from core.variational.distributions import DiagonalNormal
from core.variational.evidence import Evidence, Latent
from core.variational.exact import LinearGaussian, small_linear_gaussian, small_two_level
from core.variational.likelihoods import NormalLikelihood
from core.variational.priors import StandardNormal

SMALL: dict[str, Any] = {"samples": 64, "draws": 4, "rows": 60}


class Generator(LinearGaussian):
    """The exact model, which can sample in the form of a batch."""

    def generate(self, examples: int) -> Tensor:
        return self.sample(examples)


def generator(stretch: float = 1.0) -> Generator:
    model = small_linear_gaussian(stretch=stretch)
    return Generator(model.weight, model.bias, model.scale, stretch)


class VAE(nn.Module):
    """Dropout, an encoder, a decoder; ``elements`` latents in each example if given."""

    def __init__(self, event_dims: int = 1, features: int = 5, latent: int = 3) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Dropout(0.3), nn.Linear(features, 2 * latent))
        self.decoder = NormalLikelihood(latent, features)
        self.prior, self.event_dims = StandardNormal(), event_dims

    def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
        loc, log_scale = self.encoder(batch).chunk(2, -1)
        posterior = DiagonalNormal(loc, log_scale.exp(), self.event_dims)
        z = posterior.rsample((samples,))
        terms = self.decoder(z).log_prob(batch)
        likelihood = terms if self.event_dims == 1 else terms.sum(-1)
        return Evidence({"x": likelihood}, [Latent("z", z, posterior, self.prior(posterior))])


class Discrete(VAE):
    """A one-hot latent whose posterior has no gradient through its samples."""

    def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
        logits = self.encoder(batch)[..., :3]
        posterior = OneHotCategorical(logits=logits, validate_args=False)
        z = posterior.sample((samples,))
        prior = OneHotCategorical(logits=torch.zeros_like(logits))
        return Evidence({"x": self.decoder(z).log_prob(batch)}, [Latent("z", z, posterior, prior)])


class HeavyTailed(VAE):
    """Posterior and prior without a closed-form KL."""

    def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
        loc, log_scale = self.encoder(batch).chunk(2, -1)
        posterior: Distribution = Independent(StudentT(4.0, loc, log_scale.exp()), 1)
        prior: Distribution = Independent(StudentT(4.0, 0 * loc, 1.0), 1)
        z = posterior.rsample((samples,))
        return Evidence({"x": self.decoder(z).log_prob(batch)}, [Latent("z", z, posterior, prior)])


class Deterministic(VAE):
    """No latents."""

    def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
        return Evidence({"x": super().evidence(batch, samples).log_likelihood["x"]})


def plain(diagnosis: Diagnosis) -> dict[str, Any]:
    """Through JSON and back, which refuses what is not finite."""
    return json.loads(json.dumps(diagnosis.to_dict(), allow_nan=False))


MODELS: dict[str, tuple[nn.Module, list[Tensor]]] = {
    "plain": (VAE(), [torch.randn(20, 5), torch.randn(7, 5)]),
    "one example, many elements": (VAE(event_dims=2), [torch.randn(1, 40, 5)]),
    "one example": (VAE(), [torch.randn(1, 5)]),
    "discrete": (Discrete(), [torch.randn(30, 5)]),
    "no closed form": (HeavyTailed(), [torch.randn(30, 5)]),
    "no latents": (Deterministic(), [torch.randn(30, 5)]),
    "hierarchical": (small_two_level(stretch=1.2), [small_two_level().sample(20)]),
    "exact": (small_linear_gaussian(), [small_linear_gaussian().sample(20)]),
    "not finite": (VAE(), [torch.full((20, 5), math.nan)]),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_model_has_a_diagnosis_of_finite_numbers_or_reasons(name: str) -> None:
    model, batches = MODELS[name]
    record = plain(diagnose(model, batches, seed=1, **SMALL))
    missing = []

    def look(value: Any, path: str) -> None:
        if isinstance(value, dict):
            if "reason" in value:
                assert value["value"] is None
                assert len(value["reason"]) > 10
                missing.append(path)
            for key, each in value.items():
                look(each, f"{path}/{key}")

    look(record, "")
    if name == "no latents":
        assert {"/importance", "/collapse", "/gradients", "/rate_distortion/rate"} <= {*missing}
        assert record["latents"] == {}
    if name == "plain":
        assert set(missing) == {"/generated", "/rate_distortion/bits_per_dimension"}


def test_looking_at_a_model_leaves_it_and_the_random_stream_as_they_were() -> None:
    model, batches = VAE(), [torch.randn(20, 5)]
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    diagnose(model, batches, seed=0, **SMALL)
    assert torch.equal(torch.randn(4), expected)
    assert model.training
    assert model.encoder.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(each.grad is None for each in model.parameters())


def test_the_same_seed_gives_the_same_diagnosis_and_another_does_not() -> None:
    model, batches = VAE(), [torch.randn(20, 5)]
    one, two, other = (plain(diagnose(model, batches, seed=s, **SMALL)) for s in (1, 1, 2))
    assert one == two
    assert one["importance"] != other["importance"]


def test_more_of_one_part_changes_no_other() -> None:
    model, batches = VAE(), [torch.randn(20, 5)]
    one = plain(diagnose(model, batches, seed=1, **SMALL))
    two = plain(diagnose(model, batches, seed=1, **{**SMALL, "samples": 128, "draws": 8}))
    for part in ("rate_distortion", "latents", "collapse", "generated"):
        assert one[part] == two[part]
    assert one["gradients"] != two["gradients"]


def test_no_more_examples_than_asked_for_but_whole_batches() -> None:
    batches = [torch.randn(10, 5) for _ in range(10)]
    record = diagnose(VAE(), batches, seed=1, examples=25, **SMALL)
    assert record.examples == 30


def test_without_batches_there_is_nothing_to_diagnose() -> None:
    with pytest.raises(ValueError, match="no batches"):
        diagnose(VAE(), [], seed=1)


def test_the_numbers_of_an_exact_posterior_are_those_of_theory() -> None:
    model = generator()
    x = model.sample(300)
    record = diagnose(model, [x], seed=1, samples=50, rows=300, examples=300)
    exact = float(model.log_evidence(x).mean())
    assert isinstance(record.importance, Importance)
    assert isinstance(record.importance.log_likelihood, Estimate)
    assert record.importance.log_likelihood.value == pytest.approx(exact, abs=1e-9)
    assert record.importance.standard_error == pytest.approx(0.0, abs=1e-6)
    assert not isinstance(record.importance.k_hat, Unavailable)
    assert record.importance.k_hat.below == 300  # all of them minus infinity
    assert record.latents["z"].active_units == Estimate(3.0, (3.0, 3.0), 300)
    made = record.generated
    assert isinstance(made, GeneratedLoss)
    assert isinstance(made.difference, Estimate)
    assert made.difference.interval is not None
    assert made.difference.interval[0] < 0 < made.difference.interval[1]


def test_s109_the_loss_of_generated_examples_stands_beside_that_of_the_data() -> None:
    # Data of another distribution than the model's: their loss is larger by what theory says.
    model = generator(stretch=1.2)
    x = model.bias + 2 * (model.sample(2000) - model.bias)
    found = generated_loss(model, [x[:1000], x[1000:]], examples=2000)
    assert isinstance(found, GeneratedLoss)
    assert isinstance(found.generated, Estimate)
    assert isinstance(found.held_out, Estimate)
    assert isinstance(found.difference, Estimate)
    assert found.difference.interval is not None
    # Doubling a Normal of d dimensions costs (4 - 1) d / 2 nats of log-density; q's gap is fixed.
    features = len(model.bias)
    assert found.difference.value == pytest.approx(-1.5 * features, abs=0.8)
    assert found.difference.interval[0] < -1.5 * features < found.difference.interval[1]
    assert found.difference.value == pytest.approx(found.generated.value - found.held_out.value)


def test_s109_a_model_that_cannot_generate_says_so() -> None:
    found = generated_loss(VAE(), [torch.randn(4, 5)])
    assert found == Unavailable("the model has no method 'generate(examples) -> batch'")


def test_rate_and_distortion_are_the_terms_of_the_elbo() -> None:
    model = small_linear_gaussian(stretch=1.3)
    x = model.sample(50)
    found = rate_distortion(model, [x[:20], x[20:]], samples=200, dimensions=6)
    rate, distortion, total = found.rate, found.distortion, found.negative_elbo
    assert isinstance(rate, Estimate)
    assert isinstance(distortion, Estimate)
    assert isinstance(total, Estimate)
    posterior = model.evidence(x).latents[0]
    assert rate.value == pytest.approx(float(posterior.kl().mean()))
    assert rate.n == 50
    assert total.value == pytest.approx(rate.value + distortion.value)
    assert isinstance(found.bits_per_dimension, Estimate)
    assert found.bits_per_dimension.value == pytest.approx(total.value / 6 / math.log(2))
    assert found.rates.keys() == {"z"}
    assert found.distortions.keys() == {"x"}
    assert len(found.points) == 50
    assert total.value > -float(model.log_evidence(x).mean())


def test_one_example_has_a_rate_without_an_interval() -> None:
    found = rate_distortion(VAE(), [torch.randn(1, 5)])
    assert isinstance(found.rate, Estimate)
    assert found.rate.interval is None
    assert found.rate.n == 1


def test_unobserved_examples_are_left_out_and_counted() -> None:
    class Partly(VAE):
        """The last of the examples has nothing observed."""

        def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
            evidence = super().evidence(batch, samples)
            seen = torch.arange(len(batch)) < len(batch) - 1
            return Evidence(evidence.log_likelihood, evidence.latents, observed=seen)

    found = rate_distortion(Partly(), [torch.randn(4, 5), torch.randn(6, 5)])
    assert isinstance(found.rate, Estimate)
    assert (found.rate.n, found.unobserved) == (8, 2)
    record = diagnose(Partly(), [torch.randn(30, 5)], seed=1, **SMALL)
    assert record.examples == 29
    assert isinstance(record.importance, Importance)
    assert isinstance(record.importance.log_likelihood, Estimate)
    assert record.importance.log_likelihood.n == 29


def test_the_histogram_counts_each_k_hat_once() -> None:
    k = torch.tensor([-math.inf, -0.4, 0.1, 0.6, 0.71, 0.99, 2.0, math.inf, math.nan])
    found = k_hat_histogram(k)
    assert sum(found.counts) + found.below + found.above + found.undefined == len(k)
    assert (found.below, found.above, found.undefined) == (1, 2, 1)
    assert found.counts == [1, 0, 1, 0, 1, 2, 0]
