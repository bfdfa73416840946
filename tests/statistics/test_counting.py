"""Both implementations of the one loop over all elements, against a slow loop and against each other."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest

from zeropoint.native import library
from zeropoint.statistics import counting, tensor
from zeropoint.statistics.counting import CHUNK, Tally, count_compiled, count_in_numpy
from zeropoint.statistics.tensor import Observation, TensorStatistic, merge, observe

Array32 = npt.NDArray[np.float32]
Count = Callable[[Array32, Tally], None]
BLOCK, LANES = 4096, 16  # of the compiled loop
SIZES = (0, 1, 2, LANES - 1, LANES, LANES + 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5)
NAN_PATTERNS = (0x7F800001, 0x7F80FFFF, 0x7FC00000, 0x7FFFFFFF, 0xFF800001, 0xFFC00000, 0xFFFFFFFF)

needs_compiled = pytest.mark.skipif(library is None, reason="no C compiler was there when zeropoint was installed")
every_loop = pytest.mark.parametrize(
    "count", [pytest.param(count_in_numpy, id="numpy"), pytest.param(count_compiled, id="compiled", marks=needs_compiled)]
)


def normal(n: int) -> Array32:
    return np.random.default_rng(n).standard_normal(n).astype(np.float32)


def patterns(n: int, *among: int) -> Array32:
    """Each third element is one of the bit patterns, or all are where there is nothing between."""
    x = normal(n).view(np.uint32)
    x[::3] = np.resize(np.array(among, np.uint32), x[::3].shape)
    return x.view(np.float32)


def any_bits(n: int) -> Array32:
    return np.random.default_rng(n).integers(0, 1 << 32, n, np.uint32).view(np.float32)


KINDS: dict[str, Callable[[int], Array32]] = {
    "normal": normal,
    "like a ReLU's": lambda n: np.maximum(normal(n), 0),
    "constant": lambda n: np.full(n, 1.5, np.float32),
    "zeros": lambda n: np.zeros(n, np.float32),
    "negative zeros": lambda n: np.full(n, -0.0, np.float32),
    "both zeros": lambda n: np.where(normal(n) > 0, np.float32(0.0), np.float32(-0.0)),
    "negative": lambda n: -np.abs(normal(n)) - 1,
    "NaN among others": lambda n: patterns(n, *NAN_PATTERNS),
    "the least NaN alone": lambda n: np.full(n, 0x7F800001, np.uint32).view(np.float32),
    "infinities among others": lambda n: patterns(n, 0x7F800000, 0xFF800000),
    "infinities alone": lambda n: np.resize(np.array([np.inf, -np.inf], np.float32), n),
    "NaN and infinities": lambda n: patterns(n, 0x7FC00000, 0xFF800000, 0x7F800000),
    "the largest": lambda n: patterns(n, 0x7F7FFFFF, 0xFF7FFFFF),
    "subnormal": lambda n: patterns(n, 0x00000001, 0x80000001, 0x007FFFFF, 0x807FFFFF),
    "any bits": any_bits,
    "one NaN at the end": lambda n: np.append(normal(max(0, n - 1)), np.float32(np.nan))[:n].astype(np.float32),
}


def slow(x: Array32) -> tuple[dict[int, int], list[float], list[int]]:
    """Counts by the upper half of the pattern, bounds of the finite values, NaN and infinities: one element after the other."""
    counts: Counter[int] = Counter()
    bounds, others = [math.inf, -math.inf], [0, 0]
    for (bits,) in struct.iter_unpack("=I", x.tobytes()):
        counts[bits >> 16] += 1
        magnitude = bits & 0x7FFFFFFF
        if magnitude > 0x7F800000:
            others[0] += 1
        elif magnitude == 0x7F800000:
            others[1] += 1
        else:
            value = struct.unpack("=f", struct.pack("=I", bits))[0]
            bounds = [min(bounds[0], value), max(bounds[1], value)]
    return dict(counts), bounds, others


def told(tally: Tally) -> tuple[dict[int, int], list[float], list[int]]:
    counts = tally.slots.astype(np.int64).sum(axis=1)
    return {int(key): int(counts[key]) for key in np.flatnonzero(counts)}, tally.bounds.tolist(), tally.others.tolist()


def counted(count: Count, *arrays: Array32) -> Tally:
    tally = Tally()
    for array in arrays:
        count(array, tally)
    return tally


# --- the loops -------------------------------------------------------------------------------------------------------------


@every_loop
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_against_a_slow_loop(kind: Callable[[int], Array32], size: int, count: Count) -> None:
    x = kind(size)
    assert (x.size, x.dtype) == (size, np.float32)
    x.flags.writeable = False
    assert told(counted(count, x)) == slow(x)


@every_loop
@pytest.mark.parametrize("offset", [0, 1, 2, 3, 5, 15])
def test_alignment_does_not_matter(offset: int, count: Count) -> None:
    """Views start at any element, and buffers of other libraries at any byte."""
    held = normal(BLOCK + 40)
    assert told(counted(count, held[offset : offset + BLOCK + 7])) == slow(held[offset : offset + BLOCK + 7])
    shifted = np.frombuffer(b"\0" * offset + held.tobytes(), np.uint8)[offset:].view(np.float32)
    assert told(counted(count, shifted)) == slow(held)


@every_loop
def test_what_is_counted_is_added_to_what_was(count: Count) -> None:
    parts = [KINDS[kind](size) for kind in ("normal", "NaN and infinities", "both zeros", "subnormal") for size in (5, BLOCK + 3)]
    assert told(counted(count, *parts)) == slow(np.concatenate(parts))


@every_loop
@pytest.mark.parametrize("at", [0, CHUNK - 1, CHUNK, 2 * CHUNK + 2], ids=["first", "end of a chunk", "start of a chunk", "last"])
def test_a_value_that_is_not_finite_is_found_anywhere(at: int, count: Count) -> None:
    x = np.ones(2 * CHUNK + 3, np.float32)
    x[at] = np.nan
    assert told(counted(count, x)) == ({0x3F80: x.size - 1, 0x7FC0: 1}, [1.0, 1.0], [1, 0])


@needs_compiled
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_both_loops_give_the_same(kind: Callable[[int], Array32]) -> None:
    x = kind(CHUNK + 4 * BLOCK + 3)
    assert told(counted(count_compiled, x)) == told(counted(count_in_numpy, x))


def test_the_compiled_loop_is_taken_where_it_is() -> None:
    assert counting.count is (count_in_numpy if library is None else count_compiled)


# --- observations ----------------------------------------------------------------------------------------------------------


def bits(statistic: TensorStatistic) -> tuple[bytes, ...]:
    s = statistic
    numbers = struct.pack(">qddqq", s.count, s.minimum, s.maximum, s.nan_count, s.inf_count)
    return numbers, s.buckets.tobytes(), s.counts.tobytes()


@every_loop
def test_an_observation_takes_in_arrays_from_many_threads(count: Count, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor, "count", count)
    arrays = [KINDS[kind](size) for kind in KINDS for size in (LANES - 1, BLOCK + 1, 2 * BLOCK)] * 4
    expected = [observe(array) for array in arrays]
    observation = Observation()
    with ThreadPoolExecutor(8) as executor:
        list(executor.map(observation.add, arrays))
    assert bits(observation.statistic()) == bits(observe(np.concatenate(arrays)))
    whole = expected[0]
    for one in expected[1:]:
        whole = merge(whole, one)
    assert bits(observation.statistic()) == bits(whole)


def test_statistics_may_be_taken_while_more_is_added() -> None:
    observation = Observation()
    observation.add(normal(100))
    first = observation.statistic()
    observation.add(normal(50))
    assert bits(first) == bits(observe(normal(100)))
    assert bits(observation.statistic()) == bits(merge(first, observe(normal(50))))


@every_loop
@pytest.mark.parametrize("most", [1, 7, 100, 101])
def test_counts_that_would_overflow_are_carried_over(most: int, count: Count, monkeypatch: pytest.MonkeyPatch) -> None:
    most_in_a_tally = [0]

    def checked(values: Array32, tally: Tally) -> None:
        count(values, tally)
        most_in_a_tally[0] = max(most_in_a_tally[0], int(tally.slots.sum()))

    monkeypatch.setattr(tensor, "MOST_PENDING", most)
    monkeypatch.setattr(tensor, "count", checked)
    arrays = [KINDS[kind](size) for kind in ("normal", "NaN and infinities", "both zeros") for size in (0, 1, 50, 101, 250)]
    observation = Observation()
    for array in arrays:
        observation.add(array)
    assert most_in_a_tally[0] <= most
    found = observation.statistic()
    monkeypatch.undo()
    assert bits(found) == bits(observe(np.concatenate(arrays)))


def test_a_tally_counts_as_many_as_may_be_pending() -> None:
    """Both columns of a key are 32 bits wide, and one alone holds all that may be pending."""
    assert np.iinfo(Tally().slots.dtype).max == tensor.MOST_PENDING
