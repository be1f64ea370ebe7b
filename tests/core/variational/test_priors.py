from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.distributions import (
    Categorical,
    Distribution,
    MultivariateNormal,
    OneHotCategorical,
)

from core.variational.distributions import DiagonalNormal, stop_gradient
from core.variational.divergences import kl
from core.variational.evidence import Evidence, Latent
from core.variational.likelihoods import BernoulliLikelihood
from core.variational.objectives import ELBO
from core.variational.posteriors import (
    CategoricalPosterior,
    DiagonalNormalPosterior,
    FlowPosterior,
    GumbelSoftmaxPosterior,
    VonMisesFisherPosterior,
)
from core.variational.priors import (
    AutoregressivePrior,
    ClassConditionalNormal,
    Codebook,
    ConditionalNormal,
    FlowPrior,
    LearnedNormal,
    MixtureOfNormals,
    Prior,
    SphericalUniform,
    StandardNormal,
    VampPrior,
)

LATENT = 3


def encode(x: Tensor) -> DiagonalNormal:
    return DiagonalNormal(x[..., :LATENT].tanh(), x[..., LATENT:].exp())


MAKERS: dict[str, Callable[[], Prior]] = {
    "standard": lambda: StandardNormal(2.0),
    "learned": lambda: LearnedNormal(LATENT),
    "mixture": lambda: MixtureOfNormals(LATENT, 4),
    "vampprior": lambda: VampPrior(torch.randn(5, 2 * LATENT), encode, True, (-1.0, 1.0)),
    "flow": lambda: FlowPrior(LATENT, "maf", 2, 0, (8,)),
    "coupling": lambda: FlowPrior(LATENT, "nsf", 2, 0, (8,)),
    "flow in context": lambda: FlowPrior(LATENT, "realnvp", 2, 2, (8,)),
    "conditional": lambda: ConditionalNormal(2, LATENT, (8,)),
    "autoregressive": lambda: AutoregressivePrior(LATENT, (8,)),
    "linear autoregressive": lambda: AutoregressivePrior(LATENT, ()),
    "class-conditional": lambda: ClassConditionalNormal(LATENT, 4, shared_scale=False),
}
IN_CONTEXT = ("flow in context", "conditional")


def posterior_of(*shape: int, event_dims: int = 1) -> DiagonalNormal:
    return DiagonalNormal(torch.randn(*shape, LATENT), torch.ones(()), event_dims)


def context_of(name: str, *shape: int) -> Tensor | None:
    return torch.randn(*shape, 2) if name in IN_CONTEXT else None


@pytest.mark.parametrize("name", list(MAKERS))
@pytest.mark.parametrize("samples", [(), (6,)])
def test_a_prior_takes_the_shapes_of_the_posterior(name: str, samples: tuple[int, ...]) -> None:
    prior = MAKERS[name]()
    for q in (posterior_of(*samples, 5), posterior_of(*samples, 5, 4, event_dims=2)):
        p = prior(q, context_of(name, 5))
        assert (p.batch_shape, p.event_shape) == (q.batch_shape, q.event_shape)
        z = q.rsample(() if samples else (7,))
        assert p.log_prob(z).shape == z.shape[:2]
        assert p.sample((2,)).shape == (2, *q.batch_shape, *q.event_shape)


@pytest.mark.parametrize("name", list(MAKERS))
def test_nodes_are_independent_under_a_prior(name: str) -> None:
    prior = MAKERS[name]()
    context = context_of(name, 5)
    z = torch.randn(6, 5, 4, LATENT)
    nodes = prior(posterior_of(5, 4, event_dims=2), context).log_prob(z)
    single = prior(posterior_of(5), context)
    torch.testing.assert_close(nodes, sum(single.log_prob(z[:, :, i]) for i in range(4)))


@pytest.mark.parametrize("name", list(MAKERS))
def test_a_prior_over_a_plane_integrates_to_one(name: str) -> None:
    global LATENT
    LATENT = 2
    try:
        prior = MAKERS[name]()
        q = posterior_of(1)
        p = prior(q, context_of(name, 1))
        axis = torch.linspace(-12, 12, 241)
        grid = torch.cartesian_prod(axis, axis).unsqueeze(1)
        with torch.no_grad():
            density = p.log_prob(grid).exp().view(241, 241)
    finally:
        LATENT = 3
    total = torch.trapezoid(torch.trapezoid(density, axis, dim=1), axis, dim=0)
    assert float(total) == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "standard"])
def test_the_gradient_reaches_every_parameter_of_a_prior(name: str) -> None:
    prior = MAKERS[name]()
    q = posterior_of(20)
    prior(q, context_of(name, 20)).log_prob(3 * torch.randn(4, 20, LATENT)).sum().backward()
    for label, parameter in prior.named_parameters():
        assert parameter.grad is not None, label
        assert float(parameter.grad.abs().sum()) > 0, label


@pytest.mark.parametrize("name", list(MAKERS))
def test_a_prior_held_fixed_has_the_same_density_and_no_gradient(name: str) -> None:
    q = posterior_of(5, 4, event_dims=2)
    p = MAKERS[name]()(q, context_of(name, 5))
    z = torch.randn(6, 5, 4, LATENT)
    fixed = stop_gradient(p)
    torch.testing.assert_close(fixed.log_prob(z), p.log_prob(z).detach())
    assert not fixed.log_prob(z).requires_grad


@pytest.mark.parametrize("name", ["standard", "learned", "conditional"])
def test_normal_priors_have_a_closed_form(name: str) -> None:
    q = posterior_of(5, 4, event_dims=2)
    assert kl(q, MAKERS[name]()(q, context_of(name, 5)))[1]


def test_a_learned_normal_starts_as_the_standard_one() -> None:
    q = posterior_of(5)
    torch.testing.assert_close(kl(q, LearnedNormal(LATENT)(q))[0], kl(q, StandardNormal()(q))[0])


def test_the_standard_normal_prior_of_a_flow_draws_nothing() -> None:
    q = FlowPosterior(7, LATENT, "realnvp", 2, 0, (8,))(torch.randn(5, 7))
    z = q.rsample((2,))
    state = torch.get_rng_state()
    assert StandardNormal()(q).log_prob(z).shape == (2, 5)
    assert torch.equal(state, torch.get_rng_state())


def test_a_vampprior_is_the_mixture_of_the_posteriors_of_its_pseudo_inputs() -> None:
    inputs = torch.randn(5, 2 * LATENT)
    prior = VampPrior(inputs, encode, learned_weights=False, bounds=None)
    z = torch.randn(7, 4, LATENT)
    each = torch.stack([encode(one).log_prob(z) for one in inputs])
    expected = each.logsumexp(0) - math.log(5)
    torch.testing.assert_close(prior(posterior_of(4)).log_prob(z), expected)


def test_a_vampprior_neither_counts_nor_copies_the_encoder() -> None:
    encoder = DiagonalNormalPosterior(4, LATENT)
    prior = VampPrior(torch.rand(6, 4), encoder, learned_weights=True, bounds=(0.0, 1.0))
    assert [name for name, _ in prior.named_parameters()] == ["pseudo_inputs", "logits"]
    prior(posterior_of(2)).log_prob(torch.randn(2, LATENT)).sum().backward()
    assert encoder.head.weight.grad is not None


def test_the_conditional_prior_follows_each_examples_context() -> None:
    prior = ConditionalNormal(2, LATENT, ())
    contexts = torch.randn(5, 2)
    together = prior(posterior_of(5, 4, event_dims=2), contexts)
    for i in range(5):
        alone = prior(posterior_of(1), contexts[i : i + 1])
        torch.testing.assert_close(together.loc[i, 2], alone.loc[0])
    per_node = prior(posterior_of(5, 4, event_dims=2), torch.randn(5, 4, 2))
    assert not torch.equal(per_node.loc[:, 0], per_node.loc[:, 1])


def test_as_many_nodes_as_examples_do_not_confuse_a_context() -> None:
    prior = ConditionalNormal(2, LATENT, ())
    contexts = torch.randn(4, 2)
    p = prior(posterior_of(4, 4, event_dims=2), contexts)
    torch.testing.assert_close(p.loc[:, 0], p.loc[:, 3])


def test_an_autoregressive_prior_looks_only_back() -> None:
    prior = AutoregressivePrior(4, (16, 16)).double()
    q = DiagonalNormal(torch.zeros(1, 4).double(), torch.ones(()).double())
    noise = torch.randn(1, 4, dtype=torch.float64)

    def to_noise(z: Tensor) -> Tensor:
        for bijection in reversed(prior(q).bijections):
            z, _ = bijection.inverse(z)
        return z.squeeze(0)

    jacobian = torch.autograd.functional.jacobian(lambda z: to_noise(z.unsqueeze(0)), noise[0])
    assert float(jacobian.triu(1).abs().max()) == 0
    assert float(jacobian.tril(-1).abs().max()) > 0


def test_a_linear_autoregressive_prior_learns_a_correlated_normal() -> None:
    torch.manual_seed(1)
    factor = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    truth = MultivariateNormal(torch.zeros(2), scale_tril=factor)
    prior = AutoregressivePrior(2, ())
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.03)
    q = DiagonalNormal(torch.zeros(500, 2), torch.ones(()))
    for _ in range(250):
        z = truth.sample((500,))
        loss = -prior(q).log_prob(z).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        z = truth.sample((20_000,))
        q = DiagonalNormal(z, torch.ones(()))
        excess = (truth.log_prob(z) - prior(q).log_prob(z)).mean()
    assert abs(float(excess)) < 0.02


@pytest.mark.parametrize("kind", ["iaf", "planar"])
def test_a_flow_prior_refuses_a_slow_density(kind: str) -> None:
    with pytest.raises(ValueError, match=f"FlowPrior: flow '{kind}' is slow in the density"):
        FlowPrior(2, kind, 1, 0, (8,))
    p = FlowPrior(LATENT, kind, 1, 0, (8,), allow_slow=True)(posterior_of(2))
    assert p.log_prob(torch.randn(2, LATENT)).isfinite().all()


def test_the_kl_of_a_vector_quantiser_from_uniform_codes_is_the_log_of_their_number() -> None:
    codes = nn.functional.one_hot(torch.randint(16, (5, 7)), 16).float()
    q = OneHotCategorical(probs=codes)
    q = torch.distributions.Independent(q, 1)
    divergence, closed = kl(q, Codebook(16, learned_weights=False)(q))
    assert closed
    torch.testing.assert_close(divergence, torch.full((5,), 7 * math.log(16)), rtol=1e-5, atol=0)


def test_a_learned_codebook_has_the_kl_of_its_weights() -> None:
    prior = Codebook(3, learned_weights=True)
    with torch.no_grad():
        prior.logits.copy_(torch.tensor([0.0, 1.0, 2.0]))
    for q in (
        CategoricalPosterior(4, 3)(torch.randn(5, 4)),
        Categorical(logits=torch.randn(5, 3)),
    ):
        logits = q.logits.log_softmax(-1)
        expected = (logits.exp() * (logits - prior.logits.log_softmax(-1))).sum(-1)
        torch.testing.assert_close(kl(q, prior(q))[0], expected)
    assert not Codebook(3, learned_weights=False).logits.requires_grad


def test_a_relaxed_posterior_gets_the_relaxed_prior_of_its_temperature() -> None:
    q = GumbelSoftmaxPosterior(4, 3, temperature=0.7, variables=2)(torch.randn(5, 4))
    p = Codebook(3, learned_weights=False)(q)
    z = q.rsample((4,))
    divergence, closed = kl(q, p, value=z)
    assert not closed
    assert divergence.shape == (4, 5)
    assert (p.batch_shape, p.event_shape) == (q.batch_shape, q.event_shape)


def test_the_uniform_prior_of_directions_has_a_closed_form() -> None:
    q = VonMisesFisherPosterior(4, 3)(torch.randn(5, 4))
    divergence, closed = kl(q, SphericalUniform()(q))
    assert closed
    assert (divergence >= 0).all()


MISTAKES: dict[str, Callable[[], object]] = {
    "over vectors of length 2; the posterior has event shape": lambda: LearnedNormal(2)(
        posterior_of(5)
    ),
    "this prior knows no context": lambda: StandardNormal()(posterior_of(5), torch.ones(5, 2)),
    "ConditionalNormal: no context": lambda: ConditionalNormal(2, LATENT, ())(posterior_of(5)),
    r"needs \(\*batch, 2\)": lambda: FlowPrior(LATENT, "maf", 1, 2, ())(posterior_of(5)),
    "context: of shape": lambda: ConditionalNormal(2, LATENT, ())(
        posterior_of(5), torch.ones(3, 2)
    ),
    "components=0": lambda: MixtureOfNormals(2, 0),
    "VampPrior: pseudo-inputs of shape": lambda: VampPrior(torch.ones(0, 2), encode, False, None),
    "classes=1": lambda: ClassConditionalNormal(2, 1, shared_scale=True),
    "labels of type torch.float32": lambda: ClassConditionalNormal(LATENT, 2, True)(
        posterior_of(5), torch.ones(5)
    ),
    "labels from 0 to 2": lambda: ClassConditionalNormal(LATENT, 2, True)(
        posterior_of(3), torch.arange(3)
    ),
    "a codebook needs one over codes": lambda: Codebook(3, False)(posterior_of(5)),
    "Codebook: 4 codes; the posterior is over 3": lambda: Codebook(4, False)(
        Categorical(logits=torch.zeros(5, 3))
    ),
}


@pytest.mark.parametrize("message", list(MISTAKES))
def test_a_misfit_is_refused_with_the_numbers(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MISTAKES[message]()


def class_prior(shared_scale: bool, seed: int) -> ClassConditionalNormal:
    torch.manual_seed(seed)
    prior = ClassConditionalNormal(LATENT, 4, shared_scale)
    with torch.no_grad():
        prior.log_scale.copy_(0.3 * torch.randn_like(prior.log_scale))
        prior.log_weights.copy_(torch.randn(4))
    return prior


@pytest.mark.parametrize("shared_scale", [True, False])
def test_s012_the_classifier_is_bayes_rule_on_the_prior(shared_scale: bool) -> None:
    prior = class_prior(shared_scale, 0)
    z = torch.randn(6, LATENT)
    joint = torch.stack(
        [
            prior(DiagonalNormal(z, torch.ones(())), torch.full((6,), label)).log_prob(z)
            + prior.log_weights.log_softmax(-1)[label]
            for label in range(4)
        ],
        -1,
    )
    torch.testing.assert_close(prior.log_posterior(z), joint.log_softmax(-1))
    mixture = prior(DiagonalNormal(z, torch.ones(())))
    torch.testing.assert_close(mixture.log_prob(z), joint.logsumexp(-1))
    target, other = torch.tensor(2), torch.tensor(1)
    posterior = prior.log_posterior(z)
    torch.testing.assert_close(
        prior.log_odds(z, target, other), posterior[:, 2] - posterior[:, 1], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("metric", ["euclidean", "mahalanobis"])
@given(seed=st.integers(0, 999), log_odds=st.floats(-20, 20))
@settings(max_examples=20, deadline=None)
def test_s012_a_counterfactual_reaches_the_log_odds_asked_for(
    metric: str, seed: int, log_odds: float
) -> None:
    prior = class_prior(True, seed)
    z = torch.randn(8, LATENT)
    target, other = torch.randint(2, (8,)), 2 + torch.randint(2, (8,))
    moved = prior.counterfactual(z, target, other, torch.tensor(log_odds), metric)
    posterior = prior.double().log_posterior(moved.double())
    reached = posterior.gather(-1, target.unsqueeze(-1)) - posterior.gather(
        -1, other.unsqueeze(-1)
    )
    assert float((reached - log_odds).detach().abs().max()) <= 1e-4


def test_s012_a_counterfactual_changes_the_latent_least() -> None:
    prior = class_prior(True, 3)
    z = torch.randn(1, LATENT)
    target, other, goal = torch.tensor(0), torch.tensor(1), torch.tensor(2.0)
    nearest = prior.counterfactual(z, target, other, goal, "euclidean")
    mahalanobis = prior.counterfactual(z, target, other, goal, "mahalanobis")
    scale = prior.log_scale.exp()
    for _ in range(20):
        start = z + 0.5 * torch.randn(1, LATENT)
        elsewhere = prior.counterfactual(start, target, other, goal, "euclidean")
        assert (nearest - z).norm() <= (elsewhere - z).norm() + 1e-5
        assert ((mahalanobis - z) / scale).norm() <= ((elsewhere - z) / scale).norm() + 1e-5


def test_s012_classes_with_their_own_scales_have_counterfactuals_too() -> None:
    prior = class_prior(False, 4)
    z = prior.loc[1:2] + 0.1 * torch.randn(5, LATENT)
    target, other = torch.tensor(0), torch.tensor(1)
    now = prior.log_odds(z, target, other)
    moved = prior.counterfactual(z, target, other, now + 0.5, "euclidean")
    torch.testing.assert_close(
        prior.log_odds(moved, target, other), now + 0.5, rtol=1e-4, atol=1e-4
    )
    goals = torch.tensor([1e4, -1e4]).repeat_interleave(5)  # one of the two has no such point
    with pytest.raises(ValueError, match="never reach the log odds"):
        prior.counterfactual(z.repeat(2, 1), target, other, goals, "euclidean")


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16.0).float(), torch.tensor(labels)
    order = torch.randperm(len(x))
    x, y = x[order], y[order]
    return x[:1200], y[:1200], x[1200:], y[1200:]


class DigitsVAE(nn.Module):
    def __init__(self, known: int, latent: int, prior: Prior) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64 + known, 128), nn.ReLU())
        self.posterior = DiagonalNormalPosterior(128, latent)
        self.decoder = nn.Sequential(nn.Linear(latent + known, 128), nn.ReLU())
        self.likelihood = BernoulliLikelihood(128, 64)
        self.prior = prior

    def forward(self, x: Tensor, context: Tensor | None, known: Tensor | None) -> Evidence:
        beside = [] if known is None else [known]
        q = self.posterior(self.encoder(torch.cat([x, *beside], -1)))
        z = q.rsample((1,))
        seen = torch.cat([z, *(each.expand(1, *each.shape) for each in beside)], -1)
        p = self.likelihood(self.decoder(seen))
        return Evidence({"x": p.log_prob(x)}, [Latent("z", z, q, self.prior(q, context))])


def train(model: nn.Module, steps: int, loss: Callable[[Tensor], Tensor], examples: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(torch.randint(examples, (100,))).backward()
        optimizer.step()


def test_s120_samples_of_a_conditional_vae_are_of_the_class_asked_for() -> None:
    x, y, test_x, test_y = digits()
    known = nn.functional.one_hot(y, 10).float()
    prior = ConditionalNormal(10, 8, ())
    model = DigitsVAE(10, 8, prior)
    objective = ELBO()
    train(
        model,
        700,
        lambda i: objective(model(x[i], known[i], known[i])).loss,
        len(x),
    )
    probe = LogisticRegression(max_iter=300).fit(x.numpy(), y.numpy())
    assert probe.score(test_x.numpy(), test_y.numpy()) > 0.9
    with torch.no_grad():
        asked = torch.arange(10).repeat_interleave(50)
        context = nn.functional.one_hot(asked, 10).float()
        shape = DiagonalNormal(torch.zeros(500, 8), torch.ones(()))
        z = prior(shape, context).sample()
        images = model.likelihood(model.decoder(torch.cat([z, context], -1))).mean
    assert probe.score(images.numpy(), asked.numpy()) >= 0.95


def test_s012_a_class_conditional_prior_classifies_digits() -> None:
    x, y, test_x, test_y = digits()
    prior = ClassConditionalNormal(8, 10, shared_scale=True)
    model = DigitsVAE(0, 8, prior)
    objective = ELBO()

    def loss(i: Tensor) -> Tensor:
        evidence = model(x[i], y[i], None)
        (latent,) = evidence.latents
        log_class = prior.log_posterior(latent.value[0]).gather(-1, y[i].unsqueeze(-1))
        return objective(evidence).loss - 10 * log_class.mean()

    train(model, 500, loss, len(x))
    with torch.no_grad():
        z = model.posterior(model.encoder(test_x)).loc
        accuracy = float((prior.log_posterior(z).argmax(-1) == test_y).float().mean())
        other = (test_y + 1) % 10
        moved = prior.counterfactual(z, other, test_y, torch.tensor(3.0), "mahalanobis")
        reached = prior.double().log_odds(moved.double(), other, test_y)
    assert accuracy >= 0.95
    assert float((reached - 3).abs().max()) <= 1e-4


def test_all_priors_are_distributions_of_one_family_of_signatures() -> None:
    for name, maker in MAKERS.items():
        q = posterior_of(2)
        assert isinstance(maker()(q, context_of(name, 2)), Distribution)
