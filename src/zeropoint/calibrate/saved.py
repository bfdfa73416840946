"""Statistics in a file: as far as a calibration has come, to go on from there, and all of them, to solve again without data.

The file is a .npz archive without Python objects: a JSON header, and the buckets, counts and sums of all tensors in a row. The same
statistics give the same bytes.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import reduce
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from zeropoint.errors import DataError
from zeropoint.graph.facts import Fact, Facts
from zeropoint.graph.store import write_bytes
from zeropoint.graph.taps import Taps
from zeropoint.statistics.channel_sums import LIMBS, ChannelSums
from zeropoint.statistics.network import NOTHING_SEEN, Statistics, merge_statistics
from zeropoint.statistics.tensor import TensorStatistic

FORMAT, VERSION = "zeropoint statistics", 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What statistics are of: they go on only from those of the same. data_sha256: of the samples' names and of what some hold."""

    model_sha256: str
    data: str
    data_sha256: str
    batch_size: int
    blocks: int
    provider: str
    zeropoint: str
    onnxruntime: str


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What was seen of some taps in the blocks of the data that are done."""

    taps: Taps
    done: frozenset[int] = frozenset()
    statistics: Statistics = NOTHING_SEEN

    def only(self, taps: Taps) -> Part:
        """Return what it knows of `taps`, which are among its own."""
        tensors, channels = self.statistics.tensors, self.statistics.channels
        known = Statistics({t: tensors[t] for t in taps.tensors if t in tensors}, {c: channels[c] for c in taps.channels if c in channels})
        return Part(taps, self.done, known)

    def grown(self, blocks: Iterable[int], seen: Statistics) -> Part:
        """Return it with what was seen in `blocks` merged in."""
        return Part(self.taps, self.done.union(blocks), merge_statistics(self.statistics, seen))


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """All that was seen so far; `facts` are the shapes of the network's tensors."""

    source: Source
    facts: Facts
    parts: tuple[Part, ...]

    def check_use(self, model_sha256: str, *, where: str) -> None:
        """Refuse to decide by what is not complete, or of another model.

        Raises:
            DataError: it is one of these.
        """
        if self.source.model_sha256 != model_sha256:
            raise DataError(
                f"{where}: found those of a model with SHA-256 {self.source.model_sha256}, expected {model_sha256}; give that model"
            )
        done = min((len(part.done) for part in self.parts), default=0)
        if done < self.source.blocks:
            raise DataError(
                f"{where}: found {done} of {self.source.blocks} batches in it, expected all; quantize with the same options and this "
                "checkpoint, which goes on from there"
            )

    @property
    def whole(self) -> Part:
        """All parts as one, with its tensors in the order of their names."""
        tensors = sorted(tensor for part in self.parts for tensor in part.taps.tensors)
        channels = sorted(channel for part in self.parts for channel in part.taps.channels)
        statistics = reduce(merge_statistics, (part.statistics for part in self.parts), NOTHING_SEEN)
        return Part(Taps(tuple(tensors), tuple(channels)), frozenset.intersection(*(part.done for part in self.parts)), statistics)


def save_statistics(saved: Saved, path: Path) -> None:
    """Write `saved` to `path`, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_bytes(path, to_bytes(saved))


def to_bytes(saved: Saved) -> bytes:
    """Return the bytes of the file."""
    parts = [(part, sorted(part.statistics.tensors.items()), sorted(part.statistics.channels.items())) for part in saved.parts]
    every = [statistic for _, tensors, _ in parts for _, statistic in tensors]
    sums = [found for _, _, channels in parts for _, found in channels]
    header = {
        "format": FORMAT,
        "version": VERSION,
        "source": asdict(saved.source),
        "facts": {name: [fact.dtype.name, list(fact.shape)] for name, fact in sorted(saved.facts.items())},
        "parts": [
            {
                "done": _ranges(part.done),
                "taps": asdict(part.taps),
                "tensors": [[name, *(getattr(seen, key) for key in NUMBERS), seen.buckets.size] for name, seen in tensors],
                "channels": [[name, axis, found.rows, len(found.limbs)] for (name, axis), found in channels],
            }
            for part, tensors, channels in parts
        ],
    }
    file = io.BytesIO()
    np.savez(
        file,
        header=np.frombuffer(json.dumps(header).encode(), np.uint8),
        buckets=np.concatenate([statistic.buckets for statistic in every] or [np.empty(0, np.uint16)]),
        counts=np.concatenate([statistic.counts for statistic in every] or [np.empty(0, np.int64)]),
        limbs=np.concatenate([found.limbs for found in sums] or [np.empty((0, LIMBS), np.int64)]),
    )
    return file.getvalue()


# What numpy and zipfile raise on broken files, depending on where they break.
BROKEN = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    IndexError,
    AttributeError,
    NotImplementedError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
NUMBERS = tuple(field.name for field in fields(TensorStatistic) if field.name not in ("buckets", "counts"))


def load_statistics(path: str | Path) -> Saved:
    """Read what `save_statistics` wrote.

    Raises:
        DataError: there is no such file, or it is none of these.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ValueError("a single array")
        with loaded as archive:
            arrays = {name: archive[name] for name in ("header", "buckets", "counts", "limbs")}
        header = json.loads(arrays["header"].tobytes())
        if (header["format"], header["version"]) != (FORMAT, VERSION):
            raise ValueError(f"format {header['format']!r}, version {header['version']!r}")
        return _parsed(header, arrays)
    except BROKEN as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(
            f"statistics {path}: cannot be read ({reason}); expected a file that `zeropoint quantize --checkpoint` wrote, whole"
        ) from None


def _parsed(header: dict[str, Any], arrays: dict[str, Any]) -> Saved:
    buckets, counts, limbs = arrays["buckets"], arrays["counts"], arrays["limbs"]
    if buckets.dtype != np.uint16 or counts.dtype != np.int64 or limbs.dtype != np.int64 or limbs.shape[1:] != (LIMBS,):
        raise ValueError("arrays of other types")
    for array in (buckets, counts, limbs):
        array.flags.writeable = False
    start = row = 0
    parts = []
    for part in header["parts"]:
        tensors, channels = {}, {}
        for name, *numbers, size in part["tensors"]:
            seen = dict(zip(NUMBERS, numbers, strict=True))
            tensors[name] = TensorStatistic(**seen, buckets=buckets[start : start + size], counts=counts[start : start + size])
            start += size
        for name, axis, rows, size in part["channels"]:
            channels[name, axis] = ChannelSums(rows, limbs[row : row + size])
            row += size
        done = frozenset(block for first, last in part["done"] for block in range(first, last + 1))
        taps = Taps(tuple(part["taps"]["tensors"]), tuple((name, axis) for name, axis in part["taps"]["channels"]))
        parts.append(Part(taps, done, Statistics(tensors, channels)))
    if (start, start, row) != (buckets.size, counts.size, len(limbs)):
        raise ValueError("arrays of other lengths than the header says")
    facts = {name: Fact(np.dtype(dtype), tuple(shape)) for name, (dtype, shape) in header["facts"].items()}
    return Saved(Source(**header["source"]), facts, tuple(parts))


def _ranges(blocks: frozenset[int]) -> list[list[int]]:
    """Return the blocks as runs [first, last]."""
    numbered = groupby(enumerate(sorted(blocks)), lambda pair: pair[1] - pair[0])
    runs: list[Sequence[int]] = [[block for _, block in run] for _, run in numbered]
    return [[run[0], run[-1]] for run in runs]
