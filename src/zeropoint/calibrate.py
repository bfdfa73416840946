"""Run data through the network and reduce what its tensors hold to statistics, a feed at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from zeropoint.data.inputs import Feed
from zeropoint.graph.facts import open_tapped
from zeropoint.graph.model import Model
from zeropoint.statistics.channel_sums import observe_channels
from zeropoint.statistics.network import Statistics, merge_statistics
from zeropoint.statistics.tensor import EMPTY, observe

Progress = Callable[[str, int, int], None]  # stage, steps done, steps in all


def silent(stage: str, done: int, total: int) -> None:
    """Report no progress."""


def calibrate(
    model: Model,
    tensors: Sequence[str],
    feeds: Iterable[Feed],
    *,
    channel_axes: Sequence[tuple[str, int]] = (),
    total: int,
    progress: Progress = silent,
) -> Statistics:
    """Return a statistic for each of `tensors` over all `feeds`; memory holds one feed's tensors at a time.

    channel_axes: tensors whose channel means are wanted too, each with the axis of its channels. `total` is the number of feeds,
    for `progress` alone.
    """
    inputs = {str(value.name) for value in model.graph.inputs}
    computed = [name for name in dict.fromkeys([*tensors, *(name for name, _ in channel_axes)]) if name not in inputs]
    session = open_tapped(model, computed, optimize=False)
    seen = Statistics(dict.fromkeys(tensors, EMPTY), {})
    for done, feed in enumerate(feeds, start=1):
        arrays = {**feed, **session.run(feed, computed)}
        ranges = {name: observe(arrays[name]) for name in tensors}
        means = {(name, axis): observe_channels(arrays[name], axis) for name, axis in channel_axes}
        seen = merge_statistics(seen, Statistics(ranges, means))
        progress("calibrating", done, total)
    return seen
