"""What was seen in one tensor: a summary that merges to the same bits whatever the split of the data and the order.

The histogram's buckets are cut from float32's own leading bits (sign, 8 exponent bits, 7 mantissa bits), so their edges are the same
for every tensor and every batch: nothing is ever binned again, an outlier of any size costs one bucket, and buckets are 0.4 % to 0.8 %
wide relative to what they hold, which is no wider than a step of an 8-bit code at the end of its range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np
import numpy.typing as npt

from zeropoint.errors import DataError
from zeropoint.statistics.counting import KEYS, Tally, as_float32, count

Keys = npt.NDArray[np.uint16]
Counts = npt.NDArray[np.int64]

MAGNITUDE = np.uint16(0x7FFF)  # all of a key but its sign
NEGATIVE_ZERO = np.uint16(0x8000)
FIRST_NONFINITE = np.uint16(0x7F80)  # exponent 255: infinity, and NaN with any payload
MOST_PENDING = (1 << 32) - 1  # what one count of a tally can hold


@dataclass(frozen=True, slots=True, eq=False)
class TensorStatistic:
    """A summary of the elements seen, as float32 values.

    count: the finite ones; minimum, maximum: over those, exact, inf and -inf if there were none. nan_count, inf_count: the others.
    buckets: uint16, ascending, the upper half of the bit patterns seen; counts: int64, how often. Both signs of 0 are bucket 0, as is
    all that is below 2**-133, which no runtime tells from 0.
    """

    count: int
    minimum: float
    maximum: float
    nan_count: int
    inf_count: int
    buckets: Keys
    counts: Counts

    def equals(self, other: TensorStatistic) -> bool:
        """Say whether `other` is the same, bit for bit."""
        return (
            (self.count, self.minimum, self.maximum, self.nan_count, self.inf_count)
            == (other.count, other.minimum, other.maximum, other.nan_count, other.inf_count)
            and np.array_equal(self.buckets, other.buckets)
            and np.array_equal(self.counts, other.counts)
        )


def _frozen(count: int, bounds: tuple[float, float], others: tuple[int, int], keys: Keys, counts: Counts) -> TensorStatistic:
    keys.flags.writeable = counts.flags.writeable = False
    return TensorStatistic(count, *bounds, *others, keys, counts)


EMPTY = _frozen(0, (math.inf, -math.inf), (0, 0), np.empty(0, np.uint16), np.empty(0, np.int64))


def observe(x: npt.ArrayLike) -> TensorStatistic:
    """Return the statistic of the array `x`, of any shape and any real dtype; what overflows float32 counts as infinite.

    Raises:
        DataError: `x` does not hold numbers.

    Example:
        >>> seen = observe([[-1.0, 0.0], [2.5, float("nan")]])
        >>> seen.count, seen.minimum, seen.maximum, seen.nan_count
        (3, -1.0, 2.5, 1)
    """
    observation = Observation()
    observation.add(x)
    return observation.statistic()


class Observation:
    """A statistic in the making: `add` arrays from any number of threads, then take the `statistic` of all of them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._tally = Tally()
        self._pending = 0  # elements in the tally, whose counts are 32 bits wide
        self._counted = EMPTY

    def add(self, x: npt.ArrayLike) -> None:
        """Take in the array `x`, of any shape and any real dtype; what overflows float32 counts as infinite.

        Raises:
            DataError: `x` does not hold numbers.
        """
        values = _flat32(x)
        with self._lock:
            for start in range(0, values.size, MOST_PENDING):
                part = values[start : start + MOST_PENDING]
                if self._pending + part.size > MOST_PENDING:
                    self._counted, self._tally, self._pending = merge(self._counted, _counted(self._tally)), Tally(), 0
                count(part, self._tally)
                self._pending += part.size

    def statistic(self) -> TensorStatistic:
        """Return the statistic of what was added so far."""
        with self._lock:
            return merge(self._counted, _counted(self._tally))


def _flat32(x: npt.ArrayLike) -> npt.NDArray[np.float32]:
    array = np.asarray(x)
    if array.dtype.kind in "cbOSUmM" or array.dtype.type is np.void:  # bfloat16 and its like are of kind V too
        raise DataError(f"statistic: found an array of {array.dtype}, expected real numbers; convert it to float32 first")
    return as_float32(array).reshape(-1)


def _counted(tally: Tally) -> TensorStatistic:
    lo, hi = map(float, tally.bounds)
    nan_count, inf_count = map(int, tally.others)
    return from_counts(tally.slots[:, 0].astype(np.int64) + tally.slots[:, 1], (lo, hi), (nan_count, inf_count))


def from_counts(dense: Counts, bounds: tuple[float, float], others: tuple[int, int]) -> TensorStatistic:
    """Return the statistic that another device has counted.

    dense: int64 (65536,), how often each upper half of a bit pattern was seen; those of NaN and infinities are passed over. bounds: the
    lowest and the highest finite value. others: how many NaN and infinities.

    Example:
        >>> counts = np.zeros(65536, np.int64)
        >>> counts[0x3F80] = 2
        >>> from_counts(counts, (1.0, 1.0), (0, 0)).equals(observe([1.0, 1.0]))
        True
    """
    keys, counts = _sparse(dense)
    finite = (keys & MAGNITUDE) < FIRST_NONFINITE
    keys, counts = keys[finite], counts[finite]
    if keys.size == 0:
        return replace(EMPTY, nan_count=others[0], inf_count=others[1])
    positive = bounds[0] + 0.0, bounds[1] + 0.0  # -0.0 + 0.0 is 0.0: which zero came first must not show
    return _frozen(int(counts.sum()), positive, others, *_fold_negative_zero(keys, counts))


def _sparse(dense: Counts) -> tuple[Keys, Counts]:
    keys = np.flatnonzero(dense > 0).astype(np.uint16)  # six times as quick as on the counts themselves
    return keys, dense[keys]


def _fold_negative_zero(keys: Keys, counts: Counts) -> tuple[Keys, Counts]:
    found = np.flatnonzero(keys == NEGATIVE_ZERO)
    if found.size == 0:
        return keys, counts
    zeros = counts[found]
    keys, counts = np.delete(keys, found), np.delete(counts, found)
    if keys.size and keys[0] == 0:
        counts[0] += zeros[0]
        return keys, counts
    return np.insert(keys, 0, 0), np.insert(counts, 0, zeros)


def merge(a: TensorStatistic, b: TensorStatistic) -> TensorStatistic:
    """Return the statistic of what `a` and `b` saw together: associative, commutative, with `EMPTY` as its identity.

    Example:
        >>> merge(observe([1.0]), observe([2.0, 3.0])).equals(observe([3.0, 2.0, 1.0]))
        True
    """
    keys, counts = _merged_counts(a, b)
    bounds = min(a.minimum, b.minimum), max(a.maximum, b.maximum)
    return _frozen(a.count + b.count, bounds, (a.nan_count + b.nan_count, a.inf_count + b.inf_count), keys, counts)


def _merged_counts(a: TensorStatistic, b: TensorStatistic) -> tuple[Keys, Counts]:
    if np.array_equal(a.buckets, b.buckets):
        return a.buckets, a.counts + b.counts
    dense = np.zeros(KEYS, np.int64)
    dense[a.buckets] = a.counts
    dense[b.buckets] += b.counts
    return _sparse(dense)


def magnitude(statistic: TensorStatistic) -> TensorStatistic:
    """Return the statistic of |x|; where both signs were seen, its minimum is a lower bound, 0.

    Example:
        >>> magnitude(observe([-3.0, -2.0])).minimum
        2.0
    """
    first = int(np.searchsorted(statistic.buckets, NEGATIVE_ZERO))  # the sign is the key's first bit: negative values come last
    count = statistic.count
    low = max(0.0, statistic.minimum, -statistic.maximum) if count else math.inf
    high = max(0.0, -statistic.minimum, statistic.maximum) if count else -math.inf
    others = statistic.nan_count, statistic.inf_count
    plus = _frozen(count, (low, high), others, statistic.buckets[:first].copy(), statistic.counts[:first].copy())
    minus = _frozen(0, (low, high), (0, 0), statistic.buckets[first:] & MAGNITUDE, statistic.counts[first:].copy())
    return merge(plus, minus)
