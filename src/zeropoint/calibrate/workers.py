"""Share the blocks of the data out to processes, each with a session of its own; what they saw is merged here."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from time import monotonic, sleep

from zeropoint.calibrate.streams import Crew, observe_blocks
from zeropoint.data import Batches
from zeropoint.errors import DataError, ZeropointError
from zeropoint.graph.taps import Tapped, TappedSession
from zeropoint.statistics.network import Statistics
from zeropoint.statistics.observation import NetworkObservation

CHUNKS = 4  # for each worker: the last ones to finish wait for little
LONGEST_CHUNK = 64  # blocks between two looks at the progress
LOOK = 1.0  # seconds between two looks at whether all processes are alive
PATIENCE = 5.0  # seconds that they have to end


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
        DataError: the data cannot be sent to another process, a sample cannot be read, or a process does not start or ends too early.
        ModelError: the network fails on one.
    """
    try:
        pickled = pickle.dumps(job)
    except Exception as error:  # pickling runs code of the user's data set
        raise DataError(
            f"data: found samples that cannot be sent to another process ({error}), expected a folder, a file, or what Python can pickle; "
            "calibrate with one worker, which uses all cores too"
        ) from None
    chunks = chunks_of(blocks, workers)
    pending = iter(chunks)
    team: list[_Worker] = []
    try:
        with _interrupts_ignored():  # by the processes, which inherit it
            for _ in range(min(workers, len(chunks))):
                team.append(_Worker(pickled))
        busy = [*team]
        while busy:
            for worker in _heard(busy):
                done, seen = worker.answer()
                chunk = next(pending, None)
                if chunk is None:
                    worker.pipe.close()
                    busy.remove(worker)
                else:
                    worker.ask(chunk)
                if seen is not None:
                    yield done, seen
    finally:
        _end(team)


def chunks_of(blocks: Sequence[int], workers: int) -> list[Sequence[int]]:
    """Return `blocks` in chunks, several for each worker.

    Example:
        >>> chunks_of(range(10), 2)
        [range(0, 2), range(2, 4), range(4, 6), range(6, 8), range(8, 10)]
    """
    size = max(1, min(LONGEST_CHUNK, -(-len(blocks) // (CHUNKS * workers))))
    return [blocks[start : start + size] for start in range(0, len(blocks), size)]


class _Worker:
    """A process, and a pipe of its own to it: where one ends amidst an answer, the others do not wait for the rest.

    Its first answer says that it has started. Only then it is told its job: writing to a process that never reads may take forever.
    """

    def __init__(self, pickled: bytes) -> None:
        context = multiprocessing.get_context("spawn")  # forking would copy locks that threads of the runtime hold
        self._pickled: bytes | None = pickled
        self._chunk: Sequence[int] = ()
        try:
            self.pipe, theirs = context.Pipe()
            self.process = context.Process(target=_serve, args=(theirs,))
            with theirs:
                self.process.start()
        except OSError as error:
            raise DataError(f"workers: a process cannot be started ({error}), expected all to start; use fewer workers") from None

    def ask(self, chunk: Sequence[int]) -> None:
        """Ask for what is seen in some blocks."""
        self._chunk = chunk
        with suppress(OSError):  # it has ended, which is told where its answer is due
            if self._pickled is not None:
                self.pipe.send_bytes(self._pickled)
                self._pickled = None
            self.pipe.send(chunk)

    def answer(self) -> tuple[Sequence[int], Statistics | None]:
        """Wait for the answer, and return it with what was asked for; None where nothing was."""
        try:
            seen = self.pipe.recv()
        except (EOFError, OSError):
            raise self.ended() from None
        if isinstance(seen, ZeropointError):
            raise seen
        return self._chunk, seen

    def ended(self) -> DataError:
        """Return an error that says so."""
        self.process.join(1)
        return DataError(
            f"workers: a process ended before its work was done, perhaps for lack of memory (exit code {self.process.exitcode}); expected "
            "all to finish; use fewer workers"
        )


def _heard(team: Sequence[_Worker]) -> list[_Worker]:
    """Wait until some have answered, and return these."""
    while not (ready := wait([worker.pipe for worker in team], LOOK)):
        for worker in team:  # a pipe stays open where a data set has forked a process that lives on
            if not worker.process.is_alive() and not worker.pipe.poll():
                raise worker.ended()
    return [worker for worker in team if worker.pipe in ready]


def _end(team: Sequence[_Worker]) -> None:
    """End all processes; what those are at that still have a pipe is of no use any more."""
    with _interrupts_ignored():  # a second one must not leave some behind that wait for work
        for worker in team:
            if not worker.pipe.closed:
                worker.process.terminate()
                worker.pipe.close()
    patience = monotonic() + PATIENCE
    while any(worker.process.is_alive() for worker in team) and monotonic() < patience:
        sleep(0.01)  # joining for a time would also wait for what a data set has forked
    for worker in team:
        worker.process.kill()
        worker.process.join()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    # No other thread may say so, nor hears them; and a handler that was not set from Python cannot be set from there again.
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(pipe: Connection) -> None:
    """Say that this process is there, and answer with what is seen in the blocks that are asked for: to the first error, or the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which not every system hands on to it
    with pipe, suppress(EOFError, ConnectionError):
        pipe.send(None)
        pickled, blocks = pipe.recv_bytes(), pipe.recv()
        try:
            job = _loaded(pickled)
            session = job.tapped.open(threads=job.crew.threads, provider=job.provider)
            while True:
                pipe.send(job.observe(session, blocks))
                blocks = pipe.recv()
        except ZeropointError as error:
            pipe.send(error)


def _loaded(pickled: bytes) -> Job:
    try:
        job: Job = pickle.loads(pickled)
    except ZeropointError:
        raise
    except Exception as error:  # unpickling runs code of the user's data set
        raise DataError(
            f"data: found samples that another process cannot load ({type(error).__name__}: {error}), expected what Python can import "
            "there; calibrate with one worker, which uses all cores too"
        ) from None
    return job
