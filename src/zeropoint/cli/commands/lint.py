"""`zeropoint lint`."""

from __future__ import annotations

import typer

from zeropoint import api
from zeropoint.cli import options, render
from zeropoint.cli.handover import GATE_FAILED
from zeropoint.cli.interruption import interruptible

EXAMPLE = "zeropoint lint model.onnx --target tensorrt"


def lint(model: options.Model, target: options.Target, json: options.Json = False) -> None:
    """Check a file, ours or another tool's, against a target's rules; exit code 3 if it breaks any."""
    with interruptible():
        found = api.lint(model, target=target.value)
    if json:
        render.print_json({"model": str(model), "target": target.value, **render.document(found)})
    else:
        render.show_lint(found, model=model, target=target.value)
    if found.findings:
        raise typer.Exit(GATE_FAILED)
