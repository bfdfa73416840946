"""The commands of `zeropoint`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import typer

from zeropoint import api
from zeropoint.cli import render
from zeropoint.errors import RecipeError
from zeropoint.targets import TARGETS

GATE_FAILED = 3

app = typer.Typer(
    name="zeropoint",
    help="Turn a trained FP32 network into a smaller, faster INT8 one, measure what that costs, and say why.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

TargetName = Enum("TargetName", {name: name for name in TARGETS}, type=str)  # type: ignore[misc]
ModelArgument = Annotated[Path, typer.Argument(help="The ONNX network.", show_default=False)]
TargetOption = Annotated[TargetName, typer.Option("--target", "-t", help="What it must run on.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


@app.command(epilog="Example: [bold]zeropoint quantize resnet50.onnx --data photos/ --preprocess imagenet --target tensorrt[/bold]")
def quantize(
    model: ModelArgument,
    target: TargetOption,
    data: Annotated[str, typer.Option(help="Samples: a folder of images, .npy, .npz, module:function, or 'random' for a trial.")] = "",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file to write; MODEL.int8.onnx if absent.")] = None,
    preprocess: Annotated[str, typer.Option(help="For images: a preset (imagenet, yolo, ...) or a TOML file.")] = "",
    solver: Annotated[str, typer.Option(help="How activation ranges are found: auto, mse, entropy, percentile[:99.99], minmax.")] = "auto",
    weight_solver: Annotated[Literal["mse", "minmax"], typer.Option(help="How weight ranges are found.")] = "mse",
    samples: Annotated[int, typer.Option(help="How many samples calibrate.")] = 128,
    batch_size: Annotated[int, typer.Option(help="How many samples run at once, where the network's batch axis is dynamic.")] = 1,
    eval_data: Annotated[str, typer.Option(help="Samples to judge by; held-out ones of --data if absent.")] = "",
    labels: Annotated[str, typer.Option(help="Classes of the judged samples: 'folder', 'stem', .csv, .npy or .txt.")] = "",
    plan: Annotated[Path | None, typer.Option(help="Start from this plan instead of calibrating.")] = None,
    include: Annotated[list[str] | None, typer.Option(help="Quantize operators of this name or type that the target holds back.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Leave operators of this name (shell pattern) or type in float.")] = None,
    weight_storage: Annotated[
        Literal["integer", "float"], typer.Option(help="Weights as integers, or as floats behind a Q/DQ pair.")
    ] = "integer",
    bias: Annotated[
        Literal["corrected", "kept"], typer.Option(help="Biases corrected for the mean error of the rounded weights, or kept.")
    ] = "corrected",
    seed: Annotated[int, typer.Option(help="Of random data.")] = 0,
    evaluate: Annotated[bool, typer.Option("--evaluate/--no-evaluate", help="Compare with the float network before handing over.")] = True,
    json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Quantize MODEL for a target, judge the result, and write it with the plan behind it."""
    destination = _destination(model, output)
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
            preprocess=preprocess or None,
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


def _destination(model: Path, output: Path | None) -> Path:
    destination = output or Path(f"{model.stem}.int8.onnx")
    if destination.exists() and model.exists() and destination.samefile(model):
        raise RecipeError(f"--output: found {destination}, which is the float model itself, expected another file; it is never overwritten")
    if destination.is_dir():
        raise RecipeError(
            f"--output: found the folder {destination}, expected the name of the file to write; add one, as in model.int8.onnx"
        )
    if not destination.absolute().parent.is_dir():
        raise RecipeError(f"--output: folder {destination.absolute().parent} does not exist; make it first, so that no work is lost")
    return destination


@app.command(epilog="Example: [bold]zeropoint lint model.onnx --target tensorrt[/bold]")
def lint(model: ModelArgument, target: TargetOption, json: JsonOption = False) -> None:
    """Check a file, ours or another tool's, against a target's rules; exit code 3 if it breaks any."""
    findings = api.lint(model, target=target.value)
    if json:
        render.print_json({"model": str(model), "target": target.value, "findings": [render.document(finding) for finding in findings]})
    else:
        render.show_findings(findings, model=model, target=target.value)
    if findings:
        raise typer.Exit(GATE_FAILED)
