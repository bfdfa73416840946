from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeropoint.errors import RecipeError
from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.packing import pack4, unpack4

ELEMENT_TYPES = {"int4": onnx.TensorProto.INT4, "uint4": onnx.TensorProto.UINT4}


def all_codes(name: str) -> list[int]:
    return list(range(FORMATS[name].qmin, FORMATS[name].qmax + 1))


@pytest.mark.parametrize("name", ELEMENT_TYPES)
@pytest.mark.parametrize("shape", [(0,), (1,), (2,), (3,), (16,), (5, 3), (2, 3, 2), ()], ids=str)
def test_bytes_are_onnx_raw_data_and_read_back(name: str, shape: tuple[int, ...]) -> None:
    codes = np.resize(np.array(all_codes(name)[::-1]), shape).astype(FORMATS[name].dtype)
    codes.flags.writeable = False
    tensor = onnx.numpy_helper.from_array(codes, "codes")
    assert tensor.data_type == ELEMENT_TYPES[name]

    packed = pack4(codes)

    assert packed.tobytes() == tensor.raw_data
    packed.flags.writeable = False
    back = unpack4(packed, shape, format=FORMATS[name])
    assert back.dtype == codes.dtype
    assert back.tobytes() == codes.tobytes()


@pytest.mark.parametrize("name", ELEMENT_TYPES)
def test_onnx_reads_every_pair_of_codes(name: str) -> None:
    low, high = (grid.reshape(-1) for grid in np.meshgrid(all_codes(name), all_codes(name)))
    codes = np.stack([low, high], axis=-1)
    raw = pack4(codes.astype(FORMATS[name].dtype)).tobytes()
    assert len(set(raw)) == 256
    tensor = onnx.helper.make_tensor("codes", ELEMENT_TYPES[name], codes.shape, raw, raw=True)
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor).astype(int), codes)


@given(st.lists(st.integers(-8, 7), max_size=33))
def test_low_nibble_comes_first_and_padding_is_zero(values: list[int]) -> None:
    nibbles = [value % 16 for value in values] + [0] * (len(values) % 2)
    expected = [first + 16 * second for first, second in zip(nibbles[::2], nibbles[1::2], strict=True)]
    assert pack4(np.array(values, FORMATS["int4"].dtype)).tolist() == expected


def test_array_in_fortran_order_is_packed_in_c_order() -> None:
    codes = np.arange(6).reshape(2, 3).astype(FORMATS["uint4"].dtype)
    assert pack4(np.asfortranarray(codes)).tolist() == pack4(codes).tolist() == [0x10, 0x32, 0x54]


def test_padding_nibble_is_not_looked_at() -> None:
    assert unpack4(np.array([0xF3], np.uint8), (1,), format=FORMATS["uint4"]).tolist() == [3]


def test_codes_of_another_width_are_refused() -> None:
    with pytest.raises(RecipeError, match="pack4: found codes of dtype int8, expected int4 or uint4"):
        pack4(np.zeros(2, np.int8))


@pytest.mark.parametrize(
    ("packed", "shape", "name", "message"),
    [
        pytest.param(np.zeros(1, np.uint8), (1,), "int8", "found format int8, expected int4 or uint4", id="format"),
        pytest.param(np.zeros(2, np.uint8), (5,), "int4", "expected uint8 of shape (3,)", id="too few bytes"),
        pytest.param(np.zeros(2, np.uint8), (2,), "int4", "found uint8 of shape (2,)", id="too many bytes"),
        pytest.param(np.zeros(1, np.int8), (2,), "int4", "found int8 of shape (1,)", id="dtype"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(packed: np.ndarray, shape: tuple[int, ...], name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        unpack4(packed, shape, format=FORMATS[name])
