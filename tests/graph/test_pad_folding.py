from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.parser import parse_model

from zeropoint.graph.load import load
from zeropoint.graph.pad_folding import fold_pads
from zeropoint.graph.store import serialize

Array = np.ndarray[Any, Any]
ROUNDINGS = 8  # in ULPs of the largest output: sums of 27 products, whose order the padding may change
X = np.random.default_rng(0).normal(size=(1, 3, 6, 7)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(2, 3, 3, 3)).astype(np.float32)
ONE_AROUND = "int64[8] p = {0, 0, 1, 1, 0, 0, 1, 1}"


def network(
    nodes: str, constants: str = ONE_AROUND, *, outputs: str = "float[N, C, H, W] y", inputs: str = "", opset: int = 17
) -> onnx.ModelProto:
    model = parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}, "house" : 1]> '
        f"net (float[1, 3, 6, 7] x{inputs}) => ({outputs}) <{constants}> {{ {nodes} }}"
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(WEIGHTS, "w"))
    return model


def run(model: bytes, feed: dict[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, feed)]


def fold(proto: onnx.ModelProto, feed: dict[str, Array] | None = None) -> list[onnx.NodeProto]:
    """Fold, check that the outputs are those of the network as it was, and return the nodes left."""
    model = load(proto)
    fold_pads(model)
    folded = serialize(model)
    for found, expected in zip(run(folded, feed or {"x": X}), run(proto.SerializeToString(), feed or {"x": X}), strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDINGS * float(np.spacing(np.abs(expected).max())))
    return list(onnx.load_from_string(folded).graph.node)


def pads_of(node: onnx.NodeProto) -> list[int]:
    return next(list(attribute.ints) for attribute in node.attribute if attribute.name == "pads")


FOLDED = {
    "default mode and value": ("a = Pad(x, p) y = Conv(a, w)", ONE_AROUND, [1, 1, 1, 1]),
    "zero value": ("a = Pad(x, p, v) y = Conv(a, w)", f"{ONE_AROUND}, float v = {{0}}", [1, 1, 1, 1]),
    "no value": ('a = Pad<mode = "constant">(x, p, ) y = Conv(a, w)', ONE_AROUND, [1, 1, 1, 1]),
    "each side another amount": ("a = Pad(x, p) y = Conv(a, w)", "int64[8] p = {0, 0, 0, 2, 0, 0, 3, 1}", [0, 2, 3, 1]),
    "nothing at all": ("a = Pad(x, p) y = Conv(a, w)", "int64[8] p = {0, 0, 0, 0, 0, 0, 0, 0}", [0, 0, 0, 0]),
    "added to the convolution's own": ("a = Pad(x, p) y = Conv<pads = [0, 1, 2, 0]>(a, w)", ONE_AROUND, [1, 2, 3, 1]),
    "auto_pad written out": ('a = Pad(x, p) y = Conv<auto_pad = "NOTSET">(a, w)', ONE_AROUND, [1, 1, 1, 1]),
    "strided and dilated": ("a = Pad(x, p) y = Conv<strides = [2, 2], dilations = [2, 2]>(a, w)", ONE_AROUND, [1, 1, 1, 1]),
    "a Pad of a Pad": ("b = Pad(x, p) a = Pad(b, p) y = Conv(a, w)", ONE_AROUND, [2, 2, 2, 2]),
}


@pytest.mark.parametrize(("nodes", "constants", "pads"), FOLDED.values(), ids=FOLDED)
def test_zero_padding_folds(nodes: str, constants: str, pads: list[int]) -> None:
    left = fold(network(nodes, constants))
    assert [node.op_type for node in left] == ["Conv"]
    assert pads_of(left[0]) == pads


def test_folds_into_every_reader() -> None:
    left = fold(network("a = Pad(x, p) y = Conv(a, w) z = Conv<pads = [1, 0, 0, 0]>(a, w)", outputs="float[N,C,H,W] y, float[N,C,H,W] z"))
    assert [(node.op_type, pads_of(node)) for node in left] == [("Conv", [1, 1, 1, 1]), ("Conv", [2, 1, 1, 1])]


@pytest.mark.parametrize(("shape", "weight"), [((1, 3, 6), (2, 3, 3)), ((1, 3, 4, 4, 4), (2, 3, 3, 3, 3))], ids=["1d", "3d"])
def test_folds_along_any_number_of_axes(shape: tuple[int, ...], weight: tuple[int, ...]) -> None:
    spatial = len(shape) - 2
    amounts = [0, 0, *[1] * spatial, 0, 0, *[2] * spatial]
    model = network("a = Pad(x, p) y = Conv(a, w)", f"int64[{len(amounts)}] p = {{{', '.join(map(str, amounts))}}}", outputs="float y")
    model.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape))
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None))
    rng = np.random.default_rng(0)
    model.graph.initializer[-1].CopyFrom(onnx.numpy_helper.from_array(rng.normal(size=weight).astype(np.float32), "w"))
    left = fold(model, {"x": rng.normal(size=shape).astype(np.float32)})
    assert [pads_of(node) for node in left] == [[1] * spatial + [2] * spatial]


def test_folding_twice_is_folding_once() -> None:
    model = load(network("a = Pad(x, p) y = Conv(a, w)"))
    fold_pads(model)
    once = serialize(model)
    fold_pads(model)
    assert serialize(model) == once


BODIES = "then_branch = t () => (float z1) { z1 = ReduceSum<keepdims = 0>(a) }, else_branch = e () => (float z2) { z2 = ReduceMax(a) }"
ONE_CHANNEL = "int64[8] p = {0, 1, 1, 1, 0, 0, 1, 1}, int64[1] first = {0}, int64[1] last = {2}, int64[1] axis = {1}"
STAYS = {
    "another value": ("a = Pad(x, p, v) y = Conv(a, w)", f"{ONE_AROUND}, float v = {{1}}", ""),
    "reflect": ('a = Pad<mode = "reflect">(x, p) y = Conv(a, w)', ONE_AROUND, ""),
    "edge": ('a = Pad<mode = "edge">(x, p) y = Conv(a, w)', ONE_AROUND, ""),
    "cropping": ("a = Pad(x, p) y = Conv(a, w)", "int64[8] p = {0, 0, -1, 0, 0, 0, 1, 0}", ""),
    "channels": ("s = Slice(x, first, last, axis) a = Pad(s, p) y = Conv(a, w)", ONE_CHANNEL, ""),
    "batch": ("a = Pad(x, p) y = Conv(a, w)", "int64[8] p = {0, 0, 1, 1, 1, 0, 1, 1}", ""),
    "auto_pad": ('a = Pad(x, p) y = Conv<auto_pad = "SAME_UPPER">(a, w)', ONE_AROUND, ""),
    "auto_pad that pads nothing": ('a = Pad(x, p) y = Conv<auto_pad = "VALID">(a, w)', ONE_AROUND, ""),
    "pads fed": ("a = Pad(x, p) y = Conv(a, w)", "float unused = {0}", ", int64[8] p"),
    "value fed": ("a = Pad(x, p, v) y = Conv(a, w)", ONE_AROUND, ", float v"),
    "another reader": ("a = Pad(x, p) c = Conv(a, w) d = ReduceSum(a) y = Add(c, d)", ONE_AROUND, ""),
    "transposed": ("b = Conv(x, w) a = Pad(b, q) y = ConvTranspose(a, w)", ONE_AROUND.replace(" p", " q"), ""),
    "a reader in a body": (f"a = Pad(x, p) b = Conv(a, w) c = If(k) <{BODIES}> y = Add(b, c)", f"{ONE_AROUND}, bool k = {{1}}", ""),
}


@pytest.mark.parametrize(("nodes", "constants", "inputs"), STAYS.values(), ids=STAYS)
def test_other_padding_stays(nodes: str, constants: str, inputs: str) -> None:
    feed: dict[str, Array] = {"x": X}
    if " p" in inputs:
        feed["p"] = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    if " v" in inputs:
        feed["v"] = np.array(2, np.float32)
    assert "Pad" in [node.op_type for node in fold(network(nodes, constants, inputs=inputs), feed)]


def test_padding_of_named_axes_stays() -> None:
    constants = "int64[4] p = {1, 1, 1, 1}, float v = {0}, int64[2] axes = {2, 3}"
    model = network("a = Pad(x, p, v, axes) y = Conv(a, w)", constants, opset=18)
    assert [node.op_type for node in fold(model)] == ["Pad", "Conv"]


def test_padding_that_is_an_output_stays() -> None:
    model = network("a = Pad(x, p) y = Conv(a, w)", outputs="float[N, C, H, W] y, float[N, C, H, W] a")
    assert [node.op_type for node in fold(model)] == ["Pad", "Conv"]


def test_padding_as_an_attribute_stays() -> None:
    model = network("a = Pad<pads = [0, 0, 1, 1, 0, 0, 1, 1]>(x) y = Conv(a, w)", opset=10)
    assert [node.op_type for node in fold(model)] == ["Pad", "Conv"]


def test_padding_that_is_also_the_weight_stays() -> None:
    model = network("a = Pad(x, p) y = Conv(a, a)")
    assert [node.op_type for node in fold(model)] == ["Pad", "Conv"]


@pytest.mark.parametrize("nodes", ["a = house.Pad(x, p) y = Conv(a, w)", "a = Pad(x, p) y = house.Conv(a, w)"], ids=["Pad", "Conv"])
def test_operators_of_other_domains_stay(nodes: str) -> None:
    model = load(network(nodes))
    fold_pads(model)
    assert [node.op_type for node in model.graph] == ["Pad", "Conv"]
