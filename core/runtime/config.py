"""The settings of a run: strict sections, strict YAML, and where each value came from.

A domain's settings are a subclass of `Settings` with sections of its own. A section with several
kinds is a union discriminated by ``kind``. Defaults live in the sections and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic_core import to_jsonable_python

from core.runtime.errors import UserError, did_you_mean
from core.runtime.methods import (
    ELBO,
    AnyEstimator,
    AnyObjective,
    AnySchedule,
    Constant,
    Reparameterised,
    misfit,
)
from core.runtime.mistakes import Mistake, report, translate
from core.runtime.sections import (
    Section,
    annotation_of,
    choose,
    default_of,
    field_names,
    kinds,
    sections_in,
)
from core.runtime.strict_yaml import KeyPath, dotted, dump_yaml, parse_yaml, read_yaml, shown

logger = logging.getLogger(__name__)

Fraction = Annotated[float, Field(ge=0, le=1)]
FractionOfTraining = Annotated[float, Field(ge=0, lt=1)]


class Training(Section):
    """How it is maximised."""

    epochs: PositiveInt = Field(default=100, description="passes over the training examples")
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: PositiveFloat = Field(default=1e-3, description="step size after the warm-up")
    weight_decay: NonNegativeFloat = 0.0
    decay: Literal["constant", "cosine"] = Field(
        default="constant", description="what the learning rate does after the warm-up"
    )
    warmup: FractionOfTraining = Field(
        default=0.0,
        description="fraction of the training over which the learning rate grows from 0",
    )
    clip_norm: PositiveFloat | None = Field(
        default=None, description="largest norm of the gradient"
    )
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="decay per step of the averaged weights that are evaluated"
    )
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: bool = Field(default=False, description="whether torch compiles the model")
    monitor: str = Field(
        default="elbo", description="validation score that chooses the checkpoint"
    )
    direction: Literal["higher", "lower"] = Field(
        default="higher", description="which way the monitored score is better"
    )
    validate_every: PositiveInt = Field(default=1, description="epochs between validations")
    patience: PositiveInt | None = Field(
        default=None, description="validations without a better score before the training stops"
    )
    checkpoint_every: PositiveInt = Field(default=1, description="steps between checkpoints")
    log_every: PositiveInt = Field(default=1, description="steps between rows of the history")

    @model_validator(mode="after")
    def _stops_on_what_it_measures(self) -> Training:
        if self.patience is not None and self.validate_every > self.epochs:
            raise ValueError(
                f"patience needs a validation, but validate_every ({self.validate_every}) "
                f"is more than epochs ({self.epochs})"
            )
        if self.monitor == "elbo" and self.direction == "lower":
            raise ValueError("direction 'lower' with monitor 'elbo': a higher elbo is better")
        return self


class Evaluation(Section):
    """How the result is measured."""

    samples: PositiveInt = Field(default=64, description="importance samples per example")
    bootstrap: PositiveInt = Field(default=1000, description="resamples behind each interval")


class Compute(Section):
    """Where it runs."""

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: PositiveInt = Field(default=1, description="devices on each node")
    nodes: PositiveInt = 1
    threads: PositiveInt | None = Field(
        default=None, description="CPU threads; null leaves it to torch"
    )
    deterministic: bool = Field(
        default=True, description="whether only repeatable algorithms are allowed"
    )


class Settings(Section):
    """All settings of a run; a domain adds its ``data`` and ``model`` sections."""

    domain: str
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)] = Field(
        description="names the run's folder; the file's name if left out"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        default=0, description="of every random number"
    )
    objective: AnyObjective = ELBO()
    schedule: AnySchedule = Constant()
    estimator: AnyEstimator = Reparameterised()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _precision_fits_the_device(self) -> Settings:
        if self.training.precision == "16-mixed" and self.compute.accelerator == "cpu":
            raise ValueError(
                "training.precision '16-mixed' needs a GPU, but compute.accelerator is 'cpu'; "
                "use 'bf16-mixed'"
            )
        return self

    @model_validator(mode="after")
    def _methods_go_together(self) -> Settings:
        reason = misfit(self.objective, self.schedule, self.estimator)
        if reason is not None:
            raise ValueError(reason)
        return self


SettingsT = TypeVar("SettingsT", bound=Settings)


def load_config(schema: type[SettingsT], path: Path, overrides: Sequence[str] = ()) -> SettingsT:
    """Read, override and validate the settings in a file.

    An override is ``section.key=value`` with the value in YAML; of two for one key the later wins.
    Overriding a ``kind`` drops the file's keys that only the old kind has, and logs which.

    Raises:
        UserError: With every mistake in the file and the overrides, each on a line of its own.
    """
    return _validated(schema, _gather(schema, path, overrides))


def load_settings(schema: type[SettingsT], path: Path) -> SettingsT:
    """Read complete settings that `dump_settings` wrote.

    Raises:
        UserError: If the file is missing or does not fit the schema.
    """
    return load_config(schema, path)


def read_domain(path: Path) -> str:
    """Read the ``domain`` key alone, before the schema of the rest is known.

    Raises:
        UserError: If the file cannot be read or has no such key.
    """
    document = read_yaml(path)
    value = document.value.get("domain") if isinstance(document.value, dict) else None
    if not isinstance(value, str):
        line = f":{document.lines[('domain',)]}" if ("domain",) in document.lines else ""
        got = f"expected a word, got {shown(value)}" if line else "missing; write 'domain: graph'"
        raise UserError(f"{path}{line}: domain: {got}")
    return value


def dump_settings(settings: Settings) -> str:
    """Return complete YAML: the same bytes for equal settings, the same bits when read back."""
    return dump_yaml(_plain(settings))


def settings_digest(settings: Settings) -> str:
    """Return the SHA-256 of the validated values, whatever their order and spelling."""
    return hashlib.sha256(json.dumps(_plain(settings), sort_keys=True).encode()).hexdigest()


def flat_settings(settings: Settings | Mapping[str, Any]) -> dict[str, Any]:
    """Return the values by dotted key; a list is one value.

    Example:
        >>> flat_settings({"seed": 1, "model": {"kind": "vgae"}})
        {'seed': 1, 'model.kind': 'vgae'}
    """
    tree = settings if isinstance(settings, Mapping) else _plain(settings)
    return {dotted(path): value for path, value in _leaves(tree)}


def differing_keys(
    a: Settings | Mapping[str, Any], b: Settings | Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Return the keys whose values differ, with both values; None where a side lacks the key."""
    left, right = flat_settings(a), flat_settings(b)
    keys = [*left, *(key for key in right if key not in left)]
    pairs = {key: (left.get(key), right.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if repr(pair[0]) != repr(pair[1])}


def default_values(schema: type[Settings], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of the kinds that these settings chose, by dotted key."""
    return {dotted(path): value for path, value in _leaves(_default_tree(schema, settings))}


def sources(schema: type[Settings], path: Path, overrides: Sequence[str] = ()) -> dict[str, str]:
    """Return where each value is from: ``file:line``, ``--set``, ``file name`` or ``default``."""
    given = _gather(schema, path, overrides)
    return {key: given.source(key) for key in flat_settings(_validated(schema, given))}


def show(schema: type[Settings], path: Path, overrides: Sequence[str] = ()) -> str:
    """Return the resolved, complete settings as YAML."""
    return dump_settings(load_config(schema, path, overrides))


def explain(schema: type[Settings], path: Path, key: str, overrides: Sequence[str] = ()) -> str:
    """Say what a key, or each key of a section, is set to and by which line.

    Raises:
        UserError: If there is no such key.
    """
    given = _gather(schema, path, overrides)
    tree = _plain(_validated(schema, given))
    values = flat_settings(tree)
    wanted = [name for name in values if name == key or name.startswith(f"{key}.")]
    lines = [
        *(_explained(schema, tree, name, given.source(name)) for name in wanted),
        *(note for name, note in given.dropped.items() if f"{name}.".startswith(f"{key}.")),
    ]
    if not lines:
        near = did_you_mean(key, [*values, *(name.rpartition(".")[0] for name in values)])
        raise UserError(f"{path}: no setting {key!r}{near}")
    return "\n".join(lines)


def schema(settings: type[Settings]) -> str:
    """Return the JSON schema of a domain's settings, for editors and forms."""
    return json.dumps(settings.model_json_schema(), indent=2, sort_keys=True)


@dataclass
class _Given:
    """What the file and the overrides say, before it is validated."""

    path: Path
    tree: dict[str, Any]
    where: dict[KeyPath, str]
    mistakes: list[Mistake] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)

    def source(self, key: str) -> str:
        """Where the value of a dotted key was written."""
        place = self.where.get(tuple(key.split(".")), "default")
        return "--set" if place.startswith("--set") else place


def _gather(schema: type[Settings], path: Path, overrides: Sequence[str]) -> _Given:
    document = read_yaml(path)
    tree = document.value if isinstance(document.value, dict) else {}
    where = {place: f"{path}:{line}" for place, line in document.lines.items()}
    given = _Given(path, tree, where)
    given.mistakes += [Mistake(f"{path}:{line}", text) for line, text in document.mistakes]
    for override in overrides:
        _override(schema, given, override)
    if "name" not in tree:
        tree["name"] = path.stem
        where[("name",)] = "file name"
    _complete(schema, tree)
    return given


def _validated(schema: type[SettingsT], given: _Given) -> SettingsT:
    """Validate as JSON: text is no number and ``true`` no 1, yet a list may become a tuple."""
    try:
        settings = schema.model_validate_json(json.dumps(given.tree), strict=True)
    except ValidationError as error:
        found = translate(schema, given.tree, given.where, str(given.path), error)
        raise report(str(given.path), [*given.mistakes, *found]) from error
    if given.mistakes:
        raise report(str(given.path), given.mistakes)
    return settings


def _override(schema: type[Settings], given: _Given, override: str) -> None:
    key, equals, text = (part.strip() for part in override.partition("="))
    place = f"--set {key}" if key else "--set"
    path = tuple(key.split("."))
    if not equals or not all(path) or not text:
        given.mistakes.append(
            Mistake(
                place,
                f"expected section.key=value, got {override!r}"
                + ("; for no value write 'null'" if equals and not text else ""),
            )
        )
        return
    document = parse_yaml(text, place)
    given.mistakes += [Mistake(place, sentence) for _, sentence in document.mistakes]
    if key == "domain" and document.value != given.tree.get("domain"):
        given.mistakes.append(Mistake(place, "the domain of a file cannot be changed"))
        return
    section = _section_at(given, place, path)
    if section is None:
        return
    if path[-1] == "kind":
        _drop_old_kind(schema, given, path[:-1], section, document.value)
    section[path[-1]] = document.value
    _forget(given, path)
    given.where[path] = place
    if isinstance(document.value, dict):
        given.where |= {(*path, *below): place for below, _ in _leaves(document.value)}


def _section_at(given: _Given, place: str, path: tuple[str, ...]) -> dict[str, Any] | None:
    """The mapping that holds the last part of a path, made where the file has none."""
    section = given.tree
    for length, part in enumerate(path[:-1], 1):
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            whole = dotted(path[:length])
            sentence = f"{whole!r} is {shown(section)} and holds no keys; set it as a whole"
            given.mistakes.append(Mistake(place, sentence))
            return None
    return section


def _drop_old_kind(
    schema: type[Settings], given: _Given, path: KeyPath, section: dict[str, Any], new: Any
) -> None:
    """Drop the file's keys that the old kind knows and the new one does not."""
    unions = annotation_of(schema, given.tree, path)
    default = _default_of_path(schema, given.tree, path)
    old_kind = section.get("kind", getattr(default, "kind", None))
    if len(unions) < 2 or old_kind == new or new not in kinds(unions):
        return
    old = field_names(choose(unions, {"kind": old_kind}))
    for name in (old - field_names(choose(unions, {"kind": new}))) & set(section):
        place = given.where[(*path, name)]
        if not place.startswith("--set"):
            del section[name]
            _forget(given, (*path, name))
            key = dotted((*path, name))
            note = (
                f"{key}: dropped ({place}); it belongs to kind {old_kind!r}, now {new!r} by --set"
            )
            given.dropped[key] = note
            logger.warning(note)


def _forget(given: _Given, path: KeyPath) -> None:
    for place in [place for place in given.where if place[: len(path)] == path]:
        del given.where[place]


def _default_of_path(schema: type[Settings], tree: Mapping[str, Any], path: KeyPath) -> Any:
    """The default of a section by its path, None where it has none."""
    owner = choose(annotation_of(schema, tree, path[:-1]), _value_at(tree, path[:-1]))
    return default_of(owner[0], str(path[-1])) if path and owner else None


def _value_at(tree: Any, path: KeyPath) -> Any:
    for part in path:
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def _complete(model: type[BaseModel], tree: dict[str, Any]) -> None:
    """Give a section written in part the rest of its default, which its class does not know.

    ``training: Training = Training(epochs=300)`` means 300 also where a file sets another key.
    """
    for name in model.model_fields:
        value = tree.get(name)
        if not isinstance(value, dict):
            continue
        classes = sections_in(model.model_fields[name].annotation)
        default = default_of(model, name)
        if isinstance(default, Section) and value.get(
            "kind", getattr(default, "kind", None)
        ) == getattr(default, "kind", None):
            _fill(value, default, with_kind=len(classes) > 1)
        chosen = choose(classes, value)
        if len(chosen) == 1:
            _complete(chosen[0], value)


def _fill(tree: dict[str, Any], default: Section, with_kind: bool) -> None:
    explicit = default.model_fields_set | ({"kind"} if with_kind else set())
    for name in explicit:
        value = getattr(default, name)
        if isinstance(value, Section) and isinstance(tree.get(name), dict):
            _fill(tree[name], value, with_kind=False)
        else:
            tree.setdefault(name, _plain(value))


def _default_tree(model: type[BaseModel], tree: Mapping[str, Any]) -> dict[str, Any]:
    defaults: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        default, value = default_of(model, name), tree.get(name)
        chosen = choose(sections_in(info.annotation), value)
        if len(chosen) == 1 and isinstance(value, Mapping):
            inner = _default_tree(chosen[0], value)
            if type(default) is chosen[0]:
                inner |= _plain(default)
            defaults[name] = inner
        elif not info.is_required():
            defaults[name] = _plain(default)
    return defaults


def _explained(schema: type[Settings], tree: dict[str, Any], key: str, source: str) -> str:
    path = tuple(key.split("."))
    owner = choose(annotation_of(schema, tree, path[:-1]), _value_at(tree, path[:-1]))
    info = owner[0].model_fields.get(path[-1]) if owner else None
    default, value = default_values(schema, tree).get(key, ...), flat_settings(tree)[key]
    parts = [f"{key} = {shown(value)}", f"from {source}" if source != "default" else "the default"]
    if source != "default" and default is not ...:
        parts.append(f"default {shown(default)}")
    if info is not None and owner:
        allowed = _allowed(owner[0].model_json_schema()["properties"][path[-1]])
        if path[-1] == "kind":
            allowed = " or ".join(map(repr, kinds(annotation_of(schema, tree, path[:-1]))))
        parts += [text for text in (allowed, _described(owner[0], path[-1])) if text]
    return "; ".join(parts)


def _described(section: type[BaseModel], key: str) -> str:
    """What a field means: its description, the one it overrides, or the line in the docstring."""
    for base in section.__mro__:
        field = getattr(base, "model_fields", {}).get(key)
        if field is not None and field.description:
            return field.description
    found = re.search(rf"^ +{key}: (.+)$", section.__doc__ or "", re.MULTILINE)
    return found.group(1).rstrip(".") if found else ""


def _allowed(described: Mapping[str, Any]) -> str:
    """What a value may be, from its JSON schema."""
    if "anyOf" in described:
        return " or ".join(filter(None, map(_allowed, described["anyOf"])))
    if "enum" in described or "const" in described:
        return " or ".join(map(shown, described.get("enum", [described.get("const")])))
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = [f"{sign} {described[name]:g}" for name, sign in bounds.items() if name in described]
    if "items" in described:
        limits.append(f"of {_allowed(described['items'])}")
    return " ".join([described.get("type", ""), *limits]).strip()


def _plain(value: Any) -> Any:
    """Sections in field order, other mappings sorted, everything else as JSON has it."""
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(key): _plain(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return to_jsonable_python(value)


def _leaves(tree: Mapping[str, Any], path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value
