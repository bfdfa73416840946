"""Compare what two networks code their tensors in, whichever tools wrote them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zeropoint.evaluate.layers import LayerFidelity
from zeropoint.rules.network import Float64Array, Network, Operator, Tensor
from zeropoint.rules.pairs import CASTS_AND_CODINGS, Coding, codings, scale_values

SAME_SCALE = 1e-6  # relative
BIAS = 2  # the input of a Conv or Gemm


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """What a tensor is coded in. granularity: what shares a scale, as "tensor", "channel 0" or "block 32"; scale: the largest.

    scale, zero_point: None where the file computes them; the zero point is that of the first channel.
    """

    format: str
    granularity: str
    scale: float | None
    zero_point: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CodesDifference:
    """A tensor that two networks do not code alike.

    tensor: a's name of an activation, or of the node whose weight or bias it is. role: "activation", "weight" or "bias". a, b: None where
    the network leaves it in float. scale_ratio: b's scale over a's, of the channel where they differ most; None where one has none.
    """

    tensor: str
    role: str
    a: Codes | None
    b: Codes | None
    scale_ratio: float | None


Place = tuple[str, str, int]  # tensor, role, and which of several codings of that it is


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    codes: Codes
    scale: Float64Array | None


def compare_codes(a: Network, b: Network, layers: Sequence[LayerFidelity]) -> tuple[CodesDifference, ...]:
    """Return the tensors that `b` does not code as `a` does; `layers` tell which tensors are the same."""
    tensors_a, tensors_b = _named(a), _named(b)
    roots_a = {layer: _root(a, tensors_a.get(layer.tensor)) for layer in layers}
    roots_b = {layer: _root(b, tensors_b.get(layer.other)) for layer in layers}
    names_b = {root.name: own.name for layer, root in roots_b.items() if root and (own := roots_a[layer])}
    nodes_a, nodes_b = ({root.name: layer.node for layer, root in roots.items() if root} for roots in (roots_a, roots_b))
    ours, theirs = _codes(a, {}, nodes_a), _codes(b, names_b, nodes_b)
    differences = []
    for place in dict.fromkeys((*ours, *theirs)):
        one, two = ours.get(place), theirs.get(place)
        ratio = _ratio(one, two)
        is_same = one is not None and two is not None and _alike(one.codes, two.codes) and abs((ratio or 1.0) - 1.0) <= SAME_SCALE
        if not is_same:
            codes_a, codes_b = (found.codes if found is not None else None for found in (one, two))
            differences.append(CodesDifference(tensor=place[0], role=place[1], a=codes_a, b=codes_b, scale_ratio=ratio))
    return tuple(differences)


def _named(network: Network) -> dict[str, Tensor]:
    found = [tensor for operator in network.operators for tensor in (*operator.inputs, *operator.outputs) if tensor is not None]
    return {tensor.name: tensor for tensor in reversed(found)}


def _root(network: Network, tensor: Tensor | None) -> Tensor | None:
    """Return what is coded, cast or copied to become `tensor`."""
    while (producer := network.producer(tensor)) is not None and producer.op_type in CASTS_AND_CODINGS and producer.input(0) is not None:
        tensor = producer.input(0)
    return tensor


def _codes(network: Network, names: Mapping[str, str], nodes: Mapping[str, str]) -> dict[Place, _Found]:
    found: dict[Place, _Found] = {}
    seen: Counter[tuple[str, str]] = Counter()
    for coding in codings(network):
        tensor, role = _place(network, coding, nodes)
        place = names.get(tensor, tensor) if role == "activation" else tensor
        found[place, role, seen[place, role]] = _read(network, coding)
        seen[place, role] += 1
    return found


def _place(network: Network, coding: Coding, nodes: Mapping[str, str]) -> tuple[str, str]:
    root = _root(network, coding.data)
    name = root.name if root is not None else coding.operator.name
    if not coding.of_weight:
        return name, "activation"
    operator: Operator | None = coding.operator
    index = 0
    while operator is not None and operator.op_type in CASTS_AND_CODINGS:
        operator, index = next(iter(network.uses(operator.outputs[0])), (None, 0))
    if operator is None:
        return name, "weight"
    output = operator.outputs[0].name if operator.outputs else ""
    return nodes.get(output, operator.name), "bias" if index == BIAS else "weight"


def _read(network: Network, coding: Coding) -> _Found:
    scale = scale_values(network, coding.operator)
    shared = f"block {coding.block_size}" if coding.block_size else "tensor"
    if not coding.block_size and scale is not None and scale.size > 1:
        shared = f"channel {coding.axis}"
    zero_point = network.array(coding.zero_point) if coding.zero_point is not None else np.zeros(1)
    first = None if zero_point is None else int(zero_point.reshape(-1)[0]) if zero_point.size else 0
    largest = float(scale.max()) if scale is not None and scale.size else None
    return _Found(Codes(format=coding.format, granularity=shared, scale=largest, zero_point=first), scale)


def _alike(one: Codes, two: Codes) -> bool:
    return (one.format, one.granularity, one.zero_point) == (two.format, two.granularity, two.zero_point)


def _ratio(one: _Found | None, two: _Found | None) -> float | None:
    if one is None or two is None or one.scale is None or two.scale is None:
        return None
    first, second = one.scale.reshape(-1), two.scale.reshape(-1)
    if first.size != second.size and 1 not in (first.size, second.size):
        first, second = first.max(initial=0.0, keepdims=True), second.max(initial=0.0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = second / first
        far = np.abs(np.log(ratios))
    return float(ratios[int(np.argmax(np.nan_to_num(far, nan=np.inf)))]) if ratios.size else None
