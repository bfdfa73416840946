from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from zeropoint.benching.figures import ratio_of_rounds, spread, summarize_profile
from zeropoint.runtime.node_time import NodeTime


@pytest.mark.parametrize("count", [6, 7, 8, 12])
def test_the_interval_holds_the_median_in_95_of_100_cases_and_is_the_narrowest_that_does(count: int) -> None:
    """Counted over all ways in which the values may lie above and below the true median, each as likely as any other."""
    ratio = ratio_of_rounds(np.arange(1.0, count + 1), np.ones(count))
    left_out = round(ratio.low) - 1
    assert round(ratio.high) == count - left_out

    def share_held(dropped: int) -> float:
        below = [sum(sides) for sides in itertools.product((0, 1), repeat=count)]
        return sum(dropped < number < count - dropped for number in below) / 2**count

    assert share_held(left_out) >= 0.95
    assert share_held(left_out + 1) < 0.95


def test_the_ratio_is_that_of_rounds_and_not_of_medians() -> None:
    pace = np.array([1.0, 1.0, 1.0, 5.0, 9.0, 9.0, 9.0, 20.0])
    ratio = ratio_of_rounds(0.5 * pace, pace)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.5, 0.5, 0.5))


def test_of_an_even_number_the_middle_ones_are_averaged_as_factors() -> None:
    ratio = ratio_of_rounds(np.array([4.0, 1.0, 4.0, 1.0, 4.0, 1.0]), np.array([2.0, 2.0, 2.0, 2.0, 2.0, 2.0]))
    assert ratio.value == pytest.approx(1.0)


@pytest.mark.parametrize(("low", "high", "is_clear"), [(0.9, 1.1, False), (0.8, 0.99, True), (1.01, 1.2, True)])
def test_a_ratio_is_clear_where_its_interval_leaves_out_1(low: float, high: float, is_clear: bool) -> None:
    from zeropoint.benching.bench import Ratio

    assert Ratio(value=math.sqrt(low * high), low=low, high=high).is_clear is is_clear


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_spread_is_relative(scale: float) -> None:
    assert spread(scale * np.linspace(1, 3, 101)) == pytest.approx(0.8)


def nodes() -> list[NodeTime]:
    told = [("a", "Conv", 3e-3, False), ("b", "QLinearConv", 1e-3, True), ("c", "Conv", 2e-3, False), ("d", "QLinearAdd", 2e-3, True)]
    told += [(f"n{number}", "Small", 1e-5, False) for number in range(20)]
    return [NodeTime(node=node, operator=operator, seconds=seconds, in_integers=integer) for node, operator, seconds, integer in told]


def test_a_profile_sums_by_operator_and_names_the_slowest() -> None:
    profile = summarize_profile(nodes(), runs=7)
    assert [(found.operator, found.nodes) for found in profile.operators] == [
        ("Conv", 2),
        ("QLinearAdd", 1),
        ("QLinearConv", 1),
        ("Small", 20),
    ]
    assert [found.milliseconds for found in profile.operators] == pytest.approx([5, 2, 1, 0.2])
    assert sum(found.share for found in profile.operators) == pytest.approx(1)
    assert [found.node for found in profile.slowest[:4]] == ["a", "c", "d", "b"]
    assert len(profile.slowest) == 10
    assert (profile.runs, profile.milliseconds, profile.integer_share) == (7, pytest.approx(8.2), pytest.approx(3 / 8.2))


def test_a_profile_of_nothing_is_empty() -> None:
    profile = summarize_profile([], runs=3)
    assert (profile.operators, profile.slowest, profile.milliseconds, profile.integer_share) == ((), (), 0, 0)
