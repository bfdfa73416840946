"""Turn imported grids into a plan: ranges that lead the planner to the very scales, and scales of weights put in the place of its own."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from zeropoint.graph.initializers import constant_array
from zeropoint.graph.model import Model
from zeropoint.graph.sites import Placement, Site, WeightSite
from zeropoint.notes import Note
from zeropoint.numerics.affine import Range
from zeropoint.numerics.decimals import shortest_decimals
from zeropoint.numerics.spec import Spec
from zeropoint.plan import Entry, Plan
from zeropoint.planner import make_plan, smallest_scale, with_weight_scales
from zeropoint.recipe import Recipe
from zeropoint.statistics.solvers import Solution, solve
from zeropoint.statistics.tensor import EMPTY, TensorStatistic, merge, observe
from zeropoint.targets import Target
from zeropoint.torch.foreign.checkpoint import Grid, Quantizer
from zeropoint.torch.importing_sites import Located

UNSEEN = re.compile(r"no finite value was seen in (it|'.*') during calibration")
IMPORTED = "imported"
NO_SOURCE = "the checkpoint has no range for it"


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The range of a tensor as the planner is to see it, and where it is from."""

    range: Range
    solver: str
    reason: str


def import_plan(
    network: Model, placement: Placement, located: Located, measured: Mapping[str, TensorStatistic], *, target: Target, recipe: Recipe
) -> Plan:
    """Return the plan for the prepared network with all that was imported; what was not is solved from `measured`, or stays in float."""
    groups = defaultdict[str, list[Site]](list)
    for site in placement.activations:
        groups[site.group].append(site)
    found, notes = dict[str, Found](), list[Note]()
    for sites in groups.values():
        ranges, more = _ranges([site.tensor for site in sites], located.activations, measured, target, recipe)
        found |= ranges
        notes += more
    statistics = {site.tensor: _covering(found[site.tensor].range) if site.tensor in found else EMPTY for site in placement.activations}
    plan = make_plan(network, placement, statistics, target, replace(recipe, solver="minmax"))
    plan, more = _with_weights(plan, network, placement, located, target)
    told = tuple(replace(note, reason=UNSEEN.sub(lambda m: _unknown(m[1]), note.reason)) for note in plan.notes)
    return replace(plan, entries=tuple(_named(entry, found) for entry in plan.entries), notes=(*told, *located.notes, *notes, *more))


def _unknown(what: str) -> str:
    return NO_SOURCE if what == "it" else f"the checkpoint has no range for {what}"


def _named(entry: Entry, found: Mapping[str, Found]) -> Entry:
    if entry.role != "activation":
        return entry
    return replace(entry, solver=found[entry.tensor].solver, reason=found[entry.tensor].reason)


# --- activations -------------------------------------------------------------------------------------------------------------


def _ranges(
    tensors: list[str],
    quantizers: Mapping[str, tuple[Quantizer, ...]],
    measured: Mapping[str, TensorStatistic],
    target: Target,
    recipe: Recipe,
) -> tuple[dict[str, Found], list[Note]]:
    """Return the ranges of tensors that share a scale: the imported ones where there is one at least, else the measured ones."""
    known = {tensor: quantizers[tensor] for tensor in tensors if tensor in quantizers}
    if not known:
        seen = [measured[tensor] for tensor in tensors if tensor in measured and measured[tensor].count]
        solution = _solved(seen, target, recipe)
        return ({}, []) if solution is None else (dict.fromkeys(tensors, _measured(solution)), [])
    every = list(dict.fromkeys(quantizer for found in known.values() for quantizer in found))
    spec = target.nonnegative_activation if all(_low(q.grid) >= 0.0 for q in every) else target.activation
    ranges = {quantizer: grid_range(quantizer.grid, spec) for quantizer in every}
    largest = max(every, key=lambda quantizer: ranges[quantizer].hi - ranges[quantizer].lo)
    whole = Range(min(r.lo for r in ranges.values()), max(r.hi for r in ranges.values()))
    found = dict.fromkeys(tensors, Found(whole, IMPORTED, f"{largest.name}: {_told(largest.grid)}"))
    return found, _notes(tensors, known, every, ranges, spec)


def _notes(
    tensors: list[str],
    known: Mapping[str, tuple[Quantizer, ...]],
    every: list[Quantizer],
    ranges: Mapping[Quantizer, Range],
    spec: Spec,
) -> list[Note]:
    notes = []
    if len(set(ranges.values())) > 1:
        told = ", ".join(f"{quantizer.name} {_told(quantizer.grid)}" for quantizer in every)
        shared = f"{' and '.join(tensors)} share one scale" if len(tensors) > 1 else "it has several quantizers"
        notes.append(Note(tensors[0], f"{shared}: what covers all of them is taken ({told})"))
    lacking = [tensor for tensor in tensors if tensor not in known]
    notes += [
        Note(tensor, f"the checkpoint has no range for it: it has that of {next(iter(known))!r}, whose scale it shares")
        for tensor in lacking
    ]
    for quantizer in every:
        if spec.symmetric and not quantizer.grid.is_symmetric and (spec.format.signed or _low(quantizer.grid) < 0.0):
            notes.append(
                Note(
                    quantizer.name,
                    f"found zero point {int(quantizer.grid.zero_point)}, which becomes 0 on this target: half of the codes may lie idle",
                )
            )
        elif quantizer.grid.qmax - quantizer.grid.qmin < 254:
            notes.append(
                Note(
                    quantizer.name,
                    f"found codes from {quantizer.grid.qmin} to {quantizer.grid.qmax}: 8 bits cover the same range in finer steps",
                )
            )
    return notes


def _measured(solution: Solution) -> Found:
    return Found(solution.range, solution.solver, f"not in the checkpoint, from the data: {solution.reason}")


def _solved(seen: list[TensorStatistic], target: Target, recipe: Recipe) -> Solution | None:
    if not seen:
        return None
    statistic = reduce(merge, seen)
    return solve(statistic, target.nonnegative_activation if statistic.minimum >= 0 else target.activation, recipe.solver)


def grid_range(grid: Grid, spec: Spec) -> Range:
    """Return the range from which the planner makes a grid's own scale and zero point, or in another `spec` one that covers it.

    Example:
        >>> from zeropoint.numerics.formats import FORMATS
        >>> int8 = Grid(np.asarray(0.5), np.asarray(0), -128, 127)
        >>> grid_range(int8, Spec(FORMATS["int8"], symmetric=True)), grid_range(int8, Spec(FORMATS["uint8"], symmetric=False))
        (Range(lo=-63.5, hi=63.5), Range(lo=-64.0, hi=63.5))
    """
    amax = float(grid.amax)
    if spec.symmetric:
        return Range(-amax if spec.format.signed else 0.0, amax)
    if grid.is_symmetric and grid.qmax - grid.qmin >= 254:  # the lowest code, too, where it was left out
        return Range(-amax - float(grid.scale), amax)
    return Range(_low(grid), float((grid.qmax - grid.zero_point) * grid.scale))


def _low(grid: Grid) -> float:
    return float((grid.qmin - grid.zero_point) * grid.scale)


def _told(grid: Grid) -> str:
    if grid.is_symmetric:
        return f"amax {float(grid.amax):.6g}"
    return f"scale {float(grid.scale):.6g}, zero point {int(grid.zero_point)} in {grid.qmin} to {grid.qmax}"


def _covering(range: Range) -> TensorStatistic:
    """Return the statistic of which min-max makes that range, to the last bit."""
    return replace(observe([range.lo, range.hi]), minimum=range.lo, maximum=range.hi)


# --- weights -----------------------------------------------------------------------------------------------------------------


def _with_weights(plan: Plan, network: Model, placement: Placement, located: Located, target: Target) -> tuple[Plan, list[Note]]:
    entries = {entry.tensor: entry for entry in plan.entries}
    data_scales = {entry.tensor: entry.scale[0] for entry in plan.entries if entry.role == "activation"}
    scales, notes = dict[str, tuple[float, ...]](), list[Note]()
    for site in placement.weights:
        entry = entries.get(site.tensor)
        if entry is None:
            continue
        if site.tensor not in located.weights:
            notes.append(Note(site.tensor, "the checkpoint has no scale for this weight: it has the one of least error, from its values"))
            continue
        wanted = np.broadcast_to(located.weights[site.tensor], len(entry.scale))
        kept = np.where(np.isnan(wanted), np.asarray(entry.scale), wanted)
        floor = _floor(site, network, data_scales, target)
        raised = int((kept < floor).sum())
        if raised:
            notes.append(
                Note(site.tensor, f"{raised} of its {len(kept)} scales are larger than the checkpoint's, so that the bias fits int32")
            )
        scales[site.tensor] = shortest_decimals(np.maximum(kept, floor).astype(np.float32))
    changed = with_weight_scales(plan, network, scales, IMPORTED)
    named = {
        tensor: replace(
            changed.entry(tensor),
            narrow=tensor not in located.full,
            solver=IMPORTED,
            reason=f"{located.names[tensor]}: {entries[tensor].reason}",
        )
        for tensor in scales
    }
    return replace(changed, entries=tuple(named.get(entry.tensor, entry) for entry in changed.entries)), notes


def _floor(site: WeightSite, network: Model, data_scales: Mapping[str, float], target: Target) -> np.ndarray:
    """Return the least scales by which the biases fit int32, where they are in codes."""
    biased = [use for use in site.uses if target.bias == "int32" and use.bias is not None and use.data in data_scales]
    constants = network.graph.initializers
    floors = [smallest_scale(constant_array(constants[str(use.bias)]), data_scales[use.data]) for use in biased]
    floor = reduce(np.maximum, floors) if floors else np.zeros(1)
    return np.asarray(floor if site.axis is not None else floor.max())
