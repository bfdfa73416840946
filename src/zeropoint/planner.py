"""Statistics and a target give a plan: one entry for each site, with its numbers and the reason for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from itertools import chain

import numpy as np
import numpy.typing as npt

from zeropoint.graph.initializers import constant_array
from zeropoint.graph.model import Model, Value
from zeropoint.graph.sites import Placement, Site, WeightSite, WeightUse
from zeropoint.notes import Note, counted
from zeropoint.numerics.affine import SMALLEST_SCALE, qparams_from_range
from zeropoint.numerics.decimals import shortest_decimals
from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import PerChannel, PerTensor
from zeropoint.plan import Entry, Plan, numbers
from zeropoint.recipe import Recipe
from zeropoint.statistics.solvers import solve
from zeropoint.statistics.tensor import TensorStatistic, merge
from zeropoint.statistics.weights import weight_range
from zeropoint.targets import Role, Target

Scale = npt.NDArray[np.float64]
PASSING = (None, Role.MOVES, Role.FUSES)  # roles of operators that compute nothing in integers
LARGEST_BIAS_CODE = 2**30  # half of int32's range is left to the sum that the bias joins


def make_plan(model: Model, placement: Placement, statistics: Mapping[str, TensorStatistic], target: Target, recipe: Recipe) -> Plan:
    """Return the plan for the prepared `model`: ranges solved, weights measured, biases fitted to both."""
    sites, notes = _seen_sites(model, placement, statistics, target)
    activations = _activation_entries(sites, statistics, target, recipe)
    scales = {entry.tensor: entry.scale[0] for entry in activations}
    constants = model.graph.initializers

    def with_biases(site: WeightSite) -> list[Entry]:
        biased = [use for use in site.uses if target.bias == "int32" and use.bias is not None]
        floor = _smallest_scale(biased, constants, scales)
        entry = _weight_entry(site, constant_array(constants[site.tensor]), floor, target, recipe)
        biases = [_bias_entry(use, entry, scales[use.data], constant_array(constants[str(use.bias)]).ndim - 1) for use in biased]
        return [entry, *biases]

    met = [replace(site, uses=tuple(use for use in site.uses if use.data in scales)) for site in placement.weights]
    # Where nothing was seen in what meets a weight, codes on one side of the product would be of no use.
    weights = [with_biases(site) for site in met if site.uses]
    return Plan(target=target.name, entries=(*activations, *chain(*weights)), notes=(*placement.notes, *notes))


def _seen_sites(
    model: Model, placement: Placement, statistics: Mapping[str, TensorStatistic], target: Target
) -> tuple[list[Site], list[Note]]:
    """Return the sites that have a range, less the readers that another operand without one keeps in float, and what to say of the rest."""
    nodes = {str(node.name): node for node in model.graph}
    notes, starved = [], set()
    for site in placement.activations:
        statistic = statistics[site.tensor]
        if statistic.count == 0:
            notes.append(Note(site.tensor, "stays in float: no finite value was seen in it during calibration"))
            computing = [n for n in dict.fromkeys(r.node for r in site.readers) if target.operators.get(nodes[n].op_type) not in PASSING]
            starved.update(computing)
            notes += [
                Note(n, f"{nodes[n].op_type} stays in float: no finite value was seen in {site.tensor!r} during calibration", kind="float")
                for n in computing
            ]
        elif statistic.nan_count or statistic.inf_count:
            notes.append(Note(site.tensor, f"{statistic.nan_count} NaN and {statistic.inf_count} Inf were seen and left out of its range"))
    if target.codes_everywhere:  # who reads a kernel's codes must go on doing so
        starved.clear()
    fed = [
        replace(site, readers=tuple(reader for reader in site.readers if reader.node not in starved))
        for site in placement.activations
        if statistics[site.tensor].count
    ]
    return [site for site in fed if site.readers], notes


def _activation_entries(sites: list[Site], statistics: Mapping[str, TensorStatistic], target: Target, recipe: Recipe) -> list[Entry]:
    groups: dict[str, list[Site]] = defaultdict(list)
    for site in sites:
        groups[site.group].append(site)

    def solved(together: list[Site]) -> list[Entry]:
        statistic = reduce(merge, (statistics[site.tensor] for site in together))
        spec = target.nonnegative_activation if statistic.minimum >= 0 else target.activation
        solution = solve(statistic, spec, recipe.solver)
        scale, zero_point = numbers(qparams_from_range(solution.range.lo, solution.range.hi, spec=spec))
        return [
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
                group=site.group if len(together) > 1 else "",
                readers=site.readers,
            )
            for site in together
        ]

    return list(chain(*map(solved, groups.values())))


def _weight_entry(site: WeightSite, weight: npt.NDArray[np.float32], floor: Scale, target: Target, recipe: Recipe) -> Entry:
    spec = target.weight.with_granularity(PerTensor() if site.axis is None else PerChannel(site.axis))
    lo, hi = weight_range(weight, spec, recipe.weight_solver)
    peak = np.maximum(-lo, hi)
    ordinary = np.median(peak[peak > 0]) if (peak > 0).any() else 1.0  # for dead channels: not a scale that their bias would drown in
    peak = np.where(peak > 0, peak, ordinary)
    least = (floor.max() if site.axis is None else floor) * spec.qmax
    raised = int((peak < least).sum())
    peak = np.maximum(peak, least)
    scale, zero_point = numbers(qparams_from_range(-peak, peak, spec=spec))
    reason = "one scale" if site.axis is None else f"{len(scale)} output channels"
    if raised:
        reason += f"; {counted(raised, 'scale')} raised so that the bias fits int32"
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
        reason=reason,
        readers=tuple(use.reader for use in site.uses),
    )


def _smallest_scale(uses: list[WeightUse], constants: Mapping[str, Value], scales: Mapping[str, float]) -> Scale:
    """Per channel, the weight scale below which the bias, at scale input x weight, would overflow its int32 code, or that scale vanish."""
    biases = [np.abs(constant_array(constants[str(use.bias)])).reshape(-1).astype(np.float64) for use in uses]
    floors = [np.maximum(bias / LARGEST_BIAS_CODE, SMALLEST_SCALE) / scales[use.data] for bias, use in zip(biases, uses, strict=True)]
    return np.asarray(reduce(np.maximum, floors) if floors else 0.0)


def _bias_entry(use: WeightUse, weight: Entry, data_scale: float, axis: int) -> Entry:
    scale = np.asarray(weight.scale) * data_scale
    return Entry(
        tensor=str(use.bias),
        role="bias",
        format=FORMATS["int32"].name,
        symmetric=True,
        axis=None if weight.axis is None else axis,
        scale=shortest_decimals(scale.astype(np.float32)),
        zero_point=(0,),
        solver="exact",
        reason="scale of the input x scale of the weight",
        readers=() if use.bias_reader is None else (use.bias_reader,),
    )
