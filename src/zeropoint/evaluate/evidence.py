"""Everything measured on a finished model, with how it was measured."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass

from zeropoint.evaluate.fidelity import OutputFidelity
from zeropoint.evaluate.latency import Latency
from zeropoint.graph.model import Model
from zeropoint.graph.operators import is_default_domain
from zeropoint.notes import Note
from zeropoint.plan import Plan
from zeropoint.rules import Finding
from zeropoint.targets import Role, Target

COMPUTING = frozenset(Role) - {Role.MOVES, Role.FUSES}


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many operators that the target could compute in integers do; the rest are in the plan's notes."""

    quantized: int
    candidates: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was measured, on what: file sizes in bytes, and None for what was not measured."""

    float_bytes: int
    quantized_bytes: int
    coverage: Coverage
    fidelity: tuple[OutputFidelity, ...] = ()
    latency: Latency | None = None
    evaluation_data: str = ""
    findings: tuple[Finding, ...] = ()
    notes: tuple[Note, ...] = ()

    @property
    def size_ratio(self) -> float:
        """Quantized size over float size."""
        return self.quantized_bytes / self.float_bytes


def coverage(model: Model, plan: Plan, target: Target, *, floats: Set[str] = frozenset()) -> Coverage:
    """Count the operators of the prepared float `model` that `plan` computes in integers, and those that it says could be but are not.

    floats: operators that read codes which no integer kernel takes; an Add that a convolution takes in is computed as that is.
    """
    reading = {reader.node for entry in plan.entries for reader in entry.readers}
    counted = count_coverage(model, target, reading=reading, notes=plan.notes)
    left = {note.where for note in plan.notes if note.kind == "float"}
    taken_in = {
        str(node.name)
        for node in model.graph
        if target.operators.get(node.op_type) is Role.RESIDUAL
        and any(str(producer.name) in floats for value in node.inputs if value is not None and (producer := value.producer()) is not None)
    }
    return Coverage(counted.quantized - len(((floats | taken_in) & reading) - left), counted.candidates)


def count_coverage(model: Model, target: Target, *, reading: Set[str], notes: Iterable[Note]) -> Coverage:
    """Count the operators that `target` computes: those called one of `reading`, which read codes, less what `notes` leave in float."""
    computing = {str(node.name) for node in model.graph if is_default_domain(node) and target.operators.get(node.op_type) in COMPUTING}
    left = {note.where for note in notes if note.kind == "float"}
    return Coverage(len((reading - left) & computing), len((reading | left) & computing))
