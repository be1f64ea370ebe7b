from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import (
    Independent,
    Laplace,
    LowRankMultivariateNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from core.variational.decomposition import (
    SAMPLINGS,
    Decomposition,
    aggregated_covariance,
    aggregated_log_prob,
    covariance_penalty,
    decompose_kl,
    independent_elements,
    mean_covariance,
)
from core.variational.distributions import CentredNormal, DiagonalNormal, LogitsBernoulli


def posterior(batch: int, latent: int = 3, spread: float = 1.0) -> DiagonalNormal:
    loc, log_scale = torch.randn(2, batch, latent, dtype=torch.float64)
    return DiagonalNormal(spread * loc, (0.3 * log_scale).exp())


def total(parts: Decomposition) -> Tensor:
    return parts.mutual_information + parts.total_correlation + parts.dimension_wise_kl


@settings(max_examples=20, deadline=None)
@given(
    batch=st.integers(2, 6),
    more=st.integers(0, 1000),
    spread=st.floats(0, 10),
    sampling=st.sampled_from(SAMPLINGS),
)
def test_the_parts_add_up_to_the_kl_at_the_samples(
    batch: int, more: int, spread: float, sampling: str
) -> None:
    q = posterior(batch, spread=spread)
    p = CentredNormal(q.loc)
    z = q.rsample((4,))
    parts = decompose_kl(q, p, z, batch + more, sampling)
    torch.testing.assert_close(total(parts), q.log_prob(z) - p.log_prob(z))


def test_the_parts_are_those_of_a_known_aggregate() -> None:
    """Data x ~ N(0, I) through q = N(A x, s²): the aggregate is N(0, A Aᵀ + s²)."""
    matrix = torch.tensor([[1.0, 0.0], [0.8, 0.5]], dtype=torch.float64)
    scale, size = 0.6, 3000
    x = torch.randn(size, 2, dtype=torch.float64)
    x = x - x.mean(0)
    x = torch.linalg.solve(torch.linalg.cholesky(x.T @ x / size), x.T).T  # no sampling error
    loc = x @ matrix.T
    q = DiagonalNormal(loc, torch.full_like(loc, scale))
    parts = decompose_kl(q, CentredNormal(loc), q.rsample((1,)), dataset_size=size)

    covariance = matrix @ matrix.T + scale**2 * torch.eye(2)
    variances, log_determinant = covariance.diagonal(), covariance.logdet()
    marginals = Normal(torch.zeros(2).double(), variances.sqrt())
    standard = Normal(torch.zeros(2).double(), torch.ones(2).double())
    exact = {
        "mutual_information": 0.5 * (log_determinant - 4 * math.log(scale)),
        "total_correlation": 0.5 * (variances.log().sum() - log_determinant),
        "dimension_wise_kl": kl_divergence(marginals, standard).sum(),
    }
    for name, expected in exact.items():
        part = getattr(parts, name).flatten()
        error = float(part.std()) / math.sqrt(size)
        assert abs(float(part.mean() - expected)) <= 4 * error + 0.01, name
        assert float(part.mean()) == pytest.approx(float(expected), abs=0.06), name
    average = float(total(parts).mean())
    assert average == pytest.approx(float(kl_divergence(q, CentredNormal(loc)).mean()), abs=0.08)


def mixture_log_prob(q: DiagonalNormal, z: Tensor) -> tuple[Tensor, Tensor]:
    """The aggregate of a whole dataset, by torch's own mixtures."""
    weights = torch.distributions.Categorical(torch.ones(len(q.loc), dtype=z.dtype))
    joint = MixtureSameFamily(weights, Independent(Normal(q.loc, q.scale), 1)).log_prob(z)
    columns = [
        MixtureSameFamily(weights, Normal(q.loc[:, j], q.scale[:, j])).log_prob(z[..., j])
        for j in range(z.shape[-1])
    ]
    return joint, torch.stack(columns, -1)


def test_a_batch_that_is_the_dataset_gives_the_aggregate_exactly() -> None:
    q = posterior(7)
    z = q.rsample((3,))
    torch.testing.assert_close(aggregated_log_prob(q, z, 7), mixture_log_prob(q, z))


@pytest.mark.parametrize("batch", [2, 3, 4])
def test_a_stratified_batch_is_unbiased_for_the_aggregate(batch: int) -> None:
    """Over every batch that holds an example, drawn without replacement."""
    size = 5
    q = posterior(size)
    z = q.rsample((2,))[:, :1]  # samples of example 0
    exact_joint, exact_marginals = mixture_log_prob(q, z)
    joints, marginals = [], []
    for others in itertools.combinations(range(1, size), batch - 1):
        rows = [0, *others]
        part = DiagonalNormal(q.loc[rows], q.scale[rows])
        joint, marginal = aggregated_log_prob(part, z.expand(-1, batch, -1), size)
        joints.append(joint[:, :1].exp())
        marginals.append(marginal[:, :1].exp())
    torch.testing.assert_close(torch.stack(joints).mean(0), exact_joint.exp())
    torch.testing.assert_close(torch.stack(marginals).mean(0), exact_marginals.exp())


def test_the_mean_over_orders_of_the_papers_weights_is_the_weight_here() -> None:
    """Appendix C.2 puts (N − M) / (N M) on one of the M others, 1 / M on the rest."""
    size, others = 11, 4
    q = posterior(others + 1)
    z = q.rsample((1,))
    densities = q.log_prob(z.unsqueeze(2)).exp()[0]
    values = []
    for order in itertools.permutations(range(1, others + 1)):
        shares = [1 / others] * (others - 1) + [(size - others) / (size * others)]
        terms = sum(share * densities[0, row] for share, row in zip(shares, order, strict=True))
        values.append(densities[0, 0] / size + terms)
    ours = aggregated_log_prob(q, z, size)[0][0, 0].exp()
    torch.testing.assert_close(torch.stack(values).mean(), ours)


def test_a_weighted_batch_is_the_mean_over_the_batch_and_the_dataset() -> None:
    q = posterior(4)
    z = q.rsample((2,))
    joint, marginals = aggregated_log_prob(q, z, 50, "weighted")
    exact_joint, exact_marginals = mixture_log_prob(q, z)
    torch.testing.assert_close(joint, exact_joint - math.log(50))
    torch.testing.assert_close(marginals, exact_marginals - math.log(50))


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 6), st.integers(0, 100), st.floats(0, 1e3))
def test_the_mutual_information_is_at_most_the_log_of_the_dataset(
    batch: int, more: int, spread: float
) -> None:
    q = posterior(batch, spread=spread)
    size = batch + more
    parts = decompose_kl(q, CentredNormal(q.loc), q.rsample((5,)), size)
    assert float(parts.mutual_information.max()) <= math.log(size) + 1e-9


def test_posteriors_that_say_nothing_have_no_information_and_no_correlation() -> None:
    loc = torch.full((6, 3), 0.7, dtype=torch.float64)
    q = DiagonalNormal(loc, torch.full_like(loc, 0.5))
    p = CentredNormal(loc)
    z = q.rsample((4,))
    parts = decompose_kl(q, p, z, dataset_size=1000)
    zero = torch.zeros(4, 6, dtype=torch.float64)
    torch.testing.assert_close(parts.mutual_information, zero)
    torch.testing.assert_close(parts.total_correlation, zero)
    torch.testing.assert_close(parts.dimension_wise_kl, q.log_prob(z) - p.log_prob(z))


def test_the_order_of_the_batch_changes_nothing() -> None:
    q = posterior(6)
    z = q.rsample((2,))
    order = torch.randperm(6)
    parts = decompose_kl(q, CentredNormal(q.loc), z, 100)
    other = DiagonalNormal(q.loc[order], q.scale[order])
    moved = decompose_kl(other, CentredNormal(other.loc), z[:, order], 100)
    torch.testing.assert_close(moved.total_correlation, parts.total_correlation[:, order])


def test_the_total_correlation_reaches_the_posterior_by_its_samples_and_parameters() -> None:
    loc, scale = torch.randn(2, 5, 2, dtype=torch.float64)
    noise = torch.randn(2, 5, 2, dtype=torch.float64)

    def correlation(loc: Tensor, scale: Tensor) -> Tensor:
        q = DiagonalNormal(loc, scale)
        return decompose_kl(q, CentredNormal(loc), loc + scale * noise, 20).total_correlation

    arguments = (loc.requires_grad_(), scale.detach().exp().requires_grad_())
    assert torch.autograd.gradcheck(correlation, arguments)


def test_an_independent_normal_is_decomposed_like_a_diagonal_one() -> None:
    q = posterior(5)
    z = q.rsample((2,))
    same = Independent(Normal(q.loc, q.scale), 1)
    expected = aggregated_log_prob(q, z, 9)
    torch.testing.assert_close(aggregated_log_prob(same, z, 9), expected)


def test_an_event_of_several_dimensions_is_one_latent() -> None:
    loc, scale = torch.randn(4, 2, 3), torch.rand(4, 2, 3) + 0.5
    q, flat = DiagonalNormal(loc, scale, 2), DiagonalNormal(loc.flatten(1), scale.flatten(1))
    nested = Independent(Independent(Laplace(loc, scale), 1), 1)
    z = q.rsample((3,))
    torch.testing.assert_close(
        aggregated_log_prob(q, z, 8), aggregated_log_prob(flat, z.flatten(2), 8)
    )
    assert aggregated_log_prob(nested, z, 8)[1].shape == (3, 4, 6)


@pytest.mark.parametrize(
    "distribution",
    [
        DiagonalNormal(torch.randn(4, 2, 3), torch.ones(4, 2, 3), event_dims=2),
        CentredNormal(torch.randn(4, 2, 3), 2.0, event_dims=2),
        LogitsBernoulli(torch.randn(4, 2, 3), event_dims=2),
        Independent(Laplace(torch.randn(4, 2, 3), torch.ones(4, 2, 3)), 2),
        Independent(DiagonalNormal(torch.randn(4, 2, 3), torch.ones(4, 2, 3)), 1),
    ],
    ids=["normal", "centred", "bernoulli", "laplace", "nested"],
)
def test_the_elements_of_an_event_add_up_to_it(
    distribution: torch.distributions.Distribution,
) -> None:
    value = distribution.sample((5,))
    elements = independent_elements(distribution)
    assert (elements.batch_shape, elements.event_shape) == ((4, 2, 3), ())
    torch.testing.assert_close(
        elements.log_prob(value).sum((-1, -2)), distribution.log_prob(value)
    )


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_batch_of_one_has_no_decomposition(sampling: str) -> None:
    q = posterior(1)
    with pytest.raises(ValueError, match="batch of at least 2 is needed"):
        decompose_kl(q, CentredNormal(q.loc), q.rsample((2,)), 10, sampling)


def test_what_cannot_be_decomposed_is_refused_with_the_reason() -> None:
    q = posterior(3)
    z = q.rsample((2,))
    with pytest.raises(ValueError, match="a batch of 3 from a dataset of 2"):
        aggregated_log_prob(q, z, 2)
    with pytest.raises(ValueError, match="sampling 'mss'; stratified or weighted"):
        aggregated_log_prob(q, z, 9, "mss")
    with pytest.raises(ValueError, match="depends on sampled parents"):
        aggregated_log_prob(q.expand((2, 3)), z, 9)
    full = MultivariateNormal(q.loc, torch.eye(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="use a diagonal posterior"):
        aggregated_log_prob(full, z, 9)


def test_s096_the_penalty_is_0_if_and_only_if_the_covariance_is_the_identity() -> None:
    rows = torch.randn(50, 3, dtype=torch.float64)
    rows = rows - rows.mean(0)
    rows = torch.linalg.solve(torch.linalg.cholesky(rows.T @ rows / 49), rows.T).T
    q = DiagonalNormal(rows, torch.full_like(rows, 0.5))
    penalty = covariance_penalty(mean_covariance(q), off_diagonal=10.0, diagonal=5.0)
    torch.testing.assert_close(penalty, torch.zeros_like(penalty))
    shrunk = DiagonalNormal(rows * math.sqrt(0.75), q.scale)  # 0.75 + 0.5² = 1
    penalty = covariance_penalty(aggregated_covariance(shrunk), 10.0, 5.0)
    torch.testing.assert_close(penalty, torch.zeros_like(penalty))
    assert float(covariance_penalty(aggregated_covariance(q), 10.0, 5.0)) > 0.1


@settings(max_examples=30, deadline=None)
@given(
    row=st.integers(0, 2),
    column=st.integers(0, 2),
    by=st.floats(-2, 2).filter(lambda by: abs(by) > 1e-3),
    off_diagonal=st.floats(0.1, 10),
    diagonal=st.floats(0.1, 10),
)
def test_s096_any_other_covariance_costs_its_squared_distance(
    row: int, column: int, by: float, off_diagonal: float, diagonal: float
) -> None:
    covariance = torch.eye(3, dtype=torch.float64)
    covariance[row, column] += by
    covariance[column, row] = covariance[row, column]
    expected = diagonal * by**2 if row == column else 2 * off_diagonal * by**2
    penalty = covariance_penalty(covariance, off_diagonal, diagonal)
    assert float(penalty) == pytest.approx(expected, rel=1e-6)


def test_the_covariance_of_the_means_is_unbiased_and_counts_nodes_as_rows() -> None:
    q = DiagonalNormal(torch.randn(4, 5, 2), torch.ones(4, 5, 2), event_dims=2)
    torch.testing.assert_close(mean_covariance(q), torch.cov(q.loc.reshape(20, 2).T))
    one_graph = DiagonalNormal(torch.randn(1, 5, 2), torch.ones(1, 5, 2), event_dims=2)
    assert mean_covariance(one_graph).shape == (2, 2)


def test_the_aggregated_covariance_is_that_of_samples() -> None:
    loc = (
        torch.randn(2000, 2, dtype=torch.float64) @ torch.tensor([[1.0, 0.5], [0.0, 0.4]]).double()
    )
    root = torch.tensor([[0.8, 0.0], [-0.5, 0.3]], dtype=torch.float64)
    q = MultivariateNormal(loc, scale_tril=root.expand(2000, 2, 2))
    samples = q.sample((50,)).reshape(-1, 2)
    torch.testing.assert_close(
        aggregated_covariance(q), torch.cov(samples.T), rtol=0.03, atol=0.01
    )


def test_the_aggregated_covariance_is_the_same_however_a_normal_is_written() -> None:
    q = posterior(6)
    diagonal = torch.diag_embed(q.scale.square())
    nothing = torch.zeros(6, 3, 1, dtype=torch.float64)
    forms = [
        Independent(Normal(q.loc, q.scale), 1),
        MultivariateNormal(q.loc, diagonal),
        LowRankMultivariateNormal(q.loc, nothing, q.scale.square()),
    ]
    for form in forms:
        torch.testing.assert_close(aggregated_covariance(form), aggregated_covariance(q))


def test_a_covariance_needs_two_rows_and_columns_and_a_known_within() -> None:
    with pytest.raises(ValueError, match="batch of at least 2 is needed"):
        mean_covariance(posterior(1))
    with pytest.raises(ValueError, match="scalar"):
        mean_covariance(Normal(torch.zeros(4), torch.ones(4)))
    weights = torch.distributions.Categorical(torch.ones(4, 2))
    components = Independent(Normal(torch.randn(4, 2, 3), torch.ones(4, 2, 3)), 1)
    with pytest.raises(ValueError, match="MixtureSameFamily does not say"):
        aggregated_covariance(MixtureSameFamily(weights, components))
