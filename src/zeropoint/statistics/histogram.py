"""A statistic as a histogram over real values, and the quantization error that it predicts, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zeropoint.errors import DataError
from zeropoint.numerics.affine import qparams_from_range
from zeropoint.numerics.spec import PerChannel, Spec
from zeropoint.statistics.tensor import MAGNITUDE, Keys, TensorStatistic

Array64 = npt.NDArray[np.float64]

BLOCK = 1 << 15  # pairs of candidate and edge that are worked on at once: 256 KiB of float64, which stay in the cache


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Buckets [lo[i], hi[i]] in ascending order that hold counts[i] values each, taken as uniform; lo == hi is a single value.

    lo, hi: float64 (B,); counts: int64 (B,), none of them 0.
    """

    lo: Array64
    hi: Array64
    counts: npt.NDArray[np.int64]

    @property
    def total(self) -> int:
        """The number of values."""
        return int(self.counts.sum())


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
    keys = statistic.buckets
    negative = keys > MAGNITUDE
    inner, outer = _edge(keys & MAGNITUDE), _edge((keys & MAGNITUDE) + np.uint16(1))
    lo, hi = np.where(negative, -outer, inner), np.where(negative, -inner, outer)
    lo, hi = np.clip(lo, statistic.minimum, statistic.maximum), np.clip(hi, statistic.minimum, statistic.maximum)
    lo[keys == 0] = hi[keys == 0] = 0.0
    first = int(np.count_nonzero(~negative))
    order = np.concatenate([np.arange(first, keys.size)[::-1], np.arange(first)])  # among negative values, larger keys come first
    return Histogram(lo[order], hi[order], statistic.counts[order])


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
    cumulative = np.cumsum(histogram.counts)
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
    width = np.where(histogram.hi > histogram.lo, histogram.hi - histogram.lo, 1.0)
    below = np.clip((lo - histogram.lo) / width, 0.0, 1.0)
    above = np.clip((histogram.hi - hi) / width, 0.0, 1.0)
    single = histogram.hi == histogram.lo
    outside = np.where(single, (histogram.lo < lo) | (histogram.hi > hi), below + above)
    return float(np.sum(outside * histogram.counts)) / histogram.total


def expected_mse(histogram: Histogram, lo: npt.ArrayLike, hi: npt.ArrayLike, *, spec: Spec, clipping: float = 1.0) -> Array64:
    """Return the mean squared error of quantizing to each of the ranges [lo[t], hi[t]], rounding and clipping together: float64 (T,).

    Judged is what will run: the scale in float32, the range widened to hold 0 and the rounded zero point. In units of the scale the
    error at t is e = t - n with n = clip(round(t)), and its square has the antiderivative F(t) = n / 12 + (t - n)**3 / 3 on both sides of
    the clip, so that the mean over a bucket is the difference of F over its width. The squared error of what is clipped counts
    `clipping` times, by (clipping - 1) (t - clip(t))**3 / 3 beside F.

    Raises:
        RecipeError: a bound is not finite, or lo > hi.

    Example:
        >>> from zeropoint.numerics.formats import FORMATS
        >>> uniform = Histogram(np.array([0.0]), np.array([255.0]), np.array([1000]))
        >>> expected_mse(uniform, [0.0], [255.0], spec=Spec(FORMATS["uint8"], symmetric=False)) * 12
        array([1.])
    """
    qparams = qparams_from_range(np.atleast_1d(lo), np.atleast_1d(hi), spec=spec.with_granularity(PerChannel(0)))
    scale, zero_point = qparams.scale.astype(np.float64), qparams.zero_point.astype(np.float64)
    bounds = np.stack([scale, spec.qmin - zero_point, spec.qmax - zero_point])  # (3, T)
    points, weights = _points(histogram)
    edges, slopes = _edges(histogram)
    # Below half a step of every candidate e = t, wherever the range is; but on a side without codes it counts as clipped.
    fine = np.abs(edges) < scale.min() / 2.0
    if clipping != 1.0:
        fine &= np.where(edges < 0.0, bounds[1].max() < 0.0, bounds[2].min() > 0.0)
    error = float(np.sum(slopes[fine] * edges[fine] ** 3)) / 3.0
    edges, slopes = edges[~fine], slopes[~fine]
    total = np.empty(scale.size)
    rows = max(1, BLOCK // max(1, edges.size))
    for start in range(0, scale.size, rows):
        s, first, last = bounds[:, start : start + rows, None]
        t, u = edges / s, points / s
        integral = _integral(t.copy(), first, last)
        squares = (u - np.clip(np.rint(u), first, last)) ** 2
        if clipping != 1.0:
            integral += (clipping - 1.0) / 3.0 * _excess(t, first, last) ** 3
            squares += (clipping - 1.0) * _excess(u, first, last) ** 2
        of_buckets = np.sum(integral * slopes, axis=1) * s[:, 0] ** 3
        of_points = np.sum(squares * weights, axis=1) * s[:, 0] ** 2
        total[start : start + rows] = of_buckets + of_points
    # Differences of nearly equal numbers may come out a last bit below 0.
    return np.maximum(total + error, 0.0) / histogram.total


def _integral(t: Array64, first: Array64, last: Array64) -> Array64:
    """Return F at `t`, which is overwritten."""
    n = np.rint(t)
    np.clip(n, first, last, out=n)
    t -= n
    cube = t * t
    cube *= t
    cube *= 4.0
    cube += n
    cube /= 12.0
    return cube


def _excess(t: Array64, first: Array64, last: Array64) -> Array64:
    """Return by how much `t` lies outside the codes."""
    return t - np.clip(t, first, last)


def _points(histogram: Histogram) -> tuple[Array64, Array64]:
    """Return the buckets that are single values, and their counts; zeros are exact in every range and left out."""
    single = (histogram.lo == histogram.hi) & (histogram.lo != 0.0)
    return histogram.lo[single], histogram.counts[single].astype(np.float64)


def _edges(histogram: Histogram) -> tuple[Array64, Array64]:
    """Return the edges of the other buckets, and by how much the density falls at each: the weights of F in the sum over buckets."""
    wide = histogram.lo < histogram.hi
    lo, hi = histogram.lo[wide], histogram.hi[wide]
    density = histogram.counts[wide] / (hi - lo)
    ends = np.concatenate([lo, hi])
    edges, index = np.unique(ends, return_inverse=True)
    slopes = np.zeros(edges.size)
    np.add.at(slopes, index.reshape(-1), np.concatenate([-density, density]))
    return edges, slopes
