"""The structured Koopman VAE: the latents are the states of linear dynamics themselves."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from core.runtime import methods
from core.variational.distributions import DiagonalNormal
from core.variational.distributions.base import factors
from core.variational.dynamics import (
    Filtered,
    GaussMarkov,
    GaussMarkovPosterior,
    LinearDynamics,
    MarkovPosterior,
    StateSpace,
    Steps,
    as_gauss_markov,
    cut_padding,
    kalman_filter,
    smoothing_distribution,
)
from core.variational.dynamics.gauss_markov import symmetric
from core.variational.estimators import REPARAMETERISED, Estimator
from core.variational.evidence import Evidence, Latent
from core.variational.likelihoods import NormalLikelihood, SigmaVAELikelihood
from domains.series.config import Config
from domains.series.config import KoopmanVAE as KoopmanVAESection
from domains.series.data import Dataset, Windows
from domains.series.data.windows import gather, rows_of_dataset, thin
from domains.series.model.base import SeriesModel, Spectrum
from domains.series.model.identification import identify
from domains.series.model.latents import evidence_of
from domains.series.model.rows import ConvolutionEncoder, RowEncoder, RowNetwork

IDENTIFYING = 1000  # train windows that dynamics are identified from
UNEVEN = 0.25  # rows between which more or less time passes are not one step apart
LEAST_NOISE = 1e-3


class StructuredKoopmanVAE(SeriesModel):
    r"""A state space: latents under linear dynamics, each row explained by the state of its time.

    .. math:: z_t = \lambda^{\Delta t} z_{t-1} + s_t \epsilon_t, \quad
        x_t \sim p(x_t \mid f(z_t))

    The posterior is over paths of the states. What settings make of it:

    ========================== =================== ============================================
    ``posterior.kind``         ``model.network``   model
    ========================== =================== ============================================
    gauss-markov               linear, and a       a linear dynamical system with its exact
                               Normal likelihood   posterior: the ELBO is :math:`\log p(x)`, and
                                                   training is maximum likelihood
    gauss-markov               mlp                 the structured VAE: the recognition network
                                                   gives potentials, a Kalman smoother by parallel
                                                   scan multiplies them with the dynamics
    gauss-markov, and          mlp                 the Markovian Gaussian-process VAE: each latent
    ``prior.spectrum`` real,                       is a process with the kernel
    ``prior.stationary`` true                      :math:`e^{-r_j |t - t'|}` (Matérn 1/2) of its
                                                   own rate; with spectrum stable, of two latents
                                                   each, :math:`e^{-r|t - t'|} \cos \omega(t-t')`
    markov                     convolution         a free Gaussian chain
    diagonal-normal            convolution         factorised over time and latents
    ========================== =================== ============================================

    Smoother Matérn processes have states that are no diagonal system; a few rates approximate
    them. A row of which nothing is seen has no potential: the dynamics carry its state, at
    whatever times the rows are.

    Where a task lets it see values and asks for others, the chains of ``gauss-markov`` bound the
    likelihood of the others given the seen,

    .. math:: \log p(x_{\text{targets}} \mid x_{\text{seen}}) \ge \mathbb E_{q(z \mid
        \text{seen}, \text{targets})} \log p(x_{\text{targets}} \mid z)
        - KL(q(z \mid \text{seen}, \text{targets}) \| q(z \mid \text{seen}))

    and the linear dynamical system attains it. The other posteriors are held against the dynamics
    and draw from what is seen: a bound on :math:`\log p(x_{\text{targets}})`.

    References:
        Zhao and Linderman, "Revisiting Structured Variational Autoencoders", ICML 2023
        (arXiv:2305.16543). Johnson et al., "Composing Graphical Models with Neural Networks for
        Structured Representations and Fast Inference", NeurIPS 2016 (arXiv:1603.06277).
        Zhu, Balsells Rodas and Li, "Markovian Gaussian Process Variational Autoencoders", ICML
        2023 (arXiv:2207.05543).
        Garnelo et al., "Neural Processes", 2018 (arXiv:1807.01622), for the bound given what is
        seen.

    Args:
        prior: Of the states.
        encoder: From windows to features of each row; None for a posterior that is exact.
        posterior: From those to the distribution of the path; None for the exact one.
        decoder: From the state of a row to its features.
        likelihood: From those to the distribution of its values.
        estimator: How paths are drawn in training.
    """

    def __init__(
        self,
        prior: LinearDynamics,
        encoder: nn.Module | None,
        posterior: nn.Module | None,
        decoder: RowNetwork,
        likelihood: Any,
        estimator: Estimator = REPARAMETERISED,
    ) -> None:
        super().__init__()
        self.prior, self.encoder, self.posterior = prior, encoder, posterior
        self.decoder, self.likelihood, self.estimator = decoder, likelihood, estimator

    @property
    def exact(self) -> bool:
        """Whether it is a linear dynamical system with its exact posterior."""
        return self.posterior is None

    @property
    def chained(self) -> bool:
        """Whether its posterior is the dynamics times potentials."""
        return self.exact or isinstance(self.posterior, GaussMarkovPosterior)

    @property
    def filters(self) -> bool:
        """Whether it tells the state of a row from the rows before, one by one."""
        return self.chained and (self.exact or isinstance(self.encoder, RowEncoder))

    def encode(self, batch: Windows) -> Distribution:
        """Return the posterior of the path given what is seen, over ``(time, latent)``."""
        steps = steps_of(batch)
        if self.encoder is None or self.posterior is None:
            path = smoothing_distribution(self.state_space(batch), batch.values, batch.seen)
            return cut_padding(path, steps.present)
        features = self.encoder(batch)
        if isinstance(self.posterior, GaussMarkovPosterior | MarkovPosterior):
            return self.posterior(features, steps)
        return cut_padding(self.posterior(features), steps.present)

    def decode(self, states: Float[Tensor, "*draws batch time latent"]) -> Distribution:
        """Return the distribution of the values, whose event is ``(time, channel)``."""
        return self.likelihood(self.decoder(states))

    def evidence(self, batch: Windows, samples: int = 1) -> Evidence:
        """What the model says of the targets of a batch, from ``samples`` posterior draws."""
        given = batch.seen & ~batch.targets
        if self.chained and bool(given.any()):
            posterior = self.encode(batch.seeing(batch.seen | batch.targets))
            prior = self.encode(batch.seeing(given))
        else:
            posterior = self.encode(batch)
            prior = self.prior(posterior, steps_of(batch))
        latent = Latent.draw("z", posterior, prior, samples, self.estimator)
        return evidence_of(batch, self.decode(latent.value), latent)

    def predictive(self, batch: Windows, samples: int) -> Distribution:
        """Return the distribution of each value given those seen, one part for each drawn path."""
        return factors(self.decode(self.encode(batch).sample(torch.Size((samples,)))), 2)

    def generative(self, times: Float[Tensor, "count time"]) -> Distribution:
        """Return the distribution of each value of new windows, one path of the prior a window."""
        path = self.prior.path(times.shape[1], Steps(times=times))
        return factors(self.decode(path.sample()), 2)

    def log_evidence(self, batch: Windows) -> Float[Tensor, " batch"]:
        """Return the exact log-likelihood of what is seen, in nats, of a linear dynamical system.

        Raises:
            ValueError: If the model is none.
        """
        self._require_exact("log_evidence")
        return self.filtered(batch).log_likelihood

    def interpolated(
        self, batch: Windows
    ) -> tuple[Float[Tensor, "batch time channel"], Float[Tensor, "batch time channel"]]:
        """Return the exact mean and scale of each value given those seen, noise included.

        Raises:
            ValueError: If the model is no linear dynamical system.
        """
        self._require_exact("interpolated")
        path = self.encode(batch)
        assert isinstance(path, GaussMarkov)
        return self._measured(path.mean, path.covariance_matrix)

    def filtered(self, batch: Windows) -> Filtered:
        """Return what the rows up to each say of its state: by values, or by their potentials.

        Raises:
            ValueError: If the posterior is no chain of potentials.
        """
        if self.encoder is None or self.posterior is None:
            return kalman_filter(self.state_space(batch), batch.values, batch.seen)
        if not isinstance(self.posterior, GaussMarkovPosterior):
            raise ValueError("filtered: the posterior has no potentials; use kind 'gauss-markov'")
        loc, scale = self.posterior.potentials(self.encoder(batch))
        identity = torch.eye(self.prior.latent).to(loc)
        path = as_gauss_markov(self.prior.path(loc.shape[1], steps_of(batch)))
        space = StateSpace(path, identity, loc.new_zeros(()), torch.diag_embed(scale))
        return kalman_filter(space, loc, steps_of(batch).informative())

    def surprise(self, batch: Windows, samples: int) -> Float[Tensor, "batch time channel"]:
        r"""Return the surprise of each value in nats, exact for a linear dynamical system.

        Of a value that is not seen :math:`-\log p(x_{tj} \mid \text{seen})`. One that is seen
        would surprise nobody who has seen it: of it, :math:`-\log p(x_{tj} \mid x_{<t})` given
        what is seen of the rows before, where the model can filter.
        """
        if self.filters and bool(batch.seen.all()):
            return self._values_ahead(batch, samples)
        if self.exact:
            hidden = -DiagonalNormal(*self.interpolated(batch), 0).log_prob(batch.values)
        else:
            hidden = super().surprise(batch, samples)
        if not self.filters:
            return hidden
        return torch.where(batch.seen, self._values_ahead(batch, samples), hidden)

    def surprise_ahead(self, batch: Windows, samples: int = 16) -> Float[Tensor, "batch time"]:
        r"""Return :math:`-\log p(x_t \mid x_{<t})` of what is seen of each row, in nats.

        The channels jointly; exact for a linear dynamical system. Otherwise the past's potentials
        stand for the past, and the mean is over so many draws of the row's state.

        Raises:
            ValueError: If the posterior is no chain of potentials.
        """
        if self.exact:
            return -self.filtered(batch).step_log_likelihood
        seen = torch.where(batch.seen, self._log_prob_ahead(batch, samples), 0.0).sum(-1)
        return math.log(samples) - seen.logsumexp(0)

    def _values_ahead(self, batch: Windows, samples: int) -> Float[Tensor, "batch time channel"]:
        """Return the surprise of each value given the rows before, in nats."""
        if self.exact:
            ahead = self._states_ahead(batch)
            loc, scale = self._measured(ahead.mean, ahead.covariance_matrix)
            return -DiagonalNormal(loc, scale, 0).log_prob(batch.values)
        return math.log(samples) - self._log_prob_ahead(batch, samples).logsumexp(0)

    def _log_prob_ahead(
        self, batch: Windows, samples: int
    ) -> Float[Tensor, "samples batch time channel"]:
        """Return the log-density of each value at draws of its state given the rows before."""
        draws = self._states_ahead(batch).sample(torch.Size((samples,)))
        return factors(self.decode(draws), 2).log_prob(batch.values)

    def _states_ahead(self, batch: Windows) -> MultivariateNormal:
        """Return what the rows before each say of its state."""
        filtered = self.filtered(batch)
        path = as_gauss_markov(self.prior.path(batch.values.shape[1], steps_of(batch)))
        moved = path.transition @ filtered.loc[..., :-1, :].unsqueeze(-1)
        spread = path.transition @ filtered.covariance[..., :-1, :, :] @ path.transition.mT
        loc = path.offset + nn.functional.pad(moved.squeeze(-1), (0, 0, 1, 0))
        noise = path.scale_tril @ path.scale_tril.mT
        covariance = symmetric(noise + nn.functional.pad(spread, (0, 0, 0, 0, 1, 0)))
        return MultivariateNormal(loc, covariance, validate_args=False)

    def _measured(self, loc: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and scale of the values of states with these moments, noise included."""
        emission, offset = self.likelihood.head.weight, self.likelihood.head.bias
        spread = torch.einsum("cl,...lk,ck->...c", emission, covariance, emission)
        return loc @ emission.T + offset, (spread + self.noise.square()).sqrt()

    def state_space(self, batch: Windows) -> StateSpace:
        """Return the dynamics at the times of a batch and how the likelihood measures them."""
        path = as_gauss_markov(self.prior.path(batch.values.shape[1], steps_of(batch)))
        head = self.likelihood.head
        return StateSpace(path, head.weight, head.bias, torch.diag_embed(self.noise))

    @property
    def noise(self) -> Float[Tensor, " channel"]:
        """The scale of a Normal likelihood for each channel, without units."""
        if isinstance(self.likelihood, SigmaVAELikelihood):
            scale = self.likelihood.variance.sqrt()
        else:
            scale = self.likelihood.log_scale.exp() + self.likelihood.floor
        return scale.expand(len(self.likelihood.head.bias))

    def spectrum(self, batches: Iterable[Windows]) -> Spectrum:
        """Return the modes of the dynamics.

        The energy of a mode is the variance of its posterior mean over all rows that are present;
        where emissions are linear, of what it adds to the values.
        """
        energy = torch.stack([self._energy(batch) for batch in batches]).sum(0)
        eigenvalues = torch.complex(*_parts(self.prior.eigenvalues))
        share = energy / energy.sum().clamp(min=torch.finfo(energy.dtype).tiny)
        return Spectrum(eigenvalues, self.prior.half_lives, self.prior.periods, share)

    def _energy(self, batch: Windows) -> Float[Tensor, " mode"]:
        mean = self.encode(batch).mean.double()
        rows = mean[batch.present]
        rows = rows - rows.mean(0)
        per_mode = rows.shape[1] // self.prior.modes
        covariances = rows.unflatten(1, (-1, per_mode))
        second = torch.einsum("rmi,rmj->mij", covariances, covariances)
        if len(self.decoder):
            return second.diagonal(dim1=-2, dim2=-1).sum(-1)
        emission = self.likelihood.head.weight.double().unflatten(1, (-1, per_mode))
        return torch.einsum("dmi,mij,dmj->m", emission, second, emission)

    def _require_exact(self, what: str) -> None:
        if not self.exact:
            raise ValueError(
                f"{what}: the posterior is approximate; it is exact with posterior "
                "'gauss-markov', network 'linear' and a Normal likelihood"
            )


def steps_of(batch: Windows) -> Steps:
    """Return when the rows are, which are no padding and of which something is seen.

    Times that all windows share are given once, and times 0, 1, 2, … not at all: the dynamics of
    the batch are then one chain.
    """
    present = None if bool(batch.present.all()) else batch.present
    times = batch.times
    if present is None and bool((times == times[:1]).all()):
        count = torch.arange(times.shape[1], device=times.device)
        times = None if bool((times[0] == count).all()) else times[0]
    return Steps(times=times, present=present, observed=batch.seen.any(-1))


def _parts(eigenvalues: Tensor) -> tuple[Tensor, Tensor]:
    if eigenvalues.is_complex():
        return eigenvalues.real, eigenvalues.imag
    return eigenvalues, torch.zeros_like(eigenvalues)


def build(config: Config, dataset: Dataset) -> StructuredKoopmanVAE:
    """A new, initialised model for a dataset.

    Raises:
        UserError: If the settings do not go together.
    """
    section, channels = config.model, len(dataset.channels)
    assert isinstance(section, KoopmanVAESection)
    latent, layers = section.latent, 0 if section.network == "linear" else section.layers
    prior = methods.build_prior(config.prior, latent, sequence=True)
    decoder = RowNetwork(latent, section.hidden, layers)
    likelihood = methods.build_likelihood(
        config.likelihood, decoder.outputs, channels, event_dims=2
    )
    encoder = posterior = None
    linear = layers == 0 and _linear_normal(likelihood)
    if not (linear and config.posterior.kind == "gauss-markov"):
        kind = ConvolutionEncoder if section.network == "convolution" else RowEncoder
        encoder = kind(channels, section.hidden, layers)
        posterior = methods.build_posterior(
            config.posterior, encoder.outputs, latent, event_dims=2, sequence=True, dynamics=prior
        )
    estimator = methods.build_estimator(config.estimator)
    model = StructuredKoopmanVAE(prior, encoder, posterior, decoder, likelihood, estimator)
    if model.exact:
        start_from_data(model, dataset)
    return model


@torch.no_grad()
def start_from_data(model: StructuredKoopmanVAE, dataset: Dataset) -> None:
    """Let a linear dynamical system start where `identify` finds it in the train windows.

    The likelihood of frequencies has a peak for every wave that fits a window, and gradients only
    climb the nearest one. Real spectra, rows far from evenly spaced, and windows too short for
    the modes keep the start that the settings give.
    """
    prior, windows = model.prior, _train_windows(dataset)
    far_from_even = float((windows.times.diff(dim=1) - 1).abs().max()) > UNEVEN
    if prior.spectrum == "real" or far_from_even:
        return
    values, seen = windows.values.double().numpy(), windows.seen.numpy()
    found = identify(values, seen, prior.modes)
    if found is None:
        return
    eigenvalues = torch.from_numpy(found.eigenvalues)
    rate = -eigenvalues.abs().log()
    prior.frequency.copy_(eigenvalues.angle())
    if prior.spectrum == "stable":
        prior.log_rate.copy_(rate.log())
    if not prior.stationary:
        prior.log_noise_scale.copy_(torch.from_numpy(found.drive).clamp(min=LEAST_NOISE).log())
    emission = torch.from_numpy(found.emission)
    head = model.likelihood.head
    head.weight.copy_(torch.stack([emission.real, -emission.imag], -1).flatten(1))
    head.bias.zero_()
    _start_noise(model.likelihood, torch.from_numpy(found.noise).clamp(min=LEAST_NOISE))


def _train_windows(dataset: Dataset) -> Windows:
    """Return at most `IDENTIFYING` windows of the train part, spread evenly."""
    rows = rows_of_dataset(dataset)
    seen = rows.known & ~rows.hidden
    return gather(rows, thin(dataset.windows["train"], IDENTIFYING), dataset.window, seen, seen)


def _start_noise(likelihood: Any, noise: Float[Tensor, " channel"]) -> None:
    """Let a scale that is learned start here; one for all channels at the mean square."""
    if isinstance(likelihood, SigmaVAELikelihood):
        scale, log = likelihood.variance, False
    else:
        scale, log = likelihood.log_scale, True
        if not scale.requires_grad:
            return
    square = noise.square() if scale.dim() else noise.square().mean()
    scale.copy_(0.5 * square.log() if log else square)


def _linear_normal(likelihood: nn.Module) -> bool:
    """Whether values are Normal with a scale that no state changes."""
    if isinstance(likelihood, NormalLikelihood):
        return not likelihood.predicted
    return isinstance(likelihood, SigmaVAELikelihood)
