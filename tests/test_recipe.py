from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from zeropoint.errors import RecipeError
from zeropoint.improve import EFFORTS, REFINEMENTS
from zeropoint.recipe import REFINEMENT_NAMES, Recipe

BLOCKS = "channel, tensor or block:N, N being a whole number of 2 or more; block:32 and block:128 are usual"


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("samples", 0, "at least 1"),
        ("samples", -1, "at least 1"),
        ("batch_size", 0, "at least 1"),
        ("batch_size", -8, "at least 1"),
        ("samples", 16.5, "an integer"),
        ("batch_size", "7", "an integer"),
        ("seed", -1, "at least 0"),
        ("seed", None, "an integer"),
        ("weight_solver", "auto", "one of mse, minmax"),
        ("weight_solver", "MSE", "one of mse, minmax"),
        ("weight_solver", "", "one of mse, minmax"),
        ("weight_storage", "int8", "one of integer, float"),
        ("weight_storage", "", "one of integer, float"),
        ("weight_storage", None, "one of integer, float"),
        ("weight_format", "int3", "one of int8, int4"),
        ("weight_format", None, "one of int8, int4"),
        *(
            ("weight_granularity", value, BLOCKS)
            for value in (
                "",
                "block",
                "block:",
                "block:0",
                "block:1",
                "block:-8",
                "block: 8",
                "block:8.0",
                "block:1e3",
                "Channel",
                None,
                32,
            )
        ),
        ("effort", "slow", "one of fast, balanced, best"),
        ("effort", 3, "one of fast, balanced, best"),
        ("bias", "fixed", "one of corrected, kept"),
        ("bias", True, "one of corrected, kept"),
    ],
)
def test_an_impossible_value_is_named_with_what_was_expected(field: str, value: Any, expected: str) -> None:
    with pytest.raises(RecipeError) as raised:
        Recipe(**{field: value})
    assert str(raised.value) == f"{field}: found {value!r}, expected {expected}"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("samples", 1),
        ("batch_size", 1),
        ("weight_solver", "mse"),
        ("weight_solver", "minmax"),
        ("weight_storage", "integer"),
        ("weight_storage", "float"),
        ("weight_format", "int8"),
        ("weight_format", "int4"),
        ("weight_granularity", "channel"),
        ("weight_granularity", "tensor"),
        ("weight_granularity", "block:2"),
        ("weight_granularity", "block:128"),
        ("effort", "fast"),
        ("effort", "balanced"),
        ("effort", "best"),
        ("without", ()),
        ("without", ("smoothing",)),
        ("without", ("rounding", "smoothing")),
        ("bias", "corrected"),
        ("bias", "kept"),
    ],
)
def test_every_possible_value_is_taken(field: str, value: Any) -> None:
    assert getattr(Recipe(**{field: value}), field) == value


@pytest.mark.parametrize(
    ("options", "block", "opset"),
    [
        ({}, None, 13),
        ({"weight_granularity": "tensor"}, None, 13),
        ({"weight_format": "int4"}, None, 21),
        ({"weight_granularity": "block:32"}, 32, 21),
        ({"weight_granularity": "block:128", "weight_format": "int4"}, 128, 21),
    ],
    ids=str,
)
def test_the_form_of_weights_decides_the_opset(options: dict[str, Any], block: int | None, opset: int) -> None:
    recipe = Recipe(**options)
    assert (recipe.weight_block, recipe.weight_opset) == (block, opset)


@pytest.mark.parametrize("solver", ["mean", "", "percentile:101", "minmax:3"])
def test_a_solver_that_is_not_there_is_refused_before_anything_runs(solver: str) -> None:
    with pytest.raises(RecipeError, match=r"^(solver|percentile|minmax)"):
        Recipe(solver=solver)


@pytest.mark.parametrize("name", ["smooth", "", "bias", "Rounding", None])
def test_a_refinement_that_is_not_there_cannot_be_left_out(name: Any) -> None:
    with pytest.raises(RecipeError) as raised:
        Recipe(without=("smoothing", name))
    assert str(raised.value) == (
        f"without: found {name!r}, expected names of refinements, which are smoothing, rounding and reconstruction; "
        "leave others out, and set bias to kept where biases are not to be corrected"
    )


def test_refinements_that_can_be_left_out_are_those_that_are_made() -> None:
    assert REFINEMENT_NAMES == tuple(REFINEMENTS) == EFFORTS["best"].refinements


def test_an_unknown_option_is_an_error() -> None:
    options: dict[str, Any] = {"sampels": 8}
    with pytest.raises(TypeError, match="sampels"):
        Recipe(**options)


def test_a_recipe_stays_as_it_is() -> None:
    recipe: Any = Recipe()
    with pytest.raises(FrozenInstanceError):
        recipe.samples = 3


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        pytest.param("solver", "minmax", "'minmax'", id="solver"),
        pytest.param("weight_solver", "minmax", "'minmax'", id="weight_solver"),
        pytest.param("include", ("a", "b"), "'a, b'", id="include"),
        pytest.param("exclude", ("a",), "'a'", id="exclude"),
        pytest.param("bias", "kept", "'kept'", id="bias"),
        pytest.param("effort", "best", "'best'", id="effort"),
        pytest.param("without", ("smoothing", "rounding"), "'smoothing, rounding'", id="without"),
        pytest.param("weight_format", "int4", "'int4'", id="weight_format"),
        pytest.param("weight_granularity", "block:32", "'block:32'", id="weight_granularity"),
    ],
)
def test_what_a_plan_decides_is_refused_beside_it(field: str, value: Any, told: str) -> None:
    with pytest.raises(RecipeError, match=f"{field}: found {told} beside a plan, which has decided that"):
        Recipe(**{field: value}).check_beside_plan()


def test_what_a_plan_does_not_decide_is_free_beside_it() -> None:
    Recipe(samples=8, batch_size=4, seed=3, weight_storage="float").check_beside_plan()
