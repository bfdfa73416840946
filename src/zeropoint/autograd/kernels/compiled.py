"""Fake quantization on the CPU in one pass over memory each way, in compiled loops on as many threads as PyTorch has.

They divide and round as the plain ones do, to the same bits. Sums are taken over parts of a tensor that only its layout tells, and then
over the parts, so that gradients are the same on every run and with any number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ctypes import Structure, byref, c_float, c_int64, c_void_p
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import Any

import torch

from zeropoint.autograd.kernels.layout import Layout, alike
from zeropoint.autograd.kernels.plain import Codes, Gradients, Wanted
from zeropoint.native import library

Tensor = Any  # of PyTorch, which has no types here

INSTALLED = library is not None
UNIT = 1 << 14  # elements that are summed at once, in 16 lanes of float32
ROWS = 64  # of columns, so that their sums are few beside them
SHARE = 1 << 16  # elements that are worth a thread


class _Job(Structure):
    """struct job of native/fake_quantize.c."""

    _fields_ = (
        *((name, c_void_p) for name in ("x", "grad", "scale", "zero_point", "out", "of_scale", "of_zero_point")),
        *((name, c_int64) for name in ("outer", "channels", "inner", "length")),
        *((name, c_float) for name in ("qmin", "qmax")),
    )


@dataclass(frozen=True, slots=True)
class _Units:
    """How a tensor is cut. shape: of the sums of its units, with one axis for the channels."""

    by: str
    length: int
    shape: tuple[int, int, int]
    count: int


def quantized(x: Tensor, scale: Tensor, zero_point: Tensor, *, codes: Codes, places: Layout) -> Tensor:
    """Return what `plain.quantized` does, in the memory order of `x`, which is float32."""
    out, units = torch.empty_like(x), _units(places)
    tensors = x, None, scale.contiguous(), zero_point.round().contiguous(), out, None, None
    _run(f"zeropoint_quantize_{units.by}", tensors, places=places, units=units, codes=codes)
    return out


def gradients(grad: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor, *, codes: Codes, places: Layout, wanted: Wanted) -> Gradients:
    """Return what `plain.gradients` does, but for the rounding of sums."""
    of_x, units = torch.empty_like(x), _units(places)
    sums = torch.empty((2, *units.shape), dtype=torch.float64)
    tensors = x, alike(grad, x), scale.contiguous(), zero_point.round().contiguous(), of_x, *sums
    _run(f"zeropoint_gradients_of_{units.by}", tensors, places=places, units=units, codes=codes)
    whole = sums.sum((1, 3)).float().reshape(2, *scale.shape)
    factors = wanted.scale, wanted.zero_point
    return Gradients(of_x if wanted.x else None, *(None if by is None else one * by for one, by in zip(whole, factors, strict=True)))


def _units(places: Layout) -> _Units:
    if places.inner == 1 and places.channels > 1:
        length = max(ROWS, UNIT // places.channels)
        count = -(-places.outer // length)
        return _Units("columns", length, (count, places.channels, 1), count)
    parts = -(-places.inner // UNIT)
    return _Units("rows", UNIT, (places.outer, places.channels, parts), places.outer * places.channels * parts)


def _run(name: str, tensors: Sequence[Tensor | None], *, places: Layout, units: _Units, codes: Codes) -> None:
    """Do all units of a function of native/fake_quantize.c: here where they are few elements, else on several threads."""
    pointers = (None if tensor is None else tensor.data_ptr() for tensor in tensors)
    job = _Job(*pointers, places.outer, places.channels, places.inner, units.length, codes.qmin, codes.qmax)
    threads = min(torch.get_num_threads(), units.count, -(-places.size // SHARE))
    ends = [units.count * thread // threads for thread in range(threads + 1)]

    def part(first: int, last: int) -> Sequence[Tensor | None]:
        getattr(library, name)(byref(job), c_int64(first), c_int64(last))
        return tensors  # which a thread must hold to its end, where Ctrl-C has ended the wait for it

    waits = [_begun(part, *span) for span in pairwise(ends[1:])]
    part(*ends[:2])
    for wait in waits:
        wait()


def _begun(part: Callable[[int, int], object], first: int, last: int) -> Callable[[], object]:
    """Give a part to a thread, and return what waits for it, or does it where there is no thread to be had any more."""
    try:
        return _pool(os.getpid(), torch.get_num_threads()).submit(part, first, last).result
    except RuntimeError:  # the interpreter is on its way out, or the system has no more
        return partial(part, first, last)


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Return threads of this process: those of its parent are not in a fork."""
    return ThreadPoolExecutor(max(1, threads - 1), thread_name_prefix=f"zeropoint-{process}")
