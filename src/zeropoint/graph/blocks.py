"""Blocks of a network: where all that was computed so far goes on through a single tensor, one ends and the next begins."""

from __future__ import annotations

import onnx_ir as ir

from zeropoint.graph.operators import weighted


def block_ends(model: ir.Model) -> tuple[str, ...]:
    """Return the names of the tensors at which blocks of the prepared `model` end, in order, the network's outputs not among them.

    A block holds a weighted operator at least, and the activation behind its last one: in a plain chain each layer is a block, in a
    residual network each sum is the end of one. What no weighted operator reads or made, such as masks and shapes, may cross from one
    to another.
    """
    ends: list[str] = []
    alive = {value: reads for value in model.graph.inputs if (reads := sum(weighted(node) is not None for node, _ in value.uses()))}
    fed = frozenset(alive)
    candidate = ""
    for node in model.graph:
        is_weighted = weighted(node) is not None
        if is_weighted and candidate:
            ends.append(candidate)
            candidate = ""
        if is_weighted or any(value in alive and value not in fed for value in node.inputs):
            alive.update((value, len(value.uses())) for value in node.outputs if value.uses())
        for value in node.inputs:
            if value in alive and (is_weighted or value not in fed):
                alive[value] -= 1
                if not alive[value]:
                    del alive[value]
        [*left] = alive
        is_end = len(left) == 1 and left[0] in node.outputs
        candidate = str(left[0].name) if is_end else candidate if not is_weighted and candidate and len(left) == 1 else ""
    outputs = {value.name for value in model.graph.outputs}
    return tuple(name for name in ends if name not in outputs)
