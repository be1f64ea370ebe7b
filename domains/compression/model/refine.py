r"""Better latents for the picture at hand: variational inference for it alone, when encoding.

The encoder's networks are amortised: they say in one go what latents of any picture should be.
Here the latents of all groups of one picture are parameters, and bits plus price times error is
minimised through the whole program, so that a group is chosen with what it does to the means
and the scales of those after it. A file does not say that it was made so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from core.runtime.order import derive
from core.runtime.progress import Progress
from core.variational.distributions import UniformConvolvedNormal
from core.variational.quantization import rate_bits, relaxed_choice, straight_through
from domains.compression.model.base import TransformModel
from domains.compression.model.program import LOG_STEP, SCALES, Step, scale_of
from domains.compression.model.rates import price

STEPS = {1: 40, 2: 150, 3: 500}  # of Adam, by effort
HOT, COLD = 1.0, 0.08  # temperatures at the first step and at the last
STEP_FINE, STEP_COARSE = 0.02, 0.01  # of Adam, in quantisation steps; coarse: without a network
CHECKS = 5

Latents = dict[str, Tensor]


def refine(
    model: TransformModel,
    pixels: Float[Tensor, "1 colour height width"],
    features: Mapping[str, Tensor],
    rate: int,
    effort: int,
    seed: int = 0,
) -> Latents:
    r"""Look for latents of a lower rate-distortion cost than those that the encoder says.

    .. math:: \min_y \; -\log_2 p(\hat y) + \lambda \cdot 255^2 \cdot H W \cdot
        \operatorname{MSE}(x, \hat x)

    by stochastic Gumbel annealing over all groups jointly: each step codes the picture with a
    relaxed choice between the two integers nearest to every residual :math:`y - m`, where the
    mean :math:`m` follows from the relaxed groups before. Now and then residuals are rounded as a
    file does it; the best that was met is returned, plain rounding included.

    References:
        Yang et al., "Improving Inference for Neural Image Compression", NeurIPS 2020, section 3.2
        (arXiv:2006.04240), here with fewer steps and a geometric fall of the temperature from 1:
        from the paper's ½ so few steps find less.

    Args:
        model: The model, which is not changed.
        pixels: What is coded, 0 to 1, padded to multiples of the stride.
        features: What `TransformModel.analyse` says of these pixels.
        rate: Rate index.
        effort: 0 for plain rounding, 1 to 3 for a longer and longer search.
        seed: Of the relaxation's own random numbers.

    Returns:
        The latents of each group in quantisation steps, of shape ``(1, channel, height, width)``.
        Each is a whole number of steps from its mean: rounding the residual once more, with means
        that are a little off, gives the same symbols.

    Raises:
        ValueError: If the effort is unknown.
    """
    if effort not in (0, *STEPS):
        raise ValueError(f"refine: effort {effort}; allowed are 0 to {max(STEPS)}")
    with torch.inference_mode(False), torch.enable_grad():
        own = {name: feature.detach().clone() for name, feature in features.items()}
        picture = _Picture(
            model, pixels.detach().clone(), own, torch.tensor([rate], device=pixels.device)
        )
        plain = _plain(picture)
        return plain.latents if effort == 0 else _anneal(picture, plain, STEPS[effort], seed)


@dataclass(frozen=True, eq=False)
class Trial:
    """A picture coded with some latents.

    Args:
        cost: Bits plus price times error, in bits.
        bits: What the latents cost.
        latents: In quantisation steps, as decoded.
        posterior: What they were rounded from.
    """

    cost: Tensor
    bits: Tensor
    latents: Latents
    posterior: Latents


Choose = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class _Picture:
    model: TransformModel
    pixels: Tensor
    features: Latents
    rate: Tensor

    def coded(self, choose: Choose, given: Latents | None = None) -> Trial:
        """Code it: with the latents given, or those of the encoder; choose rounds residuals."""
        bits = []
        decoded, latents, posterior = {}, {}, {}

        def code(step: Step, mean: Tensor, index: Tensor) -> Tensor:
            log_gain = self.model.log_gain(step.name, self.rate)
            gain = log_gain.exp()
            if given is None:
                y = self.model.coefficients(step.name, self.features, decoded) * gain
            else:
                y = given[step.name]
            mean, index = mean * gain, _table(index + log_gain / LOG_STEP)
            # With the smallest scale nothing is written: the decoder takes the mean.
            written = index > 0
            value = torch.where(written, mean + choose(y - mean), mean)
            prior = UniformConvolvedNormal(mean, scale_of(index), event_dims=0)
            bits.append(torch.where(written, rate_bits(prior, value), 0.0).sum())
            latents[step.name], posterior[step.name] = value, y
            decoded[step.name] = value / gain
            return decoded[step.name]

        height, width = self.pixels.shape[2:]
        self.model.program(height, width, self.rate, code)
        picture = self.model.synthesise(decoded, self.rate).clamp(0, 1)
        error = 255**2 * (picture - self.pixels).square().mean() * height * width
        total = torch.stack(bits).sum()
        cost = total + price(self.rate, self.model.rates)[0] * error
        return Trial(cost, total, latents, posterior)


def _table(index: Tensor) -> Tensor:
    """Return the table that an index asks for, with the gradient of the index."""
    return straight_through(index, index.round().clamp(0, SCALES - 1))


@torch.no_grad()
def _plain(picture: _Picture) -> Trial:
    return picture.coded(torch.round)


def _anneal(picture: _Picture, plain: Trial, steps: int, seed: int) -> Latents:
    parameters = {name: y.detach().clone().requires_grad_() for name, y in plain.posterior.items()}
    random = torch.Generator(picture.pixels.device).manual_seed(derive(seed, "refine"))
    optimizer = torch.optim.Adam(_rates_of_learning(picture.model, parameters))
    best = plain
    with Progress("refining", steps) as progress:
        for step in range(1, steps + 1):
            temperature = HOT * (COLD / HOT) ** (step / steps)
            choose = partial(relaxed_choice, temperature=temperature, generator=random)
            cost = picture.coded(choose, parameters).cost
            gradients = torch.autograd.grad(cost, list(parameters.values()))
            for parameter, gradient in zip(parameters.values(), gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            if step % max(1, steps // CHECKS) == 0 or step == steps:
                best = _better(picture, parameters, best)
            progress.show(step, {})
    return best.latents


@torch.no_grad()
def _better(picture: _Picture, parameters: Latents, best: Trial) -> Trial:
    trial = picture.coded(torch.round, parameters)
    return trial if trial.cost < best.cost else best


def _rates_of_learning(model: TransformModel, parameters: Latents) -> list[dict]:
    coarse = {step.name for step in model.program.groups if not step.reads}
    return [
        {"params": [y], "lr": STEP_COARSE if name in coarse else STEP_FINE}
        for name, y in parameters.items()
    ]
