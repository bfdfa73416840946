"""Turn a module into the network that it exports to, with a sample of the user's data, and that data into what the network is fed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from zeropoint.data import InputInfo, Preprocess, open_data
from zeropoint.data import arrays as array_files
from zeropoint.data.callables import Indexed, call, is_reference, load_reference
from zeropoint.data.fit import as_array
from zeropoint.data.images import list_files
from zeropoint.data.inputs import Array
from zeropoint.errors import DataError, ModelError
from zeropoint.graph.load import NamedBytes, Source
from zeropoint.graph.store import LARGEST_MESSAGE
from zeropoint.notes import Note
from zeropoint.progress import Progress
from zeropoint.torch.arguments import Arguments, Axes, at_other_size, bind, drawn, dynamic
from zeropoint.torch.capture import check_libraries, evaluating
from zeropoint.torch.exporting import export
from zeropoint.torch.feeding import Forward, Matched, forward_of, is_one_sample, mapped_leaves, match, ready, ready_items
from zeropoint.torch.reference import load_module
from zeropoint.torch.verification import trial

if TYPE_CHECKING:
    import torch

NO_CALL: Mapping[str, object] = {}
FEW = 2  # samples to export with: a larger batch would only take longer to compare


class Module(Protocol):
    """What a torch.nn.Module has, without importing PyTorch."""

    training: bool
    forward: Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Taken:
    """A network and its data.

    module: the class that the network was exported from, "" where it was a network already. call: that module, and with what.
    """

    model: Source
    data: object
    eval_data: object
    module: str = ""
    call: tuple[torch.nn.Module, Arguments] | None = None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    """Data made ready for the network, and its first item as forward would take it, of one sample (`single`) or several; None: unknown."""

    data: object
    first: Matched | None
    single: bool = False


def is_module(model: object) -> bool:
    """Say whether `model` is a PyTorch module, or "module:function" that may return one, without importing PyTorch."""
    if isinstance(model, str | os.PathLike):
        return is_reference(str(model)) and not Path(model).exists()
    found = sys.modules.get("torch")
    return found is not None and isinstance(model, found.nn.Module)


def module_name(model: object) -> str:
    """Return what to call a module in a message: its class, or the function that returns it."""
    return str(model) if isinstance(model, str | os.PathLike) else type(model).__name__


def take(model: Any, *, data: object, eval_data: object, preprocess: Preprocess | None, seed: int, progress: Progress) -> Taken:
    """Return the network that a module exports to, and its data made ready for it; a network is returned as it is.

    model: what `zeropoint.quantize` takes. The sample that the module is exported with is the first of `data`, or of `eval_data` where
    that is all there is. A function that returns a module may return its arguments too, which are taken then.

    Raises:
        ModelError: the module holds no numbers yet, cannot be exported, or its network gives other outputs.
        DataError: there is no sample to export with, or the module fails on it.
        RecipeError: PyTorch or what its exporter needs is not installed.
    """
    if not is_module(model):
        return Taken(model=model, data=data, eval_data=eval_data)
    check_libraries()
    module, given = load_module(str(model) if isinstance(model, str | os.PathLike) else model)
    module = _inner(module)
    _check_module(module)
    forward = forward_of(module)
    opened = _opened(data, forward, preprocess)
    judging = opened if eval_data is data else _opened(eval_data, forward, preprocess)
    progress("exporting", 0, 1)
    with evaluating(module):
        sample = _sample(module, forward, (opened, judging)) if given is None else bind(module, given, NO_CALL, names=())
        vectors = _vector_axes(sample) if given is None and _counts_samples(module, sample) else {}
    network, notes = _exported(module, sample, vectors=vectors, seed=seed)
    progress("exporting", 1, 1)
    left = next((one.first.left for one in (opened, judging) if one.first is not None and one.first.left), "")
    notes += (Note("data", f"not fed to {forward.owner}: {left} in each item", kind="run"),) if left else ()
    return Taken(model=network, data=opened.data, eval_data=judging.data, module=forward.owner, call=(module, sample), notes=notes)


def _inner(module: torch.nn.Module) -> torch.nn.Module:
    """Return the module inside what compiles it or copies it to several devices."""
    import torch

    wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while True:
        inner = module.module if isinstance(module, wrappers) else getattr(module, "_orig_mod", None)
        if not isinstance(inner, torch.nn.Module):
            return module
        module = inner


def _check_module(module: torch.nn.Module) -> None:
    import torch

    name, size = type(module).__name__, 0
    for key, tensor in (*module.named_parameters(), *module.named_buffers()):
        where = f"{name}: found {key!r}"
        if torch.nn.parameter.is_lazy(tensor):
            raise ModelError(f"{where} not initialized, expected numbers; run the module on a batch first")
        if tensor.is_meta:
            raise ModelError(f"{where} on the meta device, expected numbers; load its weights first")
        if tensor.is_complex():
            raise ModelError(f"{where} of {tensor.dtype}, expected real numbers; ONNX networks compute with no others")
        size += tensor.numel() * tensor.element_size()
    if size > LARGEST_MESSAGE:
        raise ModelError(
            f"{name}: found weights of {size / 1e9:.1f} GB, expected at most {LARGEST_MESSAGE / 1e9:.1f}; write it with "
            "zeropoint.torch.export, and quantize the file"
        )


# --- data ------------------------------------------------------------------------------------------------------------------


def ready_data(data: object, forward: Forward, preprocess: Preprocess | None) -> object:
    """Return data in any form that `zeropoint.quantize` takes, or a loader of PyTorch gives, ready for the network, with its labels.

    Raises:
        DataError: an item lacks an input.
    """
    is_named = data is None or isinstance(data, str | os.PathLike)  # which the data layer reads
    return data if is_named else _opened(data, forward, preprocess).data


def _opened(data: Any, forward: Forward, preprocess: Preprocess | None, *, name: str = "") -> _Opened:
    """Look at the first item of any form of data, and make all of it ready. name: of what returned it."""
    if isinstance(data, str | os.PathLike):
        if Path(data).exists() and str(data):
            return _Opened(data, match(_first_in_files(Path(data), forward, preprocess), forward, where=str(data)))
        if is_reference(data):
            return _opened(load_reference(str(data)), forward, preprocess, name=str(data))
        return _unknown(data)
    if isinstance(data, Mapping) or hasattr(data, "__array__"):
        return _Opened(ready(data, forward, "data"), match(data, forward, where="data"))
    if isinstance(data, Iterable | Indexed) and not isinstance(data, bytes):
        called = name or f"a {type(data).__name__}"
        item, made = ready_items(data, forward, name=called)
        first = match(item, forward, where=f"{called}, item 0")
        return _Opened(made, first, single=_gives_single_samples(data, first))
    if callable(data):
        called = f"function {getattr(data, '__name__', 'data')}"
        return _opened(call(data, name=called), forward, preprocess, name=called)
    return _unknown(data)


def _unknown(data: object) -> _Opened:
    """Let what is no data be refused as always; what is left tells no shape."""
    if data is not None and data != "random":
        open_data(data, (InputInfo("input", np.dtype(np.float32), (None,)),))
    return _Opened(data, None)


def _gives_single_samples(data: object, first: Matched) -> bool:
    """Say whether the items of data are rather single samples than batches."""
    from torch.utils.data import DataLoader, Dataset

    if isinstance(data, DataLoader):
        return data.batch_sampler is None
    if isinstance(data, Dataset) or (isinstance(data, Indexed) and not isinstance(data, list | tuple)):
        return True
    return is_one_sample(first.rest) or all(len(shape) < 2 for shape in first.shapes)


def _first_in_files(path: Path, forward: Forward, preprocess: Preprocess | None) -> object:
    """Return the first sample of a file or folder, or the arrays that hold the samples."""
    files = [path / name for name in list_files(path, array_files.SUFFIXES)] if path.is_dir() else [path]
    if files and files[0].suffix.lower() in array_files.SUFFIXES:
        return array_files.read_arrays(files[0])
    channels = 3 if preprocess is None else preprocess.channels
    shape = (None,) * 4 if preprocess is not None and preprocess.layout == "nhwc" else (None, channels, None, None)
    inputs = tuple(InputInfo(name, np.dtype(np.float32), shape) for name in (forward.required or forward.positional[:1]))
    return open_data(path, inputs, preprocess=preprocess)[0]


# --- the sample that the module is exported with -----------------------------------------------------------------------------


def _sample(module: torch.nn.Module, forward: Forward, data: Iterable[_Opened]) -> Arguments:
    """Return the first samples of the data as a call that the module runs with, and with another number of samples if any call does.

    Raises:
        DataError: there is none, or the module fails on it.
    """
    opened = next((one for one in data if one.first is not None), None)
    if opened is None or opened.first is None:
        raise DataError(
            f"data: found nothing that tells the shape of what {forward.owner} takes, expected samples of what it sees in use: a loader, a "
            "data set or tensors; a function that is named in the module's place may return the module and a sample input"
        )
    failures, running = list[DataError](), list[Arguments]()
    for arguments in _candidates(module, opened):
        try:
            trial(module, arguments, what="the first item of the data")
        except DataError as error:
            failures.append(error)
            continue
        running.append(arguments)
        if _counts_samples(module, arguments):
            return arguments
    if not running:
        raise failures[0]
    return running[0]


def _candidates(module: torch.nn.Module, opened: _Opened) -> Iterator[Arguments]:
    """Yield the readings of the first item, the likeliest first: as a batch, cut to a few samples or whole, and as a single sample."""
    assert opened.first is not None
    first, as_tensor = opened.first, _converter(module)

    def call(cut: Callable[[Array], Array]) -> Arguments:
        def change(value: object) -> torch.Tensor:
            return as_tensor(cut(as_array(value, "data")))

        return bind(module, mapped_leaves(first.args, change), mapped_leaves(first.kwargs, change), names=())

    if opened.single:
        yield call(lambda array: array[np.newaxis])
    lengths = {shape[:1] for shape in first.shapes}
    if len(lengths) == 1 and max(lengths) > (FEW,):
        yield call(lambda array: array[:FEW])
    yield call(lambda array: array)
    if not opened.single:
        yield call(lambda array: array[np.newaxis])


def _converter(module: torch.nn.Module) -> Callable[[Array], torch.Tensor]:
    """Return what makes tensors of arrays, on the module's device; floats of a type that it has no weights of get that of its first."""
    import torch

    held = [*module.parameters(), *module.buffers()]
    device = held[0].device if held else torch.device("cpu")
    floats = list(dict.fromkeys(tensor.dtype for tensor in held if tensor.is_floating_point())) or [torch.get_default_dtype()]

    def as_tensor(array: Array) -> torch.Tensor:
        tensor = torch.from_numpy(np.array(array))
        changes = tensor.is_floating_point() and tensor.dtype not in floats
        return tensor.to(device, floats[0] if changes else tensor.dtype)

    return as_tensor


def _vector_axes(arguments: Arguments) -> Axes:
    """Return the batch axes of inputs that are all vectors of one length, a number of each sample: elsewhere these are no batches."""
    shapes = {tuple(tensor.shape) for tensor in arguments.tensors}
    is_alike = len(shapes) == 1 and len(*shapes) == 1
    return {(number, 0): "batch" for number in range(len(arguments.names))} if is_alike else {}


def _counts_samples(module: torch.nn.Module, arguments: Arguments) -> bool:
    """Say whether axis 0 is one of samples: whether the module runs with another length of it."""
    axes = dynamic(arguments, "batch") or _vector_axes(arguments)
    try:
        trial(module, drawn(arguments, seed=0, sizes=at_other_size(arguments, axes)), what="another batch size")
    except DataError:
        return False
    return bool(axes)


def _exported(module: torch.nn.Module, sample: Arguments, *, vectors: Axes, seed: int) -> tuple[NamedBytes, tuple[Note, ...]]:
    named = {sample.names[number]: {axis: axis_name} for (number, axis), axis_name in vectors.items()}
    with TemporaryDirectory(prefix="zeropoint-") as folder:
        file = Path(folder, "model.onnx")
        found = export(module, sample.args, file, kwargs=sample.kwargs, dynamic_axes=named or "batch", seed=seed)
        content = file.read_bytes()
    name = type(module).__name__
    return NamedBytes(name, content), tuple(replace(note, where=f"{name}: {note.where}") for note in found.notes)
