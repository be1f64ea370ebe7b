"""What training leaves over: where posteriors lie, and how residuals hang together."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from domains.series.config import MixtureDensity

HELD_OUT = 10  # stretches of windows, the end of each held out
LEAST_VARIANCE, LEAST_EIGENVALUE = 1e-3, 1e-6
LARGEST = 1024  # values in a window whose residuals are all correlated with each other
QUANTILES, FURTHEST = 257, 4.0  # residuals of a channel are kept at so many Normal scores
ITERATIONS = 100


class AggregateDensity(nn.Module):
    r"""A mixture of Normals fitted to the aggregated posterior :math:`q(w)`.

    .. math:: r(w) = \sum_k \pi_k \mathcal N(w_A; m_k, S_k)
        \prod_{j \notin A} \mathcal N(w_j; 0, 1)

    where :math:`A` are the latents in use: those whose posterior mean varies between windows, or
    whose draws for all windows together have not the moments of the prior. Where the posteriors of
    all data together are not the prior, its draws are decoded into windows that no data have.

    References:
        Dai and Wipf, "Diagnosing and Enhancing VAE Models", ICLR 2019 (arXiv:1903.05789), who fit
        a second VAE; Ghosh et al., "From Variational to Deterministic Autoencoders", ICLR 2020
        (arXiv:1903.12436), who fit a mixture.

    Args:
        latent: Length of a window's vector of latents, time and all.
        section: The settings.
    """

    places: Tensor
    weights: Tensor
    loc: Tensor
    scale_tril: Tensor

    def __init__(self, latent: int, section: MixtureDensity) -> None:
        super().__init__()
        self.section, self.latent = section, latent
        size, most = min(section.dimensions, latent), max(section.components)
        self.register_buffer("places", torch.arange(size))
        self.register_buffer("weights", torch.zeros(most))
        self.register_buffer("loc", torch.zeros(most, size))
        self.register_buffer("scale_tril", torch.eye(size).repeat(most, 1, 1))

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` was called."""
        return bool(self.weights.sum() > 0)

    def fit(
        self,
        draws: Float[Tensor, "window latent"],
        means: Float[Tensor, "window latent"],
        seed: int,
    ) -> None:
        """Fit the mixture; the held-out likelihood chooses how many Normals it has.

        Windows that overlap are not independent: whole stretches are held out, in their order.

        Args:
            draws: One posterior draw for each window, in the order of the windows.
            means: The posterior means.
            seed: Of the first centres.
        """
        from sklearn.mixture import GaussianMixture

        use = _use(draws.double(), means.double())
        used = use > self.section.active
        order = use.argsort(descending=True, stable=True)[: len(self.places)]
        self.places.copy_(order)
        kept = int(used[order].sum())
        if not kept:
            return
        values = draws[:, order[:kept]].double().cpu().numpy()
        held = _held_out(len(values))

        def mixture(components: int, data: np.ndarray) -> GaussianMixture:
            return GaussianMixture(
                components, reg_covar=LEAST_VARIANCE, max_iter=ITERATIONS, random_state=seed
            ).fit(data)

        most = _affordable(values[~held])
        counts = sorted({min(each, most) for each in self.section.components})
        scores = [mixture(each, values[~held]).score(values[held]) for each in counts]
        self._keep(mixture(counts[int(np.argmax(scores))], values), kept)

    def _keep(self, mixture: object, kept: int) -> None:
        """Copy a fitted mixture into the buffers; the latents beyond it stay standard Normal."""
        weights, loc, covariance = (
            torch.as_tensor(getattr(mixture, name))
            for name in ("weights_", "means_", "covariances_")
        )
        count = len(weights)
        self.weights.zero_()
        self.weights[:count] = weights.to(self.weights)
        self.loc[:count, :kept] = loc.to(self.loc)
        tril = torch.linalg.cholesky(covariance)
        self.scale_tril[:count, :kept, :kept] = tril.to(self.scale_tril)

    def sample(self, count: int) -> Float[Tensor, "count latent"]:
        """Draw latents of ``count`` windows.

        Each has the mixture's distribution; together they cover it more evenly than independent
        draws would (scrambled Sobol points, Owen 1995): statistics of a set of generated windows
        then differ less from one set to the next.
        """
        drawn = torch.randn(count, self.latent, device=self.loc.device)
        if not self.is_fitted:
            return drawn
        points = _even_points(count, 1 + len(self.places)).to(drawn.device)
        shares = self.weights.cumsum(0)
        chosen = torch.searchsorted(shares, points[:, 0] * shares[-1]).clamp(max=len(shares) - 1)
        noise = torch.special.ndtri(points[:, 1:]).to(drawn)
        for component in torch.unique(chosen).tolist():
            rows = (chosen == component).nonzero()[:, 0]
            drawn[rows[:, None], self.places] = (
                self.loc[component] + noise[rows] @ self.scale_tril[component].T
            )
        return drawn


class ResidualCopula(nn.Module):
    r"""How standardised residuals :math:`e = (x - \mu(z)) / \sigma(z)` hang together in a window.

    .. math:: e_{tj} = F_j^{-1}(\Phi(g_{tj})), \quad g \sim \mathcal N(0, R)

    The likelihood takes residuals for independent and Normal. Those of a decoder that is not
    perfect are neither: what it misses of one price it misses of the next and of the other prices,
    and what it misses of a count is skewed. A Gaussian copula keeps both: each channel's own
    distribution :math:`F_j`, by its quantiles, and the correlation :math:`R` of all values of a
    window. Given some values of a window, :math:`R` says what to expect of the others beyond what
    the latents say (kriging, with Normal margins):

    .. math:: e_h \mid e_s \sim \mathcal N(R_{hs} R_{ss}^{-1} e_s,\;
        R_{hh} - R_{hs} R_{ss}^{-1} R_{sh})

    Windows of more values than `LARGEST` have a separable correlation, of times and of channels.

    References:
        Liu, Lafferty and Wasserman, "The Nonparanormal", JMLR 10, 2009 (arXiv:0903.0649).

    Args:
        time: Rows in a window.
        channels: Values in a row.
    """

    time_tril: Tensor
    channel_tril: Tensor
    quantiles: Tensor
    fitted: Tensor

    def __init__(self, time: int, channels: int) -> None:
        super().__init__()
        self.shape = (time, channels)
        self.whole = time * channels <= LARGEST
        sizes = (time * channels, 1) if self.whole else (time, channels)
        self.register_buffer("time_tril", torch.eye(sizes[0]))
        self.register_buffer("channel_tril", torch.eye(sizes[1]))
        self.register_buffer("quantiles", torch.zeros(QUANTILES, channels))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def fit(
        self,
        residuals: Float[Tensor, "window time channel"],
        known: Bool[Tensor, "window time channel"],
    ) -> None:
        """Fit margins and correlation to standardised residuals; those not known are left out."""
        scores = torch.zeros_like(residuals)
        for channel in range(residuals.shape[-1]):
            there = known[..., channel]
            values = residuals[..., channel][there]
            if len(values) < 2:
                continue
            self.quantiles[:, channel] = _quantiles(values)
            scores[..., channel][there] = _normal_scores(values)
        if self.whole:
            self.time_tril.copy_(_correlation_tril(scores.flatten(1), known.flatten(1)))
        else:
            across = scores.transpose(1, 2).flatten(0, 1), known.transpose(1, 2).flatten(0, 1)
            self.time_tril.copy_(_correlation_tril(*across))
            self.channel_tril.copy_(_correlation_tril(scores.flatten(0, 1), known.flatten(0, 1)))
        self.fitted.fill_(True)

    def sample(self, count: int) -> Float[Tensor, "count time channel"]:
        """Draw standardised residuals of ``count`` windows."""
        noise = torch.randn(count, len(self.channel_tril), len(self.time_tril))
        noise = (noise.to(self.time_tril) @ self.time_tril.T).mT @ self.channel_tril.T
        noise = noise.reshape(count, *self.shape)
        place = (noise / FURTHEST + 1).clamp(0, 2) * (QUANTILES - 1) / 2
        below = place.floor().clamp(max=QUANTILES - 2).long()
        channel = torch.arange(self.shape[1], device=noise.device)
        low, high = self.quantiles[below, channel], self.quantiles[below + 1, channel]
        return torch.lerp(low, high, place - below)

    def given(
        self,
        residuals: Float[Tensor, "draws window time channel"],
        seen: Bool[Tensor, "window time channel"],
    ) -> tuple[Float[Tensor, "draws window time channel"], Float[Tensor, "window time channel"]]:
        """Return mean and standard deviation of all standardised residuals, given those seen.

        Args:
            residuals: Of the values seen; the others may hold anything.
            seen: Which count.
        """
        correlation = self.time_tril @ self.time_tril.T
        there = seen.flatten(1).to(correlation)
        both = there.unsqueeze(-1) * there.unsqueeze(-2)
        nugget = LEAST_VARIANCE * there + 1 - there
        among = correlation * both + torch.diag_embed(nugget)
        gain = torch.linalg.solve(among, correlation * there.unsqueeze(-1))  # seen × all
        errors = torch.where(seen, residuals, 0.0).flatten(2)
        loc = (errors.transpose(0, 1) @ gain).transpose(0, 1)
        explained = (gain * correlation * there.unsqueeze(-1)).sum(-2)
        scale = (1 - explained).clamp(min=LEAST_VARIANCE).sqrt()
        return loc.unflatten(-1, self.shape), scale.unflatten(-1, self.shape)


def _quantiles(values: Float[Tensor, " value"]) -> Float[Tensor, " quantile"]:
    """Return the values at evenly spaced Normal scores; tails are as fine as the middle."""
    ordered = values.sort().values
    scores = torch.linspace(-FURTHEST, FURTHEST, QUANTILES, dtype=torch.float64)
    place = torch.special.ndtr(scores) * len(ordered) - 0.5
    place = place.clamp(0, len(ordered) - 1)
    below = place.floor().clamp(max=len(ordered) - 2).long()
    return torch.lerp(ordered[below], ordered[below + 1], (place - below).to(ordered))


def _normal_scores(values: Float[Tensor, " value"]) -> Float[Tensor, " value"]:
    """Return the standard Normal numbers of the same ranks."""
    ranks = values.argsort(stable=True).argsort(stable=True).double()
    return torch.special.ndtri((ranks + 0.5) / len(values)).to(values)


def _correlation_tril(
    scores: Float[Tensor, "example value"], known: Bool[Tensor, "example value"]
) -> Float[Tensor, "value value"]:
    """Return the Cholesky factor of the correlation, each pair from where both are known."""
    there = known.double()
    present = torch.where(known, scores, 0.0).double()
    pairs = there.T @ there
    moments = (present.T @ present) / pairs.clamp(min=1)
    scale = moments.diagonal().sqrt().clamp(min=LEAST_EIGENVALUE)
    moments = torch.where(pairs > 0, moments / scale / scale[:, None], 0.0)
    moments.fill_diagonal_(1.0)
    eigenvalues, vectors = torch.linalg.eigh(moments)  # from unlike examples: may be indefinite
    eigenvalues = eigenvalues.clamp(min=LEAST_EIGENVALUE * float(eigenvalues.max()))
    definite = vectors * eigenvalues @ vectors.T
    scale = definite.diagonal().sqrt()
    return torch.linalg.cholesky(definite / scale / scale[:, None]).to(scores)


def _use(
    draws: Float[Tensor, "window latent"], means: Float[Tensor, "window latent"]
) -> Float[Tensor, " latent"]:
    """Return how far each latent is from the prior: what it says of windows, and in all."""
    return means.var(0) + draws.mean(0).square() + (draws.var(0) - 1).square()


def _even_points(count: int, dimensions: int) -> Float[Tensor, "count dimension"]:
    """Return scrambled Sobol points inside the unit cube, in random order."""
    seed = int(torch.randint(2**31, ()))
    engine = torch.quasirandom.SobolEngine(dimensions, scramble=True, seed=seed)
    points = engine.draw(count, dtype=torch.float64)[torch.randperm(count)]
    return points.clamp(1e-6, 1 - 1e-6)


def _held_out(count: int) -> np.ndarray:
    """A tenth of the windows, in stretches at the end of every tenth of them."""
    stretch = max(count // HELD_OUT, 2)
    return np.arange(count) % stretch >= int(0.9 * stretch)


def _affordable(values: np.ndarray) -> int:
    """As many Normals as there are twice their dimensions of windows for each."""
    return max(1, len(values) // (2 * values.shape[1]))
