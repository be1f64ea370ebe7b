from __future__ import annotations

import torch

from core.variational.selftest import self_test


def test_the_self_test_passes_and_names_every_number() -> None:
    checks = self_test()
    assert all(check.passed for check in checks), checks
    assert len({check.name for check in checks}) == len(checks)


def test_the_self_test_leaves_the_global_random_stream_alone() -> None:
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    self_test()
    assert torch.equal(torch.randn(4), expected)
