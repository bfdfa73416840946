from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zeropoint.data import PRESETS, InputInfo, open_data
from zeropoint.errors import DataError, RecipeError

X = InputInfo("x", np.dtype(np.float32), (None, 3, 4, 4))


@pytest.mark.parametrize("data", [None, "no/such/folder", Path("no-such.npy"), 7, b"bytes", ""], ids=repr)
def test_missing_data_is_an_error_and_never_random(data: object) -> None:
    with pytest.raises(DataError, match=r"expected a folder of images or arrays.*'random' for a trial"):
        open_data(data, [X])


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match="found no images and no arrays in it"):
        open_data(tmp_path, [X])


def test_folder_of_both_kinds(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", np.zeros((1, 3, 4, 4)))
    with pytest.raises(DataError, match="found 1 images and 1 array files, expected one kind"):
        open_data(tmp_path, [X])


def test_one_image(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert open_data(tmp_path / "a.png", [X], preprocess=PRESETS["unit"]).ids == ("a.png",)


def test_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text("")
    with pytest.raises(DataError, match=r"data\.py: found a file of unknown kind.*file\.py:function"):
        open_data(tmp_path / "data.py", [X])


def test_first_sample_is_tried_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.jpg: cannot be read"):
        open_data(tmp_path, [X], preprocess=PRESETS["unit"])


def test_limit_below_one() -> None:
    with pytest.raises(RecipeError, match="limit: found 0, expected at least 1"):
        open_data("random", [X], limit=0)


def test_network_without_inputs() -> None:
    with pytest.raises(DataError, match="network: found no inputs"):
        open_data("random", [])
