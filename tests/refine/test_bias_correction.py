from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper
from tests.graph.networks import CHANNELS, Array, Feed, network, observed, place, run

from zeropoint.calibrate import Resources
from zeropoint.data import open_data
from zeropoint.decide import decide, observe_network
from zeropoint.errors import PlanError
from zeropoint.graph.initializers import constant_array
from zeropoint.graph.load import input_infos, load
from zeropoint.graph.materialize import materialize
from zeropoint.graph.prepare import prepare
from zeropoint.graph.store import serialize
from zeropoint.graph.taps import Taps
from zeropoint.numerics.affine import quantize_array
from zeropoint.plan import Plan, from_json, to_json
from zeropoint.planner import make_plan
from zeropoint.recipe import Recipe
from zeropoint.refine.bias_correction import channel_axes, correct_biases, mean_response
from zeropoint.targets import get_target

RECIPE = Recipe(solver="minmax", weight_solver="minmax")
ROWS = "float[4,16] x"
TOKENS = "float[2,5,16] x"
SQUARE = (16, 16)


def samples(model: onnx.ModelProto, count: int = 6) -> list[Feed]:
    """Inputs whose channels have means of their own: 16 along each axis of that length, as networks here have no other such axis."""
    [value] = model.graph.input
    shape = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
    rng = np.random.default_rng(7)
    offsets = rng.normal(0.0, 2.0, CHANNELS)
    offsets = offsets.reshape([CHANNELS if axis == shape.index(CHANNELS) else 1 for axis in range(len(shape))])
    return [{value.name: (rng.normal(0.0, 1.0, shape) + offsets).astype(np.float32)} for _ in range(count)]


def refine(
    model: onnx.ModelProto, target: str = "tensorrt", *, feeds: Sequence[Feed] | None = None, exclude: Sequence[str] = ()
) -> tuple[ir.Model, Plan]:
    """Return the prepared network and its plan, with corrections, and with the notes on those that were not made alone."""
    goal = get_target(target)
    prepared, facts, placement = place(model, goal, exclude=exclude)
    given = samples(model) if feeds is None else feeds
    taps = Taps(tuple(site.tensor for site in placement.activations), channel_axes(prepared, placement, facts))
    seen = observed(prepared, facts, taps, given)
    plan = make_plan(prepared, placement, seen.tensors, goal, RECIPE)
    corrections, notes = correct_biases(prepared, plan, seen.channels)
    return prepared, replace(plan, corrections=corrections, notes=notes)


def axes_of(model: onnx.ModelProto, target: str = "tensorrt") -> set[tuple[str, int]]:
    prepared, facts, placement = place(model, target)
    return set(channel_axes(prepared, placement, facts))


def weights_only(plan: Plan) -> Plan:
    return replace(plan, entries=tuple(entry for entry in plan.entries if entry.role == "weight"))


def constants(model: ir.Model) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(serialize(model)).graph.initializer}


# --- mean_response, against running the operator ---------------------------------------------------------------------------


def weights_of(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(3).normal(0.3, 1.0, shape).astype(np.float32)


def response_of(body: str, weight: Array, means: Array) -> Array:
    model = load(network(body, inputs=f"float[1,{len(means)}] x", weights={"w": weight, "b": (1,)}))
    return mean_response(model.graph[0], weight.astype(np.float64), means)


CONVOLUTIONS = [
    pytest.param("Conv(x, w)", (6, 4, 3), (9,), id="1-d"),
    pytest.param("Conv(x, w)", (6, 4, 3, 2), (7, 8), id="2-d"),
    pytest.param("Conv(x, w)", (6, 4, 3, 2, 2), (5, 4, 4), id="3-d"),
    pytest.param("Conv(x, w)", (6, 4, 1, 1), (2, 2), id="pointwise"),
    pytest.param("Conv <group=2> (x, w)", (6, 2, 3, 3), (5, 5), id="grouped"),
    pytest.param("Conv <group=4> (x, w)", (4, 1, 3, 3), (5, 5), id="depthwise"),
    pytest.param("Conv <group=4> (x, w)", (8, 1, 3, 3), (5, 5), id="depthwise, two kernels to a channel"),
    pytest.param("Conv <dilations=[2,3]> (x, w)", (6, 4, 3, 3), (9, 9), id="dilated"),
    pytest.param("Conv <strides=[2,3]> (x, w)", (6, 4, 3, 3), (9, 9), id="strided"),
    pytest.param("Conv <group=2, dilations=[2,1], strides=[1,2]> (x, w)", (6, 2, 3, 3), (9, 9), id="grouped, dilated and strided"),
]


@pytest.mark.parametrize(("body", "shape", "size"), CONVOLUTIONS)
def test_response_of_a_convolution(body: str, shape: tuple[int, ...], size: tuple[int, ...]) -> None:
    weight, means = weights_of(shape), np.array([1.5, -0.5, 3.0, 0.25])
    model = network(f"y = {body}", inputs=f"float[1,4,{','.join(map(str, size))}] x", weights={"w": weight})
    constant = np.broadcast_to(means.reshape(1, 4, *(1 for _ in size)), (1, 4, *size)).astype(np.float32)
    [output] = run(model, {"x": constant})
    expected = output.reshape(shape[0], -1)
    np.testing.assert_allclose(expected, expected[:, :1].repeat(expected.shape[1], axis=1), rtol=1e-4, err_msg="no border, no difference")
    np.testing.assert_allclose(response_of(f"y = {body}", weight, means), expected[:, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "shape", "stride"),
    [
        pytest.param("ConvTranspose(x, w)", (4, 6, 3), (1,), id="1-d"),
        pytest.param("ConvTranspose(x, w)", (4, 6, 3, 2), (1, 1), id="2-d"),
        pytest.param("ConvTranspose(x, w)", (4, 6, 3, 2, 2), (1, 1, 1), id="3-d"),
        pytest.param("ConvTranspose <group=2> (x, w)", (4, 3, 3, 3), (1, 1), id="grouped"),
        pytest.param("ConvTranspose <group=4> (x, w)", (4, 1, 3, 3), (1, 1), id="depthwise"),
        pytest.param("ConvTranspose <strides=[2,2]> (x, w)", (4, 6, 2, 2), (2, 2), id="stride that tiles"),
        pytest.param("ConvTranspose <strides=[2,3]> (x, w)", (4, 6, 3, 4), (2, 3), id="stride that overlaps unevenly"),
        pytest.param("ConvTranspose <strides=[3,1]> (x, w)", (4, 6, 2, 3), (3, 1), id="stride that leaves gaps"),
        pytest.param("ConvTranspose <group=2, strides=[2,2]> (x, w)", (4, 3, 4, 4), (2, 2), id="grouped and strided"),
    ],
)
def test_response_of_a_transposed_convolution_is_its_mean_over_the_period_of_the_strides(
    body: str, shape: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    weight, means = weights_of(shape), np.array([1.5, -0.5, 3.0, 0.25])
    model = network(f"y = {body}", inputs=f"float[1,4{',8' * len(stride)}] x", weights={"w": weight})
    constant = np.broadcast_to(means.reshape(1, 4, *(1 for _ in stride)), (1, 4, *(8 for _ in stride))).astype(np.float32)
    [output] = run(model, {"x": constant})
    inside: tuple[Any, ...] = tuple(slice(kernel - 1, kernel - 1 + step) for kernel, step in zip(shape[2:], stride, strict=True))
    expected = output[(0, slice(None), *inside)].astype(np.float64).reshape(output.shape[1], -1).mean(axis=1)
    np.testing.assert_allclose(response_of(f"y = {body}", weight, means), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("attributes", "shape"), [pytest.param("", (4, 6), id="plain"), pytest.param("<transB=1>", (6, 4), id="transB")])
def test_response_of_a_gemm_is_what_its_bias_can_take_away(attributes: str, shape: tuple[int, ...]) -> None:
    weight, means = weights_of(shape), np.array([1.5, -0.5, 3.0, 0.25])
    body = f"y = Gemm {attributes} (x, w, b)"
    response = response_of(body, weight, means)
    given = {"x": means.astype(np.float32)[np.newaxis]}
    plain, mended = (
        run(network(body, inputs="float[1,4] x", weights={"w": weight, "b": bias.astype(np.float32)}), given)[0][0]
        for bias in (np.zeros(6), -response)
    )
    np.testing.assert_allclose(response, plain, rtol=1e-5)
    np.testing.assert_allclose(mended, 0.0, atol=1e-5)


def test_response_of_a_matmul() -> None:
    weight, means = weights_of((4, 6)), np.array([1.5, -0.5, 3.0, 0.25])
    model = network("y = MatMul(x, w)", inputs="float[1,4] x", weights={"w": weight})
    [expected] = run(model, {"x": means.astype(np.float32)[np.newaxis]})
    np.testing.assert_allclose(response_of("y = MatMul(x, w)", weight, means), expected[0], rtol=1e-5)


# --- end to end: the mean output of each channel is the float network's again ----------------------------------------------

Case = tuple[str, str, dict[str, object], int]  # the nodes, the input, the weights, the axis of the output's channels

POINTWISE = (CHANNELS, CHANNELS, 1, 1)
SPATIAL = (CHANNELS, CHANNELS, 3, 3)
MEAN_CASES: dict[str, Case] = {
    "Conv": ("y = Conv(x, w, b)", "float[1,16,6,6] x", {"w": POINTWISE, "b": (16,)}, 1),
    "Conv, grouped": ("y = Conv <group=2> (x, w, b)", "float[1,16,6,6] x", {"w": (16, 8, 1, 1), "b": (16,)}, 1),
    "Conv in a row": (
        "a = Conv(x, w, b) y = Conv(a, v, c)",
        "float[1,16,6,6] x",
        {"w": POINTWISE, "v": POINTWISE, "b": (16,), "c": (16,)},
        1,
    ),
    "Gemm": ("y = Gemm(x, w, b)", ROWS, {"w": (16, 20), "b": (20,)}, 1),
    "Gemm, transB": ("y = Gemm <transB=1> (x, w, b)", ROWS, {"w": (20, 16), "b": (20,)}, 1),
    "Gemm, alpha and beta": ("y = Gemm <alpha=0.5, beta=-3.0> (x, w, b)", ROWS, {"w": (16, 20), "b": (20,)}, 1),
    "Gemm, bias with two axes": ("y = Gemm(x, w, b)", ROWS, {"w": (16, 20), "b": (1, 20)}, 1),
    "Conv without a bias": ("y = Conv(x, w)", "float[1,16,6,6] x", {"w": POINTWISE}, 1),
    "Gemm that takes its bias times 0": ("y = Gemm <beta=0.0> (x, w, b)", ROWS, {"w": (16, 20), "b": (20,)}, 1),
    "Gemm with one bias for all": ("y = Gemm(x, w, b)", ROWS, {"w": (16, 20), "b": (1,)}, 1),
    "bias shared by two": ("a = Gemm(x, w, b) y = Gemm(a, v, b)", ROWS, {"w": SQUARE, "v": SQUARE, "b": (16,)}, 1),
    "MatMul and Add": ("a = MatMul(x, w) y = Add(a, b)", TOKENS, {"w": (16, 20), "b": (20,)}, 2),
    "Add and MatMul": ("a = MatMul(x, w) y = Add(b, a)", TOKENS, {"w": (16, 20), "b": (1, 1, 20)}, 2),
}


def channel_means(model: ir.Model, feeds: Sequence[Feed], axis: int) -> Array:
    outputs = np.concatenate([run(model, one)[0] for one in feeds]).astype(np.float64)
    return outputs.mean(axis=tuple(a for a in range(outputs.ndim) if a != axis))


@pytest.mark.parametrize(("body", "inputs", "weights", "axis"), MEAN_CASES.values(), ids=MEAN_CASES)
def test_means_of_the_outputs_come_back(body: str, inputs: str, weights: Mapping[str, object], axis: int) -> None:
    model = network(body, inputs=inputs, weights=weights)
    prepared, plan = refine(model)
    plan = weights_only(plan)
    assert plan.notes == ()
    expected, kept, corrected = (
        channel_means(one, samples(model), axis)
        for one in (prepared, materialize(prepared, replace(plan, corrections=())), materialize(prepared, plan))
    )
    assert np.abs(kept - expected).max() > 1e-3, "there is something to correct"
    np.testing.assert_allclose(corrected, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        pytest.param("y = Conv(x, w, b)", SPATIAL, id="Conv"),
        pytest.param("y = Conv <strides=[2,2], dilations=[2,2]> (x, w, b)", SPATIAL, id="Conv, strided and dilated"),
        pytest.param("y = Conv <group=16> (x, w, b)", (16, 1, 3, 3), id="Conv, depthwise"),
        pytest.param("y = ConvTranspose <strides=[2,2]> (x, w, b)", (16, 16, 2, 2), id="ConvTranspose"),
    ],
)
def test_means_come_back_behind_kernels_where_each_tap_meets_the_same_mean(body: str, shape: tuple[int, ...]) -> None:
    model = network(body, inputs="float[1,16,8,8] x", weights={"w": shape, "b": (16,)})
    flat = [{"x": np.broadcast_to(one["x"].mean(axis=(2, 3), keepdims=True), (1, 16, 8, 8)).copy()} for one in samples(model)]
    prepared, plan = refine(model, "openvino", feeds=flat)
    found = channel_means(materialize(prepared, weights_only(plan)), flat, 1)
    kept = channel_means(materialize(prepared, replace(weights_only(plan), corrections=())), flat, 1)
    expected = channel_means(prepared, flat, 1)
    assert np.abs(kept - expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_zero_padding_counts_as_if_it_had_the_means_of_its_channels() -> None:
    shared: dict[str, Any] = {"inputs": "float[1,16,8,8] x", "weights": {"w": SPATIAL, "b": (16,)}}
    [padded] = refine(network("y = Conv <pads=[1,1,1,1]> (x, w, b)", **shared))[1].corrections
    [valid] = refine(network("y = Conv(x, w, b)", **shared))[1].corrections
    assert padded.added == valid.added


# --- what is corrected, and what is not ------------------------------------------------------------------------------------

NO_BIAS, UNEVEN, NO_MATRIX, ON_THE_LEFT, TRANSPOSED, NO_MEANS = (
    f"{what}, so that its mean error stays"
    for what in (
        "no constant bias of its own",
        "not one bias for each output channel",
        "weights that are no matrix",
        "its weight on the left",
        "its data transposed",
        "an input whose means are not known",
    )
)
REFUSED: dict[str, tuple[str, str, dict[str, object], dict[str, str]]] = {
    "Gemm with a bias for each entry": ("y = Gemm(x, w, b)", ROWS, {"w": SQUARE, "b": (4, 16)}, {"y": f"Gemm has {NO_BIAS}"}),
    "Gemm with as many rows as channels": (
        "y = Gemm(x, w, b)",
        "float[16,16] x",
        {"w": SQUARE, "b": (16, 1)},
        {"y": f"Gemm has {NO_BIAS}"},
    ),
    "MatMul alone": ("y = MatMul(x, w)", ROWS, {"w": SQUARE}, {"y": f"MatMul has {NO_BIAS}"}),
    "MatMul that is an output": ("m = MatMul(x, w) y = Add(m, b)", ROWS, {"w": SQUARE, "b": (16,)}, {"m": f"MatMul has {NO_BIAS}"}),
    "MatMul read twice": (
        "m = MatMul(x, w) a = Add(m, b) n = Neg(m) y = Mul(a, n)",
        ROWS,
        {"w": SQUARE, "b": (16,)},
        {"m": f"MatMul has {NO_BIAS}"},
    ),
    "MatMul and a computed Add": ("m = MatMul(x, w) y = Add(m, x)", ROWS, {"w": SQUARE}, {"m": f"MatMul has {NO_BIAS}"}),
    "MatMul and Sub": ("m = MatMul(x, w) y = Sub(m, b)", ROWS, {"w": SQUARE, "b": (16,)}, {"m": f"MatMul has {NO_BIAS}"}),
    "MatMul and an Add along its rows": (
        "m = MatMul(x, w) y = Add(m, b)",
        "float[16,16] x",
        {"w": SQUARE, "b": (16, 1)},
        {"m": f"MatMul has {UNEVEN}"},
    ),
    "bias that is computed": ("s = ReduceMean <axes=[0]> (x) y = Gemm(x, w, s)", ROWS, {"w": SQUARE}, {"y": f"Gemm has {NO_BIAS}"}),
    "MatMul by batched weights": (
        "m = MatMul(x, w) y = Add(m, b)",
        TOKENS,
        {"w": (2, 16, 16), "b": (16,)},
        {"m": f"MatMul has {NO_MATRIX}"},
    ),
    "MatMul by a vector": ("m = MatMul(x, w) y = Add(m, b)", "float[2,8,16] x", {"w": (16,), "b": (1,)}, {"m": f"MatMul has {NO_MATRIX}"}),
    "MatMul with its weight first": (
        "m = MatMul(w, x) y = Add(m, b)",
        "float[1,16,16] x",
        {"w": SQUARE, "b": (16,)},
        {"m": f"MatMul has {ON_THE_LEFT}"},
    ),
    "Gemm with transA": ("y = Gemm <transA=1> (x, w, b)", "float[16,4] x", {"w": SQUARE, "b": (16,)}, {"y": f"Gemm has {TRANSPOSED}"}),
    "MatMul of a vector": ("m = MatMul(x, w) y = Add(m, b)", "float[16] x", {"w": SQUARE, "b": (16,)}, {"m": f"MatMul has {NO_MEANS}"}),
}


@pytest.mark.parametrize(("body", "inputs", "weights", "notes"), REFUSED.values(), ids=REFUSED)
def test_no_correction_without_a_bias_to_put_it_in(body: str, inputs: str, weights: Mapping[str, object], notes: dict[str, str]) -> None:
    outputs = "y, m" if body.startswith("m = MatMul(x, w) y = Add(m, b)") and notes.get("m", "").endswith(NO_BIAS) else "y"
    prepared, plan = refine(network(body, inputs=inputs, outputs=outputs, weights=weights))
    assert any(entry.role == "weight" for entry in plan.entries)
    assert plan.corrections == ()
    assert {note.where: note.reason for note in plan.notes} == notes
    materialize(prepared, plan)


def test_an_add_in_the_body_of_another_operator_is_no_bias_of_the_matmul() -> None:
    body = network(
        "m = MatMul(x, w) f = ReduceMin <keepdims=0> (x) z = Less(f, zero) y = If (z) <"
        "then_branch = t () => (float[4,16] p) { p = Add(m, b) }, else_branch = e () => (float[4,16] q) { q = Neg(x) }>",
        inputs=ROWS,
        weights={"w": SQUARE, "b": (16,), "zero": np.array(0.0, np.float32)},
    )
    prepared, plan = refine(body)
    assert plan.corrections == ()
    materialize(prepared, plan)


def test_only_operators_with_codes_are_corrected() -> None:
    model = network(
        "a = Gemm(x, w, b) r = Relu(a) y = Gemm(r, v, c)", inputs=ROWS, weights={n: SQUARE for n in "wv"} | {n: (16,) for n in "bc"}
    )
    assert [correction.tensor for correction in refine(model)[1].corrections] == ["b", "c"]
    assert [correction.tensor for correction in refine(model, exclude=["a"])[1].corrections] == ["c"]


def test_a_correction_says_what_it_is_for() -> None:
    [correction] = refine(network("head = Gemm(x, w, b) y = Softmax(head)", inputs=ROWS, weights={"w": SQUARE, "b": (16,)}))[1].corrections
    assert (correction.tensor, correction.reason) == ("b", "mean output of 'head'")


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
def test_nothing_finite_seen_means_nothing_corrected(value: float) -> None:
    model = network("y = Gemm(x, w, b)", inputs=ROWS, weights={"w": SQUARE, "b": (16,)})
    given = samples(model)[0]["x"]
    given[:, 0] = value  # an element of each row
    assert refine(model, feeds=[{"x": given}])[1].corrections == ()


def test_weights_that_codes_hold_exactly_need_no_correction() -> None:
    weight = np.random.default_rng(0).integers(-127, 128, SQUARE).astype(np.float32)
    weight[0] = 127.0
    [correction] = refine(network("y = Gemm(x, w, b)", inputs=ROWS, weights={"w": weight, "b": (16,)}))[1].corrections
    assert not any(correction.added)


# --- channel_axes ----------------------------------------------------------------------------------------------------------

AXES: dict[str, tuple[str, str, dict[str, object], set[tuple[str, int]]]] = {
    "Conv, 1-d": ("y = Conv(x, w, b)", "float[1,16,8] x", {"w": (16, 16, 3), "b": (16,)}, {("x", 1)}),
    "Conv, 3-d": ("y = Conv(x, w, b)", "float[1,16,4,4,4] x", {"w": (16, 16, 1, 1, 1), "b": (16,)}, {("x", 1)}),
    "Conv without a bias": ("y = Conv(x, w)", "float[1,16,4,4] x", {}, {("x", 1)}),
    "Gemm": ("y = Gemm(x, w)", ROWS, {"w": SQUARE}, {("x", 1)}),
    "MatMul of rank 2": ("y = MatMul(x, w)", ROWS, {"w": SQUARE}, {("x", -1)}),
    "MatMul of rank 3": ("y = MatMul(x, w)", TOKENS, {"w": SQUARE}, {("x", -1)}),
    "MatMul of rank 4": ("y = MatMul(x, w)", "float[1,2,5,16] x", {"w": SQUARE}, {("x", -1)}),
    "several": ("a = Conv(x, w) r = Relu(a) c = Conv(r, v) y = Softmax(c)", "float[1,16,4,4] x", {}, {("x", 1), ("r", 1)}),
    "read twice along one axis": ("a = Gemm(x, w) c = Gemm(x, v) y = Sum(a, c)", ROWS, {"w": SQUARE, "v": SQUARE}, {("x", 1)}),
    "MatMul of a vector": ("y = MatMul(x, w)", "float[16] x", {"w": SQUARE}, set()),
    "Gemm with transA": ("y = Gemm <transA=1> (x, w)", "float[16,4] x", {"w": SQUARE}, set()),
    "batched weights": ("y = MatMul(x, w)", TOKENS, {"w": (2, 16, 16)}, set()),
    "two activations": ("y = MatMul(x, x)", "float[16,16] x", {}, set()),
}


@pytest.mark.parametrize(("body", "inputs", "weights", "axes"), AXES.values(), ids=AXES)
def test_axes_of_the_channels(body: str, inputs: str, weights: Mapping[str, object], axes: set[tuple[str, int]]) -> None:
    assert axes_of(network(body, inputs=inputs, weights=weights)) == axes


def test_a_tensor_read_along_two_axes_has_means_along_both() -> None:
    model = network(
        "a = Conv(x, w, b) m = MatMul(x, v) c = Add(m, d) y = Concat <axis=1> (a, c)",
        inputs="float[1,16,20] x",
        weights={"w": (16, 16, 1), "v": (20, 20), "b": (16,), "d": (20,)},
    )
    prepared, plan = refine(model)
    assert axes_of(model) == {("x", 1), ("x", -1)}
    assert (plan.notes, [correction.tensor for correction in plan.corrections]) == ((), ["b", "d"])
    found, expected = (
        np.concatenate([run(one, feed)[0] for feed in samples(model)]).astype(np.float64)
        for one in (materialize(prepared, weights_only(plan)), prepared)
    )
    np.testing.assert_allclose(found[:, :16].mean(axis=(0, 2)), expected[:, :16].mean(axis=(0, 2)), atol=1e-5)
    np.testing.assert_allclose(found[:, 16:].mean(axis=(0, 1)), expected[:, 16:].mean(axis=(0, 1)), atol=1e-5)


@pytest.mark.parametrize("rows", [16, 4], ids=["square", "oblong"])
def test_a_reader_with_transA_is_left_out_beside_one_without(rows: int) -> None:
    model = network(
        "a = Gemm(x, w, b) t = Gemm <transA=1> (x, v, c) s = ReduceMean <axes=[0]> (t) r = ReduceMean <axes=[0]> (a) y = Sum(s, r)",
        inputs=f"float[{rows},16] x",
        weights={"w": SQUARE, "v": (rows, 16), "b": (16,), "c": (16,)},
    )
    _, plan = refine(model, "openvino")
    assert {reader.node for entry in plan.entries for reader in entry.readers} == {"a", "t"}
    assert [correction.tensor for correction in plan.corrections] == ["b"]


# --- from the plan to the file ---------------------------------------------------------------------------------------------

GEMM = network("y = Gemm(x, w, b)", inputs=ROWS, weights={"w": SQUARE, "b": (16,)})


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime", "onnxruntime-arm", "openvino"])
def test_a_correction_survives_the_plan_file(target: str) -> None:
    prepared, plan = refine(GEMM, target)
    [correction] = plan.corrections
    assert any(correction.added)
    again = from_json(to_json(plan))
    assert again.corrections == plan.corrections
    assert serialize(materialize(prepared, again)) == serialize(materialize(prepared, plan))


def test_the_corrected_bias_is_stored_in_float() -> None:
    prepared, plan = refine(GEMM)
    before, after = constants(prepared)["b"], constants(materialize(prepared, plan))["b"]
    np.testing.assert_array_equal(after, before + np.array(plan.corrections[0].added, np.float32))
    np.testing.assert_array_equal(constants(prepared)["b"], before)


@pytest.mark.parametrize("body", ["y = Gemm(x, w, b)", "a = Conv(x, w, b) y = Softmax(a)"], ids=["Gemm", "Conv"])
def test_int32_codes_are_those_of_the_corrected_bias(body: str) -> None:
    is_gemm = "Gemm" in body
    model = network(body, inputs=ROWS if is_gemm else "float[1,16,4,4] x", weights={"w": SQUARE if is_gemm else POINTWISE, "b": (16,)})
    prepared, plan = refine(model, "onnxruntime")
    bias = constant_array(prepared.graph.initializers["b"])
    corrected = bias + np.array(plan.corrections[0].added, np.float32)
    stored = constants(materialize(prepared, plan))["b/quantized"]
    assert stored.dtype == np.int32
    np.testing.assert_array_equal(stored, quantize_array(corrected, plan.entry("b").qparams()))
    assert (stored != quantize_array(bias, plan.entry("b").qparams())).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"added": (1.0,)}, "correction of 'b': found 1 numbers, expected 16", id="too few numbers"),
        pytest.param({"tensor": "no/such"}, "correction of 'no/such': the network has no such constant", id="no such tensor"),
        pytest.param({"tensor": "y"}, "correction of 'y': the network has no such constant", id="computed"),
    ],
)
def test_a_correction_edited_so_that_it_does_not_fit_is_an_error(change: dict[str, Any], message: str) -> None:
    prepared, plan = refine(GEMM)
    edited = from_json(to_json(replace(plan, corrections=(replace(plan.corrections[0], **change),))))
    with pytest.raises(PlanError, match=message):
        materialize(prepared, edited)


@pytest.mark.parametrize(("bias", "corrected"), [("corrected", ["b"]), ("kept", [])])
def test_the_recipe_decides_whether_biases_are_corrected(bias: Any, corrected: list[str]) -> None:
    model = load(GEMM)
    prepare(model)
    data = open_data(np.concatenate([one["x"] for one in samples(GEMM)]), input_infos(model))
    goal, recipe = get_target("tensorrt"), Recipe(bias=bias)
    plan = decide(model, observe_network(model, data, sha256=str, target=goal, recipe=recipe, resources=Resources()), goal, recipe)
    assert [correction.tensor for correction in plan.corrections] == corrected
    assert plan.provenance.bias == bias
    assert plan.notes == ()


@pytest.mark.parametrize(("target", "storage"), list(product(["tensorrt", "onnxruntime"], ["integer", "float"])), ids="-".join)
def test_mean_error_shrinks_with_activations_rounded_too(target: str, storage: Any) -> None:
    model = network("y = Gemm(x, w, b)", inputs=ROWS, weights={"w": (16, 64), "b": (64,)})
    prepared, plan = refine(model, target)
    expected, kept, corrected = (
        channel_means(one, samples(model), 1)
        for one in (
            prepared,
            materialize(prepared, replace(plan, corrections=()), weight_storage=storage),
            materialize(prepared, plan, weight_storage=storage),
        )
    )
    assert np.square(corrected - expected).sum() < np.square(kept - expected).sum()


def test_statistics_of_no_channels_correct_nothing_and_say_so() -> None:
    prepared, plan = refine(GEMM)
    corrections, notes = correct_biases(prepared, plan, {})
    assert corrections == ()
    assert [str(note) for note in notes] == [f"y: Gemm has {NO_MEANS}"]
