"""Tell what kind of data was given, and open it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from zeropoint.data import arrays, images
from zeropoint.data.callables import Indexed, call, is_reference, load_reference, open_items
from zeropoint.data.images import ImageSource, list_files, open_images
from zeropoint.data.inputs import InputInfo
from zeropoint.data.labelled import Labelled, ReadyIndex, ReadyItems
from zeropoint.data.preprocess import Preprocess
from zeropoint.data.random import open_random
from zeropoint.data.samples import Samples, Source, all_samples
from zeropoint.errors import DataError, RecipeError


@dataclass(frozen=True, slots=True)
class Request:
    """All that opening data may need: what was given, the network's inputs, and the options."""

    data: object
    inputs: tuple[InputInfo, ...]
    preprocess: Preprocess | None
    limit: int | None
    seed: int


@runtime_checkable
class _ArrayLike(Protocol):
    def __array__(self) -> object: ...


def open_data(
    data: object, inputs: Sequence[InputInfo], *, preprocess: Preprocess | None = None, limit: int | None = None, seed: int = 0
) -> Samples:
    """Open what `data` names or holds as samples for a network of these inputs, and read the first, so that a misfit shows at once.

    data: a folder of images or of arrays, an image, a .npy or .npz file, "package.module:function", "path/to/file.py:function", an
    array, a dict of arrays, a data set, a loader, a generator, a function of no arguments, or "random" (only where that is said).
    preprocess: what images go through (None: there are no images). limit: how many samples are read of what can be read only
    once, and drawn of random ones. seed: of the random ones.

    Raises:
        DataError: there is no data, it cannot be read, or it does not fit the network.
        RecipeError: `limit` is less than 1, or there is a `preprocess` for what is no images.
    """
    if limit is not None and limit < 1:
        raise RecipeError(f"limit: found {limit}, expected at least 1 sample")
    if not inputs:
        raise DataError("network: found no inputs, expected at least one to feed samples to")
    request = Request(data, tuple(inputs), preprocess, limit, seed)
    for recognises, open_source in SOURCES:
        if recognises(data):
            source = open_source(request)
            if preprocess is not None and not isinstance(source, ImageSource):
                raise RecipeError(
                    f"preprocess: found it with {source.description}, expected images; arrays are fed to the network as they are"
                )
            samples = all_samples(source, inputs)
            samples[0]
            return samples
    raise DataError(
        f"data: found {data!r}, expected a folder of images or arrays, a file (image, .npy, .npz), 'module:function', 'file.py:function', "
        "arrays or an iterable of them, or 'random' for a trial without real data; check the path"
    )


def _open_folder(request: Request) -> Source:
    folder = _path(request.data)
    image_files, array_files = list_files(folder, images.SUFFIXES), list_files(folder, arrays.SUFFIXES)
    if image_files and array_files:
        raise DataError(f"{folder}: found {len(image_files)} images and {len(array_files)} array files, expected one kind; separate them")
    if image_files:
        return open_images(folder, image_files, request.inputs, preprocess=request.preprocess)
    if array_files:
        return arrays.open_array_folder(folder, [folder / name for name in array_files], request.inputs)
    kinds = ", ".join(sorted(images.SUFFIXES | arrays.SUFFIXES))
    raise DataError(f"{folder}: found no images and no arrays in it, expected files of {kinds}; check the path")


def _open_file(request: Request) -> Source:
    path = _path(request.data)
    if path.suffix.lower() in arrays.SUFFIXES:
        return arrays.open_array_file(path, request.inputs)
    if path.suffix.lower() in images.SUFFIXES:
        return open_images(path.parent, [path.name], request.inputs, preprocess=request.preprocess)
    kinds = ", ".join(sorted(images.SUFFIXES | arrays.SUFFIXES))
    raise DataError(f"{path}: found a file of unknown kind, expected {kinds}; a Python file is named with its function: file.py:function")


def _open_random(request: Request) -> Source:
    return open_random(request.inputs, count=request.limit, seed=request.seed)


def _open_reference(request: Request) -> Source:
    name = str(request.data)
    return _open_returned(load_reference(name), request, name=name)


def _open_function(request: Request) -> Source:
    if not callable(request.data):
        raise DataError(f"data: found {request.data!r}, expected a function")
    name = f"function {getattr(request.data, '__name__', 'data')}"
    return _open_returned(call(request.data, name=name), request, name=name)


def _open_returned(data: object, request: Request, *, name: str) -> Source:
    if _is_array(data) or isinstance(data, Mapping):
        return arrays.from_memory(data, request.inputs)
    return open_items(data, request.inputs, limit=request.limit, name=name)


def _open_arrays(request: Request) -> Source:
    return arrays.from_memory(request.data, request.inputs)


def _open_items(request: Request) -> Source:
    name = request.data.name if isinstance(request.data, ReadyItems | ReadyIndex) else f"a {type(request.data).__name__}"
    return open_items(request.data, request.inputs, limit=request.limit, name=name)


def _path(data: object) -> Path:
    return Path(data) if isinstance(data, str | os.PathLike) else Path()


def _is_path(data: object) -> bool:
    return isinstance(data, str | os.PathLike) and data != ""  # which pathlib takes for the working directory


def _is_array(data: object) -> bool:
    return isinstance(data, _ArrayLike)


# The first line that recognises the data opens it.
SOURCES: tuple[tuple[Callable[[object], bool], Callable[[Request], Source]], ...] = (
    (lambda data: isinstance(data, str) and data == "random", _open_random),
    (lambda data: _is_path(data) and _path(data).is_dir(), _open_folder),
    (lambda data: _is_path(data) and _path(data).is_file(), _open_file),
    (is_reference, _open_reference),
    (_is_array, _open_arrays),
    (lambda data: isinstance(data, Mapping | Labelled), _open_arrays),
    (lambda data: isinstance(data, Iterable | Indexed) and not isinstance(data, str | bytes), _open_items),
    (callable, _open_function),
)
