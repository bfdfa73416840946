"""Observe the taps of a network on all of the data: in passes, streams or processes, from where a checkpoint left off."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from functools import reduce
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Protocol

from zeropoint.autograd.devices import device_name, is_device
from zeropoint.autograd.running import DeviceRun
from zeropoint.calibrate.passes import Schedule, schedule
from zeropoint.calibrate.resources import Resources
from zeropoint.calibrate.saved import Part, Saved, Source, load_statistics, save_statistics
from zeropoint.calibrate.streams import Crew, observe_blocks
from zeropoint.calibrate.workers import Job, observe_in_processes
from zeropoint.data import Batches
from zeropoint.errors import DataError
from zeropoint.graph.facts import Facts
from zeropoint.graph.model import Model
from zeropoint.graph.taps import Tapped, Taps, divide, tap
from zeropoint.native import library
from zeropoint.notes import Note
from zeropoint.progress import Progress, silent
from zeropoint.runtime.machine import cores, return_freed_memory
from zeropoint.statistics.network import Statistics
from zeropoint.statistics.observation import NetworkObservation

SECONDS_BETWEEN_SAVES = 2.0
MEGABYTE = 1e6

Chunk = tuple[Sequence[int], Statistics]  # blocks of the data, and what was seen in them


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What is calibrated: the prepared network, the shapes of its tensors, the data, and what to call all of it."""

    model: Model
    facts: Facts
    batches: Batches
    source: Source


def calibrate(subject: Subject, taps: Taps, resources: Resources, *, progress: Progress = silent) -> tuple[Statistics, tuple[Note, ...]]:
    """Return the statistics of `taps` over all of the data, and what to know of how they came about.

    Resources change no bit of them. Memory holds a batch's taps for each stream, as many streams as the budget allows, or fewer taps
    at a time in more passes. What the checkpoint holds is not observed again, and in the end it holds all.

    Raises:
        DataError: a sample cannot be read or does not fit; the checkpoint cannot be read, or is of another model or other data.
        ModelError: the network cannot be run.
        OutputError: the checkpoint cannot be written.
    """
    saved = _begun(subject, taps, resources.checkpoint)
    plans = [_schedule(subject, part, resources) for part in saved.parts]
    parts = [part.only(group) for part, plan in zip(saved.parts, plans, strict=True) for group in plan.passes]
    streams = min(plan.streams for plan in plans)
    crew = Crew(streams, threads=max(1, cores() // resources.workers // streams))
    left = [sorted(set(range(subject.source.blocks)) - part.done) for part in parts]
    tick = _counter(progress, _label(plans, resources, passes=len(parts)), total=sum(map(len, left)))
    save_when_due = _saver(saved, resources.checkpoint)
    with tempfile.TemporaryDirectory(prefix="zeropoint-") as folder:
        networks = _networks(subject, parts, resources, Path(folder)) if any(left) else []
        for number, network in enumerate(networks):
            run = Run(network, subject.batches, resources, crew)
            with closing(_observe(run, left[number], tick)) as chunks:  # where saving fails, processes end before their files do
                for done, seen in chunks:
                    parts[number] = parts[number].grown(done, seen)
                    save_when_due(parts)
    whole = replace(saved, parts=tuple(parts)).whole
    if resources.checkpoint is not None and any(left):
        save_statistics(replace(saved, parts=(whole,)), resources.checkpoint)
    return whole.only(taps).statistics, _notes(plans, passes=len(parts))


def _begun(subject: Subject, taps: Taps, checkpoint: Path | None) -> Saved:
    """Return what the checkpoint holds, and a part that has seen nothing yet for the taps that it lacks."""
    found = Saved(subject.source, subject.facts, ())
    if checkpoint is not None and checkpoint.exists():
        found = load_statistics(checkpoint)
        unlike = [field.name for field in fields(Source) if getattr(found.source, field.name) != getattr(subject.source, field.name)]
        if unlike:
            theirs, ours = (getattr(source, unlike[0]) for source in (found.source, subject.source))
            raise DataError(
                f"checkpoint {checkpoint}: found {unlike[0]} {theirs!r}, expected {ours!r}; it is of another calibration: name another "
                "file, or remove this one"
            )
    missing = taps.less(_all_taps(found.parts))
    return replace(found, parts=(*found.parts, Part(missing))) if missing != Taps(()) or not found.parts else found


def _all_taps(parts: Sequence[Part]) -> Taps:
    return reduce(Taps.with_, (part.taps for part in parts), Taps(()))


def _schedule(subject: Subject, part: Part, resources: Resources) -> Schedule:
    if len(part.done) == subject.source.blocks or is_device(resources.provider):  # a GPU's memory is its own
        return Schedule((part.taps,), cores(), 0, 0)
    streams = max(1, min(cores() // resources.workers, subject.source.blocks))
    budget = None if resources.memory_budget is None else resources.memory_budget // resources.workers
    return schedule(subject.model, subject.facts, part.taps, streams=streams, budget=budget)


def _networks(subject: Subject, parts: Sequence[Part], resources: Resources, folder: Path) -> list[Tapped | DeviceRun]:
    """Return a network for each part.

    Those of ONNX Runtime come from one that has the taps of all, so that each tap has the same bits in any division.
    """
    if is_device(resources.provider):
        return [DeviceRun(subject.model, part.taps, device_name(resources.provider)) for part in parts]
    whole = tap(subject.model, _all_taps(parts), subject.facts)
    if len(parts) == 1 and resources.workers == 1:
        return [whole]
    return [*divide(whole, [part.taps for part in parts], folder, provider=resources.provider)]


class Observer(Protocol):
    """What runs a network and counts what it sees."""

    def observe(self, batches: Batches, blocks: Iterable[int]) -> Iterator[int]:
        """Add what is seen in `blocks` of the data, and yield each of them once it is in."""

    def taken(self) -> Statistics:
        """Return the statistics of what was added since they were taken last."""


class SessionRun:
    """A network in ONNX Runtime, with what was seen of its taps so far."""

    def __init__(self, network: Tapped, crew: Crew, provider: str) -> None:
        self._session, self._crew = network.open(threads=crew.threads, provider=provider), crew
        self._observation = NetworkObservation(network.outputs)
        return_freed_memory()  # by loading

    def observe(self, batches: Batches, blocks: Iterable[int]) -> Iterator[int]:
        """Add what is seen in `blocks` of the data, several of them at once."""
        return observe_blocks(self._session, batches, blocks, self._observation, crew=self._crew)

    def taken(self) -> Statistics:
        """Return the statistics of what was added since they were taken last."""
        seen, self._observation = self._observation.statistics(), NetworkObservation(self._session.model.outputs)
        return seen


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One network on the data, and how."""

    network: Tapped | DeviceRun
    batches: Batches
    resources: Resources
    crew: Crew


def _observe(run: Run, blocks: Sequence[int], tick: Callable[[], None]) -> Generator[Chunk, None, None]:
    """Yield what is seen in all of `blocks`, a chunk after the other; `tick` is called once for each block."""
    if not blocks:
        return
    if run.resources.workers > 1 and isinstance(run.network, Tapped):
        job = Job(run.network, run.batches, run.crew, run.resources.provider)
        with closing(observe_in_processes(job, blocks, workers=run.resources.workers)) as chunks:
            for done, seen in chunks:
                for _ in done:
                    tick()
                yield done, seen
        return
    network = run.network
    observer: Observer = SessionRun(network, run.crew, run.resources.provider) if isinstance(network, Tapped) else network
    pending = iter(blocks)
    seconds = math.inf if run.resources.checkpoint is None else SECONDS_BETWEEN_SAVES
    while True:
        finished = []
        for block in observer.observe(run.batches, _until(monotonic() + seconds, pending)):
            finished.append(block)
            tick()
        if not finished:
            return
        yield finished, observer.taken()


def _until(deadline: float, blocks: Iterator[int]) -> Iterator[int]:
    """Yield one of `blocks`, where there is one, and more up to the deadline."""
    for block in blocks:
        yield block
        if monotonic() >= deadline:
            return


def _label(plans: Sequence[Schedule], resources: Resources, *, passes: int) -> str:
    if is_device(resources.provider):
        return f"calibrating on {device_name(resources.provider)}"
    divided = f" in {passes} passes" if passes > 1 else ""
    each = f" in each of {resources.workers} processes" if resources.workers > 1 else ""
    return f"calibrating{divided} (about {max(plan.estimate for plan in plans) / MEGABYTE:.0f} MB{each})"


def _counter(progress: Progress, label: str, *, total: int) -> Callable[[], None]:
    """Report what is planned before anything runs, and then each step."""
    steps = count(1)
    progress(label, 0, total)
    return lambda: progress(label, next(steps), total)


def _saver(saved: Saved, checkpoint: Path | None) -> Callable[[Sequence[Part]], None]:
    last = monotonic()

    def save_when_due(parts: Sequence[Part]) -> None:
        nonlocal last
        if checkpoint is not None and monotonic() - last >= SECONDS_BETWEEN_SAVES:
            save_statistics(replace(saved, parts=tuple(parts)), checkpoint)
            last = monotonic()

    return save_when_due


def _notes(plans: Sequence[Schedule], *, passes: int) -> tuple[Note, ...]:
    notes = []
    largest = max(plans, key=lambda plan: plan.estimate)
    sizes = f"about {largest.estimate / MEGABYTE:.0f} MB, where {largest.budget / MEGABYTE:.0f} MB were allowed"
    if largest.estimate > largest.budget:
        notes.append(Note("memory_budget", f"a pass with a single tensor still takes {sizes}", kind="warning"))
    elif passes > 1:
        notes.append(Note("memory_budget", f"the data was run {passes} times, each for some of the tensors: {sizes}", kind="run"))
    if library is None:
        reason = "no C compiler was there when zeropoint was installed: numpy counted the values, which takes about three times as long"
        notes.append(Note("calibration", reason, kind="run"))
    return tuple(notes)
