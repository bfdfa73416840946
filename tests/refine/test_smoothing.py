from __future__ import annotations

import numpy as np
import pytest
from tests.graph.networks import Array

from zeropoint.numerics.affine import dequantize_array, qparams_from_range, quantize_array
from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import PerBlock, PerChannel, PerTensor, Spec
from zeropoint.plan import Tied
from zeropoint.refine.products import Product, _rounded, mean_squares
from zeropoint.refine.smoothing import WIDEST, channel_extremes, factors_of, wider

INT8 = Spec(FORMATS["int8"], symmetric=True, granularity=PerChannel(0), narrow=True)
RNG = np.random.default_rng(0)


def drawn(*shape: int) -> Array:
    return RNG.normal(0.0, 1.0, shape).astype(np.float32)


# --- factors ---------------------------------------------------------------------------------------------------------------


def test_factors_even_out_peaks() -> None:
    peaks = np.array([1.0, 4.0, 16.0])
    assert factors_of(peaks, np.ones(3), 1.0, 0.0).tolist() == [0.25, 1.0, 4.0]
    assert factors_of(peaks, np.ones(3), 0.5, 0.0).tolist() == [0.5, 1.0, 2.0]
    assert factors_of(np.ones(3), peaks, 0.5, 0.5).tolist() == [2.0, 1.0, 0.5]


@pytest.mark.parametrize("dead", [[0.0, 1.0, 2.0, 4.0], [1.0, 0.0, 2.0, 4.0]], ids=["first", "second"])
def test_dead_channels_keep_1(dead: list[float]) -> None:
    found = factors_of(np.array(dead), np.ones(4), 1.0, 0.0)
    assert found[np.array(dead) == 0.0].tolist() == [1.0]
    assert np.isfinite(found).all()
    assert factors_of(np.zeros(4), np.ones(4), 1.0, 0.0).tolist() == [1.0] * 4


def test_factors_are_bounded_and_sixteenths_of_powers_of_two() -> None:
    found = factors_of(np.array([1e-30, 1.0, 1e30, 3.0]), np.ones(4), 1.0, 0.0)
    assert found.max() <= WIDEST
    assert found.min() >= 1.0 / WIDEST
    steps = 16.0 * np.log2(factors_of(RNG.uniform(0.1, 9.0, 20), np.ones(20), 0.5, 0.0))
    assert np.allclose(steps, np.rint(steps), atol=1e-9)


# --- channels --------------------------------------------------------------------------------------------------------------

TIES = {
    "last axis": (Tied(tensor="t", shape=(4,)), (2, 3, 4)),
    "axis 1 of an image": (Tied(tensor="t", shape=(4, 1, 1)), (2, 4, 3, 5)),
    "two axes": (Tied(tensor="t", shape=(2, 1, 2)), (1, 2, 3, 2)),
    "another order, and one that stays": (Tied(tensor="t", shape=(4,), index=(2, 0, -1, 1)), (3, 4)),
}


def by_channel(tied: Tied, x: Array) -> dict[int, list[float]]:
    """The values of each channel, one element after the other."""
    numbers = np.broadcast_to(tied.numbers(), x.shape)
    found: dict[int, list[float]] = {}
    for place in np.ndindex(*x.shape):
        found.setdefault(int(numbers[place]), []).append(float(x[place]))
    return found


@pytest.mark.parametrize(("tied", "shape"), TIES.values(), ids=TIES)
def test_extremes_are_those_of_a_slow_loop(tied: Tied, shape: tuple[int, ...]) -> None:
    arrays = [drawn(*shape), drawn(*shape)]
    lo, hi = wider(wider(None, channel_extremes(tied, 4, arrays[0])), channel_extremes(tied, 4, arrays[1]))
    for number in (0, 1, 2, 3, -1):
        values = [value for x in arrays for value in by_channel(tied, x).get(number, [0.0])]
        assert lo[number] == min(values)
        assert hi[number] == max(values)


@pytest.mark.parametrize(("tied", "shape"), TIES.values(), ids=TIES)
def test_mean_squares_are_those_of_a_slow_loop(tied: Tied, shape: tuple[int, ...]) -> None:
    arrays = [drawn(*shape), drawn(*shape)]
    found = mean_squares(tied, arrays, 4)
    for number, place in [*((number, number) for number in range(4)), (-1, 4)]:
        values = [value for x in arrays for value in by_channel(tied, x).get(number, [])]
        assert found[place] == pytest.approx(np.mean(np.square(values)) if values else 0.0, rel=1e-6)


# --- noise -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel(0)], ids=["one scale", "a scale for each row"])
def test_noise_is_that_of_a_product_with_uncorrelated_inputs(granularity: PerTensor | PerChannel) -> None:
    weight, factors = drawn(1, 8, 6).astype(np.float64), np.exp2(RNG.integers(-2, 3, 6)).astype(np.float64)
    x = RNG.normal(0.0, 1.0, (400_000, 6)) * np.array([1.0, 2.0, 0.5, 1.0, 3.0, 1.0])
    error = RNG.normal(0.0, 0.1, x.shape)
    spec = INT8.with_granularity(granularity)
    product = Product("t", weight, np.arange(6)[None], spec)
    of_weights, of_inputs = product.noise(np.append(factors, 1.0), np.append(np.square(x).mean(axis=0), 0.0), np.full(7, 0.01))
    scaled = (weight[0] * factors).astype(np.float32)
    peak = np.abs(scaled).max() if isinstance(granularity, PerTensor) else np.abs(scaled).max(axis=1)
    qparams = qparams_from_range(-peak, peak, spec=spec)
    rounded = dequantize_array(quantize_array(scaled, qparams), qparams) / factors
    exact = np.square(x @ weight[0].T).sum()
    assert of_weights == pytest.approx(np.square(x @ (rounded - weight[0]).T).sum() / exact, rel=0.05)
    assert of_inputs == pytest.approx(np.square(error @ weight[0].T).sum() / exact, rel=0.05)


def test_blocks_are_no_burden() -> None:
    weight = drawn(1, 4, 8).astype(np.float64)
    assert _rounded(weight, INT8.with_granularity(PerBlock(1, 4))) is weight
