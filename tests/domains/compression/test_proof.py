"""The proof: it finds a model that reads otherwise under another setting, and says how often."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from block_means import BlockMeans, photograph
from torch import Tensor
from toy_codec import toy_codec, toy_images

from core.runtime.errors import RunFailed, UserError
from domains.compression import data
from domains.compression.cli import freezing
from domains.compression.data.records import Picture
from domains.compression.model.errors import CorruptBitstream
from domains.compression.model.freezing import freeze
from domains.compression.model.frozen import Coded, Frozen, Halo, Latents
from domains.compression.model.proof import (
    FLOATS,
    INTEGERS,
    PROVED_SIDE,
    RATES,
    Setting,
    middle,
    prove,
    settings,
)
from domains.compression.model.rates import MIDDLE

CPU = ("1 thread", "2 threads", "oneDNN off", "channels_last", "contiguous")
PICTURES = [Picture(pixels=photograph(40, 50)), Picture(pixels=photograph(32, 32, seed=1))]

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def _only_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def two_threads() -> bool:
    return torch.get_num_threads() == 2


def no_onednn() -> bool:
    return not torch.backends.mkldnn.enabled


class Inexact(BlockMeans):
    """Reads other latents, draws other pixels or writes other streams where a condition holds."""

    def __init__(self, reads: Callable[[], bool] | None = None, error: bool = False,
                 draws: Callable[[], bool] | None = None,
                 writes: Callable[[], bool] | None = None) -> None:  # fmt: skip
        super().__init__()
        self.reads, self.error, self.draws, self.writes = reads, error, draws, writes

    def decode(
        self, payload: bytes, height: int, width: int, rate: int, level: int | None = None
    ) -> Latents:
        latents = super().decode(payload, height, width, rate, level)
        if self.reads is None or not self.reads():
            return latents
        if self.error:
            raise CorruptBitstream("stream", "not read")
        return {**latents, "coarse": latents["coarse"] + 1}

    def render(self, latents: Latents, rate: int) -> Tensor:
        picture = super().render(latents, rate)
        if self.draws is None or not self.draws():
            return picture
        return torch.where(picture > 128, picture - 3, picture + 3)

    def encode(
        self, pixels: Tensor, rate: int, effort: int = 0, halo: Halo | None = None
    ) -> Coded:
        other = self.writes is not None and self.writes()
        return super().encode(pixels // 2 if other else pixels, rate, effort, halo)


def setting(name: str) -> Setting:
    return next(each for each in settings() if each.name == name)


def test_the_settings_of_a_machine_without_a_gpu() -> None:
    assert tuple(each.name for each in settings()) == CPU


def failing(name: str, seen: Callable[[], Any]) -> Any:
    """What is seen while a setting holds, in work that fails."""
    found = []

    def work() -> None:
        with setting(name).holds():
            found.append(seen())
            raise KeyError

    with pytest.raises(KeyError):
        work()
    return found[0]


def test_settings_hold_and_then_all_is_as_before() -> None:
    torch.set_num_threads(3)
    flags = torch.backends.mkldnn.set_flags()
    assert torch.backends.mkldnn.enabled
    assert failing("1 thread", torch.get_num_threads) == 1
    assert failing("2 threads", torch.get_num_threads) == 2
    assert failing("oneDNN off", no_onednn)
    assert torch.get_num_threads() == 3
    assert torch.backends.mkldnn.set_flags() == flags


def test_no_setting_warns_and_none_hides_the_warnings_of_others() -> None:
    """torch warns once in a process unless it is told to warn always."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        for each in settings():
            with warnings.catch_warnings(record=True) as caught, each.holds():
                warnings.simplefilter("always")
                warnings.warn("of another", stacklevel=1)
            assert [str(each.message) for each in caught] == ["of another"], each.name
    finally:
        torch.set_warn_always(before)


def test_layouts_are_of_the_weights_and_of_what_goes_in() -> None:
    frozen = freeze(toy_codec(), toy_images(2))
    assert setting("channels_last").changed(frozen) is not frozen
    assert setting("channels_last").changed(frozen).identity == frozen.identity
    assert setting("contiguous").changed(frozen).identity == frozen.identity


def test_an_exact_model_is_found_exact_on_every_pair() -> None:
    proof = prove(BlockMeans(), PICTURES)
    assert proof.exact
    assert proof.settings == CPU
    assert len(proof.pairs) == len(CPU) ** 2
    assert {(pair.written, pair.read) for pair in proof.pairs} == {
        (w, r) for w in CPU for r in CPU
    }
    assert all(p.streams == p.identical == len(PICTURES) * len(RATES) for p in proof.pairs)
    assert proof.largest_difference == 0
    assert proof.identical_share(INTEGERS) == 1.0
    assert proof.identical_share(FLOATS) is None


@pytest.mark.parametrize("error", [False, True])
def test_a_setting_that_reads_otherwise_is_found(error: bool) -> None:
    proof = prove(Inexact(reads=two_threads, error=error), PICTURES)
    assert not proof.exact
    # Of 20 pairs of two settings 4 are read under 2 threads.
    assert proof.identical_share(INTEGERS) == pytest.approx(16 / 20)
    for pair in proof.pairs:
        assert pair.identical == (0 if pair.read == "2 threads" else pair.streams)


def test_one_stream_of_all_that_is_read_otherwise_is_enough() -> None:
    model = Inexact()
    model.reads = lambda: no_onednn() and model.read[-1] == (32, 32)
    proof = prove(model, PICTURES, rates=[100])
    assert not proof.exact
    assert proof.identical_share(INTEGERS) == pytest.approx(1 - 4 / 40)


def test_settings_may_write_other_streams_as_long_as_all_read_them() -> None:
    model = Inexact(writes=no_onednn)
    proof = prove(model, PICTURES[:1], rates=[100])
    assert proof.exact
    assert proof.largest_difference == 0
    assert len(model.read) == 2 * len(CPU)  # two streams, by each setting


def test_streams_that_settings_wrote_alike_are_read_once_by_each() -> None:
    model = BlockMeans()
    prove(model, PICTURES, rates=[100])
    assert len(model.read) == len(PICTURES) * len(CPU)


def test_pixels_that_settings_draw_otherwise_are_measured_and_not_held_against_it() -> None:
    proof = prove(Inexact(draws=two_threads), PICTURES[:1])
    assert proof.exact
    assert proof.largest_difference == 3
    apart = {(p.written, p.read) for p in proof.pairs if p.largest_difference}
    others = set(CPU) - {"2 threads"}
    assert apart == {(o, "2 threads") for o in others} | {("2 threads", o) for o in others}


def test_integers_are_exact_and_float_networks_are_tried_beside_them() -> None:
    frozen = freeze(toy_codec(wide=True), toy_images(4))
    proof = prove(frozen, [Picture(pixels=photograph(64, 64))], rates=[MIDDLE])
    assert proof.exact
    assert len(proof.pairs) == 2 * len(CPU) ** 2
    floats = proof.identical_share(FLOATS)
    assert floats is not None
    assert 0 <= floats <= 1
    assert all(p.identical == 1 for p in proof.pairs if p.written == p.read)


@pytest.mark.parametrize(("pictures", "rates"), [([], RATES), (PICTURES, [])])
def test_nothing_to_prove_on_is_a_callers_error(pictures: Any, rates: Any) -> None:
    with pytest.raises(ValueError, match="some of both"):
        prove(BlockMeans(), pictures, rates)


@pytest.mark.parametrize("size", [(300, 40), (257, 1000), (256, 256), (1, 1)])
def test_of_a_large_picture_the_middle_is_proved(size: tuple[int, int]) -> None:
    pixels = photograph(*size)
    part = middle(Picture(pixels=pixels)).pixels
    assert part.shape[1:] == tuple(min(side, PROVED_SIDE) for side in size)
    places = [(side - min(side, PROVED_SIDE)) // 2 for side in size]
    assert torch.equal(part[:, 0, 0], pixels[:, places[0], places[1]])
    rest = [(side - min(side, PROVED_SIDE) + 1) // 2 for side in size]
    assert torch.equal(part[:, -1, -1], pixels[:, -1 - rest[0], -1 - rest[1]])


def freeze_run(monkeypatch: pytest.MonkeyPatch, frozen: Frozen, out: Path, force: bool) -> Any:
    """The verb on a run whose model freezes to this one."""
    trained = SimpleNamespace(config=None, data=None, model=None, run="runs/one")
    monkeypatch.setattr(freezing, "open_run", lambda run, runs: trained)
    monkeypatch.setattr(freezing, "frozen_of", lambda config, folder, model: frozen)
    monkeypatch.setattr(data, "test_pictures", lambda config, folder: [("a", PICTURES[0])])
    return freezing.freeze("one", out.parent, out, force)


def test_the_verb_writes_no_model_that_is_not_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model.safetensors"
    with pytest.raises(
        RunFailed, match=r"not exact, nothing was written; of 2 streams .* 0 were read under '2 th"
    ):
        freeze_run(monkeypatch, Inexact(reads=two_threads), out, force=True)
    assert not list(tmp_path.iterdir())


def test_the_verb_says_that_a_file_is_there_before_it_proves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model.safetensors"
    out.write_bytes(b"old")
    model = BlockMeans()
    with pytest.raises(UserError, match="exists already"):
        freeze_run(monkeypatch, model, out, force=False)
    assert not model.read
    assert out.read_bytes() == b"old"
