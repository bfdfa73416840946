"""Two 4-bit codes a byte, as ONNX stores INT4 and UINT4 in raw_data."""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt

from zeropoint.errors import RecipeError
from zeropoint.numerics.affine import CodeArray
from zeropoint.numerics.formats import FORMATS, Format

_FORMATS_4_BIT = tuple(f for f in FORMATS.values() if f.bits == 4)
_NAMES_4_BIT = " or ".join(f.name for f in _FORMATS_4_BIT)


def pack4(codes: CodeArray) -> npt.NDArray[np.uint8]:
    """Return the bytes of `codes`, an int4 or uint4 array of any shape, taken in C order.

    The first code of each pair is the low nibble; an odd count is padded with 0. Shape (ceil(size / 2),).

    Raises:
        RecipeError: the dtype of `codes` is no 4-bit one.

    Example:
        >>> pack4(np.array([1, -1, 2], FORMATS["int4"].dtype)).tolist()
        [241, 2]
    """
    if codes.dtype not in [f.dtype for f in _FORMATS_4_BIT]:
        raise RecipeError(f"pack4: found codes of dtype {codes.dtype}, expected {_NAMES_4_BIT}; quantize to one of these formats")
    nibbles = codes.astype(np.int8).reshape(-1).view(np.uint8) & 0x0F
    padded = np.zeros(nibbles.size + nibbles.size % 2, np.uint8)
    padded[: nibbles.size] = nibbles
    return padded[0::2] | (padded[1::2] << np.uint8(4))


def unpack4(packed: npt.NDArray[np.uint8], shape: tuple[int, ...], *, format: Format) -> CodeArray:
    """Return the codes of `shape` that `pack4` wrote to `packed`, in the format's dtype; the padding nibble is not looked at.

    Raises:
        RecipeError: `format` is no 4-bit one, or `packed` has not the bytes of that shape.

    Example:
        >>> unpack4(np.array([241, 2], np.uint8), (3,), format=FORMATS["int4"]).tolist()
        [1, -1, 2]
    """
    if format not in _FORMATS_4_BIT:
        raise RecipeError(f"unpack4: found format {format.name}, expected {_NAMES_4_BIT}")
    count = prod(shape)
    if packed.dtype != np.uint8 or packed.shape != (-(-count // 2),):
        found = f"{packed.dtype} of shape {packed.shape}"
        raise RecipeError(f"unpack4: found {found} for codes of shape {shape}, expected uint8 of shape ({-(-count // 2)},)")
    nibbles = np.stack([packed & 0x0F, packed >> 4], axis=-1).reshape(-1)[:count].astype(np.int8)
    values = (nibbles ^ 8) - 8 if format.signed else nibbles  # flips the sign bit, then takes its weight away: sign extension
    return values.astype(format.dtype).reshape(shape)
