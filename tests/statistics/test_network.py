from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeropoint.errors import DataError
from zeropoint.statistics.channel_sums import observe_rows
from zeropoint.statistics.network import NOTHING_SEEN, Statistics, merge_statistics
from zeropoint.statistics.tensor import EMPTY, observe

NAMES = ("x", "a", "y")
Seen = Mapping[str, list[float]]

seen = st.dictionaries(st.sampled_from(NAMES), st.lists(st.floats(width=32), max_size=6))


def statistics(tensors: Seen, channels: Seen | None = None) -> Statistics:
    """Each list holds the elements of a tensor; for channel sums it is a column of one channel."""
    told = tensors if channels is None else channels
    sums = {(name, 1): observe_rows(np.array(values, np.float32).reshape(-1, 1)) for name, values in told.items()}
    return Statistics({name: observe(np.array(values, np.float32)) for name, values in tensors.items()}, sums)


def assert_same(found: Statistics, expected: Statistics) -> None:
    assert found.tensors.keys() == expected.tensors.keys()
    assert found.channels.keys() == expected.channels.keys()
    assert [name for name, statistic in found.tensors.items() if not statistic.equals(expected.tensors[name])] == []
    assert [name for name, sums in found.channels.items() if not sums.equals(expected.channels[name])] == []


# --- laws ------------------------------------------------------------------------------------------------------------------


@given(seen, seen)
def test_merged_is_what_was_seen_together(x: Seen, y: Seen) -> None:
    both = {name: [*x.get(name, []), *y.get(name, [])] for name in {**x, **y}}
    assert_same(merge_statistics(statistics(x), statistics(y)), statistics(both))


@given(seen, seen, seen)
def test_merge_is_a_commutative_monoid(x: Seen, y: Seen, z: Seen) -> None:
    a, b, c = map(statistics, (x, y, z))
    assert_same(merge_statistics(a, merge_statistics(b, c)), merge_statistics(merge_statistics(a, b), c))
    assert_same(merge_statistics(a, b), merge_statistics(b, a))
    assert_same(merge_statistics(a, NOTHING_SEEN), a)
    assert_same(merge_statistics(NOTHING_SEEN, a), a)


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_order_does_not_matter(order: tuple[int, ...]) -> None:
    parts = [statistics({"x": [1.0, -2.0]}), statistics({"x": [3.0], "a": [0.5]}), statistics({"a": [-0.5], "y": [np.nan]})]
    merged = NOTHING_SEEN
    for index in order:
        merged = merge_statistics(merged, parts[index])
    assert_same(merged, statistics({"x": [1.0, -2.0, 3.0], "a": [0.5, -0.5], "y": [np.nan]}))


# --- tensors that one of the two has not -----------------------------------------------------------------------------------


def test_a_tensor_seen_by_one_alone_is_kept_as_it_is() -> None:
    merged = merge_statistics(statistics({"x": [1.0]}), statistics({"y": [2.0]}))
    assert_same(merged, statistics({"x": [1.0], "y": [2.0]}))


def test_tensors_and_channels_are_merged_apart() -> None:
    merged = merge_statistics(statistics({"x": [1.0]}, {}), statistics({}, {"x": [2.0]}))
    assert_same(merged, statistics({"x": [1.0]}, {"x": [2.0]}))


def test_a_tensor_not_reached_yet_is_joined_by_what_is_seen_later() -> None:
    start = Statistics({"x": EMPTY}, {})
    assert_same(merge_statistics(start, statistics({"x": [1.0]})), statistics({"x": [1.0]}))


def test_tensors_keep_the_order_in_which_they_were_first_seen() -> None:
    merged = merge_statistics(statistics({"y": [1.0], "a": [1.0]}), statistics({"x": [1.0], "a": [2.0]}))
    assert list(merged.tensors) == [name for name, _ in merged.channels] == ["y", "a", "x"]


def test_nothing_was_seen_in_nothing() -> None:
    assert_same(merge_statistics(NOTHING_SEEN, NOTHING_SEEN), Statistics({}, {}))


def test_merge_leaves_its_inputs_as_they_were() -> None:
    a, b = statistics({"x": [1.0]}), statistics({"x": [2.0], "y": [3.0]})
    merge_statistics(a, b)
    assert_same(a, statistics({"x": [1.0]}))
    assert_same(b, statistics({"x": [2.0], "y": [3.0]}))
    assert_same(NOTHING_SEEN, Statistics({}, {}))


def test_other_numbers_of_channels_are_refused() -> None:
    a, b = (Statistics({}, {("x", 1): observe_rows(np.zeros((1, count)))}) for count in (2, 3))
    with pytest.raises(DataError, match="found 2 and 3 channels"):
        merge_statistics(a, b)
