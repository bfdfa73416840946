"""Where blocks end, in networks written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from tests.graph.networks import network

from zeropoint.graph.blocks import block_ends
from zeropoint.graph.load import load
from zeropoint.graph.prepare import prepare

W = np.eye(4, dtype=np.float32)
WEIGHTS = {f"w{number}": W for number in range(4)}

CASES = [
    pytest.param(
        "a = MatMul(x, w0) b = Relu(a) c = MatMul(b, w1) d = Sigmoid(c) y = MatMul(d, w2)", ["b", "d"], id="each layer of a chain"
    ),
    pytest.param(
        "a = MatMul(x, w0) b = Relu(a) c = MatMul(b, w1) s = Add(b, c) r = Relu(s) y = MatMul(r, w2)",
        ["b", "r"],
        id="a sum and its activation end a residual block",
    ),
    pytest.param(
        "a = MatMul(x, w0) b = MatMul(a, w1) c = MatMul(a, w2) s = Add(b, c) y = MatMul(s, w3)", ["a", "s"], id="branches meet in a sum"
    ),
    pytest.param("a = MatMul(x, w0) b = MatMul(x, w1) y = Add(a, b)", [], id="branches that meet in the output alone"),
    pytest.param(
        "m = Exp(x) a = MatMul(x, w0) b = Mul(a, m) c = MatMul(b, w1) d = Mul(c, m) y = MatMul(d, w2)",
        ["b", "d"],
        id="a mask crosses",
    ),
    pytest.param("a = Exp(x) y = Relu(a)", [], id="no weights"),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_blocks_end_where_one_tensor_goes_on(text: str, expected: list[str]) -> None:
    weights = {name: array for name, array in WEIGHTS.items() if name in text}
    model = load(network(text, inputs="float[N,4] x", weights=weights))
    prepare(model)
    assert block_ends(model) == tuple(expected)
