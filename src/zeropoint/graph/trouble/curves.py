"""Recognise normalizations and smooth activations, as one operator or written out as several."""

from __future__ import annotations

import onnx_ir as ir

from zeropoint.graph.operators import is_constant

# Operators that compute one as a whole, ONNX's own and ONNX Runtime's, by what people call it.
WHOLE = {
    "LayerNormalization": "LayerNorm",
    "SkipLayerNormalization": "LayerNorm",
    "RMSNormalization": "RMSNorm",
    "SimplifiedLayerNormalization": "RMSNorm",
    "SkipSimplifiedLayerNormalization": "RMSNorm",
    "Gelu": "GELU",
    "FastGelu": "GELU",
    "BiasGelu": "GELU",
    "QuickGelu": "SiLU",
    "Swish": "SiLU",
    "HardSwish": "hard-swish",
}
GATES = {"Erf": "GELU", "Tanh": "GELU", "Sigmoid": "SiLU", "HardSigmoid": "hard-swish", "Clip": "hard-swish"}
ADDS_ONE = ("Erf", "Tanh")  # from -1..1, which become gates of 0..1


def curve_of(value: ir.Value) -> tuple[ir.Node, str] | None:
    """Return the node that ends the normalization or activation which computes `value`, and its name; None where it is something else.

    Constants multiplied or added behind it, as a gain and a shift, belong to it.
    """
    node = value.producer()
    while node is not None:
        name = WHOLE.get(node.op_type, "") or _written_out(node)
        if name:
            return node, name
        value_behind = _less_constant(node)
        node = None if value_behind is None else value_behind.producer()
    return None


def _less_constant(node: ir.Node) -> ir.Value | None:
    """The operand of Mul, Add, Sub or Div that is not constant, where the other is."""
    if node.op_type not in ("Mul", "Add", "Sub", "Div"):
        return None
    given = [value for value in node.inputs if value is not None and not is_constant(value)]
    return given[0] if len(given) == 1 else None


def _written_out(node: ir.Node) -> str:
    if any(value is None or is_constant(value) for value in node.inputs):
        return ""
    if node.op_type == "Div":
        return _norm(node)
    if node.op_type != "Mul":
        return ""
    left, right = node.inputs
    return _gated(left, right) or _gated(right, left)  # type: ignore[arg-type]


def _norm(node: ir.Node) -> str:
    """Name what is divided by sqrt(mean(x * x) + epsilon): for a LayerNorm x is less its mean."""
    divisor = node.inputs[1]
    root = None if divisor is None else divisor.producer()
    if root is None or root.op_type != "Sqrt":
        return ""
    mean = _before_constants(root.inputs[0])
    if mean is None or mean.op_type != "ReduceMean":
        return ""
    centred = None if node.inputs[0] is None else node.inputs[0].producer()
    return "LayerNorm" if centred is not None and centred.op_type == "Sub" else "RMSNorm"


def _gated(x: ir.Value, gate: ir.Value) -> str:
    """Name x * gate(x); a gate made from something else, as a squeeze-excite branch, is none."""
    curve = _before_constants(gate)
    name = "" if curve is None else GATES.get(curve.op_type, "")
    if curve is None or not name:
        return ""
    if curve.op_type in ADDS_ONE:
        return name if curve.outputs[0] is not gate else ""
    return name if _root(curve.inputs[0]) is _root(x) else ""


def _before_constants(value: ir.Value | None) -> ir.Node | None:
    value = _root(value)
    return None if value is None else value.producer()


def _root(value: ir.Value | None) -> ir.Value | None:
    """The tensor before constants were added to it and multiplied with it."""
    while value is not None and (node := value.producer()) is not None and (behind := _less_constant(node)) is not None:
        value = behind
    return value
