"""Small pictures of samples, to be shown beside what a network said of them."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

from zeropoint.data.images import ImageSource, read_image
from zeropoint.data.inputs import Array
from zeropoint.data.samples import Samples

SMALLEST_SIDE = 8  # pixels, below which an array is taken for no picture
QUALITY = 78
CHANNELS = (1, 3)
PICTURE_RANK = 4


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture: its bytes, media type and size in pixels."""

    content: bytes
    media_type: str
    width: int
    height: int


def has_pictures(samples: Samples) -> bool:
    """Tell whether the samples are images, or arrays of one input that look like some: (1, C, H, W) or (1, H, W, C), C being 1 or 3."""
    if isinstance(samples.source, ImageSource):
        return True
    if len(samples.inputs) != 1 or len(samples.inputs[0].shape) != PICTURE_RANK:
        return False
    _, first, *_, last = shape = samples.inputs[0].shape
    sides = shape[2:] if first in CHANNELS else shape[1:3]
    return (first in CHANNELS or last in CHANNELS) and all(side is None or side >= SMALLEST_SIDE for side in sides)


def picture(samples: Samples, position: int, *, side: int) -> Picture:
    """Return the sample at `position` in at most `side` by `side` pixels: a photo from its file, an array with its values spread from
    black to white.

    Raises:
        DataError: the sample cannot be read.
    """
    from PIL import Image

    source = samples.source
    if isinstance(source, ImageSource):
        image = read_image(source.folder / source.files[samples.indices[position]]).convert("RGB")
    else:
        image = Image.fromarray(_pixels(next(iter(samples[position].values()))))
    image.thumbnail((side, side))
    content, is_small = io.BytesIO(), max(image.size) <= side // 2
    if is_small:  # JPEG would blur what has few pixels
        image.save(content, "PNG", optimize=True)
    else:
        image.save(content, "JPEG", quality=QUALITY, optimize=True)
    return Picture(content.getvalue(), "image/png" if is_small else "image/jpeg", *image.size)


def _pixels(array: Array) -> Array:
    """Return (1, C, H, W) or (1, H, W, C) as bytes (H, W) or (H, W, 3)."""
    found = np.asarray(array[0], np.float64)
    found = found.transpose(1, 2, 0) if found.shape[0] in CHANNELS else found
    least, most = float(found.min(initial=np.inf)), float(found.max(initial=-np.inf))
    found = (found - least) * (255.0 / (most - least) if most > least else 0.0)
    pixels = np.rint(found).astype(np.uint8)
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
