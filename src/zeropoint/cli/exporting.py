"""Draw what `export` wrote, and read the axes that it is told of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from rich import box
from rich.table import Table
from rich.text import Text

from zeropoint.cli.render import console, show_notes
from zeropoint.errors import RecipeError
from zeropoint.torch.exporting import Exported

AXIS = re.compile(r"(?P<input>.+):(?P<axis>\d+)=(?P<name>[A-Za-z_]\w*)")


def parsed_axes(texts: Iterable[str]) -> Mapping[str, Mapping[int, str]] | Literal["batch", "none"]:
    """Return the dynamic axes in texts as INPUT:AXIS=NAME, or the one word "batch" or "none".

    Raises:
        RecipeError: a text is none of these.
    """
    given = list(texts)
    if not given or given == ["batch"]:
        return "batch"
    if given == ["none"]:
        return "none"
    axes: dict[str, dict[int, str]] = {}
    for text in given:
        match = AXIS.fullmatch(text)
        if match is None:
            raise RecipeError(f"--dynamic: found {text!r}, expected 'batch', 'none' or INPUT:AXIS=NAME, as in image:2=height")
        axes.setdefault(match["input"], {})[int(match["axis"])] = match["name"]
    return axes


def show_exported(exported: Exported) -> None:
    """Print inputs and outputs, how far they are from the module's, notes, and the next command."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("", "name", "dtype", "shape"):
        table.add_column(heading, overflow="fold")
    for role, tensors in (("input", exported.inputs), ("output", exported.outputs)):
        for tensor in tensors:
            table.add_row(role, Text(tensor.name), tensor.dtype, Text(" × ".join(map(str, tensor.shape)) or "scalar"))
    console.print(table)
    for check in exported.checks:
        worst = max(check.errors.values(), default=0.0)
        console.print(Text(f"same as the module on {check.what}: off by {worst:.1e} of an output's largest magnitude"), soft_wrap=True)
    show_notes(exported.notes, rest="--json lists all")
    console.print(Text(f"wrote {exported.path}: opset {exported.opset}, {exported.size / 1e6:.3g} MB"), soft_wrap=True)
    console.print(Text(f"next: zeropoint inspect {exported.path}"), soft_wrap=True)
