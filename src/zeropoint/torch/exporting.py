"""Write a PyTorch module as an ONNX network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeropoint.errors import DataError, ModelError, RecipeError
from zeropoint.graph.exported import Dims, Weights, default_opset, drop_traces, interface, name_interface, place_weights
from zeropoint.graph.model import Model
from zeropoint.graph.store import save
from zeropoint.notes import Note
from zeropoint.torch.arguments import BATCH, Arguments, Axes, DynamicAxes, at_other_size, bind, checked_names, drawn, dynamic, leaves
from zeropoint.torch.capture import Exporter, check_libraries, evaluating, program
from zeropoint.torch.reference import NO_SHAPES, Shapes, resolve
from zeropoint.torch.verification import Check, Difference, Trial, first_difference, refuse, run_trials, trial

if TYPE_CHECKING:
    import torch

NO_ARGUMENTS: Mapping[str, Any] = {}
OPSET = 20
TOLERANCE = 1e-4
TAKE_NO_NOTICE: Callable[[Model], object] = id


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of the network: a dynamic axis of `shape` is its name."""

    name: str
    dtype: str
    shape: Dims


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written, and how far its outputs were from the module's on each feed that it was checked on."""

    path: str
    opset: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    size: int
    checks: tuple[Check, ...]
    notes: tuple[Note, ...]


def export(  # noqa: PLR0913  (a facade: each of PyTorch's parameters that changes something, and those of the checks)
    module: torch.nn.Module | str,
    args: object,
    path: str | Path,
    *,
    kwargs: Mapping[str, object] = NO_ARGUMENTS,
    shapes: Shapes = NO_SHAPES,
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
    dynamic_axes: DynamicAxes = "batch",
    opset: int = OPSET,
    optimize: bool = True,
    export_params: bool = True,
    keep_initializers_as_inputs: bool = False,
    custom_translation_table: Mapping[Any, Callable[..., Any]] | None = None,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    verbose: bool = False,
    traced: Callable[[Model], object] = TAKE_NO_NOTICE,
) -> Exported:
    """Write a module as an ONNX network that gives the module's outputs in ONNX Runtime, or write nothing.

    module: an nn.Module, exported in eval mode and left in its own; or "module:function", which returns one, or one and its arguments.
    args: a sample input: a tensor, or a tuple of what forward takes; None where `shapes` or the function gives it. kwargs: what forward
    takes by keyword. shapes: of random float inputs by parameter of forward, in place of args. input_names: in order; the names of
    forward's parameters if empty. output_names: in order; the keys of a dict, "output", or "output_0" and so on if empty. dynamic_axes:
    "batch" for axis 0 of the inputs that have a batch axis, "none", or a name for each axis, by input. opset: of the file, 18 or later.
    optimize: fold constants and batch normalization, and take out what has no effect. export_params: False makes the weights inputs
    without values. keep_initializers_as_inputs: lists the weights as inputs too, so that a run may override them.
    custom_translation_table: functions of onnxscript by operator of PyTorch. tolerance: the largest difference that is allowed, as a share
    of an output's largest magnitude. seed: of the random inputs that are checked beside those given. verbose: show the exporter's steps.
    traced: is shown the network while each node still tells which module it comes from, which is not written.

    Raises:
        ModelError: PyTorch's exporter cannot follow the module, or the network's outputs are not the module's.
        DataError: the arguments do not fit.
        RecipeError: an option has an impossible value, or PyTorch is not installed.
        OutputError: the file cannot be written.
    """
    check_libraries()
    exporter = Exporter(opset=opset, optimize=optimize, translations=custom_translation_table, verbose=verbose)
    if not tolerance > 0:
        raise RecipeError(f"tolerance: found {tolerance}, expected a share above 0 of an output's largest magnitude, such as 1e-4")
    weights: Weights = "fed" if not export_params else "overridable" if keep_initializers_as_inputs else "stored"
    given, sample = resolve(module, args, shapes, seed=seed)
    with evaluating(given):
        arguments = bind(given, sample, kwargs, names=input_names)
        names = checked_names(output_names, _output_names(given, arguments), option="output_names", what="outputs")
        if repeated := set(names) & set(arguments.names):
            raise RecipeError(f"output_names: found {', '.join(sorted(repeated))} among the inputs too, expected other names; give them")
        axes, notes = _possible(given, arguments, dynamic_axes, seed=seed)
        made, axes, more = _program(given, arguments, axes, exporter, keeps=dynamic_axes != BATCH)
        name_interface(made.model, inputs=arguments.names, outputs=names, axes=axes)
        traced(made.model)
        drop_traces(made.model)
        if (found := default_opset(made.model)) != opset:
            raise ModelError(
                f"opset: found {found} in what PyTorch's exporter made, expected {opset}; it cannot convert this, take {found}"
            )
        trials, untried = _trials(given, arguments, axes, seed=seed)
        return _write(given, made, Path(path), trials, (weights, tolerance, (*notes, *more, *untried)))


def _output_names(module: torch.nn.Module, arguments: Arguments) -> tuple[str, ...]:
    found = trial(module, arguments, what="the given inputs")
    outputs = module(*arguments.args, **arguments.kwargs)
    labels = [path.removeprefix("_") for path, _ in leaves(outputs)]
    if not found.expected:
        raise ModelError(
            f"{type(module).__name__}: found {type(outputs).__name__} for outputs, expected tensors, or a dict or tuple of them"
        )
    if isinstance(outputs, Mapping):
        return tuple(labels)
    return ("output",) if len(labels) == 1 else tuple(f"output_{label}" for label in labels)


def _possible(module: torch.nn.Module, arguments: Arguments, wanted: DynamicAxes, *, seed: int) -> tuple[Axes, tuple[Note, ...]]:
    """Return the dynamic axes; no batch axis where the module itself runs with no other batch than the one given."""
    axes = dynamic(arguments, wanted)
    if wanted == BATCH and axes:
        try:
            trial(module, drawn(arguments, seed=seed, sizes=at_other_size(arguments, axes)), what="another batch size")
        except DataError as error:
            return {}, (Note(BATCH, f"the batch axis is fixed: {error}"),)
    return axes, ()


def _program(
    module: torch.nn.Module, arguments: Arguments, axes: Axes, exporter: Exporter, *, keeps: bool
) -> tuple[Any, Axes, tuple[Note, ...]]:
    """Return PyTorch's program, and the axes that are dynamic in it: fewer than `axes` only where these were not asked for (`keeps`)."""
    try:
        return program(module, arguments, axes, exporter), axes, ()
    except ModelError as error:
        if keeps or not axes:
            raise
        return program(module, arguments, {}, exporter), {}, (Note(BATCH, f"the batch axis is fixed: {error}"),)


def _trials(module: torch.nn.Module, arguments: Arguments, axes: Axes, *, seed: int) -> tuple[list[Trial], tuple[Note, ...]]:
    """Return the feeds to check on: those given, random ones, and random ones of other sizes where axes are dynamic."""
    others = [(drawn(arguments, seed=seed, sizes={}), f"random inputs (seed {seed})")]
    if axes:
        sizes = at_other_size(arguments, axes)
        told = ", ".join(dict.fromkeys(f"{axes[place]} {size}" for place, size in sizes.items()))
        others.append((drawn(arguments, seed=seed + 1, sizes=sizes), f"random inputs with {told} (seed {seed + 1})"))
    trials, notes = [trial(module, arguments, what="the given inputs")], []
    for call, what in others:
        try:
            trials.append(trial(module, call, what=what))
        except DataError as error:
            notes.append(Note("check", f"not compared on {what}: {error}"))
    return trials, tuple(notes)


def _write(
    module: torch.nn.Module, made: Any, path: Path, trials: Sequence[Trial], how: tuple[Weights, float, tuple[Note, ...]]
) -> Exported:
    weights, tolerance, notes = how
    model: Model = made.model
    fed = place_weights(model, weights)
    checks: list[Check] = []

    def check(file: Path) -> None:
        for found in run_trials(file, trials, weights=fed, tolerance=tolerance):
            if isinstance(found, Difference):
                inside = first_difference(model, made, found.trial, tolerance=tolerance) if weights == "stored" else "weights are inputs"
                raise refuse(module, found, inside=inside)
            checks.append(found)

    inputs, outputs = (
        tuple(Tensor(name, str(dtype), dims) for name, dtype, dims in interface(v)) for v in (model.graph.inputs, model.graph.outputs)
    )
    save(model, path, check=check)
    size = sum(file.stat().st_size for file in (path, path.with_name(f"{path.name}.data")) if file.exists())
    opset = default_opset(model)
    return Exported(path=str(path), opset=opset, inputs=inputs, outputs=outputs, size=size, checks=tuple(checks), notes=notes)
