"""Blocks of pixels and their transforms: the DCT of a block in three orthonormal colours."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from domains.compression.model.program import Affine, shrunk

SIDE = 8
BRANCH_UNIT = 0.3  # how fast what is added to a transform is learned
COLOURS = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))  # luma, R - B, R - 2 G + B
CHROMA_COUNTS = 2.2  # how much sooner a chroma frequency is left out than one of luma


def dct_matrix(size: int) -> Float[Tensor, "frequency position"]:
    r"""Return the orthonormal DCT-II.

    .. math:: C_{ku} = \sqrt{\frac{2 - \delta_{k0}}{n}} \cos \frac{(2u + 1) k \pi}{2n}

    References:
        Ahmed, Natarajan and Rao, "Discrete Cosine Transform", IEEE Transactions on Computers 1974.
    """
    frequency, position = torch.arange(size).double(), torch.arange(size).double()
    matrix = torch.cos((2 * position + 1) * frequency.unsqueeze(-1) * math.pi / (2 * size))
    matrix[0] /= math.sqrt(2)
    return (matrix * math.sqrt(2 / size)).float()


def block_dct(channels: int, side: int = SIDE) -> Float[Tensor, "channel pixel"]:
    """Return the lowest frequencies of the DCT of a colour block, as orthonormal rows.

    Columns are in the order of `blocks_of`: row, column, colour. Rows are sorted by the sum of
    both frequencies, those of chroma counting more.

    Args:
        channels: How many rows, at most ``3 * side ** 2``.
        side: Of the block.
    """
    colours = F.normalize(torch.tensor(COLOURS), dim=1)
    line = dct_matrix(side)
    plane = torch.einsum("ai,bj->abij", line, line)
    rows = torch.einsum("kc,abij->kabijc", colours, plane).reshape(-1, 3 * side * side)
    frequency = torch.arange(side)
    total = (frequency[:, None] + frequency).float()
    order = torch.stack([total, CHROMA_COUNTS * total + 0.5, CHROMA_COUNTS * total + 0.6])
    return rows[order.flatten().argsort(stable=True)[:channels]]


def random_orthonormal(channels: int, side: int = SIDE) -> Float[Tensor, "channel pixel"]:
    """Return as many random orthonormal rows."""
    return torch.linalg.qr(torch.randn(3 * side * side, 3 * side * side))[0][:channels]


def blocks_of(
    x: Float[Tensor, "batch colour height width"], side: int
) -> Float[Tensor, "batch channel row column"]:
    """Move space into channels: row, column, colour; for channels-last memory a mere copy."""
    batch, colour, height, width = x.shape
    grid = (batch, height // side, side, width // side, side, colour)
    parts = x.permute(0, 2, 3, 1).reshape(grid).permute(0, 1, 3, 2, 4, 5)
    return parts.reshape(batch, grid[1], grid[3], -1).permute(0, 3, 1, 2)


def picture_of(
    blocks: Float[Tensor, "batch channel row column"], side: int
) -> Float[Tensor, "batch colour height width"]:
    """Undo `blocks_of`."""
    batch, channel, rows, columns = blocks.shape
    shape = (batch, rows, columns, side, side, channel // side**2)
    parts = blocks.permute(0, 2, 3, 1).reshape(shape).permute(0, 1, 3, 2, 4, 5)
    return parts.reshape(batch, rows * side, columns * side, -1).permute(0, 3, 1, 2)


class Block(nn.Module):
    """A residual bottleneck: each position, its neighbourhood, each position.

    Args:
        width: Channels.
        inner: Channels of the bottleneck.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.narrow, self.look = Affine(width, inner), Affine(inner, inner, 3)
        self.widen = Affine(inner, width)

    def forward(self, x: Float[Tensor, "batch c height width"]) -> Tensor:
        """Apply it."""
        return x + self.widen(F.leaky_relu(self.look(F.leaky_relu(self.narrow(x)))))


class Branch(nn.Module):
    """A residual branch: in, blocks, out; small at first.

    Args:
        inputs: Channels.
        width: Channels inside.
        outputs: Channels.
        blocks: How many blocks.
    """

    def __init__(self, inputs: int, width: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.enter = Affine(inputs, width)
        self.blocks = nn.Sequential(*(Block(width, width // 2) for _ in range(blocks)))
        self.leave = shrunk(Affine(width, outputs, unit=torch.full((outputs,), BRANCH_UNIT)))

    def forward(self, x: Float[Tensor, "batch c height width"]) -> Tensor:
        """Apply it."""
        return self.leave(F.leaky_relu(self.blocks(self.enter(x))))


def beside(x: Float[Tensor, "batch c height width"], place: Float[Tensor, " batch"]) -> Tensor:
    """Return features with the rate's place as one more channel."""
    plane = place.view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
    return torch.cat([x, plane], 1)
