"""Run what was exported beside its module, and say where they part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zeropoint.data.inputs import Array
from zeropoint.errors import DataError, ModelError
from zeropoint.graph.exported import computed_names
from zeropoint.graph.model import Model
from zeropoint.graph.taps import Taps, tap
from zeropoint.runtime.onnxruntime import Session
from zeropoint.torch.arguments import Arguments, as_numpy, leaves
from zeropoint.torch.capture import full_precision

if TYPE_CHECKING:
    import torch

NO_FACTS: Mapping[str, Any] = {}
HALF = 0.02  # of half-precision outputs, of which the eleventh bit is the last


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """How far the network's outputs were from the module's on one feed.

    what: the inputs, in words. errors: by output, the largest difference as a share of the output's largest magnitude.
    """

    what: str
    errors: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A feed, in words too, and what the module makes of it."""

    what: str
    arguments: Arguments
    expected: tuple[Array, ...]


def trial(module: torch.nn.Module, arguments: Arguments, *, what: str) -> Trial:
    """Run the module, in all of float32.

    Raises:
        DataError: it fails.
    """
    try:
        with full_precision():
            found = module(*arguments.args, **arguments.kwargs)
    except Exception as error:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in zip(arguments.names, arguments.tensors, strict=True))
        raise DataError(
            f"{type(module).__name__} fails on {what} ({shapes}) with {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        ) from error
    return Trial(what, arguments, tuple(as_numpy(tensor) for _, tensor in leaves(found)))


def run_trials(path: Path, trials: Sequence[Trial], *, weights: Mapping[str, Array], tolerance: float) -> Iterator[Check | Difference]:
    """Yield for each trial how far the file's outputs are from the module's; the first that is too far is the last.

    Raises:
        ModelError: ONNX Runtime cannot load or run the file.
    """
    session = Session(path)
    for one in trials:
        outputs = session.run({**one.arguments.feed, **weights})
        errors: dict[str, float] = {}
        for (name, found), expected in zip(outputs.items(), one.expected, strict=True):
            reason, errors[name] = compared(found, expected, tolerance=tolerance)
            if reason:
                yield Difference(name, reason, one)
                return
        yield Check(what=one.what, errors=errors)


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """An output that is not the module's, on a trial."""

    output: str
    reason: str
    trial: Trial


def compared(found: Array, expected: Array, *, tolerance: float) -> tuple[str, float]:
    """Return what differs in words, or "" where nothing does, and the largest difference over the largest magnitude."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return f"found {found.dtype} {found.shape}, expected {expected.dtype} {expected.shape}", np.inf
    if not found.size:
        return "", 0.0
    if not np.issubdtype(expected.dtype, np.floating):
        wrong = int((found != expected).sum())
        return (f"found {wrong} of {found.size} values that differ, expected none" if wrong else ""), wrong / found.size
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))  # infinities too
    if same.all():
        return "", 0.0
    a, b = found[~same].astype(np.float64), expected[~same].astype(np.float64)
    magnitude = float(np.abs(expected[np.isfinite(expected)].astype(np.float64)).max(initial=0.0))
    largest = float(np.abs(a - b).max())
    error = largest / magnitude if magnitude > 0 else largest
    allowed = max(tolerance, HALF) if expected.dtype.itemsize == 2 else tolerance
    if np.isfinite(error) and error <= allowed:
        return "", error
    return f"found a difference of {largest:.3g} where the largest magnitude is {magnitude:.3g}, expected at most {allowed:g} of it", error


def first_difference(model: Model, program: Any, one: Trial, *, tolerance: float) -> str:
    """Say which tensor of the network is the first that differs from what PyTorch's traced program has under that name.

    model: with all weights in it, and intermediate tensors as the program calls them.
    """
    import torch

    seen: dict[str, Array] = {}

    class Recording(torch.fx.Interpreter):
        def run_node(self, n: Any) -> Any:
            result = super().run_node(n)
            if n.op == "call_function" and isinstance(result, torch.Tensor):
                seen[n.name] = as_numpy(result)
            return result

    try:
        traced = program.exported_program.module()
        tensors = iter(one.arguments.tensors)
        values = [node.meta.get("val") for node in traced.graph.nodes if node.op == "placeholder"]  # what is no tensor was traced as it is
        Recording(traced).run(*(next(tensors) if isinstance(value, torch.Tensor) else value for value in values))
        shared = tuple(name for name in computed_names(model) if name in seen)
        found = tap(model, Taps(shared), {}).open().run(one.arguments.feed).tensors
    except Exception as error:  # the search is a help, and not what the user asked for
        return f"the first tensor that differs could not be found ({type(error).__name__})"
    for name in shared:
        reason, _ = compared(found[name], seen[name], tolerance=tolerance)
        if reason:
            return f"the first of {len(shared)} tensors inside that differs is {name!r}: {reason}"
    return f"none of the {len(shared)} tensors inside that have the same name differs"


def refuse(module: torch.nn.Module, difference: Difference, *, inside: str) -> ModelError:
    """Return the error that says what differs, where from, and what to do."""
    return ModelError(
        f"{type(module).__name__}: output {difference.output!r} of the network is not the module's on {difference.trial.what}: "
        f"{difference.reason}; {inside}. Nothing was written. Try optimize=False or another opset; where the module itself rounds so, "
        "raise tolerance"
    )
