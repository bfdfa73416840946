from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from zeropoint.data import InputInfo, Preprocess
from zeropoint.data.preprocess import apply, for_input
from zeropoint.data.resize import Exact, FixedHeight, Letterbox, Multiple, NoResize, ShortSide
from zeropoint.errors import DataError, RecipeError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)


def info(*shape: int | None) -> InputInfo:
    return InputInfo("x", np.dtype(np.float32), shape)


def run(
    preprocess: Preprocess, shape: tuple[int | None, ...] = (None, 3, None, None), pixels: npt.NDArray[np.uint8] = PIXELS
) -> npt.NDArray:
    return apply(for_input(preprocess, info(*shape)), Image.fromarray(pixels), where="a.png")


@pytest.mark.parametrize(
    ("scale", "mean", "std"),
    [
        pytest.param(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), id="imagenet"),
        pytest.param(1.0, (127.0,), (128.0,), id="efficientnet-lite"),
        pytest.param(1.0, (104.0, 117.0, 123.0), (1.0,), id="mean only"),
        pytest.param(1 / 255, (0.0,), (1.0,), id="scale only"),
        pytest.param(1.0, (0.0,), (2.0,), id="std only"),
        pytest.param(1.0, (0.0,), (1.0,), id="nothing"),
    ],
)
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_formula_against_a_loop(scale: float, mean: tuple[float, ...], std: tuple[float, ...], order: Any) -> None:
    found = run(Preprocess(NoResize(), scale=scale, mean=mean, std=std, order=order))
    expected = np.empty((1, 3, 6, 5), np.float32)
    for row, column, channel in np.ndindex(6, 5, 3):
        x = float(PIXELS[row, column, channel if order == "rgb" else 2 - channel])
        expected[0, channel, row, column] = (x * scale - mean[channel % len(mean)]) / std[channel % len(std)]
    np.testing.assert_array_equal(found, expected)


def test_gray_is_luma() -> None:
    found = run(Preprocess(NoResize(), order="gray"), (None, 1, None, None))
    assert found.shape == (1, 1, 6, 5)
    np.testing.assert_allclose(found[0, 0], PIXELS @ [0.299, 0.587, 0.114], atol=0.51)  # Pillow rounds to whole numbers


@pytest.mark.parametrize(
    ("layout", "shape", "expected"),
    [
        pytest.param("input", (None, 3, None, None), (1, 3, 6, 5), id="from the network: nchw"),
        pytest.param("input", (1, 6, 5, 3), (1, 6, 5, 3), id="from the network: nhwc"),
        pytest.param("nchw", (None, None, None, None), (1, 3, 6, 5), id="given for a dynamic network: nchw"),
        pytest.param("nhwc", (None, None, None, None), (1, 6, 5, 3), id="given for a dynamic network: nhwc"),
    ],
)
def test_layout(layout: Any, shape: tuple[int | None, ...], expected: tuple[int, ...]) -> None:
    found = run(Preprocess(NoResize(), layout=layout), shape)
    assert found.shape == expected and found.flags.c_contiguous
    np.testing.assert_array_equal(found[0] if expected[3] == 3 else found[0].transpose(1, 2, 0), PIXELS)


@pytest.mark.parametrize(
    ("crop", "top", "left"),
    [
        pytest.param((4, 3), 1, 1, id="even rest"),
        pytest.param((3, 2), 2, 2, id="rest of 3 rounds to 2"),
        pytest.param((5, 4), 0, 0, id="rest of 1 rounds to 0"),
    ],
)
def test_crop_is_the_centre(crop: tuple[int, int], top: int, left: int) -> None:
    found = run(Preprocess(NoResize(), crop=crop))
    np.testing.assert_array_equal(found[0].transpose(1, 2, 0), PIXELS[top : top + crop[0], left : left + crop[1]])


def test_crop_of_the_networks_size() -> None:
    assert run(Preprocess(NoResize(), crop="input"), (1, 3, 4, 2)).shape == (1, 3, 4, 2)


def test_crop_larger_than_the_image() -> None:
    with pytest.raises(DataError, match=r"a\.png: found 6x5 pixels, expected at least the crop's 7x5"):
        run(Preprocess(NoResize(), crop=(7, 5)))


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_layout_that_the_network_denies(layout: Any) -> None:
    shape = (1, 6, 5, 3) if layout == "nchw" else (1, 3, 6, 5)
    with pytest.raises(DataError, match=f"found [56] channels in .* \\({layout}\\), expected 3"):
        run(Preprocess(NoResize(), layout=layout), shape)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"order": "grb"}, "order: found 'grb', expected one of rgb, bgr, gray", id="order"),
        pytest.param({"layout": "chw"}, "layout: found 'chw'", id="layout"),
        pytest.param({"resample": "cubic"}, "resample: found 'cubic'", id="resample"),
        pytest.param({"mean": (1.0, 2.0)}, r"mean: found \(1.0, 2.0\), expected 1 or 3", id="two means"),
        pytest.param({"mean": (1.0, 2.0, 3.0), "order": "gray"}, "mean: .* expected 1 or 1", id="three means of grey"),
        pytest.param({"std": (float("nan"),)}, "std: found", id="NaN"),
        pytest.param({"std": (1.0, 0.0, 1.0)}, r"std \(1.0, 0.0, 1.0\), expected finite values other than 0", id="std of 0"),
        pytest.param({"scale": 0.0}, "scale 0.0", id="scale of 0"),
        pytest.param({"crop": (0, 5)}, "crop: found 0", id="crop of 0"),
    ],
)
def test_impossible_values(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Preprocess(**options)


@pytest.mark.parametrize(
    ("preprocess", "expected"),
    [
        pytest.param(Preprocess(NoResize()), "no resize, x, rgb", id="none"),
        pytest.param(Preprocess(ShortSide(256), crop=(224, 200)), "short side 256 (bilinear), centre crop 224x200, x, rgb", id="crop"),
        pytest.param(Preprocess(Letterbox((64, 32)), std=(2.0,)), "letterbox 64x32 on 114 (bilinear), x / 2, rgb", id="letterbox"),
        pytest.param(Preprocess(FixedHeight(48)), "height 48, width input on 127.5 (bilinear), x, rgb", id="height"),
        pytest.param(
            Preprocess(Multiple(), layout="nhwc"), "long side up to 960, sides multiples of 32 (bilinear), x, rgb nhwc", id="multiple"
        ),
        pytest.param(Preprocess(Exact((4, 4)), mean=(1.5,), order="bgr"), "resize 4x4 (bilinear), (x - 1.5), bgr", id="mean"),
    ],
)
def test_describe(preprocess: Preprocess, expected: str) -> None:
    assert preprocess.describe() == expected
