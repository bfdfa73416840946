"""The page of a benchmark: models side by side, and where their time goes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from zeropoint.benching.bench import Bench, Timing
from zeropoint.benching.summary import is_bad, is_noisy, is_slower, short_names, verdict
from zeropoint.report.figures import Bar, Figure, Figures
from zeropoint.report.manifest import Manifest
from zeropoint.report.page import Page, Section, check_libraries
from zeropoint.report.reasons import Reasons, grouped
from zeropoint.report.table import Cell, Column, Row, Table
from zeropoint.summary import size_text

TIMING_COLUMNS = (
    Column(title="Model"),
    Column(title="Runtime"),
    Column(title="Median", align="right", hint="Of all runs that were timed"),
    Column(title="p90", align="right", hint="Nine of ten runs take no longer"),
    Column(title="p99", align="right", hint="99 of 100 runs take no longer"),
    Column(title="Samples/s", align="right", first="descending", hint="One run after the other, at the median latency"),
    Column(
        title="Ratio", align="right", hint="Of the latency to the first model's in the same rounds, and where the true one lies, at 95 %"
    ),
    Column(title="Noise", align="right", hint="How far the rounds of the model lie apart"),
    Column(title="Peak memory", align="right", hint="Of a process that loads and runs the model, less that of one without it"),
    Column(title="In integers", align="right", first="descending", hint="Share of the time in kernels that compute on 8-bit codes"),
)
ENERGY_COLUMN = Column(title="Energy", align="right", hint="Of one run, idling and other programs included")
OPERATOR_COLUMNS = (
    Column(title="Operator", hint="As the runtime calls it, after its fusions"),
    Column(title="Model"),
    Column(title="Runtime"),
    Column(title="Nodes", align="right", first="descending"),
    Column(title="Milliseconds", align="right", first="descending", hint="Of one run, with the profiler on"),
    Column(title="Share", align="right", first="descending"),
)
NODE_COLUMNS = (
    Column(title="Node"),
    Column(title="Operator"),
    Column(title="Computes in"),
    Column(title="Model"),
    Column(title="Runtime"),
    Column(title="Milliseconds", align="right", first="descending"),
    Column(title="Share", align="right", first="descending"),
)


def bench_page(found: Bench) -> Page:
    """Return the page of a benchmark.

    Raises:
        RecipeError: a library is not installed.
    """
    check_libraries()
    names = short_names(timing.file for timing in found.timings)
    sections: Sequence[Section] = (
        Figures("Side by side", list(_figures(found.timings, names))),
        _timings(found.timings, names),
        _operators(found.timings, names),
        _nodes(found.timings, names),
        Reasons(heading="Notes", groups=grouped(found.notes), empty="All was measured, and the machine was quiet."),
        _manifest(found),
    )
    return Page(
        kind="bench",
        title=" and ".join(names.values()),
        verdict=verdict(found),
        tone="bad" if is_bad(found) else "plain" if is_noisy(found) else "good",
        sections=sections,
    )


def _figures(timings: Sequence[Timing], names: dict[str, str]) -> Iterator[Figure]:
    for runtime in dict.fromkeys(timing.runtime for timing in timings):
        group = [timing for timing in timings if timing.runtime == runtime]
        ratios = [f"{timing.ratio.value:.2f}" for timing in group if timing.ratio is not None]
        first = group[0]
        yield Figure(
            label=f"Latency on {runtime}",
            comparison=f"{', '.join(ratios)} of the first" if ratios else "",
            bars=_bars(group, names, [timing.median_ms for timing in group], [f"{timing.median_ms:.3g} ms" for timing in group]),
            detail=f"medians of {first.rounds} rounds, batch {first.batch}",
        )
        peaks = [timing for timing in group if timing.peak_bytes is not None]
        sizes = [float(timing.peak_bytes or 0) for timing in peaks]
        if peaks:
            yield Figure(label=f"Peak memory on {runtime}", bars=_bars(peaks, names, sizes, [size_text(int(size)) for size in sizes]))
    files = {timing.file: timing for timing in timings}
    sizes = [float(timing.bytes) for timing in files.values()]
    yield Figure(label="Size of the file", bars=_bars(list(files.values()), names, sizes, [size_text(int(size)) for size in sizes]))


def _bars(timings: Sequence[Timing], names: dict[str, str], values: Sequence[float], texts: Sequence[str]) -> tuple[Bar, ...]:
    most = max(values)
    return tuple(
        Bar(names[timing.file], text, value / most if most > 0 else 0.0, "float" if number == 0 else "quantized")
        for number, (timing, value, text) in enumerate(zip(timings, values, texts, strict=True))
    )


def _timings(timings: Sequence[Timing], names: dict[str, str]) -> Table:
    with_energy = any(timing.joules is not None for timing in timings)
    columns = (*TIMING_COLUMNS, ENERGY_COLUMN) if with_energy else TIMING_COLUMNS
    return Table(heading="Timings", columns=columns, rows=[Row(_timing(timing, names)[: len(columns)]) for timing in timings])


def _timing(timing: Timing, names: dict[str, str]) -> list[Cell]:
    ratio, profile = timing.ratio, timing.profile
    cells = [Cell(names[timing.file], None, "code", timing.file), Cell(timing.runtime)]
    cells += [Cell(f"{value:.3g} ms", value) for value in (timing.median_ms, timing.p90_ms, timing.p99_ms)]
    cells.append(Cell(f"{timing.throughput:.4g}", timing.throughput))
    if ratio is None:
        cells.append(_absent())
    else:
        cells.append(Cell(f"{ratio.value:.2f} ({ratio.low:.2f}–{ratio.high:.2f})", ratio.value, "bad" if is_slower(ratio) else ""))
    cells.append(Cell(f"{timing.noise:.0%}", timing.noise))
    cells.append(Cell(size_text(timing.peak_bytes), timing.peak_bytes) if timing.peak_bytes is not None else _absent())
    cells.append(Cell(f"{profile.integer_share:.0%}", profile.integer_share) if profile is not None else _absent())
    cells.append(Cell(f"{1e3 * timing.joules:.3g} mJ", timing.joules) if timing.joules is not None else _absent())
    return cells


def _absent() -> Cell:
    return Cell("", math.nan)


def _operators(timings: Sequence[Timing], names: dict[str, str]) -> Table:
    rows = [
        Row(
            (
                Cell(operator.operator, None, "code"),
                Cell(names[timing.file], None, "code"),
                Cell(timing.runtime),
                Cell(str(operator.nodes), operator.nodes),
                Cell(f"{operator.milliseconds:.3f}", operator.milliseconds),
                Cell(f"{operator.share:.1%}", operator.share),
            )
        )
        for timing in timings
        if timing.profile is not None
        for operator in timing.profile.operators
    ]
    lead = "By the profilers of the runtimes, in runs of their own, which they slow down."
    empty = "No runtime told where the time goes."
    return Table(
        heading="Where the time goes", lead=lead, columns=OPERATOR_COLUMNS, rows=rows, search="Search operators, models", empty=empty
    )


def _nodes(timings: Sequence[Timing], names: dict[str, str]) -> Table:
    rows = [
        Row(
            (
                Cell(node.node, None, "code"),
                Cell(node.operator),
                Cell("integers" if node.in_integers else "float", None, "int" if node.in_integers else "float"),
                Cell(names[timing.file], None, "code"),
                Cell(timing.runtime),
                Cell(f"{node.milliseconds:.3f}", node.milliseconds),
                Cell(f"{node.share:.1%}", node.share),
            )
        )
        for timing in timings
        if timing.profile is not None
        for node in timing.profile.slowest
    ]
    empty = "No runtime told where the time goes."
    return Table(heading="Slowest nodes", columns=NODE_COLUMNS, rows=rows, search="Search nodes, operators, models", empty=empty)


def _manifest(found: Bench) -> Manifest:
    machine = found.machine
    runtimes = dict.fromkeys(f"{timing.runtime} {timing.runtime_version}" for timing in found.timings)
    threads = dict.fromkeys(str(timing.threads) if timing.threads else "the runtime's choice" for timing in found.timings)
    shapes = dict.fromkeys(f"{name} {'×'.join(map(str, shape))}" for timing in found.timings for name, shape in timing.shapes.items())
    facts = [
        ("processor", f"{machine.processor}, {machine.architecture}, {machine.cores} cores that it may use"),
        ("instruction sets", ", ".join(machine.instruction_sets) or "not told"),
        ("system", machine.system),
        ("runtimes", ", ".join(runtimes)),
        ("execution provider", ", ".join(dict.fromkeys(timing.provider for timing in found.timings))),
        ("threads of a run", ", ".join(threads)),
        ("inputs", f"random numbers: {', '.join(shapes)}"),
        ("energy", found.energy),
        ("zeropoint", found.zeropoint),
    ]
    facts += [("slower than before", str(regression)) for regression in found.regressions]
    return Manifest(heading="With what it was measured", facts=facts)
