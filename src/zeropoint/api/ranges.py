"""Find ranges for arrays."""

from __future__ import annotations

import numpy.typing as npt

from zeropoint.numerics.affine import Range
from zeropoint.numerics.formats import get_format
from zeropoint.numerics.spec import Spec
from zeropoint.statistics import solvers
from zeropoint.statistics.tensor import observe


def solve_range(array: npt.ArrayLike, *, solver: str = "auto", format: str = "int8", symmetric: bool = True) -> Range:
    """Return the range that `solver` finds for the values of an array of any shape.

    Raises:
        RecipeError: there is no such solver or format.
        DataError: the array holds no finite number.

    Example:
        >>> solve_range([-0.61, -0.52, 1.62], solver="minmax", symmetric=False).hi
        1.6200000047683716
    """
    return solvers.solve(observe(array), Spec(get_format(format), symmetric), solver).range
