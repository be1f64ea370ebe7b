"""How well each latent stands for one known factor of the data: SAP, MIG and DCI.

All of them look at a table of scores, one row a latent and one column a factor. The values of a
code are compared with the known factors of the same rows, on the CPU in float64; nothing here is
differentiated. A ranking of models by any of them needs several seeds (Locatello et al., ICML
2019, arXiv:1811.12359).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


def sap_score(
    codes: Float[Tensor, "row latent"],
    factors: Float[Tensor, "row factor"] | Int[Tensor, "row factor"],
) -> float:
    r"""Return the separated attribute predictability, between 0 and 1.

    .. math:: \frac1K \sum_k \bigl( S_{(1) k} - S_{(2) k} \bigr)

    the mean over factors of the gap of the two latents that predict it best, each alone.
    :math:`S` is `squared_correlation` for factors of floating type and `threshold_accuracy` for
    classes of integer type. With both kinds, average their gaps (`top_two_gap`).

    References:
        Kumar et al., "Variational Inference of Disentangled Latent Concepts from Unlabeled
        Observations", ICLR 2018, section 3 (arXiv:1711.00848).

    Args:
        codes: Posterior means.
        factors: What the rows were made from.

    Raises:
        ValueError: If there are fewer than 2 rows or latents, the rows differ, or a factor does
            not vary.

    Example:
        >>> factor = torch.tensor([[-1.0], [0.0], [1.0]])
        >>> round(sap_score(torch.cat([factor, factor.square()], 1), factor), 6)
        1.0
    """
    score = squared_correlation if factors.is_floating_point() else threshold_accuracy
    return float(top_two_gap(score(codes, factors)).mean())


def mutual_information_gap(
    codes: Float[Tensor, "row latent"], classes: Int[Tensor, "row factor"], bins: int = 20
) -> float:
    r"""Return the mutual information gap, between 0 and 1.

    .. math:: \frac1K \sum_k \frac{I(z_{(1)}; v_k) - I(z_{(2)}; v_k)}{H(v_k)}

    Of discretised posterior means, as is usual since Locatello et al. (arXiv:1811.12359); the
    paper takes the mutual information under :math:`q(z, v)` itself. With few rows for each pair
    of bin and class both informations are too high.

    References:
        Chen et al., "Isolating Sources of Disentanglement in Variational Autoencoders", NeurIPS
        2018, section 4.1 (arXiv:1802.04942).

    Args:
        codes: Posterior means.
        classes: What the rows were made from, as classes; `discretise` makes them from numbers.
        bins: Bins of equal width for each latent.

    Raises:
        ValueError: If there are fewer than 2 rows or latents, the rows differ, there are no bins,
            or a factor does not vary.

    Example:
        >>> classes = torch.tensor([[0], [1], [0], [1]])
        >>> mutual_information_gap(torch.tensor([[0.0, 1], [1, 1], [0, 2], [1, 2]]), classes)
        1.0
    """
    codes, classes = _checked(codes, classes)
    informations = mutual_information(discretise(codes, bins), classes)
    entropies = torch.stack([_entropy(torch.bincount(labels)) for labels in _labels(classes)])
    return float((top_two_gap(informations) / entropies).mean())


@dataclass(frozen=True, eq=False)
class DCI:
    """Disentanglement, completeness and informativeness, each between 0 and 1.

    Args:
        disentanglement: How far each latent matters to one factor only, weighted by how much it
            matters.
        completeness: How far each factor is in one latent only; mean over factors.
        informativeness: How much of the factors' variance the latents predict; mean over factors.
        importance: The table that the first two are read from.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    importance: Float[Tensor, "latent factor"]


def dci(
    codes: Float[Tensor, "row latent"], factors: Float[Tensor, "row factor"], penalty: float
) -> DCI:
    r"""Return disentanglement, completeness and informativeness, by sparse linear regression.

    .. math:: D = \sum_i \rho_i \Bigl( 1 - H_K \bigl( R_{i \cdot} / \textstyle\sum_k R_{ik} \bigr)
        \Bigr), \quad C = \frac1K \sum_k \Bigl( 1 - H_d \bigl( R_{\cdot k} / \textstyle\sum_i
        R_{ik} \bigr) \Bigr)

    with entropies to the base of the number of choices, :math:`\rho_i` the share of a latent in
    all importance, and importance :math:`R = |W|` of the standardised regression

    .. math:: \min_W \tfrac1{2n} |F - Z W|^2 + \lambda |W|_1 .

    Linear, where the paper also has random forests: a factor that is a curve of its latent counts
    as less informative.

    References:
        Eastwood and Williams, "A Framework for the Quantitative Evaluation of Disentangled
        Representations", ICLR 2018, section 2 (OpenReview By-7dz-AZ).

    Args:
        codes: Posterior means.
        factors: What the rows were made from, as numbers.
        penalty: :math:`\lambda`, between 0 (dense) and 1 (nothing is predicted).

    Raises:
        ValueError: If there are fewer than 2 rows, latents or factors, the rows differ, a factor
            does not vary, or the penalty is not in [0, 1).

    Example:
        >>> codes = torch.tensor([[-1.0, 1], [1, 1], [-1, -1], [1, -1]])
        >>> dci(codes, 3 * codes.flip(1), penalty=0.01).disentanglement
        1.0
    """
    codes, factors = _checked(codes, factors)
    if factors.shape[1] < 2 or not 0 <= penalty < 1:
        raise ValueError(
            f"dci: {factors.shape[1]} factors, penalty={penalty!r}; there must be at least 2 "
            "factors, and a penalty of at least 0 and below 1"
        )
    inputs, targets = _standardised(codes), _standardised(factors)
    weights = _lasso(inputs, targets, penalty)
    explained = 1 - (targets - inputs @ weights).square().mean(0)
    importance = weights.abs()
    shares = importance.sum(1) / importance.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return DCI(
        float(shares @ _concentration(importance)),
        float(_concentration(importance.T).mean()),
        float(explained.mean()),
        importance,
    )


def squared_correlation(
    codes: Float[Tensor, "row latent"], factors: Float[Tensor, "row factor"]
) -> Float[Tensor, "latent factor"]:
    r"""Return how much of each factor's variance each latent predicts alone, linearly.

    .. math:: R^2 = \frac{\operatorname{Cov}(z_i, v_k)^2}{\operatorname{Var}(z_i)
        \operatorname{Var}(v_k)}

    A latent that does not vary scores 0.

    Raises:
        ValueError: As `sap_score`.
    """
    codes, factors = _checked(codes, factors)
    product = _standardised(codes).T @ _standardised(factors) / len(codes)
    return product.square().clamp(max=1)


def threshold_accuracy(
    codes: Float[Tensor, "row latent"], classes: Int[Tensor, "row factor"]
) -> Float[Tensor, "latent factor"]:
    """Return the best balanced accuracy of thresholds on each latent for each factor.

    One interval of the latent for each class, in the order of the classes' means, with the
    thresholds that do best on these rows. A latent that does not vary scores like guessing, 1
    over the number of classes.

    Raises:
        ValueError: As `sap_score`.
    """
    codes, classes = _checked(codes, classes)
    return torch.stack(
        [
            torch.stack([_best_thresholds(column, labels) for labels in _labels(classes)])
            for column in codes.T
        ]
    )


def mutual_information(
    bins: Int[Tensor, "row latent"], classes: Int[Tensor, "row factor"]
) -> Float[Tensor, "latent factor"]:
    """Return the mutual information of each pair of columns in these rows, in nats.

    Example:
        >>> column = torch.tensor([[0], [1]])
        >>> mutual_information(column, column).exp().round(decimals=6)
        tensor([[2.]], dtype=torch.float64)
    """
    return torch.stack(
        [
            torch.stack([_information(row, column) for column in _labels(classes)])
            for row in _labels(bins)
        ]
    )


def discretise(values: Float[Tensor, "row column"], bins: int) -> Int[Tensor, "row column"]:
    """Return the bin of each value, of equal width between the extremes of its column.

    Raises:
        ValueError: If there are no bins.

    Example:
        >>> discretise(torch.tensor([[0.0], [0.4], [1.0]]), bins=2).T
        tensor([[0, 0, 1]])
    """
    if bins < 1:
        raise ValueError(f"discretise: {bins} bins; give at least 1")
    values = values.double()
    low, high = values.min(0).values, values.max(0).values
    width = torch.where(high > low, high - low, 1)
    return ((values - low) / width * bins).long().clamp(max=bins - 1)


def top_two_gap(scores: Float[Tensor, "latent factor"]) -> Float[Tensor, " factor"]:
    """Return by how much the best latent of each factor beats the second.

    Raises:
        ValueError: If there are fewer than 2 latents.

    Example:
        >>> top_two_gap(torch.tensor([[0.5], [0.25], [1.0]]))
        tensor([0.5000])
    """
    if len(scores) < 2:
        raise ValueError(f"top_two_gap: {len(scores)} latent; a gap needs at least 2")
    best = scores.topk(2, 0).values
    return best[0] - best[1]


def _checked(codes: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Return both on the CPU, where sums are repeatable, and the codes in float64."""
    shapes = f"codes of shape {tuple(codes.shape)}, factors of shape {tuple(factors.shape)}"
    if codes.dim() != 2 or factors.dim() != 2 or len(codes) != len(factors):
        raise ValueError(f"disentanglement: {shapes}; give (row, latent) and (row, factor)")
    if len(codes) < 2 or codes.shape[1] < 2:
        raise ValueError(f"disentanglement: {shapes}; at least 2 rows and 2 latents are needed")
    for name, values in {"codes": codes, "factors": factors}.items():
        if not torch.isfinite(values).all():
            raise ValueError(f"disentanglement: {name} hold values that are not finite")
    still = (factors == factors[0]).all(0).nonzero().flatten().tolist()
    if still:
        raise ValueError(f"disentanglement: factors {still} do not vary; leave them out")
    return codes.double().cpu(), factors.cpu()


def _labels(classes: Tensor) -> list[Tensor]:
    """Return each column as classes 0, 1, … without gaps."""
    if classes.is_floating_point():
        raise ValueError(
            f"disentanglement: classes of type {classes.dtype}; they must be integers, make them "
            "with discretise"
        )
    return [column.unique(return_inverse=True)[1] for column in classes.T]


def _standardised(values: Tensor) -> Tensor:
    centred = values.double() - values.double().mean(0)
    spread = centred.square().mean(0).sqrt()
    # A column of one value has only rounding left; its standard score is 0.
    varies = spread > 1e-12 * values.double().abs().amax(0)
    return torch.where(varies, centred / torch.where(varies, spread, 1), 0)


def _best_thresholds(values: Tensor, labels: Tensor) -> Tensor:
    """Return the best balanced accuracy of ordered intervals, by dynamic programming."""
    order = values.argsort()
    counts = torch.bincount(labels)
    hits = torch.nn.functional.one_hot(labels[order]).double() / counts
    below = torch.cat([hits.new_zeros(1, len(counts)), hits.cumsum(0)])
    ranked = (torch.zeros_like(hits[0]).index_add(0, labels, values) / counts).argsort()
    gap = torch.cat([values.new_ones(1), values[order].diff(), values.new_ones(1)]) > 0
    best = torch.where(torch.arange(len(gap), device=values.device) == 0, 0.0, -math.inf).double()
    for label in ranked.tolist():
        # best[i]: the most that the first i rows give to the classes so far.
        best = below[:, label] + (best - below[:, label]).cummax(0).values
        best = torch.where(gap, best, -math.inf)  # equal values are never cut apart
    return best[-1] / len(counts)


def _entropy(counts: Tensor) -> Tensor:
    shares = counts.double() / counts.sum()
    return torch.special.entr(shares).sum()


def _information(row: Tensor, column: Tensor) -> Tensor:
    joint = torch.bincount(row * (column.max() + 1) + column)
    total = _entropy(torch.bincount(row)) + _entropy(torch.bincount(column)) - _entropy(joint)
    return total.clamp(min=0)


def _concentration(importance: Tensor) -> Tensor:
    """Return 1 less the entropy of each row, to the base of its length; 0 for a row of zeros."""
    size = importance.shape[1]
    total = importance.sum(1, keepdim=True)
    shares = torch.where(total > 0, importance / torch.where(total > 0, total, 1), 1 / size)
    return 1 - torch.special.entr(shares).sum(1) / math.log(size)


def _lasso(inputs: Tensor, targets: Tensor, penalty: float, sweeps: int = 1000) -> Tensor:
    """Return the weights, by coordinate descent on standardised columns."""
    gram, moment = inputs.T @ inputs / len(inputs), inputs.T @ targets / len(inputs)
    weights = torch.zeros_like(moment)
    for _ in range(sweeps):
        before = weights.clone()
        for row in torch.nonzero(gram.diagonal() > 0).flatten().tolist():
            residual = moment[row] - gram[row] @ weights + gram[row, row] * weights[row]
            shrunk = residual.sign() * (residual.abs() - penalty).clamp(min=0)
            weights[row] = shrunk / gram[row, row]
        if float((weights - before).abs().max()) <= 1e-10:
            return weights
    raise ValueError(
        f"dci: the regression did not settle in {sweeps} sweeps; are two latents copies of each "
        "other? give a larger penalty"
    )
