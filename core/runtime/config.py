"""The settings of a run: strict sections, strict YAML, and where each value came from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Objective(Section):
    """What is maximised."""

    kind: Literal["elbo", "iwae"] = "elbo"
    samples: PositiveInt = 1
    beta: NonNegativeFloat = 1.0
    warmup: Fraction = 0.0
    free_bits: NonNegativeFloat = 0.0
    weights: dict[str, NonNegativeFloat] = {}


class Training(Section):
    """How it is maximised."""

    epochs: PositiveInt = 100
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.0
    decay: Literal["constant", "cosine"] = "constant"
    warmup: Fraction = 0.0
    clip_norm: PositiveFloat | None = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    precision: Literal["32-true", "64-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: bool = False
    monitor: str = "elbo"
    direction: Literal["higher", "lower"] = "higher"
    validate_every: PositiveInt = 1
    patience: PositiveInt | None = None
    checkpoint_every: PositiveInt = 1
    log_every: PositiveInt = 1


class Evaluation(Section):
    """How the result is measured."""

    samples: PositiveInt = 64
    bootstrap: PositiveInt = 1000


class Compute(Section):
    """Where it runs."""

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: PositiveInt = 1
    nodes: PositiveInt = 1
    threads: PositiveInt | None = None
    deterministic: bool = True


class Settings(Section):
    """All settings of a run; a domain adds its ``data`` and ``model`` sections."""

    domain: str
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    objective: Objective = Objective()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    compute: Compute = Compute()
