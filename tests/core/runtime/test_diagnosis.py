"""A diagnosis in words, tables and figures: every number with what it claims, nothing blank."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import finished_run
import pytest
from finished_run import MISCHIEF, Page, Toy, diagnosis, estimate, unavailable
from toy import DOMAIN, Catalogue

from core.runtime import cli, evaluation, figures, report, stages
from core.runtime.diagnosis import claims, document, plots, tables
from core.runtime.errors import UserError
from core.variational.diagnostics import Diagnosis

TINY = """\
domain: toy
data: {points: 60}
training: {epochs: 3, log_every: 5}
evaluation: {samples: 32}
compute: {threads: 1}
"""


def latentworks(*words: object) -> int:
    arguments = [str(word) for word in words]
    return cli.run_app(cli.build_app(Catalogue, arguments), arguments)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the toy."""
    home = tmp_path_factory.mktemp("toy")
    (home / "tiny.yaml").write_text(TINY)
    assert latentworks("run", home / "tiny.yaml", "--out", home / "run") == 0
    return home / "run"


def looked(record: dict[str, Any]) -> document.Looked:
    return document.Looked("toy", "elm", "a41f09c2be7d", "test", {"epoch": 1, "step": 2}, record)


def rows(record: dict[str, Any]) -> dict[str, tables.Row]:
    return {row.name: row for group in tables.tables(record).values() for row in group}


def without(record: Any, path: tuple[str, ...]) -> Any:
    """The record with one part unavailable."""
    if not path:
        return unavailable("it had no wish to be computed")
    return {**record, path[0]: without(record[path[0]], path[1:])}


MAY_LACK = [
    ("importance",), ("importance", "log_likelihood"), ("importance", "heavy_share"),
    ("importance", "k_hat"), ("rate_distortion", "rate"), ("rate_distortion", "rates", "z"),
    ("rate_distortion", "distortion"), ("rate_distortion", "distortions", "links"),
    ("rate_distortion", "negative_elbo"), ("collapse",), ("gradients",),
    ("gradients", "encoder", "signal_to_noise"), ("generated",), ("latents", "z", "active_units"),
    ("latents", "z", "kl_per_dimension"), ("latents", "z", "information"),
    ("latents", "z", "information", "mutual_information"),
    ("latents", "z", "information", "rate"), ("latents", "z", "information", "marginal_kl"),
    ("latents", "z", "aggregated"), ("latents", "z", "aggregated", "distance"),
    ("latents", "z", "aggregated", "prior_points"),
]  # fmt: skip


@pytest.mark.parametrize("path", MAY_LACK, ids=".".join)
def test_whatever_is_unavailable_has_its_reason_on_the_page(path: tuple[str, ...]) -> None:
    record = without(diagnosis(), path)
    words = document.document(looked(record), ".md"), document.text(looked(record))
    captions = " ".join(plot.caption for plot in plots.plots(record).values())
    shown = path not in [
        ("rate_distortion", "rate"), ("rate_distortion", "distortion"),
        ("rate_distortion", "negative_elbo"),
        ("importance", "k_hat"), ("latents", "z", "aggregated", "prior_points"),
        ("latents", "z", "kl_per_dimension"),
    ]  # fmt: skip
    for page in (*words, captions):
        assert not re.search(r"\b(nan|inf|None)\b", page)
        assert "it had no wish to be computed" in page or not shown or page is captions
    if path[-1] == "kl_per_dimension":
        assert "it had no wish to be computed" in captions


def test_every_row_has_unit_interval_n_estimator_and_what_good_looks_like() -> None:
    found = rows(diagnosis())
    bound = found["importance-weighted bound"]
    assert (bound.value, bound.unit, bound.interval, bound.n) == (
        "\N{MINUS SIGN}118.5", "nats per example",
        "\N{MINUS SIGN}121.5 to \N{MINUS SIGN}115.5", "100 examples",
    )  # fmt: skip
    assert "64 draws" in bound.how
    assert found["gain over the ELBO"].value == "1.5"
    assert found["signal to noise: encoder"].n == "20 gradients"
    assert list(found).index("signal to noise: all") > list(found).index(
        "signal to noise: encoder"
    )
    for row in found.values():
        assert row.missing or (row.value and row.n and row.how and row.good), row.name
        assert not row.missing or not row.value, row.name


def test_a_negative_has_its_interval_the_right_way_round() -> None:
    row = tables.row("x", estimate(-2.0, (-3.0, -1.0)), "", "rows", "", "", scale=-1)
    assert (row.value, row.interval) == ("2.0", "1.0 to 3.0")


def test_an_interval_without_an_end_is_left_out() -> None:
    part = {"value": 2.0, "interval": [1.0, None], "n": 3}
    assert tables.row("x", part, "", "rows", "", "").interval == ""


def test_a_number_that_is_not_finite_says_so() -> None:
    part = {"value": None, "interval": None, "n": 3}
    assert tables.row("x", part, "", "rows", "", "").missing == tables.NOT_FINITE


@pytest.mark.parametrize(
    ("heavy", "said", "kind"),
    [
        (0, "The importance-weighted estimate can be trusted: ", "beats"),
        (3, "cannot be trusted for 3 of 100 examples: their k-hat is above 0.7", "cannot tell"),
        (40, "cannot be trusted for 40 of 100 examples: their k-hat", "does not beat"),
        (100, "estimate cannot be trusted: their k-hat is above 0.7", "does not beat"),
    ],
)
def test_k_hat_above_its_limit_says_that_the_estimate_cannot_be_trusted(
    heavy: int, said: str, kind: str
) -> None:
    claim = claims.trust(diagnosis(heavy)["importance"])
    assert claim is not None
    assert said in f"{claim.claim}: {claim.detail}"
    assert claim.kind == kind
    assert claim.claim in document.document(looked(diagnosis(heavy)), ".md")


def test_the_evidence_of_a_report_warns_too(tmp_path: Path) -> None:
    content = finished_run.results() | {"diagnosis": diagnosis(100)}
    run = finished_run.write(tmp_path / "run", content)
    report.render(run, {}, Toy)
    for name in ("report.html", "report.md"):
        text = (run / name).read_text()
        start = text.index("Evidence\n") if name.endswith("md") else text.index('id="evidence"')
        assert "estimate cannot be trusted" in text[start : text.index("Latents", start)]


def test_too_few_draws_for_a_k_hat_are_no_reason_to_trust() -> None:
    record = without(diagnosis(), ("importance", "heavy_share"))["importance"]
    unknown = claims.trust(record)
    assert unknown is not None
    assert unknown.kind == "cannot tell"
    one = claims.trust(record | {"effective_sample_size": 1.0})
    assert one is not None
    assert one.claim == "The importance-weighted estimate cannot be trusted"
    assert "64 draws are worth 1 " in one.detail


def test_a_collapsed_posterior_is_named() -> None:
    record = diagnosis()
    record["latents"]["z"]["active_units"] = estimate(0.0, (0.0, 0.0))
    assert "No dimension of z is active" in [claim.claim for claim in claims.claims(record)]


def test_a_gradient_drowns_only_with_its_whole_interval() -> None:
    record = diagnosis()
    for name, ends in {"encoder": (0.1, 0.9), "decoder": (0.5, 1.1), "all": (0.2, 0.95)}.items():
        record["gradients"][name]["signal_to_noise"] = estimate(sum(ends) / 2, ends, 20)
    said = [claim.claim for claim in claims.claims(record)]
    assert "The gradient of encoder drowns in its noise" in said


def test_the_figures_of_a_full_diagnosis() -> None:
    assert sorted(plots.plots(diagnosis())) == [
        "diagnosis-bound", "diagnosis-dimensions", "diagnosis-gradient", "diagnosis-k-hat",
        "diagnosis-prior", "diagnosis-rate-distortion",
    ]  # fmt: skip


def test_many_latent_groups_have_the_figures_of_the_first_few_only() -> None:
    names = tuple(f"z{place}" for place in range(12))
    record = diagnosis(names=names)
    record["rate_distortion"]["rates"]["z11"] = estimate(99.0, (98.0, 100.0))
    found = plots.plots(record)
    assert sum(name.startswith("diagnosis-prior") for name in found) == plots.MOST_GROUPS
    assert "z11" in found["diagnosis-prior-1"].caption
    assert len(tables.tables(record)) > len(names)


@pytest.mark.parametrize("dimensions", [1, 700])
def test_figures_of_any_width_are_small_and_the_same_twice(dimensions: int) -> None:
    record = diagnosis()
    latent = record["latents"]["z"]
    latent["kl_per_dimension"] = [1.0 / (i + 1) for i in range(dimensions)]
    latent["variance_of_mean"] = [0.0, *[0.1] * (dimensions - 1)]
    latent["aggregated"]["points"] = [[float(i), 0.0] for i in range(500)]
    record["gradients"]["encoder"]["signal_to_noise"] = estimate(0.0, (-1.0, 0.5), 20)
    for name, plot in plots.plots(record).items():
        drawing = figures.svg(plot.figure)
        assert len(drawing) < 150_000, name
    one, other = (plots.plots(record)["diagnosis-dimensions"].figure for _ in range(2))
    assert figures.svg(one) == figures.svg(other)


def test_words_of_the_model_stay_words() -> None:
    record = diagnosis(names=(MISCHIEF,))
    html, markdown = (document.document(looked(record), each) for each in (".html", ".md"))
    assert MISCHIEF not in html
    assert MISCHIEF in Page(html).text
    assert "<script" not in markdown


def test_a_page_alone_is_whole_and_fetches_nothing() -> None:
    page = Page(document.document(looked(diagnosis()), ".html"))
    assert not {"script", "iframe", "object", "embed", "link", "img"} & set(page.tags)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_a_model_without_latents_says_so_in_the_words_of_the_report() -> None:
    record = diagnosis() | {"latents": {}}
    record["rate_distortion"] |= {"rate": unavailable("the model has no latents"), "rates": {}}
    for part in ("importance", "collapse", "gradients"):
        record[part] = unavailable("the model has no latents")
    for text in (document.text(looked(record)), document.document(looked(record), ".html")):
        assert document.NO_LATENTS in text
        assert "distortion: links" in text
        assert "signal to noise" not in text


@pytest.mark.parametrize("content", [3, [], {"examples": 3}])
def test_a_diagnosis_that_is_none_is_a_mistake_in_one_line(content: Any, tmp_path: Path) -> None:
    run = finished_run.write(tmp_path / "run", finished_run.results() | {"diagnosis": content})
    with pytest.raises(UserError, match=r"metrics.json: its diagnosis lacks .*; write it again"):
        report.render(run, {}, Toy)


@pytest.mark.parametrize("text", ['{"metrics"', "", "[]", "3"])
def test_results_that_are_none_are_a_mistake_in_one_line(text: str, tmp_path: Path) -> None:
    run = finished_run.write(tmp_path / "run")
    (run / "metrics.json").write_text(text)
    with pytest.raises(UserError, match=r"metrics.json: ") as caught:
        report.render(run, {}, Toy)
    assert "\n" not in str(caught.value)


def test_the_made_up_record_has_the_parts_of_the_real_one(run: Path) -> None:
    """So that tests on made-up numbers hold for real ones."""
    real = json.loads((run / "metrics.json").read_text())["diagnosis"]
    made = diagnosis()
    names = set(Diagnosis.__dataclass_fields__)
    assert set(real) == set(made) == names
    for part in ("rate_distortion", "importance"):
        assert set(real[part]) == set(made[part])
    for part in ("information", "aggregated"):
        assert set(real["latents"]["z"][part]) == set(made["latents"]["z"][part])
    assert tables.PARTS <= names


def test_the_verb_gives_the_numbers_of_the_evaluation(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "status.json").read_bytes()
    assert latentworks("toy", "diagnose", run, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["diagnosis"] == json.loads((run / "metrics.json").read_text())["diagnosis"]
    assert printed["split"] == "test"
    assert (run / "status.json").read_bytes() == before


def test_the_report_shows_the_figures_of_its_diagnosis(run: Path) -> None:
    drawn = {path.stem for path in (run / "figures").glob("diagnosis-*.svg")}
    record = json.loads((run / "metrics.json").read_text())["diagnosis"]
    assert drawn == set(plots.plots(record))
    assert {"diagnosis-dimensions", "diagnosis-k-hat", "diagnosis-gradient"} <= drawn


def test_looking_at_another_split_or_with_more_draws_tells_other_numbers(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert latentworks("toy", "diagnose", run, "--json", "--samples", 5, "--split", "valid") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["split"] == "valid"
    assert printed["diagnosis"]["importance"]["samples"] == 5
    assert "5 samples" in printed["diagnosis"]["importance"]["k_hat"]["reason"]


@pytest.mark.parametrize("suffix", document.FORMATS)
def test_a_document_is_written_once_and_with_the_same_bytes(
    run: Path, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / f"diagnosis{suffix}"
    assert latentworks("toy", "diagnose", run, "--out", out) == 0
    assert f"wrote {out}" in capsys.readouterr().err
    before = out.read_bytes()
    assert latentworks("toy", "diagnose", run, "--out", out) == 2
    said = capsys.readouterr()
    assert "--force" in said.err
    assert said.out == ""
    assert latentworks("toy", "diagnose", run, "--out", out, "--force") == 0
    assert out.read_bytes() == before
    assert str(run) not in out.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--samples", "1"], "diagnose: --samples: got 1; there must be at least 2"),
        (["--split", "train"], "train"),
        (["--out", "diagnosis.pdf"], "must end in one of: .html, .md, .json"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_computed(
    run: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert latentworks("toy", "diagnose", run, *words) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_a_folder_that_is_no_run_or_untrained_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert latentworks("toy", "diagnose", tmp_path) == 2
    assert "no run here" in capsys.readouterr().err
    assert latentworks("toy", "ingest", run.parent / "tiny.yaml", "--out", tmp_path / "new") == 0
    capsys.readouterr()
    assert latentworks("toy", "diagnose", tmp_path / "new") == 2
    assert "first run: latentworks toy train" in capsys.readouterr().err


def test_diagnosing_leaves_the_weights_and_the_random_stream_alone(run: Path) -> None:
    import torch

    config = cli.load(Catalogue, run / "settings.yaml", ())
    model = stages.load_model(DOMAIN, config, run)
    before = [each.clone() for each in model.parameters()]
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    evaluation.diagnose(DOMAIN, config, run / "data", model)
    assert torch.equal(torch.rand(3), expected)
    pairs = itertools.zip_longest(before, model.parameters())
    assert all(torch.equal(one, other) for one, other in pairs)
    assert all(each.grad is None for each in model.parameters())


def test_one_importance_sample_in_the_settings_is_no_crash(run: Path) -> None:
    config = cli.load(Catalogue, run / "settings.yaml", ["evaluation.samples=1"])
    model = DOMAIN.model(config, run / "data")
    found = evaluation.diagnose(DOMAIN, config, run / "data", model)
    assert found["importance"]["samples"] == 2
