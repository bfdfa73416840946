from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from zeropoint.errors import DataError, RecipeError
from zeropoint.numerics.affine import Range
from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import Spec
from zeropoint.statistics.solvers.mse import MeanSquaredError
from zeropoint.statistics.tensor import EMPTY, observe

Array = np.ndarray[Any, Any]
SIZE = 3_000
LARGEST = float(np.finfo(np.float32).max)
SPECS = {
    "int8 symmetric": Spec(FORMATS["int8"], symmetric=True),
    "uint8 symmetric": Spec(FORMATS["uint8"], symmetric=True),
    "int16 symmetric": Spec(FORMATS["int16"], symmetric=True),
    "int4 symmetric": Spec(FORMATS["int4"], symmetric=True),
    "int4 narrow": Spec(FORMATS["int4"], symmetric=True, narrow=True),
    "uint8 asymmetric": Spec(FORMATS["uint8"], symmetric=False),
    "int8 asymmetric": Spec(FORMATS["int8"], symmetric=False),
    "uint4 asymmetric": Spec(FORMATS["uint4"], symmetric=False),
}


@cache
def sample(name: str) -> Array:
    rng = np.random.default_rng(11)
    gaussian = rng.standard_normal(SIZE)
    drawn = {
        "gaussian": gaussian,
        "laplace": rng.laplace(size=SIZE) + 0.2,
        "heavy tail": rng.standard_t(3, SIZE),
        "rectified": np.maximum(gaussian, 0.0),
        "one sided": rng.exponential(size=SIZE),
        "all negative": -rng.gamma(2.0, size=SIZE) - 0.1,
        "skewed": gaussian / (1.0 + np.exp(-2.0 * gaussian)),
        "two modes": np.where(rng.random(SIZE) < 0.1, 8.0, 0.0) + 0.3 * gaussian,
        "an outlier": np.append(gaussian[1:], 30.0),
        "a huge outlier": np.append(gaussian[1:], 1000.0),
        "mostly zero": gaussian * (rng.random(SIZE) < 0.05),
        "uniform": rng.uniform(-1.0, 1.0, SIZE),
        "small": gaussian * 1e-30,
        "large": gaussian * 8e37,
    }
    x = drawn[name].astype(np.float32)
    x.flags.writeable = False
    return x


DISTRIBUTIONS = ["gaussian", "laplace", "heavy tail", "rectified", "one sided", "all negative", "skewed", "two modes", "an outlier"]
DISTRIBUTIONS += ["a huge outlier", "mostly zero", "uniform", "small", "large"]
every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def true_mse(x: Array, lo: float, hi: float, spec: Spec) -> float:
    """Quantize the raw data in float64, from the definition: the oracle."""
    lo, hi = min(lo, 0.0), max(hi, 0.0)
    if spec.symmetric:
        scale, zero_point = (max(-lo, hi) if spec.format.signed else hi) / spec.qmax or 1.0, 0.0
    else:
        scale = (hi - lo) / (spec.qmax - spec.qmin) or 1.0
        zero_point = float(np.clip(np.rint(spec.qmin - lo / scale), spec.qmin, spec.qmax))
    codes = np.clip(np.rint(x / scale) + zero_point, spec.qmin, spec.qmax)
    return float(np.mean(np.square((codes - zero_point) * scale - x)))


def least_on_a_grid(x: Array, spec: Spec) -> float:
    """The least error of all ranges on a dense grid, on the raw data: the oracle."""
    lo, hi = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    if spec.symmetric or lo == 0.0 or hi == 0.0:
        ranges = [(share * lo, share * hi) for share in np.geomspace(1.0, 1 / 64, 250)]
    else:
        shares = np.append(np.geomspace(1.0, 1 / 16, 24), 0.0)
        ranges = [(a * lo, b * hi) for a in shares for b in shares]
    return min(true_mse(x, a, b, spec) for a, b in ranges)


@every_spec
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_true_error_is_near_the_least_on_a_dense_grid(distribution: str, spec: Spec) -> None:
    x = sample(distribution)
    wide = x.astype(np.float64)
    found = MeanSquaredError().solve(observe(x), spec)
    error = true_mse(wide, found.lo, found.hi, spec)
    assert error <= 1.03 * least_on_a_grid(wide, spec)
    # The search is on buckets: what it takes for equal may differ by that much on the raw data.
    assert error <= 1.005 * true_mse(wide, float(x.min()), float(x.max()), spec)


@pytest.mark.parametrize(
    ("distribution", "spec", "gain"),
    [
        pytest.param("gaussian", SPECS["int4 symmetric"], 1.5, id="gaussian in 4 bits"),
        pytest.param("heavy tail", SPECS["int4 symmetric"], 2.5, id="heavy tail in 4 bits"),
        pytest.param("an outlier", SPECS["int4 symmetric"], 2.0, id="an outlier in 4 bits"),
        pytest.param("two modes", SPECS["uint4 asymmetric"], 1.1, id="two modes in 4 bits"),
    ],
)
def test_clips_where_that_pays(distribution: str, spec: Spec, gain: float) -> None:
    x = sample(distribution).astype(np.float64)
    found = MeanSquaredError().solve(observe(x), spec)
    assert found.hi < x.max()
    assert gain * true_mse(x, found.lo, found.hi, spec) < true_mse(x, float(x.min()), float(x.max()), spec)


@pytest.mark.parametrize("distribution", ["gaussian", "heavy tail", "an outlier", "skewed"])
def test_the_more_clipping_counts_the_less_is_clipped(distribution: str) -> None:
    seen = observe(sample(distribution))
    ends = [MeanSquaredError(clipping).solve(seen, SPECS["int4 symmetric"]).hi for clipping in (0.25, 1.0, 4.0, 64.0)]
    assert ends == sorted(ends)
    assert len(set(ends)) == len(ends)


@pytest.mark.parametrize("clipping", [-1.0, float("nan"), float("inf")])
def test_impossible_clipping_is_refused(clipping: float) -> None:
    with pytest.raises(RecipeError, match=f"mse clipping: found {clipping}, expected how often clipping counts"):
        MeanSquaredError(clipping)


def test_each_bound_is_searched_alone_where_both_are_free() -> None:
    rng = np.random.default_rng(5)
    x = np.append(rng.uniform(-1.0, 0.0, 5000), rng.laplace(size=5000) ** 3)
    found = MeanSquaredError().solve(observe(x), SPECS["uint4 asymmetric"])
    together = min(true_mse(x, s * float(x.min()), s * float(x.max()), SPECS["uint4 asymmetric"]) for s in np.geomspace(1.0, 1e-3, 400))
    assert true_mse(x, found.lo, found.hi, SPECS["uint4 asymmetric"]) < together


def test_a_side_that_holds_next_to_nothing_is_given_up() -> None:
    x = np.append(-np.random.default_rng(0).uniform(0.0, 1.0, 50_000), 1.0)
    found = MeanSquaredError().solve(observe(x), SPECS["uint4 asymmetric"])
    assert (found.lo, found.hi) == (pytest.approx(-1.0, abs=0.05), 0.0)


@every_spec
@pytest.mark.parametrize(
    "values",
    [
        pytest.param([0.0, 0.0], id="zeros"),
        pytest.param([1e-44, -1e-44], id="as good as zero"),
        pytest.param([2.5], id="a single value"),
        pytest.param([2.5] * 100, id="constant"),
        pytest.param([-2.5] * 100, id="constant below"),
        pytest.param([1e-39, -2e-39, 3e-40], id="subnormals"),
        pytest.param([LARGEST, -LARGEST, LARGEST / 2], id="the largest floats"),
        pytest.param([LARGEST, 1.0, -1.0], id="the largest float among ones"),
    ],
)
def test_extremes_have_a_finite_range_no_worse_than_min_max(values: list[float], spec: Spec) -> None:
    x = np.array(values, np.float32).astype(np.float64)
    with np.errstate(all="raise", under="ignore"):
        found = MeanSquaredError().solve(observe(x), spec)
    assert min(x.min(), -np.abs(x).max()) <= found.lo <= 0.0 <= found.hi <= np.abs(x).max()
    if np.abs(x).max() > 1e-30:
        error, whole = (true_mse(x, lo, hi, spec) for lo, hi in ((found.lo, found.hi), (float(x.min()), float(x.max()))))
        assert error <= whole * 1.001 + np.square(x).max() * 1e-12  # the exact float64 oracle has no rounding of the scale to float32


def test_constant_tensor_is_held_exactly() -> None:
    for spec in SPECS.values():
        found = MeanSquaredError().solve(observe(np.full(10, 2.5)), spec)
        assert true_mse(np.full(10, 2.5), found.lo, found.hi, spec) < 1e-6


def test_zero_has_the_range_zero() -> None:
    assert MeanSquaredError().solve(observe(np.zeros(3)), SPECS["int8 symmetric"]) == Range(0.0, 0.0)


def test_nothing_finite_is_refused() -> None:
    with pytest.raises(DataError, match="found no finite value"):
        MeanSquaredError().solve(EMPTY, SPECS["int8 symmetric"])
