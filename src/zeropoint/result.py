"""What `quantize` hands over: the model, the plan behind it, and the evidence for it."""

from __future__ import annotations

import math
import shlex
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from zeropoint.data import NOT_REAL
from zeropoint.evaluate.evidence import Evidence
from zeropoint.evaluate.fidelity import OutputFidelity
from zeropoint.graph.model import Model
from zeropoint.graph.store import save, write_text
from zeropoint.notes import Note, counted
from zeropoint.plan import Plan, Step, to_json
from zeropoint.runtime.onnxruntime import Session
from zeropoint.targets import Target

KILOBYTE, MEGABYTE = 1e3, 1e6

LOWEST_FIDELITY_DB = 10.0  # where the error is 32 % of the signal


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the summary: what, for the float network, for the quantized one, and how they compare."""

    what: str
    float_value: str
    quantized_value: str
    comparison: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """A quantized model with its plan and evidence; `model` is an onnx_ir model, `notes` what stayed in float and what to know."""

    model: Model = field(repr=False)
    plan: Plan = field(repr=False)
    target: Target = field(repr=False)
    evidence: Evidence
    notes: tuple[Note, ...]

    def save(self, path: str | Path) -> tuple[Path, Path]:
        """Write the model to `path` and the plan to `path`.plan.json, each whole or not at all; return both paths.

        The file is loaded in ONNX Runtime before it takes its name.

        Raises:
            OutputError: a file cannot be written.
        """
        path, texts = Path(path), list[str]()
        with ThreadPoolExecutor(1) as worker:

            def check(written: Path) -> None:
                loading = worker.submit(_check_loads, written)
                texts.append(to_json(self.plan))  # which takes as long, and ONNX Runtime lets go of Python's lock
                loading.result()

            save(self.model, path, check=check)
        write_text(plan_path(path), texts[0])
        return path, plan_path(path)

    @property
    def summary(self) -> str:
        """The verdict, a table of what it cost and what it brought, and what each refinement did; plain text."""
        rows = [Row("", "float", "quantized", ""), *summary_rows(self.evidence)]
        widths = [max(len(cell) for cell in column) for column in zip(*map(_cells, rows), strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(_cells(row), widths, strict=True)).rstrip() for row in rows]
        steps = [*map(step_text, self.plan.steps), *([""] if self.plan.steps else [])]
        notes = f"{counted(len(self.notes), 'note')} on what stayed in float and what to know: see .notes"
        return "\n".join([verdict(self), "", *lines, "", *steps, notes])

    def next_command(self, path: str | Path) -> str:
        """Return the shell command that runs the file at `path` on the target."""
        model, stem = (shlex.quote(str(name)) for name in (path, Path(path).with_suffix("")))
        return self.target.next_command.format(model=model, stem=stem)


def _check_loads(path: Path) -> None:
    """Load the file with all of ONNX Runtime's fusions, which refuse what its plain operators take."""
    Session(path, threads=1, single_run=True)


def plan_path(model: Path) -> Path:
    """Return where the plan of the model at `model` is written: beside it."""
    return model.with_name(f"{model.name}.plan.json")


def verdict(result: Result) -> str:
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


def bad_news(result: Result) -> list[str]:
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
            _size_text(evidence.float_bytes),
            _size_text(evidence.quantized_bytes),
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
    return rows


def _size_text(size: int) -> str:
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


def _cells(row: Row) -> tuple[str, str, str, str]:
    return row.what, row.float_value, row.quantized_value, row.comparison
