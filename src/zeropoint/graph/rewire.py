"""Take a node out of a graph, and let its readers read something else."""

from __future__ import annotations

import onnx_ir as ir


def bypass(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Remove `node`; whatever read its first output reads `value`, which takes over the name and type of an output of the network."""
    output = node.outputs[0]
    name, is_output = output.name, output.is_graph_output()
    output.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    if is_output:
        value.name = name
        value.type, value.shape = output.type, output.shape
