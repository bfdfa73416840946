"""The kinds of trouble spots, one function each: where they are in a scene, and what the danger is."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator

import numpy as np
import onnx_ir as ir

from zeropoint.graph.cost import multiply_accumulates
from zeropoint.graph.operators import is_constant, is_default_domain, weighted
from zeropoint.graph.trouble.curves import curve_of
from zeropoint.graph.trouble.scene import FEW_DECIBELS, OUTLYING, Scene, Spot, channel_means, outlying_channel, reach, written
from zeropoint.statistics.histogram import histogram

APART = 8.0  # times as far: with 8 bits the nearer of the two is left five
LOST = 0.02  # of the sum of probabilities
NORMS = frozenset({"LayerNorm", "RMSNorm"})
SMOOTH = frozenset({"GELU", "SiLU", "hard-swish"})
SPATIAL = 2  # the first axis behind those of samples and channels
# What may stand between the last weighted operator and an output of the network.
FINISHING = frozenset(
    {"Add", "Clip", "Flatten", "HardSigmoid", "Identity", "LogSoftmax", "Relu", "Reshape", "Sigmoid", "Softmax", "Squeeze", "Tanh"}
    | {"Transpose", "Unsqueeze"}
)


def joined_ranges(scene: Scene) -> Iterator[Spot]:
    """A Concat under one scale of what differs much in size, as boxes in pixels and scores in 0..1."""
    for tensor, value in _quantized(scene):
        node = scene.moved_from(value).producer()
        if node is None or node.op_type != "Concat" or not is_default_domain(node):
            continue
        how, sizes = _sizes(scene, node)
        sizes = {name: size for name, size in sizes.items() if size > 0.0}
        if not sizes or max(sizes.values()) <= APART * min(sizes.values()):
            continue
        most, least = max(sizes, key=sizes.__getitem__), min(sizes, key=sizes.__getitem__)
        danger = (
            f"Concat of what differs in size: {how} {most!r} reach {written(sizes[most])}, and of {least!r} {written(sizes[least])}, "
            f"both in steps of {written(scene.entries[tensor].scale[0])}"
        )
        # Both have the same noise, and most of the signal is the larger one's. What rounds to 0 has its own size as error, and no more.
        decibels = max(0.0, scene.decibels(tensor) + 20.0 * math.log10(sizes[least] / sizes[most]))
        yield Spot(str(node.name), tensor, decibels, danger, least)


def _sizes(scene: Scene, node: ir.Node) -> tuple[str, dict[str, float]]:
    """How far the values of each tensor that `node` joins reach; where not all of them were observed, the means of its channels."""
    given = [value for value in node.inputs if value is not None and not is_constant(value)]
    seen = {str(value.name): scene.seen(scene.moved_from(value)) for value in given}
    known = {name: reach(one) for name, one in seen.items() if one is not None}
    if len(known) == len(given):
        return "values of", known
    axis, shapes = node.attributes["axis"].as_int(), [scene.shape(value) for value in node.inputs]
    means = channel_means(scene, str(node.outputs[0].name), axis)
    if not all(shapes) or sum(shape[axis] for shape in shapes) != means.size:
        return "values of", known
    parts = np.split(np.abs(means), np.cumsum([shape[axis] for shape in shapes])[:-1])
    of_parts = {str(value.name): float(part.max()) for value, part in zip(node.inputs, parts, strict=True) if value in given and part.size}
    return "means of channels of", of_parts


def probabilities(scene: Scene) -> Iterator[Spot]:
    """A Softmax whose many small values round to 0."""
    for tensor, value in _quantized(scene):
        node, seen = scene.moved_from(value).producer(), scene.seen(value)
        if node is None or node.op_type != "Softmax" or seen is None:
            continue
        values, decibels = histogram(seen), scene.decibels(tensor)
        middle = (values.lo + values.hi) / 2.0
        some = values.hi > 0.0  # what was masked is 0, and stays so
        rounded = some & (middle < scene.entries[tensor].scale[0] / 2.0)
        share = float(values.counts[rounded].sum() / max(1, values.counts[some].sum()))
        lost = float((values.counts * middle)[rounded].sum() / max((values.counts * middle).sum(), np.finfo(float).tiny))
        if lost >= LOST or (decibels < FEW_DECIBELS and lost > 0.0):
            danger = f"Softmax: {share:.0%} of its values round to 0, which hold {lost:.1%} of the sum"
            yield Spot(str(node.name), tensor, decibels, danger)


def gates(scene: Scene) -> Iterator[Spot]:
    """A squeeze-excite branch, whose few numbers scale whole channels, computed in integers."""
    for node in scene.network.graph:
        branch = _branch(scene, node)
        around = [str(value.name) for value in (*branch, node.outputs[0])] if branch else []
        for name in around:
            if name in scene.entries and scene.has_few_codes(name):
                what = "the product" if name == node.outputs[0].name else repr(name)
                danger = f"squeeze-excite, where a gate scales whole channels: {what} has few codes for most of its values"
                yield Spot(str(node.name), name, scene.decibels(name), danger)


def _branch(scene: Scene, node: ir.Node) -> list[ir.Value]:
    """The tensors (N, C, 1, 1) that lead to the gate of a Mul with (N, C, H, W); none where `node` is no such Mul."""
    if node.op_type != "Mul" or not is_default_domain(node) or any(is_constant(value) for value in node.inputs):
        return []
    gate = next((value for value in node.inputs if _is_pooled(scene.shape(value))), None)
    whole = [value for value in node.inputs if value is not gate]
    if (
        gate is None
        or len(whole) != 1
        or scene.shape(whole[0])[:SPATIAL] != scene.shape(gate)[:SPATIAL]
        or _is_pooled(scene.shape(whole[0]))
    ):
        return []
    found, todo = dict.fromkeys([gate]), [gate]
    while todo:
        producer = todo.pop().producer()
        for value in () if producer is None else producer.inputs:
            if value is not None and value not in found and not is_constant(value) and math.prod(scene.shape(value)[SPATIAL:]) == 1:
                found[value] = None
                todo.append(value)
    return list(found)


def _is_pooled(shape: tuple[int, ...]) -> bool:
    return len(shape) > SPATIAL and math.prod(shape[SPATIAL:]) == 1 < shape[1]


def norms(scene: Scene) -> Iterator[Spot]:
    """The output of a normalization in which few values, often of one channel, are many times as large as most."""
    return _outlying(scene, NORMS)


def activations(scene: Scene) -> Iterator[Spot]:
    """The output of a smooth activation in which few values are many times as large as most."""
    return _outlying(scene, SMOOTH)


def _outlying(scene: Scene, names: Container[str]) -> Iterator[Spot]:
    for tensor, value in _quantized(scene):
        node, name = curve_of(scene.moved_from(value)) or (None, "")
        seen = scene.seen(value)
        if node is None or name not in names or seen is None or (times := scene.peak(tensor)) <= OUTLYING:
            continue
        channel = _by_channel(scene, tensor)
        danger = f"{name}: its largest value, {written(reach(seen))}, is {times:.0f} times the rms{channel and f', and {channel}'}"
        yield Spot(str(node.name), tensor, scene.decibels(tensor), danger)


def ends(scene: Scene) -> Iterator[Spot]:
    """The first and last weighted operators, where what they read is left few codes: no other layer makes up for it."""
    first = [node for node in scene.network.graph if (form := weighted(node)) and _is_input(scene, node.inputs[form.data])]
    last = _last_weighted(scene.network)
    costs = multiply_accumulates(scene.network, scene.facts)
    for node, what in ((node, what) for what, nodes in (("first", first), ("last", last)) for node in nodes):
        form = weighted(node)
        if form is None or not scene.reads_codes(node, form.data):
            continue
        tensor = str(node.inputs[form.data].name)  # type: ignore[union-attr]
        if scene.has_few_codes(tensor):
            share = costs.get(str(node.outputs[0].name), 0) / max(1, sum(costs.values()))
            danger = f"the {what} layer, {share:.1%} of the multiply-accumulates: its {tensor!r} has few codes for most of its values"
            yield Spot(str(node.name), tensor, scene.decibels(tensor), danger)


def _is_input(scene: Scene, value: ir.Value | None) -> bool:
    return value is not None and scene.moved_from(value).is_graph_input()


def _last_weighted(network: ir.Model) -> list[ir.Node]:
    found: dict[ir.Node, None] = {}
    todo, met = list(network.graph.outputs), set[ir.Value]()
    while todo:
        value = todo.pop()
        node = value.producer()
        if node is None or value in met:
            continue
        met.add(value)
        given = [value for value in node.inputs if value is not None and not is_constant(value)]
        if weighted(node) is not None:
            found[node] = None
        elif node.op_type == "Concat" or (node.op_type in FINISHING and len(given) == 1):
            todo += given
    return list(found)


def products(scene: Scene) -> Iterator[Spot]:
    """A MatMul of two activations, as attention has them, of which one is left few codes."""
    for node in scene.network.graph:
        if node.op_type != "MatMul" or not is_default_domain(node) or not (scene.reads_codes(node, 0) and scene.reads_codes(node, 1)):
            continue
        names = [str(value.name) for value in node.inputs if value is not None]
        few = [name for name in names if scene.has_few_codes(name)]
        if few:
            worst = min(few, key=scene.decibels)
            ranges = " and ".join(" to ".join(map(written, scene.entries[name].range)) for name in names)
            danger = f"a MatMul of two activations, with ranges {ranges}: {worst!r} has few codes for most of its values"
            yield Spot(str(node.name), worst, scene.decibels(worst), danger)


def channels(scene: Scene) -> Iterator[Spot]:
    """A tensor of which one channel lies far from the others."""
    for tensor, value in _quantized(scene):
        if scene.has_few_codes(tensor) and (told := _by_channel(scene, tensor)):
            producer = value.producer()
            where = tensor if producer is None else str(producer.name)
            yield Spot(where, tensor, scene.decibels(tensor), f"an outlying channel: {told}")


def _by_channel(scene: Scene, tensor: str) -> str:
    found = outlying_channel(scene, tensor)
    return (
        "" if found is None else f"channel {found[0]} averages {written(found[1])} where half of them stay within {written(found[2])} of 0"
    )


def _quantized(scene: Scene) -> Iterator[tuple[str, ir.Value]]:
    return ((tensor, scene.values[tensor]) for tensor in scene.entries if tensor in scene.values)
