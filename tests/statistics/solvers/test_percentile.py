from __future__ import annotations

import math
import re
from functools import cache
from typing import Any

import numpy as np
import pytest

from zeropoint.errors import DataError, RecipeError
from zeropoint.numerics.affine import Range
from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import Spec
from zeropoint.statistics.solvers.minmax import MinMax
from zeropoint.statistics.solvers.percentile import Percentile
from zeropoint.statistics.tensor import EMPTY, observe

Array = np.ndarray[Any, Any]
SIZE = 20_011  # prime: no percentile of the table falls between two elements
WIDTH = 1 / 128  # of a bucket, relative to what it holds
PERCENTILES = [50.0, 99.0, 99.99]


@cache
def sample(name: str) -> Array:
    rng = np.random.default_rng(3)
    gaussian = rng.standard_normal(SIZE)
    drawn = {
        "gaussian": gaussian + 0.3,
        "laplace": rng.laplace(size=SIZE),
        "heavy tail": rng.standard_t(2, SIZE),
        "rectified": np.maximum(gaussian, 0.0),
        "all negative": -rng.exponential(size=SIZE) - 0.01,
        "mostly zero": gaussian * (rng.random(SIZE) < 0.03),
        "one outlier": np.append(gaussian[1:], 1e6),
        "subnormal": gaussian * 1e-38,
        "near the largest float": np.clip(gaussian * 1e38, -3.4e38, 3.4e38),
        "constant": np.full(SIZE, 0.7),
        "zero": np.zeros(SIZE),
    }
    x = drawn[name].astype(np.float32)
    x.flags.writeable = False
    return x


DISTRIBUTIONS = ["gaussian", "laplace", "heavy tail", "rectified", "all negative", "mostly zero", "one outlier", "subnormal"]
DISTRIBUTIONS += ["near the largest float", "constant", "zero"]


def above(x: Array, share: float) -> float:
    """The smallest element that is no smaller than `share` of all elements, by sorting them: the oracle."""
    return float(np.sort(x.astype(np.float64))[math.ceil(share * x.size) - 1])


def below(x: Array, share: float) -> float:
    return -above(-x, share)


def expected_range(x: Array, kept: float, *, symmetric: bool, signed: bool) -> tuple[float, float]:
    if symmetric and signed:
        amax = above(np.abs(x), kept)
        return -amax, amax
    if symmetric or x.min() >= 0.0:
        return 0.0, max(above(x, kept), 0.0)
    if x.max() <= 0.0:
        return below(x, kept), 0.0
    either = 1.0 - (1.0 - kept) / 2.0
    return min(below(x, either), 0.0), max(above(x, either), 0.0)


@pytest.mark.parametrize("percentile", PERCENTILES, ids=str)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize(
    ("name", "symmetric"), [("int8", True), ("uint8", True), ("uint8", False), ("int8", False), ("int4", True), ("int16", False)]
)
def test_is_within_a_bucket_of_the_sorted_raw_data(percentile: float, distribution: str, name: str, symmetric: bool) -> None:
    x = sample(distribution)
    spec = Spec(FORMATS[name], symmetric)
    lo, hi = expected_range(x, percentile / 100, symmetric=symmetric, signed=spec.format.signed)
    found = Percentile(percentile).solve(observe(x), spec)
    # Buckets of subnormals are 2**-133 wide.
    assert (found.lo, found.hi) == (pytest.approx(lo, rel=WIDTH, abs=2.0**-133), pytest.approx(hi, rel=WIDTH, abs=2.0**-133))


@pytest.mark.parametrize(("name", "symmetric"), [("int8", True), ("uint8", True), ("uint8", False)])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_100_is_min_max(distribution: str, name: str, symmetric: bool) -> None:
    seen, spec = observe(sample(distribution)), Spec(FORMATS[name], symmetric)
    assert Percentile(100.0).solve(seen, spec) == MinMax().solve(seen, spec)


def test_zeros_count_as_elements() -> None:
    x = np.append(np.zeros(990), np.arange(1.0, 11.0))
    found = Percentile(99.5).solve(observe(x), Spec(FORMATS["uint8"], symmetric=False))
    assert found.hi == pytest.approx(5.0, rel=WIDTH)


def test_few_elements() -> None:
    assert Percentile(50.0).solve(observe([3.0]), Spec(FORMATS["int8"], symmetric=True)) == Range(-3.0, 3.0)


@pytest.mark.parametrize("percentile", [0.0, -1.0, 100.5, math.nan, math.inf], ids=str)
def test_impossible_percentiles_are_refused(percentile: float) -> None:
    message = f"percentile: found {percentile}, expected more than 0 and at most 100; 99.99 is usual for activations"
    with pytest.raises(RecipeError, match=re.escape(message)):
        Percentile(percentile)


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
def test_nothing_finite_is_refused(symmetric: bool) -> None:
    with pytest.raises(DataError, match="found no finite value"):
        Percentile().solve(EMPTY, Spec(FORMATS["int8"], symmetric))
