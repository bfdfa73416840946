from __future__ import annotations

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from zeropoint.data.fit import as_array, by_name, cast, fit_sample, rows
from zeropoint.data.inputs import InputInfo, batch_axis
from zeropoint.errors import DataError

IMAGE = InputInfo("x", np.dtype(np.float32), (None, 3, None, 8))


def info(dtype: npt.DTypeLike, shape: tuple[int | None, ...] = (None, 2)) -> InputInfo:
    return InputInfo("x", np.dtype(dtype), shape)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        pytest.param(np.array([0.1, 2.0]), np.float32, id="float64 to float32"),
        pytest.param(np.array([0.1], np.float32), np.float16, id="float32 to float16"),
        pytest.param(np.array([0.1], np.float32), ml_dtypes.bfloat16, id="float32 to bfloat16"),
        pytest.param(np.array([0, 255], np.uint8), np.float32, id="bytes to float32"),
        pytest.param(np.array([0, 30522], np.int64), np.int32, id="int64 tokens to int32"),
        pytest.param(np.array([2**24], np.int64), np.float32, id="the largest run of whole numbers in float32"),
        pytest.param(np.array([True, False]), np.int64, id="booleans to integers"),
        pytest.param(np.array([0, 1]), np.bool_, id="0 and 1 to booleans"),
        pytest.param(np.array([1.5], ">f4"), np.float32, id="other byte order"),
    ],
)
def test_cast_keeps_values(values: npt.NDArray, dtype: npt.DTypeLike) -> None:
    values.setflags(write=False)
    found = cast(values, info(dtype), where="here")
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, values.astype(dtype))


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        pytest.param(np.array([1.0]), np.int64, id="float to integer, though whole"),
        pytest.param(np.array([1e39]), np.float32, id="overflow of float32"),
        pytest.param(np.array([70000.0], np.float32), np.float16, id="overflow of float16"),
        pytest.param(np.array([2**31], np.int64), np.int32, id="integer too wide"),
        pytest.param(np.array([-1], np.int64), np.uint64, id="negative to unsigned"),
        pytest.param(np.array([-1], np.int8), np.uint8, id="negative byte"),
        pytest.param(np.array([2**24 + 1], np.int64), np.float32, id="integer that float32 rounds"),
        pytest.param(np.array([2]), np.bool_, id="2 to boolean"),
        pytest.param(np.array([1j]), np.float32, id="complex"),
        pytest.param(np.array(["1"]), np.float32, id="text"),
        pytest.param(np.array([None], object), np.float32, id="objects"),
    ],
)
def test_cast_refuses_what_changes_values(values: npt.NDArray, dtype: npt.DTypeLike) -> None:
    with pytest.raises(DataError, match=rf"here: input 'x': found .*{values.dtype}.* expected {np.dtype(dtype)}"):
        cast(values, info(dtype), where="here")


@pytest.mark.parametrize(
    ("shape", "wanted", "batched", "expected"),
    [
        pytest.param((5, 2), (None, 2), True, (5, 2), id="samples along axis 0"),
        pytest.param((2,), (None, 2), True, (1, 2), id="one sample without a batch axis"),
        pytest.param((5, 1, 2), (None, 2), True, (5, 2), id="samples that kept their batch axis"),
        pytest.param((5, 4, 2), (4, 2), True, (20, 2), id="whole feeds of a fixed batch"),
        pytest.param((2, 1, 16), (2, 1, 16), False, (1, 2, 1, 16), id="no batch axis, one sample"),
        pytest.param((7, 2, 1, 16), (2, 1, 16), False, (7, 2, 1, 16), id="no batch axis, many samples"),
    ],
)
def test_rows(shape: tuple[int, ...], wanted: tuple[int | None, ...], batched: bool, expected: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    found = rows(array, info(np.float32, wanted), batched=batched, where="here")
    np.testing.assert_array_equal(found, array.reshape(expected))
    assert found.shape == expected


@pytest.mark.parametrize("shape", [(5, 3), (5, 2, 2), (5, 2, 1), (1, 1, 1, 2), ()], ids=str)
def test_rows_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError) as caught:
        rows(np.zeros(shape), info(np.float32), batched=True, where="a.npy")
    assert str(caught.value) == f"a.npy: input 'x': found shape {shape}, expected (samples, 2), or (2,) for one"


def test_fit_sample_returns_the_networks_type_and_a_dynamic_side() -> None:
    feed = fit_sample({"x": np.ones((1, 3, 5, 8))}, [IMAGE], batch=batch_axis([IMAGE]), where="s")
    assert feed["x"].dtype == np.float32 and feed["x"].shape == (1, 3, 5, 8)


def test_fit_sample_keeps_a_scalar_a_scalar() -> None:
    scalar = info(np.float32, ())
    assert fit_sample({"x": np.array(2.0)}, [scalar], batch=batch_axis([scalar]), where="s")["x"].shape == ()


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        pytest.param({"x": np.full((1, 3, 5, 8), np.nan)}, r"'s': input 'x': found 120 NaN or infinite", id="NaN"),
        pytest.param({"x": np.full((1, 3, 1, 8), -np.inf)}, r"found 24 NaN or infinite", id="infinite"),
        pytest.param({"x": np.ones((2, 3, 5, 8))}, r"found shape \(2, 3, 5, 8\), expected \(1, 3, \?, 8\)", id="two samples"),
        pytest.param({"x": np.ones((1, 1, 5, 8))}, r"found shape \(1, 1, 5, 8\)", id="channels"),
        pytest.param({"y": np.ones((1, 3, 5, 8))}, "found inputs 'y', expected 'x'", id="name"),
        pytest.param({}, "found inputs none, expected 'x'", id="nothing"),
    ],
)
def test_fit_sample_refuses(sample: dict[str, npt.NDArray], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit_sample(sample, [IMAGE], batch=batch_axis([IMAGE]), where="sample 's'")


def test_positional_names_of_savez_follow_the_inputs() -> None:
    inputs = [InputInfo("b", np.dtype("f4"), (None,)), InputInfo("a", np.dtype("f4"), (None,))]
    assert by_name({"arr_1": 1, "arr_0": 0}, inputs, where="f") == {"b": 0, "a": 1}


@pytest.mark.parametrize("value", [object(), [[1, 2], [3]], "text", None, {"a": 1}], ids=["object", "ragged", "text", "none", "dict"])
def test_what_is_no_array_is_refused(value: object) -> None:
    with pytest.raises(DataError, match=r"^here: found .*expected (an array|numbers); give arrays"):
        as_array(value, "here")
