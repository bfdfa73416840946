"""Look into a network, and check it against a target's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from zeropoint.errors import ModelError
from zeropoint.graph.load import Source, load
from zeropoint.inspection import Inspection, inspect_model, view_for_target
from zeropoint.notes import Note
from zeropoint.rules import Lint, lint_model
from zeropoint.targets import Target, get_target

NO_SHAPES: Mapping[str, Sequence[int]] = {}


def inspect(model: Source, *, target: str | Target | None = None, shapes: Mapping[str, Sequence[int]] = NO_SHAPES) -> Inspection:
    """Return what is in a model, float or quantized, and for a `target` what `quantize` would do with it and what not, and why.

    What cannot be known without running the network, and that it does not run or is quantized already, is in the notes.

    shapes: for inputs with dynamic axes, which are taken as 1 otherwise; multiply-accumulates are counted for these.

    Raises:
        ModelError: the model cannot be read.
        RecipeError: there is no such target or input, or a shape does not fit.

    Example:
        >>> from zeropoint.demo import load_digits
        >>> found = inspect(load_digits().model, target="tensorrt")
        >>> found.layers[1].node, found.layers[1].weight.dtype, found.target.coverage.quantized
        ('stage1.first.conv', 'float32', 8)
    """
    fixed = {name: tuple(shape) for name, shape in shapes.items()}
    found = inspect_model(load(model), shapes=fixed)
    if target is None:
        return found
    goal = target if isinstance(target, Target) else get_target(target)
    try:
        return replace(found, target=view_for_target(load(model, min_opset=goal.min_opset), goal, shapes=fixed))
    except ModelError as error:
        return replace(found, notes=(*found.notes, Note(goal.name, f"what it would quantize is not known: {error}")))


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
