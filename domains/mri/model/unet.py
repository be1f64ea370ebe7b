"""The U-Net of the field: instance norm, leaky rectifiers, transposed convolutions upwards."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2


class UNet(nn.Module):
    r"""A U-Net whose width doubles with every halving of the picture.

    Sizes that halving does not divide are padded by reflection and cut again, so that any size of
    at least 1 works.

    References:
        Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation",
        MICCAI 2015; as Zbontar et al., "fastMRI", 2018 (arXiv:1811.08839), have it.

    Args:
        channels: Of the input and of the output.
        width: Channels at full resolution.
        depth: How often the picture is halved.
    """

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        widths = [width << level for level in range(depth + 1)]
        before = [channels, *widths[:-1]]
        self.down = nn.ModuleList(_block(i, o) for i, o in zip(before, widths, strict=True))
        self.lift = nn.ModuleList(_lift(2 * o, o) for o in reversed(widths[:-1]))
        self.up = nn.ModuleList(_block(2 * o, o) for o in reversed(widths[:-1]))
        self.out = nn.Conv2d(width, channels, 1)
        self.depth = depth

    def forward(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        """Return features of the same shape."""
        height, width = x.shape[-2:]
        x = _padded(x, 1 << self.depth)
        kept: list[Tensor] = []
        for block in self.down[:-1]:
            kept.append(block(x))
            x = F.avg_pool2d(kept[-1], 2)
        x = self.down[-1](x)
        for lift, block in zip(self.lift, self.up, strict=True):
            x = block(torch.cat((lift(x), kept.pop()), 1))
        return self.out(x)[..., :height, :width]


class _InstanceNorm(nn.Module):
    """Instance norm that a picture of one value, or of one pixel, does not break."""

    def forward(self, x: Tensor) -> Tensor:
        """Return it with mean 0 and variance 1 over each channel's pixels."""
        variance, mean = torch.var_mean(x, (-2, -1), correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + 1e-5)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        convolution = nn.Conv2d(channels, outputs, 3, padding=1, bias=False)
        layers += [convolution, _InstanceNorm(), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)


def _lift(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.ConvTranspose2d(inputs, outputs, 2, stride=2, bias=False)
    return nn.Sequential(convolution, _InstanceNorm(), nn.LeakyReLU(SLOPE))


def _padded(x: Tensor, multiple: int) -> Tensor:
    """Pad to a multiple at the far ends, by the border's value."""
    rows, columns = (-size % multiple for size in x.shape[-2:])
    return F.pad(x, (0, columns, 0, rows), mode="replicate") if rows or columns else x
