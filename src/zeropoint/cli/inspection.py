"""Draw what `inspect` found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from zeropoint.cli.render import console, show_notes
from zeropoint.inspection import Inspection, Layer, Shape, TargetView, TensorInfo

MOST_LAYERS = 20
UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def show_inspection(found: Inspection, *, model: Path, every_layer: bool) -> None:
    """Print inputs and outputs, totals, the weighted operators, and what a target would quantize."""
    opset = f"opset {found.opset}" if found.opset is not None else "no opset of ONNX"
    producer = f", by {found.producer}" if found.producer else ""
    form = "quantized" if found.quantized else "float"
    console.print(Text.assemble((str(model), "bold"), f": {form}, {opset}, IR version {found.ir_version}{producer}"), soft_wrap=True)
    console.print(_interface(found))
    for line in _totals(found):
        console.print(line, soft_wrap=True)
    shown = found.layers if every_layer else found.layers[:MOST_LAYERS]
    if shown:
        console.print(_layers(shown))
    if len(shown) < len(found.layers):
        console.print(f"and {len(found.layers) - len(shown)} more layers: --all lists them, --json too")
    show_notes(found.notes, rest="--json lists all")
    if found.target is not None:
        _show_target(found.target)


def _interface(found: Inspection) -> Table:
    table = _table("", "name", "dtype", "shape")
    for role, tensors in (("input", found.inputs), ("output", found.outputs)):
        for tensor in tensors:
            table.add_row(role, Text(tensor.name), tensor.dtype or "not told", _shape(tensor.shape, " × "))
    return table


def _totals(found: Inspection) -> Iterable[Text]:
    operators = ", ".join(f"{count} {name}" for name, count in found.operators.items())
    yield Text(f"operators: {sum(found.operators.values())}: {operators}")
    sizes = ", ".join(f"{_count(size)}B {dtype}" for dtype, size in found.bytes_by_dtype.items() if size)
    yield Text(f"parameters: {_count(found.parameters)}; constants: {sizes or 'none'}")
    if found.macs is not None:
        inputs = ", ".join(f"{name} {_shape(shape)}" for name, shape in found.input_shapes.items())
        yield Text(f"multiply-accumulates: {_count(found.macs)} for {inputs}")


def _layers(layers: Sequence[Layer]) -> Table:
    table = _table("layer", "operator", "in", "weight", "bias", "out", "MACs")
    for layer in layers:
        cells = layer.operator, layer.input_dtype, _constant(layer.weight), _constant(layer.bias), layer.output_dtype
        table.add_row(Text(layer.node), *cells, _count(layer.macs) if layer.macs is not None else "")
    return table


def _show_target(view: TargetView) -> None:
    heading = f"\n{view.target} would compute {view.coverage.quantized} of {view.coverage.candidates} operators in integers"
    console.print(Text(heading, style="bold"), soft_wrap=True)
    show_notes(view.notes, rest="--json lists all")


def _table(*headers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        table.add_column(header, justify="right" if header == "MACs" else "left", overflow="fold")
    return table


def _constant(tensor: TensorInfo | None) -> str:
    return f"{tensor.dtype} {_shape(tensor.shape)}" if tensor is not None else "-"


def _shape(shape: Shape | None, between: str = "×") -> str:
    if shape is None:
        return "not told"
    return between.join("?" if size is None else str(size) for size in shape) or "scalar"


def _count(number: int) -> str:
    unit = next(((worth, letter) for worth, letter in UNITS if number >= worth), None)
    return f"{number / unit[0]:.3g} {unit[1]}" if unit is not None else f"{number} "
