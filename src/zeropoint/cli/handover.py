"""Write what a command made, show it, and end with the code that says how it went."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import typer
from rich.text import Text

from zeropoint.cli import render
from zeropoint.cli.bars import progress
from zeropoint.errors import ZeropointError
from zeropoint.result import Result, report_path

GATE_FAILED = 3


def hand_over(result: Result, file: Path, *, json: bool, quiet: bool, report: bool) -> None:
    """Write a result and show it; broken rules end the command, but leave what was written, and so does a report that cannot be made."""
    written = list(result.save(file))
    page = report_path(file)
    written += _report(result, page, shown=not (json or quiet), quiet=quiet) if report else []
    if page not in written and page.is_file() and not quiet:
        render.errors.print(Text(f"{page} is of an earlier file"), soft_wrap=True)
    if json:
        render.print_json(render.result_document(result, written))
    elif not quiet:
        render.show_result(result, written)
    if result.evidence.findings:
        raise typer.Exit(GATE_FAILED)


def _report(result: Result, file: Path, *, shown: bool, quiet: bool) -> list[Path]:
    """Write the report, or say in a line why there is none: the model is there, and is what was asked for."""
    try:
        with progress(shown=shown) as told:
            return [result.report(file, command=shlex.join(["zeropoint", *sys.argv[1:]]), progress=told)]
    except ZeropointError as error:
        if not quiet:
            render.errors.print(Text(f"no report: {str(error).removeprefix('report: ')}"), soft_wrap=True)
        return []
