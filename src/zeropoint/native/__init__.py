"""Loops compiled from the C files beside this one, for the places where numpy or PyTorch need several passes over memory.

The installation compiles them if it finds a C compiler; without one `library` is None, and each caller does the same work without it,
to the same bits (but for the rounding of the sums in gradients of scales). They are called by ctypes, which lets other threads run
meanwhile, and need no header of Python's: one file serves every version of it.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

FILE = Path(__file__).with_name("kernels.so")
FUNCTIONS = (
    *("zeropoint_count", "zeropoint_add_rows", "zeropoint_code_sums", "zeropoint_run_sums", "zeropoint_least_error"),
    *("zeropoint_quantize_rows", "zeropoint_quantize_columns", "zeropoint_gradients_of_rows", "zeropoint_gradients_of_columns"),
)


def _load() -> ctypes.CDLL | None:
    try:
        found = ctypes.CDLL(str(FILE))
    except OSError:  # not compiled here, or for another machine
        return None
    if not all(hasattr(found, name) for name in FUNCTIONS):  # of an older source
        return None
    found.zeropoint_add_rows.restype = ctypes.c_int64  # the others return nothing
    return found


library = _load()
