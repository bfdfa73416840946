"""Statistics and a target give a plan: one entry for each site, with its numbers and the reason for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce

import numpy as np
import numpy.typing as npt

from zeropoint.graph.initializers import constant_array
from zeropoint.graph.model import Model, Node, Value
from zeropoint.graph.operators import float_attribute
from zeropoint.graph.sites import Placement, Site, WeightSite, WeightUse
from zeropoint.notes import Note
from zeropoint.numerics.affine import SMALLEST_SCALE, qparams_from_range
from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import PerChannel, PerTensor
from zeropoint.plan import Entry, Plan, Reader, numbers
from zeropoint.recipe import Recipe
from zeropoint.statistics.solvers import solve
from zeropoint.statistics.tensor import TensorStatistic, merge
from zeropoint.statistics.weights import weight_range
from zeropoint.targets import Target

Scale = npt.NDArray[np.float64]
LARGEST_BIAS_CODE = 2**30  # half of int32's range is left to the sum that the bias joins


def make_plan(model: Model, placement: Placement, statistics: Mapping[str, TensorStatistic], target: Target, recipe: Recipe) -> Plan:
    """Return the plan for the prepared `model`: ranges solved, weights measured, biases fitted to both."""
    activations, notes = _activation_entries(placement, statistics, target, recipe)
    scales = {entry.tensor: entry.scale[0] for entry in activations}
    constants = model.graph.initializers
    nodes = {str(node.name): node for node in model.graph}
    entries, bias_uses = list(activations), defaultdict(list)
    for site in placement.weights:
        uses = tuple(use for use in site.uses if use.data in scales)
        if not uses:  # nothing was seen in what meets it, and codes on one side of a product are of no use
            continue
        weight = constant_array(constants[site.tensor])
        biased = [use for use in uses if target.bias == "int32" and _fits_as_bias(use, nodes, constants, weight, site.axis)]
        floor = _smallest_scale(biased, constants, scales)
        entry = _weight_entry(replace(site, uses=uses), weight, floor, target, recipe)
        entries.append(entry)
        for use in biased:
            bias_uses[str(use.bias)].append((use, np.asarray(entry.scale) * scales[use.data]))
    for bias, found in bias_uses.items():
        entries += _bias_entries(bias, found, notes)
    return Plan(target=target.name, entries=tuple(entries), notes=(*placement.notes, *notes))


def _activation_entries(
    placement: Placement, statistics: Mapping[str, TensorStatistic], target: Target, recipe: Recipe
) -> tuple[list[Entry], list[Note]]:
    groups: dict[str, list[Site]] = defaultdict(list)
    notes = []
    for site in placement.activations:
        statistic = statistics[site.tensor]
        if statistic.count == 0:
            notes.append(Note(site.tensor, "stays in float: no finite value was seen in it during calibration"))
            continue
        if statistic.nan_count or statistic.inf_count:
            notes.append(Note(site.tensor, f"{statistic.nan_count} NaN and {statistic.inf_count} Inf were seen and left out of its range"))
        groups[site.group].append(site)
    entries = []
    for sites in groups.values():
        statistic = reduce(merge, (statistics[site.tensor] for site in sites))
        spec = target.nonnegative_activation if statistic.minimum >= 0 else target.activation
        solution = solve(statistic, spec, recipe.solver)
        scale, zero_point = numbers(qparams_from_range(solution.range.lo, solution.range.hi, spec=spec))
        entries += [
            Entry(
                tensor=site.tensor,
                role="activation",
                format=spec.format.name,
                symmetric=spec.symmetric,
                narrow=spec.narrow,
                range=(solution.range.lo, solution.range.hi),
                scale=scale,
                zero_point=zero_point,
                solver=solution.solver,
                reason=solution.reason,
                group=site.group if len(sites) > 1 else "",
                readers=site.readers,
            )
            for site in sites
        ]
    return entries, notes


def _weight_entry(site: WeightSite, weight: npt.NDArray[np.float32], floor: Scale, target: Target, recipe: Recipe) -> Entry:
    spec = target.weight.with_granularity(PerTensor() if site.axis is None else PerChannel(site.axis))
    lo, hi = weight_range(weight, spec, recipe.weight_solver)
    peak = np.maximum(-lo, hi)
    ordinary = np.median(peak[peak > 0]) if (peak > 0).any() else 1.0  # for dead channels: not a scale that their bias would drown in
    peak = np.maximum(np.where(peak > 0, peak, ordinary), floor * spec.qmax)
    scale, zero_point = numbers(qparams_from_range(-peak, peak, spec=spec))
    return Entry(
        tensor=site.tensor,
        role="weight",
        format=spec.format.name,
        symmetric=True,
        narrow=spec.narrow,
        axis=site.axis,
        scale=scale,
        zero_point=zero_point,
        solver=recipe.weight_solver,
        reason="one scale" if site.axis is None else f"{len(scale)} output channels",
        readers=tuple(use.reader for use in site.uses),
    )


def _fits_as_bias(
    use: WeightUse, nodes: Mapping[str, Node], constants: Mapping[str, Value], weight: npt.NDArray[np.float32], axis: int | None
) -> bool:
    if use.bias is None or axis is None:
        return False
    node = nodes[use.reader.node]
    plain = node.op_type != "Gemm" or float_attribute(node, "alpha", 1.0) == float_attribute(node, "beta", 1.0) == 1.0
    return plain and constant_array(constants[use.bias]).shape == (weight.shape[axis],) and node.op_type != "ConvTranspose"


def _smallest_scale(uses: list[WeightUse], constants: Mapping[str, Value], scales: Mapping[str, float]) -> Scale:
    """Per channel, the weight scale below which the bias, at scale input x weight, would overflow its int32 code, or that scale vanish."""
    biases = [np.abs(constant_array(constants[str(use.bias)])).astype(np.float64) for use in uses]
    floors = [np.maximum(bias / LARGEST_BIAS_CODE, SMALLEST_SCALE) / scales[use.data] for bias, use in zip(biases, uses, strict=True)]
    return np.asarray(reduce(np.maximum, floors) if floors else 0.0)


def _bias_entries(bias: str, found: list[tuple[WeightUse, Scale]], notes: list[Note]) -> list[Entry]:
    scale = found[0][1]
    if any(not np.array_equal(scale, other) for _, other in found):
        notes.append(Note(bias, "stays in float: its readers need it at different scales"))
        return []
    qparams = tuple(float(str(value)) for value in np.asarray(scale, np.float32))
    return [
        Entry(
            tensor=bias,
            role="bias",
            format=FORMATS["int32"].name,
            symmetric=True,
            axis=0,
            scale=qparams,
            zero_point=(0,),
            solver="exact",
            reason="scale of the input x scale of the weight",
            readers=tuple(Reader(use.reader.node, 2) for use, _ in found),
        )
    ]
