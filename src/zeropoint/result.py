"""What `quantize` hands over: the model, the plan behind it, and the evidence for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from zeropoint.evaluate.evidence import Evidence
from zeropoint.evaluate.fidelity import OutputFidelity
from zeropoint.graph.model import Model
from zeropoint.graph.store import save, write_text
from zeropoint.notes import Note
from zeropoint.plan import Plan, to_json
from zeropoint.runtime.onnxruntime import Session
from zeropoint.targets import get_target

MEGABYTE = 1e6


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
    evidence: Evidence
    notes: tuple[Note, ...]

    def save(self, path: str | Path) -> tuple[Path, Path]:
        """Write the model to `path` and the plan to `path` less its suffix plus .plan.json, each whole or not at all; return both paths.

        The file is loaded in ONNX Runtime before it takes its name.

        Raises:
            OutputError: a file cannot be written.
        """
        path = Path(path)
        plan_path = path.with_name(f"{path.name}.plan.json")
        save(self.model, path, check=Session)
        write_text(plan_path, to_json(self.plan))
        return path, plan_path

    @property
    def summary(self) -> str:
        """The verdict, a table of what it cost and what it brought, and the next command; plain text."""
        rows = [Row("", "float", "quantized", ""), *summary_rows(self.evidence)]
        widths = [max(len(cell) for cell in column) for column in zip(*map(_cells, rows), strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(_cells(row), widths, strict=True)).rstrip() for row in rows]
        return "\n".join([verdict(self), "", *lines, "", f"{len(self.notes)} notes on what stayed in float: see .notes"])

    def next_command(self, path: str | Path) -> str:
        """Return the command that runs the file at `path` on the target."""
        return get_target(self.plan.target).next_command.format(model=path, stem=Path(path).with_suffix(""))


def verdict(result: Result) -> str:
    """Return the result in one sentence, with the bad news first where there is any."""
    evidence = result.evidence
    parts = [f"{1 / evidence.size_ratio:.1f}x smaller"]
    if evidence.latency is not None:
        ratio = evidence.latency.ratio
        faster = f"{1 / ratio:.1f}x faster on {evidence.latency.runtime}"
        parts.insert(0, faster if ratio < 1 else f"SLOWER than float on {evidence.latency.runtime}: {ratio:.2f} times its latency")
    if evidence.fidelity:
        worst = min(evidence.fidelity, key=lambda output: output.sqnr_db)
        parts.append(
            f"{worst.sqnr_db:.1f} dB to the float network" + (f", {worst.agreement:.1%} agreement" if worst.agreement is not None else "")
        )
    if evidence.findings:
        parts.insert(0, f"{len(evidence.findings)} rules of {result.plan.target} broken")
    return f"{result.plan.target}: " + "; ".join(parts)


def summary_rows(evidence: Evidence) -> list[Row]:
    """Return the lines of the summary table; what was not measured has none."""
    rows = [
        Row(
            "size",
            f"{evidence.float_bytes / MEGABYTE:.2f} MB",
            f"{evidence.quantized_bytes / MEGABYTE:.2f} MB",
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
