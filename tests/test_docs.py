"""What the pages say must be there: links, files, commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import domains
from core.runtime.cli import build_app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def named(path: Path) -> str:
    """A page by its path."""
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    for link in (link for link in links if "://" not in link):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_on_a_page_exists(page: Path) -> None:
    for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.splitlines():
            words = line.split("#")[0].split()
            if words[:1] == ["latentworks"]:
                app = build_app(domains, words[1:], doctor=lambda: None)
                depth = 2 if words[1] in [*domains.domain_names(), "config"] else 1
                app.parse_commands(words[1 : 1 + depth])
                assert len(app.parse_commands(words[1 : 1 + depth])[0]) == depth, line


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_configuration_on_a_page_exists(page: Path) -> None:
    for path in re.findall(r"configs/[a-z]+/[a-z0-9-]+\.yaml", page.read_text()):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("domain", domains.domain_names())
def test_every_domain_has_a_page(domain: str) -> None:
    assert (ROOT / "docs" / f"{domain}.md").is_file()


def test_every_decision_has_a_number_of_its_own() -> None:
    numbers = [path.name[:3] for path in (ROOT / "docs" / "decisions").glob("*.md")]
    assert sorted(numbers) == [f"{i + 1:03d}" for i in range(len(numbers))]


def test_the_model_of_ones_own_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Thirty lines: what the page says is what happens."""
    (code,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "own-model.md").read_text(), re.S
    )
    written = [line for line in code.splitlines() if line and "import" not in line]
    assert len(written) <= 30
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "own-model.md", "exec"), {"__name__": "own_model"})
    nats = float(re.findall(r"tensor\((-[\d.]+)", capsys.readouterr().out)[0])
    assert -25 < nats < -15
    assert (tmp_path / "runs" / "digits" / "history.jsonl").exists()
