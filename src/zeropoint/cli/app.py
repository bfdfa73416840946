"""The commands of `zeropoint`."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from zeropoint import api
from zeropoint.cli import options, render
from zeropoint.cli.bars import progress
from zeropoint.cli.destination import destination
from zeropoint.cli.inspection import show_inspection
from zeropoint.cli.interruption import interruptible
from zeropoint.errors import RecipeError
from zeropoint.result import Result, plan_path

GATE_FAILED = 3

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


@app.command(epilog="Example: [bold]zeropoint quantize resnet50.onnx --data photos/ --preprocess imagenet --target tensorrt[/bold]")
def quantize(
    model: options.Model,
    target: options.Target,
    data: options.Data = "",
    preprocess: options.Preprocess = None,
    output: options.Output = None,
    solver: options.Solver = "auto",
    weight_solver: options.WeightSolver = "mse",
    samples: options.SampleCount = 128,
    batch_size: options.BatchSize = 1,
    seed: options.Seed = 0,
    include: options.Include = None,
    exclude: options.Exclude = None,
    weight_format: options.WeightFormat = "int8",
    weight_granularity: options.WeightGranularity = "channel",
    bias: options.Bias = "corrected",
    weight_storage: options.WeightStorage = "integer",
    effort: options.Effort = "balanced",
    without: options.Without = None,
    plan: options.StartingPlan = None,
    workers: options.Workers = 1,
    memory_budget: options.MemoryBudget = None,
    provider: options.Provider = "cpu",
    checkpoint: options.Checkpoint = None,
    eval_data: options.EvalData = "",
    labels: options.Labels = "",
    evaluate: options.Evaluate = True,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Quantize MODEL for a target, judge the result, and write it with the plan behind it."""
    file = destination(model, output, spared={"which --plan reads": plan}, checkpoint=checkpoint)
    with interruptible(writes=(file, plan_path(file)), checkpoint=checkpoint):
        with progress(shown=not (json or quiet)) as report:
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
                weight_format=weight_format,
                weight_granularity=weight_granularity,
                bias=bias,
                weight_storage=weight_storage,
                effort=effort,
                without=without or (),
                seed=seed,
                plan=plan,
                preprocess=preprocess,
                eval_data=eval_data or None,
                labels=labels or None,
                evaluate=evaluate,
                workers=workers,
                memory_budget=memory_budget,
                provider=provider,
                checkpoint=checkpoint,
                progress=report,
            )
        _hand_over(result, file, json=json, quiet=quiet)


@app.command(epilog="Example: [bold]zeropoint solve photos.stats resnet50.onnx --target openvino --solver percentile:99.99[/bold]")
def solve(
    statistics: options.Statistics,
    model: options.Model,
    target: options.Target,
    output: options.Output = None,
    solver: options.Solver = "auto",
    weight_solver: options.WeightSolver = "mse",
    include: options.Include = None,
    exclude: options.Exclude = None,
    weight_format: options.WeightFormat = "int8",
    weight_granularity: options.WeightGranularity = "channel",
    bias: options.Bias = "corrected",
    weight_storage: options.WeightStorage = "integer",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Quantize MODEL from the statistics that an earlier calibration kept, for any target, without data."""
    file = destination(model, output, spared={"which is STATS": statistics})
    with interruptible(writes=(file, plan_path(file))):
        result = api.solve(
            statistics,
            model,
            target=target.value,
            solver=solver,
            weight_solver=weight_solver,
            include=include or (),
            exclude=exclude or (),
            weight_format=weight_format,
            weight_granularity=weight_granularity,
            bias=bias,
            weight_storage=weight_storage,
        )
        _hand_over(result, file, json=json, quiet=quiet)


def _hand_over(result: Result, file: Path, *, json: bool, quiet: bool) -> None:
    """Write a result and show it; broken rules end the command, but leave what was written."""
    written = result.save(file)
    if json:
        render.print_json(render.result_document(result, written))
    elif not quiet:
        render.show_result(result, written)
    if result.evidence.findings:
        raise typer.Exit(GATE_FAILED)


@app.command(epilog="Example: [bold]zeropoint inspect model.onnx --target tensorrt --shape image=1x3x640x640[/bold]")
def inspect(
    model: options.Model,
    target: options.ViewTarget = None,
    shape: options.Shapes = None,
    every_layer: options.EveryLayer = False,
    json: options.Json = False,
) -> None:
    """Show what is in MODEL: inputs, outputs, weights, operators, work and bytes, and what a target would quantize."""
    shapes = dict(map(_parsed_shape, shape or ()))
    with interruptible():
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
