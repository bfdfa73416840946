"""Folding is arithmetic in other order: outputs agree to a few float32 roundings of the largest, with ONNX Runtime as the oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from zeropoint.graph.affine_folding import fold_affine
from zeropoint.graph.load import load
from zeropoint.graph.store import serialize

Array = np.ndarray[Any, Any]
Shape = Sequence[int]
ROUNDINGS = 16  # in ULPs of the largest output: one for each multiplication and addition of these small sums
CHANNELS = 6


@dataclass
class Draft:
    """A network in the making, of the input x and any outputs."""

    input_shape: Shape
    opset: int = 17
    dtype: Any = np.float32
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def constant(self, *shape: int, low: float = -1.0, high: float = 1.0) -> str:
        return self.values(self.rng.uniform(low, high, shape))

    def values(self, array: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array, self.dtype)
        return name

    def op(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        stem = f"t{len(self.nodes)}"
        names = [stem, *(f"{stem}_{n}" for n in range(1, outputs))]
        self.nodes.append(helper.make_node(op_type, inputs, names, name=f"{op_type}{len(self.nodes)}", **attributes))
        return stem

    def batch_normalization(self, data: str, channels: int = CHANNELS, **attributes: Any) -> str:
        parameters = [self.constant(channels) for _ in range(3)]
        return self.op("BatchNormalization", data, *parameters, self.constant(channels, low=0.3, high=2.0), **attributes)

    def finish(self, *outputs: str) -> onnx.ModelProto:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", kind, self.input_shape)],
            [helper.make_tensor_value_info(name, kind, None) for name in outputs],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)

    def feed(self) -> dict[str, Array]:
        return {"x": self.rng.normal(size=self.input_shape).astype(self.dtype)}


def run(model: bytes, feed: dict[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, feed)]


def fold(net: Draft, *outputs: str) -> tuple[ir.Model, list[str]]:
    """Fold, check the outputs against those of the network as it was, and return the network and the notes."""
    proto = net.finish(*outputs)
    model = load(proto)
    notes = [str(note) for note in fold_affine(model)]
    folded, feed = serialize(model), net.feed()
    assert [output.name for output in onnx.load_from_string(folded).graph.output] == list(outputs)
    for found, expected in zip(run(folded, feed), run(proto.SerializeToString(), feed), strict=True):
        largest = np.abs(expected[np.isfinite(expected)]).max(initial=0)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDINGS * float(np.spacing(largest)))
    return model, notes


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


# --- what BatchNormalization and its like fold into -------------------------------------------------------------------------

Build = Callable[[Draft, bool], str]


def conv(*kernel: int, group: int = 1, **attributes: Any) -> Build:
    def build(net: Draft, has_bias: bool) -> str:
        net.input_shape = (2, CHANNELS, *(6 for _ in kernel))
        weight = net.constant(CHANNELS, CHANNELS // group, *kernel)
        return net.op("Conv", "x", weight, *([net.constant(CHANNELS)] if has_bias else []), group=group, **attributes)

    return build


def conv_transpose(*kernel: int, group: int = 1, **attributes: Any) -> Build:
    def build(net: Draft, has_bias: bool) -> str:
        net.input_shape = (2, 4, *(5 for _ in kernel))
        weight = net.constant(4, CHANNELS // group, *kernel)
        return net.op("ConvTranspose", "x", weight, *([net.constant(CHANNELS)] if has_bias else []), group=group, **attributes)

    return build


def gemm(bias_shape: Shape = (CHANNELS,), **attributes: Any) -> Build:
    def build(net: Draft, has_bias: bool) -> str:
        net.input_shape = (4, 3) if attributes.get("transA") else (3, 4)
        weight = net.constant(CHANNELS, 4) if attributes.get("transB") else net.constant(4, CHANNELS)
        return net.op("Gemm", "x", weight, *([net.constant(*bias_shape)] if has_bias else []), **attributes)

    return build


PRODUCERS = {
    "conv1d": conv(3),
    "conv2d": conv(3, 3, pads=[1, 1, 1, 1], strides=[2, 1]),
    "conv3d": conv(2, 2, 2),
    "grouped": conv(3, 3, group=2),
    "depthwise": conv(3, 3, group=CHANNELS),
    "transposed1d": conv_transpose(3),
    "transposed2d": conv_transpose(3, 3, strides=[2, 2], output_padding=[1, 1]),
    "transposed3d": conv_transpose(2, 2, 2),
    "transposed-grouped": conv_transpose(3, 3, group=2),
    "gemm": gemm(),
    "gemm-transB": gemm(transB=1),
    "gemm-transA": gemm(transA=1),
    "gemm-alpha-beta": gemm(alpha=0.5, beta=-1.5),
    "gemm-all": gemm(alpha=2.0, beta=0.25, transA=1, transB=1),
    "gemm-scalar-bias": gemm((), beta=0.5),
    "gemm-one-bias": gemm((1,)),
    "gemm-row-bias": gemm((1, CHANNELS)),
}
every_producer = pytest.mark.parametrize("build", PRODUCERS.values(), ids=PRODUCERS)
with_and_without_bias = pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "no bias"])


@every_producer
@with_and_without_bias
def test_batch_normalization_folds(build: Build, has_bias: bool) -> None:
    net = Draft(())
    model, notes = fold(net, net.batch_normalization(build(net, has_bias), epsilon=0.01))
    assert len(operators(model)) == 1
    assert notes == []


def channel_constant(net: Draft, data: str) -> str:
    """A constant that varies along the channels of `data`, which the last node makes."""
    spatial = 0 if net.nodes[-1].op_type == "Gemm" else len(net.input_shape) - 2
    return net.constant(CHANNELS, *[1] * spatial, low=0.5, high=2.0)


@every_producer
@with_and_without_bias
@pytest.mark.parametrize("op_type", ["Mul", "Add", "Sub", "Div"])
def test_per_channel_constants_fold(build: Build, has_bias: bool, op_type: str) -> None:
    net = Draft(())
    data = build(net, has_bias)
    model, _ = fold(net, net.op(op_type, data, channel_constant(net, data)))
    assert len(operators(model)) == 1


@pytest.mark.parametrize(("op_type", "folds"), [("Mul", True), ("Add", True), ("Sub", False), ("Div", False)])
def test_a_constant_on_the_left_folds_where_order_does_not_matter(op_type: str, folds: bool) -> None:
    net = Draft(())
    data = conv(3, 3)(net, True)
    model, _ = fold(net, net.op(op_type, channel_constant(net, data), data))
    assert (operators(model) == ["Conv"]) == folds


@pytest.mark.parametrize("op_type", ["Mul", "Add", "Sub", "Div"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1), (1, 1, 1, 1), (1, CHANNELS, 1, 1)], ids=str)
def test_constants_of_these_shapes_fold(op_type: str, shape: Shape) -> None:
    net = Draft(())
    model, _ = fold(net, net.op(op_type, conv(3, 3)(net, False), net.constant(*shape, low=0.5)))
    assert operators(model) == ["Conv"]


@pytest.mark.parametrize("op_type", ["Mul", "Add", "Sub", "Div"])
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((CHANNELS,), id="along the last axis"),
        pytest.param((CHANNELS, 1), id="along the one before"),
        pytest.param((CHANNELS, 1, 1, 1), id="along the batch"),
        pytest.param((CHANNELS, 1, CHANNELS), id="along channels and width"),
        pytest.param((1, 1, CHANNELS, 1, 1), id="of a rank above"),
        pytest.param((1, 1, 1, 1, 1), id="of one element, of a rank above"),
    ],
)
def test_constants_along_other_axes_stay(op_type: str, shape: Shape) -> None:
    net = Draft(())
    data = net.op("Conv", "x", net.constant(CHANNELS, 2, 1, 1))
    net.input_shape = (CHANNELS, 2, CHANNELS, CHANNELS)
    model, _ = fold(net, net.op(op_type, data, net.constant(*shape, low=0.5)))
    assert operators(model) == ["Conv", op_type]


def test_one_channel_broadcast_to_many_stays() -> None:
    net = Draft((1, 2, 3, 3))
    data = net.op("Conv", "x", net.constant(1, 2, 1, 1))
    model, _ = fold(net, net.op("Mul", data, net.constant(CHANNELS, 1, 1)))
    assert operators(model) == ["Conv", "Mul"]


@pytest.mark.parametrize("shape", [(4, 1), (4, 4)], ids=["column", "matrix"])
@pytest.mark.parametrize("op_type", ["Mul", "BatchNormalization"])
def test_a_gemm_whose_bias_differs_from_row_to_row_stays(shape: Shape, op_type: str) -> None:
    net = Draft((4, 3))
    data = net.op("Gemm", "x", net.constant(3, 4), net.constant(*shape))
    result = net.batch_normalization(data, 4) if op_type == "BatchNormalization" else net.op("Mul", data, net.constant(4))
    model, notes = fold(net, result)
    assert operators(model) == ["Gemm", op_type]
    assert bool(notes) == (op_type == "BatchNormalization")


def test_a_bias_that_is_left_out_by_an_empty_name_is_none() -> None:
    net = Draft((2, CHANNELS, 4, 4))
    model, _ = fold(net, net.batch_normalization(net.op("Conv", "x", net.constant(CHANNELS, CHANNELS, 1, 1), "")))
    assert operators(model) == ["Conv"]


def test_a_chain_folds_whole() -> None:
    net = Draft(())
    data = conv(3, 3)(net, False)
    for op_type in ("Mul", "Add", "Div", "Sub"):
        data = net.op(op_type, data, net.constant(CHANNELS, 1, 1, low=0.5))
    model, _ = fold(net, net.batch_normalization(net.batch_normalization(data)))
    assert operators(model) == ["Conv"]


@pytest.mark.parametrize("dtype", [np.float64, np.float16], ids=["float64", "float16"])
def test_other_floats_keep_their_dtype(dtype: Any) -> None:
    net = Draft(())
    net.dtype = dtype
    model, _ = fold(net, net.op("Mul", gemm()(net, True), net.constant(CHANNELS)))
    assert operators(model) == ["Gemm"]
    assert {v.const_value.dtype.numpy() for v in model.graph.initializers.values() if v.uses() and v.const_value} == {np.dtype(dtype)}


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
def test_batch_normalization_of_any_opset_folds(opset: int) -> None:
    net = Draft((), opset=opset)
    model, notes = fold(net, net.batch_normalization(conv(3, 3)(net, True)))
    assert (operators(model), notes) == (["Conv"], [])


# --- what stays, and why --------------------------------------------------------------------------------------------------


def other_reader(net: Draft) -> list[str]:
    data = conv(3, 3)(net, True)
    return [net.batch_normalization(data), net.op("Relu", data)]


def output_of_the_network(net: Draft) -> list[str]:
    data = conv(3, 3)(net, True)
    return [net.batch_normalization(data), data]


def after_something_else(net: Draft) -> list[str]:
    return [net.batch_normalization(net.op("Relu", conv(3, 3)(net, True)))]


def first(net: Draft) -> list[str]:
    net.input_shape = (1, CHANNELS, 4, 4)
    return [net.batch_normalization("x")]


def training(net: Draft) -> list[str]:
    return [net.batch_normalization(conv(3, 3)(net, True), training_mode=1, outputs=3)]


def training_statistics_are_outputs(net: Draft) -> list[str]:
    result = net.batch_normalization(conv(3, 3)(net, True), training_mode=1, outputs=3)
    return [result, f"{result}_1", f"{result}_2"]


def computed_weight(net: Draft) -> list[str]:
    net.input_shape = (CHANNELS, CHANNELS, 1, 1)
    return [net.batch_normalization(net.op("Conv", "x", net.op("Relu", "x")))]


def computed_bias(net: Draft) -> list[str]:
    net.input_shape = (CHANNELS, CHANNELS, 1, 1)
    bias = net.op("ReduceMean", "x", axes=[1, 2, 3], keepdims=0)
    return [net.batch_normalization(net.op("Conv", "x", net.constant(CHANNELS, CHANNELS, 1, 1), bias))]


def computed_parameters(net: Draft) -> list[str]:
    data = conv(1, 1)(net, True)
    mean = net.op("ReduceMean", "x", axes=[0, 2, 3], keepdims=0)
    return [net.op("BatchNormalization", data, mean, mean, mean, net.constant(CHANNELS, low=0.3))]


def infinite(net: Draft) -> list[str]:
    data = conv(1, 1)(net, True)
    huge = net.values(np.full(CHANNELS, 3e38))
    return [net.op("BatchNormalization", data, huge, huge, huge, net.values(np.zeros(CHANNELS)))]


STAYS: dict[Callable[[Draft], list[str]], str] = {
    other_reader: "the output of 'Conv0' has other readers",
    output_of_the_network: "the output of 'Conv0' has other readers",
    after_something_else: "it does not follow a Conv, ConvTranspose or Gemm",
    first: "it does not follow a Conv, ConvTranspose or Gemm",
    training: "it is in training mode, or its parameters are not constant",
    training_statistics_are_outputs: "it is in training mode, or its parameters are not constant",
    computed_parameters: "it is in training mode, or its parameters are not constant",
    computed_weight: "the weights of 'Conv1' are not constant",
    computed_bias: "the weights of 'Conv1' are not constant",
}


@pytest.mark.parametrize(("build", "reason"), STAYS.items(), ids=[build.__name__ for build in STAYS])
def test_batch_normalization_stays_with_a_note(build: Callable[[Draft], list[str]], reason: str) -> None:
    net = Draft(())
    outputs = build(net)
    name = next(node.name for node in net.nodes if node.op_type == "BatchNormalization")
    before = [node.op_type for node in net.nodes]
    model, notes = fold(net, *outputs)
    assert operators(model) == before
    assert notes == [f"{name}: BatchNormalization stays: {reason}"]


def test_what_would_overflow_stays() -> None:
    net = Draft(())
    outputs = infinite(net)
    model = load(net.finish(*outputs))
    assert [note.reason for note in fold_affine(model)] == [
        "BatchNormalization stays: folded into 'Conv0' it would make numbers beyond float32"
    ]
    assert operators(model) == ["Conv", "BatchNormalization"]


@pytest.mark.parametrize("divisor", [0.0, 1e-45], ids=["zero", "too small to be inverted"])
def test_division_stays_where_the_inverse_is_infinite(divisor: float) -> None:
    net = Draft(())
    data = gemm()(net, True)
    model = load(net.finish(net.op("Div", data, net.values([1, 2, divisor, 3, 4, 5]))))
    fold_affine(model)
    assert operators(model) == ["Gemm", "Div"]


def test_operators_of_other_domains_stay() -> None:
    net = Draft(())
    data = net.op("Mul", conv(3, 3)(net, True), net.constant(), domain="house")
    proto = net.finish(net.batch_normalization(net.op("Conv", data, net.constant(CHANNELS, CHANNELS, 1, 1), domain="house")))
    proto.opset_import.add(domain="house", version=1)
    model = load(proto)
    fold_affine(model)
    assert operators(model) == ["Conv", "Mul", "Conv", "BatchNormalization"]


# --- what is shared -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", ["weight", "bias", "both"])
def test_what_two_convolutions_share_changes_for_the_one_alone(shared: str) -> None:
    net = Draft((2, CHANNELS, 4, 4))
    weights = [net.constant(CHANNELS, CHANNELS, 1, 1)] * 2 if shared != "bias" else [net.constant(CHANNELS, CHANNELS, 1, 1) for _ in "ab"]
    biases = [net.constant(CHANNELS)] * 2 if shared != "weight" else [net.constant(CHANNELS) for _ in "ab"]
    folded, other = [net.op("Conv", "x", weight, bias) for weight, bias in zip(weights, biases, strict=True)]
    model, _ = fold(net, net.batch_normalization(folded), net.op("Relu", other))
    assert operators(model) == ["Conv", "Conv", "Relu"]


def test_both_of_two_convolutions_that_share_fold_each_its_own() -> None:
    net = Draft((2, CHANNELS, 4, 4))
    weight, bias = net.constant(CHANNELS, CHANNELS, 1, 1), net.constant(CHANNELS)
    results = [net.batch_normalization(net.op("Conv", "x", weight, bias)) for _ in "ab"]
    model, _ = fold(net, *results)
    assert operators(model) == ["Conv", "Conv"]


def test_a_weight_read_by_another_operator_keeps_its_values() -> None:
    net = Draft((2, CHANNELS, 4, 4))
    weight = net.constant(CHANNELS, CHANNELS, 1, 1)
    model, _ = fold(net, net.batch_normalization(net.op("Conv", "x", weight)), net.op("Neg", weight))
    assert operators(model) == ["Conv", "Neg"]


def test_an_output_keeps_its_type_and_dynamic_axes() -> None:
    net = Draft(())
    proto = net.finish(net.batch_normalization(conv(3, 3)(net, True)))
    wanted = helper.make_tensor_value_info("t1", TensorProto.FLOAT, ["batch", CHANNELS, "h", None])
    proto.graph.output[0].CopyFrom(wanted)
    model = load(proto)
    fold_affine(model)
    assert onnx.load_from_string(serialize(model)).graph.output[0].type == wanted.type
