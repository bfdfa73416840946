from __future__ import annotations

import dataclasses
import math
import random
import re
import struct
from collections import Counter
from functools import reduce
from itertools import pairwise
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeropoint.errors import DataError
from zeropoint.statistics.counting import CHUNK
from zeropoint.statistics.tensor import EMPTY, TensorStatistic, magnitude, merge, observe

Array = np.ndarray[Any, Any]
INF, NAN = math.inf, math.nan
LARGEST = float(np.finfo(np.float32).max)
SMALLEST = 2.0**-149
SMALLEST_OF_BUCKET_1 = 2.0**-133
SPECIAL = [0.0, -0.0, SMALLEST, -SMALLEST, 1e-40, -1e-40, SMALLEST_OF_BUCKET_1, -SMALLEST_OF_BUCKET_1, LARGEST, -LARGEST, INF, -INF, NAN]

elements = st.lists(st.one_of(st.floats(width=32), st.sampled_from(SPECIAL), st.floats(-4, 4, width=16)), max_size=40)


def read_only(x: Array) -> Array:
    x = x.copy()
    x.flags.writeable = False
    return x


def as_float32(value: float) -> float:
    """`value` rounded as C does it, by struct."""
    try:
        return float(struct.unpack(">f", struct.pack(">f", value))[0])
    except OverflowError:
        return math.copysign(INF, value)


def key_of(value: float) -> int:
    """The upper 16 of the 32 bits, by struct; both zeros, and what is as good as zero, are key 0."""
    key = int(struct.unpack(">H", struct.pack(">f", value)[:2])[0])
    return 0 if key == 0x8000 else key


def slow_statistic(values: list[float]) -> tuple[int, float, float, int, int, list[int], list[int]]:
    """One element after the other: the oracle, in the order of TensorStatistic's fields."""
    count, minimum, maximum, nan_count, inf_count = 0, INF, -INF, 0, 0
    buckets: Counter[int] = Counter()
    for value in map(as_float32, values):
        if math.isnan(value):
            nan_count += 1
        elif math.isinf(value):
            inf_count += 1
        else:
            count += 1
            minimum = value if value < minimum else minimum
            maximum = value if value > maximum else maximum
            buckets[key_of(value)] += 1
    keys = sorted(buckets)
    return count, minimum, maximum, nan_count, inf_count, keys, [buckets[key] for key in keys]


def fields(statistic: TensorStatistic) -> tuple[int, float, float, int, int, list[int], list[int]]:
    s = statistic
    return s.count, s.minimum, s.maximum, s.nan_count, s.inf_count, s.buckets.tolist(), s.counts.tolist()


def bits(statistic: TensorStatistic) -> tuple[bytes, ...]:
    """All that the statistic is, the sign of a zero too."""
    s = statistic
    numbers = struct.pack(">qddqq", s.count, s.minimum, s.maximum, s.nan_count, s.inf_count)
    return numbers, s.buckets.dtype.str.encode(), s.buckets.tobytes(), s.counts.dtype.str.encode(), s.counts.tobytes()


# --- what is seen, against a loop over the elements -----------------------------------------------------------------------


@given(elements)
def test_against_a_slow_loop(values: list[float]) -> None:
    assert fields(observe(read_only(np.array(values, np.float32)))) == slow_statistic(values)


@pytest.mark.parametrize(
    ("values", "minimum", "maximum", "buckets"),
    [
        pytest.param([1.0, 1.007, 1.0079], 1.0, as_float32(1.0079), {0x3F80: 2, 0x3F81: 1}, id="a bucket is 1/128 wide at its lower end"),
        pytest.param([1.9921875, 1.99999], 1.9921875, as_float32(1.99999), {0x3FFF: 2}, id="and 1/256 at its upper end"),
        pytest.param([-1.0, 1.0], -1.0, 1.0, {0x3F80: 1, 0xBF80: 1}, id="signs have their own buckets"),
        pytest.param([-0.0], 0.0, 0.0, {0: 1}, id="negative zero alone"),
        pytest.param([0.0, -0.0, -0.0], 0.0, 0.0, {0: 3}, id="both zeros"),
        pytest.param([-0.0, 2.0], 0.0, 2.0, {0: 1, 0x4000: 1}, id="negative zero before a positive value"),
        pytest.param([-0.0, -2.0], -2.0, 0.0, {0: 1, 0xC000: 1}, id="negative zero behind a negative value"),
        pytest.param([-SMALLEST, SMALLEST], -SMALLEST, SMALLEST, {0: 2}, id="as good as zero, with exact bounds"),
        pytest.param([SMALLEST_OF_BUCKET_1], SMALLEST_OF_BUCKET_1, SMALLEST_OF_BUCKET_1, {1: 1}, id="the least that is told from zero"),
        pytest.param([LARGEST, -LARGEST], -LARGEST, LARGEST, {0x7F7F: 1, 0xFF7F: 1}, id="the largest floats"),
        pytest.param([NAN, INF, -INF], INF, -INF, {}, id="nothing finite"),
        pytest.param([], INF, -INF, {}, id="no elements"),
    ],
)
def test_defined_values(values: list[float], minimum: float, maximum: float, buckets: dict[int, int]) -> None:
    seen = observe(read_only(np.array(values, np.float32)))
    assert dict(zip(seen.buckets.tolist(), seen.counts.tolist(), strict=True)) == buckets
    assert (seen.count, seen.minimum, seen.maximum) == (sum(buckets.values()), minimum, maximum)
    assert math.copysign(1, seen.minimum + seen.maximum) == math.copysign(1, minimum + maximum), "a zero bound has no sign"


@pytest.mark.parametrize("payload", [0x7F800001, 0x7F80FFFF, 0x7FC00000, 0xFF800001, 0xFFFFFFFF], ids=hex)
def test_nan_with_any_payload_is_told_from_infinity(payload: int) -> None:
    seen = observe(read_only(np.array([payload, 0x7F800000, 0xFF800000, 0x3F800000], np.uint32).view(np.float32)))
    assert fields(seen) == (1, 1.0, 1.0, 1, 2, [0x3F80], [1])


DTYPES = [np.float16, np.float32, np.float64, np.longdouble, ml_dtypes.bfloat16]
DTYPES += [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_any_real_dtype_is_seen_as_float32(dtype: Any) -> None:
    x = read_only(np.random.default_rng(0).integers(0, 100, (7, 9)).astype(dtype) * np.array(1.25).astype(dtype))
    assert fields(observe(x)) == slow_statistic([float(v) for v in x.flat])


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([1e300, -1e300, 3.4028235677973366e38, 1.0], id="overflow counts as infinite"),
        pytest.param([3.4028235e38, 3.40282356e38], id="rounds down to the largest float32"),
        pytest.param([1e-300, -1e-300, 1e-46], id="underflow is zero"),
        pytest.param([0.1, 1 / 3, 1 - 2**-26, 16777217.0], id="rounds half to even"),
        pytest.param([NAN, INF, -INF], id="NaN and infinities"),
    ],
)
def test_float64_is_rounded_to_float32_without_a_warning(values: list[float]) -> None:
    with np.errstate(all="raise"):
        assert fields(observe(read_only(np.array(values)))) == slow_statistic(values)


@pytest.mark.parametrize(
    "x",
    [
        pytest.param(np.float32(2.5), id="a scalar"),
        pytest.param(np.array(2.5), id="no axes"),
        pytest.param([[1, 2.5], [3, -4]], id="nested lists"),
        pytest.param(np.arange(24.0).reshape(2, 3, 4).T, id="Fortran order"),
        pytest.param(np.arange(24, dtype=np.float32)[::-3], id="strided"),
        pytest.param(np.zeros((3, 0, 2), np.float32), id="empty, with axes"),
        pytest.param(np.arange(5, dtype=">f4"), id="big-endian"),
    ],
)
def test_shape_and_layout_do_not_matter(x: Any) -> None:
    assert fields(observe(x)) == slow_statistic([float(v) for v in np.asarray(x).flat])


def test_more_elements_than_are_worked_on_at_once() -> None:
    x = read_only(np.random.default_rng(0).standard_normal(2 * CHUNK + 3).astype(np.float32))
    keys, counts = np.unique(np.frombuffer(x.astype("<f4").tobytes(), "<u2")[1::2], return_counts=True)
    seen = observe(x)
    assert (seen.buckets.tolist(), seen.counts.tolist()) == (keys.tolist(), counts.tolist())
    assert (seen.count, seen.minimum, seen.maximum) == (x.size, float(x.min()), float(x.max()))


# --- laws -----------------------------------------------------------------------------------------------------------------


def merged_in_any_order(parts: list[TensorStatistic], rng: random.Random) -> TensorStatistic:
    parts = list(parts)
    while len(parts) > 1:
        rng.shuffle(parts)
        parts.append(merge(parts.pop(), parts.pop()))
    return parts[0]


@given(elements, st.lists(st.integers(0, 40), max_size=6), st.randoms(use_true_random=False))
def test_same_bits_however_the_data_is_split_ordered_and_merged(values: list[float], cuts: list[int], rng: random.Random) -> None:
    whole = observe(read_only(np.array(values, np.float32)))
    shuffled = rng.sample(values, len(values))
    ends = [0, *sorted(cuts), len(values)]
    parts = [observe(read_only(np.array(shuffled[a:b], np.float64))) for a, b in pairwise(ends)]
    for merged in (merged_in_any_order(parts, rng), reduce(merge, parts, EMPTY), reduce(lambda a, b: merge(b, a), parts, EMPTY)):
        assert bits(merged) == bits(whole)
        assert merged.equals(whole)


@given(elements, elements, elements)
def test_merge_is_a_commutative_monoid(x: list[float], y: list[float], z: list[float]) -> None:
    a, b, c = (observe(np.array(v, np.float32)) for v in (x, y, z))
    assert bits(merge(a, merge(b, c))) == bits(merge(merge(a, b), c)), "associative"
    assert bits(merge(a, b)) == bits(merge(b, a)), "commutative"
    assert bits(merge(a, EMPTY)) == bits(merge(EMPTY, a)) == bits(a), "EMPTY is the identity"


def test_merge_adds_all_counts() -> None:
    merged = merge(observe([NAN, NAN, INF, 1.0, -0.0, 3.0]), observe([NAN, -INF, -INF, 1.0, 0.0, -2.0]))
    assert fields(merged) == (6, -2.0, 3.0, 3, 3, [0, 0x3F80, 0x4040, 0xC000], [2, 2, 1, 1])


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8], ids=lambda dtype: np.dtype(dtype).name)
def test_parts_may_have_different_dtypes(dtype: Any) -> None:
    x = np.arange(-40, 60)
    parts = observe(read_only(x[:33].astype(dtype))), observe(read_only(x[33:].astype(np.float32)))
    assert bits(merge(*parts)) == bits(observe(x))


def test_counts_do_not_overflow_32_bits() -> None:
    seen = observe(np.ones(1, np.float32))
    for _ in range(40):
        seen = merge(seen, seen)
    assert (seen.count, seen.counts.tolist()) == (2**40, [2**40])


def test_merge_leaves_its_inputs_as_they_were() -> None:
    a, b = observe([1.0, -3.0]), observe([2.0, NAN])
    before = bits(a), bits(b)
    merge(a, b)
    magnitude(a)
    assert (bits(a), bits(b)) == before


@pytest.mark.parametrize(
    "statistic",
    [
        pytest.param(EMPTY, id="EMPTY"),
        pytest.param(observe([1.0, -0.0]), id="observed"),
        pytest.param(merge(observe([1.0]), observe([2.0])), id="merged"),
        pytest.param(magnitude(observe([1.0, -2.0])), id="magnitude"),
    ],
)
def test_a_statistic_is_frozen(statistic: TensorStatistic) -> None:
    assert not statistic.buckets.flags.writeable
    assert not statistic.counts.flags.writeable
    with pytest.raises(dataclasses.FrozenInstanceError):
        statistic.count = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    "other", [[1.0, 2.0], [1.0, 3.0, 3.0], [1.0, 1.0, 3.0], [1.0, 2.0, 3.0, NAN], [1.0, 2.0, 3.0, INF], [1.0, 2.0, 3.001]]
)
def test_equals_sees_every_difference(other: list[float]) -> None:
    seen = observe([3.0, 1.0, 2.0])
    assert seen.equals(observe([1.0, 2.0, 3.0]))
    assert not seen.equals(observe(other))
    assert not observe(other).equals(seen)


# --- magnitude ------------------------------------------------------------------------------------------------------------


@given(elements)
def test_magnitude_is_the_statistic_of_absolute_values(values: list[float]) -> None:
    x = np.array(values, np.float32)
    finite = [v for v in values if math.isfinite(v)]
    both_signs = any(v > 0 for v in finite) and any(v < 0 for v in finite)
    expected = observe(np.abs(x))
    if both_signs:
        expected = dataclasses.replace(expected, minimum=0.0)
    assert bits(magnitude(observe(x))) == bits(expected)


# --- errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "found"),
    [
        pytest.param(np.array([True, False]), "bool", id="bool"),
        pytest.param(np.array([1j]), "complex128", id="complex"),
        pytest.param(np.array(["1.0"]), "<U3", id="text"),
        pytest.param(np.array([b"1"]), "|S1", id="bytes"),
        pytest.param(np.array([1.0, None]), "object", id="objects"),
        pytest.param(np.array(["2020-01-01"], "M8[D]"), "datetime64[D]", id="dates"),
        pytest.param(np.array([1], "m8[s]"), "timedelta64[s]", id="durations"),
        pytest.param(np.zeros(2, [("a", "f4"), ("b", "f4")]), "[('a', '<f4'), ('b', '<f4')]", id="records"),
        pytest.param(np.zeros(2, "V4"), "|V4", id="raw bytes"),
        pytest.param(np.zeros(0, bool), "bool", id="empty"),
    ],
)
def test_what_holds_no_real_numbers_is_refused(x: Array, found: str) -> None:
    message = f"statistic: found an array of {found}, expected real numbers; convert it to float32 first"
    with pytest.raises(DataError, match=re.escape(message)):
        observe(x)
