from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from zeropoint.data.resize import (
    RESIZES,
    Exact,
    FixedHeight,
    Letterbox,
    Multiple,
    NoResize,
    Resample,
    Resize,
    ShortSide,
    fixed_size,
    resized,
)
from zeropoint.errors import DataError, RecipeError


def image(height: int, width: int, value: int = 200) -> Image.Image:
    return Image.new("RGB", (width, height), (value, value, value))


@pytest.mark.parametrize(
    ("resize", "size", "expected"),
    [
        pytest.param(NoResize(), (5, 7), (5, 7), id="none"),
        pytest.param(ShortSide(256), (480, 640), (256, 341), id="short side, wide"),
        pytest.param(ShortSide(256), (427, 640), (256, 383), id="short side, 383.7 is rounded down"),
        pytest.param(ShortSide(256), (500, 375), (341, 256), id="short side, tall"),
        pytest.param(ShortSide(8), (3, 3), (8, 8), id="short side enlarges"),
        pytest.param(Exact((4, 9)), (5, 7), (4, 9), id="exact"),
        pytest.param(Letterbox((64, 64)), (480, 640), (64, 64), id="letterbox"),
        pytest.param(FixedHeight(48, width="any"), (20, 101), (48, 243), id="height, any width"),
        pytest.param(FixedHeight(48, width=320), (20, 101), (48, 320), id="height, narrower"),
        pytest.param(FixedHeight(48, width=320), (20, 1000), (48, 320), id="height, wider"),
        pytest.param(Multiple(), (480, 640), (480, 640), id="multiple, kept"),
        pytest.param(Multiple(), (1080, 1920), (544, 960), id="multiple, shrunk"),
        pytest.param(Multiple(), (10, 300), (32, 288), id="multiple, at least one"),
    ],
)
def test_sizes(resize: Resize, size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized(image(*size), resize, resample="bilinear").shape == (*expected, 3)


@pytest.mark.parametrize(
    ("resize", "size", "rows", "columns"),
    [
        pytest.param(Letterbox((8, 8)), (4, 8), range(2, 6), range(8), id="letterbox, wide"),
        pytest.param(Letterbox((8, 8)), (16, 8), range(8), range(2, 6), id="letterbox, tall"),
        pytest.param(Letterbox((8, 11)), (8, 8), range(8), range(1, 9), id="letterbox, odd rest"),
        pytest.param(FixedHeight(4, width=10, fill=114), (4, 6), range(4), range(6), id="height, at the left"),
    ],
)
def test_fill_lies_around_the_picture(resize: Resize, size: tuple[int, int], rows: range, columns: range) -> None:
    pixels = resized(image(*size), resize, resample="nearest")[:, :, 0]
    expected = np.full(pixels.shape, 114)
    expected[np.ix_(rows, columns)] = 200
    np.testing.assert_array_equal(pixels, expected)


def test_a_fill_between_two_codes_is_exact() -> None:
    pixels = resized(image(4, 4), FixedHeight(4, width=6), resample="nearest")
    assert pixels[0, :, 0].tolist() == [200, 200, 200, 200, 127.5, 127.5]


def test_resample_changes_the_pixels() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    assert len({resized(noise, Exact((7, 7)), resample=name).tobytes() for name in get_args(Resample)}) == 4


def test_nearest_against_indexing() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 4), np.uint8)
    np.testing.assert_array_equal(
        resized(Image.fromarray(noise), Exact((8, 8)), resample="nearest")[:, :, 0], noise.repeat(2, 0).repeat(2, 1)
    )


def test_bilinear_halving_widens_the_filter() -> None:
    # Antialiased by 2, the triangle has taps 1/8 3/8 3/8 1/8 (renormalized at the border).
    row = np.array([[0, 80, 160, 240, 0, 80, 160, 240]], np.uint8).repeat(8, 0)
    inner = resized(Image.fromarray(row), Exact((4, 4)), resample="bilinear")[1, 1, 0]
    assert inner == round((80 + 3 * 160 + 3 * 240 + 0) / 8)


@pytest.mark.parametrize(
    ("resize", "network", "expected"),
    [
        pytest.param(Exact(), (8, 9), Exact((8, 9)), id="exact"),
        pytest.param(Letterbox(fill=0), (8, 9), Letterbox((8, 9), fill=0), id="letterbox"),
        pytest.param(FixedHeight(48), (48, 320), FixedHeight(48, 320), id="height, static width"),
        pytest.param(FixedHeight(48), (48, None), FixedHeight(48, "any"), id="height, dynamic width"),
        pytest.param(Exact((1, 2)), (None, None), Exact((1, 2)), id="a size of its own"),
        pytest.param(ShortSide(5), (None, None), ShortSide(5), id="short side"),
    ],
)
def test_fixed_size(resize: Resize, network: tuple[int | None, int | None], expected: Resize) -> None:
    assert fixed_size(resize, network) == expected


@pytest.mark.parametrize("network", [(None, 8), (8, None)], ids=["height", "width"])
@pytest.mark.parametrize("resize", [Exact(), Letterbox()], ids=["exact", "letterbox"])
def test_dynamic_size_is_not_guessed(resize: Resize, network: tuple[int | None, int | None]) -> None:
    with pytest.raises(DataError, match=r"give the size in a preprocess file"):
        fixed_size(resize, network)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ShortSide(0),
        lambda: Exact((0, 4)),
        lambda: Letterbox((4, -1)),
        lambda: FixedHeight(0),
        lambda: FixedHeight(4, 0),
        lambda: Multiple(0),
    ],
    ids=["short side", "exact", "letterbox", "height", "width", "multiple"],
)
def test_impossible_sizes(make: object) -> None:
    with pytest.raises(RecipeError, match=r"preprocess: resize\.\w+: found -?\d+, expected at least 1 pixel"):
        make()  # type: ignore[operator]


def test_every_kind_is_in_the_table_under_its_name() -> None:
    assert set(RESIZES.values()) == set(get_args(Resize))
    assert {name: kind.__dataclass_fields__["kind"].default for name, kind in RESIZES.items()} == {name: name for name in RESIZES}


def test_values_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        NoResize().kind = "none"  # type: ignore[misc]
