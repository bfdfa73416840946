from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from zeropoint.data import PRESETS, InputInfo, Preprocess, open_data
from zeropoint.data.images import list_files, read_image
from zeropoint.data.resize import NoResize
from zeropoint.errors import DataError

X = InputInfo("x", np.dtype(np.float32), (None, 3, 8, 8))
FREE = InputInfo("x", np.dtype(np.float32), (None, 3, None, None))
AS_IS = Preprocess(NoResize())
RED = (200, 10, 20)


def save(path: Path, color: object = RED, *, mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)  # type: ignore[arg-type]


def pixel(path: Path) -> list[float]:
    return open_data(path, [FREE], preprocess=AS_IS)[0]["x"][0, :, 0, 0].tolist()


def test_folder_is_read_whole_sorted_and_lazily(tmp_path: Path) -> None:
    for name in ("b.PNG", "a/2.bmp", "a/10.jpeg", "c.webp", "d.ppm", "e.TIFF"):
        save(tmp_path / name)
    (tmp_path / "readme.txt").write_text("no image")
    (tmp_path / "._b.png").write_bytes(b"a resource fork")
    (tmp_path / "broken.jpg").write_bytes(b"")
    samples = open_data(tmp_path, [X], preprocess=PRESETS["raw"])
    assert samples.ids == ("a/10.jpeg", "a/2.bmp", "b.PNG", "broken.jpg", "c.webp", "d.ppm", "e.TIFF")
    assert samples[2]["x"].shape == (1, 3, 8, 8) and samples[2]["x"].dtype == np.float32
    np.testing.assert_array_equal(samples[2]["x"][0, :, 4, 4], RED)
    with pytest.raises(DataError, match=r"broken\.jpg: cannot be read as an image"):
        samples[3]


def test_description_says_what_is_done(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    description = open_data(tmp_path, [X], preprocess=PRESETS["unit"]).description
    assert description == f"1 of 1 samples of {tmp_path} (1 images, resize 8x8 (bilinear), x * 0.00392157, rgb nchw)"


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        pytest.param("L", 70, [70, 70, 70], id="grey"),
        pytest.param("1", 1, [255, 255, 255], id="black and white"),
        pytest.param("RGBA", (1, 2, 3, 0), [1, 2, 3], id="transparent"),
        pytest.param("LA", (9, 100), [9, 9, 9], id="grey with alpha"),
        pytest.param("P", 0, [0, 0, 0], id="palette"),
        pytest.param("CMYK", (0, 255, 255, 0), [255, 0, 0], id="CMYK"),
        pytest.param("I;16", 257 * 77, [77, 77, 77], id="16 bits"),
        pytest.param("I;16", 65535, [255, 255, 255], id="16 bits, white"),
    ],
)
def test_modes_become_rgb(tmp_path: Path, mode: str, color: object, expected: list[int]) -> None:
    save(tmp_path / "a.tif", color, mode=mode)
    assert pixel(tmp_path / "a.tif") == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    upright = np.array([[0, 50, 100], [150, 200, 250]], np.uint8)
    # What a camera stores so that the transformation of the tag (EXIF 2.3, 4.6.4) gives the upright picture.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.png")), upright)


def truncate(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "write"),
    [
        pytest.param("a.jpg", truncate, id="cut off jpg"),
        pytest.param("a.png", truncate, id="cut off png"),
        pytest.param("a.webp", truncate, id="cut off webp"),
        pytest.param("a.bmp", truncate, id="cut off bmp"),
        pytest.param("a.tif", truncate, id="cut off tif"),
        pytest.param("a.png", lambda p: p.write_bytes(b""), id="zero bytes"),
        pytest.param("a.jpg", lambda p: p.write_text("<html>404</html>"), id="a web page"),
        pytest.param("a.tif", lambda p: Image.new("F", (4, 4)).save(p), id="float pixels"),
        pytest.param("a.png", lambda p: p.mkdir(), id="a folder"),
    ],
)
def test_broken_images_are_named(tmp_path: Path, name: str, write: object) -> None:
    write(tmp_path / name)  # type: ignore[operator]
    with pytest.raises(DataError, match=rf"{name}: cannot be read as an image .*expected a whole image file"):
        read_image(tmp_path / name)


def channels(shape: tuple[int | None, ...], dtype: npt.DTypeLike = np.float32) -> InputInfo:
    return InputInfo("x", np.dtype(dtype), shape)


@pytest.mark.parametrize(
    ("inputs", "preset", "message"),
    [
        pytest.param([X, channels((1, 2))], "unit", "expected one input", id="two inputs"),
        pytest.param([channels((None, 10))], "unit", r"found shape \(\?, 10\), expected an image", id="a vector"),
        pytest.param([channels((1, 7, 8, 8))], "unit", r"found shape \(1, 7, 8, 8\), expected an image", id="seven channels"),
        pytest.param([channels((1, 1, 8, 8))], "unit", "found 1 channels .* expected 3 for order 'rgb'", id="grey network"),
        pytest.param([X], "unit-gray", "found 3 channels .* expected 1 for order 'gray'", id="grey preset"),
        pytest.param([FREE], "unit", "height or width is dynamic", id="dynamic size"),
        pytest.param([X], "imagenet", r"found shape \(1, 3, 224, 224\), expected \(1, 3, 8, 8\)", id="other crop"),
        pytest.param([channels((1, 3, 8, 8), np.uint8)], "unit", "choose preprocess 'raw'", id="bytes wanted"),
        pytest.param([X], None, "expected a preprocess", id="no preprocess"),
    ],
)
def test_networks_that_images_do_not_fit(tmp_path: Path, inputs: list[InputInfo], preset: str | None, message: str) -> None:
    save(tmp_path / "a.png")
    with pytest.raises(DataError, match=message):
        open_data(tmp_path, inputs, preprocess=PRESETS[preset] if preset else None)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float16])
def test_raw_pixels_take_the_networks_type(tmp_path: Path, dtype: npt.DTypeLike) -> None:
    save(tmp_path / "a.png")
    sample = open_data(tmp_path, [channels((1, 8, 8, 3), dtype)], preprocess=PRESETS["raw"])[0]["x"]
    assert sample.dtype == dtype
    np.testing.assert_array_equal(sample[0, 3, 3], RED)


def test_list_files_leaves_hidden_folders_out(tmp_path: Path) -> None:
    for name in ("x/y/1.png", ".cache/2.png", "z.png"):
        save(tmp_path / name)
    assert list_files(tmp_path, frozenset({".png"})) == ["x/y/1.png", "z.png"]
