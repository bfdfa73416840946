from __future__ import annotations

import pytest
from tests.cli.commands import Place, Zeropoint

from zeropoint.cli.shapes import parsed_shapes
from zeropoint.errors import RecipeError


def test_shapes_are_by_the_name_of_the_input() -> None:
    assert parsed_shapes(["a=b=1x3", "c=2"]) == {"a=b": (1, 3), "c": (2,)}


def test_an_input_has_one_shape() -> None:
    with pytest.raises(RecipeError, match=r"--shape: found two for 'x', \(1, 3\) and \(1, 4\), expected one"):
        parsed_shapes(["x=1x3", "y=1x3", "x=1x4"])


@pytest.mark.parametrize("text", ["x", "x=", "=1x3", "x=1xa", "x=-1x3", "x=1x", "1x3"])
def test_what_is_no_shape_is_an_error(text: str) -> None:
    with pytest.raises(RecipeError, match="--shape: found "):
        parsed_shapes([text])


@pytest.mark.parametrize(
    ("shape", "message"),
    [("no=1x3", "--shape: found the name 'no'"), ("image=1x3", "--shape of 'image': found (1, 3)"), ("image", "--shape: found 'image'")],
)
def test_errors_about_a_shape_begin_with_the_option(zeropoint: Zeropoint, place: Place, shape: str, message: str) -> None:
    run = zeropoint("inspect", "digits.onnx", "--shape", shape)
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith(f"error: {message}")
