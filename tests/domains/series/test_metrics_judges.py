from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from core.runtime.order import generator
from domains.series.metrics import judges as judging_by
from domains.series.metrics.judges import (
    discriminative_score,
    discriminative_scores,
    predictive_score,
    predictive_scores,
)
from domains.series.metrics.judging import Judges, distinct, gather


def sines(count: int, channels: int, seed: int, length: int = 12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    frequency, phase = rng.uniform(0.2, 1, (2, count, 1, channels))
    return (np.sin(frequency * np.arange(length)[None, :, None] + 6 * phase) + 1) / 2


class Reference(nn.Module):
    """The same judge from torch's own parts, with the parameters of one of ours."""

    def __init__(self, judges: Judges, place: int, inputs: int, rng: np.random.Generator) -> None:
        super().__init__()
        hidden = judges.hidden
        self.gru = nn.GRU(inputs, hidden, batch_first=True, dtype=torch.float64)
        self.head = nn.Linear(hidden, 1, dtype=torch.float64)
        shapes = [(3 * hidden, inputs), (3 * hidden, hidden), (3 * hidden,), (3 * hidden,)]
        drawn = [rng.uniform(-1, 1, shape) / np.sqrt(hidden) for shape in [*shapes, (hidden + 1,)]]
        with torch.no_grad():
            for parameter, value in zip(self.gru.parameters(), drawn, strict=False):
                parameter.copy_(torch.from_numpy(value))
            self.head.weight.copy_(torch.from_numpy(drawn[-1][None, :-1]))
            self.head.bias.copy_(torch.from_numpy(drawn[-1][-1:]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(x)[0])[..., 0]


def both(inputs: int, hidden: int, length: int, batch: int) -> tuple[Judges, list[Reference]]:
    seeds = (3, 4, 5)
    ours = Judges(
        [np.random.default_rng(seed) for seed in seeds],
        inputs,
        hidden,
        length,
        batch,
        dtype=torch.float64,
    )
    theirs = [
        Reference(ours, place, inputs, np.random.default_rng(seed))
        for place, seed in enumerate(seeds)
    ]
    return ours, theirs


@pytest.mark.parametrize(("inputs", "hidden"), [(5, 2), (6, 3), (1, 16)])
def test_judges_trained_together_are_those_that_torch_trains_one_by_one(
    inputs: int, hidden: int
) -> None:
    length, batch = 7, 10
    ours, theirs = both(inputs, hidden, length, batch)
    label = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(batch // 2)
    optimizers = [torch.optim.Adam(judge.parameters(), 1e-3) for judge in theirs]
    data = torch.randn(40, 3, batch, length, inputs, dtype=torch.float64)
    for x in data:
        ours.inputs.copy_(x.permute(2, 0, 3, 1))
        slope = (ours.last_outputs().sigmoid() - label) / batch
        ours.learn_from_last(slope)
        for judge, own, optimizer in zip(theirs, x, optimizers, strict=True):
            loss = nn.functional.binary_cross_entropy_with_logits(judge(own)[:, -1], label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    ours.inputs.copy_(data[0].permute(2, 0, 3, 1))
    expected = torch.stack([j(x) for j, x in zip(theirs, data[0], strict=True)]).detach()
    assert torch.allclose(ours.outputs().permute(1, 2, 0), expected, atol=1e-10)


def test_predictors_trained_together_are_those_that_torch_trains_one_by_one() -> None:
    inputs, hidden, length, batch = 3, 2, 6, 8
    ours, theirs = both(inputs, hidden, length, batch)
    optimizers = [torch.optim.Adam(judge.parameters(), 1e-3) for judge in theirs]
    data = torch.rand(30, 3, batch, length, inputs, dtype=torch.float64)
    targets = torch.rand(30, 3, batch, length, dtype=torch.float64)
    for x, y in zip(data, targets, strict=True):
        ours.inputs.copy_(x.permute(2, 0, 3, 1))
        said, target = ours.outputs().sigmoid(), y.permute(2, 0, 1)
        ours.learn((said - target).sign() * said * (1 - said) / (batch * length))
        for judge, own, goal, optimizer in zip(theirs, x, y, optimizers, strict=True):
            loss = nn.functional.l1_loss(judge(own).sigmoid(), goal)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    ours.inputs.copy_(data[0].permute(2, 0, 3, 1))
    expected = torch.stack([j(x) for j, x in zip(theirs, data[0], strict=True)]).detach()
    assert torch.allclose(ours.outputs().permute(1, 2, 0), expected, atol=1e-10)


def test_the_score_is_that_of_a_plain_training_on_the_same_batches() -> None:
    """Split, batches, loss and accuracy again, by torch's own parts in double precision."""
    real, fake, steps, seed = sines(150, 4, 0), sines(150, 4, 1) ** 1.3, 60, 7
    rng = generator(seed, "discriminative")
    parts = [np.split(rng.permutation(150), [120]) for _ in range(2)]
    judge = Judges([rng], 4, 2, 12, 2)
    again = generator(seed, "discriminative")
    _ = [again.permutation(150) for _ in range(2)]
    plain = Reference(judge, 0, 4, again)
    optimizer = torch.optim.Adam(plain.parameters(), 1e-3)
    x, y = (torch.from_numpy(windows) for windows in (real, fake))
    drawn = [distinct(rng, 120, 120, steps) for _ in range(2)]
    for row in range(steps):
        batch = torch.cat([x[parts[0][0][drawn[0][row]]], y[parts[1][0][drawn[1][row]]]])
        logit = plain(batch)[:, -1]
        loss = nn.functional.softplus(-logit[:120]).mean()
        loss = loss + nn.functional.softplus(logit[120:]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = [plain(x[parts[0][1]])[:, -1] > 0, plain(y[parts[1][1]])[:, -1] <= 0]
    expected = abs(float(torch.cat(right).double().mean()) - 0.5)
    assert discriminative_scores(real, fake, [seed], steps)[0] == pytest.approx(expected)


def test_a_judge_says_the_same_alone_and_among_others() -> None:
    real, fake = sines(300, 3, 0), np.clip(sines(300, 3, 1) + 0.1, 0, 1)
    together = discriminative_scores(real, fake, [5, 6, 7], steps=150)
    alone = [discriminative_scores(real, fake, [seed], steps=150)[0] for seed in (5, 6, 7)]
    assert together == pytest.approx(alone, abs=0.02)
    errors = predictive_scores(real, fake, [5, 6], steps=150)
    assert errors[1] == pytest.approx(predictive_scores(real, fake, [6], steps=150)[0], abs=1e-4)


def test_the_same_seed_gives_the_same_bytes() -> None:
    real, fake = sines(200, 3, 0), sines(200, 3, 1)
    first, second = (discriminative_scores(real, fake, [1, 2], steps=80) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_groups_of_judges_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = sines(200, 4, 0), sines(200, 4, 1) * 0.8
    whole = predictive_scores(real, fake, range(3), steps=60)
    monkeypatch.setattr(judging_by, "TOGETHER", 2)
    assert predictive_scores(real, fake, range(3), steps=60) == pytest.approx(whole, abs=1e-5)


def test_windows_that_differ_are_told_apart_and_a_copy_is_not() -> None:
    real = sines(400, 4, 0)
    noise = np.random.default_rng(0).random(real.shape)
    assert discriminative_scores(real, noise, [0], steps=800)[0] > 0.25
    assert discriminative_scores(real, real.copy(), [0], steps=800)[0] < 0.12


def test_one_channel_has_a_discriminative_score_but_nothing_to_predict_from() -> None:
    real = sines(200, 1, 0)
    assert discriminative_scores(real, 1 - real**3, [0], steps=400)[0] > 0.1
    with pytest.raises(ValueError, match="needs 2"):
        predictive_score(real, real, 0)


def test_a_predictor_reaches_the_error_of_what_can_be_known() -> None:
    """The last channel is the other one of a row before: an error far below its spread is due."""
    x = np.random.default_rng(0).random((600, 12, 2))
    x[:, 1:, 1] = x[:, :-1, 0]
    mean_deviation = np.abs(x[:, 1:, 1] - 0.5).mean()
    assert predictive_scores(x, x, [0], steps=2500)[0] < 0.7 * mean_deviation
    x[..., 1] = np.random.default_rng(1).random((600, 12))
    assert predictive_scores(x, x, [0], steps=800)[0] == pytest.approx(mean_deviation, abs=0.01)


@pytest.mark.parametrize(
    ("real", "generated", "why"),
    [
        (np.zeros((9, 4, 2)), np.zeros((3, 4, 2)), "5 windows"),
        (np.zeros((9, 4, 2)), np.full((9, 4, 2), np.nan), "not finite"),
    ],
)
def test_what_no_judge_can_judge_is_refused(
    real: np.ndarray, generated: np.ndarray, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        discriminative_score(real, generated, 0)


def test_windows_of_unequal_length_are_refused() -> None:
    with pytest.raises((ValueError, TypeError)):  # the second where shapes are checked
        discriminative_score(np.zeros((9, 4, 2)), np.zeros((9, 5, 2)), 0)


@given(st.integers(1, 40), st.integers(0, 400), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_drawn_numbers_are_different_and_below_the_population(
    wanted: int, more: int, seed: int
) -> None:
    drawn = distinct(np.random.default_rng(seed), wanted + more, wanted, 5)
    assert drawn.shape == (5, wanted)
    assert ((drawn >= 0) & (drawn < wanted + more)).all()
    assert all(len(set(row)) == wanted for row in drawn.tolist())


@pytest.mark.parametrize("population", [20, 60])
def test_every_pair_of_numbers_is_drawn_equally_often(population: int) -> None:
    rows, wanted = 40_000, 10
    drawn = distinct(np.random.default_rng(0), population, wanted, rows)
    member = np.zeros((rows, population))
    np.put_along_axis(member, drawn, 1, axis=1)
    pairs = (member.T @ member) / rows
    expected = wanted * (wanted - 1) / (population * (population - 1))
    off = pairs[~np.eye(population, dtype=bool)]
    assert np.abs(off - expected).max() < 5 * np.sqrt(expected / rows)
    assert np.abs(np.diag(pairs) - wanted / population).max() < 5 / np.sqrt(4 * rows)


def test_gathered_windows_have_their_features_before_the_batch() -> None:
    windows = torch.arange(5 * 3 * 2, dtype=torch.float32).view(5, 3, 2)
    index = torch.tensor([[4, 0], [2, 2]])
    found = gather(windows.flatten(1), index, 3)
    assert found.shape == (3, 2, 2, 2)
    assert torch.equal(found.permute(2, 3, 0, 1), windows[index])


@pytest.mark.slow
def test_a_copy_of_smooth_windows_scores_what_the_protocol_costs() -> None:
    """The floor that was measured on 10,000 sines is .009 ± .005, with ten seeds here."""
    real = sines(10_000, 5, 0, length=24)
    scores = discriminative_scores(real, real.copy(), range(10))
    assert 0.002 < scores.mean() < 0.02
