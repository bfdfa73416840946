"""`zeropoint bench`."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import typer
from rich.text import Text

from zeropoint import api
from zeropoint.benching.bench import Figure, check_place
from zeropoint.cli import options, render
from zeropoint.cli.bars import progress
from zeropoint.cli.benching import show_bench
from zeropoint.cli.destination import check_page
from zeropoint.cli.handover import GATE_FAILED
from zeropoint.cli.interruption import interruptible
from zeropoint.cli.shapes import parsed_shapes
from zeropoint.errors import RecipeError

EXAMPLE = "zeropoint bench model.onnx model.int8.onnx --save before.json"


def bench(
    models: options.Models,
    runtime: options.Runtimes = "onnxruntime",
    threads: options.Threads = 0,
    batch: options.BenchBatch = None,
    seconds: options.Seconds = 5.0,
    shape: options.Shapes = None,
    provider: options.BenchProvider = "cpu",
    save: options.Save = None,
    against: options.Against = None,
    tolerance: options.Tolerance = "10%",
    by: options.By = "latency,ratio",
    report: options.BenchReport = None,
    json: options.Json = False,
) -> None:
    """Time MODELs side by side on this machine: latency, memory, energy, and which operators take it; exit code 3 if slower than before."""
    names, figures = (tuple(word.strip() for word in words.split(",") if word.strip()) for words in (runtime, by))
    shapes, share = parsed_shapes(shape or ()), _share(tolerance)
    written = [file for file in (save, report) if file is not None]
    for option, file in (("--save", save), ("--report", report)):
        if file is not None:
            for model in models:
                check_page(file, model=Path(model), option=option)
    if save is not None:
        check_place(save)
        if report is not None and save.resolve() == report.resolve():
            raise RecipeError(f"--save: found {save}, which --report names too, expected another file")
    with interruptible(writes=written), progress(shown=not json, unit="rounds") as shown:
        found = api.bench(
            models,
            runtimes=names,
            threads=threads,
            batch=batch,
            seconds=seconds,
            shapes=shapes,
            provider=provider,
            against=against,
            tolerance=share,
            by=cast("tuple[Figure, ...]", figures),
            report=report,
            progress=shown,
        )
        keeps = save is not None and against is not None and bool(found.regressions) and _is_one_file(save, against)
        if save is not None and not keeps:
            found.save(save)
    if keeps:
        kept = f"{save} was not written: models became slower than they are in it, which --against compares with"
        render.errors.print(Text(kept), soft_wrap=True)
    if json:
        render.print_json(render.document(found))
    else:
        show_bench(found, written=[file for file in written if not (keeps and file == save)])
    if found.regressions:
        raise typer.Exit(GATE_FAILED)


def _is_one_file(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _share(text: str) -> float:
    """Read "10%" or "0.1"."""
    number, percent = text.removesuffix("%"), text.endswith("%")
    try:
        return float(number) / (100 if percent else 1)
    except ValueError:
        raise RecipeError(f"--tolerance: found {text!r}, expected a share as 10% or 0.1") from None
