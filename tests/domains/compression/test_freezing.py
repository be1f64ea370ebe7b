"""Frozen models of transforms: files give back the latents that were written, at what was said."""

from __future__ import annotations

import copy
import math
from functools import cache

import pytest
import torch
from block_means import photograph
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toy_codec import ToyCodec, toy_codec, toy_images

from core.runtime.errors import RunFailed
from domains.compression.config import DCT, Rates
from domains.compression.data.records import Images
from domains.compression.model import construct
from domains.compression.model.base import TransformModel
from domains.compression.model.errors import CorruptBitstream
from domains.compression.model.freezing import FrozenTransform, freeze
from domains.compression.model.frozen import Coded, Halo, Latents
from domains.compression.model.rates import LAST, MIDDLE

SMALL = DCT(slices=(6, 18), width=8, blocks=1, hyper=4, features=8, context=12, filter=4)


def started() -> TransformModel:
    """A small model that starts as the DCT; nobody trained it."""
    torch.manual_seed(0)
    model = construct(SMALL, Rates())
    assert isinstance(model, TransformModel)
    model.start(examples())
    return model.eval()


def examples() -> Images:
    pixels = torch.stack([photograph(64, 64, seed) for seed in range(4)])
    return Images(pixels, torch.linspace(0, LAST, 4).long())


@cache
def frozen(kind: str = "dct") -> FrozenTransform:
    if kind == "toy":
        return freeze(toy_codec(wide=True), toy_images(4))
    return freeze(started(), examples())


def same(some: Latents, others: Latents) -> bool:
    return some.keys() == others.keys() and all(
        torch.equal(some[name], others[name]) for name in some
    )


def bits_of(coded: Coded) -> float:
    return math.fsum(coded.bits.values())


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(["dct", "toy"]),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(0, LAST),
    st.integers(0, 1000),
)
def test_a_stream_decodes_to_the_latents_that_were_written(
    kind: str, rows: int, columns: int, rate: int, seed: int
) -> None:
    model = frozen(kind)
    height, width = model.stride * rows, model.stride * columns
    coded = model.encode(photograph(height, width, seed), rate)
    assert same(model.decode(coded.payload, height, width, rate), coded.latents)
    picture = model.render(coded.latents, rate)
    assert picture.shape == (3, height, width)
    assert picture.dtype == torch.uint8


def test_the_hardest_pictures_come_back_too() -> None:
    draw = torch.Generator().manual_seed(0)
    noise = (torch.rand(3, 64, 96, generator=draw) > 0.5).to(torch.uint8) * 255
    model = frozen()
    for pixels in (noise, torch.zeros_like(noise), torch.full_like(noise, 255)):
        for rate in (0, LAST):
            coded = model.encode(pixels, rate)
            assert same(model.decode(coded.payload, 64, 96, rate), coded.latents)


@pytest.mark.parametrize("rate", [0, MIDDLE, LAST])
@pytest.mark.parametrize("kind", ["dct", "toy"])
def test_a_stream_is_as_long_as_the_tables_say(kind: str, rate: int) -> None:
    coded = frozen(kind).encode(photograph(256, 384), rate)
    assert 8 * len(coded.payload) == pytest.approx(bits_of(coded), rel=0.005, abs=64)
    assert coded.rate_map is not None
    assert coded.rate_map.shape == (32, 48)
    assert float(coded.rate_map.sum()) == pytest.approx(bits_of(coded), rel=1e-5)


def test_a_higher_rate_takes_more_bits_and_errs_less() -> None:
    pixels, model = photograph(128, 128), frozen()
    coded = {rate: model.encode(pixels, rate) for rate in (0, MIDDLE, LAST)}
    drawn = {rate: model.render(each.latents, rate) for rate, each in coded.items()}
    errors = [(pixels.double() - each).square().mean() for each in drawn.values()]
    bits = [bits_of(each) for each in coded.values()]
    assert bits == sorted(bits)
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("level", [1, 2])
def test_levels_that_are_read_are_as_written(level: int) -> None:
    pixels, model = photograph(96, 64), frozen()
    coded = model.encode(pixels, 150)
    some = model.decode(coded.payload, 96, 64, 150, level)
    for place, name in enumerate(coded.latents):
        assert torch.equal(some[name], coded.latents[name]) == (place < level)
        assert some[name].shape == coded.latents[name].shape
    whole = model.render(coded.latents, 150)
    rough = model.render(some, 150)
    errors = [(pixels.double() - each).square().mean() for each in (whole, rough)]
    assert errors[0] < errors[1]


def test_what_is_looked_at_around_a_tile_is_not_coded() -> None:
    model = frozen()
    stride = model.stride
    pixels = photograph(6 * stride, 5 * stride)
    halo = Halo(top=stride, left=2 * stride, bottom=stride, right=0)
    coded = model.encode(pixels, 120, halo=halo)
    assert same(model.decode(coded.payload, 4 * stride, 3 * stride, 120), coded.latents)
    assert model.render(coded.latents, 120).shape == (3, 4 * stride, 3 * stride)


@pytest.mark.slow
def test_a_stream_written_with_effort_decodes_to_its_latents() -> None:
    pixels, model = photograph(32, 32), frozen()
    coded = model.encode(pixels, MIDDLE, effort=1)
    assert not same(model.encode(pixels, MIDDLE).latents, coded.latents)
    assert same(model.decode(coded.payload, 32, 32, MIDDLE), coded.latents)


def test_a_stream_cut_off_or_with_more_behind_is_corrupt() -> None:
    model = frozen()
    payload = model.encode(photograph(64, 64), 200).payload
    for damaged in (payload[: len(payload) // 2], payload + bytes(50)):
        with pytest.raises(CorruptBitstream, match="stream"):
            model.decode(damaged, 64, 64, 200)


def elsewhere(name: str) -> FrozenTransform:
    if name == "copy":
        return frozen().to("cpu")
    return frozen().laid_out(weights=True) if name == "weights" else frozen().laid_out(False)


@pytest.mark.parametrize("name", ["copy", "weights", "inputs"])
def test_on_a_device_or_in_another_layout_it_reads_the_same(name: str) -> None:
    pixels, other = photograph(64, 96), elsewhere(name)
    assert other.identity == frozen().identity
    for rate in (10, 240):
        coded = frozen().encode(pixels, rate)
        assert same(other.decode(coded.payload, 64, 96, rate), coded.latents)
        drawn, wanted = other.render(coded.latents, rate), frozen().render(coded.latents, rate)
        assert (drawn.int() - wanted.int()).abs().max() <= 1
        back = other.encode(pixels, rate)
        assert same(frozen().decode(back.payload, 64, 96, rate), back.latents)


def test_a_copy_elsewhere_leaves_the_model_as_it_was() -> None:
    before = frozen().encode(photograph(64, 64), 100).payload
    frozen().laid_out(inputs=False, weights=True)
    frozen().floating().laid_out(weights=True)
    convolutions = [each for each in frozen().model.state_dict().values() if each.dim() == 4]
    assert all(each.is_contiguous() for each in convolutions)
    assert frozen().encode(photograph(64, 64), 100).payload == before


def test_float_networks_in_the_integers_place_read_their_own_streams() -> None:
    pixels, floating = photograph(64, 96), frozen().floating()
    assert floating.identity != frozen().identity
    for model in (floating, floating.laid_out(weights=True)):
        coded = model.encode(pixels, 130)
        assert same(model.decode(coded.payload, 64, 96, 130), coded.latents)
        exact = frozen().encode(pixels, 130)
        assert bits_of(coded) == pytest.approx(bits_of(exact), rel=0.02)


def test_freezing_leaves_the_trained_model_as_it_is() -> None:
    model = toy_codec(wide=True)
    before = copy.deepcopy(model.state_dict())
    freeze(model, toy_images(2))
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], each) for name, each in after.items())
    assert all(each.requires_grad for each in model.parameters())


def test_freezing_twice_gives_one_identity() -> None:
    again = freeze(started(), examples())
    assert again.identity == frozen().identity
    assert len(again.identity) == 8


@pytest.mark.parametrize("value", [1e6, float("nan")])
def test_a_weight_that_16_bits_cannot_hold_is_named(value: float) -> None:
    model = toy_codec(wide=True)
    with torch.no_grad():
        model.wide.fill_(value)
    with pytest.raises(RunFailed, match="wide: 16 bits cannot hold"):
        freeze(model, toy_images(1))


def changed(name: str) -> FrozenTransform:
    tensors, header = frozen().state()
    other = {key: each.clone() for key, each in tensors.items()}
    other[name].view(-1)[0] += 1
    return FrozenTransform.restore(other, header)


def test_the_identity_is_of_what_decoding_depends_on() -> None:
    tensors, _ = frozen().state()
    for name in ("prior.y1.0.bias", "prior.y1.gain.offset", "tables.lowest"):
        assert changed(name).identity != frozen().identity
    weights = [name for name in tensors if name.startswith("model.") and len(tensors[name].shape)]
    others = {name: changed(name) for name in sorted(weights)[::4]}
    free = [other for other in others.values() if other.identity == frozen().identity]
    assert 0 < len(free) < len(others)
    # Those only choose latents: what they write is read and drawn alike.
    for other in free:
        coded = other.encode(photograph(64, 64), 90)
        assert same(frozen().decode(coded.payload, 64, 64, 90), coded.latents)
        assert torch.equal(other.render(coded.latents, 90), frozen().render(coded.latents, 90))


class Far(ToyCodec):
    """Draws a picture from what lies beyond any tile's surroundings."""

    def synthesise(self, decoded: dict[str, Tensor], rate: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        picture = super().synthesise(decoded, rate)
        return picture + 0.1 * picture.mean((2, 3), keepdim=True)


def test_a_model_that_draws_from_the_whole_picture_cannot_be_frozen() -> None:
    with pytest.raises(RunFailed, match="beyond 1024 pixels"):
        freeze(Far(Rates()).eval(), toy_images(1))


def test_the_halo_is_as_far_as_the_synthesis_looks() -> None:
    """A change of a latent farther away than the halo changes nothing in the middle."""
    model = frozen()
    side = 2 * model.halo + 3 * model.stride
    coded = model.encode(photograph(side, side), MIDDLE)
    latents = {name: each.clone() for name, each in coded.latents.items()}
    for each in latents.values():
        each[:, 0], each[:, -1] = 6400, -6400
    drawn, wanted = (model.render(each, MIDDLE) for each in (latents, coded.latents))
    inner = slice(model.halo + model.stride, model.halo + 2 * model.stride)
    assert not torch.equal(drawn, wanted)
    assert torch.equal(drawn[:, inner], wanted[:, inner])
