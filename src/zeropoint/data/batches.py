"""Join consecutive samples into the batches that a network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from zeropoint.data.inputs import Feed, batch_axis
from zeropoint.data.samples import Samples
from zeropoint.errors import DataError, RecipeError
from zeropoint.notes import Note


@dataclass(frozen=True, slots=True, eq=False)
class Batches:
    """Samples in blocks of `size` consecutive ones, each read when it is asked for, in any order and by any number of threads."""

    samples: Samples
    size: int
    fixed: bool  # the network takes batches of this size and no other

    def __len__(self) -> int:
        """How many blocks there are."""
        return len(self.samples) // self.size if self.fixed else -(-len(self.samples) // self.size)

    def __iter__(self) -> Iterator[list[Feed]]:
        """Read block after block."""
        return (self[block] for block in range(len(self)))

    def __getitem__(self, block: int) -> list[Feed]:
        """Read a block: one batch, or one for each run of samples of one shape.

        Raises:
            DataError: a sample cannot be read or does not fit, or those of a batch of fixed size have not one shape.
        """
        feeds = [_joined([*group]) for _, group in groupby(self.samples[block * self.size : (block + 1) * self.size], key=_shapes)]
        if self.fixed and len(feeds) > 1:
            first, second = (_shapes(feed) for feed in feeds[:2])
            raise DataError(
                f"{self.samples.description}: batch {block}: found samples of {first} and of {second}, expected one shape, since the "
                f"network takes batches of {self.size}; sort the samples, or export the network with a dynamic batch axis"
            )
        return feeds

    @property
    def notes(self) -> tuple[Note, ...]:
        """What is left out."""
        dropped = len(self.samples) - len(fed(self.samples))
        if not dropped:
            return ()
        reason = f"{dropped} of {len(self.samples)} samples left out: they fill no batch of {self.size}"
        return (Note(self.samples.source.description, reason, kind="run"),)


def batches(samples: Samples, batch_size: int) -> Batches:
    """Divide `samples`, in order, into batches of up to `batch_size`, or of the length that the network's batch axis is fixed to.

    Raises:
        RecipeError: `batch_size` is less than 1.
        DataError: there are some, but not enough to fill the network's fixed batch once.

    Example:
        >>> import numpy as np
        >>> from zeropoint.data import InputInfo, open_data
        >>> samples = open_data(np.zeros((5, 2)), [InputInfo("x", np.dtype("f4"), (None, 2))])
        >>> [feed["x"].shape for block in batches(samples, 2) for feed in block]
        [(2, 2), (2, 2), (1, 2)]
    """
    if batch_size < 1:
        raise RecipeError(f"batch_size: found {batch_size}, expected at least 1")
    fixed = batch_axis(samples.inputs).size
    found = Batches(samples, batch_size if fixed is None else fixed, fixed=fixed is not None)
    if len(samples) and not len(found):
        raise DataError(
            f"{samples.description}: found too few samples to fill a batch, expected at least {found.size}, which the network's "
            "batch axis is fixed to; give more samples, or export the network with a dynamic batch axis"
        )
    return found


def feeds(samples: Samples, batch_size: int, *, on_note: Callable[[Note], None]) -> Iterator[Feed]:
    """Yield what `batches` gives, one batch after the other; `on_note` is told at the end what was left out.

    Raises:
        RecipeError, DataError: as `batches` and reading them do.
    """
    divided = batches(samples, batch_size)
    return _each(divided, on_note)


def _each(divided: Batches, on_note: Callable[[Note], None]) -> Iterator[Feed]:
    for block in divided:
        yield from block
    for note in divided.notes:
        on_note(note)


def feed_count(samples: Samples, batch_size: int) -> int:
    """Return how many batches `feeds` gives of samples of one shape."""
    fixed = batch_axis(samples.inputs).size
    return -(-len(samples) // batch_size) if fixed is None else len(samples) // fixed


def fed(samples: Samples) -> Samples:
    """Return those of `samples` that `feeds` gives, in order: all but those that fill no batch of a network whose batch axis is fixed."""
    size = batch_axis(samples.inputs).size
    return samples if size is None else samples[: len(samples) // size * size]


def _shapes(feed: Feed) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in feed.items()}


def _joined(group: list[Feed]) -> Feed:
    if len(group) == 1:
        return group[0]
    return {name: np.concatenate([feed[name] for feed in group]) for name in group[0]}
