"""Put an exported network into the form that is written: its own names, no traces of where it was made, weights where they are wanted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Literal

import numpy as np
import onnx_ir as ir

from zeropoint.graph.initializers import Array

Dims = tuple[int | str, ...]
Weights = Literal["stored", "overridable", "fed"]
SYMBOL = re.compile(r"[A-Za-z_]\w*")


def name_interface(model: ir.Model, *, inputs: Sequence[str], outputs: Sequence[str], axes: Mapping[tuple[int, int], str]) -> None:
    """Give `model` the names of its inputs and outputs, and of dynamic axes, by the number of the input and the axis.

    What has one of these names and is something else gets another one.
    """
    graph = model.graph
    _separate_outputs(graph)
    named = dict(zip((*graph.inputs, *graph.outputs), (*inputs, *outputs), strict=True))
    others = [value for value in _values(graph) if value not in named]
    taken = {*named.values(), *(value.name for value in others)}
    for value in others:
        if value.name in named.values():
            value.name = next(name for name in (f"{value.name}_{number}" for number in count(1)) if name not in taken)
            taken.add(value.name)
    for number, value in enumerate(named):  # by way of names that nothing has: an output may be called what an input was
        value.name = next(name for name in (f"interface_{number}_{again}" for again in count()) if name not in taken)
    for value, name in named.items():
        value.name = name
    symbols: dict[str, str] = {}
    for (number, axis), name in axes.items():
        shape = graph.inputs[number].shape
        if shape is not None and not isinstance(shape[axis], int):
            symbols.setdefault(str(shape[axis]), name)
    for value in (*graph.inputs, *others, *graph.outputs):
        _rename_axes(value, symbols)


def _separate_outputs(graph: ir.Graph) -> None:
    """Give what is put out twice, or straight from an input or a constant, a node of its own for each output."""
    seen: set[ir.Value] = set()
    for number, value in enumerate(graph.outputs):
        if value in seen or value.producer() is None:
            node = ir.node("Identity", [value])
            node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
            graph.append(node)
            graph.outputs[number] = node.outputs[0]
        seen.add(value)


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from (value for value in graph.initializers.values() if not value.is_graph_input())
    for node in graph.all_nodes():
        yield from node.outputs


def _rename_axes(value: ir.Value, symbols: Mapping[str, str]) -> None:
    if value.shape is None or all(isinstance(dim, int) for dim in value.shape):
        return
    value.shape = ir.Shape(
        [dim if isinstance(dim, int) else SYMBOL.sub(lambda match: symbols.get(match[0], match[0]), str(dim)) for dim in value.shape]
    )


def drop_traces(model: ir.Model) -> None:
    """Take out what tells of the source code and its folders: it makes equal networks differ, and is nobody else's business."""
    holders: list[ir.Model | ir.Graph | ir.Value | ir.Node] = [model, model.graph, *_values(model.graph), *model.graph.all_nodes()]
    for holder in holders:
        holder.metadata_props.clear()
        holder.doc_string = None


def place_weights(model: ir.Model, weights: Weights) -> dict[str, Array]:
    """Leave the weights in the file, list them as inputs too, or make them inputs without values; return those that a run must be fed."""
    if weights == "stored":
        return {}
    values, arrays = [], {}
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or not tensor.dtype.is_floating_point() or tensor.size < 2 or value.is_graph_input():
            continue  # shapes, axes and scalars, which are no weights
        values.append(value)
        value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        arrays[str(value.name)] = tensor.numpy()
    model.graph.inputs.extend(values)
    if weights == "overridable":
        return {}
    for value in values:
        model.graph.initializers.pop(str(value.name))
        value.const_value = None
    return arrays


def interface(values: Sequence[ir.Value]) -> tuple[tuple[str, np.dtype[np.generic], Dims], ...]:
    """Return name, dtype and shape of inputs or outputs, where a dynamic axis is its name."""
    found = []
    for value in values:
        assert value.dtype is not None  # the exporter knows all types
        dims = tuple(dim if isinstance(dim, int) else str(dim) for dim in value.shape or ())
        found.append((str(value.name), np.dtype(value.dtype.numpy()), dims))
    return tuple(found)


def computed_names(model: ir.Model) -> tuple[str, ...]:
    """Return what the main graph's nodes compute, in their order."""
    return tuple(str(value.name) for node in model.graph for value in node.outputs if value.name)


def default_opset(model: ir.Model) -> int:
    """Return the version of ONNX's default domain."""
    return int(model.opset_imports.get("", 0))
