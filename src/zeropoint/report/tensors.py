"""Every tensor that has codes: how its values are spread, what range was chosen, and what other solvers would have chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from zeropoint.evaluate.measure import Material
from zeropoint.graph.model import Model, Node, Value
from zeropoint.graph.sources import sources
from zeropoint.notes import counted
from zeropoint.numerics.affine import Range, dequantize_array, quantize_array
from zeropoint.plan import Entry, Reader
from zeropoint.progress import Progress
from zeropoint.report.charts_of_tensors import specs
from zeropoint.report.distributions import binned, channel_ranges, extent
from zeropoint.report.layers import Reading, reading
from zeropoint.statistics.histogram import clipped_share, histogram
from zeropoint.statistics.solvers import get_solver
from zeropoint.statistics.tensor import TensorStatistic, merge

Array = npt.NDArray[Any]

SOLVERS = ("minmax", "percentile", "entropy", "mse")
ROBUST = ("percentile", "entropy")  # no single value, however large, moves these: what lies far beyond them is counted, not drawn
CHOSEN = "chosen"
LEAD = (
    "Click a layer above, or choose a tensor. Activations are shown as calibration saw them, beside the range that was chosen and those "
    "of the other solvers: what lies outside is clipped. Weights are shown by channel, in the float network and after rounding."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensors:
    """All tensors in one document, of which the page draws one at a time."""

    heading: str = "Tensors"
    lead: str = LEAD
    tensors: Sequence[Mapping[str, Any]]
    layers: Mapping[str, Mapping[str, Any]]
    first: str | None
    empty: str = "No tensor was quantized."
    template: ClassVar[str] = "tensors.html"
    draws: ClassVar[bool] = True

    @property
    def document(self) -> dict[str, Any]:
        """What the page's script reads: layers by their places, since HTML does not keep every name as it is."""
        first = str(list(self.layers).index(self.first)) if self.first is not None else None
        return {"tensors": self.tensors, "layers": list(self.layers.values()), "first": first, "specs": specs()}


def tensors_of(material: Material, *, first: str | None, progress: Progress) -> Tensors:
    """Return the activations and weights of a plan; `first` is the node whose tensor is shown before anything is clicked.

    Biases are left out: their codes follow from the scales of input and weight.
    """
    candidate = material.candidate
    entries = [entry for entry in candidate.plan.entries if entry.role != "bias"]
    seen = statistics_of(candidate.prepared, material.statistics, entries)
    nodes = {str(node.name): node for node in candidate.quantized.graph}
    found = []
    for done, entry in enumerate(entries, start=1):
        found.append(
            _activation(entry, seen.get(entry.tensor)) if entry.role == "activation" else _weight(entry, candidate.prepared, nodes)
        )
        progress("drawing tensors", done, len(entries))
    index = {entry.tensor: number for number, entry in enumerate(entries)}
    known = reading(candidate.plan)
    layers = {str(node.name): layer for node in candidate.prepared.graph if (layer := _layer(node, known, index))}
    return Tensors(tensors=found, layers=layers, first=first if first in layers else next(iter(layers), None))


def statistics_of(network: Model, seen: Mapping[str, TensorStatistic], entries: Sequence[Entry]) -> dict[str, TensorStatistic]:
    """Return what was seen in the tensor of each entry, also in those that only hold what was seen in others."""
    wanted = [entry.tensor for entry in entries if entry.role == "activation"]
    origins = sources(network, [*seen, *wanted]) if seen else {}
    found = {}
    for tensor in wanted:
        parts = (tensor,) if tensor in seen else origins.get(tensor, ())
        if parts and all(part in seen for part in parts):
            found[tensor] = reduce(merge, (seen[part] for part in parts))
    return found


def _layer(node: Node, known: Reading, index: Mapping[str, int]) -> dict[str, Any] | None:
    """Return the tensors with codes that a node reads and writes, by their parts in it."""
    parts: list[tuple[str, int]] = []
    inputs = [(position, entry) for position in range(len(node.inputs)) if (entry := known.entries.get((str(node.name), position)))]
    several = sum(entry.role == "activation" for _, entry in inputs) > 1
    for position, entry in inputs:
        if entry.tensor in index:
            part = entry.role if entry.role == "weight" else f"input {position}" if several else "input"
            parts.append((part, index[entry.tensor]))
    parts += [("output", index[str(value.name)]) for value in node.outputs if str(value.name) in index]
    return {"name": str(node.name), "operator": node.op_type, "tensors": parts} if parts else None


def _activation(entry: Entry, statistic: TensorStatistic | None) -> dict[str, Any]:
    facts = _facts(entry)
    document: dict[str, Any] = {"name": entry.tensor, "facts": facts, "told": "The plan does not say what was seen in this tensor."}
    if statistic is None:
        return document
    facts += [("values seen", f"{statistic.count:,}")]
    others = [f"{count:,} {what}" for count, what in ((statistic.nan_count, "NaN"), (statistic.inf_count, "infinite")) if count]
    facts += [("not finite", ", ".join(others))] if others else []
    if not statistic.count:
        return {**document, "told": "No finite value was seen in this tensor."}
    facts += [("least and largest", f"{statistic.minimum:.4g} to {statistic.maximum:.4g}")]
    return {**document, **_distribution(entry, statistic)}


def _distribution(entry: Entry, statistic: TensorStatistic) -> dict[str, Any]:
    values = histogram(statistic)
    ranges = {solver: get_solver(solver).solve(statistic, entry.spec) for solver in SOLVERS}
    chosen = Range(*entry.range) if len(entry.range) == 2 else covered(entry)
    lo, hi = extent(values, [chosen, *(ranges[solver] for solver in ROBUST)])
    bins = binned(values, lo, hi)
    share = clipped_share(values, chosen.lo, chosen.hi)
    told = f"{100 * share:.2g} % of the values lie outside the range and are clipped." if share > 0 else "No value is clipped."
    ends = ((bins.below, "below", statistic.minimum, "down"), (bins.above, "above", statistic.maximum, "up"))
    told += "".join(f" {counted(n, 'value')} {where} what is drawn, {way} to {end:.4g}." for n, where, end, way in ends if n)
    thresholds = [(CHOSEN, chosen.lo, chosen.hi, True), *((solver, found.lo, found.hi, False) for solver, found in ranges.items())]
    return {
        "extent": _short(lo, hi),
        "counts": bins.counts,
        "range": _short(chosen.lo, chosen.hi),
        "thresholds": [(solver, *_short(start, end), is_chosen) for solver, start, end, is_chosen in thresholds],
        "told": told,
    }


def covered(entry: Entry) -> Range:
    """Return what the codes of a per-tensor entry stand for, from the least to the largest."""
    scale, zero_point = entry.scale[0], entry.zero_point[0] if entry.zero_point else 0
    return Range((entry.spec.qmin - zero_point) * scale, (entry.spec.qmax - zero_point) * scale)


def _short(*values: float) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def _facts(entry: Entry) -> list[tuple[str, str]]:
    kind = "symmetric" if entry.symmetric else "asymmetric"
    grain = "one scale" if entry.axis is None else f"{counted(len(entry.scale), 'scale')} along axis {entry.axis}"
    grain += f", one for each {entry.block} elements" if entry.block is not None else ""
    facts = [("format", f"{entry.format}, {kind}"), ("granularity", grain)]
    if entry.scale:
        few = len(entry.scale) == 1
        facts.append(("scale", f"{entry.scale[0]:.6g}" if few else f"{min(entry.scale):.3g} to {max(entry.scale):.3g}"))
        facts.append(("zero point", ", ".join(map(str, entry.zero_point)) if len(entry.zero_point) == 1 else "one for each scale"))
    if len(entry.range) == 2:
        facts.append(("range", f"{entry.range[0]:.5g} to {entry.range[1]:.5g}"))
    return [*facts, ("chosen by", entry.solver), ("why", entry.reason)]


# --- weights ---------------------------------------------------------------------------------------------------------------


def _weight(entry: Entry, prepared: Model, nodes: Mapping[str, Node]) -> dict[str, Any]:
    facts = _facts(entry)
    document: dict[str, Any] = {
        "name": entry.tensor,
        "facts": facts,
        "told": "This weight cannot be drawn: it is no stored array of numbers.",
    }
    before, after = _stored(prepared.graph.initializers.get(entry.tensor)), rounded_weight(entry, nodes)
    if before is None or after is None:
        return document
    facts.insert(0, ("shape", " x ".join(map(str, before.shape))))
    found = channel_ranges(before, after, _channel_axis(entry, before.ndim))
    if found is None:
        return document
    told = f"The least and largest value of each {'channel' if found.every == 1 else f'{found.every} channels'}, before and after."
    return {**document, "told": told, "float": found.before, "quantized": found.after, "unit": found.unit, "every": found.every}


def _channel_axis(entry: Entry, rank: int) -> int:
    """The axis with a scale for each index; for blocks, which lie along input channels, the other one that a matrix has."""
    if entry.axis is None:
        return 0
    if entry.block is None:
        return entry.axis
    return 0 if entry.axis % rank else min(1, rank - 1)


def rounded_weight(entry: Entry, nodes: Mapping[str, Node]) -> Array | None:
    """Return scale * (codes - zero point) as the quantized network has it; None where its readers do not read a constant's codes."""
    for reader in entry.readers:
        value = _read(reader, nodes)
        dequantize = value.producer() if value is not None else None
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            continue
        codes = dequantize.inputs[0]
        quantize = codes.producer() if codes is not None else None
        stored = _stored(codes if quantize is None else quantize.inputs[0])
        if stored is not None:
            qparams = entry.qparams()
            return np.asarray(dequantize_array(stored if quantize is None else quantize_array(stored, qparams), qparams))
    return None


def _read(reader: Reader, nodes: Mapping[str, Node]) -> Value | None:
    node = nodes.get(reader.node)
    return node.inputs[reader.input] if node is not None and reader.input < len(node.inputs) else None


def _stored(value: Value | None) -> Array | None:
    return np.asarray(value.const_value.numpy()) if value is not None and value.const_value is not None else None
