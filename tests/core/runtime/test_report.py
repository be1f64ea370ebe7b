"""The report: the same bytes for the same run, nothing private, nothing that runs."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import finished_run
import matplotlib as mpl
import pytest
from finished_run import MISCHIEF, Page, Toy
from matplotlib.figure import Figure

from core.contract import Plot
from core.runtime import figures, report
from core.runtime.errors import UserError


def rendered(run: Path) -> dict[str, bytes]:
    report.render(run, finished_run.plots(), Toy)
    paths = [run / "report.html", run / "report.md", *sorted((run / "figures").iterdir())]
    return {path.name: path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = finished_run.write(tmp_path_factory.mktemp("runs") / "20261123T130000-a41f09c2be7d")
    rendered(folder)
    return folder


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return (run / "report.html").read_text()


@pytest.fixture(scope="module")
def markdown(run: Path) -> str:
    return (run / "report.md").read_text()


def test_the_same_run_gives_the_same_bytes_wherever_it_lies(run: Path, tmp_path: Path) -> None:
    other = finished_run.write(tmp_path / "elsewhere" / "20270101T000000-a41f09c2be7d")
    assert rendered(other) == rendered(run)


def test_the_machines_own_matplotlib_settings_do_not_matter(run: Path) -> None:
    before = rendered(run)
    drawn_before = finished_run.plots()["calibration"].figure
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": None}):
        plots = {"calibration": Plot(figure=drawn_before, caption="")}
        report.render(run, plots, Toy)
        after = {path.name: path.read_bytes() for path in (run / "figures").iterdir()}
    rendered(run)
    assert after.items() <= before.items()


def test_nothing_private_gets_in(run: Path) -> None:
    for name, content in rendered(run).items():
        text = content.decode()
        for private in (str(run), run.name, "/home", "somebody", "somehost", socket.gethostname()):
            assert private not in text, (name, private)
        assert not re.search(r"20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d", text), name


def test_the_page_is_whole_and_runs_nothing(html: str) -> None:
    page = Page(html)
    assert not {"script", "iframe", "object", "embed", "link", "img"} & set(page.tags)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert len(html.encode()) < 2_000_000


def test_the_page_fetches_nothing(html: str) -> None:
    page = Page(html)
    links = [value for name, value in page.attributes if name in ("href", "src", "xlink:href")]
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", html)
    assert "@import" not in html


def test_ids_are_unique_and_every_reference_has_its_target(html: str) -> None:
    page = Page(html)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"(?:url\(|href=\")#([\w-]+)", html)) <= set(ids)


def test_words_from_the_data_stay_words(html: str, markdown: str) -> None:
    assert MISCHIEF not in html
    assert MISCHIEF in Page(html).text
    assert "<script" not in markdown
    rows = [line for line in markdown.splitlines() if "alert" in line and line.startswith("|")]
    assert rows
    assert all(len(re.findall(r"(?<!\\)\|", row)) in (3, 9) for row in rows)


def test_every_metric_has_value_unit_interval_n_and_protocol(html: str, markdown: str) -> None:
    text = " ".join(Page(html).text.split())
    assert (
        "auc ↑bootstrap 1,000 0.9570 \N{EN DASH} 0.9490 to 0.9640 1,054 trivial0.9360 1.0000"
        in text
    )
    assert "| rate | 12.5 | nats | | 1,054 |" in re.sub(" +", " ", markdown)
    values = re.findall(r'<data value="([^"]+)">', html)
    assert "0.957" in values
    assert "12.5" in values


def test_the_verdict_comes_before_the_numbers(html: str, markdown: str) -> None:
    sentence = "0.9570 (95 % interval 0.9490 to 0.9640, n = 1,054) against 0.9360 of trivial."
    for text in (Page(html).text, markdown):
        assert text.index(sentence) < text.index("Results", text.index(sentence) - 20)
    assert 'class="verdict beats"' in html


def test_the_sections_come_in_the_order_of_reading(html: str) -> None:
    wanted = ["results", "evidence", "latents", "training", "figures", "data"]
    wanted += ["settings", "lineage", "reproduce"]
    assert re.findall(r'<section id="(\w+)">', html) == wanted


def test_the_evidence_adds_up_to_the_bound(html: str) -> None:
    text = " ".join(Page(html).text.split())
    minus = "\N{MINUS SIGN}"
    assert f"log-likelihoodlinks{minus}100 {minus} KLz{minus}20 = ELBO{minus}120" in text
    assert "64 importance samples" in text
    assert "The ELBO is a lower bound of log p(x). Trained with β = 1" in text
    assert "effective weight of the KL 0.8" in text
    assert "64 importance samplesof 100 of the examples" in text
    assert "A better posterior could gain at least 1.5 nats." in text


def test_a_model_without_latents_has_no_kl_row(tmp_path: Path) -> None:
    content = finished_run.results()
    content["diagnosis"] |= {"latents": {}}
    content["evidence"] = {
        "log_likelihood": {"image": -31.5},
        "kl": {},
        "bound": "none",
        "unit": "nats per example",
    }
    run = finished_run.write(tmp_path / "run", content)
    report.render(run, {}, Toy)
    html = (run / "report.html").read_text()
    assert "KL" not in Page(html).text.replace("there is no KL and no bound", "").replace(
        "kl/z", ""
    )
    assert 'id="latents"' not in html
    assert 'id="figures"' not in html
    assert "31.5" in html


def test_a_run_without_evidence_still_has_a_report(tmp_path: Path) -> None:
    content = {"metrics": finished_run.results()["metrics"]}
    run = finished_run.write(tmp_path / "run", content)
    report.render(run, {}, Toy)
    assert 'id="evidence"' not in (run / "report.html").read_text()


def test_settings_that_differ_from_the_defaults_come_first(markdown: str) -> None:
    first, everything = markdown.split("<details>")[0], markdown.split("<details>")[1]
    assert "| `training.epochs` | `20` | `100` |" in first
    assert "| `data.root` | `…/cora` | `inside` |" in first
    assert "training.optimizer" not in first
    assert "| `training.optimizer` | `adam` |" in everything


def test_markdown_links_to_figures_that_exist(run: Path, markdown: str) -> None:
    links = re.findall(r"\]\((figures/[^)]+)\)", markdown)
    assert {f"figures/{path.name}" for path in (run / "figures").iterdir()} == set(links)


def test_figures_of_an_earlier_rendering_are_removed(tmp_path: Path) -> None:
    run = finished_run.write(tmp_path / "run")
    report.render(run, finished_run.plots(), Toy)
    report.render(run, {}, Toy)
    assert not (run / "figures" / "calibration.svg").exists()


def test_curves_that_do_not_move_are_left_out(run: Path) -> None:
    names = {path.stem for path in (run / "figures").iterdir()}
    assert {"curve-auc", "curve-elbo", "curve-loss", "curve-kl-z"} <= names
    assert "curve-beta" not in names


@pytest.mark.parametrize(
    "file", ["settings.yaml", "lineage.json", "data-card.json", "metrics.json", "history.jsonl"]
)
def test_a_missing_file_is_named(tmp_path: Path, file: str) -> None:
    run = finished_run.write(tmp_path / "run")
    (run / file).unlink()
    with pytest.raises(UserError, match=f"{file}: no such file"):
        report.render(run, {}, Toy)


def test_a_torn_line_of_the_history_is_named(tmp_path: Path) -> None:
    run = finished_run.write(tmp_path / "run")
    with (run / "history.jsonl").open("a") as file:
        file.write('{"step": 4')
    with pytest.raises(UserError, match=r"history.jsonl:21: not JSON"):
        report.render(run, {}, Toy)


def test_a_figure_cannot_leave_its_folder(tmp_path: Path) -> None:
    run = finished_run.write(tmp_path / "run")
    plot = finished_run.plots()["calibration"]
    with pytest.raises(ValueError, match="figure's name"):
        report.render(run, {"../../evil": plot}, Toy)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("/data/graphs/cora.npz", "…/cora.npz"),
        ("~/graphs/cora", "…/cora"),
        ("C:\\graphs\\cora", "…/cora"),
        ("configs/graph/cora.yaml", "configs/graph/cora.yaml"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("links / nodes", "links / nodes"),
        (["/data/a", 3], "['…/a', 3]"),
        (None, "null"),
        (True, "true"),
    ],
)
def test_only_the_end_of_an_absolute_path_is_public(value: object, text: str) -> None:
    assert report.public(value) == text


def test_a_long_history_stays_a_small_figure() -> None:
    points = list(range(100_000))
    assert len(figures.svg(figures.curve({"train": (points, points)}, "step", "loss"))) < 60_000


def test_curves_run_over_steps_where_an_epoch_has_several_rows() -> None:
    assert report.x_axis([{"epoch": 0, "step": 0}, {"epoch": 1, "step": 9}]) == "epoch"
    assert report.x_axis([{"epoch": 1, "step": 1}, {"epoch": 1, "step": 2}]) == "step"
    assert report.x_axis([{"epoch": 1, "step": 9}]) == "step"


def test_one_row_of_history_is_a_visible_point() -> None:
    assert "<use" in figures.svg(figures.curve({"train": ([1], [2.0])}, "step", "loss"))


def test_bars_are_sorted_whatever_the_order() -> None:
    def drawn(*values: float) -> str:
        figure = Figure()
        figures.bars(figure.add_subplot(), values)
        return figures.svg(figure)

    assert drawn(1.0, 3.0, 2.0) == drawn(3.0, 2.0, 1.0)
    assert len(drawn(*[0.5] * 50_000)) < 100_000


def test_a_figure_is_wellformed_xml_without_date_or_version() -> None:
    drawing = figures.svg(finished_run.plots()["calibration"].figure)
    ElementTree.fromstring(drawing)
    assert "Matplotlib" not in drawing
    assert "dc:date" not in drawing


def test_black_of_any_figure_becomes_the_ink_of_the_page() -> None:
    figure = Figure()
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="black", label="truth")
    axes.text(0, 0, "word")
    axes.legend()
    inside = figures.inline(figures.svg(figure), "name", "label")
    assert figures.INK not in inside
    assert "#000000" not in inside
    assert "#ffffff" not in inside
    assert 'aria-label="label"' in inside
    words = re.findall(r"<text[^>]*>", inside)
    assert words
    assert all("currentColor" in word for word in words)


def test_a_style_ends_with_its_block() -> None:
    before = dict(mpl.rcParams)
    with figures.style():
        assert mpl.rcParams["svg.fonttype"] == "none"
    assert dict(mpl.rcParams) == before


def test_rendering_does_not_touch_the_other_files(run: Path) -> None:
    def digest() -> dict[str, str]:
        files = (path for path in run.iterdir() if path.is_file())
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = digest()
    report.render(run, finished_run.plots(), Toy)
    assert digest() == before
    written = json.loads((run / "metrics.json").read_text())
    assert written == json.loads(json.dumps(finished_run.results()))


def test_a_plot_may_be_drawn_twice() -> None:
    plot: Plot = finished_run.plots()["calibration"]
    assert figures.svg(plot.figure) == figures.svg(plot.figure)
