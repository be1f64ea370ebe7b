"""Bayesian last layers: a posterior over the last weights, trained by a bound without sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Size, Tensor, nn
from torch.distributions import (
    Categorical,
    Dirichlet,
    Distribution,
    Gamma,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    StudentT,
    constraints,
    kl_divergence,
    register_kl,
)

from core.variational.choices import check_choice
from core.variational.distributions import DiagonalNormal, stop_gradient
from core.variational.distributions.base import at_least_single
from core.variational.distributions.normal import HALF_LOG_TWO_PI
from core.variational.distributions.registry_examples import add_example
from core.variational.evidence import Evidence, Latent

COVARIANCES = ("diagonal", "dense", "low-rank")
NOISES = ("fixed", "map", "conjugate")


class PerExample(Distribution):
    r"""What all the data share, its log density counted as one example's part of it.

    .. math:: \log \tilde p(w) = \tfrac1N \log p(w), \quad
        KL(\tilde q \| \tilde p) = \tfrac1N KL(q \| p)

    The bound of a data set has the KL of the weights once, an objective averages over examples:
    :math:`1/N` for each of the :math:`N` of the data set, not of the batch, makes the average the
    bound over :math:`N`. It is no density of its own (it does not integrate to 1).

    Args:
        shared: The distribution, without a batch: everything in one event.
        num_data: Examples in the data set :math:`N`.
        batch: Examples in this batch.

    Raises:
        ValueError: If there are no data, or the shared distribution has a batch.

    Example:
        >>> posterior = DiagonalNormal(torch.ones(2), torch.ones(2))
        >>> prior = DiagonalNormal(torch.zeros(2), torch.ones(2))
        >>> kl_divergence(PerExample(posterior, 100, 3), PerExample(prior, 100, 3))
        tensor([0.0100, 0.0100, 0.0100])
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's declaration)

    def __init__(self, shared: Distribution, num_data: int, batch: int) -> None:
        if num_data < 1 or shared.batch_shape:
            raise ValueError(
                f"PerExample: num_data={num_data}, batch shape {tuple(shared.batch_shape)}; there "
                "must be data, and no batch"
            )
        self.shared = shared
        self.num_data = num_data
        super().__init__(torch.Size([batch]), shared.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether its samples have gradients."""
        return self.shared.has_rsample

    @property
    def support(self) -> constraints.Constraint | None:
        """The values that it covers."""
        return self.shared.support

    @property
    def mean(self) -> Tensor:
        """The mean, the same for every example."""
        return self.shared.mean.expand(self._extended_shape())

    @property
    def variance(self) -> Tensor:
        """The variance, the same for every example."""
        return self.shared.variance.expand(self._extended_shape())

    def rsample(self, sample_shape: Size | Sequence[int] = ()) -> Tensor:
        """Draw values that all examples share, of shape ``(*sample, batch, *event)``."""
        return self._repeat(self.shared.rsample(torch.Size(sample_shape)), sample_shape)

    def sample(self, sample_shape: Size | Sequence[int] = ()) -> Tensor:
        """Draw the same without gradients."""
        return self._repeat(self.shared.sample(torch.Size(sample_shape)), sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return an example's part of the log density, in nats."""
        return self.shared.log_prob(value) / self.num_data

    def entropy(self) -> Tensor:
        """Return an example's part of the entropy, in nats."""
        return (self.shared.entropy() / self.num_data).expand(self.batch_shape)

    def _repeat(self, value: Tensor, sample_shape: Size | Sequence[int]) -> Tensor:
        value = value.unsqueeze(len(sample_shape))
        return value.expand(self._extended_shape(torch.Size(sample_shape)))


@register_kl(PerExample, PerExample)
def _kl_per_example(posterior: PerExample, prior: PerExample) -> Tensor:
    divergence = kl_divergence(posterior.shared, prior.shared) / posterior.num_data
    return divergence.expand(posterior.batch_shape)


def _example(generator: torch.Generator, scale: float) -> PerExample:
    loc, noise = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    return PerExample(DiagonalNormal(scale * loc, scale * noise.exp()), num_data=10, batch=4)


add_example((PerExample, PerExample), _example, _example)


@stop_gradient.register
def _(distribution: PerExample) -> PerExample:
    shared = stop_gradient(distribution.shared)
    return PerExample(shared, distribution.num_data, distribution.batch_shape[0])


class DiagonalCovariance(nn.Module):
    r"""Covariance :math:`S_k = \operatorname{diag}(d_k)` of the weights of each output.

    Args:
        outputs: Number of outputs.
        features: Number of weights of an output.
        scale: Standard deviation to start from.
    """

    def __init__(self, outputs: int, features: int, scale: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((outputs, features), math.log(scale)))

    def normal(
        self, loc: Float[Tensor, "output feature"], spread: Float[Tensor, "output 1"]
    ) -> Distribution:
        """Return the Normal distribution of the weights, its scale times ``spread``."""
        return DiagonalNormal(loc, self.log_scale.exp() * spread, event_dims=2)

    def centred(self, scale: Float[Tensor, "output feature"]) -> Distribution:
        """Return an independent prior of mean 0 in the form whose KL is in closed form."""
        return DiagonalNormal(torch.zeros_like(scale), scale, event_dims=2)

    def variance(self, features: Float[Tensor, "batch feature"]) -> Float[Tensor, "batch output"]:
        r"""Return :math:`\phi^T S_k \phi` for each output."""
        return features.square() @ (2 * self.log_scale).exp().T

    @torch.no_grad()
    def set(self, precision: Float[Tensor, "output feature feature"]) -> None:
        r"""Become the best diagonal approximation of :math:`N(m, P^{-1})`: the inverse of diag P.

        References:
            Bishop, "Pattern Recognition and Machine Learning", 2006, section 10.1.2.
        """
        self.log_scale.copy_(-0.5 * precision.diagonal(dim1=-2, dim2=-1).log())


class DenseCovariance(nn.Module):
    r"""Covariance :math:`S_k = L_k L_k^T` of the weights of each output.

    Args:
        outputs: Number of outputs.
        features: Number of weights of an output.
        scale: Standard deviation to start from.
    """

    def __init__(self, outputs: int, features: int, scale: float) -> None:
        super().__init__()
        self.log_diagonal = nn.Parameter(torch.full((outputs, features), math.log(scale)))
        self.lower = nn.Parameter(torch.zeros(outputs, features, features))

    def factor(self) -> Float[Tensor, "output feature feature"]:
        """Return the Cholesky factors."""
        return self.lower.tril(-1) + torch.diag_embed(self.log_diagonal.exp())

    def normal(
        self, loc: Float[Tensor, "output feature"], spread: Float[Tensor, "output 1"]
    ) -> Distribution:
        """Return the Normal distribution of the weights, its scale times ``spread``."""
        factor = self.factor() * spread.unsqueeze(-1)
        normal = MultivariateNormal(loc, scale_tril=factor, validate_args=False)
        return Independent(normal, 1, validate_args=False)

    def centred(self, scale: Float[Tensor, "output feature"]) -> Distribution:
        """Return an independent prior of mean 0 in the form whose KL is in closed form."""
        loc, factor = torch.zeros_like(scale), torch.diag_embed(scale)
        normal = MultivariateNormal(loc, scale_tril=factor, validate_args=False)
        return Independent(normal, 1, validate_args=False)

    def variance(self, features: Float[Tensor, "batch feature"]) -> Float[Tensor, "batch output"]:
        r"""Return :math:`\phi^T S_k \phi` for each output."""
        return torch.einsum("bf,kfg->bkg", features, self.factor()).square().sum(-1)

    @torch.no_grad()
    def set(self, precision: Float[Tensor, "output feature feature"]) -> None:
        r"""Become the inverse of the precision."""
        factor = torch.linalg.cholesky(torch.linalg.inv(precision))
        self.log_diagonal.copy_(factor.diagonal(dim1=-2, dim2=-1).log())
        self.lower.copy_(factor.tril(-1))


class LowRankCovariance(nn.Module):
    r"""Covariance :math:`S_k = U_k U_k^T + \operatorname{diag} d_k` of the weights of an output.

    Args:
        outputs: Number of outputs.
        features: Number of weights of an output.
        scale: Standard deviation to start from.
        rank: Columns of :math:`U_k`.

    Raises:
        ValueError: If there is no column.
    """

    def __init__(self, outputs: int, features: int, scale: float, rank: int) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"LowRankCovariance: rank is {rank}; it must be at least 1")
        self.log_scale = nn.Parameter(torch.full((outputs, features), math.log(scale)))
        # Columns of zeros would have no gradient.
        self.columns = nn.Parameter(0.1 * scale * torch.randn(outputs, features, rank))

    def normal(
        self, loc: Float[Tensor, "output feature"], spread: Float[Tensor, "output 1"]
    ) -> Distribution:
        """Return the Normal distribution of the weights, its scale times ``spread``."""
        diagonal = (2 * self.log_scale).exp() * spread.square()
        return self._normal(loc, self.columns * spread.unsqueeze(-1), diagonal)

    def centred(self, scale: Float[Tensor, "output feature"]) -> Distribution:
        """Return an independent prior of mean 0 in the form whose KL is in closed form."""
        columns = torch.zeros_like(scale).unsqueeze(-1)
        return self._normal(torch.zeros_like(scale), columns, scale.square())

    def variance(self, features: Float[Tensor, "batch feature"]) -> Float[Tensor, "batch output"]:
        r"""Return :math:`\phi^T S_k \phi` for each output."""
        along = torch.einsum("bf,kfr->bkr", features, self.columns).square().sum(-1)
        return along + features.square() @ (2 * self.log_scale).exp().T

    def set(self, precision: Float[Tensor, "output feature feature"]) -> None:
        """Refuse: a low-rank optimum has no closed form.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"solve: covariance 'low-rank' for precisions of shape {tuple(precision.shape)} has "
            "no closed form; allowed are 'diagonal' and 'dense'; train the bound instead"
        )

    def _normal(self, loc: Tensor, columns: Tensor, diagonal: Tensor) -> Distribution:
        normal = LowRankMultivariateNormal(loc, columns, diagonal, validate_args=False)
        return Independent(normal, 1, validate_args=False)


Covariance = DiagonalCovariance | DenseCovariance | LowRankCovariance


class LinearWeights(nn.Module):
    r"""A Normal posterior over the weights of linear outputs, and their Normal prior.

    .. math:: q(w_k) = \mathcal N(\bar w_k, S_k), \quad p(w_k) = \mathcal N(0, s^2 I)

    Args:
        features: Weights of an output; a bias is a feature that is always 1.
        outputs: Number of outputs.
        covariance: ``"diagonal"``, ``"dense"`` or ``"low-rank"``.
        rank: Of a low-rank covariance; ignored otherwise.
        prior_scale: :math:`s`.

    Raises:
        ValueError: If the covariance is none of these, or the prior's scale not positive.
    """

    def __init__(
        self, features: int, outputs: int, covariance: str, rank: int, prior_scale: float
    ) -> None:
        super().__init__()
        check_choice("last layer: covariance", covariance, COVARIANCES)
        _check_positive("prior_scale", prior_scale)
        self.prior_scale = prior_scale
        self.loc = nn.Parameter(torch.randn(outputs, features) / math.sqrt(features))
        start = prior_scale / math.sqrt(features)
        self.covariance: Covariance
        if covariance == "diagonal":
            self.covariance = DiagonalCovariance(outputs, features, start)
        elif covariance == "dense":
            self.covariance = DenseCovariance(outputs, features, start)
        else:
            self.covariance = LowRankCovariance(outputs, features, start, rank)

    def moments(
        self, features: Float[Tensor, "batch feature"]
    ) -> tuple[Float[Tensor, "batch output"], Float[Tensor, "batch output"]]:
        """Return mean and variance of each output."""
        return features @ self.loc.T, self.covariance.variance(features)

    def latent(
        self, num_data: int, batch: int, spread: Float[Tensor, " output"] | None = None
    ) -> Latent:
        """Return the weights as a latent whose KL is a ``num_data``-th of theirs an example.

        Args:
            num_data: Examples in the data set.
            batch: Examples in this batch.
            spread: Multiplies the scales of posterior and prior.
        """
        spread = torch.ones_like(self.loc[:, 0]) if spread is None else spread
        spread = spread.unsqueeze(-1)
        posterior = self.covariance.normal(self.loc, spread)
        prior = self.covariance.centred(torch.ones_like(self.loc) * spread * self.prior_scale)
        return _latent("weights", posterior, prior, num_data, batch)


class NoiseScale(nn.Module):
    r"""The noise of each output: a standard deviation, and a prior of the precision.

    .. math:: \lambda_j = \sigma_j^{-2} \sim \mathcal W_1\!\left(\nu, \tfrac{1}{\nu s^2}\right)
        = \operatorname{Gamma}\!\left(\tfrac\nu2, \tfrac{\nu s^2}2\right)

    the Wishart distribution of a diagonal precision, with mean :math:`1/s^2` and the weight of
    :math:`\nu` observations.

    Args:
        outputs: Number of outputs.
        scale: :math:`s`, where :math:`\sigma` starts.
        dof: Degrees of freedom :math:`\nu`.
        learned: Whether :math:`\sigma` is trained; then its prior density is a penalty.

    Raises:
        ValueError: If scale or degrees of freedom are not positive.
    """

    def __init__(self, outputs: int, scale: float, dof: float, learned: bool) -> None:
        super().__init__()
        _check_positive("noise_scale", scale)
        _check_positive("noise_dof", dof)
        self.dof = dof
        self.start = scale
        start = torch.full((outputs,), math.log(scale))
        self.log_scale = nn.Parameter(start, requires_grad=learned)

    def forward(self) -> Float[Tensor, " output"]:
        r"""Return the standard deviations :math:`\sigma`."""
        return self.log_scale.exp()

    def penalties(self, num_data: int, batch: int) -> dict[str, Tensor]:
        r"""Return :math:`-\tfrac1N \sum_j \log p(\lambda_j)` in nats an example, if learned."""
        if not self.log_scale.requires_grad:
            return {}
        prior = precision_prior(self.log_scale, self.start, self.dof)
        penalty = -prior.log_prob((-2 * self.log_scale).exp()) / num_data
        return {"noise": penalty.expand(batch)}


def precision_prior(like: Tensor, scale: float, dof: float) -> Independent:
    """Return the prior of the noise's precisions; see `NoiseScale`."""
    concentration = torch.full_like(like, dof / 2)
    rate = torch.full_like(like, dof * scale**2 / 2)
    return Independent(Gamma(concentration, rate, validate_args=False), 1, validate_args=False)


class RegressionLastLayer(nn.Module):
    r"""Bayesian linear regression on learned features.

    .. math:: y_j = w_j^T \phi + \epsilon_j, \quad \epsilon_j \sim \mathcal N(0, \sigma_j^2)

    Its bound needs no samples,

    .. math:: \log p(Y) \ge \sum_n \sum_j \left[ \log \mathcal N(y_{nj}; \bar w_j^T \phi_n,
        \sigma_j^2) - \frac{\phi_n^T S_j \phi_n}{2 \sigma_j^2} \right] - KL(q(w) \| p(w))

    and with a dense covariance and fixed features its optimum is the exact posterior. The
    evidence has the bracket as its likelihood term, an expectation over the weights: objectives
    that weight samples (IWAE) make no bound of it. The KL is divided by ``num_data``, the size of
    the data set, for each example: see `PerExample`.

    The noise is ``"fixed"``; or ``"map"``, trained under a penalty, its negative log prior over
    ``num_data`` (the paper's choice; the mode of the precision's density, not of its logarithm);
    or ``"conjugate"``: a Gamma posterior of the precision :math:`\lambda` beside weights whose
    covariances scale with the noise,

    .. math:: q(w, \lambda) = \mathcal N(w; \bar w, S / \lambda) \operatorname{Gamma}(\lambda; a,
        b), \quad p(w \mid \lambda) = \mathcal N(w; 0, s^2 I / \lambda)

    whose bound is tight: at the optimum it is the log-evidence. The KL of the weights is linear in
    :math:`\lambda`, so its value at :math:`\mathbb E \lambda = a / b` is its expectation.

    References:
        Harrison, Willes and Snoek, "Variational Bayesian Last Layers", ICLR 2024, theorem 1
        (arXiv:2404.11599); with a diagonal noise covariance.
        Bishop, "Pattern Recognition and Machine Learning", 2006, section 3.3 and exercise 3.12.

    Args:
        features: Size of the last dimension of its input; a bias is a feature that is always 1.
        outputs: Number of targets.
        num_data: Examples in the data set :math:`N`.
        covariance: ``"diagonal"``, ``"dense"`` or ``"low-rank"``.
        rank: Of a low-rank covariance; ignored otherwise.
        prior_scale: Standard deviation :math:`s` of the weights' prior; with conjugate noise in
            units of the noise.
        noise: ``"fixed"``, ``"map"`` or ``"conjugate"``.
        noise_scale: Standard deviation of the noise, in the targets' unit; where it starts, and
            what its prior is about.
        noise_dof: Weight of the noise's prior, in observations.

    Raises:
        ValueError: If a setting is none of the allowed.

    Example:
        >>> layer = RegressionLastLayer(5, 2, 100, "dense", 1, 1.0, "conjugate", 0.1, 4.0)
        >>> layer(torch.randn(3, 5)).mean.shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        num_data: int,
        covariance: str,
        rank: int,
        prior_scale: float,
        noise: str,
        noise_scale: float,
        noise_dof: float,
    ) -> None:
        super().__init__()
        check_choice("last layer: noise", noise, NOISES)
        _check_positive("num_data", num_data)
        self.num_data = num_data
        self.weights = LinearWeights(features, outputs, covariance, rank, prior_scale)
        self.noise: NoiseScale | PrecisionPosterior
        if noise == "conjugate":
            self.noise = PrecisionPosterior(outputs, noise_scale, noise_dof)
        else:
            self.noise = NoiseScale(outputs, noise_scale, noise_dof, noise == "map")

    def forward(self, features: Float[Tensor, "batch feature"]) -> Distribution:
        r"""Return the predictive distribution of the targets.

        .. math:: \mathcal N(\bar w_j^T \phi, \phi^T S_j \phi + \sigma_j^2) \quad \text{or} \quad
            \operatorname{St}_{2 a_j}\!\left(\bar w_j^T \phi,
            \tfrac{b_j}{a_j} (1 + \phi^T S_j \phi)\right)

        the second with conjugate noise. Outputs are independent.
        """
        loc, variance = self.weights.moments(at_least_single(features))
        if isinstance(self.noise, NoiseScale):
            return DiagonalNormal(loc, (variance + self.noise().square()).sqrt())
        concentration, rate = self.noise()
        scale = (rate / concentration * (1 + variance)).sqrt()
        student = StudentT(2 * concentration, loc, scale, validate_args=False)
        return Independent(student, 1, validate_args=False)

    def evidence(
        self, features: Float[Tensor, "batch feature"], targets: Float[Tensor, "batch output"]
    ) -> Evidence:
        """Return the expected log-likelihood of the targets, and the KL of the weights."""
        loc, variance = self.weights.moments(at_least_single(features))
        squares = (targets - loc).square()
        batch = len(targets)
        if isinstance(self.noise, NoiseScale):
            scale = self.noise()
            terms = (squares + variance) / scale.square() + 2 * scale.log()
            latents = [self.weights.latent(self.num_data, batch)]
            penalties = self.noise.penalties(self.num_data, batch)
        else:
            concentration, rate = self.noise()
            mean = concentration / rate
            terms = squares * mean + variance - torch.digamma(concentration) + rate.log()
            latents = [
                self.weights.latent(self.num_data, batch, mean.rsqrt()),
                self.noise.latent(self.num_data, batch),
            ]
            penalties = {}
        likelihood = -0.5 * (terms + 2 * HALF_LOG_TWO_PI).sum(-1)
        return Evidence({"targets": likelihood.unsqueeze(0)}, latents, penalties)

    def ood_score(self, features: Float[Tensor, "batch feature"]) -> Float[Tensor, " batch"]:
        r"""Return how far from the data an input is: the information its targets would give.

        .. math:: I(y; w \mid \phi) = \tfrac12 \sum_j
            \log \left(1 + \phi^T S_j \phi / \sigma_j^2\right) \text{ nats}

        With conjugate noise :math:`S_j` is already in units of the noise.
        """
        variance = self.weights.moments(at_least_single(features))[1]
        if isinstance(self.noise, NoiseScale):
            variance = variance / self.noise().square()
        return 0.5 * variance.log1p().sum(-1)

    @torch.no_grad()
    def solve(
        self, features: Float[Tensor, "data feature"], targets: Float[Tensor, "data output"]
    ) -> None:
        r"""Put the posterior where the bound on these data is highest, in closed form.

        .. math:: P_j = \tfrac{1}{s^2} I + \tfrac{1}{\sigma_j^2} \Phi^T \Phi, \quad
            \bar w_j = P_j^{-1} \Phi^T y_j / \sigma_j^2

        with conjugate noise at :math:`\sigma_j = 1` and then
        :math:`a = \tfrac{\nu + N}2`, :math:`b_j = \tfrac12 (\nu s_\sigma^2 + y_j^T y_j
        - \bar w_j^T P \bar w_j)`. For features that are trained no more. A noise that is trained
        stays where it is.

        Raises:
            ValueError: If the data are not ``num_data`` examples, or the covariance is low-rank.
        """
        if len(features) != self.num_data:
            raise ValueError(
                f"solve: {len(features)} examples; the layer was built for num_data="
                f"{self.num_data}, give all of them"
            )
        phi, y = features.double(), targets.double()
        fixed = isinstance(self.noise, NoiseScale)
        noise = self.noise().double().square() if fixed else torch.ones_like(y[0])
        identity = torch.eye(phi.shape[1]).to(phi) / self.weights.prior_scale**2
        precision = identity + (phi.T @ phi) / noise.view(-1, 1, 1)
        loc = torch.linalg.solve(precision, (phi.T @ y / noise).T)
        self.weights.covariance.set(precision)
        self.weights.loc.copy_(loc)
        if isinstance(self.noise, PrecisionPosterior):
            explained = torch.einsum("kf,kfg,kg->k", loc, precision, loc)
            self.noise.set(len(y), y.square().sum(0) - explained)


class PrecisionPosterior(nn.Module):
    r"""A Gamma posterior of the noise's precision of each output; the prior of `NoiseScale`.

    Args:
        outputs: Number of outputs.
        scale: Standard deviation that the prior is about, and the posterior starts at.
        dof: Weight of the prior, in observations.

    Raises:
        ValueError: If scale or degrees of freedom are not positive.
    """

    def __init__(self, outputs: int, scale: float, dof: float) -> None:
        super().__init__()
        _check_positive("noise_scale", scale)
        _check_positive("noise_dof", dof)
        self.scale = scale
        self.dof = dof
        self.log_concentration = nn.Parameter(torch.full((outputs,), math.log(dof / 2)))
        self.log_rate = nn.Parameter(torch.full((outputs,), math.log(dof * scale**2 / 2)))

    def forward(self) -> tuple[Float[Tensor, " output"], Float[Tensor, " output"]]:
        """Return concentrations and rates."""
        return self.log_concentration.exp(), self.log_rate.exp()

    def latent(self, num_data: int, batch: int) -> Latent:
        """Return the precisions as a latent whose KL is a ``num_data``-th of theirs an example."""
        concentration, rate = self()
        gamma = Gamma(concentration, rate, validate_args=False)
        posterior = Independent(gamma, 1, validate_args=False)
        prior = precision_prior(rate, self.scale, self.dof)
        return _latent("precision", posterior, prior, num_data, batch)

    @torch.no_grad()
    def set(self, number: int, residual: Float[Tensor, " output"]) -> None:
        """Become the conjugate posterior after so many observations and squared residuals."""
        self.log_concentration.fill_(math.log((self.dof + number) / 2))
        self.log_rate.copy_(((self.dof * self.scale**2 + residual) / 2).log())


class DiscriminativeLastLayer(nn.Module):
    r"""Bayesian softmax regression on learned features.

    .. math:: p(y = k \mid \phi, w) = \operatorname{softmax}_k(w_k^T \phi)

    Jensen's inequality on the log-sum-exp gives a bound without samples,

    .. math:: \mathbb E_q \log p(y \mid \phi, w) \ge \bar w_y^T \phi
        - \log \sum_k \exp \left(\bar w_k^T \phi + \tfrac12 \phi^T S_k \phi\right)

    The paper adds Normal noise to the logits, which this bound can only be lowered by; it is left
    out (:math:`\Sigma = 0`). The KL is divided by ``num_data`` for each example: see `PerExample`.
    The likelihood term is an expectation: objectives that weight samples make no bound of it.

    References:
        Harrison, Willes and Snoek, "Variational Bayesian Last Layers", ICLR 2024, theorem 2
        (arXiv:2404.11599).
        MacKay, "The Evidence Framework Applied to Classification Networks", Neural Computation 4,
        1992, for the prediction by probit; Gibbs, "Bayesian Gaussian Processes for Regression and
        Classification", PhD thesis, Cambridge 1997, for several classes.

    Args:
        features: Size of the last dimension of its input; a bias is a feature that is always 1.
        classes: Number of classes.
        num_data: Examples in the data set :math:`N`.
        covariance: ``"diagonal"``, ``"dense"`` or ``"low-rank"``.
        rank: Of a low-rank covariance; ignored otherwise.
        prior_scale: Standard deviation of the weights' prior.

    Raises:
        ValueError: If a setting is none of the allowed.

    Example:
        >>> layer = DiscriminativeLastLayer(5, 3, 100, "diagonal", 1, 1.0)
        >>> layer(torch.randn(2, 5)).probs.shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        features: int,
        classes: int,
        num_data: int,
        covariance: str,
        rank: int,
        prior_scale: float,
    ) -> None:
        super().__init__()
        _check_positive("num_data", num_data)
        self.num_data = num_data
        self.weights = LinearWeights(features, classes, covariance, rank, prior_scale)

    def forward(self, features: Float[Tensor, "batch feature"]) -> Categorical:
        r"""Return the predictive distribution, by the probit approximation.

        .. math:: \operatorname{softmax}_k \left( \bar w_k^T \phi \Big/
            \sqrt{1 + \tfrac\pi8 \phi^T S_k \phi} \right)

        Without samples, and an approximation; `predict` samples.
        """
        loc, variance = self.weights.moments(at_least_single(features))
        logits = loc / (1 + math.pi / 8 * variance).sqrt()
        return Categorical(logits=logits, validate_args=False)

    def predict(
        self, features: Float[Tensor, "batch feature"], samples: int, seed: int
    ) -> Categorical:
        """Return the predictive distribution by Monte Carlo over the logits.

        Args:
            features: Inputs of the layer.
            samples: Draws; the standard error of a probability is below 0.5 / sqrt(samples).
            seed: Seed of the draws' own random numbers.
        """
        loc, variance = self.weights.moments(at_least_single(features))
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(samples, *loc.shape, dtype=loc.dtype, generator=generator)
        noise = noise.to(loc.device)
        probs = torch.softmax(loc + noise * variance.sqrt(), -1).mean(0)
        return Categorical(probs, validate_args=False)

    def evidence(
        self, features: Float[Tensor, "batch feature"], labels: Int[Tensor, " batch"]
    ) -> Evidence:
        """Return the bound on the expected log-likelihood of the labels, and the weights' KL."""
        loc, variance = self.weights.moments(at_least_single(features))
        own = loc.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        likelihood = own - torch.logsumexp(loc + 0.5 * variance, -1)
        latent = self.weights.latent(self.num_data, len(labels))
        return Evidence({"labels": likelihood.unsqueeze(0)}, [latent])

    def ood_score(self, features: Float[Tensor, "batch feature"]) -> Float[Tensor, " batch"]:
        r"""Return :math:`-\log \max_k p(y = k)` in nats: high where no class is likely."""
        return -self(features).logits.amax(-1)


class GenerativeLastLayer(nn.Module):
    r"""A Bayesian classifier that models the features of each class.

    .. math:: \phi \mid y = k \sim \mathcal N(\mu_k, \operatorname{diag} \sigma^2), \quad
        p(y = k) = \rho_k, \quad q(\mu_k) = \mathcal N(\bar\mu_k, \operatorname{diag} s_k^2), \quad
        q(\rho) = \operatorname{Dir}(\alpha)

    with priors :math:`\mathcal N(0, s^2 I)` and a symmetric Dirichlet. The bound on the
    *conditional* log-likelihood :math:`\log p(y \mid \phi)`, without samples, is

    .. math:: \log \mathcal N(\phi; \bar\mu_y, \sigma^2) - \tfrac12 \sum_j s_{yj}^2 / \sigma_j^2
        + \psi(\alpha_y) - \psi(\textstyle\sum_k \alpha_k) - \log \sum_k
        \frac{\alpha_k}{\sum_l \alpha_l} \mathcal N(\phi; \bar\mu_k, \sigma^2 + s_k^2)

    The KLs are divided by ``num_data`` for each example: see `PerExample`. The likelihood term
    is an expectation: objectives that weight samples make no bound of it.

    References:
        Harrison, Willes and Snoek, "Variational Bayesian Last Layers", ICLR 2024, theorem 3
        (arXiv:2404.11599); with diagonal covariances.

    Args:
        features: Size of the last dimension of its input.
        classes: Number of classes.
        num_data: Examples in the data set :math:`N`.
        prior_scale: Standard deviation of the prior of the classes' means.
        concentration: Of the Dirichlet prior of the class frequencies, for each class.
        noise_scale: Standard deviation :math:`\sigma` of the features, where it starts.
        noise_dof: Weight of its prior, in observations; see `NoiseScale`.

    Raises:
        ValueError: If a setting is not positive.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        num_data: int,
        prior_scale: float,
        concentration: float,
        noise_scale: float,
        noise_dof: float,
    ) -> None:
        super().__init__()
        _check_positive("num_data", num_data)
        _check_positive("concentration", concentration)
        self.num_data = num_data
        self.concentration = concentration
        self.means = LinearWeights(features, classes, "diagonal", 1, prior_scale)
        self.noise = NoiseScale(features, noise_scale, noise_dof, learned=True)
        self.log_alpha = nn.Parameter(torch.full((classes,), math.log(concentration)))

    def forward(self, features: Float[Tensor, "batch feature"]) -> Categorical:
        r"""Return :math:`p(y = k \mid \phi) \propto \alpha_k \mathcal N(\phi; \bar\mu_k, \sigma^2
        + s_k^2)`.
        """  # noqa: D205 (one formula)
        return Categorical(logits=self._log_joint(features), validate_args=False)

    def evidence(
        self, features: Float[Tensor, "batch feature"], labels: Int[Tensor, " batch"]
    ) -> Evidence:
        """Return the bound on the expected log-likelihood of the labels, and the KLs."""
        features, batch = at_least_single(features), len(labels)
        scale, variance = self.noise(), self._variance()
        density = DiagonalNormal(self.means.loc[labels], scale).log_prob(features)
        density = density - 0.5 * (variance[labels] / scale.square()).sum(-1)
        alpha = self.log_alpha.exp()
        prior = torch.digamma(alpha)[labels] - torch.digamma(alpha.sum())
        likelihood = density + prior - torch.logsumexp(self._log_joint(features), -1)
        frequencies = Dirichlet(alpha, validate_args=False)
        even = Dirichlet(torch.full_like(alpha, self.concentration), validate_args=False)
        latents = [
            self.means.latent(self.num_data, batch),
            _latent("frequencies", frequencies, even, self.num_data, batch),
        ]
        penalties = self.noise.penalties(self.num_data, batch)
        return Evidence({"labels": likelihood.unsqueeze(0)}, latents, penalties)

    def ood_score(self, features: Float[Tensor, "batch feature"]) -> Float[Tensor, " batch"]:
        """Return minus the log density of the features under all classes, in nats."""
        return -torch.logsumexp(self._log_joint(features), -1)

    def _log_joint(self, features: Tensor) -> Float[Tensor, "batch output"]:
        scale = (self.noise().square() + self._variance()).sqrt()
        density = DiagonalNormal(self.means.loc, scale)
        log_density = density.log_prob(at_least_single(features).unsqueeze(-2))
        return log_density + torch.log_softmax(self.log_alpha, -1)

    def _variance(self) -> Tensor:
        covariance = self.means.covariance
        assert isinstance(covariance, DiagonalCovariance)
        return (2 * covariance.log_scale).exp()


def _latent(
    name: str, posterior: Distribution, prior: Distribution, num_data: int, batch: int
) -> Latent:
    shared = PerExample(posterior, num_data, batch)
    return Latent(name, shared.rsample((1,)), shared, PerExample(prior, num_data, batch))


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"last layer: {name} is {value!r}; it must be positive")
