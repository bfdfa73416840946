"""Find the range whose quantized distribution tells least apart from the original one."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_int64, c_void_p
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zeropoint.errors import RecipeError
from zeropoint.native import library
from zeropoint.numerics.affine import Range
from zeropoint.numerics.spec import Spec
from zeropoint.statistics.histogram import Histogram, histogram, quantile
from zeropoint.statistics.solvers.minmax import covering
from zeropoint.statistics.tensor import TensorStatistic, magnitude

Array64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

FEWEST_LEVELS = 2048
RESOLVED = 8  # levels to a code, without which there is nothing to search
NARROWEST = 1 / 8  # of the reference; a smaller threshold is searched again on levels as much finer
MOST_CLIPPED = 0.01  # of the non-zero values
SMALLEST = np.finfo(np.float64).tiny
LANES = 4  # sums that are added side by side
BLOCK = 1 << 14  # pairs of candidate and code that are worked on at once: 128 KiB of float64


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


def divergences(reference: Array64, candidates: Indices, *, codes: int, total: float) -> Array64:
    """Return KL(reference clipped to its first i levels || the same quantized to `codes`) for each i of `candidates`, in nats.

    reference: how many values each level holds, (levels,); `total` counts those beyond the last level too; level i - 1 is not empty.
    With p the clipped reference, S the values that a code holds before clipping and k its non-empty levels, q = S / k on each of
    these, and KL = (sum p log p - sum p log q) / sum p - log(sum p / sum q): running sums over the levels give all of it.
    """
    held = np.append(0.0, np.cumsum(reference))  # values in the first i levels
    filled = np.append(0.0, np.cumsum(reference > 0.0))
    own = np.append(0.0, np.cumsum(_x_log_x(reference)))
    clipped = np.maximum(total - held[candidates], 0.0)
    last = reference[candidates - 1]
    p_log_p = own[candidates] - _x_log_x(last) + _x_log_x(last + clipped)
    start = candidates * (codes - 1) // codes  # of the last code
    last_log_q = np.log((held[candidates] - held[start]) / (filled[candidates] - filled[start]))
    p_log_q = _sums_over_codes(held, filled, candidates, codes=codes) + clipped * last_log_q
    return np.asarray((p_log_p - p_log_q) / total - np.log(total / held[candidates]))


def _sums_over_codes(held: Array64, filled: Array64, candidates: Indices, *, codes: int) -> Array64:
    """Return sum p log q before clipping for each candidate.

    Code j of candidate i = w codes + r has the levels from w j + r j // codes to the next code's. There are only w or w + 1 of these,
    so that few different runs of levels occur: the terms of all are computed once, and looked up by where a run begins and ends.
    """
    fewest = int(candidates.min()) // codes
    terms = _terms(held, filled, fewest, -(-int(candidates.max()) // codes))
    return run_sums(terms, fewest, candidates, codes)


def run_sums_in_numpy(terms: Array64, fewest: int, candidates: Indices, codes: int) -> Array64:
    """Return the sum of the terms of each candidate's codes, float64 like `candidates`.

    terms: float64 (levels, widths), of the run of levels that begins at each level and has `fewest` + column levels.
    """
    widths = terms.shape[1]
    steps = np.arange(codes + 1, dtype=np.uint32)  # quicker to divide than int64
    offsets = (steps[:-1, None] * steps // np.uint32(codes)).astype(np.intp)  # r j // codes: (codes, codes + 1)
    places = offsets[:, :-1] * (widths - 1) + offsets[:, 1:] - fewest
    whole, rest = np.divmod(candidates, codes)
    lanes = np.empty((candidates.size, LANES))
    rows = max(1, BLOCK // codes)
    for begin in range(0, candidates.size, rows):
        part = slice(begin, begin + rows)
        index = places.take(rest[part], axis=0)
        index += whole[part, None] * (np.arange(codes) * widths + 1)
        found = np.zeros((len(index), -(-codes // LANES) * LANES))
        found[:, :codes] = terms.take(index)
        # Along an axis that is not the last one numpy adds one after the other.
        lanes[part] = found.reshape(len(index), -1, LANES).sum(axis=1)
    return np.asarray((lanes[:, 0] + lanes[:, 1]) + (lanes[:, 2] + lanes[:, 3]))


def run_sums_compiled(terms: Array64, fewest: int, candidates: Indices, codes: int) -> Array64:
    """Return the same, to the bit, from compiled code."""
    assert library is not None
    sums = np.empty(candidates.size)
    candidates = np.ascontiguousarray(candidates, np.int64)
    places = [c_void_p(array.ctypes.data) for array in (terms, candidates, sums)]
    sizes = [c_int64(size) for size in (terms.shape[1], fewest, candidates.size, codes)]
    library.zeropoint_run_sums(places[0], *sizes[:2], places[1], *sizes[2:], places[2])
    return sums


run_sums: Callable[[Array64, int, Indices, int], Array64] = run_sums_in_numpy if library is None else run_sums_compiled


def _terms(held: Array64, filled: Array64, fewest: int, most: int) -> Array64:
    """Return S log(S / k) of the runs of `fewest` to `most` levels that begin at each level, those that leave the levels cut short."""
    begins = held.size - fewest
    end = np.minimum(np.arange(begins)[:, None] + np.arange(fewest, most + 1), held.size - 1)
    mass, count = held.take(end), filled.take(end)
    mass -= held[:begins, None]
    count -= filled[:begins, None]
    share = mass / np.maximum(count, 1.0)
    terms = np.log(np.maximum(share, SMALLEST, out=share), out=share)
    terms *= mass
    return np.asarray(terms)


def _x_log_x(x: Array64) -> Array64:
    return x * np.log(np.where(x > 0.0, x, 1.0))
