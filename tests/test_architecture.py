"""What holds for the whole house, whatever domains live in it."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from core.runtime.config import load_config, read_domain
from domains import domain_line, domain_names
from domains import load_config as settings_class

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ["__init__", "config", "data", "model", "metrics", "plots", "cli", "domain"]
LIGHT = ["core.runtime.errors", "core.runtime.config", "core.runtime.cli", "core.runtime.folder"]
LIGHT += ["domains", "domains.__main__", "pipelines.cli"]
LIGHT += [f"domains.{name}{room}" for name in domain_names() for room in ("", ".config", ".cli")]
HEAVY = ["torch", "prefect", "pandas", "scipy", "sklearn", "matplotlib", "torch_geometric"]
CONFIGS = sorted((ROOT / "configs").glob("*/*.yaml"))


def run(*words: str) -> str:
    """What a command says; it must succeed."""
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("domain", domain_names())
def test_every_domain_has_the_same_rooms_and_no_other(domain: str) -> None:
    home = ROOT / "domains" / domain
    rooms = {path.stem for path in home.iterdir() if path.suffix == ".py" or is_package(path)}
    assert rooms == set(ROOMS)


def is_package(path: Path) -> bool:
    """Whether a room has outgrown a page and become a folder."""
    return (path / "__init__.py").is_file()


@pytest.mark.parametrize("domain", domain_names())
def test_every_domain_says_in_one_sentence_what_it_is(domain: str) -> None:
    assert re.fullmatch(r"[A-Z][^\n]{20,110}\.", domain_line(domain))


@pytest.mark.parametrize("domain", domain_names())
def test_every_domain_has_a_smoke_configuration_and_an_extra(domain: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (ROOT / "configs" / domain / "smoke.yaml").is_file()
    assert domain in project["optional-dependencies"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_configuration_is_valid_and_says_what_it_is_for(path: Path) -> None:
    domain = read_domain(path)
    settings = load_config(settings_class(domain), path)
    assert (domain, settings.name) == (path.parent.name, path.stem)
    assert path.read_text().startswith("# ")


def test_imports_point_down_only() -> None:
    said = run(str(Path(sys.executable).parent / "lint-imports"), "--no-cache")
    assert " 0 broken." in said


@pytest.mark.parametrize("module", LIGHT)
def test_a_light_module_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    assert run(sys.executable, "-c", code).split() == []


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['latentworks', '--help']; from pipelines.cli import main; main();"
        f"print('heavy:', *(name for name in {HEAVY} if name in sys.modules))"
    )
    assert run(sys.executable, "-c", code).splitlines()[-1].strip() == "heavy:"


def test_the_quick_start_is_two_targets_of_the_makefile() -> None:
    readme = (ROOT / "README.md").read_text()
    block = re.search(r"## Quick start\n.*?```console\n(.*?)```", readme, re.DOTALL)
    assert block is not None
    commands = [line.split("#")[0].split() for line in block[1].splitlines()]
    assert commands == [["make", "demo"], ["make", "test"]]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test"} <= set(targets)


DISTRIBUTION = {"yaml": "pyyaml", "sklearn": "scikit-learn", "PIL": "pillow"}
BROUGHT_ALONG = {"pydantic-core": "pydantic", "markupsafe": "jinja2", "cycler": "matplotlib"}


@pytest.mark.parametrize(
    "package", ["core", "pipelines", *(f"domains/{n}" for n in domain_names())]
)
def test_what_is_imported_is_declared(package: str) -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras, own = project["optional-dependencies"], Path(package).name
    own = {"core": "none", "pipelines": "flows"}.get(own, own)
    groups = [extras[name] for name in extras if name == own or name.startswith(f"{own}-")]
    groups.append(project["dependencies"])
    declared = {Requirement(text).name for group in groups for text in group}
    modules = {name for path in (ROOT / package).rglob("*.py") for name in imported(path)}
    modules -= {"core", "domains", "pipelines", *sys.stdlib_module_names}
    names = {DISTRIBUTION.get(name, name.replace("_", "-")) for name in modules}
    assert {BROUGHT_ALONG.get(name, name) for name in names} <= declared


def imported(path: Path) -> set[str]:
    """Top-level names of the modules that a file imports anywhere."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    sources = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in plain | sources}


def test_every_pin_satisfies_what_the_project_asks_for() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [Requirement(text) for group in [project["dependencies"], *extras] for text in group]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {r.name: str(r.specifier)[2:] for r in map(Requirement, lines_of_text(lines))}
    for requirement in wanted:
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])
    assert not any("+" in version for version in pins.values())


def lines_of_text(lines: list[str]) -> list[str]:
    """Lines that are no comments."""
    return [line for line in lines if line and not line.startswith("#")]


def test_the_wheel_holds_every_package_configuration_and_template_and_no_test(
    tmp_path: Path,
) -> None:
    packages = ["core", "domains", "pipelines", "configs"]
    source, unpacked = tmp_path / "source", tmp_path / "unpacked"
    for name in [*packages, "tests"]:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    files = [path for name in packages for path in (source / name).rglob("*") if path.is_file()]
    build = ["-m", "build", "--wheel", "--no-isolation", "--outdir"]
    run(sys.executable, *build, str(tmp_path), str(source))
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    held = {
        path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()
    }
    assert {name for name in held if ".dist-info/" not in name} == {
        path.relative_to(source).as_posix() for path in files
    }
