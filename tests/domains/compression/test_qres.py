"""The hierarchy: its transform, what depends on what, and that more levels are better."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from pydantic import ValidationError
from sklearn.datasets import load_sample_image
from torch import Tensor

from core.variational.objectives import ELBO
from domains.compression.config import QRes, Rates
from domains.compression.data.records import LAST_RATE, Images
from domains.compression.model import construct
from domains.compression.model.compiling import compile_program
from domains.compression.model.integers import FRACTION
from domains.compression.model.program import LOG_STEP, Step
from domains.compression.model.qres import Pyramid, QResVAE, log_sizes
from domains.compression.model.rates import MIDDLE

SMALL = QRes(
    widths=(12, 8, 8), latents=((9, 30), (12,), (3, 11)), blocks=1, known=8, context=12, filter=4
)
Code = dict[str, Tensor]


def photographs(count: int, side: int) -> Tensor:
    """Parts of a photograph that comes with scikit-learn, where there is much to see."""
    whole = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)
    whole = whole[:, 427 - side - 24 * (count - 1) :]
    places = range(0, 24 * count, 24)
    return torch.stack([whole[:, at : at + side, at : at + side] for at in places])


def images(count: int = 4, side: int = 64) -> Images:
    """Pictures at rates from the lowest to the highest."""
    rate = torch.linspace(0, LAST_RATE, count).round().long()
    return Images(photographs(count, side), rate)


def model(started: bool = True) -> QResVAE:
    """A small hierarchy, always the same."""
    torch.manual_seed(0)
    made = construct(SMALL, Rates())
    assert isinstance(made, QResVAE)
    if started:
        made.start(images())
    return made


def shaken(made: QResVAE) -> QResVAE:
    """What networks add to the transform made large, so that it is seen."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in made.named_parameters():
        if "leave" in name or "program" in name:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data += 0.3 * noise / max(1, parameter[0].numel()) ** 0.5
    return made


def trained(made: QResVAE, steps: int) -> list[float]:
    """Train it a little and return the loss of each step."""
    optimizer, objective, losses = torch.optim.Adam(made.parameters(), lr=1e-3), ELBO(), []
    torch.manual_seed(0)
    for step in range(steps):
        loss = objective(made.train().evidence(images()), step / steps).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def decoded(made: QResVAE, batch: Images, levels: int | None = None) -> Tensor:
    """The picture that the first levels stand for, where others are what the prior expects."""
    features = made.analyse(batch.pixels.float() / 255, batch.rate)
    read = {name for level in made.levels[:levels] for name in level}
    known: Code = {}

    def code(step: Step, mean: Tensor, index: Tensor) -> Tensor:
        log_gain = made.log_gain(step.name, batch.rate)
        gain, symbols = log_gain.exp(), torch.zeros(())
        if step.name in read:
            symbols = ((made.coefficients(step.name, features, known) - mean) * gain).round()
            symbols = symbols * (index + log_gain / LOG_STEP >= 0.5)  # a smaller scale: not coded
        known[step.name] = mean + symbols / gain
        return known[step.name]

    made.program(*batch.pixels.shape[2:], batch.rate, code)
    return made.synthesise(known, batch.rate)


def squared_errors(made: QResVAE, batch: Images) -> list[Tensor]:
    """Mean squared error of each picture after each level."""
    x = batch.pixels.float() / 255
    return [
        (decoded(made, batch, levels).clamp(0, 1) - x).square().mean((1, 2, 3))
        for levels in range(1, len(made.levels) + 1)
    ]


def test_a_pyramid_of_all_bands_has_one_coefficient_a_value_and_gives_them_back() -> None:
    x = torch.rand(2, 3, 64, 96) - 0.5
    pyramid = Pyramid((189, 9, 12))
    coefficients = pyramid(pyramid.cut(x))
    assert [tuple(each.shape[2:]) for each in coefficients] == [(8, 12), (4, 6), (2, 3)]
    assert sum(each.numel() for each in coefficients) == x.numel()
    back = pyramid.joined(pyramid.inverse(coefficients))
    torch.testing.assert_close(back, x, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("stage", "band"), [(0, 0), (0, 40), (1, 0), (2, 0), (2, 11)])
def test_a_unit_of_every_coefficient_is_as_large_in_the_picture(stage: int, band: int) -> None:
    pyramid = Pyramid((60, 9, 12))
    grid = [(20, 20), (10, 10), (5, 5)]
    coefficients = [torch.zeros(1, n, *size) for n, size in zip((60, 9, 12), grid, strict=True)]
    middle = grid[stage][0] // 2
    coefficients[stage][0, band, middle, middle] = 1.0
    energy = pyramid.joined(pyramid.inverse(coefficients)).square().sum().item()
    assert energy == pytest.approx(1.0, abs=1e-4)


def test_of_an_even_picture_only_the_means_at_the_coarsest_stride_are_not_zero() -> None:
    grey = torch.full((1, 3, 64, 64), 0.25)
    pyramid = Pyramid((60, 9, 12))
    *finer, coarsest = pyramid(pyramid.cut(grey))
    for each in finer:
        torch.testing.assert_close(each, torch.zeros_like(each), atol=1e-5, rtol=0)
    expected = torch.zeros_like(coarsest)
    expected[:, 0] = coarsest[:, 0, :1, :1]
    torch.testing.assert_close(coarsest, expected, atol=1e-5, rtol=1e-5)
    # A unit of luma is a third's root in each colour; functions of a lapped transform overlap.
    assert coarsest[0, 0, 0, 0].item() == pytest.approx(0.25 * 3**0.5 * 32, rel=0.1)


def test_after_the_start_coefficients_have_a_mean_size_of_one_and_steps_of_20_grey_levels() -> (
    None
):
    made, batch = model(), images()
    features = made.analyse(batch.pixels.float() / 255, batch.rate)
    middle = torch.tensor([MIDDLE])
    for name, group in made.groups.items():
        mean = features[name].abs().mean((0, 2, 3))[: len(group.bands)]
        torch.testing.assert_close(mean, torch.ones_like(mean))
        gain = made.log_gain(name, middle).exp().flatten()[: len(group.bands)]
        sizes = made.pyramid.sizes[group.stage][group.bands.start : group.bands.stop]
        torch.testing.assert_close(gain / sizes, torch.full_like(sizes, 255 / 20))


def test_bands_are_coded_once_and_channels_beyond_them_hold_what_is_learned() -> None:
    groups = model().groups
    assert {name: (g.channels, g.bands) for name, g in groups.items()} == {
        "z32_1": (3, range(3)),
        "z32_2": (11, range(3, 12)),
        "z16_1": (12, range(9)),
        "z8_1": (9, range(9)),
        "z8_2": (30, range(9, 39)),
    }


def test_free_channels_of_a_coarse_stride_start_as_how_large_the_coefficients_are() -> None:
    coefficients = torch.randn(1, 12, 4, 6)
    said = log_sizes(coefficients, 2, 3)
    louder = log_sizes(2 * coefficients, 2, 3)
    change = torch.zeros(1, 3, 2, 3)
    change[:, 0] = math.log(2) * 3**0.5  # all of three logarithms by as much
    torch.testing.assert_close(louder - said, change)
    bands = [coefficients[0, a:b, :2, :2].abs().mean().log() for a, b in ((0, 1), (1, 5), (5, 12))]
    torch.testing.assert_close(said[0, 0, 0, 0], sum(bands) / 3**0.5)
    torch.testing.assert_close(said[0, 1, 0, 0], (bands[0] - bands[2]) / 2**0.5)
    assert log_sizes(coefficients[:, :2], 2, 5)[:, 2:].eq(0).all()


def test_evidence_is_finite_and_every_parameter_learns() -> None:
    made = model()
    evidence = made.evidence(images(), samples=2)
    assert evidence.log_likelihood["pixels"].shape == (2, 4)
    assert [latent.name for latent in evidence.latents] == list(made.groups)
    for latent in evidence.latents:
        assert (latent.kl() > 0).all()
    ELBO()(evidence, 0.5).loss.backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_in_evaluation_the_rate_is_the_code_length_of_what_decoding_rebuilds() -> None:
    made, batch = shaken(model()).eval(), images()
    evidence = made.evidence(batch)
    picture = decoded(made, batch)
    likelihood = made.likelihood(picture, batch.rate).log_prob(batch.pixels.float() / 255)
    torch.testing.assert_close(evidence.log_likelihood["pixels"][0], likelihood)


@pytest.mark.parametrize("changed", range(5))
def test_a_block_is_predicted_from_the_blocks_before_it_only(changed: int) -> None:
    made, rate = shaken(model()), torch.tensor([MIDDLE])

    def said(error: float) -> list[Tensor]:
        seen: list[Tensor] = []

        def code(step: Step, mean: Tensor, index: Tensor) -> Tensor:
            seen.append(torch.cat([mean, index], 1))
            return mean + (error if len(seen) == changed + 1 else 0.1)

        made.program(64, 64, rate, code)
        return seen

    same = [torch.equal(*pair) for pair in zip(said(0.1), said(1.0), strict=True)]
    assert same == [block <= changed for block in range(5)]


def test_a_finer_posterior_looks_at_what_was_decoded_and_the_coarsest_at_the_picture_alone() -> (
    None
):
    made, batch = shaken(model()), images()
    features = made.analyse(batch.pixels.float() / 255, batch.rate)
    sizes = {name: 64 // (8 * 2**group.stage) for name, group in made.groups.items()}
    known = {
        name: torch.randn(4, group.channels, sizes[name], sizes[name])
        for name, group in made.groups.items()
    }
    for before, name in itertools.pairwise(made.groups):
        moved = known | {before: known[before] + 1}
        one, other = (made.coefficients(name, features, each) for each in (known, moved))
        assert not torch.allclose(one, other)
        later = known | {name: known[name] + 1}
        assert torch.equal(one, made.coefficients(name, features, later))
    first = next(iter(made.groups))
    assert made.coefficients(first, features, {}).shape == known[first].shape


def test_features_and_pictures_of_a_part_with_its_halo_are_the_part_of_the_whole() -> None:
    made, rate = shaken(model()), torch.tensor([MIDDLE])
    halo, inner = made.halo, 32
    side = 2 * halo + inner + 64  # the part begins 32 pixels inside
    x = photographs(1, side).float() / 255
    part = slice(32, 32 + 2 * halo + inner)
    with torch.no_grad():
        whole, cut = made.analyse(x, rate), made.analyse(x[:, :, part, part], rate)
        for name, value in cut.items():
            stride = x.shape[3] // whole[name].shape[3]
            ours = slice(halo // stride, (halo + inner) // stride)
            theirs = slice((32 + halo) // stride, (32 + halo + inner) // stride)
            expected = whole[name][:, :, theirs, theirs]
            torch.testing.assert_close(value[:, :, ours, ours], expected, atol=1e-4, rtol=1e-4)
        latents = {
            name: torch.randn(1, group.channels, *[side // (8 * 2**group.stage)] * 2)
            for name, group in made.groups.items()
        }
        some = {}
        for name, value in latents.items():
            stride = 8 * 2 ** made.groups[name].stage
            place = slice(part.start // stride, part.stop // stride)
            some[name] = value[:, :, place, place]
        ours, theirs = slice(halo, halo + inner), slice(32 + halo, 32 + halo + inner)
        torch.testing.assert_close(
            made.synthesise(some, rate)[:, :, ours, ours],
            made.synthesise(latents, rate)[:, :, theirs, theirs],
            atol=1e-4,
            rtol=1e-4,
        )


def test_a_few_steps_lower_the_loss_and_each_level_lowers_the_error() -> None:
    made = model()
    losses = trained(made, 30)
    assert max(losses[-5:]) < min(losses[:5])
    errors = squared_errors(made.eval(), images())
    for coarser, finer in itertools.pairwise(errors):
        assert (finer < coarser).all()
    assert (errors[-1] < errors[0] / 3).all()


def test_a_higher_rate_costs_more_bits_and_errs_less() -> None:
    made = model().eval()
    pixels = photographs(1, 64).expand(4, -1, -1, -1)
    batch = Images(pixels, torch.linspace(0, LAST_RATE, 4).long())
    bits = torch.stack([latent.kl()[0] for latent in made.evidence(batch).latents]).sum(0)
    errors = squared_errors(made, batch)[-1]
    assert (bits.diff() > 0).all()
    assert (errors.diff() < 0).all()


def test_the_prior_in_integers_says_what_the_float_one_says() -> None:
    made, batch = model().eval(), images(1)
    trained(made, 5)
    rate = MIDDLE
    gains = {n: made.log_gain(n, torch.tensor([rate])).exp()[0, :, 0, 0] for n in made.groups}
    said: Code = {}
    generator = torch.Generator().manual_seed(0)

    def code(step: Step, mean: Tensor, index: Tensor) -> Tensor:
        symbols = torch.randint(-2, 3, mean.shape, generator=generator)
        said[step.name] = torch.cat([mean, symbols], 2)
        return symbols * FRACTION + mean

    compile_program(made, batch).run(64, 64, rate, code)

    def check(step: Step, mean: Tensor, index: Tensor) -> Tensor:
        whole, symbols = said[step.name].permute(2, 0, 1).chunk(2)
        steps = mean[0] * gains[step.name].view(-1, 1, 1)
        error = (steps - whole / FRACTION).abs()
        assert error.mean() < 0.02
        assert error.max() < 0.2
        return mean + symbols.float() / gains[step.name].view(-1, 1, 1)

    with torch.no_grad():
        made.program(64, 64, torch.tensor([rate]), check)


def test_settings_need_latents_at_every_stride() -> None:
    with pytest.raises(ValidationError, match="one of each a stride"):
        QRes(widths=(8, 8), latents=((4,), (4,), (4,)))
    with pytest.raises(ValidationError):
        QRes(widths=(8, 8), latents=((4,), ()))
