from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from zeropoint.benching.inputs import check_shapes, guessed, numbers
from zeropoint.data import InputInfo
from zeropoint.errors import RecipeError


def info(name: str, dtype: str, *shape: int | None) -> InputInfo:
    return InputInfo(name, np.dtype(dtype), shape)


IMAGE = info("image", "float32", None, 3, 8, None)


@pytest.mark.parametrize(
    ("shapes", "batch", "shape", "samples"),
    [
        ({}, None, (1, 3, 8, 1), 1),
        ({}, 4, (4, 3, 8, 1), 4),
        ({"image": (2, 3, 8, 5)}, None, (2, 3, 8, 5), 2),
        ({"image": (2, 3, 8, 5)}, 2, (2, 3, 8, 5), 2),
        ({"another": (9,)}, 3, (3, 3, 8, 1), 3),
    ],
)
def test_dynamic_axes_are_what_is_given_or_1(
    shapes: dict[str, tuple[int, ...]], batch: int | None, shape: tuple[int, ...], samples: int
) -> None:
    feed, found = numbers([IMAGE], shapes=shapes, batch=batch, file="net.onnx")
    assert (feed["image"].shape, feed["image"].dtype, found) == (shape, np.float32, samples)


def test_floats_are_normal_and_the_same_each_time_and_all_else_is_zero() -> None:
    inputs = [info("x", "float16", 64, 64), info("ids", "int64", 64, 2), info("mask", "bool", 64, 2), info("text", "O", 64)]
    inputs.append(InputInfo("b", np.dtype(ml_dtypes.bfloat16), (64, 64)))
    feed, samples = numbers(inputs, shapes={}, batch=None, file="net.onnx")
    assert samples == 64
    for name in ("x", "b"):
        values = feed[name].astype(np.float64)
        assert abs(values.mean()) < 0.1
        assert values.std() == pytest.approx(1, abs=0.1)
        assert np.isfinite(values).all()
    assert not feed["ids"].any()
    assert not feed["mask"].any()
    assert feed["text"].tolist() == [""] * 64
    assert [array.dtype for array in feed.values()] == [told.dtype for told in inputs]
    again, _ = numbers(inputs, shapes={}, batch=None, file="net.onnx")
    assert all((feed[name] == again[name]).all() for name in feed)


def test_a_state_beside_the_batch_keeps_its_shape() -> None:
    feed, samples = numbers([IMAGE, info("h", "float32", 2, 1, 16)], shapes={}, batch=4, file="net.onnx")
    assert (feed["image"].shape[0], feed["h"].shape, samples) == (4, (2, 1, 16), 4)


@pytest.mark.parametrize(
    ("inputs", "shapes", "batch", "message"),
    [
        ([info("x", "float32", 1, 3)], {}, 8, r"batch: net.onnx: found 8, expected 1, which is fixed there \(x \(1, 3\)\); export"),
        ([info("x", "float32", 16, 3)], {}, 8, "found 8, expected 16"),
        ([IMAGE], {"image": (2, 3, 8, 5)}, 4, "found 4, expected 2"),
        (
            [IMAGE],
            {"image": (1, 4, 8, 5)},
            None,
            r"shape: net.onnx: found \(1, 4, 8, 5\) for 'image', expected one that fits \(\?, 3, 8, \?\)",
        ),
        ([IMAGE], {"image": (1, 3, 8)}, None, r"found \(1, 3, 8\)"),
    ],
)
def test_what_does_not_fit_is_an_error(
    inputs: list[InputInfo], shapes: dict[str, tuple[int, ...]], batch: int | None, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        numbers(inputs, shapes=shapes, batch=batch, file="net.onnx")


def test_a_shape_must_be_of_an_input_of_one_of_the_models() -> None:
    models = [[IMAGE], [info("x", "float32", 1)]]
    check_shapes(models, {"x": (1,), "image": (1, 3, 8, 8)})
    with pytest.raises(RecipeError, match="shape: found the name 'y', expected an input of a network: 'image', 'x'"):
        check_shapes(models, {"y": (1,)})


def test_a_dynamic_axis_that_counts_no_samples_is_guessed() -> None:
    inputs = [IMAGE, info("ids", "int64", None, 7), info("length", "int64")]
    assert guessed(inputs, {}) == ("image",)
    assert guessed(inputs, {"image": (1, 3, 8, 5)}) == ()
    assert guessed([info("state", "float32", 2, None, 16)], {}) == ("state",)
