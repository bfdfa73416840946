from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeropoint.data import InputInfo, open_data, split
from zeropoint.data.split import spread
from zeropoint.errors import RecipeError

SAMPLES = open_data(np.zeros((100, 1), np.float32), [InputInfo("x", np.dtype(np.float32), (None, 1))])


@given(st.integers(1, 100), st.integers(1, 120), st.integers(1, 120))
def test_parts_are_disjoint_and_as_large_as_can_be(total: int, n_calibration: int, n_evaluation: int) -> None:
    calibration, evaluation = split(SAMPLES[:total], n_calibration, n_evaluation)
    left = total - min(total, n_calibration)
    assert len(calibration) == min(total, n_calibration)
    assert len(evaluation) == (min(left, n_evaluation) if left >= 2 else 0)
    assert len({*calibration.indices, *evaluation.indices}) == len(calibration) + len(evaluation)
    assert list(calibration.indices) == sorted(calibration.indices)


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_spread_takes_the_middles_of_equal_runs(total: int, count: int) -> None:
    run = max(Fraction(total, count), Fraction(1))
    assert spread(total, count) == [floor(run * i + run / 2) for i in range(min(total, count))]


def test_every_class_of_a_sorted_folder_calibrates() -> None:
    calibration, evaluation = split(SAMPLES, 10, 20)  # ten classes of ten
    assert [index // 10 for index in calibration.indices] == list(range(10))
    assert {index // 10 for index in evaluation.indices} == set(range(10))


def test_positions_of_a_choice_stay_in_the_choice() -> None:
    calibration, evaluation = split(SAMPLES.select([50, 60, 70, 80]), 2, 2)
    assert (calibration.indices, evaluation.indices) == ((60, 80), (50, 70))


@pytest.mark.parametrize(("counts", "name"), [((0, 1), "n_calibration"), ((1, -3), "n_evaluation")], ids=["calibration", "evaluation"])
def test_numbers_below_one(counts: tuple[int, int], name: str) -> None:
    with pytest.raises(RecipeError, match=f"{name}: found {min(counts)}, expected at least 1"):
        split(SAMPLES, *counts)
