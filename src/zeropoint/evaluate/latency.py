"""Time networks against each other, interleaved, so that a change in the machine's pace meets them all."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zeropoint.evaluate.energy import joules_per_run
from zeropoint.progress import Progress, silent
from zeropoint.runtime.energy import Meter

ROUNDS = 16  # each network begins as many as the other
SETTLE_SECONDS = 0.02  # lets the other session's spinning worker threads go to sleep before this one is timed
SHORTEST_BURST = 0.03
Run = Callable[[], object]  # a single inference
Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Milliseconds for one feed; ratio is the median of the rounds' quantized / float, below 1 is faster.

    float_ms is the median of the rounds, and quantized_ms what the ratio makes of it: on a machine whose pace changes, the two medians
    would be of different moments. float_joules, quantized_joules: for one run, None where the machine has no counter that may be read.
    """

    runtime: str
    float_ms: float
    quantized_ms: float
    ratio: float
    rounds: int
    float_joules: float | None = None
    quantized_joules: float | None = None


def compare_latency(float_run: Run, quantized_run: Run, *, runtime: str, rounds: int = ROUNDS, meter: Meter | None = None) -> Latency:
    """Return the latency of both callables, each a single inference on the same feed; with a `meter`, their energy too."""
    repeats = repeats_for(pace(float_run), SHORTEST_BURST)
    bursts = take_turns((float_run, quantized_run), repeats=(repeats, repeats), rounds=rounds)
    times = burst_medians(bursts)  # (2, rounds)
    float_ms, ratio = 1e3 * float(np.median(times[0])), median_ratio(times[1], times[0])
    joules = [None, None] if meter is None else joules_per_run((float_run, quantized_run), meter)
    return Latency(
        runtime=runtime,
        float_ms=float_ms,
        quantized_ms=float_ms * ratio,
        ratio=ratio,
        rounds=rounds,
        float_joules=joules[0],
        quantized_joules=joules[1],
    )


def pace(run: Run, *, calls: int = 1) -> float:
    """Return about how many seconds a call takes where nothing disturbs it: the least of `calls`, behind one that is not timed."""
    return max(float(_burst(run, calls).min()), 1e-6)


def repeats_for(seconds_of_call: float, seconds: float) -> int:
    """Return how many calls take about `seconds`, at least 1."""
    return max(1, int(seconds / seconds_of_call))


def take_turns(
    runs: Sequence[Run], *, repeats: Sequence[int], rounds: int, progress: Progress = silent, stage: str = "timing"
) -> list[list[Seconds]]:
    """Return the seconds of each call, by run and round: in a round each of `runs` is called `repeats` times in a row.

    Each round begins with the run that was second in the one before: on a machine that slows down, who comes later is slower, and so that
    is nobody in particular, where the number of rounds is a multiple of that of the runs.
    """
    bursts: list[list[Seconds]] = [[] for _ in runs]
    for turn in range(rounds):
        for place in range(len(runs)):
            which = (turn + place) % len(runs)
            bursts[which].append(_burst(runs[which], repeats[which]))
        progress(stage, turn + 1, rounds)
    return bursts


def burst_medians(bursts: Sequence[Sequence[Seconds]]) -> Seconds:
    """Return the median seconds of a call for each run and round, of shape (runs, rounds)."""
    return np.array([[float(np.median(burst)) for burst in of_run] for of_run in bursts])


def median_ratio(times: Seconds, baseline: Seconds) -> float:
    """Return the median ratio of two networks' times in the same rounds; of an even number the two in the middle are averaged as factors.

    Where each begins every other round of a machine that slows down, half of the ratios are too large by a factor, and half too small.
    """
    return float(np.exp(np.median(np.log(times / baseline))))


def balanced_rounds(seconds: float, burst: float, *, runs: int, least: int) -> int:
    """Return in how many rounds `runs` bursts of up to `burst` seconds each take about `seconds` for each run: a multiple of `runs`."""
    wanted = max(least, seconds / (burst + SETTLE_SECONDS))
    return runs * math.ceil(wanted / runs)


def _burst(run: Run, repeats: int) -> Seconds:
    """Seconds of each of `repeats` calls, after a pause and one call that is not timed."""
    time.sleep(SETTLE_SECONDS)
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return np.array(seconds)
