"""The mean of each channel, from sums that are exact and so merge to the same bits whatever the split of the data and the order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from threading import Lock

import numpy as np
import numpy.typing as npt

from zeropoint.errors import DataError

Array64 = npt.NDArray[np.float64]
Limbs = npt.NDArray[np.int64]
Rows = npt.NDArray[np.generic]

LIMB_BITS = 16
SMALLEST_EXPONENT = -172  # of the last of 24 mantissa bits, for float32's smallest number as frexp splits it
LIMBS = 19  # enough for 2**128, with room above for the carries of 2**28 rows
MANTISSA_BITS = 24
MOST_ROWS = 1 << 13  # added at once: with digits of 24 + 15 bits their sum stays below 2**53, where float64 is exact
MOST_WAITING = 64  # rows that an observation holds


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
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        rows = np.asarray(means, np.float32)
    rows = rows[np.isfinite(rows).all(axis=1)]
    channels = rows.shape[1]
    limbs = np.zeros((channels, LIMBS), np.int64)
    for start in range(0, len(rows), MOST_ROWS):
        fraction, exponent = np.frexp(rows[start : start + MOST_ROWS])
        position = exponent.astype(np.int64) - MANTISSA_BITS - SMALLEST_EXPONENT
        digits = np.ldexp(fraction.astype(np.float64), MANTISSA_BITS + position % LIMB_BITS)
        place = np.where(digits == 0.0, 0, position // LIMB_BITS) + np.arange(channels) * LIMBS
        limbs += np.bincount(place.reshape(-1), digits.reshape(-1), limbs.size).reshape(limbs.shape).astype(np.int64)
    return ChannelSums(len(rows), _carried(limbs))


class ChannelObservation:
    """Sums in the making: `add` rows from any number of threads, then take the `sums` of all of them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: list[Rows] = []  # many rows are added at once in little more time than one
        self._summed: ChannelSums | None = None

    def add(self, means: Rows) -> None:
        """Take in `means` (rows, channels).

        Raises:
            DataError: there are not as many channels as before.
        """
        with self._lock:
            self._waiting.append(np.array(means))  # a view would hold the memory that the runtime means to use again
            if sum(map(len, self._waiting)) >= MOST_WAITING:
                self._sum_up()

    def sums(self) -> ChannelSums | None:
        """Return the sums of what was added so far, None where nothing was.

        Raises:
            DataError: some rows had other numbers of channels.
        """
        with self._lock:
            self._sum_up()
            return self._summed

    def _sum_up(self) -> None:
        waiting, self._waiting = self._waiting, []
        widths = {rows.shape[1]: None for rows in waiting}
        parts = [observe_rows(np.concatenate([rows for rows in waiting if rows.shape[1] == width])) for width in widths]
        if self._summed is not None:
            parts.append(self._summed)
        self._summed = reduce(merge_channels, parts) if parts else None


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
