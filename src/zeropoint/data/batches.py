"""Join consecutive samples into the batches that a network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from zeropoint.data.inputs import Feed, batch_axis
from zeropoint.data.samples import Samples
from zeropoint.errors import DataError, RecipeError
from zeropoint.notes import Note


def feeds(samples: Samples, batch_size: int, *, on_note: Callable[[Note], None]) -> Iterator[Feed]:
    """Yield the samples in order, as batches of up to `batch_size`, reading each sample when its batch is asked for.

    Samples of another shape start a new batch. Where the network's batch axis is fixed, its length is used instead of `batch_size`,
    and samples that fill no whole batch are left out, of which `on_note` is told at the end.

    Raises:
        RecipeError: `batch_size` is less than 1.
        DataError: a sample cannot be read or does not fit, or the network's fixed batch could not be filled once.

    Example:
        >>> import numpy as np
        >>> from zeropoint.data import InputInfo, open_data
        >>> samples = open_data(np.zeros((5, 2)), [InputInfo("x", np.dtype("f4"), (None, 2))])
        >>> [feed["x"].shape for feed in feeds(samples, 2, on_note=print)]
        [(2, 2), (2, 2), (1, 2)]
    """
    if batch_size < 1:
        raise RecipeError(f"batch_size: found {batch_size}, expected at least 1")
    fixed = batch_axis(samples.inputs).size
    return _free_batches(samples, batch_size) if fixed is None else _fixed_batches(samples, fixed, on_note=on_note)


def feed_count(samples: Samples, batch_size: int) -> int:
    """Return how many batches `feeds` gives of samples of one shape."""
    fixed = batch_axis(samples.inputs).size
    return -(-len(samples) // batch_size) if fixed is None else len(samples) // fixed


def fed(samples: Samples) -> Samples:
    """Return those of `samples` that `feeds` gives, in order: all but those that fill no batch of a network whose batch axis is fixed.

    Raises:
        DataError: a sample cannot be read or does not fit the network.
    """
    size = batch_axis(samples.inputs).size
    if size is None or size == 1:
        return samples
    positions: list[int] = []
    start = 0
    for group in _groups(samples, size):
        positions += range(start, start + size) if len(group) == size else ()
        start += len(group)
    return samples.select(positions)


def _free_batches(samples: Samples, size: int) -> Iterator[Feed]:
    return (_joined(group) for group in _groups(samples, size))


def _fixed_batches(samples: Samples, size: int, *, on_note: Callable[[Note], None]) -> Iterator[Feed]:
    given = 0
    for group in _groups(samples, size):
        if len(group) == size:
            yield _joined(group)
            given += size
    dropped = len(samples) - given
    if dropped and not given:
        raise DataError(
            f"{samples.description}: found too few samples of one shape to fill a batch, expected at least {size}, which the network's "
            "batch axis is fixed to; give more samples, or export the network with a dynamic batch axis"
        )
    if dropped:
        on_note(Note(samples.source.description, f"{dropped} of {len(samples)} samples left out: they fill no batch of {size}", kind="run"))


def _groups(samples: Samples, size: int) -> Iterator[list[Feed]]:
    group: list[Feed] = []
    for feed in samples:
        if group and (len(group) == size or _shapes(feed) != _shapes(group[0])):
            yield group
            group = []
        group.append(feed)
    if group:
        yield group


def _shapes(feed: Feed) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in feed.items()}


def _joined(group: list[Feed]) -> Feed:
    if len(group) == 1:
        return group[0]
    return {name: np.concatenate([feed[name] for feed in group]) for name in group[0]}
