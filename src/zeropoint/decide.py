"""From a prepared network and calibration samples to the plan: find the sites, observe, solve, refine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from zeropoint.calibrate import Resources, Source, Subject, calibrate
from zeropoint.data import Samples, batches
from zeropoint.errors import DataError
from zeropoint.graph.facts import Facts, capture_facts
from zeropoint.graph.model import Model
from zeropoint.graph.sites import Placement, find_sites
from zeropoint.graph.sources import sources
from zeropoint.graph.taps import Taps
from zeropoint.graph.trouble import trouble_spots
from zeropoint.notes import Note
from zeropoint.plan import Plan, Provenance
from zeropoint.planner import NO_LIMITS, Limits, make_plan
from zeropoint.progress import Progress, silent
from zeropoint.recipe import Recipe
from zeropoint.refine.bias_correction import channel_axes, correct_biases
from zeropoint.release import own_version
from zeropoint.runtime.machine import return_freed_memory
from zeropoint.runtime.onnxruntime import VERSION as RUNTIME_VERSION
from zeropoint.statistics.network import Statistics
from zeropoint.statistics.tensor import TensorStatistic, merge
from zeropoint.targets import TARGETS, Target

LOOKED_INTO = 16  # samples, to tell whether a checkpoint is of the same data


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """All that a plan needs of the data: the shapes of the tensors, and what was seen in them.

    notes: on the data. run_notes: on how this run went, which no plan should depend on.
    """

    source: Source
    facts: Facts
    statistics: Statistics
    notes: tuple[Note, ...] = ()
    run_notes: tuple[Note, ...] = ()


def observe_network(
    network: Model,
    samples: Samples,
    *,
    sha256: Callable[[], str],
    target: Target,
    recipe: Recipe,
    resources: Resources,
    progress: Progress = silent,
) -> Observed:
    """Run the prepared `network`, of the file of that hash, on `samples` and return what a plan for `target` needs to know of them.

    What a checkpoint keeps serves every target: more tensors are observed then, so that the runtime may fuse less, and round otherwise.

    Raises:
        ModelError: the network cannot be run.
        DataError: a sample cannot be read or does not fit, or the checkpoint is of another calibration.
        RecipeError: a pattern of include or exclude fits nothing.
        OutputError: the checkpoint cannot be written.
    """
    divided = batches(samples, recipe.batch_size)
    facts = capture_facts(network, divided[0][0])
    return_freed_memory()  # for that one run all tensors were held at once
    source = Source(
        model_sha256=sha256(),
        data=samples.description,
        data_sha256=_fingerprint(samples) if resources.checkpoint is not None else "",
        blocks=len(divided),
        batch_size=divided.size,
        provider=resources.provider,
        zeropoint=own_version(),
        onnxruntime=RUNTIME_VERSION,
    )
    taps = needed_taps(network, find_sites(network, facts, target, include=recipe.include, exclude=recipe.exclude), facts, recipe)
    for other in () if resources.checkpoint is None else TARGETS.values():
        taps = taps.with_(needed_taps(network, find_sites(network, facts, other, include=(), exclude=()), facts, recipe))
    statistics, notes = calibrate(Subject(network, facts, divided, source), taps, resources, progress=progress)
    return Observed(source, facts, statistics, divided.notes, run_notes=notes)


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What a plan is made for, and how: target and recipe, what it may take of the machine, and who wants to know how far it is."""

    target: Target
    recipe: Recipe
    resources: Resources
    progress: Progress = silent


def observe_again(network: Model, changed: Collection[str], samples: Samples, observed: Observed, task: Task) -> Observed:
    """Return what a plan needs to know of `network`, which differs from the one observed in the tensors that `changed`.

    Raises:
        ModelError: the network cannot be run.
    """
    divided = batches(samples, task.recipe.batch_size)
    facts = capture_facts(network, divided[0][0])
    known = observed.statistics
    tensors = {name: seen for name, seen in known.tensors.items() if name not in changed}
    channels = {key: sums for key, sums in known.channels.items() if key[0] not in changed}
    placement = find_sites(network, facts, task.target, include=task.recipe.include, exclude=task.recipe.exclude)
    taps = needed_taps(network, placement, facts, task.recipe).less(Taps(tuple(tensors), tuple(channels)))
    subject = Subject(network, facts, divided, replace(observed.source, data_sha256=""))

    def progress(stage: str, done: int, total: int) -> None:
        task.progress(stage.replace("calibrating", "calibrating what was scaled", 1), done, total)

    seen, _ = calibrate(subject, taps, replace(task.resources, checkpoint=None), progress=progress)
    whole = Statistics({**tensors, **seen.tensors}, {**channels, **seen.channels})
    return replace(observed, facts=facts, statistics=whole)


def decide(network: Model, observed: Observed, target: Target, recipe: Recipe, *, limits: Limits = NO_LIMITS) -> Plan:
    """Return the plan for the prepared `network`, from what was observed in it, and what else is known of ranges.

    Raises:
        DataError: a tensor that the target quantizes was not observed.
        RecipeError: a solver, or a pattern of include or exclude, fits nothing.
    """
    placement = find_sites(network, observed.facts, target, include=recipe.include, exclude=recipe.exclude)
    statistics = site_statistics(network, placement, observed.statistics, target)
    plan = make_plan(network, placement, statistics, target, recipe, limits=limits)
    seen = Statistics({**observed.statistics.tensors, **statistics}, observed.statistics.channels)
    spots = trouble_spots(network, plan, target=target, facts=observed.facts, statistics=seen)
    corrections, unmended = correct_biases(network, plan, observed.statistics.channels) if recipe.bias == "corrected" else ((), ())
    provenance = Provenance(
        zeropoint=own_version(),
        onnxruntime=observed.source.onnxruntime,
        model_sha256=observed.source.model_sha256,
        calibration_data=observed.source.data,
        batch_size=recipe.batch_size,
        solver=recipe.solver,
        weight_solver=recipe.weight_solver,
        weight_format=recipe.weight_format,
        weight_granularity=recipe.weight_granularity,
        bias=recipe.bias,
        effort=recipe.effort,
        without=recipe.without,
        seed=recipe.seed,
    )
    return replace(plan, corrections=corrections, notes=(*plan.notes, *spots, *unmended, *observed.notes), provenance=provenance)


def _fingerprint(samples: Samples) -> str:
    """Return a hash of the names of the samples, which for arrays are their places, and of what up to 16 of them hold."""
    told = hashlib.sha256("\n".join(samples.ids).encode("utf-8", "surrogateescape"))
    for position in sorted({round(place) for place in np.linspace(0, len(samples) - 1, min(len(samples), LOOKED_INTO))}):
        for name, array in sorted(samples[position].items()):
            told.update(f"{name} {array.dtype} {array.shape}".encode("utf-8", "surrogateescape"))
            told.update(np.ascontiguousarray(array).tobytes())
    return told.hexdigest()


def needed_taps(network: Model, placement: Placement, facts: Facts, recipe: Recipe) -> Taps:
    """Return what has to be observed for a plan of these sites: tensors, and means of channels where biases are to be corrected."""
    channels = channel_axes(network, placement, facts) if recipe.bias == "corrected" else ()
    found = sources(network, [site.tensor for site in placement.activations])
    return Taps(tuple(dict.fromkeys(source for origins in found.values() for source in origins)), channels)


def site_statistics(network: Model, placement: Placement, statistics: Statistics, target: Target) -> dict[str, TensorStatistic]:
    """Return the statistic of each tensor that takes a Q/DQ pair, also of those that only hold what was observed in others.

    Raises:
        DataError: a tensor that the target quantizes was not observed.
    """
    seen = statistics.tensors
    origins_of = sources(network, [*seen, *(site.tensor for site in placement.activations)])
    found = {site.tensor: (site.tensor,) if site.tensor in seen else origins_of[site.tensor] for site in placement.activations}
    missing = [source for origins in found.values() for source in origins if source not in seen]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(
            f"statistics: found none of {missing[0]!r}{others}, expected those of every tensor that {target.name} quantizes; "
            "calibrate with the same options once more"
        )
    return {tensor: reduce(merge, (seen[source] for source in origins)) for tensor, origins in found.items()}
