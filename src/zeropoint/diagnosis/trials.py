"""Time small networks, quantized for each target whose runtime is here, against float: what this machine's kernels are worth."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from zeropoint.calibrate import Resources
from zeropoint.data import open_data
from zeropoint.decide import decide, observe_network
from zeropoint.errors import ZeropointError
from zeropoint.evaluate.latency import burst_medians, pace, repeats_for, take_turns
from zeropoint.graph.load import input_infos, load
from zeropoint.graph.materialize import materialize
from zeropoint.graph.prepare import prepare
from zeropoint.graph.store import serialize
from zeropoint.graph.trial_networks import TrialNetwork, trial_networks
from zeropoint.notes import Note
from zeropoint.progress import Progress, silent
from zeropoint.recipe import Recipe
from zeropoint.runtime import Session, is_installed, open_runtime
from zeropoint.targets import TARGETS, Target

RECIPE = Recipe(solver="minmax", weight_solver="minmax", bias="kept", effort="fast", samples=2)
ONE_CORE = 1  # with more, a busy machine would be timed instead of its kernels
ROUNDS = 6
BURST_SECONDS = 0.03
Run = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One network, quantized for one target, against the same network in float, on one core of this machine.

    activation, weight: the formats of the codes. milliseconds of a run; ratio is the median of the rounds' quantized / float, and
    quantized_ms what it makes of float_ms.
    """

    runtime: str
    target: str
    network: str
    activation: str
    weight: str
    float_ms: float
    quantized_ms: float
    ratio: float


def run_trials(
    targets: Iterable[Target] = tuple(TARGETS.values()), *, progress: Progress = silent
) -> tuple[tuple[Trial, ...], tuple[Note, ...]]:
    """Return the trials of all targets whose runtime is here, about two seconds for each runtime, and notes on what did not run."""
    by_runtime: dict[str, list[Target]] = {}
    for target in targets:
        if is_installed(target.runtime):
            by_runtime.setdefault(target.runtime, []).append(target)
    pairs = [(found, network) for found in by_runtime.values() for network in trial_networks()]
    trials: list[Trial] = []
    notes: list[Note] = []
    for done, (found, network) in enumerate(pairs):
        progress("timing kernels", done, len(pairs))
        try:
            trials += _compare(network, found)
        except ZeropointError as error:
            notes.append(Note(found[0].runtime, f"{network.name} were not timed: {error}", kind="run"))
    progress("timing kernels", len(pairs), len(pairs))
    return tuple(trials), tuple(notes)


def _compare(network: TrialNetwork, targets: list[Target]) -> list[Trial]:
    """Time `network` in float and for all `targets`, which are of one runtime that is here, in turns."""
    models = [network.model, *(quantized_for(network, target) for target in targets)]
    sessions = [_opened(targets[0].runtime, model) for model in models]
    runs: list[Run] = [partial(session.run, network.feed) for session in sessions]
    repeats = [repeats_for(pace(run), BURST_SECONDS) for run in runs]
    times = burst_medians(take_turns(runs, repeats=repeats, rounds=ROUNDS))  # (runs, rounds)
    float_ms = 1e3 * float(np.median(times[0]))
    ratios = [float(np.median(own / times[0])) for own in times[1:]]
    return [_trial(network, target, float_ms, ratio) for target, ratio in zip(targets, ratios, strict=True)]


def _opened(runtime: str, model: bytes) -> Session:
    session = open_runtime(runtime, model, threads=ONE_CORE)
    assert session is not None  # it is installed
    return session


def _trial(network: TrialNetwork, target: Target, float_ms: float, ratio: float) -> Trial:
    return Trial(
        runtime=target.runtime,
        target=target.name,
        network=network.name,
        activation=target.activation.format.name,
        weight=target.weight.format.name,
        float_ms=float_ms,
        quantized_ms=float_ms * ratio,
        ratio=ratio,
    )


def quantized_for(network: TrialNetwork, target: Target) -> bytes:
    """Return `network` as the file that `target` would get, from the simplest of calibrations."""
    model = load(network.model, min_opset=target.min_opset)
    prepare(model)
    samples = open_data(network.samples, input_infos(model))
    sha256 = partial(_hash, network.model)
    observed = observe_network(model, samples, sha256=sha256, target=target, recipe=RECIPE, resources=Resources())
    return serialize(materialize(model, decide(model, observed, target, RECIPE), weight_storage=RECIPE.weight_storage))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
