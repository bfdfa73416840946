"""Bring a network into the form that placement works on: no functions, no Constant nodes, nothing left to fold."""

from __future__ import annotations

from itertools import count
from typing import cast

import onnx_ir as ir
from onnx_ir.passes import common

from zeropoint.errors import ModelError
from zeropoint.graph.affine_folding import fold_affine
from zeropoint.graph.constant_folding import fold_constants
from zeropoint.graph.initializers import add_initializer, constant_array
from zeropoint.graph.operators import has_subgraph, is_constant, is_default_domain
from zeropoint.graph.own_biases import give_own_biases
from zeropoint.graph.pad_folding import fold_pads
from zeropoint.graph.rewire import bypass
from zeropoint.notes import Note

LATEST_IR_WITH_INITIALIZER_INPUTS = 3


def prepare(model: ir.Model) -> tuple[Note, ...]:
    """Simplify the model in place without changing what it computes, and say what a user may want to know of it.

    Inlines functions, turns Constant nodes into initializers, folds constants, removes Identity and inference-time Dropout, folds
    BatchNormalization and constant per-channel Mul and Add into the Conv, ConvTranspose or Gemm before them, gives each of
    these a constant bias of its own, folds zero padding into the Conv behind it, and names all nodes.

    Raises:
        ModelError: the network is already quantized, or holds functions that cannot be inlined.
    """
    notes = _fix_initializers_as_inputs(model)
    _inline_functions(model)
    _name_nodes(model.graph)
    _refuse_quantized(model)
    _lift_constants(model)
    fold_constants(model)
    _remove_dropout(model)
    _remove_identities(model.graph)
    notes += fold_affine(model)
    give_own_biases(model)
    fold_pads(model)
    _remove_unused(model.graph)
    notes += [
        Note(str(node.name), f"the body of this {node.op_type} is passed through untouched, in float")
        for node in model.graph
        if has_subgraph(node)
    ]
    return tuple(notes)


def _refuse_quantized(model: ir.Model) -> None:
    for node in model.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"):
            raise ModelError(
                f"node {node.name!r}: found {node.op_type}: the network is already quantized; start from the float one, "
                "or use `zeropoint lint` and `zeropoint inspect` to look at this one"
            )


def _fix_initializers_as_inputs(model: ir.Model) -> list[Note]:
    listed = [str(value.name) for value in model.graph.inputs if value.name in model.graph.initializers]
    common.RemoveInitializersFromInputsPass()(model)
    if not listed or model.ir_version <= LATEST_IR_WITH_INITIALIZER_INPUTS:
        model.ir_version = max(model.ir_version, LATEST_IR_WITH_INITIALIZER_INPUTS + 1)
        return []
    return [Note(listed[0], f"{len(listed)} weights were also listed as inputs; they are constants now and cannot be fed")]


def _inline_functions(model: ir.Model) -> None:
    try:
        common.InlinePass()(model)
    except (ir.passes.PreconditionError, ValueError) as error:
        raise ModelError(f"functions: found some that cannot be inlined ({error}); export the network without functions") from None


# onnx_ir's passes for what follows also go into the bodies of If, Loop and Scan, and lose the name of an output that repeats another.


def _name_nodes(graph: ir.Graph) -> None:
    taken = {node.name for node in graph}
    seen: set[str] = set()
    for node in graph:
        if not node.name or node.name in seen:
            stem = node.name or "node"
            names = (stem if n == 0 else f"{stem}_{n}" for n in count())
            node.name = next(name for name in names if name not in taken)
            taken.add(node.name)
        seen.add(node.name)


def _lift_constants(model: ir.Model) -> None:
    # In the main graph only: the bodies of If, Loop and Scan stay as they are.
    graph = model.graph
    for node in [node for node in graph if node.op_type == "Constant" and node.domain == ""]:
        value = node.outputs[0]
        tensor = _constant_tensor(node)
        if tensor is None or value.is_graph_output():
            continue
        name = str(value.name)
        value.name = f"{name}/unused"
        value.replace_all_uses_with(add_initializer(graph, name, tensor))
        graph.remove(node, safe=True)


def _constant_tensor(node: ir.Node) -> ir.TensorProtocol | None:
    attribute = node.attributes.get("value")
    if attribute is None or attribute.type is not ir.AttributeType.TENSOR:
        return ir.convenience.get_const_tensor(node.outputs[0])
    return cast("ir.TensorProtocol | None", attribute.value)  # as_tensor checks it against a protocol, member by member


def _remove_dropout(model: ir.Model) -> None:
    for node in [node for node in model.graph if node.op_type == "Dropout" and is_default_domain(node)]:
        training = node.inputs[2] if len(node.inputs) > 2 else None
        mask_used = len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output())
        is_off = training is None or (is_constant(training) and not constant_array(training).any())
        if is_off and not mask_used:
            identity = ir.node("Identity", inputs=[node.inputs[0]], name=node.name)
            ir.convenience.replace_nodes_and_values(model.graph, node, [node], [identity], [node.outputs[0]], [identity.outputs[0]])


def _remove_identities(graph: ir.Graph) -> None:
    for node in [node for node in graph if node.op_type == "Identity" and is_default_domain(node)]:
        data, output = node.inputs[0], node.outputs[0]
        if data is None:
            continue
        has_name_of_its_own = data.is_graph_input() or data.is_initializer() or data.is_graph_output()
        if not (output.is_graph_output() and has_name_of_its_own):
            bypass(graph, node, data)


def _remove_unused(graph: ir.Graph) -> None:
    for node in reversed(graph):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
