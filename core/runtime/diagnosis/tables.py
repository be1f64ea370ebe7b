"""The numbers of a diagnosis as rows: value, unit, interval, estimator, what good looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.runtime.errors import UserError
from core.runtime.wording import between, decimals_for, number

PARTS = {
    "collapse",
    "examples",
    "generated",
    "gradients",
    "importance",
    "latents",
    "rate_distortion",
}
NOT_FINITE = "it is not a finite number"
PER_EXAMPLE, PER_ROW = "nats per example", "nats per row"
ALL_GROUPS = "all"

Part = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One number as a table shows it.

    Args:
        name: What it is.
        how: How it was estimated.
        good: What a good value looks like.
        value: The number for reading, with no more digits than its interval supports.
        exact: The number for machines.
        unit: Its unit.
        interval: 95 % interval, empty where there is none.
        n: How many of what are behind it.
        missing: Why there is no number, empty where there is one.
    """

    name: str
    how: str
    good: str
    value: str = ""
    exact: str = ""
    unit: str = ""
    interval: str = ""
    n: str = ""
    missing: str = ""


def checked(record: Any, where: object) -> Part:
    """Return a diagnosis, an empty one for none.

    Args:
        record: What ``metrics.json`` holds.
        where: The file, for the message.

    Raises:
        UserError: If it is not what `evaluate` writes.
    """
    if record is None:
        return {}
    missing = PARTS - set(record) if isinstance(record, Mapping) else PARTS
    if missing:
        raise UserError(
            f"{where}: its diagnosis lacks {', '.join(sorted(missing))}; write it again with the "
            "domain's verb: evaluate RUN --force"
        )
    return record


def tables(record: Part) -> dict[str, list[Row]]:
    """Return the rows by heading."""
    found = {"Rate and distortion": _rate_distortion(record["rate_distortion"])}
    if record["latents"]:
        found = {"Importance-weighted likelihood": _likelihood(record)} | found
    for name, latent in record["latents"].items():
        found[f"Latents: {name}"] = _latent(latent)
    if record["latents"]:
        found["Collapse in theory"] = [_collapse(record["collapse"])]
        found["Gradient of the training objective"] = _gradients(record["gradients"])
    found["Samples of the model's own"] = _generated(record["generated"])
    return found


def notes(record: Part) -> list[str]:
    """Return what a reader of the rows has to know."""
    said = [
        "Intervals are 95 %. n counts what is independent: examples, gradients, or rows; a row is "
        "whatever has a latent of its own, an example or each node or frame in it. Each part has "
        "draws of its own, so that a quantity that two of them hold differs by sampling noise."
    ]
    if record["examples"] == 1:
        said.append("There is a single example, so that nothing has an interval over examples.")
    unobserved = record["rate_distortion"]["unobserved"]
    if unobserved:
        said.append(f"{number(unobserved)} examples without anything observed were left out.")
    return said


def reason(part: Part) -> str:
    """Return why a part has no number, empty if it has one."""
    if part.get("reason"):
        return str(part["reason"])
    return NOT_FINITE if "value" in part and part["value"] is None else ""


def interval_of(part: Part) -> Sequence[float] | None:
    """Return the interval of an estimate if both of its ends are numbers."""
    interval = part.get("interval")
    return None if interval is None or None in interval else interval


def signal_to_noise(group: Part) -> Part:
    """Return the ratio of a group; its interval ends at 0, where the ratio does."""
    ratio, ends = group["signal_to_noise"], interval_of(group["signal_to_noise"])
    return ratio if ends is None else {**ratio, "interval": [max(0.0, end) for end in ends]}


def gain(record: Part) -> float | None:
    """Return by how much the importance-weighted bound exceeds the ELBO of the same draws."""
    importance = record["importance"]
    if reason(importance) or reason(importance["log_likelihood"]):
        return None
    elbo = elbo_of_the_draws(importance)
    return None if reason(elbo) else importance["log_likelihood"]["value"] - elbo["value"]


def elbo_of_the_draws(importance: Part) -> Part:
    """Return the bound of a single draw: the mean log weight."""
    return next(each["bound"] for each in importance["curve"] if each["samples"] == 1)


def row(
    name: str,
    part: Part,
    unit: str,
    of: str,
    how: str,
    good: str,
    *,
    scale: float = 1.0,
    decimals: int | None = None,
) -> Row:
    """Return an estimate as a row, or the reason why there is none.

    Args:
        name: What it is.
        part: The estimate: ``value, interval, n``, or ``value`` None and ``reason``.
        unit: Its unit.
        of: What n counts.
        how: How it was estimated.
        good: What a good value looks like.
        scale: Factor into the unit, -1 for the negative.
        decimals: Of value and interval; as many as the interval supports if not given.
    """
    missing = reason(part)
    if missing:
        return Row(name, how, good, missing=missing)
    ends, n = interval_of(part), part.get("n")
    interval = None if ends is None else sorted(scale * end for end in ends)
    value = scale * part["value"]
    decimals = decimals_for(interval) if decimals is None else decimals
    return Row(
        name,
        how,
        good,
        value=number(value, decimals),
        exact=repr(value),
        unit=unit,
        interval=between(interval, decimals),
        n=f"{number(n)} {of if n != 1 else of.removesuffix('s')}" if n else "",
    )


def _likelihood(record: Part) -> list[Row]:
    importance = record["importance"]
    if reason(importance):
        return [Row("importance-weighted bound", "", "", missing=reason(importance))]
    draws, estimate = importance["samples"], importance["log_likelihood"]
    count = estimate.get("n")
    weighted = f"{number(draws)} draws from the posterior for each example"
    return [
        row(
            "ELBO of the same draws",
            elbo_of_the_draws(importance),
            PER_EXAMPLE,
            "examples",
            f"mean log weight of the {number(draws)} draws",
            "higher",
        ),
        row(
            "importance-weighted bound",
            estimate,
            PER_EXAMPLE,
            "examples",
            weighted,
            "higher; at most log p(x) on average",
        ),
        row(
            "its sampling error",
            {"value": importance["standard_error"], "n": count},
            PER_EXAMPLE,
            "examples",
            "standard error by the delta method; too small where few draws count",
            "small beside the gain",
        ),
        row(
            "gain over the ELBO",
            {"value": gain(record), "n": count, "reason": reason(estimate)},
            PER_EXAMPLE,
            "examples",
            "the bound less the ELBO of the same draws",
            "near 0: a better posterior would gain little",
        ),
        row(
            "effective sample size",
            {"value": importance["effective_sample_size"], "n": count},
            f"of {number(draws)} draws",
            "examples",
            "1 / sum of squared normalised weights",
            f"near {number(draws)}",
        ),
        row(
            "k-hat above 0.7",
            importance["heavy_share"],
            "% of examples",
            "examples",
            "Pareto tail of the largest weights",
            "0 %",
            scale=100,
        ),
    ]


def _rate_distortion(part: Part) -> list[Row]:
    rates = {f"rate: {name}": each for name, each in part["rates"].items()}
    if len(rates) > 1:
        rates = {"rate": part["rate"]} | rates
    distortions = {f"distortion: {name}": each for name, each in part["distortions"].items()}
    if len(distortions) > 1:
        distortions = {"distortion": part["distortion"]} | distortions
    rows = [
        row(name, each, PER_EXAMPLE, "examples", "KL to the prior", "lower at equal distortion")
        for name, each in rates.items()
    ]
    rows += [
        row(name, each, PER_EXAMPLE, "examples", "\N{MINUS SIGN} log p(x | z)", good)
        for name, each in distortions.items()
        for good in ["lower at equal rate" if rates else "lower"]
    ]
    bits = part["bits_per_dimension"]
    if not reason(bits):
        rows.append(row("bits per dimension", bits, "bits", "examples", "negative ELBO", "lower"))
    return rows


def _latent(latent: Part) -> list[Row]:
    threshold, size = number(latent["threshold"]), number(latent["dimensions"])
    return [
        row(
            "active units",
            latent["active_units"],
            f"of {size} dimensions",
            "rows",
            f"variance of the posterior mean over the data above {threshold}",
            "all that the data need; 0 is collapse",
            decimals=0,
        ),
        *_information(latent["information"]),
        _distance(latent["aggregated"]),
    ]


def _information(part: Part) -> list[Row]:
    name = "mutual information"
    if reason(part):
        return [Row(name, "with the data, between two bounds", "", missing=reason(part))]
    return [
        row(
            name,
            part["mutual_information"],
            PER_ROW,
            "rows",
            "with the data, between InfoNCE and the leave-one-out bound",
            "near the rate",
        ),
        row(
            "rate", part["rate"], PER_ROW, "rows", "KL to the prior, 1 draw", "what the data need"
        ),
        row(
            "KL of aggregated posterior to prior",
            part["marginal_kl"],
            PER_ROW,
            "rows",
            "rate less mutual information, between two bounds",
            "near 0",
        ),
    ]


def _distance(aggregated: Part) -> Row:
    name = "aggregated posterior to prior"
    missing = reason(aggregated) or reason(aggregated["distance"])
    if missing:
        return Row(name, "energy distance", "near 0", missing=missing)
    distance = aggregated["distance"]
    return row(
        name,
        {"value": distance["value"], "n": distance["n"]},
        "units of the latent",
        "rows",
        f"energy distance; permutation test, p = {number(distance['p_value'])}",
        f"under {number(distance['floor_95'])}, as 95 % of pairs of samples of the prior",
    )


def _collapse(part: Part) -> Row:
    name, good = "active units predicted", "close to those counted"
    if reason(part):
        return Row(name, "", good, missing=reason(part))
    return row(
        name,
        part["active"],
        f"of {number(part['latent'])} dimensions",
        "examples",
        "eigenvalues of the data covariance above β σ², for linear models",
        good,
        decimals=0,
    )


def _gradients(groups: Part) -> list[Row]:
    if reason(groups):
        return [Row("signal to noise", "", "", missing=reason(groups))]
    return [
        row(
            f"signal to noise: {name}",
            signal_to_noise(group),
            "",
            "gradients",
            f"{number(group['parameters'])} parameters, 1 batch; jackknife",
            "above 1; falls towards the end of a training",
        )
        for name, group in sorted(groups.items(), key=lambda item: item[0] == ALL_GROUPS)
    ]


def _generated(part: Part) -> list[Row]:
    if reason(part):
        return [Row("negative ELBO of samples", "", "", missing=reason(part))]
    names = {
        "generated": ("negative ELBO of samples", "1 draw", "near that of the data"),
        "held_out": ("negative ELBO of the data", "1 draw", "lower"),
        "difference": ("difference", "Welch's interval", "near 0"),
    }
    return [
        row(name, part[key], PER_EXAMPLE, "examples", how, good)
        for key, (name, how, good) in names.items()
    ]
