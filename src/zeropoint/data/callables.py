"""Samples from Python: a function named on the command line, a data set, a data loader, a generator, a list."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Protocol, runtime_checkable

import numpy as np

from zeropoint.data.arrays import ArraySource, Chunk, from_chunks, held_chunk
from zeropoint.data.fit import as_array
from zeropoint.data.inputs import Feed, InputInfo
from zeropoint.data.labelled import Labelled
from zeropoint.errors import DataError

# "package.module:function" or "path/to/file.py:function"; a drive letter's colon belongs to the path.
_REFERENCE = re.compile(r"(?P<place>.+):(?P<function>[A-Za-z_]\w*)")
_TURN = Lock()  # a user's data set is asked for one item at a time: it may not be made for several threads


@runtime_checkable
class Indexed(Protocol):
    """What has a length and gives an item for each index, as a map-style data set does."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> object: ...


@dataclass(frozen=True, slots=True)
class IndexedSource:
    """Items of an indexed data set, each of one sample, asked for when needed."""

    description: str
    items: Indexed
    inputs: tuple[InputInfo, ...]

    def __len__(self) -> int:
        """How many items there are."""
        return len(self.items)

    def name(self, index: int) -> str:
        """The item's place."""
        return f"item {index}"

    def sample(self, index: int) -> Feed:
        """Ask for one item."""
        return from_chunks([self._chunk(index)], self.inputs, description="").sample(0)

    def label(self, index: int) -> int | None:
        """Ask for the item's class; None where it tells none."""
        labels = self._chunk(index).labels
        return None if labels is None else int(labels[0])

    def _chunk(self, index: int) -> Chunk:
        chunk = _item_chunk(ask(self.items, index), self.inputs, name=self.name(index))
        if chunk.length != 1:
            raise DataError(
                f"{self.description}, item {index}: found {chunk.length} samples, expected 1 as in item 0; give an iterable instead"
            )
        return chunk


def is_reference(data: object) -> bool:
    """Tell whether `data` is text of the form "module:function" or "file.py:function"."""
    return isinstance(data, str) and _REFERENCE.fullmatch(data) is not None


def load_reference(reference: str, *, returns: str = "samples") -> object:
    """Import what "package.module:function" or "path/to/file.py:function" names, call it, and return what it returns.

    returns: what that should be, for the message where it fails.

    Raises:
        DataError: it cannot be imported, is no function, or fails.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise DataError(f"{reference}: expected 'package.module:function' or 'path/to/file.py:function'")
    function = getattr(_import(match["place"], reference), match["function"], None)
    if not callable(function):
        raise DataError(f"{reference}: found no function {match['function']!r} in {match['place']}; check its name")
    return call(function, name=reference, returns=returns)


def call(function: Callable[[], object], *, name: str, returns: str = "samples") -> object:
    """Call a user's function of no arguments.

    Raises:
        DataError: it fails.
    """
    try:
        return function()
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{name}: failed with {type(error).__name__}: {error}. It is called without arguments and returns {returns}"
        ) from error


def open_items(items: object, inputs: Sequence[InputInfo], *, limit: int | None, name: str) -> ArraySource | IndexedSource:
    """Take samples from Python items: an array each, a tuple or list of arrays in the order of the inputs, or a dict of arrays.

    An item whose arrays have the inputs' rank is a batch, one rank less a single sample. What has a length and an index, and gives
    single samples, is asked for each item when it is needed. Anything else is read once, up to `limit` samples (None: all), and
    held: a generator cannot be read twice, and a shuffling loader gives another order each time, by which calibration and
    evaluation samples would mix.

    Raises:
        DataError: there is no item, or one does not fit the network.
    """
    if isinstance(items, Indexed) and not isinstance(items, list | tuple):
        if len(items) == 0:
            raise DataError(f"{name}: found no items, expected at least one sample")
        if _item_chunk(ask(items, 0), inputs, name="item 0").length == 1:
            return IndexedSource(f"{name} ({len(items)} items)", items, tuple(inputs))
        return open_items(_each(items), inputs, limit=limit, name=name)
    if not isinstance(items, Iterable):
        raise DataError(f"{name}: found a {type(items).__name__}, expected arrays, or an iterable of arrays, tuples or dicts of arrays")
    chunks = list(_held(items, inputs, limit=limit, name=name))
    if not chunks:
        raise DataError(f"{name}: gave no samples, expected at least one; a generator that was read before gives nothing again")
    return from_chunks(chunks, inputs, description=f"{name} ({len(chunks)} items read and held)")


def _held(items: Iterable[object], inputs: Sequence[InputInfo], *, limit: int | None, name: str) -> Iterator[Chunk]:
    count = 0
    for index, item in enumerate(guarded(items, name)):
        given = _named(item, inputs, name=f"{name}, item {index}")
        if not isinstance(items, list | tuple):  # a generator may fill the same buffer again for its next item
            given = Labelled({key: np.array(value) for key, value in given.arrays.items()}, given.labels)
        chunk = held_chunk(given, inputs, name=f"item {index}")
        yield chunk
        count += chunk.length
        if limit is not None and count >= limit:
            return


def guarded(items: Iterable[object], name: str) -> Iterator[object]:
    """Yield the items of a user's iterable.

    Raises:
        DataError: it fails.
    """
    try:
        yield from items
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{name}: failed with {type(error).__name__}: {error} while giving samples") from error


def _import(place: str, reference: str) -> ModuleType:
    try:
        return _import_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except Exception as error:
        raise DataError(
            f"{reference}: importing {place} failed with {type(error).__name__}: {error}; a file's path works too: path/to/file.py:function"
        ) from error


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ask(items: Indexed, index: int) -> object:
    """Ask a user's data set for one item, while no other thread does.

    Raises:
        DataError: it fails.
    """
    try:
        with _TURN:
            return items[index]
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"item {index}: failed with {type(error).__name__}: {error}; mend the data set") from error


def _each(items: Indexed) -> Iterator[object]:
    return (ask(items, index) for index in range(len(items)))


def _item_chunk(item: object, inputs: Sequence[InputInfo], *, name: str) -> Chunk:
    return held_chunk(_named(item, inputs, name=name), inputs, name=name)


def _named(item: object, inputs: Sequence[InputInfo], *, name: str) -> Labelled:
    """Return an item's arrays by input name."""
    if isinstance(item, Labelled):
        return item
    if isinstance(item, Mapping):
        arrays = dict(item)
    else:
        values = list(item) if isinstance(item, list | tuple) else [item]
        if len(values) != len(inputs):
            names = ", ".join(repr(info.name) for info in inputs)
            raise DataError(f"{name}: found {len(values)} arrays, expected {len(inputs)} (for {names}); leave labels out, or give a dict")
        arrays = {info.name: value for info, value in zip(inputs, values, strict=True)}
    return Labelled({key: as_array(value, f"{name}: input {key!r}") for key, value in arrays.items()}, None)
