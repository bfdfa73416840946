from __future__ import annotations

import math
import re
import struct
from collections import Counter
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeropoint.errors import DataError, RecipeError
from zeropoint.numerics.affine import dequantize_array, qparams_from_range, quantize_array
from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import Spec
from zeropoint.statistics.histogram import BLOCK, Histogram, clipped_share, expected_mse, histogram, mean_square, quantile
from zeropoint.statistics.tensor import EMPTY, merge, observe

Array = np.ndarray[Any, Any]
INF = math.inf
LARGEST = float(np.finfo(np.float32).max)
HALF = Fraction(1, 2)
SPECS = [
    pytest.param(Spec(FORMATS[name], symmetric, narrow=narrow), id=f"{name}-{'symmetric' if symmetric else 'asymmetric'}-{narrow=}")
    for name in ("int8", "uint8", "int4", "uint4")
    for symmetric in (True, False)
    for narrow in ((False, True) if FORMATS[name].signed else (False,))
]
every_spec = pytest.mark.parametrize("spec", SPECS)
UINT8 = Spec(FORMATS["uint8"], symmetric=False)
INT8 = Spec(FORMATS["int8"], symmetric=True)
UINT16 = Spec(FORMATS["uint16"], symmetric=False)
BOUND = 2.0**100
numbers = st.lists(st.floats(-BOUND, BOUND, width=32), min_size=1, max_size=30)


def read_only(x: Array) -> Array:
    x = x.copy()
    x.flags.writeable = False
    return x


def buckets(*triples: tuple[float, float, int]) -> Histogram:
    lo, hi, counts = zip(*triples, strict=True)
    return Histogram(read_only(np.array(lo, np.float64)), read_only(np.array(hi, np.float64)), read_only(np.array(counts, np.int64)))


UNEVEN = buckets((-5.5, -4.0, 3), (-4.0, -3.75, 7), (-1.0, -1.0, 2), (-0.25, -0.125, 5), (0.0, 0.0, 11), (0.001, 0.002, 4), (1.0, 2.5, 6))


@cache
def sample(name: str, size: int) -> Array:
    rng = np.random.default_rng(7)
    gaussian = rng.standard_normal(size)
    drawn = {
        "gaussian": gaussian,
        "rectified": np.maximum(gaussian, 0.0),
        "heavy tail": rng.standard_t(3, size),
        "one outlier": np.append(gaussian[1:], 1000.0),
        "all negative": -np.abs(gaussian) - 0.5,
    }
    return read_only(drawn[name].astype(np.float32))


DISTRIBUTIONS = ["gaussian", "rectified", "heavy tail", "one outlier", "all negative"]
every_distribution = pytest.mark.parametrize("distribution", DISTRIBUTIONS)


# --- the buckets ----------------------------------------------------------------------------------------------------------


def slow_buckets(values: list[float]) -> list[tuple[float, float, int]]:
    """Group by the upper 16 bits, one value after the other; edges are the floats that begin this group and the next: the oracle."""
    groups = Counter(struct.pack(">f", v)[:2] for v in values)
    found = []
    for key, count in groups.items():
        sign = -1.0 if key[0] & 0x80 else 1.0
        magnitude = int.from_bytes(key, "big") & 0x7FFF
        inner, outer = (struct.unpack(">f", struct.pack(">HH", m, 0))[0] for m in (magnitude, magnitude + 1))
        ends = (sign * outer, sign * inner) if sign < 0 else (inner, outer)
        lo, hi = (min(max(end, min(values)), max(values)) for end in ends)
        found.append((0.0, 0.0, count) if magnitude == 0 else (lo, hi, count))
    zeros = sum(count for lo, hi, count in found if lo == hi == 0.0)
    return sorted([b for b in found if not b[0] == b[1] == 0.0] + ([(0.0, 0.0, zeros)] if zeros else []))


@given(numbers)
def test_buckets_against_a_slow_loop(values: list[float]) -> None:
    h = histogram(observe(read_only(np.array(values, np.float32))))
    assert list(zip(h.lo.tolist(), h.hi.tolist(), h.counts.tolist(), strict=True)) == slow_buckets(values)
    assert h.total == len(values)
    assert (h.lo.dtype, h.hi.dtype, h.counts.dtype) == (np.float64, np.float64, np.int64)
    assert not (h.lo.flags.writeable or h.hi.flags.writeable or h.counts.flags.writeable), "it is made once for all solvers"


@given(numbers)
def test_buckets_ascend_without_overlap_and_are_narrow(values: list[float]) -> None:
    h = histogram(observe(np.array(values, np.float32)))
    assert (h.lo <= h.hi).all()
    assert (h.hi[:-1] <= h.lo[1:]).all()
    normal = np.minimum(np.abs(h.lo), np.abs(h.hi)) >= np.finfo(np.float32).tiny
    assert ((h.hi - h.lo)[normal] <= np.minimum(np.abs(h.lo), np.abs(h.hi))[normal] / 128).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([2.5, 2.5], [(2.5, 2.5, 2)], id="constant"),
        pytest.param([0.0, -0.0], [(0.0, 0.0, 2)], id="zeros"),
        pytest.param([-1e-44, 1e-44, 0.0], [(0.0, 0.0, 3)], id="as good as zero"),
        pytest.param([1.0, 3.0], [(1.0, 1.0078125, 1), (3.0, 3.0, 1)], id="clipped to the exact maximum"),
        pytest.param([-3.0, -1.0], [(-3.0, -3.0, 1), (-1.0078125, -1.0, 1)], id="clipped to the exact minimum"),
        pytest.param([LARGEST], [(LARGEST, LARGEST, 1)], id="the bucket before infinity"),
        pytest.param([-LARGEST, 1.0], [(-LARGEST, -struct.unpack(">f", b"\x7f\x7f\0\0")[0], 1), (1.0, 1.0, 1)], id="and its mirror image"),
        pytest.param([math.nan, INF, 1.0], [(1.0, 1.0, 1)], id="NaN and infinity are left out"),
    ],
)
def test_defined_buckets(values: list[float], expected: list[tuple[float, float, int]]) -> None:
    h = histogram(observe(np.array(values, np.float32)))
    assert list(zip(h.lo.tolist(), h.hi.tolist(), h.counts.tolist(), strict=True)) == expected


def test_nothing_finite_is_refused() -> None:
    message = "statistic: found no finite value (2 NaN, 1 Inf), expected at least one; feed calibration data that reaches this tensor"
    with pytest.raises(DataError, match=re.escape(message)):
        histogram(observe([math.nan, INF, math.nan]))
    with pytest.raises(DataError, match=re.escape("found no finite value (0 NaN, 0 Inf)")):
        histogram(EMPTY)


# --- mean_square and quantile ---------------------------------------------------------------------------------------------


def test_mean_square_against_exact_fractions() -> None:
    total = Fraction()
    for lo, hi, count in zip(UNEVEN.lo, UNEVEN.hi, UNEVEN.counts, strict=True):
        a, b = Fraction(lo), Fraction(hi)
        total += int(count) * (a * a if a == b else (b**3 - a**3) / (3 * (b - a)))
    assert mean_square(UNEVEN) == pytest.approx(float(total / UNEVEN.total), rel=1e-14)


@every_distribution
def test_mean_square_against_the_raw_data(distribution: str) -> None:
    x = sample(distribution, 20_000)
    assert mean_square(histogram(observe(x))) == pytest.approx(math.fsum(float(v) ** 2 for v in x) / x.size, rel=1e-3)


@pytest.mark.parametrize("value", [LARGEST, -LARGEST, 1e-38, 0.0], ids=str)
def test_mean_square_of_extremes_is_exact(value: float) -> None:
    seen = observe(np.full(3, value, np.float32))
    assert mean_square(histogram(seen)) == pytest.approx(seen.minimum**2, rel=1e-15)


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        pytest.param(0.0, -5.5, id="all above"),
        pytest.param(1.5 / 38, -4.75, id="half of a bucket"),
        pytest.param(3 / 38, -4.0, id="a whole bucket"),
        pytest.param(11 / 38, -1.0, id="inside a single value"),
        pytest.param(20 / 38, 0.0, id="inside the zeros"),
        pytest.param(34 / 38, 1.5, id="a third of the last bucket"),
        pytest.param(1.0, 2.5, id="all below"),
    ],
)
def test_quantile_is_interpolated_inside_its_bucket(fraction: float, expected: float) -> None:
    assert quantile(UNEVEN, fraction) == pytest.approx(expected, abs=1e-12)


@every_distribution
def test_quantile_is_in_the_bucket_of_the_order_statistic(distribution: str) -> None:
    x = sample(distribution, 20_011)
    h, ordered = histogram(observe(x)), np.sort(x.astype(np.float64))
    for fraction in (0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.9999, 1.0):
        exact = ordered[math.ceil(fraction * x.size) - 1]
        assert abs(quantile(h, fraction) - exact) <= abs(exact) / 128
        assert ordered[0] <= quantile(h, fraction) <= ordered[-1]


@given(numbers, st.floats(0, 1), st.floats(0, 1))
def test_quantile_is_monotone(values: list[float], a: float, b: float) -> None:
    h = histogram(observe(np.array(values, np.float32)))
    assert min(values) <= quantile(h, min(a, b)) <= quantile(h, max(a, b)) <= max(values)


@every_distribution
@pytest.mark.parametrize("bounds", [(-0.5, 0.75), (0.0, 1.0), (-100.0, 100.0), (-0.01, 0.0)], ids=str)
def test_clipped_share_against_the_raw_data(distribution: str, bounds: tuple[float, float]) -> None:
    x, (lo, hi) = sample(distribution, 20_000), bounds
    # A bound inside a bucket splits it evenly, which the raw data need not be.
    assert clipped_share(histogram(observe(x)), lo, hi) == pytest.approx(np.mean((x < lo) | (x > hi)), abs=0.002)


def share_outside(start: float, end: float, lo: float, hi: float) -> float:
    if start == end:
        return float(start < lo or end > hi)
    return (min(max(lo - start, 0.0), end - start) + min(max(end - hi, 0.0), end - start)) / (end - start)


@given(numbers, st.floats(-BOUND, BOUND), st.floats(-BOUND, BOUND))
def test_clipped_share_against_a_loop_over_the_buckets(values: list[float], a: float, b: float) -> None:
    h, lo, hi = histogram(observe(np.array(values, np.float32))), min(a, b), max(a, b)
    shares = [share_outside(float(start), float(end), lo, hi) for start, end in zip(h.lo, h.hi, strict=True)]
    outside = math.fsum(shares * h.counts)
    assert clipped_share(h, lo, hi) == pytest.approx(outside / h.total, rel=1e-12, abs=1e-15)


def test_clipped_share_of_single_values_is_exact() -> None:
    h = histogram(observe([-1.0, 0.0, 0.0, 2.0]))
    assert [clipped_share(h, lo, hi) for lo, hi in ((-1.0, 2.0), (-0.5, 2.0), (-1.0, 1.0), (0.0, 0.0))] == [0.0, 0.25, 0.25, 0.5]


# --- expected_mse against exact arithmetic --------------------------------------------------------------------------------


def exact_mse(h: Histogram, lo: float, hi: float, spec: Spec, clipping: Fraction = Fraction(1)) -> float:
    """Integrate (t - code)**2 over each bucket, code after code, in exact fractions: the oracle."""
    q = qparams_from_range(lo, hi, spec=spec)
    scale, first, last = Fraction(float(q.scale)), spec.qmin - int(q.zero_point), spec.qmax - int(q.zero_point)
    total = Fraction()
    for a, b, count in zip(h.lo, h.hi, h.counts, strict=True):
        start, end = Fraction(a) / scale, Fraction(b) / scale
        lowest, highest = (min(max(round(t), first), last) for t in (start, end))  # half to even, as Python's round is
        if start == end:
            total += int(count) * (clipping if not first <= start <= last else 1) * (start - lowest) ** 2
            continue
        integral = Fraction()
        for n in range(lowest, highest + 1):
            left = start if n == lowest else n - HALF
            right = end if n == highest else n + HALF
            integral += ((right - n) ** 3 - (left - n) ** 3) / 3
            if n == first:
                integral += (clipping - 1) * (min(right - n, Fraction()) ** 3 - min(left - n, Fraction()) ** 3) / 3
            if n == last:
                integral += (clipping - 1) * (max(right - n, Fraction()) ** 3 - max(left - n, Fraction()) ** 3) / 3
        total += int(count) * integral / (end - start)
    return float(total * scale**2 / h.total)


RANGES = [
    (-5.5, 2.5),
    (-2.0, 1.0),
    (-0.3, 0.3),
    (0.0, 2.5),
    (-5.5, 0.0),
    (-1000.0, 1000.0),
    (0.5, 2.0),
    (-3.0, -1.0),
    (0.0, 0.0),
    (-1e-3, 9.0),
]


@every_spec
def test_expected_mse_against_exact_fractions(spec: Spec) -> None:
    found = expected_mse(UNEVEN, read_only(np.array([lo for lo, _ in RANGES])), read_only(np.array([hi for _, hi in RANGES])), spec=spec)
    assert found.dtype == np.float64
    assert found.tolist() == pytest.approx([exact_mse(UNEVEN, lo, hi, spec) for lo, hi in RANGES], rel=1e-11)


@every_spec
@pytest.mark.parametrize("clipping", [0.0, 0.5, 4.0])
def test_expected_mse_counts_what_is_clipped_as_often_as_asked(clipping: float, spec: Spec) -> None:
    los, his = np.array([lo for lo, _ in RANGES]), np.array([hi for _, hi in RANGES])
    found = expected_mse(UNEVEN, read_only(los), read_only(his), spec=spec, clipping=clipping)
    exact = [exact_mse(UNEVEN, lo, hi, spec, Fraction(clipping)) for lo, hi in RANGES]
    assert found.tolist() == pytest.approx(exact, rel=1e-11)
    assert (found != expected_mse(UNEVEN, los, his, spec=spec)).any()


@every_distribution
@pytest.mark.parametrize("spec", [pytest.param(INT8, id="int8-symmetric"), pytest.param(UINT8, id="uint8-asymmetric")])
def test_expected_mse_of_real_buckets_against_exact_fractions(distribution: str, spec: Spec) -> None:
    h = histogram(observe(sample(distribution, 500)))
    for lo, hi in ((float(h.lo[0]), float(h.hi[-1])), (-1.5, 1.5), (-0.5, 2.0)):
        assert expected_mse(h, lo, hi, spec=spec).tolist() == pytest.approx([exact_mse(h, lo, hi, spec)], rel=1e-9)


@pytest.mark.parametrize("name", ["int16", "uint16"])
def test_expected_mse_of_16_bit_codes_against_exact_fractions(name: str) -> None:
    spec = Spec(FORMATS[name], symmetric=False)
    h = buckets((-1.0, -0.999, 5), (-0.01, -0.0099, 3), (0.5, 0.5, 1), (0.75, 0.7501, 9))
    for lo, hi in ((-1.0, 0.7501), (-0.5, 0.75), (-3.0, 8.0)):
        assert expected_mse(h, lo, hi, spec=spec).tolist() == pytest.approx([exact_mse(h, lo, hi, spec)], rel=1e-7)


@pytest.mark.parametrize(
    ("values", "lo", "hi"),
    [
        pytest.param([1e-40, -1e-39, 2e-39, 1e-44], -1e-39, 2e-39, id="subnormals"),
        pytest.param([LARGEST, -LARGEST, 1e38], -LARGEST, LARGEST, id="near the largest float"),
        pytest.param([LARGEST, -1e38, 1e-38], -1e-38, 1e-38, id="all of it clipped away"),
        pytest.param([2.5], 0.0, 2.5, id="a single value"),
        pytest.param([2.5], 0.0, 1.0, id="a single value, clipped"),
        pytest.param([0.0], 0.0, 0.0, id="zero"),
        pytest.param([-3.0, -2.0], -3.0, 0.0, id="all negative"),
    ],
)
def test_expected_mse_of_extremes_against_exact_fractions(values: list[float], lo: float, hi: float) -> None:
    h = histogram(observe(np.array(values, np.float32)))
    for spec in (INT8, UINT8):
        with np.errstate(all="raise", under="ignore"):
            found = expected_mse(h, lo, hi, spec=spec).tolist()
        assert found == pytest.approx([exact_mse(h, lo, hi, spec)], rel=1e-7, abs=1e-300)


FEW = sample("gaussian", 60)
HARD = {
    "an outlier of a million": np.append(FEW, np.float32(1e6)),
    "an outlier of a million below": np.append(np.maximum(FEW, 0.0), np.float32(-1e6)),
    "subnormal": FEW * np.float32(1e-39),
    "near the largest float": np.clip(FEW, -1.0, 1.0) * np.float32(LARGEST),
    "one sign": np.abs(FEW) + np.float32(100.0),
    "all sizes": np.exp(np.float32(15.0) * FEW),
    "nearly constant": np.float32(1.0) + np.abs(FEW) * np.float32(1e-5),
    "a single value": np.full(3, 2.5, np.float32),
}


@pytest.mark.parametrize("clipping", [1.0, 2.0])
@pytest.mark.parametrize("spec", [pytest.param(INT8, id="int8"), pytest.param(UINT8, id="uint8"), pytest.param(UINT16, id="uint16")])
@pytest.mark.parametrize("values", HARD.values(), ids=HARD)
def test_expected_mse_of_hard_cases_against_exact_fractions(values: Array, spec: Spec, clipping: float) -> None:
    h = histogram(observe(values))
    lo, hi = min(float(h.lo[0]), 0.0), max(float(h.hi[-1]), 0.0)
    ranges = [(share * lo, share * hi) for share in (1.0, 0.7, 0.01)] + [(lo, 0.3 * hi), (0.3 * lo, hi), (lo, 0.0), (0.0, hi)]
    ranges = ranges[1:4:2] if spec is UINT16 else ranges
    found = expected_mse(h, [lo for lo, _ in ranges], [hi for _, hi in ranges], spec=spec, clipping=clipping)
    exact = [exact_mse(h, lo, hi, spec, Fraction(clipping)) for lo, hi in ranges]
    # Errors far below the signal come out of a difference: 1e-14 of the power is 140 dB down, and 8 bits reach 60.
    assert found.tolist() == pytest.approx(exact, rel=1e-7 if spec is UINT16 else 1e-11, abs=1e-14 * mean_square(h))


# --- expected_mse against what the codes do -------------------------------------------------------------------------------


def measured_mse(x: Array, lo: float, hi: float, spec: Spec) -> float:
    q = qparams_from_range(lo, hi, spec=spec)
    return float(np.mean((dequantize_array(quantize_array(x, q), q).astype(np.float64) - x) ** 2))


@every_spec
def test_expected_mse_against_many_uniform_samples_in_each_bucket(spec: Spec) -> None:
    inside = (np.arange(20_000) + 0.5) / 20_000
    for lo, hi in ((-5.5, 2.5), (-2.0, 1.0), (-0.3, 0.3)):
        of_buckets = [
            measured_mse((a + inside * (b - a)).astype(np.float32), lo, hi, spec) for a, b in zip(UNEVEN.lo, UNEVEN.hi, strict=True)
        ]
        expected = float(np.average(of_buckets, weights=UNEVEN.counts))
        assert expected_mse(UNEVEN, lo, hi, spec=spec).tolist() == pytest.approx([expected], rel=1e-4)


@every_distribution
@every_spec
def test_expected_mse_predicts_the_error_on_the_raw_data(distribution: str, spec: Spec) -> None:
    x = sample(distribution, 20_000)
    lo, hi = float(x.min()), float(x.max())
    for share in (1.0, 0.5, 0.1):
        found = expected_mse(histogram(observe(x)), share * lo, share * hi, spec=spec)
        assert found.tolist() == pytest.approx([measured_mse(x, share * lo, share * hi, spec)], rel=0.02)


def test_many_candidates_are_judged_as_each_alone() -> None:
    h = histogram(observe(sample("heavy tail", 20_000)))
    shares = np.geomspace(1e-4, 1.0, 300)
    assert shares.size * h.counts.size > 2 * BLOCK, "in several parts"
    for spec in (UINT8, UINT16):
        together = expected_mse(h, shares * h.lo[0], shares * h.hi[-1], spec=spec)
        alone = [expected_mse(h, share * h.lo[0], share * h.hi[-1], spec=spec)[0] for share in shares]
        assert together.tolist() == pytest.approx(alone, rel=1e-10)


@given(numbers, st.floats(-BOUND, BOUND), st.floats(-BOUND, BOUND))
def test_expected_mse_is_never_negative(values: list[float], a: float, b: float) -> None:
    found = expected_mse(histogram(observe(np.array(values, np.float32))), min(a, b), max(a, b), spec=INT8)
    assert found.shape == (1,)
    assert found[0] >= 0.0


def test_expected_mse_does_not_depend_on_how_often_the_data_was_seen() -> None:
    seen = observe(sample("gaussian", 1000))
    once, twice = (expected_mse(histogram(s), -1.0, 2.0, spec=UINT8)[0] for s in (seen, merge(seen, seen)))
    assert twice == pytest.approx(once, rel=1e-14)


@pytest.mark.parametrize(
    ("lo", "hi", "found"),
    [
        pytest.param(1.0, -1.0, "[1.0, -1.0] at index [0]", id="reversed"),
        pytest.param([0.0, 0.0], [1.0, INF], "[0.0, inf] at index [1]", id="infinite"),
        pytest.param([math.nan], [1.0], "[nan, 1.0] at index [0]", id="NaN"),
    ],
)
def test_impossible_ranges_are_refused(lo: Any, hi: Any, found: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(f"range: found {found}, expected finite bounds with lo <= hi")):
        expected_mse(UNEVEN, lo, hi, spec=INT8)
