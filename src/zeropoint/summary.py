"""A result in words: the verdict, the bad news, and the lines of its table, for the terminal and for the report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from zeropoint.data import NOT_REAL
from zeropoint.evaluate.evidence import Evidence
from zeropoint.evaluate.fidelity import OutputFidelity
from zeropoint.notes import Note, counted
from zeropoint.plan import Plan, Step

KILOBYTE, MEGABYTE = 1e3, 1e6
LOWEST_FIDELITY_DB = 10.0  # where the error is 32 % of the signal


class Judged(Protocol):
    """What was decided, what was measured of it, and what to know."""

    @property
    def plan(self) -> Plan:
        """The decisions."""

    @property
    def evidence(self) -> Evidence:
        """What they cost and brought."""

    @property
    def notes(self) -> tuple[Note, ...]:
        """What stayed in float and what to know."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the summary: what, for the float network, for the quantized one, and how they compare."""

    what: str
    float_value: str
    quantized_value: str
    comparison: str


def verdict(result: Judged) -> str:
    """Return the result in one sentence, with the bad news first where there is any."""
    evidence = result.evidence
    parts = bad_news(result)
    if evidence.latency is not None and evidence.latency.ratio < 1:
        parts.append(f"{1 / evidence.latency.ratio:.1f}x faster on {evidence.latency.runtime}")
    parts.append(f"{1 / evidence.size_ratio:.1f}x smaller" if evidence.size_ratio < 1 else f"{evidence.size_ratio:.2f} times the size")
    if evidence.fidelity:
        worst = min(evidence.fidelity, key=lambda output: output.sqnr_db)
        parts.append("no error" if worst.sqnr_db == math.inf else f"{worst.sqnr_db:.1f} dB to the float network")
        if worst.agreement is not None:
            parts[-1] += f", {worst.agreement:.1%} agreement"
    return f"{result.plan.target}: " + "; ".join(parts)


def step_text(step: Step) -> str:
    """Return in one line what a refinement brought."""
    judges = f"on {counted(step.samples, 'calibration sample')} set aside"
    return f"{step.name}: {step.before_db:.1f} -> {step.after_db:.1f} dB {judges}, {'kept' if step.kept else 'not kept'}"


def bad_news(result: Judged) -> list[str]:
    """Return what a user must not miss before using the model; empty where all is well."""
    evidence, target = result.evidence, result.plan.target
    news = []
    if evidence.findings:
        news.append(f"BREAKS RULES of {target} in {counted(len(evidence.findings), 'place')}")
    in_float = any(note.where == "weights" and note.kind == "warning" for note in result.notes)
    if in_float:
        news.append(f"NO INTEGER KERNEL of {target} takes these weights")
    if not evidence.coverage.quantized and not in_float:
        found = f"none of {evidence.coverage.candidates} operators" if evidence.coverage.candidates else "no operator found"
        news.append(f"NOTHING QUANTIZED: {found} that {target} could compute in integers")
    if NOT_REAL in result.plan.provenance.calibration_data + evidence.evaluation_data:
        news.append(f"ONLY A TRIAL: on {NOT_REAL}")
    if any(note.where == "plan" and note.kind == "warning" for note in result.notes):
        news.append("PLAN OF ANOTHER FILE")
    if any(note.where == "held-out" for note in result.notes):
        news.append("JUDGED BY THE SAMPLES THAT CALIBRATED")
    news += [
        f"{counted(f.incomparable, 'sample')} of {f.output} CANNOT BE COMPARED with float" for f in evidence.fidelity if f.incomparable
    ]
    if any(f.sqnr_db < LOWEST_FIDELITY_DB and not f.incomparable for f in evidence.fidelity):
        news.append("FAR FROM FLOAT: the error is a third of the output or more")
    if evidence.latency is not None and evidence.latency.ratio >= 1:
        news.append(f"SLOWER than float on {evidence.latency.runtime}: {evidence.latency.ratio:.2f} times its latency")
    return news


def summary_rows(evidence: Evidence) -> list[Row]:
    """Return the lines of the summary table; what was not measured has none."""
    rows = [
        Row(
            "size",
            size_text(evidence.float_bytes),
            size_text(evidence.quantized_bytes),
            f"{evidence.size_ratio:.2f} of float",
        ),
        Row("operators in integers", "", str(evidence.coverage.quantized), f"of {evidence.coverage.candidates} that could be"),
    ]
    for output in evidence.fidelity:
        rows += _fidelity_rows(output, several=len(evidence.fidelity) > 1)
    if evidence.latency is not None:
        latency = evidence.latency
        rows.append(
            Row(
                f"latency, {latency.runtime}",
                f"{latency.float_ms:.2f} ms",
                f"{latency.quantized_ms:.2f} ms",
                f"{latency.ratio:.2f} of float",
            )
        )
        if latency.float_joules is not None and latency.quantized_joules is not None:
            before, after = latency.float_joules, latency.quantized_joules
            rows.append(
                Row("energy for one run", joules_text(before), joules_text(after), f"{after / before:.2f} of float" if before else "")
            )
    return rows


def joules_text(joules: float) -> str:
    """Write an energy.

    Example:
        >>> joules_text(0.01234), joules_text(2.5)
        ('12.3 mJ', '2.50 J')
    """
    return f"{joules:.2f} J" if joules >= 1 else f"{1e3 * joules:.3g} mJ"


def size_text(size: int) -> str:
    """Return a number of bytes in MB or kB.

    Example:
        >>> size_text(134_000), size_text(990)
        ('0.13 MB', '0.99 kB')
    """
    return f"{size / MEGABYTE:.2f} MB" if size >= 0.1 * MEGABYTE else f"{size / KILOBYTE:.2f} kB"


def _fidelity_rows(output: OutputFidelity, *, several: bool) -> list[Row]:
    of = f" of {output.output}" if several else ""
    rows = [
        Row(f"SQNR{of}", "", f"{output.sqnr_db:.1f} dB", f"median {output.sqnr_median_db:.1f}, worst sample {output.sqnr_worst_db:.1f}"),
        Row(f"cosine{of}", "", f"{output.cosine:.5f}", ""),
    ]
    if output.agreement is not None:
        rows.append(Row(f"top-1 agreement{of}", "", f"{output.agreement:.2%}", ""))
    if output.accuracy is not None and output.float_accuracy is not None:
        change = output.accuracy - output.float_accuracy
        rows.append(Row(f"accuracy{of}", f"{output.float_accuracy:.2%}", f"{output.accuracy:.2%}", f"{100 * change:+.2f} points"))
    return rows
