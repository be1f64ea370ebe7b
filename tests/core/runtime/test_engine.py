import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy import DOMAIN, ToySettings, prepare

from core.runtime import checkpoint, engine
from core.runtime.errors import Interrupted, RunFailed, UserError

REPOSITORY = Path(__file__).resolve().parents[3]
SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = [".", "tests"]
from toy import DOMAIN, ToySettings
from core.runtime import engine
from core.runtime.errors import Interrupted
run = Path(sys.argv[1])
try:
    engine.train(DOMAIN, ToySettings.model_validate_json((run / "settings.json").read_text()), run)
except Interrupted:
    sys.exit(3)
"""


def settings(**training: object) -> ToySettings:
    training = {
        "epochs": 12,
        "checkpoint_every": 7,
        "log_every": 3,
        "ema": 0.9,
        "clip_norm": 1.0,
        **training,
    }
    return ToySettings(name="t", training=training, compute={"threads": 1})


def new_run(folder: Path, config: ToySettings) -> Path:
    prepare(config, folder / "data")
    (folder / "settings.json").write_text(config.model_dump_json())
    return folder


def train(folder: Path, config: ToySettings) -> Path:
    engine.train(DOMAIN, config, new_run(folder, config))
    return folder


def bytes_of(run: Path) -> dict[str, bytes]:
    """All that a later stage reads: weights, history, and which checkpoint is the best."""
    files = [*run.glob("checkpoints/*/model.safetensors"), *run.glob("checkpoints/best-*/*.json")]
    return {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in [*files, run / "history.jsonl"]
    }


def newest_only(run: Path) -> dict[str, bytes]:
    """The same without the second newest checkpoints, which depend on when a run was stopped."""
    found = bytes_of(run)
    newest = {max(name for name in found if f"/{kind}-" in name) for kind in ("best", "last")}
    return {
        name: content for name, content in found.items() if name in newest or "history" in name
    }


def start(run: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(run)], cwd=REPOSITORY)


def test_two_trainings_with_one_seed_write_the_same_bytes(tmp_path: Path) -> None:
    first, second = train(tmp_path / "a", settings()), train(tmp_path / "b", settings())
    assert bytes_of(first) == bytes_of(second)


def test_another_seed_writes_other_bytes(tmp_path: Path) -> None:
    other = settings().model_copy(update={"seed": 1})
    assert newest_only(train(tmp_path / "a", settings())) != newest_only(
        train(tmp_path / "b", other)
    )


@pytest.mark.parametrize("stop_at", [1, 7, 20, 33])
def test_interrupted_in_an_epoch_and_resumed_ends_with_the_same_bytes(
    tmp_path: Path, stop_at: int
) -> None:
    whole = train(tmp_path / "whole", settings())
    run = new_run(tmp_path / "run", settings())
    calls = 0

    def batches(config: ToySettings, folder: Path, split: str) -> object:
        inner = DOMAIN.batches(config, folder, split)

        class Interrupting:
            def __len__(self) -> int:
                return len(inner)

            def batch(self, epoch: int, index: int) -> object:
                nonlocal calls
                calls += split == "train"
                if split == "train" and calls == stop_at:
                    os.kill(os.getpid(), signal.SIGINT)
                return inner.batch(epoch, index)

        return Interrupting()

    with pytest.raises(Interrupted, match="latentworks resume"):
        engine.train(replace(DOMAIN, batches=batches), settings(), run)
    engine.train(DOMAIN, settings(), run)
    assert newest_only(run) == newest_only(whole)


def reached(run: Path) -> int:
    """The last step in the history of a run that is going on."""
    lines = (
        (run / "history.jsonl").read_text().splitlines()
        if (run / "history.jsonl").exists()
        else []
    )
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def test_killed_at_any_moment_and_resumed_ends_with_the_same_bytes(tmp_path: Path) -> None:
    config = settings(epochs=400, checkpoint_every=11)
    whole = train(tmp_path / "whole", config)
    run = new_run(tmp_path / "run", config)
    for step in sorted(random.Random(0).sample(range(50, 1600), 3)):
        process = start(run)
        while reached(run) < step:
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert start(run).wait() == 0
    assert newest_only(run) == newest_only(whole)


def test_sigterm_finishes_the_step_writes_a_checkpoint_and_exits_resumable(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", settings(epochs=100_000, checkpoint_every=10**6))
    process = start(run)
    while not (run / "history.jsonl").exists():
        time.sleep(0.05)
    process.terminate()
    assert process.wait(30) == 3
    assert len(list(run.glob("checkpoints/last-*"))) == 1


def test_a_non_finite_term_stops_the_training_and_is_named(tmp_path: Path) -> None:
    config = ToySettings(
        name="t", training={"epochs": 3}, data={"broken_at": 5}, compute={"threads": 1}
    )
    with pytest.raises(
        RunFailed, match=r"log_likelihood/x, kl/z became non-finite at step \d \(epoch 1\)"
    ):
        train(tmp_path, config)
    best = checkpoint.read_newest(tmp_path / "checkpoints", "best", config, print)
    assert best is not None
    assert all(bool(torch.isfinite(weight).all()) for weight in best.weights().values())


def test_early_stopping_keeps_the_best_checkpoint(tmp_path: Path) -> None:
    config = settings(
        epochs=400, monitor="error", direction="lower", patience=5, learning_rate=0.05, ema=None
    )
    run = train(tmp_path, config)
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    scores = {row["step"]: row["valid/error"] for row in rows if "valid/error" in row}
    best = checkpoint.read_newest(run / "checkpoints", "best", config, print)
    assert best is not None
    assert best.record["score"] == min(scores.values()) == scores[best.step]
    assert list(scores).index(best.step) == len(scores) - 1 - 5


def test_the_average_of_the_weights_is_what_validation_sees(tmp_path: Path) -> None:
    config = settings(epochs=1, ema=0.5, learning_rate=0.1, monitor="error", direction="lower")
    run = train(tmp_path, config)
    last = checkpoint.read_newest(run / "checkpoints", "last", config, print)
    assert last is not None
    average = last.training_state()["average"]["module.decoder.weight"]
    assert not torch.equal(average, last.weights()["decoder.weight"])


def test_an_unknown_monitor_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no score 'eror'; did you mean 'error'\?; there are: elbo, error"
    ):
        train(tmp_path, settings(monitor="eror"))


def test_the_loss_falls(tmp_path: Path) -> None:
    run = train(tmp_path, settings(epochs=100, learning_rate=0.02, monitor="elbo"))
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    values = [row["valid/elbo"] for row in rows if "valid/elbo" in row]
    assert values[-1] > values[0] + 0.5


@pytest.mark.slow
def test_compiling_the_step_changes_only_the_random_stream(tmp_path: Path) -> None:
    plain = train(tmp_path / "plain", settings(epochs=2))
    compiled = train(tmp_path / "compiled", settings(epochs=2, compile=True))
    for one, other in zip(*(_values(run) for run in (plain, compiled)), strict=True):
        assert one == pytest.approx(other, rel=0.01)


def _values(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return [row["valid/error"] for row in rows if "valid/error" in row]


@pytest.mark.slow
def test_two_processes_train_one_run(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    config = settings(epochs=2).model_copy(
        update={"compute": settings().compute.model_copy(update={"devices": 2})}
    )
    run = new_run(tmp_path / "run", config)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*command, str(script), str(run)], cwd=REPOSITORY, check=True)
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 2 * (5 // 2)
    assert len(list(run.glob("checkpoints/last-*"))) == 1


def test_several_devices_outside_of_torchrun_are_refused(tmp_path: Path) -> None:
    config = ToySettings(name="t", compute={"devices": 2})
    with pytest.raises(UserError, match=r"compute\.devices: 2 .* torchrun"):
        train(tmp_path, config)


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_weight_that_is_not_finite_is_never_written(
    tmp_path: Path, clip_norm: float | None
) -> None:
    def poisoned(config: ToySettings, folder: Path) -> object:
        model = DOMAIN.model(config, folder)
        model.decoder.weight.register_hook(lambda gradient: gradient * float("nan"))
        return model

    config = settings(checkpoint_every=1, clip_norm=clip_norm)
    run = new_run(tmp_path, config)
    with pytest.raises(RunFailed, match=r"decoder\.weight.* became non-finite at step 1"):
        engine.train(replace(DOMAIN, model=poisoned), config, run)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["best-000000000"]


def finishing(calls: list[dict[str, torch.Tensor]], die: bool = False) -> object:
    """The toy domain, which adds noise to its decoder's bias when training has ended."""

    def finish(config: ToySettings, folder: Path, model: torch.nn.Module) -> None:
        calls.append({name: value.clone() for name, value in model.state_dict().items()})
        if die:
            raise KeyboardInterrupt
        model.decoder.bias += torch.rand(4)  # type: ignore[operator]

    return replace(DOMAIN, finish=finish)


def chosen(run: Path, config: ToySettings) -> checkpoint.Checkpoint:
    found = checkpoint.read_newest(run / "checkpoints", "best", config, print)
    assert found is not None
    return found


def test_a_domain_finishes_the_chosen_weights_once_and_they_are_kept(tmp_path: Path) -> None:
    config, calls = settings(), []
    plain = chosen(train(tmp_path / "plain", config), config)
    run = new_run(tmp_path / "run", config)
    engine.train(finishing(calls), config, run)  # type: ignore[arg-type]
    finished = chosen(run, config)
    assert len(calls) == 1
    for name, value in plain.weights().items():
        torch.testing.assert_close(calls[0][name], value, rtol=0, atol=0)
    change = finished.weights()["decoder.bias"] - plain.weights()["decoder.bias"]
    assert bool((change > 0).all())
    keys = ("step", "epoch", "chosen_by", "score")
    assert [finished.record[key] for key in keys] == [plain.record[key] for key in keys]


def test_killed_while_finishing_and_resumed_ends_with_the_same_bytes(tmp_path: Path) -> None:
    config, calls = settings(), []
    whole, run = new_run(tmp_path / "whole", config), new_run(tmp_path / "run", config)
    engine.train(finishing(calls), config, whole)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        engine.train(finishing(calls, die=True), config, run)  # type: ignore[arg-type]
    engine.train(finishing(calls), config, run)  # type: ignore[arg-type]
    engine.train(finishing(calls), config, run)  # type: ignore[arg-type]
    assert newest_only(run) == newest_only(whole)
