from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zeropoint.data import InputInfo, Preprocess, Samples, open_data
from zeropoint.data.pictures import has_pictures, picture

F4 = np.dtype(np.float32)


def arrays(shape: tuple[int, ...], fixed: tuple[int | None, ...] | None = None, count: int = 2) -> Samples:
    values = np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)
    return open_data(values, [InputInfo("x", F4, fixed or (None, *shape))])


def decoded(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        pytest.param(arrays((3, 16, 16)), True, id="channels-first"),
        pytest.param(arrays((16, 16, 3)), True, id="channels-last"),
        pytest.param(arrays((1, 28, 28)), True, id="grey"),
        pytest.param(arrays((3, 16, 16), (None, 3, None, None)), True, id="dynamic-sides"),
        pytest.param(arrays((4, 16, 16)), False, id="four-channels"),
        pytest.param(arrays((3, 4, 40)), False, id="too-small"),
        pytest.param(arrays((16,)), False, id="vectors"),
        pytest.param(arrays((3, 16)), False, id="rank-3"),
    ],
)
def test_what_looks_like_a_picture(samples: Samples, expected: bool) -> None:
    assert has_pictures(samples) == expected


def test_samples_of_several_inputs_are_no_pictures() -> None:
    infos = [InputInfo(name, F4, (None, 3, 16, 16)) for name in "ab"]
    assert not has_pictures(open_data({name: np.zeros((2, 3, 16, 16), np.float32) for name in "ab"}, infos))


@pytest.mark.parametrize("layout", ["first", "last"])
def test_array_is_spread_from_black_to_white(layout: str) -> None:
    values = np.random.default_rng(1).uniform(-3.0, 5.0, (1, 12, 10, 3)).astype(np.float32)
    given = values if layout == "last" else values.transpose(0, 3, 1, 2)
    samples = open_data(np.ascontiguousarray(given), [InputInfo("x", F4, (None, *given.shape[1:]))])
    found = picture(samples, 0, side=64)
    assert (found.media_type, found.width, found.height) == ("image/png", 10, 12)
    pixels = np.asarray(decoded(found.content).convert("RGB")).astype(np.float64)
    expected = (values[0] - values.min()) / (values.max() - values.min()) * 255
    assert np.abs(pixels - expected).max() <= 0.51


@pytest.mark.parametrize("value", [0.0, 7.0], ids=["zeros", "one-value"])
def test_array_of_one_value_is_a_picture_too(value: float) -> None:
    samples = open_data(np.full((1, 1, 8, 8), value, np.float32), [InputInfo("x", F4, (None, 1, 8, 8))])
    assert decoded(picture(samples, 0, side=64).content).getextrema() == (0, 0)


def test_photo_comes_from_its_file_and_is_made_small(tmp_path: Path) -> None:
    Image.new("RGB", (400, 200), (200, 30, 30)).save(tmp_path / "b.jpg")
    Image.new("L", (60, 90), 128).save(tmp_path / "a.png")
    samples = open_data(tmp_path, [InputInfo("x", F4, (None, 3, 32, 32))], preprocess=Preprocess())
    assert has_pictures(samples)
    large, small = (picture(samples.select([place]), 0, side=100) for place in (1, 0))
    assert (large.media_type, large.width, large.height) == ("image/jpeg", 100, 50)
    assert (small.width, small.height) == (60, 90)
    red, green, blue = decoded(large.content).getpixel((50, 25))  # type: ignore[misc]
    assert (red > 180, green < 60, blue < 60) == (True, True, True)
    assert len(large.content) < 3000
