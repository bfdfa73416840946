from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from tests.graph.networks import network, place

from zeropoint.graph.eligibility import why_not
from zeropoint.graph.sites import Placement
from zeropoint.targets import TARGETS, Role
from zeropoint.targets.tensorrt import TENSORRT

NAN = np.full((16, 16), np.nan, np.float32)
NAN_BIAS = np.full(16, np.nan, np.float32)
LAST_INF = np.append(np.zeros(255, np.float32), np.float32(np.inf)).reshape(16, 16)
TARGET = replace(TENSORRT, name="here", min_channels=1)


def matmul(dtype: str, weight: object) -> onnx.ModelProto:
    return network("y = MatMul(x, w)", inputs=f"{dtype}[4,16] x", outputs=f"{dtype} y", weights={"w": weight})


def of(dtype: type) -> np.ndarray:
    return np.ones((16, 16), dtype)


def placed(model: onnx.ModelProto, target: str) -> Placement:
    return place(model, target)[2]


def quantized(placement: Placement) -> set[str]:
    return {reader.node for site in placement.activations for reader in site.readers}


BAD_NODES = [
    pytest.param(matmul("float16", of(np.float16)), "it computes in float16, expected float32", id="float16"),
    pytest.param(matmul("double", of(np.float64)), "it computes in float64, expected float32", id="float64"),
    pytest.param(matmul("int32", of(np.int32)), "it computes in int32, expected float32", id="int32"),
    pytest.param(
        network("w = Transpose <perm=[1,0,2,3]> (x) y = Conv(x, w)", inputs="float[16,16,1,1] x"),
        "its weight is computed, not constant",
        id="Conv with a computed weight",
    ),
    pytest.param(
        network("y = ConvTranspose(x, w)", inputs="float[1,16,8,8] x, float[16,16,1,1] w"),
        "its weight is computed, not constant",
        id="ConvTranspose with a weight that is fed",
    ),
    pytest.param(
        network("y = Gemm(x, x)", inputs="float[16,16] x"), "its weight is computed, not constant", id="Gemm with a computed weight"
    ),
    pytest.param(
        network("y = Gemm(w, x)", inputs="float[16,16] x", weights={"w": (16, 16)}),
        "its weight is computed, not constant",
        id="Gemm with constant data",
    ),
    pytest.param(matmul("float", NAN), "its constant 'w' holds NaN or Inf", id="NaN in a weight"),
    pytest.param(matmul("float", LAST_INF), "its constant 'w' holds NaN or Inf", id="Inf in a weight"),
    pytest.param(
        network("y = MatMul(w, x)", inputs="float[16,16] x", weights={"w": NAN}),
        "its constant 'w' holds NaN or Inf",
        id="NaN in a weight on the left",
    ),
    pytest.param(network("y = Conv(x, w, b)", weights={"b": NAN_BIAS}), "its constant 'b' holds NaN or Inf", id="NaN in a bias"),
    pytest.param(network("y = MatMul(v, w)", weights={"v": (4, 16), "w": (16, 20)}), "both operands are constant", id="constants alone"),
]


@pytest.mark.parametrize(("model", "reason"), BAD_NODES)
@pytest.mark.parametrize("target", TARGETS)
def test_what_cannot_be_quantized_has_its_reason(model: onnx.ModelProto, reason: str, target: str) -> None:
    op_type = model.graph.node[-1].op_type
    held_back = TARGETS[target].operators.get(op_type) is Role.HELD_BACK
    placement = place(model, target, include=["y"] if held_back else [])[2]
    assert (placement.activations, placement.weights) == ((), ())
    quantizable = op_type in TARGETS[target].operators
    assert [str(note) for note in placement.notes] == ([f"y: {op_type} stays in float: {reason}"] if quantizable else [])


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(network("y = MatMul(x, z)", inputs="float[16,16] x, float[16,16] z"), id="MatMul of two activations"),
        pytest.param(network("y = MatMul(x, x)", inputs="float[16,16] x"), id="MatMul of one by itself"),
    ],
)
@pytest.mark.parametrize("target", TARGETS)
def test_what_can_be_quantized_is(model: onnx.ModelProto, target: str) -> None:
    placement = placed(model, target)
    assert quantized(placement) == {"y"}
    assert placement.notes == ()


BY_TARGET = pytest.mark.parametrize(
    ("target", "expected"), [("tensorrt", {"a"}), ("openvino", {"a"}), ("onnxruntime", set()), ("onnxruntime-arm", set())]
)


@BY_TARGET
def test_a_matmul_by_a_constant_on_the_left_stays_in_float_where_no_kernel_takes_it(target: str, expected: set[str]) -> None:
    model = network("a = MatMul(w, x) y = Softmax(a)", inputs="float[16,16] x", weights={"w": (16, 16)})
    placement = placed(model, target)
    assert quantized(placement) == expected
    told = [f"a: MatMul stays in float: its constant stands on the left, for which {target} has no integer kernel"]
    assert [str(note) for note in placement.notes] == ([] if expected else told)


@BY_TARGET
@pytest.mark.parametrize(("op_type", "shape"), [("Conv", "1,16,8,8"), ("Gemm", "4,16")])
def test_a_computed_bias_keeps_only_kernels_with_integer_biases_in_float(op_type: str, shape: str, target: str, expected: set[str]) -> None:
    weights = {"w": (16, 16, 1, 1) if op_type == "Conv" else (16, 16)}
    placement = placed(network(f"a = {op_type}(x, w, b) y = Softmax(a)", inputs=f"float[{shape}] x, float[16] b", weights=weights), target)
    assert quantized(placement) == expected
    assert ["its bias is computed" in note.reason for note in placement.notes] == ([] if expected else [True])


@pytest.mark.parametrize(
    ("body", "inputs", "weight", "channels"),
    [
        pytest.param("y = Conv(x, w)", "float[1,3,8,8] x", (16, 3, 3, 3), (3, 16), id="stem of three channels"),
        pytest.param("y = Conv(x, w)", "float[1,16,8,8] x", (8, 16, 1, 1), (16, 8), id="few outputs"),
        pytest.param("y = Conv <group=2> (x, w)", "float[1,14,8,8] x", (16, 7, 1, 1), (14, 16), id="grouped"),
        pytest.param("y = Conv <group=8> (x, w)", "float[1,8,8,8] x", (8, 1, 3, 3), (8, 8), id="depthwise"),
        pytest.param("y = ConvTranspose(x, w)", "float[1,16,8,8] x", (16, 15, 1, 1), (16, 15), id="ConvTranspose"),
        pytest.param("y = ConvTranspose <group=2> (x, w)", "float[1,16,8,8] x", (16, 7, 1, 1), (16, 14), id="ConvTranspose, grouped"),
        pytest.param("y = Gemm(x, w)", "float[4,15] x", (15, 20), (15, 20), id="Gemm"),
        pytest.param("y = Gemm <transB=1> (x, w)", "float[4,15] x", (20, 15), (15, 20), id="Gemm, transB"),
        pytest.param("y = MatMul(x, w)", "float[32,16] x", (16, 2), (16, 2), id="MatMul"),
        pytest.param("y = MatMul(x, w)", "float[2,4,16] x", (16,), (16, 8), id="MatMul by a vector"),
        pytest.param("y = MatMul(w, x)", "float[16,8] x", (20, 16), (16, 8), id="MatMul by a constant on the left"),
    ],
)
def test_too_few_channels_are_held_back(body: str, inputs: str, weight: tuple[int, ...], channels: tuple[int, int]) -> None:
    model, facts, _ = place(network(body, inputs=inputs, weights={"w": weight}), TARGET)
    [node] = model.graph
    smaller = min(channels)
    told = f"{channels[0]} input and {channels[1]} output channels; below {smaller + 1} here has no integer kernel that pays"
    assert why_not(node, facts, replace(TARGET, min_channels=smaller + 1)) == told
    assert why_not(node, facts, replace(TARGET, min_channels=smaller)) == ""


def test_only_tensorrt_holds_a_stem_back() -> None:
    stem = network("a = Conv(x, w1) r = Relu(a) c = Conv(r, w2) y = Softmax(c)", inputs="float[1,3,8,8] x", weights={"w1": (16, 3, 1, 1)})
    held_back = {target: sorted({"a", "c"} - quantized(placed(stem, target))) for target in TARGETS}
    assert held_back == {"tensorrt": ["a"], "onnxruntime": [], "onnxruntime-arm": [], "openvino": []}


def test_a_tensor_that_was_not_computed_is_no_operand() -> None:
    model, facts, _ = place(network("y = Conv(x, w)"), TARGET)
    [node] = model.graph
    without = {name: fact for name, fact in facts.items() if name != "x"}
    assert why_not(node, without, TARGET) == "'x' was not computed when the network ran"
    assert why_not(node, facts, TARGET) == ""
