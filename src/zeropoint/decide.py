"""From a prepared network and calibration samples to the plan: find the sites, observe, solve, refine."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

from zeropoint.calibrate import Progress, calibrate, silent
from zeropoint.data import Samples, feed_count, feeds
from zeropoint.graph.facts import capture_facts
from zeropoint.graph.model import Model
from zeropoint.graph.sites import find_sites
from zeropoint.notes import Note
from zeropoint.plan import Plan, Provenance
from zeropoint.planner import make_plan
from zeropoint.recipe import Recipe
from zeropoint.refine.bias_correction import channel_axes, correct_biases
from zeropoint.targets import Target


def decide(network: Model, samples: Samples, target: Target, recipe: Recipe, *, progress: Progress = silent) -> Plan:
    """Return the plan for the prepared `network`, calibrated on `samples`.

    Raises:
        ModelError: the network cannot be run.
        DataError: a sample cannot be read or does not fit.
        RecipeError: a solver, or a pattern of include or exclude, fits nothing.
    """
    notes: list[Note] = []
    first = next(iter(feeds(samples, recipe.batch_size, on_note=notes.append)))
    facts = capture_facts(network, first)
    placement = find_sites(network, facts, target, include=recipe.include, exclude=recipe.exclude)
    statistics = calibrate(
        network,
        [site.tensor for site in placement.activations],
        feeds(samples, recipe.batch_size, on_note=notes.append),
        channel_axes=channel_axes(network, placement, facts) if recipe.bias == "corrected" else (),
        total=feed_count(samples, recipe.batch_size),
        progress=progress,
    )
    plan = make_plan(network, placement, statistics.tensors, target, recipe)
    corrections, unmended = correct_biases(network, plan, statistics.channels) if recipe.bias == "corrected" else ((), ())
    provenance = Provenance(
        zeropoint=version("zeropoint"),
        onnxruntime=version("onnxruntime"),
        calibration_data=samples.description,
        batch_size=recipe.batch_size,
        solver=recipe.solver,
        weight_solver=recipe.weight_solver,
        bias=recipe.bias,
        seed=recipe.seed,
    )
    return replace(plan, corrections=corrections, notes=(*plan.notes, *unmended, *notes), provenance=provenance)
