from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from zeropoint.data import InputInfo, batches, feeds, open_data
from zeropoint.errors import DataError, RecipeError
from zeropoint.notes import Note

WIDE = InputInfo("x", np.dtype(np.float32), (None, None))


def run(data: object, shape: tuple[int | None, ...], batch_size: int) -> tuple[list[npt.NDArray], list[Note]]:
    notes: list[Note] = []
    samples = open_data(data, [InputInfo("x", np.dtype(np.float32), shape)])
    return [feed["x"] for feed in feeds(samples, batch_size, on_note=notes.append)], notes


def ramp(count: int) -> npt.NDArray[np.float32]:
    return np.arange(2 * count, dtype=np.float32).reshape(count, 2)


@pytest.mark.parametrize(
    ("count", "batch", "batch_size", "lengths", "left_out"),
    [
        pytest.param(10, None, 4, [4, 4, 2], 0, id="dynamic keeps the ragged last batch"),
        pytest.param(10, None, 16, [10], 0, id="dynamic, fewer than a batch"),
        pytest.param(3, 1, 16, [1, 1, 1], 0, id="fixed to one"),
        pytest.param(10, 4, 1, [4, 4], 2, id="fixed to four drops the rest"),
        pytest.param(8, 4, 3, [4, 4], 0, id="fixed to four, nothing left"),
    ],
)
def test_batch_lengths(count: int, batch: int | None, batch_size: int, lengths: list[int], left_out: int) -> None:
    found, notes = run(ramp(count), (batch, 2), batch_size)
    assert [len(x) for x in found] == lengths
    np.testing.assert_array_equal(np.concatenate(found), ramp(count)[: count - left_out])
    assert [note.reason for note in notes] == (
        [f"{left_out} of {count} samples left out: they fill no batch of {batch}"] if left_out else []
    )


def test_another_shape_is_a_batch_of_its_own_within_a_block() -> None:
    items = [np.zeros((1, n), np.float32) for n in (3, 3, 5, 3, 3, 3)]
    blocks = batches(open_data(items, [WIDE]), 2)
    assert [[feed["x"].shape for feed in blocks[k]] for k in (2, 0, 1)] == [[(2, 3)], [(2, 3)], [(1, 5), (1, 3)]]


def test_a_fixed_batch_of_two_shapes_is_refused() -> None:
    samples = open_data([np.zeros((1, n), np.float32) for n in (3, 5)], [InputInfo("x", np.dtype(np.float32), (2, None))])
    with pytest.raises(DataError, match=r"batch 0: found samples of .*3.* and of .*5.*, expected one shape"):
        batches(samples, 2)[0]


def test_no_full_batch_is_an_error() -> None:
    with pytest.raises(DataError, match="expected at least 4, which the network's batch axis is fixed to"):
        run(ramp(3), (4, 2), 1)


def test_nothing_chosen_gives_nothing() -> None:
    samples = open_data(ramp(3), [WIDE])[:0]
    assert list(feeds(samples, 2, on_note=print)) == []


def test_batch_size_is_checked_before_anything_is_read() -> None:
    with pytest.raises(RecipeError, match="batch_size: found 0, expected at least 1"):
        feeds(open_data(ramp(3), [WIDE]), 0, on_note=print)


def test_only_the_samples_of_a_batch_are_read() -> None:
    read: list[int] = []

    class Data:
        def __len__(self) -> int:
            return 100

        def __getitem__(self, index: int) -> npt.NDArray[np.float32]:
            read.append(index)
            return np.zeros(2, np.float32)

    found = feeds(open_data(Data(), [WIDE]), 3, on_note=print)
    read.clear()
    next(found)
    assert read == [0, 1, 2]
