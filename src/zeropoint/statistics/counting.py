"""Count float32 values by their leading bits, with exact bounds: the one loop that meets every element of a calibration.

Two implementations give the same counts and bounds: a compiled one, at about 0.6 ns an element on one core, and one in numpy, at 2 to 3,
for installations without a C compiler. docs/performance.md has the measurements.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable
from ctypes import c_int64, c_void_p
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from zeropoint.native import library

KEYS = 1 << 16
CHUNK = 1 << 18  # elements: bincount widens its input to int64, and 2 MiB of that stay in the cache
Array32 = npt.NDArray[np.float32]


def _untouched(shape: tuple[int, ...]) -> npt.NDArray[np.uint32]:
    """Return zeros that take no memory before they are written to, which numpy's do only where the C library maps them.

    Where there is the choice they are private: to read a page that is shared takes memory too.
    """
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    return np.frombuffer(mmap.mmap(-1, 4 * math.prod(shape), **private), np.uint32).reshape(shape)


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """Counts to add to. The system gives memory to them page by page, as keys of other sizes occur: about 60 of 512 KiB.

    slots: uint32 (65536, 2); the count of a key, the upper half of a bit pattern, is the sum of its row. bounds: float32 (2,), the
    lowest and the highest finite value. others: int64 (2,), how many NaN and infinities.
    """

    slots: npt.NDArray[np.uint32] = field(default_factory=lambda: _untouched((KEYS, 2)))
    bounds: Array32 = field(default_factory=lambda: np.array([np.inf, -np.inf], np.float32))
    others: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))
    places: tuple[c_void_p, ...] = field(init=False, repr=False)  # of these arrays: to ask for them takes longer than to count a row

    def __post_init__(self) -> None:
        """Keep the addresses."""
        object.__setattr__(self, "places", tuple(c_void_p(array.ctypes.data) for array in (self.slots, self.bounds, self.others)))


def as_float32(x: npt.ArrayLike) -> Array32:
    """Return `x` as float32 elements in the order of its indices, itself if it is that; what overflows becomes an infinity."""
    array = np.asarray(x)
    if array.dtype == np.float32 and array.dtype.isnative and array.flags.c_contiguous:
        return array
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return np.ascontiguousarray(array, np.float32)


def count_in_numpy(values: Array32, tally: Tally) -> None:
    """Add `values` (n,) to `tally`."""
    for start in range(0, values.size, CHUNK):
        chunk = values[start : start + CHUNK]
        counts = np.bincount(chunk.view(np.uint32) >> 16, minlength=KEYS)
        keys = np.flatnonzero(counts > 0)  # to add zeros would touch every page
        tally.slots[keys, 0] += counts[keys].astype(np.uint32)
        lo, hi = chunk.min(), chunk.max()
        if not (np.isfinite(lo) and np.isfinite(hi)):  # a NaN makes both NaN
            tally.others[:] += np.isnan(chunk).sum(), np.isinf(chunk).sum()
            chunk = chunk[np.isfinite(chunk)]
            lo, hi = chunk.min(initial=np.inf), chunk.max(initial=-np.inf)
        tally.bounds[:] = min(tally.bounds[0], lo), max(tally.bounds[1], hi)


def count_compiled(values: Array32, tally: Tally) -> None:
    """Add `values` (n,) to `tally`, in compiled code."""
    assert library is not None
    library.zeropoint_count(c_void_p(values.ctypes.data), c_int64(values.size), *tally.places)


count: Callable[[Array32, Tally], None] = count_in_numpy if library is None else count_compiled
