"""What `quantize` hands over: the model, the plan behind it, and the evidence for it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from zeropoint.data.choice import Choice
from zeropoint.evaluate.evidence import Evidence
from zeropoint.evaluate.measure import Candidate, Material, measure
from zeropoint.graph.model import Model
from zeropoint.graph.store import save, write_text
from zeropoint.notes import Note, counted
from zeropoint.plan import Plan, to_json
from zeropoint.progress import Progress, silent
from zeropoint.recipe import Recipe
from zeropoint.report.page import write
from zeropoint.report.quantization import quantization_page
from zeropoint.runtime.onnxruntime import Session
from zeropoint.statistics.tensor import TensorStatistic
from zeropoint.summary import Row, step_text, summary_rows, verdict
from zeropoint.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """A quantized model with its plan and evidence; `model` is an onnx_ir model, `notes` what stayed in float and what to know."""

    model: Model = field(repr=False)
    plan: Plan = field(repr=False)
    target: Target = field(repr=False)
    evidence: Evidence
    notes: tuple[Note, ...]
    material: Material | None = field(default=None, repr=False)

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

    def report(self, path: str | Path, *, samples: int = 8, command: str = "", progress: Progress = silent) -> Path:
        """Write what was done and measured as one HTML file, which needs no network, whole or not at all; return its path.

        `samples` of those that judge are run once more, to tell how near each layer is to the float network. command: what was typed to
        make the result, which the report shows.

        Raises:
            RecipeError: a library that draws it is not installed: pip install "zeropoint[report]".
            DataError: a sample cannot be read any more.
            OutputError: the file cannot be written.
        """
        return write(quantization_page(self, self.material, samples=samples, command=command, progress=progress), path)

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


def measured(
    candidate: Candidate,
    target: Target,
    recipe: Recipe,
    statistics: Mapping[str, TensorStatistic],
    choice: Choice,
    *,
    notes: Sequence[Note],
    progress: Progress,
) -> Result:
    """Return the result that a quantized network is, measured on the samples that were chosen to judge by.

    statistics: what was seen in the tensors that the plan is for. notes: on what came before.

    Raises:
        ModelError: a network does not load or run.
        DataError: a sample cannot be read or does not fit, or there are not as many labels as samples.
    """
    evidence = measure(candidate, target, choice.evaluation, labels=choice.labels, progress=progress)
    told = (*notes, *candidate.plan.notes, *choice.notes, *evidence.notes)
    material = Material(candidate=candidate, recipe=recipe, statistics=statistics, judges=choice.evaluation, labels=choice.labels)
    return Result(model=candidate.quantized, plan=candidate.plan, target=target, evidence=evidence, notes=told, material=material)


def _check_loads(path: Path) -> None:
    """Load the file with all of ONNX Runtime's fusions, which refuse what its plain operators take."""
    Session(path, threads=1, single_run=True)


def plan_path(model: Path) -> Path:
    """Return where the plan of the model at `model` is written: beside it."""
    return model.with_name(f"{model.name}.plan.json")


def report_path(model: Path) -> Path:
    """Return where the report of the model at `model` is written: beside it."""
    return model.with_name(f"{model.name}.report.html")


def _cells(row: Row) -> tuple[str, str, str, str]:
    return row.what, row.float_value, row.quantized_value, row.comparison
