"""Fold a Pad with zeros into the convolutions that read it, which then read the tensor before it."""

from __future__ import annotations

import onnx_ir as ir

from zeropoint.graph.initializers import constant_array
from zeropoint.graph.operators import is_constant, is_default_domain, string_attribute

NOT_SPATIAL = 2  # batch and channel axes


def fold_pads(model: ir.Model) -> None:
    """Fold, in place, every zero Pad whose readers are all convolutions with explicit padding.

    A Pad between a Q/DQ pair and its convolution keeps runtimes from fusing the two.
    """
    for node in reversed([node for node in model.graph if node.op_type == "Pad" and is_default_domain(node)]):  # one Pad may read another
        pads = _spatial_zero_pads(node)
        output, data = node.outputs[0], node.inputs[0]
        readers = [reader for reader, _ in output.uses()]
        if pads is None or data is None or output.is_graph_output() or not readers:
            continue
        if not all(index == 0 and _takes_pads(reader, pads) and reader.graph is model.graph for reader, index in output.uses()):
            continue
        for reader in readers:
            own = list(reader.attributes["pads"].as_ints()) if "pads" in reader.attributes else [0] * len(pads)
            reader.attributes["pads"] = ir.AttrInt64s("pads", [a + b for a, b in zip(own, pads, strict=True)])
        output.replace_all_uses_with(data)
        model.graph.remove(node, safe=True)


def _spatial_zero_pads(node: ir.Node) -> list[int] | None:
    """The padding of the spatial axes, begins before ends, or None where the Pad does something else."""
    inputs = [*node.inputs, None, None, None][:4]
    _, pads, value, axes = inputs
    if string_attribute(node, "mode", "constant") != "constant" or axes is not None or pads is None or not is_constant(pads):
        return None
    if value is not None and (not is_constant(value) or constant_array(value).any()):
        return None
    amounts = constant_array(pads).tolist()
    begins, ends = amounts[: len(amounts) // 2], amounts[len(amounts) // 2 :]
    if min(amounts, default=0) < 0 or any(begins[:NOT_SPATIAL]) or any(ends[:NOT_SPATIAL]):
        return None
    return [*begins[NOT_SPATIAL:], *ends[NOT_SPATIAL:]]


def _takes_pads(node: ir.Node, pads: list[int]) -> bool:
    if node.op_type != "Conv" or not is_default_domain(node) or string_attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        return False
    return "pads" not in node.attributes or len(node.attributes["pads"].as_ints()) == len(pads)
