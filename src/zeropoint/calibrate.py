"""Run data through the network and reduce what its tensors hold to statistics, a feed at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from zeropoint.data.inputs import Feed
from zeropoint.graph.facts import open_tapped
from zeropoint.graph.model import Model
from zeropoint.statistics.tensor import EMPTY, TensorStatistic, merge, observe

Progress = Callable[[str, int, int], None]  # stage, steps done, steps in all


def silent(stage: str, done: int, total: int) -> None:
    """Report no progress."""


def calibrate(
    model: Model, tensors: Sequence[str], feeds: Iterable[Feed], *, total: int, progress: Progress = silent
) -> dict[str, TensorStatistic]:
    """Return a statistic for each of `tensors` over all `feeds`; memory holds one feed's tensors at a time.

    `total` is the number of feeds, for `progress` alone.
    """
    inputs = {str(value.name) for value in model.graph.inputs}
    computed = [name for name in tensors if name not in inputs]
    session = open_tapped(model, computed, optimize=False)
    statistics = dict.fromkeys(tensors, EMPTY)
    for done, feed in enumerate(feeds, start=1):
        arrays = {**feed, **session.run(feed, computed)}
        for name in tensors:
            statistics[name] = merge(statistics[name], observe(arrays[name]))
        progress("calibrating", done, total)
    return statistics
