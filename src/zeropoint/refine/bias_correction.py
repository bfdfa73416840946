"""Take out of each bias the shift that rounding the weights gives the operator's mean output.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019), section 4.2: with W the weights and
Wq what their codes stand for, the output's mean moves by (Wq - W) E[x]. It is a sum of many rounding errors that all later operators
see with the same sign, and taking it away costs nothing when the network runs. E[x] are the channel means of the float network's
own activations; padding counts as if it had them too.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from zeropoint.graph.facts import Facts
from zeropoint.graph.initializers import constant_array
from zeropoint.graph.model import Model, Node, Value
from zeropoint.graph.operators import float_attribute, int_attribute, is_constant, is_default_domain, strides
from zeropoint.graph.sites import Placement
from zeropoint.notes import Note
from zeropoint.numerics.affine import dequantize_array, quantize_array
from zeropoint.plan import Correction, Plan
from zeropoint.statistics.channel_sums import ChannelSums

Array64 = npt.NDArray[np.float64]


def channel_axes(model: Model, placement: Placement, facts: Facts) -> dict[str, int]:
    """Return the tensors whose channel means `correct_biases` needs, each with the axis of its channels.

    A tensor that is read along one axis here and another one there is left out, as no single list of means serves both.
    """
    axes: dict[str, set[int]] = defaultdict(set)
    for node in _weighted_nodes(model, {use.reader.node for site in placement.weights for use in site.uses}):
        data = str(node.inputs[0].name)  # type: ignore[union-attr]
        axis = len(facts[data].shape) - 1 if node.op_type == "MatMul" else 1
        if 0 < axis < len(facts[data].shape):
            axes[data].add(axis)
    return {data: found.pop() for data, found in axes.items() if len(found) == 1}


def correct_biases(model: Model, plan: Plan, channels: Mapping[str, ChannelSums]) -> tuple[tuple[Correction, ...], tuple[Note, ...]]:
    """Return what to add to the biases of the prepared float `model` under `plan`, and a note for each that cannot be corrected."""
    weights = {reader.node: entry for entry in plan.entries if entry.role == "weight" for reader in entry.readers}
    corrections, notes = [], []
    for node in _weighted_nodes(model, weights.keys()):
        data, bias = str(node.inputs[0].name), _bias(node)  # type: ignore[union-attr]
        if data not in channels or channels[data].rows == 0:
            continue
        if bias is None:
            notes.append(_without_bias(node, "no constant bias of its own"))
            continue
        weight, qparams = constant_array(node.inputs[1]), weights[str(node.name)].qparams()
        error = weight.astype(np.float64) - dequantize_array(quantize_array(weight, qparams), qparams)
        shift = mean_response(node, error, channels[data].means)
        if (constant_array(bias).shape[-1:], constant_array(bias).size) != (shift.shape, shift.size):
            notes.append(_without_bias(node, "not one bias for each output channel"))
            continue
        added = tuple(float(str(value)) for value in shift.astype(np.float32))
        corrections.append(Correction(tensor=str(bias.name), added=added, reason=f"mean output of {node.name!r}"))
    return tuple(corrections), tuple(notes)


def _without_bias(node: Node, what: str) -> Note:
    return Note(str(node.name), f"{node.op_type} has {what}, so that its mean error stays")


def _weighted_nodes(model: Model, names: object) -> Iterator[Node]:
    """The nodes called one of `names` that multiply data, their first input, by a constant matrix or kernels, their second.

    Left out are those whose data has no axis of channels behind that of the rows, or whose weights differ along a batch.
    """
    for node in model.graph:
        if str(node.name) in names and is_constant(node.inputs[1]):  # type: ignore[operator]
            batched = node.op_type == "MatMul" and constant_array(node.inputs[1]).ndim != 2
            if not batched and not int_attribute(node, "transA", 0):
                yield node


def _bias(node: Node) -> Value | None:
    """The constant that is added to the output of `node` and to nothing else: its own bias, or that of the Add behind a MatMul."""
    value = node.inputs[2] if len(node.inputs) > 2 and float_attribute(node, "beta", 1.0) else None
    if node.op_type == "MatMul" and not node.outputs[0].is_graph_output():
        readers = [reader for reader, _ in node.outputs[0].uses() if reader.graph is node.graph]
        if len(node.outputs[0].uses()) == len(readers) == 1 and readers[0].op_type == "Add" and is_default_domain(readers[0]):
            value = next((found for found in readers[0].inputs if is_constant(found)), None)
    return value if value is not None and is_constant(value) and len(value.uses()) == 1 and not value.is_graph_output() else None


def mean_response(node: Node, weight: Array64, means: Array64) -> Array64:
    """Return what `node` with `weight` for its weights and no bias makes of constant channels: float64 (output channels,).

    means: float64 (input channels,). A Gemm's response is divided by its beta, which multiplies the bias.
    """
    taps = weight.sum(axis=tuple(range(2, weight.ndim)))
    groups = int_attribute(node, "group", 1)
    per_group = means.reshape(groups, -1)  # (groups, inputs / groups)
    match node.op_type:
        case "Conv":
            return np.asarray(np.einsum("goi,gi->go", taps.reshape(groups, -1, taps.shape[1]), per_group).reshape(-1))
        case "ConvTranspose":  # (inputs, outputs / groups, ...): each output meets one tap in so many as the strides' product
            response = np.einsum("gio,gi->go", taps.reshape(groups, -1, taps.shape[1]), per_group).reshape(-1)
            return np.asarray(response / math.prod(strides(node)))
        case "Gemm":
            response = means @ (weight.T if int_attribute(node, "transB", 0) else weight)
            return np.asarray(response * float_attribute(node, "alpha", 1.0) / float_attribute(node, "beta", 1.0))
        case _:
            return np.asarray(means @ weight)
