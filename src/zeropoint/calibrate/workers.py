"""Share the blocks of the data out to processes, each with a session of its own; what they saw is merged here."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

from zeropoint.calibrate.streams import Crew, observe_blocks
from zeropoint.data import Batches
from zeropoint.errors import DataError, ZeropointError
from zeropoint.graph.taps import Tapped, TappedSession
from zeropoint.statistics.network import Statistics
from zeropoint.statistics.observation import NetworkObservation

CHUNKS = 4  # for each worker: the last ones to finish wait for little
LONGEST_CHUNK = 64  # blocks between two looks at the progress


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


def observe_in_processes(job: Job, blocks: Sequence[int], *, workers: int) -> Iterator[tuple[Sequence[int], Statistics]]:
    """Yield what was seen, in chunks of `blocks`, in any order.

    Raises:
        DataError: the data cannot be sent to another process, or a sample cannot be read.
        ModelError: the network fails on one.
    """
    try:
        pickled = pickle.dumps(job)
    except Exception as error:  # pickling runs code of the user's data set
        raise DataError(
            f"data: found samples that cannot be sent to another process ({error}), expected a folder, a file, or what Python can pickle; "
            "calibrate with one worker, which uses all cores too"
        ) from None
    size = max(1, min(LONGEST_CHUNK, -(-len(blocks) // (CHUNKS * workers))))
    chunks = [blocks[start : start + size] for start in range(0, len(blocks), size)]
    # Forking would copy locks that threads of the runtime hold.
    context = multiprocessing.get_context("spawn")
    others = {*multiprocessing.active_children()}
    ours: set[BaseProcess] = set()
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(pickled,)) as pool:
        try:
            with _interrupts_ignored():  # by the processes, which inherit it
                running = {pool.submit(_observe, chunk): chunk for chunk in chunks}
                ours = {*multiprocessing.active_children()} - others
            for future in as_completed(running):
                yield running[future], future.result()
        except BrokenProcessPool:
            raise DataError(
                "workers: a process ended before its work was done, perhaps for lack of memory; expected all to finish; use fewer workers"
            ) from None
        except BaseException:  # what they are at is of no use any more
            for process in ours:
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


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


_started: list[tuple[Job, TappedSession] | ZeropointError] = []  # of this worker process: one entry, once it has started


def _start(pickled: bytes) -> None:
    try:
        job: Job = pickle.loads(pickled)
        _started.append((job, job.tapped.open(threads=job.crew.threads, provider=job.provider)))
    except ZeropointError as error:  # raised here it would only break the pool; the first chunk reports it
        _started.append(error)
    except Exception as error:  # unpickling runs code of the user's data set
        reason = f"{type(error).__name__}: {error}"
        _started.append(
            DataError(
                f"data: found samples that another process cannot load ({reason}), expected what Python can import there; calibrate with "
                "one worker, which uses all cores too"
            )
        )


def _observe(blocks: Sequence[int]) -> Statistics:
    started = _started[0]
    if isinstance(started, ZeropointError):
        raise started
    job, session = started
    return job.observe(session, blocks)
