"""The recurrent unit of RecurrentVarNet and what its state starts from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

State = Sequence[Float[Tensor, "batch hidden height width"]]


class ConvGRU(nn.Module):
    r"""Layers of a convolution and a gated recurrent unit of 1 × 1 convolutions.

    .. math::
        u = \sigma(W_u [x, h]), \quad r = \sigma(W_r [x, h]), \quad
        h' = (1 - u) h + u \tanh(W_o [x, r h])

    The first convolution is 5 × 5, the second is dilated by 2, all replicate the border.

    References:
        Yiasemis et al., "Recurrent Variational Network", CVPR 2022 (arXiv:2111.09639), section
        3.2; Cho et al., EMNLP 2014, for the unit.

    Args:
        channels: Of the input and of the output.
        hidden: Channels of the state of each layer.
        layers: How many.
    """

    def __init__(self, channels: int, hidden: int, layers: int) -> None:
        super().__init__()
        inputs = [channels] + layers * [hidden]
        outputs = layers * [hidden] + [channels]
        self.convolutions = nn.ModuleList(
            _convolution(i, o, size=5 if place == 0 else 3, dilation=2 if place == 1 else 1)
            for place, (i, o) in enumerate(zip(inputs, outputs, strict=True))
        )
        self.reset = nn.ModuleList(_gate(hidden, bias=-1.0) for _ in range(layers))
        self.update = nn.ModuleList(_gate(hidden, bias=0.0) for _ in range(layers))
        self.candidate = nn.ModuleList(_gate(hidden, bias=0.0) for _ in range(layers))

    def forward(
        self, x: Float[Tensor, "batch channel height width"], state: State | None
    ) -> tuple[Float[Tensor, "batch channel height width"], State]:
        """Return the output and the next state; a state of None is one of zeros."""
        following: list[Tensor] = []
        for place, convolution in enumerate(self.convolutions[:-1]):
            x = F.relu(convolution(x))
            h = torch.zeros_like(x) if state is None else state[place]
            both = torch.cat((x, h), 1)
            update = torch.sigmoid(self.update[place](both))
            reset = torch.sigmoid(self.reset[place](both))
            candidate = torch.tanh(self.candidate[place](torch.cat((x, reset * h), 1)))
            h = h + update * (candidate - h)
            following.append(h)
            x = F.relu(h)
        return self.convolutions[-1](x), following

    def start_at_zero(self) -> None:
        """Make the output zero, whatever comes in."""
        last = self.convolutions[-1]
        assert isinstance(last, nn.Conv2d)
        nn.init.zeros_(last.weight)
        if last.bias is not None:
            nn.init.zeros_(last.bias)


class StateInitializer(nn.Module):
    """The learned start of a recurrent state: dilated convolutions, a head for each layer.

    References:
        Yiasemis et al., CVPR 2022 (arXiv:2111.09639), section 3.3.

    Args:
        channels: Of the input.
        hidden: Channels of the state of each layer.
        layers: Of the recurrent unit.
        widths: Channels of the convolutions.
        dilations: Of the convolutions.
        scales: How many of the last convolutions the heads see.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        layers: int,
        widths: Sequence[int],
        dilations: Sequence[int],
        scales: int,
    ) -> None:
        super().__init__()
        inputs = [channels, *widths[:-1]]
        self.convolutions = nn.ModuleList(
            _convolution(i, o, size=3, dilation=d)
            for i, o, d in zip(inputs, widths, dilations, strict=True)
        )
        self.heads = nn.ModuleList(
            nn.Conv2d(sum(widths[-scales:]), hidden, 1) for _ in range(layers)
        )
        self.scales = scales

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> State:
        """Return the state of each layer."""
        features: list[Tensor] = []
        for convolution in self.convolutions:
            x = F.relu(convolution(x))
            features.append(x)
        seen = torch.cat(features[-self.scales :], 1)
        return [F.relu(head(seen)) for head in self.heads]


def _convolution(inputs: int, outputs: int, size: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(
        inputs,
        outputs,
        size,
        padding=dilation * (size // 2),
        dilation=dilation,
        padding_mode="replicate",
    )


def _gate(hidden: int, bias: float) -> nn.Conv2d:
    gate = nn.Conv2d(2 * hidden, hidden, 1)
    nn.init.orthogonal_(gate.weight)
    assert gate.bias is not None
    nn.init.constant_(gate.bias, bias)
    return gate
