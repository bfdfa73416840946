from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from tests.graph.networks import feed, network, weight

from zeropoint.graph.facts import capture_facts
from zeropoint.graph.load import load
from zeropoint.graph.matching import Matching, match_inputs, match_tensors

WEIGHTS = {"w": (16, 16, 1, 1), "w2": (16, 16, 1, 1)}
PER_CHANNEL = {"gamma": (16,), "beta": (16,), "mean": (16,), "var": np.ones(16, np.float32)}
PLAIN = "c = Conv(x, w) r = Relu(c) y = Conv(r, w2)"
PAIR = {"s": np.float32(0.1), "z": np.int8(0), "s2": np.float32(0.2), "ws": np.float32(0.01), "wz": np.int8(0)}


def matched(a: onnx.ModelProto, b: onnx.ModelProto, **options: Any) -> Matching:
    networks = load(a), load(b)
    given = feed(a)
    inputs = match_inputs(*networks)
    facts = capture_facts(networks[0], given), capture_facts(networks[1], {inputs[name]: array for name, array in given.items()})
    return match_tensors(*networks, facts, **options)


def pairs(found: Matching) -> dict[str, str]:
    return {match.tensor: match.other for match in found.tensors if match.is_layer}


def net(body: str, **given: Any) -> onnx.ModelProto:
    return network(body, weights={**WEIGHTS, **PER_CHANNEL, **PAIR, **given})


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        pytest.param(PLAIN, PLAIN, {"c": "c", "r": "r", "y": "y"}, id="the same names"),
        pytest.param(PLAIN, "p = Conv(x, w) q = Relu(p) y = Conv(q, w2)", {"c": "p", "r": "q", "y": "y"}, id="other names inside"),
        pytest.param(
            PLAIN,
            "i = Identity(x) p = Conv(i, w) h = Cast<to=10>(p) f = Cast<to=1>(h) r = Relu(f) y = Conv(r, w2)",
            {"c": "f", "r": "r", "y": "y"},
            id="copies and casts between",
        ),
        pytest.param(
            "c = Conv(x, w) b = BatchNormalization(c, gamma, beta, mean, var) r = Relu(b) y = Conv(r, w2)",
            "c = Conv(x, w, beta) r = Relu(c) y = Conv(r, w2)",
            {"b": "c", "r": "r", "y": "y"},
            id="a folded BatchNormalization, the convolution keeps its name",
        ),
        pytest.param(
            "c = Conv(x, w) b = BatchNormalization(c, gamma, beta, mean, var) r = Relu(b) y = Conv(r, w2)",
            "b = Conv(x, w, beta) r = Relu(b) y = Conv(r, w2)",
            {"b": "b", "r": "r", "y": "y"},
            id="a folded BatchNormalization, its own name is kept",
        ),
        pytest.param(
            "c = Conv(x, w) b = Add(c, row) r = Relu(b) y = Conv(r, w2)",
            "c = Conv(x, w, rowed) r = Relu(c) y = Conv(r, w2)",
            {"b": "c", "r": "r", "y": "y"},
            id="a folded bias",
        ),
        pytest.param(
            "c = Conv(x, w) b = Add(c, row) r = Relu(b) y = Conv(r, w2)",
            "c = Conv(x, w) r = Sum(c, row) y = Conv(r, w2)",
            {"c": "c", "r": "r", "y": "y"},
            id="a bias that is taken in by what is behind it",
        ),
        pytest.param(
            "d = Reshape(beta, shape) c = Conv(x, w) b = Add(c, d) r = Relu(b) y = Conv(r, w2)",
            "c = Conv(x, w, beta) r = Relu(c) y = Conv(r, w2)",
            {"b": "c", "r": "r", "y": "y"},
            id="a folded bias that was brought to its shape",
        ),
        pytest.param(
            "d = Sqrt(row) c = Conv(x, w) b = Add(c, d) r = Relu(b) y = Conv(r, w2)",
            "c = Conv(x, w, beta) r = Relu(c) y = Conv(r, w2)",
            {"r": "r", "y": "y"},
            id="a bias that is computed",
        ),
        pytest.param(
            "c = Conv(x, w, beta) m = Mul(two, c) b = Add(m, half) e = Add(b, three) h = Clip(e) r = Mul(b, h) y = Conv(r, w2)",
            "c = Conv(x, w, folded) e = Add(c, three) h = Clip(e) r = Mul(c, h) y = Conv(r, w2)",
            {"b": "c", "e": "e", "h": "h", "r": "r", "y": "y"},
            id="single numbers folded before an activation of the same operators",
        ),
        pytest.param(
            "c = Conv(x, w) b = BatchNormalization(c, gamma, beta, mean, var) e = Add(b, three) r = Clip(e) y = Conv(r, w2)",
            "c = Conv(x, w, normal) r = HardSigmoid(c) y = Conv(r, w2)",
            {"b": "c", "r": "r", "y": "y"},
            id="a BatchNormalization before an activation of one operator for one of two",
        ),
        pytest.param(
            "c = Conv(x, w) b = Mul(c, row) r = Relu(b) y = Conv(r, w2)",
            "c = Conv(x, w2) r = Relu(c) y = Conv(r, w2)",
            {"b": "c", "r": "r", "y": "y"},
            id="a folded factor",
        ),
        pytest.param(
            "c = Conv(x, w, beta) r = Relu(c) y = Conv(r, w2)",
            "c = Conv(x, w) b = BatchNormalization(c, gamma, beta, mean, var) r = Relu(b) y = Conv(r, w2)",
            {"c": "b", "r": "r", "y": "y"},
            id="folded in a",
        ),
        pytest.param(
            "c = Conv(x, w) b = Add(c, half) r = Clip(b) y = Conv(r, w2)",
            "c = Conv(x, w) r = HardSigmoid(c) y = Conv(r, w2)",
            {"c": "c", "r": "r", "y": "y"},
            id="an activation of one operator for one of two",
        ),
        pytest.param(
            PLAIN,
            "d = DequantizeLinear(q, ws, wz) c = Conv(x, d) cq = QuantizeLinear(c, s, z) cd = DequantizeLinear(cq, s, z) "
            "r = Relu(cd) y = Conv(r, w2)",
            {"c": "cd", "r": "r", "y": "y"},
            id="behind the pair that all readers read through",
        ),
        pytest.param(
            "c = Conv(x, w) r = Relu(c) t = Neg(c) y = Add(r, t)",
            "c = Conv(x, w) cq = QuantizeLinear(c, s, z) cd = DequantizeLinear(cq, s, z) r = Relu(cd) t = Neg(c) y = Add(r, t)",
            {"c": "c", "r": "r", "t": "t", "y": "y"},
            id="the tensor itself where one reader reads it so",
        ),
        pytest.param(
            "c = Conv(x, w) r = Relu(c) t = Neg(c) y = Add(r, t)",
            "c = Conv(x, w) cq = QuantizeLinear(c, s, z) cd = DequantizeLinear(cq, s, z) r = Relu(cd) "
            "cq2 = QuantizeLinear(c, s2, z) cd2 = DequantizeLinear(cq2, s2, z) t = Neg(cd2) y = Add(r, t)",
            {"c": "c", "r": "r", "t": "t", "y": "y"},
            id="the tensor itself where readers read through pairs of other numbers",
        ),
        pytest.param(
            "p = Conv(x, w) q = Conv(p, w2) y = Relu(q)",
            "q = Conv(x, w) p = Conv(q, w2) y = Relu(p)",
            {"p": "q", "q": "p", "y": "y"},
            id="swapped names",
        ),
        pytest.param(
            "p = Sigmoid(x) q = Sigmoid(p) y = Conv(q, w)",
            "q = Sigmoid(x) p = Sigmoid(q) y = Conv(p, w)",
            {"y": "y"},
            id="a name that says another thing than the place",
        ),
        pytest.param(
            "c = Conv(x, w, beta) r = Relu(c) y = Conv(r, w2)",
            "c = Conv(x, w) r = BatchNormalization(c, gamma, beta, mean, var) y = Conv(r, w2)",
            {"r": "r", "y": "y"},
            id="not what stands before a BatchNormalization that has a partner",
        ),
        pytest.param(
            "c = Conv(x, w) r = BatchNormalization(c, gamma, beta, mean, var) y = Conv(r, w2)",
            "c = Conv(x, w, beta) r = Relu(c) y = Conv(r, w2)",
            {"r": "r", "y": "y"},
            id="nor the other way round",
        ),
        pytest.param(
            "p = Relu(x) q = Sigmoid(x) s = Sub(p, q) y = Conv(s, w)",
            "p = Relu(x) q = Sigmoid(x) s = Sub(q, p) y = Conv(s, w)",
            {"p": "p", "q": "q", "y": "y"},
            id="the same name for what is computed the other way round",
        ),
        pytest.param(
            "p = Relu(x) q = Sigmoid(x) s = Add(p, q) y = Conv(s, w)",
            "p = Relu(x) q = Sigmoid(x) s = Add(q, p) y = Conv(s, w)",
            {"p": "p", "q": "q", "s": "s", "y": "y"},
            id="a sum in another order",
        ),
        pytest.param(
            "c = MaxPool<kernel_shape=[2,2]>(x) y = Conv(c, w)",
            "c = MaxPool<kernel_shape=[4,4]>(x) d = Relu(c) y = Conv(d, w)",
            {},
            id="the same names for tensors of other shapes",
        ),
        pytest.param(
            "q = Conv(x, w) k = Conv(x, w2) s = Mul(q, k) y = Relu(s)",
            "k1 = Conv(x, w2) q1 = Conv(x, w) s1 = Mul(q1, k1) y = Relu(s1)",
            {"q": "q1", "k": "k1", "s": "s1", "y": "y"},
            id="siblings by their weights",
        ),
        pytest.param(
            "q = Conv(x, w) k = Conv(x, w) s = Concat<axis=1>(q, k) y = Relu(s)",
            "k1 = Conv(x, w) q1 = Conv(x, w) s1 = Concat<axis=1>(q1, k1) y = Relu(s1)",
            {"q": "k1", "k": "q1", "y": "y"},
            id="siblings that compute the same, in their order",
        ),
        pytest.param(
            "q = Conv(x, w) k = Conv(x, w3) s = Concat<axis=1>(q, k) y = Relu(s)",
            "k1 = Conv(x, w2) q1 = Conv(x, w4) s1 = Concat<axis=1>(q1, k1) y = Relu(s1)",
            {"s": "s1", "y": "y"},
            id="siblings that nothing tells apart",
        ),
        pytest.param(
            "p = Gather<axis=1>(x, one) q = Gather<axis=1>(x, zero) s = Sub(p, q) y = Relu(s)",
            "q1 = Gather<axis=1>(x, zero) p1 = Gather<axis=1>(x, one) s1 = Sub(p1, q1) y = Relu(s1)",
            {"p": "p1", "q": "q1", "s": "s1", "y": "y"},
            id="siblings by their indices",
        ),
        pytest.param(
            "c = Conv(x, w) m = Neg(c) a = Abs(m) y = Sigmoid(a)",
            "c1 = Conv(x, w) f1 = Exp(c1) a1 = Abs(f1) y = Sigmoid(a1)",
            {"c": "c1", "a": "a1", "y": "y"},
            id="back from the outputs, beyond what differs",
        ),
    ],
)
def test_pairs(a: str, b: str, expected: dict[str, str]) -> None:
    codes = np.rint(weight("w", (16, 16, 1, 1)) / 0.01).clip(-128, 127).astype(np.int8)
    row, beta, gamma, mean = (weight(name, (16,)) for name in ("row", "beta", "gamma", "mean"))
    folded = {"rowed": row, "folded": 2 * beta + 0.5, "normal": beta - mean * gamma}
    numbers = {
        "half": np.float32(0.5),
        "two": np.float32(2),
        "three": np.float32(3),
        "row": row.reshape(1, 16, 1, 1),
        "shape": [1, 16, 1, 1],
    }
    assert pairs(matched(*(net(body, q=codes, **numbers, **folded) for body in (a, b)))) == expected


def renamed(model: onnx.ModelProto, names: Mapping[str, str]) -> onnx.ModelProto:
    for node in model.graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [names.get(name, name) for name in tensors]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    return model


def test_counted_names_of_other_operators_are_no_names() -> None:
    a, b = renamed(net(PLAIN), {"c": "1", "r": "2"}), renamed(net(PLAIN), {"c": "2", "r": "1"})
    assert pairs(matched(a, b)) == {"1": "2", "2": "1", "y": "y"}


def test_inputs_and_outputs_of_other_names_are_those_in_their_places() -> None:
    a, b = net(PLAIN), renamed(net(PLAIN), {"x": "image", "y": "logits"})
    found = matched(a, b)
    assert found.inputs == {"x": "image"}
    assert pairs(found) == {"c": "c", "r": "r", "y": "logits"}


def test_an_output_of_the_network_is_seen_as_it_is() -> None:
    body = "c = Conv(x, w) q = QuantizeLinear(c, s, z) d = DequantizeLinear(q, s, z) y = Conv(d, w2)"
    b = network(body, outputs="y, c", weights={**WEIGHTS, **PAIR})
    a = network("c = Conv(x, w) y = Conv(c, w2)", outputs="y, c", weights=WEIGHTS)
    assert pairs(matched(a, b)) == {"c": "c", "y": "y"}


def test_an_input_that_is_coded_is_a_layer() -> None:
    coded = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) c = Conv(d, w) r = Relu(c) y = Conv(r, w2)"
    first = matched(net(PLAIN), net(coded)).tensors[0]
    assert (first.operator, first.tensor, first.other, first.is_layer) == ("input", "x", "d", True)


def test_pairs_of_one_reader_each_hold_the_same() -> None:
    b = (
        "c = Conv(x, w) q = QuantizeLinear(c, s, z) d1 = DequantizeLinear(q, s, z) d2 = DequantizeLinear(q, s, z) "
        "r = Relu(d1) t = Neg(d2) y = Add(r, t)"
    )
    found = {match.tensor: match for match in matched(net("c = Conv(x, w) r = Relu(c) t = Neg(c) y = Add(r, t)"), net(b)).tensors}
    assert found["c"].others == ("d1", "d2")
    assert found["y"].before == ("r", "t")


def test_what_has_no_partner_is_crossed_on_the_way_back() -> None:
    a, b = net(PLAIN), net("c = Conv(x, w) e = Exp(c) l = Log(e) r = Relu(l) y = Conv(r, w2)")
    found = {match.tensor: match for match in matched(a, b, apart={"c"}).tensors}
    assert found["r"].before == ("x",)
    assert "c" not in found


def test_what_bodies_read_counts() -> None:
    body = (
        "c = Conv(x, w) s = ReduceMax<keepdims=0>(c) p = Greater(s, zero) "
        "o = If(p) <then_branch = t () => (float tt) { tt = Neg(c) }, else_branch = e () => (float ee) { ee = Abs(c) }> y = Relu(o)"
    )
    found = {match.tensor: match for match in matched(*(net(body, zero=np.float32(0)) for _ in range(2))).tensors}
    assert found["o"].before == ("p", "c")


def test_a_layer_is_called_after_the_node_with_weights() -> None:
    a = net("c = Conv(x, w) b = BatchNormalization(c, gamma, beta, mean, var) r = Relu(b) y = Conv(r, w2)")
    found = matched(a, net("c = Conv(x, w, beta) r = Relu(c) y = Conv(r, w2)"))
    assert [(match.node, match.operator, match.tensor) for match in found.tensors if match.is_layer] == [
        ("c", "Conv", "b"),
        ("r", "Relu", "r"),
        ("y", "Conv", "y"),
    ]
    assert found.unmatched == (("c", "c"),)
