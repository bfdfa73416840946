"""Ranges of weights: all of the data is at hand, so the error is measured and not predicted."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from zeropoint.errors import DataError, RecipeError
from zeropoint.numerics.affine import checked_axis, qparams_from_range
from zeropoint.numerics.spec import PerBlock, PerChannel, PerTensor, Spec

Array32 = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]

COARSE = 2.0 ** (-np.arange(17) / 4.0)  # shares of the min-max range, down to 1/16
NEARBY = np.linspace(COARSE[1], 1.0 / COARSE[1], 10)[1:-1]  # of the best coarse share: up to its neighbours, without them
GAIN = 0.9999  # errors are summed in float32 first: what is less of a gain is none
BLOCK = 1 << 15  # elements worked on at once: 128 KiB of float32, which stay in the cache


def weight_range(weight: npt.ArrayLike, spec: Spec, solver: Literal["mse", "minmax"] = "mse") -> tuple[Array64, Array64]:
    """Return the bounds lo and hi of each scale of `weight`: float64 of shape (), (channels,) or the blocked shape.

    "minmax" covers every value. "mse" shrinks that range to the share of least squared error, by the weights themselves: a coarse
    grid from 1 to 1/16, then a finer one around the best. It never has a larger error than min-max.

    Raises:
        DataError: the weight holds NaN or infinity.
        RecipeError: there is no such solver, or the shape does not fit the spec's granularity.

    Example:
        >>> from zeropoint.numerics.formats import FORMATS
        >>> spec = Spec(FORMATS["int8"], symmetric=True, granularity=PerChannel(0))
        >>> weight_range([[1.0, -2.0], [0.5, 0.0]], spec, "minmax")
        (array([-2. , -0.5]), array([2. , 0.5]))
    """
    if solver not in ("mse", "minmax"):
        raise RecipeError(f"weight solver: found {solver!r}, expected mse or minmax")
    with np.errstate(over="ignore"):  # what overflows float32 becomes an infinity, which is refused
        array = np.asarray(weight, np.float32)
    rows, shape = _rows(array, spec)
    lo, hi = _min_max(rows, spec)
    if solver == "mse":
        share = _best_share(rows, lo, hi, spec=spec)
        lo, hi = lo * share, hi * share
    return lo.reshape(shape), hi.reshape(shape)


def _rows(array: Array32, spec: Spec) -> tuple[Array32, tuple[int, ...]]:
    """Return the elements of each scale as a row, and the shape of the scales; blocks cut short by the end are filled with zeros."""
    shape = array.shape
    match spec.granularity:
        case PerTensor():
            return array.reshape(1, -1), ()
        case PerChannel(axis):
            moved = np.moveaxis(array, checked_axis(axis, shape), 0)
            return moved.reshape(moved.shape[0], math.prod(moved.shape[1:])), moved.shape[:1]
        case PerBlock(axis, size):
            axis = checked_axis(axis, shape)
            before, after, blocks = shape[:axis], shape[axis + 1 :], -(-shape[axis] // size)
            filled = np.zeros((*before, blocks * size, *after), np.float32)
            filled[(slice(None),) * axis + (slice(shape[axis]),)] = array
            by_block = np.moveaxis(filled.reshape(*before, blocks, size, *after), axis + 1, -1)
            return by_block.reshape(math.prod(by_block.shape[:-1]), size), by_block.shape[:-1]


def _min_max(rows: Array32, spec: Spec) -> tuple[Array64, Array64]:
    if not np.isfinite(rows).all():
        raise DataError("weight: found NaN or infinity in it, expected numbers; look at how the network was trained or exported")
    lo, hi = rows.min(axis=1, initial=0.0).astype(np.float64), rows.max(axis=1, initial=0.0).astype(np.float64)
    if spec.symmetric and spec.format.signed:
        hi = np.maximum(hi, -lo)
        lo = -hi
    return lo, hi


def _best_share(rows: Array32, lo: Array64, hi: Array64, *, spec: Spec) -> Array64:
    """Return for each row the share of [lo, hi] that has the least squared error, 1 where none has a smaller one."""
    best = np.ones(len(rows))
    height = max(1, BLOCK // max(1, rows.shape[1]))
    for start in range(0, len(rows), height):
        part = slice(start, start + height)
        best[part] = _search(rows[part], lo[part], hi[part], spec=spec)
    return best


def _search(rows: Array32, lo: Array64, hi: Array64, *, spec: Spec) -> Array64:
    best = _least(rows, lo, hi, np.broadcast_to(COARSE[:, None], (COARSE.size, len(rows))), spec=spec)
    return _least(rows, lo, hi, np.vstack([best, np.minimum(best * NEARBY[:, None], 1.0)]), spec=spec)


def _least(rows: Array32, lo: Array64, hi: Array64, shares: Array64, *, spec: Spec) -> Array64:
    """Return for each row that of its `shares` (candidates, rows) which has the least error; the first one unless there is a gain."""
    best: Array64 = shares[0]
    least = _squared_errors(rows, lo * shares[0], hi * shares[0], spec=spec)
    for share in shares[1:]:
        errors = _squared_errors(rows, lo * share, hi * share, spec=spec)
        better = errors < GAIN * least
        best, least = np.where(better, share, best), np.where(better, errors, least)
    return best


def _squared_errors(rows: Array32, lo: Array64, hi: Array64, *, spec: Spec) -> Array64:
    """Return the squared error of each row, summed over its elements, as the codes will have it."""
    qparams = qparams_from_range(lo, hi, spec=spec.with_granularity(PerChannel(0)))
    scale, zero_point = qparams.scale[:, None], qparams.zero_point.astype(np.float32)[:, None]
    t = rows / scale
    error = np.clip(np.rint(t), spec.qmin - zero_point, spec.qmax - zero_point)
    error -= t
    error *= error
    return np.asarray(error.sum(axis=1).astype(np.float64) * np.square(scale[:, 0].astype(np.float64)))
