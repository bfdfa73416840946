"""What lies beyond a value: sums over the tails of a histogram, from which the error of thousands of codes is looked up.

All sums run from the outside to 0 and add nothing but positive terms, so that each is as exact as a float64 can be, however small the
tail is beside the rest: an outlier of a million times the usual size costs no digit.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import Structure, byref, c_int64, c_void_p
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from zeropoint.native import library

Array64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

BEYOND = 1e300  # the end of the empty piece outside of all buckets: infinity times a density of 0 would be NaN
CELL = 45  # the low bits of a float64 that are left out of its key: what is left, exponent and 7 bits, is how buckets are cut
LANES = 4  # sums that are added side by side
BLOCK = 1 << 14  # points that are worked on at once: 128 KiB of float64, of which several arrays stay in the cache


class _Struct(Structure):
    """struct tails of native/tails.c."""

    _fields_ = (
        *((name, c_void_p) for name in ("outer", "density", "count", "first", "second", "lookup")),
        ("cells", c_int64),
        ("lowest", c_int64),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Tails:
    """The density of a histogram on both sides of 0 as pieces, by ascending |x|: first those of the positive side, then the others.

    pieces: float64 (5, P). outer: where a piece ends; density: values for each unit of |x| inside of it; count, first, second: the
    sums of 1, |x| - outer and (|x| - outer)**2 over all values beyond its end. power: the sum of x**2 over everything.
    lookup: for each cell of |x|, one side after the other, the first piece that ends in it or beyond; lowest: the key of its first cell.
    """

    pieces: Array64
    lookup: Indices
    lowest: int
    power: float
    struct: _Struct = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Keep the addresses, for a kernel that runs in less time than it takes to ask for them."""
        addresses = [row.ctypes.data for row in (*self.pieces, self.lookup)]
        object.__setattr__(self, "struct", _Struct(*addresses, self.lookup.size // 2, self.lowest))


def tails_of(lo: Array64, hi: Array64, density: Array64) -> Tails:
    """Return the tails of ascending buckets [lo[i], hi[i]], which hold density[i] values for each unit; those of no width hold none."""
    above, below = int(np.searchsorted(hi, 0.0, "right")), int(np.searchsorted(lo, 0.0))
    positive, power = _side(np.maximum(lo[above:], 0.0), hi[above:], density[above:])
    negative, power_below = _side(-np.minimum(hi[:below], 0.0)[::-1], -lo[:below][::-1], density[:below][::-1])
    lowest, lookup = _lookup(positive[0], negative[0])
    return Tails(np.concatenate([positive, negative], axis=1), lookup, lowest, power + power_below)


def _side(lo: Array64, hi: Array64, density: Array64) -> tuple[Array64, float]:
    """Return outer, density, count, first and second of one side's pieces (5, P), and its sum of x**2.

    An empty piece, often of no width, lies before each bucket, and one behind the last.
    """
    pieces = np.zeros((5, 2 * lo.size + 1))
    pieces[0, -1] = BEYOND
    if lo.size == 0:
        return pieces, 0.0
    gap, width = lo.copy(), hi - lo
    gap[1:] -= hi[:-1]
    mass = density * width
    count = _beyond(mass)
    count_at_lo = count + mass
    step = width * (count + mass / 2.0)
    first = _beyond(step + gap * count_at_lo)
    first_at_lo = first + step
    step = width * (2.0 * first + width * (count + mass / 3.0))
    squares = step + gap * (2.0 * first_at_lo + gap * count_at_lo)
    second = _beyond(squares)
    at_lo = lo, np.zeros(lo.size), count_at_lo, first_at_lo, second + step
    at_hi = hi, density, count, first, second
    for row, ends in zip(pieces, zip(at_lo, at_hi, strict=True), strict=True):
        row[:-1:2], row[1::2] = ends
    return pieces, float(squares.sum())


def _beyond(terms: Array64) -> Array64:
    """Return for each of `terms` the sum of those behind it."""
    sums = np.zeros(terms.size)
    np.cumsum(terms[:0:-1], out=sums[-2::-1])
    return sums


def _lookup(*sides: Array64) -> tuple[int, Indices]:
    """Return the key of the first cell, and for each side and cell the first piece that ends behind the cell's begin."""
    ends = [outer[:-1].view(np.int64) for outer in sides]
    keys = [(end + ((1 << CELL) - 1)) >> CELL for end in ends]  # of the first cell that begins there or behind
    lowest = min((int(key[0]) for key in keys if key.size), default=1) - 1
    cells = max((int(key[-1]) for key in keys if key.size), default=0) + 1 - lowest
    positive, negative = (np.bincount(key - lowest, minlength=cells).cumsum() for key in keys)
    return lowest, np.concatenate([positive, negative + sides[0].size])


def code_sums_in_numpy(tails: Tails, codes: Array64, boundaries: int) -> Array64:
    """Return two sums over the values of `tails` for each candidate, float64 (T, 2).

    codes: (T, 3), the scale and the first and the last code of each; 0 codes below 0 are -0.0 of them. The first sum is that of
    |x| - |b| over all values beyond each b of the `boundaries`, which lie half-way between the codes. The second is that of
    (|x| - |e|)**2 over all values beyond the end codes e, on either side.
    """
    rows = max(1, BLOCK // boundaries)
    parts = [codes[start : start + rows] for start in range(0, len(codes), rows)]
    return np.concatenate([_sums_of_part(tails, part, boundaries) for part in parts])


def code_sums_compiled(tails: Tails, codes: Array64, boundaries: int) -> Array64:
    """Return the same, to the bit, from compiled code."""
    assert library is not None
    sums = np.empty((len(codes), 2))
    places = [c_void_p(array.ctypes.data) for array in (codes, sums)]
    library.zeropoint_code_sums(byref(tails.struct), places[0], c_int64(len(codes)), c_int64(boundaries), places[1])
    return sums


code_sums: Callable[[Tails, Array64, int], Array64] = code_sums_in_numpy if library is None else code_sums_compiled


def _sums_of_part(tails: Tails, codes: Array64, boundaries: int) -> Array64:
    scale, ends = codes[:, :1], codes[:, 1:]
    points = np.arange(boundaries) + 0.5 + ends[:, :1]
    points *= scale
    found, inside = _find(tails, points)
    _, density, count, first, second = tails.pieces
    excess = np.zeros((len(codes), -(-boundaries // LANES) * LANES))
    part = excess[:, :boundaries]
    np.multiply(density.take(found), inside, out=part)
    part *= 0.5
    part += count.take(found)
    part *= inside
    part += first.take(found)
    # Along an axis that is not the last one numpy adds one after the other.
    lanes = excess.reshape(len(codes), -1, LANES).sum(axis=1)
    found, inside = _find(tails, ends * scale)
    linear = count[found] + inside * density[found] / 3.0
    squared = second[found] + inside * (2.0 * first[found] + inside * linear)
    return np.stack([(lanes[:, 0] + lanes[:, 1]) + (lanes[:, 2] + lanes[:, 3]), squared[:, 0] + squared[:, 1]], axis=1)


def _find(tails: Tails, x: Array64) -> tuple[Indices, Array64]:
    """Return which piece each of `x` lies in, and how far it is from its outer end; -0.0 is on the negative side."""
    magnitude = np.abs(x)
    cells = tails.lookup.size // 2
    key = magnitude.view(np.int64) >> CELL
    key -= tails.lowest
    np.maximum(key, 0, out=key)
    np.minimum(key, cells - 1, out=key)
    key += (x.view(np.int64) >> 63) & cells
    found = tails.lookup.take(key)
    outer = tails.pieces[0]
    inside = outer.take(found)
    inside -= magnitude
    while inside.min() < 0.0:  # more than one piece ends in the cell: at the data's own bounds, and in histograms of other buckets
        found += inside < 0.0
        inside = outer.take(found)
        inside -= magnitude
    return found, inside
