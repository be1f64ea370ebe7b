"""What is installed, what works, and whether the mathematics is right on this machine."""

from __future__ import annotations

import importlib.util
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from packaging.requirements import Requirement

from core.runtime import folder
from core.runtime.cli import Json, show_result
from core.runtime.errors import RunFailed

if TYPE_CHECKING:
    from core.variational.selftest import Check

Switch = Annotated[bool, Parameter(negative="")]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table.

    Args:
        name: What was looked at.
        found: What was found.
        ok: Whether that is as it should be; None for something optional that is absent.
    """

    name: str
    found: str
    ok: bool | None = True


def make_doctor(
    more: Callable[[bool], Iterable[Finding]] | None = None,
) -> Callable[..., None]:
    """Return the verb ``doctor``.

    Args:
        more: Looks at what core knows nothing of, such as the orchestrator; told whether to be
            thorough.
    """

    def doctor(
        *, self_test: Switch = False, thorough: Switch = False, as_json: Json = False
    ) -> None:
        """Say what is installed and what works, and hold the mathematics against exact values.

        Exit status 1 if anything is not as it should be; the last line then names it.

        Args:
            self_test: Hold every claim of the mathematics against something known, in a minute;
                without it only the log-likelihoods that are known exactly, in a second.
            thorough: Also try what takes a minute: have the orchestrator plan a scheduled run.
        """
        findings = [*installation(), *computing(), *extras(), *(more(thorough) if more else ())]
        if not self_test:
            findings += mathematics()
        result: dict[str, Any] = {"findings": [asdict(finding) for finding in findings]}
        text = "\n".join(_line(finding) for finding in findings)
        wrong = [finding.name for finding in findings if finding.ok is False]
        if self_test:
            tested = whole_self_test()
            result["self_test"] = tested.as_json()
            text = f"{text}\n\n{tested.table()}"
            wrong += tested.wrong
        show_result(result, as_json, text)
        if wrong:
            raise RunFailed(f"doctor: not as it should be: {', '.join(wrong)}")

    return doctor


def _line(finding: Finding) -> str:
    mark = {True: "ok", False: "WRONG", None: "-"}[finding.ok]
    return f"{mark:<6} {finding.name:<44} {finding.found}"


def installation() -> list[Finding]:
    """Python, this product, and that ``core`` is ours and not another package of that name."""
    return [
        Finding("python", platform.python_version()),
        Finding("latentworks", folder.product_version()),
        _ours("core"),
        _ours("domains"),
        _ours("pipelines"),
    ]


def _ours(package: str) -> Finding:
    """Other distributions ship packages of these plain names and would overwrite ours silently."""
    spec = importlib.util.find_spec(package)
    origin = Path(spec.origin).resolve() if spec and spec.origin else None
    expected = folder.SOURCES / package / "__init__.py"
    owners = metadata.packages_distributions().get(package, [])
    if origin != expected:
        return Finding(
            f"package {package} is ours", f"no: it is {origin}, expected {expected}", False
        )
    foreign = sorted(set(owners) - {"latentworks"})
    if foreign:
        return Finding(
            f"package {package} is ours", f"no: shared with {', '.join(foreign)}", False
        )
    return Finding(f"package {package} is ours", "yes")


def computing() -> list[Finding]:
    """The build of torch, the GPU, the threads."""
    import torch

    available = torch.cuda.is_available()
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    gpu = torch.cuda.get_device_name() if available else "none found"
    cores = len(os.sched_getaffinity(0))
    return [
        Finding("torch", f"{torch.__version__} ({build})"),
        Finding("GPU", gpu, True if available else None),
        Finding("threads", f"{torch.get_num_threads()} of {cores} cores"),
        Finding("deterministic algorithms", _determinism(torch)),
    ]


def _determinism(torch: Any) -> str:
    torch.use_deterministic_algorithms(True)
    left, right = torch.randn(64, 64), torch.randn(64, 64)
    return "yes" if torch.equal(left @ right, left @ right) else "no"


def extras() -> list[Finding]:
    """Each optional extra: which of its packages are there, in a version that we work with."""
    distribution = metadata.distribution("latentworks")
    requirements = [Requirement(text) for text in distribution.requires or []]
    return [
        _extra(
            extra, [r for r in requirements if r.marker and r.marker.evaluate({"extra": extra})]
        )
        for extra in distribution.metadata.get_all("Provides-Extra") or []
    ]


def _extra(name: str, requirements: list[Requirement]) -> Finding:
    missing, wrong = [], []
    for requirement in requirements:
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            missing.append(requirement.name)
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} (needs {requirement.specifier})")
    if wrong:
        return Finding(f"extra {name}", ", ".join(wrong), False)
    if missing:
        install = f"; pip install 'latentworks[{name}]'"
        return Finding(f"extra {name}", f"without {', '.join(missing)}{install}", None)
    return Finding(f"extra {name}", "installed")


def mathematics() -> list[Finding]:
    """The part of the self-test that takes a second: log-likelihoods that are known exactly."""
    from core.variational.selftest import QUICK, self_test

    return [
        Finding(f"{check.name}, {check.unit}", _found(check), check.passed)
        for _, checks in self_test(QUICK)
        for check in checks
    ]


@dataclass(frozen=True)
class SelfTest:
    """The whole self-test.

    Args:
        parts: The checks of each part.
        cpu_s: CPU time that it took, in seconds.
    """

    parts: Mapping[str, Sequence[Check]]
    cpu_s: float

    @property
    def checks(self) -> list[Check]:
        """All checks."""
        return [check for checks in self.parts.values() for check in checks]

    @property
    def wrong(self) -> list[str]:
        """What failed, each with its part and the case that it failed for."""
        return [
            f"{part}: {check.name}" + (f" ({check.at})" if check.at else "")
            for part, checks in self.parts.items()
            for check in checks
            if not check.passed
        ]

    def table(self) -> str:
        """The table for a person: one block a part, one line a check."""
        lines = [f"{'':6} {'':46} {'cases':>5} {'worst':>9}    {'limit':<16} worst case"]
        for part, checks in self.parts.items():
            lines += [part, *map(_row, checks)]
        failed = len(self.wrong)
        cases = sum(check.cases for check in self.checks)
        verdict = f"{failed} WRONG" if failed else "all ok"
        lines.append(
            f"{len(self.checks)} checks of {cases} cases, {verdict}, in {self.cpu_s:.1f} s of CPU"
        )
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The same for a program; a number that is not finite is null."""
        rows = [
            {"part": part, **asdict(check), "ok": check.passed}
            for part, checks in self.parts.items()
            for check in checks
        ]
        for row in rows:
            if not math.isfinite(row["worst"]):
                row["worst"] = None
        return {"checks": rows, "cpu_s": self.cpu_s, "ok": not self.wrong}


def whole_self_test() -> SelfTest:
    """Run the whole self-test, saying how far it is."""
    from core.runtime.progress import Progress
    from core.variational.selftest import PARTS, self_test

    begun, parts = time.process_time(), {}
    with Progress("self-test", len(PARTS)) as progress:
        for part, checks in self_test():
            parts[part] = checks
            progress.show(len(parts), {})
    return SelfTest(parts, time.process_time() - begun)


def _found(check: Check) -> str:
    return f"{check.worst:.2g} (at most {check.limit:.2g}, {check.cases} cases)"


def _row(check: Check) -> str:
    mark = "ok" if check.passed else "WRONG"
    limit = f"{'≥' if check.at_least else '≤'} {check.limit:.3g} {check.unit}"
    return (
        f"{mark:<6} {check.name:<46} {check.cases:>5} {check.worst:>9.3g}  {limit:<18} {check.at}"
    ).rstrip()
