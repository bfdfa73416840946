"""How far an array is from its reference: error measures, accumulated in float64.

A NaN in either input makes every measure NaN; so does an infinity where no difference or angle can be told. Neither is hidden.
Sums are numpy's own pairwise ones and not BLAS's, whose last bits depend on the number of threads.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from zeropoint.errors import DataError
from zeropoint.numerics.affine import Range

Array64 = npt.NDArray[np.float64]


def mse(reference: npt.ArrayLike, actual: npt.ArrayLike) -> float:
    """Return the mean squared error.

    Raises:
        DataError: the shapes differ, or there are no elements.

    Example:
        >>> mse([1.0, 2.0], [1.0, 4.0])
        2.0
    """
    ref, act = _paired(reference, actual, measure="mse")
    return _noise(ref, act) / ref.size


def sqnr_db(reference: npt.ArrayLike, actual: npt.ArrayLike) -> float:
    """Return the signal-to-quantization-noise ratio in decibels: 10 log10(sum reference^2 / sum (actual - reference)^2).

    Equal arrays give inf, all-zero ones too; an all-zero reference with any error gives -inf.

    Raises:
        DataError: the shapes differ, or there are no elements.

    Example:
        >>> round(sqnr_db([1.0, -1.0], [1.1, -1.1]), 6)
        20.0
    """
    ref, act = _paired(reference, actual, measure="sqnr_db")
    signal, noise = _dot(ref, ref), _noise(ref, act)
    return math.nan if math.isnan(noise) else decibels(signal, noise)


def decibels(signal: float, noise: float) -> float:
    """Return the ratio of two energies in decibels: inf without noise, -inf without a signal, NaN where both are infinite.

    Example:
        >>> decibels(100.0, 1.0), decibels(0.0, 0.0), decibels(0.0, 1.0)
        (20.0, inf, -inf)
    """
    if noise == 0.0:
        return math.inf
    return 10.0 * (math.log10(signal) - math.log10(noise)) if signal > 0.0 else -math.inf


def cosine(reference: npt.ArrayLike, actual: npt.ArrayLike) -> float:
    """Return the cosine of the angle between the two arrays, taken as vectors: 1 is the same direction, -1 the opposite one.

    Two all-zero arrays give 1, one all-zero array gives 0.

    Raises:
        DataError: the shapes differ, or there are no elements.

    Example:
        >>> round(cosine([1.0, 0.0], [2.0, 2.0]), 6)
        0.707107
    """
    ref, act = _paired(reference, actual, measure="cosine")
    ref_norm, act_norm = math.sqrt(_dot(ref, ref)), math.sqrt(_dot(act, act))
    if ref_norm == 0.0 or act_norm == 0.0:
        return math.nan if math.isnan(ref_norm + act_norm) else float(ref_norm == act_norm)
    return float(np.clip(_dot(ref, act) / ref_norm / act_norm, -1.0, 1.0))


def max_error(reference: npt.ArrayLike, actual: npt.ArrayLike) -> float:
    """Return the largest absolute difference.

    Raises:
        DataError: the shapes differ, or there are no elements.

    Example:
        >>> max_error([1.0, 2.0], [0.0, 4.0])
        2.0
    """
    ref, act = _paired(reference, actual, measure="max_error")
    return float(np.abs(_difference(ref, act)).max())


def clipped_fraction(x: npt.ArrayLike, bounds: Range) -> float:
    """Return the fraction of the elements of `x` that lie outside `bounds`, its ends being inside.

    Raises:
        DataError: there are no elements.

    Example:
        >>> clipped_fraction([-2.0, -1.0, 0.0, 1.0], Range(-1.0, 1.0))
        0.25
    """
    values = _flat64(x)
    _check_not_empty(values, measure="clipped_fraction")
    if np.isnan(values).any():
        return math.nan
    return float(np.count_nonzero((values < bounds.lo) | (values > bounds.hi)) / values.size)


def _paired(reference: npt.ArrayLike, actual: npt.ArrayLike, *, measure: str) -> tuple[Array64, Array64]:
    if np.shape(reference) != np.shape(actual):
        raise DataError(f"{measure}: found shapes {np.shape(reference)} (reference) and {np.shape(actual)} (actual), expected the same")
    ref = _flat64(reference)
    _check_not_empty(ref, measure=measure)
    return ref, _flat64(actual)


def _flat64(x: npt.ArrayLike) -> Array64:
    return np.asarray(x, np.float64).reshape(-1)


def _check_not_empty(values: Array64, *, measure: str) -> None:
    if values.size == 0:
        raise DataError(f"{measure}: found an array without elements, expected at least one; leave empty tensors out")


def _difference(ref: Array64, act: Array64) -> Array64:
    with np.errstate(invalid="ignore"):  # inf - inf is NaN, as the module promises
        return act - ref


def _noise(ref: Array64, act: Array64) -> float:
    difference = _difference(ref, act)
    return _dot(difference, difference)


def _dot(a: Array64, b: Array64) -> float:
    with np.errstate(invalid="ignore"):  # 0 * inf is NaN, as the module promises
        return float(np.sum(a * b))
