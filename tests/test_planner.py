from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import onnx
import pytest
from tests.graph.networks import CHANNELS, Array, Planned, feed, network, place, plan_network, run

from zeropoint.graph.initializers import constant_array
from zeropoint.graph.materialize import materialize
from zeropoint.numerics.affine import quantize_array
from zeropoint.plan import Entry
from zeropoint.planner import LARGEST_BIAS_CODE, make_plan
from zeropoint.recipe import Recipe
from zeropoint.rules import lint_model
from zeropoint.statistics.tensor import EMPTY, TensorStatistic, observe
from zeropoint.targets import TARGETS, get_target

every_target = pytest.mark.parametrize("target", TARGETS)
RNG = np.random.default_rng(0)
CONV = "a = Conv(x, w, b) y = Softmax(a)"


def entry(planned: Planned, tensor: str) -> Entry:
    return planned.plan.entry(tensor)


def notes(planned: Planned) -> dict[str, str]:
    return {note.where: note.reason for note in planned.plan.notes}


def conv(weight: Array, bias: Array, target: str = "onnxruntime", scale: float = 1.0) -> Planned:
    model = network(CONV, weights={"w": weight, "b": bias})
    return plan_network(model, target, feeds=[{"x": feed(model)["x"] * np.float32(scale)}])


def filters(*, dead: int = 0, tiny: int = 0, tiny_value: float = 1e-30) -> Array:
    """Return weights (16, 16, 1, 1) whose first filters are all zero, and the next ones all but zero."""
    weight = np.random.default_rng(1).normal(0.0, 0.25, (CHANNELS, CHANNELS, 1, 1))
    weight[:dead] = 0.0
    weight[dead : dead + tiny] = tiny_value
    return weight.astype(np.float32)


# --- biases ----------------------------------------------------------------------------------------------------------------

BIASES = [
    pytest.param(filters(), RNG.normal(0.0, 1.0, CHANNELS), 1.0, id="ordinary"),
    pytest.param(filters(), RNG.normal(0.0, 1e9, CHANNELS), 1.0, id="huge biases"),
    pytest.param(filters(), np.full(CHANNELS, 3e30), 1.0, id="enormous biases"),
    pytest.param(filters(), RNG.normal(0.0, 1.0, CHANNELS), 1e-12, id="tiny activations"),
    pytest.param(filters(tiny=8), RNG.normal(0.0, 1.0, CHANNELS), 1.0, id="tiny weights"),
    pytest.param(filters(tiny=8, tiny_value=1e-44), np.zeros(CHANNELS), 1e-6, id="denormal weights without a bias"),
    pytest.param(filters(tiny=8), np.zeros(CHANNELS), 1e-20, id="scales whose product is 0 in float32"),
    pytest.param(filters(dead=8), RNG.normal(0.0, 1.0, CHANNELS), 1.0, id="dead channels"),
    pytest.param(filters(dead=16), RNG.normal(0.0, 1.0, CHANNELS), 1.0, id="all channels dead"),
]


@pytest.mark.parametrize(("weight", "bias", "scale"), BIASES)
def test_bias_codes_are_exact_and_leave_room_for_the_sum(weight: Array, bias: Array, scale: float) -> None:
    bias = bias.astype(np.float32)
    planned = conv(weight, bias, scale=scale)
    data, weights, biases = (entry(planned, name) for name in ("x", "w", "b"))
    assert (biases.format, biases.axis, biases.zero_point, [r.input for r in biases.readers]) == ("int32", 0, (0,), [2])
    assert len(biases.scale) == CHANNELS
    codes = quantize_array(bias, biases.qparams()).astype(np.int64)
    for channel, code in enumerate(codes.tolist()):
        product = Fraction(data.scale[0]) * Fraction(weights.scale[channel])
        assert abs(Fraction(biases.scale[channel]) / product - 1) < Fraction(1, 2**22)
        # Half a code, and what rounding scale and quotient to float32 costs.
        assert abs(Fraction(float(bias[channel])) / product - code) <= Fraction(1, 2) + abs(code) * Fraction(1, 2**21)
        assert abs(code) <= LARGEST_BIAS_CODE * 1.001
    assert lint_model(materialize(planned.model, planned.plan), get_target("onnxruntime")).findings == ()


def test_only_channels_whose_bias_would_overflow_get_a_larger_weight_scale() -> None:
    weight, bias = filters(), np.zeros(CHANNELS, np.float32)
    ordinary = entry(conv(weight, bias), "w").scale
    bias[3] = 1e12
    raised = entry(conv(weight, bias), "w")
    inflated = raised.scale
    assert raised.reason == "16 output channels; 1 scale raised so that the bias fits int32"
    assert entry(conv(weight, bias, "tensorrt"), "w").reason == "16 output channels"
    assert inflated[3] > 100 * ordinary[3]
    assert inflated[:3] + inflated[4:] == ordinary[:3] + ordinary[4:]


def test_dead_channels_have_an_ordinary_scale_so_that_their_bias_survives() -> None:
    weight, bias = filters(dead=4), np.linspace(0.01, 0.2, CHANNELS).astype(np.float32)
    planned = conv(weight, bias)
    alive = entry(planned, "w").scale[4:]
    assert all(min(alive) <= scale <= max(alive) for scale in entry(planned, "w").scale[:4])


@pytest.mark.parametrize("dead", [4, 16], ids=["some", "all"])
def test_the_bias_of_a_dead_channel_comes_out(dead: int) -> None:
    bias = np.linspace(0.01, 0.2, CHANNELS).astype(np.float32)
    planned = conv(filters(dead=dead), bias)
    quantized = materialize(planned.model, planned.plan)
    [conv_node] = [node for node in quantized.graph if node.op_type == "Conv"]
    quantized.graph.outputs.append(conv_node.outputs[0])
    [found] = run(quantized, {"x": feed(network(CONV))["x"]}, [str(conv_node.outputs[0].name)])
    expected = np.broadcast_to(bias[:dead, None, None], (dead, 8, 8))
    np.testing.assert_allclose(found[0, :dead], expected, atol=2e-4)


@pytest.mark.parametrize("target", ["tensorrt", "openvino"])
def test_targets_with_float_biases_get_none(target: str) -> None:
    planned = conv(filters(), np.ones(CHANNELS, np.float32), target)
    assert {e.tensor for e in planned.plan.entries} == {"x", "w"}


@pytest.mark.parametrize(
    ("body", "bias", "has_codes"),
    [
        pytest.param("y = Gemm(x, w, b)", (20,), True, id="Gemm"),
        pytest.param("y = Gemm <alpha=1.0, beta=1.0> (x, w, b)", (20,), True, id="alpha and beta 1"),
        pytest.param("y = Gemm <alpha=0.5> (x, w, b)", (20,), True, id="alpha"),
        pytest.param("y = Gemm <beta=2.0> (x, w, b)", (20,), True, id="beta"),
        pytest.param("y = Gemm <alpha=2.0, beta=2.0> (x, w, b)", (20,), True, id="alpha and beta alike"),
        pytest.param("y = Gemm(x, w, b)", (1, 20), True, id="a bias of two axes"),
        pytest.param("y = Gemm(x, w, b)", (1,), True, id="one bias for all"),
        pytest.param("y = Gemm(x, w, b)", (4, 20), False, id="a bias for each row"),
        pytest.param("y = Gemm(x, w)", (), True, id="no bias"),
    ],
)
def test_the_bias_of_a_gemm_has_codes_where_its_kernel_adds_them(body: str, bias: tuple[int, ...], has_codes: bool) -> None:
    model = network(body, inputs="float[4,16] x", weights={"w": (16, 20), "b": bias})
    planned = plan_network(model, "onnxruntime")
    assert any(e.role == "bias" for e in planned.plan.entries) is has_codes
    given = feed(model)
    [expected], [found] = (run(net, given) for net in (planned.model, materialize(planned.model, planned.plan)))
    assert np.square(found - expected).sum() < 1e-3 * np.square(expected).sum()


@pytest.mark.parametrize(
    ("body", "shape", "axis", "index"),
    [
        pytest.param("a = MatMul(x, w) y = Add(a, b)", (20,), 0, 1, id="a vector"),
        pytest.param("a = MatMul(x, w) y = Add(b, a)", (1, 20), 1, 0, id="a row on the left"),
        pytest.param("a = MatMul(x, w) y = Add(a, b)", (4, 20), None, None, id="a matrix"),
        pytest.param("a = MatMul(x, w) y = Add(a, b)", (1,), None, None, id="one number"),
        pytest.param("a = MatMul(x, w) y = Sub(a, b)", (20,), None, None, id="Sub"),
    ],
)
@every_target
def test_what_an_add_gives_to_a_matmul_has_the_codes_of_a_bias(
    body: str, shape: tuple[int, ...], axis: int | None, index: int | None, target: str
) -> None:
    model = network(body, inputs="float[4,16] x", weights={"w": (16, 20), "b": shape})
    planned = plan_network(model, target)
    biases = [e for e in planned.plan.entries if e.role == "bias"]
    expected = [] if index is None or get_target(target).bias == "float" else [(axis, "y", index)]
    assert [(e.axis, e.readers[0].node, e.readers[0].input) for e in biases] == expected
    given = feed(model)
    quantized = materialize(planned.model, planned.plan)
    [reference], [found] = (run(net, given) for net in (planned.model, quantized))
    assert np.square(found - reference).sum() < 1e-3 * np.square(reference).sum()
    assert lint_model(quantized, get_target(target)).findings == ()


SHARED_BIAS = network("a = Conv(x, w1, b) r = Relu(a) c = Conv(r, w2, b) y = Softmax(c)", weights={"b": (CHANNELS,)})


@pytest.mark.parametrize("data", ["r", "x"], ids=["at different scales", "at one scale"])
def test_a_shared_bias_has_codes_for_each_reader(data: str) -> None:
    model = network(f"a = Conv(x, w, b) r = Relu(a) c = Conv({data}, w, b) s = Sum(r, c) y = Softmax(s)", weights={"b": (CHANNELS,)})
    planned = plan_network(model, "onnxruntime")
    biases = {e.readers[0].node: e for e in planned.plan.entries if e.role == "bias"}
    assert {node: len(e.readers) for node, e in biases.items()} == {"a": 1, "c": 1}
    assert (biases["a"].scale == biases["c"].scale) is (data == "x")
    assert notes(planned) == {}


# --- weights ---------------------------------------------------------------------------------------------------------------


def test_weights_are_symmetric_narrow_and_per_channel() -> None:
    planned = plan_network(network("y = Gemm(x, w)", inputs="float[4,16] x", weights={"w": (16, 20)}), "tensorrt", recipe=Recipe())
    weights = entry(planned, "w")
    assert (weights.format, weights.symmetric, weights.narrow, weights.axis, weights.zero_point) == ("int8", True, True, 1, (0,))
    assert (len(weights.scale), weights.solver, weights.reason) == (20, "mse", "20 output channels")


@pytest.mark.parametrize("solver", ["minmax", "mse"])
def test_the_weight_solver_decides_the_scales(solver: str) -> None:
    weight = filters()
    weight[:, 0] *= 20.0
    model = network(CONV, weights={"w": weight, "b": (CHANNELS,)})
    planned = plan_network(model, "tensorrt", recipe=Recipe(solver="minmax", weight_solver=solver))  # type: ignore[arg-type]
    covering = np.abs(weight).max(axis=(1, 2, 3)) / 127
    scale = np.asarray(entry(planned, "w").scale)
    assert entry(planned, "w").solver == solver
    assert np.allclose(scale, covering) is (solver == "minmax")
    assert (scale <= covering * 1.0001).all()


def test_a_weight_with_readers_on_different_axes_has_one_scale() -> None:
    model = network("a = Gemm <transB=1> (x, w) y = Gemm(a, w)", inputs="float[4,16] x", weights={"w": (16, 16)})
    planned = plan_network(model, "onnxruntime", recipe=Recipe(weight_solver="minmax"))
    weights = entry(planned, "w")
    assert (weights.axis, weights.reason) == (None, "one scale")
    peak = np.abs(constant_array(planned.model.graph.initializers["w"])).max()
    assert weights.scale == pytest.approx((peak / 127,))


# --- activations -----------------------------------------------------------------------------------------------------------


def planned_by(statistics: Mapping[str, TensorStatistic], model: onnx.ModelProto, target: str) -> Planned:
    goal = get_target(target)
    prepared, facts, placement = place(model, goal)
    every = {site.tensor: statistics.get(site.tensor, observe([-1.0, 1.0])) for site in placement.activations}
    plan = make_plan(prepared, placement, every, goal, Recipe(solver="minmax"))
    return Planned(model=prepared, facts=facts, placement=placement, plan=plan)


@pytest.mark.parametrize(
    ("target", "values", "format", "symmetric", "scale", "zero_point"),
    [
        pytest.param("tensorrt", [0.0, 254.0], "int8", True, 2.0, 0, id="tensorrt, nonnegative"),
        pytest.param("tensorrt", [-254.0, 1.0], "int8", True, 2.0, 0, id="tensorrt, negative"),
        pytest.param("openvino", [0.0, 255.0], "uint8", True, 1.0, 0, id="openvino, nonnegative"),
        pytest.param("openvino", [-1.0, 254.0], "int8", True, 2.0, 0, id="openvino, negative"),
        pytest.param("onnxruntime", [0.0, 255.0], "uint8", False, 1.0, 0, id="onnxruntime, nonnegative"),
        pytest.param("onnxruntime", [-55.0, 200.0], "uint8", False, 1.0, 55, id="onnxruntime, negative"),
        pytest.param("onnxruntime-arm", [0.0, 255.0], "int8", False, 1.0, -128, id="arm, nonnegative"),
        pytest.param("onnxruntime-arm", [-55.0, 200.0], "int8", False, 1.0, -73, id="arm, negative"),
        pytest.param("tensorrt", [0.0, 0.0], "int8", True, 1.0, 0, id="tensorrt, all zero"),
        pytest.param("openvino", [0.0, 0.0], "uint8", True, 1.0, 0, id="openvino, all zero"),
        pytest.param("onnxruntime", [0.0, 0.0], "uint8", False, 1.0, 0, id="onnxruntime, all zero"),
        pytest.param("onnxruntime-arm", [0.0, 0.0], "int8", False, 1.0, -128, id="arm, all zero"),
        pytest.param("tensorrt", [-127.0, -127.0], "int8", True, 1.0, 0, id="tensorrt, constant"),
        pytest.param("onnxruntime", [-127.5, -127.5], "uint8", False, 0.5, 255, id="onnxruntime, constant"),
    ],
)
def test_activations_get_the_spec_of_the_target(
    target: str, values: list[float], format: str, symmetric: bool, scale: float, zero_point: int
) -> None:
    planned = planned_by({"x": observe(values)}, network("a = Conv(x, w) y = Softmax(a)"), target)
    found = entry(planned, "x")
    assert (found.role, found.format, found.symmetric, found.axis) == ("activation", format, symmetric, None)
    assert (found.scale, found.zero_point) == ((scale,), (zero_point,))
    assert (found.solver, found.group) == ("minmax", "")


JOINED = network("a = Conv(x, w1) p = MaxPool <kernel_shape=[1,1]> (a) c = Conv(p, w2) d = Conv(a, w3) s = Sum(c, d) y = Softmax(s)")


@pytest.mark.parametrize(
    ("a", "p", "expected"),
    [
        pytest.param([0.0, 100.0], [0.0, 255.0], ("uint8", (0.0, 255.0)), id="both nonnegative"),
        pytest.param([0.0, 255.0], [-1.0, 1.0], ("int8", (-255.0, 255.0)), id="one negative"),
    ],
)
def test_a_group_shares_the_range_of_all_its_tensors(a: list[float], p: list[float], expected: tuple[str, tuple[float, float]]) -> None:
    planned = planned_by({"a": observe(a), "p": observe(p)}, JOINED, "openvino")
    entries = [entry(planned, tensor) for tensor in "ap"]
    assert {(e.format, e.range) for e in entries} == {expected}
    assert len({(e.scale, e.zero_point, e.group) for e in entries}) == 1
    assert entries[0].group in "ap"


def test_a_member_of_a_group_that_was_never_seen_leaves_it_to_the_others() -> None:
    planned = planned_by({"a": observe([0.0, 255.0]), "p": EMPTY}, JOINED, "openvino")
    assert (entry(planned, "a").range, entry(planned, "a").group) == ((0.0, 255.0), "")
    assert "p" not in planned.plan.tensors


def test_a_tensor_never_seen_stays_float_with_its_weight_and_a_note() -> None:
    model = network("a = Conv(x, w1) r = Relu(a) c = Conv(r, w2) y = Softmax(c)")
    planned = planned_by({"r": EMPTY}, model, "tensorrt")
    assert planned.plan.tensors == {"x", "w1"}
    assert notes(planned) == {
        "r": "stays in float: no finite value was seen in it during calibration",
        "c": "Conv stays in float: no finite value was seen in 'r' during calibration",
    }
    assert [note.where for note in planned.plan.notes if note.kind == "float"] == ["c"]
    assert lint_model(materialize(planned.model, planned.plan), get_target("tensorrt")).findings == ()


@pytest.mark.parametrize(
    ("target", "readers"),
    [
        # A product has codes on both sides or on none, unless its other reader gets codes alone.
        pytest.param("tensorrt", {"a": ["c.0"]}, id="tensorrt"),
        pytest.param("openvino", {"a": ["c.0"]}, id="openvino"),
        pytest.param("onnxruntime", {"a": ["c.0", "m.0"]}, id="onnxruntime"),
    ],
)
def test_an_operand_is_left_in_float_where_nothing_was_seen_in_the_other(target: str, readers: dict[str, list[str]]) -> None:
    model = network("a = Conv(x, w1) c = Conv(a, w2) s = Softmax(c) m = MatMul(a, s) y = Neg(m)", inputs="float[1,16,16,16] x")
    planned = planned_by({"s": EMPTY}, model, target)
    found = {e.tensor: [f"{reader.node}.{reader.input}" for reader in e.readers] for e in planned.plan.entries if e.tensor in "as"}
    assert found == readers
    assert [str(note) for note in planned.plan.notes if note.kind == "float"] == [
        "m: MatMul stays in float: no finite value was seen in 's' during calibration"
    ]
    assert lint_model(materialize(planned.model, planned.plan), get_target(target)).findings == ()


def test_a_site_without_readers_has_no_entry() -> None:
    planned = planned_by({"z": EMPTY}, network("y = MatMul(x, z)", inputs="float[16,16] x, float[16,16] z"), "tensorrt")
    assert planned.plan.entries == ()


def test_nodes_that_pass_values_on_are_not_called_float() -> None:
    planned = planned_by({"a": EMPTY}, network("a = Conv(x, w1) t = Transpose(a) y = Softmax(t)"), "onnxruntime")
    assert [note.where for note in planned.plan.notes if note.kind == "float"] == []


def test_a_shared_weight_is_quantized_for_the_readers_whose_data_was_seen() -> None:
    planned = planned_by({"r": EMPTY}, network("a = Conv(x, w) r = Relu(a) c = Conv(r, w) y = Softmax(c)"), "tensorrt")
    assert [reader.node for reader in entry(planned, "w").readers] == ["a"]


@every_target
def test_nan_and_inf_are_left_out_of_the_range_with_a_note(target: str) -> None:
    seen = observe([np.nan, np.nan, np.inf, -1.0, 3.0])
    planned = planned_by({"x": seen}, network("a = Conv(x, w) y = Softmax(a)"), target)
    assert notes(planned) == {"x": "2 NaN and 1 Inf were seen and left out of its range"}
    assert entry(planned, "x").range[1] == 3.0


def test_the_solver_of_the_recipe_decides_the_range() -> None:
    model = network("y = MatMul(x, w)", inputs="float[4,16] x", weights={"w": (16, 20)})
    data = feed(model)
    data["x"][0, 0] = 1000.0
    plans = {name: plan_network(model, "tensorrt", feeds=[data], recipe=Recipe(solver=name)) for name in ("minmax", "percentile:90")}
    assert entry(plans["minmax"], "x").range == (-1000.0, 1000.0)
    assert entry(plans["percentile:90"], "x").range[1] < 10.0
    assert {name: entry(planned, "x").solver for name, planned in plans.items()} == {name: name for name in plans}


@every_target
def test_a_plan_carries_its_target_and_what_placement_noted(target: str) -> None:
    model = network("y = LSTM <hidden_size=8> (x, w, r)", inputs="float[3,2,16] x", weights={"w": (1, 32, 16), "r": (1, 32, 8)})
    planned = plan_network(model, target)
    assert planned.plan.target == target
    assert planned.plan.entries == ()
    assert planned.plan.notes == planned.placement.notes != ()


@every_target
def test_plans_are_the_same_every_time(target: str) -> None:
    assert plan_network(SHARED_BIAS, target).plan == plan_network(SHARED_BIAS, target).plan
