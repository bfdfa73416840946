from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from pydantic import TypeAdapter
from tests.graph.networks import Feed, feed, network, run, run_all
from tests.graph.scalings import CASES, NAMED, Case, prepared, told

from zeropoint.errors import PlanError
from zeropoint.graph.facts import capture_facts
from zeropoint.graph.load import load
from zeropoint.graph.prepare import prepare
from zeropoint.graph.scalable import find_shiftable
from zeropoint.graph.scaling import Scalable, apply_scalings, scaling
from zeropoint.graph.store import serialize
from zeropoint.plan import Scaling


def random_scaling(scalable: Scalable, seed: int, *, shifts: bool = True) -> Scaling:
    rng = np.random.default_rng(seed)
    factors = 10.0 ** rng.uniform(-1.0, 1.0, scalable.channels)
    subtracted = rng.normal(0.0, 1.0, scalable.channels) if shifts and scalable.shiftable else ()
    return scaling(scalable, factors, subtracted, reason="a test")


def scaled(plain: ir.Model, *scalings: Scaling) -> ir.Model:
    model = plain.clone()
    apply_scalings(model, scalings)
    return model


def proto(model: ir.Model) -> onnx.ModelProto:
    return onnx.load_from_string(serialize(model))


def assert_same_outputs(model: ir.Model, plain: ir.Model, data: Feed) -> None:
    for mine, theirs in zip(run(model, data), run(plain, data), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@every_case
def test_scaled_tensors_hold_what_was_asked_for_and_outputs_stay(case: Case) -> None:
    plain, found = prepared(case.network, case.maxima)
    data = feed(case.network, 1, batch=3)
    before = run_all(proto(plain), data)
    for seed, scalable in enumerate(found):
        one = random_scaling(scalable, seed)
        model = scaled(plain, one)
        assert_same_outputs(model, plain, data)
        after = run_all(proto(model), data)
        for tied in one.tied:
            factors = tied.spread(one.factors, 1.0)
            shifts = tied.spread(one.shifts, 0.0) if one.shifts and tied.shifted else 0.0
            expected = (before[tied.tensor] - shifts) / factors
            name = tied.tensor if one.free else f"{tied.tensor}/scaled"
            np.testing.assert_allclose(after[name], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@every_case
@pytest.mark.parametrize("shifts", [False, True], ids=["factors", "factors and shifts"])
def test_all_scalings_together_leave_the_outputs(case: Case, shifts: bool) -> None:
    plain, found = prepared(case.network, case.maxima)
    model = scaled(plain, *(random_scaling(scalable, seed, shifts=shifts) for seed, scalable in reversed([*enumerate(found)])))
    assert_same_outputs(model, plain, feed(case.network, 1, batch=3))
    free = all(scalable.free for scalable in found)
    assert (len(list(model.graph)) == len(list(plain.graph))) == free


def test_one_number_is_subtracted_by_a_single_node() -> None:
    proto_ = network("a = MatMul(x, w) y = Add(a, b)", inputs="float[N,8] x", weights={"w": (8, 8), "b": (8,)})
    plain = load(proto_)
    prepare(plain)
    data = feed(proto_, 1, batch=3)
    [one] = find_shiftable(plain, capture_facts(plain, data))
    model = scaled(plain, scaling(one, [1.0], [-0.75], reason="a test"))
    assert [node.op_type for node in model.graph] == ["Add", "MatMul", "Add"]
    assert_same_outputs(model, plain, data)
    np.testing.assert_allclose(run_all(proto(model), data)["x/scaled"], data["x"] + 0.75, rtol=1e-6)


# --- what is changed ----------------------------------------------------------------------------------------------------------


def test_a_clip_becomes_relu_where_what_it_clips_is_scaled() -> None:
    case = NAMED["ReLU6 that is never reached"]
    plain, found = prepared(case.network, case.maxima)
    assert [scalable.loose for scalable in found] == [("b",), ()]
    types = [[node.op_type for node in scaled(plain, random_scaling(scalable, 0)).graph] for scalable in found]
    assert types == [["Conv", "Relu", "Conv"], ["Mul", "Add", "Conv", "Clip", "Conv"]]


def test_constants_keep_their_names_and_the_given_network_its_numbers() -> None:
    case = NAMED["MatMul with and without a bias"]
    plain, found = prepared(case.network)
    before = {name: np.array(value.const_value.numpy()) for name, value in plain.graph.initializers.items() if value.const_value}
    model = scaled(plain, *(random_scaling(scalable, 0) for scalable in found if scalable.free))
    assert list(model.graph.initializers.keys() ^ before.keys()) == []
    assert all((plain.graph.initializers[name].const_value.numpy() == array).all() for name, array in before.items())  # type: ignore[union-attr]
    changed = {name for name in before if (model.graph.initializers[name].const_value.numpy() != before[name]).any()}  # type: ignore[union-attr]
    assert changed == {"w0", "b0", "w1", "b1", "w2", "b2"}


@pytest.mark.parametrize(
    ("third", "expected"),
    [
        pytest.param("d = Conv(s, w)", {"a": "w/scaled", "b": "w/scaled", "d": "w"}, id="another reader needs the old one"),
        pytest.param("d = Conv(t, w)", {"a": "w", "b": "w", "d": "w"}, id="all readers get the same"),
    ],
)
def test_a_shared_weight_is_copied_once_and_only_if_another_reader_needs_the_old_one(third: str, expected: dict[str, str]) -> None:
    body = f"t = Conv(x, w0) s = Sigmoid(x) a = Conv(t, w) b = Conv(t, w) {third} c = Add(a, b) y = Add(c, d)"
    plain, found = prepared(network(body))
    model = scaled(plain, random_scaling(found[0], 0))
    assert {str(node.name): str(node.inputs[1].name) for node in model.graph if node.name in expected} == expected  # type: ignore[union-attr]


def test_a_weight_that_reads_and_is_read_in_one_chain_is_told_apart() -> None:
    model = network("a = Conv(x, w) b = Relu(a) c = Conv(b, w) d = Relu(c) y = Conv(d, w)")
    plain, found = prepared(model)
    assert [told(scalable) for scalable in found] == ["a b | c.0", "c d | y.0", "x | a.0 shift branch"]
    changed = scaled(plain, *(random_scaling(scalable, seed) for seed, scalable in enumerate(found)))
    assert len({node.inputs[1].name for node in changed.graph if node.op_type == "Conv"}) == 3  # type: ignore[union-attr]
    assert_same_outputs(changed, plain, feed(model, 1))


def test_new_names_are_free() -> None:
    model = network("t = Sigmoid(x) u = Abs(t) y = Conv(t, w1)", outputs="y, u")
    model.graph.node[1].output[0] = model.graph.output[1].name = "t/scaled"
    plain, found = prepared(model)
    branch = next(scalable for scalable in found if scalable.tensors == ("t",))
    changed = scaled(plain, random_scaling(branch, 0))
    assert_same_outputs(changed, plain, feed(model, 1))
    names = [value.name for node in changed.graph for value in node.outputs]
    assert len({*names}) == len(names)
    assert "t/scaled1" in names


def test_a_scaling_reads_back_from_json() -> None:
    case = NAMED["channel shuffle"]
    plain, found = prepared(case.network)
    made = [random_scaling(scalable, seed) for seed, scalable in enumerate(found)]
    read = TypeAdapter(list[Scaling]).validate_json(json.dumps([asdict(one) for one in made]), strict=True)
    assert read == made
    data = feed(case.network, 1)
    for mine, theirs in zip(run(scaled(plain, *read), data), run(scaled(plain, *made), data), strict=True):
        np.testing.assert_array_equal(mine, theirs)


# --- what is refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factors", "shifts"),
    [
        pytest.param(np.ones(15), (), id="a factor too few"),
        pytest.param(np.ones(16), np.ones(15), id="a shift too few"),
        pytest.param(np.ones(16), np.ones(16), id="shifts that nothing takes up"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(factors: np.ndarray, shifts: np.ndarray) -> None:
    _, found = prepared(NAMED["Conv with padding has no shift"].network)
    with pytest.raises(ValueError, match="scaling of 't': found"):
        scaling(found[0], factors, shifts, reason="a test")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda one: replace(one, factors=(0.0, *one.factors[1:])), "expected positive finite", id="a factor of zero"),
        pytest.param(lambda one: replace(one, factors=(np.inf, *one.factors[1:])), "expected positive finite", id="an infinite factor"),
        pytest.param(lambda one: replace(one, tied=()), "the tensors that they divide", id="no tensors"),
        pytest.param(lambda one: replace(one, shifts=(1.0,)), "expected none, or 16", id="too few shifts"),
        pytest.param(lambda one: replace(one, factors=one.factors[1:]), "expected one of the 15 factors", id="too few factors"),
        pytest.param(lambda one: replace(one, factors=(1e-39, *one.factors[1:])), "use factors nearer to 1", id="beyond float32"),
        pytest.param(lambda one: replace(one, tied=(replace(one.tied[0], tensor="?"),)), "found no tensor '\\?'", id="no such tensor"),
        pytest.param(lambda one: replace(one, loose=("?",)), "found no Clip '\\?'", id="no such Clip"),
        pytest.param(lambda one: replace(one, free=False, tied=one.tied[:1]), "expected nodes that read 'a'", id="no such reader"),
    ],
)
def test_a_scaling_that_does_not_fit_the_network_is_refused(damage: Callable[[Scaling], Scaling], message: str) -> None:
    plain, found = prepared(NAMED["Relu"].network)
    with pytest.raises(PlanError, match=message):
        scaled(plain, damage(random_scaling(found[0], 0)))
