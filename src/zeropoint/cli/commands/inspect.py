"""`zeropoint inspect`."""

from __future__ import annotations

from zeropoint import api
from zeropoint.cli import options, render
from zeropoint.cli.inspection import show_inspection
from zeropoint.cli.interruption import interruptible
from zeropoint.errors import RecipeError

EXAMPLE = "zeropoint inspect model.onnx --target tensorrt --shape image=1x3x640x640"


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
