from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zeropoint.data import PRESETS, InputInfo, Preprocess, load_preprocess, preprocess_from_dict, preprocess_to_dict
from zeropoint.data.preprocess import apply, for_input
from zeropoint.data.resize import Exact, Letterbox, ShortSide
from zeropoint.errors import RecipeError


def run(name: str, shape: tuple[int | None, ...], color: tuple[int, int, int], size: tuple[int, int] = (300, 300)) -> np.ndarray:
    preprocess = for_input(PRESETS[name], InputInfo("x", np.dtype(np.float32), shape))
    return apply(preprocess, Image.new("RGB", size, color), where="a.png")


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        # Of a picture all of (255, 128, 0): what the networks' own preprocessing gives.
        pytest.param("imagenet", (1, 3, 224, 224), [(1 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, -0.406 / 0.225], id="imagenet"),
        pytest.param("caffe", (1, 3, 224, 224), [0 - 103.939, 128 - 116.779, 255 - 123.68], id="caffe"),
        pytest.param("efficientnet-lite", (1, 224, 224, 3), [1.0, 1 / 128, -127 / 128], id="efficientnet-lite"),
        pytest.param("inception", (1, 3, 299, 299), [1.0, 128 / 127.5 - 1, -1.0], id="inception"),
        pytest.param("tf", (1, 192, 192, 3), [1.0, 128 / 127.5 - 1, -1.0], id="tf"),
        pytest.param(
            "clip", (1, 3, 224, 224), [(1 - 0.48145466) / 0.26862954, (128 / 255 - 0.4578275) / 0.26130258, -1.4802198], id="clip"
        ),
        pytest.param("yolo", (1, 3, 640, 640), [1.0, 128 / 255, 0.0], id="yolo"),
        pytest.param("paddleocr-rec", (1, 3, 48, 48), [-1.0, 128 / 127.5 - 1, 1.0], id="paddleocr-rec"),
        pytest.param(
            "paddleocr-det", (1, 3, None, None), [-0.485 / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225], id="paddleocr-det"
        ),
        pytest.param("unit", (1, 3, 8, 9), [1.0, 128 / 255, 0.0], id="unit"),
        pytest.param("unit-gray", (1, 1, 8, 9), [151 / 255], id="unit-gray"),
        pytest.param("raw", (1, 3, 8, 9), [255, 128, 0], id="raw"),
        pytest.param("raw-gray", (1, 1, 8, 9), [151], id="raw-gray"),
    ],
)
def test_presets(name: str, shape: tuple[int | None, ...], expected: list[float]) -> None:
    found = run(name, shape, (255, 128, 0))
    assert all(want in (None, got) for got, want in zip(found.shape, shape, strict=True))
    pixels = found[0].reshape(len(expected), -1).T if shape[1] == len(expected) or shape[3] is None else found[0].reshape(-1, len(expected))
    np.testing.assert_allclose(pixels, np.broadcast_to(expected, pixels.shape), rtol=1e-6, atol=1e-7)


def test_every_preset_is_tested() -> None:
    tested = {case.values[0] for case in test_presets.pytestmark[0].args[1]}  # type: ignore[attr-defined]
    assert tested == set(PRESETS)


def test_text_lines_are_filled_with_zeros_after_normalizing() -> None:
    found = run("paddleocr-rec", (None, 3, 48, 320), (255, 255, 255), size=(96, 48))
    assert found.shape == (1, 3, 48, 320)
    assert set(np.unique(found[..., :96])) == {1.0} and set(np.unique(found[..., 96:])) == {0.0}


def test_text_lines_keep_their_width_where_it_is_dynamic() -> None:
    assert run("paddleocr-rec", (None, 3, 48, None), (0, 0, 0), size=(100, 24)).shape == (1, 3, 48, 200)


@pytest.mark.parametrize("name", list(PRESETS))
def test_dict_round_trip_through_json(name: str) -> None:
    document = json.loads(json.dumps(preprocess_to_dict(PRESETS[name])))
    assert preprocess_from_dict(document, where="result.json") == PRESETS[name] == load_preprocess(name)


def write(tmp_path: Path, text: str) -> Path:
    tmp_path.mkdir(exist_ok=True)
    path = tmp_path / "p.toml"
    path.write_text(text)
    return path


def test_file(tmp_path: Path) -> None:
    text = 'crop = [300, 280]\nresample = "bicubic"\nscale = 2\nmean = [1, 2, 3]\nstd = [4.5]\norder = "bgr"\nlayout = "nhwc"\n'
    path = write(tmp_path, text + '[resize]\nkind = "short-side"\nsize = 320\n')
    expected = Preprocess(ShortSide(320), (300, 280), "bicubic", scale=2, mean=(1, 2, 3), std=(4.5,), order="bgr", layout="nhwc")
    assert load_preprocess(path) == load_preprocess(str(path)) == expected


def test_file_of_defaults(tmp_path: Path) -> None:
    assert load_preprocess(write(tmp_path, "")) == Preprocess(Exact("input"))


def test_file_that_starts_from_a_preset(tmp_path: Path) -> None:
    path = write(tmp_path, 'preset = "yolo"\norder = "bgr"\nresize = {kind = "letterbox", size = [320, 640]}')
    assert load_preprocess(path) == Preprocess(Letterbox((320, 640)), scale=1 / 255, order="bgr")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("means = [1.0]", "unknown key 'means', expected resize, crop, .*layout", id="unknown key"),
        pytest.param(
            'resize = {kind = "short-side", sise = 3}', "unknown key 'resize.sise', expected size, kind", id="unknown key of resize"
        ),
        pytest.param('resize = {kind = "shortside"}', "resize: found .* expected a table with kind = one of none, short-side", id="kind"),
        pytest.param("resize = 224", "resize: found 224", id="resize without kind"),
        pytest.param('resize = {kind = "short-side"}', r"resize\.size", id="missing size"),
        pytest.param('resize = {kind = "short-side", size = 0}', r"resize\.size: found 0", id="impossible size"),
        pytest.param('resize = {kind = "exact", size = [1, 2, 3]}', r"resize\.size", id="three sides"),
        pytest.param('resize = {kind = "exact", size = "224"}', r"resize\.size", id="size as text"),
        pytest.param('scale = "1/255"', "scale: found '1/255'", id="text for a number"),
        pytest.param('scale = "2"', "scale: found '2'", id="a number as text"),
        pytest.param("crop = [224]", "crop", id="one side"),
        pytest.param('order = "brg"', "order: found 'brg'", id="order"),
        pytest.param("std = [0.0]", "std", id="std of 0"),
        pytest.param('preset = "imagnet"', "preset: found 'imagnet', expected one of imagenet", id="preset"),
        pytest.param("scale = ", "cannot be read as TOML", id="no TOML"),
    ],
)
def test_files_that_do_not_serve(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        load_preprocess(write(tmp_path, text))
    assert "p.toml" in str(caught.value)


CHANGED: dict[str, tuple[list[str], Preprocess]] = {
    "name-alone": (["yolo"], PRESETS["yolo"]),
    "one": (["imagenet", "crop=[288, 280]"], replace(PRESETS["imagenet"], crop=(288, 280))),
    "several": (["unit", "mean=[0.5]", "std = [0.25]"], replace(PRESETS["unit"], mean=(0.5,), std=(0.25,))),
    "last-counts": (["unit", "scale=2", "scale=3"], replace(PRESETS["unit"], scale=3.0)),
    "text": (["unit", 'order="bgr"'], replace(PRESETS["unit"], order="bgr")),
    "none-named": (["scale=2", 'layout="nhwc"'], Preprocess(scale=2.0, layout="nhwc")),
    "within-resize": (["yolo", "resize.size=[320, 640]"], replace(PRESETS["yolo"], resize=Letterbox((320, 640)))),
    "within-resize-of-the-default": (["resize.size=[8, 9]"], Preprocess(Exact((8, 9)))),
    "within-resize-twice": (["yolo", "resize.fill=0", "resize.size=[8, 9]"], replace(PRESETS["yolo"], resize=Letterbox((8, 9), 0.0))),
    "another-kind": (["yolo", 'resize.kind="exact"'], replace(PRESETS["yolo"], resize=Exact())),
    "another-kind-last": (["yolo", "resize.size=9", 'resize.kind="short-side"'], replace(PRESETS["yolo"], resize=ShortSide(9))),
    "another-kind-as-a-table": (["yolo", 'resize={kind="short-side", size=9}'], replace(PRESETS["yolo"], resize=ShortSide(9))),
    "same-kind": (["imagenet", 'resize.kind="short-side"'], PRESETS["imagenet"]),
}


@pytest.mark.parametrize(("items", "expected"), CHANGED.values(), ids=CHANGED)
def test_preset_changed_by_key(items: list[str], expected: Preprocess) -> None:
    assert load_preprocess(items) == load_preprocess(tuple(items)) == expected


@pytest.mark.parametrize("as_path", [str, Path], ids=["str", "path"])
def test_file_changed_by_key(tmp_path: Path, as_path: Callable[[Path], str | Path]) -> None:
    path = write(tmp_path / "a=b", 'preset = "yolo"\norder = "bgr"')
    assert load_preprocess([as_path(path), "resize.fill=0"]) == replace(PRESETS["yolo"], order="bgr", resize=Letterbox(fill=0.0))


def test_change_alone_needs_no_list() -> None:
    assert load_preprocess("scale=2") == Preprocess(scale=2.0)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        pytest.param([], "found an empty list, expected imagenet, ", id="empty"),
        pytest.param(["imagenet", "yolo"], "found 'yolo' after the first place, expected key=value", id="two-names"),
        pytest.param(["scale=2", "yolo"], "found 'yolo' after the first place", id="name-last"),
        pytest.param(["yolo", "a=b.toml"], r"found 'a=b\.toml' after the first place", id="file-last"),
        pytest.param(["imagnet", "scale=2"], "found 'imagnet', expected imagenet, ", id="no-such-name"),
        pytest.param(
            ["yolo", "order=bgr"], "found 'order=bgr', expected key=value as in TOML .* with its quotes, order=\"bgr\"", id="no-quotes"
        ),
        pytest.param(["yolo", "mean=[0.5, 0.5"], "found 'mean=.*expected key=value as in TOML", id="no-toml"),
        pytest.param(
            ["yolo", "means=[0.5]"], r"preprocess yolo means=\[0\.5\]: found unknown key 'means', expected resize, crop", id="key"
        ),
        pytest.param(["yolo", "resize.sise=3"], "found unknown key 'resize.sise', expected size, fill, kind", id="key-of-resize"),
        pytest.param(["yolo", "resize.size.x=3"], r"resize\.size", id="key-too-deep"),
        pytest.param(["yolo", "crop.x=3"], "crop", id="key-of-no-table"),
        pytest.param(["yolo", "resize=3"], "resize: found 3", id="no-table"),
        pytest.param(["yolo", 'resize.kind="short-side"'], r"resize\.size", id="another-kind-without-its-keys"),
        pytest.param(["yolo", "std=[0]"], "std", id="value"),
        pytest.param(["yolo", 'preset="unit"'], "found the key 'preset', expected the preset's name alone, before", id="preset-as-key"),
    ],
)
def test_changes_that_do_not_serve(items: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        load_preprocess(items)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [("imagnet", "found 'imagnet', expected imagenet, "), ("no.toml", "cannot be read")],
    ids=["preset", "file"],
)
def test_names_that_are_not_there(name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_preprocess(name)
