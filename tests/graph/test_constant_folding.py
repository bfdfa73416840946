from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.parser import parse_model
from onnx.printer import to_text

from zeropoint.graph import constant_folding
from zeropoint.graph.constant_folding import FREE_BYTES, fold_constants
from zeropoint.graph.load import load
from zeropoint.graph.store import serialize

Array = np.ndarray[Any, Any]
X = np.linspace(-2, 2, 8, dtype=np.float32).reshape(2, 4)
W = "float[4] w = {1, -2, 3, 0.5}"


def network(nodes: str, constants: str = W, *, outputs: str = "float[N, 4] y", opset: int = 17) -> onnx.ModelProto:
    return parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}, "house" : 1]> net (float[N, 4] x) => ({outputs}) <{constants}> {{ {nodes} }}'
    )


def run(model: bytes) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return list(onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, {"x": X}))


def fold(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Fold, check that the outputs stay the same bit for bit, and return the network."""
    model = load(proto)
    fold_constants(model)
    folded = serialize(model)
    for found, expected in zip(run(folded), run(proto.SerializeToString()), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert getattr(found, "dtype", None) == getattr(expected, "dtype", None)
    return onnx.load_from_string(folded)


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


FOLDED = {
    "one": ("a = Exp(w) y = Mul(x, a)", ["Mul"]),
    "chain": ("a = Exp(w) b = Neg(a) c = Sqrt(a) d = Div(b, c) y = Mul(x, d)", ["Mul"]),
    "Constant nodes": ("k = Constant<value = float {3}>() a = Add(w, k) y = Mul(x, a)", ["Mul"]),
    "shape of a constant": ("s = Shape(w) c = Cast<to = 1>(s) y = Mul(x, c)", ["Mul"]),
    "several outputs, one read": ("a, b = Split(w) p = Concat<axis = 0>(b, b) y = Mul(x, p)", ["Mul"]),
    "read twice": ("a = Exp(w) b = Mul(x, a) y = Add(b, a)", ["Mul", "Add"]),
    "left out input": ("a = Clip(w, , m) y = Mul(x, a)", ["Mul"]),
    "a sequence on the way": ("s = SequenceConstruct(w, w) i = Constant<value = int64 {1}>() a = SequenceAt(s, i) y = Mul(x, a)", ["Mul"]),
    "growth on the way to something small": (
        "k = Constant<value = int64[2] {1000, 4000}>() o = Constant<value = float {1}>() "
        "e = Expand(o, k) s = ReduceMax<keepdims = 0>(e) y = Mul(x, s)",
        ["Mul"],
    ),
}


@pytest.mark.parametrize(("nodes", "left"), FOLDED.values(), ids=FOLDED)
def test_what_depends_on_no_input_is_computed(nodes: str, left: list[str]) -> None:
    assert operators(fold(network(nodes, f"{W}, float m = {{0.25}}"))) == left


def test_folded_values_keep_their_names() -> None:
    model = fold(network("a = Exp(w) y = Mul(x, a)"))
    assert model.graph.node[0].input == ["x", "a"]
    assert "a" in [initializer.name for initializer in model.graph.initializer]


def test_all_outputs_of_a_node_fold() -> None:
    model = fold(network("a, b = Split(v) c = Mul(x, a) y = Mul(c, b)", "float[8] v = {1, 2, 3, 4, 5, 6, 7, 8}", opset=13))
    assert operators(model) == ["Mul", "Mul"]


@pytest.mark.parametrize("dtype", ["int64", "bool", "double", "float16", "uint8"])
def test_constants_of_any_number_type_fold(dtype: str) -> None:
    code = getattr(onnx.TensorProto, dtype.upper())
    model = fold(
        network(f"a = Cast<to = {code}>(w) b = Cast<to = {code}>(x) y = Equal(a, b)", "float[4] w = {0, 1, 2, 3}", outputs="bool[N, 4] y")
    )
    assert operators(model) == ["Cast", "Equal"]


SEQUENCE = """s = SequenceConstruct(w, w) f = ReduceMax<keepdims = 0>(x) i = Cast<to = 7>(f) j = Mod(i, i1)
    a = SequenceAt(s, j) y = Mul(x, a)"""
IF = "If(k) <then_branch = t () => (float[4] ty) { ty = Exp(w) }, else_branch = e () => (float[4] ey) { ey = Neg(w) }>"
STAYS = {
    "random": ("a = RandomNormal<shape = [4], seed = 1.0>() y = Mul(x, a)", ["RandomNormal", "Mul"]),
    "what follows from random": ("a = RandomUniformLike<seed = 1.0>(w) b = Neg(a) y = Mul(x, b)", ["RandomUniformLike", "Neg", "Mul"]),
    "what depends on an input": ("a = Add(x, w) y = Neg(a)", ["Add", "Neg"]),
    "an output of the network": ("a = Exp(w) y = Mul(x, a)", ["Exp", "Mul"]),
    "text": ("a = Cast<to = 8>(w) b = Equal(a, t) c = Cast<to = 1>(b) y = Mul(x, c)", ["Mul"]),
    "text that is read": ("a = Cast<to = 8>(w) b = Cast<to = 8>(x) y = Equal(a, b)", ["Cast", "Cast", "Equal"]),
    "a sequence that is read": (SEQUENCE, ["SequenceConstruct", "ReduceMax", "Cast", "Mod", "SequenceAt", "Mul"]),
    "bodies": (f"a = {IF} y = Mul(x, a)", ["If", "Mul"]),
}
OUTPUTS = {
    "an output of the network": "float[N, 4] y, float[4] a",
    "text that is read": "bool[N, 4] y",
}


@pytest.mark.parametrize("name", STAYS)
def test_what_cannot_be_folded_stays(name: str) -> None:
    nodes, left = STAYS[name]
    constants = f'{W}, bool k = {{1}}, int64 i1 = {{1}}, string[4] t = {{"1", "-2", "3", "4"}}'
    assert operators(fold(network(nodes, constants, outputs=OUTPUTS.get(name, "float[N, 4] y"), opset=19))) == left


def test_other_domains_stay() -> None:
    model = load(network("a = house.Exp(w) y = Mul(x, a)"))
    fold_constants(model)
    assert [node.op_type for node in model.graph] == ["Exp", "Mul"]


@pytest.mark.parametrize(("rows", "folds"), [(FREE_BYTES // 16, True), (FREE_BYTES // 16 + 1, False)], ids=["small enough", "too large"])
def test_what_grows_beyond_a_megabyte_stays(rows: int, folds: bool) -> None:
    nodes = "a = Expand(w, s) m = ReduceMax<keepdims = 0>(x) b = Mul(a, m) y = ReduceMax<axes = [0]>(b)"
    model = fold(network(nodes, f"{W}, int64[2] s = {{{rows}, 4}}", outputs="float[M, 4] y"))
    assert ("Expand" not in operators(model)) == folds


def test_what_does_not_grow_folds_at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constant_folding, "FREE_BYTES", 0)
    assert operators(fold(network("a = Exp(w) y = Mul(x, a)"))) == ["Mul"]
    model = fold(network("a = Tile(w, n) b = ReduceMax<keepdims = 0>(x) y = Mul(a, b)", f"{W}, int64[1] n = {{4}}", outputs="float[16] y"))
    assert operators(model) == ["Tile", "ReduceMax", "Mul"]


def test_a_constant_read_in_a_body_folds_under_its_name() -> None:
    branches = """then_branch = t () => (float[N, 4] ty) { ty = Mul(x, a) }, else_branch = e () => (float[N, 4] ey) { ey = Add(x, a) }"""
    proto = network(f"a = Exp(w) y = If(k) <{branches}>", f"{W}, bool k = {{1}}")
    model = fold(proto)
    assert [to_text(node) for node in model.graph.node] == [to_text(proto.graph.node[1])]


def test_nothing_to_fold_changes_nothing() -> None:
    proto = network("y = Mul(x, w)")
    assert [to_text(node) for node in fold(proto).graph.node] == [to_text(node) for node in proto.graph.node]
