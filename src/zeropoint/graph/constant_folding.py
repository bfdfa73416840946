"""Fold what can be computed before any input is known, with the runtime's own kernels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from zeropoint.graph.initializers import add_initializer
from zeropoint.graph.operators import has_subgraph, is_constant, is_default_domain
from zeropoint.graph.store import open_session

# Folding what grows (Expand, Tile, ConstantOfShape) would trade a few instructions for megabytes in the file.
FREE_BYTES = 1 << 20
GROWTH = 2
RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"})


def fold_constants(model: ir.Model) -> None:
    """Replace, in place, every node of the main graph whose inputs are all constants by its outputs, as initializers."""
    foldable = _foldable(model.graph)
    results = [value for node in foldable for value in node.outputs if _is_read_outside(value, foldable)]
    if not results:
        return
    arrays = _compute(model, foldable, results)
    for value, array in zip(results, arrays, strict=True):
        if not isinstance(array, np.ndarray) or array.dtype.hasobject:  # a sequence, an optional, text
            continue
        if array.nbytes > max(FREE_BYTES, GROWTH * _input_bytes(value.producer())):
            continue
        name = str(value.name)
        value.name = f"{name}/folded"
        value.replace_all_uses_with(add_initializer(model.graph, name, array))
    for node in reversed(foldable):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            model.graph.remove(node, safe=True)


def _foldable(graph: ir.Graph) -> list[ir.Node]:
    constants: set[ir.Value] = set()
    nodes = []
    for node in graph:
        if not is_default_domain(node) or node.op_type in RANDOM or has_subgraph(node) or not node.outputs:
            continue
        if any(value.is_graph_output() for value in node.outputs):
            continue
        if all(value is None or is_constant(value) or value in constants for value in node.inputs):
            nodes.append(node)
            constants.update(node.outputs)
    return nodes


def _is_read_outside(value: ir.Value, nodes: list[ir.Node]) -> bool:
    inside = set(nodes)
    return any(reader not in inside for reader, _ in value.uses())


def _compute(model: ir.Model, nodes: list[ir.Node], results: list[ir.Value]) -> list[object]:
    inputs = dict.fromkeys(value for node in nodes for value in node.inputs if value is not None and is_constant(value))
    mapping: dict[ir.Value | None, ir.Value | None] = {None: None}
    for value in inputs:
        mapping[value] = ir.Value(name=value.name, shape=value.shape, type=value.type, const_value=value.const_value)
    copies = []
    for node in nodes:
        copy = ir.Node(
            node.domain, node.op_type, [mapping[v] for v in node.inputs], node.attributes, num_outputs=len(node.outputs), name=node.name
        )
        for output, copied in zip(node.outputs, copy.outputs, strict=True):
            copied.name = output.name
            mapping[output] = copied
        copies.append(copy)
    graph = ir.Graph(
        [],
        [new for value in results if (new := mapping[value]) is not None],
        nodes=copies,
        initializers=[new for value in inputs if (new := mapping[value]) is not None],
        opset_imports=model.graph.opset_imports,
        name="constants",
    )
    return list(open_session(ir.Model(graph, ir_version=model.ir_version), threads=1, single_run=True).run({}).values())


def _input_bytes(node: ir.Node | None) -> int:
    values = node.inputs if node is not None else ()
    return sum(value.const_value.nbytes for value in values if value is not None and value.const_value is not None)
