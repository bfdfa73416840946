"""Judge a quantized network before it is handed over: on samples, by its target's rules, and on its target's runtime."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from zeropoint.data import Feed, Samples, feed_count, feeds
from zeropoint.errors import ModelError
from zeropoint.evaluate.evidence import Evidence, coverage
from zeropoint.evaluate.fidelity import Labels, OutputFidelity, compare_outputs
from zeropoint.evaluate.float_weights import float_operators, note_on_float_operators
from zeropoint.evaluate.latency import Latency, compare_latency
from zeropoint.graph.load import Source, given_size, load
from zeropoint.graph.model import Model
from zeropoint.graph.store import LARGEST_MESSAGE, open_session, serialize, serialized_size, weight_bytes
from zeropoint.notes import Note, counted
from zeropoint.plan import Plan
from zeropoint.progress import Progress
from zeropoint.recipe import Recipe
from zeropoint.rules import lint_model
from zeropoint.runtime import open_runtime
from zeropoint.runtime.energy import open_meter
from zeropoint.statistics.tensor import TensorStatistic
from zeropoint.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A network on its way: as it was given, which is read again where it is to be run, prepared, and quantized under `plan`."""

    original: Source
    prepared: Model
    quantized: Model
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Material:
    """What a report draws on beside the evidence: the networks, what calibration saw by tensor, and the samples that judge.

    recipe: what was asked for. statistics: none where a plan was given. judges, labels: None where the networks were not compared.
    """

    candidate: Candidate
    recipe: Recipe
    statistics: Mapping[str, TensorStatistic]
    judges: Samples | None
    labels: Labels | None


@dataclass(frozen=True, slots=True)
class _Judgement:
    """What the samples told."""

    fidelity: tuple[OutputFidelity, ...]
    latency: Latency | None
    notes: tuple[Note, ...]


LOWEST_ACCURACY, ENOUGH_TO_TELL = 0.02, 50  # of the float network, and samples: fewer may all be of hard classes

NOT_JUDGED = _Judgement((), None, ())


def measure(candidate: Candidate, target: Target, judges: Samples | None, *, labels: Labels | None, progress: Progress) -> Evidence:
    """Return what the quantized network costs and brings; without `judges` only its size, coverage and rules.

    Raises:
        ModelError: a network does not load or run.
        DataError: a sample cannot be read or does not fit, or there are not as many labels as samples.
    """
    quantized = candidate.quantized
    judged = _judge(candidate, target, judges, labels=labels, progress=progress) if judges is not None else NOT_JUDGED
    notes = list(judged.notes)
    findings = lint_model(quantized, target).findings
    floats = float_operators(quantized)
    notes += note_on_float_operators(floats, target)
    notes += [Note(finding.node, f"breaks {finding.rule}: {finding.message}; {finding.remedy}") for finding in findings]
    return Evidence(
        float_bytes=given_size(candidate.original),
        quantized_bytes=serialized_size(quantized),
        coverage=coverage(candidate.prepared, candidate.plan, target, floats=floats.keys()),
        fidelity=judged.fidelity,
        latency=judged.latency,
        evaluation_data=judges.description if judges is not None else "",
        findings=findings,
        notes=tuple(notes),
    )


def _judge(candidate: Candidate, target: Target, judges: Samples, *, labels: Labels | None, progress: Progress) -> _Judgement:
    original, quantized = load(candidate.original), candidate.quantized
    float_session, session = open_session(original), open_session(quantized)
    notes: list[Note] = []
    fidelity = compare_outputs(float_session.run, session.run, _counted(judges, notes, progress), labels=labels)
    notes += _unjudged(float_session.outputs, fidelity, has_labels=labels is not None)
    timed = _latency(original, quantized, target, next(iter(feeds(judges, 1, on_note=notes.append))))
    notes += [Note("latency", timed, kind="run")] if isinstance(timed, str) else []
    return _Judgement(fidelity, timed if isinstance(timed, Latency) else None, tuple(notes))


def _counted(samples: Samples, notes: list[Note], progress: Progress) -> Iterator[Feed]:
    for done, feed in enumerate(feeds(samples, 1, on_note=notes.append), start=1):
        yield feed
        progress("evaluating", done, feed_count(samples, 1))


def _unjudged(outputs: Sequence[str], fidelity: Sequence[OutputFidelity], *, has_labels: bool) -> list[Note]:
    judged = {output.output for output in fidelity}
    notes = [Note(name, "this output was not compared: it is no tensor of numbers") for name in outputs if name not in judged]
    notes += [
        Note(output.output, f"infinitely wrong in {counted(output.incomparable, 'sample')}: another shape than in float, NaN or infinity")
        for output in fidelity
        if output.incomparable
    ]
    notes += [Note("labels", _unlikely(output), kind="warning") for output in fidelity if _is_unlikely(output)]
    if has_labels and all(output.accuracy is None for output in fidelity):
        notes.append(
            Note(
                "labels",
                "accuracy was not measured: no output has the shape of logits, (samples, classes), with a class for each label",
                kind="run",
            )
        )
    return notes


def _is_unlikely(output: OutputFidelity) -> bool:
    enough = output.classes is not None and len(output.classes) >= ENOUGH_TO_TELL
    return enough and output.float_accuracy is not None and output.float_accuracy < LOWEST_ACCURACY


def _unlikely(output: OutputFidelity) -> str:
    found = f"the float network is right in {output.float_accuracy:.1%} of the samples"
    return f"{found}: the labels, their order or the preprocessing are not those that it was trained with"


def _latency(original: Model, quantized: Model, target: Target, feed: Feed) -> Latency | str:
    """Latency on the target's runtime, or why it was not measured.

    Raises:
        ModelError: the runtime runs the float network, but not the quantized one.
    """
    if target.machines and platform.machine() not in target.machines:
        return f"not measured: {target.runs_on} is not here"
    if weight_bytes(original) > LARGEST_MESSAGE:
        return f"not measured: the float network's weights take more than {LARGEST_MESSAGE / 1e9:.1f} GB"
    try:
        float_session = open_runtime(target.runtime, serialize(original))
    except ModelError as error:
        return f"not measured: {target.runtime} does not run the float network either: {error}"
    session = open_runtime(target.runtime, serialize(quantized))
    if float_session is None or session is None:
        return f"not measured: {target.runs_on} is not here"
    float_run, quantized_run = float_session.run, session.run
    meter = open_meter()
    return compare_latency(
        lambda: float_run(feed),
        lambda: quantized_run(feed),
        runtime=target.runtime,
        meter=None if isinstance(meter, str) else meter,
    )
