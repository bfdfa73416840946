"""What a plan holds of weights at each format and granularity, and of the biases that meet them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.graph.networks import QUICK, Array, Feed, Planned, network, observed, place, plan_network, run

from zeropoint import api
from zeropoint.demo import load_digits
from zeropoint.evaluate.evidence import Coverage, coverage
from zeropoint.evaluate.float_weights import float_operators, note_on_float_operators
from zeropoint.graph.load import load
from zeropoint.graph.materialize import materialize
from zeropoint.graph.store import serialize
from zeropoint.graph.taps import Taps
from zeropoint.numerics.affine import quantize_array
from zeropoint.plan import Plan
from zeropoint.planner import make_plan
from zeropoint.recipe import Recipe
from zeropoint.refine.bias_correction import channel_axes, correct_biases
from zeropoint.summary import verdict
from zeropoint.targets import TARGETS, get_target

CONV = network(
    "a = Conv(x, w, b) r = Relu(a) c = Conv <group=32> (r, d) p = GlobalAveragePool(c) f = Flatten(p) y = Gemm(f, g)",
    weights={"w": (32, 16, 3, 3), "b": (32,), "d": (32, 1, 1, 1), "g": (32, 20)},
    opset=21,
)
MATMUL = network("a = MatMul(x, w) p = Add(a, b) y = Softmax(p)", inputs="float[4,16] x", weights={"w": (16, 20), "b": (20,)}, opset=21)
BATCHED = network("a = MatMul(x, w) y = Softmax(a)", inputs="float[2,4,16] x", weights={"w": (2, 16, 20)}, opset=21)
LEFT = network("a = MatMul(w, x) y = Softmax(a)", inputs="float[16,4] x", weights={"w": (20, 16)}, opset=21)


def plan_of(model: onnx.ModelProto, target: str = "onnxruntime", **options: Any) -> Planned:
    return plan_network(model, target, recipe=replace(QUICK, **options))


def weight(model: onnx.ModelProto, name: str) -> Array:
    return next(numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == name)


def notes(planned: Planned) -> dict[str, str]:
    return {note.where: note.reason for note in planned.plan.notes}


# --- scales ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("format", "largest"), [("int8", 127), ("int4", 7)])
@pytest.mark.parametrize(
    ("granularity", "axis", "block", "shape"),
    [("channel", 0, None, (32,)), ("tensor", None, None, ()), ("block:4", 1, 4, (32, 4, 3, 3))],
)
def test_scales_cover_what_shares_them(
    format: str, largest: int, granularity: str, axis: int | None, block: int | None, shape: tuple[int, ...]
) -> None:
    planned = plan_of(CONV, "tensorrt", weight_format=format, weight_granularity=granularity, weight_solver="minmax")
    entry, w = planned.plan.entry("w"), np.abs(weight(CONV, "w"))
    assert (entry.format, entry.narrow, entry.symmetric, entry.axis, entry.block) == (format, True, True, axis, block)
    assert entry.scale_shape == (shape if block else ())
    peaks = {"channel": w.max(axis=(1, 2, 3)), "tensor": w.max(), "block:4": w.reshape(32, 4, 4, 3, 3).max(axis=2)}[granularity]
    np.testing.assert_allclose(entry.qparams().scale, peaks / largest, rtol=1e-6)
    assert entry.qparams().scale.shape == shape


@pytest.mark.parametrize("granularity", ["channel", "tensor", "block:4"])
def test_measured_ranges_are_no_worse_than_covering_ones(granularity: str) -> None:
    errors = []
    for solver in ("mse", "minmax"):
        entry = plan_of(CONV, weight_format="int4", weight_granularity=granularity, weight_solver=solver).plan.entry("w")
        w, qparams = weight(CONV, "w"), entry.qparams()
        codes = quantize_array(w, qparams).astype(np.float32)
        scale = np.repeat(qparams.scale, 4, axis=1) if entry.block else qparams.scale.reshape((-1, 1, 1, 1) if entry.axis == 0 else ())
        errors.append(float(np.square(w - codes * scale).sum()))
    assert errors[0] < errors[1]


@pytest.mark.parametrize(
    ("model", "name", "axis", "shape"),
    [
        pytest.param(CONV, "w", 1, (32, 2, 3, 3), id="Conv"),
        pytest.param(CONV, "g", 0, (4, 20), id="Gemm"),
        pytest.param(MATMUL, "w", 0, (2, 20), id="MatMul"),
        pytest.param(BATCHED, "w", 1, (2, 2, 20), id="batched MatMul"),
        pytest.param(LEFT, "w", 1, (20, 2), id="MatMul from the left"),
        pytest.param(
            network("a = Gemm <transB=1> (x, w) y = Softmax(a)", inputs="float[4,16] x", weights={"w": (20, 16)}, opset=21),
            "w",
            1,
            (20, 2),
            id="Gemm transB",
        ),
        pytest.param(
            network("a = ConvTranspose(x, w) y = Softmax(a)", weights={"w": (16, 20, 3, 3)}, opset=21),
            "w",
            0,
            (2, 20, 3, 3),
            id="ConvTranspose",
        ),
    ],
)
def test_blocks_lie_along_the_input_channels(model: onnx.ModelProto, name: str, axis: int, shape: tuple[int, ...]) -> None:
    planned = plan_of(model, "openvino", weight_format="int4", weight_granularity="block:8")
    entry = planned.plan.entry(name)
    assert (entry.axis, entry.block, entry.scale_shape, len(entry.scale)) == (axis, 8, shape, np.prod(shape))
    assert entry.reason == f"{np.prod(shape)} blocks of 8 input channels"


@pytest.mark.parametrize(
    ("model", "name", "options", "axis", "reason"),
    [
        pytest.param(
            CONV,
            "w",
            {"weight_format": "int4", "weight_granularity": "block:5"},
            0,
            "a scale for each output channel and no blocks of 5: it has 16 input channels, and runtimes read whole blocks only",
            id="part of a block",
        ),
        pytest.param(
            CONV,
            "d",
            {"weight_format": "int4", "weight_granularity": "block:8"},
            0,
            "a scale for each output channel and no blocks of 8: it has 1 input channel, and runtimes read whole blocks only",
            id="depthwise",
        ),
        pytest.param(
            MATMUL,
            "w",
            {"weight_granularity": "block:8"},
            1,
            "a scale for each output channel and no blocks of 8: ONNX Runtime, in which every result has to run, fuses int8 into a MatMul "
            "that refuses blocks; those of int4 it takes",
            id="int8 MatMul",
        ),
        pytest.param(
            network("a = Gemm <transB=1> (x, w) y = Gemm(a, w)", inputs="float[4,16] x", weights={"w": (16, 16)}, opset=21),
            "w",
            {"weight_format": "int4", "weight_granularity": "block:8"},
            None,
            "one scale and no blocks of 8: no axis holds its input channels for all who read it",
            id="readers on different axes",
        ),
    ],
)
def test_a_weight_that_takes_no_blocks_says_so(
    model: onnx.ModelProto, name: str, options: dict[str, Any], axis: int | None, reason: str
) -> None:
    planned = plan_of(model, "openvino", **options)
    entry = planned.plan.entry(name)
    assert (entry.axis, entry.block, entry.scale_shape) == (axis, None, ())
    assert reason in [note.reason for note in planned.plan.notes if note.where == name]


def test_a_block_as_long_as_its_row_is_an_output_channel() -> None:
    planned = plan_of(CONV, "openvino", weight_granularity="block:32")
    assert (planned.plan.entry("g").axis, planned.plan.entry("g").block) == (1, None)
    assert "g" not in notes(planned)


# --- biases ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["int8", "int4"])
@pytest.mark.parametrize(("granularity", "scales"), [("channel", 32), ("tensor", 1)])
def test_a_bias_has_the_scale_of_its_products(format: str, granularity: str, scales: int) -> None:
    planned = plan_of(CONV, weight_format=format, weight_granularity=granularity)
    data, w, b = (planned.plan.entry(name) for name in ("x", "w", "b"))
    assert (b.format, len(b.scale), b.axis) == ("int32", scales, 0 if scales > 1 else None)
    np.testing.assert_allclose(b.scale, data.scale[0] * np.asarray(w.scale), rtol=1e-6)


def test_a_large_bias_raises_the_scales_of_4_bits_too() -> None:
    model = network("a = Conv(x, w, b) y = Softmax(a)", weights={"b": np.full(16, 1e9, np.float32)}, opset=21)
    for granularity, counted in (("channel", "16 scales"), ("tensor", "1 scale")):
        entry = plan_of(model, weight_format="int4", weight_granularity=granularity).plan.entry("w")
        assert entry.reason.endswith(f"; {counted} raised so that the bias fits int32")


@pytest.mark.parametrize("format", ["int8", "int4"])
def test_a_bias_beside_blocks_stays_in_float(format: str) -> None:
    planned = plan_of(CONV, weight_format=format, weight_granularity="block:8")
    assert {entry.tensor for entry in planned.plan.entries if entry.role == "bias"} == {"c/bias"}  # of the depthwise one
    proto = onnx.ModelProto.FromString(serialize(materialize(planned.model, planned.plan)))
    assert next(node.input[2] for node in proto.graph.node if node.op_type == "Conv") == "b"
    assert next(tensor.data_type for tensor in proto.graph.initializer if tensor.name == "b") == onnx.TensorProto.FLOAT


@pytest.mark.parametrize("format", ["int8", "int4"])
@pytest.mark.parametrize("granularity", ["channel", "tensor", "block:8"])
def test_corrections_take_the_mean_error_away(format: Any, granularity: str) -> None:
    model = network("y = Gemm(x, w, b)", inputs="float[64,16] x", weights={"w": (16, 20), "b": (20,)}, opset=21)
    goal, recipe = get_target("tensorrt"), Recipe(solver="minmax", weight_format=format, weight_granularity=granularity)
    prepared, facts, placement = place(model, goal)
    rng = np.random.default_rng(7)
    given: list[Feed] = [{"x": (rng.normal(0.0, 1.0, (64, 16)) + rng.normal(0.0, 2.0, 16)).astype(np.float32)}]
    taps = Taps(tuple(site.tensor for site in placement.activations), channel_axes(prepared, placement, facts))
    seen = observed(prepared, facts, taps, given)
    plan = make_plan(prepared, placement, seen.tensors, goal, recipe)
    corrections, unmended = correct_biases(prepared, plan, seen.channels)
    assert unmended == ()
    rounded = replace(plan, entries=tuple(entry for entry in plan.entries if entry.role == "weight"))
    expected, kept, corrected = (
        run(one, given[0])[0].mean(axis=0)
        for one in (prepared, materialize(prepared, rounded), materialize(prepared, replace(rounded, corrections=corrections)))
    )
    assert np.abs(corrected - expected).max() < 1e-5 < np.abs(kept - expected).max()


# --- what computes in integers ---------------------------------------------------------------------------------------------


def judged(planned: Planned, target: str, **storage: Any) -> tuple[dict[str, str], Coverage]:
    floats = float_operators(materialize(planned.model, planned.plan, **storage))
    return floats, coverage(planned.model, planned.plan, get_target(target), floats=floats.keys())


@pytest.mark.parametrize(
    ("options", "storage", "expected"),
    [
        pytest.param({}, "integer", {}, id="int8"),
        pytest.param({"weight_granularity": "tensor"}, "integer", {}, id="one scale"),
        pytest.param({"weight_format": "int4"}, "integer", {"a": "4 bits", "c": "4 bits", "y": "4 bits"}, id="4 bits"),
        pytest.param({"weight_format": "int4"}, "float", {}, id="4 bits as floats, whose pairs have bytes"),
        pytest.param(
            {"weight_granularity": "block:8"},
            "integer",
            {"a": "a scale for each block of 8", "y": "a scale for each block of 8"},
            id="blocks",
        ),
        pytest.param(
            {"weight_format": "int4", "weight_granularity": "block:8"},
            "float",
            {"a": "4 bits and a scale for each block of 8", "y": "4 bits and a scale for each block of 8"},
            id="4 bits in blocks, as floats",
        ),
    ],
)
@pytest.mark.parametrize("target", ["openvino", "onnxruntime"])
def test_operators_that_no_integer_kernel_computes_are_not_counted(
    options: dict[str, Any], storage: str, expected: dict[str, str], target: str
) -> None:
    floats, found = judged(plan_of(CONV, target, **options), target, weight_storage=storage)
    assert floats == expected
    assert found == Coverage(4 - len(expected), 4)


def test_an_add_that_a_float_convolution_takes_in_is_not_counted() -> None:
    body = "r = Relu(x) a = Conv(r, w1) s = Relu(a) b = Conv(s, w2) d = Add(b, s) y = Softmax(d)"
    for format, expected in (("int8", Coverage(3, 3)), ("int4", Coverage(0, 3))):
        assert judged(plan_of(network(body, opset=21), "openvino", weight_format=format), "openvino")[1] == expected


@pytest.mark.parametrize("target", TARGETS)
def test_a_warning_says_what_becomes_of_them(target: str) -> None:
    assert note_on_float_operators({}, get_target(target)) == ()
    [note] = note_on_float_operators({"a": "4 bits", "b": "4 bits"}, get_target(target))
    assert (note.where, note.kind) == ("weights", "warning")
    told = "2 operators with weights of 4 bits, for which there is no integer kernel: "
    assert note.reason == told + get_target(target).float_weights


@pytest.mark.parametrize("options", [{"weight_format": "int4"}, {"weight_granularity": "block:16"}], ids=["4 bits", "blocks"])
def test_an_older_network_is_brought_to_the_opset_by_recipe_and_by_plan(options: dict[str, Any], tmp_path: Path) -> None:
    digits = load_digits()
    given: dict[str, Any] = {"target": "openvino", "evaluate": False}
    assert load(digits.model).opset_imports[""] < 21
    first = api.quantize(digits.model, data=digits.calibration[:8], **given, **options)
    assert first.model.opset_imports[""] == 21
    assert [note.kind for note in first.notes if note.where == "weights"] == ["warning"]
    assert verdict(first).startswith("openvino: NO INTEGER KERNEL of openvino takes these weights; ")
    path, plan = first.save(tmp_path / "first.onnx")
    again = api.quantize(digits.model, plan=plan, **given)
    assert serialize(again.model) == path.read_bytes()
    assert {str(note) for note in again.notes} <= {str(note) for note in first.notes}


def test_a_plan_says_from_which_opset_on_it_is_read() -> None:
    opsets = [
        plan_of(CONV, **options).plan.min_opset
        for options in ({}, {"weight_granularity": "tensor"}, {"weight_format": "int4"}, {"weight_granularity": "block:8"})
    ]
    assert opsets == [13, 10, 21, 21]
    assert Plan(target="tensorrt", entries=()).min_opset == 0
