"""What is done to an image between its file and the network: size, crop, numbers, order of channels, layout."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from zeropoint.data.inputs import Array, InputInfo, shape_text
from zeropoint.data.resize import Exact, Pixels, Resample, Resize, Size, check_size, concrete, fixed_size, resized
from zeropoint.errors import DataError, RecipeError

if TYPE_CHECKING:
    from PIL import Image

Order = Literal["rgb", "bgr", "gray"]
Layout = Literal["nchw", "nhwc", "input"]
_IMAGE_RANK = 4
_IMAGE_CHANNELS = (1, 3)


@dataclass(frozen=True, slots=True)
class Preprocess:
    """From a decoded image to an array: resize, then cut `crop` out of the centre, then (x * scale - mean) / std.

    x is 0..255. `mean` and `std` hold one value, or one for each channel in the order of `order`, and apply after `scale`.
    A size of "input" is the network's height and width; a layout of "input" is where the network's shape has 1 or 3 channels.

    Raises:
        RecipeError: a value is impossible.

    Example:
        >>> Preprocess(scale=1 / 255).describe()
        'resize to the size of the input (bilinear), x * 0.00392157, rgb'
    """

    resize: Resize = field(default_factory=Exact)
    crop: Size | None = None
    resample: Resample = "bilinear"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    order: Order = "rgb"
    layout: Layout = "input"

    def __post_init__(self) -> None:
        """Check every value."""
        for name, value, allowed in (
            ("resample", self.resample, get_args(Resample)),
            ("order", self.order, get_args(Order)),
            ("layout", self.layout, get_args(Layout)),
        ):
            if value not in allowed:
                raise RecipeError(f"preprocess: {name}: found {value!r}, expected one of {', '.join(allowed)}")
        if self.crop is not None:
            check_size("crop", self.crop)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels) or not np.isfinite(values).all():
                raise RecipeError(f"preprocess: {name}: found {values}, expected 1 or {self.channels} finite values for {self.order!r}")
        if not np.isfinite(self.scale) or self.scale == 0 or 0 in self.std:
            raise RecipeError(f"preprocess: found scale {self.scale} and std {self.std}, expected finite values other than 0")

    @property
    def channels(self) -> int:
        """How many channels come out."""
        return 1 if self.order == "gray" else 3

    @property
    def keeps_values(self) -> bool:
        """Whether pixels stay the whole numbers that they are, 0..255."""
        return self.scale == 1 and not any(self.mean) and set(self.std) == {1.0}

    def describe(self) -> str:
        """Write it in one line, for people."""
        crop = "" if self.crop is None else f", centre crop {_size_text(self.crop)}"
        layout = "" if self.layout == "input" else f" {self.layout}"
        return f"{_resize_text(self)}{crop}, {_formula_text(self)}, {self.order}{layout}"


def for_input(preprocess: Preprocess, info: InputInfo) -> Preprocess:
    """Replace every "input" in `preprocess` by what the network's input says.

    Raises:
        DataError: the input is no image, or of another number of channels, or sizes are needed that are dynamic.
    """
    layout = _layout(preprocess.layout, info)
    channel_axis = 1 if layout == "nchw" else 3
    height, width = (info.shape[axis] for axis in (1, 2, 3) if axis != channel_axis)
    if info.shape[channel_axis] not in (None, preprocess.channels):
        raise DataError(
            f"input {info.name!r}: found {info.shape[channel_axis]} channels in {shape_text(info.shape)} ({layout}), expected "
            f"{preprocess.channels} for order {preprocess.order!r}; choose a preprocess of order 'gray' for 1 channel, 'rgb' for 3"
        )
    if info.dtype.kind in "iu" and not preprocess.keeps_values:
        raise DataError(
            f"input {info.name!r}: found {preprocess.describe()!r} for a network of {info.dtype} input, expected pixels as they are; "
            "choose preprocess 'raw'"
        )
    crop = preprocess.crop if preprocess.crop is None else concrete(preprocess.crop, (height, width))
    return replace(preprocess, layout=layout, crop=crop, resize=fixed_size(preprocess.resize, (height, width)))


def apply(preprocess: Preprocess, image: Image.Image, *, where: str) -> Array:
    """Return `image` as the network takes it: (1, C, H, W) or (1, H, W, C), float32, or uint8 where no value changes.

    `preprocess` comes from `for_input`. The formula is computed in float64 and rounded once.

    Raises:
        DataError: the image cannot be converted, or is smaller than the crop.
    """
    try:
        pixels = resized(image.convert("L" if preprocess.order == "gray" else "RGB"), preprocess.resize, resample=preprocess.resample)
    except ValueError as error:
        raise DataError(
            f"{where}: cannot convert an image of mode {image.mode} ({error}), expected one that turns into RGB; save it so"
        ) from error
    if preprocess.crop is not None:
        pixels = _cropped(pixels, concrete(preprocess.crop), where=where)
    if preprocess.order == "bgr":
        pixels = pixels[:, :, ::-1]
    values = _normalized(pixels, preprocess)
    return np.ascontiguousarray((values.transpose(2, 0, 1) if preprocess.layout == "nchw" else values)[np.newaxis])


def _normalized(pixels: Pixels, preprocess: Preprocess) -> Array:
    if preprocess.keeps_values:
        return pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32)
    mean, std = np.asarray(preprocess.mean, np.float64), np.asarray(preprocess.std, np.float64)
    return ((pixels.astype(np.float64) * preprocess.scale - mean) / std).astype(np.float32)


def _cropped(pixels: Pixels, size: tuple[int, int], *, where: str) -> Pixels:
    height, width = pixels.shape[:2]
    if height < size[0] or width < size[1]:
        raise DataError(f"{where}: found {height}x{width} pixels, expected at least the crop's {size[0]}x{size[1]}; resize before the crop")
    # Half to even, as torchvision rounds an odd rest.
    top, left = round((height - size[0]) / 2), round((width - size[1]) / 2)
    return pixels[top : top + size[0], left : left + size[1]]


def _layout(layout: Layout, info: InputInfo) -> Literal["nchw", "nhwc"]:
    if len(info.shape) != _IMAGE_RANK:
        raise _not_an_image(info)
    if layout == "nchw" or (layout == "input" and info.shape[1] in _IMAGE_CHANNELS):
        return "nchw"
    if layout == "nhwc" or info.shape[3] in _IMAGE_CHANNELS:
        return "nhwc"
    raise _not_an_image(info)


def _not_an_image(info: InputInfo) -> DataError:
    return DataError(
        f"input {info.name!r}: found shape {shape_text(info.shape)}, expected an image of 1 or 3 channels, (N, C, H, W) or (N, H, W, C), "
        "for a folder of images; give arrays (.npy, .npz) or a function instead, or the layout in a preprocess file"
    )


def _size_text(size: Size) -> str:
    return "to the size of the input" if size == "input" else f"{size[0]}x{size[1]}"


def _resize_text(preprocess: Preprocess) -> str:
    resize, filter_text = preprocess.resize, f" ({preprocess.resample})"
    match resize.kind:
        case "none":
            return "no resize"
        case "short-side":
            return f"short side {resize.size}{filter_text}"
        case "exact":
            return f"resize {_size_text(resize.size)}{filter_text}"
        case "letterbox":
            return f"letterbox {_size_text(resize.size)} on {resize.fill:g}{filter_text}"
        case "fixed-height":
            return f"height {resize.height}, width {resize.width} on {resize.fill:g}{filter_text}"
        case "multiple":
            return f"long side up to {resize.long_side}, sides multiples of {resize.of}{filter_text}"


def _formula_text(preprocess: Preprocess) -> str:
    scaled = "x" if preprocess.scale == 1 else f"x * {preprocess.scale:g}"
    if any(preprocess.mean):
        scaled = f"({scaled} - {_values_text(preprocess.mean)})"
    return scaled if set(preprocess.std) == {1.0} else f"{scaled} / {_values_text(preprocess.std)}"


def _values_text(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else "[" + " ".join(f"{value:g}" for value in values) + "]"
