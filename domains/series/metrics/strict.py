"""A judge that is stronger than TimeGAN's and is tested on stretches that it has never seen.

Neighbouring windows share rows. A judge that is tested on windows between those that it was
trained on knows the real ones by heart: it tells the windows of one autoregressive series from
other draws of the very same process (AUC 0.93, measured). If only the real windows of a stretch
are held out, it takes whatever looks like that stretch for generated (AUC 0.39 for a shuffled
copy). Here a generated window is held out with the real window that is nearest to it, which gives
0.50 and 0.53.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from core.runtime.order import derive, generator
from core.variational.diagnostics import own_random_stream
from core.variational.threads import one_thread
from domains.series.metrics.similarity import nearest

Array = NDArray[np.float64]
Places = NDArray[np.int64]

HIDDEN, LAYERS = 64, 2
BATCH, STEPS, LEARNING_RATE = 64, 300, 3e-3
LOOK_EVERY, PATIENCE = 20, 5  # steps between validations; validations without a lower loss
LEAST_STRETCHES, MOST_STRETCHES = 5, 50  # that the windows are cut into
FEWEST = 20  # windows
SMALLEST_SHARE = 1e-10  # of the largest variance, for a direction that a judge sees
FARTHEST = 10.0  # deviations that a judge sees
SURE = 0.05  # nats: a judge this good is stopped
NORMAL_QUANTILE = 1.959964


@dataclass(frozen=True)
class Strict:
    """What a strict judge found on the windows held out from it.

    Args:
        auc: Probability that it finds a real window more real than a generated one; 0.5 is the
            best that generated windows can do.
        interval: 95 % interval of it, over windows and not over judges.
        accuracy: Share of windows that it takes for what they are.
        n: Windows tested, real and generated.
    """

    auc: float
    interval: tuple[float, float]
    accuracy: float
    n: int

    @property
    def score(self) -> float:
        """Distance of the accuracy from one half, as a discriminative score."""
        return abs(self.accuracy - 0.5)


def strict_discriminative(
    real: Float[np.ndarray, "real time channel"],
    generated: Float[np.ndarray, "generated time channel"],
    seed: int,
) -> Strict:
    """Train a GRU of two layers with 64 units to tell real from generated windows, and test it.

    It sees values and their differences, whitened by the real windows that it is trained on. The
    real windows are cut into stretches in the order they come in: three fifths to train on, one to
    stop early by, one to test on; the first windows of a stretch, which overlap with those before,
    are left out. A generated window is in the part of its nearest real one.

    Args:
        real: Windows in the order of their rows.
        generated: Windows.
        seed: Of split, first weights and batches.

    Raises:
        ValueError: If the windows differ in shape or there are fewer than 20 of one kind.
    """
    if min(len(real), len(generated)) < FEWEST or real.shape[1:] != generated.shape[1:]:
        raise ValueError(
            f"strict judge: {real.shape} real and {generated.shape} generated windows; it needs "
            f"{FEWEST} of both, of one shape"
        )
    rng = generator(seed, "strict")
    own = _stretches(rng, len(real), real.shape[1])
    others = _beside(rng, real, generated, own)
    see = Whitened(real[own[0]])
    train, valid, test = (
        (see(real[a]), see(generated[b])) for a, b in zip(own, others, strict=True)
    )
    with one_thread(), torch.enable_grad(), own_random_stream(derive(seed, "strict", "weights")):
        judge = Judge(train[0].shape[2])
        _fit(judge, train, valid)
    with one_thread(), torch.no_grad():
        first, second = (judge(part).double().numpy() for part in test)
    auc, interval = area_with_interval(first, second, real.shape[1])
    accuracy = ((first > 0).mean() + (second <= 0).mean()) / 2
    return Strict(auc, interval, float(accuracy), len(first) + len(second))


class Judge(nn.Module):
    """Two layers of GRU and the logit that a window is real.

    Args:
        inputs: Channels and their differences.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.recurrent = nn.GRU(inputs, HIDDEN, LAYERS, batch_first=True)
        self.head = nn.Linear(HIDDEN, 1)

    def forward(self, x: Float[Tensor, "batch time feature"]) -> Float[Tensor, " batch"]:
        """The logits."""
        return self.head(self.recurrent(x)[0][:, -1])[:, 0]


class Whitened:
    """Values and their differences, in uncorrelated directions of variance 1.

    Small directions, such as a day's high less its low, are then seen as well as large ones.

    Args:
        windows: Real windows that decide the directions.
    """

    def __init__(self, windows: Array) -> None:
        rows = _with_differences(windows).reshape(-1, 2 * windows.shape[2])
        variances, directions = np.linalg.eigh(np.cov(rows.T))
        kept = variances > SMALLEST_SHARE * variances.max()
        self.centre = rows.mean(0)
        self.directions = directions[:, kept] / np.sqrt(variances[kept])

    def __call__(self, windows: Array) -> Float[Tensor, "window time feature"]:
        """What a judge sees of some windows."""
        white = (_with_differences(windows) - self.centre) @ self.directions
        return torch.from_numpy(white.clip(-FARTHEST, FARTHEST)).float()


def _with_differences(windows: Array) -> Array:
    return np.concatenate([windows, np.diff(windows, axis=1, prepend=windows[:, :1])], axis=2)


def _stretches(rng: np.random.Generator, count: int, length: int) -> tuple[Places, ...]:
    """Places to train on, to stop by and to test on, each from whole stretches of windows."""
    number = max(LEAST_STRETCHES, min(MOST_STRETCHES, count // (3 * length)))
    stretches = np.array_split(np.arange(count), number)
    kept = [part[length - 1 :] if len(part) >= 2 * length else part for part in stretches]
    order = rng.permutation(number)
    test, valid, train = np.split(order, [number // 5, 2 * (number // 5)])
    parts = (np.concatenate([kept[place] for place in chosen]) for chosen in (train, valid, test))
    return tuple(np.sort(part) for part in parts)


def _beside(
    rng: np.random.Generator, real: Array, generated: Array, own: tuple[Places, ...]
) -> tuple[Places, ...]:
    """Places of generated windows whose nearest real one is in each part.

    Where that leaves a part almost empty, as of windows that are all alike, chance decides.
    """
    flat = (torch.from_numpy(each.astype(np.float64)).flatten(1) for each in (generated, real))
    near = nearest(*flat)[0].numpy()
    parts = tuple(np.flatnonzero(np.isin(near, part)) for part in own)
    if min(map(len, parts)) >= FEWEST // 5:
        return parts
    order, fifth = rng.permutation(len(generated)), len(generated) // 5
    test, valid, train = np.split(order, [fifth, 2 * fifth])
    return train, valid, test


Both = tuple[Tensor, Tensor]  # real and generated


def _fit(judge: Judge, train: Both, valid: Both) -> None:
    """Train with Adam until the validation loss has stopped to fall; keep the best weights."""
    optimizer = torch.optim.Adam(judge.parameters(), LEARNING_RATE)
    best, since, weights = math.inf, 0, copy.deepcopy(judge.state_dict())
    for step in range(1, STEPS + 1):
        real, generated = (part[torch.randint(len(part), (BATCH,))] for part in train)
        loss = _loss(judge, (real, generated))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % LOOK_EVERY:
            continue
        with torch.no_grad():
            current = float(_loss(judge, valid))
        since = 0 if current < best else since + 1
        if current < best:
            best, weights = current, copy.deepcopy(judge.state_dict())
        if since == PATIENCE or current < SURE:
            break
    judge.load_state_dict(weights)


def _loss(judge: Judge, both: Both) -> Tensor:
    """Mean negative log likelihood in nats of what each window is."""
    real, generated = both
    softplus = nn.functional.softplus
    return (softplus(-judge(real)).mean() + softplus(judge(generated)).mean()) / 2


def area_with_interval(
    real: Float[np.ndarray, " real"], generated: Float[np.ndarray, " generated"], stretch: int = 1
) -> tuple[float, tuple[float, float]]:
    r"""Return the area under the ROC curve and its 95 % interval.

    With :math:`V_i` the share of generated scores below a real one (ties count half), the area is
    the mean of :math:`V`; its variance adds those of the means over real and generated scores.
    Consecutive real windows share rows: the real part is taken over stretches of them.

    References:
        DeLong et al., "Comparing the Areas under Two or More Correlated Receiver Operating
        Characteristic Curves", Biometrics 44 (1988), 837-845; Obuchowski, "Nonparametric Analysis
        of Clustered ROC Curve Data", Biometrics 53 (1997), 567-578.

    Args:
        real: Scores of real windows, higher is more real.
        generated: Scores of generated ones.
        stretch: Consecutive real windows that are not independent.
    """
    above = _share_below(real, generated)
    below = 1 - _share_below(generated, real)
    auc = float(above.mean())
    variance = _variance_of_mean(above, stretch) + _variance_of_mean(below, 1)
    half = NORMAL_QUANTILE * math.sqrt(variance)
    return auc, (max(auc - half, 0.0), min(auc + half, 1.0))


def _share_below(scores: Array, others: Array) -> Array:
    ordered = np.sort(others)
    sides = [np.searchsorted(ordered, scores, side=side) for side in ("left", "right")]
    return (sides[0] + sides[1]) / (2 * len(others))


def _variance_of_mean(values: Array, stretch: int) -> float:
    sums = np.add.reduceat(values - values.mean(), np.arange(0, len(values), stretch))
    groups = len(sums)
    return float(groups / max(groups - 1, 1) * (sums**2).sum() / len(values) ** 2)
