"""The run folder: its name, lock, status, lineage, and how a person refers to it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

from core.runtime import config as settings_file
from core.runtime.errors import Interrupted, RunFailed, UserError, did_you_mean

RUNS = Path("runs")
ACTIVE = {"ingesting", "training", "evaluating", "reporting"}
SOURCES = Path(__file__).resolve().parents[2]
SUFFIXES = {".py", ".j2", ".css"}  # of sources that a result depends on
PACKAGES = (
    "torch",
    "numpy",
    "lightning-fabric",
    "safetensors",
    "pydantic",
    "matplotlib",
    "prefect",
)


# Files


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a whole file or nothing, see `atomic_file`."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be written whole or not at all: temporary file, fsync, rename.

    Raises:
        RunFailed: If the disk is full or not writable; what stood at ``path`` is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise RunFailed(f"{path}: cannot write: {error.strerror}; nothing was changed") from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write sorted, indented JSON atomically; NaN and infinity are refused."""
    write_atomic(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: If the file is missing or is no JSON object.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a JSON file: {error}") from error
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: holds no JSON object; write it again with the stage that makes it"
        )
    return content


def refuse_existing(path: Path, force: bool) -> None:
    """Raise unless ``path`` is free or may be replaced.

    Raises:
        UserError: If it exists and ``force`` is false.
    """
    if path.exists() and not force:
        raise UserError(f"{path}: exists already; give another --out, or --force to replace it")


# Names


def code_version(domain: str) -> str:
    """SHA-256 of the sources that a result depends on: core and the one domain."""
    digest = hashlib.sha256()
    for package in ("core", f"domains/{domain}"):
        files = (path for path in (SOURCES / package).rglob("*") if path.suffix in SUFFIXES)
        for path in sorted(files):
            digest.update(path.relative_to(SOURCES).as_posix().encode() + b"\0")
            digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def identity(settings: settings_file.Settings, fingerprint: str = "") -> str:
    """Hash of settings, code and data: the same result has the same one."""
    parts = (settings_file.settings_digest(settings), code_version(settings.domain), fingerprint)
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:12]


def resolve_threads(settings: settings_file.Settings) -> settings_file.Settings:
    """Fix the number of threads, on which the bits of a result depend."""
    if settings.compute.threads is not None:
        return settings
    compute = settings.compute.model_copy(update={"threads": len(os.sched_getaffinity(0))})
    return settings.model_copy(update={"compute": compute})


def create(
    settings: settings_file.Settings, root: Path = RUNS, out: Path | None = None, parent: str = ""
) -> Path:
    """Make the folder of a new run, ``root/<domain>/<name>/<time>-<identity>``, with its settings.

    Args:
        settings: The resolved settings.
        root: Folder of all runs.
        out: The run's folder itself, instead of a name under ``root``.
        parent: The run that this one reproduces or continues.

    Raises:
        UserError: If ``out`` exists and is not empty.
    """
    settings = resolve_threads(settings)
    folder = out or _free_name(root / settings.domain / settings.name, identity(settings))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists already; give another --out, or resume it")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "settings.yaml", settings_file.dump_settings(settings))
    record_lineage(folder, **_lineage(settings), parent=parent)
    set_status(folder, "created")
    return folder


def _free_name(home: Path, name: str) -> Path:
    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    candidates = (
        home / f"{time}-{name}{suffix}" for suffix in ("", *(f"-{i}" for i in range(2, 99)))
    )
    return next(path for path in candidates if not path.exists())


def domain_of(run: Path) -> str:
    """The domain that a run's settings name."""
    return settings_file.read_domain(run / "settings.yaml")


def locate(reference: str, root: Path = RUNS) -> Path:
    """Find a run by its folder, or by ``<domain>/<name>@latest`` or ``@best``.

    Raises:
        UserError: If there is no such run.
    """
    folder = Path(reference)
    if (folder / "settings.yaml").is_file():
        return folder
    match = re.fullmatch(r"([^@]+)@(\w+)", reference)
    if match is None:
        known = "; see: latentworks runs" if root.is_dir() else ""
        raise UserError(f"{reference}: no run here (no settings.yaml){known}")
    name, alias = match.groups()
    runs = [run for run in all_runs(root) if run.parent == root / name]
    if not runs:
        names = sorted({run.parent.relative_to(root).as_posix() for run in all_runs(root)})
        raise UserError(f"{reference}: no run named {name!r} in {root}{did_you_mean(name, names)}")
    if alias == "latest":
        return runs[-1]
    if alias == "best":
        return _best(reference, runs)
    raise UserError(f"{reference}: alias {alias!r} is not one of: latest, best")


def _best(reference: str, runs: Sequence[Path]) -> Path:
    scored = [(primary_metric(run), run) for run in runs]
    done = [(metric, run) for metric, run in scored if metric is not None]
    if not done:
        raise UserError(f"{reference}: none of its {len(runs)} runs has been evaluated")
    sign = -1 if done[0][0]["direction"] == "lower" else 1
    return max(done, key=lambda pair: (sign * pair[0]["value"], pair[1].name))[1]


def all_runs(root: Path = RUNS) -> list[Path]:
    """All runs below ``root``, oldest first."""
    return sorted(path.parent for path in root.glob("*/*/*/settings.yaml"))


def primary_metric(run: Path) -> dict[str, Any] | None:
    """The metric that decides between runs, with its name, or None before evaluation."""
    if not (run / "metrics.json").is_file():
        return None
    metrics = read_json(run / "metrics.json")["metrics"]
    return next(({"name": name, **m} for name, m in metrics.items() if m["primary"]), None)


def metric_text(metric: Mapping[str, Any]) -> str:
    """A metric in a few words, e.g. ``auc 0.957 [0.949, 0.964] (n = 1054)``."""
    interval = metric["interval"]
    between = f" [{interval[0]:.4g}, {interval[1]:.4g}]" if interval else ""
    unit = f" {metric['unit']}" if metric["unit"] else ""
    return f"{metric['name']} {metric['value']:.4g}{unit}{between} (n = {metric['n']})"


def describe(run: Path) -> dict[str, Any]:
    """One line of the list of runs."""
    metric = primary_metric(run)
    result = metric_text(metric) if metric else ""
    return {"run": run.as_posix(), "state": state(run), "result": result}


def product_version() -> str:
    """The installed version of latentworks."""
    return metadata.version("latentworks")


def say(message: str) -> None:
    """Say something to the person; results go to stdout, messages to stderr."""
    print(message, file=sys.stderr, flush=True)


# State: the truth is the lock, not a database


@contextlib.contextmanager
def lock(run: Path) -> Iterator[None]:
    """Hold the run for this process; the kernel frees it however the process ends.

    Raises:
        UserError: If another process holds it.
    """
    with open(run / "run.lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise UserError(
                f"{run}: in use by process {holder}; wait for it or stop it, then try again"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def is_locked(run: Path) -> bool:
    """Whether a living process holds the run."""
    if not (run / "run.lock").exists():
        return False
    with open(run / "run.lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def set_status(run: Path, state: str, error: str = "") -> None:
    """Record what the run is doing now, with the time of each state."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    path = run / "status.json"
    times = read_json(path)["times"] if path.exists() else {}
    content = {"state": state, "times": {**times, state: now}, "error": error}
    write_json(path, content)


def state_recorded(run: Path) -> str:
    """The state that the run wrote last."""
    return read_json(run / "status.json")["state"] if (run / "status.json").exists() else "created"


def state(run: Path) -> str:
    """What the run is really doing: an active state whose lock is free means that it crashed."""
    recorded = state_recorded(run)
    return "crashed" if recorded in ACTIVE and not is_locked(run) else recorded


@contextlib.contextmanager
def working(run: Path, doing: str, then: str) -> Iterator[None]:
    """Hold the lock during a stage and keep the status true, whatever happens."""
    with lock(run):
        set_status(run, doing)
        try:
            yield
        except (Interrupted, KeyboardInterrupt):
            set_status(run, "interrupted")
            raise
        except BaseException as error:
            set_status(run, "failed", error=f"{type(error).__name__}: {error}".splitlines()[0])
            raise
        set_status(run, then)


def require(run: Path, file: str, command: str) -> Path:
    """Return a file that an earlier stage wrote.

    Raises:
        UserError: If it is not there yet; names the command to run first.
    """
    path = run / file
    if not path.exists():
        raise UserError(f"{run}: no {file} yet; first run: latentworks {command} {run}")
    return path


# Lineage


def record_lineage(run: Path, **entries: Any) -> None:
    """Add entries to ``lineage.json``."""
    path = run / "lineage.json"
    known = read_json(path) if path.exists() else {}
    write_json(path, {**known, **entries})


def _lineage(settings: settings_file.Settings) -> dict[str, Any]:
    return {
        "identity": identity(settings),
        "code": {"sources": code_version(settings.domain), **_git()},
        "packages": _versions(),
        "python": platform.python_version(),
        "hardware": {
            "machine": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
        },
        "threads": settings.compute.threads,
        "seed": settings.seed,
    }


def _versions() -> dict[str, str]:
    installed = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def _processor() -> str:
    for line in (
        Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    ):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _git() -> dict[str, str]:
    if not (SOURCES / ".git").exists() or shutil.which("git") is None:
        return {}
    commit, diff = (
        subprocess.run(["git", "-C", SOURCES, *words], capture_output=True, check=False).stdout
        for words in (["rev-parse", "HEAD"], ["diff", "HEAD"])
    )
    found = {"commit": commit.decode().strip()}
    return found | ({"diff": hashlib.sha256(diff).hexdigest()} if diff else {})
