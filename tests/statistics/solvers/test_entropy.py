from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from zeropoint.errors import DataError, RecipeError
from zeropoint.native import library
from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import Spec
from zeropoint.statistics.solvers.entropy import Entropy, Indices, divergences, run_sums_compiled, run_sums_in_numpy
from zeropoint.statistics.solvers.minmax import MinMax
from zeropoint.statistics.tensor import EMPTY, merge, observe

Array = np.ndarray[Any, Any]
RunSums = Callable[[Array, int, Indices, int], Array]
no_compiler = pytest.mark.skipif(library is None, reason="there was no C compiler when zeropoint was installed")
IMPLEMENTATIONS = [pytest.param(run_sums_in_numpy, id="numpy"), pytest.param(run_sums_compiled, id="compiled", marks=no_compiler)]
LEVELS = 2048
SIZE = 60_000
LARGEST = float(np.finfo(np.float32).max)
INT8 = Spec(FORMATS["int8"], symmetric=True)
INT4 = Spec(FORMATS["int4"], symmetric=True)
UINT8 = Spec(FORMATS["uint8"], symmetric=False)
SIGNED_ASYMMETRIC = Spec(FORMATS["int8"], symmetric=False)


@cache
def sample(name: str) -> Array:
    rng = np.random.default_rng(0)
    gaussian = rng.standard_normal(SIZE)
    drawn = {
        "gaussian": gaussian,
        "laplace": rng.laplace(size=SIZE),
        "student t3": rng.standard_t(3, SIZE),
        "student t2": rng.standard_t(2, SIZE),
        "lognormal": rng.lognormal(size=SIZE),
        "rectified": np.maximum(gaussian, 0.0),
        "exponential": rng.exponential(size=SIZE),
        "all negative": -rng.exponential(size=SIZE),
        "uniform": rng.uniform(-1.0, 1.0, SIZE),
        "mostly zero": gaussian * (rng.random(SIZE) < 0.3),
        "tiny": gaussian * 1e-30,
        "large": gaussian * 6e37,
    }
    x = drawn[name].astype(np.float32)
    x.flags.writeable = False
    return x


# --- the oracle: a loop over candidates, codes and levels, on the raw data --------------------------------------------------


def slow_divergence(counts: list[float], i: int, codes: int, total: float) -> float:
    """KL(P || Q): P keeps the first i levels, the rest is clipped into the last; Q shares each code out to its non-empty levels."""
    p = counts[:i]
    clipped = total - math.fsum(p)
    q = [0.0] * i
    for code in range(codes):
        levels = range(i * code // codes, i * (code + 1) // codes)
        filled = [level for level in levels if p[level] > 0.0]
        mass = sum(p[level] for level in levels)
        for level in filled:
            q[level] = mass / len(filled)
    q_total = math.fsum(q)
    p = [*p[:-1], p[-1] + max(clipped, 0.0)]
    terms = []
    for p_level, q_level in zip(p, q, strict=True):
        if p_level > 0.0:
            if q_level == 0.0:
                return math.inf
            terms.append(p_level / total * math.log((p_level / total) / (q_level / q_total)))
    return math.fsum(terms)


def levels_of(x: Array, end: float) -> list[float]:
    """How many non-zero |x| each level of [0, end] holds."""
    counts, _ = np.histogram(np.abs(x[x != 0.0].astype(np.float64)), LEVELS, (0.0, end))
    return [float(count) for count in counts]


def slow_search(x: Array, codes: int, end: float) -> dict[int, float]:
    """The divergence of every 16th candidate that clips no more than 1 %, and of the last one."""
    counts, total = levels_of(x, end), float(np.count_nonzero(x))
    kept = np.cumsum(counts)
    candidates = [i for i in (*range(codes, LEVELS, 16), LEVELS) if kept[i - 1] >= 0.99 * total]
    return {i: slow_divergence(counts, i, codes, total) for i in candidates}


def divergence_at(x: Array, threshold: float, codes: int, end: float) -> float:
    """The divergence of the filled level nearest to `threshold`: on raw data many levels of a tail are empty, thus infinitely far."""
    counts = levels_of(x, end)
    filled = [i for i in range(codes, LEVELS + 1) if counts[i - 1] > 0.0]
    nearest = min(filled, key=lambda i: abs(i / LEVELS * end - threshold))
    return slow_divergence(counts, nearest, codes, float(np.count_nonzero(x)))


@pytest.mark.parametrize("codes", [8, 100, 128, 256])
def test_divergences_against_nested_loops(codes: int) -> None:
    rng = np.random.default_rng(codes)
    counts = np.floor(rng.exponential(200.0, LEVELS) * np.exp(-np.arange(LEVELS) / 300.0))
    beyond = 25.0
    candidates = np.array([i for i in (codes, codes + 1, 300, 511, 512, 777, 1024, 1500) if i >= codes and counts[i - 1] > 0.0])
    assert candidates.size >= 4
    counts.flags.writeable = candidates.flags.writeable = False
    found = divergences(counts, candidates, codes=codes, total=float(counts.sum() + beyond))
    assert found.tolist() == pytest.approx(
        [slow_divergence(counts.tolist(), int(i), codes, float(counts.sum() + beyond)) for i in candidates], rel=1e-9, abs=1e-12
    )


@pytest.mark.parametrize("codes", [1, 3, 8, 129, 255, 256])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_sums_over_runs_against_a_loop(implementation: RunSums, codes: int) -> None:
    rng = np.random.default_rng(codes)
    candidates = np.unique(rng.integers(codes, LEVELS + 1, 40))
    fewest = int(candidates.min()) // codes
    terms = rng.standard_normal((LEVELS, -(-int(candidates.max()) // codes) - fewest + 1))
    terms.flags.writeable = candidates.flags.writeable = False
    found = implementation(terms, fewest, candidates, codes)
    for i, total in zip(candidates.tolist(), found.tolist(), strict=True):
        ends = [i * j // codes for j in range(codes + 1)]
        exact = math.fsum(terms[a, b - a - fewest] for a, b in pairwise(ends))
        assert total == pytest.approx(exact, rel=1e-12, abs=1e-12)
    assert found.tobytes() == run_sums_in_numpy(terms, fewest, candidates, codes).tobytes(), "the same bits"


@pytest.mark.parametrize(
    ("distribution", "spec", "codes", "most_of_maximum"),
    [
        pytest.param("gaussian", INT8, 128, 1.0, id="gaussian"),
        pytest.param("laplace", INT8, 128, 0.95, id="laplace"),
        pytest.param("student t3", INT8, 128, 0.5, id="heavy tail"),
        pytest.param("student t2", INT8, 128, 0.4, id="heavier tail"),
        pytest.param("student t2", INT4, 8, 0.2, id="heavier tail in 4 bits"),
        pytest.param("lognormal", UINT8, 256, 0.6, id="lognormal, one sided"),
        pytest.param("rectified", UINT8, 256, 1.0, id="rectified"),
        pytest.param("rectified", INT8, 128, 1.0, id="rectified, half of the codes unused"),
        pytest.param("exponential", Spec(FORMATS["uint8"], symmetric=True), 256, 1.0, id="exponential, symmetric unsigned"),
        pytest.param("all negative", SIGNED_ASYMMETRIC, 256, 1.0, id="all negative"),
        pytest.param("uniform", INT8, 128, 1.0, id="uniform"),
        pytest.param("mostly zero", INT8, 128, 1.0, id="mostly zero"),
        pytest.param("tiny", INT8, 128, 1.0, id="tiny"),
        pytest.param("large", INT8, 128, 1.0, id="large"),
    ],
)
def test_threshold_is_near_the_least_divergence_on_the_raw_data(distribution: str, spec: Spec, codes: int, most_of_maximum: float) -> None:
    x = sample(distribution)
    end = float(np.abs(x).max())
    found = Entropy().solve(observe(x), spec)
    threshold = max(-found.lo, found.hi)
    searched = slow_search(x, codes, end)
    assert threshold <= most_of_maximum * end
    assert divergence_at(x, threshold, codes, end) <= 1.15 * min(searched.values())


@pytest.mark.parametrize("spec", [pytest.param(INT8, id="int8 symmetric"), pytest.param(UINT8, id="uint8 asymmetric")])
@pytest.mark.parametrize("outlier", [15.0, 50.0, 1e3, -1e6, 1e30], ids=str)
def test_one_outlier_of_any_size_hardly_moves_the_threshold(spec: Spec, outlier: float) -> None:
    bulk = sample("gaussian")
    found = Entropy().solve(merge(observe(bulk), observe([outlier])), spec)
    threshold = max(-found.lo, found.hi)
    end = float(np.abs(bulk).max())
    assert 0.6 * end < threshold <= 1.1 * end
    with_outlier = np.append(bulk, np.float32(outlier))
    assert divergence_at(with_outlier, threshold, 128, end) <= 1.15 * min(slow_search(with_outlier, 128, end).values())


@pytest.mark.parametrize("spec", [pytest.param(s, id=s.format.name) for s in (INT8, UINT8, INT4)])
def test_the_size_of_an_outlier_does_not_matter(spec: Spec) -> None:
    bulk = observe(sample("gaussian"))
    thresholds = [Entropy().solve(merge(bulk, observe([outlier])), spec).hi for outlier in (50.0, 1e3, 1e6, 1e30)]
    assert thresholds == pytest.approx([thresholds[0]] * 4, rel=0.01)


@pytest.mark.parametrize(
    ("share", "clipped"), [pytest.param(0.03, False, id="3 % lie far out: held"), pytest.param(0.003, True, id="0.3 %: clipped")]
)
def test_a_second_mode_is_clipped_only_where_it_is_less_than_one_percent(share: float, clipped: bool) -> None:
    far = round(share * SIZE)
    x = np.append(sample("gaussian")[far:], np.linspace(99.0, 101.0, far, dtype=np.float32))
    found = Entropy().solve(observe(x), INT8)
    assert (found.hi < 5.0) if clipped else (found.hi > 99.0)


def test_heavy_tail_is_clipped_because_that_tells_more_apart() -> None:
    x = sample("student t2")
    end = float(np.abs(x).max())
    found = Entropy().solve(observe(x), INT8)
    assert 5.0 * divergence_at(x, found.hi, 128, end) < divergence_at(x, end, 128, end)


@pytest.mark.parametrize("distribution", ["gaussian", "student t2", "lognormal", "mostly zero"])
@pytest.mark.parametrize("spec", [pytest.param(INT8, id="int8"), pytest.param(UINT8, id="uint8"), pytest.param(INT4, id="int4")])
def test_at_most_one_percent_of_the_non_zero_values_is_clipped(distribution: str, spec: Spec) -> None:
    x = sample(distribution)
    found = Entropy().solve(observe(x), spec)
    clipped = np.count_nonzero((x < found.lo) | (x > found.hi)) / np.count_nonzero(x)
    assert clipped <= 0.0101  # the threshold is interpolated inside a bucket


def test_exact_zeros_change_nothing() -> None:
    x = sample("lognormal")
    assert Entropy().solve(observe(np.append(x, np.zeros(1_000_000, np.float32))), UINT8) == Entropy().solve(observe(x), UINT8)


def test_asymmetric_ranges_end_at_the_bounds_seen() -> None:
    x = np.append(sample("lognormal"), np.float32(-0.5))
    found = Entropy().solve(observe(x), UINT8)
    assert found.lo == -0.5
    assert 0.0 < found.hi < 0.6 * float(x.max())


def test_symmetric_ranges_are_mirrored_or_from_zero() -> None:
    seen = observe(sample("gaussian"))
    mirrored, from_zero = (Entropy().solve(seen, Spec(FORMATS[name], symmetric=True)) for name in ("int8", "uint8"))
    assert mirrored.lo == -mirrored.hi < 0.0
    assert from_zero.lo == 0.0 < from_zero.hi


@pytest.mark.parametrize(
    "spec", [pytest.param(Spec(FORMATS[n], s), id=f"{n}-{s}") for n in ("int8", "uint8", "int4") for s in (True, False)]
)
@pytest.mark.parametrize(
    "values",
    [
        pytest.param([0.0, -0.0], id="zeros"),
        pytest.param([1e-44], id="as good as zero"),
        pytest.param([1e-44, -2e-42, 0.0], id="as good as zero, both signs"),
        pytest.param([2.5], id="a single value"),
        pytest.param([2.5] * 1000, id="constant"),
        pytest.param([-2.5] * 1000, id="constant below"),
        pytest.param([LARGEST, -LARGEST], id="the largest floats"),
        pytest.param([1e-40, -3e-39, 2e-39], id="subnormals"),
    ],
)
def test_a_tensor_without_a_tail_keeps_min_max(values: list[float], spec: Spec) -> None:
    seen = observe(np.array(values, np.float32))
    with np.errstate(all="raise", under="ignore"):
        assert Entropy().solve(seen, spec) == MinMax().solve(seen, spec)


@pytest.mark.parametrize(("name", "symmetric"), [("int16", True), ("int16", False), ("uint16", False)])
def test_16_bit_formats_keep_min_max(name: str, symmetric: bool) -> None:
    seen = observe(sample("student t2"))
    assert Entropy().solve(seen, Spec(FORMATS[name], symmetric)) == MinMax().solve(seen, Spec(FORMATS[name], symmetric))


def test_levels_change_the_answer() -> None:
    seen = observe(sample("student t3"))
    found = [Entropy(levels).solve(seen, INT8) for levels in (2048, 4096)]
    assert found[0] != found[1]
    whole = MinMax().solve(seen, INT8)
    assert all(whole.lo < r.lo < r.hi < whole.hi for r in found)


def test_too_few_levels_are_refused() -> None:
    message = "entropy levels: found 2047, expected at least 2048, to resolve the tail of 8-bit codes"
    with pytest.raises(RecipeError, match=re.escape(message)):
        Entropy(2047)


def test_nothing_finite_is_refused() -> None:
    with pytest.raises(DataError, match="found no finite value"):
        Entropy().solve(EMPTY, INT8)
