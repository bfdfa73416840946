"""What the processes of a distributed training tell each other; one process alone talks to nobody."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import distributed

Tensor = Any  # of PyTorch, which has no types here
Value = TypeVar("Value")


def count() -> int:
    """Return how many processes train together."""
    return int(distributed.get_world_size()) if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Return the number of this process among them; 0 writes and reports."""
    return int(distributed.get_rank()) if count() > 1 else 0


def mean(tensor: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes."""
    if count() > 1:
        distributed.all_reduce(tensor)
        tensor = tensor / count()
    return tensor


def gathered(value: Value) -> list[Value]:
    """Return the value of each process, in their order."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    distributed.all_gather_object(values, value)
    return values


def from_first(value: Value) -> Value:
    """Return the value that process 0 has."""
    if count() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def parallel(module: torch.nn.Module) -> torch.nn.Module:
    """Return what runs the module and gives each process the mean of all gradients; the module itself where there is one process."""
    if count() == 1:
        return module
    # Nothing in a prepared module but its parameters changes, and those are the same everywhere.
    return torch.nn.parallel.DistributedDataParallel(module, broadcast_buffers=False)


def unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """Return the module inside a DistributedDataParallel, or the module itself."""
    return module.module if isinstance(module, torch.nn.parallel.DistributedDataParallel) else module
