"""What the planner makes of what is known of ranges beside statistics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from tests.graph.networks import network, place

from zeropoint.numerics.affine import Range
from zeropoint.plan import Entry
from zeropoint.planner import NO_LIMITS, Limits, make_plan
from zeropoint.recipe import Recipe
from zeropoint.statistics.tensor import observe
from zeropoint.targets import get_target

# --- one range -----------------------------------------------------------------------------------------------------------------

A, AB = ("a",), ("a", "b")
LIMITED: dict[str, tuple[Limits, Sequence[str], Range, bool, Range]] = {
    "nothing known": (NO_LIMITS, A, Range(-2.0, 6.0), False, Range(-2.0, 6.0)),
    "another tensor": (Limits({"b": 0.5}, {"b": Range(0.0, 1.0)}), A, Range(-2.0, 6.0), False, Range(-2.0, 6.0)),
    # --- widths
    "half as wide": (Limits({"a": 0.5}), A, Range(-2.0, 6.0), False, Range(-1.0, 3.0)),
    "half as wide, symmetric": (Limits({"a": 0.5}), A, Range(-6.0, 6.0), True, Range(-3.0, 3.0)),
    "half as wide, symmetric and not negative": (Limits({"a": 0.5}), A, Range(0.0, 6.0), True, Range(0.0, 3.0)),
    "the widest of a group": (Limits({"a": 0.5, "b": 0.25}), AB, Range(-2.0, 6.0), False, Range(-1.0, 3.0)),
    "a group of which one is not known": (Limits({"a": 0.5}), AB, Range(-2.0, 6.0), False, Range(-2.0, 6.0)),
    # --- bounds
    "bounds inside": (Limits({}, {"a": Range(-1.0, 4.0)}), A, Range(-2.0, 6.0), False, Range(-1.0, 4.0)),
    "bounds outside": (Limits({}, {"a": Range(-9.0, 9.0)}), A, Range(-2.0, 6.0), False, Range(-2.0, 6.0)),
    "bounds inside on one side": (Limits({}, {"a": Range(-9.0, 4.0)}), A, Range(-2.0, 6.0), False, Range(-2.0, 4.0)),
    "bounds above 0 keep 0": (Limits({}, {"a": Range(1.0, 4.0)}), A, Range(-2.0, 6.0), False, Range(0.0, 4.0)),
    "bounds below 0 keep 0": (Limits({}, {"a": Range(-1.5, -1.0)}), A, Range(-2.0, 6.0), False, Range(-1.5, 0.0)),
    "symmetric, bounds inside": (Limits({}, {"a": Range(-1.0, 4.0)}), A, Range(-6.0, 6.0), True, Range(-4.0, 4.0)),
    "symmetric, more below": (Limits({}, {"a": Range(-5.0, 1.0)}), A, Range(-6.0, 6.0), True, Range(-5.0, 5.0)),
    "symmetric, bounds outside on one side": (Limits({}, {"a": Range(-1.0, 9.0)}), A, Range(-6.0, 6.0), True, Range(-6.0, 6.0)),
    "symmetric and not negative": (Limits({}, {"a": Range(-1.0, 4.0)}), A, Range(0.0, 6.0), True, Range(0.0, 4.0)),
    "symmetric, bounds above 0": (Limits({}, {"a": Range(1.0, 4.0)}), A, Range(-6.0, 6.0), True, Range(-4.0, 4.0)),
    "the widest bounds of a group": (
        Limits({}, {"a": Range(-1.0, 2.0), "b": Range(-0.5, 4.0)}), AB, Range(-2.0, 6.0), False, Range(-1.0, 4.0)
    ),
    "a group of which one has no bounds": (Limits({}, {"a": Range(-1.0, 2.0)}), AB, Range(-2.0, 6.0), False, Range(-2.0, 6.0)),
    "nothing but 0": (Limits({}, {"a": Range(0.0, 0.0)}), A, Range(-2.0, 6.0), False, Range(0.0, 0.0)),
    # --- both
    "bounds inside what is half as wide": (Limits({"a": 0.5}, {"a": Range(-0.5, 9.0)}), A, Range(-2.0, 6.0), False, Range(-0.5, 3.0)),
    "symmetric, both": (Limits({"a": 0.5}, {"a": Range(-0.5, 2.0)}), A, Range(-6.0, 6.0), True, Range(-2.0, 2.0)),
}  # fmt: skip


@pytest.mark.parametrize(("limits", "tensors", "solved", "symmetric", "expected"), LIMITED.values(), ids=LIMITED)
def test_a_range_under_limits(limits: Limits, tensors: Sequence[str], solved: Range, symmetric: bool, expected: Range) -> None:
    assert limits.limited(tensors, solved, symmetric=symmetric) == expected


# --- in a plan -----------------------------------------------------------------------------------------------------------------

SINGLE = network("a = Conv(x, w) y = Softmax(a)")
JOINED = network("a = Conv(x, w1) p = MaxPool <kernel_shape=[1,1]> (a) c = Conv(p, w2) d = Conv(a, w3) s = Sum(c, d) y = Softmax(s)")


def entries(model: onnx.ModelProto, target: str, seen: dict[str, list[float]], limits: Limits = NO_LIMITS) -> dict[str, Entry]:
    goal = get_target(target)
    prepared, _, placement = place(model, goal)
    statistics = {site.tensor: observe(np.array(seen.get(site.tensor, [-1.0, 1.0]), np.float32)) for site in placement.activations}
    plan = make_plan(prepared, placement, statistics, goal, Recipe(solver="minmax"), limits=limits)
    return {entry.tensor: entry for entry in plan.entries}


@pytest.mark.parametrize(
    ("target", "seen", "limits", "format", "range_", "scale", "zero_point"),
    [
        pytest.param("tensorrt", [-254.0, 3.0], Limits({"x": 0.5}), "int8", (-127.0, 127.0), 1.0, 0, id="symmetric"),
        pytest.param(
            "tensorrt", [-254.0, 3.0], Limits({}, {"x": Range(-127.0, 1.0)}), "int8", (-127.0, 127.0), 1.0, 0, id="symmetric, bounds"
        ),
        pytest.param("openvino", [0.0, 510.0], Limits({"x": 0.5}), "uint8", (0.0, 255.0), 1.0, 0, id="not negative"),
        pytest.param("onnxruntime", [-110.0, 400.0], Limits({"x": 0.5}), "uint8", (-55.0, 200.0), 1.0, 55, id="asymmetric"),
        pytest.param(
            "onnxruntime",
            [-110.0, 400.0],
            Limits({}, {"x": Range(-55.0, 200.0)}),
            "uint8",
            (-55.0, 200.0),
            1.0,
            55,
            id="asymmetric, bounds",
        ),
        pytest.param("onnxruntime", [-510.0, -1.0], Limits({"x": 0.5}), "uint8", (-255.0, 0.0), 1.0, 255, id="asymmetric and negative"),
        pytest.param(
            "onnxruntime", [-510.0, -1.0], Limits({}, {"x": Range(-255.0, -1.0)}), "uint8", (-255.0, 0.0), 1.0, 255, id="negative, bounds"
        ),
    ],
)
def test_limits_decide_the_numbers_of_an_entry(
    target: str, seen: list[float], limits: Limits, format: str, range_: tuple[float, float], scale: float, zero_point: int
) -> None:
    plain, found = (entries(SINGLE, target, {"x": seen}, one)["x"] for one in (NO_LIMITS, limits))
    assert (found.format, found.range, found.scale, found.zero_point) == (format, range_, (scale,), (zero_point,))
    assert found.reason == f"{plain.reason}; 50% of that by what the outputs make of it"
    assert plain.range != range_


def test_limits_that_change_nothing_are_not_spoken_of() -> None:
    limits = Limits({"x": 1.0}, {"x": Range(-1000.0, 1000.0)})
    assert entries(SINGLE, "tensorrt", {"x": [-254.0, 3.0]}, limits) == entries(SINGLE, "tensorrt", {"x": [-254.0, 3.0]})


def test_bounds_without_room_leave_a_scale_that_can_be_used() -> None:
    found = entries(SINGLE, "onnxruntime", {"x": [-1.0, 1.0]}, Limits({}, {"x": Range(0.0, 0.0)}))["x"]
    assert found.range == (0.0, 0.0)
    assert found.scale[0] > 0.0
    assert found.reason.endswith("; 0% of that by what the outputs make of it")


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        pytest.param(Limits({"a": 0.5, "p": 0.25}), 128.0, id="the widest of them"),
        pytest.param(Limits({"a": 0.5}), 256.0, id="one width is not known"),
        pytest.param(Limits({}, {"a": Range(-64.0, 0.0), "p": Range(0.0, 32.0)}), 64.0, id="the widest bounds"),
        pytest.param(Limits({}, {"p": Range(0.0, 32.0)}), 256.0, id="one has no bounds"),
    ],
)
def test_a_group_shares_what_limits_leave(limits: Limits, expected: float) -> None:
    found = entries(JOINED, "openvino", {"a": [-256.0, 1.0], "p": [-1.0, 16.0]}, limits)
    assert {found[tensor].range for tensor in "ap"} == {(-expected, expected)}
    assert found["a"].group == found["p"].group != ""


def test_the_scales_of_biases_follow() -> None:
    model = network("a = Conv(x, w, b) y = Softmax(a)", weights={"b": (16,)})
    plain, halved = (entries(model, "onnxruntime", {"x": [-1.0, 1.0]}, limits) for limits in (NO_LIMITS, Limits({"x": 0.5})))
    np.testing.assert_allclose(np.array(halved["b"].scale), np.array(plain["b"].scale) / 2, rtol=1e-6)
    assert halved["w"] == plain["w"]
