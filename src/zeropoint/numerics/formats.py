"""Integer formats as data: what codes a tensor can be stored in."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from zeropoint.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Format:
    """An integer code: its name in ONNX's lower case, its width in bits, its sign and the numpy dtype of its codes.

    opset: the first in which DequantizeLinear reads it.
    """

    name: str
    bits: int
    signed: bool
    dtype: np.dtype[np.generic]
    opset: int

    @property
    def qmin(self) -> int:
        """The smallest code."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def qmax(self) -> int:
        """The largest code."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("int8", 8, True, np.dtype(np.int8), 10),
        Format("uint8", 8, False, np.dtype(np.uint8), 10),
        Format("int16", 16, True, np.dtype(np.int16), 21),
        Format("uint16", 16, False, np.dtype(np.uint16), 21),
        Format("int4", 4, True, np.dtype(ml_dtypes.int4), 21),
        Format("uint4", 4, False, np.dtype(ml_dtypes.uint4), 21),
        # Only biases: codes of the accumulator, never of an activation or a weight.
        Format("int32", 32, True, np.dtype(np.int32), 10),
    )
}


def get_format(name: str) -> Format:
    """Return the format called `name`.

    Raises:
        RecipeError: there is no such format.
    """
    if name not in FORMATS:
        raise RecipeError(f"format: found {name!r}, expected one of {', '.join(FORMATS)}")
    return FORMATS[name]
