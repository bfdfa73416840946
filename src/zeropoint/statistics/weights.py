"""Ranges of weights: all of the data is at hand, so the error is measured and not predicted."""

from __future__ import annotations

import math
from collections.abc import Callable
from ctypes import c_double, c_int64, c_void_p
from typing import Literal

import numpy as np
import numpy.typing as npt

from zeropoint.errors import DataError, RecipeError
from zeropoint.native import library
from zeropoint.numerics.affine import checked_axis, qparams_from_range
from zeropoint.numerics.spec import PerBlock, PerChannel, PerTensor, Spec

Array32 = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

COARSE = 2.0 ** (-np.arange(17) / 4.0)  # shares of the min-max range, down to 1/16
NEARBY = np.linspace(COARSE[1], 1.0 / COARSE[1], 10)[1:-1]  # of the best coarse share: up to its neighbours, without them
GAIN = 0.9999  # errors are summed in float32 first: what is less of a gain is none
LANES = 16  # rows are filled up with zeros, which have no error, to a multiple of it
FLUSHED = 512  # elements whose errors are added in float32, before those sums are added in float64
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
    if solver == "mse" and rows.size:
        share = _best_share(_filled(rows), lo, hi, spec=spec)
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
    lo, hi = rows.min(axis=1, initial=0.0).astype(np.float64), rows.max(axis=1, initial=0.0).astype(np.float64)
    if not np.isfinite(hi - lo).all():  # NaN, too, is passed on
        raise DataError("weight: found NaN or infinity in it, expected numbers; look at how the network was trained or exported")
    if spec.symmetric and spec.format.signed:
        hi = np.maximum(hi, -lo)
        lo = -hi
    return lo, hi


def _filled(rows: Array32) -> Array32:
    """Return the rows with zeros behind, (rows, n) with n a multiple of the lanes."""
    height, length = rows.shape
    if length % LANES == 0:
        return np.ascontiguousarray(rows)
    filled = np.zeros((height, -(-length // LANES) * LANES), np.float32)
    filled[:, :length] = rows
    return filled


def _best_share(rows: Array32, lo: Array64, hi: Array64, *, spec: Spec) -> Array64:
    """Return for each row the share of [lo, hi] that has the least squared error, 1 where none has a smaller one."""
    best = _least(rows, lo, hi, np.broadcast_to(COARSE, (len(rows), COARSE.size)), spec=spec)[:, None]
    return _least(rows, lo, hi, np.hstack([best, np.minimum(best * NEARBY, 1.0)]), spec=spec)


def _least(rows: Array32, lo: Array64, hi: Array64, shares: Array64, *, spec: Spec) -> Array64:
    """Return for each row that of its `shares` (rows, T) which has the least error; an earlier one unless there is a gain."""
    # Any array of ranges will do, and what is per block may have any shape.
    qparams = qparams_from_range(lo[:, None] * shares, hi[:, None] * shares, spec=spec.with_granularity(PerBlock(1, 1)))
    zero_point = qparams.zero_point.astype(np.float32)
    candidates = np.stack([qparams.scale, spec.qmin - zero_point, spec.qmax - zero_point], axis=-1)
    found = least_error(rows, candidates)
    return np.take_along_axis(shares, found[:, None], axis=1)[:, 0]


def least_error_in_numpy(rows: Array32, candidates: Array32) -> Indices:
    """Return which of each row's candidates has the least squared error, int64 (rows,); an earlier one unless there is a gain.

    rows: (rows, n), n a multiple of the lanes; candidates: (rows, T, 3) of scale, and lowest and highest code less the zero point.
    """
    best = np.zeros(len(rows), np.int64)
    height = max(1, BLOCK // rows.shape[1])
    for start in range(0, len(rows), height):
        part = slice(start, start + height)
        least = _squared_errors(rows[part], candidates[part, 0])
        for i in range(1, candidates.shape[1]):
            errors = _squared_errors(rows[part], candidates[part, i])
            better = errors < GAIN * least
            best[part][better], least[better] = i, errors[better]
    return best


def least_error_compiled(rows: Array32, candidates: Array32) -> Indices:
    """Return the same, to the bit, from compiled code."""
    assert library is not None
    best = np.zeros(len(rows), np.int64)
    places = [c_void_p(array.ctypes.data) for array in (rows, candidates, best)]
    sizes = [c_int64(size) for size in (*rows.shape, candidates.shape[1])]
    library.zeropoint_least_error(places[0], *sizes[:2], places[1], sizes[2], c_double(GAIN), places[2])
    return best


least_error: Callable[[Array32, Array32], Indices] = least_error_in_numpy if library is None else least_error_compiled


def _squared_errors(rows: Array32, candidate: Array32) -> Array64:  # (rows, n), (rows, 3)
    """Return the squared error of each row, summed over its elements in lanes."""
    scale, first, last = (column[:, None] for column in candidate.T)
    t = rows * (np.float32(1.0) / scale)
    error = np.maximum(t, first)
    np.minimum(error, last, out=error)
    np.rint(error, out=error)
    error -= t
    error *= error
    whole = rows.shape[1] // FLUSHED * FLUSHED
    # Along an axis that is not the last one numpy adds one after the other.
    flushed = error[:, :whole].reshape(len(rows), whole // FLUSHED, FLUSHED // LANES, LANES).sum(axis=2)
    rest = error[:, whole:].reshape(len(rows), 1, -1, LANES).sum(axis=2)
    sums = np.concatenate([flushed, rest], axis=1).astype(np.float64).sum(axis=1)
    while sums.shape[1] > 1:
        sums = sums[:, : sums.shape[1] // 2] + sums[:, sums.shape[1] // 2 :]
    return np.asarray(sums[:, 0] * np.square(scale[:, 0].astype(np.float64)))
