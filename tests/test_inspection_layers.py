"""What `inspect` tells of each layer: codes, bytes and work, counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import zeropoint as zp
from zeropoint.demo import load_digits
from zeropoint.errors import RecipeError
from zeropoint.inspection import Inspection, Layer, TensorInfo

FLOAT = TensorProto.FLOAT
UNSIGNED = np.uint8(3)


def network(nodes: list[onnx.NodeProto], constants: dict[str, Any], shape: list[Any], *, opset: int = 21) -> onnx.ModelProto:
    kept = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    inputs = [helper.make_tensor_value_info("x", FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", FLOAT, None)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def scales(**scale: float) -> dict[str, Any]:
    return {name: np.float32(value) for name, value in scale.items()}


def coded_convolution(*behind: str, zero_point: Any = UNSIGNED) -> onnx.ModelProto:
    """Conv between pairs, with the operators `behind` it before the second pair."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "s"], ["wd"]),
        helper.make_node("DequantizeLinear", ["b", "s"], ["bd"]),
        helper.make_node("Conv", ["xd", "wd", "bd"], ["0"], "layer"),
    ]
    nodes += [helper.make_node(op_type, [str(place)], [str(place + 1)]) for place, op_type in enumerate(behind)]
    nodes += [
        helper.make_node("QuantizeLinear", [str(len(behind)), "s", "z"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "s", "z"], ["y"]),
    ]
    constants = {**scales(s=0.1), "z": zero_point, "w": np.ones((4, 2, 3, 3), np.int8), "b": np.ones(4, np.int32)}
    return network(nodes, constants, [1, 2, 5, 5])


def only_layer(model: onnx.ModelProto) -> Layer:
    [layer] = zp.inspect(model).layers
    return layer


def test_float_convolution_by_hand() -> None:
    constants = {"w": np.ones((4, 2, 3, 3), np.float32), "b": np.ones(4, np.float32)}
    found = zp.inspect(network([helper.make_node("Conv", ["x", "w", "b"], ["y"], "layer")], constants, [1, 2, 5, 5]))
    [layer] = found.layers
    assert (layer.input_shape, layer.output_shape, layer.mac_share) == ((1, 2, 5, 5), (1, 4, 3, 3), 1.0)
    assert (layer.input_dtype, layer.weight_dtype, layer.output_dtype) == ("float32", "float32", "float32")
    assert (layer.parameters, layer.weight_bytes) == (4 * 2 * 9 + 4, 4 * (4 * 2 * 9 + 4))
    assert layer.activation_bytes == 4 * (2 * 5 * 5 + 4 * 3 * 3)
    assert layer.bytes_moved == layer.weight_bytes + layer.activation_bytes
    assert (found.weight_bytes, found.activation_bytes, found.integer_layers, layer.integer) == (304, 344, 0, False)


@pytest.mark.parametrize(
    ("behind", "output"),
    [
        pytest.param([], "uint8", id="nothing-between"),
        pytest.param(["Relu"], "uint8", id="relu"),
        pytest.param(["Relu", "Clip"], "uint8", id="relu-and-clip"),
        pytest.param(["Sigmoid"], "float32", id="sigmoid"),
    ],
)
def test_coded_convolution_by_hand(behind: list[str], output: str) -> None:
    layer = only_layer(coded_convolution(*behind))
    assert (layer.input_dtype, layer.weight_dtype, layer.output_dtype, layer.integer) == ("uint8", "int8", output, True)
    assert (layer.weight, layer.bias) == (TensorInfo("w", "int8", (4, 2, 3, 3)), TensorInfo("b", "int32", (4,)))
    assert layer.weight_bytes == 4 * 2 * 9 + 4 * 4
    assert layer.activation_bytes == 2 * 5 * 5 + 4 * 3 * 3 * (1 if output == "uint8" else 4)


@pytest.mark.parametrize(("zero_point", "integer"), [(np.int8(0), True), (np.uint16(0), False)], ids=["int8", "uint16"])
def test_integer_kernels_take_eight_bits(zero_point: Any, integer: bool) -> None:
    found = zp.inspect(coded_convolution(zero_point=zero_point))
    assert (found.layers[0].integer, found.integer_layers, found.quantized) == (integer, int(integer), True)


def product(weight: str, *, block: int = 0) -> onnx.ModelProto:
    """MatMul of codes by weights of 4 or 8 bits, with a scale for each block if asked."""
    blocks: dict[str, Any] = {"axis": 0, "block_size": block} if block else {}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws"], ["wd"], **blocks),
        helper.make_node("MatMul", ["xd", "wd"], ["y"], "layer"),
    ]
    scale = np.ones((8 // block, 5), np.float32) if block else np.float32(1)
    model = network(nodes, {**scales(s=0.1), "z": np.uint8(0), "ws": scale}, [3, 8])
    dtype = {"int4": TensorProto.INT4, "int8": TensorProto.INT8}[weight]
    model.graph.initializer.append(helper.make_tensor("w", dtype, [8, 5], np.ones(40, int).tolist()))
    return model


@pytest.mark.parametrize(
    ("weight", "block", "integer", "size"),
    [
        pytest.param("int8", 0, True, 40, id="int8"),
        pytest.param("int4", 0, False, 20, id="int4"),
        pytest.param("int8", 4, False, 40, id="int8-blocks"),
    ],
)
def test_weights_that_no_integer_kernel_takes(weight: str, block: int, integer: bool, size: int) -> None:
    layer = only_layer(product(weight, block=block))
    assert (layer.weight_dtype, layer.integer, layer.weight_bytes) == (weight, integer, size)
    assert layer.activation_bytes == 3 * 8 + 4 * 3 * 5


def test_product_of_two_activations() -> None:
    layer = only_layer(network([helper.make_node("MatMul", ["x", "x"], ["y"])], {}, [4, 4]))
    assert (layer.weight, layer.weight_dtype, layer.parameters) == (None, "float32", 0)
    assert layer.activation_bytes == 3 * 4 * 16


def test_constant_on_the_left_is_the_weight() -> None:
    layer = only_layer(network([helper.make_node("MatMul", ["w", "x"], ["y"])], {"w": np.ones((2, 4), np.float32)}, [4, 3]))
    assert layer.weight == TensorInfo("w", "float32", (2, 4))
    assert (layer.weight_bytes, layer.activation_bytes) == (32, 4 * (12 + 6))


@pytest.mark.parametrize(
    ("nodes", "constants", "weight", "macs"),
    [
        pytest.param(
            [
                helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
                helper.make_node("QLinearConv", ["xq", "s", "z", "w", "s", "wz", "s", "z", "b"], ["yq"], "layer"),
                helper.make_node("DequantizeLinear", ["yq", "s", "z"], ["y"]),
            ],
            {"w": np.ones((4, 2, 3, 3), np.int8), "b": np.ones(4, np.int32)},
            ("int8", (4, 2, 3, 3)),
            4 * 9 * 2 * 9,
            id="qlinear-convolution",
        ),
        pytest.param(
            [
                helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
                helper.make_node("QLinearMatMul", ["xq", "s", "z", "w", "s", "wz", "s", "z"], ["yq"], "layer"),
                helper.make_node("DequantizeLinear", ["yq", "s", "z"], ["y"]),
            ],
            {"w": np.ones((5, 7), np.int8)},
            ("int8", (5, 7)),
            2 * 5 * 5 * 7,
            id="qlinear-product",
        ),
        pytest.param(
            [
                helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
                helper.make_node("MatMulInteger", ["xq", "w", "xz"], ["yi"], "layer"),
                helper.make_node("Cast", ["yi"], ["y"], to=FLOAT),
            ],
            {"w": np.ones((5, 7), np.int8)},
            ("int8", (5, 7)),
            2 * 5 * 5 * 7,
            id="dynamic-product",
        ),
    ],
)
def test_integer_operators_are_layers(
    nodes: list[onnx.NodeProto], constants: dict[str, Any], weight: tuple[str, tuple[int, ...]], macs: int
) -> None:
    found = zp.inspect(network(nodes, {**scales(s=0.1), "z": np.uint8(3), "wz": np.int8(0), **constants}, [1, 2, 5, 5]))
    [layer] = found.layers
    assert layer.weight is not None
    assert (layer.weight.dtype, layer.weight.shape) == weight
    assert (layer.integer, layer.macs, found.quantized, layer.input_dtype) == (True, macs, True, "uint8")


def test_totals_are_those_of_the_layers(quantized: Inspection) -> None:
    assert quantized.integer_layers == len(quantized.layers) == 7
    assert quantized.activation_bytes == sum(layer.activation_bytes or 0 for layer in quantized.layers)
    assert sum(layer.mac_share or 0 for layer in quantized.layers) == pytest.approx(1)
    assert quantized.weight_bytes == sum(layer.weight_bytes for layer in quantized.layers)
    floats = zp.inspect(load_digits().model)
    assert floats.activation_bytes is not None and quantized.activation_bytes is not None
    assert floats.activation_bytes / quantized.activation_bytes > 2


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Inspection:
    path = tmp_path_factory.mktemp("layers") / "digits.int8.onnx"
    digits = load_digits()
    zp.quantize(digits.model, data=digits.calibration[:8], target="onnxruntime", effort="fast", evaluate=False).save(path)
    return zp.inspect(path)


def test_work_that_is_not_known_is_absent() -> None:
    found = zp.inspect(network([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": np.ones((1, 1, 3, 3), np.float32)}, [1, 1, "h", "w"]))
    [layer] = found.layers
    assert (layer.macs, layer.mac_share, layer.activation_bytes, layer.bytes_moved, found.activation_bytes) == (None,) * 5
    assert (layer.weight_bytes, found.weight_bytes) == (36, 36)


def test_report_of_what_cannot_be_inspected_is_not_written(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    with pytest.raises(RecipeError):
        zp.inspect(load_digits().model, target="abacus", report=tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []
