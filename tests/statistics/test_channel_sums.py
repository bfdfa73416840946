from __future__ import annotations

import dataclasses
import math
import random
from fractions import Fraction
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeropoint.errors import DataError, RecipeError
from zeropoint.statistics.channel_sums import LIMB_BITS, LIMBS, SMALLEST_EXPONENT, ChannelSums, merge_channels, observe_channels

Array = np.ndarray[Any, Any]
INF, NAN = math.inf, math.nan
LARGEST = float(np.finfo(np.float32).max)
SMALLEST = 2.0**-149
SPECIAL = [0.0, -0.0, SMALLEST, -SMALLEST, 1e-40, -1e-40, 1.0, -1.0, 2.0**24, LARGEST, -LARGEST]
CHANNELS = 3

finite = st.one_of(st.floats(width=32, allow_nan=False, allow_infinity=False), st.sampled_from(SPECIAL), st.floats(-4, 4, width=16))
anything = st.one_of(finite, st.sampled_from([NAN, INF, -INF]))
rows_of_finite = st.lists(st.lists(finite, min_size=CHANNELS, max_size=CHANNELS), max_size=24)
rows_of_anything = st.lists(st.lists(anything, min_size=CHANNELS, max_size=CHANNELS), max_size=24)


def read_only(x: Array) -> Array:
    x = x.copy()
    x.flags.writeable = False
    return x


def table(rows: list[list[float]]) -> Array:
    """One element to each channel, so that a row's means are its elements."""
    return read_only(np.array(rows, np.float32).reshape(len(rows), CHANNELS))


def exact_sums(sums: ChannelSums) -> list[Fraction]:
    """What the digits stand for."""
    places = [Fraction(2) ** (SMALLEST_EXPONENT + LIMB_BITS * place) for place in range(LIMBS)]
    return [sum((int(digit) * place for digit, place in zip(digits, places, strict=True)), Fraction()) for digits in sums.limbs]


def column_sums(x: Array) -> list[Fraction]:
    return [sum(map(Fraction, column), Fraction()) for column in np.asarray(x, np.float64).T.tolist()]


def bits(sums: ChannelSums) -> tuple[int, tuple[int, ...], bytes]:
    return sums.rows, sums.limbs.shape, sums.limbs.tobytes()


def assert_close(found: Array, sums: list[Fraction], rows: int) -> None:
    """Some units in the last place of float64: of digits with one sign nothing cancels."""
    for mean, exact in zip(found.tolist(), sums, strict=True):
        assert abs(Fraction(mean) * max(1, rows) - exact) <= abs(exact) * Fraction(1, 2**48)


# --- exact sums ------------------------------------------------------------------------------------------------------------


@given(rows_of_finite)
def test_sums_are_exact(rows: list[list[float]]) -> None:
    x = table(rows)
    sums = observe_channels(x, axis=1)
    assert sums.rows == len(rows)
    assert exact_sums(sums) == column_sums(x)
    assert_close(sums.means, column_sums(x), len(rows))


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        pytest.param([-1.0], -1.0, id="minus one"),
        pytest.param([-SMALLEST], -SMALLEST, id="the smallest negative number"),
        pytest.param([-0.3, -0.7, 0.5], float(Fraction(float(np.float32(-0.3))) + Fraction(float(np.float32(-0.7))) + Fraction(1, 2)) / 3),
        pytest.param([LARGEST, -LARGEST, SMALLEST], SMALLEST / 3, id="cancels to the smallest number"),
        pytest.param([-LARGEST, 1.0, LARGEST], 1 / 3, id="cancels to one"),
        pytest.param([LARGEST, -LARGEST], 0.0, id="cancels to nothing"),
        pytest.param([2.0**24, 1.0, -(2.0**24), 1.0], 0.5, id="beyond float32's mantissa"),
        pytest.param([1e-40, -3e-40], float((Fraction(float(np.float32(1e-40))) - Fraction(float(np.float32(3e-40)))) / 2), id="subnormal"),
        pytest.param([-LARGEST] * 5, -LARGEST, id="a sum below float32's range"),
        pytest.param([SMALLEST] * 4, SMALLEST, id="the smallest number, again and again"),
        pytest.param([-0.0, 0.0], 0.0, id="zeros"),
    ],
)
def test_mean_of_what_is_hard_to_add(values: list[float], mean: float) -> None:
    [found] = observe_channels(read_only(np.array(values, np.float32)[:, np.newaxis]), axis=1).means.tolist()
    # A third of the smallest number is not a float64 of full precision away: all of these are normal ones.
    assert found == pytest.approx(mean, rel=1e-14, abs=0.0)


def test_negative_digits_stand_in_the_last_place_alone() -> None:
    limbs = observe_channels(np.array([[-1.0], [2.0**-20]], np.float32), axis=1).limbs
    assert (limbs[:, :-1] >= 0).all()
    assert (limbs[:, :-1] < 2**LIMB_BITS).all()
    assert (limbs[:, -1] < 0).all()


def test_no_rows_have_the_mean_zero() -> None:
    assert observe_channels(np.zeros((0, 2, 5)), axis=1).means.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("value", [1.0, -1.0, LARGEST, -LARGEST, SMALLEST, -1 / 3], ids="{:.3g}".format)
def test_many_merges_carry(value: float) -> None:
    sums = one = observe_channels(np.full((1, 1), value, np.float32), axis=1)
    for _ in range(27):
        sums = merge_channels(sums, sums)
    assert sums.rows == 2**27
    assert sums.means.tolist() == one.means.tolist()
    assert exact_sums(sums) == [2**27 * exact for exact in exact_sums(one)]


def test_many_rows_at_once_carry() -> None:
    x = np.full((70_000, 2), (65535.0, -65535.0), np.float32)
    assert exact_sums(observe_channels(x, axis=1)) == [70_000 * 65535, -70_000 * 65535]


# --- the rows' means -------------------------------------------------------------------------------------------------------

SHAPES = [
    pytest.param((6, 4), 1, id="2-d"),
    pytest.param((6, 4, 8), 1, id="3-d, axis 1"),
    pytest.param((6, 8, 4), 2, id="3-d, last axis"),
    pytest.param((6, 8, 4), -1, id="3-d, axis -1"),
    pytest.param((6, 8, 4), -2, id="3-d, axis -2"),
    pytest.param((6, 4, 2, 8), 1, id="4-d, axis 1"),
    pytest.param((6, 2, 4, 8), 2, id="4-d, an axis in the middle"),
    pytest.param((6, 2, 8, 4), -1, id="4-d, last axis"),
    pytest.param((6, 4, 2, 2, 4), 1, id="5-d, axis 1"),
    pytest.param((6, 2, 2, 4, 4), -1, id="5-d, last axis"),
    pytest.param((1, 4, 8), 1, id="a single row"),
    pytest.param((6, 1, 8), 1, id="a single channel"),
    pytest.param((6, 4, 1, 1), 1, id="single elements"),
]


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_each_row_counts_by_its_mean(shape: tuple[int, ...], axis: int) -> None:
    # Whole numbers, and a power of two of them in each mean: float32 adds and divides them exactly.
    x = read_only(np.random.default_rng(0).integers(-99, 99, shape).astype(np.float32))
    exact = [Fraction()] * shape[axis]
    for row in x:
        for channel in range(shape[axis]):
            elements = np.take(row, channel, axis=axis % len(shape) - 1).reshape(-1).tolist()
            exact[channel] += sum(map(Fraction, elements), Fraction()) / len(elements)
    sums = observe_channels(x, axis)
    assert exact_sums(sums) == exact
    assert_close(sums.means, exact, shape[0])


def test_rows_of_other_sizes_count_the_same() -> None:
    short, long = np.full((1, 2, 1), 1.0), np.full((1, 2, 99), 3.0)
    assert merge_channels(observe_channels(short, 1), observe_channels(long, 1)).means.tolist() == [2.0, 2.0]


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("parts", [1, 2, 3, 6])
def test_a_row_has_the_same_mean_in_a_batch_of_any_size(shape: tuple[int, ...], axis: int, parts: int) -> None:
    x = (np.random.default_rng(0).standard_normal((6, *shape[1:])) * 100).astype(np.float32)
    merged = reduce(merge_channels, [observe_channels(part, axis) for part in np.split(x, parts)])
    assert bits(merged) == bits(observe_channels(x, axis))


@pytest.mark.parametrize(
    ("shape", "axis"), [((5, 7, 300), 1), ((5, 300, 7), 2), ((5, 3, 41, 43), 1), ((5, 41, 43, 3), 3), ((5, 300, 1), 2)], ids=str
)
def test_long_rows_have_the_same_mean_in_a_batch_of_any_size(shape: tuple[int, ...], axis: int) -> None:
    x = np.random.default_rng(0).lognormal(0.0, 3.0, shape).astype(np.float32)
    merged = reduce(merge_channels, [observe_channels(row[np.newaxis], axis) for row in x])
    assert bits(merged) == bits(observe_channels(x, axis))
    np.testing.assert_allclose(merged.means, x.astype(np.float64).mean(axis=tuple(a for a in range(x.ndim) if a != axis)), rtol=1e-5)


@pytest.mark.parametrize(
    "x",
    [
        pytest.param(np.arange(48, dtype=np.float32).reshape(4, 3, 4)[:, ::-1], id="reversed channels"),
        pytest.param(np.arange(48, dtype=np.float32).reshape(4, 3, 4).transpose(2, 1, 0), id="transposed"),
        pytest.param(np.asfortranarray(np.arange(48, dtype=np.float32).reshape(4, 3, 4)), id="Fortran order"),
        pytest.param(np.arange(96, dtype=np.float32).reshape(8, 3, 4)[::2], id="every other row"),
        pytest.param(np.broadcast_to(np.float32(2.5), (4, 3, 4)), id="broadcast"),
        pytest.param(np.arange(48, dtype=">f4").reshape(4, 3, 4), id="big-endian"),
        pytest.param(np.arange(48, dtype=np.float16).reshape(4, 3, 4) / np.float16(4), id="float16"),
        pytest.param(np.arange(48, dtype=np.float64).reshape(4, 3, 4) / 3, id="float64"),
        pytest.param(np.arange(48, dtype=np.int64).reshape(4, 3, 4), id="int64"),
    ],
)
def test_layout_and_dtype_do_not_matter(x: Array) -> None:
    plain = np.array(x.tolist(), np.float32)
    assert bits(observe_channels(read_only(x), 1)) == bits(observe_channels(plain, 1))


# --- what is left out ------------------------------------------------------------------------------------------------------


@given(rows_of_anything)
def test_rows_that_are_not_finite_are_left_out(rows: list[list[float]]) -> None:
    kept = [row for row in rows if all(map(math.isfinite, row))]
    with np.errstate(all="raise"):
        assert bits(observe_channels(table(rows), axis=1)) == bits(observe_channels(table(kept), axis=1))


@pytest.mark.parametrize("value", [NAN, INF, -INF], ids=str)
def test_one_element_leaves_its_row_out_of_all_channels(value: float) -> None:
    x = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
    x[1, 0, 2] = value
    assert bits(observe_channels(read_only(x), 1)) == bits(observe_channels(x[[0, 2]], 1))


def test_a_row_whose_float32_sum_overflows_is_left_out() -> None:
    x = np.full((2, 1, 4), 3e38, np.float32)
    x[1] = 1.0
    sums = observe_channels(x, 1)
    assert (sums.rows, sums.means.tolist()) == (1, [1.0])


def test_float64_that_overflows_float32_is_left_out_without_a_warning() -> None:
    with np.errstate(all="raise"):
        sums = observe_channels(np.array([[1e300], [1e-300], [2.0]]), 1)
    assert (sums.rows, sums.means.tolist()) == (2, [1.0])


@pytest.mark.parametrize("shape", [(2, 3, 0), (0, 3, 4), (2, 3, 4, 0), (0, 3)], ids=str)
@pytest.mark.filterwarnings("error")
def test_rows_without_elements_are_none(shape: tuple[int, ...]) -> None:
    sums = observe_channels(np.zeros(shape, np.float32), 1)
    assert (sums.rows, sums.means.tolist()) == (0, [0.0, 0.0, 0.0])
    assert bits(merge_channels(sums, observe_channels(np.ones((1, 3)), 1))) == bits(observe_channels(np.ones((1, 3)), 1))


# --- laws ------------------------------------------------------------------------------------------------------------------


def merged_in_any_order(parts: list[ChannelSums], rng: random.Random) -> ChannelSums:
    parts = list(parts)
    while len(parts) > 1:
        rng.shuffle(parts)
        parts.append(merge_channels(parts.pop(), parts.pop()))
    return parts[0]


@given(rows_of_anything, st.lists(st.integers(0, 24), max_size=6), st.randoms(use_true_random=False))
def test_same_bits_however_the_rows_are_split_ordered_and_merged(rows: list[list[float]], cuts: list[int], rng: random.Random) -> None:
    whole = observe_channels(table(rows), 1)
    shuffled = rng.sample(rows, len(rows))
    ends = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [observe_channels(table(shuffled[a:b]), 1) for a, b in pairwise(ends)]
    for merged in (merged_in_any_order(parts, rng), reduce(merge_channels, parts)):
        assert bits(merged) == bits(whole)
        assert merged.equals(whole)
        assert merged.means.tobytes() == whole.means.tobytes()


@given(rows_of_anything, rows_of_anything, rows_of_anything)
def test_merge_is_associative_and_commutative(x: list[list[float]], y: list[list[float]], z: list[list[float]]) -> None:
    a, b, c = (observe_channels(table(rows), 1) for rows in (x, y, z))
    assert bits(merge_channels(a, merge_channels(b, c))) == bits(merge_channels(merge_channels(a, b), c))
    assert bits(merge_channels(a, b)) == bits(merge_channels(b, a))


def test_merge_and_means_leave_what_they_read_as_it_was() -> None:
    a, b = observe_channels(np.array([[1.0, -3.0]]), 1), observe_channels(np.array([[-2.0, 0.5]]), 1)
    before = bits(a), bits(b)
    merge_channels(a, b)
    assert a.means.tolist() == a.means.tolist() == [1.0, -3.0]
    assert (bits(a), bits(b)) == before


def test_sums_are_frozen() -> None:
    one = observe_channels(np.ones((1, 1)), 1)
    for sums in (one, merge_channels(one, one), observe_channels(np.ones((0, 1)), 1)):
        assert not sums.limbs.flags.writeable
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.rows = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    "other", [[[1.0, 3.0]], [[1.0, 2.0], [0.0, 0.0]], [[1.0, 2.0 + 2.0**-22]], [[1.0]]], ids=["value", "rows", "last bit", "channels"]
)
def test_equals_sees_every_difference(other: list[list[float]]) -> None:
    seen, unlike = observe_channels(np.array([[1.0, 2.0]]), 1), observe_channels(np.array(other), 1)
    assert seen.equals(observe_channels(np.array([[1.0, 2.0]]), -1))
    assert not seen.equals(unlike)
    assert not unlike.equals(seen)


# --- errors ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "axis"), [((3,), 0), ((3, 4), 0), ((3, 4), -2), ((3, 4, 5), -3)], ids=str)
def test_channels_along_the_rows_are_refused(shape: tuple[int, ...], axis: int) -> None:
    with pytest.raises(
        DataError, match=r"^channel means: found the channels along axis 0 of an array of shape \(3,.*, expected another axis"
    ):
        observe_channels(np.zeros(shape), axis)


@pytest.mark.parametrize(("shape", "axis"), [((3, 4), 2), ((3, 4), -3), ((), 0)], ids=str)
def test_an_axis_that_is_not_there_is_refused(shape: tuple[int, ...], axis: int) -> None:
    with pytest.raises(RecipeError, match=f"axis: found {axis} for an array of shape"):
        observe_channels(np.zeros(shape), axis)


def test_other_numbers_of_channels_are_refused() -> None:
    with pytest.raises(DataError, match=r"^channel means: found 2 and 3 channels, expected the same number in every sample"):
        merge_channels(observe_channels(np.zeros((1, 2)), 1), observe_channels(np.zeros((1, 3)), 1))
