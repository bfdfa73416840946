"""The right answers, for measuring accuracy: one class index for each sample."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from zeropoint.data.fit import as_array
from zeropoint.data.samples import LabelledSource, Samples
from zeropoint.errors import DataError

Labels = npt.NDArray[np.int64]
_CSV_COLUMNS = 2


def load_labels(source: object, samples: Samples) -> Labels:
    """Return the label of each of `samples`, in their order.

    source: "data" (what the samples' own items tell), "folder" (the top folder that a file lies in; the sorted names of all of them count
    from 0), "stem" (0007.jpg is 7), a .csv file of (file, label) with or without a heading, a .txt file of one label for each line, a .npy
    file, or an array of integers. The last three follow the order of all samples that there are, also where `samples` is only a part of
    them, and so do the class numbers of "folder".

    Raises:
        DataError: labels cannot be read, do not fit in number, or miss a sample.
    """
    if isinstance(source, str) and source == "data":
        return _from_data(samples)
    ids = [samples.source.name(index) for index in range(len(samples.source))]
    chosen = np.asarray(samples.indices, np.int64)
    if not isinstance(source, str | Path):
        return _in_order(as_array(source, "labels"), len(ids), where="labels")[chosen]
    if source == "folder":
        return _from_folders(ids)[chosen]
    if source == "stem":
        return np.asarray([_from_stem(ids[index]) for index in samples.indices], np.int64)
    path = Path(source)
    if path.suffix.lower() == ".csv":
        return _from_csv(path, [ids[index] for index in samples.indices])
    return _in_order(_read_values(path), len(ids), where=str(path))[chosen]


def _from_data(samples: Samples) -> Labels:
    source = samples.source
    found = [source.label(index) if isinstance(source, LabelledSource) else None for index in samples.indices]
    for index, label in zip(samples.indices, found, strict=True):
        where = f"labels 'data': {source.description}, {source.name(index)!r}"
        if label is None:
            raise DataError(
                f"{where}: found no label, expected (input, label) of a PyTorch module's data, or a dict with 'label': an integer each"
            )
        if label < 0:
            raise DataError(f"{where}: found label {label}, expected class indices from 0")
    return np.asarray(found, np.int64)


def _from_folders(ids: Sequence[str]) -> Labels:
    for name in ids:
        if len(PurePosixPath(name).parts) == 1:
            raise DataError(f"labels 'folder': found {name!r} in no class folder, expected every file in the folder of its class")
    folders = [PurePosixPath(name).parts[0] for name in ids]
    number = {folder: index for index, folder in enumerate(sorted(set(folders)))}
    return np.asarray([number[folder] for folder in folders], np.int64)


def _from_stem(name: str) -> int:
    return _label(PurePosixPath(name).stem, where=f"labels 'stem': file {name!r}")


def _from_csv(path: Path, ids: Sequence[str]) -> Labels:
    labels = _read_csv(path)
    by_file_name = Counter(PurePosixPath(file).name for file in labels)
    short = {PurePosixPath(file).name: label for file, label in labels.items() if by_file_name[PurePosixPath(file).name] == 1}
    found = [labels.get(name, short.get(PurePosixPath(name).name)) for name in ids]
    missing = [name for name, label in zip(ids, found, strict=True) if label is None]
    if missing:
        raise DataError(f"{path}: found no label for {missing[0]!r} and {len(missing) - 1} more samples, expected one for each; add lines")
    return np.asarray(found, np.int64)


def _read_csv(path: Path) -> dict[str, int]:
    labels: dict[str, int] = {}
    lines = [row for row in csv.reader(_text(path).splitlines()) if row]
    for number, row in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        if len(row) != _CSV_COLUMNS:
            raise DataError(f"{where}: found {len(row)} columns, expected 2: file,label")
        if number == 1 and not row[1].strip().lstrip("-").isdigit():
            continue  # a heading
        file, label = row[0].strip().replace("\\", "/").removeprefix("./"), _label(row[1], where=where)
        if labels.setdefault(file, label) != label:
            raise DataError(f"{where}: found {file!r} again with label {label}, expected {labels[file]} as before; keep one of the lines")
    return labels


def _read_values(path: Path) -> npt.NDArray[np.generic]:
    if path.suffix.lower() == ".txt":
        lines = [line for line in _text(path).splitlines() if line.strip()]
        return np.asarray([_label(line, where=f"{path}, line {n}") for n, line in enumerate(lines, start=1)], np.int64)
    if path.suffix.lower() != ".npy":
        raise DataError(f"labels: found {str(path)!r}, expected 'data', 'folder', 'stem', a .csv, .txt or .npy file")
    try:
        return as_array(np.load(path, allow_pickle=False), str(path))
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error}), expected an array of integers; save it with np.save") from error


def _in_order(values: npt.NDArray[np.generic], count: int, *, where: str) -> Labels:
    if values.dtype.kind not in "iu" or values.ndim != 1:
        raise DataError(f"{where}: found {values.dtype} of shape {values.shape}, expected a vector of integers, one label for each sample")
    if len(values) != count:
        raise DataError(f"{where}: found {len(values)} labels, expected {count}: one for each sample, in their order")
    if count and int(values.min()) < 0:
        raise DataError(f"{where}: found label {values.min()}, expected class indices from 0")
    return values.astype(np.int64)


def _label(text: str, *, where: str) -> int:
    try:
        label = int(text.strip())
    except ValueError:
        label = -1
    if label < 0:
        raise DataError(f"{where}: found {text.strip()!r}, expected a class index from 0")
    return label


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}), expected a text file") from error
