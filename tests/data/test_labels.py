from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zeropoint.data import PRESETS, InputInfo, Samples, load_labels, open_data
from zeropoint.errors import DataError

X = InputInfo("x", np.dtype(np.float32), (None, 3, 4, 4))


def images(folder: Path, *names: str) -> Samples:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / name)
    return open_data(folder, [X], preprocess=PRESETS["unit"])


@pytest.fixture
def animals(tmp_path: Path) -> Samples:
    return images(tmp_path / "animals", "cat/1.png", "cat/2.png", "dog/old/3.png", "eel/4.png")


def test_folders_in_sorted_order(animals: Samples) -> None:
    labels = load_labels("folder", animals)
    assert labels.tolist() == [0, 0, 1, 2] and labels.dtype == np.int64


def test_folders_keep_their_numbers_in_a_part(animals: Samples) -> None:
    assert load_labels("folder", animals.select([3, 2])).tolist() == [2, 1]


def test_stems(tmp_path: Path) -> None:
    assert load_labels("stem", images(tmp_path, "0007.png", "a/12.png")).tolist() == [7, 12]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("cat/1.png,5\ncat/2.png,6\ndog/old/3.png,7\neel/4.png,8\n", id="paths"),
        pytest.param("file,label\n1.png,5\n2.png,6\n3.png,7\n4.png,8\n", id="names and a heading"),
        pytest.param("\ufeff./cat/1.png, 5\r\ncat\\2.png,6\r\n\r\n3.png,7\r\n4.png,8\r\nother.png,1\r\n", id="as other systems write it"),
        pytest.param("x/1.png,9\ncat/1.png,5\n2.png,6\n3.png,7\n4.png,8\n4.png,8\n", id="the path counts before the name"),
    ],
)
def test_csv(tmp_path: Path, animals: Samples, text: str) -> None:
    (tmp_path / "l.csv").write_text(text, encoding="utf-8", newline="")
    assert load_labels(tmp_path / "l.csv", animals[1:]).tolist() == [6, 7, 8]
    assert load_labels(str(tmp_path / "l.csv"), animals).tolist() == [5, 6, 7, 8]


def test_in_order_of_all_samples(tmp_path: Path, animals: Samples) -> None:
    np.save(tmp_path / "l.npy", np.array([4, 5, 6, 7], np.uint8))
    (tmp_path / "l.txt").write_text("4\n5\n6\n7\n")
    for source in (tmp_path / "l.npy", tmp_path / "l.txt", np.array([4, 5, 6, 7]), [4, 5, 6, 7]):
        assert load_labels(source, animals.select([2, 0])).tolist() == [6, 4]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        pytest.param("l.csv", "1.png,5\n2.png,6\n", r"l.csv: found no label for 'dog/old/3.png' and 1 more", id="csv misses files"),
        pytest.param("l.csv", "x/1.png,5\ny/1.png,6\n2.png,1\n3.png,1\n4.png,1", "no label for 'cat/1.png'", id="csv with a name twice"),
        pytest.param("l.csv", "1.png,5\n1.png,6\n", "line 2: found '1.png' again with label 6, expected 5", id="csv contradicts itself"),
        pytest.param("l.csv", "1.png,5\n2.png,cat\n", "line 2: found 'cat', expected a class index", id="csv of names"),
        pytest.param("l.csv", "1.png,-5\n", "line 1: found '-5'", id="csv of a negative label"),
        pytest.param("l.csv", "1.png 5\n", "line 1: found 1 columns, expected 2", id="csv without commas"),
        pytest.param("l.txt", "1\n2\n3\n", "l.txt: found 3 labels, expected 4", id="too few"),
        pytest.param("l.txt", "1\n2\n3\ncat\n", "line 4: found 'cat'", id="text"),
        pytest.param("l.npy", "", "cannot be read", id="empty npy"),
        pytest.param("l.json", "[]", "expected 'data', 'folder', 'stem', a .csv, .txt or .npy", id="kind"),
    ],
)
def test_files_that_do_not_serve(tmp_path: Path, animals: Samples, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        load_labels(tmp_path / name, animals)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param(np.array([0.0, 1.0, 2.0, 3.0]), "found float64", id="floats"),
        pytest.param(np.zeros((4, 10), int), r"shape \(4, 10\), expected a vector", id="one-hot"),
        pytest.param(np.array([0, 1, 2, -1]), "found label -1", id="negative"),
        pytest.param(np.zeros(5, int), "found 5 labels, expected 4", id="too many"),
    ],
)
def test_arrays_that_do_not_serve(animals: Samples, values: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_labels(values, animals)


def test_names_that_hold_no_label(tmp_path: Path, animals: Samples) -> None:
    with pytest.raises(DataError, match=r"labels 'stem': file 'a\.png': found 'a'"):
        load_labels("stem", images(tmp_path / "flat", "a.png"))
    with pytest.raises(DataError, match=r"labels 'folder': found 'a.png' in no class folder"):
        load_labels("folder", images(tmp_path / "flat", "a.png"))
    with pytest.raises(DataError, match=r"no\.csv: cannot be read"):
        load_labels(tmp_path / "no.csv", animals)
