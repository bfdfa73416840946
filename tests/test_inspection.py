"""What `inspect` tells, against numbers counted by hand and by slow loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import zeropoint as zp
from zeropoint.demo import load_digits
from zeropoint.errors import RecipeError
from zeropoint.inspection import Inspection, TensorInfo
from zeropoint.targets import TARGETS

Attributes = dict[str, Any]


def one_operator(op_type: str, data: Sequence[Any], weights: Sequence[Sequence[int]], **attributes: Any) -> onnx.ModelProto:
    constants = [numpy_helper.from_array(np.ones(shape, np.float32), f"w{i}") for i, shape in enumerate(weights)]
    node = helper.make_node(op_type, ["x", *(constant.name for constant in constants)], ["y"], "<b>the/node</b>", **attributes)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, data)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "g", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="test")


@pytest.fixture(scope="module")
def digits() -> Inspection:
    return zp.inspect(load_digits().model)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inspect") / "digits.int8.onnx"
    digits = load_digits()
    zp.quantize(digits.model, data=digits.calibration[:8], target="onnxruntime", evaluate=False).save(path)
    return path


@pytest.mark.parametrize(
    ("data", "op_type", "weights", "attributes", "macs"),
    [
        pytest.param([1, 3, 8, 8], "Conv", [[16, 3, 3, 3], [16]], {}, 6 * 6 * 16 * 3 * 9, id="conv"),
        pytest.param([2, 8, 9, 9], "Conv", [[8, 1, 3, 3]], {"group": 8, "strides": [2, 2]}, 2 * 4 * 4 * 8 * 9, id="depthwise"),
        pytest.param([1, 4, 10], "Conv", [[6, 2, 3]], {"group": 2, "pads": [1, 1]}, 10 * 6 * 2 * 3, id="grouped-1d"),
        pytest.param([1, 4, 5, 5], "ConvTranspose", [[4, 3, 2, 2]], {"strides": [2, 2]}, 5 * 5 * 4 * 3 * 4, id="transposed"),
        pytest.param([5, 7], "Gemm", [[7, 11], [11]], {}, 5 * 7 * 11, id="gemm"),
        pytest.param([7, 5], "Gemm", [[11, 7]], {"transA": 1, "transB": 1}, 5 * 7 * 11, id="gemm-transposed"),
        pytest.param([2, 3, 4, 6], "MatMul", [[6, 5]], {}, 2 * 3 * 4 * 6 * 5, id="matmul"),
        pytest.param(["batch", 6], "MatMul", [[6, 5]], {}, 6 * 5, id="dynamic-axis-is-1"),
    ],
)
def test_multiply_accumulates(
    data: Sequence[Any], op_type: str, weights: Sequence[Sequence[int]], attributes: Attributes, macs: int
) -> None:
    found = zp.inspect(one_operator(op_type, data, weights, **attributes))
    assert (found.macs, found.layers[0].macs) == (macs, macs)


def test_float_network(digits: Inspection) -> None:
    arrays = [numpy_helper.to_array(tensor) for tensor in onnx.load(load_digits().model).graph.initializer]
    assert digits.inputs == (TensorInfo("image", "float32", ("batch", 1, 28, 28)),)
    assert digits.outputs == (TensorInfo("logits", "float32", ("batch", 10)),)
    assert (digits.opset, digits.ir_version, digits.producer, digits.quantized) == (17, 8, "train_digits", False)
    assert digits.operators["Conv"] == digits.operators["BatchNormalization"] == 6
    assert digits.parameters == sum(array.size for array in arrays)
    assert digits.bytes_by_dtype == {"float32": sum(array.nbytes for array in arrays)}
    first, *_, last = digits.layers
    assert (first.node, first.operator, first.input_dtype, first.output_dtype) == ("stem.conv", "Conv", "float32", "float32")
    assert (first.weight, first.bias) == (TensorInfo("stem.conv.weight", "float32", (48, 1, 5, 5)), None)
    assert last.bias == TensorInfo("head.bias", "float32", (10,))
    assert digits.macs == sum(layer.macs or 0 for layer in digits.layers)
    assert digits.target is None and digits.notes == ()


def test_quantized_network_shows_the_types_of_its_codes(digits: Inspection, quantized: Path) -> None:
    found = zp.inspect(quantized)
    convolution = found.layers[2]  # its output goes straight into codes, for the residual Add
    dtypes = [info.dtype if info is not None else None for info in (convolution.weight, convolution.bias)]
    assert (convolution.input_dtype, dtypes, convolution.output_dtype) == ("uint8", ["int8", "int32"], "uint8")
    assert found.quantized
    assert found.macs == digits.macs
    assert digits.parameters - found.parameters == 3 * (3 * 48 + 3 * 64)  # a BatchNormalization's four vectors became one bias
    assert set(found.bytes_by_dtype) == {"int8", "int32", "uint8", "float32"}


@pytest.mark.parametrize("target", TARGETS)
def test_target_view_agrees_with_what_quantize_does(target: str) -> None:
    digits = load_digits()
    view = zp.inspect(digits.model, target=target).target
    result = zp.quantize(digits.model, data=digits.calibration[:8], target=target, evaluate=False)
    assert view is not None
    assert (view.target, view.coverage) == (target, result.evidence.coverage)
    readers = {reader.node for entry in result.plan.entries for reader in entry.readers}
    assert set(view.quantized) == readers
    assert set(view.notes) <= set(result.notes)


def test_quantized_network_has_no_target_view_but_a_note(quantized: Path) -> None:
    found = zp.inspect(quantized, target="tensorrt")
    assert found.target is None
    assert [note.where for note in found.notes] == ["tensorrt"]
    assert "already quantized" in found.notes[0].reason


def test_shapes_of_dynamic_axes_count() -> None:
    model = one_operator("MatMul", ["batch", 6], [[6, 5]])
    found = zp.inspect(model, shapes={"x": [7, 6]})
    assert found.macs == 7 * 6 * 5
    assert found.input_shapes == {"x": (7, 6)}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        pytest.param({"y": [1, 6]}, "found the name 'y', expected an input of the network: 'x'", id="unknown-name"),
        pytest.param({"x": [6]}, r"shape of 'x': found \(6,\), expected one that fits \(None, 6\)", id="rank"),
        pytest.param({"x": [1, 5]}, r"shape of 'x': found \(1, 5\), expected one that fits", id="fixed-axis"),
    ],
)
def test_misfit_of_a_shape_is_an_error(shapes: dict[str, list[int]], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        zp.inspect(one_operator("MatMul", ["batch", 6], [[6, 5]]), shapes=shapes)


def test_network_that_does_not_run_on_zeros_is_shown_without_its_work() -> None:
    model = one_operator("Conv", [1, 16, "h", "w"], [[16, 16, 3, 3]])  # a 3 x 3 kernel has no place on 1 x 1
    found = zp.inspect(model, target="tensorrt")
    assert (found.macs, found.layers[0].macs, found.target) == (None, None, None)
    assert [note.where for note in found.notes] == ["shapes", "tensorrt"]
    assert zp.inspect(model, target="tensorrt", shapes={"x": [1, 16, 8, 8]}).macs == 6 * 6 * 16 * 16 * 9


def beside(*nodes: onnx.NodeProto, weights: Sequence[Sequence[int]] = ()) -> onnx.ModelProto:
    """A product of 4 x 6 by 6 x 5, and the `nodes` beside it."""
    model = one_operator("MatMul", [4, 6], [[6, 5]])
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(np.ones(shape, np.float32), f"k{i}") for i, shape in enumerate(weights))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def branch(name: str) -> onnx.GraphProto:
    output = helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 5])
    return helper.make_graph([helper.make_node("MatMul", ["x", "w0"], [name])], name, [], [output])


def recurrent(op_type: str, gates: int) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axis"], ["x3"]),
        helper.make_node(op_type, ["x3", "k0", "k1"], ["r"], hidden_size=2),
    ]
    model = beside(*nodes, weights=[[1, gates * 2, 6], [1, gates * 2, 2]])
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axis"))
    return model


def branches() -> onnx.ModelProto:
    model = beside(helper.make_node("If", ["c"], ["i"], then_branch=branch("a"), else_branch=branch("b")))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
    return model


@pytest.mark.parametrize(
    ("model", "uncounted"),
    [
        pytest.param(recurrent("LSTM", 4), {"LSTM": 1}, id="lstm"),
        pytest.param(recurrent("GRU", 3), {"GRU": 1}, id="gru"),
        pytest.param(recurrent("RNN", 1), {"RNN": 1}, id="rnn"),
        pytest.param(beside(helper.make_node("Einsum", ["x", "w0"], ["e"], equation="ij,jk->ik")), {"Einsum": 1}, id="einsum"),
        pytest.param(
            beside(*(helper.make_node("FusedMatMul", ["x", "w0"], [name], domain="com.microsoft") for name in "fg")),
            {"com.microsoft::FusedMatMul": 2},
            id="another-domain",
        ),
        pytest.param(branches(), {"MatMul": 2}, id="bodies"),
        pytest.param(beside(helper.make_node("Relu", ["y"], ["r"])), {}, id="all-is-counted"),
    ],
)
def test_work_that_is_not_counted_is_noted(model: onnx.ModelProto, uncounted: dict[str, int]) -> None:
    found = zp.inspect(model)
    assert (found.macs, found.uncounted) == (4 * 6 * 5, uncounted)
    told = [f"{count} {name}: the multiply-accumulates of these are not counted" for name, count in uncounted.items()]
    assert [str(note) for note in found.notes] == told


def test_codes_of_another_domain_are_no_work() -> None:
    model = beside(
        helper.make_node("QuantizeLinear", ["y", "k0", "z"], ["q"], domain="com.microsoft"),
        helper.make_node("DequantizeLinear", ["q", "k0", "z"], ["d"], domain="com.microsoft"),
        weights=[[]],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(3, np.uint16), "z"))
    assert (zp.inspect(model).uncounted, zp.inspect(model).notes) == ({}, ())


def constant_node(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer.pop()
    model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))


def doubled(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("MatMul", ["x", "w0"], ["z"], "second"))


@pytest.mark.parametrize(
    ("change", "layers"), [pytest.param(constant_node, 1, id="constant-node"), pytest.param(doubled, 2, id="shared-weight")]
)
def test_weight_counts_once_wherever_it_stands(change: Callable[[onnx.ModelProto], None], layers: int) -> None:
    model = one_operator("MatMul", [4, 6], [[6, 5]])
    change(model)
    found = zp.inspect(model)
    assert (found.parameters, found.bytes_by_dtype, len(found.layers)) == (30, {"float32": 120}, layers)
    assert all(layer.weight == TensorInfo("w0", "float32", (6, 5)) for layer in found.layers)


def test_names_stay_as_they_are() -> None:
    assert zp.inspect(one_operator("MatMul", [4, 6], [[6, 5]])).layers[0].node == "<b>the/node</b>"


def test_model_is_not_changed() -> None:
    model = load_digits().model.read_bytes()
    proto = onnx.ModelProto.FromString(model)
    before = proto.SerializeToString(deterministic=True)
    zp.inspect(proto, target="tensorrt")
    assert proto.SerializeToString(deterministic=True) == before
