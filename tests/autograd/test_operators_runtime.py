"""Corners that ONNX's cases leave out, against ONNX Runtime and numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx_ir as ir
import onnxruntime
import pytest

pytest.importorskip("torch")

from tests.autograd.graphs import call

from zeropoint.autograd.operators import bound
from zeropoint.autograd.operators.tensors import tensor_of

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


# Operator, inputs, number of outputs, attributes.
CASES: dict[str, tuple[str, list[np.ndarray | None], int, dict[str, Any]]] = {
    "places of maxima with pads that differ": ("MaxPool", [normal(2, 2, 5, 6)], 2, {"kernel_shape": [3, 2], "pads": [0, 1, 2, 0]}),
    "places of maxima in volumes": (
        "MaxPool",
        [normal(2, 2, 4, 5, 6)],
        2,
        {"kernel_shape": [2, 2, 2], "dilations": [1, 2, 1], "strides": [2, 1, 2]},
    ),
    "places of maxima on a line": ("MaxPool", [normal(1, 3, 7)], 2, {"kernel_shape": [3], "pads": [1, 1], "strides": [2]}),
    "maxima, last window in the pads": (
        "MaxPool",
        [normal(1, 2, 5, 5)],
        1,
        {"kernel_shape": [2, 2], "pads": [1, 0, 0, 1], "strides": [3, 5], "ceil_mode": 1},
    ),
    "means, last window in the pads": (
        "AveragePool",
        [normal(1, 2, 5, 6)],
        1,
        {"kernel_shape": [2, 2], "pads": [1, 0, 0, 1], "strides": [3, 2], "ceil_mode": 1},
    ),
    "means with pads that count, rounded up": (
        "AveragePool",
        [normal(1, 2, 6, 6)],
        1,
        {"kernel_shape": [3, 3], "pads": [1, 0, 0, 1], "strides": [3, 2], "ceil_mode": 1, "count_include_pad": 1},
    ),
    "means with dilation and pads that count": (
        "AveragePool",
        [normal(1, 2, 7, 6)],
        1,
        {"kernel_shape": [3, 2], "pads": [1, 1, 0, 1], "dilations": [2, 3], "strides": [1, 2], "count_include_pad": 1},
    ),
    "norms with pads": ("LpPool", [normal(1, 2, 5, 5)], 1, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "p": 3}),
    "transposed convolution, cut unevenly, with a bias": (
        "ConvTranspose",
        [normal(1, 2, 4, 4), normal(2, 3, 3, 3), normal(3)],
        1,
        {"strides": [2, 2], "pads": [0, 1, 2, 0], "output_padding": [1, 1]},
    ),
    "transposed convolution of groups to a shape": (
        "ConvTranspose",
        [normal(1, 4, 5), normal(4, 2, 3), normal(4)],
        1,
        {"strides": [2], "group": 2, "output_shape": [8]},
    ),
    "transposed convolution with dilation": ("ConvTranspose", [normal(1, 2, 5), normal(2, 2, 3)], 1, {"dilations": [2], "pads": [3, 1]}),
    "same convolution, lower": ("Conv", [normal(1, 2, 7, 6), normal(2, 2, 2, 3)], 1, {"auto_pad": "SAME_LOWER", "strides": [2, 1]}),
    "convolution of volumes": (
        "Conv",
        [normal(1, 2, 4, 5, 6), normal(2, 1, 2, 2, 3), normal(2)],
        1,
        {"group": 2, "pads": [0, 1, 1, 1, 1, 1]},
    ),
    "gemm with a column": ("Gemm", [normal(3, 4), normal(4, 2), normal(3, 1)], 1, {}),
    "gemm with a row of one": ("Gemm", [normal(3, 4), normal(2, 4), normal(1)], 1, {"transB": 1}),
    "gemm with a scale and no sum": ("Gemm", [normal(4, 3), normal(4, 2)], 1, {"transA": 1, "alpha": 0.5}),
    "slice backwards from before the first": ("Slice", [normal(3, 2), ints(-9, 1), ints(-9, -9), ints(0, 1), ints(-1, -2)], 1, {}),
    "slice of nothing": ("Slice", [normal(3, 2), ints(2), ints(1), ints(0)], 1, {}),
    "gather by one index from the end": ("Gather", [normal(3, 4, 2), np.array(-1)], 1, {"axis": 1}),
    "gather by a table": ("Gather", [normal(3, 4, 2), ints(0, -1, 2, 1).reshape(2, 2)], 1, {"axis": -2}),
    "cubic with another coefficient": (
        "Resize",
        [normal(1, 2, 5, 4), None, floats(1, 1, 2, 1.5)],
        1,
        {"mode": "cubic", "cubic_coeff_a": -0.5},
    ),
    "cubic": ("Resize", [normal(1, 2, 5, 4), None, floats(1, 1, 0.6, 2.3)], 1, {"mode": "cubic"}),
    "cubic with nothing outside": (
        "Resize",
        [normal(1, 1, 5, 4), None, None, ints(1, 1, 7, 3)],
        1,
        {"mode": "cubic", "exclude_outside": 1},
    ),
    "linear by a scale that is not whole": ("Resize", [normal(1, 2, 5, 7), None, floats(1, 1, 1.7, 0.6)], 1, {"mode": "linear"}),
    "linear to one": (
        "Resize",
        [normal(1, 2, 5, 7), None, None, ints(1, 2, 1, 3)],
        1,
        {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"},
    ),
    "linear on a volume": ("Resize", [normal(1, 2, 3, 4, 5), None, floats(1, 1, 2, 1.5, 1)], 1, {"mode": "linear"}),
    "nearest on a tie": (
        "Resize",
        [normal(1, 1, 5, 4), None, floats(1, 1, 0.6, 2)],
        1,
        {"nearest_mode": "floor", "coordinate_transformation_mode": "half_pixel"},
    ),
    "nearest, thrice and rounded up": (
        "Resize",
        [normal(1, 1, 3, 3), None, floats(1, 1, 3, 2)],
        1,
        {"nearest_mode": "ceil", "coordinate_transformation_mode": "asymmetric"},
    ),
    "nearest of integers": ("Resize", [ints(*range(6)).astype(np.int32).reshape(1, 1, 2, 3), None, floats(1, 1, 2, 2)], 1, {}),
    "linear of a matrix": ("Resize", [normal(3, 4), None, floats(2, 1.5)], 1, {"mode": "linear"}),
    "layer normalization of two axes": ("LayerNormalization", [normal(2, 3, 4), normal(3, 4), normal(3, 4)], 1, {"axis": -2}),
    "layer normalization with a scale that broadcasts": ("LayerNormalization", [normal(2, 3, 4), normal(4)], 1, {"axis": 1}),
    "slopes of rows": ("PRelu", [normal(2, 3, 4, 3), normal(3)], 1, {}),
    "slopes of channels": ("PRelu", [normal(2, 3, 4, 4), normal(3, 1, 1)], 1, {}),
    "hard sigmoid with another slope": ("HardSigmoid", [normal(9)], 1, {"alpha": 0.3, "beta": 0.4}),
    "division of integers": ("Div", [ints(-7, 7, -7), ints(2, -2, -2)], 1, {}),
    "square of an integer": ("Pow", [ints(2, 3), np.array(2, np.float32)], 1, {}),
    "power of an integer": ("Pow", [ints(2, 3), floats(0.5, 2)], 1, {}),
    "sum of int32": ("ReduceSum", [np.arange(6, dtype=np.int32).reshape(2, 3), ints(0)], 1, {}),
    "first of equals": ("TopK", [np.tile(floats(1, 0), 40), ints(30)], 2, {}),
    "mean of nothing named": ("ReduceMean", [normal(2, 3)], 1, {"noop_with_empty_axes": 1}),
    "lstm both ways from a state": (
        "LSTM",
        [normal(4, 2, 3), normal(2, 20, 3), normal(2, 20, 5), normal(2, 40), None, normal(2, 2, 5), normal(2, 2, 5)],
        3,
        {"direction": "bidirectional", "hidden_size": 5},
    ),
    "lstm backwards": ("LSTM", [normal(4, 2, 3), normal(1, 20, 3), normal(1, 20, 5)], 3, {"direction": "reverse", "hidden_size": 5}),
    "gru both ways": (
        "GRU",
        [normal(4, 2, 3), normal(2, 15, 3), normal(2, 15, 5), normal(2, 30), None, normal(2, 2, 5)],
        2,
        {"direction": "bidirectional", "hidden_size": 5, "linear_before_reset": 1},
    ),
    "gru both ways, reset first": (
        "GRU",
        [normal(4, 2, 3), normal(2, 15, 3), normal(2, 15, 5), normal(2, 30), None, normal(2, 2, 5)],
        2,
        {"direction": "bidirectional", "hidden_size": 5},
    ),
    "rnn of relu": ("RNN", [normal(4, 2, 3), normal(1, 5, 3), normal(1, 5, 5)], 2, {"activations": ["Relu"], "hidden_size": 5}),
    "reshape with zero and rest": ("Reshape", [normal(2, 3, 4), ints(0, -1)], 1, {}),
    "split unevenly": ("Split", [normal(7, 2)], 3, {"num_outputs": 3}),
    "instance normalization of one element": ("InstanceNormalization", [normal(2, 3, 1), normal(3), normal(3)], 1, {}),
}


def model_of(operator: str, inputs: list[np.ndarray | None], outputs: int, attributes: dict[str, Any]) -> onnx.ModelProto:
    names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
    infos = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in zip(names, inputs, strict=True)
        if x is not None
    ]
    results = [f"y{i}" for i in range(outputs)]
    proto = onnx.helper.make_node(operator, names, results, **attributes)
    graph = onnx.helper.make_graph([proto], "g", infos, [onnx.helper.make_empty_tensor_value_info(name) for name in results])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=9)


@pytest.mark.parametrize("name", CASES)
def test_computes_what_onnx_runtime_computes(name: str) -> None:
    operator, inputs, outputs, attributes = CASES[name]
    proto = model_of(operator, inputs, outputs, attributes)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {f"x{i}": x for i, x in enumerate(inputs) if x is not None})

    node = next(iter(ir.serde.deserialize_model(proto).graph))
    actual: Any = bound(node, 19)([None if x is None else tensor_of(x) for x in inputs])

    assert len(actual) == outputs
    for y, wanted in zip(actual, expected, strict=True):
        assert y.numpy().dtype == np.asarray(wanted).dtype
        np.testing.assert_allclose(y.numpy(), wanted, rtol=1e-4, atol=1e-5)


PADS = {
    "by its length": ("reflect", "reflect", (3, 3)),
    "by more than its length": ("reflect", "reflect", (7, 4)),
    "less than its length": ("reflect", "reflect", (2, 1)),
    "edge": ("edge", "edge", (5, 1)),
    "wrapped around twice": ("wrap", "wrap", (7, 2)),
}


@pytest.mark.parametrize("name", PADS)
def test_pads_as_numpy_does(name: str) -> None:
    mode, numpy_mode, (begin, end) = PADS[name]
    x = normal(1, 2, 3, 4)
    expected = np.pad(x, [(0, 0), (0, 0), (begin, end), (0, 0)], mode=numpy_mode)  # type: ignore[call-overload]
    pads = tensor_of(ints(0, 0, begin, 0, 0, 0, end, 0))
    np.testing.assert_array_equal(call("Pad", tensor_of(x), pads, mode=mode)[0].numpy(), expected)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_normalizes_over_neighbours_as_a_loop_does(size: int) -> None:
    x = normal(2, 5, 3).astype(np.float64)
    squares = [sum(x[:, j] ** 2 for j in range(max(c - (size - 1) // 2, 0), min(c + size // 2, 4) + 1)) for c in range(5)]
    expected = x / (1.5 + 0.3 / size * np.stack(squares, 1)) ** 0.7
    (actual,) = call("LRN", tensor_of(x), size=size, alpha=0.3, beta=0.7, bias=1.5)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-6)
