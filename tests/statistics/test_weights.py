from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeropoint.errors import DataError, RecipeError
from zeropoint.native import library
from zeropoint.numerics.affine import dequantize_array, qparams_from_range, quantize_array
from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import Granularity, PerBlock, PerChannel, PerTensor, Spec
from zeropoint.statistics.weights import BLOCK, GAIN, least_error, least_error_compiled, least_error_in_numpy, weight_range

Array = np.ndarray[Any, Any]
Place = tuple[int, ...]
SHAPES = [
    pytest.param((6, 10), PerTensor(), (), id="per tensor"),
    pytest.param((6, 10), PerChannel(0), (6,), id="per channel 0"),
    pytest.param((6, 10), PerChannel(1), (10,), id="per channel 1"),
    pytest.param((6, 10), PerChannel(-1), (10,), id="per last channel"),
    pytest.param((6, 10), PerBlock(1, 5), (6, 2), id="per even block"),
    pytest.param((6, 10), PerBlock(1, 4), (6, 3), id="per uneven block"),
    pytest.param((7, 5), PerBlock(0, 3), (3, 5), id="per uneven block of axis 0"),
    pytest.param((7, 5), PerBlock(-2, 100), (1, 5), id="per block longer than the axis"),
    pytest.param((4, 3, 5, 5), PerTensor(), (), id="convolution per tensor"),
    pytest.param((4, 3, 5, 5), PerChannel(0), (4,), id="convolution per output channel"),
    pytest.param((4, 3, 5, 5), PerChannel(-3), (3,), id="convolution per input channel"),
    pytest.param((4, 6, 3, 3), PerBlock(1, 4), (4, 2, 3, 3), id="convolution per uneven block"),
    pytest.param((9,), PerChannel(0), (9,), id="one value a channel"),
    pytest.param((9,), PerBlock(0, 4), (3,), id="vector per uneven block"),
    pytest.param((), PerTensor(), (), id="a scalar"),
]
every_shape = pytest.mark.parametrize(("shape", "granularity", "scales"), SHAPES)
FORMS = {
    "int8": Spec(FORMATS["int8"], symmetric=True),
    "int8 narrow": Spec(FORMATS["int8"], symmetric=True, narrow=True),
    "int4": Spec(FORMATS["int4"], symmetric=True),
    "int16": Spec(FORMATS["int16"], symmetric=True),
    "uint8 asymmetric": Spec(FORMATS["uint8"], symmetric=False),
    "uint4 asymmetric": Spec(FORMATS["uint4"], symmetric=False),
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def weights(shape: Place, seed: int = 0) -> Array:
    """Heavy-tailed, with channels of very different sizes."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(-4.0, 4.0, shape[:1] + (1,) * max(len(shape) - 1, 0)))
    x = np.asarray(rng.standard_t(3, shape) * (sizes if shape else 1.0)).astype(np.float32)
    x.flags.writeable = False
    return x


def groups(x: Array, granularity: Granularity) -> dict[Place, list[float]]:
    """The elements of each scale, one after the other: the oracle's view of the weight."""
    found: dict[Place, list[float]] = defaultdict(list)
    for place in np.ndindex(x.shape):
        match granularity:
            case PerTensor():
                scale: Place = ()
            case PerChannel(axis):
                scale = (place[axis],)
            case PerBlock(axis, size):
                where = axis % x.ndim
                scale = (*place[:where], place[where] // size, *place[where + 1 :])
        found[scale].append(float(x[place]))
    return found


def slow_bounds(values: list[float], spec: Spec) -> tuple[float, float]:
    lo, hi = min([0.0, *values]), max([0.0, *values])
    amax = max(-lo, hi)
    return (-amax, amax) if spec.symmetric else (lo, hi)


def true_error(values: list[float], lo: float, hi: float, spec: Spec) -> float:
    """The squared error of the codes that will be stored, in float64."""
    x = np.array(values, np.float32)
    q = qparams_from_range(lo, hi, spec=spec.with_granularity(PerTensor()))
    return math.fsum((dequantize_array(quantize_array(x, q), q).astype(np.float64) - x) ** 2)


def error_in_float64(values: list[float], lo: float, hi: float, spec: Spec) -> float:
    """The same from the definition, without numerics."""
    scale = (hi / spec.qmax if spec.symmetric else (hi - lo) / (spec.qmax - spec.qmin)) or 1.0
    zero_point = 0.0 if spec.symmetric else np.rint(spec.qmin - lo / scale)
    x = np.array(values, np.float64)
    return float(np.sum(((np.clip(np.rint(x / scale) + zero_point, spec.qmin, spec.qmax) - zero_point) * scale - x) ** 2))


# --- against loops over the raw weight -------------------------------------------------------------------------------------


@every_form
@every_shape
def test_minmax_against_a_slow_loop(shape: Place, granularity: Granularity, scales: Place, form: Spec) -> None:
    x = weights(shape)
    lo, hi = weight_range(x, form.with_granularity(granularity), "minmax")
    assert (lo.dtype, hi.dtype, lo.shape, hi.shape) == (np.float64, np.float64, scales, scales)
    for scale, values in groups(x, granularity).items():
        assert (lo[scale], hi[scale]) == slow_bounds(values, form)


@every_form
@every_shape
def test_mse_against_a_dense_grid_on_the_raw_weight(shape: Place, granularity: Granularity, scales: Place, form: Spec) -> None:
    x = weights(shape)
    lo, hi = weight_range(x, form.with_granularity(granularity), "mse")
    assert (lo.dtype, hi.dtype, lo.shape, hi.shape) == (np.float64, np.float64, scales, scales)
    shares = np.geomspace(1.0, 1 / 16, 25)
    found, least = 0.0, 0.0
    for scale, values in groups(x, granularity).items():
        whole = slow_bounds(values, form)
        error = true_error(values, float(lo[scale]), float(hi[scale]), form)
        assert error <= true_error(values, *whole, form), "never worse than min-max"
        assert 1 / 17 * whole[1] <= hi[scale] <= whole[1]
        assert lo[scale] == pytest.approx(hi[scale] * whole[0] / whole[1] if whole[1] else lo[scale], rel=1e-12)
        found += error / max(map(abs, values)) ** 2
        least += min(error_in_float64(values, s * whole[0], s * whole[1], form) for s in shares) / max(map(abs, values)) ** 2
    assert found <= 1.1 * least + 1e-12


@every_form
def test_mse_is_near_the_least_of_a_dense_grid_where_a_scale_has_many_values(form: Spec) -> None:
    x = weights((8, 2000))
    lo, hi = weight_range(x, form.with_granularity(PerChannel(0)), "mse")
    for row, a, b in zip(x, lo, hi, strict=True):
        whole = slow_bounds(row.tolist(), form)
        least = min(error_in_float64(row.tolist(), s * whole[0], s * whole[1], form) for s in np.geomspace(1.0, 1 / 16, 100))
        error = true_error(row.tolist(), float(a), float(b), form)
        assert error <= 1.05 * least
        assert error <= true_error(row.tolist(), *whole, form), "never worse than min-max"


@pytest.mark.parametrize("form", [FORMS["int8"], FORMS["int4"], FORMS["uint8 asymmetric"]], ids=["int8", "int4", "uint8 asymmetric"])
@given(st.lists(st.floats(-1024, 1024, width=32), min_size=1, max_size=40), st.sampled_from([PerTensor(), PerChannel(0), PerBlock(0, 3)]))
def test_mse_never_has_a_larger_true_error_than_minmax(form: Spec, values: list[float], granularity: Granularity) -> None:
    x = np.array(values, np.float32)
    spec = form.with_granularity(granularity)
    lo, hi = weight_range(x, spec, "mse")
    for scale, elements in groups(x, granularity).items():
        assert true_error(elements, float(lo[scale]), float(hi[scale]), form) <= true_error(elements, *slow_bounds(elements, form), form)


@every_form
def test_no_channel_of_many_has_a_larger_true_error_than_minmax(form: Spec) -> None:
    x = weights((2000, 12))
    spec = form.with_granularity(PerChannel(0))
    of_mse, of_minmax = weight_range(x, spec, "mse"), weight_range(x, spec, "minmax")
    kinds = [qparams_from_range(*bounds, spec=spec) for bounds in (of_mse, of_minmax)]
    errors = [np.square(dequantize_array(quantize_array(x, q), q).astype(np.float64) - x).sum(axis=1) for q in kinds]
    assert (errors[0] <= errors[1]).all()


def test_mse_clips_what_costs_more_than_it_holds() -> None:
    x = np.append(np.linspace(-1.0, 1.0, 2001), 3.0).astype(np.float32)
    lo, hi = weight_range(x, FORMS["int4"])
    assert 0.9 < hi < 1.5
    assert true_error(x.tolist(), float(lo), float(hi), FORMS["int4"]) < 0.5 * true_error(x.tolist(), -3.0, 3.0, FORMS["int4"])


# --- which candidate has the least error -------------------------------------------------------------------------------------

LENGTHS = (16, 32, 48, 384, 512, 528, 1008, 1024, 4608)


def some_candidates(x: Array, form: Spec, count: int = 12) -> Array:
    """Scales from 1.1 to a 20th of what covers each row, with the codes that are left of the zero point and right of it."""
    peak = np.maximum(np.abs(x).max(axis=1), 1e-30)
    scale = np.float32(peak[:, None] / form.qmax * np.geomspace(1.1, 0.05, count))
    zero_point = np.zeros(count) if form.symmetric else np.linspace(form.qmin, form.qmax, count).round()
    found = np.stack(np.broadcast_arrays(scale, form.qmin - zero_point, form.qmax - zero_point), axis=-1).astype(np.float32)
    found.flags.writeable = False
    return found


@pytest.mark.parametrize("length", LENGTHS)
@every_form
def test_least_error_against_a_loop_in_float64(form: Spec, length: int) -> None:
    x = weights((5, length))
    candidates = some_candidates(x, form)
    found = least_error(x, candidates)
    assert (found.dtype, found.shape) == (np.int64, (5,))
    for row, tried, index in zip(x.astype(np.float64), candidates.astype(np.float64), found, strict=True):
        errors = [math.fsum(np.square(np.clip(np.rint(row / scale), first, last) * scale - row)) for scale, first, last in tried]
        assert errors[index] <= 1.0003 * min(errors), "GAIN, and sums in float32"


@pytest.mark.skipif(library is None, reason="there was no C compiler when zeropoint was installed")
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("size", [1.0, 1e-38, 1e33], ids=str)
@every_form
def test_both_implementations_choose_the_same(monkeypatch: pytest.MonkeyPatch, form: Spec, size: float, length: int) -> None:
    x = weights((40, length), seed=length) * np.float32(size)
    candidates = some_candidates(x, form)
    # At a gain of 1 the last bit decides, and of a candidate that is there twice the first one wins.
    for gain in (1.0, GAIN):
        monkeypatch.setattr("zeropoint.statistics.weights.GAIN", gain)
        for tried in (candidates, np.flip(candidates, axis=1).copy(), np.repeat(candidates, 2, axis=1)):
            assert least_error_in_numpy(x, tried).tolist() == least_error_compiled(x, tried).tolist()


@pytest.mark.skipif(library is None, reason="there was no C compiler when zeropoint was installed")
@pytest.mark.parametrize("length", LENGTHS)
def test_both_implementations_add_to_the_same_bits(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    """A candidate with less error by the last bit wins, and an equal one does not: that finds each sum's bits."""
    monkeypatch.setattr("zeropoint.statistics.weights.GAIN", 1.0)
    x = weights((1, length))
    scale = np.float32(np.abs(x).max() / 127.0)
    near = np.array([scale * (1 + i * 1e-7) for i in range(200)], np.float32)
    candidates = np.stack(np.broadcast_arrays(near, np.float32(-128), np.float32(127)), axis=-1)[None]
    for start in range(len(near) - 1):
        pair = np.ascontiguousarray(candidates[:, start : start + 2])
        for tried in (pair, np.ascontiguousarray(pair[:, ::-1])):
            assert least_error_in_numpy(x, tried).tolist() == least_error_compiled(x, tried).tolist()


@pytest.mark.parametrize("shape", [(7, n) for n in (1, 2, 7, 15, 16, 17, 384, 1000)], ids=str)
@every_form
def test_rows_of_any_length_have_the_range_of_the_numpy_search(monkeypatch: pytest.MonkeyPatch, shape: Place, form: Spec) -> None:
    x, spec = weights(shape), form.with_granularity(PerChannel(0))
    found = weight_range(x, spec)
    monkeypatch.setattr("zeropoint.statistics.weights.least_error", least_error_in_numpy)
    assert [bound.tolist() for bound in found] == [bound.tolist() for bound in weight_range(x, spec)]


# --- what the answer depends on --------------------------------------------------------------------------------------------


def test_solver_changes_the_answer_and_mse_is_the_default() -> None:
    x = weights((4, 100))
    mse, minmax = weight_range(x, FORMS["int4"], "mse")[1], weight_range(x, FORMS["int4"], "minmax")[1]
    assert mse < minmax
    assert weight_range(x, FORMS["int4"])[1] == mse


@pytest.mark.parametrize("solver", ["mse", "minmax"])
def test_channels_do_not_see_each_other(solver: Literal["mse", "minmax"]) -> None:
    x = weights((6, 50))
    lo, hi = weight_range(x, FORMS["int4"].with_granularity(PerChannel(0)), solver)
    for i, row in enumerate(x):
        assert (lo[i], hi[i]) == tuple(float(bound) for bound in weight_range(row, FORMS["int4"], solver))


@pytest.mark.parametrize("solver", ["mse", "minmax"])
def test_more_channels_than_are_worked_on_at_once(solver: Literal["mse", "minmax"]) -> None:
    x = weights((300, 400))
    assert x.size > 3 * BLOCK
    spec = FORMS["int4"].with_granularity(PerChannel(0))
    lo, hi = weight_range(x, spec, solver)
    for part in (slice(0, 7), slice(80, 83), slice(290, 300)):
        expected = weight_range(x[part], spec, solver)
        assert (lo[part].tolist(), hi[part].tolist()) == (expected[0].tolist(), expected[1].tolist())


def test_layout_and_dtype_do_not_matter() -> None:
    x = weights((6, 10))
    spec = FORMS["int8"].with_granularity(PerChannel(1))
    expected = weight_range(x, spec)[1].tolist()
    for same in (np.asfortranarray(x), x.astype(np.float64), x.tolist()):
        assert weight_range(same, spec)[1].tolist() == expected


# --- extremes and errors ----------------------------------------------------------------------------------------------------


@every_form
@pytest.mark.parametrize("solver", ["mse", "minmax"])
def test_dead_channels_have_the_range_zero(solver: Literal["mse", "minmax"], form: Spec) -> None:
    x = weights((3, 20)) * np.array([[1.0], [0.0], [1.0]], np.float32)
    lo, hi = weight_range(x, form.with_granularity(PerChannel(0)), solver)
    assert (lo[1], hi[1]) == (0.0, 0.0)
    assert (hi[[0, 2]] > 0.0).all()


@every_form
@pytest.mark.parametrize("solver", ["mse", "minmax"])
@pytest.mark.parametrize(
    "values",
    [
        pytest.param([0.0, -0.0], id="zeros"),
        pytest.param([0.75], id="a single value"),
        pytest.param([-0.75] * 40, id="constant below"),
        pytest.param([1e-40, -3e-42, 1e-45], id="subnormals"),
        pytest.param([3e38, -3e38, 1e38], id="near the largest float"),
        pytest.param([1000.0] + [0.001] * 100, id="one outlier"),
    ],
)
def test_extremes_are_covered_without_a_warning(values: list[float], solver: Literal["mse", "minmax"], form: Spec) -> None:
    x = np.array(values, np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        lo, hi = weight_range(x, form, solver)
    whole = slow_bounds(x.tolist(), form)
    assert whole[0] <= lo <= 0.0 <= hi <= whole[1]
    assert true_error(x.tolist(), float(lo), float(hi), form) <= true_error(x.tolist(), *whole, form)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3)], ids=str)
@pytest.mark.parametrize("solver", ["mse", "minmax"])
def test_no_elements_give_zero_ranges(shape: Place, solver: Literal["mse", "minmax"]) -> None:
    for granularity, scales in ((PerTensor(), ()), (PerChannel(0), shape[:1])):
        lo, hi = weight_range(np.zeros(shape, np.float32), FORMS["int8"].with_granularity(granularity), solver)
        assert (lo.shape, hi.shape) == (scales, scales)
        assert not lo.any()
        assert not hi.any()


@pytest.mark.parametrize("solver", ["mse", "minmax"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300], ids=["NaN", "inf", "-inf", "beyond float32"])
def test_what_is_not_finite_is_refused(value: float, solver: Literal["mse", "minmax"]) -> None:
    x = np.ones((3, 4))
    x[1, 2] = value
    with pytest.raises(DataError, match="weight: found NaN or infinity in it, expected numbers; look at how the network was trained"):
        weight_range(x, FORMS["int8"].with_granularity(PerChannel(0)), solver)


@pytest.mark.parametrize("granularity", [PerChannel(2), PerChannel(-3), PerBlock(2, 4)], ids=str)
def test_an_axis_that_is_not_there_is_refused(granularity: Granularity) -> None:
    with pytest.raises(RecipeError, match=re.escape("for an array of shape (3, 4), expected -2 to 1")):
        weight_range(np.zeros((3, 4)), FORMS["int8"].with_granularity(granularity))


def test_an_unknown_solver_is_refused() -> None:
    with pytest.raises(RecipeError, match="weight solver: found 'entropy', expected mse or minmax"):
        weight_range(np.zeros(3), FORMS["int8"], "entropy")  # type: ignore[arg-type]
