from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from tests.graph.networks import Array, Feed, Planned, feed, network, plan_network, run
from tests.graph.placements import CASES, Case

from zeropoint.errors import PlanError
from zeropoint.graph.load import load
from zeropoint.graph.materialize import WeightStorage, materialize
from zeropoint.graph.store import serialize, serialized_size
from zeropoint.plan import Correction, Entry, Plan, Reader
from zeropoint.rules import lint_model
from zeropoint.targets import TARGETS, get_target

every_target = pytest.mark.parametrize("target", TARGETS)
every_storage = pytest.mark.parametrize("storage", ["integer", "float"])

NETWORKS = {
    "Conv": network(
        "a = Conv <pads=[1,1,1,1]> (x, w1, b1) r = Relu(a) c = Conv <group=2> (r, w2, b2) p = MaxPool <kernel_shape=[2,2]> (c) "
        "y = Softmax(p)",
        weights={"w1": (24, 16, 3, 3), "b1": (24,), "w2": (16, 12, 1, 1), "b2": (16,)},
    ),
    "residual": network(
        "a = Conv(x, w1) r = Relu(a) b = Conv(r, w2) d = Add(b, r) s = Relu(d) e = Conv(s, w3) g = GlobalAveragePool(e) f = Flatten(g) "
        "y = Gemm <transB=1> (f, w4, b4)",
        weights={"w4": (20, 16), "b4": (20,)},
    ),
    "Gemm": network(
        "a = Gemm <transB=1> (x, w1, b1) r = Relu(a) y = Gemm <alpha=0.5, beta=2.0> (r, w2, b2)",
        inputs="float[4,16] x",
        weights={"w1": (32, 16), "b1": (32,), "w2": (32, 20), "b2": (20,)},
    ),
    "MatMul": network(
        "a = MatMul(x, w1) t = Transpose <perm=[0,2,1]> (a) s = MatMul(a, t) b = MatMul(w2, s) y = Softmax(b)",
        inputs="float[2,16,16] x",
        weights={"w1": (16, 16), "w2": (16, 16)},
    ),
    "shared": network(
        "a = Gemm <transB=1> (x, w, b) r = Relu(a) c = Gemm(r, w, b) y = Softmax(c)",
        inputs="float[4,16] x",
        weights={"w": (16, 16), "b": (16,)},
    ),
    "tied": network(
        "e = Gather <axis=1> (table, ids) f = Transpose <perm=[1,0]> (e) y = MatMul(f, table)",
        inputs="int64[5] ids",
        weights={"table": (16, 32)},
    ),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


# --- the oracle: the float network, a node at a time, with rounding written out between them --------------------------------


def fake_quantized(x: Array, entry: Entry) -> Array:
    lowest, highest = {"int8": (-128, 127), "uint8": (0, 255), "int32": (-(2**31), 2**31 - 1)}[entry.format]
    shape = [1 if axis != entry.axis else -1 for axis in range(x.ndim)]
    scale = np.asarray(entry.scale, np.float32).reshape(shape if entry.axis is not None else ())
    [zero_point] = entry.zero_point
    codes = np.clip(np.rint(x / scale).astype(np.float64) + zero_point, lowest + entry.narrow, highest)
    return ((codes - zero_point).astype(np.float32) * scale).astype(np.float32)


def run_with_rounding(planned: Planned, given: Feed) -> dict[str, Array]:
    """Run each node in a session of its own; a node input that the plan names sees the rounded tensor."""
    through = {(reader.node, reader.input): entry for entry in planned.plan.entries for reader in entry.readers}
    tensors = dict(given)
    tensors |= {str(name): v.const_value.numpy() for name, v in planned.model.graph.initializers.items() if v.const_value is not None}
    proto = ir.to_proto(planned.model)
    for node in proto.graph.node:
        arrays = {}
        alone = onnx.NodeProto()
        alone.CopyFrom(node)
        for index, name in enumerate(node.input):
            entry = through.get((node.name, index))
            if name:
                alone.input[index] = f"{name}.{index}"
                arrays[alone.input[index]] = tensors[name] if entry is None else fake_quantized(tensors[name], entry)
        inputs = [
            onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in arrays.items()
        ]
        outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in node.output]
        graph = onnx.helper.make_graph([alone], "alone", inputs, outputs)
        model = onnx.helper.make_model(graph, opset_imports=proto.opset_import, ir_version=8)
        tensors |= dict(zip(node.output, run(model, arrays), strict=True))
    return tensors


@every_storage
@every_target
@every_network
def test_runs_like_the_float_network_with_rounding_in_between(name: str, target: str, storage: WeightStorage) -> None:
    planned = plan_network(NETWORKS[name], target)
    given = feed(NETWORKS[name], seed=9)
    quantized = materialize(planned.model, planned.plan, weight_storage=storage)
    expected = run_with_rounding(planned, given)["y"]
    [found] = run(quantized, given, ["y"])
    np.testing.assert_array_max_ulp(found, expected, maxulp=1)
    [unrounded] = run(planned.model, given, ["y"])
    assert not np.array_equal(found, unrounded)


@every_target
@every_network
def test_both_ways_to_store_weights_give_the_same_outputs(name: str, target: str) -> None:
    planned = plan_network(NETWORKS[name], target)
    given = feed(NETWORKS[name], seed=9)
    integer, floating = (materialize(planned.model, planned.plan, weight_storage=storage) for storage in ("integer", "float"))
    np.testing.assert_array_equal(run(integer, given, ["y"])[0], run(floating, given, ["y"])[0])


@every_target
@every_network
def test_optimized_by_the_runtime_it_stays_near_the_float_network(name: str, target: str) -> None:
    calibration = [feed(NETWORKS[name], seed) for seed in range(4)]
    planned = plan_network(NETWORKS[name], target, feeds=calibration)
    [expected] = run(planned.model, calibration[0], ["y"])
    [found] = run(materialize(planned.model, planned.plan), calibration[0], ["y"], optimize=True)
    assert np.square(found - expected).sum() < 1e-2 * np.square(expected).sum()


# --- every network of the placement table ----------------------------------------------------------------------------------


@every_target
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_keeps_the_rules_of_its_target_and_the_names_of_its_outputs(case: Case, target: str) -> None:
    planned = plan_network(case.network, target)
    quantized = materialize(planned.model, planned.plan)
    foreign = {"default-domain"} if any(node.domain for node in case.network.graph.node) else set()
    assert {finding.rule for finding in lint_model(quantized, get_target(target)).findings} <= foreign
    proto = onnx.ModelProto.FromString(serialize(quantized))
    assert [value.name for value in proto.graph.output] == [value.name for value in case.network.graph.output]
    assert all(array.size for array in run(proto, feed(case.network)))
    named = {entry.tensor for entry in planned.plan.entries if entry.role == "activation"}
    assert {node.input[0] for node in proto.graph.node if node.op_type == "QuantizeLinear"} == named


# --- what stays, and what is stored ----------------------------------------------------------------------------------------

DYNAMIC = network("a = Conv(x, w1) r = Relu(a) y = Conv(r, w2)", inputs="float[N,16,H,8] x")


def test_names_and_dynamic_axes_stay() -> None:
    DYNAMIC.doc_string = "about"
    planned = plan_network(DYNAMIC, "tensorrt")
    proto = onnx.ModelProto.FromString(serialize(materialize(planned.model, planned.plan)))
    [dynamic] = proto.graph.input
    assert [dim.dim_param or dim.dim_value for dim in dynamic.type.tensor_type.shape.dim] == ["N", 16, "H", 8]
    assert [node.name for node in proto.graph.node if "Linear" not in node.op_type] == ["a", "r", "y"]
    assert proto.doc_string == "about"
    assert run(proto, feed(DYNAMIC, batch=3))[0].shape == (3, 16, 3, 8)


@every_storage
def test_the_float_model_stays_as_it_is(storage: WeightStorage) -> None:
    planned = plan_network(NETWORKS["Conv"], "onnxruntime")
    before = serialize(planned.model)
    materialize(planned.model, planned.plan, weight_storage=storage)
    assert serialize(planned.model) == before


def test_the_same_plan_gives_the_same_bytes() -> None:
    planned = plan_network(NETWORKS["residual"], "onnxruntime")
    first, second = (serialize(materialize(planned.model, planned.plan)) for _ in range(2))
    assert first == second


def test_integer_weights_take_a_quarter() -> None:
    model = network("a = MatMul(x, w) y = Softmax(a)", inputs="float[1,256] x", weights={"w": (256, 256)})
    planned = plan_network(model, "tensorrt")
    integer, floating = (serialized_size(materialize(planned.model, planned.plan, weight_storage=how)) for how in ("integer", "float"))
    original = serialized_size(planned.model)
    assert integer / original == pytest.approx(0.25, abs=0.02)
    assert floating / original == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        pytest.param("a = Conv(x, w) r = Relu(a) c = Conv(r, w) y = Softmax(c)", set(), id="two readers"),
        pytest.param("a = Conv(x, w) r = Relu(a) s = Sum(r, w) y = Softmax(s)", {"w"}, id="a float reader"),
    ],
)
def test_a_shared_weight_is_stored_once(body: str, kept: set[str]) -> None:
    planned = plan_network(network(body, inputs="float[16,16,1,1] x"), "tensorrt")
    proto = onnx.ModelProto.FromString(serialize(materialize(planned.model, planned.plan)))
    stored = {tensor.name for tensor in proto.graph.initializer if len(tensor.dims) == 4}
    assert stored == {"w/quantized"} | kept
    assert sum(node.input[0] == "w/quantized" for node in proto.graph.node if node.op_type == "DequantizeLinear") == 1


def test_a_tied_table_is_gathered_in_float() -> None:
    planned = plan_network(NETWORKS["tied"], "tensorrt")
    proto = onnx.ModelProto.FromString(serialize(materialize(planned.model, planned.plan)))
    [gather] = [node for node in proto.graph.node if node.op_type == "Gather"]
    [product] = [node for node in proto.graph.node if node.op_type == "MatMul"]
    assert (gather.input[0], product.input[1]) == ("table", "table/dequantized")


def test_what_an_output_shows_is_not_rounded() -> None:
    model = network("a = Conv(x, w1) y = Relu(a) c = Conv(y, w2) z = Softmax(c)", outputs="y, z")
    planned = plan_network(model, "tensorrt")
    proto = onnx.ModelProto.FromString(serialize(materialize(planned.model, planned.plan)))
    [relu] = [node for node in proto.graph.node if node.op_type == "Relu"]
    assert relu.output[0] == "y"


def test_a_plan_without_entries_changes_nothing() -> None:
    planned = plan_network(NETWORKS["Conv"], "tensorrt")
    assert serialize(materialize(planned.model, Plan(target="tensorrt", entries=()))) == serialize(planned.model)


def test_corrections_are_added_to_biases() -> None:
    model = network("a = Conv(x, w, b) y = Relu(a)", weights={"b": np.zeros(16, np.float32)})
    planned = plan_network(model, "tensorrt")
    added = tuple(float(channel) for channel in range(16))
    corrected = materialize(planned.model, replace(planned.plan, corrections=(Correction(tensor="b", added=added, reason="test"),)))
    given = {"x": np.zeros((1, 16, 8, 8), np.float32)}
    np.testing.assert_array_equal(run(corrected, given)[0][0, :, 0, 0], added)
    assert not run(planned.model, given)[0].any()


@pytest.mark.parametrize(
    ("tensor", "added", "message"),
    [
        pytest.param("other", (1.0,), "the network has no such constant", id="no such tensor"),
        pytest.param("x", (1.0,), "the network has no such constant", id="no constant"),
        pytest.param("b", (1.0, 2.0), "found 2 numbers, expected 16", id="too few numbers"),
    ],
)
def test_corrections_that_do_not_fit_say_so(tensor: str, added: tuple[float, ...], message: str) -> None:
    planned = plan_network(network("a = Conv(x, w, b) y = Relu(a)", weights={"b": (16,)}), "tensorrt")
    plan = replace(planned.plan, corrections=(Correction(tensor=tensor, added=added, reason=""),))
    with pytest.raises(PlanError, match=f"^plan: correction of '{tensor}': {message}"):
        materialize(planned.model, plan)


# --- names that are taken --------------------------------------------------------------------------------------------------


def renamed(model: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    for node in model.graph.node:
        for strings in (node.input, node.output):
            strings[:] = [names.get(name, name) for name in strings]
    for tensor in model.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    return model


@pytest.mark.parametrize("taken", ["scale", "zero_point", "quantized", "dequantized"])
@pytest.mark.parametrize("tensor", ["x", "w"])
@pytest.mark.parametrize("kind", ["constant", "computed"])
def test_names_that_are_taken_are_not_taken_again(taken: str, tensor: str, kind: str) -> None:
    clash = {"t": f"{tensor}/{taken}"} if kind == "computed" else {"v": f"{tensor}/{taken}"}
    model = renamed(network("a = Conv(x, w) t = Erf(a) s = Sum(t, v) y = Softmax(s)", weights={"v": (1, 16, 8, 8)}), clash)
    planned = plan_network(model, "tensorrt")
    quantized = materialize(planned.model, planned.plan)
    names = [*quantized.graph.initializers, *(value.name for node in quantized.graph for value in node.outputs)]
    assert names.count(f"{tensor}/{taken}") == names.count(f"{tensor}/{taken}1") == 1
    assert len(set(names)) == len(names)
    given = feed(model)
    np.testing.assert_array_max_ulp(run(quantized, given)[0], run_with_rounding(planned, given)["y"], maxulp=1)


# --- plans that don't fit --------------------------------------------------------------------------------------------------

Break = Callable[[Entry], Entry]
X, W = "x", "w1"
UNFIT: list[tuple[str, str, Break, str]] = [
    ("unknown tensor", X, lambda e: replace(e, tensor="other"), r"tensor 'other' is not in the network, which has \d+ tensors"),
    ("unknown node", X, lambda e: replace(e, readers=(Reader("other", 0),)), "tensor 'x': node 'other' does not read it as its input 0"),
    ("another input", X, lambda e: replace(e, readers=(Reader("a", 1),)), "node 'a' does not read it as its input 1"),
    ("no such input", X, lambda e: replace(e, readers=(Reader("a", 7),)), "node 'a' does not read it as its input 7"),
    ("negative input", W, lambda e: replace(e, readers=(Reader("a", -1),)), "node 'a' does not read it as its input -1"),
    ("a reader twice", X, lambda e: replace(e, readers=e.readers * 2), "node 'a' does not read it as its input 0"),
    ("too few scales", W, lambda e: replace(e, scale=e.scale[:3]), r"tensor 'w1': scale: found shape \(3,\)"),
    ("too many scales", W, lambda e: replace(e, scale=e.scale * 2), r"tensor 'w1': scale: found shape \(32,\)"),
    (
        "too few scales for a full range",
        W,
        lambda e: replace(e, scale=e.scale[:3], narrow=False),
        r"tensor 'w1': scale: found shape \(3,\)",
    ),
    ("no such axis", W, lambda e: replace(e, axis=4), "tensor 'w1': axis: found 4"),
    ("several scales without an axis", W, lambda e: replace(e, axis=None), "tensor 'w1': "),
    ("scale 0", X, lambda e: replace(e, scale=(0.0,)), "tensor 'x': scale: found 0.0"),
    ("scale that vanishes in float32", X, lambda e: replace(e, scale=(1e-60,)), "tensor 'x': scale: found 0.0"),
]


@every_storage
@pytest.mark.parametrize(("tensor", "broken", "message"), [case[1:] for case in UNFIT], ids=[case[0] for case in UNFIT])
def test_a_plan_that_does_not_fit_says_where(tensor: str, broken: Break, message: str, storage: WeightStorage) -> None:
    planned = plan_network(network("a = Conv(x, w1) y = Relu(a)"), "tensorrt")
    entries = tuple(broken(entry) if entry.tensor == tensor else entry for entry in planned.plan.entries)
    with pytest.raises(PlanError, match=f"^plan: .*{message}"):
        materialize(planned.model, replace(planned.plan, entries=entries), weight_storage=storage)


@pytest.mark.parametrize("role", ["weight", "bias"])
def test_a_computed_tensor_is_no_constant(role: Literal["weight", "bias"]) -> None:
    planned = plan_network(network("a = Conv(x, w1) y = Relu(a)"), "tensorrt")
    entries = tuple(replace(entry, role=role) for entry in planned.plan.entries)
    with pytest.raises(PlanError, match=r"^plan: tensor 'x': found a computed tensor, expected a constant"):
        materialize(planned.model, replace(planned.plan, entries=entries))


def test_a_plan_of_another_network_says_so() -> None:
    planned = plan_network(network("a = Conv(x, w1) r = Relu(a) y = Conv(r, w2)"), "tensorrt")
    other = load(network("a = Conv(x, w1) y = Relu(a)"))
    with pytest.raises(PlanError, match="was it made for another one"):
        materialize(other, planned.plan)


@every_storage
@pytest.mark.parametrize("format", ["int16", "uint16", "int4", "uint4"])
def test_a_format_that_the_opset_does_not_know_is_an_error(format: str, storage: WeightStorage) -> None:
    def written(opset: int) -> ir.Model:
        planned = plan_network(network("a = Conv(x, w1) y = Relu(a)", opset=opset), "tensorrt")
        entries = tuple(replace(entry, format=format) if entry.tensor == "x" else entry for entry in planned.plan.entries)
        return materialize(planned.model, replace(planned.plan, entries=entries), weight_storage=storage)

    with pytest.raises(PlanError, match=rf"^plan: tensor 'x': found format {format}, which ONNX knows from opset 21, in a .* opset 20;"):
        written(20)
    assert written(21).graph.opset_imports[""] == 21
    run(written(21), feed(network("y = Relu(x)")))
