"""ONNX's own backend node cases for QuantizeLinear and DequantizeLinear, bit for bit: the definition of rounding and saturation."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.backend.test.case.node as node_cases
import onnx.backend.test.case.node.dequantizelinear
import onnx.backend.test.case.node.quantizelinear  # importing these two registers their cases; collecting all takes seconds
import pytest

from zeropoint.numerics.affine import QParams, dequantize_array, quantize_array
from zeropoint.numerics.formats import FORMATS, Format
from zeropoint.numerics.spec import Granularity, PerBlock, PerChannel, PerTensor

EXPECTED_NAMES = {
    "test_quantizelinear",
    "test_quantizelinear_axis",
    "test_quantizelinear_blocked_asymmetric",
    "test_quantizelinear_blocked_symmetric",
    "test_quantizelinear_int16",
    "test_quantizelinear_int4",
    "test_quantizelinear_uint16",
    "test_quantizelinear_uint4",
    "test_dequantizelinear",
    "test_dequantizelinear_axis",
    "test_dequantizelinear_blocked",
    "test_dequantizelinear_int16",
    "test_dequantizelinear_int4",
    "test_dequantizelinear_uint16",
    "test_dequantizelinear_uint4",
}


def code_format(case: Any) -> str:
    """The format of a case's codes: what QuantizeLinear writes and DequantizeLinear reads."""
    graph = case.model.graph
    codes = graph.output[0] if graph.node[0].op_type == "QuantizeLinear" else graph.input[0]
    return str(onnx.TensorProto.DataType.Name(codes.type.tensor_type.elem_type)).lower()


CASES = {
    case.name: case
    for case in node_cases._NodeTestCases
    if [node.op_type for node in case.model.graph.node] in (["QuantizeLinear"], ["DequantizeLinear"]) and code_format(case) in FORMATS
}


def array(value: Any) -> np.ndarray[Any, Any]:
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def granularity(node: onnx.NodeProto, scale: np.ndarray[Any, Any]) -> Granularity:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    axis = attributes.get("axis", 1)  # ONNX's default
    if scale.ndim == 0:
        return PerTensor()
    return PerBlock(axis, attributes["block_size"]) if attributes.get("block_size") else PerChannel(axis)


def qparams(node: onnx.NodeProto, inputs: list[np.ndarray[Any, Any]], code: Format) -> QParams:
    scale = inputs[1]
    # Some cases give a scalar scale a zero point of shape (1,), or no zero point, which means 0.
    zero_point = inputs[2].reshape(scale.shape) if len(inputs) > 2 else np.zeros(scale.shape, code.dtype)
    return QParams(scale, zero_point, code, granularity(node, scale))


def test_the_set_of_cases_is_complete() -> None:
    assert set(CASES) == EXPECTED_NAMES


@pytest.mark.parametrize("name", sorted(EXPECTED_NAMES))
def test_bit_for_bit(name: str) -> None:
    case = CASES[name]
    node, (inputs, outputs) = case.model.graph.node[0], case.data_sets[0]
    x, *_ = arrays = [array(value) for value in inputs]
    expected = array(outputs[0])
    kernel: Any = quantize_array if node.op_type == "QuantizeLinear" else dequantize_array

    actual = kernel(x, qparams(node, arrays, FORMATS[code_format(case)]))

    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert actual.tobytes() == expected.tobytes()
