r"""The mean-scale hyperprior: strided convolutions with divisive normalisation, one hyper latent.

.. math:: p(y, z) = p(z) \prod_i \left(\mathcal N(\mu_i(z), \sigma_i^2(z)) \circledast
    U(-\tfrac12, \tfrac12)\right)(y_i)

The model that papers compare with, started at random as theirs are; the gains of a variable rate
are ours, and the networks of the prior are rectified affine maps of 3 x 3 neighbourhoods, which
this package can run in integers, in place of strided convolutions.

References:
    Ballé et al., "Variational Image Compression with a Scale Hyperprior", ICLR 2018
    (arXiv:1802.01436), for the hyperprior.
    Minnen, Ballé and Toderici, "Joint Autoregressive and Hierarchical Priors for Learned Image
    Compression", NeurIPS 2018 (arXiv:1809.02736), for the means.
    Ballé, Laparra and Simoncelli, "End-to-end Optimized Image Compression", ICLR 2017
    (arXiv:1611.01704), for the normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from domains.compression.config import Hyperprior, Rates
from domains.compression.model.base import TransformModel
from domains.compression.model.program import Network, Program, Step, predicting
from domains.compression.model.rates import Gain

STRIDE, HYPER_STRIDE = 16, 64


class GDN(nn.Module):
    r"""Generalised divisive normalisation over channels, or its approximate inverse.

    .. math:: y_i = \frac{x_i}{\sqrt{\beta_i + \sum_j \gamma_{ij} x_j^2}}

    Parameters are squares, so that both stay positive.

    References:
        Ballé, Laparra and Simoncelli, "End-to-end Optimized Image Compression", ICLR 2017, eq. 1.

    Args:
        channels: Of the features.
        inverse: Whether to multiply instead.
    """

    def __init__(self, channels: int, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        self.beta_root = nn.Parameter(torch.ones(channels))
        self.gamma_root = nn.Parameter((0.1 * torch.eye(channels) + 1e-3).sqrt())

    def forward(self, x: Float[Tensor, "batch c height width"]) -> Tensor:
        """Normalise the channels of each position."""
        beta, gamma = self.beta_root.square() + 1e-6, self.gamma_root.square()
        squares = F.linear(x.square().permute(0, 2, 3, 1), gamma, beta).permute(0, 3, 1, 2)
        return x * (squares.sqrt() if self.inverse else squares.rsqrt())


class HyperpriorCodec(TransformModel):
    """The mean-scale hyperprior at any rate.

    Args:
        options: Its settings.
        rates: The scale of rates.
    """

    def __init__(self, options: Hyperprior, rates: Rates) -> None:
        width, latent = options.channels, options.latent
        program = Program(
            (
                Step("z", width, HYPER_STRIDE),
                Step("h", width, STRIDE, reads=("z", "rate"), coded=False),
                Step("y", latent, STRIDE, reads=("h", "rate")),
            ),
            {
                "h": Network(width + 1, (width,), width, (3, 1), up=HYPER_STRIDE // STRIDE),
                "y": predicting(width + 1, (width,), latent),
            },
        )
        gains = {"y": Gain(torch.full((latent,), 2.0), rates), "z": Gain(torch.ones(width), rates)}
        super().__init__(rates, HYPER_STRIDE, program, gains)
        self.options = options
        self.analysis = nn.Sequential(
            _down(3, width), GDN(width), _down(width, width), GDN(width),
            _down(width, width), GDN(width), _down(width, latent),
        )  # fmt: skip
        self.synthesis = nn.Sequential(
            _up(latent, width), GDN(width, inverse=True), _up(width, width),
            GDN(width, inverse=True), _up(width, width), GDN(width, inverse=True), _up(width, 3),
        )  # fmt: skip
        self.hyper = nn.Sequential(
            nn.Conv2d(latent, width, 3, padding=1), nn.LeakyReLU(),
            _down(width, width), nn.LeakyReLU(), _down(width, width),
        )  # fmt: skip

    def analyse(
        self, pixels: Float[Tensor, "batch colour height width"], rate: Int64[Tensor, " batch"]
    ) -> dict[str, Tensor]:
        """Return the coefficients of the latent and of the hyper latent."""
        y = self.analysis(pixels - 0.5)
        return {"y": y, "z": self.hyper(y)}

    def coefficients(
        self, group: str, features: Mapping[str, Tensor], decoded: Mapping[str, Tensor]
    ) -> Tensor:
        """Return those of a group: both see the picture alone."""
        return features[group]

    def synthesise(
        self, decoded: Mapping[str, Tensor], rate: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch colour height width"]:
        """Return the picture that the latent stands for."""
        return self.synthesis(decoded["y"]) + 0.5


def _down(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 5, stride=2, padding=2)


def _up(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1)
