"""The observation of a tensor on an NVIDIA GPU, in one pass over its memory: observe.cu, compiled for the device and launched."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from zeropoint.autograd.kernels.nvrtc import Kernel, compile_kernels

Tensor = Any  # of PyTorch, which has no types here

NAMES = {torch.float32: "observe_float32", torch.bfloat16: "observe_bfloat16", torch.float16: "observe_float16"}
THREADS = 1024
BLOCKS_PER_PROCESSOR = 2
ELEMENTS_OF_BLOCK = 16 * THREADS  # at least: to clear and to add its counts takes a block about as long as to count these
BYTES_OF_OCTAVE = 128 * 2 * 4  # 7 bits of mantissa, both signs, 4 bytes a count
MOST_OCTAVES = 96
OCTAVES_OF_BIN = 8  # observe.cu chooses where to count in steps of these
RESERVED_BYTES = 2048  # of a block's shared memory: the system's 1 KiB, the kernel's own totals


def octaves(shared_bytes: int) -> int:
    """Return how many octaves a block counts where a processor has that much shared memory for two blocks.

    Example:
        >>> octaves(228 << 10), octaves(100 << 10), octaves(64 << 10)
        (96, 48, 24)
    """
    fitting = (shared_bytes // BLOCKS_PER_PROCESSOR - RESERVED_BYTES) // BYTES_OF_OCTAVE
    return min(MOST_OCTAVES, fitting // OCTAVES_OF_BIN * OCTAVES_OF_BIN)


@cache
def kernels(device: int) -> dict[str, Kernel]:
    """Return the kernels for the device of this index, compiled once.

    Raises:
        OSError: a library is missing.
        RuntimeError: the compiler or the driver refuses.
    """
    properties = torch.cuda.get_device_properties(device)
    count = octaves(properties.shared_memory_per_multiprocessor)
    if count <= 0:
        raise RuntimeError(f"shared memory: found {properties.shared_memory_per_multiprocessor} bytes a processor, too few to count in")
    defines = {"OCTAVES": count, "THREADS": THREADS}
    source = Path(__file__).with_name("observe.cu").read_text(encoding="utf-8")
    return compile_kernels(source, tuple(NAMES.values()), device=device, shared_bytes=count * BYTES_OF_OCTAVE, defines=defines)


def observe(values: Tensor, counts: Tensor, bounds: Tensor, others: Tensor) -> None:
    """Add `values` (n,), contiguous, to the tally, as `plain.observe` does."""
    if values.numel() == 0:
        return
    x = values if values.dtype in NAMES else values.float()
    blocks = min(_most_blocks(x.device.index), -(-x.numel() // ELEMENTS_OF_BLOCK))
    kernels(x.device.index)[NAMES[x.dtype]].launch(blocks, THREADS, (x, x.numel(), counts, bounds, others))


@cache
def _most_blocks(device: int) -> int:
    return BLOCKS_PER_PROCESSOR * int(torch.cuda.get_device_properties(device).multi_processor_count)
