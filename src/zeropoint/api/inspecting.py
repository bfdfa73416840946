"""Look into a network, and check it against a target's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from zeropoint.errors import ModelError
from zeropoint.graph.load import Source, load, source_name
from zeropoint.inspection import Inspection, inspect_model, view_for_target
from zeropoint.notes import Note
from zeropoint.report.inspection import inspection_page
from zeropoint.report.page import check_report, write
from zeropoint.rules import Lint, lint_model
from zeropoint.targets import Target, get_target

NO_SHAPES: Mapping[str, Sequence[int]] = {}


def inspect(
    model: Source,
    *,
    target: str | Target | None = None,
    shapes: Mapping[str, Sequence[int]] = NO_SHAPES,
    report: str | Path | None = None,
) -> Inspection:
    """Return what is in a model, float or quantized, and for a `target` what `quantize` would do with it and what not, and why.

    What cannot be known without running the network, and that it does not run or is quantized already, is in the notes.

    shapes: for inputs with dynamic axes, which are taken as 1 otherwise; multiply-accumulates are counted for these. report: an HTML file
    to write, with every layer in a table that sorts; it takes the extra `report`.

    Raises:
        ModelError: the model cannot be read.
        RecipeError: there is no such target or input, a shape does not fit, or what draws the report is not installed.
        OutputError: the report cannot be written.

    Example:
        >>> from zeropoint.demo import load_digits
        >>> found = inspect(load_digits().model, target="tensorrt")
        >>> found.layers[1].node, found.layers[1].weight.dtype, found.target.coverage.quantized
        ('stage1.first.conv', 'float32', 8)
    """
    if report is not None:
        check_report(report)
    fixed = {name: tuple(shape) for name, shape in shapes.items()}
    found = inspect_model(load(model), shapes=fixed)
    if target is not None:
        found = _for_target(found, model, target if isinstance(target, Target) else get_target(target), fixed)
    if report is not None:
        write(inspection_page(found, name=Path(source_name(model)).name), report)
    return found


def _for_target(found: Inspection, model: Source, target: Target, shapes: Mapping[str, tuple[int, ...]]) -> Inspection:
    try:
        return replace(found, target=view_for_target(load(model, min_opset=target.min_opset), target, shapes=shapes))
    except ModelError as error:
        return replace(found, notes=(*found.notes, Note(target.name, f"what it would quantize is not known: {error}")))


def lint(model: Source, *, target: str | Target) -> Lint:
    """Return where a model, ours or another tool's, breaks the rules of a target, and whether it is quantized at all.

    Raises:
        ModelError: the model cannot be read.
        RecipeError: there is no such target.

    Example:
        >>> from zeropoint.demo import load_digits
        >>> lint(load_digits().model, target="tensorrt")
        Lint(findings=(), quantized=False)
    """
    return lint_model(load(model), target if isinstance(target, Target) else get_target(target))
