"""The verbs that only series have: look at files, generate, impute, forecast, score, compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from core.runtime import folder
from core.runtime.cli import Force, Json, Root, show_result
from core.runtime.errors import UserError

if TYPE_CHECKING:
    from domains.series.config import Data as Options

ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".npz", ".ts")
FIGURES = (".html", ".svg", ".json")
SHOWN = 10
Out = Annotated[Path, Parameter(help="File to write; its ending says how.")]
Data = Annotated[
    Path | None, Parameter(name="--data", help="A file of the same channels; default its own.")
]
Samples = Annotated[int, Parameter(help="Draws behind each number.")]
Percent = Annotated[float, Parameter(help="Percent of the draws between lower and upper.")]
Seed = Annotated[int | None, Parameter(help="Of the draws; the run's own if not given.")]
Time = Annotated[str | None, Parameter(help="Time column; found if not given; '' for none.")]
Identifier = Annotated[
    str | None, Parameter(name="--id", help="Column of the series' names; found if not given.")
]
Values = Annotated[
    tuple[str, ...],
    Parameter(
        negative="", help="A value column; may be repeated. Every numeric one if not given."
    ),
]
NaValues = Annotated[
    tuple[float, ...],
    Parameter(negative="", help="A number that stands for missing, as -200; may be repeated."),
]
Merge = Annotated[
    Literal["mean", "first", "last"] | None,
    Parameter(help="What to do with rows of the same time; refused if not given."),
]
Zone = Annotated[str | None, Parameter(help="Time zone of times that do not say theirs.")]


def inspect(
    file: Path,
    /,
    *,
    time: Time = None,
    identifier: Identifier = None,
    values: Values = (),
    na_values: NaValues = (),
    merge: Merge = None,
    zone: Zone = None,
    as_json: Json = False,
) -> None:
    """Say what a file holds: series, channels, interval, gaps, duplicates, suspicious numbers.

    Args:
        file: CSV (.gz too), parquet, .ts, .npz or NetCDF.
    """
    from domains.series import data

    panel = data.read_unchecked(
        file, _options(file, time, identifier, values, na_values, merge, zone)
    )
    found = data.describe(panel, file)
    show_result(found, as_json, data.describe_text(found))


def mask(
    file: Path,
    /,
    *,
    out: Out,
    kind: Literal["mcar", "mar", "mnar", "block", "rows"] = "mcar",
    fraction: float = 0.5,
    length: int = 10,
    seed: int = 0,
    time: Time = None,
    identifier: Identifier = None,
    values: Values = (),
    na_values: NaValues = (),
    merge: Merge = None,
    zone: Zone = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Hide known values of a file, to see later how well they are found again.

    The hidden values go to a file beside it, OUT with .hidden before its ending: the rows in which
    something is hidden, nothing where nothing is.

    Args:
        file: CSV (.gz too), parquet, .ts, .npz or NetCDF.
        kind: mcar hides values completely at random, mar where another channel is large, mnar
            where the value itself is large, block stretches of one channel, rows whole rows.
        fraction: Share of the known values (or rows) to hide.
        length: Rows of a hidden block.
        seed: The same seed hides the same values.
    """
    if not 0 < fraction < 1:
        raise UserError(f"--fraction: got {fraction:g}, expected between 0 and 1")
    at_least("--length", length, 1)
    beside = _free(out, "hidden", force)
    from domains.series import data
    from domains.series.cli.hidden import hide_values
    from domains.series.cli.in_place import write_like

    panel = data.read_input(file, _options(file, time, identifier, values, na_values, merge, zone))
    hidden = hide_values(panel, kind, fraction, length, seed)
    write_like(file, out, panel, hidden.panel)
    data.write_panel(beside, hidden.truth)
    folder.say(f"wrote {out}; the hidden values: {beside}")
    result = {"out": str(out), "hidden_file": str(beside), "kind": kind}
    result |= {"hidden": hidden.count, "known": hidden.known, "seed": seed}
    show_result(result, as_json, f"{hidden.count} of {hidden.known} known values hidden ({kind})")


def generate(
    run: str,
    /,
    *,
    out: Out,
    n: int = 1000,
    start: str | None = None,
    length: int | None = None,
    seed: Seed = None,
    force: Force = False,
    runs: Root = folder.RUNS,
    as_json: Json = False,
) -> None:
    """Write new series, in the units, columns and dtypes of the data.

    Each is one window: a series' name, times at the data's usual interval, the channels. A .npz
    file holds them as one array, (series, time, channel).

    Args:
        run: A run folder, or series/<name>@latest.
        n: How many series.
        start: Time of the first row; default the day after the data's end.
        length: Rows of each; default those of the run's windows.
    """
    at_least("--n", n, 1)
    if length is not None:
        at_least("--length", length, 2)
    _free(out, None, force)
    from domains.series import data
    from domains.series.cli.generated import generate as draw
    from domains.series.cli.opened import open_run

    opened = open_run(run, runs)
    with opened.looking(seed, "generate"):
        panel = draw(opened, n, start, length)
    data.write_panel(out, panel)
    folder.say(f"wrote {out}")
    rows, channels = panel.series[0].values.shape
    result = {"out": str(out), "series": n, "rows": rows, "channels": list(panel.channels)}
    show_result(result, as_json, f"{n} series × {rows} rows × {channels} channels")


def impute(
    run: str,
    file: Annotated[Path, Parameter(name="IN")],
    out: Annotated[Path, Parameter(name="OUT")],
    /,
    *,
    samples: Samples = 100,
    interval: float | None = None,
    draws: int = 0,
    seed: Seed = None,
    force: Force = False,
    runs: Root = folder.RUNS,
    as_json: Json = False,
) -> None:
    """Fill the missing values of a file of the same channels; every given value stays as it is.

    A missing value becomes the median of its predictive distribution. With --interval or --draws a
    second file, OUT with .filled before its ending, has <channel>_lower and <channel>_upper and
    <channel>_draw1, … of each filled value, and only the rows with one. Draws of one window
    belong together; each row is taken from the window that has most rows around it.

    Args:
        run: A run folder, or series/<name>@latest.
        file: CSV (.gz too), parquet, .ts, .npz or NetCDF.
        out: File to write; its ending says how.
        interval: Percent of the draws between lower and upper; default 90 where draws are written.
        draws: How many complete draws to write as well.
    """
    at_least("--samples", samples, 2)
    at_least("--draws", draws, 0)
    if draws > samples:
        raise UserError(f"--draws: got {draws}, expected at most --samples, {samples}")
    share = percent(90.0 if interval is None else interval)
    wanted = interval is not None or draws > 0
    beside = _free(out, "filled" if wanted else None, force)
    from domains.series import data
    from domains.series.cli.imputed import fill
    from domains.series.cli.in_place import write_like
    from domains.series.cli.opened import open_run
    from domains.series.cli.tables import put_back

    opened = open_run(run, runs)
    panel = opened.read(file)
    with opened.looking(seed, "impute"):
        filled = fill(opened, opened.own_channels(panel, file), samples, share, draws)
    write_like(file, out, panel, put_back(panel, filled.panel))
    result: dict[str, Any] = {"out": str(out), "filled": filled.count, "samples": samples}
    if wanted and filled.count:
        data.write_panel(beside, filled.cells)
        result |= {"filled_file": str(beside), "interval": 100 * share, "draws": draws}
    folder.say(f"wrote {out}" + (f" and {beside}" if "filled_file" in result else ""))
    show_result(result, as_json, f"{filled.count} values filled")


def forecast(
    run: str,
    /,
    *,
    out: Out,
    horizon: int = 24,
    data_file: Data = None,
    samples: Samples = 100,
    interval: Percent = 90.0,
    seed: Seed = None,
    force: Force = False,
    runs: Root = folder.RUNS,
    as_json: Json = False,
) -> None:
    """Write the rows after the end of each series: median, mean, lower and upper.

    Columns <channel> (the median), <channel>_mean, <channel>_lower, <channel>_upper; times go on
    at the data's usual interval. A model of task forecast predicts its horizon in one go, others
    at most half a window; what is longer rolls on, each path from its own draws.

    Args:
        run: A run folder, or series/<name>@latest.
        horizon: How many rows.
    """
    at_least("--samples", samples, 2)
    share = percent(interval)
    _free(out, None, force)
    from domains.series import data
    from domains.series.cli import forecasts
    from domains.series.cli.opened import open_run

    opened = open_run(run, runs)
    steps = forecasts.plan(opened, horizon)
    panel = opened.own(data_file)
    if steps.rolls > 1:
        folder.say(f"rolling on: {steps.step} rows at a time, each path from its own draws")
    with opened.looking(seed, "forecast"):
        future = forecasts.forecast(opened, panel, horizon, samples, share)
    data.write_panel(out, future)
    folder.say(f"wrote {out}")
    result = {"out": str(out), "series": len(panel.series), "horizon": horizon}
    result |= {"samples": samples, "interval": interval, "rolls": steps.rolls}
    show_result(result, as_json, f"{len(panel.series)} series × {horizon} rows")


def anomaly(
    run: str,
    /,
    *,
    out: Out,
    data_file: Data = None,
    label: Annotated[str | None, Parameter(help="Column of labels, 0 or 1.")] = None,
    samples: Samples = 32,
    seed: Seed = None,
    force: Force = False,
    runs: Root = folder.RUNS,
    as_json: Json = False,
) -> None:
    """Score how surprising each row is, in nats per value, and say which are the most.

    Columns score, rank, label (if there are labels) and score_<channel>; the score of a row is
    the mean over its known values and over the windows that hold it. A model of task generate
    judges a window that it has seen, one of task impute each quarter of a window by the others,
    one of task forecast each row by those before. A model with a linear-dynamics prior filters: it
    judges each row by all rows before it, the channels jointly. With labels also the area under
    the precision-recall curve, point by point.

    Args:
        run: A run folder, or series/<name>@latest.
    """
    at_least("--samples", samples, 1)
    _free(out, None, force)
    from domains.series import data
    from domains.series.cli import anomalies
    from domains.series.cli.opened import open_run

    opened = open_run(run, runs)
    if data_file is None and label is not None:
        raise UserError("--label: belongs to --data, which is not given; a run has data.label")
    panel = opened.own(data_file, label)
    with opened.looking(seed, "anomaly"):
        scored = anomalies.score(opened, panel, samples)
    data.write_panel(out, anomalies.scores_table(panel, scored))
    folder.say(f"wrote {out}")
    result = {"out": str(out), **anomalies.summary(panel, scored, SHOWN)}
    show_result(result, as_json, anomalies.text(result))


def spectrum(
    run: str,
    /,
    *,
    out: Annotated[Path | None, Parameter(help="Also write it: .svg, .html or .json.")] = None,
    force: Force = False,
    runs: Root = folder.RUNS,
    as_json: Json = False,
) -> None:
    """Show the modes of a model's linear dynamics: how fast they fade and turn, what they hold.

    Half-lives and periods are in the data's units of time, the energy is each mode's share of the
    latents' variance on the train windows; a mode and its conjugate are one.

    Args:
        run: A run folder, or series/<name>@latest.
    """
    if out is not None:
        _require_ending(out, FIGURES)
        folder.refuse_existing(out, force)
    from domains.series import data
    from domains.series.cli import modes
    from domains.series.cli.opened import open_run

    opened = open_run(run, runs)
    with opened.looking(None, "spectrum"):
        found = modes.spectrum_of(opened, data.batches(opened.config, opened.data, "train"))
    clock = opened.steps
    if out is not None:
        modes.write(out, found, clock)
        folder.say(f"wrote {out}")
    show_result(modes.described(found, clock), as_json, modes.text(found, clock))


def score(
    real: Path,
    generated: Path,
    /,
    *,
    protocol: Literal["timegan", "strict"] = "timegan",
    judges: int = 10,
    window: int | None = None,
    seed: int = 0,
    out: Annotated[Path | None, Parameter(help="Also write it to this .json file.")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Compare generated series with real ones by the field's scores, each beside its floor.

    Both files hold windows: several series of one length, or long ones that are cut into windows
    of consecutive rows. Values are scaled to [0, 1] by the range of the real ones. The floor is
    what a copy of the real windows gets from the same judges, or as many real windows drawn anew
    from a distance: no score means anything below it.

    Args:
        real: A file of real series.
        generated: A file of generated series, with the same channels.
        protocol: timegan is that of Yoon et al. (2019); strict adds a stronger judge on windows
            held out from it, the distances of distributions and of autocorrelations.
        judges: How many judges, each with a seed of its own.
        window: Rows of a window; default those of the generated series.
        seed: Of the judges.
    """
    at_least("--judges", judges, 2)
    if window is not None:
        at_least("--window", window, 2)
    if out is not None:
        _require_ending(out, (".json",))
        folder.refuse_existing(out, force)
    from domains.series.cli import compared

    both = compared.read_both(real, generated, window)
    found = compared.compare(both, protocol, judges, seed)
    if out is not None:
        folder.write_json(out, found)
        folder.say(f"wrote {out}")
    show_result(found, as_json, compared.text(found))


def at_least(option: str, given: int, least: int) -> None:
    """Refuse a number that is too small."""
    if given < least:
        raise UserError(f"{option}: got {given}, expected at least {least}")


def percent(given: float) -> float:
    """A percentage as a share."""
    if not 0 < given < 100:
        raise UserError(f"--interval: got {given:g}, expected percent between 0 and 100, as 90")
    return given / 100


def _options(
    file: Path,
    time: str | None,
    identifier: str | None,
    values: tuple[str, ...],
    na_values: tuple[float, ...],
    merge: Literal["mean", "first", "last"] | None,
    zone: str | None,
) -> Options:
    from domains.series.config import Data as Options

    return Options(
        source="file",
        path=str(file),
        time=time,
        identifier=identifier,
        values=values or None,
        na_values=na_values,
        merge=merge,
        zone=zone,
    )


def _free(out: Path, beside: str | None, force: bool) -> Path:
    """Refuse files that exist; return the name of the one beside it."""
    ending = _require_ending(out, ENDINGS)
    folder.refuse_existing(out, force)
    if beside is None:
        return out
    second = out.with_name(f"{out.name.removesuffix(ending)}.{beside}{ending}")
    folder.refuse_existing(second, force)
    return second


def _require_ending(path: Path, endings: tuple[str, ...]) -> str:
    found = next((ending for ending in endings if path.name.endswith(ending)), None)
    if found is None:
        raise UserError(f"{path}: ends in {path.suffix!r}; expected {', '.join(endings)}")
    return found


VERBS = {
    "inspect": inspect,
    "generate": generate,
    "impute": impute,
    "forecast": forecast,
    "anomaly": anomaly,
    "spectrum": spectrum,
    "mask": mask,
    "score": score,
}
