"""Write what a command made, show it, and end with the code that says how it went."""

from __future__ import annotations

from pathlib import Path

import typer

from zeropoint.cli import render
from zeropoint.result import Result

GATE_FAILED = 3


def hand_over(result: Result, file: Path, *, json: bool, quiet: bool) -> None:
    """Write a result and show it; broken rules end the command, but leave what was written."""
    written = result.save(file)
    if json:
        render.print_json(render.result_document(result, written))
    elif not quiet:
        render.show_result(result, written)
    if result.evidence.findings:
        raise typer.Exit(GATE_FAILED)
