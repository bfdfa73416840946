from __future__ import annotations

import numpy as np
import pytest

from zeropoint.data import InputInfo, open_data
from zeropoint.errors import DataError

SAMPLES = open_data(np.arange(6, dtype=np.float32).reshape(6, 1), [InputInfo("x", np.dtype(np.float32), (None, 1))])


def numbers(samples: object) -> list[float]:
    return [float(feed["x"].item()) for feed in samples]  # type: ignore[attr-defined]


def test_iterates_again() -> None:
    assert numbers(SAMPLES) == numbers(SAMPLES) == [0, 1, 2, 3, 4, 5]


def test_slices_of_choices() -> None:
    assert numbers(SAMPLES[1::2]) == [1, 3, 5]
    assert numbers(SAMPLES[1::2].select([2, 0])) == [5, 1]
    assert SAMPLES[1::2].ids == ("data[1]", "data[3]", "data[5]")
    assert SAMPLES[1::2].description == "3 of 6 samples of arrays in memory"


@pytest.mark.parametrize("position", [6, -1])
def test_select_outside(position: int) -> None:
    with pytest.raises(DataError, match=f"select: found position {position}, expected 0 to 5"):
        SAMPLES.select([0, position])
