"""What every solver is."""

from __future__ import annotations

from typing import Protocol

from zeropoint.numerics.affine import Range
from zeropoint.numerics.spec import Spec
from zeropoint.statistics.tensor import TensorStatistic


class Solver(Protocol):
    """A frozen dataclass of numbers, all with defaults, that turns a statistic into a range."""

    def solve(self, statistic: TensorStatistic, spec: Spec) -> Range:
        """Return the range that the codes of `spec` are to cover."""
        ...
