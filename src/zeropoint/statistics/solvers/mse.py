"""Find the range with the least expected squared error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from zeropoint.errors import RecipeError
from zeropoint.numerics.affine import Range
from zeropoint.numerics.spec import Spec
from zeropoint.statistics.histogram import Histogram, expected_mse, histogram, mean_square
from zeropoint.statistics.solvers.minmax import covering
from zeropoint.statistics.tensor import TensorStatistic

Array64 = npt.NDArray[np.float64]
Error = Callable[[Array64, Array64], Array64]  # of each of the ranges [lo[t], hi[t]]

COARSE = 2.0**-0.25  # from one candidate to the next
FINE = 9  # candidates between the neighbours of the best one, in each refinement
REACH = 1.0 / COARSE - 1.0  # from a coarse candidate to the next one up
REFINEMENTS = tuple(np.linspace(1.0 - reach, 1.0 + reach, FINE) for reach in (REACH, REACH * 2.0 / (FINE - 1)))
ROUNDS = 2  # over both bounds in turn


@dataclass(frozen=True, slots=True)
class MeanSquaredError:
    """Trade rounding against clipping: the least expected_mse, with min-max among the candidates.

    clipping: how often the squared error of what is clipped counts.

    Raises:
        RecipeError: clipping is negative or not finite.
    """

    clipping: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.clipping < math.inf:
            raise RecipeError(f"mse clipping: found {self.clipping}, expected how often clipping counts, such as 1 or 2")

    def solve(self, statistic: TensorStatistic, spec: Spec) -> Range:
        """Return the range.

        Raises:
            DataError: no finite value was seen.
        """
        return least_mse_range(histogram(statistic), spec=spec, clipping=self.clipping)


def least_mse_range(values: Histogram, *, spec: Spec, clipping: float = 1.0) -> Range:
    """Return the range with the least expected_mse that was found, never a worse one than min-max.

    The whole range is shrunk first. Where both of its bounds are free, each is then searched in turn with the other one fixed.
    """
    whole = covering(float(values.lo[0]), float(values.hi[-1]), spec=spec)
    error = partial(expected_mse, values, spec=spec, clipping=clipping)
    shares = _coarse_shares(values, whole)
    share = _best_share(error, shares, fixed=Range(0.0, 0.0), moving=whole)
    lo, hi = share * whole.lo, share * whole.hi
    if spec.symmetric or whole.lo == 0.0 or whole.hi == 0.0:
        return Range(lo, hi)
    shares = np.append(shares, 0.0)
    for _ in range(ROUNDS):
        known = np.append(shares, hi / whole.hi)
        hi = whole.hi * _best_share(error, known, fixed=Range(lo, 0.0), moving=Range(0.0, whole.hi))
        known = np.append(shares, lo / whole.lo)
        lo = whole.lo * _best_share(error, known, fixed=Range(0.0, hi), moving=Range(whole.lo, 0.0))
    return Range(lo, hi)


def _coarse_shares(values: Histogram, whole: Range) -> Array64:
    """Return shares of the range from 1 down to where it ends at a quarter of the root mean square.

    By the triangle inequality a range that ends there has lost 9/16 of the signal's power, so none below it is worth a look.
    """
    widest = max(-whole.lo, whole.hi)
    if widest == 0.0:
        return np.ones(1)
    shortest = min(1.0, math.sqrt(mean_square(values)) / 4.0 / widest)
    return np.asarray(COARSE ** np.arange(math.ceil(math.log(shortest, COARSE)) + 1), np.float64)


def _best_share(error: Error, shares: Array64, *, fixed: Range, moving: Range) -> float:
    """Return the best of `shares` and of finer ones around it; the bounds at a share are fixed + share * moving."""
    best, least = 1.0, math.inf
    for around in (None, *REFINEMENTS):
        tried = shares if around is None else np.minimum(best * around, 1.0)
        errors = error(fixed.lo + tried * moving.lo, fixed.hi + tried * moving.hi)
        found = int(errors.argmin())
        if errors[found] < least:
            best, least = float(tried[found]), float(errors[found])
    return best
