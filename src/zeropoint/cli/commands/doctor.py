"""`zeropoint doctor`."""

from __future__ import annotations

from zeropoint import api
from zeropoint.cli import bars, options, render
from zeropoint.cli.doctor import show_diagnosis
from zeropoint.cli.interruption import interruptible

EXAMPLE = "zeropoint doctor --json"


def doctor(measure: options.Measure = True, json: options.Json = False) -> None:
    """Show what this machine can do: processor, runtimes, GPUs, which target is faster here, and known traps."""
    with interruptible(), bars.progress(shown=not json) as progress:
        found = api.doctor(measure=measure, progress=progress)
    if json:
        render.print_json(render.document(found))
    else:
        show_diagnosis(found)
