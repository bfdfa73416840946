"""Take out of each bias the shift that rounding the weights gives the operator's mean output.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019), section 4.2: with W the weights and
Wq what their codes stand for, the output's mean moves by (Wq - W) E[x]. It is a sum of many rounding errors that all later operators
see with the same sign, and taking it away costs nothing when the network runs. E[x] are the channel means of the float network's
own activations; padding counts as if it had them too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from zeropoint.graph.facts import Facts
from zeropoint.graph.initializers import constant_array
from zeropoint.graph.model import Model, Node, Value
from zeropoint.graph.operators import int_attribute, ints_attribute, is_constant
from zeropoint.graph.own_biases import added_constant, has_own_bias
from zeropoint.graph.sites import Placement
from zeropoint.notes import Note
from zeropoint.numerics.affine import dequantize_array, quantize_array
from zeropoint.numerics.decimals import shortest_decimals
from zeropoint.plan import Correction, Plan
from zeropoint.statistics.channel_sums import ChannelSums

Array64 = npt.NDArray[np.float64]


def channel_axes(model: Model, placement: Placement, facts: Facts) -> tuple[tuple[str, int], ...]:
    """Return the tensors whose channel means `correct_biases` needs, each with the axis of its channels."""
    names = {use.reader.node for site in placement.weights for use in site.uses}
    nodes = [node for node in model.graph if str(node.name) in names and not _why_not(node)]
    axes = dict.fromkeys(_channels_of(node) for node in nodes)
    return tuple((data, axis) for data, axis in axes if len(facts[data].shape) > 1)  # those of a vector lie where rows do elsewhere


def correct_biases(
    model: Model, plan: Plan, channels: Mapping[tuple[str, int], ChannelSums]
) -> tuple[tuple[Correction, ...], tuple[Note, ...]]:
    """Return what to add to the biases of the prepared float `model` under `plan`, and a note for each that cannot be corrected."""
    weights = {reader.node: entry for entry in plan.entries if entry.role == "weight" for reader in entry.readers}
    corrections, notes = [], []
    for node in [node for node in model.graph if str(node.name) in weights]:
        bias, sums = own_bias(node), channels.get(_channels_of(node))
        reason = _why_not(node) or ("" if sums is not None and sums.rows else "an input whose means are not known")
        if reason or sums is None:
            notes.append(_uncorrected(node, reason))
            continue
        if bias is None:
            notes.append(_uncorrected(node, "no constant bias of its own"))
            continue
        weight, qparams = constant_array(node.inputs[1]), weights[str(node.name)].qparams()
        error = weight.astype(np.float64) - dequantize_array(quantize_array(weight, qparams), qparams)
        shift = mean_response(node, error, sums.means)
        if (constant_array(bias).shape[-1:], constant_array(bias).size) != (shift.shape, shift.size):
            notes.append(_uncorrected(node, "not one bias for each output channel"))
            continue
        added = shortest_decimals(shift.astype(np.float32))
        corrections.append(Correction(tensor=str(bias.name), added=added, reason=f"mean output of {node.name!r}"))
    return tuple(corrections), tuple(notes)


def _uncorrected(node: Node, what: str) -> Note:
    return Note(str(node.name), f"{node.op_type} has {what}, so that its mean error stays")


def _channels_of(node: Node) -> tuple[str, int]:
    """The data of a weighted node, and the axis of its channels."""
    return str(node.inputs[0].name), -1 if node.op_type == "MatMul" else 1  # type: ignore[union-attr]


def _why_not(node: Node) -> str:
    """Return what a weighted node has for which the mean of its output does not follow from those of its channels, or ""."""
    if not is_constant(node.inputs[1]):
        return "its weight on the left"
    if node.op_type == "MatMul" and constant_array(node.inputs[1]).ndim != 2:
        return "weights that are no matrix"
    return "its data transposed" if int_attribute(node, "transA", 0) else ""


def own_bias(node: Node) -> Value | None:
    """Return the constant that is added to the output of `node` and to nothing else: its own bias, or that of the Add behind a MatMul."""
    if node.op_type != "MatMul":
        return node.inputs[2] if has_own_bias(node) else None
    added = added_constant(node)
    return None if added is None else added[0].inputs[added[1]]


def mean_response(node: Node, weight: Array64, means: Array64) -> Array64:
    """Return what `node` with `weight` for its weights and no bias makes of constant channels: float64 (output channels,).

    means: float64 (input channels,). A Gemm's alpha and beta are taken as 1.
    """
    taps = weight.sum(axis=tuple(range(2, weight.ndim)))
    groups = int_attribute(node, "group", 1)
    per_group = means.reshape(groups, -1)  # (groups, inputs / groups)
    match node.op_type:
        case "Conv":
            return np.asarray(np.einsum("goi,gi->go", taps.reshape(groups, -1, taps.shape[1]), per_group).reshape(-1))
        case "ConvTranspose":  # (inputs, outputs / groups, ...): each output meets one tap in so many as the strides' product
            response = np.einsum("gio,gi->go", taps.reshape(groups, -1, taps.shape[1]), per_group).reshape(-1)
            return np.asarray(response / math.prod(ints_attribute(node, "strides")))
        case "Gemm":
            return np.asarray(means @ (weight.T if int_attribute(node, "transB", 0) else weight))
        case _:
            return np.asarray(means @ weight)
