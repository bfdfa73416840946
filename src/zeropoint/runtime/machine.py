"""What this machine has to offer. Owns psutil."""

from __future__ import annotations

import ctypes
import os
import sys

import psutil

_C_LIBRARY = ctypes.CDLL(None) if sys.platform == "linux" else None


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resident_bytes() -> int:
    """Return how much memory this process takes now."""
    return int(psutil.Process().memory_info().rss)


def available_bytes() -> int:
    """Return how much memory programs could still take."""
    return int(psutil.virtual_memory().available)


def return_freed_memory() -> None:
    """Give back to the system what was freed, of which the GNU C library would keep most for later; elsewhere do nothing."""
    trim = getattr(_C_LIBRARY, "malloc_trim", None)
    if trim is not None:
        trim(0)
