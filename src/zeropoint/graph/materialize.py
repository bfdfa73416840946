"""Turn a plan into Q/DQ pairs and integer weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import onnx_ir as ir

from zeropoint.errors import PlanError, RecipeError
from zeropoint.graph.initializers import Array, add_initializer, constant_array
from zeropoint.graph.operators import is_constant
from zeropoint.numerics.affine import QParams, quantize_array
from zeropoint.plan import Entry, Plan, Reader

WeightStorage = Literal["integer", "float"]


def materialize(model: ir.Model, plan: Plan, *, weight_storage: WeightStorage = "integer") -> ir.Model:
    """Return a copy of the prepared `model` with the plan's Q/DQ pairs in it.

    Weights are stored as integers behind a DequantizeLinear, or with `weight_storage` "float" as they are behind a whole pair.

    Raises:
        PlanError: the plan names a tensor or node that the network does not have, or its numbers don't fit the tensor's shape.
    """
    quantized = model.clone()
    graph = quantized.graph
    values = {str(value.name): value for value in graph.inputs}
    values |= {str(value.name): value for node in graph for value in node.outputs} | dict(graph.initializers)
    nodes = {str(node.name): node for node in graph}
    for entry in plan.entries:
        value = values.get(entry.tensor)
        if value is None:
            raise PlanError(
                f"plan: tensor {entry.tensor!r} is not in the network, which has {len(values)} tensors; was it made for another one?"
            )
        try:
            dequantized = _insert(
                graph, value, entry, keep_float=entry.role == "activation" or (entry.role == "weight" and weight_storage == "float")
            )
        except RecipeError as error:
            raise PlanError(f"plan: tensor {entry.tensor!r}: {error}") from None
        _reroute(nodes, value, dequantized, entry.readers)
    _drop_unread(graph)
    return quantized


def _insert(graph: ir.Graph, value: ir.Value, entry: Entry, *, keep_float: bool) -> ir.Value:
    """Insert a Q/DQ pair behind `value`, or its codes as an initializer and a DQ, and return the dequantized value."""
    qparams = entry.qparams()
    name = str(value.name)
    scale = _initializer(graph, f"{name}/scale", qparams.scale)
    zero_point = _initializer(graph, f"{name}/zero_point", qparams.zero_point)
    attributes = {} if entry.axis is None else {"axis": ir.AttrInt64("axis", entry.axis)}
    added = []
    if keep_float:
        quantize = ir.node("QuantizeLinear", [value, scale, zero_point], attributes, name=f"{name}/QuantizeLinear")
        quantize.outputs[0].name = f"{name}/quantized"
        codes = quantize.outputs[0]
        added.append(quantize)
    else:
        codes = _initializer(graph, f"{name}/quantized", _codes(value, qparams))
    dequantize = ir.node("DequantizeLinear", [codes, scale, zero_point], attributes, name=f"{name}/DequantizeLinear")
    dequantize.outputs[0].name = f"{name}/dequantized"
    dequantize.outputs[0].type, dequantize.outputs[0].shape = value.type, value.shape
    added.append(dequantize)
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, added)
    else:
        graph.insert_before(graph[0], added)
    return dequantize.outputs[0]


def _codes(value: ir.Value, qparams: QParams) -> Array:
    if not is_constant(value):
        raise RecipeError("found a computed tensor, expected a constant for the role of a weight or bias")
    return quantize_array(constant_array(value), qparams)


def _initializer(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    if name in graph.initializers:
        raise PlanError(f"plan: tensor {name!r} already exists in the network; rename it there")
    return add_initializer(graph, name, array)


def _reroute(nodes: dict[str, ir.Node], value: ir.Value, dequantized: ir.Value, readers: Sequence[Reader]) -> None:
    for reader in readers:
        node = nodes.get(reader.node)
        if node is None or reader.input >= len(node.inputs) or node.inputs[reader.input] is not value:
            raise PlanError(
                f"plan: tensor {value.name!r}: node {reader.node!r} does not read it as its input {reader.input}; "
                "was the plan made for another network?"
            )
        node.replace_input_with(reader.input, dequantized)


def _drop_unread(graph: ir.Graph) -> None:
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[name]
