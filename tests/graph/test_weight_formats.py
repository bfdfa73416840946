"""Weights of 4 bits, and with a scale for the whole, for a channel or for a block: what runtimes make of the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from tests.graph.networks import QUICK, Array, Feed, Planned, feed, network, plan_network, run

from zeropoint.errors import PlanError
from zeropoint.graph.load import load
from zeropoint.graph.materialize import WeightStorage, materialize
from zeropoint.graph.store import serialize, serialized_size
from zeropoint.inspection import inspect_model
from zeropoint.numerics.packing import pack4
from zeropoint.plan import Entry, from_json, to_json
from zeropoint.rules import lint_model
from zeropoint.runtime.openvino import Session as OpenVino
from zeropoint.runtime.openvino import is_installed
from zeropoint.targets import TARGETS, get_target

NETWORKS = {
    "Conv": network(
        "a = Conv <pads=[1,1,1,1]> (x, w1, b1) r = Relu(a) c = Conv <group=2> (r, w2, b2) p = MaxPool <kernel_shape=[2,2]> (c) "
        "y = Softmax(p)",
        weights={"w1": (32, 16, 3, 3), "b1": (32,), "w2": (16, 16, 1, 1), "b2": (16,)},
        opset=21,
    ),
    "residual": network(
        "a = Conv(x, w1) r = Relu(a) d = Conv <group=16> (r, w2) b = Conv(d, w3) s = Add(b, r) g = GlobalAveragePool(s) f = Flatten(g) "
        "y = Gemm <transB=1> (f, w4, b4)",
        weights={"w2": (16, 1, 1, 1), "w4": (20, 16), "b4": (20,)},
        opset=21,
    ),
    "Gemm": network(
        "a = Gemm <transB=1> (x, w1, b1) r = Relu(a) y = Gemm(r, w2)",
        inputs="float[4,16] x",
        weights={"w1": (32, 16), "b1": (32,), "w2": (32, 20)},
        opset=21,
    ),
    "MatMul": network(
        "a = MatMul(x, w1) p = Add(a, b1) r = Relu(p) b = MatMul(r, w2) y = Softmax(b)",
        inputs="float[2,16,16] x",
        weights={"w1": (16, 32), "b1": (32,), "w2": (32, 16)},
        opset=21,
    ),
    "matrices": network(
        "a = MatMul(x, w1) p = Add(a, b1) y = MatMul(p, w2)",
        inputs="float[4,16] x",
        weights={"w1": (16, 32), "b1": (32,), "w2": (32, 17)},
        opset=21,
    ),
    "ConvTranspose": network("a = Conv(x, w1) c = ConvTranspose(a, w2) y = Softmax(c)", weights={"w2": (16, 17, 3, 3)}, opset=21),
}
GRANULARITIES = ("channel", "tensor", "block:8")
OPTIMIZATIONS = {
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
LARGEST_CODE = {"int4": 7, "int8": 127}

every_network = pytest.mark.parametrize("name", NETWORKS)
every_target = pytest.mark.parametrize("target", TARGETS)
every_storage = pytest.mark.parametrize("storage", ["integer", "float"])
every_form = pytest.mark.parametrize(
    ("format", "granularity"), [form for form in product(("int4", "int8"), GRANULARITIES) if form != ("int8", "channel")]
)


def planned_for(name: str, target: str, format: Any, granularity: str) -> Planned:
    model = NETWORKS[name]
    recipe = replace(QUICK, weight_format=format, weight_granularity=granularity)
    return plan_network(model, target, recipe=recipe, feeds=[feed(model, seed) for seed in range(4)])


def weights_of(planned: Planned) -> list[Entry]:
    return [entry for entry in planned.plan.entries if entry.role == "weight"]


def rounded(weight: Array, entry: Entry) -> Array:
    """What the codes of a weight stand for: an element at a time."""
    found = np.zeros(weight.shape, np.float32)
    blocks = np.reshape(np.asarray(entry.scale, np.float32), entry.scale_shape) if entry.block else None
    for place in np.ndindex(weight.shape):
        if blocks is not None and entry.axis is not None and entry.block is not None:
            scale = blocks[tuple(i // entry.block if axis == entry.axis else i for axis, i in enumerate(place))]
        else:
            scale = np.float32(entry.scale[0 if entry.axis is None else place[entry.axis]])
        largest = LARGEST_CODE[entry.format]
        scaled = np.float32(weight[place]) / scale
        found[place] = np.float32(max(-largest, min(largest, int(np.rint(scaled))))) * scale
    return found


def with_float_weights(planned: Planned) -> onnx.ModelProto:
    """The quantized network, with floats for weights that numpy has rounded, and nothing for a runtime to dequantize."""
    entries = tuple(entry for entry in planned.plan.entries if entry.role != "weight")
    proto = onnx.ModelProto.FromString(serialize(materialize(planned.model, replace(planned.plan, entries=entries))))
    for tensor in proto.graph.initializer:
        entry = next((entry for entry in weights_of(planned) if entry.tensor == tensor.name), None)
        if entry is not None:
            tensor.CopyFrom(numpy_helper.from_array(rounded(numpy_helper.to_array(tensor), entry), tensor.name))
    return proto


def run_at(model: onnx.ModelProto, given: Feed, level: onnxruntime.GraphOptimizationLevel) -> Array:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = level, 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], given)[0])


def sqnr(expected: Array, found: Array) -> float:
    noise = np.square(found.astype(np.float64) - expected).sum()
    return float("inf") if noise == 0 else float(10 * np.log10(np.square(expected.astype(np.float64)).sum() / noise))


def stored(model: ir.Model) -> Mapping[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in onnx.ModelProto.FromString(serialize(model)).graph.initializer}


# --- what is in the file ---------------------------------------------------------------------------------------------------


@every_network
@every_target
def test_codes_of_4_bits_are_packed_and_the_file_keeps_onnx_rules(name: str, target: str) -> None:
    planned = planned_for(name, target, "int4", "channel")
    quantized = materialize(planned.model, planned.plan)
    tensors = stored(quantized)
    for entry in weights_of(planned):
        codes = tensors[f"{entry.tensor}/quantized"]
        assert (codes.data_type, codes.raw_data) == (onnx.TensorProto.INT4, pack4(numpy_helper.to_array(codes)).tobytes())
        assert np.abs(numpy_helper.to_array(codes).astype(int)).max() <= 7
    proto = onnx.ModelProto.FromString(serialize(quantized))
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(proto), full_check=True)
    assert proto.ir_version >= 10


def test_4_bits_take_an_eighth_and_blocks_a_scale_each() -> None:
    model = network("a = MatMul(x, w) y = Softmax(a)", inputs="float[1,256] x", weights={"w": (256, 256)}, opset=21)
    sizes = []
    for granularity in ("channel", "block:32"):
        recipe = replace(QUICK, weight_format="int4", weight_granularity=granularity)
        planned = plan_network(model, "openvino", recipe=recipe)
        sizes.append(serialized_size(materialize(planned.model, planned.plan)) / serialized_size(planned.model))
    assert sizes == pytest.approx([1 / 8, 1 / 8 + 1 / 32], abs=0.01)


@every_form
def test_what_was_written_is_read_again(format: str, granularity: str) -> None:
    planned = planned_for("residual", "openvino", format, granularity)
    content = serialize(materialize(planned.model, planned.plan))
    found = inspect_model(load(content), shapes={})
    assert [layer.weight.dtype for layer in found.layers if layer.weight is not None] == [format] * 4
    assert found.parameters == inspect_model(planned.model, shapes={}).parameters
    assert found.bytes_by_dtype[format] >= sum(map(int, (16 * 16 * 2, 16, 20 * 16))) * (1 if format == "int8" else 0.5)
    assert serialize(load(content)) == content


@every_form
@every_storage
def test_a_plan_alone_gives_the_same_bytes(format: str, granularity: str, storage: WeightStorage) -> None:
    planned = planned_for("Conv", "onnxruntime", format, granularity)
    first, second = (
        serialize(materialize(planned.model, plan, weight_storage=storage)) for plan in (planned.plan, from_json(to_json(planned.plan)))
    )
    assert first == second


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            {"scale_shape": (2, 16)}, r"scale: found shape \(2, 16\) for an array of shape \(16, 32\), expected \(2, 32\)", id="shape"
        ),
        pytest.param({"block": 4}, r"expected \(4, 32\)", id="block"),
        pytest.param({"axis": 1}, r"expected \(16, 4\)", id="axis"),
    ],
)
def test_blocks_that_do_not_fit_the_weight_are_an_error(change: dict[str, Any], message: str) -> None:
    planned = planned_for("MatMul", "openvino", "int4", "block:8")
    given = {"scale_shape": (2, 32), "scale": (0.1,) * (32 if change.get("scale_shape") else 64), **change}
    entries = tuple(replace(entry, **given) if entry.tensor == "w1" else entry for entry in planned.plan.entries)
    with pytest.raises(PlanError, match=f"tensor 'w1': .*{message}"):
        materialize(planned.model, replace(planned.plan, entries=entries))


@pytest.mark.parametrize(
    ("format", "granularity", "what"),
    [("int4", "channel", "format int4"), ("int8", "block:8", r"PerBlock\(axis=1, size=8\)")],
    ids=["4 bits", "blocks"],
)
def test_a_network_of_an_older_opset_is_an_error(format: str, granularity: str, what: str) -> None:
    planned = planned_for("Conv", "openvino", format, granularity)
    old = load(NETWORKS["Conv"].SerializeToString())
    old.opset_imports[""] = 20
    with pytest.raises(PlanError, match=f"tensor 'w1': found {what}, which ONNX knows from opset 21, in a network of opset 20; export"):
        materialize(old, planned.plan)


# --- what runtimes compute -------------------------------------------------------------------------------------------------


@every_network
@every_form
@every_storage
def test_onnxruntime_dequantizes_as_numpy_does(name: str, format: str, granularity: str, storage: WeightStorage) -> None:
    planned = planned_for(name, "onnxruntime", format, granularity)
    given = feed(NETWORKS[name], seed=9)
    [expected] = run(with_float_weights(planned), given, ["y"])
    [found] = run(materialize(planned.model, planned.plan, weight_storage=storage), given, ["y"])
    assert sqnr(expected, found) > 110


@every_network
@every_target
@every_form
@every_storage
def test_onnxruntime_computes_the_same_at_every_level(
    name: str, target: str, format: str, granularity: str, storage: WeightStorage
) -> None:
    if (name, target) == ("MatMul", "onnxruntime-arm"):
        pytest.skip("from opset 21 on ONNX Runtime 1.32 refuses a pair that it adds itself: its issue 25526")
    planned = planned_for(name, target, format, granularity)
    given = feed(NETWORKS[name], seed=9)
    model = onnx.ModelProto.FromString(serialize(materialize(planned.model, planned.plan, weight_storage=storage)))
    [expected] = run(model, given, ["y"])
    for level in OPTIMIZATIONS.values():
        assert sqnr(expected, run_at(model, given, level)) > 40


@pytest.mark.skipif(not is_installed(), reason="OpenVINO is not here")
@every_network
@every_form
@every_storage
def test_openvino_computes_the_same(name: str, format: str, granularity: str, storage: WeightStorage) -> None:
    planned = planned_for(name, "openvino", format, granularity)
    given = feed(NETWORKS[name], seed=9)
    [expected] = run(with_float_weights(planned), given, ["y"])
    session = OpenVino(serialize(materialize(planned.model, planned.plan, weight_storage=storage)))
    assert sqnr(expected, session.run(given)["y"]) > 40


@pytest.mark.parametrize("name", ["Gemm", "matrices", "Conv"])
@every_form
@every_storage
def test_the_reference_evaluator_computes_the_same(name: str, format: str, granularity: str, storage: WeightStorage) -> None:
    planned = planned_for(name, "tensorrt", format, granularity)
    given = feed(NETWORKS[name], seed=9)
    [expected] = run(with_float_weights(planned), given, ["y"])
    model = onnx.ModelProto.FromString(serialize(materialize(planned.model, planned.plan, weight_storage=storage)))
    [found] = ReferenceEvaluator(model).run(["y"], given)
    assert sqnr(expected, np.asarray(found)) > 40


@every_network
@every_form
@pytest.mark.parametrize("target", [target for target in TARGETS if target != "tensorrt"])
def test_keeps_the_rules_of_its_target(name: str, format: str, granularity: str, target: str) -> None:
    planned = planned_for(name, target, format, granularity)
    assert lint_model(materialize(planned.model, planned.plan), get_target(target)).findings == ()


@pytest.mark.parametrize("target", ["tensorrt", "openvino"])
def test_pairs_before_a_matmul_tell_their_type_where_the_runtime_needs_it(target: str) -> None:
    planned = planned_for("MatMul", target, "int8", "channel")
    quantized = materialize(planned.model, planned.plan)
    given = feed(NETWORKS["MatMul"], seed=9)
    proto = onnx.ModelProto.FromString(serialize(quantized))
    assert next(len(node.input) for node in proto.graph.node if node.op_type == "QuantizeLinear") == 2
    assert lint_model(quantized, get_target(target)).findings == ()
    [expected] = run(proto, given, ["y"])
    assert sqnr(expected, run_at(proto, given, OPTIMIZATIONS["all"])) > 40


@every_form
def test_tensorrt_is_told_of_what_it_does_not_build(format: str, granularity: str) -> None:
    planned = planned_for("Conv", "tensorrt", format, granularity)
    broken = {finding.rule for finding in lint_model(materialize(planned.model, planned.plan), get_target("tensorrt")).findings}
    assert broken == ({"four-bit-weights"} if format == "int4" else {"block-scales"} if granularity == "block:8" else set())
