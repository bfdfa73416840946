"""The signals of a network: each tensor that is computed, with all that only codes, casts or copies it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from zeropoint.graph.operators import has_subgraph, int_attribute, is_constant

Array = npt.NDArray[np.generic]
DOMAINS = ("", "ai.onnx", "com.microsoft")
REAL = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})
# Their outputs do not follow from their inputs alone.
NEVER_CONSTANT = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"})


@dataclass(frozen=True, slots=True, eq=False)
class Signals:
    """A network as its signals; each goes by its root, the tensor that is computed or fed.

    roots: of all tensors but the constant ones. constants: what can be computed before any input is known. nodes: those that compute
    a root, in order.
    """

    model: ir.Model
    roots: dict[ir.Value, ir.Value]
    constants: frozenset[ir.Value]
    nodes: tuple[ir.Node, ...]
    named: dict[str, ir.Value]

    def root(self, value: ir.Value | None) -> ir.Value | None:
        """Return the root of the signal that `value` belongs to; None for constants and inputs that are left out."""
        return self.roots.get(value) if value is not None else None

    def read(self, node: ir.Node) -> tuple[ir.Value | None, ...]:
        """Return the root of each input; None for constants and inputs that are left out."""
        return tuple(map(self.root, node.inputs))

    def readers(self, root: ir.Value) -> Iterator[ir.Node]:
        """Yield the nodes that compute something from the signal."""
        waiting = [root]
        while waiting:
            for node in dict.fromkeys(node for node, _ in waiting.pop().uses()):
                if keeps_values(node) and self.root(node.outputs[0]) is root:
                    waiting.append(node.outputs[0])
                else:
                    yield node


def read_signals(model: ir.Model) -> Signals:
    """Return the signals of the main graph."""
    graph = model.graph
    constants = {value for value in graph.initializers.values() if is_constant(value)}
    roots = {value: value for value in graph.inputs if value not in constants}
    nodes = []
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        if node.op_type == "Constant" or (inputs and constants.issuperset(inputs) and _follows_from_inputs(node)):
            constants.update(node.outputs)
            continue
        source = node.inputs[0] if node.inputs else None
        if keeps_values(node) and source in roots:
            roots[node.outputs[0]] = roots[source]
        else:
            roots.update((value, value) for value in node.outputs)
            nodes.append(node)
    return Signals(model, roots, frozenset(constants), tuple(nodes), {str(value.name): value for value in roots if value.name})


def keeps_values(node: ir.Node) -> bool:
    """Return whether the node only codes, casts to another type of reals, or copies a tensor."""
    if node.domain not in DOMAINS:
        return False
    if node.op_type == "Cast":
        return int_attribute(node, "to", 0) in REAL
    return node.op_type in ("Identity", "QuantizeLinear", "DequantizeLinear")


def _follows_from_inputs(node: ir.Node) -> bool:
    return node.op_type not in NEVER_CONSTANT and not has_subgraph(node)


def as_read(root: ir.Value) -> tuple[ir.Value, ...]:
    """Return the tensors as which the readers of a signal see it: one, or several that hold the same.

    That is behind the Q/DQ pair where all readers read through one, or through pairs of the same numbers, and else the root itself.
    """
    seen: tuple[ir.Value, ...] = (root,)
    while len(seen) == 1 and (behind := _behind(seen[0])):
        seen = behind
    return seen


def is_recoded(value: ir.Value) -> bool:
    """Return whether a tensor of a signal is more than a copy of its root."""
    node = value.producer()
    while node is not None and keeps_values(node):
        if node.op_type != "Identity" or node.inputs[0] is None:
            return True
        node = node.inputs[0].producer()
    return False


def _behind(value: ir.Value) -> tuple[ir.Value, ...]:
    """The tensors that a single step of coding or casting makes of `value`, if nobody reads `value` otherwise."""
    nodes = list(dict.fromkeys(node for node, _ in value.uses()))
    if value.is_graph_output() or not nodes or not all(keeps_values(node) and node.inputs[0] is value for node in nodes):
        return ()
    if any(node.graph is not value.graph for node in nodes):  # a body's
        return ()
    if all(node.op_type == "QuantizeLinear" for node in nodes):
        return _behind_pairs(nodes)
    return (nodes[0].outputs[0],) if len(nodes) == 1 else ()


def _behind_pairs(quantizes: list[ir.Node]) -> tuple[ir.Value, ...]:
    codes = [node.outputs[0] for node in quantizes]
    dequantizes = list(dict.fromkeys(node for value in codes for node, _ in value.uses()))
    if any(value.is_graph_output() for value in codes) or not all(node.op_type == "DequantizeLinear" for node in dequantizes):
        return ()
    same = all(_same_numbers(quantizes[0], node) for node in (*quantizes[1:], *dequantizes))
    return tuple(node.outputs[0] for node in dequantizes) if same else ()


def _same_numbers(one: ir.Node, other: ir.Node) -> bool:
    return all(a is b or _equal(a, b) for a, b in zip_longest(one.inputs[1:], other.inputs[1:]))


def _equal(a: ir.Value | None, b: ir.Value | None) -> bool:
    first, second = constant_values(a), constant_values(b)
    return first is not None and second is not None and np.array_equal(first, second)


def constant_values(value: ir.Value | None) -> Array | None:
    """Return what a constant holds, also behind a DequantizeLinear, Cast, Identity or Reshape; None where more would be computed."""
    if value is None:
        return None
    if is_constant(value):
        return value.const_value.numpy()  # type: ignore[union-attr]
    node = value.producer()
    if node is None:
        return None
    if node.op_type == "Constant" and "value" in node.attributes:
        return node.attributes["value"].as_tensor().numpy()
    if node.op_type == "DequantizeLinear":
        return _dequantized(node)
    if node.op_type == "Reshape":
        values, shape = (constant_values(read) for read in node.inputs[:2])
        keeps = int_attribute(node, "allowzero", 0) == 0 and shape is not None and not (shape == 0).any()
        return values.reshape(shape.tolist()) if values is not None and shape is not None and keeps else None
    return constant_values(node.inputs[0]) if keeps_values(node) else None


def _dequantized(node: ir.Node) -> Array | None:
    codes, scale = (constant_values(value) for value in node.inputs[:2])
    zero_point = constant_values(node.inputs[2]) if len(node.inputs) > 2 else None
    if codes is None or scale is None or int_attribute(node, "block_size", 0) or (node.inputs[2:] and zero_point is None):
        return None
    axis = int_attribute(node, "axis", 1) % max(1, codes.ndim)
    shape = [-1 if i == axis else 1 for i in range(codes.ndim)] if scale.size > 1 else ()
    shift = np.float64(0) if zero_point is None else zero_point.astype(np.float64).reshape(shape)
    return (codes.astype(np.float64) - shift) * scale.astype(np.float64).reshape(shape)


def reach(value: ir.Value | None) -> tuple[float, float] | None:
    """Return the lowest and the highest real that codes of `value` stand for; None where it is not coded, or not by one constant scale."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear" or node.domain not in DOMAINS:
        return None
    scale = constant_values(node.inputs[1])
    zero_point = constant_values(node.inputs[2]) if len(node.inputs) > 2 else None
    quantize = node.inputs[0].producer() if node.inputs[0] is not None else None
    if scale is None or scale.size != 1 or quantize is None or (zero_point is None and len(quantize.inputs) > 2):
        return None
    codes = zero_point.dtype if zero_point is not None else np.dtype(np.uint8)
    if codes not in (np.int8, np.uint8, np.int16, np.uint16) or "output_dtype" in quantize.attributes:
        return None
    step, zero = float(scale.reshape(())), int(zero_point.reshape(())) if zero_point is not None else 0
    lowest = 0 if codes.kind == "u" else -(1 << 8 * codes.itemsize - 1)
    return (lowest - zero) * step, (lowest + (1 << 8 * codes.itemsize) - 1 - zero) * step
