"""How the values of a tensor are spread, in few enough numbers to put hundreds of tensors on a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zeropoint.numerics.affine import Range
from zeropoint.statistics.histogram import Histogram

Array64 = npt.NDArray[np.float64]

BINS = 128
MARGIN = 1.25  # how far beyond the ranges that do not follow outliers a histogram is drawn
CHANNELS = 96  # ranges of channels that can be told apart side by side
STEPS = 999  # of the largest magnitude: ranges are written as whole numbers of these


@dataclass(frozen=True, slots=True)
class Binned:
    """How many values each of the equal bins of [lo, hi] holds, and how many lie below and above."""

    lo: float
    hi: float
    counts: tuple[int, ...]
    below: int
    above: int


@dataclass(frozen=True, slots=True)
class ChannelRanges:
    """The least and the largest value of each channel, or of each `every` channels, in whole numbers of `unit`."""

    before: tuple[tuple[int, int], ...]
    after: tuple[tuple[int, int], ...]
    unit: float
    every: int


def extent(values: Histogram, ranges: Sequence[Range]) -> tuple[float, float]:
    """Return what of the values seen is worth drawing: all, or some more than what `ranges` cover, where outliers lie far beyond."""
    lo, hi = float(values.lo[0]), float(values.hi[-1])
    lo, hi = max(lo, MARGIN * min((r.lo for r in ranges), default=lo)), min(hi, MARGIN * max((r.hi for r in ranges), default=hi))
    lo, hi = min(lo, 0.0), max(hi, 0.0)
    return (lo, hi) if hi > lo else (-1.0, 1.0)


def binned(values: Histogram, lo: float, hi: float, *, bins: int = BINS) -> Binned:
    """Return the values on equal bins of [lo, hi]; buckets that an edge cuts are shared out evenly, single values stay whole.

    Example:
        >>> binned(Histogram(np.array([0.0, 1.0]), np.array([0.0, 3.0]), np.array([6, 4])), 0.0, 2.0, bins=2)
        Binned(lo=0.0, hi=2.0, counts=(6, 2), below=0, above=2)
    """
    single = values.lo == values.hi
    edges = np.linspace(lo, hi, bins + 1)
    wide = _below(values.lo[~single], values.hi[~single], values.counts[~single], edges)
    inside = np.diff(wide) + np.histogram(values.lo[single], edges, weights=values.counts[single])[0]
    below = wide[0] + values.counts[single & (values.lo < lo)].sum()
    above = values.total - below - inside.sum()
    return Binned(lo, hi, tuple(_rounded(count) for count in inside), round(float(below)), max(0, round(float(above))))


def _below(lo: Array64, hi: Array64, counts: npt.NDArray[np.int64], edges: Array64) -> Array64:
    """Return how many values lie below each edge."""
    if not counts.size:
        return np.zeros(edges.size)
    after = np.cumsum(counts).astype(np.float64)
    held = np.stack([np.append(0.0, after[:-1]), after], axis=1).reshape(-1)
    return np.asarray(np.interp(edges, np.stack([lo, hi], axis=1).reshape(-1), held))


def _rounded(count: float) -> int:
    """Three digits are more than a bar's height shows; a part of a value is still one."""
    return int(float(f"{max(count, 1.0):.3g}")) if count > 0 else 0


def channel_ranges(before: npt.NDArray[np.generic], after: npt.NDArray[np.generic], axis: int) -> ChannelRanges | None:
    """Return the ranges of the channels along `axis` of two arrays of one shape; None where they hold no numbers to draw."""
    if before.shape != after.shape or before.size == 0 or before.ndim == 0:
        return None
    both = [np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1).astype(np.float64) for array in (before, after)]
    unit = float(max(np.abs(rows).max() for rows in both)) / STEPS
    if not np.isfinite(unit) or unit == 0.0:
        return None
    every = -(-len(both[0]) // CHANNELS)
    return ChannelRanges(_ranges(both[0], every, unit), _ranges(both[1], every, unit), unit, every)


def _ranges(rows: Array64, every: int, unit: float) -> tuple[tuple[int, int], ...]:
    starts = np.arange(0, len(rows), every)
    lo = np.rint(np.minimum.reduceat(rows.min(axis=1), starts) / unit).astype(int).tolist()
    hi = np.rint(np.maximum.reduceat(rows.max(axis=1), starts) / unit).astype(int).tolist()
    return tuple(zip(lo, hi, strict=True))
