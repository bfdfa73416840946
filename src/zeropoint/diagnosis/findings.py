"""What this machine can do for quantized networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from zeropoint.diagnosis.advice import Advice, advise
from zeropoint.diagnosis.survey import DISTRIBUTIONS, EXTRAS, Survey
from zeropoint.diagnosis.traps import FoundTrap, find_traps
from zeropoint.diagnosis.trials import Trial
from zeropoint.notes import Note
from zeropoint.runtime.cpu import Cpu
from zeropoint.runtime.gpu import Gpus


@dataclass(frozen=True, slots=True)
class Runtime:
    """One runtime: the distribution and version that are installed, "" where none is, and what it can run on, () where that is not told."""

    name: str
    distribution: str
    version: str
    runs_on: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Extra:
    """One of zeropoint's extras: what of it is missing, and what it adds."""

    name: str
    missing: tuple[str, ...]
    adds: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What a machine can do for quantized networks.

    cores: that this process may use. memory in bytes. recommendation: the first advice's sentence. instruction: the processor's best for
    products of bytes, "" for none. trials: what was timed, () where nothing was. native: whether zeropoint's own loops are compiled.
    """

    zeropoint: str
    python: str
    system: str
    cpu: Cpu
    instruction: str
    cores: int
    memory_bytes: int
    free_bytes: int
    gpus: Gpus
    runtimes: tuple[Runtime, ...]
    trials: tuple[Trial, ...]
    advice: tuple[Advice, ...]
    recommendation: str
    traps: tuple[FoundTrap, ...]
    native: bool
    extras: tuple[Extra, ...]
    notes: tuple[Note, ...]


def diagnose(found: Survey, trials: Sequence[Trial], notes: Sequence[Note] = ()) -> Diagnosis:
    """Return what follows from what was found, and from what was timed there."""
    advice = advise(found, trials)
    return Diagnosis(
        zeropoint=found.zeropoint,
        python=found.python,
        system=found.system,
        cpu=found.cpu,
        instruction=found.cpu.integer_dot_product,
        cores=found.cores,
        memory_bytes=found.memory_bytes,
        free_bytes=found.free_bytes,
        gpus=found.gpus,
        runtimes=tuple(_runtimes(found)),
        trials=tuple(trials),
        advice=advice,
        recommendation=advice[0].sentence if advice else "",
        traps=find_traps(found),
        native=found.native,
        extras=tuple(
            Extra(name, tuple(part for part in parts if part not in found.packages), adds) for name, (parts, adds) in EXTRAS.items()
        ),
        notes=(*found.notes, *notes),
    )


def _runtimes(found: Survey) -> Iterator[Runtime]:
    for name, distributions in DISTRIBUTIONS.items():
        installed = [distribution for distribution in distributions if distribution in found.packages]
        for distribution in installed:
            yield Runtime(name, distribution, found.packages[distribution], found.runs_on.get(name, ()))
        if not installed:
            yield Runtime(name, "", "", ())
