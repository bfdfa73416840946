"""Run PyTorch's exporter on a module, in eval mode and quietly, and say in a paragraph where it cannot go on."""

from __future__ import annotations

import io
import logging
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeropoint.errors import ModelError, RecipeError
from zeropoint.torch.arguments import Arguments, Axes, mapped, repeated

if TYPE_CHECKING:
    import torch

LIBRARIES = ("torch", "onnxscript")
OLDEST_OPSET = 18  # of which the exporter has its operators; it goes no further down
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
NO_TABLE: Mapping[Any, Any] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporter:
    """What PyTorch's exporter is told. translations: of operators of its own or others, by the operator."""

    opset: int
    optimize: bool = True
    translations: Mapping[Any, Callable[..., Any]] | None = None
    verbose: bool = False

    def __post_init__(self) -> None:
        if self.opset < OLDEST_OPSET:
            raise RecipeError(f"opset: found {self.opset}, expected {OLDEST_OPSET} or later: PyTorch's exporter has no older operators")


def check_libraries() -> None:
    """Refuse to begin where PyTorch or what its exporter needs is not installed.

    Raises:
        RecipeError: a library is not installed.
    """
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise RecipeError(f'{" and ".join(missing)} not found, expected what exports modules; pip install "zeropoint[torch]"')


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Put the module into eval mode; each of its parts has the mode that it had when this ends."""
    import torch

    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def full_precision() -> Iterator[None]:
    """Turn off TF32 and its like, by which GPUs convolve unless told otherwise: a network is compared with what float32 gives.

    Not for the exporter, which asks for these settings in PyTorch's older way, and fails where they were made in this one.
    """
    from torch import backends

    places = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul, backends.mkldnn.conv)
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "ieee"
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


def program(module: torch.nn.Module, arguments: Arguments, axes: Axes, exporter: Exporter) -> Any:
    """Return PyTorch's ONNX program of a module, with `axes` dynamic.

    Raises:
        ModelError: the exporter cannot follow the module, has no translation of an operator, or cannot make the opset.
    """
    import torch

    traced = repeated(arguments, axes)
    ends_in_dict = bool(traced.args) and isinstance(traced.args[-1], dict) and not traced.kwargs  # taken for keywords otherwise
    try:
        with _quiet(exporter.verbose):
            return torch.onnx.export(
                module,
                (*traced.args, {}) if ends_in_dict else traced.args,
                None,
                kwargs=dict(traced.kwargs),
                dynamic_shapes=_dynamic_shapes(traced, axes),
                opset_version=exporter.opset,
                optimize=exporter.optimize,
                custom_translation_table=None if exporter.translations is None else dict(exporter.translations),
                verbose=exporter.verbose,
                dynamo=True,
            )
    except Exception as error:  # of many kinds, and of PyTorch's own libraries
        raise ModelError(_reason(module, error, has_dynamic_axes=bool(axes))) from error


def _dynamic_shapes(arguments: Arguments, axes: Axes) -> dict[str, Any] | None:
    """Return which axes are dynamic in the form that torch.export takes: as the values of the call are nested."""
    import torch

    if not axes:
        return None
    numbers = iter(range(len(arguments.names)))

    def marked(_: torch.Tensor) -> dict[int, Any]:
        number = next(numbers)
        return {axis: torch.export.Dim.DYNAMIC for n, axis in axes if n == number}

    return {name: mapped(value, marked, other=lambda _: None) for name, value in arguments.values.items()}


@contextmanager
def _quiet(verbose: bool) -> Iterator[None]:
    """Keep what the exporter prints, logs and warns of to itself, or send it to standard error."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        if verbose:
            with redirect_stdout(sys.stderr):
                yield
            return
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                yield
        finally:
            logging.disable(disabled)


def _reason(module: torch.nn.Module, error: Exception, *, has_dynamic_axes: bool) -> str:
    chain = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and before not in chain:
        if not isinstance(before, Exception):
            break
        chain.append(before)
    name, place, last = type(module).__name__, _place(chain), _first_line(chain[-1])
    if any(type(link).__name__ == "GuardOnDataDependentSymNode" for link in chain):
        return (
            f"{name}{place}: what it computes next depends on the values of a tensor, as an `if`, a loop or an index by one does; expected "
            "the same steps for every input: use torch.where or torch.cond there, or export the parts before and behind it"
        )
    translated = re.search(r"target=torch\.ops\.([\w.]+)", " ".join(str(link) for link in chain))
    if any(type(link).__name__ in ("DispatchError", "ConversionError", "GraphConstructionError") for link in chain) and translated:
        return (
            f"{name}{place}: PyTorch's exporter has no translation of {translated[1]}; write it with other operators, or give one in "
            "custom_translation_table"
        )
    dynamic = "; if its input has a fixed size there, leave that axis out of dynamic_axes" if has_dynamic_axes else ""
    return f"{name}{place}: PyTorch's exporter failed with {type(chain[-1]).__name__}: {last}; change the module there{dynamic}"


def _place(chain: list[Exception]) -> str:
    """Return the last line that is neither PyTorch's nor ours on the way to an error; empty where there is none."""
    import torch

    foreign = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<", sys.prefix, sys.base_prefix)
    for link in reversed(chain):
        frames = [frame for frame in traceback.extract_tb(link.__traceback__) if not frame.filename.startswith(foreign)]
        inside = [frame for frame in frames if frame.name not in ("<module>", "export")]
        if inside:
            return f", {Path(inside[-1].filename).name} line {inside[-1].lineno} (`{inside[-1].line}`)"
    return ""


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in COLOUR.sub("", str(error)).splitlines() if line.strip()), "no reason")
