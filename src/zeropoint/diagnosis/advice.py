"""From what was found and timed to one sentence for each runtime: what to quantize for, and how much faster that is here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from zeropoint.diagnosis.survey import Survey
from zeropoint.diagnosis.trials import Trial
from zeropoint.runtime.cpu import SIGNED_BY_SIGNED, UNSIGNED_BY_SIGNED, Cpu
from zeropoint.targets import TARGETS, Target

WORTH_IT = 0.95  # of float's latency; nearer to it is nothing that a user would notice
CLEARLY = 0.9  # another target than the processor's own has to be so much faster to be named instead
NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "tensorrt": "TensorRT"}


@dataclass(frozen=True, slots=True)
class Advice:
    """What to quantize for, for one runtime: `ratio` is the mean of quantized / float latency, None where it was not timed here."""

    runtime: str
    target: str
    faster: bool | None
    ratio: float | None
    sentence: str


def advise(found: Survey, trials: Sequence[Trial]) -> tuple[Advice, ...]:
    """Return an advice for each runtime that is here: ONNX Runtime first, which always is."""
    advices = [_for_runtime(runtime, found, trials) for runtime in found.runs_on if _candidates(runtime, found.cpu)]
    if found.gpus.found:
        advices.append(_for_tensorrt(found))
    return tuple(advices)


def _candidates(runtime: str, cpu: Cpu) -> list[Target]:
    """The targets of a runtime, those that are made for this processor first."""
    of_runtime = [target for target in TARGETS.values() if target.runtime == runtime]
    return sorted(of_runtime, key=lambda target: not _is_own(target, cpu))


def _is_own(target: Target, cpu: Cpu) -> bool:
    return not target.machines or cpu.architecture.lower() in {machine.lower() for machine in target.machines}


def _for_runtime(runtime: str, found: Survey, trials: Sequence[Trial]) -> Advice:
    own, *others = _candidates(runtime, found.cpu)
    ratios = [(ratio, target) for target in (own, *others) if (ratio := _mean(trials, target)) is not None]
    name = NAMES[runtime]
    if not ratios:
        return Advice(runtime, own.name, None, None, f"{_head(name, own)}{_reason(own, found.cpu)}; it was not timed here.")
    ratio, target = ratios[0]
    for other_ratio, other in ratios[1:]:
        if other_ratio < CLEARLY * ratio:
            ratio, target = other_ratio, other
    if ratio >= WORTH_IT:
        unchanged = f"{name}: nothing that was timed is faster than float here; --target {target.name} takes {_ratios(trials, target)}."
        return Advice(runtime, target.name, False, ratio, unchanged)
    rest = "".join(_beside(trials, other) for _, other in ratios if other is not target)
    sentence = f"{_head(name, target)}{_reason(target, found.cpu)}: {_ratios(trials, target)}{rest}."
    return Advice(runtime, target.name, True, ratio, sentence)


def _head(name: str, target: Target) -> str:
    return f"{name}: quantize with --target {target.name}, {_formats(target)}"


def _formats(target: Target) -> str:
    formats = dict.fromkeys((target.activation.format.name, target.nonnegative_activation.format.name))
    return f"{' and '.join(formats)} activations by {target.weight.format.name} weights"


def _reason(target: Target, cpu: Cpu) -> str:
    """The instruction that multiplies these formats, where the processor has one and the target is the runtime's for it."""
    instruction = cpu.integer_dot_product
    unsigned = target.activation.format.name == "uint8"
    fits = instruction in (UNSIGNED_BY_SIGNED if unsigned else SIGNED_BY_SIGNED)
    return f", which {instruction} multiplies" if instruction and fits else ""


def _beside(trials: Sequence[Trial], target: Target) -> str:
    return f" (with {target.activation.format.name} activations {_ratios(trials, target)})"


def _ratios(trials: Sequence[Trial], target: Target) -> str:
    """The measured ratios in words: "0.34 of float's time for convolutions and 0.32 for products"."""
    told = [f"{trial.ratio:.2f} for {trial.network}" for trial in trials if trial.target == target.name]
    return " and ".join(told).replace(" for", " of float's time for", 1)


def _mean(trials: Sequence[Trial], target: Target) -> float | None:
    """The geometric mean of what was measured for a target."""
    ratios = [trial.ratio for trial in trials if trial.target == target.name]
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None


def _for_tensorrt(found: Survey) -> Advice:
    target = TARGETS["tensorrt"]
    named = found.gpus.found[0].name
    sentence = f"{_head(NAMES['tensorrt'], target)}, for the {named}; it was not timed here: trtexec, the printed next command, times it."
    return Advice("tensorrt", target.name, None, None, sentence)
