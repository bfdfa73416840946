from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from tests.graph.networks import Array, network, run

from zeropoint.data.split import spread
from zeropoint.graph.initializers import constant_array
from zeropoint.graph.load import load
from zeropoint.refine.linear import Linear, linear

ALL = 1_000_000  # places: more than there are
ULP = 2.0**-23


@dataclass(frozen=True)
class Case:
    """A node, the shape of its data and that of its weight."""

    node: str
    data: tuple[int, ...]
    weight: tuple[int, ...]
    bias: bool = True

    @property
    def network(self) -> onnx.ModelProto:
        weights: dict[str, object] = {"w": self.weight, "b": (self.outputs,)}
        return network(self.node, inputs=f"float[{','.join(map(str, self.data))}] x", weights=weights)

    @property
    def outputs(self) -> int:
        return self.weight[-1] if "MatMul" in self.node or ("Gemm" in self.node and "transB=1" not in self.node) else self.weight[0]


def conv(attributes: str = "", operands: str = "x, w, b") -> str:
    return f"y = Conv {f'<{attributes}>' if attributes else ''} ({operands})"


CASES = {
    "Conv, 1-d": Case(conv(), (2, 4, 9), (6, 4, 3)),
    "Conv, 2-d": Case(conv(), (2, 4, 7, 6), (6, 4, 3, 2)),
    "Conv, 3-d": Case(conv(), (2, 4, 5, 4, 6), (6, 4, 3, 2, 2)),
    "Conv, pointwise": Case(conv(), (3, 4, 5, 5), (6, 4, 1, 1)),
    "Conv, kernel of the size of the data": Case(conv(), (3, 4, 5, 4), (6, 4, 5, 4)),
    "Conv without a bias": Case(conv(operands="x, w"), (2, 4, 7, 6), (6, 4, 3, 2), bias=False),
    "Conv, pads": Case(conv("pads=[1,1,1,1]"), (2, 4, 7, 6), (6, 4, 3, 3)),
    "Conv, uneven pads": Case(conv("pads=[2,0,1,3]"), (2, 4, 7, 6), (6, 4, 3, 3)),
    "Conv, pads beyond the kernel": Case(conv("pads=[4,4,4,4]"), (2, 4, 2, 3), (6, 4, 3, 3)),
    "Conv, 1-d, pads": Case(conv("pads=[2,1]"), (2, 4, 9), (6, 4, 3)),
    "Conv, 3-d, uneven pads": Case(conv("pads=[0,1,2,1,0,0]"), (2, 4, 5, 4, 6), (6, 4, 3, 2, 2)),
    "Conv, strides": Case(conv("strides=[2,3]"), (2, 4, 9, 8), (6, 4, 3, 3)),
    "Conv, strides beyond the kernel": Case(conv("strides=[3,3]"), (2, 4, 9, 8), (6, 4, 2, 2)),
    "Conv, dilations": Case(conv("dilations=[2,3]"), (2, 4, 9, 8), (6, 4, 3, 2)),
    "Conv, 1-d, all of it": Case(conv("group=2, dilations=[3], strides=[2], pads=[2,4]"), (2, 4, 15), (6, 2, 3)),
    "Conv, 2-d, all of it": Case(conv("group=2, dilations=[2,1], strides=[1,2], pads=[0,1,2,3]"), (2, 4, 9, 8), (6, 2, 3, 2)),
    "Conv, 3-d, all of it": Case(conv("group=2, dilations=[2,1,2], strides=[1,2,1], pads=[1,0,1,0,1,2]"), (2, 4, 6, 5, 7), (6, 2, 3, 2, 2)),
    "Conv, grouped": Case(conv("group=2"), (2, 6, 7, 6), (4, 3, 3, 3)),
    "Conv, depthwise": Case(conv("group=4, pads=[1,1,1,1]"), (2, 4, 7, 6), (4, 1, 3, 3)),
    "Conv, depthwise, two kernels to a channel": Case(conv("group=4"), (2, 4, 7, 6), (8, 1, 3, 3)),
    "Conv, VALID": Case(conv('auto_pad="VALID"'), (2, 4, 7, 6), (6, 4, 3, 2)),
    "Conv, NOTSET": Case(conv('auto_pad="NOTSET", pads=[1,0,0,1]'), (2, 4, 7, 6), (6, 4, 3, 2)),
    "Gemm": Case("y = Gemm(x, w, b)", (5, 4), (4, 6)),
    "Gemm without a bias": Case("y = Gemm(x, w)", (5, 4), (4, 6), bias=False),
    "Gemm, transB": Case("y = Gemm <transB=1> (x, w, b)", (5, 4), (6, 4)),
    "Gemm, transA=0": Case("y = Gemm <transA=0, transB=0> (x, w, b)", (5, 4), (4, 6)),
    "MatMul, rank 2": Case("y = MatMul(x, w)", (5, 4), (4, 6), bias=False),
    "MatMul, rank 3": Case("y = MatMul(x, w)", (2, 5, 4), (4, 6), bias=False),
    "MatMul, rank 4": Case("y = MatMul(x, w)", (2, 3, 5, 4), (4, 6), bias=False),
    "MatMul, rank 1": Case("y = MatMul(x, w)", (4,), (4, 6), bias=False),
} | {
    f"Conv, {how}, {name}": Case(conv(f'auto_pad="{how}"{attributes}'), data, weight)
    for how in ("SAME_UPPER", "SAME_LOWER")
    for name, attributes, data, weight in (
        ("odd kernel", "", (2, 4, 7, 6), (6, 4, 3, 3)),
        ("even kernel", "", (2, 4, 7, 6), (6, 4, 2, 4)),
        ("strides", ", strides=[2,3]", (2, 4, 7, 9), (6, 4, 3, 4)),
        ("strides that need no pads", ", strides=[2,2]", (2, 4, 8, 8), (6, 4, 1, 2)),
        ("1-d", ", strides=[2]", (2, 4, 9), (6, 4, 4)),
        ("grouped", ", group=2, strides=[2,1]", (2, 4, 8, 6), (6, 2, 3, 2)),
    )
}  # fmt: skip
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def seen(case: Case) -> tuple[Linear, Array, Array, Array]:
    """Return how the node is seen, its data, weight and bias."""
    model = load(case.network)
    node = model.graph[0]
    how = linear(node)
    assert how is not None
    bias = constant_array(node.inputs[2]) if case.bias else np.zeros(case.outputs, np.float32)
    return how, np.random.default_rng(1).normal(0.5, 1.0, case.data).astype(np.float32), constant_array(node.inputs[1]), bias


@every_case
def test_rows_times_the_matrix_are_what_onnx_runtime_computes(case: Case) -> None:
    how, x, weight, bias = seen(case)
    [output] = run(case.network, {"x": x})
    expected = (np.moveaxis(output, 1, -1) if "Conv" in case.node else output).reshape(-1, case.outputs)
    W, rows = how.matrix(weight), how.rows(x, ALL)
    assert rows.dtype == x.dtype
    assert (W.shape[0], W.shape[2]) == (rows.shape[0], rows.shape[2])
    found = np.einsum("gok,gpk->pgo", W, rows, dtype=np.float64).reshape(len(expected), -1) + bias
    np.testing.assert_allclose(found, expected, rtol=0, atol=64 * ULP * np.abs(expected).max())


@every_case
def test_a_weight_comes_back_from_its_matrix(case: Case) -> None:
    how, _, weight, _ = seen(case)
    again = how.weight(how.matrix(weight), weight.shape)
    np.testing.assert_array_equal(again, weight, strict=True)
    assert again.flags.c_contiguous


@every_case
@pytest.mark.parametrize("count", [1, 3, 7])
def test_sampled_rows_are_evenly_spread_rows_of_all(case: Case, count: int) -> None:
    how, x, _, _ = seen(case)
    whole = how.rows(x, ALL)
    np.testing.assert_array_equal(how.rows(x, count), whole[:, spread(whole.shape[1], count)], strict=True)


@every_case
def test_rows_of_exact_numbers_keep_their_type(case: Case) -> None:
    how, x, _, _ = seen(case)
    assert how.rows(x.astype(np.float64), 3).dtype == np.float64


@pytest.mark.parametrize(
    ("case", "groups", "shape"),
    [
        ("Conv, 2-d", 1, (1, 6, 24)),
        ("Conv, grouped", 2, (2, 2, 27)),
        ("Conv, depthwise", 4, (4, 1, 9)),
        ("Conv, depthwise, two kernels to a channel", 4, (4, 2, 9)),
        ("Gemm", 1, (1, 6, 4)),
        ("Gemm, transB", 1, (1, 6, 4)),
        ("MatMul, rank 3", 1, (1, 6, 4)),
    ],
)
def test_the_matrix_has_a_row_for_each_output_of_a_group(case: str, groups: int, shape: tuple[int, ...]) -> None:
    how, _, weight, _ = seen(CASES[case])
    assert how.groups == groups
    assert how.matrix(weight).shape == shape


def test_what_has_the_shape_of_the_matrix_becomes_a_weight_too() -> None:
    how, _, weight, _ = seen(CASES["Gemm"])
    codes = np.arange(24).reshape(1, 6, 4)
    found = how.weight(codes, weight.shape)
    np.testing.assert_array_equal(found, codes[0].T, strict=True)


def test_data_stays_as_it_is() -> None:
    how, x, _, _ = seen(CASES["Conv, pads"])
    before = x.copy()
    rows = how.rows(x, ALL)
    rows += 1.0
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    ("body", "inputs", "weights"),
    [
        pytest.param("y = ConvTranspose(x, w)", "float[1,4,5,5] x", {"w": (4, 6, 3, 3)}, id="ConvTranspose"),
        pytest.param("y = Gemm <transA=1> (x, w)", "float[4,5] x", {"w": (4, 6)}, id="transA"),
        pytest.param("y = MatMul(w, x)", "float[4,5] x", {"w": (6, 4)}, id="a weight on the left"),
        pytest.param("y = MatMul(x, w)", "float[2,5,4] x", {"w": (2, 4, 6)}, id="batched weights"),
        pytest.param("y = MatMul(x, w)", "float[5,4] x", {"w": (4,)}, id="a vector for a weight"),
        pytest.param("y = Conv(x, k)", "float[1,4,5,5] x, float[6,4,3,3] k", {}, id="a computed weight"),
        pytest.param("y = MatMul(x, k)", "float[5,4] x, float[4,6] k", {}, id="no weight"),
        pytest.param("y = Mul(x, w)", "float[5,4] x", {"w": (5, 4)}, id="another operator"),
        pytest.param("y = com.example.Conv(x, w)", "float[1,4,5,5] x", {"w": (6, 4, 3, 3)}, id="an operator of another domain"),
    ],
)
def test_other_nodes_are_not_seen_as_products(body: str, inputs: str, weights: dict[str, Any]) -> None:
    assert linear(load(network(body, inputs=inputs, weights=weights)).graph[0]) is None
