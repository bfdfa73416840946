"""What the ONNX operators that carry weights mean: which input is data, which is the weight, which axis holds output channels."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True, slots=True)
class Weighted:
    """The inputs of a weighted operator by position; `bias` is None where the operator takes none.

    channel_axis counts from the end for MatMul, whose weights may be batched.
    """

    data: int
    weight: int
    bias: int | None
    channel_axis: int

    @property
    def summed_axis(self) -> int:
        """The axis of the weight that holds input channels, which are summed over; counted as channel_axis is."""
        return 1 - self.channel_axis if self.channel_axis >= 0 else -3 - self.channel_axis


def weighted(node: ir.Node) -> Weighted | None:
    """Return the roles of a Conv's, ConvTranspose's, Gemm's or MatMul's inputs; None where no input is a constant weight."""
    match node.op_type if is_default_domain(node) else "":
        case "Conv":
            form = Weighted(0, 1, 2, 0)
        case "ConvTranspose":
            form = Weighted(0, 1, 2, 1)
        case "Gemm":
            form = Weighted(0, 1, 2, 0 if int_attribute(node, "transB", 0) else 1)
        case "MatMul" if is_constant(node.inputs[1]):
            form = Weighted(0, 1, None, -1)
        case "MatMul":
            form = Weighted(1, 0, None, -2)
        case _:
            return None
    return form if is_constant(node.inputs[form.weight]) and not is_constant(node.inputs[form.data]) else None


def int_attribute(node: ir.Node, name: str, default: int) -> int:
    """Return an integer attribute, or ONNX's default for it."""
    return node.attributes[name].as_int() if name in node.attributes else default


def float_attribute(node: ir.Node, name: str, default: float) -> float:
    """Return a float attribute, or ONNX's default for it."""
    return node.attributes[name].as_float() if name in node.attributes else default


def ints_attribute(node: ir.Node, name: str) -> tuple[int, ...]:
    """Return an attribute that holds integers, such as a Conv's strides; () where it is not told."""
    return tuple(node.attributes[name].as_ints()) if name in node.attributes else ()


def is_depthwise(node: ir.Node) -> bool:
    """Return whether the node is a convolution that sees a single channel at a time."""
    weight = node.inputs[1] if node.op_type == "Conv" else None
    return weight is not None and weight.shape is not None and int_attribute(node, "group", 1) > 1 and weight.shape[1] == 1


def is_constant(value: ir.Value | None) -> bool:
    """Return whether `value` is an initializer with its data, not something fed or computed."""
    return value is not None and value.const_value is not None and value.is_initializer()


def is_default_domain(node: ir.Node) -> bool:
    """Return whether the operator is one of ONNX's own."""
    return node.domain in ("", "ai.onnx")


def has_subgraph(node: ir.Node) -> bool:
    """Return whether the node holds graphs of its own: If, Loop, Scan."""
    return any(attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values())


def moved_inputs(node: ir.Node) -> tuple[int, ...]:
    """Return the inputs whose values an operator that only moves values passes on; none where it also computes new ones."""
    match node.op_type:
        case "Concat":
            return tuple(range(len(node.inputs)))
        case "Resize" if string_attribute(node, "mode", "nearest") != "nearest":
            return ()
        case "Gather" if is_constant(node.inputs[0]):
            return ()
        case _:
            return (0,)


def string_attribute(node: ir.Node, name: str, default: str) -> str:
    """Return a string attribute, or ONNX's default for it."""
    return node.attributes[name].as_string() if name in node.attributes else default
