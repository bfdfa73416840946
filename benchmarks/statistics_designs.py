"""Weigh two designs of the histogram in a statistic: buckets cut from float32's bits, and bins of a power-of-two width.

Run it as `python benchmarks/statistics_designs.py`; it takes less than half a minute and prints one table.

Both merge to the same bits whatever the split and the order: float bits (zeropoint.statistics.tensor) have the same edges for every
tensor; 2048 bins of the width 2**e are merged in pairs when the range doubles, which is exact, since floor(floor(x / w) / 2) is
floor(x / 2w). Each tensor is seen in 16 parts, an outlier in the last one. Ranges are int8 symmetric ones of least mean squared error,
found by the same search on either histogram, and the truth is what quantizing the raw data gives.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import Spec
from zeropoint.statistics.counting import CHUNK
from zeropoint.statistics.histogram import Histogram, expected_mse, histogram, quantile
from zeropoint.statistics.solvers.mse import least_mse_range
from zeropoint.statistics.tensor import TensorStatistic, magnitude, merge, observe

T = TypeVar("T")
Array32 = npt.NDArray[np.float32]
SPEC = Spec(FORMATS["int8"], symmetric=True)
SIZE = 1 << 20
PARTS = 16
REPEATS = 5
BINS = 2048
HALF = BINS // 2
PERCENTILE = 0.9999


# --- the other design ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PowerOfTwo:
    """Counts of floor(x / 2**exponent) + 1024, zeros apart, and the exact bounds."""

    exponent: int
    counts: npt.NDArray[np.int64]
    zeros: int
    minimum: float
    maximum: float


def observe_bins(x: Array32) -> PowerOfTwo:
    """Return the statistic of finite values: bins as narrow as the largest magnitude allows."""
    lo, hi = float(x.min()), float(x.max())
    exponent = math.frexp(max(-lo, hi))[1] - HALF.bit_length() + 1
    factor = np.float32(2.0**-exponent)
    counts = np.zeros(BINS, np.int64)
    zeros = 0
    for start in range(0, x.size, CHUNK):
        scaled = x[start : start + CHUNK] * factor
        zeros += scaled.size - int(np.count_nonzero(scaled))
        index = np.floor(scaled, out=scaled).astype(np.int64)
        index += HALF
        counts += np.bincount(index, minlength=BINS)
    counts[HALF] -= zeros
    return PowerOfTwo(exponent, counts, zeros, lo, hi)


def merge_bins(a: PowerOfTwo, b: PowerOfTwo) -> PowerOfTwo:
    """Return the statistic of both: the finer one is coarsened, then counts are added."""
    exponent = max(a.exponent, b.exponent)
    counts = coarsened(a, exponent) + coarsened(b, exponent)
    return PowerOfTwo(exponent, counts, a.zeros + b.zeros, min(a.minimum, b.minimum), max(a.maximum, b.maximum))


def coarsened(statistic: PowerOfTwo, exponent: int) -> npt.NDArray[np.int64]:
    """Return the counts on bins of the width 2**exponent; each doubling keeps half of the bins, around zero."""
    counts = statistic.counts
    for _ in range(min(exponent - statistic.exponent, HALF.bit_length())):
        halved = np.zeros_like(counts)
        # Index i - 1024 becomes (i - 1024) // 2; what lies nearest to zero stays in the two bins beside it.
        halved[HALF // 2 : HALF + HALF // 2] = counts.reshape(HALF, 2).sum(axis=1)
        counts = halved
    return counts


def histogram_of_bins(statistic: PowerOfTwo, *, folded: bool = False) -> Histogram:
    """Return the bins that hold something as buckets, of |x| where `folded`, and the zeros as a single value."""
    filled = np.flatnonzero(statistic.counts)
    width = 2.0**statistic.exponent
    lo = np.clip((filled - HALF) * width, statistic.minimum, statistic.maximum)
    hi = np.clip((filled - HALF + 1) * width, statistic.minimum, statistic.maximum)
    if folded:
        lo, hi = np.where(lo < 0.0, -hi, lo), np.where(lo < 0.0, -lo, hi)
    lo, hi, counts = np.append(lo, 0.0), np.append(hi, 0.0), np.append(statistic.counts[filled], statistic.zeros)
    order = np.lexsort((hi, lo))
    order = order[counts[order] > 0]
    return Histogram(lo[order], hi[order], counts[order])


# --- the measurements ------------------------------------------------------------------------------------------------------


def tensors() -> dict[str, Array32]:
    """Return seeded arrays as networks have them, by name."""
    rng = np.random.default_rng(0)
    gaussian = rng.standard_normal(SIZE)
    largest = np.abs(gaussian).max()
    drawn = {
        "uniform": rng.uniform(-1.0, 1.0, SIZE),
        "Gaussian": gaussian,
        "ReLU": np.maximum(gaussian, 0.0),
        "SiLU": gaussian / (1.0 + np.exp(-gaussian)),
        "Laplace": rng.laplace(size=SIZE),
        "Student t3": rng.standard_t(3, SIZE),
        "t2, log scale 10x": rng.standard_t(2, SIZE) * np.exp(rng.standard_normal(SIZE)),
        "outlier 30x": np.append(gaussian[1:], 30.0 * largest),
        "outlier 1000x": np.append(gaussian[1:], 1000.0 * largest),
        "ReLU, outlier 1000x": np.append(np.maximum(gaussian[1:], 0.0), 1000.0 * largest),
    }
    return {name: x.astype(np.float32) for name, x in drawn.items()}


def seconds(call: Callable[[], object]) -> float:
    """Return the least time of some runs: what another process takes away is no property of the code."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def true_mse(x: Array32, bound: float) -> float:
    """Quantize the raw data to [-bound, bound] and return the mean squared error."""
    step = np.float64(np.float32(bound / SPEC.qmax))
    error = x / step
    error -= np.clip(np.rint(error), SPEC.qmin, SPEC.qmax)
    return float(np.mean(error * error) * step * step)


def least_on_grid(x: Array32) -> float:
    """Return the least true error of bounds on a dense grid, refined twice around its best."""
    largest = float(np.abs(x).max())
    bounds, reach = largest * np.geomspace(1e-4, 1.0, 60), 1.15
    least = math.inf
    for _ in range(3):
        errors = [true_mse(x, float(bound)) for bound in bounds]
        least = min(least, *errors)
        bounds, reach = bounds[np.argmin(errors)] * np.geomspace(1.0 / reach, reach, 12), reach**0.2
    return least


@dataclass(frozen=True, slots=True)
class Design:
    """How one design observes, merges, and is read."""

    observe: Callable[[Array32], Any]
    merge: Callable[[Any, Any], Any]
    histogram: Callable[[Any], Histogram]
    magnitudes: Callable[[Any], Histogram]
    size: Callable[[Any], int]


def bytes_of_bits(statistic: TensorStatistic) -> int:
    """Return the bytes of the arrays in a statistic, each with its key and count."""
    return statistic.buckets.nbytes + statistic.counts.nbytes


DESIGNS = {
    "float bits": Design(observe, merge, histogram, lambda s: histogram(magnitude(s)), bytes_of_bits),
    "2**e bins": Design(
        observe_bins, merge_bins, histogram_of_bins, lambda s: histogram_of_bins(s, folded=True), lambda s: s.counts.nbytes
    ),
}
COLUMNS = ["tensor", "design", "observe", "/ numpy", "merge", "bytes", "mse predicted", "mse achieved", "99.99 % point"]
UNITS = ["", "", "ns/element", "", "us", "", "% off truth", "% above best", "% off truth"]


def row(name: str, x: Array32, design: Design, *, numpy_time: float, best: float) -> list[str]:
    """Measure one design on one tensor."""
    parts = [x[a:b] for a, b in pairwise(np.linspace(0, x.size, PARTS + 1).astype(int).tolist())]
    seen = [design.observe(part) for part in parts]
    merged = reduce(design.merge, seen)
    values = design.histogram(merged)
    found = least_mse_range(values, spec=SPEC)
    truth = true_mse(x, found.hi)
    predicted = float(expected_mse(values, found.lo, found.hi, spec=SPEC)[0])
    point = float(np.sort(np.abs(x))[math.ceil(PERCENTILE * x.size) - 1])
    observing, merging = seconds(lambda: design.observe(x)), seconds(lambda: reduce(design.merge, seen)) / (PARTS - 1)
    return [
        name,
        f"{observing / x.size * 1e9:.2f}",
        f"{observing / numpy_time:.2f}",
        f"{merging * 1e6:.0f}",
        f"{design.size(merged)}",
        f"{100.0 * (predicted / truth - 1.0):+.1f}",
        f"{100.0 * (truth / best - 1.0):+.1f}",
        f"{100.0 * (quantile(design.magnitudes(merged), PERCENTILE) / point - 1.0):+.1f}",
    ]


def main() -> None:
    """Print the table."""
    lines = [COLUMNS, UNITS]
    for tensor, x in tensors().items():
        numpy_time = seconds(lambda x=x: np.histogram(x, BINS))  # type: ignore[misc]
        best = least_on_grid(x)
        lines += [[tensor, *row(name, x, design, numpy_time=numpy_time, best=best)] for name, design in DESIGNS.items()]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    for line in lines:
        left = [text.ljust(width) for text, width in zip(line[:2], widths[:2], strict=True)]
        print("  ".join([*left, *(text.rjust(width) for text, width in zip(line[2:], widths[2:], strict=True))]))


if __name__ == "__main__":
    main()
