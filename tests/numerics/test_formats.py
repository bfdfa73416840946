from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

from zeropoint.errors import RecipeError
from zeropoint.numerics.formats import FORMATS, get_format

every_format = pytest.mark.parametrize("name", FORMATS)


@every_format
def test_limits_are_those_of_the_dtype(name: str) -> None:
    code = FORMATS[name]
    limits: Any = ml_dtypes.iinfo(code.dtype) if code.bits == 4 else np.iinfo(code.dtype.name)
    assert (code.qmin, code.qmax, code.bits) == (limits.min, limits.max, limits.bits)
    assert code.signed == (limits.min < 0)


@every_format
def test_name_and_dtype_are_onnx_s(name: str) -> None:
    element_type = onnx.TensorProto.DataType.Value(name.upper())
    assert onnx.helper.tensor_dtype_to_np_dtype(element_type) == FORMATS[name].dtype
    assert get_format(name) is FORMATS[name]


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="format: found 'int7', expected one of int8, uint8, int16"):
        get_format("int7")
