import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from toy import ToySettings

from core.runtime import checkpoint
from core.runtime.errors import RunFailed, UserError

SETTINGS = ToySettings(name="t")
WEIGHTS = {"w": torch.arange(6.0).reshape(2, 3)}


def save(folder: Path, step: int, settings: ToySettings = SETTINGS) -> Path:
    weights = {"w": WEIGHTS["w"] + step}
    return checkpoint.write(folder, "last", step, weights, settings, {"epoch": 1}, {"step": step})


def newest(folder: Path, settings: ToySettings = SETTINGS) -> tuple[int, list[str]]:
    said: list[str] = []
    found = checkpoint.read_newest(folder, "last", settings, said.append)
    assert found is not None
    assert torch.equal(found.weights()["w"], WEIGHTS["w"] + found.step)
    assert found.training_state() == {"step": found.step}
    return found.step, said


def test_the_newest_checkpoint_comes_back_as_it_was_written(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert newest(tmp_path) == (3, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last-000000002", "last-000000003"]


def test_equal_weights_are_equal_bytes(tmp_path: Path) -> None:
    first, second = save(tmp_path / "a", 1), save(tmp_path / "b", 1)
    for name in ("model.safetensors", "checkpoint.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.parametrize("name", ["model.safetensors", "training.pt", "checkpoint.json"])
@pytest.mark.parametrize("keep", [0, 5, 40])
def test_a_truncated_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, name: str, keep: int
) -> None:
    save(tmp_path, 1)
    damaged = save(tmp_path, 2) / name
    damaged.write_bytes(damaged.read_bytes()[:keep])
    step, said = newest(tmp_path)
    assert step == 1
    assert len(said) == 1
    assert "last-000000002" in said[0]
    assert "going on from last-000000001" in said[0]


def test_a_single_damaged_checkpoint_is_an_error(tmp_path: Path) -> None:
    (save(tmp_path, 1) / "training.pt").unlink()
    with pytest.raises(
        UserError, match=r"training\.pt is missing; there is no intact one before it"
    ):
        newest(tmp_path)


def test_a_checkpoint_of_other_settings_names_the_differing_keys(tmp_path: Path) -> None:
    save(tmp_path, 1)
    other = ToySettings(name="t", model={"latent": 3})
    with pytest.raises(UserError, match=r"other settings: model\.latent 2 → 3"):
        newest(tmp_path, other)


class Payload:
    """Runs a command when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def test_a_pickle_posing_as_weights_is_refused_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    weights = save(tmp_path / "c", 1) / "model.safetensors"
    for dump in (pickle.dumps(Payload(mark)), pickle.dumps(Payload(mark), protocol=0)):
        weights.write_bytes(dump)
        with pytest.raises(UserError, match=r"model\.safetensors: refused|damaged"):
            newest(tmp_path / "c")
    torch.save(WEIGHTS, weights)
    with pytest.raises(
        UserError, match=r"model\.safetensors: refused: this is a pickle or an archive"
    ):
        newest(tmp_path / "c")
    assert not mark.exists()


def test_a_training_state_with_code_in_it_is_refused_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    state = save(tmp_path / "c", 1) / "training.pt"
    torch.save({"x": Payload(mark)}, state)
    record = state.parent / "checkpoint.json"
    old = record.read_text()
    sums = checkpoint.json.loads(old)["sha256"]
    record.write_text(old.replace(sums["training.pt"], checkpoint._sha256(state)))
    found = checkpoint.read_newest(tmp_path / "c", "last", SETTINGS, print)
    assert found is not None
    with pytest.raises(UserError, match="refused"):
        found.training_state()
    assert not mark.exists()


def test_a_full_disk_leaves_the_last_checkpoint_intact(tmp_path: Path) -> None:
    import resource

    save(tmp_path, 1)
    large = {"w": torch.zeros(100_000)}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(RunFailed, match=r"the last intact one is .*last-000000001"):
            checkpoint.write(tmp_path, "last", 2, large, SETTINGS, {}, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert newest(tmp_path) == (1, [])
    assert [path.name for path in tmp_path.iterdir()] == ["last-000000001"]


def test_what_a_kill_left_half_written_is_not_seen(tmp_path: Path) -> None:
    whole = save(tmp_path, 1)
    shutil.copytree(whole, tmp_path / ".last-000000002")
    assert newest(tmp_path) == (1, [])
    save(tmp_path, 2)
    assert newest(tmp_path) == (2, [])
