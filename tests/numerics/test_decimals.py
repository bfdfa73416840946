from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from zeropoint.numerics.decimals import shortest_decimals

rng = np.random.default_rng(0)
VALUES = {
    "any bits": rng.integers(0, 1 << 32, 40_000, np.uint64).astype(np.uint32).view(np.float32),
    "scales": rng.lognormal(-4.0, 3.0, 40_000).astype(np.float32),
    "powers of ten": 10.0 ** np.arange(-45, 39).astype(np.float32),
    "beside powers of ten": np.nextafter((10.0 ** np.arange(-30, 38)).astype(np.float32), np.float32(0)),
    "whole numbers": rng.integers(-(1 << 24), 1 << 24, 10_000).astype(np.float32),
    "few digits": (rng.integers(-999, 999, 10_000) / 1000).astype(np.float32),
    "special": np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 3.4028235e38, -1.1754944e-38], np.float32),
    "nothing": np.zeros(0, np.float32),
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
@pytest.mark.filterwarnings("error")
def test_decimals_are_those_that_numpy_prints(values: npt.NDArray[np.float32]) -> None:
    with np.errstate(all="ignore"):
        expected = [float(str(value)) for value in values]
    assert list(map(repr, shortest_decimals(values))) == list(map(repr, expected))


def test_shapes_are_flattened() -> None:
    assert shortest_decimals(np.array([[0.5], [0.25]], np.float32)) == (0.5, 0.25)
