"""What may be said of a diagnosis, in sentences: what to trust and what not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from core.runtime.diagnosis.tables import ALL_GROUPS, Part, interval_of, reason
from core.runtime.wording import number

SIGNIFICANT = 0.05
HANDFUL, WORTH = 2, 0.1  # effective draws, of all draws, that are too few
FEW = 0.05  # share of examples


@dataclass(frozen=True)
class Claim:
    """A sentence: ``claim: detail``.

    Args:
        kind: How it looks in the report.
        claim: What is the case.
        detail: Why, with numbers.
    """

    kind: Literal["beats", "does not beat", "cannot tell", "none"]
    claim: str
    detail: str


def claims(record: Part) -> list[Claim]:
    """Return every claim that the numbers support, the gravest part first."""
    found = [trust(record["importance"])]
    for name, latent in record["latents"].items():
        found += [_use(name, latent), _prior(name, latent["aggregated"])]
    found += [_noise(record["gradients"])]
    return [claim for claim in found if claim is not None]


def trust(importance: Part) -> Claim | None:
    """Return whether the importance-weighted likelihood can be believed; None without latents."""
    if reason(importance):
        return None
    share, what = importance["heavy_share"], "importance-weighted estimate"
    untrusted = f"The {what} cannot be trusted"
    size, draws = importance["effective_sample_size"], number(importance["samples"])
    if reason(share):
        why = f"there is no k-hat: {reason(share)}"
        if size is not None and size < max(HANDFUL, WORTH * importance["samples"]):
            worth = f"its {draws} draws are worth {number(size)} equally weighted"
            return Claim("does not beat", untrusted, f"{worth}, and {why}.")
        return Claim("cannot tell", f"Cannot tell whether the {what} can be trusted", f"{why}.")
    heavy, n = round(share["value"] * share["n"]), share["n"]
    worth = "" if size is None else f"; {draws} draws are worth {number(size)} equally weighted"
    if heavy:
        for_some = "" if heavy == n else f" for {_of(heavy, n)}"
        return Claim(
            "does not beat" if share["value"] > FEW else "cannot tell",
            f"{untrusted}{for_some}",
            "their k-hat is above 0.7, where no practical number of draws is enough; it is still "
            f"a lower bound on average{worth}.",
        )
    return Claim(
        "beats",
        f"The {what} can be trusted",
        f"k-hat is at most 0.7 for {_of(n, n)}{worth}.",
    )


def _use(name: str, latent: Part) -> Claim | None:
    active, size = latent["active_units"], latent["dimensions"]
    if reason(active):
        return None
    used, threshold = round(active["value"]), number(latent["threshold"])
    if not used:
        return Claim(
            "does not beat",
            f"No dimension of {name} is active",
            f"the variance of the posterior mean over the data is at most {threshold} in all "
            f"{number(size)}: the posterior has collapsed, or tells of the data by its spread "
            "alone.",
        )
    subject = f"{_of(used, size, 'dimension').capitalize()} of {name}"
    return Claim(
        "none" if used == size else "cannot tell",
        f"{subject} {'is' if used == 1 else 'are'} active",
        f"the variance of {'its' if used == 1 else 'their'} posterior mean over the data is above "
        f"{threshold}.",
    )


def _prior(name: str, aggregated: Part) -> Claim | None:
    if reason(aggregated) or reason(aggregated["distance"]):
        return None
    distance = aggregated["distance"]
    numbers = (
        f"energy distance {number(distance['value'])}, up to {number(distance['floor_95'])} "
        f"between samples of the prior (p = {number(distance['p_value'])}, "
        f"n = {number(distance['n'])})"
    )
    if distance["p_value"] > SIGNIFICANT:
        return Claim("none", f"{name} is not seen to differ from its prior", f"{numbers}.")
    return Claim(
        "cannot tell",
        f"{name} is not distributed as its prior",
        f"{numbers}; samples of the prior may lie where the decoder was not trained.",
    )


def _noise(groups: Part) -> Claim | None:
    """Groups whose signal-to-noise ratio lies below 1 with its whole interval."""
    if reason(groups):
        return None
    drowned = [name for name, group in groups.items() if _drowns(group["signal_to_noise"])]
    drowned = [name for name in drowned if name != ALL_GROUPS] or drowned
    if not drowned:
        return None
    return Claim(
        "none",
        f"The gradient of {' and '.join(drowned)} drowns in its noise",
        "signal to noise is below 1 on one batch: the training is at its end, or needs more "
        "posterior draws, another estimator or larger batches.",
    )


def _drowns(ratio: dict[str, Any]) -> bool:
    interval = interval_of(ratio)
    return not reason(ratio) and interval is not None and interval[1] < 1


def _of(count: int, total: int, what: str = "example") -> str:
    """``3 of 10 examples``, ``the one example``, ``all 10 examples``."""
    if count == total:
        return f"the one {what}" if total == 1 else f"all {number(total)} {what}s"
    return f"{number(count)} of {number(total)} {what}s"
