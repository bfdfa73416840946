"""The commands of `zeropoint`."""

from __future__ import annotations

import os
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from zeropoint import api
from zeropoint.cli import render
from zeropoint.cli.inspection import show_inspection
from zeropoint.errors import RecipeError
from zeropoint.result import plan_path
from zeropoint.targets import TARGETS

GATE_FAILED = 3

app = typer.Typer(
    name="zeropoint",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

TargetName = Enum("TargetName", {name: name for name in TARGETS}, type=str)  # type: ignore[misc]
EVERY_TARGET = ", ".join(TARGETS)
TUNING, JUDGING = "How it is quantized", "How it is judged"
PREPROCESS = (
    "For images: a preset (imagenet, yolo, ...) or a TOML file. Repeat it to change keys of that: 'crop=[288, 288]', resize.size=320."
)
ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX network.", show_default=False)]
TargetOption = Annotated[
    TargetName, typer.Option("--target", "-t", metavar="TARGET", help=f"What it must run on: {EVERY_TARGET}.", show_default=False)
]
EvaluateOption = Annotated[
    bool,
    typer.Option(" /--no-evaluate", metavar="", help="Do not compare with the float network.", show_default=False, rich_help_panel=JUDGING),
]
JsonOption = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON document instead of tables.")]


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


def _option(metavar: str, help: str, *, names: tuple[str, ...] = (), panel: str | None = None) -> Any:
    """Declare an option whose type is a short word, so that the help has room; `panel` is the box that it stands in."""
    return typer.Option(*names, metavar=metavar, help=help, rich_help_panel=panel)


@app.command(epilog="Example: [bold]zeropoint quantize resnet50.onnx --data photos/ --preprocess imagenet --target tensorrt[/bold]")
def quantize(
    model: ModelArgument,
    target: TargetOption,
    data: Annotated[str, _option("DATA", "Samples: a folder of images, .npy, .npz, module:function, or 'random' for a trial.")] = "",
    preprocess: Annotated[list[str] | None, _option("PRESET", PREPROCESS)] = None,
    output: Annotated[Path | None, _option("FILE", "The file to write; NAME.int8.onnx, here, if absent.", names=("--output", "-o"))] = None,
    solver: Annotated[
        str, _option("NAME", "For ranges of activations: auto, mse, entropy, percentile[:99.99] or minmax.", panel=TUNING)
    ] = "auto",
    weight_solver: Annotated[Literal["mse", "minmax"], _option("NAME", "For ranges of weights: mse or minmax.", panel=TUNING)] = "mse",
    samples: Annotated[int, _option("N", "How many samples calibrate.", panel=TUNING)] = 128,
    batch_size: Annotated[int, _option("N", "How many run at once, where the batch axis is dynamic.", panel=TUNING)] = 1,
    seed: Annotated[int, _option("N", "Of random data.", panel=TUNING)] = 0,
    include: Annotated[
        list[str] | None, _option("PATTERN", "Quantize nodes of this name or type that the target holds back.", panel=TUNING)
    ] = None,
    exclude: Annotated[list[str] | None, _option("PATTERN", "Leave nodes of this name or type in float.", panel=TUNING)] = None,
    bias: Annotated[
        Literal["corrected", "kept"], _option("HOW", "corrected for the mean error of the rounded weights, or kept.", panel=TUNING)
    ] = "corrected",
    weight_storage: Annotated[
        Literal["integer", "float"], _option("HOW", "integer, or float: behind a Q/DQ pair.", panel=TUNING)
    ] = "integer",
    plan: Annotated[Path | None, _option("FILE", "Start from this plan instead of calibrating.", panel=TUNING)] = None,
    eval_data: Annotated[str, _option("DATA", "Samples to judge by; held-out ones of --data if absent.", panel=JUDGING)] = "",
    labels: Annotated[str, _option("LABELS", "Their classes: 'folder', 'stem', .csv, .npy or .txt.", panel=JUDGING)] = "",
    evaluate: EvaluateOption = True,
    json: JsonOption = False,
    quiet: Annotated[bool, _option("", "Print nothing but errors.", names=("--quiet", "-q"))] = False,
) -> None:
    """Quantize MODEL for a target, judge the result, and write it with the plan behind it."""
    destination = _destination(model, output, plan=plan)
    with render.progress(shown=not (json or quiet)) as report:
        result = api.quantize(
            model,
            data=data or None,
            target=target.value,
            solver=solver,
            weight_solver=weight_solver,
            samples=samples,
            batch_size=batch_size,
            include=include or (),
            exclude=exclude or (),
            bias=bias,
            weight_storage=weight_storage,
            seed=seed,
            plan=plan,
            preprocess=preprocess,
            eval_data=eval_data or None,
            labels=labels or None,
            evaluate=evaluate,
            progress=report,
        )
    written = result.save(destination)
    if json:
        render.print_json(render.result_document(result, written))
    elif not quiet:
        render.show_result(result, written)
    if result.evidence.findings:
        raise typer.Exit(GATE_FAILED)


def _destination(model: Path, output: Path | None, *, plan: Path | None) -> Path:
    destination = output or Path(f"{model.stem}.int8.onnx")
    if destination.exists() and model.exists() and destination.samefile(model):
        raise RecipeError(f"--output: found {destination}, which is the float model itself, expected another file; it is never overwritten")
    if destination.is_dir():
        raise RecipeError(
            f"--output: found the folder {destination}, expected the name of the file to write; add one, as in model.int8.onnx"
        )
    if not destination.absolute().parent.is_dir():
        raise RecipeError(f"--output: folder {destination.absolute().parent} does not exist; make it first, so that no work is lost")
    if not os.access(destination.absolute().parent, os.W_OK):
        raise RecipeError(
            f"--output: folder {destination.absolute().parent} cannot be written to; choose another one, so that no work is lost"
        )
    if plan is not None and plan.absolute() == plan_path(destination).absolute():
        raise RecipeError(f"--output: the plan of {destination} would be written over {plan}, which --plan reads; name another file")
    return destination


@app.command(epilog="Example: [bold]zeropoint inspect model.onnx --target tensorrt --shape image=1x3x640x640[/bold]")
def inspect(
    model: ModelArgument,
    target: Annotated[
        TargetName | None, typer.Option("--target", "-t", metavar="TARGET", help=f"Say what would be quantized for it: {EVERY_TARGET}.")
    ] = None,
    shape: Annotated[list[str] | None, typer.Option(metavar="SHAPE", help="INPUT=1x3x640x640, for inputs with dynamic axes.")] = None,
    every_layer: Annotated[bool, typer.Option("--all", metavar="", help="List every layer.")] = False,
    json: JsonOption = False,
) -> None:
    """Show what is in MODEL: inputs, outputs, weights, operators, work and bytes, and what a target would quantize."""
    shapes = dict(map(_parsed_shape, shape or ()))
    found = api.inspect(model, target=target.value if target is not None else None, shapes=shapes)
    if json:
        render.print_json(render.document(found))
    else:
        show_inspection(found, model=model, every_layer=every_layer)


def _parsed_shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, equals, sizes = text.rpartition("=")
    try:
        shape = tuple(int(size) for size in sizes.split("x"))
    except ValueError:
        shape = ()
    if not (name and equals and shape) or min(shape) < 0:
        raise RecipeError(f"--shape: found {text!r}, expected INPUT=1x3x224x224: the input's name and a number for each axis")
    return name, shape


@app.command(epilog="Example: [bold]zeropoint lint model.onnx --target tensorrt[/bold]")
def lint(model: ModelArgument, target: TargetOption, json: JsonOption = False) -> None:
    """Check a file, ours or another tool's, against a target's rules; exit code 3 if it breaks any."""
    found = api.lint(model, target=target.value)
    if json:
        render.print_json({"model": str(model), "target": target.value, **render.document(found)})
    else:
        render.show_lint(found, model=model, target=target.value)
    if found.findings:
        raise typer.Exit(GATE_FAILED)
