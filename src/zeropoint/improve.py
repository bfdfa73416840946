"""Refine a plan, and keep of that only what brings the outputs closer to the float network's on samples that it was not fitted on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from zeropoint.autograd.devices import device_name, is_device
from zeropoint.data import Feed, Samples, batches
from zeropoint.data.split import spread
from zeropoint.decide import Observed, Task, decide, observe_again, observe_network
from zeropoint.graph.facts import Facts
from zeropoint.graph.materialize import materialize
from zeropoint.graph.model import Model
from zeropoint.graph.scalable import find_scalable, find_shiftable
from zeropoint.graph.scaling import Scalable, apply_scalings
from zeropoint.graph.sources import sources
from zeropoint.graph.taps import Taps, peak_bytes, tap, tensor_bytes
from zeropoint.notes import Note
from zeropoint.numerics.measures import decibels
from zeropoint.plan import Plan, Scaling, Step, Tied
from zeropoint.planner import Limits
from zeropoint.refine.probe import Probe
from zeropoint.refine.smoothing import Extremes, Scalables, channel_extremes, sites_to_probe, smooth, wider
from zeropoint.refine.sweep import sweep, with_codes, with_swept
from zeropoint.refine.trial import Outputs, outputs_of, relative_errors

Errors = npt.NDArray[np.float64]  # of each sample
FEWEST_PROBED = 3
ROOM = 2_000_000_000  # bytes that samples may take: whatever a machine has, as the result must not depend on that
RECONSTRUCTED_AT_ONCE = 16  # samples
FEWEST = 8  # feeds, below which nothing can be fitted to some and tried out on others


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What an effort buys.

    probed, observed, checked, swept: how many samples ranges are probed on, and so on; batches where the network takes no single ones.
    What is checked on is not fitted to. rounded: the formats of weights whose codes are chosen anew, layer by layer; reconstructed: those
    of weights whose codes are chosen block by block, each in so many iterations, where PyTorch runs the calibration.
    """

    refinements: tuple[str, ...]
    probed: int = 6
    observed: int = 64
    checked: int = 32
    swept: int = 64
    rounded: frozenset[str] = frozenset({"int4"})  # to 8 bits the nearest codes do little harm
    thorough: bool = False
    reconstructed: frozenset[str] = frozenset({"int4"})
    iterations: int = 1000


EFFORTS: Mapping[str, Effort] = {
    "fast": Effort(refinements=()),
    "balanced": Effort(refinements=("smoothing", "rounding")),
    "best": Effort(
        refinements=("smoothing", "rounding", "reconstruction"),
        probed=16,
        observed=96,
        swept=96,
        rounded=frozenset({"int4", "int8"}),
        thorough=True,
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What every refinement is given: samples to fit to, what for, and how hard to try."""

    samples: Samples
    task: Task
    effort: Effort

    def feeds(self, count: int) -> list[Feed]:
        """Read `count` samples, evenly spread, each a feed of its own; or batches, where the network takes no other."""
        return [*self.each(count)]

    def each(self, count: int) -> Iterator[Feed]:
        """Read them one after the other."""
        for number in spread(len(batches(self.samples, 1)), count):
            yield from _read(self.samples, [number])


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """How far the refinements have come. network: the float one with the plan's scalings; observed: what was seen in that."""

    plan: Plan
    network: Model
    observed: Observed
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Refinement:
    """make: the state refined, or None where nothing was found. applies: whether an effort makes it for such a task at all."""

    make: Callable[[Work, State], State | None]
    applies: Callable[[Effort, Task], bool]


def plan_network(network: Model, samples: Samples, task: Task, *, sha256: Callable[[], str]) -> State:
    """Return the plan for the prepared `network`, of the file of that hash, that the samples lead to, and what was seen in its tensors.

    Raises:
        ModelError, DataError, RecipeError, OutputError: as `observe_network`, `decide` and `improve` do.
    """
    target, recipe, resources, progress = task.target, task.recipe, task.resources, task.progress
    observed = observe_network(network, samples, sha256=sha256, target=target, recipe=recipe, resources=resources, progress=progress)
    return improve(network, observed, decide(network, observed, target, recipe), samples, task)


def improve(network: Model, observed: Observed, plan: Plan, samples: Samples, task: Task) -> State:
    """Return `plan` for the prepared `network` as far as the recipe's effort gets it, without what it leaves out.

    samples: those of the calibration. A part of them is set aside, to which nothing is fitted: a refinement by which the outputs
    are not closer to the float network's there is not kept.

    Raises:
        ModelError: the network cannot be run in pieces.
        DataError: a sample cannot be read.
    """
    effort = EFFORTS[task.recipe.effort]
    names = [name for name in effort.refinements if name not in task.recipe.without and REFINEMENTS[name].applies(effort, task)]
    state = State(plan, network, observed)
    if not names or not plan.entries:
        return state
    divided = batches(samples, 1)
    if len(divided) < FEWEST:
        what = "samples" if divided.size == 1 else f"batches of {divided.size}"
        reason = f"no refinement was tried: found {len(divided)} {what}, expected at least {FEWEST}, to fit to some and judge by others"
        return _unrefined(state, reason)
    affordable = _affordable(effort, network, observed.facts)
    if affordable is None:
        reason = (
            f"no refinement was tried: {FEWEST_PROBED} samples on their way through the network take more than {ROOM / 1e9:g} GB of memory"
        )
        return _unrefined(state, reason)
    aside = spread(len(divided), min(affordable.checked, len(divided) // 4))
    work = Work(_of_feeds(samples, [i for i in range(len(divided)) if i not in aside]), task, affordable)
    checks = _read(samples, aside)
    floats = outputs_of(network, checks)
    steps: list[Step] = []
    errors = _errors(network, plan, checks, floats)
    for name in names:
        tried = REFINEMENTS[name].make(work, state)
        if tried is None:
            continue
        found = _errors(network, tried.plan, checks, floats)
        kept = is_lower(found, errors)
        judges = len(aside) * divided.size
        steps.append(Step(name=name, before_db=_told(errors), after_db=_told(found), samples=judges, kept=kept, detail=tried.detail))
        if kept:
            state, errors = tried, found
    return replace(state, plan=replace(state.plan, steps=tuple(steps)))


def _unrefined(state: State, reason: str) -> State:
    return replace(state, plan=replace(state.plan, notes=(*state.plan.notes, Note("effort", reason))))


def _affordable(effort: Effort, network: Model, facts: Facts) -> Effort | None:
    """Return the effort with as many samples as there is room for, or None where that is too few.

    The samples of a trial wait in the middle of the network, each of a sweep twice; inputs and outputs are held of those that check.
    """
    ends = sum(tensor_bytes(facts, value) for value in (*network.graph.inputs, *network.graph.outputs, *network.graph.outputs))
    midway = ends + peak_bytes(network, facts, frozenset())
    most, checked = ROOM // max(1, 2 * midway), ROOM // max(1, ends)
    if most < FEWEST_PROBED or checked < FEWEST_PROBED:
        return None
    return replace(effort, probed=min(effort.probed, most), swept=min(effort.swept, most), checked=min(effort.checked, checked))


def _of_feeds(samples: Samples, numbers: Iterable[int]) -> Samples:
    """Choose the samples of some of the feeds that `batches(samples, 1)` gives, by number."""
    size = batches(samples, 1).size
    return samples.select([position for number in numbers for position in range(number * size, (number + 1) * size)])


def _read(samples: Samples, numbers: Iterable[int]) -> list[Feed]:
    """Read some of the feeds that `batches(samples, 1)` gives."""
    return [feed for block in batches(_of_feeds(samples, numbers), 1) for feed in block]


def is_lower(found: Errors, known: Errors) -> bool:
    """Say whether the errors of samples fell on average, and by more than chance would let them: by two standard errors of their ratio."""
    if not found.mean() < known.mean():
        return False
    smallest = np.finfo(np.float64).tiny
    change = np.log(np.maximum(found, smallest) / np.maximum(known, smallest))
    return bool(change.mean() < -2.0 * change.std() / math.sqrt(len(change)))


def _told(errors: Errors) -> float:
    return round(min(decibels(1.0, float(errors.mean())), 999.0), 2)


def _errors(network: Model, plan: Plan, feeds: list[Feed], floats: list[Outputs]) -> Errors:
    return relative_errors(floats, outputs_of(materialize(network, plan), feeds))


def _smoothing(work: Work, state: State) -> State | None:
    facts, plan = state.observed.facts, state.plan
    feeds = work.feeds(work.effort.probed)
    entries = sites_to_probe(state.network, plan)
    sites = {tensor: entries[tensor].readers for tensor in _finite(state, [*entries])}
    probe = Probe(state.network, sites, feeds, outputs_of(state.network, feeds))

    def extremes(ties: Mapping[str, tuple[Scalable, Tied]]) -> dict[str, Extremes]:
        session = tap(state.network, Taps(tuple(ties)), facts).open()
        known: dict[str, Extremes] = {}
        for feed in work.each(work.effort.observed) if ties else ():
            for tensor, array in session.run(feed).tensors.items():
                scalable, tied = ties[tensor]
                known[tensor] = wider(known.get(tensor), channel_extremes(tied, scalable.channels, array))
        return known

    # What is added meets the rounding errors of the weights, which corrected biases take back.
    shiftable = find_shiftable(state.network, facts) if work.task.recipe.bias == "corrected" else ()
    found = smooth(
        state.network,
        plan,
        Scalables(find_scalable(state.network, facts), shiftable),
        probe,
        extremes=extremes,
        solver=work.task.recipe.solver,
        tick=lambda done, total: work.task.progress("smoothing", done, total),
    )
    if not found.scalings and not found.widths:
        return None
    network = state.network.clone()
    apply_scalings(network, found.scalings)
    free = {tied.tensor for scaling in found.scalings if scaling.free for tied in scaling.tied}
    observed = observe_again(network, free, work.samples, state.observed, work.task)
    names = _new_names(found.scalings, network)
    known = (found.widths, found.bounds, found.exact)
    limits = Limits(*({names.get(tensor, tensor): item for tensor, item in items.items()} for items in known))  # type: ignore[arg-type]
    decided = decide(network, observed, work.task.target, work.task.recipe, limits=limits)
    detail = f"{len(found.scalings)} tensors scaled, {len(found.widths)} ranges narrowed"
    return State(replace(decided, scalings=(*plan.scalings, *found.scalings)), network, observed, detail)


def _finite(state: State, tensors: Sequence[str]) -> list[str]:
    """Return those of `tensors` in which no NaN or infinity was seen, for which there are no codes."""
    seen = state.observed.statistics.tensors
    origins = sources(state.network, [*seen, *tensors])
    met = {tensor: [seen[name] for name in ((tensor,) if tensor in seen else origins[tensor]) if name in seen] for tensor in tensors}
    return [tensor for tensor in tensors if not any(one.nan_count or one.inf_count for one in met[tensor])]


def _new_names(scalings: Sequence[Scaling], scaled: Model) -> dict[str, str]:
    """Return what the readers of tensors that stand on branches now read instead."""
    readers = [(scaling.tied[0].tensor, scaling.readers[0]) for scaling in scalings if not scaling.free]
    nodes = {str(node.name): node for node in scaled.graph}
    return {tensor: str(nodes[reader.node].inputs[reader.input].name) for tensor, reader in readers}  # type: ignore[union-attr]


def _rounding(work: Work, state: State) -> State:
    plan = replace(state.plan, scalings=())  # which the network has
    swept = sweep(
        state.network,
        plan,
        work.feeds(work.effort.swept),
        thorough=work.effort.thorough,
        corrects=work.task.recipe.bias == "corrected",
        tick=lambda done, total: work.task.progress("rounding", done, total),
    )
    refined = with_swept(state.plan, state.network, swept)
    detail = f"{len(refined.roundings)} weights, {len(swept.scales)} of them on other scales"
    return replace(state, plan=refined, detail=detail)


def _reconstruction(work: Work, state: State) -> State:
    from zeropoint.autograd.reconstruction import Budget, reconstruct

    plan = replace(state.plan, scalings=())  # which the network has
    codes = reconstruct(
        state.network,
        plan,
        [feed for block in batches(work.samples, RECONSTRUCTED_AT_ONCE) for feed in block],
        budget=Budget(work.effort.iterations, work.task.recipe.seed),
        device=device_name(work.task.resources.provider),
        tick=lambda done, total: work.task.progress("reconstruction", done, total),
    )
    found = with_codes(state.plan, state.network, codes, "output error of its block")
    moved = sum(rounding not in state.plan.roundings for rounding in found.roundings)
    return replace(state, plan=found, detail=f"{moved} weights changed")


REFINEMENTS: Mapping[str, Refinement] = {
    "smoothing": Refinement(_smoothing, lambda effort, task: True),
    "rounding": Refinement(_rounding, lambda effort, task: task.recipe.weight_format in effort.rounded),
    "reconstruction": Refinement(
        _reconstruction, lambda effort, task: task.recipe.weight_format in effort.reconstructed and is_device(task.resources.provider)
    ),
}
