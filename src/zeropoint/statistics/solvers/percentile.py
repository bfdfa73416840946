"""Cover all but a fixed share of what was seen."""

from __future__ import annotations

from dataclasses import dataclass

from zeropoint.errors import RecipeError
from zeropoint.numerics.affine import Range
from zeropoint.numerics.spec import Spec
from zeropoint.statistics.histogram import histogram, quantile
from zeropoint.statistics.solvers.minmax import covering
from zeropoint.statistics.tensor import TensorStatistic, magnitude


@dataclass(frozen=True, slots=True)
class Percentile:
    """Clip the outermost 100 - percentile percent of the elements, zeros counting as elements.

    Symmetric signed ranges end at the percentile of |x|. Asymmetric ones clip half of that share at either end; a tensor of one sign
    keeps its end at 0, and so do unsigned symmetric ranges: the whole share is then clipped at the other end.

    Raises:
        RecipeError: the percentile is not above 0 and at most 100.
    """

    percentile: float = 99.99

    def __post_init__(self) -> None:
        if not 0.0 < self.percentile <= 100.0:
            raise RecipeError(f"percentile: found {self.percentile}, expected more than 0 and at most 100; 99.99 is usual for activations")

    def solve(self, statistic: TensorStatistic, spec: Spec) -> Range:
        """Return the range, interpolated inside the buckets of `statistic`.

        Raises:
            DataError: no finite value was seen.
        """
        kept = self.percentile / 100.0
        if spec.symmetric and spec.format.signed:
            amax = quantile(histogram(magnitude(statistic)), kept)
            return covering(-amax, amax, spec=spec)
        values = histogram(statistic)
        if spec.symmetric or statistic.minimum >= 0.0:
            return covering(0.0, quantile(values, kept), spec=spec)
        if statistic.maximum <= 0.0:
            return covering(quantile(values, 1.0 - kept), 0.0, spec=spec)
        tail = (1.0 - kept) / 2.0
        return covering(quantile(values, tail), quantile(values, 1.0 - tail), spec=spec)
