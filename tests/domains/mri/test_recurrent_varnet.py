"""RecurrentVarNet: the paper's parameters, the authors' names, equations by hand, symmetries."""

from __future__ import annotations

import pytest
import torch
from scanned import sampled, scanned
from torch import Tensor

from core.variational.inverse import fourier
from domains.mri.model.recurrent import ConvGRU
from domains.mri.model.recurrent_varnet import (
    Block,
    MapRefiner,
    RecurrentVarNet,
    from_direct,
    looking,
    normalised,
)
from domains.mri.model.unet import UNet

PAPER = ((32, 32, 64, 64), (1, 1, 2, 4), 3)


def parameters(module: torch.nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


def small(steps: int = 3, sees: str = "kspace") -> RecurrentVarNet:
    torch.manual_seed(0)
    return RecurrentVarNet(steps, 6, 3, False, ((4, 4, 8), (1, 2, 4), 2), sees)


@pytest.mark.parametrize(
    ("steps", "hidden", "shared", "published"),
    [(8, 128, False, 6.918), (8, 128, True, 0.994), (11, 128, False, 9.457)],
)
def test_parameters_are_those_of_the_published_networks(
    steps: int, hidden: int, shared: bool, published: float
) -> None:
    network = RecurrentVarNet(steps, hidden, 4, shared, PAPER, "kspace")
    assert round(parameters(network) / 1e6, 3) == published


def test_the_refiner_has_the_published_parameters() -> None:
    assert parameters(MapRefiner(8, 4, residual=False)) == 484_898


def test_weights_of_the_authors_toolkit_have_a_place() -> None:
    """Every name that their module has is here, once, with its shape."""
    network = RecurrentVarNet(2, 8, 3, False, PAPER, "kspace")
    theirs = {}
    for step in range(2):
        theirs[f"block_list.{step}.learning_rate"] = torch.randn(1)
        regularizer = f"block_list.{step}.regularizer"
        for layer in range(4):
            inputs, outputs = 2 if layer == 0 else 8, 2 if layer == 3 else 8
            size = 5 if layer == 0 else 3
            name = f"{regularizer}.conv_blocks.{layer}.1"
            theirs |= _weights(name, outputs, inputs, size)
        for layer in range(3):
            for gate in ("reset_gates", "update_gates", "out_gates"):
                theirs |= _weights(f"{regularizer}.{gate}.{layer}.0", 8, 16, 1)
    for layer, (inputs, outputs) in enumerate([(2, 32), (32, 32), (32, 64), (64, 64)]):
        theirs |= _weights(f"initializer.conv_blocks.{layer}.1", outputs, inputs, 3)
    for layer in range(3):
        theirs |= _weights(f"initializer.out_blocks.{layer}.0", 8, 160, 1)
    network.load_state_dict(from_direct(theirs), strict=True)
    assert torch.equal(
        network.state_dict()["blocks.1.unit.candidate.2.weight"],
        theirs["block_list.1.regularizer.out_gates.2.0.weight"],
    )
    with pytest.raises(KeyError, match="sensitivity_model"):
        from_direct({"sensitivity_model.weight": torch.zeros(1)})


def _weights(name: str, outputs: int, inputs: int, size: int) -> dict[str, Tensor]:
    return {
        f"{name}.weight": torch.randn(outputs, inputs, size, size),
        f"{name}.bias": torch.randn(outputs),
    }


def test_a_gated_unit_is_its_equations() -> None:
    torch.manual_seed(0)
    unit = ConvGRU(2, 3, 1)
    x, h = torch.randn(1, 2, 9, 9), torch.randn(1, 3, 9, 9)
    out, (following,) = unit(x, [h])
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="replicate")
    first = unit.convolutions[0]
    seen = torch.nn.functional.conv2d(padded, first.weight, first.bias).relu()

    def gate(module: torch.nn.Module, inputs: Tensor) -> Tensor:
        weight = module.weight[:, :, 0, 0]
        return torch.einsum("oi,bihw->bohw", weight, inputs) + module.bias[:, None, None]

    both = torch.cat((seen, h), 1)
    update = gate(unit.update[0], both).sigmoid()
    reset = gate(unit.reset[0], both).sigmoid()
    candidate = gate(unit.candidate[0], torch.cat((seen, reset * h), 1)).tanh()
    torch.testing.assert_close(following, (1 - update) * h + update * candidate)
    assert out.shape == x.shape


def test_a_block_is_its_equation() -> None:
    torch.manual_seed(0)
    kspace, maps, _ = scanned(size=24, coils=4)
    mask = sampled(24, 3, 8)
    measured = (kspace * mask)[None]
    block = Block(5, 2)
    with torch.no_grad():
        block.step_size.fill_(0.7)
    now = measured + 0.1 * torch.randn_like(measured)
    following, _ = block(now, measured, mask[None], looking(maps[None]), None)
    transform = fourier((24, 24), (-2, -1))
    seen = (maps[None].conj() * transform.adjoint(now)).sum(1)
    said, _ = block.unit(torch.stack((seen.real, seen.imag), 1), None)
    correction = transform(maps[None] * torch.complex(said[:, 0], said[:, 1])[:, None])
    expected = now - 0.7 * mask * (now - measured) + correction
    torch.testing.assert_close(following, expected, atol=1e-5, rtol=1e-4)


def test_without_corrections_the_samples_are_taken_over() -> None:
    kspace, maps, _ = scanned(size=24, coils=4)
    mask = sampled(24, 3, 8)[None]
    network = small()
    network.start_at_start()
    start = torch.randn(1, 24, 24, dtype=torch.complex64)
    last = network(kspace[None] * mask, mask, maps[None], start).kspace[-1]
    expected = torch.where(mask, kspace, looking(maps[None])(start)[0])
    torch.testing.assert_close(last[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("size", "coils"), [(17, 1), (32, 3)])
def test_any_size_any_number_of_coils(size: int, coils: int) -> None:
    kspace, maps, _ = scanned(size=size, coils=coils)
    mask = sampled(size, 2, 6)
    steps = small()(kspace[None] * mask, mask[None], maps[None])
    assert len(steps.kspace) == 4
    assert all(torch.isfinite(torch.view_as_real(each)).all() for each in steps.kspace)
    assert MapRefiner(4, 2, True)(maps[None]).shape == (1, coils, size, size)


def test_a_residual_refiner_starts_with_the_maps_given() -> None:
    _, maps, picture = scanned(size=24, coils=4)
    given = (maps * (picture.abs() > 0))[None]
    refined = MapRefiner(4, 2, residual=True)(given)
    torch.testing.assert_close(refined, given, atol=1e-5, rtol=1e-5)
    assert float(refined[0, :, 0, 0].detach().abs().max()) == 0


def test_maps_are_normalised_with_a_gradient_everywhere() -> None:
    maps = torch.zeros(1, 3, 2, 2, dtype=torch.complex64)
    maps[0, :, 0, 0] = torch.tensor([3.0, 0, 4j])
    maps.requires_grad_()
    found = normalised(maps)
    assert found[0, :, 0, 0].abs().tolist() == pytest.approx([0.6, 0, 0.8])
    torch.view_as_real(found).sum().backward()
    assert maps.grad is not None
    assert torch.isfinite(torch.view_as_real(maps.grad)).all()


def test_a_unet_keeps_the_size_and_bears_a_flat_picture() -> None:
    network = UNet(2, 4, 3)
    assert network(torch.zeros(2, 2, 13, 7)).shape == (2, 2, 13, 7)
    assert torch.isfinite(network(torch.ones(1, 2, 1, 1))).all()
