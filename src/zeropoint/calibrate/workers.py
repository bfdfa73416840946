"""Share the blocks of the data out to processes, each with a session of its own; what they saw is merged here."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from zeropoint.calibrate.streams import Crew, observe_blocks
from zeropoint.data import Batches
from zeropoint.errors import DataError, ZeropointError
from zeropoint.graph.taps import Tapped, TappedSession
from zeropoint.statistics.network import Statistics
from zeropoint.statistics.observation import NetworkObservation

CHUNKS = 4  # for each worker: the last ones to finish wait for little
LONGEST_CHUNK = 64  # blocks between two looks at the progress
PATIENCE = 10.0  # seconds that a process has to end


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What every worker needs: the network in a file, the data, and how it shall run."""

    tapped: Tapped
    batches: Batches
    crew: Crew
    provider: str

    def observe(self, session: TappedSession, blocks: Sequence[int]) -> Statistics:
        """Return what is seen in `blocks`."""
        observation = NetworkObservation(self.tapped.outputs)
        for _ in observe_blocks(session, self.batches, blocks, observation, crew=self.crew):
            pass
        return observation.statistics()


def observe_in_processes(job: Job, blocks: Sequence[int], *, workers: int) -> Generator[tuple[Sequence[int], Statistics], None, None]:
    """Yield what was seen, in chunks of `blocks`, in any order.

    Raises:
        DataError: the data cannot be sent to another process, a sample cannot be read, or a process ended before its work was done.
        ModelError: the network fails on one.
    """
    try:
        pickled = pickle.dumps(job)
    except Exception as error:  # pickling runs code of the user's data set
        raise DataError(
            f"data: found samples that cannot be sent to another process ({error}), expected a folder, a file, or what Python can pickle; "
            "calibrate with one worker, which uses all cores too"
        ) from None
    chunks = shares(blocks, workers)
    crew: list[_Worker] = []
    try:
        with _interrupts_ignored():  # by the processes, which inherit it
            for _ in range(min(workers, len(chunks))):
                crew.append(_Worker(pickled))
        pending = iter(chunks)
        for worker, chunk in zip(crew, pending, strict=False):
            worker.begin(chunk)
        busy = [*crew]
        while busy:
            ready = wait([worker.pipe for worker in busy])
            for worker in [one for one in busy if one.pipe in ready]:
                done, seen = worker.finish()
                following = next(pending, None)
                if following is None:
                    busy.remove(worker)
                else:
                    worker.begin(following)
                yield done, seen
    finally:
        for worker in crew:
            worker.dismiss()
        for worker in crew:
            worker.join()


def shares(blocks: Sequence[int], workers: int) -> list[Sequence[int]]:
    """Return `blocks` in chunks, several for each worker.

    Example:
        >>> shares(range(10), 2)
        [range(0, 2), range(2, 4), range(4, 6), range(6, 8), range(8, 10)]
    """
    size = max(1, min(LONGEST_CHUNK, -(-len(blocks) // (CHUNKS * workers))))
    return [blocks[start : start + size] for start in range(0, len(blocks), size)]


class _Worker:
    """A process, and a pipe to it that no other has: where one ends amidst an answer, that is the end of its pipe, and nobody waits."""

    def __init__(self, pickled: bytes) -> None:
        context = multiprocessing.get_context("spawn")  # forking would copy locks that threads of the runtime hold
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, pickled))
        self._chunk: Sequence[int] | None = None
        with theirs, _ended_is_an_error():
            self._process.start()

    def begin(self, chunk: Sequence[int]) -> None:
        """Ask for what is seen in some blocks."""
        self._chunk = chunk
        with _ended_is_an_error():
            self.pipe.send(chunk)

    def finish(self) -> tuple[Sequence[int], Statistics]:
        """Wait for the answer, and return what was asked for with it."""
        with _ended_is_an_error():
            answer = self.pipe.recv()
        if isinstance(answer, ZeropointError):
            raise answer
        assert self._chunk is not None
        done, self._chunk = self._chunk, None
        return done, answer

    def dismiss(self) -> None:
        """Let the process end; what it is at is of no use any more."""
        self.pipe.close()
        if self._chunk is not None:
            self._process.terminate()

    def join(self) -> None:
        """Wait for the end of the process, and see to it where that takes too long."""
        self._process.join(PATIENCE)
        self._process.kill()
        self._process.join()


@contextmanager
def _ended_is_an_error() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError):
        raise DataError(
            "workers: a process ended before its work was done, perhaps for lack of memory; expected all to finish; use fewer workers"
        ) from None


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # no other thread may say so, nor hears them
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        if before is not None:  # one that was not set from Python cannot be set from there again
            signal.signal(signal.SIGINT, before)


def _serve(pipe: Connection, pickled: bytes) -> None:
    """Answer with what is seen in the blocks that are asked for, one chunk after the other, until nobody asks any more."""
    observe = _observer(pickled)
    with pipe, suppress(EOFError, BrokenPipeError):
        while True:
            pipe.send(observe(pipe.recv()))


def _observer(pickled: bytes) -> Callable[[Sequence[int]], Statistics | ZeropointError]:
    """Return what observes some blocks, or tells why it cannot."""
    try:
        job: Job = pickle.loads(pickled)
        session = job.tapped.open(threads=job.crew.threads, provider=job.provider)
    except ZeropointError as error:
        why: ZeropointError = error
        return lambda _: why
    except Exception as error:  # unpickling runs code of the user's data set
        why = DataError(
            f"data: found samples that another process cannot load ({type(error).__name__}: {error}), expected what Python can import "
            "there; calibrate with one worker, which uses all cores too"
        )
        return lambda _: why

    def observed(blocks: Sequence[int]) -> Statistics | ZeropointError:
        try:
            return job.observe(session, blocks)
        except ZeropointError as error:
            return error

    return observed
