"""Where the elements of a tensor come from: what only moves them need not be observed, since its statistic follows from others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from zeropoint.graph.model import Model, Value
from zeropoint.graph.operators import is_constant, is_default_domain

REORDERING = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def sources(model: Model, tensors: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Return for each of `tensors` those among them whose elements, taken together, are its own, each as often as it holds them.

    That is itself alone, but where it is made from the others by nodes that reorder elements or join tensors.
    """
    wanted = list(dict.fromkeys(tensors))
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    found = {tensor: tuple(str(value.name) for value in _origins(values[tensor])) if tensor in values else (tensor,) for tensor in wanted}
    return {tensor: origins if set(origins) <= found.keys() else (tensor,) for tensor, origins in found.items()}


def _origins(value: Value) -> list[Value]:
    node = value.producer()
    if node is None or not is_default_domain(node):
        return [value]
    inputs = list(node.inputs[:1] if node.op_type in REORDERING else node.inputs if node.op_type == "Concat" else ())
    if not inputs or any(given is None or is_constant(given) for given in inputs):
        return [value]
    return [origin for given in inputs if given is not None for origin in _origins(given)]
