"""The oracle for histograms is numpy's own, on the values themselves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from zeropoint.numerics.affine import Range
from zeropoint.report.distributions import CHANNELS, STEPS, binned, channel_ranges, extent
from zeropoint.statistics.histogram import Histogram, histogram
from zeropoint.statistics.tensor import observe

RNG = np.random.default_rng(3)
VALUES = {
    "normal": RNG.standard_normal(20_000),
    "relu": np.maximum(RNG.standard_normal(20_000), 0.0),
    "negative": -np.abs(RNG.standard_normal(20_000)),
    "outlier": np.append(RNG.standard_normal(20_000), 4000.0),
    "zeros": np.zeros(50),
    "one-value": np.full(50, 2.5),
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_bins_hold_what_the_values_say(values: npt.NDArray[np.float64]) -> None:
    seen = histogram(observe(values.astype(np.float32)))
    lo, hi = extent(seen, [Range(-3.0, 3.0)])
    found = binned(seen, lo, hi, bins=16)
    expected = np.histogram(values.astype(np.float32), np.linspace(lo, hi, 17))[0]
    assert np.abs(np.asarray(found.counts) - expected).max() <= 0.02 * len(values)  # buckets are shared out at the edges
    assert sum(found.counts) + found.below + found.above == pytest.approx(len(values), rel=0.01)
    assert found.above == pytest.approx(np.count_nonzero(values > hi), abs=2)


def test_bucket_that_an_edge_cuts_is_shared_out() -> None:
    values = Histogram(np.array([-4.0, 0.0, 1.0]), np.array([-2.0, 0.0, 5.0]), np.array([40, 7, 80]))
    found = binned(values, -3.0, 3.0, bins=6)
    assert (found.counts, found.below, found.above) == ((20, 0, 0, 7, 20, 20), 20, 40)


@pytest.mark.parametrize(
    ("values", "ranges", "expected"),
    [
        pytest.param([-1.0, 4.0], [], (-1.0, 4.0), id="all-that-was-seen"),
        pytest.param([-1.0, 4.0], [Range(-9.0, 9.0)], (-1.0, 4.0), id="never-more"),
        pytest.param([-1.0, 4000.0], [Range(-1.0, 4.0)], (-1.0, 5.0), id="not-out-to-an-outlier"),
        pytest.param([-1.0, 4000.0], [Range(-1.0, 2.0), Range(-1.0, 8.0)], (-1.0, 10.0), id="as-far-as-the-widest-range"),
        pytest.param([2.0, 4.0], [], (0.0, 4.0), id="with-0"),
        pytest.param([0.0], [Range(0.0, 0.0)], (-1.0, 1.0), id="nothing-but-0"),
    ],
)
def test_extent(values: list[float], ranges: list[Range], expected: tuple[float, float]) -> None:
    assert extent(histogram(observe(values)), ranges) == expected


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((5, 3), 0), ((3, 5), 1), ((4, 3, 2, 2), 0), ((300, 2), 0), ((2, 300), -1), ((7,), 0)],
    ids=str,
)
def test_ranges_of_channels(shape: tuple[int, ...], axis: int) -> None:
    before, after = RNG.standard_normal(shape), RNG.standard_normal(shape)
    found = channel_ranges(before, after, axis)
    assert found is not None
    assert found.unit * STEPS == pytest.approx(max(np.abs(before).max(), np.abs(after).max()))
    assert len(found.before) == -(-shape[axis] // found.every) <= CHANNELS
    for array, told in ((before, found.before), (after, found.after)):
        for i, (lo, hi) in enumerate(told):
            part = np.take(array, range(i * found.every, min((i + 1) * found.every, shape[axis])), axis)
            assert (lo * found.unit, hi * found.unit) == pytest.approx((part.min(), part.max()), abs=found.unit)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(np.zeros((2, 2)), np.zeros((2, 2)), id="all-zero"),
        pytest.param(np.full((2, 2), np.nan), np.zeros((2, 2)), id="nan"),
        pytest.param(np.ones((2, 2)), np.ones((2, 3)), id="other-shape"),
        pytest.param(np.ones((0, 2)), np.ones((0, 2)), id="empty"),
        pytest.param(np.float64(1.0), np.float64(1.0), id="scalar"),
    ],
)
def test_what_has_no_ranges_to_draw_has_none(before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]) -> None:
    assert channel_ranges(np.asarray(before), np.asarray(after), 0) is None
