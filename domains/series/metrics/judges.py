r"""TimeGAN's scores: whether a judge tells generated windows from real ones, and learns from them.

The protocol is that of the field's tables. What it hides is said here, and is why every score
stands beside its floor: an accuracy is never exactly one half, so :math:`|a - 1/2|` is above 0 for
a perfect copy too; the judge's two or three units make the score depend on its seed; windows are
tested on that overlap with those trained on, and copying the training data wins.

References:
    Yoon, Jarrett and van der Schaar, "Time-series Generative Adversarial Networks", NeurIPS 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from core.runtime.order import generator
from core.variational.threads import one_thread
from domains.series.metrics.judging import Judges, distinct, gather

Array = NDArray[np.floating]
Places = NDArray[np.int64]
Generators = list[np.random.Generator]

BATCH = 128
DISCRIMINATIVE_STEPS, PREDICTIVE_STEPS = 2000, 5000
TRAIN_SHARE = 0.8
ONE_CHANNEL_HIDDEN = 16  # where half a unit would be left
TOGETHER = 8  # judges trained at once: more do not stay in the cache
BLOCK = 250  # steps for which the batches are drawn at once


@dataclass(frozen=True)
class Judged:
    """Which set of windows a judge is trained on, and its seed."""

    rival: int
    seed: int


def discriminative_score(
    real: Float[np.ndarray, "real time channel"],
    generated: Float[np.ndarray, "generated time channel"],
    seed: int,
) -> float:
    """Return how far a judge's accuracy is from one half; see `discriminative_scores`."""
    return float(discriminative_scores(real, generated, [seed])[0])


def discriminative_scores(
    real: Float[np.ndarray, "real time channel"],
    generated: Float[np.ndarray, "generated time channel"],
    seeds: Sequence[int],
    steps: int = DISCRIMINATIVE_STEPS,
) -> Float[np.ndarray, " judge"]:
    r"""Return :math:`|a - 1/2|` of the accuracy of one judge for each seed, 0 to 0.5.

    A judge is a GRU of :math:`\lfloor D/2 \rfloor` units (16 for one channel, where the original
    has none) with a logistic output on its last state. It is trained on 80 % of the real and 80 %
    of the generated windows for 2,000 steps of Adam, each on 128 of both without repetition, and
    tested on the other 20 %. What a judge says does not depend on the other seeds.

    Args:
        real: In 0 to 1.
        generated: Likewise.
        seeds: Of split, first weights and batches.
        steps: Of Adam.

    Raises:
        ValueError: If the two differ in shape, are fewer than 5, or hold something not finite.
    """
    return discriminate(real, [generated], seeds, steps)[0]


def discriminate(
    real: Float[np.ndarray, "real time channel"],
    rivals: Sequence[Float[np.ndarray, "generated time channel"]],
    seeds: Sequence[int],
    steps: int = DISCRIMINATIVE_STEPS,
) -> Float[np.ndarray, "rival judge"]:
    """Return the discriminative scores of several sets of windows, judges trained together.

    Args:
        real: In 0 to 1.
        rivals: Sets of as many windows each.
        seeds: Every set has judges with all of them.
        steps: Of Adam.
    """
    first, *others = _checked(real, *rivals)
    return _of_each(_discriminate, first, others, seeds, steps)


def predictive_score(
    real: Float[np.ndarray, "real time channel"],
    generated: Float[np.ndarray, "generated time channel"],
    seed: int,
) -> float:
    """Return a predictor's error on real windows; see `predictive_scores`."""
    return float(predictive_scores(real, generated, [seed])[0])


def predictive_scores(
    real: Float[np.ndarray, "real time channel"],
    generated: Float[np.ndarray, "generated time channel"],
    seeds: Sequence[int],
    steps: int = PREDICTIVE_STEPS,
) -> Float[np.ndarray, " judge"]:
    r"""Return the error on real windows of a predictor trained on generated ones, for each seed.

    The predictor is a GRU of :math:`\lfloor D/2 \rfloor` units with a logistic output that says
    the last channel of the next row from all other channels so far; it never sees the past of the
    last channel. It minimises the absolute error in 5,000 steps of Adam on 128 windows each. Where
    the channels are independent, as in ``sines``, nothing can be predicted and the score says
    nothing.

    Args:
        real: In 0 to 1.
        generated: Likewise.
        seeds: Of first weights and batches.
        steps: Of Adam.

    Returns:
        Mean absolute errors, of values in 0 to 1.

    Raises:
        ValueError: As `discriminative_scores`; and if there is one channel only.
    """
    return predict(real, [generated], seeds, steps)[0]


def predict(
    real: Float[np.ndarray, "real time channel"],
    rivals: Sequence[Float[np.ndarray, "generated time channel"]],
    seeds: Sequence[int],
    steps: int = PREDICTIVE_STEPS,
) -> Float[np.ndarray, "rival judge"]:
    """Return the predictive scores of several sets of windows, predictors trained together.

    Args:
        real: In 0 to 1.
        rivals: Sets of as many windows each.
        seeds: Every set has predictors with all of them.
        steps: Of Adam.
    """
    first, *others = _checked(real, *rivals)
    if real.shape[2] < 2:
        raise ValueError(
            "predictive score: 1 channel; it predicts the last channel from the others and needs 2"
        )
    return _of_each(_predict, first, others, seeds, steps)


def _of_each(
    judge: Callable[[Array, list[Array], Sequence[Judged], int], Array],
    real: Array,
    rivals: list[Array],
    seeds: Sequence[int],
    steps: int,
) -> Array:
    judged = [Judged(place, seed) for place in range(len(rivals)) for seed in seeds]
    groups = [judged[start : start + TOGETHER] for start in range(0, len(judged), TOGETHER)]
    with one_thread(), torch.no_grad():
        scores = [judge(real, rivals, group, steps) for group in groups]
    return np.concatenate(scores).reshape(len(rivals), len(seeds))


def _checked(real: Array, *rivals: Array) -> list[Array]:
    """The windows in single precision."""
    if real.ndim != 3 or {each.shape for each in rivals} != {(len(rivals[0]), *real.shape[1:])}:
        raise ValueError(
            f"real windows of shape {real.shape}, generated of {[each.shape for each in rivals]}"
        )
    if min(len(real), len(rivals[0])) < 5 or real.shape[1] < 2:
        raise ValueError(
            f"{len(real)} real and {len(rivals[0])} generated windows of {real.shape[1]} rows; a "
            "judge needs 5 windows of 2 rows"
        )
    if not all(np.isfinite(each).all() for each in (real, *rivals)):
        raise ValueError("a window holds a number that is not finite; a judge needs whole windows")
    return [each.astype(np.float32) for each in (real, *rivals)]


def _discriminate(real: Array, rivals: list[Array], judged: Sequence[Judged], steps: int) -> Array:
    _, length, channels = real.shape
    rows = torch.from_numpy(np.concatenate([real, *rivals])).flatten(1)
    rngs = [generator(each.seed, "discriminative") for each in judged]
    starts = [len(real) + each.rival * len(rivals[0]) for each in judged]
    own, others = ([_split(rng, len(part)) for rng in rngs] for part in (real, rivals[0]))
    train, test = (
        [(a[part], b[part] + start) for a, b, start in zip(own, others, starts, strict=True)]
        for part in (0, 1)
    )
    batch = min(BATCH, *map(len, train[0]))
    hidden = channels // 2 or ONE_CHANNEL_HIDDEN
    judges = Judges(rngs, channels, hidden, length, 2 * batch)
    label = (torch.arange(2 * batch) < batch).float()
    for index in _batches(rngs, train, batch, steps):
        judges.inputs.copy_(gather(rows, index, length).transpose(1, 2))
        judges.learn_from_last((judges.last_outputs().sigmoid_() - label) / batch)
    held_out = np.stack([np.concatenate(both) for both in test])
    logits = _last_outputs(judges, rows, torch.from_numpy(held_out), length)
    return np.abs(((logits.numpy() > 0) == (held_out < len(real))).mean(axis=1) - 0.5)


def _predict(real: Array, rivals: list[Array], judged: Sequence[Judged], steps: int) -> Array:
    _, length, channels = real.shape
    rows = torch.from_numpy(np.concatenate(rivals)).flatten(1)
    rngs = [generator(each.seed, "predictive") for each in judged]
    count = len(rivals[0])
    pools = [(np.arange(count) + each.rival * count,) for each in judged]
    batch = min(BATCH, count)
    judges = Judges(rngs, channels - 1, channels // 2, length - 1, batch)
    for index in _batches(rngs, pools, batch, steps):
        target = _show_past(judges, gather(rows, index, length))
        said = judges.outputs().sigmoid_()
        judges.learn((said - target).sign_() * said * (1 - said) / target[:, 0].numel())
    return _prediction_errors(judges, torch.from_numpy(real).flatten(1), length).numpy()


def _show_past(judges: Judges, windows: Float[Tensor, "time channel judge batch"]) -> Tensor:
    """Let the judges see all rows but the last of all channels but the last; return the rest."""
    judges.inputs.copy_(windows[:-1, :-1].transpose(1, 2))
    return windows[1:, -1]


def _prediction_errors(
    judges: Judges, rows: Float[Tensor, "window value"], length: int
) -> Float[Tensor, " judge"]:
    everything = torch.arange(len(rows)).expand(len(judges.parameters), -1)
    errors = []
    for index in _pieces(everything, judges.batch):
        target = _show_past(judges, gather(rows, index, length))
        errors.append((judges.outputs().sigmoid_() - target).abs_().double().mean(0))
    return torch.cat(errors, dim=1)[:, : len(rows)].mean(1)


def _last_outputs(
    judges: Judges,
    rows: Float[Tensor, "window value"],
    chosen: Int[Tensor, "judge chosen"],
    length: int,
) -> Float[Tensor, "judge chosen"]:
    outputs = []
    for index in _pieces(chosen, judges.batch):
        judges.inputs.copy_(gather(rows, index, length).transpose(1, 2))
        outputs.append(judges.last_outputs())
    return torch.cat(outputs, dim=1)[:, : chosen.shape[1]]


def _pieces(chosen: Int[Tensor, "judge window"], size: int) -> Iterator[Int[Tensor, "judge size"]]:
    """Pieces of one size; the last is filled up with windows from the start."""
    count = chosen.shape[1]
    places = torch.arange(-(-count // size) * size) % count
    yield from chosen[:, places].split(size, dim=1)


def _split(rng: np.random.Generator, count: int) -> tuple[Places, Places]:
    """Places to train on and to test on."""
    places = rng.permutation(count)
    return places[: int(TRAIN_SHARE * count)], places[int(TRAIN_SHARE * count) :]


def _batches(
    rngs: Generators, pools: Sequence[tuple[Places, ...]], size: int, steps: int
) -> Iterator[Int[Tensor, "judge batch"]]:
    """For each step and judge, ``size`` different places of each of its pools, one after another.

    They are drawn for many steps at once; a judge's own generator makes them independent of the
    other judges.
    """
    for start in range(0, steps, BLOCK):
        count = min(BLOCK, steps - start)
        drawn = [
            np.concatenate([pool[distinct(rng, len(pool), size, count)] for pool in own], axis=1)
            for rng, own in zip(rngs, pools, strict=True)
        ]
        yield from torch.from_numpy(np.stack(drawn, axis=1))
