"""`zeropoint export`."""

from __future__ import annotations

from zeropoint import api
from zeropoint.cli import options, render
from zeropoint.cli.destination import check_page
from zeropoint.cli.exporting import parsed_axes, show_exported
from zeropoint.cli.interruption import interruptible
from zeropoint.cli.shapes import parsed_shapes

EXAMPLE = "zeropoint export models.py:resnet18 -o resnet18.onnx --shape x=1x3x224x224"


def export(
    module: options.Module,
    output: options.ExportOutput,
    shape: options.ExportShapes = None,
    input_name: options.InputNames = None,
    output_name: options.OutputNames = None,
    dynamic: options.Dynamic = None,
    opset: options.Opset = 20,
    optimize: options.Optimize = True,
    weights: options.ExportWeights = "stored",
    tolerance: options.ExportTolerance = 1e-4,
    seed: options.ExportSeed = 0,
    verbose: options.Verbose = False,
    json: options.Json = False,
) -> None:
    """Write a PyTorch module as an ONNX network, and compare the two; nothing is written where they differ."""
    shapes, axes = parsed_shapes(shape or ()), parsed_axes(dynamic or ())
    check_page(output, option="--output")
    with interruptible(writes=(output,)):
        exported = api.export(
            module,
            None,
            output,
            shapes=shapes,
            input_names=input_name or (),
            output_names=output_name or (),
            dynamic_axes=axes,
            opset=opset,
            optimize=optimize,
            export_params=weights != "fed",
            keep_initializers_as_inputs=weights == "overridable",
            tolerance=tolerance,
            seed=seed,
            verbose=verbose,
        )
    if json:
        render.print_json(render.document(exported))
    else:
        show_exported(exported)
