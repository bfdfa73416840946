"""Divide the taps of a network into passes over the data that each fit into the memory there is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from zeropoint.graph.facts import Facts
from zeropoint.graph.model import Model
from zeropoint.graph.store import weight_bytes
from zeropoint.graph.taps import Taps, peak_bytes
from zeropoint.runtime.machine import available_bytes, resident_bytes

STREAM_BYTES = 125_000_000  # for each core, where no budget is named: batches that take more do not all run at once
STATISTIC_BYTES = 300_000  # of a tensor: the pages of its counts that are touched, what is made of them, and the sums of its channels
SPARE = 1.8  # ONNX Runtime's allocator rounds up, and its operators need room of their own: 1.5 to 1.8 were measured
SHARE_OF_FREE = 0.5


@dataclass(frozen=True, slots=True)
class Schedule:
    """What is tapped in each pass over the data, and how many batches run at once.

    estimate: the most bytes that the process will take, about; budget: what it may take.
    """

    passes: tuple[Taps, ...]
    streams: int
    estimate: int
    budget: int


def schedule(model: Model, facts: Facts, taps: Taps, *, streams: int, budget: int | None) -> Schedule:
    """Return the fewest passes that keep to `budget`, with as many of `streams` as it then has room for.

    Without a budget a pass may take half of the free memory, and all streams together 125 MB for each that there could be. What the
    largest tensor needs is taken whether it fits or not.
    """
    held = resident_bytes() + weight_bytes(model) + STATISTIC_BYTES * len(taps.tensors)
    limit = held + int(SHARE_OF_FREE * available_bytes()) if budget is None else budget

    def needed(tensors: Sequence[str]) -> int:
        return int(SPARE * peak_bytes(model, facts, frozenset(tensors)))

    groups: list[list[str]] = [[*taps.tensors]]
    if needed(taps.tensors) > limit - held:
        room = max([limit - held, *(needed([tensor]) for tensor in taps.tensors)])  # the largest of them is needed whatever the budget
        groups = [[]]
        for tensor in taps.tensors:
            if needed([*groups[-1], tensor]) > room:
                groups.append([])
            groups[-1].append(tensor)
    most = max(map(needed, groups))
    shared = STREAM_BYTES * streams if budget is None else limit - held
    used = max(1, min(streams, shared // max(1, most))) if len(groups) == 1 else 1
    return Schedule(tuple(_with_channels(groups, taps)), used, held + used * most, limit)


def _with_channels(groups: Sequence[Sequence[str]], taps: Taps) -> Iterator[Taps]:
    """Take the means of channels where their tensor is tapped, or else in the last pass, which computes most anyway."""
    pass_of = {tensor: number for number, group in enumerate(groups) for tensor in group}
    for number, group in enumerate(groups):
        yield Taps(tuple(group), tuple(c for c in taps.channels if pass_of.get(c[0], len(groups) - 1) == number))
