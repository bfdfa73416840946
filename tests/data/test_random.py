from __future__ import annotations

import numpy as np
import pytest

from zeropoint.data import InputInfo, open_data
from zeropoint.errors import DataError

IMAGE = InputInfo("x", np.dtype(np.float32), (None, 3, 16, 16))


def test_standard_normal_and_the_same_again() -> None:
    samples, again, other = (open_data("random", [IMAGE], limit=20, seed=seed) for seed in (1, 1, 2))
    values = np.concatenate([feed["x"] for feed in samples])
    assert values.shape == (20, 3, 16, 16) and values.dtype == np.float32
    assert abs(values.mean()) < 0.05 and abs(values.std() - 1) < 0.05
    np.testing.assert_array_equal(again[7]["x"], samples[7]["x"])
    assert not np.array_equal(samples[7]["x"], samples[8]["x"])
    assert not np.array_equal(other[7]["x"], samples[7]["x"])


@pytest.mark.parametrize(
    ("dtype", "values"),
    [(np.int64, {0, 1}), (np.bool_, {0, 1}), (np.uint8, set(range(256)))],
    ids=["tokens", "mask", "bytes"],
)
def test_integers(dtype: type, values: set[int]) -> None:
    sample = open_data("random", [InputInfo("x", np.dtype(dtype), (1, 10000))])[0]["x"]
    assert sample.dtype == dtype
    assert {int(value) for value in np.unique(sample)} == values


def test_says_that_it_is_random() -> None:
    assert open_data("random", [IMAGE], limit=3).description == "3 of 3 samples of random numbers, not real data (3 samples, seed 0)"


def test_dynamic_size_is_not_guessed() -> None:
    with pytest.raises(DataError, match=r"input 'x': found shape \(\?, 3, \?, 16\), expected all axes but the batch to be fixed"):
        open_data("random", [InputInfo("x", np.dtype(np.float32), (None, 3, None, 16))])
