"""Run several batches at once, each on a thread of its own: it reads its batch, runs the network on it, and counts what it sees.

One batch to a processor keeps processors busier than all of them on one batch: nothing waits for the slowest part of an operator, and
decoding, running and counting of different batches overlap by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice

from zeropoint.data import Batches, Feed
from zeropoint.graph.taps import TappedSession
from zeropoint.statistics.observation import NetworkObservation

WAITING = 2  # blocks that are handed out for each stream, so that none waits for the next


@dataclass(frozen=True, slots=True)
class Crew:
    """How many batches run at once, and how many threads each of them has."""

    streams: int
    threads: int = 1


def observe_blocks(
    session: TappedSession, batches: Batches, blocks: Iterable[int], observation: NetworkObservation, *, crew: Crew
) -> Iterator[int]:
    """Add what is seen in `blocks` of the data to `observation`, and yield each of them once it is in.

    The session has its threads already; where a stream has several, they count several tensors at once.

    Raises:
        DataError: a sample cannot be read or does not fit.
        ModelError: the network fails on one.
    """

    def observe(block: int) -> int:
        for feed in batches[block]:
            _observe(session, feed, observation, counters if crew.threads > 1 else None)
        return block

    pending, most = iter(blocks), WAITING * crew.streams
    running: set[Future[int]] = set()
    with ThreadPoolExecutor(crew.streams) as executor, ThreadPoolExecutor(crew.streams * crew.threads) as counters:
        try:
            while running := running | {executor.submit(observe, block) for block in islice(pending, most - len(running))}:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in finished)
        finally:
            executor.shutdown(cancel_futures=True)


def _observe(session: TappedSession, feed: Feed, observation: NetworkObservation, counters: Executor | None) -> None:
    seen = session.run(feed)
    observation.add_means(seen.channels)
    if counters is not None:
        for _ in counters.map(observation.add, seen.tensors, seen.tensors.values()):
            pass
        return
    while seen.tensors:  # each is let go of when it was counted: another stream may need its memory
        observation.add(*seen.tensors.popitem())
