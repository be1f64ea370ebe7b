from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    Laplace,
    LogNormal,
    MixtureSameFamily,
    MultivariateNormal,
    OneHotCategorical,
)

from core.variational.distributions import (
    CentredNormal,
    DiagonalNormal,
    UnitUniform,
    VonMisesFisher,
    stop_gradient,
)
from core.variational.divergences import elementwise_kl, kl
from core.variational.dynamics import cut_padding
from core.variational.estimators import (
    VIMCO,
    DoublyReparameterised,
    Enumeration,
    Estimator,
    Path,
    Reparameterised,
    ScoreFunction,
    SigmaPoints,
)
from core.variational.evidence import Evidence, Latent
from core.variational.exact import TwoLevelLinearGaussian, small_two_level
from core.variational.objectives import ELBO, IWAE
from core.variational.posteriors import DiagonalNormalPosterior, GumbelSoftmax
from core.variational.priors import Codebook, ConditionalNormal, LearnedNormal, StandardNormal
from core.variational.structures import (
    Level,
    Masked,
    Relaxed,
    TopDown,
    joined,
    masked_event,
    masked_latent,
    mixture_of_experts,
    product_of_experts,
)

GRAPHS = (2, 5, 3)  # graphs, nodes, latents
MASK = torch.tensor([[True, False, True, True, False], [False, True, False, False, False]])
close = torch.testing.assert_close


def double(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def nodes(seed: int = 0) -> DiagonalNormal:
    loc, noise = double(2, *GRAPHS, seed=seed)
    return DiagonalNormal(loc, noise.exp(), event_dims=2)


def full_nodes(seed: int = 0) -> Independent:
    lower = double(*GRAPHS, 3, seed=seed).tril(-1) + torch.eye(3)
    return Independent(MultivariateNormal(double(*GRAPHS, seed=seed), scale_tril=lower), 1)


def mixture_nodes() -> Independent:
    components = DiagonalNormal(double(2, 5, 4, 3), torch.ones(()).double())
    mixture = MixtureSameFamily(Categorical(logits=double(2, 5, 4)), components)
    return Independent(mixture, 1)


def one_hot_nodes(seed: int = 0) -> Independent:
    logits = double(*GRAPHS, seed=seed)
    return Independent(OneHotCategorical(logits=logits, validate_args=False), 1)


# Posterior, prior, and whether the KL of all nodes together has a closed form.
FAMILIES: dict[str, tuple[Callable[[], Distribution], Callable[[], Distribution], bool]] = {
    "diagonal, centred": (nodes, lambda: CentredNormal(nodes().loc, 1.3, 2), True),
    "diagonal, diagonal": (nodes, lambda: nodes(1), True),
    "diagonal, laplace": (
        nodes,
        lambda: Independent(Laplace(nodes(1).loc, nodes(1).scale), 2),
        True,
    ),
    "full nodes, diagonal": (full_nodes, nodes, True),
    "full nodes, full nodes": (full_nodes, lambda: full_nodes(1), True),
    "uniform, diagonal": (lambda: UnitUniform(nodes().loc, 2), nodes, True),
    "directions": (
        lambda: VonMisesFisher(nodes().loc, nodes().scale[..., 0], 2),
        lambda: VonMisesFisher(nodes(1).loc, nodes(1).scale[..., 0], 2),
        True,
    ),
    "one-hot, one-hot": (one_hot_nodes, lambda: one_hot_nodes(1), True),
    "diagonal, mixture": (nodes, mixture_nodes, False),
}
families = pytest.mark.parametrize("family", FAMILIES)


def by_node(distribution: Distribution) -> Distribution:
    """Return the distribution of each node by itself, by torch's own means."""
    if isinstance(distribution, Independent):
        base = distribution.base_dist
        return base if base.event_shape else Independent(base, 1)
    if isinstance(distribution, VonMisesFisher):
        return VonMisesFisher(distribution.loc, distribution.concentration)
    if isinstance(distribution, UnitUniform):
        return UnitUniform(distribution.loc, 1)
    assert isinstance(distribution, DiagonalNormal)
    return DiagonalNormal(distribution.loc, distribution.scale, 1)


def there(per_node: Tensor) -> Tensor:
    """Sum over the nodes that are there, one after the other."""
    rows = [row[mask].sum() for row, mask in zip(per_node, MASK, strict=True)]
    return torch.stack(rows)


@families
def test_masked_elements_are_in_no_density_and_no_divergence(family: str) -> None:
    make, make_prior, closed = FAMILIES[family]
    posterior, prior = make(), make_prior()
    latent = masked_latent("z", posterior, prior, MASK, 1, ScoreFunction())
    value = latent.value[0]
    assert torch.equal(value[~MASK], torch.zeros_like(value[~MASK]))
    sensible = torch.where(MASK.unsqueeze(-1), value, posterior.sample())
    expected = by_node(posterior).log_prob(sensible)
    close(latent.posterior.log_prob(latent.value)[0], there(expected))
    expected = expected - by_node(prior).log_prob(sensible)
    close(latent.log_ratio()[0], there(expected))
    assert latent.closed_form is closed
    if closed:
        expected = kl(by_node(posterior), by_node(prior))[0]
    close(latent.kl()[0], there(expected))


@families
def test_no_value_at_a_masked_element_changes_anything(family: str) -> None:
    make, make_prior, _ = FAMILIES[family]
    posterior, prior = masked_event(make(), MASK), masked_event(make_prior(), MASK)
    value = posterior.sample((4,))
    for garbage in (1e30, math.inf, math.nan):
        other = torch.where(MASK.unsqueeze(-1), value, garbage)
        for distribution in (posterior, prior):
            assert torch.equal(distribution.log_prob(other), distribution.log_prob(value))


ESTIMATORS = {
    "reparameterised": Reparameterised(),
    "path": Path(),
    "dreg": DoublyReparameterised(),
    "score": ScoreFunction(),
    "vimco": VIMCO(),
}


def gradients(objective: Any, estimator: Estimator, garbage: float) -> tuple[Tensor, ...]:
    """Loss and gradients of a model of nodes whose padding holds this number."""
    torch.manual_seed(0)
    absent = ~MASK.unsqueeze(-1)
    leaves = [double(*GRAPHS, seed=seed) for seed in range(4)]
    leaves[1::2] = [noise.exp() for noise in leaves[1::2]]
    leaves = [leaf.masked_fill(absent, garbage).requires_grad_() for leaf in leaves]
    posterior, prior = (DiagonalNormal(leaves[i], leaves[i + 1], 2) for i in (0, 2))
    z = masked_latent("z", posterior, prior, MASK, 4, estimator)
    loss = objective(Evidence({"x": -z.value.square().sum((-1, -2))}, [z])).loss
    found = torch.autograd.grad(loss, leaves)
    for gradient in found:
        assert not gradient[~MASK].any()
        assert gradient[MASK].abs().min() > 0
    return loss.detach(), *found


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("objective", [ELBO(4), ELBO(4, free_bits=0.01), IWAE(4)])
def test_no_parameter_of_a_masked_element_changes_loss_or_gradient(
    objective: Any, estimator: str
) -> None:
    if isinstance(objective, IWAE) and estimator == "path":
        pytest.skip("a path estimator is refused by IWAE, masked or not")
    before = gradients(objective, ESTIMATORS[estimator], 0.0)
    for garbage in (1e3, -math.inf, math.nan):
        for one, other in zip(
            before, gradients(objective, ESTIMATORS[estimator], garbage), strict=True
        ):
            assert torch.equal(one, other)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=6, max_size=6), st.integers(0, 100))
def test_padding_to_more_elements_changes_neither_divergence_nor_gradient(
    present: list[bool], seed: int
) -> None:
    """One graph of as many nodes as are there, and the same among six."""
    mask = torch.tensor([present])
    loc, noise, value = double(3, 1, 6, 2, seed=seed)

    def terms(select: Callable[[Tensor], Tensor], cover: Any) -> list[Tensor]:
        raw = torch.stack([loc, noise]).requires_grad_()
        q = cover(DiagonalNormal(select(raw[0]), select(raw[1]).exp(), 2))
        p = cover(CentredNormal(select(loc), event_dims=2))
        latent = Latent("z", select(value)[None], q, p)
        total = latent.kl() + 2 * latent.log_ratio()
        total.sum().backward()
        per_dimension = latent.kl_per_dimension()
        assert raw.grad is not None
        assert per_dimension is not None
        return [latent.kl().detach(), latent.log_ratio().detach(), per_dimension, raw.grad]

    short = terms(lambda x: x[:, mask[0]], lambda d: d)
    padded = terms(lambda x: x, lambda d: masked_event(d, mask))
    for one, other in zip(short, padded, strict=True):
        close(one, other, rtol=1e-12, atol=1e-12)


@families
def test_examples_may_be_permuted_and_batches_split(family: str) -> None:
    make, make_prior, _ = FAMILIES[family]
    whole = masked_latent("z", make(), make_prior(), MASK, 3, ScoreFunction())
    inner_q, inner_p = make(), make_prior()

    def of(rows: slice) -> Latent:
        """Take rows of the batch after a permutation of it: here, of its two graphs."""
        turned = [_rows(d, rows) for d in (inner_q, inner_p)]
        q, p = (masked_event(each, MASK.flip(0)[rows]) for each in turned)
        return Latent("z", whole.value.flip(1)[:, rows], q, p)

    for term in (Latent.kl, Latent.log_ratio):
        expected = term(whole).flip(1)
        close(term(of(slice(None))), expected)
        close(torch.cat([term(of(slice(0, 1))), term(of(slice(1, 2)))], 1), expected)


def _rows(distribution: Distribution, rows: slice) -> Distribution:
    """Return rows of the batch of two graphs, in reverse."""
    if isinstance(distribution, Independent):
        base = _rows(distribution.base_dist, rows)
        return Independent(base, distribution.reinterpreted_batch_ndims)
    if isinstance(distribution, MixtureSameFamily):
        return MixtureSameFamily(
            Categorical(logits=distribution.mixture_distribution.logits.flip(0)[rows]),
            _rows(distribution.component_distribution, rows),
        )
    if isinstance(distribution, MultivariateNormal):
        lower = distribution.scale_tril.flip(0)[rows]
        return MultivariateNormal(distribution.loc.flip(0)[rows], scale_tril=lower)
    if isinstance(distribution, OneHotCategorical):
        return OneHotCategorical(logits=distribution.logits.flip(0)[rows], validate_args=False)
    if isinstance(distribution, Laplace):
        return Laplace(distribution.loc.flip(0)[rows], distribution.scale.flip(0)[rows])
    assert isinstance(distribution, DiagonalNormal | UnitUniform | VonMisesFisher)
    return distribution.mapped(lambda p: p.flip(0)[rows], distribution.event_dims)


def test_samples_of_the_elements_that_are_there_are_those_of_the_unmasked() -> None:
    torch.manual_seed(3)
    free = nodes().rsample((4,))
    torch.manual_seed(3)
    value = masked_event(nodes(), MASK).rsample((4,))
    assert torch.equal(value[:, MASK], free[:, MASK])
    assert not value[:, ~MASK].any()


def test_moments_and_entropy_are_those_of_what_is_there() -> None:
    masked = masked_event(nodes(), MASK, filler=0.25)
    assert torch.equal(masked.mean[MASK], nodes().loc[MASK])
    assert (masked.mean[~MASK] == 0.25).all()
    assert not masked.variance[~MASK].any()
    expected = there(DiagonalNormal(nodes().loc, nodes().scale).entropy())
    close(masked.entropy(), expected)
    close(masked.expand((7, 2)).entropy(), expected.expand(7, 2))


def test_a_filler_within_the_support_keeps_gradients_finite() -> None:
    loc = double(*GRAPHS).requires_grad_()
    positive = Independent(LogNormal(loc, torch.ones(()).double(), validate_args=False), 2)
    for filler, finite in ((0.0, False), (1.0, True)):
        masked = masked_event(positive, MASK, filler)
        (slope,) = torch.autograd.grad(masked.log_prob(masked.rsample()).sum(), loc)
        assert bool(slope.isfinite().all()) is finite


def test_a_mask_of_examples_takes_any_distribution() -> None:
    mask = torch.tensor([True, False])
    full = MultivariateNormal(double(2, 3), torch.eye(3).double())
    diagonal = DiagonalNormal(double(2, 3, seed=1), torch.ones(()).double())
    q, p = masked_event(full, mask), masked_event(diagonal, mask)
    divergence, closed = kl(q, p)
    assert closed
    close(divergence, torch.where(mask, kl(full, diagonal)[0], 0.0))
    close(q.log_prob(double(4, 2, 3)), torch.where(mask, full.log_prob(double(4, 2, 3)), 0.0))
    assert not q.rsample()[1].any()


def test_pixels_are_masked_for_all_channels_at_once() -> None:
    image = DiagonalNormal(double(2, 3, 4, 4), double(2, 3, 4, 4, seed=1).exp(), 3)
    seen = double(2, 1, 4, 4, seed=2) > 0
    masked = masked_event(image, seen)
    elements = DiagonalNormal(image.loc, image.scale, 0).log_prob(torch.zeros_like(image.loc))
    close(masked.log_prob(torch.zeros_like(image.loc)), (elements * seen).sum((1, 2, 3)))


def test_a_posterior_given_sampled_parents_is_masked_alike_for_all_samples() -> None:
    loc = double(4, *GRAPHS)
    q = masked_event(DiagonalNormal(loc, torch.ones(()).double(), 2), MASK)
    p = masked_event(CentredNormal(loc, event_dims=2), MASK)
    latent = Latent.draw("z", q, p, 4)
    assert latent.value.shape == loc.shape
    assert latent.closed_form
    close(latent.kl(), (0.5 * loc.square().sum(-1) * MASK).sum(-1))


def test_elementwise_divergences_are_0_where_nothing_is() -> None:
    terms = elementwise_kl(masked_event(nodes(), MASK), masked_event(nodes(1), MASK))
    plain = elementwise_kl(nodes(), nodes(1))
    assert terms is not None
    assert plain is not None
    close(terms, plain * MASK.unsqueeze(-1))
    laplace = Independent(Laplace(nodes(1).loc, nodes(1).scale), 2)
    assert elementwise_kl(masked_event(nodes(), MASK), masked_event(laplace, MASK)) is not None


def test_a_masked_distribution_held_fixed_has_no_gradient_but_through_the_value() -> None:
    loc = nodes().loc.requires_grad_()
    value = double(*GRAPHS, seed=5).requires_grad_()
    masked = masked_event(DiagonalNormal(loc, torch.ones(()).double(), 2), MASK)
    fixed = stop_gradient(masked)
    assert torch.equal(fixed.log_prob(value), masked.log_prob(value))
    fixed.log_prob(value).sum().backward()
    assert loc.grad is None
    assert value.grad is not None
    assert torch.equal(value.grad.abs().sum(-1) > 0, MASK)


def test_masking_says_of_padded_sequences_what_cutting_the_padding_says() -> None:
    """Two ways, for other families: a chain cannot be masked, a mixture cannot be cut."""
    present = torch.tensor([[True, True, True, False, False], [True, False, False, False, False]])
    posterior, prior, value = nodes(), nodes(1), double(6, *GRAPHS)
    cut = Latent("z", value, cut_padding(posterior, present), cut_padding(prior, present))
    masked = Latent("z", value, masked_event(posterior, present), masked_event(prior, present))
    close(cut.kl(), masked.kl())
    close(cut.log_ratio(), masked.log_ratio())


@pytest.mark.parametrize(
    ("distribution", "mask", "message"),
    [
        (nodes(), MASK[:, :4], r"shape \(2, 4\) for a batch of \(2,\) and events of \(5, 3\)"),
        (nodes(), torch.ones(2, 5, 3, 1, dtype=torch.bool), "first dimensions of the event"),
        (DiagonalNormal(torch.zeros(3), torch.ones(())), MASK, "batch of"),
        (full_nodes(), torch.ones(2, 5, 3, dtype=torch.bool), "the first 1 are independent"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(
    distribution: Distribution, mask: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        masked_event(distribution, mask)


def test_different_masks_of_posterior_and_prior_are_refused() -> None:
    with pytest.raises(ValueError, match="masks of posterior and prior differ"):
        kl(masked_event(nodes(), MASK), masked_event(nodes(), ~MASK))
    with pytest.raises(ValueError, match="event shapes"):
        kl(
            masked_event(nodes(), MASK),
            masked_event(VonMisesFisher(double(2, 4), MASK[:, 0] + 1), MASK[:, 0]),
        )


def test_a_mask_finer_than_the_prior_s_parts_leaves_the_divergence_to_samples() -> None:
    mask = MASK.unsqueeze(-1)
    fine = masked_event(nodes(), mask.expand(GRAPHS))
    coarse = Masked(full_nodes(), mask)
    with pytest.raises(ValueError, match="no closed form"):
        kl(fine, Masked(full_nodes(), mask.expand(GRAPHS)))
    assert kl(masked_event(nodes(), MASK), coarse)[1]


# --- experts ------------------------------------------------------------------------------------


def views(count: int = 3) -> list[DiagonalNormal]:
    return [
        DiagonalNormal(double(2, 4, seed=seed), double(2, 4, seed=9 + seed).exp())
        for seed in range(count)
    ]


STANDARD = DiagonalNormal(torch.zeros(2, 4).double(), torch.ones(2, 4).double())
PRESENT = torch.tensor([[True, False, True], [False, False, False]])


def test_the_product_of_experts_is_proportional_to_the_product_of_the_densities() -> None:
    product = product_of_experts(STANDARD, views(), PRESENT)
    z = double(50, 2, 4, seed=99)
    experts = torch.stack([expert.log_prob(z) for expert in views()], -1)
    unnormalised = STANDARD.log_prob(z) + (experts * PRESENT).sum(-1)
    constant = product.log_prob(z) - unnormalised
    close(constant, constant[:1].expand_as(constant))
    close(product.loc[1], STANDARD.loc[1])
    close(product.scale[1], STANDARD.scale[1])


def test_the_mixture_of_experts_is_the_mean_of_the_densities_that_are_there() -> None:
    mixture = mixture_of_experts(STANDARD, views(), PRESENT)
    z = double(50, 2, 4, seed=99)
    shares = torch.stack([expert.log_prob(z).exp() for expert in views()], -1)
    close(mixture.log_prob(z)[:, 0].exp(), shares[:, 0, [0, 2]].mean(-1))
    close(mixture.log_prob(z)[:, 1], STANDARD.log_prob(z)[:, 1])
    close(mixture_of_experts(STANDARD, views()).log_prob(z).exp(), shares.mean(-1))


@pytest.mark.parametrize("combine", [product_of_experts, mixture_of_experts])
@pytest.mark.parametrize("garbage", [1e30, math.nan, -math.inf])
def test_a_missing_view_changes_neither_value_nor_gradient(combine: Any, garbage: float) -> None:
    def terms(number: float) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        raw = torch.stack([double(3, 2, 4), double(3, 2, 4, seed=1).exp()], 1)
        raw = torch.where(PRESENT.T[:, None, :, None], raw, number).requires_grad_()
        experts = [DiagonalNormal(loc, scale) for loc, scale in raw]
        z = Latent.draw("z", combine(STANDARD, experts, PRESENT), STANDARD, 5)
        (z.kl() + z.value.sum(-1)).sum().backward()
        assert raw.grad is not None
        return z.value.detach(), raw.grad

    value, gradient = terms(0.0)
    other_value, other_gradient = terms(garbage)
    assert torch.equal(value, other_value)
    assert torch.equal(gradient, other_gradient)
    absent = ~PRESENT.T[:, None, :, None].expand_as(gradient)
    assert not gradient[absent].any()
    assert gradient[~absent].abs().min() > 0


@pytest.mark.parametrize("present", [[True, True], [True, False], [False, True], [False, False]])
def test_the_product_of_experts_is_exact_for_any_views_of_a_linear_gaussian(
    present: list[bool],
) -> None:
    seen = torch.tensor([present]).expand(5, 2)
    weights = [torch.linalg.qr(double(6, 3, seed=view)).Q * (1 + view) for view in range(2)]
    scales, x = (0.5, 0.8), double(2, 5, 6, seed=5)
    experts = []
    for weight, scale, view in zip(weights, scales, x, strict=True):
        precision = weight.square().sum(0) / scale**2
        experts.append(DiagonalNormal(view @ weight / scale**2 / precision, precision.rsqrt()))
    prior = DiagonalNormal(torch.zeros(5, 3).double(), torch.ones(5, 3).double())
    z = Latent.draw("z", product_of_experts(prior, experts, seen), prior, 4, Path())
    terms = {
        f"x{view}": DiagonalNormal(
            z.value @ weights[view].T, torch.full((6,), scales[view]).double()
        )
        .log_prob(x[view])
        .where(seen[:, view], 0.0)
        for view in range(2)
    }
    rows = [index for index, given in enumerate(present) if given]
    exact = torch.zeros(5).double()
    if rows:
        weight = torch.cat([weights[row] for row in rows])
        noise = torch.cat([torch.full((6,), scales[row] ** 2) for row in rows]).double()
        covariance = weight @ weight.T + torch.diag(noise)
        exact = MultivariateNormal(torch.zeros(len(noise)).double(), covariance).log_prob(
            torch.cat([x[row] for row in rows], -1)
        )
    assert abs(float(ELBO(4)(Evidence(terms, [z])).value - exact.mean())) <= 1e-6


def test_experts_that_cannot_be_combined_are_refused() -> None:
    with pytest.raises(ValueError, match="give one for each view"):
        product_of_experts(STANDARD, views(2), PRESENT)
    with pytest.raises(ValueError, match="give one for each view"):
        product_of_experts(STANDARD, [])
    with pytest.raises(ValueError, match="must be diagonal Normals"):
        product_of_experts(STANDARD, [full_nodes()])
    with pytest.raises(ValueError, match="must be the same"):
        product_of_experts(STANDARD, [nodes()])
    with pytest.raises(ValueError, match="a mixture is over vectors"):
        mixture_of_experts(nodes(), [nodes()])


# --- hierarchies --------------------------------------------------------------------------------


class Recognised(nn.Module):
    """A linear map of its input to a mean, and a scale that does not depend on it."""

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.weight, self.scale = nn.Parameter(weight), nn.Parameter(scale)

    def forward(self, features: Tensor) -> DiagonalNormal:
        loc = features @ self.weight
        return DiagonalNormal(loc, self.scale.expand_as(loc))


class Child(nn.Module):
    r"""The prior :math:`N(a z, t^2)`."""

    def __init__(self, slope: Tensor, scale: float) -> None:
        super().__init__()
        self.slope, self.scale = slope, scale

    def forward(self, posterior: Distribution, context: Tensor | None = None) -> DiagonalNormal:
        assert context is not None
        loc = self.slope * context
        return DiagonalNormal(loc, torch.full_like(loc, self.scale))


def exact_levels(model: TwoLevelLinearGaussian, inference: str) -> TopDown:
    """Return the hierarchy whose posterior is exact, from the features that `estimate` gives."""
    precision = model.weight.square().sum(0) / model.scale**2
    slope, between = model.slope, model.middle_scale**-2
    spread = model.middle_scale**2 + 1 / precision
    top_precision = 1 + slope.square() / spread
    posterior_precision = precision + between
    own, above = (precision / posterior_precision).diag(), slope * between / posterior_precision
    if inference == "ladder":
        top = Recognised((1 / slope).diag(), spread.sqrt() / slope.abs())
        bottom = Recognised(torch.eye(3).double(), precision.rsqrt())
    else:
        top = Recognised((slope / spread / top_precision).diag(), top_precision.rsqrt())
        relative = inference == "residual"
        weight = torch.cat([own, (above - slope * relative).diag()])
        scale = posterior_precision.rsqrt() / (model.middle_scale if relative else 1.0)
        bottom = Recognised(weight, scale)
    levels = [
        Level(top, StandardNormal(), inference),
        Level(bottom, Child(slope, model.middle_scale), inference),
    ]
    return TopDown(levels)


def estimate(model: TwoLevelLinearGaussian, x: Tensor) -> Tensor:
    return (x - model.bias) @ model.weight / model.weight.square().sum(0)


def evidence(
    model: TwoLevelLinearGaussian,
    levels: TopDown,
    x: Tensor,
    samples: int,
    estimator: Estimator | Sequence[Estimator],
) -> Evidence:
    latents = levels([estimate(model, x)] * 2, samples, estimator)
    loc = latents[-1].value @ model.weight.T + model.bias
    likelihood = DiagonalNormal(loc, torch.full_like(loc, model.scale))
    return Evidence({"x": likelihood.log_prob(x)}, latents)


WAYS = pytest.mark.parametrize("inference", ["ladder", "residual", "joint"])


@WAYS
def test_a_two_level_linear_gaussian_with_its_exact_posterior_has_the_elbo_log_p(
    inference: str,
) -> None:
    model = small_two_level()
    x, levels = model.sample(50), exact_levels(model, inference)
    found = evidence(model, levels, x, 4, Path())
    assert [latent.name for latent in found.latents] == ["z2", "z1"]
    log_weights = found.log_joint_ratio().detach()
    assert float(log_weights.var(0).max()) <= 1e-10
    exact = model.log_evidence(x)
    assert float((log_weights - exact).abs().max()) <= 1e-6
    assert abs(float(ELBO(4)(found).value - exact.mean())) <= 1e-6
    again = evidence(model, levels, x, 4, Reparameterised())
    assert abs(float(IWAE(4)(again).value - exact.mean())) <= 1e-6


@WAYS
def test_closed_forms_given_the_drawn_parents_have_log_p_as_their_mean(inference: str) -> None:
    model = small_two_level()
    x = model.sample(3)
    with torch.no_grad():
        found = evidence(model, exact_levels(model, inference), x, 20_000, Reparameterised())
        bound = found.log_likelihood["x"] - sum(latent.kl() for latent in found.latents)
    assert all(latent.closed_form for latent in found.latents)
    assert found.latents[1].posterior.batch_shape == (20_000, 3)
    error = (bound.mean(0) - model.log_evidence(x)).abs() / (bound.std(0) / math.sqrt(20_000))
    assert float(error.max()) < 4


def test_generated_values_have_the_covariance_of_the_model() -> None:
    model = small_two_level()
    with torch.no_grad():
        top, bottom = exact_levels(model, "ladder").generate(
            [torch.zeros(1, 3).double()] * 2, 40_000
        )
    joint = torch.cat([top, bottom], -1)[:, 0]
    slope = model.slope
    expected = torch.cat(
        [
            torch.cat([torch.eye(3).double(), slope.diag()], 1),
            torch.cat([slope.diag(), (slope.square() + model.middle_scale**2).diag()], 1),
        ]
    )
    error = math.sqrt(2 / 40_000) * expected.diagonal().sqrt().outer(expected.diagonal().sqrt())
    assert ((joint.T.cov() - expected).abs() < 4.5 * error).all()
    assert top.shape == bottom.shape == (40_000, 1, 3)


@pytest.mark.parametrize(
    "estimator",
    [
        Path(),
        ScoreFunction("leave-one-out"),
        VIMCO(),
        (SigmaPoints(), Reparameterised()),
        (ScoreFunction("leave-one-out"), Reparameterised()),
    ],
    ids=["path", "score", "vimco", "sigma points on top", "score on top"],
)
def test_every_estimator_has_the_mean_gradient_of_the_reparameterised_one(
    estimator: Estimator | tuple[Estimator, ...],
) -> None:
    """Of a two-level posterior that is not exact."""
    model = small_two_level()
    x = model.sample(1)
    levels = exact_levels(model, "residual")
    with torch.no_grad():
        for parameter in levels.parameters():
            parameter.mul_(1.2)

    def repeated(how: Any, repeats: int = 2500) -> Tensor:
        rows = []
        for _ in range(50):
            part = evidence(model, levels, x.expand(repeats // 50, -1), 4, how)
            gradient = torch.autograd.grad(ELBO(4)(part).loss, list(levels.parameters()))
            rows.append(torch.cat([each.flatten() for each in gradient]))
        return torch.stack(rows)

    ours, truth = repeated(estimator), repeated(Reparameterised())
    error = (ours.var(0) / 50 + truth.var(0) / 50).sqrt()
    size = truth.mean(0).abs()
    assert (size > 5 * error).sum() >= 10  # else the errors would hide a bias
    assert ((ours.mean(0) - truth.mean(0)).abs() < 4 * error + 1e-9).all()


def three_levels() -> TopDown:
    """The lowest level knows both levels above."""
    top = Level(DiagonalNormalPosterior(5, 2), LearnedNormal(2), "residual")
    middle = Level(
        DiagonalNormalPosterior(5 + 2, 3),
        ConditionalNormal(2, 3, hidden=(8,)),
        "residual",
        state=lambda value, above: value if above is None else joined(above, value),
    )
    bottom = Level(DiagonalNormalPosterior(5 + 5, 2), ConditionalNormal(5, 2, hidden=()), "joint")
    return TopDown([top, middle, bottom])


def test_a_level_knows_of_all_above_what_the_states_hand_down() -> None:
    levels = three_levels()
    latents = levels([torch.randn(4, 5)] * 3, 6)
    assert [latent.name for latent in latents] == ["z3", "z2", "z1"]
    assert [tuple(latent.value.shape) for latent in latents] == [(6, 4, 2), (6, 4, 3), (6, 4, 2)]
    loss = ELBO(6)(Evidence({"x": -latents[-1].value.square().sum(-1)}, latents)).loss
    loss.backward()
    assert all(each.grad is not None for each in levels.parameters())
    lowest = levels([torch.zeros(4, 5)] * 3, 6)[-1].posterior.mean.sum()
    names = "levels.0.prior.loc", "levels.1.prior.network.biases.0"
    for slope in torch.autograd.grad(lowest, [levels.get_parameter(name) for name in names]):
        assert slope.abs().sum() > 0


def test_a_residual_level_that_says_nothing_is_its_prior() -> None:
    levels = three_levels()
    with torch.no_grad():
        for name, parameter in levels.named_parameters():
            if name.startswith(("levels.0.recognition", "levels.1.recognition")):
                parameter.zero_()
        latents = levels([torch.randn(4, 5)] * 3, 6)
    for latent in latents[:2]:
        assert float(latent.kl().detach().abs().max()) <= 1e-6


class ImagePosterior(nn.Module):
    """Convolutions of size 1 over draws as if they were examples."""

    def __init__(self, channels: int, latent: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, 2 * latent, 1)

    def forward(self, features: Tensor, context: Tensor | None = None) -> DiagonalNormal:
        images = features.reshape(-1, *features.shape[-3:])
        raw = self.convolution(images).reshape(*features.shape[:-3], -1, *features.shape[-2:])
        loc, log_scale = raw.chunk(2, -3)
        return DiagonalNormal(loc, log_scale.exp(), 3)


class ImagePrior(ImagePosterior):
    def forward(self, features: Any, context: Tensor | None = None) -> DiagonalNormal:
        assert context is not None
        return super().forward(context)


def test_levels_may_be_images() -> None:
    top = Level(ImagePosterior(3, 2), StandardNormal(), "residual", joined_along=-3)
    bottom = Level(ImagePosterior(3 + 2, 4), ImagePrior(2, 4), "residual", joined_along=-3)
    latents = TopDown([top, bottom], ["coarse", "fine"])([torch.randn(2, 3, 8, 8)] * 2, 5)
    assert [tuple(latent.value.shape) for latent in latents] == [(5, 2, 2, 8, 8), (5, 2, 4, 8, 8)]
    assert all(latent.kl().shape == (5, 2) and latent.closed_form for latent in latents)


def test_batches_of_a_hierarchy_may_be_split_and_permuted() -> None:
    """The KL of the top, and that of the level below given one and the same parent."""
    levels, features = three_levels(), torch.randn(6, 5)
    with torch.no_grad():
        top = levels.levels[0](features)
        value = top[0].rsample((3,))
        order = torch.tensor([3, 1, 5, 0, 2, 4])
        whole = kl(*levels.levels[1](features, value))[0]
        turned = kl(*levels.levels[1](features[order], value[:, order]))[0]
        split = [
            kl(*levels.levels[1](features[rows], value[:, rows]))[0]
            for rows in (slice(0, 2), slice(2, 6))
        ]
    close(turned, whole[:, order])
    close(torch.cat(split, 1), whole)


def test_a_hierarchy_that_cannot_be_drawn_is_refused() -> None:
    model = small_two_level()
    levels = exact_levels(model, "ladder")
    features = [torch.zeros(2, 3).double()] * 2
    with pytest.raises(ValueError, match="below the top"):
        levels(features, 3, (Reparameterised(), SigmaPoints()))
    with pytest.raises(ValueError, match="features of 1 for 2 levels"):
        levels(features[:1], 3)
    with pytest.raises(ValueError, match="inference 'upwards'"):
        Level(nn.Identity(), StandardNormal(), "upwards")
    with pytest.raises(ValueError, match="1 levels and 2 names"):
        TopDown([Level(nn.Identity(), StandardNormal(), "joint")], ["a", "b"])


# --- discrete latents ---------------------------------------------------------------------------


def relaxed(logits: Tensor, samples: int, estimator: Estimator) -> Latent:
    posterior = OneHotCategorical(logits=logits, validate_args=False)
    return Latent.draw("c", posterior, Codebook(logits.shape[-1], False), samples, estimator)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.floats(0.05, 5.0), st.floats(0.0, 30.0), st.integers(0, 1000))
def test_relaxed_draws_are_on_the_simplex_and_their_kl_is_at_most_log_k(
    classes: int, temperature: float, spread: float, seed: int
) -> None:
    logits = spread * double(4, classes, seed=seed)
    latent = relaxed(logits, 3, Relaxed(temperature))
    close(latent.value.sum(-1), torch.ones(3, 4).double())
    assert (latent.value >= 0).all()
    assert latent.closed_form
    assert (latent.kl() >= -1e-9).all()
    assert (latent.kl() <= math.log(classes) + 1e-6).all()
    corners = relaxed(logits, 3, Relaxed(temperature, straight_through=True)).value
    assert torch.equal(corners.amax(-1), torch.ones(3, 4).double())
    assert torch.equal(corners.sum(-1), torch.ones(3, 4).double())


def test_at_temperature_0_relaxed_draws_are_one_hot_with_the_class_probabilities() -> None:
    logits = torch.tensor([[0.3, -1.0, 1.2, 0.0]]).double()
    farness = []
    for temperature in (1.0, 0.1, 0.01, 1e-4):
        value = GumbelSoftmax(temperature, logits).rsample((20_000,))
        farness.append(float(1 - value.amax(-1).mean()))
        share = value.argmax(-1).flatten().bincount(minlength=4) / 20_000
        probability = logits.softmax(-1)[0]
        error = (probability * (1 - probability) / 20_000).sqrt()
        assert ((share - probability).abs() < 4.5 * error).all()
    assert farness == sorted(farness, reverse=True)
    assert farness[-1] < 1e-3


def test_the_gradient_straight_through_is_that_of_the_relaxed_draw() -> None:
    slope = double(7, 2, 5, seed=3)
    found = []
    for straight in (False, True):
        torch.manual_seed(0)
        logits = double(2, 5).requires_grad_()
        value = relaxed(logits, 7, Relaxed(0.6, straight)).value
        found.append(torch.autograd.grad((slope * value).sum(), logits)[0])
    close(found[0], found[1])


@pytest.mark.parametrize("straight", [False, True])
def test_relaxed_draws_are_biased_as_declared_and_must_fail_a_test_of_it(straight: bool) -> None:
    values = torch.tensor([2.0, -1.0, 0.5]).double()
    logits = double(1, 3).requires_grad_()

    def loss(estimator: Estimator, samples: int) -> Tensor:
        c = relaxed(logits.expand(samples, -1), 1, estimator)
        return -ELBO()(Evidence({"x": -(c.value @ values - 0.3).square()}, [c])).loss

    (exact,) = torch.autograd.grad(loss(Enumeration(), 1), logits)
    rows = [torch.autograd.grad(loss(Relaxed(1.0, straight), 500), logits)[0] for _ in range(40)]
    found = torch.stack(rows)
    score = (found.mean(0) - exact).abs() / (found.std(0) / math.sqrt(40))
    assert float(score.max()) > 5
    assert Relaxed(1.0).unbiased_for == frozenset()


def test_only_one_hot_posteriors_are_relaxed() -> None:
    with pytest.raises(ValueError, match="it must be a OneHotCategorical"):
        Relaxed(0.5).draw(nodes(), 2)
    with pytest.raises(ValueError, match="temperature 0"):
        Relaxed(0.0)
    several = Independent(OneHotCategorical(logits=double(2, 5, 3)), 1)
    assert Relaxed(0.5).draw(several, 4).value.shape == (4, 2, 5, 3)
