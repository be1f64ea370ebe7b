"""The settings of a run on time series."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from core.runtime.config import Section, Settings, Training
from core.runtime.methods import AnyLikelihood, AnyPosterior, AnyPrior, misfit_of_latents
from core.runtime.methods.latents import DiagonalNormal, Normal, StandardNormal

Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Times = Annotated[tuple[PositiveFloat, PositiveFloat], Field(description="shortest and longest")]


class Hide(Section):
    """Which known values are hidden from every model, to see how well they are found again.

    Args:
        kind: ``mcar`` hides values completely at random, ``mar`` where another channel is large,
            ``mnar`` where the value itself is large, ``block`` stretches of one channel, ``rows``
            all channels of a row.
        fraction: Share of the values (or rows) that is hidden.
        length: Rows of a hidden block.
    """

    kind: Literal["none", "mcar", "mar", "mnar", "block", "rows"] = "none"
    fraction: Fraction = 0.5
    length: PositiveInt = 10


class Data(Section):
    """Where the series come from and how they are cut into windows.

    Args:
        source: ``sines`` and ``oscillator`` (ring-downs of three known modes) are generated,
            ``google-stock`` comes with an installed package, ``file`` is read from ``path``.
            Simulated, each path a window: ``fbm`` (fractional Brownian motion), ``ou``
            (Ornstein–Uhlenbeck), ``random-sines``; and whole lives of devices, of which some fail
            early: ``laser-ageing``.
        path: The file to read: CSV (.gz too), parquet, .ts, .npz or NetCDF.
        time: Its time column, or those that make up one time (``year+month``); null finds it,
            ``""`` says that there is none.
        identifier: Its column of series' names; null finds it, ``""`` says that there is none.
        values: Its value columns; null takes every other numeric one.
        label: Its column of anomaly labels (0 or 1), which no model sees; null finds one that is
            called so, ``""`` says that there is none.
        na_values: Numbers that stand for missing, such as -200.
        merge: What to do with rows of the same time; null refuses them.
        zone: Time zone of times that do not say theirs, or to which mixed ones are brought.
        windows: Windows to generate; of what is read at most so many, spread evenly.
        window: Rows in a window.
        stride: Rows between the starts of two windows.
        spacing: Whether times as a model sees them are the clock's (even where they nearly are, as
            months), or each row is one step (``rows``); null takes ``rows`` for ``google-stock``,
            whose rows are trading days, else the clock.
        pad: Whether a series shorter than the window is padded instead of refused.
        scaling: What each channel is divided by, fitted on the train part.
        logarithms: Channels of positive values of which ratios count, not differences: they are
            modelled by their logarithms.
        split: ``chronological`` cuts each series by time, ``series`` assigns whole series,
            ``windows`` trains and tests on all windows alike, which is TimeGAN's protocol.
        valid_fraction: Share of the rows, or series, to choose a model with.
        test_fraction: Share of the rows, or series, to test on, once.
        hide: Which known values are hidden.
    """

    source: Literal[
        "sines",
        "oscillator",
        "google-stock",
        "fbm",
        "ou",
        "random-sines",
        "laser-ageing",
        "file",
    ] = "google-stock"
    path: str | None = None
    time: str | None = None
    identifier: str | None = None
    values: tuple[str, ...] | None = None
    label: str | None = None
    na_values: tuple[float, ...] = ()
    merge: Literal["mean", "first", "last"] | None = None
    zone: str | None = None
    windows: PositiveInt | None = None
    window: Annotated[int, Field(ge=2)] = 24
    stride: PositiveInt = 1
    spacing: Literal["clock", "rows"] | None = None
    pad: bool = False
    scaling: Literal["standard", "min-max", "robust"] = "standard"
    logarithms: tuple[str, ...] = ()
    split: Literal["chronological", "series", "windows"] = "chronological"
    valid_fraction: Share = 0.1
    test_fraction: Share = 0.2
    hide: Hide = Hide()

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> Data:
        if (self.source == "file") != (self.path is not None):
            raise ValueError(
                f"source {self.source!r} and path {self.path!r}: source 'file' needs a path, the "
                "others have none"
            )
        if self.valid_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"valid_fraction {self.valid_fraction} and test_fraction {self.test_fraction} "
                "leave nothing to train on"
            )
        return self


class Generate(Section):
    """Explain whole windows, to draw new ones.

    Args:
        protocol: ``timegan`` is the discriminative and predictive score of Yoon et al. (2019);
            ``strict`` adds a judge that is stronger and looks at windows held out from it.
        judges: How many judges with seeds of their own; 0 leaves their scores out.
        windows: How many windows to generate for the scores, at most as many as are real.
    """

    kind: Literal["generate"] = "generate"
    protocol: Literal["timegan", "strict"] = "strict"
    judges: NonNegativeInt = 3
    windows: PositiveInt = 10000


class Impute(Section):
    """Explain hidden values given the others; trained by hiding more of what is known.

    Args:
        hide: Share of the known values that each training step hides, and that the test hides
            where ``data.hide`` hides none.
        pattern: What training hides: single values, whole rows, stretches of single channels or of
            all, or each of these in a quarter of the windows. Whoever knows what will be missing
            does best to train on that.
        samples: Draws behind a predictive distribution.
    """

    kind: Literal["impute"] = "impute"
    hide: Share = 0.25
    pattern: Literal["mixed", "points", "rows", "stretches", "stretches of rows"] = "mixed"
    samples: PositiveInt = 32


class Forecast(Section):
    """Explain the last rows of a window given the others.

    Args:
        horizon: How many rows.
        samples: Draws behind a predictive distribution.
    """

    kind: Literal["forecast"] = "forecast"
    horizon: PositiveInt = 24
    samples: PositiveInt = 32


Task = Annotated[Generate | Impute | Forecast, Field(discriminator="kind")]


class Dynamics(Section):
    """Linear dynamics of the latents, one complex number for each pair of them."""

    spectrum: Literal["stable", "circle", "real"] = Field(
        default="stable", description="where the eigenvalues may lie"
    )
    half_lives: Times = Field(
        default=(1.0, 100.0), description="shortest and longest half-life to start with, in steps"
    )
    periods: Times = Field(
        default=(4.0, 100.0), description="shortest and longest period to start with, in steps"
    )


class KoopmanVAE(Section):
    """Latents under linear (Koopman) dynamics in closed form; its value is a bound."""

    kind: Literal["koopman-vae"] = "koopman-vae"
    latent: PositiveInt = Field(default=16, description="latents of a step")
    dynamics: Dynamics = Dynamics()
    network: Literal["mlp", "convolution", "linear"] = Field(
        default="mlp",
        description="mlp sees a window of fixed length at once, with a linear-dynamics prior each "
        "step by itself; convolution any length; linear is for that prior alone, whose posterior "
        "is then exact if it is 'gauss-markov' and the likelihood Normal",
    )
    hidden: PositiveInt = 256
    layers: PositiveInt = 3
    features: PositiveInt = Field(
        default=16, description="numbers of a step that the likelihood reads"
    )
    relative: Literal["network", "level", "scale"] = Field(
        default="level",
        description="to impute and forecast: what knows a channel relative only to what is seen "
        "of it in the window: with network the networks, while its mean and others' values count "
        "linearly; with level the whole prediction, with scale its spread too",
    )


class PaperKoopmanVAE(Section):
    """Naiman et al.'s: recurrent networks and prior, an operator by least squares; no bound.

    Their loss, a sum of squares and weights of KL and prediction, is this one times the weight of
    the KL if the likelihood is Normal of variance half that weight.
    """

    kind: Literal["koopman-vae-paper"] = "koopman-vae-paper"
    latent: PositiveInt = 16
    hidden: PositiveInt = 20
    layers: PositiveInt = 3
    prediction_weight: NonNegativeFloat = Field(
        default=0.7, description="weight of the linear prediction error; published 0.005 of 0.007"
    )
    steps: PositiveInt = Field(default=1, description="how many steps ahead it predicts")
    noise: bool = Field(
        default=False, description="whether generated windows bear the likelihood's noise"
    )


class TVINR(Section):
    """A decoder that is continuous in time, its weights made from the latent (TV-INR)."""

    kind: Literal["tv-inr"] = "tv-inr"
    latent: PositiveInt = 32
    hidden: PositiveInt = 128
    frequencies: PositiveInt = Field(
        default=24, description="sines that the time is seen through: half-turns in a window"
    )
    width: PositiveInt = Field(default=32, description="units of the decoder made for each window")


class ProcessVAE(Section):
    """A few latents for a whole path and an autoregressive decoder: what a process depends on."""

    kind: Literal["process-vae"] = "process-vae"
    latent: PositiveInt = 6
    hidden: PositiveInt = 64
    memory: PositiveInt = Field(default=8, description="past values that the decoder sees")
    increments: bool = Field(
        default=True, description="whether only differences count: the process has no level"
    )


class DegradationCVAE(Section):
    """Windows given where in its life a device is and how it is run; large surprise is failure."""

    kind: Literal["degradation-cvae"] = "degradation-cvae"
    latent: PositiveInt = 8
    hidden: PositiveInt = 64
    features: PositiveInt = Field(
        default=16, description="numbers of a step that the likelihood reads"
    )
    conditions: tuple[str, ...] = Field(
        default=(), description="channels that say how it is run, which are given, not explained"
    )
    age: bool = Field(
        default=True, description="whether it is told the rows since the series began"
    )


Model = Annotated[
    KoopmanVAE | PaperKoopmanVAE | TVINR | ProcessVAE | DegradationCVAE,
    Field(discriminator="kind"),
]


class NoDensity(Section):
    """Latents are drawn from the prior."""

    kind: Literal["none"] = "none"


class MixtureDensity(Section):
    """A mixture of Normals over the latents in use, fitted to the aggregated posterior.

    Of a Koopman VAE that generates, with innovations as latents; others draw from their prior.
    """

    kind: Literal["mixture"] = "mixture"
    dimensions: PositiveInt = Field(
        default=32, description="at most so many latents, most used first"
    )
    components: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = Field(
        default=(8, 16, 32, 64), description="how many Normals; held-out likelihood chooses"
    )
    active: PositiveFloat = Field(
        default=0.02, description="KL in nats from which a latent is in use"
    )


Density = Annotated[NoDensity | MixtureDensity, Field(discriminator="kind")]


class SeriesTraining(Training):
    """How it is maximised."""

    epochs: PositiveInt = Field(default=100, description="passes over the train windows")
    batch: PositiveInt = Field(default=256, description="windows in a step")
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    learning_rate: PositiveFloat = Field(default=2e-3, description="step size after the warm-up")
    decay: Literal["constant", "cosine"] = Field(
        default="cosine", description="what the learning rate does after the warm-up"
    )
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.1,
        description="fraction of the training over which the learning rate grows from 0",
    )
    clip_norm: PositiveFloat | None = Field(
        default=10.0, description="largest norm of the gradient"
    )
    validate_every: PositiveInt = Field(default=10, description="epochs between validations")
    checkpoint_every: PositiveInt = Field(default=500, description="steps between checkpoints")
    log_every: PositiveInt = Field(default=20, description="steps between rows of the history")


class Config(Settings):
    """The settings of a run on time series."""

    domain: Literal["series"] = "series"
    data: Data = Data()
    task: Task = Generate()
    model: Model = KoopmanVAE()
    posterior: AnyPosterior = DiagonalNormal()
    prior: AnyPrior = StandardNormal()
    likelihood: AnyLikelihood = Normal(scale=0.3, learned="predicted", floor=0.003)
    density: Density = MixtureDensity()
    training: SeriesTraining = SeriesTraining()

    @model_validator(mode="after")
    def _horizon_leaves_a_past(self) -> Config:
        if self.task.kind == "forecast" and self.task.horizon >= self.data.window:
            raise ValueError(
                f"task.horizon {self.task.horizon} and data.window {self.data.window}: a window "
                "holds past and horizon; make data.window larger"
            )
        return self

    @model_validator(mode="after")
    def _latents_fit_the_series(self) -> Config:
        reason = _refused(self) or misfit_of_latents(self.posterior, self.prior)
        if reason is not None:
            raise ValueError(reason)
        return self


REAL = ("normal", "sigma-vae", "laplace", "student-t")
STRUCTURED = ("diagonal-normal", "markov", "gauss-markov")


def _refused(config: Config) -> str | None:
    """Why the model cannot have this posterior, prior or likelihood, or None where it can."""
    if config.likelihood.kind not in REAL:
        return (
            f"likelihood.kind {config.likelihood.kind!r}: values of series are real numbers; use "
            f"one of {', '.join(REAL)}"
        )
    return _refused_paper(config) or _refused_dynamics(config) or _refused_conditional(config)


def _refused_paper(config: Config) -> str | None:
    """Why the published model cannot be had so, or None where it can."""
    if config.model.kind != "koopman-vae-paper":
        return None
    if config.posterior.kind != "diagonal-normal":
        return (
            f"posterior.kind {config.posterior.kind!r} and model.kind 'koopman-vae-paper': its "
            "posterior is 'diagonal-normal'; use that, or model.kind 'koopman-vae'"
        )
    if config.prior.kind != "standard-normal":
        return (
            f"prior.kind {config.prior.kind!r} and model.kind 'koopman-vae-paper': its prior is a "
            "recurrent network of its own; leave prior out, or use model.kind 'koopman-vae'"
        )
    return None


def _refused_dynamics(config: Config) -> str | None:
    """Why a Koopman VAE and a prior of linear dynamics do not go together, None where they do."""
    structured = config.prior.kind == "linear-dynamics"
    if structured and config.model.kind != "koopman-vae":
        return (
            f"prior.kind 'linear-dynamics' and model.kind {config.model.kind!r}: only "
            "'koopman-vae' has a sequence of latents; use it, or another prior"
        )
    if config.model.kind == "koopman-vae" and config.model.network == "linear" and not structured:
        return (
            f"model.network 'linear' and prior.kind {config.prior.kind!r}: set prior.kind to "
            "'linear-dynamics', or use network 'mlp'"
        )
    if structured and config.posterior.kind not in STRUCTURED:
        return (
            f"posterior.kind {config.posterior.kind!r} with prior.kind 'linear-dynamics': use one "
            f"of {', '.join(STRUCTURED)}"
        )
    return None


def _refused_conditional(config: Config) -> str | None:
    """Why values given others cannot be predicted so, or None where they can."""
    of_task = config.task.kind != "generate" and config.prior.kind != "linear-dynamics"
    if config.model.kind != "koopman-vae" or not of_task:
        return None
    task = f"task.kind {config.task.kind!r}"
    if config.prior.kind != "standard-normal":
        return (
            f"prior.kind {config.prior.kind!r} and {task}: the prior is a Normal made from what "
            "is seen; leave prior out, or use 'linear-dynamics'"
        )
    if config.posterior.kind != "diagonal-normal":
        return (
            f"posterior.kind {config.posterior.kind!r} and {task}: the posterior is made relative "
            "to the prior given what is seen; use 'diagonal-normal'"
        )
    if config.model.relative == "scale" and config.likelihood.kind == "sigma-vae":
        return (
            "model.relative 'scale' and likelihood.kind 'sigma-vae': its scale is one for all "
            "windows; use 'laplace' with learned: predicted, or relative 'level'"
        )
    return None


CONFIG = Config
