"""Look at this machine."""

from __future__ import annotations

from zeropoint.diagnosis.findings import Diagnosis, diagnose
from zeropoint.diagnosis.survey import survey
from zeropoint.diagnosis.trials import run_trials
from zeropoint.progress import Progress, silent


def doctor(*, measure: bool = True, progress: Progress = silent) -> Diagnosis:
    """Return what this machine can do for quantized networks: processor, runtimes, GPUs, which target is faster, and known traps.

    measure=False times nothing. Otherwise two small networks are quantized for each target whose runtime is here and run beside float on
    one core, about two seconds for each runtime; a network of your own gains more or less than they do.

    Example:
        >>> found = doctor(measure=False)
        >>> found.advice[0].runtime, found.trials
        ('onnxruntime', ())
    """
    trials, notes = run_trials(progress=progress) if measure else ((), ())
    return diagnose(survey(), trials, notes)
