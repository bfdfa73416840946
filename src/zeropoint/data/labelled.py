"""Items that were made ready for a network: arrays by the name of its inputs, and the label of each sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zeropoint.data.inputs import Array


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """An item: its arrays by the name of the input, of one sample or of several along axis 0, and their classes (None: it tells none)."""

    arrays: Mapping[str, Array]
    labels: npt.NDArray[np.int64] | None


@dataclass(frozen=True, slots=True, eq=False)
class ReadyItems:
    """Items that are read in order. name: what messages and plans call them. each: begins to read them."""

    name: str
    each: Callable[[], Iterator[Labelled]]

    def __iter__(self) -> Iterator[Labelled]:
        """Read the items one after the other."""
        return self.each()


@dataclass(frozen=True, slots=True, eq=False)
class ReadyIndex:
    """Items of a data set that is asked for each by its index. ask: makes the item at an index."""

    name: str
    length: int
    ask: Callable[[int], Labelled]

    def __len__(self) -> int:
        """How many items there are."""
        return self.length

    def __getitem__(self, index: int) -> Labelled:
        """Ask for one item."""
        return self.ask(index)
