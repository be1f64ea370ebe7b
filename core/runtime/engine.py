"""The training loop, on Lightning Fabric, to be read from top to bottom.

Every random number is a function of (seed, step) and every batch of (seed, epoch, index); a
checkpoint holds the rest. So a run killed anywhere and resumed ends with the same bytes as one
that was not (one device, the same number of threads).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import core.variational
from core.contract import Batches, Domain
from core.runtime import checkpoint, methods
from core.runtime.config import Settings, Training
from core.runtime.errors import Interrupted, RunFailed, UserError, did_you_mean
from core.runtime.folder import say, write_atomic
from core.runtime.order import derive, seed_everything_at
from core.runtime.process import settle
from core.runtime.progress import Progress
from core.variational.diagnostics import looking_at
from core.variational.distributions.base import checking_values
from core.variational.evidence import Evidence
from core.variational.objectives import Loss, Objective, elbo_value
from core.variational.schedules import learning_rate_factor

MATHEMATICS = Path(core.variational.__file__).parent
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


@dataclass
class Now:
    """The step at hand: what goes into it and what comes out."""

    batch: Any = None
    fraction: float = 0.0
    result: Loss | None = None


class Step(nn.Module):
    """Model and objective as one module, so that compiling and wrapping see the whole step.

    The batch is handed over in ``now``: Fabric's precision plug-in would try to rebuild a frozen
    dataclass that is passed as an argument, and setting a module's attribute takes microseconds.
    """

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model: Any = model
        self.objective = objective
        self.now = Now()

    def forward(self) -> Tensor:
        """Return the loss of the batch at hand; the whole `Loss` stands in ``now.result``."""
        now = self.now
        evidence = self.model.evidence(now.batch, self.objective.samples)
        now.result = self.objective(evidence, now.fraction)
        return now.result.loss


@dataclass
class Meter:
    """Running sums of the logged terms; in the checkpoint, so that no row depends on a kill."""

    sums: dict[str, float] = field(default_factory=dict)
    steps: int = 0

    def add(self, numbers: Mapping[str, float]) -> None:
        """Add the terms of one step."""
        for name, number in numbers.items():
            self.sums[name] = self.sums.get(name, 0.0) + number
        self.steps += 1

    def flush(self) -> dict[str, float]:
        """Return the means since the last call and start anew."""
        means = {f"train/{name}": total / self.steps for name, total in self.sums.items()}
        self.sums, self.steps = {}, 0
        return means


@dataclass
class Position:
    """How far a training is, and which checkpoint is the best so far."""

    step: int = 0
    best: float | None = None
    without_improvement: int = 0
    stopped: bool = False


def build_objective(settings: Settings) -> Objective:
    """The objective that the settings name, with its schedule."""
    return methods.build_objective(settings.objective, settings.schedule)


@contextlib.contextmanager
def reasons(settings: Settings) -> Iterator[None]:
    """Turn what the mathematics says of a model that it does not fit into a user's mistake.

    Raises:
        UserError: For a ValueError that was raised in ``core/variational``: the objective, the
            estimator, the posterior or the prior cannot be had with this model or batch.
    """
    try:
        yield
    except ValueError as error:
        frames = list(traceback.walk_tb(error.__traceback__))
        if MATHEMATICS not in Path(frames[-1][0].f_code.co_filename).parents:
            raise
        chosen = f"objective.kind {settings.objective.kind!r}"
        if settings.estimator.kind != "reparameterised":
            chosen += f" with estimator.kind {settings.estimator.kind!r}"
        raise UserError(f"{settings.domain}, {chosen}: {error}") from error


def require_estimator(evidence: Evidence, settings: Settings) -> None:
    """Say so if a model draws its latents in its own way whatever the settings ask for.

    Raises:
        UserError: If no latent was drawn by the estimator of the settings.
    """
    drawn = {latent.name: latent.estimator.kind for latent in evidence.latents}
    asked = settings.estimator.kind
    if drawn and asked not in drawn.values():
        listed = ", ".join(f"{name}: {kind}" for name, kind in drawn.items())
        raise UserError(
            f"estimator.kind {asked!r}: this model draws its latents itself ({listed}); leave "
            "estimator out"
        )


def configure(settings: Settings) -> Fabric:
    """Settle this process and return the Fabric of the settings.

    Raises:
        UserError: If several devices are asked for outside of torchrun, or there is no GPU.
    """
    compute = settings.compute
    wanted = compute.devices * compute.nodes
    if wanted > 1 and int(os.environ.get("WORLD_SIZE", "1")) != wanted:
        raise UserError(
            f"compute.devices: {compute.devices} on {compute.nodes} node(s) needs {wanted} "
            f"processes; after the ingest start them with: torchrun --nnodes {compute.nodes} "
            f"--nproc-per-node {compute.devices} -m domains DOMAIN train RUN"
        )
    if compute.accelerator == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "compute.accelerator: 'cuda', but torch finds no GPU here; use 'auto' or 'cpu'"
        )
    settle(settings)
    accelerator = compute.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    fabric = Fabric(
        accelerator=accelerator,
        devices=compute.devices,
        num_nodes=compute.nodes,
        precision=settings.training.precision,
    )
    fabric.launch()
    return fabric


def train(domain: Domain[Any, Any, Any], settings: Settings, run: Path) -> None:
    """Train from the newest checkpoint of the run, or from the start, to the end.

    Raises:
        RunFailed: If a term goes non-finite or a checkpoint cannot be written.
        Interrupted: If SIGINT or SIGTERM came; the step was finished and a checkpoint written.
        UserError: If ``training.monitor`` names no score.
    """
    fabric, options = configure(settings), settings.training
    batches = domain.batches(settings, run / "data", "train")
    per_epoch = len(batches) // fabric.world_size
    if per_epoch == 0:
        raise UserError(
            f"compute.devices: {fabric.world_size}, but an epoch has {len(batches)} batches"
        )
    job = _Job.begin(domain, settings, run, fabric, total=options.epochs * per_epoch)
    position, history = job.position, History(run / "history.jsonl", writes=job.writes)
    history.cut(position.step)

    with stop_signals() as stop, Progress("training", job.total, position.step) as progress:
        if position.step == 0:
            history.add(step=0, epoch=0, **job.look(epoch=0))
        while position.step < job.total and not position.stopped:
            epoch, index = divmod(position.step, per_epoch)
            shard = index * fabric.world_size + fabric.global_rank
            job.step(batches.batch(epoch, shard), epoch)

            ended = epoch + (index == per_epoch - 1)  # whole epochs done
            looking = ended > epoch and (
                ended % options.validate_every == 0 or position.step == job.total
            )
            row: dict[str, float] = {}
            if looking or position.step % options.log_every == 0:
                row |= job.meter.flush()
            if looking:
                row |= job.look(ended)
            if row:
                history.add(step=position.step, epoch=ended, **row)
            if row or position.step % 16 == 0:
                progress.show(position.step, row)
            if position.step % options.checkpoint_every == 0 and position.step < job.total:
                job.save("last")
            if stop.is_set():
                job.save("last")
                raise Interrupted(run)
        job.save("last")
        job.finish()
    fabric.barrier()
    if position.stopped:
        say(
            f"stopped early at step {position.step}: no better {options.monitor} in "
            f"{options.patience} looks"
        )


def to_device(batch: Any, device: torch.device) -> Any:
    """Move a batch: a tensor, a mapping of tensors, or anything with ``to(device)``."""
    if device.type == "cpu":
        return batch
    if isinstance(batch, Mapping):
        return {name: to_device(item, device) for name, item in batch.items()}
    return batch.to(device)


def _optimizer(model: nn.Module, options: Training) -> torch.optim.Optimizer:
    extra = {"momentum": 0.9} if options.optimizer == "sgd" else {"fused": True}
    return OPTIMIZERS[options.optimizer](
        model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay, **extra
    )


def _set_learning_rate(optimizer: Any, options: Training, fraction: float) -> None:
    rate = options.learning_rate * learning_rate_factor(options.decay, options.warmup, fraction)
    for group in optimizer.param_groups:
        group["lr"] = rate


def _numbers(loss: Loss) -> dict[str, float]:
    """All terms of a step as plain numbers, with a single transfer from the device."""
    terms = {"loss": loss.loss, "value": loss.value, **loss.terms}
    tensors = [term for term in terms.values() if isinstance(term, Tensor)]
    numbers = iter(torch.stack(tensors).tolist())
    return {
        name: next(numbers) if isinstance(term, Tensor) else term for name, term in terms.items()
    }


def _require_finite(numbers: Mapping[str, float], step: int, epoch: int, run: Path) -> None:
    if math.isfinite(numbers["loss"]):
        return
    bad = [name for name, number in numbers.items() if not math.isfinite(number)]
    parts = [name for name in bad if name not in ("loss", "value")] or bad
    raise RunFailed(_went_non_finite(parts, step + 1, run, f" (epoch {epoch + 1})"))


def _went_non_finite(names: Sequence[str], step: int, run: Path, more: str = "") -> str:
    intact = sorted((run / "checkpoints").glob("*-*"), key=lambda path: path.stat().st_mtime_ns)
    kept = f"the last good checkpoint is {intact[-1]}" if intact else "there is no checkpoint yet"
    return (
        f"{run}: {', '.join(names)} became non-finite at step {step}{more}; {kept}; try a smaller "
        "training.learning_rate or set training.clip_norm"
    )


@dataclass
class _Job:
    """A training at hand: what it works with, and what a checkpoint of it holds."""

    domain: Domain[Any, Any, Any]
    settings: Settings
    run: Path
    fabric: Fabric
    total: int
    model: nn.Module
    average: AveragedModel | None
    module: Any
    call: Any
    optimizer: Any
    valid: Batches[Any]
    meter: Meter = field(default_factory=Meter)
    position: Position = field(default_factory=Position)

    @classmethod
    def begin(
        cls,
        domain: Domain[Any, Any, Any],
        settings: Settings,
        run: Path,
        fabric: Fabric,
        total: int,
    ) -> _Job:
        """Build everything and go on from the newest intact checkpoint, if there is one."""
        options = settings.training
        seed_everything_at(settings.seed, "init")
        model = domain.model(settings, run / "data")
        average = None
        if options.ema is not None:
            average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(options.ema))
            average = average.to(fabric.device)
        optimizer = _optimizer(model, options)
        module, optimizer = fabric.setup(Step(model, build_objective(settings)), optimizer)
        call = torch.compile(module) if options.compile else module
        valid = domain.batches(settings, run / "data", "valid")
        job = cls(
            domain, settings, run, fabric, total, model, average, module, call, optimizer, valid
        )
        job._restore()
        return job

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes to the run."""
        return self.fabric.is_global_zero

    def step(self, batch: Any, epoch: int) -> None:
        """Take one optimiser step on a batch."""
        position, options = self.position, self.settings.training
        now: Now = self.module.module.now
        now.batch = to_device(batch, self.fabric.device)
        now.fraction = position.step / self.total
        _set_learning_rate(self.optimizer, options, now.fraction)
        seed_everything_at(self.settings.seed, "step", position.step, self.fabric.global_rank)

        with reasons(self.settings):
            loss = self.call()
        assert now.result is not None
        numbers = _numbers(now.result)
        _require_finite(numbers, position.step, epoch, self.run)
        self.fabric.backward(loss)
        if options.clip_norm is not None:
            self.fabric.clip_gradients(
                self.module,
                self.optimizer,
                max_norm=options.clip_norm,
                error_if_nonfinite=False,  # the next finite check says it in our words
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.meter.add(numbers)
        position.step += 1

    def look(self, epoch: int) -> dict[str, float]:
        """Score the validation split, keep the checkpoint if it is the best, return the row."""
        scores = self._scores()
        options, position = self.settings.training, self.position
        score = scores[options.monitor]
        sign = 1 if options.direction == "higher" else -1
        if position.best is None or sign * score > sign * position.best:
            position.best, position.without_improvement = score, 0
            self.save("best", {"epoch": epoch, "chosen_by": options.monitor, "score": score})
        else:
            position.without_improvement += 1
            patience = options.patience
            position.stopped = patience is not None and position.without_improvement >= patience
        return {f"valid/{name}": value for name, value in scores.items()}

    def _scores(self) -> dict[str, float]:
        """The objective's value and the domain's own scores on the validation split."""
        settings, data = self.settings, self.run / "data"
        model: Any = self.model if self.average is None else self.average.module
        objective, values = build_objective(settings), []
        first = checking_values() if self.position.step == 0 else contextlib.nullcontext()
        with first, looking_at(model, derive(settings.seed, "validation")):
            for index in range(len(self.valid)):
                batch = to_device(self.valid.batch(0, index), self.fabric.device)
                with reasons(settings):
                    evidence = model.evidence(batch, objective.samples)
                    require_estimator(evidence, settings)
                    values.append((float(objective(evidence).value), float(elbo_value(evidence))))
            own, elbo = (sum(column) / len(values) for column in zip(*values, strict=True))
            scores = {"elbo": elbo, settings.objective.kind: own}
            scores |= self.domain.validate(settings, data, model)
        monitor = settings.training.monitor
        if monitor not in scores:
            raise UserError(
                f"training.monitor: no score {monitor!r}{did_you_mean(monitor, scores)}; "
                f"there are: {', '.join(scores)}"
            )
        return scores

    def save(self, kind: checkpoint.Kind, record: Mapping[str, Any] | None = None) -> None:
        """Write ``last`` (all that is needed to go on) or ``best`` (the weights to use).

        Raises:
            RunFailed: If a weight is not finite, or the checkpoint cannot be written.
        """
        if not self.writes:
            return
        model = self.model
        if kind == "best" and self.average is not None:
            model = self.average.module
        weights, step = model.state_dict(), self.position.step
        bad = [name for name, weight in weights.items() if not bool(torch.isfinite(weight).all())]
        if bad:
            raise RunFailed(_went_non_finite(bad, step, self.run))
        state = None
        if kind == "last":
            state = {
                "optimizer": self.optimizer.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
                "precision": self.fabric.strategy.precision.state_dict(),
                "meter": vars(self.meter),
                "position": vars(self.position),
            }
        folder = self.run / "checkpoints"
        checkpoint.write(folder, kind, step, weights, self.settings, record or {}, state)

    def finish(self) -> None:
        """Let the domain finish the chosen model, and keep that as the newest best checkpoint."""
        settings, folder = self.settings, self.run / "checkpoints"
        if self.domain.finish is None or not self.writes:
            return
        best = checkpoint.read_newest(folder, "best", settings, say)
        assert best is not None  # the first validation, before any step, wrote one
        model = self.domain.model(settings, self.run / "data").to(self.fabric.device)
        model.load_state_dict(best.weights())
        with looking_at(model, derive(settings.seed, "finish")):
            self.domain.finish(settings, self.run / "data", model)
        record = {k: best.record[k] for k in ("epoch", "chosen_by", "score")}
        weights = model.state_dict()
        checkpoint.write(folder, "best", best.step, weights, settings, record, finished=True)

    def _restore(self) -> None:
        found = checkpoint.read_newest(self.run / "checkpoints", "last", self.settings, say)
        if found is None:
            return
        self.model.load_state_dict(found.weights())
        saved = found.training_state()
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])
        self.fabric.strategy.precision.load_state_dict(saved["precision"])
        self.meter, self.position = Meter(**saved["meter"]), Position(**saved["position"])
        say(f"going on from step {self.position.step}")


class History:
    """``history.jsonl``: one row of numbers a line, appended as they come."""

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path = path
        self.writes = writes

    def cut(self, step: int) -> None:
        """Drop the rows after ``step``, which a resumed run will write again."""
        if not self.path.exists() or not self.writes:
            return
        kept = [
            line for line in self.path.read_text().splitlines(keepends=True) if _before(line, step)
        ]
        write_atomic(self.path, "".join(kept if step else []))

    def add(self, **row: float) -> None:
        """Append a row."""
        if not self.writes:
            return
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def _before(line: str, step: int) -> bool:
    """Whether a line is whole (a kill may cut the last one) and not after ``step``."""
    return line.endswith("}\n") and json.loads(line)["step"] <= step


@contextlib.contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Turn SIGINT and SIGTERM into an event while the loop runs; a second signal acts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}

    def note(number: int, _frame: object) -> None:
        event.set()
        signal.signal(number, before[number])
        print("stopping after this step; once more to stop at once", file=sys.stderr)

    for number in before:
        signal.signal(number, note)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
