from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from tests.graph.networks import feed, network, run

from zeropoint.errors import ModelError
from zeropoint.graph.load import load
from zeropoint.refine.trial import outputs_of, relative_errors

NAN, INF = math.nan, math.inf
Outputs = dict[str, Any]


def f32(*values: float) -> np.ndarray[Any, Any]:
    return np.array(values, np.float32)


# --- outputs_of --------------------------------------------------------------------------------------------------------------


def test_outputs_are_those_of_each_sample_by_name_and_in_order() -> None:
    model = network("y = Neg(x) z = Shape(x)", inputs="float[N,3] x", outputs="y, int64 z")
    feeds = [feed(model, seed, batch=1 + seed) for seed in range(5)]
    found = outputs_of(load(model), feeds)
    assert len(found) == 5
    for one, given in zip(found, feeds, strict=True):
        assert list(one) == ["y", "z"]
        for name, expected in zip(one, run(model, given), strict=True):
            np.testing.assert_array_equal(one[name], expected, strict=True)


def test_no_samples_have_no_outputs() -> None:
    assert outputs_of(load(network("y = Neg(x)")), []) == []


def test_a_network_that_cannot_be_run_is_an_error() -> None:
    with pytest.raises(ModelError, match="Unknown"):
        outputs_of(load(network("y = com.example.Unknown(x)")), [])
    with pytest.raises(ModelError, match="cannot run the model"):
        outputs_of(load(network("y = Neg(x)")), [{"x": np.zeros((1, 2), np.float32)}])


# --- relative_errors ---------------------------------------------------------------------------------------------------------

ERRORS: dict[str, tuple[Outputs, Outputs, float]] = {
    "the same": ({"y": f32(1.0, -2.0)}, {"y": f32(1.0, -2.0)}, 0.0),
    "a fifth of the power": ({"y": f32(1.0, -2.0)}, {"y": f32(1.0, -1.0)}, 0.2),
    "nothing left": ({"y": f32(1.0, -2.0)}, {"y": f32(0.0, 0.0)}, 1.0),
    "beyond what was there": ({"y": f32(1.0)}, {"y": f32(4.0)}, 9.0),
    "several outputs": ({"y": f32(1.0, -2.0), "z": f32(10.0)}, {"y": f32(1.0, -1.0), "z": f32(11.0)}, (0.2 + 0.01) / 2),
    "outputs in another order": ({"y": f32(1.0), "z": f32(2.0)}, {"z": f32(1.0), "y": f32(1.0)}, 0.125),
    "an output more": ({"y": f32(1.0)}, {"y": f32(2.0), "z": f32(9.0)}, 1.0),
    "NaN": ({"y": f32(1.0, 2.0)}, {"y": f32(1.0, NAN)}, INF),
    "infinity": ({"y": f32(1.0, 2.0)}, {"y": f32(1.0, -INF)}, INF),
    "NaN in one of two outputs": ({"y": f32(1.0), "z": f32(1.0)}, {"y": f32(1.0), "z": f32(NAN)}, INF),
    "NaN already in float": ({"y": f32(1.0, NAN), "z": f32(1.0)}, {"y": f32(5.0, NAN), "z": f32(1.5)}, 0.25),
    "infinity already in float": ({"y": f32(INF), "z": f32(1.0)}, {"y": f32(INF), "z": f32(1.5)}, 0.25),
    "zero in float": ({"y": f32(0.0, 0.0), "z": f32(1.0)}, {"y": f32(3.0, 0.0), "z": f32(1.5)}, 0.25),
    "nothing but zero": ({"y": f32(0.0)}, {"y": f32(1.0)}, 0.0),
    "another number of elements": ({"y": f32(1.0, 2.0)}, {"y": f32(1.0)}, INF),
    "another shape that broadcasts": ({"y": f32(1.0, 1.0)}, {"y": f32(1.0, 1.0)[None]}, INF),
    "another shape of one of two": ({"y": f32(1.0), "z": f32(1.0)}, {"y": f32(1.0), "z": f32(1.0, 1.0)}, INF),
    "another shape of an output of zeros": ({"y": f32(0.0), "z": f32(1.0)}, {"y": f32(0.0, 0.0), "z": f32(1.5)}, 0.25),
    "integers": ({"y": np.array([3]), "z": f32(1.0)}, {"y": np.array([7]), "z": f32(1.5)}, 0.25),
    "integers of another shape": ({"y": np.array([3]), "z": f32(1.0)}, {"y": np.array([3, 4]), "z": f32(1.5)}, 0.25),
    "booleans alone": ({"y": np.array([True])}, {"y": np.array([False])}, 0.0),
    "text": ({"y": np.array(["a"]), "z": f32(1.0)}, {"y": np.array(["b"]), "z": f32(1.5)}, 0.25),
    "a sequence": ({"y": [f32(1.0)], "z": f32(1.0)}, {"y": [f32(2.0)], "z": f32(1.5)}, 0.25),
    "an empty output": ({"y": f32(), "z": f32(1.0)}, {"y": f32(), "z": f32(1.5)}, 0.25),
    "a number": ({"y": np.float32(2.0)}, {"y": np.float32(1.0)}, 0.25),
    "half precision": ({"y": np.array([2.0], np.float16)}, {"y": np.array([1.0], np.float16)}, 0.25),
    "numbers whose squares float32 does not hold": ({"y": f32(1e30, 1e30)}, {"y": f32(1e30, 0.0)}, 0.5),
    "numbers whose squares vanish in float32": ({"y": f32(1e-30, 1e-30)}, {"y": f32(1e-30, 0.0)}, 0.5),
    "numbers whose squares float64 does not hold": ({"y": np.array([1e200]), "z": f32(1.0)}, {"y": np.array([1.0]), "z": f32(1.5)}, 0.25),
    "an error whose square float64 does not hold": ({"y": np.array([1.0])}, {"y": np.array([1e200])}, INF),
    "no outputs": ({}, {}, 0.0),
}  # fmt: skip


@pytest.mark.parametrize(("floats", "others", "expected"), ERRORS.values(), ids=ERRORS)
def test_error_of_a_sample(floats: Outputs, others: Outputs, expected: float) -> None:
    found = relative_errors([floats], [others])
    assert (found.shape, found.dtype) == ((1,), np.float64)
    assert found[0] == pytest.approx(expected, rel=1e-6)


def test_each_sample_has_an_error_of_its_own() -> None:
    floats = [{"y": f32(2.0)}, {"y": f32(NAN)}, {"y": f32(1.0)}, {"y": f32(1.0)}]
    others = [{"y": f32(1.0)}, {"y": f32(1.0)}, {"y": f32(NAN)}, {"y": f32(1.0)}]
    np.testing.assert_array_equal(relative_errors(floats, others), [0.25, 0.0, INF, 0.0])
    assert relative_errors([], []).shape == (0,)


def test_samples_that_are_not_as_many_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        relative_errors([{"y": f32(1.0)}] * 2, [{"y": f32(1.0)}])


def test_errors_are_exact_to_the_last_bits() -> None:
    rng = np.random.default_rng(0)
    y, z = (rng.normal(0.0, 1.0, (3, 50)).astype(np.float32) for _ in range(2))
    error = sum(((Fraction(float(b)) - Fraction(float(a))) ** 2 for a, b in zip(y.flat, z.flat, strict=True)), Fraction(0))
    power = sum((Fraction(float(a)) ** 2 for a in y.flat), Fraction(0))
    assert relative_errors([{"y": y}], [{"y": z}])[0] == pytest.approx(float(error / power), rel=1e-14)
