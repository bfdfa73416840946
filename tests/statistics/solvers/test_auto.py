from __future__ import annotations

import math
import re
from functools import cache
from typing import Any

import numpy as np
import pytest

from zeropoint.errors import DataError
from zeropoint.numerics.affine import Range
from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import Spec
from zeropoint.statistics.solvers import solve
from zeropoint.statistics.solvers.auto import TIE, Auto
from zeropoint.statistics.tensor import EMPTY, observe

Array = np.ndarray[Any, Any]
SIZE = 20_000
OTHERS = ["minmax", "percentile", "entropy", "mse:2"]
SPECS = {
    "int8 symmetric": Spec(FORMATS["int8"], symmetric=True),
    "uint8 asymmetric": Spec(FORMATS["uint8"], symmetric=False),
    "uint8 symmetric": Spec(FORMATS["uint8"], symmetric=True),
    "int4 symmetric": Spec(FORMATS["int4"], symmetric=True),
    "uint4 asymmetric": Spec(FORMATS["uint4"], symmetric=False),
    "int16 symmetric": Spec(FORMATS["int16"], symmetric=True),
}
DISTRIBUTIONS = ["gaussian", "laplace", "heavy tail", "rectified", "one outlier", "uniform"]
every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
every_distribution = pytest.mark.parametrize("distribution", DISTRIBUTIONS)


@cache
def sample(name: str) -> Array:
    rng = np.random.default_rng(1)
    gaussian = rng.standard_normal(SIZE)
    drawn = {
        "gaussian": gaussian,
        "laplace": rng.laplace(size=SIZE),
        "heavy tail": rng.standard_t(3, SIZE),
        "rectified": np.maximum(gaussian, 0.0),
        "one outlier": np.append(gaussian[1:], 60.0),
        "uniform": rng.uniform(-1.0, 1.0, SIZE),
    }
    x = drawn[name].astype(np.float32)
    x.flags.writeable = False
    return x


def true_error(x: Array, bounds: Range, spec: Spec) -> float:
    """Quantize the raw data in float64, from the definition, and count what is clipped twice: the oracle."""
    wide, lo, hi = x.astype(np.float64), min(bounds.lo, 0.0), max(bounds.hi, 0.0)
    if spec.symmetric:
        scale, zero_point = (max(-lo, hi) if spec.format.signed else hi) / spec.qmax, 0.0
    else:
        scale = (hi - lo) / (spec.qmax - spec.qmin)
        zero_point = float(np.rint(spec.qmin - lo / scale))
    first, last = (spec.qmin - zero_point) * scale, (spec.qmax - zero_point) * scale
    codes = np.clip(np.rint(wide / scale) + zero_point, spec.qmin, spec.qmax)
    error = np.square((codes - zero_point) * scale - wide)
    return float(np.mean(np.where((wide < first) | (wide > last), 2.0 * error, error)))


def decibels(x: Array, mse: float) -> float:
    return 10.0 * math.log10(math.fsum(float(v) ** 2 for v in x) / x.size / mse)


@every_spec
@every_distribution
def test_has_the_least_true_error_of_all_solvers(distribution: str, spec: Spec) -> None:
    x = sample(distribution)
    seen = observe(x)
    ranges = {name: solve(seen, spec, name).range for name in OTHERS}
    errors = {name: true_error(x, bounds, spec) for name, bounds in ranges.items()}
    found = solve(seen, spec, "auto")
    assert found.range == ranges[found.solver]
    assert Auto().solve(seen, spec) == found.range
    # Errors are predicted from the buckets: by up to 2 % off the raw data, beside the tie.
    assert errors[found.solver] <= TIE * 1.02 * min(errors.values())


@every_spec
@every_distribution
def test_reason_names_each_solver_and_its_decibels_in_order(distribution: str, spec: Spec) -> None:
    x = sample(distribution)
    seen = observe(x)
    found = solve(seen, spec, "auto")
    assert re.fullmatch(r"[\w:]+ -?\d+\.\d dB(, clips [\d.e-]+ %)?; [\w:]+ -?\d+\.\d, [\w:]+ -?\d+\.\d, [\w:]+ -?\d+\.\d", found.reason)
    told = {name: float(sqnr) for name, sqnr in re.findall(r"([\w:]+) (-?\d+\.\d)", re.sub(r", clips [^;]+", "", found.reason))}
    assert sorted(told) == sorted(OTHERS)
    assert next(iter(told)) == found.solver
    # 16-bit codes show where inside its bucket a clipped value lies, which a histogram does not know.
    tolerance = 0.6 if spec.format.bits == 16 else 0.2
    for name, sqnr in told.items():
        assert sqnr == pytest.approx(decibels(x, true_error(x, solve(seen, spec, name).range, spec)), abs=tolerance)
    behind = list(told.values())[1:]
    assert behind == sorted(behind, reverse=True)
    assert found.sqnr == pytest.approx(told[found.solver], abs=0.051)


@pytest.mark.parametrize(
    ("distribution", "spec", "winner"),
    [
        pytest.param("uniform", SPECS["int8 symmetric"], "minmax", id="no tail: nothing is clipped"),
        pytest.param("gaussian", SPECS["uint8 asymmetric"], "percentile", id="a light tail in 8 bits is clipped a little"),
        pytest.param("gaussian", SPECS["int4 symmetric"], "mse:2", id="but in 4 bits"),
        pytest.param("heavy tail", SPECS["uint4 asymmetric"], "mse:2", id="a heavy tail in 4 bits is clipped much"),
        pytest.param("heavy tail", SPECS["int16 symmetric"], "minmax", id="16 bits hold it whole"),
    ],
)
def test_winner_depends_on_the_tail_and_the_bits(distribution: str, spec: Spec, winner: str) -> None:
    assert solve(observe(sample(distribution)), spec, "auto").solver == winner


def test_within_one_percent_the_widest_range_wins() -> None:
    candidates = Auto().rank(observe(sample("gaussian")), SPECS["uint8 asymmetric"])
    winner, least = candidates[0], min(candidates, key=lambda c: c.mse)
    widths = [c.range.hi - c.range.lo for c in candidates if c.mse <= 1.01 * least.mse]
    assert least.mse < winner.mse <= 1.01 * least.mse
    assert winner.range.hi - winner.range.lo == max(widths) > min(widths)


@every_distribution
def test_rank_holds_every_solver_once_from_the_least_error_on(distribution: str) -> None:
    winner, *others = Auto().rank(observe(sample(distribution)), SPECS["int8 symmetric"])
    assert sorted([winner.solver, *(c.solver for c in others)]) == sorted(OTHERS)
    assert [c.mse for c in others] == sorted(c.mse for c in others)
    assert all(winner.mse <= 1.01 * c.mse for c in others)


@every_spec
@pytest.mark.parametrize(
    ("values", "sqnr"),
    [
        pytest.param([0.0, -0.0], math.inf, id="zeros"),
        pytest.param([1e-44, -1e-44], math.inf, id="as good as zero"),
        pytest.param([2.5], None, id="a single value"),
        pytest.param([2.5] * 100, None, id="constant"),
        pytest.param([3.4e38, -3.4e38, 1.0], None, id="near the largest float"),
        pytest.param([1e-39, -3e-39], None, id="subnormals"),
    ],
)
def test_extremes_keep_min_max(values: list[float], sqnr: float | None, spec: Spec) -> None:
    seen = observe(np.array(values, np.float32))
    with np.errstate(all="raise", under="ignore"):
        found = solve(seen, spec, "auto")
    assert found.range == solve(seen, spec, "minmax").range
    assert found.solver == "minmax"
    if sqnr is not None:
        assert (found.sqnr, found.reason.split(";")[0]) == (sqnr, f"minmax {sqnr} dB")


def test_nothing_finite_is_refused() -> None:
    with pytest.raises(DataError, match="found no finite value"):
        Auto().solve(EMPTY, SPECS["int8 symmetric"])
