"""Fold per-channel affine operators, y = scale * x + shift, into the weights of the operator before them.

BatchNormalization is one (Jacob et al., 2018, section 3.2), and so are Mul, Div, Add and Sub with a per-channel constant, as which
some exporters write a convolution's bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from zeropoint.graph.initializers import constant_array, replace_constant
from zeropoint.graph.operators import float_attribute, int_attribute, is_constant, is_default_domain, weighted
from zeropoint.graph.rewire import bypass
from zeropoint.notes import Note

Float64Array = npt.NDArray[np.float64]
FOLDS_INTO = frozenset({"Conv", "ConvTranspose", "Gemm"})
DEFAULT_EPSILON = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """scale and shift, each of shape (channels,) or (); `data` is the input that they apply to."""

    data: ir.Value
    scale: Float64Array
    shift: Float64Array


@np.errstate(all="ignore")  # what overflows is found where it would be stored
def fold_affine(model: ir.Model) -> list[Note]:
    """Fold, in place, wherever the operator before has constant weights and no other reader; note each BatchNormalization left."""
    notes = []
    for node in [node for node in model.graph if is_default_domain(node)]:
        affine = _affine(node)
        reason = _fold(model.graph, node, affine) if affine is not None else "it is in training mode, or its parameters are not constant"
        if reason and node.op_type == "BatchNormalization":
            notes.append(Note(str(node.name), f"BatchNormalization stays: {reason}"))
    return notes


def _affine(node: ir.Node) -> Affine | None:
    match node.op_type:
        case "BatchNormalization":
            return _batch_normalization(node)
        case "Mul" | "Add":
            data, constant = node.inputs if is_constant(node.inputs[1]) else reversed(node.inputs)
        case "Sub" | "Div":
            data, constant = node.inputs
        case _:
            return None
    if data is None or constant is None or not is_constant(constant) or is_constant(data):
        return None
    values = _per_channel(constant, data)
    if values is None:
        return None
    one, zero = np.ones(()), np.zeros(())
    match node.op_type:
        case "Mul":
            return Affine(data, values, zero)
        case "Div":
            return Affine(data, 1.0 / values, zero) if values.all() else None
        case "Add":
            return Affine(data, one, values)
        case _:
            return Affine(data, one, -values)


def _batch_normalization(node: ir.Node) -> Affine | None:
    data, *parameters = node.inputs
    trains = int_attribute(node, "training_mode", 0) or any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    if data is None or trains or not all(is_constant(value) for value in parameters):
        return None
    gamma, beta, mean, variance = (_array(value) for value in parameters)
    scale = gamma / np.sqrt(variance + float_attribute(node, "epsilon", DEFAULT_EPSILON))
    return Affine(data, scale, beta - scale * mean)


def _per_channel(constant: ir.Value, data: ir.Value) -> Float64Array | None:
    """The constant's values for each output channel of `data`, or None when it varies along another axis."""
    producer = data.producer()
    values = _array(constant)
    if producer is None or producer.op_type not in FOLDS_INTO:
        return None
    spatial = 0 if producer.op_type == "Gemm" else _array_rank(producer) - 2
    shape = values.shape
    if values.size == 1 and values.ndim <= spatial + 2:
        return values.reshape(())
    is_channel_shape = values.ndim > spatial and values.size == shape[-1 - spatial] and values.ndim <= spatial + 2
    return values.reshape(-1) if is_channel_shape else None


def _array_rank(node: ir.Node) -> int:
    weight = node.inputs[1]
    return len(weight.shape) if weight is not None and weight.shape is not None else 0


def _fold(graph: ir.Graph, node: ir.Node, affine: Affine) -> str:
    """Fold `node` into its producer and return "", or return why that was not possible."""
    producer = affine.data.producer()
    if producer is None or producer.op_type not in FOLDS_INTO:
        return "it does not follow a Conv, ConvTranspose or Gemm"
    form = weighted(producer)
    bias = producer.inputs[2] if len(producer.inputs) > 2 else None
    if form is None or (bias is not None and not is_constant(bias)):
        return f"the weights of {producer.name!r} are not constant"
    if len(affine.data.uses()) > 1 or affine.data.is_graph_output():
        return f"the output of {producer.name!r} has other readers"
    weight = _array(producer.inputs[1])
    groups = int_attribute(producer, "group", 1)
    channels = weight.shape[form.channel_axis] * (groups if producer.op_type == "ConvTranspose" else 1)
    beta = float_attribute(producer, "beta", 1.0)
    old_bias = np.zeros(channels) if bias is None else beta * _array(bias)
    is_a_row = old_bias.size == 1 or old_bias.shape[-1] == channels  # a Gemm's may be a column, or vary along both axes
    if not is_a_row or not {affine.scale.size, affine.shift.size, old_bias.size} <= {1, channels}:
        return f"{producer.name!r} has {channels} output channels, and not as many numbers to fold or to add"
    dtype = constant_array(producer.inputs[1]).dtype
    new_weight = _scaled(weight, affine.scale, form.channel_axis, groups, producer.op_type).astype(dtype)
    new_bias = np.broadcast_to(old_bias.reshape(-1) * affine.scale + affine.shift, (channels,)).astype(dtype)
    if not (np.isfinite(new_weight).all() and np.isfinite(new_bias).all()):
        return f"folded into {producer.name!r} it would make numbers beyond {dtype}"
    replace_constant(graph, producer, 1, new_weight, f"{producer.inputs[1].name}/folded")  # type: ignore[union-attr]
    if bias is None:
        producer.resize_inputs(3)
    if beta != 1.0:
        producer.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
    replace_constant(graph, producer, 2, new_bias, f"{bias.name if bias is not None else f'{producer.name}/bias'}/folded")
    bypass(graph, node, affine.data)
    return ""


def _scaled(weight: Float64Array, scale: Float64Array, axis: int, groups: int, op_type: str) -> Float64Array:
    if scale.ndim == 0:
        return weight * scale
    if op_type != "ConvTranspose":
        return weight * scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    # (Cin, Cout / groups, ...): output channel g * Cout / groups + j of group g lies at [Cin of g, j]
    per_group = weight.reshape(groups, -1, *weight.shape[1:])
    return (per_group * scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))).reshape(weight.shape)


def _array(value: ir.Value | None) -> Float64Array:
    return constant_array(value).astype(np.float64)
