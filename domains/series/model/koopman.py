"""The Koopman VAE: latents under linear dynamics in closed form, of which the ELBO is a bound."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Distribution

from core.runtime import methods
from core.variational.distributions import DiagonalNormal
from core.variational.distributions.base import factors
from core.variational.dynamics import LinearDynamics, Steps
from core.variational.estimators import REPARAMETERISED, Estimator
from core.variational.evidence import Evidence, Latent, per_draw
from core.variational.likelihoods import NormalLikelihood, SigmaVAELikelihood
from domains.series.config import Config
from domains.series.config import KoopmanVAE as KoopmanVAESection
from domains.series.data import Dataset, Windows
from domains.series.model.base import SeriesModel, Spectrum
from domains.series.model.convolution import Convolutions
from domains.series.model.density import AggregateDensity, ResidualCopula
from domains.series.model.latents import evidence_of
from domains.series.model.networks import WindowMLP

KRIGED = 512  # values in a window up to which residuals seen are asked of the others
MEAN_DRAWS = 64


class KoopmanVAE(SeriesModel):
    r"""A VAE of windows whose latent path is linear dynamics driven by noise.

    .. math:: z_t = \lambda^{\Delta t} z_{t-1} + \sqrt{1 - |\lambda|^{2 \Delta t}}\, w_t, \quad
        w_t \sim \mathcal N(0, I), \quad x_t \sim p(x_t \mid f(z_{1:T}))

    The latent that is inferred is the noise :math:`w` (the innovations): the path is a linear
    function of it, so a factorised posterior of :math:`w` is one of the path with all the
    correlations that the dynamics have, and its KL is analytic, with no loop over time. The
    spectrum is a parameter: no operator is fitted, :math:`|\lambda| < 1` holds by construction.

    Naiman et al. fit an operator to prior samples by least squares and compare the posterior with
    paths of the prior's own, which bounds nothing; here the value is an ELBO.

    Most of the noise stays unused. Where the prior and what the posterior covers differ, drawing
    from the prior gives windows that no data have; ``density`` is fitted to what it covers
    (`finish`) and drawn from instead. So is the correlation of the residuals, which the likelihood
    takes for independent.

    References:
        Naiman et al., "Generative Modeling of Regular and Irregular Time Series Data via Koopman
        VAEs", ICLR 2024 (arXiv:2310.02619), for the linear dynamics as a prior.
        Dai and Wipf, "Diagnosing and Enhancing VAE Models", ICLR 2019 (arXiv:1903.05789), for the
        second stage.

    Args:
        encoder: From values and masks of each step to the raw parameters of the posterior.
        posterior: From those to the distribution of the innovations, ``(time, latent)``.
        prior: Of the innovations.
        dynamics: From innovations to states.
        decoder: From states to features of each step.
        likelihood: From those to the distribution of the values.
        residuals: How what it misses hangs together.
        density: What generation draws innovations from; None for the prior.
        estimator: How innovations are drawn in training.
    """

    def __init__(
        self,
        encoder: nn.Module,
        posterior: nn.Module,
        prior: nn.Module,
        dynamics: LinearDynamics,
        decoder: nn.Module,
        likelihood: nn.Module,
        residuals: ResidualCopula,
        density: AggregateDensity | None = None,
        estimator: Estimator = REPARAMETERISED,
    ) -> None:
        super().__init__()
        self.encoder, self.posterior, self.prior = encoder, posterior, prior
        self.dynamics, self.decoder, self.likelihood = dynamics, decoder, likelihood
        self.density, self.residuals, self.estimator = density, residuals, estimator

    def encode(self, batch: Windows) -> Distribution:
        """Return the posterior of the innovations given what is seen."""
        seen = batch.seen.to(batch.values)
        steps = torch.cat([batch.values * seen, seen], -1)
        return self.posterior(self.encoder(steps))

    def states(
        self,
        innovations: Float[Tensor, "*draws batch time latent"],
        times: Float[Tensor, "batch time"],
    ) -> Float[Tensor, "*draws batch time latent"]:
        """Return the path of the latent state that the innovations make."""
        steps = Steps() if _regular(times) else Steps(times=times)
        return self.dynamics.path(innovations.shape[-2], steps).from_noise(innovations)

    def decode(
        self,
        innovations: Float[Tensor, "draws batch time latent"],
        times: Float[Tensor, "batch time"],
    ) -> Distribution:
        """Return the distribution of the values, of batch shape ``(draws, batch)``."""
        return self.likelihood(per_draw(self.decoder, self.states(innovations, times)))

    def evidence(self, batch: Windows, samples: int = 1) -> Evidence:
        """What the model says of the targets of a batch, from ``samples`` posterior draws."""
        latent = Latent.draw("w", self.encode(batch), self.prior, samples, self.estimator)
        likelihood = self.decode(latent.value, batch.times)
        return evidence_of(batch, likelihood, latent)

    def predictive(self, batch: Windows, samples: int) -> Distribution:
        """Return the distribution of each value given those seen, one part for each draw.

        The latents are drawn given what is seen; where residuals hang together, those of the
        values seen then say more of the others. Of a value that is itself seen it is what the
        latents say alone (the reconstruction): how surprising it is shows there.
        """
        innovations = self.encode(batch).sample(torch.Size((samples,)))
        decoded = factors(self.decode(innovations, batch.times), 2)
        if not self._krige(batch.values.shape[1]):
            return decoded
        loc, scale = decoded.mean, decoded.stddev
        shift, spread = self.residuals.given((batch.values - loc) / scale, batch.seen)
        shift, spread = torch.where(batch.seen, 0.0, shift), torch.where(batch.seen, 1.0, spread)
        return DiagonalNormal(loc + scale * shift, scale * spread, event_dims=0)

    def generative(self, times: Float[Tensor, "count time"]) -> Distribution:
        """Return the distribution of each value of new windows, one draw a window."""
        states = self.states(self.draw_innovations(*times.shape), times)
        return factors(self.likelihood(self.decoder(states)), 2)

    def draw_windows(
        self, times: Float[Tensor, "count time"]
    ) -> Float[Tensor, "count time channel"]:
        """Draw windows, noise of the likelihood included, which hangs together as residuals do."""
        drawn = self.generative(times)
        if not bool(self.residuals.fitted) or times.shape[1] != self.residuals.shape[0]:
            return drawn.sample()
        return drawn.mean + drawn.stddev * self.residuals.sample(len(times))

    def draw_innovations(self, count: int, time: int) -> Float[Tensor, "count time latent"]:
        """Draw innovations from the density, or from the prior where there is none."""
        latent = self.dynamics.latent
        if self.density is not None and self.density.latent == time * latent:
            return self.density.sample(count).unflatten(-1, (time, latent))
        shape = torch.zeros(count, time, latent, device=self.device)
        return self.prior(DiagonalNormal(shape, torch.ones_like(shape), event_dims=2)).sample()

    def finish(self, batches: Iterable[Windows]) -> None:
        """Fit the density to the train windows' posteriors, and the copula of residuals."""
        looked = [self._look(batch.to(self.device)) for batch in batches]
        origin, draws, means, errors, known = (
            torch.cat(each) for each in zip(*looked, strict=True)
        )
        order = _in_order(origin)
        if self.density is not None:
            seed = int(torch.randint(2**31, ()))
            self.density.fit(draws[order].flatten(1), means[order].flatten(1), seed)
        if isinstance(self.likelihood, NormalLikelihood | SigmaVAELikelihood):
            self.residuals.fit(errors[order], known[order])

    def spectrum(self, batches: Iterable[Windows]) -> Spectrum | None:
        """Return the modes; energy is the variance of a mode's states under the posterior."""
        modes = 2 if self.dynamics.spectrum != "real" else 1
        squares = torch.zeros(self.dynamics.modes)
        for batch in batches:
            posterior = self.encode(batch)
            paths = self.states(_mean(posterior)[None], batch.times)[0]
            squares += paths.square().unflatten(-1, (-1, modes)).sum((0, 1, -1)).cpu()
        return Spectrum(
            self.dynamics.eigenvalues.to(torch.complex64).cpu(),
            self.dynamics.half_lives.cpu(),
            self.dynamics.periods.cpu(),
            squares / squares.sum().clamp(min=1e-12),
        )

    def _look(self, batch: Windows) -> tuple[Tensor, ...]:
        """A posterior draw, the mean, and standardised residuals of the windows of a batch."""
        posterior = self.encode(batch)
        draw = posterior.sample()
        decoded = factors(self.decode(draw[None], batch.times), 2)
        errors = (batch.values - decoded.mean[0]) / decoded.stddev[0]
        return batch.origin, draw, _mean(posterior), errors, batch.targets

    def _krige(self, time: int) -> bool:
        """Whether residuals seen are asked of the others: in small windows as trained on."""
        rows, channels = self.residuals.shape
        return bool(self.residuals.fitted) and time == rows and rows * channels <= KRIGED

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.parameters()).device


def _regular(times: Float[Tensor, "batch time"]) -> bool:
    """Whether every window has the times 0, 1, 2 and so on."""
    return bool((times == torch.arange(times.shape[1], device=times.device)).all())


def _mean(posterior: Distribution) -> Tensor:
    """The mean, or that of draws where it has no formula."""
    try:
        return posterior.mean
    except NotImplementedError:
        return posterior.sample(torch.Size((MEAN_DRAWS,))).mean(0)


def _in_order(origin: Int[Tensor, "window 2"]) -> Int[Tensor, " window"]:
    """The places of windows in the order of their series and first rows."""
    return (origin[:, 0] * (origin[:, 1].max() + 1) + origin[:, 1]).argsort(stable=True)


def build(config: Config, dataset: Dataset) -> KoopmanVAE:
    """A new, initialised model for a dataset.

    Raises:
        UserError: If it cannot have the posterior, prior or likelihood.
    """
    section, channels, time = config.model, len(dataset.channels), dataset.window
    assert isinstance(section, KoopmanVAESection)
    latent, density = section.latent, config.density
    posterior = methods.build_posterior(config.posterior, None, latent, event_dims=2)
    return KoopmanVAE(
        network(section, time, 2 * channels, posterior.size),
        posterior,
        methods.build_prior(config.prior, latent),
        dynamics(section),
        network(section, time, latent, section.features),
        methods.build_likelihood(config.likelihood, section.features, channels, event_dims=2),
        ResidualCopula(time, channels),
        AggregateDensity(time * latent, density) if density.kind == "mixture" else None,
        methods.build_estimator(config.estimator),
    )


def dynamics(section: KoopmanVAESection) -> LinearDynamics:
    """The dynamics of the settings; stationary, but for those that forget nothing."""
    options = section.dynamics
    return LinearDynamics(
        section.latent,
        options.spectrum,
        stationary=options.spectrum != "circle",
        half_lives=options.half_lives,
        periods=options.periods,
    )


def network(section: KoopmanVAESection, time: int, inputs: int, outputs: int) -> nn.Module:
    """The network of the settings, from windows to windows."""
    if section.network == "mlp":
        return WindowMLP(time, inputs, outputs, section.hidden, section.layers)
    return Convolutions(inputs, outputs, section.hidden, section.layers)
