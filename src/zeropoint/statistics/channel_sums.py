"""The mean of each channel, from sums that are exact and so merge to the same bits whatever the split of the data and the order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zeropoint.errors import DataError
from zeropoint.numerics.affine import checked_axis

Array64 = npt.NDArray[np.float64]
Limbs = npt.NDArray[np.int64]

LIMB_BITS = 16
SMALLEST_EXPONENT = -172  # of the last of 24 mantissa bits, for float32's smallest number as frexp splits it
LIMBS = 19  # enough for 2**128, with room above for the carries of 2**28 rows
MANTISSA_BITS = 24


@dataclass(frozen=True, slots=True, eq=False)
class ChannelSums:
    """A summary of the rows seen: the entries of a tensor along axis 0, each reduced to its mean over all axes but the channels'.

    rows: the finite ones. limbs: int64 (channels, 19), the sum of their means as digits to the base 2**16, the lowest first and worth
    2**-172; all but the last are in 0..65535, so that equal sums have equal digits.
    """

    rows: int
    limbs: Limbs

    def equals(self, other: ChannelSums) -> bool:
        """Say whether `other` is the same, bit for bit."""
        return self.rows == other.rows and np.array_equal(self.limbs, other.limbs)

    @property
    def means(self) -> Array64:
        """The mean of each channel over the rows: float64 (channels,), zeros where no row was seen."""
        # Of a negative sum only the last digit is negative: as floats the others would cancel against it.
        sign = np.where(self.limbs[:, -1:] < 0, -1, 1)
        worth = np.exp2(SMALLEST_EXPONENT + LIMB_BITS * np.arange(LIMBS, dtype=np.float64))
        return np.asarray((sign * _carried(sign * self.limbs) * worth).sum(axis=1) / max(1, self.rows))


def observe_channels(x: npt.NDArray[np.generic], axis: int) -> ChannelSums:
    """Return the sums of the array `x`, whose channels lie along `axis`; rows are left out that hold NaN, infinity or nothing.

    Raises:
        DataError: the channels lie along axis 0, which holds the rows.
        RecipeError: there is no such axis.

    Example:
        >>> observe_channels(np.array([[1.0, 2.0], [3.0, 6.0]]), axis=1).means
        array([2., 4.])
    """
    axis = checked_axis(axis, x.shape)
    if axis == 0:
        raise DataError(f"channel means: found the channels along axis 0 of an array of shape {x.shape}, expected another axis")
    limbs = np.zeros((x.shape[axis], LIMBS), np.int64)
    if x.size == 0:  # rows without elements have no means
        return ChannelSums(0, _carried(limbs))
    # Reduced a row at a time, whatever the number of rows: the order of additions inside a row is always the same.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        rows = np.ascontiguousarray(x, np.float32).reshape(x.shape[0], *_sizes(x.shape, axis))
        means = rows.mean(axis=3).mean(axis=1)  # (rows, channels)
    means = means[np.isfinite(means).all(axis=1)]
    fraction, exponent = np.frexp(means)
    position = exponent.astype(np.int64) - MANTISSA_BITS - SMALLEST_EXPONENT
    digits = np.ldexp(fraction.astype(np.float64), MANTISSA_BITS).astype(np.int64) << (position % LIMB_BITS)
    channel = np.broadcast_to(np.arange(x.shape[axis]), means.shape)
    np.add.at(limbs, (channel, np.where(digits == 0, 0, position // LIMB_BITS)), digits)
    return ChannelSums(len(means), _carried(limbs))


def _sizes(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """Elements before, along and behind the channels, in each row."""
    return int(np.prod(shape[1:axis])), shape[axis], int(np.prod(shape[axis + 1 :]))


def merge_channels(a: ChannelSums, b: ChannelSums) -> ChannelSums:
    """Return the sums of what `a` and `b` saw together: associative and commutative.

    Raises:
        DataError: they have not the same number of channels.
    """
    if len(a.limbs) != len(b.limbs):
        raise DataError(f"channel means: found {len(a.limbs)} and {len(b.limbs)} channels, expected the same number in every sample")
    return ChannelSums(a.rows + b.rows, _carried(a.limbs + b.limbs))


def _carried(limbs: Limbs) -> Limbs:
    for place in range(LIMBS - 1):
        limbs[:, place + 1] += limbs[:, place] >> LIMB_BITS
        limbs[:, place] &= (1 << LIMB_BITS) - 1
    limbs.flags.writeable = False
    return limbs
