"""Two small float networks of what most networks spend their time on, to time a runtime's kernels on: convolutions, and products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[np.float32]
OPSET, IR_VERSION = 17, 8
CHANNELS, WIDER, SIDE = 64, 128, 28
TOKENS, FEATURES, HIDDEN = 32, 256, 1024


@dataclass(frozen=True, slots=True, eq=False)
class TrialNetwork:
    """A float network, and two samples to calibrate it on; the first one is what it is timed on."""

    name: str
    model: bytes
    samples: Array

    @property
    def feed(self) -> Mapping[str, Array]:
        """What it is timed on."""
        return {"x": self.samples[:1]}


@dataclass(frozen=True, slots=True, eq=False)
class _Weights:
    """What the layers of one network draw their weights from, and where they leave them."""

    numbers: np.random.Generator
    kept: list[onnx.TensorProto]

    def add(self, name: str, shape: Sequence[int], fan_in: int) -> str:
        """Keep a weight under `name`, which is returned, whose products keep the scale of what they multiply."""
        values = self.numbers.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(fan_in))
        self.kept.append(numpy_helper.from_array(values, name))
        return name


def trial_networks() -> tuple[TrialNetwork, ...]:
    """Return a residual block with a depthwise convolution behind it, and two feed-forward blocks of a transformer."""
    return (_convolutions(), _products())


def _convolutions() -> TrialNetwork:
    weights = _Weights(np.random.default_rng(0), [])
    nodes = []
    for name, data in (("first", "x"), ("second", "first.relu")):
        nodes += _convolution(weights, name, data, (CHANNELS, CHANNELS, 3, 3))
    nodes.append(helper.make_node("Add", ["first.relu", "second.relu"], ["skip"], "skip"))
    nodes += _convolution(weights, "depthwise", "skip", (CHANNELS, 1, 3, 3))
    nodes += _convolution(weights, "project", "depthwise.relu", (WIDER, CHANNELS, 1, 1))
    nodes.append(helper.make_node("GlobalAveragePool", ["project.relu"], ["y"], "pool"))
    return _network("convolutions", nodes, weights, ((1, CHANNELS, SIDE, SIDE), (1, WIDER, 1, 1)))


def _convolution(weights: _Weights, name: str, data: str, shape: tuple[int, int, int, int]) -> list[onnx.NodeProto]:
    channels, per_group, kernel, _ = shape
    inputs = [data, weights.add(f"{name}.weight", shape, per_group * kernel**2), weights.add(f"{name}.bias", (channels,), channels)]
    group = 1 if per_group > 1 else channels
    convolution = helper.make_node("Conv", inputs, [f"{name}.sum"], name, pads=[kernel // 2] * 4, group=group)
    return [convolution, helper.make_node("Relu", [f"{name}.sum"], [f"{name}.relu"], f"{name}.relu")]


def _products() -> TrialNetwork:
    weights = _Weights(np.random.default_rng(1), [])
    nodes, data = [], "x"
    for block in ("first", "second"):
        nodes += _product(weights, f"{block}.up", data, (FEATURES, HIDDEN))
        nodes.append(helper.make_node("Relu", [f"{block}.up.sum"], [f"{block}.relu"], f"{block}.relu"))
        nodes += _product(weights, f"{block}.down", f"{block}.relu", (HIDDEN, FEATURES))
        result = f"{block}.skip" if block == "first" else "y"
        nodes.append(helper.make_node("Add", [data, f"{block}.down.sum"], [result], f"{block}.skip"))
        data = result
    return _network("products", nodes, weights, ((1, TOKENS, FEATURES), (1, TOKENS, FEATURES)))


def _product(weights: _Weights, name: str, data: str, shape: tuple[int, int]) -> list[onnx.NodeProto]:
    product = helper.make_node("MatMul", [data, weights.add(f"{name}.weight", shape, shape[0])], [f"{name}.product"], name)
    bias = weights.add(f"{name}.bias", shape[1:], shape[1])
    return [product, helper.make_node("Add", [f"{name}.product", bias], [f"{name}.sum"], f"{name}.bias")]


def _network(name: str, nodes: list[onnx.NodeProto], weights: _Weights, shapes: tuple[Sequence[int], Sequence[int]]) -> TrialNetwork:
    """The network whose input and output have `shapes`."""
    inputs, outputs = ([helper.make_tensor_value_info(x, TensorProto.FLOAT, shape)] for x, shape in zip("xy", shapes, strict=True))
    graph = helper.make_graph(nodes, name, inputs, outputs, weights.kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return TrialNetwork(name, model.SerializeToString(), weights.numbers.standard_normal((2, *shapes[0][1:]), dtype=np.float32))
