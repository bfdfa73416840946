"""`zeropoint inspect`."""

from __future__ import annotations

from rich.text import Text

from zeropoint import api
from zeropoint.cli import options, render
from zeropoint.cli.destination import check_page
from zeropoint.cli.inspection import show_inspection
from zeropoint.cli.interruption import interruptible
from zeropoint.cli.shapes import parsed_shapes

EXAMPLE = "zeropoint inspect model.onnx --target tensorrt --shape image=1x3x640x640"


def inspect(
    model: options.Model,
    target: options.ViewTarget = None,
    shape: options.Shapes = None,
    every_layer: options.EveryLayer = False,
    report: options.ReportFile = None,
    json: options.Json = False,
) -> None:
    """Show what is in MODEL: inputs, outputs, weights, operators, work and bytes, and what a target would quantize."""
    shapes = parsed_shapes(shape or ())
    if report is not None:
        check_page(report, model=model)
    with interruptible(writes=() if report is None else (report,)):
        found = api.inspect(model, target=target.value if target is not None else None, shapes=shapes, report=report)
    if json:
        render.print_json(render.document(found))
    else:
        show_inspection(found, model=model, every_layer=every_layer)
        if report is not None:
            render.console.print(Text(f"\nwrote {report}"), soft_wrap=True)
