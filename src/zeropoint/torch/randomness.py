"""Random states, and PyTorch's settings that decide whether the same run gives the same bits."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from zeropoint.torch.training_options import Kernels

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # without it, PyTorch refuses products of matrices on CUDA where they are to be deterministic


def seeded(*numbers: int) -> int:
    """Return a seed of 32 bits that mixes these numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def sow(seed: int) -> None:
    """Seed PyTorch on all devices, NumPy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the states of PyTorch on the CPU and on `device`, of NumPy and of Python, as what `torch.load` reads without running code."""
    _, keys, *numbers = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": (torch.from_numpy(np.asarray(keys).astype(np.int64)), *numbers),
        "python": random.getstate(),
    }


def restore(state: Mapping[str, Any], device: torch.device) -> None:
    """Go on from where `random_state` was taken."""
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    keys, *numbers = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *numbers))
    version, words, spare = state["python"]
    random.setstate((version, tuple(words), spare))


@contextmanager
def kept(device: torch.device, generators: Sequence[torch.Generator]) -> Iterator[None]:
    """Leave random states as they were, those of `generators` too."""
    states, state = [generator.get_state() for generator in generators], random_state(device)
    try:
        yield
    finally:
        restore(state, device)
        for generator, before in zip(generators, states, strict=True):
            generator.set_state(before)


@contextmanager
def computing(kernels: Kernels) -> Iterator[None]:
    """Let PyTorch take operators that give the same bits each time, or those that it finds quickest; its settings come back after."""
    if kernels == "fastest":
        yield
        return
    on, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    tries, fills = torch.backends.cudnn.benchmark, torch.utils.deterministic.fill_uninitialized_memory
    workspace = os.environ.get(WORKSPACE)
    os.environ.setdefault(WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False  # the quickest of several tries differs between runs
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(on, warn_only=warns)
        torch.backends.cudnn.benchmark, torch.utils.deterministic.fill_uninitialized_memory = tries, fills
        if workspace is None:
            os.environ.pop(WORKSPACE, None)
