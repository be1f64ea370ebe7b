"""The default codec: its transform, its rate in nats, its gains and what it learns."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from core.variational.objectives import ELBO
from domains.compression.config import DCT, Rates
from domains.compression.data.records import LAST_RATE, Images
from domains.compression.model import construct
from domains.compression.model.base import TransformModel, padded, weighed
from domains.compression.model.dct import DCTCodec
from domains.compression.model.program import LARGEST, SMALLEST, Network, Step
from domains.compression.model.rates import noise_scale

SMALL = DCT(slices=(6, 18), width=8, blocks=1, hyper=4, features=8, context=12, filter=4)


def images(rates: list[int] | None = None, side: int = 64) -> Images:
    """Parts of a photograph that comes with scikit-learn, at rates from all over the scale."""
    rate = torch.tensor([0, 84, 168, LAST_RATE] if rates is None else rates)
    whole = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)
    places = range(300, 300 + 40 * len(rate), 40)
    return Images(torch.stack([whole[:, 200 : 200 + side, at : at + side] for at in places]), rate)


def model(options: DCT = SMALL) -> DCTCodec:
    """A small codec, always the same, started from data."""
    torch.manual_seed(0)
    made = construct(options, Rates())
    assert isinstance(made, DCTCodec)
    made.start(images())
    return made


@cache
def trained() -> DCTCodec:
    """One whose networks say something, though nothing sensible."""
    made, draw = model(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.startswith("program.") or "leave" in name:
                size = max(1, parameter[0].numel()) ** 0.5
                parameter += 0.2 * torch.randn(parameter.shape, generator=draw) / size
    return made.eval()


def code_length_nats(made: TransformModel, batch: Images) -> dict[str, np.ndarray]:
    """The negative log of the mass of every symbol, in float64, summed over each picture."""
    nats: dict[str, np.ndarray] = {}
    decoded: dict[str, Tensor] = {}
    features = made.analyse(batch.pixels.float() / 255, batch.rate)

    def code(step: Step, mean: Tensor, index: Tensor) -> Tensor:
        log_gain = made.log_gain(step.name, batch.rate)
        mean = mean * log_gain.exp()
        centred = made.coefficients(step.name, features, decoded) * log_gain.exp() - mean
        step_index = index.double() + log_gain.double() * 63 / math.log(LARGEST / SMALLEST)
        symbol = torch.where(step_index < 0.5, 0.0, centred.round()).double().numpy()
        scale = SMALLEST * (LARGEST / SMALLEST) ** (step_index.clamp(0, 63).numpy() / 63)
        # Of the two tails that give the mass of an interval, the one where nothing cancels.
        far = np.abs(symbol)
        mass = norm.sf((far - 0.5) / scale) - norm.sf((far + 0.5) / scale)
        nats[step.name] = -np.log2(mass).sum((1, 2, 3)) * math.log(2)
        decoded[step.name] = (torch.from_numpy(symbol).float() + mean) / log_gain.exp()
        return decoded[step.name]

    with torch.no_grad():
        made.program(*batch.pixels.shape[2:], batch.rate, code)
    return nats


def test_with_all_coefficients_and_no_networks_the_picture_comes_back() -> None:
    made = model(SMALL.model_copy(update={"slices": (6, 186)}))
    silence(made)
    batch = images()
    x = batch.pixels.float() / 255
    back = made.synthesise(made.analyse(x, batch.rate), batch.rate)
    torch.testing.assert_close(back, x, atol=1e-5, rtol=0)


def silence(made: DCTCodec) -> None:
    """Take what networks add to the transform away."""
    parts = [made.before.leave, made.after.leave]
    parts += [] if made.filter is None else [made.filter.leave]
    for layer in parts:
        layer.hold(torch.zeros_like(layer.weight), torch.zeros_like(layer.bias))


@pytest.mark.parametrize("overlap", [False, True])
def test_it_starts_as_a_transform_that_keeps_nearly_all_of_a_photograph(overlap: bool) -> None:
    made = model(SMALL.model_copy(update={"overlap": overlap, "slices": (6, 90)}))
    batch = images()
    x = batch.pixels.float() / 255
    back = made.synthesise(made.analyse(x, batch.rate), batch.rate)
    assert (back - x).square().mean() < 0.03 * x.var()


def test_started_from_data_coefficients_are_1_on_average() -> None:
    made, batch = model(), images()
    silence(made)
    features = made.analyse(batch.pixels.float() / 255, batch.rate)
    means = torch.cat([features["y1"], features["y2"]], 1).abs().mean((0, 2, 3))
    torch.testing.assert_close(means, torch.ones(24), rtol=1e-4, atol=0)


def test_in_evaluation_the_kl_is_the_code_length_of_the_rounded_symbols() -> None:
    made, batch = trained(), images()
    expected = code_length_nats(made, batch)
    for latent in made.evidence(batch).latents:
        assert latent.name is not None
        found = latent.kl()[0].detach().double().numpy()
        np.testing.assert_allclose(found, expected[latent.name], rtol=2e-5)


def test_the_kl_of_several_samples_is_that_of_each_where_nothing_is_random() -> None:
    evidence = trained().evidence(images(), samples=2)
    for latent in evidence.latents:
        torch.testing.assert_close(latent.kl()[0], latent.kl()[1])
    assert evidence.log_likelihood["pixels"].shape == (2, 4)


@pytest.mark.parametrize("space", ["coefficients", "steps"])
def test_evidence_is_finite_and_every_parameter_learns(space: str) -> None:
    made = model(SMALL.model_copy(update={"space": space})).train()
    evidence = made.evidence(images(), samples=2)
    assert [latent.name for latent in evidence.latents] == ["z", "y1", "y2"]
    ELBO()(evidence, 1.0).loss.backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_a_higher_rate_index_costs_more_and_shows_more_before_any_training() -> None:
    made, indices = model().eval(), list(range(0, LAST_RATE + 1, 28))
    pixels = images([0], side=96).pixels.expand(len(indices), -1, -1, -1)
    batch = Images(pixels, torch.tensor(indices))
    with torch.no_grad():
        evidence = made.evidence(batch)
    nats = sum(latent.kl()[0] for latent in evidence.latents)
    assert isinstance(nats, Tensor)
    assert nats.diff().gt(0).all()
    scale, values = noise_scale(batch.rate, made.rates).double(), pixels[0].numel()
    log_prob = evidence.log_likelihood["pixels"][0].double()
    errors = -2 * scale.square() * (log_prob + values * (scale.log() + math.log(2 * math.pi) / 2))
    assert errors.diff().lt(0).all()


def inputs_of_networks(made: DCTCodec, batch: Images, log_gain: float) -> dict[str, Tensor]:
    """What each network of the prior reads where all gains are made larger."""
    seen: dict[str, Tensor] = {}
    gains = dict(made.gains.named_parameters())
    if made.space == "steps":
        gains |= {"own": made.own.logarithm}
    with torch.no_grad():
        for name, parameter in gains.items():
            if name.endswith(("logarithm", "own")):
                parameter += log_gain
    for name, network in made.program.networks.items():
        assert isinstance(network, Network)
        network.register_forward_pre_hook(remembering(seen, name))
    with torch.no_grad():
        made.eval().evidence(batch)
    return seen


def remembering(seen: dict[str, Tensor], name: str):  # noqa: ANN201
    def look(_: nn.Module, given: tuple[Tensor]) -> None:
        seen[name] = given[0]

    return look


def difference_by_gain(space: str) -> float:
    """By how much inputs change at most if every step becomes a sixteenth of what was fine."""
    options = SMALL.model_copy(update={"space": space})
    fine, finer = (inputs_of_networks(model(options), images(), math.log(g)) for g in (2e3, 3.2e4))
    assert fine.keys() == {"h0", "h1", "y1", "y2"}
    return max(float((fine[name] - finer[name]).abs().max()) for name in fine)


def test_the_networks_read_coefficients_whatever_the_gain() -> None:
    assert difference_by_gain("coefficients") < 2e-3


def test_in_steps_they_would_read_the_gain_too() -> None:
    assert difference_by_gain("steps") > 1e3


def test_a_slice_is_predicted_from_those_before_it_only() -> None:
    made, rate = trained(), torch.tensor([100])

    def said(values: dict[str, float]) -> dict[str, Tensor]:
        seen: dict[str, Tensor] = {}

        def code(step: Step, mean: Tensor, index: Tensor) -> Tensor:
            seen[step.name] = torch.cat([mean, index], 1)
            return torch.full_like(mean, values[step.name])

        made.program(64, 64, rate, code)
        return seen

    zeros = dict.fromkeys(("z", "y1", "y2"), 0.0)
    plain = said(zeros)
    for changed, after in (("z", {"y1", "y2"}), ("y1", {"y2"}), ("y2", set[str]())):
        other = said(zeros | {changed: 1.0})
        assert {name for name in plain if not torch.equal(plain[name], other[name])} == after


def test_emphasis_changes_gradients_in_training_and_not_the_value() -> None:
    plain, weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True), [0.5, 3.0]
    value = weighed(plain, torch.tensor(weight))
    assert torch.equal(value, plain)
    value.sum().backward()
    torch.testing.assert_close(plain.grad, torch.tensor([[0.5, 0.5], [3.0, 3.0]]))


def test_pictures_are_padded_by_their_last_row_and_column() -> None:
    pixels = torch.randint(0, 256, (3, 33, 30)).to(torch.uint8)
    wide = padded(pixels, 32)
    expected = np.pad(pixels.numpy(), ((0, 0), (0, 31), (0, 2)), mode="edge")
    np.testing.assert_array_equal(wide.numpy(), expected)
