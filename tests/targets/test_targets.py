from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from tests.graph.networks import network, run

import zeropoint as zp
from zeropoint.errors import RecipeError
from zeropoint.graph.store import serialize
from zeropoint.rules import RULES
from zeropoint.targets import TARGETS, Role, Target, get_target
from zeropoint.targets.onnxruntime import ONNXRUNTIME
from zeropoint.targets.tensorrt import TENSORRT

every_target = pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
STEM = network("a = Conv(x, w1) r = Relu(a) c = Conv(r, w2) y = Softmax(c)", inputs="float[N,3,8,8] x", weights={"w1": (16, 3, 1, 1)})
DATA = [{"x": np.random.default_rng(seed).normal(size=(1, 3, 8, 8)).astype(np.float32)} for seed in range(3)]
# TensorRT, but for stems too, and with unsigned codes where a tensor is never negative.
DUMMY = replace(
    TENSORRT,
    name="dummy",
    runs_on="a machine of our own",
    nonnegative_activation=ONNXRUNTIME.activation,
    min_channels=1,
    lint=("opset",),
    next_command="run {model} as {stem}",
)


def quantized(model: onnx.ModelProto, target: str | Target) -> zp.Result:
    return zp.quantize(model, data=DATA, target=target, evaluate=False)


def test_a_target_is_one_line_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, "dummy", DUMMY)
    result = quantized(STEM, "dummy")
    assert result.plan.target == "dummy"
    assert {entry.tensor: entry.format for entry in result.plan.entries} == {"x": "int8", "r": "uint8", "w1": "int8", "w2": "int8"}
    assert "w1" not in quantized(STEM, "tensorrt").plan.tensors
    assert result.next_command("out/net.onnx") == "run out/net.onnx as out/net"
    [found] = run(result.model, DATA[0])
    np.testing.assert_allclose(found, run(STEM, DATA[0])[0], atol=0.05)


def test_a_target_need_not_be_in_the_table() -> None:
    assert "dummy" not in TARGETS
    result = quantized(STEM, DUMMY)
    assert result.plan.target == "dummy"
    assert result.plan.tensors == {"x", "r", "w1", "w2"}


def test_each_field_of_a_target_decides_something() -> None:
    base = replace(ONNXRUNTIME, min_channels=1)
    model = network(
        "a = Conv(x, w1, b) r = Relu(a) m = MatMul(r, w2) t = Transpose <perm=[0,1,3,2]> (m) n = MatMul(t, w3) y = Softmax(n)",
        inputs="float[N,3,8,8] x",
        weights={"w1": (16, 3, 1, 1), "b": (16,), "w2": (8, 8), "w3": (8, 8)},
    )
    changes = {
        "activation": replace(base, activation=TENSORRT.activation),
        "nonnegative_activation": replace(base, nonnegative_activation=TENSORRT.activation),
        "weight": replace(base, weight=replace(base.weight, narrow=False)),
        "bias": replace(base, bias="float"),
        "operators": replace(base, operators={name: role for name, role in base.operators.items() if name != "MatMul"}),
        "codes_everywhere": replace(base, codes_everywhere=False),
        "min_channels": replace(base, min_channels=4),
    }
    ours = quantized(model, base).plan.entries
    same = [field for field, target in changes.items() if quantized(model, target).plan.entries == ours]
    assert same == []


def test_an_unknown_target_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        RecipeError, match=r"^target: found 'tensorflow', expected one of tensorrt, onnxruntime, onnxruntime-arm, openvino$"
    ):
        get_target("tensorflow")
    with pytest.raises(RecipeError, match=r"^target: found 'tensorflow'"):
        quantized(STEM, "tensorflow")


@every_target
def test_a_target_is_found_by_its_name(target: Target) -> None:
    assert get_target(target.name) is target


@every_target
def test_every_rule_that_a_target_names_exists(target: Target) -> None:
    assert target.lint
    assert set(target.lint) <= set(RULES)


@every_target
def test_every_operator_of_a_target_is_one_of_onnx(target: Target) -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert set(target.operators) <= known


@every_target
def test_specs_and_roles_fit_together(target: Target) -> None:
    roles = set(target.operators.values())
    assert target.operators["Conv"] in (Role.WEIGHTED, Role.WEIGHTED_TO_CODES)
    assert (Role.WEIGHTED_TO_CODES in roles) == target.codes_everywhere
    assert target.weight.symmetric
    assert target.weight.format.signed
    assert 13 <= target.min_opset < target.max_opset
    assert "{model}" in target.next_command


def test_tensorrt_has_signed_symmetric_codes_and_float_biases() -> None:
    specs = (TENSORRT.activation, TENSORRT.nonnegative_activation, TENSORRT.weight)
    assert {(spec.format.name, spec.symmetric) for spec in specs} == {("int8", True)}
    assert TENSORRT.bias == "float"


@every_target
def test_a_plan_alone_makes_the_same_file_again(target: Target) -> None:
    first = quantized(STEM, target)
    again = zp.quantize(STEM, target=target, plan=first.plan, evaluate=False)
    assert serialize(again.model) == serialize(first.model)
