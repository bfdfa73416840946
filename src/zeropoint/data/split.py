"""Divide samples into those that calibrate and those that, held out, measure."""

from __future__ import annotations

from zeropoint.data.samples import Samples
from zeropoint.errors import RecipeError

_FEWEST_HELD_OUT = 2  # one sample says nothing about how far samples differ


def split(samples: Samples, n_calibration: int, n_evaluation: int) -> tuple[Samples, Samples]:
    """Divide `samples` into (calibration, evaluation), without overlap and without chance.

    Calibration takes up to `n_calibration` samples, evenly spread over their order, so that a folder sorted by class gives every
    class; evaluation up to `n_evaluation` of those left, evenly spread too. Where fewer than two are left, evaluation is empty.

    Raises:
        RecipeError: a number is less than 1.

    Example:
        >>> import numpy as np
        >>> from zeropoint.data import InputInfo, open_data
        >>> samples = open_data(np.zeros((10, 2)), [InputInfo("x", np.dtype("f4"), (None, 2))])
        >>> [part.indices for part in split(samples, 3, 2)]
        [(1, 5, 8), (2, 7)]
    """
    for name, count in (("n_calibration", n_calibration), ("n_evaluation", n_evaluation)):
        if count < 1:
            raise RecipeError(f"{name}: found {count}, expected at least 1")
    chosen = spread(len(samples), n_calibration)
    taken = set(chosen)
    left = [position for position in range(len(samples)) if position not in taken]
    held_out = [left[i] for i in spread(len(left), n_evaluation)] if len(left) >= _FEWEST_HELD_OUT else []
    return samples.select(chosen), samples.select(held_out)


def spread(total: int, count: int) -> list[int]:
    """Return up to `count` different positions of `total`: the middles of equal runs, floor((2i + 1) * total / (2 * count)).

    Example:
        >>> spread(10, 3)
        [1, 5, 8]
    """
    count = min(count, total)
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]
