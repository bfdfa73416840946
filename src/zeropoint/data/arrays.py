"""Samples in arrays: .npy and .npz files, folders of them, and arrays in memory. Files are mapped, not read, where they can be."""

from __future__ import annotations

import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zeropoint.data.fit import as_array, by_name, rows
from zeropoint.data.inputs import Array, Feed, InputInfo, batch_axis
from zeropoint.data.labelled import Labelled
from zeropoint.errors import DataError

Labels = npt.NDArray[np.int64]
SUFFIXES = frozenset({".npy", ".npz"})
_LOCAL_HEADER_BYTES = 30  # of a zip member, before its name and its extra field
_OPEN_FILES = 4  # consecutive samples lie in the same file; more open files would only hold memory


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of samples that lie in one place: its name, how many there are, and how to get its arrays, samples along axis 0.

    labels: the class of each, where the place tells it.
    """

    name: str
    length: int
    load: Callable[[], Feed]
    labels: Labels | None = None


@dataclass(frozen=True, slots=True)
class ArraySource:
    """Samples along axis 0 of arrays that lie in one or more chunks."""

    description: str
    chunks: tuple[Chunk, ...]
    ends: tuple[int, ...]  # of each chunk: how many samples there are up to and with it
    batched: frozenset[str]

    def __len__(self) -> int:
        """How many samples there are."""
        return self.ends[-1] if self.ends else 0

    def name(self, index: int) -> str:
        """The chunk's name, with the place in it where it holds several samples."""
        chunk, row = self._find(index)
        return chunk.name if chunk.length == 1 and len(self.chunks) > 1 else f"{chunk.name}[{row}]"

    def sample(self, index: int) -> Feed:
        """Slice one sample out of its chunk."""
        chunk, row = self._find(index)
        return {name: np.asarray(a[row : row + 1] if name in self.batched else a[row]) for name, a in chunk.load().items()}

    def label(self, index: int) -> int | None:
        """The sample's class, where its chunk tells it."""
        chunk, row = self._find(index)
        return None if chunk.labels is None else int(chunk.labels[row])

    def _find(self, index: int) -> tuple[Chunk, int]:
        place = bisect_right(self.ends, index)
        return self.chunks[place], index - (self.ends[place - 1] if place else 0)


def open_array_file(path: Path, inputs: Sequence[InputInfo]) -> ArraySource:
    """Open a .npy (for a network of one input) or a .npz file (one array for each input), samples along axis 0.

    Raises:
        DataError: the file cannot be read, holds Python objects, or does not fit the network.
    """
    return from_chunks([_file_chunk(path, path.name, inputs)], inputs, description=str(path))


def open_array_folder(folder: Path, files: Sequence[Path], inputs: Sequence[InputInfo]) -> ArraySource:
    """Open .npy and .npz files below `folder`, each of one sample or of many.

    Raises:
        DataError: a file cannot be read, holds Python objects, or does not fit the network.
    """
    chunks = [_file_chunk(path, path.relative_to(folder).as_posix(), inputs) for path in files]
    return from_chunks(chunks, inputs, description=f"{folder} ({len(files)} array files)")


def from_memory(arrays: Mapping[str, object] | Labelled | object, inputs: Sequence[InputInfo]) -> ArraySource:
    """Take an array (for a network of one input) or a dict of arrays, samples along axis 0, or these with their labels.

    Raises:
        DataError: names, lengths, shapes or types do not fit the network.
    """
    named = arrays if isinstance(arrays, Mapping | Labelled) else _single(arrays, inputs, where="data")
    return from_chunks([held_chunk(named, inputs, name="data")], inputs, description="arrays in memory")


def from_chunks(chunks: Iterable[Chunk], inputs: Sequence[InputInfo], *, description: str) -> ArraySource:
    """Line chunks up as one source."""
    filled = tuple(chunk for chunk in chunks if chunk.length)
    ends = tuple(accumulate(chunk.length for chunk in filled))
    return ArraySource(description, filled, ends, batch_axis(inputs).names)


def held_chunk(arrays: Mapping[str, object] | Labelled, inputs: Sequence[InputInfo], *, name: str) -> Chunk:
    """Make a chunk of arrays that are in memory, with their labels where there is one for each sample.

    Raises:
        DataError: names, lengths, shapes or types do not fit the network.
    """
    named, labels = (arrays.arrays, arrays.labels) if isinstance(arrays, Labelled) else (arrays, None)
    held = _sample_rows(named, inputs, where=name)
    length = _length(held, where=name)
    return Chunk(name, length, partial(dict, held), labels if labels is not None and len(labels) == length else None)


def _file_chunk(path: Path, name: str, inputs: Sequence[InputInfo]) -> Chunk:
    if not path.is_file():
        raise DataError(f"{path}: found no such file, expected a .npy or .npz file")
    # The time of writing is part of the key, so that a file that was written again is read again.
    load = partial(_load_rows, path, name, inputs=tuple(inputs), written_ns=path.stat().st_mtime_ns)
    return Chunk(name, _length(load(), where=name), load)


@lru_cache(maxsize=_OPEN_FILES)
def _load_rows(path: Path, name: str, *, inputs: tuple[InputInfo, ...], written_ns: int) -> Feed:
    del written_ns  # only a part of the cache's key
    arrays = _read_npz(path) if path.suffix.lower() == ".npz" else _single(_read_npy(path), inputs, where=name)
    return _sample_rows(arrays, inputs, where=name)


def _sample_rows(arrays: Mapping[str, object], inputs: Sequence[InputInfo], *, where: str) -> Feed:
    batched = batch_axis(inputs).names
    named = by_name(arrays, inputs, where=where)
    return {
        info.name: rows(as_array(named[info.name], f"{where}: input {info.name!r}"), info, batched=info.name in batched, where=where)
        for info in inputs
    }


def _length(arrays: Feed, *, where: str) -> int:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name!r}: {length}" for name, length in lengths.items())
        raise DataError(f"{where}: found different numbers of samples ({found}), expected the same for every input")
    return next(iter(lengths.values()), 0)


def _single(array: object, inputs: Sequence[InputInfo], *, where: str) -> dict[str, object]:
    if len(inputs) != 1:
        names = ", ".join(repr(info.name) for info in inputs)
        raise DataError(f"{where}: found one array, expected one for each of the inputs {names}; give a dict of arrays or a .npz file")
    return {inputs[0].name: array}


def read_arrays(path: Path) -> Array | dict[str, Array]:
    """Return the array of a .npy file or the arrays of a .npz file, mapped where they can be.

    Raises:
        DataError: the file cannot be read, or holds Python objects.
    """
    return _read_npz(path) if path.suffix.lower() == ".npz" else _read_npy(path)


def _read_npy(path: Path) -> Array:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: found an archive, expected one array; name it .npz")
    return array


def _read_npz(path: Path) -> dict[str, Array]:
    """Map the members that are stored as they are, and read those that are compressed."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            return {info.filename.removesuffix(".npy"): _read_member(path, archive, info=info) for info in members}
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path, error) from error


def _read_member(path: Path, archive: zipfile.ZipFile, *, info: zipfile.ZipInfo) -> Array:
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        if info.compress_type == zipfile.ZIP_STORED and version in _HEADER_READERS:
            shape, fortran, dtype = _HEADER_READERS[version](member)
            if not dtype.hasobject and 0 not in shape:
                offset = _member_start(path, info) + member.tell()
                return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")
    with archive.open(info) as member:
        return np.asarray(np.lib.format.read_array(member, allow_pickle=False))


_HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def _member_start(path: Path, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: its local header repeats the name, and may have another extra field than the directory."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER_BYTES)
    name_bytes, extra_bytes = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
    return info.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes


def _unreadable(path: Path, error: Exception) -> DataError:
    if "pickle" in str(error).lower() or "object" in str(error).lower():
        return DataError(
            f"{path}: found no array of numbers ({error}), expected one; Python objects in it are never loaded, since that could "
            "run any code: save it with np.save from an array of numbers"
        )
    return DataError(f"{path}: cannot be read ({error}), expected a whole .npy or .npz file; write it again")
