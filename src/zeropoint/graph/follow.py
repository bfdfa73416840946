"""Follow channels through a network, from its inputs to its outputs: what each operator asks of the labels of its tensors.

New labels come up where constants absorb any factor: the output channels of a Conv, of a Mul by a constant. An operator that commutes
with positive factors hands labels on: ReLU, Transpose. Labels are united where only a common factor leaves the result as it is: those of
the two inputs of an Add, of all channels that a mean sums over. All that any other operator reads or writes stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import cast

import numpy as np
import onnx_ir as ir

from zeropoint.graph.channels import Channels, Labels, reshaped
from zeropoint.graph.eligibility import FLOAT32
from zeropoint.graph.facts import Facts
from zeropoint.graph.initializers import constant_array
from zeropoint.graph.operators import Weighted, int_attribute, ints_attribute, is_constant, is_default_domain, string_attribute, weighted

READS_SHAPES = frozenset({"Shape", "Size"})
REACH = 0.8  # share of a Clip's upper bound that its input may have come to, where the bound is taken for one that is never met


def follow_channels(model: ir.Model, facts: Facts, maxima: Mapping[str, float]) -> Channels:
    """Return the labels of all activations of the prepared `model`.

    maxima: the largest value seen of a tensor. A Clip to [0, bound] counts as ReLU where its input stayed below REACH of the bound.
    """
    channels = Channels(facts)
    for node in model.graph:
        if is_default_domain(node) and node.op_type in READS_SHAPES:
            continue
        values = [value for value in (*node.inputs, *node.outputs) if value is not None and value.name]
        is_known = is_default_domain(node) and all(str(value.name) in facts for value in values)
        is_float = is_known and bool(node.outputs[0].name) and facts[str(node.outputs[0].name)].dtype == FLOAT32
        if is_float and node.op_type == "Clip":
            _clip(channels, node, maxima)
        else:
            (RULES.get(node.op_type, _keep) if is_float else _keep)(channels, node)
        for value in node.outputs:
            if value.is_graph_output() or any(reader.graph is not model.graph for reader, _ in value.uses()):
                channels.keep(value)
    return channels


def data_axis(node: ir.Node, form: Weighted) -> int:
    """Return the axis of a weighted operator's data that holds its input channels; counted from the end for MatMul."""
    if node.op_type == "MatMul":
        return -1 if form.weight == 1 else -2
    return 0 if node.op_type == "Gemm" and int_attribute(node, "transA", 0) else 1


# --- rules: what an operator asks of the labels of what it reads, and the labels of what it writes ---------------------------


def _keep(channels: Channels, node: ir.Node) -> None:
    for value in node.inputs:
        channels.keep(value)
    for value in node.outputs:
        fact = channels.facts.get(str(value.name))
        if fact is not None:
            like = [channels.labels[data] for data in node.inputs if data in channels.labels and channels.shape(data) == fact.shape]
            channels.labels[value] = np.zeros(like[0].shape if like else (1,) * len(fact.shape), np.int64)  # the shape tells the axis


def _activations(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None and not is_constant(value)]


def _data(node: ir.Node) -> ir.Value:
    """The first input, which none of the operators with a rule goes without."""
    return cast("ir.Value", node.inputs[0])


def _write(channels: Channels, node: ir.Node, labels: Labels) -> None:
    """Give the first output `labels`, whose axes stand for its last ones; other outputs, such as indices, stay as they are."""
    rank = len(channels.shape(node.outputs[0]))
    channels.labels[node.outputs[0]] = labels.reshape((1,) * (rank - labels.ndim) + labels.shape)


def _tie(channels: Channels, node: ir.Node) -> None:
    """Commutes with factors, element by element, and adds what is constant: what it reads and writes has the same labels."""
    labels = np.zeros((), np.int64)
    for index, value in enumerate(_activations(node)):
        labels = channels.unite(labels, channels.of(value)) if index else channels.of(value)
    _write(channels, node, labels)


def _tie_first(channels: Channels, node: ir.Node) -> None:
    if all(map(is_constant, node.inputs[1:])):
        _write(channels, node, channels.of(_data(node)))
    else:
        _keep(channels, node)


def _weighted(channels: Channels, node: ir.Node) -> None:
    form = weighted(node)
    if form is None or len(channels.shape(node.inputs[form.weight])) < 2:  # type: ignore[arg-type]
        (_multiply_matrices if node.op_type == "MatMul" and form is None else _keep)(channels, node)
        return
    data, bias = node.inputs[form.data], [*node.inputs, None][2] if form.bias else None
    labels = channels.of(data)  # type: ignore[arg-type]
    own = data_axis(node, form) % labels.ndim
    channels.even(labels, (axis for axis in range(labels.ndim) if axis != own))
    channels.renew(node.outputs[0], [form.channel_axis] if node.op_type == "MatMul" else [1])
    if bias is not None and not is_constant(bias):
        channels.keep(bias)
        channels.keep(node.outputs[0])


def _multiply_matrices(channels: Channels, node: ir.Node) -> None:
    """One side stays as it is, the attention's probabilities where it is them; the channels of the other one that aren't summed go on."""
    a, b = cast("tuple[ir.Value, ir.Value]", node.inputs)
    if min(len(channels.shape(a)), len(channels.shape(b))) < 2:
        _keep(channels, node)
        return
    tied, kept, summed = (a, b, -1) if channels.is_kept(b) and not channels.is_kept(a) else (b, a, -2)
    channels.keep(kept)
    _write(channels, node, channels.even(channels.of(tied), [summed]))


def _multiply(channels: Channels, node: ir.Node) -> None:
    activations = _activations(node)
    if len(activations) != 2:
        (_absorb if activations else _keep)(channels, node)
        return
    # A gate stays as it is: what does so already, else the smaller one, else the second one.
    gate, other = sorted(reversed(activations), key=lambda value: (not channels.is_kept(value), prod(channels.shape(value))))
    _gate(channels, node, other, gate)


def _divide(channels: Channels, node: ir.Node) -> None:
    activations = _activations(node)
    if len(activations) == 2:
        _gate(channels, node, *activations)
    else:
        (_absorb if is_constant(node.inputs[1]) and activations else _keep)(channels, node)


def _gate(channels: Channels, node: ir.Node, tied: ir.Value, kept: ir.Value) -> None:
    channels.keep(kept)
    _write(channels, node, channels.of(tied))


def _absorb(channels: Channels, node: ir.Node) -> None:
    """Multiplies by a constant, which takes up any factors of what it reads and of what it writes."""
    [data] = _activations(node)
    pattern = channels.of(data)
    output = node.outputs[0]
    rank = len(channels.shape(output))
    axes = [axis - pattern.ndim for axis, size in enumerate(pattern.shape) if size > 1]
    channels.renew(output, axes or [1 if rank > 3 else -1] if rank else [])


def _normalize(channels: Channels, node: ir.Node) -> None:
    data = _data(node)
    if not all(value is None or is_constant(value) for value in node.inputs[1:]) or int_attribute(node, "training_mode", 0):
        _keep(channels, node)
        return
    rank = len(channels.shape(data))
    if node.op_type == "BatchNormalization":
        labels = channels.of(data)
        channels.even(labels, (axis for axis in range(rank) if axis != 1))
    else:
        channels.keep(data)
    channels.renew(node.outputs[0], [rank - 1 if node.op_type == "LayerNormalization" else 1])


def _clip(channels: Channels, node: ir.Node, maxima: Mapping[str, float]) -> None:
    data, (lo, hi) = _data(node), [*node.inputs, None, None][1:3]
    is_rectifier = is_constant(lo) and not constant_array(lo).any()
    is_loose = is_constant(hi) and maxima.get(str(data.name), np.inf) < REACH * float(constant_array(hi).reshape(()))
    if not is_rectifier or not (hi is None or is_loose):
        _keep(channels, node)
        return
    if is_loose:
        channels.loose.append(node)
    _write(channels, node, channels.of(data))


def _pool(channels: Channels, node: ir.Node) -> None:
    labels = channels.of(_data(node))
    _write(channels, node, channels.even(labels, range(2, labels.ndim)))


def _resize(channels: Channels, node: ir.Node) -> None:
    """Mixes along the axes whose size changes: Resize, Expand."""
    data = _data(node)
    if string_attribute(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize":
        _keep(channels, node)
        return
    before, after = channels.shape(data), channels.shape(node.outputs[0])
    aligned = zip(reversed(before), reversed(after), strict=False)
    changed = [-1 - axis for axis, (old, new) in enumerate(aligned) if old != new]
    _write(channels, node, channels.even(channels.of(data), changed))


def _reduce(channels: Channels, node: ir.Node) -> None:
    data, axes = _data(node), [*node.inputs, None][1]
    if not (axes is None or is_constant(axes)):
        _keep(channels, node)
        return
    rank = len(channels.shape(data))
    told = constant_array(axes).tolist() if axes is not None else list(ints_attribute(node, "axes"))
    reduced = sorted({axis % rank for axis in told or range(0 if int_attribute(node, "noop_with_empty_axes", 0) else rank)})
    labels = channels.even(channels.of(data), reduced)
    _write(channels, node, labels if int_attribute(node, "keepdims", 1) else np.squeeze(labels, tuple(reduced)))


def _reshape(channels: Channels, node: ir.Node) -> None:
    data = _data(node)
    if 0 in channels.shape(data):  # no elements to follow
        _keep(channels, node)
        return
    _write(channels, node, reshaped(channels.of(data), channels.shape(data), channels.shape(node.outputs[0])))


def _transpose(channels: Channels, node: ir.Node) -> None:
    labels = channels.of(_data(node))
    _write(channels, node, labels.transpose(ints_attribute(node, "perm") or range(labels.ndim)[::-1]))


def _concat(channels: Channels, node: ir.Node) -> None:
    values = [value for value in node.inputs if value is not None]
    parts = [channels.of(value) for value in values]
    axis = int_attribute(node, "axis", 0) % parts[0].ndim
    if not any(part.shape[axis] > 1 for part in parts):
        labels = parts[0]
        for part in parts[1:]:
            labels = channels.unite(labels, part)
        _write(channels, node, labels)
        return
    common = np.broadcast_shapes(*((*part.shape[:axis], 1, *part.shape[axis + 1 :]) for part in parts))
    full = [(*common[:axis], channels.shape(value)[axis], *common[axis + 1 :]) for value in values]
    _write(channels, node, np.concatenate([np.broadcast_to(part, shape) for part, shape in zip(parts, full, strict=True)], axis))


def _split(channels: Channels, node: ir.Node) -> None:
    labels = channels.of(_data(node))
    if not all(value.name for value in node.outputs):  # of unknown size
        _keep(channels, node)
        return
    axis, start = int_attribute(node, "axis", 0) % labels.ndim, 0
    for value in node.outputs:
        size = channels.shape(value)[axis]
        channels.labels[value] = labels if labels.shape[axis] == 1 else labels.take(range(start, start + size), axis)
        start += size


def _slice(channels: Channels, node: ir.Node) -> None:
    starts, ends, axes, steps = [*node.inputs, None, None][1:5]
    labels = channels.of(_data(node))
    along = constant_array(axes).tolist() if is_constant(axes) else list(range(labels.ndim))
    if not all(value is None or is_constant(value) for value in (starts, ends, axes, steps)):
        _write(channels, node, channels.even(labels, along))
        return
    first, last = constant_array(starts).tolist(), constant_array(ends).tolist()
    by = constant_array(steps).tolist() if steps is not None else [1] * len(first)
    for axis, start, end, step in zip(along, first, last, by, strict=False):
        size = labels.shape[axis]
        if size > 1:
            labels = labels.take(_positions(size, start, end, step), axis)
    _write(channels, node, labels)


def _positions(size: int, start: int, end: int, step: int) -> range:
    """The positions that a Slice takes; ONNX counts bounds as Python does, but for an end before the first one."""
    return range(size)[slice(start, None if step < 0 and end < -size else end, step)]


def _gather(channels: Channels, node: ir.Node) -> None:
    data, indices = cast("tuple[ir.Value, ir.Value]", node.inputs)
    labels = channels.of(data)
    axis = int_attribute(node, "axis", 0) % labels.ndim
    if is_constant(indices) and labels.shape[axis] > 1:
        _write(channels, node, labels.take(constant_array(indices), axis))
        return
    labels = channels.even(labels, [axis])
    _write(channels, node, labels.take(np.zeros((1,) * len(channels.shape(indices)), np.int64), axis))


def _pad(channels: Channels, node: ir.Node) -> None:
    pads, value, axes = [*node.inputs, None, None][1:4]
    mode = string_attribute(node, "mode", "constant")
    is_zero = value is None or (is_constant(value) and not constant_array(value).any())
    if not is_constant(pads) or not (axes is None or is_constant(axes)) or (mode == "constant" and not is_zero):
        _keep(channels, node)
        return
    labels = channels.of(_data(node))
    amounts = constant_array(pads).reshape(2, -1).T.tolist()
    padded = [axis % labels.ndim for axis in (constant_array(axes).tolist() if axes is not None else range(labels.ndim))]
    for axis, (before, after) in zip(padded, amounts, strict=True):
        if mode != "constant" or min(before, after) < 0:
            labels = channels.even(labels, [axis] if before or after else [])
        elif labels.shape[axis] > 1:  # what is added is zero, whatever it is divided by
            ends = [channels.new((*labels.shape[:axis], size, *labels.shape[axis + 1 :])) for size in (before, after)]
            labels = np.concatenate([ends[0], labels, ends[1]], axis)
    _write(channels, node, labels)


Rule = Callable[[Channels, ir.Node], None]
RULES: Mapping[str, Rule] = (
    dict.fromkeys(("Add", "Sub", "Neg", "Abs", "Relu", "LeakyRelu", "Identity"), _tie)
    | dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), _weighted)
    | dict.fromkeys(("LayerNormalization", "InstanceNormalization", "BatchNormalization"), _normalize)
    | dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"), _pool)
    | dict.fromkeys(("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL1", "ReduceL2"), _reduce)
    | dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape)
    | {"Mul": _multiply, "Div": _divide, "PRelu": _tie_first, "Resize": _resize, "Expand": _resize}
    | {"Transpose": _transpose, "Concat": _concat, "Split": _split, "Slice": _slice, "Gather": _gather, "Pad": _pad}
)
