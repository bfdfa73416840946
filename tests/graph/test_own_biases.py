from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from tests.graph.networks import Array, feed, network, place, plan_network, run

from zeropoint.graph.initializers import constant_array
from zeropoint.graph.load import load
from zeropoint.graph.materialize import materialize
from zeropoint.graph.prepare import prepare
from zeropoint.graph.store import serialize
from zeropoint.rules import lint_model
from zeropoint.targets import get_target

ROWS = "float[4,16] x"
ROUNDINGS = 8


def prepared(model: onnx.ModelProto) -> ir.Model:
    """Prepare, and check that outputs stay, and that preparing again changes nothing."""
    found = load(model)
    prepare(found)
    given = feed(model)
    for before, after in zip(run(model, given), run(found, given), strict=True):
        assert (before.dtype, before.shape) == (after.dtype, after.shape)
        tolerance = ROUNDINGS * float(np.spacing(np.abs(before).max()))
        np.testing.assert_allclose(after, before, rtol=0, atol=tolerance)
    content = serialize(found)
    prepare(found)
    assert serialize(found) == content
    return found


def bias_of(model: ir.Model, name: str = "y") -> ir.Value:
    [node] = [node for node in model.graph if node.name == name]
    assert not {"alpha", "beta"} & set(node.attributes)
    assert node.inputs[2] is not None
    assert len(node.inputs[2].uses()) == 1
    return node.inputs[2]


@pytest.mark.parametrize(
    ("body", "inputs", "shape", "channels"),
    [
        pytest.param("y = Conv(x, w)", "float[1,16,8,8] x", (20, 16, 3, 3), 20, id="Conv"),
        pytest.param("y = Conv(x, w, )", "float[1,16,8,8] x", (20, 16, 3, 3), 20, id="Conv, bias left out by an empty name"),
        pytest.param("y = Conv <group=16> (x, w)", "float[1,16,8,8] x", (32, 1, 3, 3), 32, id="Conv, depthwise"),
        pytest.param("y = ConvTranspose <group=2> (x, w)", "float[1,16,8,8] x", (16, 10, 3, 3), 20, id="ConvTranspose, grouped"),
        pytest.param("y = Gemm(x, w)", ROWS, (16, 20), 20, id="Gemm"),
        pytest.param("y = Gemm <transB=1> (x, w)", ROWS, (20, 16), 20, id="Gemm, transB"),
        pytest.param("y = Gemm(x, w)", "double[4,16] x", np.ones((16, 20)), 20, id="double"),
    ],
)
def test_a_missing_bias_becomes_zeros(body: str, inputs: str, shape: object, channels: int) -> None:
    model = prepared(network(body, inputs=inputs, weights={"w": shape}, outputs="double y" if "double" in inputs else "y"))
    bias = bias_of(model)
    weight = constant_array(model.graph.initializers["w"])
    assert (bias.name, constant_array(bias).dtype) == ("y/bias", weight.dtype)
    np.testing.assert_array_equal(constant_array(bias), np.zeros(channels))


@pytest.mark.parametrize("attributes", ["", "<beta=-3.0>", "<alpha=0.5>", "<alpha=0.5, beta=0.0>", "<transB=1, alpha=2.0, beta=0.5>"])
@pytest.mark.parametrize("shape", [(20,), (1, 20), (1,), (), (1, 1)], ids=str)
def test_a_gemm_gets_a_vector_and_no_factors(attributes: str, shape: tuple[int, ...]) -> None:
    weight = (20, 16) if "transB" in attributes else (16, 20)
    bias = np.full(shape, 0.75, np.float32)  # () would be taken for a shape
    model = prepared(network(f"y = Gemm {attributes} (x, w, b)", inputs=ROWS, weights={"w": weight, "b": bias}))
    assert constant_array(bias_of(model)).shape == (20,)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("a = Gemm(x, w, b) r = Relu(a) y = Gemm(r, v, b)", id="by another Gemm"),
        pytest.param("a = Gemm(x, w, b) r = Mul(a, b) y = Gemm(r, v, c)", id="by another operator"),
        pytest.param("a = Gemm <alpha=0.5> (x, w, b) r = Relu(a) y = Gemm(r, w, c)", id="weight"),
        pytest.param("a = Gemm(x, w, b) r = Gemm <beta=2.0> (a, w, b) y = Gemm <beta=3.0> (r, w, b)", id="with factors"),
    ],
)
def test_what_is_shared_is_copied(body: str) -> None:
    model = prepared(network(body, inputs=ROWS, weights={"w": (16, 16), "v": (16, 16), "b": (16,), "c": (16,)}))
    assert bias_of(model, "a").name != bias_of(model, "y").name


def test_a_bias_that_is_an_output_is_copied() -> None:
    model = prepared(network("y = Gemm(x, w, b)", inputs=ROWS, weights={"w": (16, 16), "b": (16,)}, outputs="y, b"))
    assert bias_of(model).name == "y/bias"


def test_a_name_that_is_taken_gets_a_number() -> None:
    proto = network("a = Relu(x) y = Gemm(a, w)", inputs=ROWS, weights={"w": (16, 16)})
    proto.graph.node[0].output[0] = proto.graph.node[1].input[0] = "y/bias"
    assert bias_of(prepared(proto)).name == "y/bias1"


def test_the_constant_that_two_adds_give_to_matmuls_is_copied() -> None:
    body = "m = MatMul(x, w) a = Add(b, m) r = Relu(a) n = MatMul(r, w) y = Add(n, b)"
    model = prepared(network(body, inputs="float[2,4,16] x", weights={"w": (16, 16), "b": (16,)}))
    read = {node.name: [value.name for value in node.inputs if value is not None] for node in model.graph if node.op_type == "Add"}
    assert read == {"a": ["a/bias", "m"], "y": ["n", "b"]}


NAN = np.array([np.nan] * 16, np.float32)
HUGE = np.full((16, 16), 3e38, np.float32)


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        pytest.param("s = ReduceMean <axes=[0]> (x) y = Gemm(x, w, s)", {}, id="computed"),
        pytest.param("y = Gemm(x, w, b)", {"b": (4, 1)}, id="a number for each row"),
        pytest.param("y = Gemm <alpha=2.0> (x, w, b)", {"b": (4, 16)}, id="a number for each entry"),
        pytest.param("r = Gemm(x, w, b) y = Gemm(r, w, b)", {"b": NAN}, id="NaN"),
        pytest.param("y = Gemm <alpha=2.0> (x, w, b)", {"w": HUGE, "b": (16,)}, id="a weight that would overflow"),
    ],
)
def test_what_has_no_such_form_stays(body: str, weights: dict[str, Any]) -> None:
    before = load(network(body, inputs=ROWS, weights={"w": (16, 16), **weights}))
    after = before.clone()
    prepare(after)
    assert serialize(after) == serialize(before)


@pytest.mark.parametrize(
    ("body", "inputs", "bias"),
    [
        pytest.param("y = Gemm(x, w, b)", f"{ROWS}, float[16] b", None, id="computed"),
        pytest.param("y = Gemm(x, w, b)", ROWS, (4, 1), id="a number for each row"),
    ],
)
def test_a_gemm_without_a_vector_stays_in_float_where_biases_are_integers(body: str, inputs: str, bias: object) -> None:
    model = network(body, inputs=inputs, weights={"w": (16, 16), "b": bias})
    [note] = place(model, "onnxruntime")[2].notes
    assert (note.where, note.kind) == ("y", "float")
    assert note.reason.startswith("Gemm stays in float: its bias is computed or no constant vector")
    assert place(model, "tensorrt")[2].notes == ()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("a = Conv(x, w1, b) r = Relu(a) c = Conv(r, w2, b) y = Softmax(c)", id="shared at different scales"),
        pytest.param("a = Conv(x, w, b) c = Conv(x, w, b) s = Sum(a, c) y = Softmax(s)", id="shared at one scale"),
        pytest.param("f = Flatten(x) g = Gemm <alpha=0.5> (f, m, s) y = Relu(g)", id="Gemm with one number"),
        pytest.param("f = Flatten(x) g = Gemm(f, q, s) r = Relu(g) y = Gemm <transB=1> (r, q, s)", id="a weight with a single scale"),
    ],
)
def test_the_onnxruntime_target_keeps_its_own_rules(body: str) -> None:
    tensors: dict[str, Array | tuple[int, ...]] = {"b": (16,), "m": (64, 20), "s": np.array([0.5], np.float32), "q": (64, 64)}
    planned = plan_network(network(body, inputs="float[1,16,2,2] x", weights=tensors), "onnxruntime")
    assert lint_model(materialize(planned.model, planned.plan), get_target("onnxruntime")).findings == ()
    multiplying = [node for node in planned.model.graph if node.op_type in ("Conv", "Gemm")]
    assert len([entry for entry in planned.plan.entries if entry.role == "bias"]) == len(multiplying)
