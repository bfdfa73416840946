"""What a network wants at its inputs, and which axis of them counts samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Feed = dict[str, Array]  # input name -> array of the network's full rank, batch axis included


@dataclass(frozen=True, slots=True)
class InputInfo:
    """One input of a network: `shape` is its full shape, batch axis included, with None for a dynamic axis."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...]

    def takes(self, shape: Sequence[int]) -> bool:
        """Say whether an array of `shape` fits."""
        return len(shape) == len(self.shape) and all(own in (None, size) for own, size in zip(self.shape, shape, strict=True))


@dataclass(frozen=True, slots=True)
class BatchAxis:
    """Which inputs have samples along axis 0 (`names`), and how many samples a feed must hold (`size`, None: any number)."""

    names: frozenset[str]
    size: int | None


def batch_axis(inputs: Sequence[InputInfo]) -> BatchAxis:
    """Find the inputs whose axis 0 counts samples.

    Where an axis 0 is dynamic, the inputs whose axis 0 is dynamic are batched. Otherwise all inputs are, if they agree on its
    length and are not all vectors; if not, those whose axis 0 is 1. As soon as one input has no batch axis a feed holds one sample,
    since what that input is given must hold for the whole feed.

    Example:
        >>> image, state = InputInfo("x", np.dtype("f4"), (1, 3, 8, 8)), InputInfo("h", np.dtype("f4"), (2, 1, 16))
        >>> batch_axis([image, state])
        BatchAxis(names=frozenset({'x'}), size=1)
    """
    leading = {info.shape[:1] for info in inputs}
    size: int | None = 1
    if (None,) in leading:
        size = None
    elif len(leading) == 1 and any(len(info.shape) > 1 for info in inputs):
        size = next(iter(leading))[0]
    names = frozenset(info.name for info in inputs if info.shape[:1] == (size,))
    return BatchAxis(names, size if len(names) == len(inputs) else 1)


def shape_text(shape: Sequence[int | str | None]) -> str:
    """Write a shape for a message: a dynamic axis is '?'.

    Example:
        >>> shape_text((None, 3, 8, 8))
        '(?, 3, 8, 8)'
    """
    return "(" + ", ".join("?" if n is None else str(n) for n in shape) + ("," if len(shape) == 1 else "") + ")"
