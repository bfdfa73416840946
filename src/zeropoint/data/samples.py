"""The samples of a calibration or an evaluation: lazy, re-iterable, sliceable, checked against the network as they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, overload, runtime_checkable

from zeropoint.data.fit import fit_sample
from zeropoint.data.inputs import Feed, InputInfo, batch_axis
from zeropoint.errors import DataError


class Source(Protocol):
    """Where samples come from: any index, any number of times, the same sample each time."""

    @property
    def description(self) -> str:
        """What it is, for people: the place, the number of samples, the preprocessing."""

    def __len__(self) -> int:
        """How many samples there are."""

    def name(self, index: int) -> str:
        """The name of a sample for messages and labels: a file's path below its folder, or a place in an array."""

    def sample(self, index: int) -> Feed:
        """Read one sample: every input, with 1 along a batch axis; type and values are checked by `Samples`. Any thread may ask."""


@runtime_checkable
class LabelledSource(Protocol):
    """A source whose items may tell their class themselves."""

    def label(self, index: int) -> int | None:
        """The class of a sample; None where its item tells none."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """A choice of samples of one source, for one network: iterating or indexing reads them as feeds of one sample each.

    Example:
        >>> import numpy as np
        >>> from zeropoint.data import InputInfo, open_data
        >>> samples = open_data(np.zeros((5, 2)), [InputInfo("x", np.dtype("f4"), (None, 2))])
        >>> len(samples[1:4]), samples[0]["x"].shape
        (3, (1, 2))
    """

    source: Source
    inputs: tuple[InputInfo, ...]
    indices: tuple[int, ...]  # into the source

    @property
    def ids(self) -> tuple[str, ...]:
        """The names of the samples, in order."""
        return tuple(self.source.name(index) for index in self.indices)

    @property
    def description(self) -> str:
        """What these samples are, for people."""
        return f"{len(self)} of {len(self.source)} samples of {self.source.description}"

    def __len__(self) -> int:
        """How many samples are chosen."""
        return len(self.indices)

    def __iter__(self) -> Iterator[Feed]:
        """Read the samples one after the other."""
        return (self[position] for position in range(len(self)))

    @overload
    def __getitem__(self, position: int) -> Feed: ...
    @overload
    def __getitem__(self, position: slice) -> Samples: ...
    def __getitem__(self, position: int | slice) -> Feed | Samples:
        """Read the sample at `position`, or choose the samples of a slice without reading them.

        Raises:
            DataError: the sample cannot be read or does not fit the network.
        """
        if isinstance(position, slice):
            return replace(self, indices=self.indices[position])
        index = self.indices[position]
        where = f"sample {self.source.name(index)!r}"
        return fit_sample(self.source.sample(index), self.inputs, batch=batch_axis(self.inputs), where=where)

    def select(self, positions: Sequence[int]) -> Samples:
        """Choose samples by their positions in this choice, in that order, as a benchmark with a fixed split does.

        Raises:
            DataError: a position lies outside.
        """
        outside = [p for p in positions if not 0 <= p < len(self)]
        if outside:
            raise DataError(f"select: found position {outside[0]}, expected 0 to {len(self) - 1} for {self.description}")
        return replace(self, indices=tuple(self.indices[p] for p in positions))


def all_samples(source: Source, inputs: Sequence[InputInfo]) -> Samples:
    """Choose every sample of a source.

    Raises:
        DataError: there is none.
    """
    if len(source) == 0:
        raise DataError(f"{source.description}: found no samples, expected at least one; give data that the network would see in use")
    return Samples(source, tuple(inputs), tuple(range(len(source))))
