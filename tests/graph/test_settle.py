"""What is left of a plan once its edits are in the weights gives the same codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.graph.networks import run
from tests.graph.test_materialize_refinements import B1, E0, E1, STEPS0, STEPS1, W1, R, X, subject

from zeropoint.errors import PlanError
from zeropoint.graph.initializers import constant_array
from zeropoint.graph.materialize import materialize
from zeropoint.graph.settle import settle, with_constants
from zeropoint.graph.store import serialize
from zeropoint.plan import Correction, Plan, rounding


def test_a_settled_network_and_its_pairs_are_the_whole_plan() -> None:
    plain, inner, outer = subject()
    corrections = (Correction(tensor="b1", added=tuple(np.arange(5) / 4.0), reason=""),)
    roundings = (rounding("w0", STEPS0, ""), rounding("w1", STEPS1, ""))
    plan = Plan(target="tensorrt", entries=(R, E0, E1), corrections=corrections, scalings=(inner, outer), roundings=roundings)
    before = serialize(plain)
    settled, pairs = settle(plain, plan)
    assert (pairs.corrections, pairs.scalings, pairs.roundings) == ((), (), ())
    assert serialize(plain) == before
    assert not np.array_equal(constant_array(settled.graph.initializers["w1"]), W1)
    whole, twice = materialize(plain, plan), materialize(settled, pairs)
    assert serialize(whole) == serialize(twice)
    [found] = run(settled, {"x": X}, ["y"])
    [plainly] = run(plain, {"x": X}, ["y"])
    assert not np.array_equal(found, plainly)


def test_a_weight_that_others_read_in_float_is_rounded_in_a_copy() -> None:
    plain, _, _ = subject()
    shared = replace(E1, readers=())
    settled, pairs = settle(plain, Plan(target="tensorrt", entries=(shared,), roundings=(rounding("w1", STEPS1, ""),)))
    [entry] = pairs.entries
    assert entry.tensor == "w1/rounded"
    np.testing.assert_array_equal(constant_array(settled.graph.initializers["w1"]), W1)


def test_constants_are_changed_in_a_copy() -> None:
    plain, _, _ = subject()
    changed = with_constants(plain, {"b1": B1 + 1.0})
    np.testing.assert_array_equal(constant_array(changed.graph.initializers["b1"]), B1 + 1.0)
    np.testing.assert_array_equal(constant_array(plain.graph.initializers["b1"]), B1)


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        pytest.param({"nowhere": B1}, "no such constant", id="unknown"),
        pytest.param({"b1": B1[1:]}, r"of shape \(4,\), expected float32 of \(5,\)", id="another shape"),
        pytest.param({"b1": B1.astype(np.float16)}, r"found float16 of shape \(5,\), expected float32", id="another type"),
    ],
)
def test_constants_that_do_not_fit(constants: dict, message: str) -> None:
    plain, _, _ = subject()
    with pytest.raises(PlanError, match=message):
        with_constants(plain, constants)
