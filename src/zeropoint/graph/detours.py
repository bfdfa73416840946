"""Let some readers of a tensor read what they are given in its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count

import onnx_ir as ir

from zeropoint.plan import Reader


def with_detours(model: ir.Model, readers: Mapping[str, Sequence[Reader]]) -> tuple[ir.Model, dict[str, str]]:
    """Return a copy of `model` in which the `readers` of each tensor read an input of the network instead; and the names of those."""
    copy = model.clone()
    graph = copy.graph
    values = {str(value.name): value for value in (*graph.inputs, *(value for node in graph for value in node.outputs))}
    nodes = {str(node.name): node for node in graph}
    taken = {value.name for part in (graph, *graph.subgraphs()) for value in _values(part)}
    free = (name for name in (f"detour_{number}" for number in count()) if name not in taken)
    given: dict[str, str] = {}
    for tensor, some in readers.items():
        value = ir.Value(name=next(free), type=values[tensor].type)
        graph.inputs.append(value)
        for reader in some:
            nodes[reader.node].replace_input_with(reader.input, value)
        given[tensor] = str(value.name)
    return copy, given


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from (*graph.inputs, *graph.initializers.values())
    yield from (value for node in graph for value in node.outputs)
