from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeropoint.native import library
from zeropoint.statistics.histogram import Histogram, histogram
from zeropoint.statistics.tails import BLOCK, Tails, code_sums, code_sums_compiled, code_sums_in_numpy
from zeropoint.statistics.tensor import observe

Array = np.ndarray[Any, Any]
LARGEST = float(np.finfo(np.float32).max)
compiled = pytest.mark.skipif(library is None, reason="there was no C compiler when zeropoint was installed")


def seen(x: Any) -> Histogram:
    return histogram(observe(np.asarray(x, np.float64).astype(np.float32)))


def buckets(*triples: tuple[float, float, int]) -> Histogram:
    lo, hi, counts = zip(*triples, strict=True)
    return Histogram(np.array(lo, np.float64), np.array(hi, np.float64), np.array(counts, np.int64))


GAUSSIAN = np.random.default_rng(0).standard_normal(300)
HISTOGRAMS = {
    "gaussian": seen(GAUSSIAN),
    "one outlier of a million": seen(np.append(GAUSSIAN, 1e6)),
    "one outlier below": seen(np.append(GAUSSIAN, -1e6)),
    "both signs, far from 0": seen(np.append(GAUSSIAN[:100] + 1e3, GAUSSIAN[:50] - 2e2)),
    "one sign": seen(np.abs(GAUSSIAN)),
    "one sign, far from 0": seen(np.abs(GAUSSIAN) + 100.0),
    "all negative": seen(-np.abs(GAUSSIAN) - 0.5),
    "tiny": seen(GAUSSIAN * 1e-36),
    "subnormal": seen(GAUSSIAN * 1e-39),
    "large": seen(np.clip(GAUSSIAN * 2e38, -LARGEST, LARGEST)),
    "all sizes": seen(np.exp(40.0 * GAUSSIAN[:100].clip(-2, 2)) * np.sign(GAUSSIAN[100:200])),
    "single values": seen([-3.0, 0.0, 2.0]),
    "buckets of one width": buckets(*((i / 50.0, (i + 1) / 50.0, 1 + i % 7) for i in range(-100, 150))),
    "a bucket on both sides of 0": buckets((-3.0, -1.0, 5), (-1.0, 2.0, 12), (2.5, 2.5, 3), (4.0, 4.25, 1)),
    "many buckets in one cell": buckets(*((1.0 + i * 2.0**-20, 1.0 + (i + 1) * 2.0**-20, 1 + i % 3) for i in range(0, 60, 2))),
}
every_histogram = pytest.mark.parametrize("values", HISTOGRAMS.values(), ids=HISTOGRAMS)


def candidates(values: Histogram, boundaries: int = 15) -> Array:
    """Scales that clip nothing, something and nearly all, with the codes on both sides of 0 or on one."""
    peak = max(-float(values.lo[0]), float(values.hi[-1]))
    scales = [peak * share / boundaries for share in (3.0, 1.0, 0.4, 0.01)]
    firsts = [0, boundaries // 2, boundaries]
    found = np.array([(scale, -float(below), float(boundaries - below)) for scale in scales for below in firsts])
    found.flags.writeable = False
    return found


def exact_beyond(values: Histogram, point: Fraction, *, negative: bool, power: int) -> Fraction:
    """The sum of (|x| - |point|)**power over all values beyond `point`, away from 0, but for single values: bucket after bucket."""
    total, magnitude = Fraction(), abs(point)
    for lo, hi, count in zip(values.lo.tolist(), values.hi.tolist(), values.counts.tolist(), strict=True):
        if lo == hi:
            continue
        a, b = (-Fraction(hi), -Fraction(lo)) if negative else (Fraction(lo), Fraction(hi))
        start = max(a, magnitude)
        if start < b:
            total += count * ((b - magnitude) ** (power + 1) - (start - magnitude) ** (power + 1)) / (power + 1) / (b - a)
    return total


def exact_sums(values: Histogram, codes: Array, boundaries: int) -> list[list[float]]:
    found = []
    for scale, first, last in codes.tolist():
        points = [(Fraction(first) + k + Fraction(1, 2)) * Fraction(scale) for k in range(boundaries)]
        excess = sum(exact_beyond(values, point, negative=point < 0, power=1) for point in points)
        ends = [(Fraction(first) * Fraction(scale), True), (Fraction(last) * Fraction(scale), False)]
        found.append([float(excess), float(sum(exact_beyond(values, point, negative=side, power=2) for point, side in ends))])
    return found


@every_histogram
def test_sums_against_exact_fractions(values: Histogram) -> None:
    codes = candidates(values)
    found = code_sums(values.tails, codes, 15)
    assert (found.shape, found.dtype) == ((12, 2), np.float64)
    for row, exact in zip(found.tolist(), exact_sums(values, codes, 15), strict=True):
        # An end code is a product in float64: what it is next to, it may be level with.
        assert row == pytest.approx(exact, rel=1e-12, abs=1e-28 * values.tails.power)


@every_histogram
def test_power_against_exact_fractions(values: Histogram) -> None:
    exact = sum(exact_beyond(values, Fraction(), negative=side, power=2) for side in (True, False))
    assert values.tails.power == pytest.approx(float(exact), rel=1e-13, abs=0.0)


def identical(tails: Tails, codes: Array, boundaries: int) -> bool:
    return code_sums_in_numpy(tails, codes, boundaries).tobytes() == code_sums_compiled(tails, codes, boundaries).tobytes()


@compiled
@pytest.mark.parametrize("boundaries", [1, 2, 7, 15, 254, 255])
@every_histogram
def test_both_implementations_give_the_same_bits(values: Histogram, boundaries: int) -> None:
    assert identical(values.tails, candidates(values, boundaries), boundaries)


@compiled
@given(
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=30),
    st.floats(2.0**-120, 2.0**100),
    st.integers(0, 255),
)
def test_both_implementations_give_the_same_bits_whatever_the_values(x: list[float], scale: float, below: int) -> None:
    assert identical(seen(x).tails, np.array([(scale, -float(below), 255.0 - below)]), 255)


def test_many_candidates_are_looked_up_as_each_alone() -> None:
    tails = HISTOGRAMS["gaussian"].tails
    codes = np.array([(scale, -128.0, 127.0) for scale in np.geomspace(1e-4, 1.0, 300)])
    assert codes.shape[0] * 255 > 2 * BLOCK, "in several parts"
    for implementation in (code_sums_in_numpy, code_sums):
        together = implementation(tails, codes, 255)
        assert together.tobytes() == np.concatenate([implementation(tails, code[None], 255) for code in codes]).tobytes()


def test_no_code_below_0_clips_all_that_is_negative() -> None:
    values = buckets((-2.0, -1.0, 3), (1.0, 2.0, 3))
    for first, last in ((-0.0, 15.0), (-15.0, 0.0)):
        assert code_sums(values.tails, np.array([(0.5, first, last)]), 15)[0, 1] == pytest.approx(3 * (8 - 1) / 3)
    assert code_sums(values.tails, np.array([(0.5, -8.0, 7.0)]), 15)[0, 1] == 0.0
