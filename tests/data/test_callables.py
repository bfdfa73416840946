from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from zeropoint.data import InputInfo, load_labels, open_data
from zeropoint.data.labelled import Labelled, ReadyIndex, ReadyItems
from zeropoint.data.samples import LabelledSource
from zeropoint.errors import DataError

X = InputInfo("x", np.dtype(np.float32), (None, 2))
Y = InputInfo("y", np.dtype(np.int64), (None,))
VALUES = np.arange(10, dtype=np.float32).reshape(5, 2)

MODULE = """
import numpy as np

def samples():
    for i in range(5):
        yield np.array([2 * i, 2 * i + 1], np.float32)

def broken():
    yield np.zeros(2)
    raise KeyError("gone")

def failing():
    return 1 / 0

def arrays():
    return {"x": np.arange(10.0).reshape(5, 2)}

constant = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "zp_calibration_data.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "zp_calibration_data.py"
    sys.modules.pop("zp_calibration_data", None)


def values(data: object, **options: int) -> list[list[float]]:
    return [feed["x"][0].tolist() for feed in open_data(data, [X], **options)]  # type: ignore[arg-type]


class MapStyle:
    """A map-style data set that counts what is asked of it."""

    def __init__(self, items: list[object]) -> None:
        self.items, self.asked = items, 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> object:
        self.asked += 1
        return self.items[index]


class Loader:
    """Gives batches, in another order each time, as a shuffling loader does."""

    passes = 0

    def __iter__(self) -> Iterator[npt.NDArray[np.float32]]:
        self.passes += 1
        yield from np.array_split(np.roll(VALUES, self.passes - 1, axis=0), 3)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda: iter(VALUES), id="generator of single samples"),
        pytest.param(lambda: iter([VALUES[:2], VALUES[2:]]), id="generator of batches"),
        pytest.param(lambda: [VALUES[:2], VALUES[2], VALUES[3:]], id="list of batches and single samples"),
        pytest.param(lambda: tuple((row,) for row in VALUES), id="tuples in input order"),
        pytest.param(lambda: [{"x": row} for row in VALUES], id="dicts"),
        pytest.param(lambda: MapStyle(list(VALUES)), id="map style"),
        pytest.param(lambda: MapStyle([VALUES[:2], VALUES[2:4], VALUES[4:]]), id="map style of batches"),
        pytest.param(Loader, id="loader"),
        pytest.param(lambda: lambda: iter(VALUES), id="function"),
    ],
)
def test_forms(data: object) -> None:
    assert values(data()) == VALUES.tolist()  # type: ignore[operator]


def test_torch_loader_of_tensors() -> None:
    torch = pytest.importorskip("torch")
    loader = torch.utils.data.DataLoader(torch.from_numpy(VALUES), batch_size=2)
    assert values(loader) == VALUES.tolist()


def test_function_in_a_module_and_in_a_file(module: Path) -> None:
    assert values("zp_calibration_data:samples") == VALUES.tolist()
    assert values(f"{module}:samples") == VALUES.tolist()
    assert values(f"{module}:arrays") == VALUES.tolist()


def test_two_inputs_by_order_and_by_name() -> None:
    for item in ((VALUES[0], 7), [VALUES[:1], np.array([7])], {"y": 7, "x": VALUES[0]}):
        feed = open_data([item], [X, Y])[0]
        assert (feed["x"].tolist(), feed["y"].tolist()) == ([[0, 1]], [7])


def test_map_style_is_asked_only_for_what_is_read() -> None:
    data = MapStyle(list(VALUES))
    samples = open_data(data, [X])
    data.asked = 0
    assert samples[4]["x"].tolist() == [[8, 9]] and data.asked == 1


def test_loader_is_read_once() -> None:
    loader = Loader()
    samples = open_data(loader, [X])
    assert [f["x"].tolist() for f in samples] == [f["x"].tolist() for f in samples]
    assert loader.passes == 1


def test_generator_is_read_up_to_the_limit() -> None:
    given = 0

    def endless() -> Iterator[npt.NDArray[np.float32]]:
        nonlocal given
        while True:
            given += 1
            yield np.zeros((4, 2), np.float32)

    assert len(open_data(endless(), [X], limit=10)) == 12
    assert given == 3


def test_generator_may_fill_its_buffer_again() -> None:
    def refilled() -> Iterator[npt.NDArray[np.float32]]:
        buffer = np.zeros(2, np.float32)
        for row in VALUES:
            buffer[:] = row
            yield buffer

    assert values(refilled()) == VALUES.tolist()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(iter([]), "gave no samples", id="generator of nothing"),
        pytest.param([], "gave no samples", id="empty list"),
        pytest.param(MapStyle([]), "found no items", id="empty data set"),
        pytest.param([(VALUES, np.arange(5))], "found 2 arrays, expected 1 .*leave labels out", id="labels with the images"),
        pytest.param([np.zeros((2, 3))], r"item 0: input 'x': found shape \(2, 3\)", id="shape"),
        pytest.param([VALUES, np.zeros((1, 1, 1, 2))], r"item 1: input 'x': found shape", id="rank of a later item"),
        pytest.param([{"z": VALUES}], "found arrays 'z', expected 'x'", id="name"),
        pytest.param(["text"], "found .*<U4", id="text"),
        pytest.param([np.array([None, 1])], "found .*object", id="objects"),
        pytest.param([[np.nan, 1.0]], "found 2 arrays, expected 1", id="bare numbers"),
        pytest.param(iter([np.array([np.nan, 1])]), r"found 1 NaN", id="NaN"),
    ],
)
def test_items_that_do_not_serve(data: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(data, [X])


def test_map_style_that_gives_a_batch_later() -> None:
    samples = open_data(MapStyle([VALUES[0], VALUES]), [X])
    with pytest.raises(DataError, match="item 1: found 5 samples, expected 1"):
        samples[1]


def test_tensors_that_numpy_does_not_take_as_they_are() -> None:
    torch = pytest.importorskip("torch")
    items = [torch.tensor([0.0, 1.0], requires_grad=True), torch.tensor([2.0, 3.0], dtype=torch.bfloat16)]
    assert values(items) == [[0.0, 1.0], [2.0, 3.0]]


def test_meta_tensor_is_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(DataError, match="no array"):
        open_data([torch.zeros(2, device="meta")], [X])


def test_items_that_are_ready_tell_their_labels() -> None:
    ready = [Labelled({"x": VALUES[:2]}, np.array([4, 1])), Labelled({"x": VALUES[2]}, np.array([3])), Labelled({"x": VALUES[3:]}, None)]
    held = open_data(ReadyItems("three items", lambda: iter(ready)), [X])
    assert isinstance(held.source, LabelledSource)
    assert [held.source.label(index) for index in range(5)] == [4, 1, 3, None, None]
    assert held.source.description == "three items (3 items read and held)"
    asked = open_data(ReadyIndex("an index", 4, lambda index: Labelled({"x": VALUES[index]}, np.array([index]))), [X])
    assert isinstance(asked.source, LabelledSource)
    assert [asked.source.label(index) for index in (3, 0)] == [3, 0]
    whole = open_data(Labelled({"x": VALUES}, np.arange(5)), [X])
    assert load_labels("data", whole.select([3, 1])).tolist() == [3, 1]


def test_labels_that_are_not_one_for_each_sample_are_none() -> None:
    found = open_data([Labelled({"x": VALUES[:2]}, np.array([4, 1, 2]))], [X]).source
    assert isinstance(found, LabelledSource)
    assert found.label(0) is None


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        pytest.param("zp_calibration_data:nothing", "found no function 'nothing'", id="no such function"),
        pytest.param("zp_calibration_data:constant", "found no function 'constant'", id="no function"),
        pytest.param("zp_calibration_data:failing", "failed with ZeroDivisionError", id="fails"),
        pytest.param("zp_calibration_data:broken", "failed with KeyError: 'gone' while giving samples", id="fails later"),
        pytest.param("zp_no_such_module:samples", "importing zp_no_such_module failed", id="no such module"),
        pytest.param("no/such/file.py:samples", "there is no file", id="no such file"),
    ],
)
@pytest.mark.usefixtures("module")
def test_references_that_do_not_serve(reference: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(reference, [X])
