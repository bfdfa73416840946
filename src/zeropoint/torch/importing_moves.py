"""Give tensors that operators only move the ranges of what is moved: rounding before and behind such an operator is the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from zeropoint.graph.model import Model, Node
from zeropoint.graph.operators import is_default_domain, moved_inputs
from zeropoint.notes import Note
from zeropoint.torch.foreign.checkpoint import Quantizer

WHOLE = frozenset({"Concat", "Flatten", "Identity", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})  # each element goes on
PARTS = frozenset({"DepthToSpace", "Expand", "Gather", "Resize", "Slice", "SpaceToDepth", "Split", "Tile"})
Ranges = Mapping[str, tuple[Quantizer, ...]]


def spread(network: Model, known: Ranges, sites: Collection[str]) -> tuple[Ranges, tuple[Note, ...]]:
    """Return `known` with ranges for more of the `sites`, and a note for each of these.

    Backwards where all who read a tensor move all of it into tensors that have a range, and forwards where all that is moved has one.
    """
    found = dict(known)
    for node in reversed(list(network.graph)):
        for value in node.outputs:
            behind = [_outputs(reader) if reader.op_type in WHOLE and is_default_domain(reader) else () for reader, _ in value.uses()]
            names = list(dict.fromkeys(name for outputs in behind for name in outputs))
            if str(value.name) not in found and behind and all(behind) and not value.is_graph_output() and all(n in found for n in names):
                found[str(value.name)] = _together(found, names)
    for node in network.graph:
        before = [node.inputs[index] for index in moved_inputs(node)] if node.op_type in WHOLE | PARTS and is_default_domain(node) else []
        if before and all(value is not None and str(value.name) in found for value in before):
            names = [str(value.name) for value in before if value is not None]
            found |= {name: _together(found, names) for name in _outputs(node) if name not in found}
    added = [tensor for tensor in sites if tensor in found and tensor not in known]
    notes = tuple(Note(tensor, f"it has the range of what is moved into it or out of it ({_names(found[tensor])})") for tensor in added)
    return {tensor: quantizers for tensor, quantizers in found.items() if tensor in sites}, notes


def _outputs(node: Node) -> tuple[str, ...]:
    outputs = node.outputs[:1] if node.op_type == "MaxPool" else node.outputs  # its second output holds indices
    return tuple(str(value.name) for value in outputs)


def _together(found: Ranges, names: Collection[str]) -> tuple[Quantizer, ...]:
    return tuple(dict.fromkeys(quantizer for name in names for quantizer in found[name]))


def _names(quantizers: tuple[Quantizer, ...]) -> str:
    return ", ".join(quantizer.name for quantizer in quantizers)
