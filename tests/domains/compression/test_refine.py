"""Latents looked for when encoding: whole steps from their means, never worse, always the same."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.datasets import load_sample_image
from torch import Tensor
from toy_codec import toy_codec, toy_images

from domains.compression.config import DCT, Rates
from domains.compression.data.records import Images
from domains.compression.model import construct, refine
from domains.compression.model.base import TransformModel
from domains.compression.model.program import LARGEST, SMALLEST, Step
from domains.compression.model.rates import LAST, MIDDLE

SMALL = DCT(slices=(6, 18), width=8, blocks=1, hyper=4, features=8, context=12, filter=4)
SIDE = 64
Latents = dict[str, Tensor]
Said = dict[str, tuple[Tensor, Tensor]]  # residuals in steps and scale indices by group


def photograph(place: int = 300) -> Tensor:
    whole = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)
    return whole[None, :, 200 : 200 + SIDE, place : place + SIDE]


@cache
def model(kind: str = "dct") -> TransformModel:
    """A small codec that nobody trained."""
    if kind == "toy":
        return toy_codec()
    torch.manual_seed(0)
    made = construct(SMALL, Rates())
    assert isinstance(made, TransformModel)
    made.start(Images(photograph(), torch.tensor([MIDDLE])))
    return made.eval().requires_grad_(False)


def pixels_of(kind: str) -> Tensor:
    whole = toy_images(1, SIDE).pixels if kind == "toy" else photograph()
    return whole.float() / 255


def refined(kind: str, rate: int, effort: int, seed: int = 0) -> Latents:
    made, x = model(kind), pixels_of(kind)
    with torch.no_grad():
        features = made.analyse(x, torch.tensor([rate]))
    return refine.refine(made, x, features, rate, effort, seed)


@torch.no_grad()
def decoded(made: TransformModel, latents: Latents, rate: int) -> tuple[Said, Tensor]:
    """How far latents are from the means that follow from those before, and their picture."""
    which, said, values = torch.tensor([rate]), Said(), Latents()

    def code(step: Step, mean: Tensor, index: Tensor) -> Tensor:
        log_gain = made.log_gain(step.name, which)
        steps = 63 / math.log(LARGEST / SMALLEST)
        table = (index + log_gain * steps).round().clamp(0, 63)
        said[step.name] = (latents[step.name] - mean * log_gain.exp(), table)
        values[step.name] = latents[step.name] / log_gain.exp()
        return values[step.name]

    made.program(SIDE, SIDE, which, code)
    return said, made.synthesise(values, which).clamp(0, 1)


def cost(kind: str, latents: Latents, rate: int) -> float:
    """Bits plus price times error, in float64 by scipy's Normal."""
    made, x = model(kind), pixels_of(kind)
    said, picture = decoded(made, latents, rate)
    bits = 0.0
    for residual, table in said.values():
        far, index = residual.round().abs().double().numpy(), table.double().numpy()
        scale = SMALLEST * (LARGEST / SMALLEST) ** (index / 63)
        mass = norm.sf((far - 0.5) / scale) - norm.sf((far + 0.5) / scale)
        bits -= float(np.log2(mass[index > 0]).sum())
    rates = made.rates
    price = rates.lowest * (rates.highest / rates.lowest) ** (rate / LAST)
    return bits + price * float((255 * (picture - x).double()).square().mean()) * SIDE**2


@pytest.mark.parametrize("kind", ["dct", "toy"])
@pytest.mark.parametrize("effort", [0, 1])
def test_latents_are_whole_steps_from_their_means_and_means_where_nothing_is_written(
    kind: str, effort: int
) -> None:
    latents = refined(kind, MIDDLE, effort)
    said, _ = decoded(model(kind), latents, MIDDLE)
    assert any(residual.round().any() for residual, _ in said.values())
    for residual, table in said.values():
        torch.testing.assert_close(residual, residual.round(), atol=2e-3, rtol=0)
        assert residual[table == 0].abs().lt(1e-3).all()


def test_without_effort_they_are_those_that_the_evidence_codes() -> None:
    made, x = model(), photograph()
    said, _ = decoded(made, refined("dct", MIDDLE, 0), MIDDLE)
    latents = {
        each.name: each for each in made.evidence(Images(x, torch.tensor([MIDDLE]))).latents
    }
    for name, (residual, _) in said.items():
        value, prior = latents[name].value, latents[name].prior
        coded = value[0] - prior.loc[0]  # pyright: ignore[reportAttributeAccessIssue]
        torch.testing.assert_close(residual.round(), coded.round())


@pytest.mark.parametrize("rate", [0, MIDDLE, LAST])
@pytest.mark.parametrize("kind", ["dct", "toy"])
def test_effort_lowers_the_cost_of_rate_and_distortion(kind: str, rate: int) -> None:
    plain, better = (cost(kind, refined(kind, rate, effort), rate) for effort in (0, 1))
    assert better < 0.995 * plain


def test_what_a_search_makes_worse_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refine, "STEP_FINE", 30.0)
    monkeypatch.setattr(refine, "STEP_COARSE", 30.0)
    plain, searched = (refined("dct", MIDDLE, effort) for effort in (0, 1))
    assert all(torch.equal(plain[name], searched[name]) for name in plain)


def test_a_search_is_always_the_same_and_leaves_other_random_numbers_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, again = refined("toy", 100, 1), refined("toy", 100, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = refined("toy", 100, 1, seed=1)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_search_leaves_the_model_as_it_is() -> None:
    made = model("toy")
    before = {name: each.clone() for name, each in made.state_dict().items()}
    refined("toy", MIDDLE, 1)
    assert all(torch.equal(each, before[name]) for name, each in made.state_dict().items())
    assert all(parameter.grad is None for parameter in made.parameters())


def test_more_effort_finds_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refine.STEPS[1] < refine.STEPS[2] < refine.STEPS[3]
    monkeypatch.setattr(refine, "STEPS", {1: 5, 2: 40})
    little, more = (cost("toy", refined("toy", MIDDLE, effort), MIDDLE) for effort in (1, 2))
    assert more < little


@pytest.mark.parametrize("effort", [-1, 4])
def test_an_effort_that_there_is_not_is_refused(effort: int) -> None:
    with pytest.raises(ValueError, match=f"effort {effort}; allowed are 0 to 3"):
        refined("toy", MIDDLE, effort)
