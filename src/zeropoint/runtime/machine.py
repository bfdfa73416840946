"""What this machine has to offer. Owns psutil."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

_C_LIBRARY = ctypes.CDLL(None) if sys.platform == "linux" else None


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resident_bytes() -> int:
    """Return how much memory this process takes now."""
    return int(psutil.Process().memory_info().rss)


def memory_bytes() -> int:
    """Return how much memory the machine has."""
    return int(psutil.virtual_memory().total)


def available_bytes() -> int:
    """Return how much memory programs could still take."""
    return int(psutil.virtual_memory().available)


def return_freed_memory() -> None:
    """Give back to the system what was freed, of which the GNU C library would keep most for later; elsewhere do nothing."""
    trim = getattr(_C_LIBRARY, "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let numpy's products and factorizations run on the thread that asks for them, where its OpenBLAS is the one of its own wheels.

    Else its threads wait for each other by spinning: a Cholesky factor of 384 columns took 250 times as long on a machine with other work.
    With one thread results do not depend on the number of processors, either.
    """
    found = [*(Path(np.__file__).parent.parent / "numpy.libs").glob("*openblas*")]
    library = ctypes.CDLL(str(found[0])) if len(found) == 1 else None
    threads = getattr(library, "scipy_openblas_get_num_threads64_", None)
    limit = getattr(library, "scipy_openblas_set_num_threads64_", None)
    before = None if threads is None or limit is None else int(threads())
    if limit is not None and before is not None:
        limit(1)
    try:
        yield
    finally:
        if limit is not None and before is not None:
            limit(before)
