"""Look at a model without changing its training: evaluation mode, random numbers of one's own."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from core.contract import Model


@contextlib.contextmanager
def looking_at(model: Model, seed: int) -> Iterator[None]:
    """Put a model in evaluation mode, without gradients, on its own random stream; undo it after.

    Only the generators of the CPU and of the model's devices are seeded, and all are put back.
    """
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    with torch.no_grad(), own_random_stream(seed, _cuda_devices(modules)):
        try:
            for module in modules:
                module.training = False
            yield
        finally:
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode


@contextlib.contextmanager
def own_random_stream(seed: int, devices: Iterable[int] = ()) -> Iterator[None]:
    """Seed torch's generators of the CPU and these CUDA devices, and put them back after."""
    devices = list(devices)
    with torch.random.fork_rng(devices):
        # torch.manual_seed would seed every device, those that are not forked too.
        torch.default_generator.manual_seed(seed)
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(seed)
        yield


def seed_for(seed: int, purpose: str) -> int:
    """Return another seed for a purpose: one stream used twice would give the same noise twice.

    Example:
        >>> seed_for(0, "relabellings") == seed_for(0, "relabellings") != seed_for(0, "floor")
        True
    """
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def _cuda_devices(modules: list[nn.Module]) -> list[int]:
    tensors = [*modules[0].parameters(), *modules[0].buffers()] if modules else []
    return sorted({tensor.get_device() for tensor in tensors if tensor.is_cuda})
