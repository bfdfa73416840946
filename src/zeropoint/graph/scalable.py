"""Find which channels of which activations can be scaled without changing what a network computes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import onnx_ir as ir

from zeropoint.graph.channels import KEPT, Channels, Labels, evened
from zeropoint.graph.eligibility import FLOAT32
from zeropoint.graph.facts import Facts
from zeropoint.graph.follow import READS_SHAPES, data_axis, follow_channels
from zeropoint.graph.initializers import constant_array
from zeropoint.graph.operators import Weighted, float_attribute, ints_attribute, is_constant, string_attribute, weighted
from zeropoint.graph.own_biases import bias_input
from zeropoint.graph.scaling import Scalable
from zeropoint.plan import Reader, Tied

MOVES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Split", "Slice", "Gather", "Concat"})
NO_MAXIMA: Mapping[str, float] = {}

_Readers = list[tuple[ir.Node, Weighted]]


def find_scalable(model: ir.Model, facts: Facts, maxima: Mapping[str, float] = NO_MAXIMA) -> tuple[Scalable, ...]:
    """Return all that can be scaled in the prepared `model`: first what is free, then what takes a node on a branch.

    A branch is for a tensor that weighted operators read and of which not all channels are free. Each Scalable can be scaled whatever
    is done to the others, also where they share a tensor. `maxima` holds the largest value seen of tensors: a Clip from 0 whose input
    stayed well below the upper bound counts as ReLU.
    """
    channels = follow_channels(model, facts, maxima)
    roots = {value: evened(channels.roots(value)) for value in channels.labels if channels.labels[value].any()}
    readers = _weighted_readers(model)
    found = [scalable for tensors in _groups(roots) if (scalable := _free(channels, roots, readers, tensors)) is not None]
    found += _branches(facts, roots, readers)
    return tuple(found)


def _weighted_readers(model: ir.Model) -> dict[ir.Value, _Readers]:
    readers: dict[ir.Value, _Readers] = {}
    for node in model.graph:
        form = weighted(node)
        if form is not None and len(constant_array(node.inputs[form.weight]).shape) > 1:
            readers.setdefault(node.inputs[form.data], []).append((node, form))  # type: ignore[arg-type]
    return readers


def _groups(roots: Mapping[ir.Value, Labels]) -> Iterator[tuple[dict[int, int], list[ir.Value]]]:
    """Labels that stand in the same tensors, by the number that each gets, and those tensors."""
    places: dict[int, list[ir.Value]] = {}
    for value, labels in roots.items():
        for label in dict.fromkeys(labels.reshape(-1).tolist()):
            if label != KEPT:
                places.setdefault(label, []).append(value)
    together: dict[tuple[ir.Value, ...], list[int]] = {}
    for label, values in places.items():
        together.setdefault(tuple(values), []).append(label)
    for tensors, members in together.items():
        if len(members) > 1:  # a single factor for whole tensors helps nobody
            yield {label: number for number, label in enumerate(members)}, list(tensors)


def _free(
    channels: Channels,
    roots: Mapping[ir.Value, Labels],
    readers: Mapping[ir.Value, _Readers],
    group: tuple[dict[int, int], list[ir.Value]],
) -> Scalable | None:
    numbers, values = group
    reading = [(node, form) for value in values for node, form in readers.get(value, [])]
    if not reading:
        return None
    shifted = _shifted(values, reading)
    return Scalable(
        tied=tuple(_tied(value, roots[value], numbers, shifted=value in shifted) for value in values),
        channels=len(numbers),
        readers=tuple(Reader(str(node.name), form.data) for node, form in reading),
        shiftable=bool(shifted),
        free=True,
        loose=tuple(str(node.name) for node in channels.loose if node.outputs[0] in values),
        widened=tuple(str(node.name) for node in _around(values) if any(map(_is_one_number, node.inputs))),
    )


def _around(values: Iterable[ir.Value]) -> Iterator[ir.Node]:
    """The nodes that write or read `values` and rewrite a constant of arithmetic when these are scaled."""
    nodes = (node for value in values for node in (value.producer(), *(reader for reader, _ in value.uses())))
    yield from (node for node in dict.fromkeys(nodes) if node is not None and node.op_type in ("Add", "Sub", "Mul", "Div"))


def _is_one_number(value: ir.Value | None) -> bool:
    return is_constant(value) and constant_array(value).size == 1


def _tied(value: ir.Value, labels: Labels, numbers: Mapping[int, int], *, shifted: bool) -> Tied:
    index = tuple(numbers.get(int(label), -1) for label in labels.flat)
    shape = labels.shape
    while shape and shape[0] == 1:
        shape = shape[1:]
    return Tied(tensor=str(value.name), shape=shape, index=() if index == tuple(range(len(index))) else index, shifted=shifted)


def _branches(facts: Facts, roots: Mapping[ir.Value, Labels], readers: Mapping[ir.Value, _Readers]) -> Iterator[Scalable]:
    for value, reading in readers.items():
        fact = facts.get(str(value.name))
        if fact is None or fact.dtype != FLOAT32:
            continue
        labels = roots.get(value)
        rank = len(fact.shape)
        by_axis: dict[int, _Readers] = {}
        for node, form in reading:
            by_axis.setdefault(data_axis(node, form) % rank - rank, []).append((node, form))
        for axis, its in by_axis.items():
            size = fact.shape[axis]
            if size > 1 and (labels is None or labels.shape[axis] == 1 or not labels.all()):
                yield Scalable(
                    tied=(Tied(tensor=str(value.name), shape=(size, *[1] * (-1 - axis)), shifted=True),),
                    channels=size,
                    readers=tuple(Reader(str(node.name), form.data) for node, form in its),
                    shiftable=all(_takes_up_shifts(node, form) for node, form in its),
                    free=False,
                )


def find_shiftable(model: ir.Model, facts: Facts) -> tuple[Scalable, ...]:
    """Find the tensors from which one number can be subtracted, on a branch, for matrix products that take this up.

    A convolution's kernel ends with its activation, where nothing is to stand between the two and the codes: what it reads is left out.
    """
    found = []
    for value, reading in _weighted_readers(model).items():
        fact = facts.get(str(value.name))
        if fact is not None and fact.dtype == FLOAT32 and all(n.op_type != "Conv" and _takes_up_shifts(n, form) for n, form in reading):
            tied = Tied(tensor=str(value.name), shape=(), shifted=True)
            readers = tuple(Reader(str(node.name), form.data) for node, form in reading)
            found.append(Scalable(tied=(tied,), channels=1, readers=readers, shiftable=True, free=False))
    return tuple(found)


# --- shifts ---------------------------------------------------------------------------------------------------------------------


def _shifted(values: Iterable[ir.Value], reading: _Readers) -> set[ir.Value]:
    """Which of the tied `values` are shifted, so that those that `reading` reads are; none where not all of it can be taken up."""
    tied = set(values)
    todo = [node.inputs[form.data] for node, form in reading]
    takers = {node for node, form in reading if _takes_up_shifts(node, form)}
    shifted: set[ir.Value] = set()
    while todo:
        value = todo.pop()
        if value in shifted or value not in tied or value is None:
            continue
        shifted.add(value)
        producer = value.producer()
        if producer is not None and producer.op_type in MOVES:
            todo += producer.inputs
        elif producer is None or not _gives_shifts(producer):
            return set()
        for node, _ in value.uses():
            if node.op_type in MOVES:
                todo += node.outputs
            elif node not in takers and node.op_type not in READS_SHAPES:
                return set()
    return shifted


def _gives_shifts(node: ir.Node) -> bool:
    """Return whether a constant that `node` adds can take up what is subtracted from its output."""
    match node.op_type:
        case "Conv" | "ConvTranspose" | "Gemm":
            return _adds_vector(node)
        case "Add" | "Sub":
            return any(is_constant(value) for value in node.inputs)
        case "LayerNormalization" | "InstanceNormalization" | "BatchNormalization":
            return len(node.inputs) > 2 and is_constant(node.inputs[2])
        case _:
            return False


def _takes_up_shifts(node: ir.Node, form: Weighted) -> bool:
    """Return whether a constant added to the products of `node` can take up those of what is subtracted from all of its data."""
    if node.op_type == "Conv":
        padded = any(ints_attribute(node, "pads")) or string_attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        return not padded and _adds_vector(node)
    if node.op_type == "Gemm":
        return _adds_vector(node)
    return node.op_type == "MatMul" and bias_input(node, form) is not None


def _adds_vector(node: ir.Node) -> bool:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    plain = float_attribute(node, "alpha", 1.0) == float_attribute(node, "beta", 1.0) == 1.0
    return plain and is_constant(bias) and constant_array(bias).ndim == 1
