"""The command line: ``latentworks <domain> <verb>`` works on data, ``latentworks <verb>`` on runs.

Built by cyclopts from signatures and docstrings; nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from cyclopts import App, CycloptsError, Parameter

from core.runtime import config as settings_file
from core.runtime import folder
from core.runtime.errors import Interrupted, RunFailed, UserError

Overrides = Annotated[
    tuple[str, ...],
    Parameter(name="--set", negative="", help="A setting, as section.key=value; may be repeated."),
]
Root = Annotated[Path, Parameter(name="--runs", help="Folder of all runs.")]
Out = Annotated[Path | None, Parameter(help="Folder of the new run; must be new or empty.")]
Json = Annotated[
    bool, Parameter(name="--json", negative="", help="Print the result as JSON on stdout.")
]
Force = Annotated[bool, Parameter(negative="", help="Replace what is there.")]
Orchestrate = Callable[[str, Path], None]
STAGES = ("ingest", "train", "evaluate", "report", "diagnose")


@runtime_checkable
class Catalogue(Protocol):
    """The domains of this installation; the package `domains` is one."""

    domain_names: Callable[[], list[str]]
    domain_line: Callable[[str], str]
    load_config: Callable[[str], Any]
    load_verbs: Callable[[str], dict[str, Any]]
    load_domain: Callable[[str], Any]


def build_app(
    catalogue: Catalogue,
    arguments: Sequence[str],
    orchestrate: Orchestrate | None = None,
    doctor: Callable[..., object] | None = None,
) -> App:
    """The whole command line.

    Args:
        catalogue: The domains.
        arguments: What was typed; the verbs of a domain are loaded only when it is named.
        orchestrate: Runs a run folder's stages through the orchestrator; None leaves it out.
        doctor: The verb ``doctor``.
    """
    app = App(
        name="latentworks",
        help="Variational models as routine, scheduled, reproducible work.",
        version=folder.product_version,
        help_format="plaintext",
        group_commands="Runs",
    )
    verbs = RunVerbs(catalogue, orchestrate)
    for name in ("run", "resume", "reproduce", "compare", "report", "runs", "domains"):
        app.command(getattr(verbs, name), name=name)
    config_app = App(
        name="config", help="Show, explain or describe settings.", help_format="plaintext"
    )
    for name in ("show", "explain", "schema"):
        config_app.command(getattr(ConfigVerbs(catalogue), name), name=name)
    app.command(config_app)
    if doctor is not None:
        app.command(doctor, name="doctor")
    for name in catalogue.domain_names():
        domain_app = App(
            name=name, help=catalogue.domain_line(name), help_format="plaintext", group="Domains"
        )
        if name in arguments[:1]:
            _add_domain_verbs(domain_app, catalogue, name)
        app.command(domain_app)
    return app


def _add_domain_verbs(app: App, catalogue: Catalogue, name: str) -> None:
    """A domain's own verb takes the place of the stage of its name, which it may widen."""
    stages = StageVerbs(catalogue, name)
    verbs = {verb: getattr(stages, verb) for verb in STAGES}
    for verb, function in (verbs | catalogue.load_verbs(name)).items():
        app.command(function, name=verb)


def run_app(app: App, arguments: Sequence[str]) -> int:
    """Run a command line and return its exit status.

    0 done, 1 the work failed, 2 the user's mistake, 3 interrupted and resumable.
    """
    try:
        app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _say(" ".join(str(error).split()) + "; see: latentworks --help", 2)
    except UserError as error:
        return _say(str(error), 2)
    except RunFailed as error:
        return _say(str(error), 1)
    except Interrupted as error:
        return _say(str(error), 3)
    except KeyboardInterrupt:
        return _say("interrupted", 3)
    except BrokenPipeError:
        sys.stderr.close()
    return 0


def _say(message: str, status: int) -> int:
    print(f"latentworks: {message}", file=sys.stderr)
    return status


def show_result(result: Mapping[str, Any], as_json: bool, text: str) -> None:
    """Print a result on stdout: JSON for a program, words for a person."""
    print(json.dumps(result, indent=2, sort_keys=True) if as_json else text)


class RunVerbs:
    """The verbs that work on runs of any domain."""

    def __init__(self, catalogue: Catalogue, orchestrate: Orchestrate | None) -> None:
        self.catalogue = catalogue
        self.orchestrate = orchestrate

    def run(
        self,
        config: Path,
        /,
        *,
        overrides: Overrides = (),
        out: Out = None,
        prefect: bool = True,
        runs: Root = folder.RUNS,
        as_json: Json = False,
    ) -> None:
        """Ingest, train, evaluate and report what a settings file says.

        Args:
            config: The settings, a YAML file.
            prefect: Run as a Prefect flow; without it the same stages run plainly.
        """
        settings = load(self.catalogue, config, overrides)
        self.catalogue.load_domain(settings.domain)
        run = folder.create(settings, runs, out)
        self._finish(run, prefect)
        summarise(run, as_json)

    def resume(
        self, run: str, /, *, prefect: bool = True, runs: Root = folder.RUNS, as_json: Json = False
    ) -> None:
        """Go on with a run that was interrupted, crashed or failed.

        Args:
            run: A run folder, or <domain>/<name>@latest.
            prefect: Run as a Prefect flow; without it the same stages run plainly.
        """
        found = folder.locate(run, runs)
        with folder.lock(found):
            state = folder.state_recorded(found)
        if state == "done":
            folder.say(f"{found}: is done already; nothing to resume")
        else:
            self._finish(found, prefect)
        summarise(found, as_json)

    def reproduce(
        self,
        run: str,
        /,
        *,
        out: Out = None,
        tolerance: float = 0.0,
        runs: Root = folder.RUNS,
        as_json: Json = False,
    ) -> None:
        """Run the same settings on the same data again and say which metrics agree.

        Exit status 1 if the data or a metric differs by more than the tolerance.

        Args:
            run: A run folder, or <domain>/<name>@latest.
            tolerance: Largest relative difference that counts as agreement; 0 asks for equal bits.
        """
        from core.runtime.compare import agreement, agreement_table

        first = folder.locate(run, runs)
        metrics = folder.require(first, "metrics.json", f"{folder.domain_of(first)} evaluate")
        settings = load(self.catalogue, first / "settings.yaml", ())
        second = folder.create(settings, runs, out, parent=first.name)
        self._finish(second, prefect=False)
        before, after = (
            folder.read_json(path / "lineage.json")["data"] for path in (first, second)
        )
        if before["fingerprint"] != after["fingerprint"]:
            raise RunFailed(
                f"{second}: the data differ from {first}: {after['fingerprint'][:12]} against "
                f"{before['fingerprint'][:12]}"
            )
        rows = agreement(
            folder.read_json(metrics), folder.read_json(second / "metrics.json"), tolerance
        )
        show_result(
            {"run": str(second), "rows": [vars(row) for row in rows]},
            as_json,
            agreement_table(rows),
        )
        apart = [row.metric for row in rows if not row.agrees]
        if apart:
            raise RunFailed(f"{second}: does not agree with {first} in: {', '.join(apart)}")

    def compare(
        self,
        runs_given: Annotated[tuple[str, ...], Parameter(name="RUN")],
        /,
        *,
        out: Path | None = None,
        force: Force = False,
        runs: Root = folder.RUNS,
    ) -> None:
        """Show the settings that differ and the metrics side by side.

        Args:
            runs_given: Two or more run folders, or <domain>/<name>@latest.
            out: Also write the comparison, with curves, to this HTML file.
        """
        from core.runtime.compare import compare

        if len(runs_given) < 2:
            raise UserError(f"compare: got {len(runs_given)} run; name two or more")
        found = [folder.locate(run, runs) for run in runs_given]
        if out is not None:
            folder.refuse_existing(out, force)
        text, html = compare(found)
        print(text)
        if out is not None:
            folder.write_atomic(out, html)
            folder.say(f"wrote {out}")

    def report(self, run: str, /, *, force: Force = False, runs: Root = folder.RUNS) -> None:
        """Write a run's report again, from what its folder holds.

        Args:
            run: A run folder, or <domain>/<name>@latest.
        """
        found = folder.locate(run, runs)
        StageVerbs(self.catalogue, folder.domain_of(found)).report(
            str(found), force=force, runs=runs
        )

    def runs(self, *, runs: Root = folder.RUNS, as_json: Json = False) -> None:
        """List the runs with their true state and primary metric."""
        rows = [folder.describe(run) for run in folder.all_runs(runs)]
        if as_json:
            print(json.dumps(rows, indent=2))
            return
        if not rows:
            folder.say(f"no runs in {runs} yet; start one: latentworks run CONFIG")
        for row in rows:
            print(f"{row['run']:<60} {row['state']:<12} {row['result']}")

    def domains(self) -> None:
        """List the domains."""
        for name in self.catalogue.domain_names():
            print(f"{name:<12} {self.catalogue.domain_line(name)}")

    def _finish(self, run: Path, prefect: bool) -> None:
        domain_name = folder.domain_of(run)
        if prefect and self.orchestrate is not None:
            self.orchestrate(domain_name, run)
            return
        from core.runtime import stages

        settings = load(self.catalogue, run / "settings.yaml", ())
        stages.run_missing(self.catalogue.load_domain(domain_name), settings, run)


class ConfigVerbs:
    """The verbs that work on settings."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue

    def show(self, config: Path, /, *, overrides: Overrides = ()) -> None:
        """Print the complete settings that a file stands for.

        Args:
            config: The settings, a YAML file.
        """
        print(settings_file.dump_settings(load(self.catalogue, config, overrides)), end="")

    def explain(self, config: Path, key: str, /, *, overrides: Overrides = ()) -> None:
        """Say what a setting means, what it may be, its value and where that comes from.

        Args:
            config: The settings, a YAML file.
            key: The setting, e.g. training.epochs.
        """
        schema = self.catalogue.load_config(settings_file.read_domain(config))
        print(settings_file.explain(schema, config, key, overrides))

    def schema(self, domain: str, /) -> None:
        """Print the JSON schema of a domain's settings.

        Args:
            domain: The domain's name.
        """
        print(settings_file.schema(self.catalogue.load_config(domain)))


class StageVerbs:
    """The stages as verbs of a domain, without an orchestrator."""

    def __init__(self, catalogue: Catalogue, name: str) -> None:
        self.catalogue = catalogue
        self.name = name

    def ingest(
        self,
        target: str,
        /,
        *,
        overrides: Overrides = (),
        out: Out = None,
        runs: Root = folder.RUNS,
        as_json: Json = False,
    ) -> None:
        """Read and check the data and split it.

        Args:
            target: The settings of a new run, a YAML file; or a run folder.
        """
        run, settings = self._open(target, overrides, out, runs)
        self._stages().ingest(self._domain(), settings, run)
        card = folder.read_json(run / "data-card.json")
        lines = [f"{name}: {value}" for name, value in card["facts"].items()]
        show_result(
            {"run": str(run), **card}, as_json, "\n".join([str(run), *lines, *card["notes"]])
        )

    def train(
        self,
        target: str,
        /,
        *,
        overrides: Overrides = (),
        out: Out = None,
        runs: Root = folder.RUNS,
        as_json: Json = False,
    ) -> None:
        """Train a new run from a settings file, or go on with a run folder.

        Args:
            target: The settings of a new run, a YAML file; or a run folder.
        """
        run, settings = self._open(target, overrides, out, runs)
        domain, stages = self._domain(), self._stages()
        if not (run / stages.CARD).exists():
            stages.ingest(domain, settings, run)
        result = stages.train(domain, settings, run)
        show_result({"run": str(run), **result}, as_json, str(run))

    def evaluate(
        self, run: str, /, *, force: Force = False, runs: Root = folder.RUNS, as_json: Json = False
    ) -> None:
        """Measure a trained run on its test split and write its report.

        Args:
            run: A run folder, or <domain>/<name>@latest.
        """
        found, settings = self._existing(run, runs)
        domain, stages = self._domain(), self._stages()
        folder.refuse_existing(found / stages.METRICS, force)
        stages.evaluate(domain, settings, found)
        stages.report(domain, settings, found)
        summarise(found, as_json)

    def report(self, run: str, /, *, force: Force = False, runs: Root = folder.RUNS) -> None:
        """Write the report of an evaluated run.

        Args:
            run: A run folder, or <domain>/<name>@latest.
        """
        found, settings = self._existing(run, runs)
        domain, stages = self._domain(), self._stages()
        folder.refuse_existing(found / stages.REPORT, force)
        stages.report(domain, settings, found)
        print(found / stages.REPORT)

    def diagnose(
        self,
        run: str,
        /,
        *,
        samples: int | None = None,
        split: Literal["test", "valid"] = "test",
        out: Path | None = None,
        force: Force = False,
        runs: Root = folder.RUNS,
        as_json: Json = False,
    ) -> None:
        """Say what the latents of a trained model are worth.

        Args:
            run: A run folder, or <domain>/<name>@latest.
            samples: Importance samples for each example; those of the settings if not given.
            split: The examples to look at.
            out: Also write it to this file: .html with figures, .md or .json.
        """
        if samples is not None and samples < 2:
            raise UserError(f"diagnose: --samples: got {samples}; there must be at least 2")
        found, settings = self._existing(run, runs)
        domain, stages = self._domain(), self._stages()
        from core.runtime import evaluation
        from core.runtime.diagnosis import document

        if out is not None:
            document.check_format(out)
            folder.refuse_existing(out, force)
        best = stages.best_checkpoint(settings, found)
        model = stages.load_model(domain, settings, found)
        folder.say(f"diagnose: {split} split")
        looked = document.Looked(
            domain=self.name,
            name=settings.name,
            identity=folder.read_json(found / "lineage.json")["identity"],
            split=split,
            checkpoint={key: best.record[key] for key in ("step", "epoch", "chosen_by", "score")},
            diagnosis=evaluation.diagnose(domain, settings, found / "data", model, split, samples),
        )
        show_result(document.as_json(looked), as_json, document.text(looked))
        if out is not None:
            folder.write_atomic(out, document.document(looked, out.suffix))
            folder.say(f"wrote {out}")

    def _domain(self) -> Any:
        return self.catalogue.load_domain(self.name)

    def _stages(self) -> Any:
        self._domain()
        from core.runtime import stages

        return stages

    def _existing(self, run: str, root: Path) -> tuple[Path, Any]:
        found = folder.locate(run, root)
        self._same_domain(found, folder.domain_of(found))
        return found, load(self.catalogue, found / "settings.yaml", ())

    def _open(
        self, target: str, overrides: Sequence[str], out: Path | None, root: Path
    ) -> tuple[Path, Any]:
        if not target.endswith((".yaml", ".yml")):
            if overrides or out:
                raise UserError(
                    f"{target}: a run keeps its settings and folder; --set and --out start a new "
                    "one from a settings file"
                )
            return self._existing(target, root)
        settings = load(self.catalogue, Path(target), overrides)
        self._same_domain(Path(target), settings.domain)
        run = folder.create(settings, root, out)
        return run, load(self.catalogue, run / "settings.yaml", ())

    def _same_domain(self, where: Path, named: str) -> None:
        if named != self.name:
            raise UserError(
                f"{where}: domain: {named!r}, expected {self.name!r}; use: latentworks {named} …"
            )


def load(catalogue: Catalogue, path: Path, overrides: Sequence[str]) -> Any:
    """The settings of a file, with its domain's class."""
    schema = catalogue.load_config(settings_file.read_domain(path))
    return settings_file.load_config(schema, path, overrides)


def summarise(run: Path, as_json: bool) -> None:
    """Say how a run came out."""
    metric = folder.primary_metric(run)
    result = {
        "run": str(run),
        "state": folder.state(run),
        "report": str(run / "report.html"),
        "primary": metric,
    }
    lines = [f"run:     {run}", f"report:  {run / 'report.html'}"]
    if metric is not None:
        lines.insert(1, f"result:  {folder.metric_text(metric)}")
    show_result(result, as_json, "\n".join(lines))


def main(
    catalogue: Catalogue, orchestrate: Orchestrate | None, doctor: Callable[..., object] | None
) -> int:
    """Run what was typed."""
    arguments = sys.argv[1:]
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    return run_app(build_app(catalogue, arguments, orchestrate, doctor), arguments)
