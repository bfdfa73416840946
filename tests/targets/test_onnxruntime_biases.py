"""Where the constant of the Add behind a MatMul gets int32 codes for ONNX Runtime: where the two become one integer kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import zeropoint as zp


def linear(shape: list[Any]) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    constants = {"w": rng.standard_normal((32, 16)), "b": rng.standard_normal(16)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"], "matmul"), helper.make_node("Add", ["m", "b"], ["y"], "add")]
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)] for name, dims in (("x", shape), ("y", None)))
    weights = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()]
    return helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, weights), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )


@pytest.mark.parametrize(
    ("shape", "coded"),
    [
        pytest.param(["batch", 32], True, id="matrix"),
        pytest.param([1, 4, 32], True, id="fixed-shape"),
        pytest.param(["batch", "sequence", 32], False, id="dynamic-sequence"),
    ],
)
def test_bias_has_codes_only_where_it_joins_the_product(shape: list[Any], coded: bool) -> None:
    sample = np.random.default_rng(1).standard_normal([1 if isinstance(size, str) else size for size in shape]).astype(np.float32)
    result = zp.quantize(linear(shape), data=[{"x": sample}] * 4, target="onnxruntime", evaluate=False)
    assert ("bias" in {entry.role for entry in result.plan.entries}) is coded
