from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from tests.graph.networks import Feed, network, run_all

from zeropoint import api
from zeropoint.graph.initializers import constant_array
from zeropoint.graph.load import load
from zeropoint.graph.materialize import materialize
from zeropoint.graph.operators import weighted
from zeropoint.graph.own_biases import bias_input
from zeropoint.graph.prepare import prepare
from zeropoint.graph.store import serialize
from zeropoint.numerics.affine import quantize_array
from zeropoint.plan import Plan, from_json, to_json
from zeropoint.refine.sweep import Swept, sweep, with_swept
from zeropoint.refine.trial import outputs_of, relative_errors

IMAGE, TOKENS = "float[1,16,6,6] x", "float[1,6,16] x"
CONV = "a = Conv <pads=[1,1,1,1]> (x, w, b) r = Relu(a) y = Conv (r, v, c)"


@dataclass(frozen=True)
class Case:
    body: str
    weights: dict[str, object]
    inputs: str = IMAGE

    @property
    def model(self) -> onnx.ModelProto:
        return network(self.body, inputs=self.inputs, weights=self.weights, opset=21)

    def feeds(self, count: int, seed: int = 1) -> list[Feed]:
        """Inputs whose channels are correlated, as those of trained networks are."""
        shape = (1, 16, 6, 6) if self.inputs == IMAGE else (1, 6, 16)
        mixed = np.random.default_rng(0).normal(0.0, 0.4, (16, 16))
        rng = np.random.default_rng(seed)
        raw = [np.moveaxis(rng.normal(0.3, 1.0, shape), 1 if self.inputs == IMAGE else -1, -1) @ mixed for _ in range(count)]
        return [{"x": np.moveaxis(x, -1, 1 if self.inputs == IMAGE else -1).astype(np.float32)} for x in raw]


CASES = {
    "Conv with padding": Case(CONV, {"w": (32, 16, 3, 3), "b": (32,), "v": (16, 32, 1, 1), "c": (16,)}),
    "Conv in groups": Case(
        "a = Conv <group=2> (x, w, b) r = Relu(a) y = Conv (r, v, c)", {"w": (32, 8, 3, 3), "b": (32,), "v": (16, 32, 1, 1), "c": (16,)}
    ),
    "depthwise": Case(
        "a = Conv (x, w, b) d = Conv <group=32, pads=[1,1,1,1]> (a, k, e) y = Conv (d, v, c)",
        {"w": (32, 16, 1, 1), "b": (32,), "k": (32, 1, 3, 3), "e": (32,), "v": (16, 32, 1, 1), "c": (16,)},
    ),
    "Gemm": Case(
        "f = Flatten(x) a = Gemm(f, w, b) r = Relu(a) y = Gemm <transB=1> (r, v, c)",
        {"w": (576, 32), "b": (32,), "v": (16, 32), "c": (16,)},
    ),
    "MatMul and Add": Case(
        "a = MatMul(x, w) s = Add(a, b) r = Relu(s) m = MatMul(r, v) y = Add(m, c)",
        {"w": (16, 32), "b": (32,), "v": (32, 16), "c": (16,)},
        TOKENS,
    ),
    "MatMul alone": Case("a = MatMul(x, w) r = Relu(a) y = MatMul(r, v)", {"w": (16, 32), "v": (32, 16)}, TOKENS),
    "a weight that two share": Case(
        "a = Conv (x, w, b) r = Relu(a) s = Conv (r, w, c) y = Conv (s, v, d)",
        {"w": (16, 16, 1, 1), "b": (16,), "c": (16,), "v": (16, 16, 1, 1), "d": (16,)},
    ),
    "ConvTranspose": Case(
        "a = ConvTranspose (x, w, b) r = Relu(a) y = Conv (r, v, c)", {"w": (16, 32, 2, 2), "b": (32,), "v": (16, 32, 1, 1), "c": (16,)}
    ),
}


def deserialized(model: ir.Model) -> onnx.ModelProto:
    return onnx.load_from_string(serialize(model))


every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@dataclass(frozen=True)
class Swept4:
    """A network, the plan that calibration alone leads to, and what a sweep makes of it."""

    network: Any
    plan: Plan
    swept: Swept

    @property
    def refined(self) -> Plan:
        return with_swept(self.plan, self.network, self.swept)


def swept(case: Case, target: str = "onnxruntime", *, thorough: bool = False, samples: int = 24, **given: Any) -> Swept4:
    options: dict[str, Any] = {"weight_format": "int4", "effort": "fast", "evaluate": False, **given}
    feeds = case.feeds(samples)
    plan = api.quantize(case.model, data=feeds, target=target, **options).plan
    prepared = load(case.model)
    prepare(prepared)
    return Swept4(prepared, plan, sweep(prepared, plan, feeds, thorough=thorough))


def error(found: Swept4, plan: Plan, feeds: list[Feed]) -> float:
    return float(relative_errors(outputs_of(found.network, feeds), outputs_of(materialize(found.network, plan), feeds)).mean())


@every_case
@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_outputs_come_closer_to_those_of_the_float_network(case: Case, target: str) -> None:
    found = swept(case, target)
    few = "Flatten" in case.body  # 24 inputs of 576 columns, which tell next to nothing
    for seed in (1, 2):  # what it was fitted to, and what not
        feeds = case.feeds(24, seed)
        before, after = (error(found, plan, feeds) for plan in (found.plan, found.refined))
        assert after < before * (1.05 if few else 1.0) if found.swept.scales else after == before


@every_case
@pytest.mark.parametrize("granularity", ["channel", "tensor", "block:4"])
def test_weights_are_codes_in_range_times_their_scales(case: Case, granularity: str) -> None:
    found = swept(case, weight_granularity=granularity)
    entries = {entry.tensor: entry for entry in found.refined.entries}
    for tensor, weight in found.swept.weights.items():
        qparams = entries[tensor].qparams()
        codes = quantize_array(weight, qparams).astype(np.int64)
        assert (np.abs(codes) <= 7).all()
        stored = materialize(found.network, found.refined).graph.initializers[f"{tensor}/quantized"]
        np.testing.assert_array_equal(constant_array(stored).astype(np.int64), codes)


@every_case
def test_the_first_operator_against_running_it(case: Case) -> None:
    """The errors of its outputs are smaller in sum of squares, and its bias has taken out their mean."""
    found, feeds = swept(case), case.feeds(24)
    name = "s" if "Add" in case.body else "a"
    models = [found.network, materialize(found.network, found.plan), materialize(found.network, found.refined)]
    theirs, plain, ours = (np.stack([run_all(deserialized(model), one)[name] for one in feeds]).astype(np.float64) for model in models)
    if found.network.graph.initializers.get("w") is not None and "w" not in found.swept.scales:  # of a ConvTranspose, or shared
        np.testing.assert_array_equal(ours, plain)
        return
    assert np.square(ours - theirs).sum() < np.square(plain - theirs).sum()
    if name == "s" or "b)" in case.body:
        axis = tuple(i for i in range(theirs.ndim) if i != (theirs.ndim - 1 if case.inputs == TOKENS or "Gemm" in case.body else 2))
        assert np.abs((ours - theirs).mean(axis=axis)).max() < 0.2 * np.sqrt(np.square(plain - theirs).mean())


@every_case
def test_biases_are_on_the_scales_of_the_new_products(case: Case) -> None:
    found = swept(case)
    entries, checked = {entry.tensor: entry for entry in found.refined.entries}, 0
    for node in found.network.graph:
        form = weighted(node)
        added = None if form is None else bias_input(node, form)
        if form is not None and added is not None:
            values = node.inputs[form.weight], node.inputs[form.data], added[0].inputs[added[1]]
            names = [str(value.name) for value in values if value is not None]
            if any(name not in entries for name in names):
                continue  # the target leaves it in float
            weight, data, bias = (entries[name] for name in names)
            checked += 1
            expected = (np.asarray(weight.scale) * data.scale[0]).astype(np.float32)
            np.testing.assert_array_equal(np.asarray(bias.scale, np.float32), expected)
    assert checked or "Transpose" in case.body or not case.weights.get("b")
    assert all(scales != found.plan.entry(tensor).scale for tensor, scales in found.swept.scales.items())


@pytest.mark.parametrize("granularity", ["channel", "block:4"])
def test_a_plan_survives_json_and_gives_the_same_bytes(granularity: str) -> None:
    case = CASES["Conv with padding"]
    found = swept(case, weight_granularity=granularity)
    again = from_json(to_json(found.refined))
    assert again == found.refined
    assert serialize(materialize(found.network, again)) == serialize(materialize(found.network, found.refined))


def test_a_sweep_depends_on_nothing_but_its_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["depthwise"]
    first = to_json(swept(case).refined)
    monkeypatch.setattr("zeropoint.refine.sweep.cores", lambda: 5)
    assert to_json(swept(case).refined) == first


def test_thoroughness_and_the_number_of_columns_held_at_once_change_the_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["Conv with padding"]
    plain = swept(case)
    monkeypatch.setattr("zeropoint.refine.sweep.LARGEST_GRAM", 72)
    divided = swept(case)
    assert "w" in plain.swept.scales and "w" not in divided.swept.scales  # the blocks of w have sums that only meet behind them
    feeds = case.feeds(24, 2)
    assert error(divided, divided.refined, feeds) < error(divided, divided.plan, feeds)
    assert (plain.swept.weights["w"] != divided.swept.weights["w"]).any()


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_few_samples_will_do(samples: int) -> None:
    found = swept(CASES["Conv with padding"], samples=samples)
    assert np.isfinite(error(found, found.refined, CASES["Conv with padding"].feeds(8, 2)))


def test_scales_stay_large_enough_for_their_biases() -> None:
    case = CASES["Conv with padding"]
    huge = replace(case, weights={**case.weights, "b": np.full(32, 3e5, np.float32)})
    found = swept(huge)
    bias, weight = found.refined.entry("b"), found.refined.entry("w")
    assert (np.abs(3e5 / np.asarray(bias.scale)) < 2**31).all()
    assert len(weight.scale) == 32
