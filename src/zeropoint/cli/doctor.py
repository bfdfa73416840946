"""Draw what `doctor` found."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from zeropoint.cli.render import console, show_notes
from zeropoint.diagnosis.findings import Diagnosis
from zeropoint.diagnosis.trials import Trial
from zeropoint.notes import counted
from zeropoint.targets import get_target

GIGABYTE = 1e9


def show_diagnosis(found: Diagnosis) -> None:
    """Print the machine, its runtimes, what was timed, what to quantize for, and what to beware of."""
    _show_machine(found)
    console.print(_runtimes(found))
    if found.trials:
        console.print(Text("INT8 against float on one core (0.50: half of float's time)", style="bold"))
        console.print(_trials(found.trials))
    console.print("what to quantize for")
    for place, advice in enumerate(found.advice):
        _item(advice.sentence, style=("bold green" if advice.faster else "bold yellow") if place == 0 else "")
    if found.traps:
        console.print("\nknown traps of what is installed")
    for trap in found.traps:
        _item(Text.assemble((f"{trap.package} {trap.version}", "cyan"), f": {trap.what}; ", (trap.remedy, "italic")))
    _show_zeropoint(found)
    show_notes(found.notes, rest="--json lists all")


def _show_machine(found: Diagnosis) -> None:
    cpu = found.cpu
    console.print(Text(f"zeropoint {found.zeropoint}, Python {found.python}, {found.system} on {cpu.architecture}", style="bold"))
    memory = f"{found.memory_bytes / GIGABYTE:.1f} GB of memory, {found.free_bytes / GIGABYTE:.1f} free"
    console.print(Text(f"processor: {cpu.name or 'no name told'}; {counted(found.cores, 'core')}, {memory}"))
    console.print(Text(f"for integers: {_instructions(found)}"))
    for gpu in found.gpus.found:
        told = f"{gpu.memory_bytes / GIGABYTE:.1f} GB, compute capability {gpu.compute_capability}, driver {gpu.driver}"
        console.print(Text(f"GPU: {gpu.name}; {told}"))
    if not found.gpus.found:
        console.print(Text(f"GPU: no NVIDIA GPU found ({found.gpus.reason or f'{found.gpus.by} knows of none'})"))


def _instructions(found: Diagnosis) -> str:
    known = found.cpu.instruction_sets
    if known is None:
        return "unknown: this system does not tell which instructions the processor has"
    missing = f"; not {', '.join(found.cpu.missing)}" if found.cpu.missing else ""
    best = f"products of bytes by {found.instruction}" if found.instruction else "no product of bytes that sums in 32 bits"
    return f"{best} (has {', '.join(known) or 'none that matters'}{missing})"


def _runtimes(found: Diagnosis) -> Table:
    table = _table("runtime", "version", "runs on")
    for runtime in found.runtimes:
        name = runtime.name if runtime.distribution in ("", runtime.name) else f"{runtime.name} ({runtime.distribution})"
        version = runtime.version or Text("not installed", style="dim")
        table.add_row(name, version, ", ".join(runtime.runs_on))
    return table


def _trials(trials: Sequence[Trial]) -> Table:
    networks = tuple(dict.fromkeys(trial.network for trial in trials))
    table = _table("target", "runs in", "codes", *networks)
    for target in dict.fromkeys(trial.target for trial in trials):
        own = {trial.network: trial for trial in trials if trial.target == target}
        first = next(iter(own.values()))
        formats = dict.fromkeys((first.activation, get_target(target).nonnegative_activation.format.name))
        codes = f"{' or '.join(formats)} × {first.weight}"
        ratios = [f"{own[network].ratio:.2f}" if network in own else "-" for network in networks]
        table.add_row(target, first.runtime, codes, *ratios)
    return table


def _show_zeropoint(found: Diagnosis) -> None:
    console.print("\nzeropoint's own parts")
    if found.native:
        _item("compiled loops: there")
    else:
        _item("compiled loops: missing, numpy does the same work in more time; reinstall zeropoint where there is a C compiler")
    there = [extra.name for extra in found.extras if not extra.missing]
    if there:
        _item(f"extras: {', '.join(there)}")
    for extra in found.extras:
        if extra.missing:
            _item(Text.assemble("extra ", (extra.name, "cyan"), f': missing; with pip install "zeropoint[{extra.name}]" {extra.adds}'))


def _item(said: str | Text, *, style: str = "") -> None:
    """Print one item, whose later lines stand below its words."""
    text = Text(said, style=style) if isinstance(said, str) else said
    row = Table.grid(padding=(0, 1, 0, 0))
    row.add_row("-", text)
    console.print(Padding(row, (0, 0, 0, 1)))


def _table(*headers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        table.add_column(header, justify="right" if header in ("convolutions", "products") else "left")
    return table
