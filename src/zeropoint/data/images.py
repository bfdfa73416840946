"""Samples from a folder of images, decoded one at a time as they are asked for."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zeropoint.data.inputs import Feed, InputInfo
from zeropoint.data.preprocess import Preprocess, apply, for_input
from zeropoint.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".pnm", ".tif", ".tiff"})
# What Pillow's decoders raise on broken files, depending on the format and on where it breaks.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error)


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Image files below a folder, for a network whose only input is an image."""

    folder: Path
    files: tuple[str, ...]  # below the folder, with '/' on every system
    input_name: str
    preprocess: Preprocess

    @property
    def description(self) -> str:
        """The folder, the number of images and what is done to them."""
        return f"{self.folder} ({len(self.files)} images, {self.preprocess.describe()})"

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.files)

    def name(self, index: int) -> str:
        """The image's path below the folder."""
        return self.files[index]

    def sample(self, index: int) -> Feed:
        """Decode and preprocess one image."""
        path = self.folder / self.files[index]
        return {self.input_name: apply(self.preprocess, read_image(path), where=str(path))}


def open_images(folder: Path, files: Sequence[str], inputs: Sequence[InputInfo], *, preprocess: Preprocess | None) -> ImageSource:
    """Take image `files`, given by their paths below `folder`.

    Raises:
        DataError: the network has not one input that is an image, or `preprocess` is missing or does not fit it.
    """
    if len(inputs) != 1:
        names = ", ".join(repr(info.name) for info in inputs)
        raise DataError(f"{folder}: found images for a network of inputs {names}, expected one input; give .npz files or a function")
    if preprocess is None:
        raise DataError(f"{folder}: found images, expected a preprocess with them; name a preset such as 'imagenet', or a TOML file")
    return ImageSource(folder, tuple(files), inputs[0].name, for_input(preprocess, inputs[0]))


def read_image(path: Path) -> Image.Image:
    """Decode an image file, turned as its EXIF orientation says, with 16-bit grey brought to 8 bits.

    Raises:
        DataError: the file is missing, broken, cut off or of an unknown kind.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            return _to_8_bits(ImageOps.exif_transpose(image))
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image ({error}), expected a whole image file; mend it or take it away") from error


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Bring 16-bit grey to 8 bits: Pillow's own conversion clips at 255 instead."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("float pixels have no known range")
    if not image.mode.startswith("I"):
        return image
    grey = np.clip(np.asarray(image).astype(np.float64), 0, 65535)
    return Image.fromarray(np.rint(grey / 257).astype(np.uint8))


def list_files(folder: Path, suffixes: frozenset[str]) -> list[str]:
    """List the files of these suffixes anywhere below `folder`, as sorted paths below it; hidden ones (a leading dot) are left out."""
    found = []
    for directory, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        below = Path(directory).relative_to(folder)
        found += [(below / name).as_posix() for name in names if not name.startswith(".") and Path(name).suffix.lower() in suffixes]
    return sorted(found)
