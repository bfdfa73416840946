"""Turn a plan into Q/DQ pairs and integer weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import Literal

import numpy as np
import onnx_ir as ir

from zeropoint.errors import PlanError, RecipeError
from zeropoint.graph.initializers import Array, add_initializer, constant_array
from zeropoint.graph.operators import is_constant
from zeropoint.graph.settle import by_name, reroute, settle
from zeropoint.numerics.affine import QParams, expand, quantize_array
from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import PerBlock
from zeropoint.plan import Entry, Plan

WeightStorage = Literal["integer", "float"]
TYPED_OPSET = 21  # the first in which a QuantizeLinear without a zero point may write other codes than uint8
FOUR_BITS, FOUR_BITS_IR_VERSION = 4, 10  # the first version of the file format that has such tensors


def materialize(model: ir.Model, plan: Plan, *, weight_storage: WeightStorage = "integer") -> ir.Model:
    """Return a copy of the prepared `model` with the plan's Q/DQ pairs, scaled channels and corrected biases in it.

    Weights are stored as integers behind a DequantizeLinear, or with `weight_storage` "float" as they are behind a whole pair; codes of
    4 bits have 8 in that, unless their scale is per block.

    Raises:
        PlanError: the plan names a tensor or node that the network does not have, or a format that its opset does not, or its numbers
            don't fit the tensor's shape.
    """
    quantized, pairs = settle(model, plan)
    graph = quantized.graph
    values, nodes = by_name(graph)
    taken = set(values)
    for entry in pairs.entries:
        value = values.get(entry.tensor)
        if value is None:
            raise PlanError(
                f"plan: tensor {entry.tensor!r} is not in the network, which has {len(values)} tensors; was it made for another one?"
            )
        _check_opset(entry, _opset(graph))
        try:
            keep_float = entry.role == "activation" or (entry.role == "weight" and weight_storage == "float")
            dequantized = _insert(graph, value, entry, keep_float=keep_float, is_typed=_is_typed(graph, entry, nodes), taken=taken)
        except RecipeError as error:
            raise PlanError(f"plan: tensor {entry.tensor!r}: {error}") from None
        reroute(nodes, value, dequantized, entry.readers)
    _drop_unread(graph)
    if any(FORMATS[entry.format].bits == FOUR_BITS for entry in plan.entries):
        quantized.ir_version = max(model.ir_version or 0, FOUR_BITS_IR_VERSION)
    return quantized


def _opset(graph: ir.Graph) -> int:
    return next(version for domain, version in graph.opset_imports.items() if domain in ("", "ai.onnx"))


def _check_opset(entry: Entry, opset: int) -> None:
    needed = entry.spec.opset
    if opset < needed:
        what = f"format {entry.format}" if FORMATS[entry.format].opset == needed else f"{entry.spec.granularity}"
        raise PlanError(
            f"plan: tensor {entry.tensor!r}: found {what}, which ONNX knows from opset {needed}, in a network of opset "
            f"{opset}; export the network again at opset {needed}, or choose a format of 8 bits and no blocks"
        )


def _is_typed(graph: ir.Graph, entry: Entry, nodes: Mapping[str, ir.Node]) -> bool:
    """Whether the pair tells the type of its codes instead of a zero point of 0.

    ONNX Runtime adds pairs around the Reshape by which it makes a Gemm of a MatMul and an Add, and from opset 21 on gives them both, if
    ours has a zero point, which it then refuses. Its average pools, on the other hand, take signed codes with a zero point only.
    """
    readers = [nodes[reader.node].op_type for reader in entry.readers if reader.node in nodes]
    is_zero = FORMATS[entry.format].signed and not any(entry.zero_point)
    return entry.role == "activation" and is_zero and _opset(graph) >= TYPED_OPSET and set(readers) == {"MatMul"}


def _insert(graph: ir.Graph, value: ir.Value, entry: Entry, *, keep_float: bool, is_typed: bool, taken: set[str]) -> ir.Value:
    """Insert a Q/DQ pair behind `value`, or its codes as an initializer and a DQ, and return the dequantized value."""
    qparams = _in_bytes(entry.qparams()) if keep_float and entry.role == "weight" else entry.qparams()
    if value.const_value is not None:
        expand(qparams.scale, tuple(value.const_value.shape.numpy()), qparams.granularity)  # raises where the numbers don't fit
    name = str(value.name)
    scale = add_initializer(graph, _free(f"{name}/scale", taken), qparams.scale)
    numbers, typed = [scale], {}
    if is_typed:
        typed = {"output_dtype": ir.DataType.from_numpy(qparams.format.dtype).value}
    else:
        numbers.append(add_initializer(graph, _free(f"{name}/zero_point", taken), qparams.zero_point))
    given = {"axis": entry.axis, "block_size": entry.block}
    attributes = {key: ir.AttrInt64(key, number) for key, number in given.items() if number is not None}
    added = []
    if keep_float:
        source = _clipped(graph, value, entry.qparams(), taken) if is_constant(value) else value
        written = attributes | {key: ir.AttrInt64(key, number) for key, number in typed.items()}
        quantize = ir.node("QuantizeLinear", [source, *numbers], written, name=f"{name}/QuantizeLinear")
        quantize.outputs[0].name = _free(f"{name}/quantized", taken)
        codes = quantize.outputs[0]
        added.append(quantize)
    else:
        codes = add_initializer(graph, _free(f"{name}/quantized", taken), _codes(value, qparams))
    dequantize = ir.node("DequantizeLinear", [codes, *numbers], attributes, name=f"{name}/DequantizeLinear")
    dequantize.outputs[0].name = _free(f"{name}/dequantized", taken)
    dequantize.outputs[0].type, dequantize.outputs[0].shape = value.type, value.shape
    added.append(dequantize)
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, added)
    else:
        graph.insert_before(graph[0], added)
    return dequantize.outputs[0]


def _in_bytes(qparams: QParams) -> QParams:
    """Return the same for codes of 8 bits, if they have 4: a pair takes no less room with these, and not all runtimes write the others.

    Blocks stay: with codes of 8 bits ONNX Runtime makes a kernel of a MatMul that refuses them.
    """
    wide = FORMATS.get({"int4": "int8", "uint4": "uint8"}.get(qparams.format.name, ""))
    if wide is None or isinstance(qparams.granularity, PerBlock):
        return qparams
    return replace(qparams, format=wide, zero_point=qparams.zero_point.astype(wide.dtype))


def _clipped(graph: ir.Graph, value: ir.Value, qparams: QParams, taken: set[str]) -> ir.Value:
    """Return `value`, or a copy less what QuantizeLinear, which knows no narrow ranges, would give codes out of the spec's."""
    array = constant_array(value)
    format, narrow, wider = qparams.format, qparams.narrow and qparams.format.signed, _in_bytes(qparams) is not qparams
    scale = expand(qparams.scale, array.shape, qparams.granularity)
    zero_point = expand(qparams.zero_point.astype(np.float32), array.shape, qparams.granularity)
    clipped = np.maximum(array, (format.qmin + narrow - zero_point) * scale) if narrow or wider else array
    clipped = np.minimum(clipped, (format.qmax - zero_point) * scale) if wider else clipped
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


def _drop_unread(graph: ir.Graph) -> None:
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[name]
