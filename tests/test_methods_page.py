"""The catalogue of methods says what there is, no more and no less, and says it correctly."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from torch.nn import Module

from core.runtime import methods
from core.runtime.methods import build
from core.runtime.sections import default_of, sections_in
from core.variational import (
    bayesian,
    decomposition,
    diagnostics,
    discrepancies,
    disentanglement,
    distributions,
    divergences,
    dynamics,
    estimators,
    evidence,
    exact,
    f_divergences,
    fast_path,
    flows,
    geometry,
    inverse,
    likelihoods,
    lipschitz,
    objectives,
    posteriors,
    priors,
    quantization,
    schedules,
    structures,
)

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "methods.md").read_text()
TESTS = ROOT / "tests" / "core" / "variational"

# Which modules each section of the page is about.
SECTIONS: dict[str, list[ModuleType]] = {
    "Distributions": [distributions, divergences, posteriors],
    "Posteriors": [posteriors, dynamics],
    "Priors": [priors, dynamics],
    "Likelihoods": [likelihoods, inverse],
    "Objectives": [objectives, evidence],
    "Estimators": [estimators, fast_path],
    "Schedules": [schedules],
    "Latent structures": [structures, dynamics, exact],
    "Quantisation": [quantization],
    "Inverse problems": [inverse],
    "Flows": [flows],
    "Divergences": [f_divergences, discrepancies, decomposition],
    "Diagnostics": [diagnostics],
    "Bayesian last layer": [bayesian],
    "Lipschitz decoder": [lipschitz],
    "Geometry": [geometry],
    "Disentanglement": [disentanglement],
}
KINDS = {"Flows": set(flows.FLOWS), "Divergences": set(f_divergences.F_DIVERGENCES)}
UNIONS: dict[str, Any] = {
    "objective": methods.AnyObjective,
    "schedule": methods.AnySchedule,
    "estimator": methods.AnyEstimator,
    "posterior": methods.AnyPosterior,
    "prior": methods.AnyPrior,
    "likelihood": methods.AnyLikelihood,
}
CORE_SEEDS = (
    "001 018 021 024 032 038 041 048 051 052 058 063 065 069 073 091 092 093 096 102 109 119 "
    "120 124 126 144 150 159"
).split()


@dataclass(frozen=True)
class Row:
    """A line of a table of the page, by its headings."""

    section: str
    cells: dict[str, str]

    @property
    def names(self) -> set[str]:
        """What stands as code in the first column."""
        return set(re.findall(r"`([^`]+)`", next(iter(self.cells.values()))))

    @property
    def settings(self) -> list[str]:
        """The settings that it names."""
        return re.findall(r"`([^`]+)`", self.cells["setting"])


def rows_of_page() -> Iterator[Row]:
    """Every row of every table, in order."""
    section, headings = "", []
    for line in PAGE.splitlines():
        if line.startswith("## "):
            section, headings = line[3:], []
        elif line.startswith("|") and not headings:
            headings = cells_of(line)
        elif line.startswith("|") and not line.startswith("|---"):
            yield Row(section, dict(zip(headings, cells_of(line), strict=True)))


def cells_of(line: str) -> list[str]:
    """The cells of a line of a table."""
    return [cell.strip() for cell in line.strip("|").split("|")]


ROWS = list(rows_of_page())
METHODS = [(union, each) for union, any_of in UNIONS.items() for each in sections_in(any_of)]


def kind_of(section: type[BaseModel]) -> str:
    """The word that chooses a section."""
    return default_of(section, "kind")


def named(value: str | type[BaseModel]) -> str:
    """A method by the setting that chooses it."""
    return value if isinstance(value, str) else kind_of(value)


def rows_of(section: str) -> list[Row]:
    """The rows of a section of the page."""
    return [row for row in ROWS if row.section == section]


def row_of(section: str, name: str) -> Row:
    """The one row that is about a name."""
    (row,) = (row for row in rows_of(section) if name in row.names)
    return row


def public(module: ModuleType) -> set[str]:
    """The names that a module offers: those it lists, else what it defines."""
    if hasattr(module, "__all__"):
        listed = {name: getattr(module, name) for name in module.__all__}
        return {name for name, value in listed.items() if not inspect.ismodule(value)}
    return {
        name
        for name, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }


def test_the_sections_are_the_parts_of_the_core() -> None:
    assert re.findall(r"^## (.+)$", PAGE, re.MULTILINE) == list(SECTIONS)
    assert {row.section for row in ROWS} == set(SECTIONS)


@pytest.mark.parametrize(
    "module", sorted({m.__name__ for all_ in SECTIONS.values() for m in all_})
)
def test_every_public_name_has_a_row(module: str) -> None:
    about = {
        title: each for title, all_ in SECTIONS.items() for each in all_ if each.__name__ == module
    }
    listed = {name for row in ROWS if row.section in about for name in row.names}
    assert public(next(iter(about.values()))) - listed == set()


@pytest.mark.parametrize("section", SECTIONS)
def test_every_name_on_the_page_exists(section: str) -> None:
    there = {name for module in SECTIONS[section] for name in vars(module)}
    listed = {name for row in rows_of(section) for name in row.names}
    assert listed - there - KINDS.get(section, set()) == set()


@pytest.mark.parametrize("section", KINDS)
def test_every_kind_of_a_table_has_one_row(section: str) -> None:
    names = [name for row in rows_of(section) for name in row.names]
    assert sorted(set(names) & KINDS[section]) == sorted(KINDS[section])
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("union", "section"), METHODS, ids=named)
def test_every_kind_of_the_settings_has_the_row_of_what_it_builds(
    union: str, section: type[BaseModel]
) -> None:
    setting = f"{union}.kind: {kind_of(section)}"
    (row,) = (row for row in ROWS if setting in row.settings)
    assert built(union, section).__name__ in row.names


def test_every_setting_on_the_page_is_valid() -> None:
    for setting in (setting for row in ROWS for setting in row.settings):
        union, name, value = re.fullmatch(r"(\w+)\.(\w+): (\S+)", setting).groups()  # pyright: ignore
        fitting = [each for each in sections_in(UNIONS[union]) if name in each.model_fields]
        assert any(accepts(each, {name: yaml.safe_load(value)}) for each in fitting), setting


def accepts(section: type[BaseModel], values: dict[str, Any]) -> bool:
    """Whether a section can be had with these values."""
    try:
        section(**required(section) | values)
    except ValidationError:
        return False
    return True


def required(section: type[BaseModel]) -> dict[str, Any]:
    """A value for each key that has no default."""
    return {name: 64 for name, info in section.model_fields.items() if info.is_required()}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_row_is_short_and_has_a_source_and_a_test(section: str) -> None:
    for row in rows_of(section):
        assert 0 < len(row.cells["for"].split()) < 15, row
        assert row.settings or row.cells["setting"] == "—", row
        assert re.search(r"^standard$|\b(19|20)\d\d\b", row.cells["source"]), row
        assert re.fullmatch(r"`test_\w+\.py::test_\w+`", row.cells["test"]), row


def test_every_paper_is_cited_where_its_method_is() -> None:
    cited = set(re.findall(r"arXiv:[^;\s|]+", PAGE))
    sources = "".join(path.read_text() for path in (ROOT / "core/variational").rglob("*.py"))
    assert cited - set(re.findall(r"arXiv:\d{4}\.\d{4,5}", sources)) == set()


def test_every_test_on_the_page_exists() -> None:
    cited = set(re.findall(r"`(\w+\.py::\w+)`", PAGE))
    assert cited - {f"{file}::{name}" for file, name in every_test()} == set()


@pytest.mark.parametrize("seed", CORE_SEEDS)
def test_every_published_check_of_the_core_is_a_test(seed: str) -> None:
    assert [name for _, name in every_test() if name.startswith(f"test_s{seed}_")]


@functools.cache
def every_test() -> list[tuple[str, str]]:
    """Every test function of the core's mathematics, after its file."""
    return [
        (path.name, node.name)
        for path in TESTS.glob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


BOUNDS = {"below": "lower", "above": "upper", "not": "none"}


@pytest.mark.parametrize("kind", [*objectives.OBJECTIVES, "cubo"])
def test_an_objective_bounds_what_its_row_says(kind: str) -> None:
    objective = objective_of(kind)
    row = row_of("Objectives", type(objective).__name__)
    bound = objective(evidence_for(kind, getattr(objective, "samples", 1))).bound
    assert bound == BOUNDS[row.cells["bounds log p"].split()[0]]


def test_a_renyi_bound_of_negative_order_is_none() -> None:
    assert "(α < 0: not)" in row_of("Objectives", "Renyi").cells["bounds log p"]
    assert objectives.Renyi(-0.5, 3)(evidence_for("renyi", 3)).bound == "none"


def objective_of(kind: str) -> Any:
    """The objective as settings have it by default."""
    if kind == "cubo":
        return objectives.CUBO(5)
    (section,) = [each for each in sections_in(UNIONS["objective"]) if kind_of(each) == kind]
    return build.build_objective(section(**required(section)), methods.Constant())


def evidence_for(kind: str, samples: int) -> evidence.Evidence:
    """What a linear-Gaussian model says, in the form that the objective asks for."""
    model = exact.small_linear_gaussian()
    x = model.sample(4)
    estimator = estimators.ScoreFunction() if kind == "vis" else estimators.REPARAMETERISED
    prior = priors.StandardNormal()
    latent = evidence.Latent.draw("z", model.exact_posterior(x), prior, samples, estimator)
    mean = latent.value @ model.weight.T + model.bias
    likelihood = distributions.DiagonalNormal(
        mean, mean.new_tensor(model.scale).expand(mean.shape)
    )
    latents = [] if kind == "energy" else [latent]
    return evidence.Evidence({"x": likelihood.log_prob(x)}, latents)


@pytest.mark.parametrize("kind", estimators.ESTIMATORS)
def test_an_estimator_is_unbiased_for_what_its_row_says(kind: str) -> None:
    estimator = estimators.ESTIMATORS[kind]
    row = row_of("Estimators", estimator.__name__)
    words = {"all": {"elbo", "multi-sample"}, "ELBO": {"elbo"}, "none": set()}
    assert estimator.unbiased_for == words[row.cells["unbiased for"]]


@pytest.mark.parametrize("kind", flows.FLOWS)
def test_a_flow_is_fast_where_its_row_says(kind: str) -> None:
    row, record = row_of("Flows", kind), flows.FLOWS[kind]
    users = {"sample": "posterior", "density": "prior"}
    assert set(row.cells["fast"].split(", ")) == record.fast
    assert set(row.settings) == {f"{users[direction]}.flow: {kind}" for direction in record.fast}
    assert row.cells["source"] == record.source


def test_the_page_says_which_objectives_have_nothing_to_schedule_and_which_take_all_samples() -> (
    None
):
    every = sections_in(UNIONS["objective"])
    bullets = re.findall(r"^- (.+(?:\n  .+)*)", PAGE, re.MULTILINE)
    (together,) = [text for text in bullets if "functions of all samples at once" in text]
    (scheduled,) = [text for text in bullets if text.startswith("A schedule other than")]
    named_first = re.findall(r"`([\w-]+)`", together.split(" are functions")[0])
    assert named_first == [kind_of(each) for each in every if each.multi_sample]  # pyright: ignore
    without = {kind_of(each) for each in every if not each.scheduled}  # pyright: ignore
    assert set(re.findall(r"`([\w-]+)`", scheduled)) - {"constant"} == without


# The settings and what they build.

BY_THE_MODEL = {
    "features", "latent", "outputs", "event_dims", "kind", "context", "codes", "classes",
    "schedule", "dynamics", "encode", "bounds",
}  # fmt: skip
RENAMED = {"flow": "kind", "components": "pseudo_inputs"}
# What programs only can set, and why.
NOT_IN_SETTINGS: dict[tuple[str, str], set[str]] = {
    ("schedule", "constant"): {"end"},  # a schedule in settings is a factor that ends at 1
    ("schedule", "linear"): {"start", "end"},
    ("schedule", "cosine"): {"start", "end"},
    ("schedule", "cyclical"): {"start", "end"},
    ("objective", "energy"): {"samples"},  # a model without latents has nothing to draw
    ("posterior", "flow"): {"allow_slow"},  # the slow direction is refused
    ("prior", "flow"): {"allow_slow"},
    ("prior", "linear-dynamics"): {"scale"},
    ("likelihood", "student-t"): {"learned_freedom", "floor"},
    ("likelihood", "discretized-logistic"): {"floor"},
}


def built(union: str, section: type[BaseModel]) -> type:
    """The class that a section's values are the arguments of."""
    kind = kind_of(section)
    tables: dict[str, Any] = {
        "objective": objectives.OBJECTIVES,
        "schedule": schedules.SCHEDULES,
        "estimator": {**estimators.ESTIMATORS, "relaxed": structures.Relaxed},
        "posterior": {
            "gauss-markov": dynamics.GaussMarkovPosterior,
            "markov": dynamics.MarkovPosterior,
        }
        | {each: getattr(posteriors, name) for each, name in build.POSTERIORS.items()},
        "prior": {"linear-dynamics": dynamics.LinearDynamics}
        | {each: getattr(priors, name) for each, name in build.PRIORS.items()},
        "likelihood": {each: getattr(likelihoods, n) for each, n in build.LIKELIHOODS.items()},
    }
    return tables[union][kind]


def arguments_of(union: str, section: type[BaseModel]) -> dict[str, inspect.Parameter]:
    """The constructor's arguments by their names."""
    constructor = built(union, section)
    if constructor.__init__ is Module.__init__:
        return {}
    return dict(inspect.signature(constructor).parameters)


@pytest.mark.parametrize(("union", "section"), METHODS, ids=named)
def test_a_section_has_the_keys_of_what_it_builds(union: str, section: type[BaseModel]) -> None:
    arguments = set(arguments_of(union, section))
    keys = {
        name if name in arguments else RENAMED.get(name, name) for name in section.model_fields
    }
    keys -= {"kind"}
    assert keys - arguments == set()
    left_out = NOT_IN_SETTINGS.get((union, kind_of(section)), set())
    assert arguments - keys == left_out | (arguments - keys) & BY_THE_MODEL


@pytest.mark.parametrize(("union", "section"), METHODS, ids=named)
def test_a_default_of_the_settings_is_that_of_the_constructor(
    union: str, section: type[BaseModel]
) -> None:
    for name, argument in arguments_of(union, section).items():
        if name in section.model_fields and argument.default is not argument.empty:
            given, default = default_of(section, name), argument.default
            if name == "learned":  # a scale that is not learned has two names
                default = {False: "fixed"}.get(default, default)
            assert default == given or (given == {} and repr(default) == "<factory>"), name
