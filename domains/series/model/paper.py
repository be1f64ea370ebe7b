"""The Koopman VAE as it was published: recurrent, with an operator by least squares; no bound."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from core.runtime import methods
from core.variational.distributions import DiagonalNormal
from core.variational.estimators import REPARAMETERISED, Estimator
from core.variational.evidence import Evidence, Latent, per_draw
from domains.series.config import Config
from domains.series.config import PaperKoopmanVAE as PaperKoopmanVAESection
from domains.series.data import Dataset, Windows
from domains.series.model.base import SeriesModel, Spectrum
from domains.series.model.latents import evidence_of

RIDGE = 1e-9  # of the mean squared latent: what keeps the normal equations solvable
PATHS = 4096  # prior paths behind the reported operator


class PaperKoopmanVAE(SeriesModel):
    r"""Naiman et al.'s Koopman VAE for regular series, to compare with.

    .. math:: q(z_t \mid x) = \mathcal N(\mu_t(x), \sigma_t^2(x)), \quad
        z^p_t \sim \mathcal N(m_t(z^p_{<t}), s_t^2(z^p_{<t})), \quad
        A = \arg\min_A \sum_t \|z^p_{t+1} - z^p_t A\|^2

    The encoder is a bidirectional GRU with batch normalisation, the prior a GRU cell rolled out on
    draws of its own, the decoder a bidirectional GRU. The operator of each batch is fitted to the
    paths :math:`z^p` of the prior and its error, divided by the norm of all that it predicts, is
    the penalty ``prediction``, so that the prior becomes predictable by a linear map. The
    published loss is :math:`w_r \|x - \hat x\|^2 + w_k KL + w_p P`; it is :math:`w_k` times that
    of ``likelihood: normal`` with variance :math:`w_k / 2 w_r`, no weight of the KL, and
    ``prediction_weight`` :math:`w_p / w_k`. Or set ``objective.beta`` and that variance to 1/2.

    **Its value is no bound.** The KL compares the posterior at :math:`t` with the prior given the
    past of the *prior's* path, not of the posterior's draw. So averaged it is an upper bound of
    the KL of each step by itself, and says nothing of how steps hang together: the value bounds
    the likelihood of another model, whose steps are independent given a path, not that of the one
    that generates. `Evidence.joint` is therefore False and no objective claims a bound.

    Of the published code these faults are not reproduced: terms overwritten in place by their
    total; a batch size that counts values, which makes the weights of series with gaps others; a
    time-reversed loader; the operator by QR of single precision. Deviations: missing values enter
    as zeros beside their mask in place of a neural controlled differential equation; padding is
    skipped; the normal equations are solved in double precision (``lstsq`` is not repeatable bit
    by bit). Spacing in time is not looked at: a step is a row.

    References:
        Naiman, Erichson, Ren, Mahoney and Azencot, "Generative Modeling of Regular and Irregular
        Time Series Data via Koopman VAEs", ICLR 2024 (arXiv:2310.02619).

    Args:
        channels: Channels of a series.
        latent: Latents of a step.
        hidden: Units of each GRU.
        layers: Layers of encoder and decoder.
        prediction_weight: Weight of the penalty.
        steps: How many steps ahead the operator is asked to predict; their mean is the penalty.
        noise: Whether generated windows bear the likelihood's noise; published ones are its means.
        likelihood: From ``2 * hidden`` features of a step to the distribution of its values.
        estimator: How latents are drawn in training.
    """

    likelihood: Any

    def __init__(
        self,
        channels: int,
        latent: int,
        hidden: int,
        layers: int,
        prediction_weight: float,
        steps: int,
        noise: bool,
        likelihood: nn.Module,
        estimator: Estimator = REPARAMETERISED,
    ) -> None:
        super().__init__()
        self.prediction_weight, self.steps, self.noise = prediction_weight, steps, noise
        self.encoder = _bidirectional(2 * channels, hidden, layers)
        self.norm = nn.BatchNorm1d(2 * hidden)
        self.loc, self.log_variance = nn.Linear(2 * hidden, latent), nn.Linear(2 * hidden, latent)
        self.prior = RecurrentPrior(latent, hidden)
        self.decoder = _bidirectional(latent, hidden, layers)
        self.likelihood, self.estimator = likelihood, estimator

    def evidence(self, batch: Windows, samples: int = 1) -> Evidence:
        """What the model says of the targets of a batch, from ``samples`` posterior draws."""
        shape = (samples * len(batch), batch.times.shape[1])
        prior, paths = self.prior(*shape, like=batch.values)
        prior = DiagonalNormal(
            prior.loc.unflatten(0, (samples, -1)), prior.scale.unflatten(0, (samples, -1)), 2
        )
        posterior = self.posterior(batch)
        if not batch.present.all():
            posterior, prior = (
                without_padding(each, batch.present) for each in (posterior, prior)
            )
        latent = Latent.draw("z", posterior, prior, samples, self.estimator)
        error = prediction_error(paths, self.steps).unflatten(0, (samples, -1)).mean(0)
        return evidence_of(
            batch,
            self.decode(latent.value, batch.present),
            latent,
            penalties={"prediction": self.prediction_weight * error},
            joint=False,
        )

    def posterior(self, batch: Windows) -> DiagonalNormal:
        """Return the posterior of the path given what is seen, independent at each step."""
        seen = batch.seen.to(batch.values)
        steps = torch.cat([batch.values * seen, seen], -1)
        hidden = recur(self.encoder, steps, batch.present)
        # The statistics of a batch are those of the rows that are there.
        normed = torch.zeros_like(hidden)
        normed[batch.present] = self.norm(hidden[batch.present])
        return DiagonalNormal(self.loc(normed), (0.5 * self.log_variance(normed)).exp(), 2)

    def decode(
        self, z: Float[Tensor, "draws batch time latent"], present: Bool[Tensor, "batch time"]
    ) -> Distribution:
        """Return the distribution of each value."""
        present = present.repeat(len(z), 1)
        return self.likelihood(per_draw(lambda each: recur(self.decoder, each, present), z))

    def predictive(self, batch: Windows, samples: int) -> Distribution:
        """Return the distribution of each value given those seen, one part for each draw."""
        z = self.posterior(batch).sample(torch.Size((samples,)))
        return self.decode(z, batch.present)

    def generative(self, times: Float[Tensor, "count time"]) -> Distribution:
        """Return the distribution of each value of new windows, one draw of the prior a window."""
        _, paths = self.prior(*times.shape, like=times)
        hidden = recur(self.decoder, paths, torch.ones_like(times, dtype=torch.bool))
        return self.likelihood(hidden)

    def draw_windows(
        self, times: Float[Tensor, "count time"]
    ) -> Float[Tensor, "count time channel"]:
        """Draw windows: means of the decoder, as published, unless ``noise`` is set."""
        likelihood = self.generative(times)
        return likelihood.sample() if self.noise else likelihood.mean

    @torch.no_grad()
    def spectrum(self, batches: Iterable[Windows]) -> Spectrum:
        """Return the modes of the operator fitted on new paths of the prior.

        The prior is not told of any data; the batches only say how long a path is.
        """
        first = next(iter(batches))
        _, paths = self.prior(PATHS, first.times.shape[1], like=first.values)
        return modes(paths)


class RecurrentPrior(nn.Module):
    r"""A GRU cell that reads its own draws; the first step is drawn from what it says of zeros.

    Args:
        latent: Latents of a step.
        hidden: Units.
    """

    def __init__(self, latent: int, hidden: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(latent, hidden)
        self.loc, self.log_variance = nn.Linear(hidden, latent), nn.Linear(hidden, latent)

    def forward(
        self, count: int, time: int, like: Tensor
    ) -> tuple[DiagonalNormal, Float[Tensor, "count time latent"]]:
        """Return the distribution of each step given the path so far, and that path.

        Args:
            count: Paths.
            time: Steps of each.
            like: A tensor of the type and device wanted.
        """
        noise = torch.randn(
            time, count, self.loc.out_features, dtype=like.dtype, device=like.device
        )
        z, h, rolled = torch.zeros_like(noise[0]), None, []
        for step in noise:
            h = self.cell(z, h)
            loc, scale = self.loc(h), (0.5 * self.log_variance(h)).exp()
            z = torch.addcmul(loc, scale, step)
            rolled.append((loc, scale, z))
        loc, scale, path = (torch.stack(each, 1) for each in zip(*rolled, strict=True))
        return DiagonalNormal(loc, scale, 2), path


def least_squares(
    past: Float[Tensor, "row latent"], future: Float[Tensor, "row latent"]
) -> Float[Tensor, "latent latent"]:
    r"""Return the operator :math:`A` that minimises :math:`\|\text{past} A - \text{future}\|^2`.

    Rows are states, so it acts from the right. By the normal equations, in double precision and
    with a ridge of a billionth of the mean square.

    Example:
        >>> states = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> least_squares(states, states @ torch.tensor([[0.5, 0.1], [0.2, 0.9]]))
        tensor([[0.5000, 0.1000],
                [0.2000, 0.9000]])
    """
    wide = past.double()
    gram = wide.mT @ wide
    ridge = RIDGE * gram.diagonal().mean() + torch.finfo(torch.float64).tiny
    gram = gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram, wide.mT @ future.double()).to(past)


def prediction_error(
    paths: Float[Tensor, "path time latent"], steps: int
) -> Float[Tensor, " path"]:
    r"""Return how badly the paths' own linear operator predicts each of them.

    .. math:: \frac{1}{n} \sum_{k=1}^{n}
        \frac{\operatorname{mean} (z_{t+k} - z_t A^k)^2}{\|z A^k\|_F}

    The numerator is a path's mean, the norm that of all paths together, as published: the mean
    over the paths is their mean squared error by the norm. :math:`A` is fitted on one step.

    Args:
        paths: Of more rows than ``steps``.
        steps: How far ahead, :math:`n`.

    Raises:
        ValueError: If the paths are too short.
    """
    if paths.shape[1] <= steps:
        raise ValueError(
            f"prediction_error: {steps} steps ahead in paths of {paths.shape[1]} rows; a path "
            "needs one row more"
        )
    past, future = paths[:, :-1], paths[:, 1:]
    operator = least_squares(past.flatten(0, 1), future.flatten(0, 1))
    errors, predicted = [], paths
    for step in range(1, steps + 1):
        predicted = predicted[:, :-1] @ operator
        error = (predicted - paths[:, step:]).square().mean((1, 2))
        errors.append(error / predicted.norm())
    return torch.stack(errors).mean(0)


def modes(paths: Float[Tensor, "path time latent"]) -> Spectrum:
    r"""Return the modes of the operator fitted to paths, the strongest first.

    :math:`A = V \Lambda V^{-1}` splits a row :math:`z = \sum_j (z V)_j V^{-1}_j` into its parts
    along the modes; a mode's energy is the mean square of its part, and those of a complex pair
    count as one mode.
    """
    operator = least_squares(paths[:, :-1].flatten(0, 1), paths[:, 1:].flatten(0, 1)).double()
    eigenvalues, vectors = torch.linalg.eig(operator)
    amplitude = (paths.to(vectors) @ vectors).abs().square().mean((0, 1))
    strength = amplitude * torch.linalg.inv(vectors).abs().square().sum(1)
    strength = torch.where(eigenvalues.imag > 0, 2 * strength, strength)
    order = strength.argsort(descending=True)
    order = order[eigenvalues.imag[order] >= 0]
    eigenvalues, energy = eigenvalues[order], strength[order] / strength[order].sum()
    decay, turn = -eigenvalues.abs().log(), eigenvalues.angle()
    return Spectrum(
        eigenvalues=eigenvalues.to(torch.complex64),
        half_lives=torch.where(decay > 0, torch.log(torch.tensor(2.0)) / decay, torch.inf).float(),
        periods=torch.where(turn > 0, 2 * torch.pi / turn, torch.inf).float(),
        energy=energy.float(),
    )


def without_padding(normal: DiagonalNormal, present: Bool[Tensor, "batch time"]) -> DiagonalNormal:
    """Return the same path with standard Normal steps where there is only padding."""
    there = present.unsqueeze(-1)
    loc, scale = torch.where(there, normal.loc, 0), torch.where(there, normal.scale, 1)
    return DiagonalNormal(loc, scale, normal.event_dims)


def recur(
    network: nn.GRU,
    steps: Float[Tensor, "batch time feature"],
    present: Bool[Tensor, "batch time"],
) -> Float[Tensor, "batch time hidden"]:
    """Run a bidirectional GRU over the rows that are there, zeros elsewhere."""
    if bool(present.all()):
        return network(steps)[0]
    lengths = present.sum(1).clamp(min=1).cpu()
    packed = pack_padded_sequence(steps, lengths, batch_first=True, enforce_sorted=False)
    hidden, _ = network(packed)
    return pad_packed_sequence(hidden, batch_first=True, total_length=steps.shape[1])[0]


def build(config: Config, dataset: Dataset) -> PaperKoopmanVAE:
    """A new, initialised model for a dataset; its means end in a sigmoid for min-max data."""
    section = config.model
    assert isinstance(section, PaperKoopmanVAESection)
    channels = len(dataset.channels)
    likelihood = methods.build_likelihood(
        config.likelihood, 2 * section.hidden, channels, event_dims=0
    )
    if config.data.scaling == "min-max":
        likelihood.head = BoundedHead(likelihood.head, channels)
    return PaperKoopmanVAE(
        channels=channels,
        **section.model_dump(exclude={"kind"}),
        likelihood=likelihood,
        estimator=methods.build_estimator(config.estimator),
    )


class BoundedHead(nn.Module):
    """A likelihood's head whose locations lie in (0, 1).

    Args:
        head: Gives locations, and after them whatever else the likelihood wants.
        outputs: How many locations.
    """

    def __init__(self, head: nn.Module, outputs: int) -> None:
        super().__init__()
        self.head, self.outputs = head, outputs

    def forward(self, features: Tensor) -> Tensor:
        """Return what the head gives, its locations squashed."""
        raw = self.head(features)
        return torch.cat([raw[..., : self.outputs].sigmoid(), raw[..., self.outputs :]], -1)


def _bidirectional(inputs: int, hidden: int, layers: int) -> nn.GRU:
    return nn.GRU(inputs, hidden, layers, batch_first=True, bidirectional=True)
