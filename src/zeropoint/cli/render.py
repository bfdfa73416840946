"""Draw results in a terminal, or as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from inspect import signature
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from zeropoint.api import bench, compare, export, quantize
from zeropoint.errors import ZeropointError
from zeropoint.notes import Note, counted
from zeropoint.result import Result
from zeropoint.rules import Lint
from zeropoint.summary import bad_news, step_text, summary_rows, verdict

MOST_NOTES = 12
MOST_PLACES = 3
PARAMETERS = frozenset(name for function in (quantize, compare, bench, export) for name in signature(function).parameters)
PARAMETERS = PARAMETERS - {"model", "models", "a", "b", "module", "args", "kwargs"} | {"shape"}  # one of `shapes`
OTHER_NAMES = {
    "runtimes": "runtime",
    "seconds": "time",
    "shapes": "shape",
    "input_names": "input-name",
    "output_names": "output-name",
    "dynamic_axes": "dynamic",
}  # of options that are not called as the parameter that they mirror
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def show_error(error: ZeropointError) -> None:
    """Print an error as one paragraph."""
    errors.print(Text.assemble(("error: ", "bold red"), _with_option(str(error))), soft_wrap=True)


def _with_option(message: str) -> str:
    """Begin the message with the option as it is typed here, where it begins with the parameter that the option mirrors."""
    parameter, colon, rest = message.partition(":")
    name, of, what = parameter.partition(" of ")
    option = OTHER_NAMES.get(name, name).replace("_", "-")
    return f"--{option}{of}{what}{colon}{rest}" if name in PARAMETERS else message


def show_result(result: Result, written: Sequence[Path]) -> None:
    """Print the verdict, one table, what each refinement did, what stayed in float, and the next command."""
    console.print(Text(verdict(result), style="bold red" if bad_news(result) else "bold green"), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header, justify in (("", "left"), ("float", "right"), ("quantized", "right"), ("", "left")):
        table.add_column(header, justify=justify)  # type: ignore[arg-type]
    for row in summary_rows(result.evidence):
        table.add_row(Text(row.what), row.float_value, row.quantized_value, row.comparison)  # a name may look like markup
    console.print(table)
    if result.plan.provenance.calibration_data:
        console.print(Text(f"calibrated on {result.plan.provenance.calibration_data}"), soft_wrap=True)
    for step in result.plan.steps:
        console.print(Text(step_text(step)), soft_wrap=True)
    if result.evidence.evaluation_data:
        console.print(Text(f"judged on {result.evidence.evaluation_data}"), soft_wrap=True)
    show_notes(result.notes, rest=f"see {written[1]}")
    console.print(Text(f"\nwrote {', '.join(map(str, written[:-1]))} and {written[-1]}"), soft_wrap=True)
    console.print(Text(f"next: {result.next_command(written[0])}", style="bold"), soft_wrap=True)


def show_notes(notes: Sequence[Note], *, rest: str) -> None:
    """Print notes on the network and then those on the run, each reason in one line; `rest` says where to find those left out."""
    for heading, kinds in (("notes", ("network", "float")), ("notes on this run", ("warning", "run"))):
        _show_notes([note for note in notes if note.kind in kinds], heading=heading, rest=rest)


def _show_notes(notes: Sequence[Note], *, heading: str, rest: str) -> None:
    if not notes:
        return
    console.print(f"\n{heading}")
    lines = [
        (reason, [note.where for note in found]) for reason, found in groupby(sorted(notes, key=lambda n: n.reason), lambda n: n.reason)
    ]
    for reason, places in lines[:MOST_NOTES]:
        shown = len(places) if len(places) <= MOST_PLACES else MOST_PLACES - 1
        where = ", ".join(places[:shown]) + (f" and {len(places) - shown} more" if shown < len(places) else "")
        console.print(Text.assemble("  ", (where, "cyan"), f": {reason}"), soft_wrap=True)
    if len(lines) > MOST_NOTES:
        console.print(f"  and {len(lines) - MOST_NOTES} other reasons: {rest}", markup=False)


def show_lint(lint: Lint, *, model: Path, target: str) -> None:
    """Print what breaks a target's rules, grouped by rule, or that nothing does, and whether there was anything to check."""
    if not lint.quantized:
        missing = "there is no QuantizeLinear and no DequantizeLinear in it, so that most rules have nothing to check"
        console.print(Text(f"{model} is NOT QUANTIZED: {missing}", style="bold yellow"), soft_wrap=True)
    if not lint.findings:
        kept = f"keeps the rules of {target}" if lint.quantized else f"breaks no rule of {target}"
        console.print(Text(f"{model} {kept}", style="bold green" if lint.quantized else ""), soft_wrap=True)
        return
    console.print(Text(f"{model} breaks rules of {target} in {counted(len(lint.findings), 'place')}", style="bold red"), soft_wrap=True)
    for rule, found in groupby(sorted(lint.findings, key=lambda finding: finding.rule), lambda finding: finding.rule):
        places = list(found)
        console.print(Text.assemble("\n", (rule, "bold"), f" ({len(places)})"))
        console.print(Text(f"  remedy: {places[0].remedy}"), soft_wrap=True)
        for finding in places[:MOST_NOTES]:
            console.print(Text.assemble("  ", (finding.node, "cyan"), f": {finding.message}"), soft_wrap=True)
        if len(places) > MOST_NOTES:
            console.print(f"  and {len(places) - MOST_NOTES} more; --json lists all")


def result_document(result: Result, written: Sequence[Path]) -> dict[str, Any]:
    """Return what `quantize --json` and `solve --json` print."""
    return {
        "model": str(written[0]),
        "plan": str(written[1]),
        "report": str(written[2]) if len(written) > 2 else None,
        "target": result.plan.target,
        "verdict": verdict(result),
        "evidence": document(result.evidence),
        "provenance": document(result.plan.provenance),
        "steps": [document(step) for step in result.plan.steps],
        "notes": [document(note) for note in result.notes],
        "next": result.next_command(written[0]),
    }


def document(value: Any) -> Any:
    """Return a dataclass as JSON values; infinities, which JSON lacks, become strings, and arrays stay out."""
    return _finite(asdict(value))


def _finite(value: Any) -> Any:
    match value:
        case dict():
            return {key: _finite(item) for key, item in value.items() if not isinstance(item, np.ndarray)}
        case list() | tuple():
            return [_finite(item) for item in value]
        case float() if not math.isfinite(value):
            return str(value)
        case _:
            return value


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    console.file.write(json.dumps(value, indent=2) + "\n")
