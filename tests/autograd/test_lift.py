"""Networks as modules: what they compute, what trains, where the rounding stands; the oracle is ONNX Runtime."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from tests.graph.networks import Feed, network, plan_network, run, run_all

from zeropoint.autograd.lift import Lifted, lift, trainable_weights
from zeropoint.errors import ModelError, PlanError
from zeropoint.graph.initializers import constant_array
from zeropoint.graph.load import load
from zeropoint.graph.materialize import materialize
from zeropoint.graph.model import Model
from zeropoint.graph.prepare import prepare
from zeropoint.graph.settle import settle
from zeropoint.plan import Plan, Reader

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 16, 8, 8)).astype(np.float32)
VECTOR = np.linspace(-1.0, 1.0, 16, dtype=np.float32)
RESIDUAL = network(
    "a = Conv(x, first, b) r = Relu(a) c = Conv(r, second, b) s = Add(r, c) t = Relu(s) p = GlobalAveragePool(t) f = Flatten(p) "
    "y = Gemm(f, head, b)",
    inputs="float[N,16,8,8] x",
    weights={"b": VECTOR, "head": (16, 16)},
)
ATTENTION = network(
    "m = MatMul(x, wq) q = Add(m, bq) k = MatMul(x, wk) kt = Transpose<perm=[0,2,1]>(k) s = MatMul(q, kt) a = Softmax<axis=-1>(s) "
    "v = MatMul(x, wv) o = MatMul(a, v) n = Add(x, o) y = LayerNormalization<axis=-1>(n, g, h)",
    inputs="float[N,4,16] x",
    weights={"wq": (16, 16), "wk": (16, 16), "wv": (16, 16), "bq": VECTOR, "g": VECTOR + 2.0, "h": VECTOR},
    opset=17,
)
RESHAPED = network(
    "s = Shape(x) n = Gather(s, zero) shape = Concat<axis=0>(n, rest) f = Reshape(x, shape) y = MatMul(f, w)",
    inputs="float[N,16,8,8] x",
    weights={"zero": np.array([0], np.int64), "rest": np.array([1024], np.int64), "w": (1024, 16)},
)
NETWORKS = {
    "residual": (RESIDUAL, {"x": X}),
    "attention": (ATTENTION, {"x": X[:, :, :1, :4].reshape(2, 4, 16).copy()}),
    "reshaped": (RESHAPED, {"x": X}),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


@cache
def prepared(name: str) -> Model:
    model = load(NETWORKS[name][0], min_opset=13)
    prepare(model)
    return model


@cache
def planned(name: str, target: str) -> Plan:
    return plan_network(NETWORKS[name][0], target, feeds=[NETWORKS[name][1]]).plan


def outputs(module: Lifted, feed: Feed) -> Any:
    with torch.no_grad():
        return module(*(torch.from_numpy(feed[each]) for each in module.inputs)).numpy()


@every_network
@pytest.mark.parametrize("batch", [1, 2], ids=lambda size: f"batch {size}")
def test_a_lifted_network_computes_what_the_network_does(name: str, batch: int) -> None:
    feed = {key: array[:batch] for key, array in NETWORKS[name][1].items()}
    [expected] = run(prepared(name), feed, ["y"])
    np.testing.assert_allclose(outputs(lift(prepared(name)), feed), expected, rtol=1e-4, atol=1e-4)


@every_network
@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime", "openvino"])
def test_rounding_stands_where_the_plan_says(name: str, target: str) -> None:
    feed, plan = NETWORKS[name][1], planned(name, target)
    settled, pairs = settle(prepared(name), plan)
    module = lift(settled, pairs)
    [expected] = run(materialize(prepared(name), plan), feed, ["y"])
    [plainly] = run(prepared(name), feed, ["y"])
    error = np.abs(outputs(module, feed) - expected).max()
    assert error <= 0.2 * np.abs(plainly - expected).max()  # a code that fell on the other side, here and there
    activations = {entry.tensor for entry in plan.entries if entry.role != "bias"}
    assert module.quantizer_of.keys() == activations


def test_weights_are_parameters_under_their_names() -> None:
    module = lift(prepared("residual"))
    assert module.weights.keys() == trainable_weights(prepared("residual"))
    assert {"first", "second", "head"} <= dict(module.named_parameters()).keys()


def test_dotted_names_are_nested_and_those_that_are_taken_are_not() -> None:
    names = ["block.0.weight", "block", "training", "forward.weight", "a..b"]
    body = " ".join(f'n{number} = Mul({"x" if number == 0 else f"n{number - 1}"}, "{name}")' for number, name in enumerate(names))
    model = load(
        network(body.replace(f"n{len(names) - 1}", "y"), inputs="float[2] x", weights=dict.fromkeys(names, np.ones(2, np.float32)))
    )
    prepare(model)
    module = lift(model, trainable=names)
    assert {*module.weights} == {*names}
    found = dict(module.named_parameters())
    assert "block.0.weight" in found
    assert len(found) == len(names)
    np.testing.assert_array_equal(outputs(module, {"x": np.array([1.0, 2.0], np.float32)}), [1.0, 2.0])
    copy_of = pickle.loads(pickle.dumps(module.state_dict()))
    module.load_state_dict(copy_of)


TRAINABLE = [
    pytest.param("y = Conv(x, w0, b)", {"w0", "b"}, id="a convolution"),
    pytest.param("m = MatMul(f, w1) y = Add(m, b)", {"w1", "b"}, id="a product and its bias"),
    pytest.param("y = Mul(x, k)", set(), id="a factor is none"),
    pytest.param("y = PRelu(x, slope)", {"slope"}, id="slopes"),
    pytest.param("y = Gather(table, i)", {"table"}, id="an embedding"),
    pytest.param("y = LayerNormalization(f, g, h)", {"g", "h"}, id="a norm"),
    pytest.param("y = BatchNormalization(z, g, h, mean, var)", {"g", "h"}, id="running statistics are none"),
]


@pytest.mark.parametrize(("body", "expected"), TRAINABLE)
def test_what_trains(body: str, expected: set[str]) -> None:
    weights = {"b": VECTOR, "w1": (16, 16), "k": (16, 1, 1), "slope": (16, 1, 1), "table": (5, 16)}
    weights |= {"g": VECTOR, "h": VECTOR, "mean": VECTOR, "var": VECTOR**2}
    inputs = "float[1,16,8,8] x, float[1,16] f, float[1,16,8] z, int64[3] i"
    assert trainable_weights(load(network(body, inputs=inputs, weights=weights, opset=17))) == expected


def test_shapes_and_indices_stay_where_the_host_reads_them() -> None:
    module = lift(prepared("reshaped"))
    assert {"zero", "rest"} <= module.on_host.keys()
    assert not any(tensor.dtype == torch.int64 for tensor in module.state_dict().values())


def test_tensors_inside_are_given_by_name() -> None:
    module, feed = lift(prepared("residual")), NETWORKS["residual"][1]
    found, inside = module.features([torch.from_numpy(X)], ("t", "x", "nowhere"))
    assert inside.keys() == {"t", "x"}
    np.testing.assert_allclose(inside["t"].detach(), run_all(RESIDUAL, feed)["t"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[0].detach(), outputs(module, feed))


def test_steps_one_part_after_the_other_are_the_whole() -> None:
    module, feed = lift(prepared("residual")), NETWORKS["residual"][1]
    with torch.no_grad():
        tensors = {"x": torch.from_numpy(X)}
        for first in range(0, len(module.steps), 3):
            tensors = module.advanced(tensors, slice(first, first + 3))
    assert tensors.keys() == {"y"}
    np.testing.assert_array_equal(tensors["y"].numpy(), outputs(module, feed))


def test_gradients_reach_all_weights_and_scales() -> None:
    from zeropoint.autograd.fake_quantize import FakeQuantize

    settled, pairs = settle(prepared("residual"), planned("residual", "onnxruntime"))
    module = lift(settled, pairs, quantizer=lambda entry, rank: FakeQuantize(entry.qparams(), entry.spec, rank, learning="scale"))
    module(torch.from_numpy(X)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in module.weights.values())
    assert all(parameter.grad is not None for parameter in module.quantizers.parameters())


def test_tensors_of_a_group_share_their_numbers() -> None:
    plan = planned("residual", "tensorrt")
    first = next(entry for entry in plan.entries if entry.role == "activation")
    entries = tuple(
        replace(first, tensor=entry.tensor, readers=entry.readers, group="together") if entry.role == "activation" else entry
        for entry in plan.entries
    )
    module = lift(prepared("residual"), replace(plan, entries=entries))
    shared = {id(module.quantizer_of[entry.tensor]) for entry in entries if entry.role == "activation"}
    assert len(shared) == 1
    assert len(module.quantizers) == 1 + sum(entry.role == "weight" for entry in entries)


def test_a_group_has_one_scale() -> None:
    plan = planned("residual", "tensorrt")
    entries = tuple(
        replace(entry, group="together", scale=(number,)) if entry.role == "activation" else entry
        for number, entry in enumerate(plan.entries, start=1)
    )
    with pytest.raises(PlanError, match=r"found other numbers than those of .*, expected the same in all of group 'together'"):
        lift(prepared("residual"), replace(plan, entries=entries))


def test_a_copy_is_independent() -> None:
    settled, pairs = settle(prepared("residual"), planned("residual", "tensorrt"))
    module, feed = lift(settled, pairs), NETWORKS["residual"][1]
    other = copy.deepcopy(module)
    before = outputs(module, feed)
    with torch.no_grad():
        for parameter in other.weights.values():
            parameter.mul_(2.0)
        for quantizer in other.quantizers:
            quantizer.scale.mul_(2.0)
    np.testing.assert_array_equal(outputs(module, feed), before)
    assert not np.array_equal(outputs(other, feed), before)


MISFITS = [
    pytest.param({"tensor": "nowhere"}, "'nowhere' is not in the network", id="no such tensor"),
    pytest.param({"readers": (Reader("nobody", 0),)}, "found no node 'nobody' with an input 0", id="no such node"),
    pytest.param({"readers": (Reader("a", 5),)}, "found no node 'a' with an input 5", id="no such input"),
    pytest.param({"readers": (Reader("a", 1),)}, "node 'a' reads 'first' as its input 1", id="a reader of another tensor"),
]


@pytest.mark.parametrize(("change", "message"), MISFITS)
def test_plans_that_do_not_fit(change: dict, message: str) -> None:
    plan = planned("residual", "tensorrt")
    entry = next(entry for entry in plan.entries if entry.role == "activation")
    with pytest.raises(PlanError, match=message):
        lift(prepared("residual"), replace(plan, entries=(replace(entry, **change),)))


def test_codes_of_a_bias_need_those_of_its_product() -> None:
    plan = planned("residual", "onnxruntime")
    biases = tuple(entry for entry in plan.entries if entry.role == "bias")
    with pytest.raises(PlanError, match="not for both of what it is added to the product of"):
        lift(prepared("residual"), replace(plan, entries=biases))


def test_a_bias_is_rounded_at_the_scale_of_its_product() -> None:
    plan, coarse = planned("residual", "onnxruntime"), 64.0  # so that all codes of the input are 0, and the bias is what is left
    weight, data = plan.entry("first"), replace(plan.entry("x"), scale=(coarse,), range=())
    [bias_entry] = [entry for entry in plan.entries if entry.role == "bias" and entry.readers[0].node == "a"]
    scale = coarse * np.asarray(weight.scale, np.float32)
    module = lift(prepared("residual"), replace(plan, entries=(data, weight, bias_entry)))
    _, inside = module.features([torch.from_numpy(X)], ("a",))
    bias = constant_array(prepared("residual").graph.initializers[bias_entry.tensor])
    np.testing.assert_allclose(inside["a"].detach()[0, :, 0, 0], np.rint(bias / scale) * scale, rtol=1e-6)


def test_the_number_of_inputs_is_checked() -> None:
    with pytest.raises(ModelError, match="found 2 tensors, expected 1: x"):
        lift(prepared("residual"))(torch.from_numpy(X), torch.from_numpy(X))
