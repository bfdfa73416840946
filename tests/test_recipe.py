from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from zeropoint.errors import RecipeError
from zeropoint.recipe import Recipe


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
        ("bias", "corrected"),
        ("bias", "kept"),
    ],
)
def test_every_possible_value_is_taken(field: str, value: Any) -> None:
    assert getattr(Recipe(**{field: value}), field) == value


@pytest.mark.parametrize("solver", ["mean", "", "percentile:101", "minmax:3"])
def test_a_solver_that_is_not_there_is_refused_before_anything_runs(solver: str) -> None:
    with pytest.raises(RecipeError, match=r"^(solver|percentile|minmax)"):
        Recipe(solver=solver)


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
    ],
)
def test_what_a_plan_decides_is_refused_beside_it(field: str, value: Any, told: str) -> None:
    with pytest.raises(RecipeError, match=f"{field}: found {told} beside a plan, which has decided that"):
        Recipe(**{field: value}).check_beside_plan()


def test_what_a_plan_does_not_decide_is_free_beside_it() -> None:
    Recipe(samples=8, batch_size=4, seed=3, weight_storage="float").check_beside_plan()
