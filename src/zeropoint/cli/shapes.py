"""Read the shapes of inputs as they are typed."""

from __future__ import annotations

from collections.abc import Iterable

from zeropoint.errors import RecipeError

Shape = tuple[int, ...]


def parsed_shapes(texts: Iterable[str]) -> dict[str, Shape]:
    """Return the shape of each input in texts as INPUT=1x3x224x224.

    Raises:
        RecipeError: a text is none, or an input has two.
    """
    shapes: dict[str, Shape] = {}
    for name, shape in map(_parsed, texts):
        if name in shapes:
            raise RecipeError(f"--shape: found two for {name!r}, {shapes[name]} and {shape}, expected one for each input; leave one out")
        shapes[name] = shape
    return shapes


def _parsed(text: str) -> tuple[str, Shape]:
    name, equals, sizes = text.rpartition("=")
    try:
        shape = tuple(int(size) for size in sizes.split("x"))
    except ValueError:
        shape = ()
    if not (name and equals and shape) or min(shape) < 0:
        raise RecipeError(f"--shape: found {text!r}, expected INPUT=1x3x224x224: the input's name and a number for each axis")
    return name, shape
