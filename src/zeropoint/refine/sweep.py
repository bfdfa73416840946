"""Walk through the network once, in the order in which it runs, and let each operator mend what those before it did wrong.

Two streams of the same samples go side by side: the float network's, and one that has been quantized as far as the walk has come. Where
a weighted operator is reached, both of its inputs are at hand, x and what has become of it, x'. Its codes are then chosen so that
W' x' comes close to W x, and its bias so that the mean of both is the same. Only what later operators read is held.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zeropoint.data.inputs import Feed
from zeropoint.graph.initializers import constant_array
from zeropoint.graph.materialize import materialize
from zeropoint.graph.model import Model, Node, Value
from zeropoint.graph.operators import weighted
from zeropoint.graph.pieces import cut
from zeropoint.numerics.affine import dequantize_array, expand, quantize_array
from zeropoint.numerics.decimals import shortest_decimals
from zeropoint.plan import Correction, Entry, Plan, rounding
from zeropoint.planner import smallest_scale, with_weight_scales
from zeropoint.refine.bias_correction import own_bias
from zeropoint.refine.layer import Layer, Moments, fit, moments, total
from zeropoint.refine.linear import Linear, linear
from zeropoint.refine.rounding import Grid
from zeropoint.runtime.machine import cores, one_blas_thread

Array32 = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]
Tensors = dict[str, Any]

FEWEST_ROWS, MOST_ROWS = 512, 4096
ROWS_FOR_COLUMN = 4
MORE_ROWS = 4  # times as many, where it may take long
ASIDE = 4  # of how many samples one tells whether what was fitted to the others is of use
PARTS = 8  # of the samples, whose moments are added up at the same time
LARGEST_GRAM = 2304  # columns: wider matrices are taken as blocks beside each other


def _in_blocks(rows: npt.NDArray[Any], blocks: int) -> npt.NDArray[Any]:
    """Return (groups, n, K) as (groups * blocks, n, K / blocks)."""
    groups, n, width = rows.shape
    return rows.reshape(groups, n, blocks, width // blocks).transpose(0, 2, 1, 3).reshape(groups * blocks, n, width // blocks)


def _whole(matrix: npt.NDArray[Any], blocks: int) -> npt.NDArray[Any]:
    """Return what `_in_blocks` divided."""
    many, n, width = matrix.shape
    return matrix.reshape(many // blocks, blocks, n, width).transpose(0, 2, 1, 3).reshape(many // blocks, n, blocks * width)


@dataclass(frozen=True, slots=True, eq=False)
class Swept:
    """weights: by name, what their new codes stand for. scales: of those whose scales changed. corrections: of biases."""

    weights: Mapping[str, Array32]
    scales: Mapping[str, tuple[float, ...]]
    corrections: tuple[Correction, ...]


@dataclass(slots=True)
class _Walk:
    entries: Mapping[str, Entry]  # of the weight that a node reads, by the node's name
    simulated: Mapping[str, Node]
    data: Mapping[str, Entry]  # of activations
    biases: frozenset[str]  # that have codes
    corrections: Mapping[str, Correction]
    floats: list[Tensors]
    ints: list[Tensors]
    thorough: bool
    corrects: bool  # biases
    replaced: dict[str, Array32] = field(default_factory=dict)
    scales: dict[str, tuple[float, ...]] = field(default_factory=dict)
    corrected: dict[str, Correction] = field(default_factory=dict)


def sweep(
    network: Model,
    plan: Plan,
    feeds: Sequence[Feed],
    *,
    thorough: bool = False,
    corrects: bool = True,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Swept:
    """Return weights, and biases where it `corrects` them, for the prepared float `network` under `plan`, fitted on `feeds`.

    Raises:
        ModelError: a piece of the network cannot be run.
    """
    entries = {reader.node: entry for entry in plan.entries if entry.role == "weight" for reader in entry.readers}
    nodes = [node for node in network.graph if str(node.name) in entries]
    activations = replace(plan, entries=tuple(entry for entry in plan.entries if entry.role == "activation"), corrections=())
    simulated = materialize(network, activations)
    walk = _Walk(
        entries,
        {str(node.name): node for node in simulated.graph},
        {entry.tensor: entry for entry in plan.entries if entry.role == "activation"},
        frozenset(entry.tensor for entry in plan.entries if entry.role == "bias"),
        {correction.tensor: correction for correction in plan.corrections},
        [dict(feed) for feed in feeds],
        [dict(feed) for feed in feeds],
        thorough,
        corrects,
    )
    names = {str(node.name): () for node in nodes}
    float_pieces, int_pieces = cut(network, names), cut(simulated, names)
    with one_blas_thread(), ThreadPoolExecutor(cores()) as executor:
        for number in range(len(nodes) + 1):
            if number:
                _decide(walk, nodes[number - 1], executor)
            floats = float_pieces.open(number, walk.floats[0])
            ints = int_pieces.open(number, walk.ints[0], replaced=walk.replaced, optimize="none")
            walk.floats = [*executor.map(floats.advanced, walk.floats)]
            walk.ints = [*executor.map(ints.advanced, walk.ints)]
            tick(number, len(nodes))
    weights = {entry.tensor: walk.replaced[entry.tensor] for entry in entries.values()}
    return Swept(weights, walk.scales, tuple(walk.corrected.values()))


def _decide(walk: _Walk, node: Node, executor: ThreadPoolExecutor) -> None:
    """Fix the weight and the bias of `node`, which both streams have reached."""
    entry, form, how = walk.entries[str(node.name)], weighted(node), linear(node)
    assert form is not None  # it has a weight entry
    weight = constant_array(node.inputs[form.weight])
    bias = _bias(node)
    if how is None or len(entry.readers) > 1:  # what suits one reader of a weight does harm to the others
        qparams = entry.qparams()
        walk.replaced.setdefault(entry.tensor, dequantize_array(quantize_array(weight, qparams), qparams))
        if bias is not None and str(bias.name) in walk.corrections:
            correction = walk.corrections[str(bias.name)]
            _correct(walk, str(bias.name), constant_array(bias), np.asarray(correction.added), node)
        return
    inputs = _inputs(walk, node, how, executor)
    layer, blocks = _layer(walk, node, how, inputs), inputs.blocks
    fitted = fit(layer, thorough=walk.thorough)
    scale = layer.grid.scale
    if layer.scalable:
        scale = _rescale(walk, entry, how, weight, fitted.shares)
    quantized = fitted.codes * scale
    walk.replaced[entry.tensor] = how.weight(_whole(quantized, blocks), weight.shape).astype(np.float32)
    if bias is not None and walk.corrects:
        both = inputs.seen + inputs.aside
        shift = np.einsum("gok,gk->go", layer.W, both.floats) - np.einsum("gok,gk->go", quantized, both.ints)
        shift = shift.reshape(how.groups, blocks, -1).sum(axis=1).reshape(-1) / max(1.0, both.count)
        _correct(walk, str(bias.name), constant_array(bias), shift, node)


@dataclass(frozen=True, slots=True, eq=False)
class _Inputs:
    """Moments of what a node reads, of most samples and of those set aside; its columns are taken in `blocks` beside each other."""

    seen: Moments
    aside: Moments
    blocks: int


def _inputs(walk: _Walk, node: Node, how: Linear, executor: ThreadPoolExecutor) -> _Inputs:
    form = weighted(node)
    assert form is not None
    width = how.matrix(constant_array(node.inputs[form.weight])).shape[2]
    blocks = next(n for n in range(1, width + 1) if width % n == 0 and width // n <= LARGEST_GRAM)
    wanted = min(MOST_ROWS, max(FEWEST_ROWS, ROWS_FOR_COLUMN * width)) * (MORE_ROWS if walk.thorough else 1)
    samples = range(len(walk.floats))
    count = -(-wanted // len(samples))
    name, simulated = str(node.inputs[form.data].name), str(walk.simulated[str(node.name)].inputs[form.data].name)  # type: ignore[union-attr]

    def part(chosen: Sequence[int]) -> Moments:
        floats, ints = (
            np.concatenate([how.rows(stream[0][tensor], 1)[:, :0], *(how.rows(stream[sample][tensor], count) for sample in chosen)], axis=1)
            for stream, tensor in ((walk.floats, name), (walk.ints, simulated))
        )
        return moments(_in_blocks(floats, blocks), _in_blocks(ints, blocks))

    aside = [sample for sample in samples if sample % ASIDE == ASIDE // 2]
    fitted = [sample for sample in samples if sample % ASIDE != ASIDE // 2]
    found = [*executor.map(part, (chosen[start::PARTS] for chosen in (fitted, aside) for start in range(PARTS)))]
    return _Inputs(total(found[:PARTS]), total(found[PARTS:]), blocks)


def _layer(walk: _Walk, node: Node, how: Linear, inputs: _Inputs) -> Layer:
    entry, form, bias = walk.entries[str(node.name)], weighted(node), _bias(node)
    assert form is not None
    weight = constant_array(node.inputs[form.weight])
    W = how.matrix(weight).astype(np.float64)
    scale = _scales(entry, how, weight.shape)
    least = np.zeros(W.shape[:2])
    if bias is not None and str(bias.name) in walk.biases:
        data = walk.data[str(node.inputs[form.data].name)]  # type: ignore[union-attr]
        least = smallest_scale(constant_array(bias), data.scale[0]).reshape(least.shape) / scale.min(axis=2)
    return Layer(
        _in_blocks(W, inputs.blocks),
        Grid(_in_blocks(scale, inputs.blocks), entry.spec.qmin, entry.spec.qmax),
        inputs.seen,
        inputs.aside,
        biased=bias is not None and walk.corrects,
        scalable=inputs.blocks == 1 and entry.axis is not None,
        least=least,
    )


def _bias(node: Node) -> Value | None:
    """Return what is added to the output of `node` and to nothing else, if that is one number for each channel."""
    bias = own_bias(node)
    if bias is None or node.op_type != "MatMul":
        return bias
    array, channels = constant_array(bias), constant_array(node.inputs[1]).shape[-1]
    return bias if (array.shape[-1:], array.size) == ((channels,), channels) else None


def _scales(entry: Entry, how: Linear, shape: tuple[int, ...]) -> Array64:
    """Return the scale of each weight, as the product of matrices sees them."""
    scale = np.broadcast_to(expand(entry.qparams().scale, shape, entry.spec.granularity), shape)
    return how.matrix(scale).astype(np.float64)


def _rescale(walk: _Walk, entry: Entry, how: Linear, weight: Array32, shares: Array64) -> Array64:
    """Note new scales for the weight of an entry, that share of the old ones for each row, and return them, one for each weight."""
    old = entry.qparams().scale
    if entry.block is None:
        new = old * shares.reshape(-1)
    else:
        axis = weight.ndim - 1 if how.transposed else 0
        new = old * shares.reshape([-1 if i == axis else 1 for i in range(old.ndim)])
    told = replace(entry, scale=shortest_decimals(new.astype(np.float32)))
    walk.scales[entry.tensor] = told.scale
    return _scales(told, how, weight.shape)


def _correct(walk: _Walk, name: str, bias: Array32, added: Array64, node: Node) -> None:
    told = shortest_decimals(added.astype(np.float32))
    walk.corrected[name] = Correction(tensor=name, added=told, reason=f"mean output of {node.name!r}")
    walk.replaced[name] = (bias + np.asarray(told, np.float32).reshape(bias.shape)).astype(np.float32)


def with_swept(plan: Plan, network: Model, swept: Swept) -> Plan:
    """Return `plan`, made for the prepared float `network`, with the scales, codes and biases that a sweep found."""
    scaled = with_weight_scales(plan, network, swept.scales, "changed by the output error")
    weights = ((entry, swept.weights[entry.tensor]) for entry in scaled.entries if entry.role == "weight")
    codes = {entry.tensor: quantize_array(weight, entry.qparams()).astype(np.int64) for entry, weight in weights}
    done = {correction.tensor for correction in swept.corrections}
    others = (correction for correction in plan.corrections if correction.tensor not in done)
    return replace(with_codes(scaled, network, codes, "output error"), corrections=(*swept.corrections, *others))


def with_codes(plan: Plan, network: Model, codes: Mapping[str, npt.NDArray[np.int64]], reason: str) -> Plan:
    """Return `plan`, made for the prepared float `network`, with these codes for some of its weights, by name."""
    kept = [rounding for rounding in plan.roundings if rounding.tensor not in codes]
    for entry in plan.entries:
        if entry.tensor in codes:
            nearest = quantize_array(constant_array(network.graph.initializers[entry.tensor]), entry.qparams()).astype(np.int64)
            if (codes[entry.tensor] != nearest).any():
                kept.append(rounding(entry.tensor, codes[entry.tensor] - nearest, reason))
    return replace(plan, roundings=tuple(kept))
