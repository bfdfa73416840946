"""Turn a plan into Q/DQ pairs and integer weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Literal

import numpy as np
import onnx_ir as ir

from zeropoint.errors import PlanError, RecipeError
from zeropoint.graph.initializers import Array, add_initializer, constant_array
from zeropoint.graph.operators import is_constant
from zeropoint.numerics.affine import QParams, expand, quantize_array
from zeropoint.numerics.formats import FORMATS
from zeropoint.plan import Correction, Entry, Plan, Reader

WeightStorage = Literal["integer", "float"]


def materialize(model: ir.Model, plan: Plan, *, weight_storage: WeightStorage = "integer") -> ir.Model:
    """Return a copy of the prepared `model` with the plan's Q/DQ pairs and corrected biases in it.

    Weights are stored as integers behind a DequantizeLinear, or with `weight_storage` "float" as they are behind a whole pair.

    Raises:
        PlanError: the plan names a tensor or node that the network does not have, or a format that its opset does not, or its numbers
            don't fit the tensor's shape.
    """
    quantized = model.clone()
    graph = quantized.graph
    values = {str(value.name): value for value in graph.inputs}
    values |= {str(value.name): value for node in graph for value in node.outputs} | dict(graph.initializers)
    nodes = {str(node.name): node for node in graph}
    taken = set(values)
    opset = next(version for domain, version in graph.opset_imports.items() if domain in ("", "ai.onnx"))
    for correction in plan.corrections:
        _correct(values.get(correction.tensor), correction)
    for entry in plan.entries:
        value = values.get(entry.tensor)
        if value is None:
            raise PlanError(
                f"plan: tensor {entry.tensor!r} is not in the network, which has {len(values)} tensors; was it made for another one?"
            )
        _check_opset(entry, opset)
        try:
            keep_float = entry.role == "activation" or (entry.role == "weight" and weight_storage == "float")
            dequantized = _insert(graph, value, entry, keep_float=keep_float, taken=taken)
        except RecipeError as error:
            raise PlanError(f"plan: tensor {entry.tensor!r}: {error}") from None
        _reroute(nodes, value, dequantized, entry.readers)
    _drop_unread(graph)
    return quantized


def _check_opset(entry: Entry, opset: int) -> None:
    needed = FORMATS[entry.format].opset
    if opset < needed:
        raise PlanError(
            f"plan: tensor {entry.tensor!r}: found format {entry.format}, which ONNX knows from opset {needed}, in a network of opset "
            f"{opset}; export the network again at opset {needed}, or choose a format of 8 bits"
        )


def _insert(graph: ir.Graph, value: ir.Value, entry: Entry, *, keep_float: bool, taken: set[str]) -> ir.Value:
    """Insert a Q/DQ pair behind `value`, or its codes as an initializer and a DQ, and return the dequantized value."""
    qparams = entry.qparams()
    if value.const_value is not None:
        expand(qparams.scale, tuple(value.const_value.shape.numpy()), qparams.granularity)  # raises where the numbers don't fit
    name = str(value.name)
    scale = add_initializer(graph, _free(f"{name}/scale", taken), qparams.scale)
    zero_point = add_initializer(graph, _free(f"{name}/zero_point", taken), qparams.zero_point)
    attributes = {} if entry.axis is None else {"axis": ir.AttrInt64("axis", entry.axis)}
    added = []
    if keep_float:
        source = _clipped(graph, value, qparams, taken) if qparams.narrow and is_constant(value) else value
        quantize = ir.node("QuantizeLinear", [source, scale, zero_point], attributes, name=f"{name}/QuantizeLinear")
        quantize.outputs[0].name = _free(f"{name}/quantized", taken)
        codes = quantize.outputs[0]
        added.append(quantize)
    else:
        codes = add_initializer(graph, _free(f"{name}/quantized", taken), _codes(value, qparams))
    dequantize = ir.node("DequantizeLinear", [codes, scale, zero_point], attributes, name=f"{name}/DequantizeLinear")
    dequantize.outputs[0].name = _free(f"{name}/dequantized", taken)
    dequantize.outputs[0].type, dequantize.outputs[0].shape = value.type, value.shape
    added.append(dequantize)
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, added)
    else:
        graph.insert_before(graph[0], added)
    return dequantize.outputs[0]


def _correct(value: ir.Value | None, correction: Correction) -> None:
    if value is None or not is_constant(value):
        raise PlanError(f"plan: correction of {correction.tensor!r}: the network has no such constant; was the plan made for another one?")
    bias = constant_array(value)
    if bias.size != len(correction.added):
        raise PlanError(
            f"plan: correction of {correction.tensor!r}: found {len(correction.added)} numbers, expected {bias.size}; "
            "was the plan made for another network?"
        )
    corrected = bias + np.asarray(correction.added, np.float32).reshape(bias.shape)
    value.const_value = ir.Tensor(corrected.astype(bias.dtype), name=value.name)


def _clipped(graph: ir.Graph, value: ir.Value, qparams: QParams, taken: set[str]) -> ir.Value:
    """Return `value`, or a copy less what QuantizeLinear, which knows no narrow ranges, would give the lowest code of the format."""
    array = constant_array(value)
    clipped = np.maximum(array, -qparams.format.qmax * expand(qparams.scale, array.shape, qparams.granularity))
    if np.array_equal(array, clipped):
        return value
    return add_initializer(graph, _free(f"{value.name}/clipped", taken), clipped)


def _codes(value: ir.Value, qparams: QParams) -> Array:
    if not is_constant(value):
        raise RecipeError("found a computed tensor, expected a constant for the role of a weight or bias")
    return quantize_array(constant_array(value), qparams)


def _free(name: str, taken: set[str]) -> str:
    """Return `name`, with a number behind it where the network has such a tensor already, and take it."""
    found = next(candidate for n in count() if (candidate := f"{name}{n or ''}") not in taken)
    taken.add(found)
    return found


def _reroute(nodes: dict[str, ir.Node], value: ir.Value, dequantized: ir.Value, readers: Sequence[Reader]) -> None:
    for reader in readers:
        node = nodes.get(reader.node)
        if node is None or reader.input not in range(len(node.inputs)) or node.inputs[reader.input] is not value:
            raise PlanError(
                f"plan: tensor {value.name!r}: node {reader.node!r} does not read it as its input {reader.input}; "
                "was the plan made for another network?"
            )
        node.replace_input_with(reader.input, dequantized)


def _drop_unread(graph: ir.Graph) -> None:
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[name]
