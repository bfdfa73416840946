"""Cover all that was seen."""

from __future__ import annotations

from dataclasses import dataclass

from zeropoint.numerics.affine import Range
from zeropoint.numerics.spec import Spec
from zeropoint.statistics.tensor import TensorStatistic


@dataclass(frozen=True, slots=True)
class MinMax:
    """Nothing is clipped: right for short-tailed tensors, and at the mercy of one outlier."""

    def solve(self, statistic: TensorStatistic, spec: Spec) -> Range:
        """Return the smallest range that holds every value seen."""
        return covering(statistic.minimum, statistic.maximum, spec=spec)


def covering(lo: float, hi: float, *, spec: Spec) -> Range:
    """Return [lo, hi] as the codes will cover it: with 0 in it, and mirrored (signed) or from 0 up (unsigned) where symmetric."""
    lo, hi = min(lo, 0.0), max(hi, 0.0)
    if not spec.symmetric:
        return Range(lo, hi)
    if not spec.format.signed:
        return Range(0.0, hi)
    amax = max(hi, -lo)
    return Range(0.0 - amax, amax)  # and never -0.0
