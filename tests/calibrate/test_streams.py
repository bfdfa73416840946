from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from tests.calibrate.subjects import ELEMENTWISE, ROWS, all_taps, seen_bytes, subject

from zeropoint.calibrate.streams import WAITING, Crew, observe_blocks
from zeropoint.errors import DataError, ModelError
from zeropoint.graph.taps import TappedSession, tap
from zeropoint.statistics.observation import NetworkObservation

SUBJECT = subject(ELEMENTWISE, ROWS)
TAPS = all_taps(SUBJECT)
CREWS = [Crew(1), Crew(2), Crew(4), Crew(1, 2), Crew(2, 3)]
every_crew = pytest.mark.parametrize("crew", CREWS, ids=lambda crew: f"{crew.streams} streams of {crew.threads} threads")


@dataclass
class Watched:
    """Batches that are told apart by who reads them and when."""

    delay: float = 0.0
    fails_at: int | None = None
    read: list[int] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __getitem__(self, block: int) -> Any:
        with self.lock:
            self.read.append(block)
            self.threads.add(threading.get_ident())
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self.delay)
        with self.lock:
            self.at_once -= 1
        if block == self.fails_at:
            raise DataError(f"sample {block} is broken")
        return SUBJECT.batches[block]


def session() -> TappedSession:
    return tap(SUBJECT.model, TAPS, SUBJECT.facts).open(threads=1)


def observation() -> NetworkObservation:
    return NetworkObservation(TAPS.tensors)


def observed(batches: Any, blocks: Any, crew: Crew) -> tuple[list[int], bytes]:
    seen = observation()
    done = list(observe_blocks(session(), batches, blocks, seen, crew=crew))
    return done, seen_bytes(seen.statistics())


@every_crew
def test_every_block_is_observed_once_whatever_the_crew(crew: Crew) -> None:
    done, found = observed(SUBJECT.batches, range(24), crew)
    assert sorted(done) == list(range(24))
    assert found == observed(SUBJECT.batches, range(24), Crew(1))[1]


@every_crew
def test_only_the_blocks_asked_for_are_read(crew: Crew) -> None:
    watched = Watched()
    assert sorted(observed(watched, iter([5, 2, 11]), crew)[0]) == [2, 5, 11] == sorted(watched.read)


@every_crew
def test_no_blocks_give_nothing(crew: Crew) -> None:
    assert observed(SUBJECT.batches, [], crew)[0] == []


@pytest.mark.parametrize("count", [1, 2, 3])
def test_as_many_batches_run_at_once_as_there_are_streams(count: int) -> None:
    watched = Watched(delay=0.01)
    observed(watched, range(12), Crew(count))
    assert watched.most_at_once == len(watched.threads) == count


@pytest.mark.parametrize("count", [1, 2, 4])
def test_blocks_are_handed_out_only_a_little_ahead(count: int) -> None:
    """What a slow caller has not taken in yet holds back what is read."""
    handed: list[int] = []
    most_ahead = 0

    def blocks() -> Iterator[int]:
        for block in range(24):
            handed.append(block)
            yield block

    for done, _ in enumerate(observe_blocks(session(), SUBJECT.batches, blocks(), observation(), crew=Crew(count))):
        time.sleep(0.002)
        most_ahead = max(most_ahead, len(handed) - done)
    assert len(handed) == 24
    assert most_ahead <= WAITING * count


@every_crew
@pytest.mark.parametrize("at", [0, 5, 23])
def test_an_error_in_one_batch_stops_the_run(at: int, crew: Crew) -> None:
    watched = Watched(fails_at=at)
    with pytest.raises(DataError, match=f"sample {at} is broken"):
        observed(watched, range(24), crew)
    assert len(watched.read) <= at + 1 + 2 * WAITING * crew.streams  # what was handed out, and in the place of what is done


@every_crew
def test_an_error_of_the_network_is_raised(crew: Crew) -> None:
    class Wrong:
        def __getitem__(self, block: int) -> Any:
            return [{"x": np.zeros((1, 3), np.float32)}] if block == 3 else SUBJECT.batches[block]

    with pytest.raises(ModelError, match="cannot run the model on x float32"):
        observed(Wrong(), range(24), crew)


@pytest.mark.parametrize("method", ["add", "add_means"])
@every_crew
def test_an_error_in_counting_is_raised(crew: Crew, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise DataError("cannot be counted")

    monkeypatch.setattr(NetworkObservation, method, fails)
    with pytest.raises(DataError, match="cannot be counted"):
        observed(SUBJECT.batches, range(24), crew)


def test_who_stops_early_waits_for_no_block_that_has_not_begun() -> None:
    watched = Watched(delay=0.02)
    blocks = observe_blocks(session(), watched, range(24), observation(), crew=Crew(2))  # type: ignore[arg-type]
    next(blocks)
    blocks.close()  # type: ignore[attr-defined]
    began = len(watched.read)
    assert began <= 1 + 2 * WAITING
    time.sleep(0.05)
    assert len(watched.read) == began


def test_a_stream_of_several_threads_counts_several_tensors_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counting: set[int] = set()
    real = NetworkObservation.add

    def spy(self: NetworkObservation, tensor: str, array: Any) -> None:
        counting.add(threading.get_ident())
        time.sleep(0.002)
        real(self, tensor, array)

    monkeypatch.setattr(NetworkObservation, "add", spy)
    observed(SUBJECT.batches, range(4), Crew(1, 3))
    assert len(counting) == 3
    counting.clear()
    observed(SUBJECT.batches, range(4), Crew(1, 1))
    assert len(counting) == 1
