"""A statistic as a histogram over real values, and the quantization error that it predicts, in closed form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from zeropoint.errors import DataError
from zeropoint.numerics.affine import qparams_from_range
from zeropoint.numerics.spec import PerChannel, Spec
from zeropoint.statistics.tails import Tails, code_sums, tails_of
from zeropoint.statistics.tensor import MAGNITUDE, NEGATIVE_ZERO, Keys, TensorStatistic

Array64 = npt.NDArray[np.float64]

BLOCK = 1 << 14  # numbers that are worked on at once: 128 KiB of float64, of which several arrays stay in the cache
FEW_CODES = 1 << 12  # more than that have errors too small to be told from the values by a difference, and are more than the edges


@dataclass(frozen=True, eq=False)  # and no slots: what is derived from the buckets is kept beside them
class Histogram:
    """Buckets [lo[i], hi[i]] in ascending order that hold counts[i] values each, taken as uniform; lo == hi is a single value.

    lo, hi: float64 (B,); counts: int64 (B,), none of them 0.
    """

    lo: Array64
    hi: Array64
    counts: npt.NDArray[np.int64]

    @cached_property
    def total(self) -> int:
        """The number of values."""
        return int(self.counts.sum())

    @cached_property
    def cumulative(self) -> npt.NDArray[np.int64]:
        """The number of values in each bucket and those below it, (B,)."""
        return self.counts.cumsum()

    @cached_property
    def density(self) -> Array64:
        """Values for each unit of x, (B,); 0 in single values."""
        width = self.hi - self.lo
        return np.where(width > 0.0, self.counts, 0) / np.where(width > 0.0, width, 1.0)

    @cached_property
    def tails(self) -> Tails:
        """The running sums of all but single values."""
        return tails_of(self.lo, self.hi, self.density)

    @cached_property
    def points(self) -> tuple[Array64, Array64]:
        """The single values, and how often each is there; zeros are exact in every range and left out."""
        single = (self.lo == self.hi) & (self.lo != 0.0)
        return self.lo[single], self.counts[single].astype(np.float64)

    @cached_property
    def edges(self) -> tuple[Array64, Array64]:
        """The edges of all but single values, and by how much the density falls at each."""
        wide = self.lo < self.hi
        density = self.density[wide]
        edges, index = np.unique(np.concatenate([self.lo[wide], self.hi[wide]]), return_inverse=True)
        slopes = np.bincount(index.reshape(-1), np.concatenate([-density, density]), edges.size)
        return edges, slopes.astype(np.float64, copy=False)


@lru_cache(maxsize=4)  # each solver asks for the histogram of the same statistic, which is a constant
def histogram(statistic: TensorStatistic) -> Histogram:
    """Return the finite values of `statistic` as buckets clipped to its exact [minimum, maximum]; zeros are a bucket [0, 0].

    Raises:
        DataError: no finite value was seen.

    Example:
        >>> from zeropoint.statistics.tensor import observe
        >>> histogram(observe([-1.0, 0.0, 0.0])).counts
        array([1, 2])
    """
    if statistic.count == 0:
        raise DataError(
            f"statistic: found no finite value ({statistic.nan_count} NaN, {statistic.inf_count} Inf), expected at least one; "
            "feed calibration data that reaches this tensor, or leave it in float"
        )
    first = int(np.searchsorted(statistic.buckets, NEGATIVE_ZERO))
    below, above = statistic.buckets[first:][::-1] & MAGNITUDE, statistic.buckets[:first]  # of negative values, larger keys come first
    lo = np.concatenate([-_edge(below + np.uint16(1)), _edge(above)])
    hi = np.concatenate([-_edge(below), _edge(above + np.uint16(1))])
    lo[0], hi[-1] = max(lo[0], statistic.minimum), min(hi[-1], statistic.maximum)
    if above.size and above[0] == 0:
        lo[below.size] = hi[below.size] = 0.0
    counts = np.concatenate([statistic.counts[first:][::-1], statistic.counts[:first]])
    lo.flags.writeable = hi.flags.writeable = counts.flags.writeable = False
    return Histogram(lo, hi, counts)


def _edge(keys: Keys) -> Array64:
    """Return the magnitude at which the buckets begin; the one behind the last finite bucket is infinity."""
    return (keys.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def mean_square(histogram: Histogram) -> float:
    """Return the mean of x**2: the power of the signal."""
    lo, hi = histogram.lo, histogram.hi
    return float(np.sum(histogram.counts * (lo * lo + lo * hi + hi * hi)) / 3.0 / histogram.total)


def quantile(histogram: Histogram, fraction: float) -> float:
    """Return the value below which `fraction` of the values lie, interpolated inside its bucket.

    Example:
        >>> quantile(Histogram(np.array([0.0, 1.0]), np.array([1.0, 3.0]), np.array([5, 5])), 0.75)
        2.0
    """
    cumulative = histogram.cumulative
    target = fraction * float(cumulative[-1])
    i = min(int(np.searchsorted(cumulative, target)), cumulative.size - 1)
    inside = 1.0 - (float(cumulative[i]) - target) / float(histogram.counts[i])
    lo, hi = float(histogram.lo[i]), float(histogram.hi[i])
    return min(max(lo + inside * (hi - lo), lo), hi)


def clipped_share(histogram: Histogram, lo: float, hi: float) -> float:
    """Return which share of the values lies outside [lo, hi], interpolated inside buckets.

    Example:
        >>> clipped_share(Histogram(np.array([0.0, 2.0]), np.array([1.0, 4.0]), np.array([6, 4])), 0.0, 3.0)
        0.2
    """
    first = int(np.searchsorted(histogram.hi, lo))  # not wholly below
    last = int(np.searchsorted(histogram.lo, hi, "right"))  # wholly above
    outside = float(histogram.cumulative[first - 1]) if first else 0.0
    outside += float(histogram.cumulative[-1] - histogram.cumulative[last - 1]) if last else float(histogram.total)
    if first < histogram.lo.size and histogram.lo[first] < lo:
        outside += float(histogram.density[first] * (lo - histogram.lo[first]))
    if last and histogram.hi[last - 1] > hi:
        outside += float(histogram.density[last - 1] * (histogram.hi[last - 1] - hi))
    return outside / histogram.total


def expected_mse(histogram: Histogram, lo: npt.ArrayLike, hi: npt.ArrayLike, *, spec: Spec, clipping: float = 1.0) -> Array64:
    """Return the mean squared error of quantizing to each of the ranges [lo[t], hi[t]], rounding and clipping together: float64 (T,).

    Judged is what will run: the scale in float32, the range widened to hold 0 and the rounded zero point. The squared error of what is
    clipped counts `clipping` times.

    Raises:
        RecipeError: a bound is not finite, or lo > hi.

    Example:
        >>> from zeropoint.numerics.formats import FORMATS
        >>> uniform = Histogram(np.array([0.0]), np.array([255.0]), np.array([1000]))
        >>> expected_mse(uniform, [0.0], [255.0], spec=Spec(FORMATS["uint8"], symmetric=False)) * 12
        array([1.])
    """
    qparams = qparams_from_range(np.atleast_1d(lo), np.atleast_1d(hi), spec=spec.with_granularity(PerChannel(0)))
    zero_point = qparams.zero_point.astype(np.float64)
    codes = Codes(qparams.scale.astype(np.float64), -(zero_point - spec.qmin), spec.qmax - zero_point)
    points, weights = histogram.points
    wide = histogram.counts.size - points.size
    total = np.zeros(codes.scale.size)
    if points.size:
        total += _of_points(points, weights, codes, clipping)
    if wide:
        by_codes = spec.qmax - spec.qmin < FEW_CODES
        total += _by_codes(histogram.tails, codes, clipping) if by_codes else _by_edges(*histogram.edges, codes, clipping)
    # Differences of nearly equal numbers may come out a last bit below 0.
    return np.maximum(total, 0.0) / histogram.total


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """What the codes of T candidates hold: the integers from first[t] to last[t], times scale[t]; float64 (T,) each."""

    scale: Array64
    first: Array64
    last: Array64

    def parts(self, size: int) -> Iterator[tuple[slice, Codes]]:
        """Split the candidates so that each of a part's can have `size` numbers of its own; a part's arrays are (rows, 1)."""
        rows = max(1, BLOCK // size)
        for start in range(0, self.scale.size, rows):
            part = slice(start, start + rows)
            yield part, Codes(*(x[part, None] for x in (self.scale, self.first, self.last)))


def _of_points(points: Array64, weights: Array64, codes: Codes, clipping: float) -> Array64:
    """Return the squared error of single values, for each candidate."""
    total = np.empty(codes.scale.size)
    for part, c in codes.parts(points.size):
        t = points / c.scale
        squares = np.square(t - _within(np.rint(t), c))
        if clipping != 1.0:
            squares += (clipping - 1.0) * np.square(t - _within(t, c))
        total[part] = np.sum(squares * weights, axis=1) * np.square(c.scale[:, 0])
    return total


def _within(t: Array64, codes: Codes) -> Array64:
    return np.minimum(np.maximum(t, codes.first), codes.last)


def _by_codes(tails: Tails, codes: Codes, clipping: float) -> Array64:
    """Return the squared error of each candidate by what lies beyond the boundary between each code and the next.

    The value c that x is given rises from 0 by a scale at each boundary b that x lies beyond, and with it x**2 - (x - c)**2 by
    2 scale (x - b): summed over all values, that is the power less the error.
    """
    boundaries = round(float(codes.last[0] - codes.first[0]))
    table = np.empty((codes.scale.size, 3))
    table[:, 0], table[:, 1], table[:, 2] = codes.scale, codes.first, codes.last
    beyond, clipped = code_sums(tails, table, boundaries).T
    return np.asarray(tails.power - 2.0 * codes.scale * beyond + (clipping - 1.0) * clipped)


def _by_edges(edges: Array64, slopes: Array64, codes: Codes, clipping: float) -> Array64:
    """Return the squared error of each candidate by its antiderivative at the edges of the buckets.

    In units of the scale the error at t is e = t - n with n = clip(round(t)), and its square has the antiderivative
    F(t) = n / 12 + (t - n)**3 / 3 on both sides of the clip, so that the mean over a bucket is the difference of F over its width.
    What is clipped counts `clipping` times by (clipping - 1) (t - clip(t))**3 / 3 beside F.
    """
    # Below half a step of every candidate e = t, wherever the range is; but on a side without codes it counts as clipped.
    fine = np.abs(edges) < codes.scale.min() / 2.0
    if clipping != 1.0:
        fine &= np.where(edges < 0.0, codes.first.max() < 0.0, codes.last.min() > 0.0)
    error = float(np.sum(slopes[fine] * edges[fine] ** 3)) / 3.0
    edges, slopes = edges[~fine], slopes[~fine]
    total = np.empty(codes.scale.size)
    for part, c in codes.parts(max(1, edges.size)):
        t = edges / c.scale
        integral = _integral(t.copy(), c)
        if clipping != 1.0:
            integral += (clipping - 1.0) / 3.0 * (t - _within(t, c)) ** 3
        total[part] = np.sum(integral * slopes, axis=1) * c.scale[:, 0] ** 3
    return total + error


def _integral(t: Array64, codes: Codes) -> Array64:
    """Return F at `t`, which is overwritten."""
    n = _within(np.rint(t), codes)
    t -= n
    cube = t * t
    cube *= t
    cube *= 4.0
    cube += n
    cube /= 12.0
    return cube
