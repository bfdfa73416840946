"""Measure networks side by side on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from zeropoint.benching.bench import Bench
from zeropoint.benching.comparison import Guard
from zeropoint.benching.entries import Request, open_entries, read_subjects
from zeropoint.benching.measure import measure, this_machine
from zeropoint.progress import Progress, silent
from zeropoint.release import own_version
from zeropoint.report.bench import bench_page
from zeropoint.report.page import check_report, write
from zeropoint.runtime.onnxruntime import provider_name

NO_SHAPES: Mapping[str, Sequence[int]] = {}


def bench(  # noqa: PLR0913  (each option of the command line, packed into values at once)
    models: str | Path | Sequence[str | Path],
    *,
    runtimes: Sequence[str] = ("onnxruntime",),
    threads: int = 0,
    batch: int | None = None,
    seconds: float = 5.0,
    shapes: Mapping[str, Sequence[int]] = NO_SHAPES,
    provider: str = "cpu",
    against: Bench | str | Path | None = None,
    tolerance: float = 0.1,
    by: Sequence[Literal["latency", "ratio"]] = ("latency", "ratio"),
    report: str | Path | None = None,
    progress: Progress = silent,
) -> Bench:
    """Measure ONNX files on this machine: latency, throughput, memory, energy where it is counted, and which operators take the time.

    The models take turns, in bursts of a tenth of a second, so that what disturbs the machine meets them all: ratios are of the same
    moments, and hold where milliseconds do not. They are fed random numbers.

    models: files, of which the first is the one that the others are compared with. runtimes: of "onnxruntime", "openvino" and "tensorrt",
    which cannot be run from here and has a note on how to. threads: of one run, 0 for the runtime's choice. batch: samples in a run, where
    that axis is dynamic. seconds: how long each model is timed on each runtime, pauses included, and up to three times that where the
    ratios are not sure by then. shapes: for inputs with dynamic axes, which are taken as 1 otherwise. provider: what of ONNX Runtime runs
    the models, such as "cuda". against: a benchmark, or the file of one, made on this machine: `regressions` then has each model that
    became slower since by more than the share `tolerance`. by: what is compared: the median "latency", and the "ratio" to the first model,
    which also holds on another machine. report: an HTML file to write, which takes the extra `report`.

    Raises:
        ModelError: a file is no ONNX network, or nothing could be measured, or not all that the earlier benchmark has.
        RecipeError: an option has an impossible value, or the earlier benchmark was measured otherwise.
        DataError: `against` is no benchmark.
        OutputError: the report cannot be written.

    Example:
        >>> from zeropoint.demo import load_digits
        >>> found = bench(load_digits().model, seconds=0.1, threads=1)
        >>> found.timings[0].runtime, found.timings[0].median_ms > 0
        ('onnxruntime', True)
    """
    if report is not None:
        check_report(report)
    files = (models,) if isinstance(models, str | Path) else tuple(models)
    request = Request(
        models=tuple(map(str, files)),
        runtimes=tuple(dict.fromkeys(runtimes)),
        threads=threads,
        batch=batch,
        seconds=seconds,
        shapes={name: tuple(shape) for name, shape in shapes.items()},
        provider=provider_name(provider),
    )
    guard = Guard.of(against, tolerance=tolerance, by=tuple(by))
    machine = this_machine()
    told = () if guard is None else guard.check_machine(machine)
    entries, notes = open_entries(request, read_subjects(request))
    told += () if guard is None else guard.check_entries(entries, request)
    measured = measure(entries, request, progress=progress)
    found = Bench(
        zeropoint=own_version(),
        machine=machine,
        timings=measured.timings,
        energy=measured.energy,
        notes=(*told, *notes, *measured.notes),
        against="" if guard is None else guard.source,
        regressions=() if guard is None else guard.regressions(measured.timings),
    )
    if report is not None:
        write(bench_page(found), report)
    return found
