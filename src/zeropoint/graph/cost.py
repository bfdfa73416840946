"""What the weighted operators cost: multiply-accumulates, from the shapes of one run."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx_ir as ir

from zeropoint.graph.facts import Facts
from zeropoint.graph.operators import int_attribute, is_default_domain

# The operators that multiply and sum, with the places of the two inputs that they multiply; the last four are ONNX's integer operators.
OPERANDS: Mapping[str, tuple[int, int]] = {
    "Conv": (0, 1),
    "ConvTranspose": (0, 1),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearConv": (0, 3),
    "QLinearMatMul": (0, 3),
}
# Those that multiply and sum too, by other rules.
NOT_COUNTED = frozenset({"Attention", "DFT", "DeformConv", "Einsum", "GRU", "LSTM", "RNN", "STFT"})


def multiply_accumulates(model: ir.Model, facts: Facts) -> Mapping[str, int]:
    """Return how many multiply-accumulates each operator of OPERANDS in the main graph does, by its output's name."""
    return {
        str(node.outputs[0].name): cost
        for node in model.graph
        if is_default_domain(node) and (cost := _multiply_accumulates(node, facts)) is not None
    }


def _multiply_accumulates(node: ir.Node, facts: Facts) -> int | None:
    if node.op_type not in OPERANDS:
        return None
    values = [node.inputs[place] if place < len(node.inputs) else None for place in OPERANDS[node.op_type]]
    names = [str(value.name) if value is not None else "" for value in (*values, node.outputs[0])]
    if any(name not in facts for name in names):
        return None
    data, weight, result = (facts[name].shape for name in names)
    match node.op_type:
        case "Conv" | "ConvInteger" | "QLinearConv":  # each output element sums over its group's channels and the kernel
            return math.prod(result) * math.prod(weight[1:])
        case "ConvTranspose":  # each input element is spread over its group's outputs and the kernel
            return math.prod(data) * math.prod(weight[1:])
        case "Gemm":
            return math.prod(result) * (data[0] if int_attribute(node, "transA", 0) else data[1])
        case _:
            return math.prod(result) * data[-1]
