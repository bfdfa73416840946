"""Codes chosen by gradients through blocks, against all choices of a network that is small enough to try them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

pytest.importorskip("torch")

from tests.graph.networks import Feed, network, plan_network, run

from zeropoint.api import quantize
from zeropoint.autograd.reconstruction import Budget, reconstruct
from zeropoint.demo import load_digits
from zeropoint.graph.initializers import constant_array
from zeropoint.graph.load import load
from zeropoint.graph.materialize import materialize
from zeropoint.graph.model import Model
from zeropoint.graph.prepare import prepare
from zeropoint.graph.settle import settle
from zeropoint.numerics.affine import quantize_array
from zeropoint.plan import Entry, Plan, Reader
from zeropoint.recipe import Recipe
from zeropoint.refine.sweep import with_codes

RNG = np.random.default_rng(0)
MIX = RNG.standard_normal((3, 16)).astype(np.float32)  # inputs that hang together, so that errors can make up for each other
FEEDS: list[Feed] = [{"x": (RNG.standard_normal((8, 3)) @ MIX).astype(np.float32)} for _ in range(4)]
FOUR_BITS = Recipe(solver="minmax", weight_format="int4", bias="kept")
CHAIN = network(
    "a = MatMul(x, w0) b = Relu(a) y = MatMul(b, w1)", inputs="float[N,16] x", weights={"w0": (16, 16), "w1": (16, 16)}, opset=21
)


def planned(model: object = CHAIN) -> tuple[Model, Plan]:
    found = plan_network(model, "tensorrt", recipe=FOUR_BITS, feeds=FEEDS)  # type: ignore[arg-type]
    return found.model, found.plan


def error(model: Model, plan: Plan) -> float:
    found = [run(materialize(model, plan), feed, ["y"])[0] - run(model, feed, ["y"])[0] for feed in FEEDS]
    return float(sum((difference**2).sum() for difference in found))


def refined(model: Model, plan: Plan, *, iterations: int = 600, seed: int = 0, feeds: Sequence[Feed] = tuple(FEEDS)) -> Plan:
    codes = reconstruct(model, plan, feeds, budget=Budget(iterations, seed))
    return with_codes(plan, model, codes, "")


def test_the_output_comes_closer() -> None:
    model, plan = planned()
    found = refined(model, plan)
    assert found.roundings
    assert error(model, found) < 0.5 * error(model, plan)


def test_codes_are_among_the_best_of_all() -> None:
    weight = RNG.uniform(-1.0, 1.0, (5, 2)).astype(np.float32)
    model = load(network("y = MatMul(x, w)", inputs="float[N,5] x", weights={"w": weight}, opset=21))
    prepare(model)
    entry = Entry(
        tensor="w",
        role="weight",
        format="int4",
        symmetric=True,
        axis=1,
        scale=(0.25, 0.25),
        zero_point=(0,),
        solver="",
        reason="",
        readers=(Reader("y", 1),),
    )
    x = (RNG.standard_normal((64, 2)) @ RNG.standard_normal((2, 5))).astype(np.float32)
    codes = reconstruct(model, Plan(target="tensorrt", entries=(entry,)), [{"x": x}], budget=Budget(1000, 0))["w"]

    def error(codes: np.ndarray) -> float:
        return float(((x @ (codes * 0.25 - weight)) ** 2).sum())

    lower = np.floor(weight / 0.25)
    choices = [lower + np.array(ups).reshape(5, 2) for ups in product((0, 1), repeat=10)]
    better = sum(error(choice) < error(codes) for choice in choices)
    assert better < 0.2 * len(choices)
    assert sum(error(choice) < error(np.rint(weight / 0.25)) for choice in choices) > 2 * better


def test_a_block_that_comes_no_closer_keeps_its_codes() -> None:
    model, plan = planned()
    found = refined(model, plan, iterations=200)
    again = refined(model, found, iterations=1)  # too few to find anything
    assert error(model, again) <= error(model, found)


def test_the_same_seed_gives_the_same_codes_and_another_others() -> None:
    model, plan = planned()
    single = [{"x": feed["x"][row : row + 1]} for feed in FEEDS for row in range(8)]  # so that the order matters
    found = [refined(model, plan, seed=seed, iterations=130, feeds=single) for seed in (0, 0, 1, 2, 3)]
    assert found[0] == found[1]
    assert any(other != found[0] for other in found[2:])


def test_codes_stay_within_the_format_and_next_to_the_float_weight() -> None:
    model, plan = planned()
    codes = reconstruct(model, plan, FEEDS, budget=Budget(600, 0))
    entries = {entry.tensor: entry for entry in plan.entries}
    for tensor, found in codes.items():
        weight, qparams = constant_array(model.graph.initializers[tensor]), entries[tensor].qparams()
        assert found.min() >= entries[tensor].spec.qmin
        assert found.max() <= entries[tensor].spec.qmax
        assert np.abs(found - quantize_array(weight, qparams).astype(np.int64)).max() == 1


def test_what_has_8_bits_is_left_alone() -> None:
    eight = plan_network(CHAIN, "tensorrt", recipe=replace(FOUR_BITS, weight_format="int8"), feeds=FEEDS)
    assert reconstruct(eight.model, eight.plan, FEEDS, budget=Budget(5, 0)) == {}


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        pytest.param("b = MatMul(x, w0) y = Relu(b) c = MatMul(y, w1) d = Relu(c) z = MatMul(d, w2)", "y, z", id="one in an early block"),
        pytest.param("a = MatMul(x, w0) b = Relu(a) y = MatMul(b, w1) z = MatMul(b, w2)", "y, z", id="two heads"),
        pytest.param("a = MatMul(x, w0) b = Relu(a) c = MatMul(b, w1) y = ArgMax<axis=1>(c)", "int64 y", id="of integers alone"),
    ],
)
def test_every_output_counts(nodes: str, outputs: str) -> None:
    plain = network(nodes, inputs="float[N,16] x", outputs=outputs, weights={"w0": (16, 16), "w1": (16, 16), "w2": (16, 16)}, opset=21)
    model, plan = planned(plain)
    codes = reconstruct(model, plan, FEEDS, budget=Budget(300, 0))
    before, after = errors(model, plan), errors(model, with_codes(plan, model, codes, ""))
    assert all(b <= a for a, b in zip(before, after, strict=True))
    assert after != before or outputs == "int64 y"


def errors(model: Model, plan: Plan) -> list[float]:
    """The error of each output over all feeds."""
    quantized = materialize(model, plan)
    found = [[float(np.square(a - b).sum()) for a, b in zip(run(quantized, feed), run(model, feed), strict=True)] for feed in FEEDS]
    return [sum(column) for column in zip(*found, strict=True)]


def test_a_weight_that_settling_copies_is_known_by_its_own_name() -> None:
    nodes = "a = MatMul(x, w0) b = Relu(a) c = MatMul(b, w1) m = ReduceMean<keepdims=0>(x) e = Mul(w1, m) s = ReduceMean<keepdims=0>(e)"
    weights = {"w0": (16, 16), "w1": (16, 16)}
    shared = network(f"{nodes} y = Add(c, s)", inputs="float[N,16] x", weights=weights, opset=21)
    model, plan = planned(shared)
    entry = next(entry for entry in plan.entries if entry.tensor == "w1")
    codes = quantize_array(constant_array(model.graph.initializers["w1"]), entry.qparams()).astype(np.int64)
    rounded = with_codes(plan, model, {"w1": np.clip(codes + 1, -7, 7)}, "")
    assert settle(model, rounded)[1].entries != rounded.entries
    found = reconstruct(model, rounded, FEEDS, budget=Budget(3, 0))
    assert sorted(found) == ["w0", "w1"]


DIGITS = load_digits()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({"provider": "torch"}, True, id="in PyTorch"),
        pytest.param({"provider": "cpu"}, False, id="in ONNX Runtime"),
        pytest.param({"provider": "torch", "weight_format": "int8"}, False, id="8 bits"),
        pytest.param({"provider": "torch", "effort": "balanced"}, False, id="balanced"),
        pytest.param({"provider": "torch", "without": ["smoothing", "rounding", "reconstruction"]}, False, id="without it"),
    ],
)
def test_it_is_made_where_it_should_be(options: dict, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from zeropoint import improve

    monkeypatch.setitem(improve.EFFORTS, "best", replace(improve.EFFORTS["best"], iterations=3))
    told: list[str] = []
    given = {"effort": "best", "weight_format": "int4", "without": ["smoothing", "rounding"]} | options
    result = quantize(
        DIGITS.model,
        data=DIGITS.calibration[:40],
        target="tensorrt",
        evaluate=False,
        progress=lambda stage, done, total: told.append(stage),
        **given,
    )
    assert ("reconstruction" in told) == expected
    assert any(step.name == "reconstruction" for step in result.plan.steps) == expected
