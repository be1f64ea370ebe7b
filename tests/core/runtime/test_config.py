"""Strict settings: each mistake in one line that says where, values from file or override."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import Field, NonNegativeFloat, PositiveInt

from core.runtime.config import (
    Section,
    Settings,
    Training,
    default_values,
    differing_keys,
    dump_settings,
    explain,
    flat_settings,
    load_config,
    load_settings,
    read_domain,
    schema,
    settings_digest,
    show,
    sources,
)
from core.runtime.errors import UserError
from core.runtime.methods import ELBO


class Tree(Section):
    """One kind of model."""

    kind: Literal["tree"] = "tree"
    width: PositiveInt = 32
    depth: PositiveInt = 3


class Net(Section):
    """Another kind."""

    kind: Literal["net"] = "net"
    width: PositiveInt = 32
    heads: PositiveInt = 4


class Smooth(Section):
    """Bark without rings."""

    kind: Literal["smooth"] = "smooth"


class Ringed(Section):
    """Bark with rings."""

    kind: Literal["ringed"] = "ringed"
    rings: PositiveInt = 7


class Data(Section):
    """Where it comes from."""

    root: str
    accelerations: tuple[PositiveInt, ...] = (4, 8)
    size: PositiveInt | Literal["auto"] = "auto"
    scale: NonNegativeFloat = 1.0


class Forest(Settings):
    """Settings of a made-up domain."""

    domain: Literal["forest"]
    data: Data
    model: Annotated[Tree | Net, Field(discriminator="kind")] = Tree(width=64)
    bark: Annotated[Smooth | Ringed, Field(discriminator="kind")] = Ringed()
    training: Training = Training(epochs=300)


BASE = "domain: forest\ndata:\n  root: here\n"
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)

    def _write(text: str) -> Path:
        Path("oak.yaml").write_text(text)
        return Path("oak.yaml")

    return _write


def mistakes(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_config(Forest, path, overrides)
    return str(caught.value).splitlines()


def test_the_import_is_light() -> None:
    code = "import sys, core.runtime.config; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "numpy", "pandas", "matplotlib", "prefect"} & set(loaded)


def test_the_file_gives_its_name_to_the_run(write: Write) -> None:
    assert load_config(Forest, write(BASE)).name == "oak"
    assert load_config(Forest, write(BASE + "name: elm\n")).name == "elm"


def test_a_number_in_exponent_form_is_a_number(write: Write) -> None:
    path = write(BASE + "training:\n  learning_rate: 1e-3\n")
    assert load_config(Forest, path).training.learning_rate == 0.001


def test_a_list_becomes_a_tuple(write: Write) -> None:
    path = write(BASE + "  accelerations: [2]\n")
    assert load_config(Forest, path).data.accelerations == (2,)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "training:\n  epochs: -1\n",
            "oak.yaml:5: training.epochs: input should be greater than 0, got -1",
        ),
        (
            "training:\n  epochs: 1e3\n",
            "oak.yaml:5: training.epochs: input should be an integer, got 1000.0; write 1000",
        ),
        (
            "training:\n  epochs: '5'\n",
            "oak.yaml:5: training.epochs: input should be an integer, got '5'",
        ),
        (
            "training:\n  epochs: true\n",
            "oak.yaml:5: training.epochs: input should be an integer, got true",
        ),
        (
            "training:\n  compile: yes\n",
            "oak.yaml:5: training.compile: input should be a boolean, got 'yes'",
        ),
        (
            "training:\n  warmup: 10\n",
            "oak.yaml:5: training.warmup: input should be less than 1, got 10",
        ),
        (
            "schedule:\n  kind: linear\n  warmup: 1\n",
            "oak.yaml:6: schedule.warmup: input should be less than 1, got 1",
        ),
        (
            "training:\n  learning_rate: .inf\n",
            "oak.yaml:5: training.learning_rate: input should be a finite number, got inf",
        ),
        (
            "training:\n  optimizer: adma\n",
            "oak.yaml:5: training.optimizer: input should be 'adam', 'adamw' or 'sgd', "
            "got 'adma'; did you mean 'adam'?",
        ),
        (
            "training:\n  optimzer: adam\n",
            "oak.yaml:5: unknown key 'training.optimzer'; did you mean 'optimizer'?",
        ),
        ("epochs: 3\n", "oak.yaml:4: unknown key 'epochs'; did you mean 'training.epochs'?"),
        ("training: 3\n", "oak.yaml:4: training: expected keys below it, got 3"),
        ("training:\n", "oak.yaml:4: training: expected keys below it, got null"),
        ("seed: .nan\n", "oak.yaml:4: seed: input should be an integer, got nan"),
        (
            "name: ../up\n",
            "oak.yaml:4: name: should be lower-case letters, digits, '.', '_' and '-', "
            "got '../up'",
        ),
        (
            "  size: large\n",
            "oak.yaml:4: data.size: input should be an integer or 'auto', got 'large'",
        ),
        (
            "  accelerations:\n  - 4\n  - 0\n",
            "oak.yaml:6: data.accelerations.1: input should be greater than 0, got 0",
        ),
        (
            "model:\n  heads: 2\n",
            "oak.yaml:5: unknown key 'model.heads'; it belongs to kind 'net', not to 'tree'",
        ),
        (
            "model:\n  kind: ent\n",
            "oak.yaml:5: model.kind: input should be 'tree' or 'net', got 'ent'; "
            "did you mean 'net'?",
        ),
        (
            "model:\n  kind: net\n  haeds: 2\n",
            "oak.yaml:6: unknown key 'model.haeds'; did you mean 'heads'?",
        ),
        (
            "model:\n  kind: net\n  heads: 0\n",
            "oak.yaml:6: model.heads: input should be greater than 0, got 0",
        ),
        (
            "objective:\n  weights: {edges: -1}\n",
            "oak.yaml:5: objective.weights.edges: input should be greater than or equal to 0, "
            "got -1",
        ),
        (
            "objective:\n  kind: iwae\n  samples: 1\n",
            "oak.yaml:6: objective.samples: input should be greater than or equal to 2, got 1",
        ),
        (
            "objective:\n  kind: iwae\n  samples: 5\n  beta: 0.5\n",
            "oak.yaml:7: unknown key 'objective.beta'; it belongs to kind 'elbo' or 'vib', not to "
            "'iwae'",
        ),
        (
            "objective:\n  kind: renyi\nschedule:\n  kind: linear\n",
            "oak.yaml:7: schedule.kind 'linear': objective.kind 'renyi' has no weight to "
            "schedule; leave schedule out, or use objective.kind 'elbo'",
        ),
        (
            "objective:\n  kind: iwae\nestimator:\n  kind: path\n",
            "oak.yaml:7: estimator.kind 'path': its gradient is biased for objective.kind 'iwae'; "
            "use 'dreg' (iwae only) or 'reparameterised'",
        ),
        (
            "objective:\n  kind: vis\n",
            "oak.yaml:5: objective.kind 'vis': estimator.kind is 'reparameterised', but its draws "
            "must carry no gradient; set estimator.kind to 'score'",
        ),
        (
            "estimator:\n  kind: vimco\n",
            "oak.yaml:5: estimator.kind 'vimco': its baseline is from an example's other samples; "
            "set objective.samples to 2 or more",
        ),
        (
            "training:\n  patience: 3\n  validate_every: 500\n",
            "oak.yaml:5: training: patience needs a validation, but validate_every (500) "
            "is more than epochs (300)",
        ),
        (
            "training:\n  direction: lower\n",
            "oak.yaml:5: training: direction 'lower' with monitor 'elbo': a higher elbo is better",
        ),
        (
            "training:\n  precision: 16-mixed\ncompute:\n  accelerator: cpu\n",
            "oak.yaml:5: training.precision '16-mixed' needs a GPU, but compute.accelerator is "
            "'cpu'; use 'bf16-mixed'",
        ),
        ("seed: 1\nseed: 2\n", "oak.yaml:5: key 'seed' is already on line 4"),
    ],
)
def test_a_bad_setting_is_one_line_with_file_key_value_and_what_is_allowed(
    write: Write, text: str, line: str
) -> None:
    assert mistakes(write(BASE + text)) == [line]


def test_a_required_section_that_is_missing_is_named(write: Write) -> None:
    assert mistakes(write("domain: forest\n")) == ["oak.yaml: missing key 'data'"]


def test_all_mistakes_come_at_once_in_the_order_of_the_lines(write: Write) -> None:
    text = BASE + "seed: -1\nmodel:\n  kind: net\n  heads: x\n  depth: 3\nseed: 2\n"
    assert mistakes(write(text), "training.epochs=0", "nonsense") == [
        "oak.yaml: 6 mistakes",
        "oak.yaml:4: seed: input should be greater than or equal to 0, got -1",
        "oak.yaml:7: model.heads: input should be an integer, got 'x'",
        "oak.yaml:8: unknown key 'model.depth'; it belongs to kind 'tree', not to 'net'",
        "oak.yaml:9: key 'seed' is already on line 4",
        "--set nonsense: expected section.key=value, got 'nonsense'",
        "--set training.epochs: input should be greater than 0, got 0",
    ]


def test_an_override_wins_over_the_file_and_the_later_over_the_earlier(write: Write) -> None:
    path = write(BASE + "seed: 1\n")
    overrides = ["seed=2", "seed=3", "data.accelerations=[2, 6]", "objective.weights.edges=1e-1"]
    settings = load_config(Forest, path, overrides)
    assert settings.seed == 3
    assert settings.data.accelerations == (2, 6)
    assert settings.objective.weights == {"edges": 0.1}


def test_a_misspelt_override_suggests_a_key_that_the_file_sets(write: Write) -> None:
    lines = mistakes(write(BASE + "training:\n  epochs: 3\n"), "training.epoch=4")
    suggestion = "unknown key 'training.epoch'; did you mean 'epochs'?"
    assert lines == [f"--set training.epoch: {suggestion}"]


def test_an_override_value_may_hold_an_equals_sign(write: Write) -> None:
    assert load_config(Forest, write(BASE), ["data.root=a=b"]).data.root == "a=b"


@pytest.mark.parametrize(
    "override",
    [
        "seed",
        "=3",
        "seed=",
        ".seed=3",
        "data..root=3",
        "data.root.deep=3",
        "domain=graph",
        "seed=[1",
        "data.root=&x a",
        "training=5",
        "training.epoch=5",
    ],
)
def test_a_malformed_override_is_one_line_that_names_it(write: Write, override: str) -> None:
    (line,) = mistakes(write(BASE), override)
    assert line.startswith("--set")


def test_switching_the_kind_drops_what_only_the_old_kind_has(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(BASE + "model:\n  kind: net\n  heads: 2\n  width: 5\n")
    settings = load_config(Forest, path, ["model.kind=tree", "model.depth=7"])
    assert settings.model == Tree(width=5, depth=7)
    assert caplog.messages == [
        "model.heads: dropped (oak.yaml:6); it belongs to kind 'net', now 'tree' by --set"
    ]


def test_switching_the_kind_does_not_drop_what_was_set_by_hand(write: Write) -> None:
    lines = mistakes(write(BASE), "model.kind=net", "model.depth=7")
    expected = "unknown key 'model.depth'; it belongs to kind 'tree', not to 'net'"
    assert lines == [f"--set model.depth: {expected}"]


def test_a_section_written_in_part_keeps_the_rest_of_the_domains_default(write: Write) -> None:
    settings = load_config(Forest, write(BASE + "training:\n  patience: 9\nmodel: {depth: 2}\n"))
    assert settings.training.epochs == 300
    assert settings.model == Tree(width=64, depth=2)


def test_another_kind_does_not_inherit_from_the_default_kind(write: Write) -> None:
    settings = load_config(Forest, write(BASE + "model:\n  kind: net\n"))
    assert settings.model == Net(width=32)


def test_the_domain_can_be_read_before_its_schema_is_known(write: Write) -> None:
    assert read_domain(write("seed: [\n1]\ndomain: forest\n")) == "forest"
    with pytest.raises(UserError, match=r"^oak.yaml: domain: missing; write 'domain: graph'$"):
        read_domain(write("seed: 1\n"))
    with pytest.raises(UserError, match=r"^oak.yaml:2: domain: expected a word, got 5$"):
        read_domain(write("seed: 1\ndomain: 5\n"))


def test_sources_name_the_line_the_override_or_the_default(write: Write) -> None:
    path = write(BASE + "training:\n  patience: 9\n")
    found = sources(Forest, path, ["seed=3", "model={kind: net, heads: 2}"])
    assert found["training.patience"] == "oak.yaml:5"
    assert found["training.epochs"] == "default"
    assert found["seed"] == found["model.heads"] == "--set"
    assert found["model.width"] == "default"
    assert found["name"] == "file name"
    assert set(found) == set(flat_settings(load_config(Forest, path, ["model.kind=net"])))


def test_explain_says_value_source_default_and_meaning(write: Write) -> None:
    path = write(BASE + "training:\n  epochs: 9\n")
    assert explain(Forest, path, "training.epochs") == (
        "training.epochs = 9; from oak.yaml:5; default 300; integer > 0; "
        "passes over the training examples"
    )
    assert explain(Forest, path, "seed").startswith("seed = 0; the default; integer >= 0")


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("training.decay", "'constant' or 'cosine'"),
        ("training.ema", "number > 0 < 1 or null"),
        ("training.compile", "boolean"),
        ("data.accelerations", "array of integer > 0"),
        ("data.size", "integer > 0 or 'auto'"),
        ("model.kind", "'tree' or 'net'"),
        ("bark.rings", "integer > 0"),
    ],
)
def test_explain_says_what_a_value_may_be(write: Write, key: str, allowed: str) -> None:
    assert f"; {allowed}" in explain(Forest, write(BASE), key)


def test_explain_of_a_section_lists_its_keys_and_what_was_dropped(write: Write) -> None:
    path = write(BASE + "model:\n  kind: net\n  heads: 2\n")
    assert explain(Forest, path, "model", ["model.kind=tree"]).splitlines() == [
        "model.kind = 'tree'; from --set; default 'tree'; 'tree' or 'net'",
        "model.width = 64; the default; integer > 0",
        "model.depth = 3; the default; integer > 0",
        "model.heads: dropped (oak.yaml:6); it belongs to kind 'net', now 'tree' by --set",
    ]


def test_explain_of_an_unknown_key_suggests_one(write: Write) -> None:
    with pytest.raises(UserError, match=r"no setting 'training.epoch'; did you mean"):
        explain(Forest, write(BASE), "training.epoch")


def test_show_is_complete_and_loads_as_the_same_settings(write: Write, tmp_path: Path) -> None:
    path = write(BASE + "training:\n  learning_rate: 3e-4\n")
    settings = load_config(Forest, path)
    copy = tmp_path / "other-name.yaml"
    copy.write_text(show(Forest, path))
    assert load_settings(Forest, copy) == settings
    assert set(flat_settings(yaml.safe_load(copy.read_text()))) == set(flat_settings(settings))


def test_the_schema_is_json_that_names_every_kind() -> None:
    described = json.loads(schema(Forest))
    assert set(described["properties"]["model"]["discriminator"]["mapping"]) == {"tree", "net"}
    assert described["additionalProperties"] is False


def test_the_digest_ignores_order_and_spelling(write: Write) -> None:
    a = write(BASE + "seed: 1\ntraining:\n  learning_rate: 3e-4\n  epochs: 300\n")
    first = settings_digest(load_config(Forest, a, ["objective.weights={a: 1, b: 2}"]))
    b = write("training: {learning_rate: 0.0003}\nseed: 1\ndata: {root: here}\ndomain: forest\n")
    second = settings_digest(load_config(Forest, b, ["objective.weights={b: 2.0, a: 1}"]))
    assert first == second
    assert len(first) == 64


def test_the_digest_sees_every_change(write: Write) -> None:
    path = write(BASE)
    changes = [[], ["seed=1"], ["data.scale=1.0000000000000002"], ["model.kind=net"]]
    digests = {settings_digest(load_config(Forest, path, change)) for change in changes}
    assert len(digests) == len(changes)


def test_differing_keys_are_only_those(write: Write) -> None:
    path = write(BASE)
    a = load_config(Forest, path)
    b = load_config(Forest, path, ["seed=3", "model={kind: net, width: 64}"])
    assert differing_keys(a, a) == {}
    assert differing_keys(a, b) == {
        "seed": (0, 3),
        "model.kind": ("tree", "net"),
        "model.depth": (3, None),
        "model.heads": (None, 4),
    }


def test_default_values_follow_the_kind_that_was_chosen(write: Write) -> None:
    settings = flat_settings(load_config(Forest, write(BASE), ["model.kind=net"]))
    defaults = default_values(
        Forest, yaml.safe_load(show(Forest, Path("oak.yaml"), ["model.kind=net"]))
    )
    assert defaults["model.heads"] == 4
    assert defaults["model.kind"] == "net"
    assert defaults["training.epochs"] == 300
    assert set(settings) - set(defaults) == {"domain", "name", "data.root"}


_positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


@hypothesis_settings(max_examples=100, deadline=None)
@given(
    root=st.text(st.characters(exclude_categories=["Cs"])),
    rate=_positive,
    scale=st.floats(min_value=0, allow_infinity=False),
    weights=st.dictionaries(st.text("abc.1e-", min_size=1), _positive, max_size=3),
    seed=st.integers(0, 2**63 - 1),
)
def test_dumped_settings_load_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, **drawn: Any
) -> None:
    settings = Forest(
        domain="forest",
        name="a",
        seed=drawn["seed"],
        data=Data(root=drawn["root"], scale=drawn["scale"]),
        training=Training(learning_rate=drawn["rate"]),
        objective=ELBO(weights=drawn["weights"]),
    )
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    path.write_text(dump_settings(settings), encoding="utf-8")
    again = load_settings(Forest, path)
    assert again == settings
    assert dump_settings(again) == dump_settings(settings)
    assert settings_digest(again) == settings_digest(settings)
