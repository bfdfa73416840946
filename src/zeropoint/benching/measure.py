"""Measure models side by side: in turns, so that what disturbs the machine disturbs them all."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zeropoint.benching.bench import Machine, Profile, Timing
from zeropoint.benching.entries import Entry, Request
from zeropoint.benching.figures import ratio_of_rounds, spread, summarize_profile
from zeropoint.benching.summary import NOISE
from zeropoint.errors import ModelError
from zeropoint.evaluate.energy import joules_per_run
from zeropoint.evaluate.latency import balanced_rounds, burst_medians, pace, repeats_for, take_turns
from zeropoint.notes import Note
from zeropoint.progress import Progress
from zeropoint.runtime import time_nodes, version
from zeropoint.runtime.cpu import read_cpu
from zeropoint.runtime.energy import open_meter
from zeropoint.runtime.machine import cores
from zeropoint.runtime.peak_memory import peak_bytes

BURST_SECONDS = 0.1
LEAST_ROUNDS = 6  # of which the lowest and the highest ratio span the true one at a confidence of 97 %
PACE_CALLS = 5
ENERGY_SECONDS = 2.0  # counters of GPUs are brought up to date ten times a second
PROFILE_SECONDS, PROFILE_RUNS = 0.5, (3, 50)
MOST_STRETCHES, LONGER = 3, "timing for longer: ratios are not sure yet"
# On a shared machine with two cores, the ratios of benchmarks one after the other lay within 5 % where the rounds lay up to 0.2 apart, and
# up to 17 % apart from 0.3 on.
NOISY = 0.25

Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The timings, what counted energy or why nothing did, and notes."""

    timings: tuple[Timing, ...]
    energy: str
    notes: tuple[Note, ...]


def this_machine() -> Machine:
    """Return what measures."""
    cpu = read_cpu()
    return Machine(
        system=platform.system(),
        architecture=cpu.architecture,
        processor=cpu.name,
        cores=cores(),
        instruction_sets=cpu.instruction_sets or (),
    )


def measure(entries: Sequence[Entry], request: Request, *, progress: Progress) -> Measured:
    """Measure each entry's peak memory, latency, energy and profile, one after the other: none of them disturbs the next."""
    notes: list[Note] = []
    peaks = _peaks(entries, request, notes, progress)
    paces = [pace(entry.run, calls=PACE_CALLS) for entry in entries]
    bursts = _bursts(entries, paces, seconds=request.seconds, progress=progress)
    meter = open_meter(request.provider)
    joules: list[float | None] = [None] * len(entries)
    if not isinstance(meter, str):
        joules = [*joules_per_run([entry.run for entry in entries], meter, seconds=ENERGY_SECONDS)]
    medians = burst_medians(bursts)
    baselines = _baselines(entries, medians)
    timings = tuple(
        _timing(
            entry,
            request,
            calls=np.concatenate(bursts[number]),
            medians=medians[number],
            baseline=baselines[number],
            costs=(peaks[number], joules[number]),
            profile=_profile(entry, request, paces[number], notes),
        )
        for number, entry in enumerate(entries)
    )
    energy = meter if isinstance(meter, str) else f"{meter.source}; all that these take meanwhile, idling and other programs included"
    return Measured(timings=timings, energy=energy, notes=(*notes, *noise_notes(timings)))


def _bursts(entries: Sequence[Entry], paces: Sequence[float], *, seconds: float, progress: Progress) -> list[list[Seconds]]:
    """Time the entries in turns, and go on for as long again and again where the ratios are not sure by then."""
    burst = min(BURST_SECONDS, seconds / LEAST_ROUNDS)
    runs, repeats = [entry.run for entry in entries], [repeats_for(pace, burst) for pace in paces]
    longest = max(pace * count for pace, count in zip(paces, repeats, strict=True))
    rounds = balanced_rounds(seconds, longest, runs=len(runs), least=LEAST_ROUNDS)
    bursts: list[list[Seconds]] = [[] for _ in runs]
    for stretch in range(MOST_STRETCHES):
        stage = LONGER if stretch else "timing"
        more = take_turns(runs, repeats=repeats, rounds=rounds, progress=progress, stage=stage)
        bursts = [[*before, *after] for before, after in zip(bursts, more, strict=True)]
        medians = burst_medians(bursts)
        pairs = zip(medians, _baselines(entries, medians), strict=True)
        if all(ratio_of_rounds(times, baseline).is_sure for times, baseline in pairs if baseline is not None):
            break
    return bursts


def _baselines(entries: Sequence[Entry], medians: Seconds) -> list[Seconds | None]:
    """Return the times of the first model on each entry's runtime: None for that model itself, and where it is missing."""
    first = {entry.runtime: times for entry, times in zip(entries, medians, strict=True) if entry.is_first}
    return [None if entry.is_first else first.get(entry.runtime) for entry in entries]


def _timing(
    entry: Entry,
    request: Request,
    *,
    calls: Seconds,
    medians: Seconds,
    baseline: Seconds | None,
    costs: tuple[int | None, float | None],
    profile: Profile | None,
) -> Timing:
    subject = entry.subject
    median, p90, p99 = (float(value) for value in np.percentile(calls, (50, 90, 99)))
    return Timing(
        file=subject.file,
        bytes=subject.bytes,
        runtime=entry.runtime,
        runtime_version=version(entry.runtime),
        provider=request.provider_word,
        threads=request.threads,
        batch=subject.batch,
        shapes={name: array.shape for name, array in subject.feed.items()},
        rounds=len(medians),
        runs=len(calls),
        median_ms=1e3 * median,
        p90_ms=1e3 * p90,
        p99_ms=1e3 * p99,
        throughput=subject.batch / median,
        ratio=None if baseline is None else ratio_of_rounds(medians, baseline),
        noise=spread(medians),
        peak_bytes=costs[0],
        joules=costs[1],
        profile=profile,
    )


def noise_notes(timings: Sequence[Timing]) -> list[Note]:
    """Return what a user must know of how sure the figures are."""
    notes = []
    noisy = [timing for timing in timings if timing.noise > NOISY]
    if noisy:
        worst = max(noisy, key=lambda timing: timing.noise)
        reason = (
            f"the machine was noisy: the rounds of {worst.file} on {worst.runtime} lie {worst.noise:.0%} apart. "
            "Milliseconds say little then, and another run may find a ratio that is a sixth larger or smaller. "
            "Stop other programs, use fewer threads than cores, or measure for longer"
        )
        notes.append(Note(NOISE, reason, kind="warning"))
    for timing in timings:
        if timing.ratio is not None and not timing.ratio.is_sure:
            reason = f"the ratio is not sure: between {timing.ratio.low:.2f} and {timing.ratio.high:.2f}; measure for longer"
            notes.append(Note(f"{timing.file} on {timing.runtime}", reason, kind="warning"))
    return notes


def _peaks(entries: Sequence[Entry], request: Request, notes: list[Note], progress: Progress) -> list[int | None]:
    empty: dict[tuple[str, str], int] = {}
    peaks: list[int | None] = []
    for done, entry in enumerate(entries, start=1):
        feed = entry.subject.feed
        alone = entry.runtime, str({name: (array.shape, array.dtype.name) for name, array in feed.items()})
        try:
            if alone not in empty:
                empty[alone] = peak_bytes(None, entry.runtime, feed)
            peak = peak_bytes(Path(entry.subject.file), entry.runtime, feed, threads=request.threads, provider=request.provider)
            peaks.append(max(0, peak - empty[alone]))
        except ModelError as error:
            peaks.append(None)
            notes.append(Note(f"{entry.subject.file} on {entry.runtime}", f"{error}", kind="run"))
        progress("measuring memory", done, len(entries))
    return peaks


def _profile(entry: Entry, request: Request, seconds: float, notes: list[Note]) -> Profile | None:
    fewest, most = PROFILE_RUNS
    runs = min(most, max(fewest, repeats_for(seconds, PROFILE_SECONDS)))
    path, feed = Path(entry.subject.file), entry.subject.feed
    try:
        nodes = time_nodes(entry.runtime, path, feed, runs=runs, threads=request.threads, provider=request.provider)
    except ModelError as error:
        notes.append(Note(f"{entry.subject.file} on {entry.runtime}", f"there is no profile: {error}", kind="run"))
        return None
    return summarize_profile(nodes, runs=runs)
