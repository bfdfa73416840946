"""Statistics and a target give a plan: one entry for each site, with its numbers and the reason for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import chain

import numpy as np
import numpy.typing as npt

from zeropoint.graph.initializers import constant_array
from zeropoint.graph.model import Model, Value
from zeropoint.graph.operators import weighted
from zeropoint.graph.own_biases import MATRIX, bias_input
from zeropoint.graph.sites import Placement, Site, WeightSite, WeightUse
from zeropoint.notes import Note, counted
from zeropoint.numerics.affine import SMALLEST_SCALE, Range, qparams_from_range
from zeropoint.numerics.decimals import shortest_decimals
from zeropoint.numerics.formats import FORMATS, get_format
from zeropoint.numerics.spec import Granularity, PerBlock, PerChannel, PerTensor, Spec
from zeropoint.plan import Entry, Plan, numbers
from zeropoint.recipe import Recipe
from zeropoint.statistics.solvers import solve
from zeropoint.statistics.tensor import TensorStatistic, merge
from zeropoint.statistics.weights import weight_range
from zeropoint.targets import Role, Target

Scale = npt.NDArray[np.float64]
PASSING = (None, Role.MOVES, Role.FUSES)  # roles of operators that compute nothing in integers
LARGEST_BIAS_CODE = 2**30  # half of int32's range is left to the sum that the bias joins


@dataclass(frozen=True, slots=True, eq=False)
class Limits:
    """What is known of ranges beside statistics, by tensor.

    widths: shares of the solved range. bounds: beyond which nothing counts. exact: ranges that are to be taken as they are.
    """

    widths: Mapping[str, float] = field(default_factory=dict)
    bounds: Mapping[str, Range] = field(default_factory=dict)
    exact: Mapping[str, Range] = field(default_factory=dict)

    def limited(self, tensors: Sequence[str], solved: Range, *, symmetric: bool) -> Range:
        """Return the range of tensors that share one."""
        if len(tensors) == 1 and tensors[0] in self.exact:
            return self.exact[tensors[0]]
        width = max(self.widths.get(tensor, 1.0) for tensor in tensors)
        lo, hi = solved.lo * width, solved.hi * width
        if all(tensor in self.bounds for tensor in tensors):
            least, most = min(self.bounds[tensor].lo for tensor in tensors), max(self.bounds[tensor].hi for tensor in tensors)
            if symmetric and lo < 0.0:
                most = max(-least, most)
                least = -most
            lo, hi = max(lo, min(least, 0.0)), min(hi, max(most, 0.0))
        return Range(lo, hi)


NO_LIMITS = Limits()


def make_plan(
    model: Model,
    placement: Placement,
    statistics: Mapping[str, TensorStatistic],
    target: Target,
    recipe: Recipe,
    *,
    limits: Limits = NO_LIMITS,
) -> Plan:
    """Return the plan for the prepared `model`: ranges solved, weights measured, biases fitted to both."""
    sites, notes = _seen_sites(model, placement, statistics, target)
    activations = _activation_entries(sites, statistics, target, recipe, limits)
    scales = {entry.tensor: entry.scale[0] for entry in activations}
    constants = model.graph.initializers
    matmuls = {str(node.name) for node in model.graph if node.op_type == "MatMul"}

    def with_biases(site: WeightSite) -> list[Entry]:
        weight = constant_array(constants[site.tensor])
        granularity, note = _granularity(site, weight.shape, recipe, is_matmul=any(use.reader.node in matmuls for use in site.uses))
        notes.extend(() if note is None else (note,))
        has_codes = target.bias == "int32" and not isinstance(granularity, PerBlock)  # blocks have no one scale of their products
        biased = [use for use in site.uses if has_codes and use.bias is not None]
        spec = replace(target.weight, format=get_format(recipe.weight_format), granularity=granularity)
        entry = _weight_entry(site, weight, _smallest_scale(biased, constants, scales), spec, recipe)
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


def _activation_entries(
    sites: list[Site], statistics: Mapping[str, TensorStatistic], target: Target, recipe: Recipe, limits: Limits
) -> list[Entry]:
    groups: dict[str, list[Site]] = defaultdict(list)
    for site in sites:
        groups[site.group].append(site)

    def solved(together: list[Site]) -> list[Entry]:
        statistic = reduce(merge, (statistics[site.tensor] for site in together))
        spec = target.nonnegative_activation if statistic.minimum >= 0 else target.activation
        solution = solve(statistic, spec, recipe.solver)
        found = limits.limited([site.tensor for site in together], solution.range, symmetric=spec.symmetric)
        before = solution.range
        width = "" if found == before else f"; {(found.hi - found.lo) / (before.hi - before.lo):.0%} of that by what the outputs make of it"
        scale, zero_point = numbers(qparams_from_range(found.lo, found.hi, spec=spec))
        return [
            Entry(
                tensor=site.tensor,
                role="activation",
                format=spec.format.name,
                symmetric=spec.symmetric,
                narrow=spec.narrow,
                range=(found.lo, found.hi),
                scale=scale,
                zero_point=zero_point,
                solver=solution.solver,
                reason=solution.reason + width,
                group=site.group if len(together) > 1 else "",
                readers=site.readers,
            )
            for site in together
        ]

    return list(chain(*map(solved, groups.values())))


def _granularity(site: WeightSite, shape: tuple[int, ...], recipe: Recipe, *, is_matmul: bool) -> tuple[Granularity, Note | None]:
    """Return what of a weight shares a scale, and a note where that is not what was asked for."""
    if site.axis is None or recipe.weight_granularity == "tensor":
        channels: Granularity = PerTensor()
    else:
        channels = PerChannel(site.axis)
    block = recipe.weight_block
    if block is None or (site.summed is not None and site.axis is not None and shape[site.summed] == block and len(shape) == MATRIX):
        return channels, None  # a single block is an output channel
    if site.summed is None:
        reason = "no axis holds its input channels for all who read it"
    elif shape[site.summed] % block:
        reason = f"it has {counted(shape[site.summed], 'input channel')}, and runtimes read whole blocks only"
    elif is_matmul and recipe.weight_format == "int8":
        reason = "ONNX Runtime, in which every result has to run, fuses int8 into a MatMul that refuses blocks; those of int4 it takes"
    else:
        return PerBlock(site.summed, block), None
    scales = "one scale" if site.axis is None else "a scale for each output channel"
    return channels, Note(site.tensor, f"{scales} and no blocks of {block}: {reason}")


def _weight_entry(site: WeightSite, weight: npt.NDArray[np.float32], floor: Scale, spec: Spec, recipe: Recipe) -> Entry:
    lo, hi = weight_range(weight, spec, recipe.weight_solver)
    peak = np.maximum(-lo, hi)
    ordinary = np.median(peak[peak > 0]) if (peak > 0).any() else 1.0  # for dead channels: not a scale that their bias would drown in
    peak = np.where(peak > 0, peak, ordinary)
    least = (floor if isinstance(spec.granularity, PerChannel) else floor.max()) * spec.qmax
    raised = int((peak < least).sum())
    peak = np.maximum(peak, least)
    qparams = qparams_from_range(-peak, peak, spec=spec)
    scale, zero_point = numbers(qparams)
    match spec.granularity:
        case PerTensor():
            reason = "one scale"
        case PerChannel():
            reason = f"{len(scale)} output channels"
        case PerBlock(_, size):
            reason = f"{len(scale)} blocks of {size} input channels"
    if raised:
        reason += f"; {counted(raised, 'scale')} raised so that the bias fits int32"
    return Entry(
        tensor=site.tensor,
        role="weight",
        format=spec.format.name,
        symmetric=True,
        narrow=spec.narrow,
        axis=None if isinstance(spec.granularity, PerTensor) else spec.granularity.axis,
        block=spec.granularity.size if isinstance(spec.granularity, PerBlock) else None,
        scale_shape=qparams.scale.shape if isinstance(spec.granularity, PerBlock) else (),
        scale=scale,
        zero_point=zero_point,
        solver=recipe.weight_solver,
        reason=reason,
        readers=tuple(use.reader for use in site.uses),
    )


def _smallest_scale(uses: list[WeightUse], constants: Mapping[str, Value], scales: Mapping[str, float]) -> Scale:
    """Per channel, the weight scale below which the bias, at scale input x weight, would overflow its int32 code, or that scale vanish."""
    floors = [smallest_scale(constant_array(constants[str(use.bias)]), scales[use.data]) for use in uses]
    return np.asarray(reduce(np.maximum, floors) if floors else 0.0)


def smallest_scale(bias: npt.NDArray[np.floating], data_scale: float) -> Scale:
    """Return for each number of a bias the least scale of weights, float64 (channels,), by which the bias fits int32."""
    return np.asarray(np.maximum(np.abs(bias).reshape(-1).astype(np.float64) / LARGEST_BIAS_CODE, SMALLEST_SCALE) / data_scale)


def _bias_entry(use: WeightUse, weight: Entry, data_scale: float, axis: int) -> Entry:
    return Entry(
        tensor=str(use.bias),
        role="bias",
        format=FORMATS["int32"].name,
        symmetric=True,
        axis=None if weight.axis is None else axis,
        scale=_bias_scale(weight, data_scale),
        zero_point=(0,),
        solver="exact",
        reason="scale of the input x scale of the weight",
        readers=() if use.bias_reader is None else (use.bias_reader,),
    )


def _bias_scale(weight: Entry, data_scale: float) -> tuple[float, ...]:
    return shortest_decimals((np.asarray(weight.scale) * data_scale).astype(np.float32))


def with_weight_scales(plan: Plan, model: Model, scales: Mapping[str, tuple[float, ...]], reason: str) -> Plan:
    """Return `plan`, made for the prepared float `model`, with other `scales` of weights, and biases on the scales of the new products."""
    found = {entry.tensor: entry for entry in plan.entries}
    weights = {tensor: replace(found[tensor], scale=scale, reason=f"{found[tensor].reason}; {reason}") for tensor, scale in scales.items()}
    changed = dict(weights)
    for node in model.graph:
        form = weighted(node)
        added = None if form is None else bias_input(node, form)
        if form is None or added is None:
            continue
        weight, data = (weights.get(str(node.inputs[form.weight].name)), found.get(str(node.inputs[form.data].name)))  # type: ignore[union-attr]
        bias = found.get(str(added[0].inputs[added[1]].name))  # type: ignore[union-attr]
        if weight is not None and data is not None and bias is not None and bias.role == "bias":
            changed[bias.tensor] = replace(bias, scale=_bias_scale(weight, data.scale[0]))
    return replace(plan, entries=tuple(changed.get(entry.tensor, entry) for entry in plan.entries))
