"""Time two networks against each other, interleaved, so that a change in the machine's pace meets both."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

ROUNDS = 15
SETTLE_SECONDS = 0.02  # lets the other session's spinning worker threads go to sleep before this one is timed
SHORTEST_BURST = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Milliseconds for one feed; ratio is the median of the rounds' quantized / float, below 1 is faster.

    float_ms is the median of the rounds, and quantized_ms what the ratio makes of it: on a machine whose pace changes, the two medians
    would be of different moments.
    """

    runtime: str
    float_ms: float
    quantized_ms: float
    ratio: float
    rounds: int


def compare_latency(float_run: Callable[[], object], quantized_run: Callable[[], object], *, runtime: str, rounds: int = ROUNDS) -> Latency:
    """Return the latency of both callables, each a single inference on the same feed."""
    repeats = max(1, int(SHORTEST_BURST / max(_burst(float_run, 1), 1e-6)))
    times = np.array([[_burst(run, repeats) for run in (float_run, quantized_run)] for _ in range(rounds)])  # (rounds, 2)
    float_ms, ratio = 1e3 * float(np.median(times[:, 0])), float(np.median(times[:, 1] / times[:, 0]))
    return Latency(runtime=runtime, float_ms=float_ms, quantized_ms=float_ms * ratio, ratio=ratio, rounds=rounds)


def _burst(run: Callable[[], object], repeats: int) -> float:
    """Seconds for one call: the median of `repeats`, after a pause and one call that is not timed."""
    time.sleep(SETTLE_SECONDS)
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))
