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

from zeropoint.errors import DataError
from zeropoint.native import library
from zeropoint.statistics.channel_sums import (
    LIMB_BITS,
    LIMBS,
    SMALLEST_EXPONENT,
    ChannelObservation,
    ChannelSums,
    add_rows_compiled,
    add_rows_in_numpy,
    merge_channels,
    observe_rows,
)

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
    sums = observe_rows(x)
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
    [found] = observe_rows(read_only(np.array(values, np.float32)[:, np.newaxis])).means.tolist()
    # A third of the smallest number is not a float64 of full precision away: all of these are normal ones.
    assert found == pytest.approx(mean, rel=1e-14, abs=0.0)


def test_negative_digits_stand_in_the_last_place_alone() -> None:
    limbs = observe_rows(np.array([[-1.0], [2.0**-20]], np.float32)).limbs
    assert (limbs[:, :-1] >= 0).all()
    assert (limbs[:, :-1] < 2**LIMB_BITS).all()
    assert (limbs[:, -1] < 0).all()


def test_no_rows_have_the_mean_zero() -> None:
    assert observe_rows(np.zeros((0, 2))).means.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("value", [1.0, -1.0, LARGEST, -LARGEST, SMALLEST, -1 / 3], ids="{:.3g}".format)
def test_many_merges_carry(value: float) -> None:
    sums = one = observe_rows(np.full((1, 1), value, np.float32))
    for _ in range(27):
        sums = merge_channels(sums, sums)
    assert sums.rows == 2**27
    assert sums.means.tolist() == one.means.tolist()
    assert exact_sums(sums) == [2**27 * exact for exact in exact_sums(one)]


def test_many_rows_at_once_carry() -> None:
    x = np.full((70_000, 2), (65535.0, -65535.0), np.float32)
    assert exact_sums(observe_rows(x)) == [70_000 * 65535, -70_000 * 65535]


# --- what is left out ------------------------------------------------------------------------------------------------------


@given(rows_of_anything)
def test_rows_that_are_not_finite_are_left_out(rows: list[list[float]]) -> None:
    kept = [row for row in rows if all(map(math.isfinite, row))]
    with np.errstate(all="raise"):
        assert bits(observe_rows(table(rows))) == bits(observe_rows(table(kept)))


@pytest.mark.parametrize("value", [NAN, INF, -INF], ids=str)
def test_one_element_leaves_its_row_out_of_all_channels(value: float) -> None:
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    x[1, 0] = value
    assert bits(observe_rows(read_only(x))) == bits(observe_rows(x[[0, 2]]))


def test_float64_that_overflows_float32_is_left_out_without_a_warning() -> None:
    with np.errstate(all="raise"):
        sums = observe_rows(np.array([[1e300], [1e-300], [2.0]]))
    assert (sums.rows, sums.means.tolist()) == (2, [1.0])


@pytest.mark.filterwarnings("error")
def test_no_rows_are_no_rows() -> None:
    sums = observe_rows(np.zeros((0, 3), np.float32))
    assert (sums.rows, sums.means.tolist()) == (0, [0.0, 0.0, 0.0])
    assert bits(merge_channels(sums, observe_rows(np.ones((1, 3))))) == bits(observe_rows(np.ones((1, 3))))


# --- observations ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 7, 200])
def test_an_observation_is_the_sum_of_its_parts(parts: int) -> None:
    rows = np.random.default_rng(0).lognormal(0.0, 3.0, (200, CHANNELS)).astype(np.float32)
    observation = ChannelObservation(CHANNELS)
    for part in np.array_split(rows, parts):
        observation.add(part)
    assert bits(observation.sums()) == bits(observe_rows(rows))
    observation.add(rows[:3])  # and it goes on
    assert bits(observation.sums()) == bits(observe_rows(np.concatenate([rows, rows[:3]])))


def test_an_observation_carries_before_its_digits_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeropoint.statistics.channel_sums.MOST_UNCARRIED", 5)
    observation = ChannelObservation(1)
    for _ in range(40):
        observation.add([[LARGEST], [-1.0]])
    assert exact_sums(observation.sums()) == [40 * (Fraction(LARGEST) - 1)]


def test_an_observation_refuses_other_numbers_of_channels() -> None:
    observation = ChannelObservation(2)
    with pytest.raises(DataError, match="found 2 and 3 channels"):
        observation.add(np.zeros((1, 3), np.float32))


@pytest.mark.skipif(library is None, reason="there was no C compiler when zeropoint was installed")
@given(rows_of_anything)
def test_compiled_sums_are_those_of_numpy(rows: list[list[float]]) -> None:
    found = []
    for add in (add_rows_compiled, add_rows_in_numpy):
        limbs = np.zeros((LIMBS, CHANNELS), np.int64)
        kept = add(np.array(rows, np.float32).reshape(-1, CHANNELS), limbs)
        found.append(bits(merge_channels(ChannelSums(kept, limbs.T.copy()), observe_rows(np.zeros((0, CHANNELS))))))
    assert found[0] == found[1]


# --- laws ------------------------------------------------------------------------------------------------------------------


def merged_in_any_order(parts: list[ChannelSums], rng: random.Random) -> ChannelSums:
    parts = list(parts)
    while len(parts) > 1:
        rng.shuffle(parts)
        parts.append(merge_channels(parts.pop(), parts.pop()))
    return parts[0]


@given(rows_of_anything, st.lists(st.integers(0, 24), max_size=6), st.randoms(use_true_random=False))
def test_same_bits_however_the_rows_are_split_ordered_and_merged(rows: list[list[float]], cuts: list[int], rng: random.Random) -> None:
    whole = observe_rows(table(rows))
    shuffled = rng.sample(rows, len(rows))
    ends = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [observe_rows(table(shuffled[a:b])) for a, b in pairwise(ends)]
    for merged in (merged_in_any_order(parts, rng), reduce(merge_channels, parts)):
        assert bits(merged) == bits(whole)
        assert merged.equals(whole)
        assert merged.means.tobytes() == whole.means.tobytes()


@given(rows_of_anything, rows_of_anything, rows_of_anything)
def test_merge_is_associative_and_commutative(x: list[list[float]], y: list[list[float]], z: list[list[float]]) -> None:
    a, b, c = (observe_rows(table(rows)) for rows in (x, y, z))
    assert bits(merge_channels(a, merge_channels(b, c))) == bits(merge_channels(merge_channels(a, b), c))
    assert bits(merge_channels(a, b)) == bits(merge_channels(b, a))


def test_merge_and_means_leave_what_they_read_as_it_was() -> None:
    a, b = observe_rows(np.array([[1.0, -3.0]])), observe_rows(np.array([[-2.0, 0.5]]))
    before = bits(a), bits(b)
    merge_channels(a, b)
    assert a.means.tolist() == a.means.tolist() == [1.0, -3.0]
    assert (bits(a), bits(b)) == before


def test_sums_are_frozen() -> None:
    one = observe_rows(np.ones((1, 1)))
    for sums in (one, merge_channels(one, one), observe_rows(np.ones((0, 1)))):
        assert not sums.limbs.flags.writeable
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.rows = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    "other", [[[1.0, 3.0]], [[1.0, 2.0], [0.0, 0.0]], [[1.0, 2.0 + 2.0**-22]], [[1.0]]], ids=["value", "rows", "last bit", "channels"]
)
def test_equals_sees_every_difference(other: list[list[float]]) -> None:
    seen, unlike = observe_rows(np.array([[1.0, 2.0]])), observe_rows(np.array(other))
    assert seen.equals(observe_rows(np.array([[1.0, 2.0]])))
    assert not seen.equals(unlike)
    assert not unlike.equals(seen)


# --- errors ----------------------------------------------------------------------------------------------------------------


def test_other_numbers_of_channels_are_refused() -> None:
    with pytest.raises(DataError, match=r"^channel means: found 2 and 3 channels, expected the same number in every sample"):
        merge_channels(observe_rows(np.zeros((1, 2))), observe_rows(np.zeros((1, 3))))
