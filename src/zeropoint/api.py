"""The facade: everything that the command line does, as functions."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy.typing as npt

from zeropoint.calibrate import Progress, calibrate, silent
from zeropoint.data import (
    NOT_REAL,
    Feed,
    InputInfo,
    Preprocess,
    Samples,
    fed,
    feed_count,
    feeds,
    load_labels,
    load_preprocess,
    open_data,
    split,
)
from zeropoint.errors import DataError, PlanError
from zeropoint.evaluate.evidence import Evidence, coverage
from zeropoint.evaluate.fidelity import Labels, OutputFidelity, compare_outputs
from zeropoint.evaluate.latency import Latency, compare_latency
from zeropoint.graph.facts import capture_facts
from zeropoint.graph.load import Source, fingerprint, input_infos, load
from zeropoint.graph.materialize import materialize
from zeropoint.graph.model import Model
from zeropoint.graph.prepare import prepare
from zeropoint.graph.sites import find_sites
from zeropoint.graph.store import open_session, serialize, serialized_size
from zeropoint.lint import Finding, lint_model
from zeropoint.notes import Note
from zeropoint.numerics.affine import Range
from zeropoint.numerics.formats import get_format
from zeropoint.numerics.spec import Spec
from zeropoint.plan import Plan, Provenance, load_plan
from zeropoint.planner import make_plan
from zeropoint.recipe import Recipe
from zeropoint.refine.bias_correction import channel_axes, correct_biases
from zeropoint.result import Result
from zeropoint.runtime import open_runtime
from zeropoint.statistics.solvers import solve
from zeropoint.statistics.tensor import observe
from zeropoint.targets import Target, get_target

MOST_EVALUATED = 1000
HELD_OUT_SHARE = 5  # where calibration could use up the data, one sample in five is kept to judge by


def quantize(  # noqa: PLR0913  (the one wide function: each option of the command line, packed into values at once)
    model: Source,
    *,
    data: object = None,
    target: str | Target,
    solver: str = "auto",
    weight_solver: Literal["mse", "minmax"] = "mse",
    samples: int = 128,
    batch_size: int = 1,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    bias: Literal["corrected", "kept"] = "corrected",
    weight_storage: Literal["integer", "float"] = "integer",
    seed: int = 0,
    plan: Plan | str | Path | None = None,
    preprocess: Preprocess | str | Path | None = None,
    eval_data: object = None,
    labels: object = None,
    evaluate: bool = True,
    progress: Progress = silent,
) -> Result:
    """Quantize a float network for a target, and measure the result before handing it over.

    model: a path, bytes or a ModelProto; it is never changed. data: a folder of images or arrays, .npy, .npz,
    "module:function", an array, a dict of arrays or an iterable of either. `samples` of them calibrate, `batch_size` at a time, and
    those left are held out to judge by, unless `eval_data` is given. preprocess: for images, a preset's name, a TOML file or a
    Preprocess. labels: "folder", "stem" or a file, for accuracy. solver, weight_solver: how ranges are found. include, exclude:
    shell patterns over node names, or operator types. bias: corrected for the mean error of the rounded weights, or
    kept. plan: start from these decisions instead of calibrating.
    evaluate=False skips the comparison; that the result loads and keeps its target's rules is always checked.

    Raises:
        ModelError, DataError, RecipeError, PlanError: as their names say, with what was found, what was expected, and what to do.

    Example:
        >>> import zeropoint as zp
        >>> from zeropoint.demo import load_digits
        >>> digits = load_digits()
        >>> result = zp.quantize(digits.model, data=digits.calibration, target="onnxruntime", evaluate=False)
        >>> result.evidence.size_ratio < 0.4
        True
    """
    goal = target if isinstance(target, Target) else get_target(target)
    recipe = Recipe(
        solver=solver,
        weight_solver=weight_solver,
        samples=samples,
        batch_size=batch_size,
        include=tuple(include),
        exclude=tuple(exclude),
        bias=bias,
        weight_storage=weight_storage,
        seed=seed,
    )
    network = load(model, min_opset=goal.min_opset)
    notes = prepare(network)
    given = plan if isinstance(plan, Plan | None) else load_plan(plan)
    if data is None and eval_data is None and (given is None or evaluate):
        raise DataError("data: found none, expected samples of what the network sees in use; only data='random' makes it random numbers")
    images = load_preprocess(preprocess) if isinstance(preprocess, str | Path) else preprocess
    request = _Request(data, eval_data, labels, images, recipe, input_infos(network))
    chosen = _choose_samples(request, evaluate=evaluate) if data is not None or eval_data is not None else None
    if given is None:
        given = _calibrated_plan(network, goal, recipe, chosen, progress=progress)
        given = replace(given, provenance=replace(given.provenance, model_sha256=fingerprint(model)))
    elif given.target != goal.name:
        raise PlanError(
            f"plan: found target {given.target!r}, expected {goal.name!r}; quantize for that target or make a plan for this one"
        )
    quantized = materialize(network, given, weight_storage=recipe.weight_storage)
    evidence = _measure(load(model), quantized, given, goal, chosen=chosen if evaluate else None, prepared=network, progress=progress)
    return Result(model=quantized, plan=given, evidence=evidence, notes=(*notes, *given.notes, *_evidence_notes(evidence, goal, chosen)))


@dataclass(frozen=True, slots=True)
class _Request:
    data: object
    eval_data: object
    labels: object
    preprocess: Preprocess | None
    recipe: Recipe
    inputs: tuple[InputInfo, ...]

    def open(self, data: object, limit: int) -> Samples:
        return open_data(data, self.inputs, preprocess=self.preprocess, limit=limit, seed=self.recipe.seed)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The samples of one run, and the labels of those that judge."""

    calibration: Samples | None
    evaluation: Samples | None
    labels: Labels | None
    notes: tuple[Note, ...] = ()


def _choose_samples(request: _Request, *, evaluate: bool) -> _Chosen:
    wanted = request.recipe.samples
    if request.eval_data is not None:
        evaluation = split(request.open(request.eval_data, MOST_EVALUATED), MOST_EVALUATED, 1)[0]
        calibration = split(request.open(request.data, wanted), wanted, 1)[0] if request.data is not None else None
    elif evaluate:
        found = request.open(request.data, wanted + MOST_EVALUATED)
        calibration, evaluation = split(found, min(wanted, max(1, len(found) - len(found) // HELD_OUT_SHARE)), MOST_EVALUATED)
    else:
        calibration, evaluation = split(request.open(request.data, wanted), wanted, 1)[0], None
    labels = None
    if request.labels is not None and evaluation is not None and len(evaluation):
        labels = load_labels(request.labels, fed(evaluation))
    notes = [
        Note(stage, f"on {NOT_REAL}: a trial, which says nothing of how the network does in use")
        for stage, part in (("calibration", calibration), ("evaluation", evaluation))
        if part is not None and NOT_REAL in part.description
    ]
    if calibration is not None and len(calibration) < wanted:
        notes.append(Note("calibration", f"{len(calibration)} samples, where {wanted} were asked for"))
    if evaluation is not None and len(evaluation) == 0:
        notes.append(Note("evaluation", "no samples were left to judge by; give more, or evaluation data of their own"))
        evaluation = None
    return _Chosen(calibration, evaluation, labels, tuple(notes))


def _calibrated_plan(network: Model, target: Target, recipe: Recipe, chosen: _Chosen | None, *, progress: Progress) -> Plan:
    if chosen is None or chosen.calibration is None:
        raise DataError("data: found none to calibrate with, expected samples of what the network sees in use, beside those of eval_data")
    notes: list[Note] = []
    first = next(iter(feeds(chosen.calibration, recipe.batch_size, on_note=notes.append)))
    facts = capture_facts(network, first)
    placement = find_sites(network, facts, target, include=recipe.include, exclude=recipe.exclude)
    statistics = calibrate(
        network,
        [site.tensor for site in placement.activations],
        feeds(chosen.calibration, recipe.batch_size, on_note=notes.append),
        channel_axes=channel_axes(network, placement, facts) if recipe.bias == "corrected" else {},
        total=feed_count(chosen.calibration, recipe.batch_size),
        progress=progress,
    )
    plan = make_plan(network, placement, statistics.tensors, target, recipe)
    corrections, unmended = correct_biases(network, plan, statistics.channels)
    provenance = Provenance(
        zeropoint=version("zeropoint"),
        onnxruntime=version("onnxruntime"),
        calibration_data=chosen.calibration.description,
        batch_size=recipe.batch_size,
        solver=recipe.solver,
        weight_solver=recipe.weight_solver,
        bias=recipe.bias,
        seed=recipe.seed,
    )
    return replace(plan, corrections=corrections, notes=(*plan.notes, *unmended, *notes), provenance=provenance)


def _measure(
    original: Model, quantized: Model, plan: Plan, target: Target, *, chosen: _Chosen | None, prepared: Model, progress: Progress
) -> Evidence:
    float_session, session = open_session(original), open_session(quantized)
    notes: list[Note] = []
    fidelity: tuple[OutputFidelity, ...] = ()
    latency = None
    if chosen is not None and chosen.evaluation is not None:
        samples = chosen.evaluation
        fidelity = compare_outputs(float_session.run, session.run, _counted(samples, notes, progress), labels=chosen.labels)
        notes += _unjudged(float_session.outputs, fidelity, has_labels=chosen.labels is not None)
        latency = _latency(original, quantized, target, next(iter(feeds(samples, 1, on_note=notes.append))))
    return Evidence(
        float_bytes=serialized_size(original),
        quantized_bytes=serialized_size(quantized),
        coverage=coverage(prepared, plan, target),
        fidelity=fidelity,
        latency=latency,
        evaluation_data=chosen.evaluation.description if chosen is not None and chosen.evaluation is not None else "",
        findings=lint_model(quantized, target),
        notes=tuple(notes),
    )


def _counted(samples: Samples, notes: list[Note], progress: Progress) -> Iterator[Feed]:
    for done, feed in enumerate(feeds(samples, 1, on_note=notes.append), start=1):
        yield feed
        progress("evaluating", done, feed_count(samples, 1))


def _unjudged(outputs: Sequence[str], fidelity: Sequence[OutputFidelity], *, has_labels: bool) -> list[Note]:
    judged = {output.output for output in fidelity}
    notes = [Note(name, "this output was not compared: it is no tensor of numbers") for name in outputs if name not in judged]
    notes += [
        Note(output.output, f"{output.incomparable} samples count as infinitely wrong: another shape than in float, NaN or infinity")
        for output in fidelity
        if output.incomparable
    ]
    if has_labels and all(output.accuracy is None for output in fidelity):
        notes.append(Note("labels", "accuracy was not measured: no output has the shape of logits, (samples, classes)"))
    return notes


def _latency(original: Model, quantized: Model, target: Target, feed: Feed) -> Latency | None:
    """Latency on the target's runtime, where that is on this machine and the machine is of the target's kind."""
    if target.machines and platform.machine() not in target.machines:
        return None
    sessions = [open_runtime(target.runtime, serialize(model)) for model in (original, quantized)]
    if sessions[0] is None or sessions[1] is None:
        return None
    float_run, quantized_run = sessions[0].run, sessions[1].run
    return compare_latency(lambda: float_run(feed), lambda: quantized_run(feed), runtime=target.runtime)


def _evidence_notes(evidence: Evidence, target: Target, chosen: _Chosen | None) -> list[Note]:
    notes = [*(chosen.notes if chosen is not None else ()), *evidence.notes]
    if evidence.fidelity and evidence.latency is None:
        notes.append(Note("latency", f"not measured: {target.runs_on} is not here"))
    notes += [Note(finding.node, f"breaks {finding.rule}: {finding.message}; {finding.remedy}") for finding in evidence.findings]
    return notes


def lint(model: Source, *, target: str | Target) -> tuple[Finding, ...]:
    """Return where a model, ours or another tool's, breaks the rules of a target; nothing when it keeps them all.

    Raises:
        ModelError: the model cannot be read.
        RecipeError: there is no such target.
    """
    return lint_model(load(model), target if isinstance(target, Target) else get_target(target))


def solve_range(array: npt.ArrayLike, *, solver: str = "auto", format: str = "int8", symmetric: bool = True) -> Range:
    """Return the range that `solver` finds for the values of an array of any shape.

    Raises:
        RecipeError: there is no such solver or format.
        DataError: the array holds no finite number.

    Example:
        >>> solve_range([-0.61, -0.52, 1.62], solver="minmax", symmetric=False).hi
        1.6200000047683716
    """
    return solve(observe(array), Spec(get_format(format), symmetric), solver).range
