from __future__ import annotations

import re
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeropoint.errors import RecipeError
from zeropoint.numerics.affine import (
    SMALLEST_SCALE,
    QParams,
    Range,
    dequantize_array,
    expand,
    qparams_from_range,
    quantize_array,
)
from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import Granularity, PerBlock, PerChannel, PerTensor, Spec

Array = np.ndarray[Any, Any]
PER_TENSOR = PerTensor()
NARROW_INT8 = Spec(FORMATS["int8"], symmetric=True, narrow=True)
SPECS = [
    pytest.param(Spec(FORMATS[name], symmetric, PER_TENSOR, narrow), id=f"{name}-{'symmetric' if symmetric else 'asymmetric'}-{narrow=}")
    for name in ("int8", "uint8", "int4", "uint4", "int16", "uint16")
    for symmetric in (True, False)
    for narrow in ((False, True) if FORMATS[name].signed else (False,))
]
every_spec = pytest.mark.parametrize("spec", SPECS)
finite = st.floats(-1e5, 1e5, width=32)


def read_only(x: Array) -> Array:
    x = x.copy()
    x.flags.writeable = False
    return x


def qparams(scale: object, zero_point: object, name: str = "int8", granularity: Granularity = PER_TENSOR) -> QParams:
    code = FORMATS[name]
    return QParams(read_only(np.asarray(scale, np.float32)), read_only(np.asarray(zero_point, code.dtype)), code, granularity)


def numbers(codes: Array) -> Array:
    return codes.astype(np.int64)


def all_codes(spec: Spec) -> Array:
    return np.arange(spec.qmin, spec.qmax + 1).astype(spec.format.dtype)


def half_even(value: Fraction) -> int:
    lower = floor(value)
    above = value - lower
    return lower + (1 if above > Fraction(1, 2) or (above == Fraction(1, 2) and lower % 2) else 0)


# --- the mapping, against ONNX Runtime and exact arithmetic ---------------------------------------------------------------


def run_onnxruntime(op_type: str, x: Array, q: QParams, axis: int) -> Array:
    codes, floats = getattr(onnx.TensorProto, q.format.name.upper()), onnx.TensorProto.FLOAT
    taken, given_back = (floats, codes) if op_type == "QuantizeLinear" else (codes, floats)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(op_type, ["x", "scale", "zero_point"], ["y"], axis=axis)],
        "oracle",
        [onnx.helper.make_tensor_value_info("x", taken, x.shape)],
        [onnx.helper.make_tensor_value_info("y", given_back, x.shape)],
        [onnx.numpy_helper.from_array(q.scale, "scale"), onnx.numpy_helper.from_array(q.zero_point, "zero_point")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], {"x": x})[0])


def random_and_halfway(shape: tuple[int, ...], scale: Array) -> Array:
    """Half of the values anywhere in reach and beyond, half on a tie between two codes, as near as float32 gets."""
    rng = np.random.default_rng(0)
    anywhere, ties = rng.uniform(-200, 200, shape), rng.integers(-200, 200, shape) + 0.5
    return read_only((np.where(rng.random(shape) < 0.5, anywhere, ties) * scale).astype(np.float32))


@pytest.mark.parametrize("name", ["int8", "uint8"])
@pytest.mark.parametrize(
    ("scale", "granularity"),
    [
        pytest.param(0.25, PER_TENSOR, id="per tensor, exact ties"),
        pytest.param(0.0123, PER_TENSOR, id="per tensor, rounded ties"),
        pytest.param([0.5, 0.037, 2.0, 1e-6, 3e4], PerChannel(1), id="per axis 1"),
        pytest.param([0.5, 0.037, 1.7], PerChannel(-1), id="per last axis"),
    ],
)
def test_agrees_with_onnxruntime(name: str, scale: object, granularity: Granularity) -> None:
    scales = np.asarray(scale, np.float32)
    zero_point = np.linspace(FORMATS[name].qmin, FORMATS[name].qmax, max(scales.size, 3)).astype(int)[: scales.size].reshape(scales.shape)
    q = qparams(scales, zero_point if scales.ndim else FORMATS[name].qmax - 100, name, granularity)
    axis = granularity.axis if isinstance(granularity, PerChannel) else 1
    shape = (40, 5, 30, 3)
    x = random_and_halfway(shape, expand(scales, shape, granularity))

    codes = quantize_array(x, q)

    np.testing.assert_array_equal(codes, run_onnxruntime("QuantizeLinear", x, q, axis))
    np.testing.assert_array_equal(dequantize_array(read_only(codes), q), run_onnxruntime("DequantizeLinear", codes, q, axis))


@given(st.lists(finite, min_size=1, max_size=20), st.integers(-20, 20), st.integers(-128, 127))
def test_is_exact_arithmetic_where_the_scale_is_a_power_of_two(values: list[float], exponent: int, zero_point: int) -> None:
    scale = Fraction(2) ** exponent
    expected = [min(max(half_even(Fraction(v) / scale) + zero_point, -128), 127) for v in values]
    q = qparams(2.0**exponent, zero_point)
    codes = quantize_array(read_only(np.array(values, np.float32)), q)
    assert codes.tolist() == expected
    assert dequantize_array(codes, q).tolist() == [float(scale * (code - zero_point)) for code in expected]


def test_blocks_each_have_their_scale() -> None:
    x = read_only(np.arange(14, dtype=np.float32).reshape(2, 7))
    q = qparams([[1, 2, 4], [8, 16, 32]], [[0, 1, 2], [3, 4, 5]], granularity=PerBlock(1, 3))
    expected = [[np.rint(x[i, j] / q.scale[i, j // 3]) + q.zero_point[i, j // 3] for j in range(7)] for i in range(2)]
    assert quantize_array(x, q).tolist() == expected


def test_int32_codes_are_exact() -> None:
    q = qparams(1.0, 0, "int32")
    codes = quantize_array(read_only(np.array([16777216.0, -2147483648.0, 1e10, -1e10], np.float32)), q)
    assert codes.tolist() == [16777216, -(2**31), 2**31 - 1, -(2**31)]
    near = qparams(1.0, 16777216, "int32")
    assert quantize_array(np.array([1.0], np.float32), near).tolist() == [16777217]
    assert dequantize_array(np.array([16777217], np.int32), near).tolist() == [1.0]
    farthest = dequantize_array(np.array([2**31 - 1], np.int32), qparams(1.0, -(2**31), "int32"))
    assert farthest.tolist() == [float(2**32)], "the difference of two codes needs more than 32 bits"


# --- laws -------------------------------------------------------------------------------------------------------------------


@every_spec
def test_every_code_survives_the_round_trip(spec: Spec) -> None:
    q = qparams_from_range(-0.7, 1.3, spec=spec)
    codes = read_only(all_codes(spec))
    back = quantize_array(dequantize_array(codes, q), q)
    assert back.dtype == spec.format.dtype
    np.testing.assert_array_equal(numbers(back), numbers(codes))


@pytest.mark.parametrize("name", ["int8", "uint8"])
def test_every_code_survives_with_every_zero_point(name: str) -> None:
    codes = all_codes(Spec(FORMATS[name], symmetric=False))
    assert codes.size == 256
    for zero_point in codes:
        q = qparams(0.0173, zero_point, name)
        np.testing.assert_array_equal(quantize_array(dequantize_array(codes, q), q), codes)


@st.composite
def ranges_and_values(draw: st.DrawFn) -> tuple[float, float, Array]:
    lo, hi = sorted(draw(st.tuples(finite, finite)))
    return lo, hi, read_only(np.array(sorted(draw(st.lists(finite, min_size=1, max_size=30))), np.float32))


@every_spec
@given(ranges_and_values())
def test_laws_of_the_mapping(spec: Spec, case: tuple[float, float, Array]) -> None:
    lo, hi, x = case
    q = qparams_from_range(lo, hi, spec=spec)
    codes = quantize_array(x, q)
    real = dequantize_array(codes, q)
    ends = dequantize_array(np.array([spec.qmin, spec.qmax]).astype(spec.format.dtype), q).astype(np.float64)

    assert (np.diff(numbers(codes)) >= 0).all(), "monotone: x is sorted"
    np.testing.assert_array_equal(dequantize_array(quantize_array(real, q), q), real, "idempotent")
    inside = (ends[0] <= x) & (x <= ends[1])
    # The quotient x / scale is rounded to float32 before it is rounded to a code: its ULP adds to half a step.
    ulp = np.spacing(np.maximum(np.abs(x), np.abs(real)).astype(np.float32)).astype(np.float64)
    half_step = float(q.scale) / 2
    assert (np.abs(real.astype(np.float64) - x)[inside] <= (half_step + 2 * ulp)[inside]).all(), "error at most half a step"
    assert (numbers(codes)[x < ends[0]] == spec.qmin).all(), "saturates below"
    assert (numbers(codes)[x > ends[1]] == spec.qmax).all(), "saturates above"


@every_spec
@given(finite, finite)
def test_zero_is_exact_and_the_range_is_covered(spec: Spec, a: float, b: float) -> None:
    lo, hi = min(a, b), max(a, b)
    q = qparams_from_range(lo, hi, spec=spec)
    assert dequantize_array(quantize_array(np.zeros(1, np.float32), q), q).tolist() == [0.0]
    assert q.scale > 0
    ends = dequantize_array(np.array([spec.qmin, spec.qmax]).astype(spec.format.dtype), q)
    # Rounding the zero point moves both ends by up to half a step; scale and product are rounded to float32.
    slack = float(q.scale) / 2 + 2 * float(np.spacing(np.float32(max(abs(lo), abs(hi)))))
    if hi > 0:
        assert ends[1] >= hi - slack
    if lo < 0 and (spec.format.signed or not spec.symmetric):
        assert ends[0] <= lo + slack


@pytest.mark.parametrize("name", ["int8", "int4", "int16"])
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=30))
def test_narrow_never_emits_the_lowest_code(name: str, values: list[float]) -> None:
    x = read_only(np.array([*values, -np.inf], np.float32))
    wide, narrow = (
        quantize_array(x, qparams_from_range(-1.0, 1.0, spec=Spec(FORMATS[name], symmetric=True, narrow=n))) for n in (False, True)
    )
    assert numbers(wide)[-1] == FORMATS[name].qmin
    assert numbers(narrow)[-1] == FORMATS[name].qmin + 1
    np.testing.assert_array_equal(numbers(narrow), np.maximum(numbers(wide), FORMATS[name].qmin + 1))


def test_narrow_means_nothing_for_unsigned_formats() -> None:
    q = qparams_from_range(-1.0, 1.0, spec=Spec(FORMATS["uint8"], symmetric=False, narrow=True))
    assert quantize_array(np.array([-9.0, 9.0], np.float32), q).tolist() == [0, 255]


def test_infinities_and_values_beyond_float32_saturate_without_a_warning() -> None:
    x = read_only(np.array([np.inf, -np.inf, 1e300, -1e300, 3e38, -3e38]))
    assert quantize_array(x, qparams(1e-30, 5)).tolist() == [127, -128] * 3


def test_results_keep_the_shape_of_a_scalar() -> None:
    q = qparams_from_range(-1.0, 3.0, spec=Spec(FORMATS["uint8"], symmetric=False))
    codes = quantize_array(np.array(1.0, np.float32), q)
    for value, dtype in ((q.scale, np.float32), (q.zero_point, np.uint8), (codes, np.uint8), (dequantize_array(codes, q), np.float32)):
        assert (type(value), value.shape, value.dtype) == (np.ndarray, (), dtype)


# --- ranges -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "symmetric", "narrow", "bounds", "scale", "zero_point"),
    [
        pytest.param("int8", True, False, (-1.0, 0.5), 1 / 127, 0, id="symmetric takes the larger side"),
        pytest.param("int8", True, True, (-1.0, 0.5), 1 / 127, 0, id="narrow has the same scale"),
        pytest.param("uint8", True, False, (-9.0, 2.0), 2 / 255, 0, id="symmetric unsigned drops the negative side"),
        pytest.param("uint8", True, False, (-9.0, -2.0), 1.0, 0, id="symmetric unsigned with nothing left"),
        pytest.param("uint8", False, False, (-1.0, 3.0), 4 / 255, 64, id="asymmetric unsigned"),
        pytest.param("int8", False, False, (-1.0, 3.0), 4 / 255, -64, id="asymmetric signed"),
        pytest.param("int8", False, True, (-1.0, 1.0), 2 / 254, 0, id="asymmetric narrow"),
        pytest.param("uint8", False, False, (2.0, 5.0), 5 / 255, 0, id="positive range is widened to 0"),
        pytest.param("uint8", False, False, (-5.0, -2.0), 5 / 255, 255, id="negative range is widened to 0"),
        pytest.param("int4", True, False, (-7.0, 3.0), 1.0, 0, id="int4"),
        pytest.param("uint16", False, False, (0.0, 65535.0), 1.0, 0, id="uint16"),
        pytest.param("int8", True, False, (0.0, 0.0), 1.0, 0, id="empty symmetric range"),
        pytest.param("uint8", False, False, (0.0, 0.0), 1.0, 0, id="empty asymmetric range"),
        pytest.param("int8", True, False, (0.0, 1e-44), SMALLEST_SCALE, 0, id="denormal scales are raised"),
        pytest.param("uint8", False, False, (-3e38, 3e38), 6e38 / 255, 128, id="widest range"),
    ],
)
def test_range_gives_scale_and_zero_point(
    name: str, symmetric: bool, narrow: bool, bounds: tuple[float, float], scale: float, zero_point: int
) -> None:
    q = qparams_from_range(*bounds, spec=Spec(FORMATS[name], symmetric, narrow=narrow))
    assert (q.scale.dtype, q.scale.shape, q.zero_point.dtype, q.zero_point.shape) == (np.float32, (), FORMATS[name].dtype, ())
    assert (float(q.scale), int(q.zero_point)) == (float(np.float32(scale)), zero_point)


def test_arrays_of_ranges_give_what_each_range_gives() -> None:
    lo, hi = np.array([-1.0, 0.0, -3.0]), np.array([2.0, 0.0, -1.0])
    spec = Spec(FORMATS["uint8"], symmetric=False)
    q = qparams_from_range(read_only(lo), read_only(hi), spec=spec.with_granularity(PerChannel(0)))
    singles = [qparams_from_range(a, b, spec=spec) for a, b in zip(lo, hi, strict=True)]
    assert q.scale.tolist() == [float(single.scale) for single in singles]
    assert q.zero_point.tolist() == [int(single.zero_point) for single in singles]
    assert q.granularity == PerChannel(0)


def test_range_and_qparams_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Range(0.0, 1.0).lo = 2.0  # type: ignore[misc]
    with pytest.raises(AttributeError):
        qparams(1.0, 0).narrow = True  # type: ignore[misc]


# --- errors -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lo", "hi", "granularity", "message"),
    [
        pytest.param(1.0, -1.0, PER_TENSOR, "range: found [1.0, -1.0], expected finite bounds with lo <= hi", id="reversed"),
        pytest.param(0.0, np.inf, PER_TENSOR, "range: found [0.0, inf], expected finite bounds", id="infinite"),
        pytest.param([0, np.nan], [1, 1], PerChannel(0), "range: found [nan, 1.0] at index [1], expected finite", id="NaN in a channel"),
        pytest.param([0, 0], [1, 1], PER_TENSOR, "scale: found shape (2,), expected ()", id="channels per tensor"),
        pytest.param(0.0, 1.0, PerChannel(0), "scale: found shape (), expected (channels,)", id="one range per channel"),
        pytest.param(0.0, 1.0, PerBlock(0, 2), "scale: found shape (), expected the blocked shape", id="one range per block"),
    ],
)
def test_impossible_range_is_refused(lo: Any, hi: Any, granularity: Granularity, message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        qparams_from_range(lo, hi, spec=NARROW_INT8.with_granularity(granularity))


@pytest.mark.parametrize(
    ("scale", "zero_point", "message"),
    [
        pytest.param(
            np.array([1, 0], np.float32), np.array([0, 0], np.int8), "scale: found 0.0, expected positive numbers", id="zero scale"
        ),
        pytest.param(
            np.array([-2, 1], np.float32), np.array([0, 0], np.int8), "scale: found -2.0, expected positive numbers", id="negative scale"
        ),
        pytest.param(
            np.array([1, np.nan], np.float32), np.array([0, 0], np.int8), "scale: found nan, expected positive numbers", id="NaN scale"
        ),
        pytest.param(
            np.array([1, np.inf], np.float32), np.array([0, 0], np.int8), "scale: found inf, expected positive numbers", id="infinite scale"
        ),
        pytest.param(
            np.array([1, 1], np.float64), np.array([0, 0], np.int8), "found float64 and int8, expected float32 and int8", id="scale dtype"
        ),
        pytest.param(
            np.array([1, 1], np.float32),
            np.array([0, 0], np.uint8),
            "found float32 and uint8, expected float32 and int8",
            id="zero point dtype",
        ),
        pytest.param(
            np.array([1, 1], np.float32),
            np.array([0], np.int8),
            "zero point: found shape (1,), expected the scale's, (2,)",
            id="zero point shape",
        ),
    ],
)
def test_impossible_qparams_are_refused(scale: Array, zero_point: Array, message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        QParams(scale, zero_point, FORMATS["int8"], PerChannel(0))


@pytest.mark.parametrize(
    ("scale", "granularity", "message"),
    [
        pytest.param([1, 1], PerChannel(0), "scale: found shape (2,) for an array of shape (3, 4), expected (3,)", id="channels"),
        pytest.param([1, 1], PerChannel(2), "axis: found 2 for an array of shape (3, 4), expected -2 to 1", id="axis"),
        pytest.param([[1, 1]], PerBlock(1, 2), "found shape (1, 2) for an array of shape (3, 4), expected (3, 2)", id="blocks"),
        pytest.param([1, 1], PerBlock(0, 2), "found shape (2,) for an array of shape (3, 4), expected (2, 4)", id="rank of blocks"),
    ],
)
def test_scale_that_does_not_fit_the_array_is_refused(scale: object, granularity: Granularity, message: str) -> None:
    q = qparams(scale, np.zeros_like(scale), granularity=granularity)
    for kernel, dtype in ((quantize_array, np.float32), (dequantize_array, np.int8)):
        with pytest.raises(RecipeError, match=re.escape(message)):
            kernel(np.zeros((3, 4), dtype), q)


def test_nan_is_refused() -> None:
    with pytest.raises(RecipeError, match="quantize_array: found NaN in the input, expected numbers; replace them first"):
        quantize_array(np.array([0.0, np.nan], np.float32), qparams(1.0, 0))
