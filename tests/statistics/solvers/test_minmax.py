from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeropoint.numerics.affine import Range, dequantize_array, qparams_from_range, quantize_array
from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import Spec
from zeropoint.statistics.solvers.minmax import MinMax, covering
from zeropoint.statistics.tensor import merge, observe

Array = np.ndarray[Any, Any]
LARGEST = float(np.finfo(np.float32).max)
TINY = 2.0**-149


def spec(name: str, symmetric: bool) -> Spec:
    return Spec(FORMATS[name], symmetric)


@pytest.mark.parametrize("data", [[], [math.nan, math.inf, -math.inf]], ids=["alone", "among NaN and infinities"])
@pytest.mark.parametrize(
    ("values", "mirrored", "from_zero", "asymmetric"),
    [
        pytest.param([-1.25, 3.5, 0.0], (-3.5, 3.5), (0.0, 3.5), (-1.25, 3.5), id="longer above"),
        pytest.param([-3.5, 1.25], (-3.5, 3.5), (0.0, 1.25), (-3.5, 1.25), id="longer below"),
        pytest.param([2.0, 3.0], (-3.0, 3.0), (0.0, 3.0), (0.0, 3.0), id="all positive"),
        pytest.param([-2.0, -3.0], (-3.0, 3.0), (0.0, 0.0), (-3.0, 0.0), id="all negative"),
        pytest.param([0.1], (-np.float32(0.1), np.float32(0.1)), (0.0, np.float32(0.1)), (0.0, np.float32(0.1)), id="a single value"),
        pytest.param([0.0, -0.0], (0.0, 0.0), (0.0, 0.0), (0.0, 0.0), id="zeros"),
        pytest.param([1.0, -1000.0], (-1000.0, 1000.0), (0.0, 1.0), (-1000.0, 1.0), id="an outlier"),
        pytest.param([TINY], (-TINY, TINY), (0.0, TINY), (0.0, TINY), id="the smallest subnormal"),
        pytest.param([LARGEST, -1.0], (-LARGEST, LARGEST), (0.0, LARGEST), (-1.0, LARGEST), id="the largest float"),
    ],
)
def test_covers_exactly_what_was_seen(
    values: list[float],
    data: list[float],
    mirrored: tuple[float, float],
    from_zero: tuple[float, float],
    asymmetric: tuple[float, float],
) -> None:
    seen = observe(np.array(values + data, np.float32))
    for name in ("int8", "int4", "int16"):
        assert MinMax().solve(seen, spec(name, True)) == Range(*mirrored)
        assert MinMax().solve(seen, spec(name, False)) == Range(*asymmetric)
    for name in ("uint8", "uint4", "uint16"):
        assert MinMax().solve(seen, spec(name, True)) == Range(*from_zero)
        assert MinMax().solve(seen, spec(name, False)) == Range(*asymmetric)


@given(
    st.lists(st.floats(-1024, 1024, width=32), min_size=1, max_size=30), st.booleans(), st.sampled_from(["int8", "uint8", "int4", "int16"])
)
def test_no_value_is_clipped_by_more_than_half_a_step(values: list[float], symmetric: bool, name: str) -> None:
    x = np.array(values, np.float32)
    found = MinMax().solve(observe(x), spec(name, symmetric))
    q = qparams_from_range(found.lo, found.hi, spec=spec(name, symmetric))
    held = np.maximum(x, 0.0) if symmetric and name == "uint8" else x  # an unsigned code without a zero point has no negative side
    error = np.abs(dequantize_array(quantize_array(held, q), q).astype(np.float64) - held)
    # Rounding the zero point moves both ends by up to half a step.
    assert (error <= float(q.scale) * (1.0 if not symmetric else 0.5) + 1e-6 * np.abs(held)).all()


def test_one_outlier_moves_it() -> None:
    bulk = observe(np.linspace(-1.0, 1.0, 1001, dtype=np.float32))
    assert MinMax().solve(merge(bulk, observe([500.0])), spec("int8", True)) == Range(-500.0, 500.0)


@pytest.mark.parametrize(("lo", "hi"), [(0.0, 0.0), (-0.0, 0.0), (-0.0, 1.0)], ids=str)
def test_a_bound_is_never_negative_zero(lo: float, hi: float) -> None:
    for name, symmetric in (("int8", True), ("uint8", True)):
        found = covering(lo, hi, spec=spec(name, symmetric))
        assert [math.copysign(1.0, bound) for bound in (found.lo, found.hi) if bound == 0.0] in ([], [1.0], [1.0, 1.0])
