"""Say why a weighted operator cannot be quantized, or does not pay."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from zeropoint.graph.facts import Facts
from zeropoint.graph.initializers import constant_array
from zeropoint.graph.operators import int_attribute, is_constant, is_default_domain, weighted
from zeropoint.graph.own_biases import BIASED, MATRIX, bias_input, has_own_bias
from zeropoint.targets import Target

FLOAT32 = np.dtype(np.float32)


def why_not(node: ir.Node, facts: Facts, target: Target) -> str:
    """Return why the Conv, ConvTranspose, Gemm or MatMul `node` should stay in float for `target`, or ""."""
    operands = node.inputs[:2]
    unseen = [value.name for value in operands if value is not None and str(value.name) not in facts]
    if unseen:
        return f"{unseen[0]!r} was not computed when the network ran"
    dtypes = {facts[str(value.name)].dtype for value in operands if value is not None}
    if dtypes != {FLOAT32}:
        return f"it computes in {', '.join(sorted(map(str, dtypes)))}, expected float32"
    if all(is_constant(value) for value in operands):
        return "both operands are constant"
    if weighted(node) is None and node.op_type != "MatMul":
        return "its weight is computed, not constant"
    constants = [value for value in node.inputs if value is not None and is_constant(value)]
    unusable = [value.name for value in constants if not np.isfinite(constant_array(value)).all()]
    if unusable:
        return f"its constant {unusable[0]!r} holds NaN or Inf"
    return _why_no_kernel(node, facts, target)


def _why_no_kernel(node: ir.Node, facts: Facts, target: Target) -> str:
    form = weighted(node)
    if form is not None and form.weight == 0 and not target.left_weights:
        return f"its constant stands on the left, for which {target.name} has no integer kernel"
    if target.bias == "int32" and node.op_type in BIASED and not has_own_bias(node):
        return f"its bias is computed or no constant vector, and its integer kernel on {target.name} needs one"
    channels, depth = _channels_and_depth(node, facts)
    if min(channels, depth) < target.min_channels:
        return f"{depth} input and {channels} output channels; below {target.min_channels} {target.name} has no integer kernel that pays"
    return ""


def becomes_float_gemm(node: ir.Node, facts: Facts) -> bool:
    """Return whether ONNX Runtime would first make one Gemm of a MatMul and the Add behind it, and then find no integer kernel for it.

    It does so for matrices, unless a pair stands between the two; where the Add's constant has int32 codes, it has a kernel.
    """
    uses, form = node.outputs[0].uses(), weighted(node)
    if node.op_type != "MatMul" or len(uses) != 1 or node.outputs[0].is_graph_output():
        return False
    if form is not None and bias_input(node, form) is not None:
        return False
    [(adder, index)] = uses
    if adder.op_type != "Add" or not is_default_domain(adder) or adder.graph is not node.graph:
        return False
    left, right, result, added = (
        facts[str(v.name)].shape for v in (node.inputs[0], node.inputs[1], node.outputs[0], adder.inputs[1 - index]) if v is not None
    )
    is_vector = (math.prod(added),) == result[-1:]
    return len(right) == MATRIX and 0 < len(added) <= MATRIX and math.prod(added) > 1 and (len(left) == MATRIX or is_vector)


def _channels_and_depth(node: ir.Node, facts: Facts) -> tuple[int, int]:
    """Output channels, and the input channels that one of them could see; for a MatMul, columns and inner dimension."""
    shape = facts[str(node.inputs[1].name)].shape  # type: ignore[union-attr]
    match node.op_type:
        case "Conv":
            return shape[0], shape[1] * int_attribute(node, "group", 1)
        case "ConvTranspose":
            return shape[1] * int_attribute(node, "group", 1), shape[0]
        case "Gemm":
            return (shape[0], shape[1]) if int_attribute(node, "transB", 0) else (shape[1], shape[0])
        case _:
            left = facts[str(node.inputs[0].name)].shape  # type: ignore[union-attr]
            return (shape[-1] if len(shape) > 1 else math.prod(left[:-1])), left[-1]
