"""The mean of each channel, from sums that are exact and so merge to the same bits whatever the split of the data and the order."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_int64, c_void_p
from dataclasses import dataclass
from threading import Lock

import numpy as np
import numpy.typing as npt

from zeropoint.errors import DataError
from zeropoint.native import library
from zeropoint.statistics.counting import as_float32

Array32 = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]
Limbs = npt.NDArray[np.int64]

LIMB_BITS = 16
SMALLEST_EXPONENT = -172  # of the last of 24 mantissa bits, for float32's smallest number as frexp splits it
LIMBS = 19  # enough for 2**128, with room above for the carries of 2**28 rows
MANTISSA_BITS = 24
MOST_ROWS = 1 << 13  # added at once: with digits of 24 + 15 bits their sum stays below 2**53, where float64 is exact
MOST_UNCARRIED = 1 << 22  # rows: with as many digits of 39 bits int64 has room to spare


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


def observe_rows(means: npt.ArrayLike) -> ChannelSums:
    """Return the sums of `means` (rows, channels), taken as float32; rows are left out that hold NaN or infinity.

    Example:
        >>> observe_rows([[1.0, 2.0], [3.0, 6.0]]).means
        array([2., 4.])
    """
    observation = ChannelObservation(np.shape(means)[1])
    observation.add(means)
    return observation.sums()


class ChannelObservation:
    """Sums in the making: `add` rows from any number of threads, then take the `sums` of all of them."""

    def __init__(self, channels: int) -> None:
        self._lock = Lock()
        self._limbs = np.zeros((LIMBS, channels), np.int64)
        self._rows = self._uncarried = 0

    def add(self, means: npt.ArrayLike) -> None:
        """Take in `means` (rows, channels).

        Raises:
            DataError: there are not as many channels as there should be.
        """
        rows = as_float32(means)
        if rows.shape[1] != self._limbs.shape[1]:
            raise _unlike(self._limbs.shape[1], rows.shape[1])
        with self._lock:
            for start in range(0, len(rows), MOST_ROWS):
                self._rows += add_rows(rows[start : start + MOST_ROWS], self._limbs)
            self._uncarried += len(rows)
            if self._uncarried > MOST_UNCARRIED:
                _carry(self._limbs.T)
                self._uncarried = 0

    def sums(self) -> ChannelSums:
        """Return the sums of what was added so far."""
        with self._lock:
            return sums_of(self._rows, self._limbs)


def sums_of(rows: int, limbs: Limbs) -> ChannelSums:
    """Return the sums of so many finite rows from their digits, int64 (19, channels), which need not be carried yet."""
    return ChannelSums(rows, _carried(limbs.T.copy()))


def add_rows_in_numpy(rows: Array32, limbs: Limbs) -> int:
    """Add the finite ones of `rows` (rows, channels), at most 8192, to `limbs` (19, channels), and return how many they are."""
    rows = rows[np.isfinite(rows).all(axis=1)]
    fraction, exponent = np.frexp(rows)
    position = exponent.astype(np.int64) - MANTISSA_BITS - SMALLEST_EXPONENT
    digits = np.ldexp(fraction.astype(np.float64), MANTISSA_BITS + position % LIMB_BITS)
    place = np.where(digits == 0.0, 0, position // LIMB_BITS) * rows.shape[1] + np.arange(rows.shape[1])
    limbs += np.bincount(place.reshape(-1), digits.reshape(-1), limbs.size).reshape(limbs.shape).astype(np.int64)
    return len(rows)


def add_rows_compiled(rows: Array32, limbs: Limbs) -> int:
    """Add the same, to the same sums once they are carried, in compiled code."""
    assert library is not None
    count, channels = rows.shape
    return int(library.zeropoint_add_rows(c_void_p(rows.ctypes.data), c_int64(count), c_int64(channels), c_void_p(limbs.ctypes.data)))


add_rows: Callable[[Array32, Limbs], int] = add_rows_in_numpy if library is None else add_rows_compiled


def merge_channels(a: ChannelSums, b: ChannelSums) -> ChannelSums:
    """Return the sums of what `a` and `b` saw together: associative and commutative.

    Raises:
        DataError: they have not the same number of channels.
    """
    if len(a.limbs) != len(b.limbs):
        raise _unlike(len(a.limbs), len(b.limbs))
    return ChannelSums(a.rows + b.rows, _carried(a.limbs + b.limbs))


def _unlike(some: int, others: int) -> DataError:
    return DataError(f"channel means: found {some} and {others} channels, expected the same number in every sample")


def _carried(limbs: Limbs) -> Limbs:
    _carry(limbs)
    limbs.flags.writeable = False
    return limbs


def _carry(limbs: Limbs) -> None:
    for place in range(LIMBS - 1):
        limbs[:, place + 1] += limbs[:, place] >> LIMB_BITS
        limbs[:, place] &= (1 << LIMB_BITS) - 1
