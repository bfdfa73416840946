"""Run the other solvers and keep the range with the least expected error."""

from __future__ import annotations

from dataclasses import dataclass

from zeropoint.numerics.affine import Range
from zeropoint.numerics.spec import Spec
from zeropoint.statistics.histogram import expected_mse, histogram
from zeropoint.statistics.solvers.entropy import Entropy
from zeropoint.statistics.solvers.minmax import MinMax
from zeropoint.statistics.solvers.mse import MeanSquaredError
from zeropoint.statistics.solvers.percentile import Percentile
from zeropoint.statistics.solvers.solver import Solver
from zeropoint.statistics.tensor import TensorStatistic

CLIPPING = 2.0  # chosen on networks and samples that no reported figure is measured on: see docs/statistics.md
TIE = 1.01  # errors within 1 % of the least are equal: no network shows the difference


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one solver proposes, and the expected_mse that it is judged by."""

    solver: str
    range: Range
    mse: float


@dataclass(frozen=True, slots=True)
class Auto:
    """The least expected error of all solvers; among those within 1 % of it, the one that clips least.

    The squared error of what is clipped counts twice. Rounding errors have both signs and largely cancel where the next operator
    sums them; clipping errors all point the same way, and meet the few samples whose values are large.
    """

    def solve(self, statistic: TensorStatistic, spec: Spec) -> Range:
        """Return the range of the best candidate.

        Raises:
            DataError: no finite value was seen.
        """
        return self.rank(statistic, spec)[0].range

    def rank(self, statistic: TensorStatistic, spec: Spec) -> tuple[Candidate, ...]:
        """Return what each solver proposes: the winner, then the others from the least error to the largest.

        Raises:
            DataError: no finite value was seen.
        """
        values = histogram(statistic)
        solvers: dict[str, Solver] = {
            "minmax": MinMax(),
            "percentile": Percentile(),
            "entropy": Entropy(),
            f"mse:{CLIPPING:g}": MeanSquaredError(CLIPPING),
        }
        ranges = {name: solver.solve(statistic, spec) for name, solver in solvers.items()}
        errors = expected_mse(values, [r.lo for r in ranges.values()], [r.hi for r in ranges.values()], spec=spec, clipping=CLIPPING)
        candidates = [Candidate(name, ranges[name], float(error)) for name, error in zip(ranges, errors, strict=True)]
        least = min(candidate.mse for candidate in candidates)
        winner = max((c for c in candidates if c.mse <= TIE * least), key=lambda c: c.range.hi - c.range.lo)
        others = sorted((c for c in candidates if c is not winner), key=lambda c: c.mse)
        return (winner, *others)
