"""The page of `inspect`: what is in a network, its layers, and what a target would quantize of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from zeropoint.inspection import Inspection, Layer, TargetView
from zeropoint.notes import counted
from zeropoint.report.figures import Bar, Figure, Figures
from zeropoint.report.manifest import Manifest
from zeropoint.report.page import Page, Section
from zeropoint.report.reasons import Reasons, grouped
from zeropoint.report.table import Cell, Column, Row, Table

UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
LAYERS = (
    Column(title="Layer"),
    Column(title="Operator"),
    Column(title="Input", hint="The dtype of the codes where a Q/DQ pair stands before the layer."),
    Column(title="Weight", hint="The dtype that the input is multiplied by."),
    Column(title="Bias"),
    Column(title="Output", hint="The dtype of the codes that are made of the output, behind a Relu or Clip if there is one."),
    Column(title="Weight shape"),
    Column(title="Output shape"),
    Column(title="Parameters", align="right", first="descending"),
    Column(title="MACs", align="right", first="descending", hint="Multiply-accumulates of one run."),
    Column(title="Share", align="right", first="descending", hint="Of all multiply-accumulates that are counted."),
    Column(title="Moved", align="right", first="descending", hint="Bytes of weights, inputs and output, each as it is stored."),
)


def inspection_page(found: Inspection, *, name: str) -> Page:
    """Return the page of the network called `name`."""
    layers = Table(
        heading="Layers",
        lead="Operators that multiply by weights, or two activations; all others are among the operators below.",
        columns=LAYERS,
        rows=[Row(_layer(layer)) for layer in found.layers],
        search="Search layers",
        empty="There is no operator that multiplies by weights.",
    )
    middle = () if found.target is None else (_of_target(found.target),)
    sections: list[Section] = [Figures("In all", tuple(_figures(found))), _interface(found), layers, *middle, _operators(found)]
    if found.notes:
        sections.append(Reasons(heading="Notes", groups=grouped(found.notes)))
    return Page(kind="inspect", title=name, verdict=_verdict(found), sections=[*sections, _file(found)])


def _verdict(found: Inspection) -> str:
    size = f"{quantity(found.parameters)} parameters in {quantity(found.weight_bytes)}B"
    if not found.quantized:
        return f"A float network of {size}"
    return f"A quantized network of {size}: codes multiply codes in {found.integer_layers} of {counted(len(found.layers), 'layer')}"


def _figures(found: Inspection) -> Iterator[Figure]:
    yield Figure(label="Parameters", bars=(Bar("elements", quantity(found.parameters)), Bar("bytes", f"{quantity(found.weight_bytes)}B")))
    inputs = ", ".join(f"{name} {_shape(shape)}" for name, shape in found.input_shapes.items())
    least, more = ("at least ", "; others are not counted: see the notes") if found.uncounted else ("", "")
    macs = () if found.macs is None else (Bar("one run", f"{least}{quantity(found.macs)}".strip()),)
    yield Figure(label="Multiply-accumulates", bars=macs, detail=f"for {inputs}{more}" if macs else "not known: see the notes")
    if found.quantized:
        share = sum(layer.mac_share or 0 for layer in found.layers if layer.integer)
        integers = Bar("layers", f"{found.integer_layers} of {len(found.layers)}", found.integer_layers / max(len(found.layers), 1))
        of_counted = " of those counted" if found.uncounted else ""
        work = (Bar("multiply-accumulates", f"{100 * share:.3g} %{of_counted}", min(share, 1.0)),) if found.macs else ()
        yield Figure(label="Codes multiply codes", bars=(integers, *work), detail="both of 8 bits, with no scale per block")
    if found.activation_bytes is not None:
        weights = sum(layer.weight_bytes for layer in found.layers)
        most = max(weights, found.activation_bytes, 1)
        moved = (("weights", weights), ("activations", found.activation_bytes))
        bars = tuple(Bar(label, f"{quantity(size)}B", size / most) for label, size in moved)
        yield Figure(label="Moved by the layers", bars=bars, detail="what their kernels read and write at least, as it is stored")


def _interface(found: Inspection) -> Table:
    tensors = [("input", tensor) for tensor in found.inputs] + [("output", tensor) for tensor in found.outputs]
    rows = [Row((Cell(role), Cell(tensor.name, None, "code"), Cell(tensor.dtype), Cell(_shape(tensor.shape)))) for role, tensor in tensors]
    columns = [Column(title=title) for title in ("Role", "Name", "Dtype", "Shape")]
    return Table(heading="Inputs and outputs", columns=columns, rows=rows)


def _layer(layer: Layer) -> tuple[Cell, ...]:
    weight, bias = layer.weight, layer.bias
    return (
        Cell(layer.node, None, "code"),
        Cell(layer.operator),
        _dtype(layer.input_dtype),
        _dtype(layer.weight_dtype),
        _dtype(bias.dtype if bias is not None else ""),
        _dtype(layer.output_dtype),
        _sized(weight.shape if weight is not None else None),
        _sized(layer.output_shape),
        _number(layer.parameters),
        _number(layer.macs),
        Cell("", math.nan) if layer.mac_share is None else Cell(f"{100 * layer.mac_share:.1f} %", layer.mac_share),
        _number(layer.bytes_moved, unit="B"),
    )


def _dtype(dtype: str) -> Cell:
    return Cell(dtype, None, "int" if "int" in dtype else "float" if "float" in dtype else "")


def _sized(shape: Sequence[int | str | None] | None) -> Cell:
    """A shape, sorted by how many elements it has."""
    if shape is None:
        return Cell("", math.nan)
    return Cell(_shape(shape), float(math.prod(size for size in shape if isinstance(size, int))))


def _number(number: int | None, *, unit: str = "") -> Cell:
    return Cell("", math.nan) if number is None else Cell(f"{quantity(number)}{unit}".strip(), float(number))


def _of_target(view: TargetView) -> Reasons:
    heading = f"{view.target} would compute {view.coverage.quantized} of {view.coverage.candidates} operators in integers"
    return Reasons(heading=heading, groups=grouped(view.notes))


def _operators(found: Inspection) -> Table:
    columns = [Column(title="Operator"), Column(title="Count", align="right", first="descending")]
    rows = [Row((Cell(name), Cell(str(count), float(count)))) for name, count in found.operators.items()]
    return Table(heading="Operators", columns=columns, rows=rows)


def _file(found: Inspection) -> Manifest:
    sizes = ", ".join(f"{quantity(size)}B {dtype}" for dtype, size in found.bytes_by_dtype.items() if size)
    opset = str(found.opset) if found.opset is not None else "none of ONNX"
    facts = (
        ("Opset", opset),
        ("IR version", str(found.ir_version)),
        ("Made by", found.producer or "not told"),
        ("Constants", sizes or "none"),
    )
    return Manifest(heading="The file", facts=facts)


def _shape(shape: Sequence[int | str | None] | None) -> str:
    if shape is None:
        return "not told"
    return "×".join("?" if size is None else str(size) for size in shape) or "scalar"


def quantity(number: int) -> str:
    """Write a number in three digits and a unit that may have another behind it.

    Example:
        >>> quantity(4_631_000), quantity(7) + "B"
        ('4.63 M', '7 B')
    """
    unit = next(((worth, letter) for worth, letter in UNITS if number >= worth), None)
    return f"{number / unit[0]:.3g} {unit[1]}" if unit is not None else f"{number} "
