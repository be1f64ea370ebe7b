"""Quantised latents: codebooks, rounding, their rate in bits and an entropy coder's tables."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from numpy import ndarray
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent

from core.variational.choices import check_choice
from core.variational.distributions.base import at_least_single
from core.variational.evidence import Latent

UPDATES = ("ema", "loss")
MODES = ("noise", "straight-through", "soft", "hard")


def straight_through(
    value: Float[Tensor, "*batch latent"], quantized: Float[Tensor, "*batch latent"]
) -> Float[Tensor, "*batch latent"]:
    r"""Return the quantised value, with the gradient of the identity.

    .. math:: \operatorname{sg}(e) + z - \operatorname{sg}(z)

    Written in this order the value is :math:`e` to the last bit; :math:`z + \operatorname{sg}(e -
    z)` rounds, and quantising twice would then differ from once.

    References:
        Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons", 2013
        (arXiv:1308.3432).
    """
    return quantized.detach() + (value - value.detach())


@dataclass(frozen=True, eq=False)
class Quantized:
    """What a codebook makes of a batch of vectors.

    Args:
        value: The codes' vectors, in the shape of what went in; gradients pass straight through.
        codes: The index of each vector's code, ``(batch, *positions)``; of a product quantiser
            ``(batch, *positions, groups)``.
        commitment: Weighted squared distance of the vectors to their codes, summed over an
            example, of shape ``(batch,)``: a penalty of the evidence that moves the encoder.
        codebook: The same that moves the codebook; 0 where the codebook is a moving average.
        perplexity: How many equally used codes the batch's use of them is worth, between 1 and
            their number; of a product quantiser for each group.
    """

    value: Tensor
    codes: Tensor
    commitment: Float[Tensor, " batch"]
    codebook: Float[Tensor, " batch"]
    perplexity: Tensor


class VectorQuantizer(nn.Module):
    r"""A codebook: each vector becomes its nearest code.

    .. math:: k = \arg\min_j \|z - e_j\|^2, \quad
        \text{codebook} = \|\operatorname{sg}(z) - e_k\|^2, \quad
        \text{commitment} = \beta \|z - \operatorname{sg}(e_k)\|^2

    With ``update="ema"`` the codebook is no parameter but a running k-means, moved after each
    training forward with the vectors :math:`z_i` that chose the code in that batch,

    .. math:: N_j \leftarrow \gamma N_j + (1 - \gamma) n_j, \quad
        m_j \leftarrow \gamma m_j + (1 - \gamma) \sum_{i : k_i = j} z_i, \quad
        e_j = m_j / \hat N_j, \quad
        \hat N_j = \frac{N_j + \epsilon}{\sum_l N_l + K \epsilon} \sum_l N_l

    (Laplace smoothing), starting from :math:`N_j = 1` and :math:`m_j = e_j`. A code whose
    :math:`N_j` falls below ``dead_below`` is put on a random vector of the batch.

    Several processes each see their own batch only: the moving average is that of the first.

    References:
        van den Oord et al., "Neural Discrete Representation Learning", NeurIPS 2017, eq. 3 and
        appendix A.1 (arXiv:1711.00937).
        Dhariwal et al., "Jukebox", 2020, section 3.1, for the restarts (arXiv:2005.00341).

    Args:
        codes: How many codes :math:`K` there are.
        dimensions: Dimensions of a vector.
        commitment: Weight :math:`\beta` of the commitment.
        update: ``"ema"`` for the running k-means, ``"loss"`` for gradients.
        decay: :math:`\gamma`, also of the counts that find dead codes.
        smoothing: :math:`\epsilon`, in vectors.
        dead_below: Running count, in vectors a batch, below which a code is dead; 0 for never.

    Raises:
        ValueError: If a setting is out of range, or vectors have other dimensions.

    Example:
        >>> quantizer = VectorQuantizer(8, 2, 0.25, "ema", 0.99, 1e-5, 0.0)
        >>> quantizer(torch.randn(4, 3, 2)).codes.shape
        torch.Size([4, 3])
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(
        self,
        codes: int,
        dimensions: int,
        commitment: float,
        update: str,
        decay: float,
        smoothing: float,
        dead_below: float,
    ) -> None:
        super().__init__()
        if codes < 1 or dimensions < 1:
            raise ValueError(
                f"VectorQuantizer: codes={codes}, dimensions={dimensions}; both must be at least 1"
            )
        if not (commitment >= 0 and 0 <= decay < 1 and smoothing >= 0 and dead_below >= 0):
            raise ValueError(
                f"VectorQuantizer: commitment={commitment}, decay={decay}, smoothing={smoothing}, "
                f"dead_below={dead_below}; decay must be in [0, 1), the others at least 0"
            )
        check_choice("VectorQuantizer: update", update, UPDATES)
        self.commitment = commitment
        self.decay = decay
        self.smoothing = smoothing
        self.dead_below = dead_below
        start = torch.empty(codes, dimensions).uniform_(-1 / codes, 1 / codes)
        self.register_buffer("counts", torch.ones(codes))
        if update == "loss":
            self.codebook = nn.Parameter(start)
        else:
            self.register_buffer("codebook", start)
            self.register_buffer("sums", start.clone())
        self.learned = update == "loss"

    def forward(self, vectors: Float[Tensor, "batch *positions dimension"]) -> Quantized:
        """Quantise vectors; in training move the codebook after."""
        vectors = at_least_single(vectors)
        codes = self.nearest(vectors)
        chosen = self.codebook[codes]
        commitment = self.commitment * _per_example(vectors - chosen.detach())
        codebook = _per_example(chosen - vectors.detach()) if self.learned else commitment * 0
        quantized = straight_through(vectors, chosen)
        use = perplexity(codes, len(self.codebook))
        if self.training and codes.numel():
            self._move(vectors.detach().flatten(0, -2), codes.flatten())
        return Quantized(quantized, codes, commitment, codebook, use)

    @torch.no_grad()
    def nearest(
        self, vectors: Float[Tensor, "batch *positions dimension"]
    ) -> Int64[Tensor, "batch ..."]:
        """Return the index of each vector's nearest code."""
        if vectors.shape[-1] != self.codebook.shape[1]:
            raise ValueError(
                f"VectorQuantizer: vectors of {vectors.shape[-1]} dimensions; the codes have "
                f"{self.codebook.shape[1]}"
            )
        # The square of the vector is the same for all codes and left out.
        distances = self.codebook.square().sum(-1) - 2 * vectors @ self.codebook.T
        return distances.argmin(-1)

    @torch.no_grad()
    def _move(self, vectors: Tensor, codes: Tensor) -> None:
        chosen = torch.bincount(codes, minlength=len(self.codebook)).to(self.counts)
        self.counts.lerp_(chosen, 1 - self.decay)
        if not self.learned:
            sums = torch.zeros_like(self.sums).index_add_(0, codes, vectors.to(self.sums))
            self.sums.lerp_(sums, 1 - self.decay)
            counts = self._smoothed_counts().unsqueeze(-1)
            # Without memory or smoothing a code that nobody chose has no mean, and stays.
            self.codebook.copy_(torch.where(counts > 0, self.sums / counts, self.codebook))
        if self.dead_below:
            self._restart(vectors)

    def _smoothed_counts(self) -> Tensor:
        total = self.counts.sum()
        smoothed = self.counts + self.smoothing
        return smoothed / (total + len(self.counts) * self.smoothing) * total

    def _restart(self, vectors: Tensor) -> None:
        dead = torch.nonzero(self.counts < self.dead_below).flatten()
        chosen = torch.randperm(len(vectors), device=vectors.device)[: len(dead)]
        dead = dead[: len(chosen)]
        self.codebook[dead] = vectors[chosen].to(self.codebook)
        self.counts[dead] = max(1.0, self.dead_below)
        if not self.learned:
            self.sums[dead] = self.codebook[dead] * self.counts[dead].unsqueeze(-1)


class ProductQuantizer(nn.Module):
    r"""Several codebooks, each for its own group of a vector's dimensions.

    .. math:: Q(z) = (Q_1(z_{1 \dots d/G}), \dots, Q_G(z_{d - d/G \dots d}))

    :math:`K` codes a group name :math:`K^G` points for the storage of :math:`G K` vectors.

    References:
        Jégou et al., "Product Quantization for Nearest Neighbor Search", PAMI 2011, section II.

    Args:
        groups: Number of groups :math:`G`.
        codes: Codes of each group.
        dimensions: Dimensions of a whole vector, a multiple of ``groups``.
        commitment: See `VectorQuantizer`, as the rest.
        update: ``"ema"`` or ``"loss"``.
        decay: Decay of the moving averages.
        smoothing: Laplace smoothing, in vectors.
        dead_below: Running count below which a code is dead.

    Raises:
        ValueError: If the groups do not divide the dimensions.

    Example:
        >>> quantizer = ProductQuantizer(2, 8, 4, 0.25, "ema", 0.99, 1e-5, 0.0)
        >>> quantizer(torch.randn(5, 4)).codes.shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        groups: int,
        codes: int,
        dimensions: int,
        commitment: float,
        update: str,
        decay: float,
        smoothing: float,
        dead_below: float,
    ) -> None:
        super().__init__()
        if groups < 1 or dimensions % groups:
            raise ValueError(
                f"ProductQuantizer: {dimensions} dimensions in {groups} groups; the groups must "
                "divide the dimensions"
            )
        size = dimensions // groups
        self.quantizers = nn.ModuleList(
            VectorQuantizer(codes, size, commitment, update, decay, smoothing, dead_below)
            for _ in range(groups)
        )

    def forward(self, vectors: Float[Tensor, "batch *positions dimension"]) -> Quantized:
        """Quantise each group of dimensions by its own codebook."""
        parts = vectors.chunk(len(self.quantizers), dim=-1)
        each = [quantize(part) for quantize, part in zip(self.quantizers, parts, strict=True)]
        return Quantized(
            torch.cat([one.value for one in each], -1),
            torch.stack([one.codes for one in each], -1),
            torch.stack([one.commitment for one in each]).sum(0),
            torch.stack([one.codebook for one in each]).sum(0),
            torch.stack([one.perplexity for one in each]),
        )


def perplexity(codes: Int[Tensor, "*batch"], number: int) -> Float[Tensor, ""]:
    r"""Return how many equally used codes the use of these is worth.

    .. math:: \exp \left(-\sum_k f_k \log f_k\right)

    with the frequencies :math:`f_k` of the codes given.

    Example:
        >>> perplexity(torch.tensor([0, 1, 2, 3]), 8)
        tensor(4.)
    """
    frequencies = torch.bincount(codes.flatten(), minlength=number).float()
    frequencies = frequencies / frequencies.sum().clamp(min=1)
    return torch.special.entr(frequencies).sum().exp()


def code_latent(name: str, codes: Int[Tensor, "batch ..."], number: int) -> Latent:
    r"""Return codes as a latent group: a certain posterior against a uniform prior.

    .. math:: q(k \mid x) = \mathbb 1[k = k(x)], \quad p(k) = 1/K, \quad
        KL = \log K \text{ nats a code}

    The KL is a constant: it belongs into the reported bound and has no gradient. Another prior
    over the codes gives :math:`-\log p(k)`, the rate of an entropy coder with that prior.

    References:
        van den Oord et al., "Neural Discrete Representation Learning", NeurIPS 2017, section 3.1
        (arXiv:1711.00937).

    Args:
        name: The group's name in tables.
        codes: Index of each code; what an example holds is one event.
        number: How many codes there are.

    Example:
        >>> code_latent("code", torch.tensor([[0, 3]]), 4).kl()
        tensor([[2.7726]])
    """
    codes = codes.unsqueeze(-1) if codes.dim() == 1 else codes
    certain = torch.nn.functional.one_hot(codes, number).float().log()
    events = codes.dim() - 1
    posterior = Categorical(logits=certain, validate_args=False)
    prior = Categorical(logits=torch.zeros_like(certain), validate_args=False)
    return Latent(
        name,
        codes.unsqueeze(0),
        Independent(posterior, events, validate_args=False),
        Independent(prior, events, validate_args=False),
    )


class RoundingQuantizer(nn.Module):
    r"""Rounding to the integers, counted from a mean; in training by a stand-in with a gradient.

    .. math:: \hat z = \operatorname{round}(z - m) + m

    In evaluation it is this. In training

    * ``"noise"``: :math:`z + u` with :math:`u \sim U(-\tfrac12, \tfrac12)`, for which a prior
      convolved with that uniform gives an exact rate in expectation;
    * ``"straight-through"``: the rounded value with the gradient of the identity to :math:`z`;
    * ``"soft"``: soft rounding before the noise and its conditional mean after, from noise (a low
      sharpness) to rounding (a high one);
    * ``"hard"``: the rounded value; no gradient to :math:`z`.

    References:
        Ballé et al., "End-to-end Optimized Image Compression", ICLR 2017 (arXiv:1611.01704), for
        the noise.
        Theis et al., "Lossy Image Compression with Compressive Autoencoders", ICLR 2017, section
        2.1 (arXiv:1703.00395), for straight-through.
        Agustsson and Theis, "Universally Quantized Neural Compression", NeurIPS 2020
        (arXiv:2006.09952), for soft rounding.

    Args:
        mode: The stand-in.

    Example:
        >>> RoundingQuantizer("hard")(torch.tensor([0.4, 1.6]), torch.tensor([0.25, 0.25]))
        tensor([0.2500, 1.2500])
    """

    def __init__(self, mode: str) -> None:
        super().__init__()
        check_choice("RoundingQuantizer: mode", mode, MODES)
        self.mode = mode

    def forward(
        self, value: Tensor, mean: Tensor | None = None, sharpness: float | None = None
    ) -> Tensor:
        """Quantise values.

        Args:
            value: What to quantise, in units of a quantisation step.
            mean: What the integers are counted from; 0 if not given.
            sharpness: Of soft rounding; the caller raises it as the training goes on.

        Raises:
            ValueError: If the mode is soft and there is no positive sharpness.
        """
        mean = torch.zeros_like(value) if mean is None else mean
        residual = value - mean
        if not self.training or self.mode == "hard":
            return torch.round(residual) + mean
        if self.mode == "noise":
            return value + uniform_noise(value)
        if self.mode == "straight-through":
            return straight_through(value, torch.round(residual) + mean)
        if sharpness is None:
            raise ValueError("RoundingQuantizer: mode 'soft' needs a sharpness")
        noisy = soft_round(residual, sharpness) + uniform_noise(value)
        return soft_round_conditional_mean(noisy, sharpness) + mean


def uniform_noise(like: Tensor) -> Tensor:
    """Draw from the uniform distribution between -1/2 and 1/2, in the shape given."""
    return torch.rand_like(like) - 0.5


def soft_round(value: Tensor, sharpness: float) -> Tensor:
    r"""Round softly: the identity at sharpness 0, rounding at infinity.

    .. math:: s_\alpha(y) = \lfloor y \rfloor + \tfrac12
        + \frac{\tanh(\alpha r)}{2 \tanh(\alpha / 2)}, \quad r = y - \lfloor y \rfloor - \tfrac12

    References:
        Agustsson and Theis, "Universally Quantized Neural Compression", NeurIPS 2020
        (arXiv:2006.09952).

    Args:
        value: What to round.
        sharpness: :math:`\alpha > 0`.

    Raises:
        ValueError: If the sharpness is not positive.

    Example:
        >>> soft_round(torch.tensor([0.9, 1.0]), 50.0)
        tensor([1., 1.])
    """
    _check_sharpness(sharpness)
    floor = torch.floor(value)
    offset = value - floor - 0.5
    return floor + 0.5 + torch.tanh(sharpness * offset) / (2 * math.tanh(sharpness / 2))


def soft_round_inverse(value: Tensor, sharpness: float) -> Tensor:
    r"""Undo `soft_round`.

    .. math:: s_\alpha^{-1}(y) = \lfloor y \rfloor + \tfrac12
        + \frac1\alpha \operatorname{artanh}(2 \tanh(\alpha / 2)\,
        (y - \lfloor y \rfloor - \tfrac12))

    Args:
        value: A softly rounded value.
        sharpness: :math:`\alpha > 0`.

    Raises:
        ValueError: If the sharpness is not positive.
    """
    _check_sharpness(sharpness)
    floor = torch.floor(value)
    scaled = 2 * math.tanh(sharpness / 2) * (value - floor - 0.5)
    limit = 1 - torch.finfo(value.dtype).eps  # tanh of a high sharpness is 1: artanh is infinite
    # Beyond the integers' own half-widths only rounding errors lie.
    offset = (torch.atanh(scaled.clamp(-limit, limit)) / sharpness).clamp(-0.5, 0.5)
    return floor + 0.5 + offset


def soft_round_conditional_mean(value: Tensor, sharpness: float) -> Tensor:
    r"""Return what to expect before soft rounding and uniform noise, given the value after.

    .. math:: \mathbb E[y \mid s_\alpha(y) + u] = s_\alpha^{-1}(s_\alpha(y) + u - \tfrac12)
        + \tfrac12

    for a locally constant density of :math:`y`.

    References:
        Agustsson and Theis, "Universally Quantized Neural Compression", NeurIPS 2020
        (arXiv:2006.09952).

    Args:
        value: A softly rounded value with noise.
        sharpness: :math:`\alpha > 0`.

    Raises:
        ValueError: If the sharpness is not positive.
    """
    return soft_round_inverse(value - 0.5, sharpness) + 0.5


@dataclass(frozen=True, eq=False)
class Refined:
    """Rounded latents that a refinement has found.

    Args:
        latents: Integers, counted from the mean.
        loss: Their loss for each example, at most ``rounding_loss``.
        rounding_loss: The loss of plain rounding for each example.
    """

    latents: Tensor
    loss: Float[Tensor, " batch"]
    rounding_loss: Float[Tensor, " batch"]


def refine_latents(
    loss: Callable[[Tensor], Tensor],
    latents: Float[Tensor, "batch ..."],
    mean: Tensor | None = None,
    steps: int = 2000,
    learning_rate: float = 5e-3,
    checks: int = 20,
    seed: int = 0,
) -> Refined:
    r"""Look for better integers than the nearest ones, by stochastic Gumbel annealing.

    The latents :math:`\mu` are optimised by Adam on draws of a relaxed choice between the two
    nearest integers,

    .. math:: \pi \propto \left(e^{-\operatorname{artanh}(\mu - \lfloor \mu \rfloor) / \tau},
        e^{-\operatorname{artanh}(\lceil \mu \rceil - \mu) / \tau}\right), \quad
        \tau_t = \min(\tfrac12, e^{-(t - t_0) / 1000})

    whose temperature falls as the steps go on; in the paper's 2000 steps :math:`t_0 = 700`, and
    with another number time is stretched. A few times on the way and at the end the latents are
    rounded, and each example keeps the best that was met, plain rounding included: the result is
    never worse than that.

    References:
        Yang et al., "Improving Inference for Neural Image Compression", NeurIPS 2020, section 3.2
        (arXiv:2006.04240).

    Args:
        loss: Of latents, the loss of each example (rate and weighted distortion), of shape
            ``(batch,)``. Its own parameters get no gradient that stays.
        latents: Where to start, unrounded, in units of a quantisation step.
        mean: What the integers are counted from; 0 if not given.
        steps: Steps of Adam.
        learning_rate: Of Adam, in quantisation steps.
        checks: How many times the rounded latents are looked at.
        seed: Seed of the relaxation's own random numbers.

    Raises:
        ValueError: If there are no steps or checks, or the loss is not of shape ``(batch,)``.
    """
    if steps < 1 or checks < 1:
        raise ValueError(f"refine_latents: steps={steps}, checks={checks}; both must be >= 1")
    mean = torch.zeros_like(latents) if mean is None else mean.detach().expand_as(latents)
    generator = torch.Generator(latents.device).manual_seed(seed)
    residual = (latents.detach() - mean).clone().requires_grad_()
    best, rounding_loss = _rounded(loss, residual, mean)
    lowest, optimizer = rounding_loss, torch.optim.Adam([residual], lr=learning_rate)
    interval = max(1, steps // checks)
    for step in range(1, steps + 1):
        relaxed = relaxed_choice(residual, _sga_temperature(2000 * step / steps), generator)
        (residual.grad,) = torch.autograd.grad(loss(relaxed + mean).sum(), residual)
        optimizer.step()
        if step % interval == 0 or step == steps:
            candidate, cost = _rounded(loss, residual, mean)
            better = (cost < lowest).view(-1, *[1] * (latents.dim() - 1))
            best, lowest = torch.where(better, candidate, best), torch.minimum(cost, lowest)
    return Refined(best, lowest, rounding_loss)


def relaxed_choice(value: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    r"""Draw a relaxed choice between the two nearest integers: one of them when it is cold.

    .. math:: \lfloor \mu \rfloor + \operatorname{sigmoid}\left(\frac{1}{\tau} \left(
        \frac{\operatorname{artanh} u - \operatorname{artanh}(1 - u)}{\tau} + L \right)\right),
        \quad u = \mu - \lfloor \mu \rfloor

    with logistic noise :math:`L`, the difference of the Gumbel noises of the two.

    References:
        Yang et al., "Improving Inference for Neural Image Compression", NeurIPS 2020, section 3.2
        (arXiv:2006.04240).

    Args:
        value: What to round, :math:`\mu`.
        temperature: :math:`\tau > 0`, of the choice and of its relaxation alike.
        generator: Where the noise is drawn from, on a device of its own.

    Example:
        >>> cold = relaxed_choice(torch.tensor([0.9, -1.8]), 1e-3, torch.Generator())
        >>> cold.round(decimals=3)
        tensor([ 1., -2.])
    """
    floor = torch.floor(value)
    up = (value - floor).clamp(1e-5, 1 - 1e-5)  # artanh is infinite at 1
    logit = 0.5 * torch.log(up * (1 + up) / ((1 - up) * (2 - up)))
    uniform = torch.rand(
        value.shape, generator=generator, dtype=value.dtype, device=generator.device
    )
    noise = torch.logit(uniform, eps=1e-7).to(value)
    return floor + torch.sigmoid((logit / temperature + noise) / temperature)


def rate_bits(prior: Distribution, value: Tensor) -> Tensor:
    r"""Return the code length of quantised values under a prior, in bits.

    .. math:: -\log_2 P(\hat z), \quad P(\hat z) = \int_{\hat z - 1/2}^{\hat z + 1/2} p(t) dt

    Args:
        prior: A distribution whose ``log_prob`` is the log mass of the unit interval around a
            value, in nats: a density convolved with the unit uniform, or a discretised one.
        value: Quantised values, with leading sample dimensions at will.

    Returns:
        Bits, summed over the prior's event, of shape ``(*samples, *batch)``.

    Example:
        >>> rate_bits(Categorical(torch.full((4,), 0.25)), torch.tensor([0, 3]))
        tensor([2., 2.])
    """
    return -prior.log_prob(value) / math.log(2)


def grid_masses(prior: Distribution, low: int, high: int, mean: Tensor | float = 0.0) -> Tensor:
    r"""Return the masses of the integers around a mean, and last that of all others.

    Args:
        prior: As in `rate_bits`, with no event dimensions: one element, one symbol.
        low: The smallest integer with a symbol of its own.
        high: The largest.
        mean: What the integers are counted from.

    Returns:
        Masses in float64 of shape ``(*batch, high - low + 2)``; the last symbol is an escape for
        what lies outside.

    Raises:
        ValueError: If the prior has an event, or the grid is empty.
    """
    if prior.event_shape or low > high:
        raise ValueError(
            f"grid_masses: event shape {tuple(prior.event_shape)}, integers {low} to {high}; the "
            "prior must be element by element (event_dims=0) and the grid not empty"
        )
    integers = torch.arange(low, high + 1).view(-1, *[1] * len(prior.batch_shape))
    masses = prior.log_prob(mean + integers).double().exp().movedim(0, -1)
    rest = (1 - masses.sum(-1, keepdim=True)).clamp(min=0)
    return torch.cat([masses, rest], -1)


@dataclass(frozen=True, eq=False)
class FrequencyTable:
    """Integer frequencies for an entropy coder.

    Args:
        frequencies: Of each symbol, at least 1, with the sum ``2**precision`` in each row.
        precision: Of the coder, in bits.
        cross_entropy_bits: Mean code length under the masses, in bits a symbol.
        entropy_bits: The ideal one: the entropy of the masses.
    """

    frequencies: Int64[ndarray, "*batch symbol"]
    precision: int
    cross_entropy_bits: Float[ndarray, "*batch"]
    entropy_bits: Float[ndarray, "*batch"]

    @property
    def overhead_bits(self) -> Float[ndarray, "*batch"]:
        """What whole frequencies cost, in bits a symbol."""
        return np.asarray(self.cross_entropy_bits - self.entropy_bits)

    def code_length_bits(self) -> Float[ndarray, "*batch symbol"]:
        """Return the code length of each symbol, in bits."""
        return self.precision - np.log2(self.frequencies)


def frequency_table(masses: Tensor, precision: int) -> FrequencyTable:
    r"""Return the integer frequencies that code symbols of these masses in the fewest bits.

    .. math:: \min_f \sum_s P_s \log_2 \frac{2^b}{f_s}, \quad f_s \ge 1, \quad \sum_s f_s = 2^b

    The cost is a sum of convex functions, one a symbol, so that taking and giving single counts
    until no exchange gains ends at the optimum.

    Args:
        masses: Of each symbol :math:`P_s`, of shape ``(*batch, symbol)``.
        precision: :math:`b` in bits.

    Raises:
        ValueError: If a mass is negative or not finite, masses do not sum to 1 within 1e-6, or
            there are more symbols than frequencies.

    Example:
        >>> frequency_table(torch.tensor([0.5, 0.5, 0.0]), 4).frequencies
        array([8, 7, 1])
    """
    rows = masses.detach().double().cpu().numpy()
    if rows.shape[-1] > 2**precision:
        raise ValueError(
            f"frequency_table: {rows.shape[-1]} symbols and precision {precision}; allowed are "
            f"{2**precision} symbols, raise the precision"
        )
    error = np.abs(rows.sum(-1) - 1).max(initial=0.0)
    if not (rows >= 0).all() or not error <= 1e-6:
        raise ValueError(
            f"frequency_table: masses from {rows.min():.3g}, sums off 1 by up to {error:.3g}; "
            "allowed are masses of at least 0 with a sum of 1 within 1e-6"
        )
    flat = rows.reshape(-1, rows.shape[-1])
    frequencies = np.stack([_best_frequencies(row, 2**precision) for row in flat])
    frequencies = frequencies.reshape(rows.shape)
    lengths = precision - np.log2(frequencies)
    ideal = -np.log2(np.where(rows > 0, rows, 1.0))
    cross_entropy, entropy = (np.asarray((rows * bits).sum(-1)) for bits in (lengths, ideal))
    return FrequencyTable(frequencies, precision, cross_entropy, entropy)


def _best_frequencies(masses: ndarray, total: int) -> ndarray:
    frequencies = np.floor(_real_frequencies(masses, total)).astype(np.int64)
    missing = total - int(frequencies.sum())
    for _ in range(missing):
        frequencies[np.argmax(_gains(masses, frequencies))] += 1
    while True:
        gains, losses = _gains(masses, frequencies), _losses(masses, frequencies)
        best, cheapest = int(np.argmax(gains)), int(np.argmin(losses))
        if gains[best] <= losses[cheapest] + 1e-15:
            return frequencies
        frequencies[best] += 1
        frequencies[cheapest] -= 1


def _real_frequencies(masses: ndarray, total: int) -> ndarray:
    """Return the optimum among real frequencies of at least 1: close to that among integers."""
    masses = masses / masses.sum()
    small = masses * total < 1
    while True:
        left = total - small.sum()
        scale = left / masses[~small].sum() if left else 0.0
        more = masses * scale < 1
        if not (more & ~small).any():
            return np.where(small, 1.0, masses * scale)
        small |= more


def _gains(masses: ndarray, frequencies: ndarray) -> ndarray:
    """Return the nats that one more count of each symbol saves."""
    return masses * np.log1p(1 / frequencies)


def _losses(masses: ndarray, frequencies: ndarray) -> ndarray:
    """Return the nats that one count less of each symbol costs; never below one count."""
    left = np.maximum(frequencies - 1, 1)
    return np.where(frequencies > 1, masses * np.log(frequencies / left), np.inf)


def _rounded(
    loss: Callable[[Tensor], Tensor], residual: Tensor, mean: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the rounded latents and their loss, of shape ``(batch,)``."""
    with torch.no_grad():
        latents = torch.round(residual) + mean
        cost = loss(latents)
    if cost.shape != latents.shape[:1]:
        raise ValueError(
            f"refine_latents: a loss of shape {tuple(cost.shape)} for latents of shape "
            f"{tuple(latents.shape)}; it must be one number for each example"
        )
    return latents, cost


def _sga_temperature(step: float) -> float:
    return min(0.5, math.exp(-(step - 700) / 1000))


def _per_example(difference: Tensor) -> Tensor:
    return difference.square().flatten(1).sum(1)


def _check_sharpness(sharpness: float) -> None:
    if not sharpness > 0:
        raise ValueError(f"soft_round: sharpness {sharpness!r} is not positive")
