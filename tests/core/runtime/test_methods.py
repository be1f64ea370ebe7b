"""What sections build, for every kind, on a model that has all that any of them needs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import BaseModel
from torch.distributions import Distribution

from core.runtime import methods
from core.runtime.errors import UserError
from core.runtime.methods import latents
from core.runtime.sections import sections_in

FEATURES, LATENT, STEPS = 5, 4, 6


def kind_of(section: type[BaseModel]) -> str:
    return section.model_fields["kind"].default


def posterior_of(kind: str) -> Distribution:
    """A posterior that the prior of this kind can be held against."""
    if kind == "codebook":
        section: Any = latents.Categorical()
    elif kind == "spherical-uniform":
        section = latents.PowerSpherical()
    else:
        section = latents.DiagonalNormal()
    sequence = kind == "linear-dynamics"
    features = torch.randn(3, STEPS, FEATURES) if sequence else torch.randn(3, FEATURES)
    built = methods.build_posterior(section, FEATURES, LATENT, event_dims=1 + sequence)
    return built(features)


@pytest.mark.parametrize("section", sections_in(methods.AnyPosterior), ids=kind_of)
def test_every_posterior_is_built_and_drawn_from(section: type[BaseModel]) -> None:
    chain = kind_of(section) in ("markov", "gauss-markov")
    dynamics = None
    if kind_of(section) == "gauss-markov":
        dynamics = methods.build_prior(latents.LinearDynamics(), LATENT, sequence=True)
    built = methods.build_posterior(section(), FEATURES, LATENT, sequence=chain, dynamics=dynamics)
    features = torch.randn(3, STEPS, FEATURES) if chain else torch.randn(3, FEATURES)
    posterior = built(features)
    assert posterior.batch_shape == (3,)
    assert posterior.event_shape == ((STEPS, LATENT) if chain else (LATENT,))
    assert posterior.sample(torch.Size((7,))).shape == (7, 3, *posterior.event_shape)


@pytest.mark.parametrize("section", sections_in(methods.AnyPrior), ids=kind_of)
def test_every_prior_is_built_and_fits_a_posterior(section: type[BaseModel]) -> None:
    kind = kind_of(section)
    posterior = posterior_of(kind)
    encode = methods.build_posterior(latents.DiagonalNormal(), FEATURES, LATENT)
    prior = methods.build_prior(
        section(),
        LATENT,
        pseudo=lambda count: (torch.randn(count, FEATURES), encode),
        classes=3,
        context=2,
        sequence=True,
    )
    context = {
        "class-conditional": torch.tensor([0, 2, 1]),
        "conditional-normal": torch.randn(3, 2),
    }.get(kind)
    held = prior(posterior, context) if context is not None else prior(posterior)
    assert held.batch_shape == posterior.batch_shape
    assert held.event_shape == posterior.event_shape
    value = posterior.sample(torch.Size((2,)))
    assert bool(torch.isfinite(held.log_prob(value)).all())


@pytest.mark.parametrize("section", sections_in(methods.AnyLikelihood), ids=kind_of)
def test_every_likelihood_is_built_and_gives_a_number_for_each_example(
    section: type[BaseModel],
) -> None:
    likelihood = methods.build_likelihood(section(), FEATURES, 2)
    value = torch.tensor([[0.0, 1.0]]).expand(3, 2)
    assert likelihood(torch.randn(4, 3, FEATURES)).log_prob(value).shape == (4, 3)


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        (latents.VampPrior(), "cannot encode pseudo-inputs"),
        (latents.ClassConditionalNormal(), "the data have no classes"),
        (latents.ConditionalNormal(), "gives its prior no context"),
        (latents.LinearDynamics(), "no sequence of latents"),
    ],
)
def test_a_prior_says_what_the_model_lacks(section: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        methods.build_prior(section, LATENT)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "sequence", "reason"),
    [
        (latents.Markov(), False, "over a sequence of latents"),
        (latents.GaussMarkov(), True, "set prior.kind to 'linear-dynamics'"),
        (latents.Flow(flow="maf"), False, "'maf' is slow"),
    ],
)
def test_a_posterior_says_what_the_model_lacks(section: Any, sequence: bool, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        methods.build_posterior(section, FEATURES, LATENT, sequence=sequence)
