"""RecurrentVarNet: gradient steps on k-space with a correction from a recurrent network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex64, Float
from torch import Tensor, nn

from core.variational.inverse import LinearOperator, coils, fourier
from domains.mri.data.fourier import fft2
from domains.mri.model.recurrent import ConvGRU, State, StateInitializer
from domains.mri.model.unet import UNet

KSpace = Complex64[Tensor, "batch coil height width"]
Picture = Complex64[Tensor, "batch height width"]


@dataclass(frozen=True, eq=False)
class Steps:
    """The way of an unrolled reconstruction.

    Args:
        kspace: The start and what each step made of it.
        state: Of the recurrent unit after the last step.
    """

    kspace: Sequence[KSpace]
    state: State | None


def looking(maps: KSpace) -> LinearOperator:
    """Return the map of pictures to fully sampled k-space."""
    shape = tuple(maps.shape[1:])
    return fourier(shape, (-2, -1)) @ coils(maps)


class Block(nn.Module):
    r"""One step.

    .. math:: k_{t+1} = k_t - \alpha_t M (k_t - y) + F S\, w_t, \quad
        (w_t, h_{t+1}) = G_t(S^* F^* k_t, h_t)

    Args:
        hidden: Channels of the recurrent state.
        layers: Of the recurrent unit.
    """

    def __init__(self, hidden: int, layers: int) -> None:
        super().__init__()
        self.step_size = nn.Parameter(torch.ones(1))
        self.unit = ConvGRU(2, hidden, layers)

    def forward(
        self,
        kspace: KSpace,
        measured: KSpace,
        mask: Bool[Tensor, "batch height width"],
        look: LinearOperator,
        state: State | None,
    ) -> tuple[KSpace, State]:
        """Return the next k-space and state."""
        missed = torch.where(mask[:, None], kspace - measured, 0)
        correction, following = self.unit(as_channels(look.adjoint(kspace)), state)
        return kspace - self.step_size * missed + look(as_complex(correction)), following


class RecurrentVarNet(nn.Module):
    """The network, from measured k-space to completed k-space.

    With the settings of the paper it has the paper's parameters, whose published weights
    `from_direct` maps to it.

    References:
        Yiasemis et al., "Recurrent Variational Network: A Deep Learning Inverse Problem Solver
        Applied to the Task of Accelerated MRI Reconstruction", CVPR 2022 (arXiv:2111.09639).

    Args:
        steps: How many (T).
        hidden: Channels of the recurrent state.
        layers: Of the recurrent unit.
        shared: Whether all steps have the same weights.
        initializer: Widths and dilations of the state's initializer and how many scales its heads
            see; None starts from zeros.
        initializer_sees: ``"kspace"`` of the back-projected picture, as the paper's code has it,
            or the ``"picture"``.
    """

    def __init__(
        self,
        steps: int,
        hidden: int,
        layers: int,
        shared: bool,
        initializer: tuple[Sequence[int], Sequence[int], int] | None,
        initializer_sees: str,
    ) -> None:
        super().__init__()
        self.steps = steps
        self.blocks = nn.ModuleList(Block(hidden, layers) for _ in range(1 if shared else steps))
        self.initializer = (
            None if initializer is None else StateInitializer(2, hidden, layers, *initializer)
        )
        self.initializer_sees = initializer_sees

    def forward(
        self,
        measured: KSpace,
        mask: Bool[Tensor, "batch height width"],
        maps: KSpace,
        start: Picture | None = None,
    ) -> Steps:
        """Return the start and every step.

        Args:
            measured: Zero where not sampled, of size about 1.
            mask: Where it is sampled.
            maps: Sensitivities of the coils.
            start: Picture to start from; the measured k-space itself if not given.
        """
        look = looking(maps)
        kspace = measured if start is None else look(start)
        state = self._state(measured, look, start)
        seen = [kspace]
        for step in range(self.steps):
            block = self.blocks[step % len(self.blocks)]
            kspace, state = block(kspace, measured, mask, look, state)
            seen.append(kspace)
        return Steps(seen, state)

    def start_at_start(self) -> None:
        """Make every correction zero, so that training begins at the start's picture."""
        for block in self.blocks:
            assert isinstance(block, Block)
            block.unit.start_at_zero()

    def _state(
        self, measured: KSpace, look: LinearOperator, start: Picture | None
    ) -> State | None:
        if self.initializer is None:
            return None
        picture = look.adjoint(measured) if start is None else start
        if self.initializer_sees == "kspace":
            picture = fft2(picture)
        return self.initializer(as_channels(picture))


class MapRefiner(nn.Module):
    """Improve sensitivities coil by coil, by one U-Net for all.

    References:
        Yiasemis et al., CVPR 2022, section 3.1; Sriram et al., "End-to-End Variational Networks",
        MICCAI 2020 (arXiv:2004.06688), section 2.2.

    Args:
        width: Channels at full resolution.
        depth: How often the picture is halved.
        residual: Whether the network says a change, zero at first, inside the support of the maps;
            else it says the maps.
    """

    def __init__(self, width: int, depth: int, residual: bool) -> None:
        super().__init__()
        self.network, self.residual = UNet(2, width, depth), residual
        if residual:
            nn.init.zeros_(self.network.out.weight)
            assert self.network.out.bias is not None
            nn.init.zeros_(self.network.out.bias)

    def forward(self, maps: KSpace) -> KSpace:
        """Return maps of unit root sum of squares, 0 where the given ones are all 0."""
        if maps.shape[1] == 1:
            return maps
        flat = maps.flatten(0, 1)
        said = as_complex(self.network(as_channels(flat))).view_as(maps)
        if self.residual:
            inside = maps.abs().square().sum(1, keepdim=True) > 0
            said = torch.where(inside, maps + said, 0)
        return normalised(said)


def normalised(maps: KSpace) -> KSpace:
    """Divide maps by their root sum of squares; 0 stays 0."""
    squares = torch.view_as_real(maps).square().sum((1, -1)).unsqueeze(1)
    return maps * torch.where(squares > 0, (squares + 1e-12).rsqrt(), 0)


def as_channels(picture: Picture) -> Float[Tensor, "batch 2 height width"]:
    """Real and imaginary part as channels."""
    return torch.view_as_real(picture).movedim(-1, 1)


def as_complex(channels: Float[Tensor, "batch 2 height width"]) -> Picture:
    """The way back of `as_channels`."""
    return torch.view_as_complex(channels.movedim(1, -1).contiguous())


def from_direct(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a RecurrentVarNet of the authors' toolkit DIRECT to ours.

    Args:
        weights: Its state dict, without those of the sensitivity network.

    Raises:
        KeyError: If one has no place here.
    """
    return {_renamed(name): weight for name, weight in weights.items()}


PARTS = {
    "conv_blocks": "convolutions",
    "reset_gates": "reset",
    "update_gates": "update",
    "out_gates": "candidate",
    "out_blocks": "heads",
}


def _renamed(name: str) -> str:
    """The name here of a weight of DIRECT.

    Example:
        >>> _renamed("block_list.3.regularizer.out_gates.0.0.bias")
        'blocks.3.unit.candidate.0.bias'
    """
    words = name.split(".")
    if words[0] == "initializer":
        return ".".join(("initializer", *_layer(words[1:])))
    if words[0] != "block_list":
        raise KeyError(f"{name}: no weight of a RecurrentVarNet")
    if words[2] == "learning_rate":
        return f"blocks.{words[1]}.step_size"
    return ".".join(("blocks", words[1], "unit", *_layer(words[3:])))


def _layer(words: Sequence[str]) -> Iterable[str]:
    """``part, layer, place in a sequence, weight`` without the place."""
    part, layer, _, kind = words
    return PARTS[part], layer, kind
