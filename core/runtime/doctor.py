"""What is installed, what works, and whether the mathematics is right on this machine."""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from packaging.requirements import Requirement

from core.runtime import folder
from core.runtime.cli import Json, show_result
from core.runtime.errors import RunFailed

Thorough = Annotated[bool, Parameter(negative="")]


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
        *, self_test: bool = True, thorough: Thorough = False, as_json: Json = False
    ) -> None:
        """Say what is installed and what works, and hold the mathematics against exact values.

        Args:
            self_test: Compare the ELBO and IWAE with log-likelihoods that are known exactly.
            thorough: Also try what takes a minute: have the orchestrator plan a scheduled run.
        """
        findings = [*installation(), *computing(), *extras(), *(more(thorough) if more else ())]
        if self_test:
            findings += mathematics()
        text = "\n".join(_line(finding) for finding in findings)
        show_result({"findings": [asdict(finding) for finding in findings]}, as_json, text)
        wrong = [finding.name for finding in findings if finding.ok is False]
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
    """The self-test of the variational core."""
    from core.variational.selftest import self_test

    return [
        Finding(check.name, f"{check.value:.2g} (at most {check.limit:.2g})", check.passed)
        for check in self_test()
    ]
