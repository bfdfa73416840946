"""Solvers: from what was seen in a tensor to the range that its codes cover. One file each, and one line in `SOLVERS`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from zeropoint.errors import RecipeError
from zeropoint.numerics.affine import Range
from zeropoint.numerics.measures import decibels
from zeropoint.numerics.spec import Spec
from zeropoint.statistics.histogram import clipped_share, expected_mse, histogram, mean_square
from zeropoint.statistics.solvers.auto import Auto, Candidate
from zeropoint.statistics.solvers.entropy import Entropy
from zeropoint.statistics.solvers.minmax import MinMax
from zeropoint.statistics.solvers.mse import MeanSquaredError
from zeropoint.statistics.solvers.percentile import Percentile
from zeropoint.statistics.solvers.solver import Solver
from zeropoint.statistics.tensor import TensorStatistic

__all__ = ["SOLVERS", "Solution", "Solver", "get_solver", "solve"]


SOLVERS: dict[str, type[Solver]] = {
    "auto": Auto,
    "mse": MeanSquaredError,
    "entropy": Entropy,
    "percentile": Percentile,
    "minmax": MinMax,
}


@dataclass(frozen=True, slots=True)
class Solution:
    """The range, the solver that found it (of `auto` the winner), the reason in one line, and the expected SQNR in decibels.

    `auto` counts clipping twice in the noise, by which it judges.
    """

    range: Range
    solver: str
    reason: str
    sqnr: float


def solve(statistic: TensorStatistic, spec: Spec, solver: str) -> Solution:
    """Return the range that `solver`, a name as `get_solver` takes it, finds for `statistic`.

    Raises:
        RecipeError: there is no such solver, or its parameter is impossible.
        DataError: no finite value was seen.

    Example:
        >>> import numpy as np
        >>> from zeropoint.numerics.formats import FORMATS
        >>> from zeropoint.statistics.tensor import observe
        >>> seen = observe(np.linspace(-1.0, 1.0, 10_001))
        >>> solve(seen, Spec(FORMATS["int8"], symmetric=True), "minmax").range
        Range(lo=-1.0, hi=1.0)
    """
    algorithm = get_solver(solver)
    values = histogram(statistic)
    if isinstance(algorithm, Auto):
        ranked = algorithm.rank(statistic, spec)
    else:
        found = algorithm.solve(statistic, spec)
        ranked = (Candidate(solver, found, float(expected_mse(values, found.lo, found.hi, spec=spec)[0])),)
    power = mean_square(values)
    sqnrs = [decibels(power, candidate.mse) for candidate in ranked]
    reason = f"{ranked[0].solver} {sqnrs[0]:.1f} dB" + _clipping(clipped_share(values, ranked[0].range.lo, ranked[0].range.hi))
    if len(ranked) > 1:
        reason += "; " + ", ".join(f"{other.solver} {sqnr:.1f}" for other, sqnr in zip(ranked[1:], sqnrs[1:], strict=True))
    return Solution(ranked[0].range, ranked[0].solver, reason, sqnrs[0])


def _clipping(share: float) -> str:
    return f", clips {100.0 * share:.2g} %" if share > 0.0 else ""


def get_solver(name: str) -> Solver:
    """Return the solver called `name`, which may carry the value of its first parameter behind a colon.

    Raises:
        RecipeError: there is no such solver, it takes no parameter, or the value is impossible.

    Example:
        >>> get_solver("percentile:99.9")
        Percentile(percentile=99.9)
    """
    kind, colon, value = name.partition(":")
    if kind not in SOLVERS:
        raise RecipeError(f"solver: found {name!r}, expected one of {', '.join(SOLVERS)}; a parameter follows a colon (percentile:99.9)")
    solver: Any = SOLVERS[kind]
    if not colon:
        return solver()  # type: ignore[no-any-return]
    parameters = fields(solver)
    if not parameters:
        raise RecipeError(f"solver: found {name!r}, expected {kind!r} alone: it takes no parameter")
    default: Any = parameters[0].default
    try:
        parameter = type(default)(value)
    except ValueError:
        raise RecipeError(f"solver: found {name!r}, expected a number behind the colon, such as {kind}:{default}") from None
    return solver(parameter)  # type: ignore[no-any-return]
