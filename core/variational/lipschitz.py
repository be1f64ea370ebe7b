"""A decoder that keeps latents apart: inverse Lipschitz by construction, against collapse."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class BrenierMap(nn.Module):
    r"""The gradient of a strongly convex network: a map that never brings points closer than L.

    .. math:: f(z) = \nabla \psi(z), \quad
        \psi(z) = w^T h_n(z) + \tfrac L2 \|z\|^2 + b^T z, \quad
        h_{l + 1} = s(W_l h_l + A_l z + b_l)

    with :math:`W_l, w \ge 0` and :math:`s` the softplus, convex and rising: :math:`\psi` is convex
    in :math:`z` beyond its quadratic term, so that

    .. math:: (f(z) - f(z'))^T (z - z') \ge L \|z - z'\|^2
        \quad \Rightarrow \quad \|f(z) - f(z')\| \ge L \|z - z'\| .

    The gradient is written out, as a pass forward and one back: no differentiation inside, and it
    works without gradients.

    References:
        Kinoshita et al., "Controlling Posterior Collapse by an Inverse Lipschitz Constraint on the
        Decoder Network", ICML 2023, section 4 (arXiv:2304.12770).
        Wang, Blei and Cunningham, "Posterior Collapse and Latent Variable Non-identifiability",
        NeurIPS 2021, for Brenier maps in a decoder (arXiv:2301.00537).
        Amos, Xu and Kolter, "Input Convex Neural Networks", ICML 2017, eq. 2 (arXiv:1609.07152).

    Args:
        dimensions: Of the input and the output.
        hidden: Units of each hidden layer.
        layers: Hidden layers :math:`n`.
        constant: :math:`L`; with 0 the map is monotone, and nothing more is promised.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> brenier = BrenierMap(2, 8, 2, 1.5)
        >>> z = torch.randn(5, 2)
        >>> bool((torch.pdist(brenier(z)) >= 1.5 * torch.pdist(z)).all())
        True
    """

    def __init__(self, dimensions: int, hidden: int, layers: int, constant: float) -> None:
        super().__init__()
        if min(dimensions, hidden, layers) < 1 or not 0 <= constant < math.inf:
            raise ValueError(
                f"BrenierMap: dimensions={dimensions}, hidden={hidden}, layers={layers}, "
                f"constant={constant}; the first three must be at least 1, the last finite and at "
                "least 0"
            )
        self.constant = constant
        self.inputs = nn.ModuleList(nn.Linear(dimensions, hidden) for _ in range(layers))
        # Softplus of these are the weights: about 1 / hidden, so that a layer averages the last.
        start = math.log(math.expm1(1 / hidden))
        self.hidden = nn.ParameterList(
            start + 0.1 * torch.randn(hidden, hidden) for _ in range(layers - 1)
        )
        self.last = nn.Parameter(torch.full((hidden,), math.log(math.expm1(1.0))))
        self.bias = nn.Parameter(torch.zeros(dimensions))

    def forward(self, z: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch latent"]:
        """Map points one by one."""
        slopes = []
        activations = [layer(z) for layer in self.inputs]
        hidden = functional.softplus(activations[0])
        slopes.append(activations[0].sigmoid())
        for weight, activation in zip(self.hidden, activations[1:], strict=True):
            total = functional.linear(hidden, functional.softplus(weight), activation)
            hidden = functional.softplus(total)
            slopes.append(total.sigmoid())
        return self._gradient(z, slopes)

    def _weight(self, layer: int) -> Tensor:
        weight = self.inputs[layer].weight
        assert isinstance(weight, Tensor)
        return weight

    def _gradient(self, z: Tensor, slopes: list[Tensor]) -> Tensor:
        gradient = self.constant * z + self.bias
        back = functional.softplus(self.last)
        for layer in reversed(range(len(slopes))):
            back = back * slopes[layer]
            gradient = gradient + functional.linear(back, self._weight(layer).T)
            if layer:
                back = back @ functional.softplus(self.hidden[layer - 1])
        return gradient


class InverseLipschitzDecoder(nn.Module):
    r"""A decoder that is L-inverse Lipschitz: what differs in latents differs in data.

    .. math:: f(z) = f_2(B f_1(z)), \quad B^T B = I, \quad
        \|f(z) - f(z')\| \ge L \|z - z'\|

    A `BrenierMap` of the latents, a semi-orthogonal lift to the dimension of the data, and a
    Brenier map there, with :math:`\sqrt L` each. Its output is the mean of real data or the logits
    of binary data; what comes after it must be inverse Lipschitz too for the guarantee to hold.
    The posterior's distance from the prior, as a relative Fisher information, then has a lower
    bound that grows as :math:`L^2`: the constant sets how far from collapse the model stays.

    References:
        Kinoshita et al., "Controlling Posterior Collapse by an Inverse Lipschitz Constraint on the
        Decoder Network", ICML 2023, sections 3 and 4 (arXiv:2304.12770).

    Args:
        latent: Latent dimensions.
        outputs: Data dimensions, at least as many.
        hidden: Units of each hidden layer of the two convex networks.
        layers: Hidden layers of each.
        constant: :math:`L`; 0 for no more than monotone maps.

    Raises:
        ValueError: If there are fewer outputs than latents, or a number is out of range.

    Example:
        >>> InverseLipschitzDecoder(2, 6, 8, 1, 0.5)(torch.randn(3, 2)).shape
        torch.Size([3, 6])
    """

    def __init__(
        self, latent: int, outputs: int, hidden: int, layers: int, constant: float
    ) -> None:
        super().__init__()
        if outputs < latent:
            raise ValueError(
                f"InverseLipschitzDecoder: {outputs} outputs of {latent} latents; a map to fewer "
                "dimensions cannot keep points apart"
            )
        self.constant = constant
        self.inner = BrenierMap(latent, hidden, layers, math.sqrt(constant))
        self.columns = nn.Parameter(torch.randn(outputs, latent))
        self.outer = BrenierMap(outputs, hidden, layers, math.sqrt(constant))

    def forward(self, z: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch output"]:
        """Decode latents."""
        return self.outer(self.inner(z) @ self.lift().T)

    def lift(self) -> Float[Tensor, "output latent"]:
        """Return the semi-orthogonal matrix, the Q of the columns' QR decomposition.

        Not torch's parametrisation: it keeps signs in the diagonal of its parameter, so that
        weight decay would make it zero.
        """
        return torch.linalg.qr(self.columns).Q


def smallest_stretch(
    before: Float[Tensor, "point latent"],
    after: Float[Tensor, "point output"],
    others_before: Float[Tensor, "point latent"],
    others_after: Float[Tensor, "point output"],
) -> Float[Tensor, ""]:
    r"""Return how much a map keeps apart the pair that it brings closest, of those given.

    .. math:: \min_i \frac{\|f(z_i) - f(z_i')\|}{\|z_i - z_i'\|}

    An upper bound on a map's inverse Lipschitz constant: of any decoder, this one or another.
    Pairs of equal points are left out.

    Args:
        before: Points :math:`z_i`.
        after: Their images.
        others_before: Points :math:`z_i'`.
        others_after: Their images.

    Example:
        >>> z = torch.tensor([[0.0], [1.0]])
        >>> smallest_stretch(z, 3 * z, z + 1, 3 * z + 3)
        tensor(3.)
    """
    distance = torch.linalg.vector_norm(before - others_before, dim=-1)
    stretched = torch.linalg.vector_norm(after - others_after, dim=-1)
    return (stretched / distance)[distance > 0].min()
