"""Find the range whose quantized distribution tells least apart from the original one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zeropoint.errors import RecipeError
from zeropoint.numerics.affine import Range
from zeropoint.numerics.spec import Spec
from zeropoint.statistics.histogram import Histogram, histogram, quantile
from zeropoint.statistics.solvers.minmax import covering
from zeropoint.statistics.tensor import TensorStatistic, magnitude

Array64 = npt.NDArray[np.float64]

FEWEST_LEVELS = 2048
RESOLVED = 8  # levels to a code, without which there is nothing to search
NARROWEST = 1 / 8  # of the reference; a smaller threshold is searched again on levels as much finer
MOST_CLIPPED = 0.01  # of the non-zero values
BLOCK = 1 << 15  # pairs of candidate and code that are worked on at once


@dataclass(frozen=True, slots=True)
class Entropy:
    """Clip |x| at the threshold of least Kullback-Leibler divergence KL(reference || quantized).

    The search of Migacz, "8-bit inference with TensorRT" (GTC 2017): the reference is the distribution of |x| on `levels` uniform
    levels; a candidate keeps the first i of them, the rest being clipped into its last one, and is quantized to as many codes as |x|
    has, each spread over its non-empty levels. It differs in four points. Exact zeros stay out: every candidate holds them
    exactly. Levels are shared out to codes evenly, whether or not i is a multiple. No candidate clips more than 1 % of the values:
    one that clips nearly all is a single level, which tells nothing apart. And an outlier costs no resolution: the levels end at
    `levels` / codes times the 99 % point of the non-zero values at most, and where the threshold falls below an eighth of them, the
    search is repeated on levels that end at twice the threshold.

    Asymmetric ranges are [max(minimum, -threshold), min(maximum, threshold)]. Formats with more than a code for each eight levels
    (16 bits) keep min-max.

    Raises:
        RecipeError: levels is below 2048.
    """

    levels: int = FEWEST_LEVELS

    def __post_init__(self) -> None:
        if self.levels < FEWEST_LEVELS:
            raise RecipeError(f"entropy levels: found {self.levels}, expected at least {FEWEST_LEVELS}, to resolve the tail of 8-bit codes")

    def solve(self, statistic: TensorStatistic, spec: Spec) -> Range:
        """Return the range.

        Raises:
            DataError: no finite value was seen.
        """
        whole = covering(statistic.minimum, statistic.maximum, spec=spec)
        values = _nonzero(histogram(magnitude(statistic)))
        codes = _codes_of_magnitude(whole, spec)
        if values.counts.size == 0 or codes * RESOLVED > self.levels:
            return whole
        # The narrowest candidate has as many levels as codes: here it ends at the 99 % point, and a narrower one would clip too many.
        end = min(float(values.hi[-1]), self.levels / codes * quantile(values, 1.0 - MOST_CLIPPED))
        threshold = _threshold(values, codes=codes, levels=self.levels, end=end)
        while threshold < NARROWEST * end:
            end = 2.0 * threshold
            threshold = _threshold(values, codes=codes, levels=self.levels, end=end)
        return Range(max(whole.lo, -threshold), min(whole.hi, threshold))


def _nonzero(values: Histogram) -> Histogram:
    kept = values.hi > 0.0
    return Histogram(values.lo[kept], values.hi[kept], values.counts[kept])


def _codes_of_magnitude(whole: Range, spec: Spec) -> int:
    """Return how many codes the longer side of the range has."""
    longer = max(-whole.lo, whole.hi)
    share = longer / (whole.hi - whole.lo) if longer else 1.0
    return round((spec.format.qmax - spec.format.qmin + 1) * share)


def _threshold(values: Histogram, *, codes: int, levels: int, end: float) -> float:
    """Return the best threshold on levels that end at `end`, and `end` itself where there is none."""
    reference = _on_levels(values, levels=levels, end=end)
    total = float(values.total)
    kept = np.cumsum(reference)
    # A clipped value whose level is empty has no counterpart in the quantized distribution: it is infinitely far.
    candidates = np.flatnonzero((reference > 0.0) & (kept >= (1.0 - MOST_CLIPPED) * total)) + 1
    candidates = candidates[candidates >= codes]
    if candidates.size == 0:
        return end
    best = candidates[divergences(reference, candidates, codes=codes, total=total).argmin()]
    return float(best) / levels * end


def _on_levels(values: Histogram, *, levels: int, end: float) -> Array64:
    """Return how many of the values each of `levels` uniform levels of [0, end] holds, as float64 (levels,)."""
    position = np.stack([values.lo, values.hi], axis=1).reshape(-1)
    after = np.cumsum(values.counts).astype(np.float64)
    cumulative = np.stack([np.append(0.0, after[:-1]), after], axis=1).reshape(-1)
    edges = np.linspace(0.0, end, levels + 1)
    return np.diff(np.interp(edges, position, cumulative))


def divergences(reference: Array64, candidates: npt.NDArray[np.int64], *, codes: int, total: float) -> Array64:
    """Return KL(reference clipped to its first i levels || the same quantized to `codes`) for each i of `candidates`, in nats.

    reference: how many values each level holds, (levels,); `total` counts those beyond the last level too; level i - 1 is not empty.
    With p the clipped reference, S the values that a code holds before clipping and k its non-empty levels, q = S / k on each of
    these, and KL = (sum p log p - sum p log q) / sum p - log(sum p / sum q): running sums over the levels give all of it.
    """
    held = np.append(0.0, np.cumsum(reference))  # values in the first i levels
    filled = np.append(0, np.cumsum(reference > 0.0))
    own = np.append(0.0, np.cumsum(_x_log_x(reference)))
    clipped = np.maximum(total - held[candidates], 0.0)
    last = reference[candidates - 1]
    p_log_p = own[candidates] - _x_log_x(last) + _x_log_x(last + clipped)
    p_log_q = np.empty(candidates.size)
    rows = max(1, BLOCK // codes)
    for start in range(0, candidates.size, rows):
        part = slice(start, start + rows)
        ends = candidates[part, None] * np.arange(codes + 1) // codes  # (rows, codes + 1)
        mass, count = np.diff(held[ends], axis=1), np.diff(filled[ends], axis=1)
        log_q = np.log(np.where(count > 0, mass, 1.0) / np.maximum(count, 1))
        p_log_q[part] = np.sum(mass * log_q, axis=1) + clipped[part] * log_q[:, -1]
    return (p_log_p - p_log_q) / total - np.log(total / held[candidates])


def _x_log_x(x: Array64) -> Array64:
    return x * np.log(np.where(x > 0.0, x, 1.0))
