from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.graph.networks import feed, network
from tests.graph.scalings import CASES, NAMED, Case, prepared, told

from zeropoint.graph.facts import capture_facts
from zeropoint.graph.load import load
from zeropoint.graph.prepare import prepare
from zeropoint.graph.scalable import find_scalable, find_shiftable


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_can_be_scaled_is_found(case: Case) -> None:
    _, found = prepared(case.network, case.maxima)
    assert [told(scalable) for scalable in found] == case.found


def test_channels_are_numbered_in_tensors_that_hold_some_of_them_or_several_times() -> None:
    case = NAMED["Slice and Gather of channels"]
    _, found = prepared(case.network)
    a, b, c = found[0].tied
    assert found[0].channels == 2
    assert a.index == (-1, 0, 1, *[-1] * 13)
    assert (b.index, c.index) == ((), (1, 0, 1))
    assert [tied.axis for tied in (a, b, c)] == [-3, -3, -3]
    np.testing.assert_array_equal(c.spread([5.0, 7.0], 1.0), np.array([7.0, 5.0, 7.0]).reshape(3, 1, 1))


def test_channels_may_lie_across_axes() -> None:
    case = NAMED["attention"]
    _, found = prepared(case.network)
    shapes = {tied.tensor: (tied.shape, tied.axis) for tied in found[0].tied}
    assert shapes == {
        **dict.fromkeys(("v0", "v1", "o2"), ((32,), -1)),
        **dict.fromkeys(("v2", "o1"), ((4, 8), None)),
        **dict.fromkeys(("v", "o0"), ((4, 1, 8), None)),
    }


def test_nodes_whose_single_number_becomes_many_are_named() -> None:
    expected = {
        "GELU with its half last": ("h",),
        "GELU with its half on the gate": ("d",),
        "swish with a constant": ("b",),
        "LayerNormalization in pieces": (),
        "Conv, Conv": (),
    }
    assert {name: prepared(NAMED[name].network)[1][0].widened for name in expected} == expected


def test_a_single_channel_is_left_alone() -> None:
    body = "a = Conv(x, w0) b = ReduceMean <axes=[1]> (a) c = Add(a, b) d = Conv(c, w1) e = Relu(d) y = Conv(e, w2)"
    _, found = prepared(network(body, weights={"w1": (1, 16, 1, 1), "w2": (8, 1, 1, 1)}))
    assert [told(scalable) for scalable in found] == ["x | a.0 shift branch", "c | d.0 shift branch"]  # a, b and c have one factor


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        pytest.param("b = PRelu(a, v)", {}, id="a computed slope"),
        pytest.param("b = Clip(a, lo)", {"lo": np.float32(-1.0)}, id="a lower bound other than zero"),
        pytest.param("b = Clip(a, , hi)", {"hi": np.float32(0.0)}, id="an upper bound alone"),
        pytest.param("c = ReduceMax(v) b = Clip(a, lo, c)", {"lo": np.float32(0.0)}, id="a computed upper bound"),
        pytest.param(
            "c = ReduceMean <axes=[0, 2, 3], keepdims=0> (v) b = InstanceNormalization(a, c, i)", {"i": (16,)}, id="a computed scale"
        ),
        pytest.param("b = Softmax <axis=1> (a)", {}, id="across channels"),
        pytest.param("c = ReduceMean <axes=[1]> (a) b = Sub(a, c)", {}, id="a mean of channels"),
        pytest.param("c = Sigmoid(a) b = Mul(a, c)", {}, id="swish"),
        pytest.param("b = HardSwish(a)", {}, id="hard-swish"),
        pytest.param("b = Max(a, zero)", {"zero": np.float32(0.0)}, id="an operator without a rule"),
        pytest.param("c = Shape(v) k = Mul(c, zero) p = Concat <axis=0> (k, k) b = Pad(a, p)", {"zero": np.int64(0)}, id="computed pads"),
        pytest.param(
            "c = Shape(v) d = Slice(c, i, j) e = Mul(d, z) b = ReduceSum(a, e)",
            {name: np.array([n]) for n, name in enumerate("zij")},
            id="computed axes",
        ),
        pytest.param(
            """b = Resize <mode="linear", coordinate_transformation_mode="tf_crop_and_resize"> (a, roi, scales)""",
            {"roi": np.array([0, 0, 0, 0, 1, 1, 2, 2], np.float32), "scales": np.ones(4, np.float32)},
            id="what is outside",
        ),
    ],
)
def test_what_is_not_homogeneous_or_not_known_is_left_as_it_is(body: str, weights: dict[str, Any]) -> None:
    text = f"a = Conv(x, w0) v = Sigmoid(x) {body} y = Conv(b, w1)"
    _, found = prepared(network(text, weights=weights, opset=14))
    assert not any(scalable.free for scalable in found)
    assert {tensor for scalable in found for tensor in scalable.tensors} == {"x", "b"}


def test_each_output_of_a_split_needs_a_name() -> None:
    model = network("a = Conv(x, w0) b, c = Split <axis=1> (a) y = Conv(b, w1)", weights={"w1": (8, 8, 1, 1)})
    assert next(told(scalable) for scalable in prepared(model)[1]) == "a b | y.0 shift"
    model.graph.node[1].output[1] = ""
    assert not any(scalable.free for scalable in prepared(model)[1])


def test_channels_are_not_followed_through_tensors_without_elements() -> None:
    model = NAMED["pooled, flattened, Gemm"].network
    plain, _ = prepared(model)
    found = find_scalable(plain, capture_facts(plain, feed(model, batch=0)))
    assert [told(scalable) for scalable in found] == ["x | a.0 shift branch", "d | y.0 shift branch"]


def test_a_vector_in_a_product_of_matrices_is_left_as_it_is() -> None:
    model = network("t = MatMul(x, w0) s = Sigmoid(v) a = MatMul(t, s) y = MatMul(t, w1)", inputs="float[4,16] x, float[24] v",
        outputs="y, a", weights={"w0": (16, 24), "w1": (24, 8)})  # fmt: skip
    assert [told(scalable) for scalable in prepared(model)[1]] == ["x | t.0 branch", "t | y.0 branch"]


@pytest.mark.parametrize(
    ("body", "given", "expected"),
    [
        pytest.param("a = MatMul(x, w) y = Add(a, b)", {}, [("x", "a")], id="a product with a bias"),
        pytest.param("y = Gemm(x, w, b)", {}, [("x", "y")], id="Gemm"),
        pytest.param("y = MatMul(x, w)", {}, [], id="no bias"),
        pytest.param("a = MatMul(x, w) c = Add(a, b) d = MatMul(x, w) y = Add(c, d)", {}, [], id="a reader of which has none"),
        pytest.param("a = MatMul(x, w) c = Add(a, b) d = Relu(x) y = Add(c, d)", {}, [("x", "a")], id="others read it, too"),
        pytest.param("y = MatMul(x, x)", {"inputs": "float[8,8] x"}, [], id="a product of computed matrices"),
        pytest.param(
            "y = Conv(x, k, b)", {"inputs": "float[N,8,4,4] x", "weights": {"k": (8, 8, 1, 1), "b": (8,)}}, [], id="a convolution"
        ),
    ],
)
def test_what_one_number_can_be_subtracted_from_is_found(body: str, given: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    options = {"inputs": "float[N,8] x", "weights": {"w": (8, 8), "b": (8,)}, **given}
    proto = network(body, **options)
    model = load(proto)
    prepare(model)
    found = find_shiftable(model, capture_facts(model, feed(proto, 1, batch=2)))
    assert [(one.tensors[0], one.readers[0].node) for one in found] == expected
    assert all((one.channels, one.shiftable, one.free) == (1, True, False) for one in found)
