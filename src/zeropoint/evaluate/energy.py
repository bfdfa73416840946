"""What a run takes, in joules, where the machine counts them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from zeropoint.runtime.energy import Meter

STRETCH_SECONDS = 0.25  # counters of processors are brought up to date a thousand times a second
TURNS = 2
SETTLE_SECONDS = 0.02


def joules_per_run(runs: Sequence[Callable[[], object]], meter: Meter, *, seconds: float = STRETCH_SECONDS) -> list[float]:
    """Return the joules of a call of each of `runs`, which take turns of `seconds`: all that is counted meanwhile, idling included."""
    spent, calls = [0.0] * len(runs), [0] * len(runs)
    for _ in range(TURNS):
        for which, run in enumerate(runs):
            time.sleep(SETTLE_SECONDS)
            run()
            before, end = meter.read(), time.perf_counter() + seconds
            while time.perf_counter() < end:
                run()
                calls[which] += 1
            spent[which] += meter.joules(before, meter.read())
    return [joules / count for joules, count in zip(spent, calls, strict=True)]
