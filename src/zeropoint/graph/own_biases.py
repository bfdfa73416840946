"""Give each operator with a constant weight a bias of its own: a constant vector, one number for each output channel.

Integer kernels add such a vector, at the scale of their own products, and only what nobody else reads can be corrected. The bias of
a MatMul is the constant of the Add behind it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from zeropoint.graph.initializers import constant_array, replace_constant
from zeropoint.graph.operators import Weighted, float_attribute, int_attribute, is_constant, is_default_domain, weighted

MATRIX = 2  # axes
BIASED = frozenset({"Conv", "ConvTranspose", "Gemm"})


def give_own_biases(model: ir.Model) -> None:
    """Bring, in place, the bias of each Conv, ConvTranspose and Gemm with a constant weight to that form, and a Gemm's alpha and beta to 1.

    A vector that the Add behind a MatMul shares with others is copied. Left as they are: computed biases, those of a Gemm that differ
    from row to row, and what would hold NaN or Inf.
    """
    for node in model.graph:
        form = weighted(node)
        if node.op_type in BIASED and form is not None and not has_own_bias(node):
            _give(model.graph, node, form)
        added = added_constant(node)
        if added is not None and _is_shared(added[0].inputs[added[1]]):
            adder, index = added
            array = constant_array(adder.inputs[index])
            if array.shape[-1:] == (array.size,):  # a vector, whatever axes stand before its own
                replace_constant(model.graph, adder, index, array, f"{adder.name}/bias")


def added_constant(node: ir.Node) -> tuple[ir.Node, int] | None:
    """Return the Add that adds a constant to the output of a MatMul and is its only reader, and which of its inputs that is."""
    uses = node.outputs[0].uses()
    if node.op_type != "MatMul" or not is_default_domain(node) or len(uses) != 1 or node.outputs[0].is_graph_output():
        return None
    [(adder, index)] = uses
    is_add = adder.op_type == "Add" and is_default_domain(adder) and adder.graph is node.graph
    return (adder, 1 - index) if is_add and is_constant(adder.inputs[1 - index]) else None


def bias_input(node: ir.Node, form: Weighted) -> tuple[ir.Node, int] | None:
    """Return the node input that reads the constant vector added to the products of `node`, which has `form`, if there is one."""
    if node.op_type != "MatMul":
        return (node, 2) if is_constant(_bias(node)) else None
    weight, added = constant_array(node.inputs[form.weight]), added_constant(node)
    if added is None or form.weight == 0 or weight.ndim != MATRIX:
        return None
    array = constant_array(added[0].inputs[added[1]])
    is_row = array.ndim <= MATRIX and array.shape[-1:] == weight.shape[-1:] and array.size == weight.shape[-1] and np.isfinite(array).all()
    return added if is_row else None


def has_own_bias(node: ir.Node) -> bool:
    """Return whether a Conv, ConvTranspose or Gemm adds a constant vector that nobody else reads, as it is, to its plain products."""
    form, bias = weighted(node), _bias(node)
    if form is None or bias is None or not is_constant(bias) or _is_shared(bias):
        return False
    plain = float_attribute(node, "alpha", 1.0) == float_attribute(node, "beta", 1.0) == 1.0
    return plain and constant_array(bias).shape == (_channels(node, form),)


@np.errstate(all="ignore")  # what overflows stays as it was
def _give(graph: ir.Graph, node: ir.Node, form: Weighted) -> None:
    bias, channels = _bias(node), _channels(node, form)
    if bias is not None and not is_constant(bias):
        return
    weight, alpha = constant_array(node.inputs[form.weight]), float_attribute(node, "alpha", 1.0)
    given = np.zeros(channels) if bias is None else float_attribute(node, "beta", 1.0) * constant_array(bias).astype(np.float64)
    is_a_row = given.size == 1 or (given.size == channels and given.shape[-1] == channels)
    scaled = (alpha * weight.astype(np.float64)).astype(weight.dtype)
    own = np.broadcast_to(given.reshape(-1), (channels,)).astype(weight.dtype) if is_a_row else None
    if own is None or not (np.isfinite(own).all() and np.isfinite(scaled).all()):
        return
    if alpha != 1.0:
        replace_constant(graph, node, form.weight, scaled, f"{node.name}/weight")
    for factor in ("alpha", "beta"):
        node.attributes.pop(factor, None)
    if len(node.inputs) <= 2:
        node.resize_inputs(3)
    replace_constant(graph, node, 2, own, f"{node.name}/bias")


def _bias(node: ir.Node) -> ir.Value | None:
    return node.inputs[2] if len(node.inputs) > 2 else None


def _is_shared(value: ir.Value | None) -> bool:
    return value is None or len(value.uses()) > 1 or value.is_graph_output()


def _channels(node: ir.Node, form: Weighted) -> int:
    groups = int_attribute(node, "group", 1) if node.op_type == "ConvTranspose" else 1
    return int(constant_array(node.inputs[form.weight]).shape[form.channel_axis]) * groups
