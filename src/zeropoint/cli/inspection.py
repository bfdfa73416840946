"""Draw what `inspect` found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich import box
from rich.table import Table
from rich.text import Text

from zeropoint.cli.render import console, show_notes
from zeropoint.inspection import Inspection, Layer, Shape, TargetView, TensorInfo
from zeropoint.notes import counted

MOST_LAYERS, MOST_NAMED = 20, 3
LEAST_NAME = 22  # columns for the name of a layer, before others are left out
GAP, EDGES = 2, 2  # columns between two of the table, and around it
TYPES = "in·w→out"
UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def show_inspection(found: Inspection, *, model: Path, every_layer: bool) -> None:
    """Print inputs and outputs, totals, the weighted operators, and what a target would quantize."""
    opset = f"opset {found.opset}" if found.opset is not None else "no opset of ONNX"
    producer = f", by {found.producer}" if found.producer else ""
    form = "quantized" if found.quantized else "float"
    console.print(Text.assemble((str(model), "bold"), f": {form}, {opset}, IR version {found.ir_version}{producer}"), soft_wrap=True)
    console.print(_interface(found))
    for line in (*_totals(found), *_dtypes(found)):
        console.print(line, soft_wrap=True)
    shown = found.layers if every_layer else found.layers[:MOST_LAYERS]
    if shown:
        console.print(layer_table(shown, width=console.width))
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
    yield Text(f"parameters: {_count(found.parameters).strip()} in {_count(found.weight_bytes)}B; constants: {sizes or 'none'}")
    if found.macs is not None:
        inputs = ", ".join(f"{name} {_shape(shape)}" for name, shape in found.input_shapes.items())
        least, shares = ("at least ", "; shares are of these") if found.uncounted else ("", "")
        yield Text(f"multiply-accumulates: {least}{_count(found.macs).strip()} for {inputs}{shares}")
    if found.activation_bytes is not None and found.layers:
        weights, activations = (f"{_count(size)}B" for size in (sum(layer.weight_bytes for layer in found.layers), found.activation_bytes))
        yield Text(f"moved by {counted(len(found.layers), 'weighted operator')}: {weights} of weights, {activations} of activations")


def _dtypes(found: Inspection) -> Iterator[Text]:
    """What computes in integers, and the dtypes of the first layer, the first convolution if there is one."""
    if not found.layers:
        return
    if found.quantized:
        share = sum(layer.mac_share or 0 for layer in found.layers if layer.integer)
        counted_ones = "multiply-accumulates that are counted" if found.uncounted else "multiply-accumulates"
        of_macs = f", {100 * share:.3g} % of the {counted_ones}" if found.macs else ""
        told = f"codes multiply codes in {found.integer_layers} of {counted(len(found.layers), 'weighted operator')}{of_macs}"
        floats = [layer.node for layer in found.layers if not layer.integer]
        more = f" and {len(floats) - MOST_NAMED} more" if len(floats) > MOST_NAMED else ""
        yield Text(f"{told}; not in {', '.join(floats[:MOST_NAMED])}{more}" if floats else told)
    first = next((layer for layer in found.layers if "Conv" in layer.operator), found.layers[0])
    roles = (
        ("input", first.input_dtype),
        ("weight", _constant(first.weight)),
        ("bias", _constant(first.bias)),
        ("output", first.output_dtype),
    )
    dtypes = ", ".join(f"{role} {dtype or 'not told'}" for role, dtype in roles)
    yield Text.assemble(f"first {first.operator}, ", (first.node, "cyan"), f": {dtypes}")


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the table of layers; of those that do not fit, the one of the least `worth` goes first."""

    header: str
    worth: int
    justify: Literal["left", "right"]
    cell: Callable[[Layer], str]


def _types(layer: Layer) -> str:
    """The dtypes of the two operands and of the output in short: u8·i8→u8."""
    return f"{_short(layer.input_dtype)}·{_short(layer.weight_dtype)}→{_short(layer.output_dtype)}"


COLUMNS = (
    _Column("operator", 6, "left", lambda layer: layer.operator),
    _Column("weight", 5, "left", lambda layer: _shape(layer.weight.shape) if layer.weight is not None else "-"),
    _Column("output", 1, "left", lambda layer: _shape(layer.output_shape) if layer.output_shape is not None else ""),
    _Column(TYPES, 7, "left", _types),
    _Column("params", 2, "right", lambda layer: _count(layer.parameters).strip()),
    _Column("MACs", 8, "right", lambda layer: _count(layer.macs).strip() if layer.macs is not None else ""),
    _Column("share", 4, "right", lambda layer: f"{100 * layer.mac_share:.1f} %" if layer.mac_share is not None else ""),
    _Column("moved", 3, "right", lambda layer: f"{_count(layer.bytes_moved)}B" if layer.bytes_moved is not None else ""),
)


def layer_table(layers: Sequence[Layer], *, width: int) -> Table:
    """Return the table of `layers` in `width` columns of text: a line each, with the names cut and columns left out that do not fit.

    Columns left out are named in the caption; dtypes that are those of all layers stand there too.
    """
    types = {_types(layer) for layer in layers}
    every = {column: [column.cell(layer) for layer in layers] for column in COLUMNS if not (column.header == TYPES and len(types) == 1)}
    cells = {column: texts for column, texts in every.items() if any(texts)}  # where shapes are not known, neither is the work
    sizes = {column: GAP + max(map(len, (column.header, *texts))) for column, texts in cells.items()}
    names = [layer.node for layer in layers]
    least = min(max(map(len, names)), LEAST_NAME)
    kept = list(cells)
    while kept and sum(sizes[column] for column in kept) + least > width - EDGES:
        kept.remove(min(kept, key=lambda column: column.worth))
    room = max(width - EDGES - sum(sizes[column] for column in kept), LEAST_NAME // 2)
    left_out = [column.header for column in cells if column not in kept]
    said = [f"{TYPES}: {next(iter(types))} in each"] if len(types) == 1 else []
    said += [f"no room for {', '.join(left_out)}: --json has all"] if left_out else []
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), caption="; ".join(said) or None, caption_justify="left")
    table.add_column("layer", no_wrap=True)
    for column in kept:
        table.add_column(column.header, justify=column.justify, no_wrap=True)
    for place, name in enumerate(_cut(names, room)):
        table.add_row(Text(name), *(cells[column][place] for column in kept))
    return table


def _short(dtype: str) -> str:
    for name, letter in (("bfloat", "bf"), ("float", "f"), ("uint", "u"), ("int", "i")):
        if dtype.startswith(name):
            return letter + dtype.removeprefix(name)
    return dtype or "?"


def _cut(names: Sequence[str], room: int) -> list[str]:
    """Cut names that are too long where most of them stay different: at the beginning, or somewhere in the middle."""
    ways = [[name if len(name) <= room else _without(name, room, head) for name in names] for head in (0, room // 4, room // 2)]
    return max(ways, key=lambda way: len(set(way)))


def _without(name: str, room: int, head: int) -> str:
    return f"{name[:head]}…{name[len(name) - room + head + 1 :]}"


def _show_target(view: TargetView) -> None:
    heading = f"\n{view.target} would compute {view.coverage.quantized} of {view.coverage.candidates} operators in integers"
    console.print(Text(heading, style="bold"), soft_wrap=True)
    show_notes(view.notes, rest="--json lists all")


def _table(*headers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
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
