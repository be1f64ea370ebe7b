from collections.abc import Callable

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.runtime.order import Shuffled, derive, seed_everything_at


def shuffled(n: int, size: int, seed: int, shuffle: bool = True) -> Shuffled[int, list[int]]:
    collate: Callable[[list[int]], list[int]] = list
    return Shuffled(list(range(n)), size, collate, seed, shuffle)


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**62), st.integers(0, 5))
def test_an_epoch_holds_every_example_once_in_an_order_of_its_own(
    n: int, size: int, seed: int, epoch: int
) -> None:
    batches = shuffled(n, size, seed)
    seen = [item for index in range(len(batches)) for item in batches.batch(epoch, index)]
    assert sorted(seen) == list(range(n))
    assert batches.batch(epoch, 0) == shuffled(n, size, seed).batch(epoch, 0)


def test_epochs_and_seeds_differ() -> None:
    orders = [tuple(shuffled(50, 50, seed).batch(epoch, 0)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4


def test_without_shuffling_the_order_is_that_of_the_data() -> None:
    assert shuffled(5, 2, 0, shuffle=False).batch(3, 1) == [2, 3]


def test_places_do_not_collide_by_concatenation() -> None:
    assert derive(0, "a", 11) != derive(0, "a1", 1)
    assert 0 <= derive(2**62, "x") < 2**63


def test_a_place_gives_the_same_draws_whatever_was_drawn_before() -> None:
    seed_everything_at(3, "step", 7)
    first = torch.randn(4)
    torch.randn(100)
    np.random.default_rng().random()
    seed_everything_at(3, "step", 7)
    assert torch.equal(first, torch.randn(4))
