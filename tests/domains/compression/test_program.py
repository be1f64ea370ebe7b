"""Programs of a prior: their layers, what depends on what, and their scales."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from domains.compression.model.program import (
    LARGEST,
    LOG_STEP,
    SCALES,
    SMALLEST,
    UNIT,
    Affine,
    Network,
    Program,
    Step,
    predicting,
    scale_of,
    shrunk,
)
from domains.compression.model.rates import LAST, MIDDLE


def noise(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([1, 3]), st.booleans(), st.integers(1, 5), st.integers(1, 5))
def test_an_affine_map_is_a_convolution_with_zeros_around(
    kernel: int, scaled: bool, inputs: int, outputs: int
) -> None:
    torch.manual_seed(inputs)
    layer = Affine(inputs, outputs, kernel, torch.rand(outputs) + 0.1 if scaled else None)
    x = noise(2, inputs, 6, 5)
    expected = F.conv2d(
        x.double(), layer.weight.double(), layer.bias.double(), padding=kernel // 2
    )
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-4, atol=1e-5)


def test_what_a_map_holds_does_not_depend_on_its_unit() -> None:
    weight, bias, unit = noise(4, 3, 3, 3), noise(4, seed=1), torch.tensor([0.1, 1.0, 7.0, 30.0])
    plain, scaled = Affine(3, 4, 3), Affine(3, 4, 3, unit)
    for layer in (plain, scaled):
        layer.hold(weight, bias)
    torch.testing.assert_close(scaled.weight, plain.weight)
    torch.testing.assert_close(scaled(noise(1, 3, 5, 5)), plain(noise(1, 3, 5, 5)))


def test_a_step_of_a_map_is_in_its_unit() -> None:
    layer = Affine(3, 2, unit=torch.tensor([1.0, 25.0]))
    before = layer.bias.detach().clone()
    with torch.no_grad():
        layer.own_bias += 0.01  # as an optimiser does
    torch.testing.assert_close(layer.bias.detach() - before, torch.tensor([0.01, 0.25]))


def test_a_network_rectifies_between_layers_and_moves_channels_into_space() -> None:
    torch.manual_seed(0)
    network, x = Network(3, (7, 5), 2, (1, 3, 1), up=4), noise(2, 3, 3, 4)
    first, second, last = network.layers
    expected = F.pixel_shuffle(last(second(first(x).relu()).relu()), 4)
    assert expected.shape == (2, 2, 12, 16)
    assert torch.equal(network(x), expected)


def test_a_shrunk_layer_says_little_and_has_a_gradient() -> None:
    layer = shrunk(Affine(8, 3), 0.01)
    out = layer(noise(1, 8, 4, 4))
    assert out.abs().max() < 0.05
    assert layer.bias.eq(0).all()
    out.sum().backward()
    assert layer.own_weight.grad is not None
    assert layer.own_weight.grad.any()


def test_what_predicts_starts_near_means_of_0_and_scales_of_1() -> None:
    torch.manual_seed(0)
    mean, index = predicting(20, (32,), 6)(noise(1, 20, 8, 8)).detach().chunk(2, 1)
    assert mean.abs().max() < 0.3
    assert (scale_of(index).log().abs() < 0.3).all()


def test_scales_are_even_in_their_logarithm_from_the_smallest_to_the_largest() -> None:
    expected = torch.logspace(math.log10(SMALLEST), math.log10(LARGEST), SCALES)
    torch.testing.assert_close(scale_of(torch.arange(SCALES).float()), expected)
    outside = scale_of(torch.tensor([-7.0, 99.0, UNIT]))
    torch.testing.assert_close(outside, torch.tensor([SMALLEST, LARGEST, 1.0]))


@pytest.mark.parametrize(
    ("index", "towards", "passes"),
    [(-5.0, 1, True), (-5.0, -1, False), (80.0, -1, True), (80.0, 1, False), (9.0, -1, True)],
)
def test_a_scale_out_of_range_may_only_come_back(index: float, towards: int, passes: bool) -> None:
    value = torch.tensor([index], requires_grad=True)
    (-towards * scale_of(value)).sum().backward()  # descent moves the index towards
    assert value.grad is not None
    expected = -towards * LOG_STEP * scale_of(value.detach()) if passes else torch.zeros(1)
    torch.testing.assert_close(value.grad, expected)


def small_program() -> Program:
    torch.manual_seed(0)
    return Program(
        [
            Step("z", 2, 16),
            Step("h", 5, 8, ("z", "rate"), coded=False),
            Step("a", 3, 8, ("h", "rate")),
            Step("b", 4, 8, ("h", "a")),
        ],
        {
            "h": Network(3, (6,), 5, (3, 1), up=2),
            "a": predicting(6, (8,), 3),
            "b": predicting(8, (8,), 4),
        },
    )


def said_by(
    program: Program, values: dict[str, float], rate: int = MIDDLE
) -> dict[str, tuple[Tensor, Tensor]]:
    """What it says of each group where groups have these values throughout."""
    said = {}

    def code(step: Step, mean: Tensor, index: Tensor) -> Tensor:
        said[step.name] = (mean, index)
        return torch.full_like(mean, values.get(step.name, 0.0))

    program(32, 48, torch.tensor([rate]), code)
    return said


def test_a_program_says_means_and_scales_of_coded_groups_in_order() -> None:
    program = small_program()
    said = said_by(program, {})
    assert list(said) == ["z", "a", "b"] == [step.name for step in program.groups]
    for name, size in (("z", (1, 2, 2, 3)), ("a", (1, 3, 4, 6)), ("b", (1, 4, 4, 6))):
        assert said[name][0].shape == said[name][1].shape == size


@pytest.mark.parametrize(
    ("changed", "depends"), [("z", {"a", "b"}), ("a", {"b"}), ("b", set[str]())]
)
def test_a_group_depends_on_what_its_steps_read(changed: str, depends: set[str]) -> None:
    program = small_program()
    before, after = said_by(program, {}), said_by(program, {changed: 1.0})
    different = {name for name in before if not torch.equal(before[name][0], after[name][0])}
    assert different == depends


def test_only_what_reads_the_rate_depends_on_it() -> None:
    low, high = (said_by(small_program(), {}, rate) for rate in (0, LAST))
    assert torch.equal(low["z"][0], high["z"][0])
    assert not torch.equal(low["a"][0], high["a"][0])


def test_a_group_that_reads_nothing_has_the_constants_it_is_given() -> None:
    program = small_program()
    value = torch.tensor([0.5, -2.0, 10.0, 40.0])
    program.hold_constants("z", value)
    torch.testing.assert_close(program.constants["z"].detach(), value)
    mean, index = said_by(program, {})["z"]
    torch.testing.assert_close(mean[0, :, 1, 2].detach(), value[:2])
    torch.testing.assert_close(index[0, :, 0, 0].detach(), value[2:])
