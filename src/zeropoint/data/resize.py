"""How an image comes to its size: each way is a value, and `resized` does it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from zeropoint.errors import DataError, RecipeError

if TYPE_CHECKING:
    from PIL import Image

Pixels = npt.NDArray[np.generic]  # (H, W, C), values 0..255
Size = tuple[int, int] | Literal["input"]  # (height, width), or those of the network's input
Resample = Literal["nearest", "bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True, slots=True)
class NoResize:
    """Keep the image as it is."""

    kind: Literal["none"] = "none"


@dataclass(frozen=True, slots=True)
class ShortSide:
    """Bring the short side to `size` pixels and keep the ratio; the long side is rounded down, as torchvision does."""

    size: int
    kind: Literal["short-side"] = "short-side"

    def __post_init__(self) -> None:
        """Check the size."""
        _check_positive("resize.size", self.size)


@dataclass(frozen=True, slots=True)
class Exact:
    """Bring both sides to `size` and let the ratio change."""

    size: Size = "input"
    kind: Literal["exact"] = "exact"

    def __post_init__(self) -> None:
        """Check the size."""
        check_size("resize.size", self.size)


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Fit the image into `size`, keep the ratio, and fill the rest on both sides with `fill` (0..255)."""

    size: Size = "input"
    fill: float = 114.0
    kind: Literal["letterbox"] = "letterbox"

    def __post_init__(self) -> None:
        """Check the size."""
        check_size("resize.size", self.size)


@dataclass(frozen=True, slots=True)
class FixedHeight:
    """Bring the height to `height` and keep the ratio, as text recognition does.

    `width`: "any" leaves the width as it comes; a number shrinks what is wider and fills what is narrower at the right with `fill`;
    "input" takes the network's width, and is "any" where that is dynamic.
    """

    height: int
    width: int | Literal["input", "any"] = "input"
    fill: float = 127.5
    kind: Literal["fixed-height"] = "fixed-height"

    def __post_init__(self) -> None:
        """Check the sizes."""
        _check_positive("resize.height", self.height)
        if not isinstance(self.width, str):
            _check_positive("resize.width", self.width)


@dataclass(frozen=True, slots=True)
class Multiple:
    """Shrink the long side to at most `long_side`, then round both sides to multiples of `of`, as text detection does."""

    of: int = 32
    long_side: int = 960
    kind: Literal["multiple"] = "multiple"

    def __post_init__(self) -> None:
        """Check the sizes."""
        _check_positive("resize.of", self.of)
        _check_positive("resize.long_side", self.long_side)


Resize = NoResize | ShortSide | Exact | Letterbox | FixedHeight | Multiple
RESIZES: dict[str, type[Resize]] = {
    "none": NoResize,
    "short-side": ShortSide,
    "exact": Exact,
    "letterbox": Letterbox,
    "fixed-height": FixedHeight,
    "multiple": Multiple,
}


def fixed_size(resize: Resize, network: tuple[int | None, int | None]) -> Resize:
    """Replace "input" in `resize` by the network's (height, width), where None is dynamic.

    Raises:
        DataError: they are needed and dynamic.
    """
    match resize:
        case Exact() | Letterbox() if resize.size == "input":
            return replace(resize, size=concrete(resize.size, network))
        case FixedHeight() if resize.width == "input":
            return replace(resize, width="any" if network[1] is None else network[1])
        case _:
            return resize


def concrete(size: Size, network: tuple[int | None, int | None] = (None, None)) -> tuple[int, int]:
    """Return `size` in pixels, where "input" stands for the network's (height, width).

    Raises:
        DataError: `size` is "input", and one of them is dynamic.
    """
    if size != "input":
        return size
    height, width = network
    if height is None or width is None:
        raise DataError(
            'preprocess: found a network whose height or width is dynamic, expected fixed ones for a size of "input"; give the size in a '
            "preprocess file (resize.size = [height, width])"
        )
    return height, width


def resized(image: Image.Image, resize: Resize, *, resample: Resample) -> Pixels:
    """Return the pixels of `image` (mode L or RGB) after `resize`, as (H, W, C) with C = 1 or 3.

    Pillow's filters are used: they widen with the reduction (antialias), which OpenCV's do not.
    """
    from PIL.Image import Resampling

    height, width = _new_size(image, resize)
    if (image.height, image.width) != (height, width):
        image = image.resize((width, height), Resampling[resample.upper()])
    pixels = np.asarray(image).reshape(height, width, -1)
    match resize:
        case Letterbox(size, fill):
            box_height, box_width = concrete(size)
            return _padded(pixels, (box_height, box_width), fill=fill, at=((box_height - height) // 2, (box_width - width) // 2))
        case FixedHeight(_, int(box_width), fill):
            return _padded(pixels, (height, box_width), fill=fill, at=(0, 0))
        case _:
            return pixels


def _new_size(image: Image.Image, resize: Resize) -> tuple[int, int]:
    height, width = image.height, image.width
    match resize:
        case NoResize():
            return height, width
        case ShortSide(size):
            short = min(height, width)
            return size * height // short, size * width // short
        case Exact(size):
            return concrete(size)
        case Letterbox(size, _):
            box_height, box_width = concrete(size)
            ratio = min(box_height / height, box_width / width)
            return max(1, min(box_height, round(height * ratio))), max(1, min(box_width, round(width * ratio)))
        case FixedHeight(new_height, box, _):
            new_width = -(-new_height * width // height)
            return new_height, min(new_width, box) if isinstance(box, int) else new_width
        case Multiple(of, long_side):
            ratio = min(1.0, long_side / max(height, width))
            return max(of, round(int(height * ratio) / of) * of), max(of, round(int(width * ratio) / of) * of)


def _padded(pixels: Pixels, size: tuple[int, int], *, fill: float, at: tuple[int, int]) -> Pixels:
    dtype = pixels.dtype if float(fill).is_integer() else np.dtype(np.float64)
    box = np.full((*size, pixels.shape[2]), fill, dtype)
    box[at[0] : at[0] + pixels.shape[0], at[1] : at[1] + pixels.shape[1]] = pixels
    return box


def check_size(name: str, size: Size) -> None:
    """Refuse a size that no image can have.

    Raises:
        RecipeError: a side is not positive.
    """
    if size != "input":
        for side in size:
            _check_positive(name, side)


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise RecipeError(f"preprocess: {name}: found {value}, expected at least 1 pixel")
