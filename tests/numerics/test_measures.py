from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeropoint.errors import DataError
from zeropoint.numerics.affine import Range
from zeropoint.numerics.measures import clipped_fraction, cosine, decibels, max_error, mse, sqnr_db

INF, NAN = math.inf, math.nan
PAIRED = [mse, sqnr_db, cosine, max_error]
paired = pytest.mark.parametrize("measure", PAIRED, ids=lambda f: f.__name__)
Measure = Callable[[object, object], float]


def exact_sums(a: list[float], b: list[float]) -> tuple[Fraction, Fraction, Fraction, Fraction]:
    """Sums of a^2, b^2, ab and (a-b)^2 in exact arithmetic: the oracle."""
    x, y = [Fraction(v) for v in a], [Fraction(v) for v in b]
    return (
        sum((p * p for p in x), Fraction()),
        sum((q * q for q in y), Fraction()),
        sum((p * q for p, q in zip(x, y, strict=True)), Fraction()),
        sum(((p - q) ** 2 for p, q in zip(x, y, strict=True)), Fraction()),
    )


@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6, width=32, allow_subnormal=False)] * 2), min_size=1, max_size=50))
def test_against_exact_fractions(pairs: list[tuple[float, float]]) -> None:
    a, b = [p for p, _ in pairs], [q for _, q in pairs]
    aa, bb, ab, noise = exact_sums(a, b)
    ref, act = np.array(a, np.float32), np.array(b, np.float32)
    ref.flags.writeable = act.flags.writeable = False

    assert mse(ref, act) == pytest.approx(float(noise / len(a)), rel=1e-13)
    assert max_error(ref, act) == float(max(abs(Fraction(p) - Fraction(q)) for p, q in pairs))
    if aa and noise:
        assert sqnr_db(ref, act) == pytest.approx(10 * (math.log10(aa) - math.log10(noise)), abs=1e-10)
    if aa and bb:
        assert cosine(ref, act) == pytest.approx(float(ab) / math.sqrt(aa) / math.sqrt(bb), abs=1e-13)


@pytest.mark.parametrize(
    ("measure", "reference", "actual", "expected"),
    [
        pytest.param(sqnr_db, [1, 2], [1, 2], INF, id="sqnr of equal arrays"),
        pytest.param(sqnr_db, [0, 0], [0, 0], INF, id="sqnr of equal zeros"),
        pytest.param(sqnr_db, [0, 0], [0, 1e-30], -INF, id="sqnr of an all-zero reference with an error"),
        pytest.param(sqnr_db, [3, 4], [0, 0], 0.0, id="sqnr of nothing left"),
        pytest.param(sqnr_db, [1, 1], [1, INF], -INF, id="sqnr of an infinite error"),
        pytest.param(sqnr_db, [1, INF], [1, 1], NAN, id="sqnr of an infinite reference"),
        pytest.param(sqnr_db, [1, INF], [1, INF], NAN, id="sqnr of inf - inf"),
        pytest.param(cosine, [0, 0], [0, 0], 1.0, id="cosine of two zeros"),
        pytest.param(cosine, [0, 0], [1, 0], 0.0, id="cosine of one zero"),
        pytest.param(cosine, [1, 2], [-1, -2], -1.0, id="cosine of opposites"),
        pytest.param(cosine, [1, 0], [INF, 0], NAN, id="cosine of an infinity"),
        pytest.param(cosine, [0, 0], [NAN, 0], NAN, id="cosine of zero and NaN"),
        pytest.param(mse, [0, 0, 0, 0], [2, 0, 0, 0], 1.0, id="mse is a mean"),
        pytest.param(mse, [0], [INF], INF, id="mse of an infinity"),
        pytest.param(max_error, [0, 0], [1, -3], 3.0, id="max_error takes the magnitude"),
        pytest.param(max_error, [INF], [INF], NAN, id="max_error of inf - inf"),
    ],
)
def test_defined_values(measure: Measure, reference: list[float], actual: list[float], expected: float) -> None:
    assert measure(reference, actual) == pytest.approx(expected, rel=1e-15, nan_ok=True)


def test_cosine_of_equal_arrays_is_at_most_one() -> None:
    x = np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32)
    values = [cosine(row, row) for row in x]
    assert max(values) <= 1.0
    assert min(values) >= 1.0 - 1e-15


def test_accumulates_in_float64() -> None:
    x = np.full(1 << 20, 0.1, np.float32)
    assert mse(x, np.zeros_like(x)) == pytest.approx(float(Fraction(float(x[0])) ** 2), rel=1e-15)


@pytest.mark.parametrize("magnitude", [1e-38, 1e38], ids=["smallest floats", "largest floats"])
def test_extreme_float32_magnitudes_neither_vanish_nor_overflow(magnitude: float) -> None:
    ref = np.array([1, -1, 1, -1], np.float32) * np.float32(magnitude)
    act = ref * np.float32(1.5)
    assert sqnr_db(ref, act) == pytest.approx(20 * math.log10(2), abs=1e-5)
    assert cosine(ref, act) == pytest.approx(1.0, abs=1e-12)


@paired
@pytest.mark.parametrize("place", ["reference", "actual"])
def test_nan_is_not_hidden(measure: Measure, place: str) -> None:
    holds_nan, holds_none = [1.0, NAN, 0.0], [1.0, 2.0, 0.0]
    pair = (holds_nan, holds_none) if place == "reference" else (holds_none, holds_nan)
    assert math.isnan(measure(*pair))


@paired
def test_shape_mismatch_is_refused_although_it_would_broadcast(measure: Measure) -> None:
    message = f"{measure.__name__}: found shapes (2, 1) (reference) and (2,) (actual), expected the same"
    with pytest.raises(DataError, match=re.escape(message)):
        measure(np.zeros((2, 1)), np.zeros(2))


@paired
def test_no_elements_are_refused(measure: Measure) -> None:
    with pytest.raises(DataError, match="found an array without elements, expected at least one"):
        measure(np.zeros((0, 3)), np.zeros((0, 3)))


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        pytest.param([-1.0, 0.0, 1.0], 0.0, id="ends are inside"),
        pytest.param([np.nextafter(1.0, 2.0), 0.0], 0.5, id="just above"),
        pytest.param([-INF, INF, 0.0, 0.5], 0.5, id="infinities are clipped"),
        pytest.param([NAN, 0.0], NAN, id="NaN is not hidden"),
    ],
)
def test_clipped_fraction(x: list[float], expected: float) -> None:
    values = np.array(x)
    values.flags.writeable = False
    assert clipped_fraction(values, Range(-1.0, 1.0)) == pytest.approx(expected, nan_ok=True)


def test_clipped_fraction_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="clipped_fraction: found an array without elements"):
        clipped_fraction([], Range(0.0, 1.0))


@pytest.mark.parametrize(
    ("signal", "noise", "expected"),
    [
        (1.0, 1.0, 0.0),
        (1.0, 0.1, 10.0),
        (2.0, 1.0, 3.0103),
        (1.0, 100.0, -20.0),
        (1.0, 1e-320, 3200.0),
        (1e300, 1e-300, 6000.0),
        (1.0, 0.0, np.inf),
        (0.0, 0.0, np.inf),
        (0.0, 1.0, -np.inf),
        (1.0, np.inf, -np.inf),
    ],
)
def test_a_ratio_of_energies_in_decibels(signal: float, noise: float, expected: float) -> None:
    assert decibels(signal, noise) == pytest.approx(expected, abs=1e-3)
