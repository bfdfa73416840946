"""`zeropoint` and its commands."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from zeropoint.cli.commands import bench, compare, doctor, export, inspect, lint, quantize, solve, view

# The order of `zeropoint --help`.
COMMANDS = (
    (quantize.quantize, quantize.EXAMPLE),
    (solve.solve, solve.EXAMPLE),
    (export.export, export.EXAMPLE),
    (inspect.inspect, inspect.EXAMPLE),
    (view.view, view.EXAMPLE),
    (lint.lint, lint.EXAMPLE),
    (compare.compare, compare.EXAMPLE),
    (bench.bench, bench.EXAMPLE),
    (doctor.doctor, doctor.EXAMPLE),
)

app = typer.Typer(
    name="zeropoint",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"zeropoint {version('zeropoint')}")
        raise typer.Exit


@app.callback()
def zeropoint(
    show_version: Annotated[
        bool, typer.Option("--version", metavar="", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Turn a trained FP32 network into a smaller, faster INT8 one, measure what that costs, and say why."""


for command, example in COMMANDS:
    app.command(epilog=f"Example: [bold]{example}[/bold]")(command)
