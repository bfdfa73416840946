"""Plans whose channels are scaled, and whose weights have other codes than the nearest, against networks made by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper
from tests.graph.networks import Array, network, run
from tests.graph.scalings import prepared

from zeropoint.errors import PlanError
from zeropoint.graph.materialize import WeightStorage, materialize
from zeropoint.graph.scaling import scaling
from zeropoint.graph.store import serialize
from zeropoint.plan import Correction, Entry, Plan, Reader, Rounding, Scaling, Tied, from_json, rounding, to_json

every_storage = pytest.mark.parametrize("storage", ["integer", "float"])

# Numbers are small multiples of powers of two, so that sums are exact in whatever order.
RNG = np.random.default_rng(0)
X = RNG.integers(-16, 17, (4, 8)).astype(np.float32) / 8
W0, W1 = (RNG.integers(-16, 17, shape).astype(np.float32) / 16 for shape in ((8, 6), (6, 5)))
B0, B1 = (RNG.integers(-16, 17, size).astype(np.float32) / 16 for size in (6, 5))
MLP = network(
    "t = Gemm(x, w0, b0) r = Relu(t) y = Gemm(r, w1, b1)", inputs="float[4,8] x", weights={"w0": W0, "w1": W1, "b0": B0, "b1": B1}
)
FACTORS = np.array([0.25, 0.5, 1.0, 2.0, 4.0, 1.0])  # of t and r
INPUT_FACTORS, SHIFTS = np.array([0.5, 2.0, 1.0, 1.0, 4.0, 0.5, 1.0, 2.0]), np.arange(8) / 4.0 - 1.0
STEPS0, STEPS1 = (RNG.integers(-1, 2, shape) for shape in (W0.shape, W1.shape))
ADDED = np.arange(5) / 4.0


def activation(tensor: str, scale: float, *readers: Reader) -> Entry:
    return Entry(
        tensor=tensor,
        role="activation",
        format="int8",
        symmetric=True,
        scale=(scale,),
        zero_point=(0,),
        solver="",
        reason="",
        readers=readers,
    )


def weight(tensor: str, scale: tuple[float, ...], *readers: Reader, format: str = "int8") -> Entry:
    return replace(activation(tensor, 1.0, *readers), role="weight", format=format, narrow=True, axis=1, scale=scale)


R = activation("r", 0.5, Reader("y", 0))
E0, E1 = weight("w0", (0.125,) * 6, Reader("t", 1)), weight("w1", (0.25, 0.125, 0.25, 0.5, 0.125), Reader("y", 1))


def subject() -> tuple[ir.Model, Scaling, Scaling]:
    """Return the network, what scales `t` and `r`, and what scales the input for the first Gemm on a branch."""
    plain, found = prepared(MLP)
    inner, outer = found
    assert (inner.tensors, inner.free, outer.tensors, outer.free) == (("t", "r"), True, ("x",), False)
    return plain, scaling(inner, FACTORS, reason=""), scaling(outer, INPUT_FACTORS, SHIFTS, reason="")


def fake(x: Array, scale: float | Array, steps: Array | int = 0) -> Array:
    """Round to codes of int8; weights keep off -128."""
    lowest = -128 if np.ndim(scale) == 0 else -127
    return np.clip(np.clip(np.rint(x / scale), lowest, 127) + steps, lowest, 127) * scale


def by_hand(*, steps0: Array | int = 0, steps1: Array | int = 0, added: Array | float = 0.0) -> Array:
    """The scaled network in numpy: what it reads and multiplies by is rounded where it stands."""
    x = fake((X - SHIFTS) / INPUT_FACTORS, 0.25)
    w0 = fake(W0 * INPUT_FACTORS[:, None] / FACTORS, np.array(E0.scale), steps0)
    b0 = (B0 + SHIFTS @ W0) / FACTORS
    r = fake(np.maximum(x @ w0 + b0, 0.0), 0.5)
    return r @ fake(W1 * FACTORS[:, None], np.array(E1.scale), steps1) + B1 + added


@every_storage
@pytest.mark.parametrize("with_roundings", [False, True], ids=["scalings", "scalings and roundings"])
def test_outputs_are_those_of_a_network_made_by_hand(with_roundings: bool, storage: WeightStorage) -> None:
    plain, inner, outer = subject()
    plan = Plan(target="x", entries=(activation("x/scaled", 0.25, Reader("t", 0)), R, E0, E1), scalings=(outer, inner))
    expected = by_hand()
    if with_roundings:
        plan = replace(
            plan,
            roundings=(rounding("w0", STEPS0, ""), rounding("w1", STEPS1, "")),
            corrections=(Correction(tensor="b1", added=tuple(ADDED.tolist()), reason=""),),
        )
        expected = by_hand(steps0=STEPS0, steps1=STEPS1, added=ADDED)
    [float_] = run(plain, {"x": X})
    before = serialize(plain)
    found = materialize(plain, from_json(to_json(plan)), weight_storage=storage)
    [output] = run(found, {"x": X})
    np.testing.assert_array_equal(output, expected)
    assert np.abs(output - float_).max() > 0.1, "there is something to round"
    assert serialize(plain) == before


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)], ids=["as found", "reversed"])
def test_scalings_alone_leave_the_outputs(order: slice) -> None:
    plain, *scalings = subject()
    found = materialize(plain, Plan(target="x", entries=(), scalings=tuple(scalings[order])))
    np.testing.assert_array_equal(run(found, {"x": X})[0], run(plain, {"x": X})[0])
    assert [node.op_type for node in found.graph] == ["Mul", "Add", "Gemm", "Relu", "Gemm"]


def test_the_same_plan_gives_the_same_bytes() -> None:
    plain, inner, outer = subject()
    plan = Plan(target="x", entries=(R, E0, E1), scalings=(inner, outer), roundings=(rounding("w1", STEPS1, ""),))
    first, second = (serialize(materialize(plain, plan)) for _ in range(2))
    assert first == second


# --- roundings ---------------------------------------------------------------------------------------------------------------


def stored(model: ir.Model) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(serialize(model)).graph.initializer}


def rounded(steps: Array, entry: Entry = E1, storage: WeightStorage = "integer") -> ir.Model:
    plain, _, _ = subject()
    plan = Plan(target="x", entries=(R, entry), roundings=(rounding(entry.tensor, steps, ""),))
    return materialize(plain, plan, weight_storage=storage)


NEAREST = np.clip(np.rint(W1 / np.array(E1.scale)), -127, 127)


@pytest.mark.parametrize("far", [1, -3, 100, -128], ids=str)
def test_codes_lie_that_many_steps_from_the_nearest_and_within_the_format(far: int) -> None:
    found = stored(rounded(np.full(W1.shape, far)))["w1/quantized"]
    np.testing.assert_array_equal(found, np.clip(NEAREST + far, -127, 127))
    assert found.dtype == np.int8


def test_floats_behind_a_pair_are_what_the_codes_stand_for() -> None:
    found = stored(rounded(STEPS1, storage="float"))
    np.testing.assert_array_equal(found["w1"], (NEAREST + STEPS1) * np.array(E1.scale))


@every_storage
def test_codes_of_four_bits_stay_within_them(storage: WeightStorage) -> None:
    plain, _, _ = subject()
    plain.graph.opset_imports[""] = 21
    entry = weight("w1", (0.25,) * 5, Reader("y", 1), format="int4")
    plan = Plan(target="x", entries=(entry,), roundings=(rounding("w1", np.full(W1.shape, 14), ""),))
    found = materialize(plain, plan, weight_storage=storage)
    expected = np.maximum(X @ W0 + B0, 0.0) @ np.full(W1.shape, 7 * 0.25) + B1
    np.testing.assert_array_equal(run(found, {"x": X})[0], expected)


def test_what_reads_the_weight_in_float_goes_on_doing_so() -> None:
    model = network("y = MatMul(x, w) z = Neg(w)", inputs="float[4,8] x", outputs="y, z", weights={"w": W0})
    plain, _ = prepared(model)
    plan = Plan(target="x", entries=(weight("w", (0.125,) * 6, Reader("y", 1)),), roundings=(rounding("w", STEPS0, ""),))
    for storage in ("integer", "float"):
        y, z = run(materialize(plain, plan, weight_storage=storage), {"x": X})
        np.testing.assert_array_equal(y, X @ fake(W0, np.full(6, 0.125), STEPS0))
        np.testing.assert_array_equal(z, -W0)


# --- what does not fit -------------------------------------------------------------------------------------------------------

Break = Callable[[Plan], Plan]


def given(one: Rounding) -> Break:
    return lambda plan: replace(plan, roundings=(one,))


def inner_scaling(**values: object) -> Break:
    return lambda plan: replace(plan, scalings=(replace(plan.scalings[0], **values),))  # type: ignore[arg-type]


UNFIT: dict[str, tuple[Break, str]] = {
    "too few steps": (
        given(rounding("w1", STEPS1[:2], "")),
        r"tensor 'w1': rounding: found 10 numbers, expected 30; was it made for another",
    ),
    "too many steps": (given(rounding("w1", STEPS0, "")), r"tensor 'w1': rounding: found 48 numbers, expected 30"),
    "steps that cannot be read": (
        given(Rounding(tensor="w1", steps="AAAA", reason="")),
        "tensor 'w1': rounding: steps: found text that cannot",
    ),
    "no such weight": (
        given(rounding("w9", STEPS1, "")),
        "rounding of 'w9': the network has no such constant; was the plan made for another",
    ),
    "a rounding of what is computed": (given(rounding("t", STEPS1, "")), "rounding of 't': the network has no such constant"),
    "too few factors": (inner_scaling(factors=(1.0,) * 5), r"scaling of 't': 't': found 6 numbers from 0 to 5 in the shape \[6\]"),
    "a factor of zero": (inner_scaling(factors=(0.0,) * 6), "scaling of 't': factors: found"),
    "shifts that are not as many": (inner_scaling(shifts=(1.0,)), "scaling of 't': shifts: found"),
    "no such tensor to scale": (inner_scaling(tied=(Tied(tensor="t9", shape=(6,)),)), "scaling of 't9': found no tensor 't9'"),
}


@every_storage
@pytest.mark.parametrize(("broken", "message"), UNFIT.values(), ids=UNFIT)
def test_refinements_that_do_not_fit_say_where(broken: Break, message: str, storage: WeightStorage) -> None:
    plain, inner, _ = subject()
    plan = broken(Plan(target="x", entries=(R, E1), scalings=(inner,)))
    with pytest.raises(PlanError, match=message):
        materialize(plain, plan, weight_storage=storage)


def test_a_rounding_of_a_weight_that_stays_in_float_is_left_alone() -> None:
    plain, _, _ = subject()
    found = materialize(plain, Plan(target="x", entries=(R,), roundings=(rounding("w1", STEPS1, ""),)))
    np.testing.assert_array_equal(stored(found)["w1"], W1)
