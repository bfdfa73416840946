"""What refinements leave in a plan: scalings, roundings, and steps."""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeropoint.errors import PlanError, RecipeError
from zeropoint.plan import Plan, Reader, Rounding, Scaling, Step, Tied, from_json, rounding, stored_steps, to_json

Json = dict[str, Any]
Edit = Callable[[Json], object]

FREE = Scaling(
    tied=(Tied(tensor="t", shape=(2, 1, 1), shifted=True), Tied(tensor="u", shape=(3,), index=(1, -1, 0))),
    readers=(Reader("conv", 0), Reader("other", 1)),
    free=True,
    loose=("clip",),
    factors=(0.5, 2.0),
    shifts=(1.0, -1.0),
    reason="peak^0.5",
)
PLAIN = Scaling(tied=(Tied(tensor="v", shape=(2,)),), readers=(Reader("gemm", 0),), free=False, factors=(0.25, 4.0), reason="")
LEARNED = rounding("w", np.array([[0, 1], [-1, 0]]), "output error")
STEPS = (
    Step(name="smoothing", before_db=30.0, after_db=33.25, samples=32, kept=True, detail="2 tensors scaled"),
    Step(name="rounding", before_db=33.25, after_db=33.0, samples=32, kept=False),
)
PLAN = Plan(target="tensorrt", entries=(), scalings=(FREE, PLAIN), roundings=(LEARNED,), steps=STEPS)


# --- the file ----------------------------------------------------------------------------------------------------------------

names = st.text(min_size=1, max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False)
ties = st.builds(
    Tied,
    tensor=names,
    shape=st.lists(st.integers(1, 4), max_size=4).map(tuple),
    index=st.lists(st.integers(-1, 9), max_size=4).map(tuple),
    shifted=st.booleans(),
)
scalings = st.builds(
    Scaling,
    tied=st.lists(ties, max_size=3).map(tuple),
    readers=st.lists(st.builds(Reader, names, st.integers(0, 5)), max_size=3).map(tuple),
    free=st.booleans(),
    loose=st.lists(names, max_size=2).map(tuple),
    factors=st.lists(numbers, max_size=4).map(tuple),
    shifts=st.lists(numbers, max_size=4).map(tuple),
    reason=st.text(),
)
arrays = st.lists(st.integers(-128, 127), max_size=9).map(np.array)
roundings = st.builds(rounding, names, arrays.map(lambda array: array.astype(np.int64)), st.text())
steps = st.builds(Step, name=names, before_db=numbers, after_db=numbers, kept=st.booleans(), detail=st.text())
plans = st.builds(
    Plan,
    target=names,
    entries=st.just(()),
    scalings=st.lists(scalings, max_size=2).map(tuple),
    roundings=st.lists(roundings, max_size=3, unique_by=lambda one: one.tensor).map(tuple),
    steps=st.lists(steps, max_size=3).map(tuple),
)


@settings(max_examples=40)
@given(plans)
def test_refinements_are_read_as_they_were_written(plan: Plan) -> None:
    text = to_json(plan)
    assert from_json(text) == plan
    assert to_json(from_json(text)) == text


def test_defaults_are_left_out() -> None:
    written = json.loads(to_json(PLAN))
    fields = {"tied", "readers", "free", "factors", "reason"}
    assert [set(scaling) for scaling in written["scalings"]] == [fields | {"loose", "shifts"}, fields]
    assert set(written["roundings"][0]) == {"tensor", "steps", "reason"}
    assert [set(step) for step in written["steps"]] == [
        {"name", "before_db", "after_db", "samples", "kept", "detail"},
        {"name", "before_db", "after_db", "samples", "kept"},
    ]


def test_a_plan_without_refinements_does_not_speak_of_them() -> None:
    written = json.loads(to_json(Plan(target="tensorrt", entries=())))
    assert set(written) == {"version", "target", "provenance", "entries", "corrections", "notes"}


def test_each_field_and_each_step_has_a_line() -> None:
    lines = [line.strip().rstrip(",") for line in to_json(PLAN).splitlines()]
    assert '"factors": [0.5, 2.0]' in lines
    assert f'"steps": "{LEARNED.steps}"' in lines
    assert '{"name": "rounding", "before_db": 33.25, "after_db": 33.0, "samples": 32, "kept": false}' in lines


def test_a_step_may_have_brought_all_or_nothing() -> None:
    plan = Plan(
        target="x", entries=(), steps=(Step(name="smoothing", before_db=float("-inf"), after_db=float("inf"), samples=2, kept=True),)
    )
    assert from_json(to_json(plan)) == plan


# --- edited by hand ----------------------------------------------------------------------------------------------------------


def edited(edit: Edit) -> str:
    content = json.loads(to_json(PLAN))
    edit(content)
    return json.dumps(content)


def put(*path: str | int, value: object) -> Edit:
    def edit(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        content[path[-1]] = value

    return edit


def drop(*path: str | int) -> Edit:
    def edit(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        del content[path[-1]]

    return edit


BROKEN = [
    pytest.param(put("scalings", value={}), "scalings: Input should be a valid array", id="scalings of another type"),
    pytest.param(put("scalings", 0, "factor", value=1), r"scalings\.0\.factor: Unexpected", id="unknown key of a scaling"),
    pytest.param(
        put("scalings", 0, "tied", 0, "axis", value=1), r"scalings\.0\.tied\.0\.axis: Unexpected", id="unknown key of what is tied"
    ),
    pytest.param(
        put("scalings", 1, "readers", 0, "port", value=1), r"scalings\.1\.readers\.0\.port: Unexpected", id="unknown key of a reader"
    ),
    pytest.param(drop("scalings", 0, "factors"), r"scalings\.0\.factors: Field required", id="no factors"),
    pytest.param(drop("scalings", 1, "free"), r"scalings\.1\.free: Field required", id="free or not"),
    pytest.param(drop("scalings", 0, "tied", 1, "shape"), r"scalings\.0\.tied\.1\.shape: Field required", id="no shape"),
    pytest.param(
        put("scalings", 0, "factors", value=["1"]), r"scalings\.0\.factors\.0: Input should be a valid number", id="a factor is text"
    ),
    pytest.param(put("scalings", 0, "factors", value=2.0), r"scalings\.0\.factors: Input should be a valid array", id="one factor for all"),
    pytest.param(put("scalings", 0, "shifts", value=[None, 1.0]), r"scalings\.0\.shifts\.0: Input should be a valid number", id="no shift"),
    pytest.param(put("scalings", 0, "free", value=1), r"scalings\.0\.free: Input should be a valid boolean", id="free is a number"),
    pytest.param(
        put("scalings", 0, "tied", 0, "shape", value=[2.5]),
        r"scalings\.0\.tied\.0\.shape\.0: Input should be a valid integer",
        id="a shape of 2.5",
    ),
    pytest.param(
        put("scalings", 0, "tied", 1, "index", value="10"),
        r"scalings\.0\.tied\.1\.index: Input should be a valid array",
        id="index is text",
    ),
    pytest.param(put("scalings", 0, "loose", value="clip"), r"scalings\.0\.loose: Input should be a valid array", id="loose is text"),
    pytest.param(put("roundings", 0, "scale", value=1), r"roundings\.0\.scale: Unexpected", id="unknown key of a rounding"),
    pytest.param(put("roundings", 0, "steps", value=[0, 1]), r"roundings\.0\.steps: Input should be a valid string", id="steps are a list"),
    pytest.param(drop("roundings", 0, "tensor"), r"roundings\.0\.tensor: Field required", id="a rounding of no tensor"),
    pytest.param(lambda plan: plan["roundings"].append(plan["roundings"][0]), "roundings: found 'w' more than once", id="a rounding twice"),
    pytest.param(put("steps", 0, "gain", value=1), r"steps\.0\.gain: Unexpected", id="unknown key of a step"),
    pytest.param(put("steps", 1, "kept", value="no"), r"steps\.1\.kept: Input should be a valid boolean", id="kept is text"),
    pytest.param(put("steps", 0, "before_db", value=None), r"steps\.0\.before_db: Input should be a valid number", id="no number of dB"),
    pytest.param(drop("steps", 0, "name"), r"steps\.0\.name: Field required", id="a step without a name"),
]


@pytest.mark.parametrize(("edit", "message"), BROKEN)
def test_a_broken_refinement_says_which_field(edit: Edit, message: str) -> None:
    assert from_json(edited(lambda content: None)) == PLAN
    with pytest.raises(PlanError, match=f"^here: {message}"):
        from_json(edited(edit), source="here")


# --- what the numbers mean ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "index", "axis", "expected"),
    [
        pytest.param((3,), (), -1, [10.0, 20.0, 30.0], id="a vector"),
        pytest.param((3, 1, 1), (), -3, [[[10.0]], [[20.0]], [[30.0]]], id="channels of an image"),
        pytest.param((1, 3, 1), (), -2, [[[10.0], [20.0], [30.0]]], id="an axis in the middle"),
        pytest.param((2, 1, 2), (0, 1, 2, 0), None, [[[10.0, 20.0]], [[30.0, 10.0]]], id="across axes"),
        pytest.param((4,), (2, -1, 0, 0), -1, [30.0, 1.0, 10.0, 10.0], id="some stay, some share"),
        pytest.param((1,), (), None, [10.0], id="one for all"),
        pytest.param((), (), None, 10.0, id="a number"),
    ],
)
def test_factors_are_spread_over_a_tensor(shape: tuple[int, ...], index: tuple[int, ...], axis: int | None, expected: Any) -> None:
    tied = Tied(tensor="t", shape=shape, index=index)
    found = tied.spread([10.0, 20.0, 30.0], 1.0)
    assert (found.shape, found.dtype, tied.axis) == (shape, np.float64, axis)
    np.testing.assert_array_equal(found, expected)
    assert tied.numbers().shape == shape


# --- steps of a rounding -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.array([[0, 1, -1], [2, -128, 127]]), id="all that int8 holds"),
        pytest.param(np.zeros((64, 64), np.int64), id="no steps"),
        pytest.param(np.zeros((0,), np.int64), id="no weights"),
        pytest.param(np.arange(-5, 5, dtype=np.int8).reshape(5, 2).T, id="not in one piece"),
    ],
)
def test_steps_come_back_in_the_order_of_the_weight(array: np.ndarray) -> None:
    before = array.copy()
    found = stored_steps(rounding("w", array, "why"))
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, before.reshape(-1))
    np.testing.assert_array_equal(array, before)


def test_a_rounding_takes_little_room() -> None:
    chosen = (np.random.default_rng(0).random(100_000) < 0.05).astype(np.int64)
    assert len(rounding("w", chosen, "").steps) < 100_000 * 0.5 * 4 / 3 / 2  # of 4 bits and base 64
    assert rounding("w", chosen, "") == rounding("w", chosen, "")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("AAA", id="too short"),
        pytest.param("?!?!", id="not base 64"),
        pytest.param("ä" * 4, id="not ASCII"),
        pytest.param("AAAA", id="not compressed"),
        pytest.param("", id="empty"),
        pytest.param(b64encode(zlib.compress(b"\x00" * 99)[:-3]).decode(), id="truncated"),
    ],
)
def test_text_that_holds_no_steps_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=r"rounding: steps: found text that cannot be read .*, expected what quantize wrote"):
        stored_steps(Rounding(tensor="w", steps=text, reason=""))
