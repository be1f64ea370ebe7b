from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso
from sklearn.metrics import balanced_accuracy_score, mutual_info_score
from torch import Tensor

from core.variational.disentanglement import (
    dci,
    discretise,
    mutual_information,
    mutual_information_gap,
    sap_score,
    squared_correlation,
    threshold_accuracy,
    top_two_gap,
)


def grid(*levels: int) -> Tensor:
    """Every combination of levels, once: factors that are exactly independent."""
    return torch.cartesian_prod(*(torch.arange(level) for level in levels))


def signs() -> Tensor:
    return 2.0 * grid(2, 2, 2) - 1


def test_s096_sap_of_a_hand_made_code_is_its_analytic_value() -> None:
    """With orthogonal factors a, b, c, the code 2 a + b shares 4/5 of its variance with a."""
    a, b, c = signs().T
    codes = torch.stack([2 * a + b, b, c + 1.0], 1)
    expected = torch.tensor([[0.8, 0.2, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).double()
    torch.testing.assert_close(squared_correlation(codes, signs()), expected)
    # The gaps: 0.8 − 0 for a, 1 − 0.2 for b, 1 − 0 for c.
    assert sap_score(codes, signs()) == pytest.approx((0.8 + 0.8 + 1.0) / 3)


@settings(max_examples=20, deadline=None)
@given(st.floats(0, math.pi / 4))
def test_s096_sap_of_a_rotated_code_is_the_cosine_of_twice_the_angle(angle: float) -> None:
    factors = signs()[:, :2]
    rotation = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    expected = math.cos(2 * angle)  # cos² − sin²
    assert sap_score(factors @ rotation, factors) == pytest.approx(expected, abs=1e-5)


def test_s096_sap_of_classes_counts_what_a_threshold_gets_right() -> None:
    """The first latent tells the classes; of the second, the best cut gets 3 of 4 and 2 of 2."""
    classes = torch.tensor([[0], [0], [0], [0], [1], [1]])
    codes = torch.tensor([[1.0, 2, 3, 4, 7, 9], [5.0, 1, 2, 3, 5, 6]]).T
    scores = threshold_accuracy(codes, classes)[:, 0].tolist()
    assert scores == pytest.approx([1.0, (3 / 4 + 1) / 2])
    assert sap_score(codes, classes) == pytest.approx(1 - 0.875)


def test_scores_do_not_depend_on_unit_origin_or_order_of_the_latents() -> None:
    codes, factors = torch.randn(200, 4), torch.randn(200, 3)
    codes[:, :3] += factors
    classes = discretise(factors, 4)
    moved = (codes * torch.tensor([2.0, -0.5, 30.0, 1.0]) + 7.0)[:, [2, 0, 3, 1]]
    assert sap_score(moved, factors) == pytest.approx(sap_score(codes, factors), rel=1e-4)
    first, second = (dci(each, factors, penalty=0.05) for each in (codes, moved))
    assert second.disentanglement == pytest.approx(first.disentanglement, rel=1e-4)
    assert second.completeness == pytest.approx(first.completeness, rel=1e-4)
    accuracies = threshold_accuracy(moved, classes)
    torch.testing.assert_close(accuracies, threshold_accuracy(codes, classes)[[2, 0, 3, 1]])


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 3), st.integers(0, 10_000))
def test_the_best_thresholds_are_found(kinds: int, seed: int) -> None:
    """Against every placement of the thresholds, and scikit-learn's balanced accuracy."""
    torch.manual_seed(seed)
    values = torch.randint(0, 6, (8,)).double()  # with ties
    labels = torch.cat([torch.arange(kinds), torch.randint(0, kinds, (8 - kinds,))])
    means = torch.stack([values[labels == kind].mean() for kind in range(kinds)])
    order = means.argsort()
    cuts = torch.cat([values - 0.5, values.max()[None] + 0.5]).unique()
    best = 0.0
    for places in itertools.combinations_with_replacement(cuts.tolist(), kinds - 1):
        predicted = order[torch.bucketize(values, torch.tensor(places).double())]
        best = max(best, float(balanced_accuracy_score(labels, predicted)))
    codes = torch.stack([values, torch.zeros(8).double()], 1)
    scores = threshold_accuracy(codes, labels[:, None])[:, 0]
    assert float(scores[0]) == pytest.approx(best)
    assert float(scores[1]) == pytest.approx(1 / kinds)  # no variance: guessing


def test_squared_correlation_is_that_of_torch_and_0_without_variance() -> None:
    codes, factors = torch.randn(50, 3).double(), torch.randn(50, 2).double()
    codes[:, 2] = 1e6 + 0.1
    expected = torch.corrcoef(torch.cat([codes[:, :2], factors], 1).T)[:2, 2:].square()
    scores = squared_correlation(codes, factors)
    torch.testing.assert_close(scores[:2], expected)
    assert scores[2].tolist() == [0.0, 0.0]


def test_a_code_that_is_the_factors_has_a_full_gap_and_a_copied_one_none() -> None:
    classes = grid(3, 4).repeat(5, 1)
    codes = classes.float()
    assert mutual_information_gap(codes, classes) == pytest.approx(1.0)
    assert mutual_information_gap(codes.repeat(1, 2), classes) == pytest.approx(0.0, abs=1e-12)
    assert mutual_information_gap(codes.flip(1) * -3.0, classes) == pytest.approx(1.0)


def test_the_gap_of_a_noisy_code_is_the_capacity_of_its_channel() -> None:
    """A bit that one latent shows and another flips one time in four: a gap of H(1/4)."""
    bit = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    flipped = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0])
    codes = torch.stack([bit, flipped], 1).float()
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(2)
    assert mutual_information_gap(codes, bit[:, None]) == pytest.approx(entropy)


def test_the_mutual_information_is_scikit_learns() -> None:
    bins, classes = torch.randint(0, 5, (60, 2)), torch.randint(3, 9, (60, 3))
    values = mutual_information(bins, classes)
    for row, column in itertools.product(range(2), range(3)):
        expected = mutual_info_score(bins[:, row].numpy(), classes[:, column].numpy())
        assert float(values[row, column]) == pytest.approx(expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_bins_are_of_equal_width_and_all_within(bins: int, width: float, low: float) -> None:
    values = low + width * torch.linspace(0, 1, 301, dtype=torch.float64)[:, None]
    found = discretise(values, bins)
    assert (int(found.min()), int(found.max())) == (0, bins - 1)
    assert bool((found.diff(dim=0) >= 0).all())
    assert int(found.flatten().bincount().diff().abs().max() if bins > 1 else 0) <= 2
    assert discretise(torch.full((3, 1), low), bins).tolist() == [[0], [0], [0]]


def test_one_latent_a_factor_is_disentangled_complete_and_informative() -> None:
    result = dci(signs().flip(1) * 4 - 2, signs(), penalty=0.01)
    assert result.disentanglement == pytest.approx(1.0)
    assert result.completeness == pytest.approx(1.0)
    assert result.informativeness == pytest.approx(1 - 0.01**2)  # the penalty's shrinkage
    torch.testing.assert_close(result.importance, 0.99 * torch.eye(3).double().flip(1))


def test_two_factors_in_one_latent_are_complete_and_not_disentangled() -> None:
    a, b, _ = signs().T
    codes = torch.stack([a + b, torch.zeros(8)], 1)
    result = dci(codes, torch.stack([a, b], 1), penalty=0.01)
    assert result.disentanglement == pytest.approx(0.0, abs=1e-9)
    assert result.completeness == pytest.approx(1.0)
    assert result.informativeness == pytest.approx(0.5, abs=1e-3)


def test_one_factor_in_two_latents_is_disentangled_and_not_complete() -> None:
    a, b, c = signs().T
    codes = torch.stack([a + c, a - c, b], 1)
    result = dci(codes, torch.stack([a, b], 1), penalty=0.01)
    halves = math.log(2) / math.log(3)
    assert result.disentanglement == pytest.approx(1.0)
    assert result.completeness == pytest.approx(((1 - halves) + 1) / 2)


def test_the_importance_is_scikit_learns_lasso() -> None:
    codes, mixing = torch.randn(100, 4).double(), torch.randn(4, 3).double()
    factors = codes @ mixing + 0.5 * torch.randn(100, 3)
    inputs, targets = (
        ((each - each.mean(0)) / each.std(0, correction=0)).numpy() for each in (codes, factors)
    )
    reference = Lasso(alpha=0.1, fit_intercept=False, tol=1e-12, max_iter=10_000)
    weights = reference.fit(inputs, targets).coef_.T
    result = dci(codes, factors, penalty=0.1)
    torch.testing.assert_close(
        result.importance, torch.from_numpy(abs(weights)), atol=1e-6, rtol=0
    )
    assert result.informativeness == pytest.approx(reference.score(inputs, targets), abs=1e-6)


def test_latents_that_predict_nothing_score_nothing() -> None:
    a, b, c = signs().T
    result = dci(torch.stack([c, a * b], 1), torch.stack([a, b], 1), penalty=0.01)
    assert (result.disentanglement, result.completeness) == (0.0, 0.0)
    assert result.informativeness == pytest.approx(0.0, abs=1e-12)


def test_what_cannot_be_scored_is_refused_with_the_reason() -> None:
    codes, factors = torch.randn(6, 3), torch.randn(6, 2)
    with pytest.raises(ValueError, match="at least 2 rows and 2 latents"):
        sap_score(codes[:1], factors[:1])
    with pytest.raises(ValueError, match="at least 2 rows and 2 latents"):
        sap_score(codes[:, :1], factors)
    with pytest.raises(ValueError, match=r"factors \[1\] do not vary"):
        sap_score(codes, torch.stack([factors[:, 0], torch.ones(6)], 1))
    with pytest.raises(ValueError, match="codes hold values that are not finite"):
        sap_score(torch.full((6, 3), math.nan), factors)
    with pytest.raises(ValueError, match="a gap needs at least 2"):
        top_two_gap(torch.ones(1, 3))
    with pytest.raises(ValueError, match="0 bins"):
        discretise(codes, 0)
    with pytest.raises(ValueError, match="penalty=1"):
        dci(codes, factors, penalty=1.0)
    with pytest.raises((ValueError, TypeError)):  # a TypeError with shapes checked
        sap_score(codes, factors[:4])
    with pytest.raises((ValueError, TypeError)):
        mutual_information_gap(codes, factors)  # pyright: ignore[reportArgumentType]
