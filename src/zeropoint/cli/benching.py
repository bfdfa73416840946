"""Draw what `bench` measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from zeropoint.benching.bench import Bench, Profile, Ratio, Timing
from zeropoint.benching.summary import is_bad, is_noisy, short_names, verdict
from zeropoint.cli.render import console, show_notes
from zeropoint.notes import counted

MEGABYTE = 1e6
MOST_OPERATORS = 5
MOST_NODES = 3
SMALL_SHARE = 0.005
HEADERS = ("ms", "p90", "p99", "per s", "ratio", "between", "MB", "mJ")
LEGEND = (
    "ms: median and percentiles of a run. per s: samples. ratio: of the first model's latency, and between which it surely lies. "
    "MB: peak memory of a process with the model, less that of one without"
)
ENERGY = ". mJ: energy of a run"


def show_bench(found: Bench, *, written: Sequence[Path]) -> None:
    """Print a table for each runtime, where the time goes, what else to know, and what became slower."""
    names = short_names(timing.file for timing in found.timings)
    machine = found.machine
    console.print(
        Text(verdict(found), style="bold red" if is_bad(found) else "bold yellow" if is_noisy(found) else "bold green"), soft_wrap=True
    )
    console.print(Text(f"{machine.processor} ({machine.architecture}), {counted(machine.cores, 'core')}"), soft_wrap=True)
    for runtime in dict.fromkeys(timing.runtime for timing in found.timings):
        _show_runtime([timing for timing in found.timings if timing.runtime == runtime], names)
    console.print(Text(f"\n{LEGEND}{ENERGY if any(timing.joules is not None for timing in found.timings) else ''}"), soft_wrap=True)
    console.print(Text(f"energy: {found.energy}"), soft_wrap=True)
    show_notes(found.notes, rest="--json lists all")
    for number, regression in enumerate(found.regressions):
        console.print(Text("\n" * (number == 0) + str(regression), style="bold red"), soft_wrap=True)
    if written:
        console.print(Text(f"\nwrote {' and '.join(map(str, written))}"), soft_wrap=True)


def _show_runtime(timings: Sequence[Timing], names: dict[str, str]) -> None:
    first = timings[0]
    threads = counted(first.threads, "thread") if first.threads else "its own choice of threads"
    how = f"{threads}, batch {' and '.join(dict.fromkeys(str(timing.batch) for timing in timings))}, {first.rounds} rounds"
    console.print(Text.assemble("\n", (f"{first.runtime} {first.runtime_version}", "bold"), f": {how}"), soft_wrap=True)
    console.print(_table(timings, names))
    for timing in timings:
        if timing.profile is not None:
            for line in profile_lines(timing.profile, names[timing.file]):
                console.print(line, soft_wrap=True)


def _table(timings: Sequence[Timing], names: dict[str, str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    with_energy = any(timing.joules is not None for timing in timings)
    table.add_column("model", overflow="fold")
    for header in HEADERS if with_energy else HEADERS[:-1]:
        table.add_column(header, justify="right", no_wrap=True)
    for timing in timings:
        cells = [_number(value) for value in (timing.median_ms, timing.p90_ms, timing.p99_ms, timing.throughput)]
        cells += [*_ratio_cells(timing.ratio), f"{timing.peak_bytes / MEGABYTE:.0f}" if timing.peak_bytes is not None else "-"]
        cells += [f"{1e3 * timing.joules:.3g}" if timing.joules is not None else "-"] if with_energy else []
        table.add_row(Text(names[timing.file]), *cells)
    return table


def _ratio_cells(ratio: Ratio | None) -> tuple[str, str]:
    return (f"{ratio.value:.2f}", f"{ratio.low:.2f}-{ratio.high:.2f}") if ratio is not None else ("", "")


def profile_lines(profile: Profile, name: str) -> Iterable[Text]:
    """Write where the time of a run goes, in two lines."""
    shown = [operator for operator in profile.operators[:MOST_OPERATORS] if operator.share >= SMALL_SHARE]
    operators = ", ".join(f"{operator.share:.0%} {operator.operator} ({operator.nodes})" for operator in shown)
    yield Text.assemble((name, "cyan"), f": {profile.integer_share:.0%} of the time in integers: {operators}")
    slowest = ", ".join(f"{node.node} {node.share:.0%}" for node in profile.slowest[:MOST_NODES])
    yield Text(f"  slowest: {slowest}")


def _number(value: float) -> str:
    return f"{value:.{0 if value >= 1000 else 1 if value >= 100 else 2 if value >= 1 else 3}f}"
