"""The affine mapping real = scale * (code - zero_point): the one place that defines rounding and saturation.

Rounding is half to even and saturating, in float32, as ONNX defines QuantizeLinear and DequantizeLinear; ONNX's own backend
node cases hold it bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from zeropoint.errors import RecipeError
from zeropoint.numerics.formats import Format
from zeropoint.numerics.spec import Granularity, PerBlock, PerChannel, PerTensor, Spec

_T = TypeVar("_T", bound=np.generic)
FloatArray = npt.NDArray[np.float32]
CodeArray = npt.NDArray[np.generic]

MANTISSA_BITS = 23  # of float32
SMALLEST_SCALE = np.finfo(np.float32).tiny  # the smallest normal float32: runtimes flush what lies below to zero


@dataclass(frozen=True, slots=True)
class Range:
    """The real interval [lo, hi] that the codes cover; what lies outside is clipped."""

    lo: float
    hi: float


@dataclass(frozen=True, slots=True, eq=False)
class QParams:
    """The numbers of one quantized tensor.

    scale: float32, all positive; shape () per tensor, (channels,) per channel, the blocked shape per block.
    zero_point: the format's dtype, the scale's shape.

    Raises:
        RecipeError: the scale is not positive and finite, or a dtype or shape is another.
    """

    scale: FloatArray
    zero_point: CodeArray
    format: Format
    granularity: Granularity = PerTensor()
    narrow: bool = False

    def __post_init__(self) -> None:
        if self.scale.dtype != np.float32 or self.zero_point.dtype != self.format.dtype:
            found = f"{self.scale.dtype} and {self.zero_point.dtype}"
            raise RecipeError(f"scale and zero point: found {found}, expected float32 and {self.format.dtype}")
        _check_rank(self.scale.shape, self.granularity)
        if self.zero_point.shape != self.scale.shape:
            raise RecipeError(f"zero point: found shape {self.zero_point.shape}, expected the scale's, {self.scale.shape}")
        usable = np.isfinite(self.scale) & (self.scale > 0.0)
        if not usable.all():
            raise RecipeError(f"scale: found {self.scale[~usable].flat[0]}, expected positive numbers; make it from a range")


def _check_rank(shape: tuple[int, ...], granularity: Granularity) -> None:
    match granularity:
        case PerTensor():
            fits, expected = shape == (), "()"
        case PerChannel():
            fits, expected = len(shape) == 1, "(channels,)"
        case PerBlock():
            fits, expected = len(shape) >= 1, "the blocked shape"
    if not fits:
        raise RecipeError(f"scale: found shape {shape}, expected {expected} ({granularity})")


def qparams_from_range(lo: npt.ArrayLike, hi: npt.ArrayLike, *, spec: Spec) -> QParams:
    """Turn a range, or arrays of ranges at the spec's granularity, into scale and zero point.

    The range is first widened to hold 0, which must be exact (padding, ReLU). Symmetric: scale = max(|lo|, |hi|) / qmax for
    signed formats and hi / qmax for unsigned ones (whose negative part is clipped), zero point 0. Asymmetric:
    scale = (hi - lo) / (qmax - qmin), zero_point = round(qmin - lo / scale). A range of [0, 0] has scale 1.

    Raises:
        RecipeError: a bound is not finite, lo > hi, or the arrays of ranges have not the granularity's rank.

    Example:
        >>> from zeropoint.numerics.formats import FORMATS
        >>> qparams_from_range(-1.0, 3.0, spec=Spec(FORMATS["uint8"], symmetric=False)).zero_point
        array(64, dtype=uint8)
    """
    lo64, hi64 = _checked_bounds(lo, hi)
    lo64, hi64 = np.minimum(lo64, 0.0), np.maximum(hi64, 0.0)
    if spec.symmetric:
        amax = np.maximum(-lo64, hi64) if spec.format.signed else hi64
        scale = _positive_scale(amax / spec.qmax)
        zero_point = np.zeros_like(scale)
    else:
        scale = _positive_scale((hi64 - lo64) / (spec.qmax - spec.qmin))
        zero_point = np.clip(np.rint(spec.qmin - lo64 / scale), spec.qmin, spec.qmax)
    # asarray: numpy turns arrays of shape () into scalars on the way.
    return QParams(scale, np.asarray(zero_point.astype(spec.format.dtype)), spec.format, spec.granularity, spec.narrow)


def _checked_bounds(lo: npt.ArrayLike, hi: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    lo64, hi64 = np.broadcast_arrays(np.asarray(lo, np.float64), np.asarray(hi, np.float64))
    usable = np.isfinite(lo64) & np.isfinite(hi64) & (lo64 <= hi64)
    if not usable.all():
        where = "" if usable.ndim == 0 else f" at index {np.argwhere(~usable)[0].tolist()}"
        found = f"[{lo64[~usable].flat[0]}, {hi64[~usable].flat[0]}]"
        raise RecipeError(f"range: found {found}{where}, expected finite bounds with lo <= hi; look for NaN or infinity in the data")
    return lo64, hi64


def _positive_scale(scale: npt.NDArray[np.float64]) -> FloatArray:
    limits = np.finfo(np.float32)
    positive = np.where(scale == 0.0, 1.0, np.clip(scale, SMALLEST_SCALE, limits.max))
    return np.asarray(positive, np.float32)


def quantize_array(x: npt.NDArray[np.floating], qparams: QParams) -> CodeArray:
    """Return the codes of `x`: clip(round_half_even(x / scale) + zero_point), in the format's dtype and the shape of `x`.

    Infinities saturate.

    Raises:
        RecipeError: `x` holds NaN, for which there is no code, or its shape does not fit the scale.
    """
    with np.errstate(over="ignore"):  # what overflows float32 becomes an infinity, which saturates
        x32 = np.asarray(x, np.float32)
        rounded = np.asarray(x32 / expand(qparams.scale, x32.shape, qparams.granularity))
        np.rint(rounded, out=rounded)
    if rounded.size and np.isnan(rounded.max()):
        raise RecipeError("quantize_array: found NaN in the input, expected numbers; replace them first")
    codes: FloatArray | npt.NDArray[np.float64] = rounded if _is_exact(qparams) else rounded.astype(np.float64)
    codes += expand(qparams.zero_point.astype(codes.dtype), x32.shape, qparams.granularity)
    lowest = qparams.format.qmin + int(qparams.narrow and qparams.format.signed)
    return np.asarray(np.clip(codes, lowest, qparams.format.qmax, out=codes).astype(qparams.format.dtype))


def dequantize_array(codes: CodeArray, qparams: QParams) -> FloatArray:
    """Return scale * (code - zero_point) as float32, in the shape of `codes`.

    Raises:
        RecipeError: the shape of `codes` does not fit the scale.
    """
    wide = np.float32 if _is_exact(qparams) else np.int64
    offset = np.asarray(np.asarray(codes).astype(wide) - expand(qparams.zero_point.astype(wide), codes.shape, qparams.granularity))
    reals = offset.astype(np.float32, copy=False)
    reals *= expand(qparams.scale, codes.shape, qparams.granularity)
    return reals


def _is_exact(qparams: QParams) -> bool:
    """Whether float32 holds every code, and every sum of two, exactly: not so those of an int32."""
    return qparams.format.bits < MANTISSA_BITS


def expand(values: npt.NDArray[_T], shape: tuple[int, ...], granularity: Granularity) -> npt.NDArray[_T]:
    """Return `values`, one for each scale, shaped to broadcast against an array of `shape`.

    Raises:
        RecipeError: `values` has not one entry for each tensor, channel or block of that shape.
    """
    match granularity:
        case PerTensor():
            expected: tuple[int, ...] = ()
            expanded = values
        case PerChannel(axis):
            axis = checked_axis(axis, shape)
            expected = (shape[axis],)
            expanded = values.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        case PerBlock(axis, size):
            axis = checked_axis(axis, shape)
            expected = tuple(-(-n // size) if i == axis else n for i, n in enumerate(shape))
            expanded = np.repeat(values, size, axis=axis)[tuple(map(slice, shape))] if values.ndim == len(shape) else values
    if values.shape != expected:
        raise RecipeError(f"scale: found shape {values.shape} for an array of shape {shape}, expected {expected} ({granularity})")
    return expanded


def checked_axis(axis: int, shape: tuple[int, ...]) -> int:
    """Return `axis` counted from the front.

    Raises:
        RecipeError: an array of that shape has no such axis.
    """
    if not -len(shape) <= axis < len(shape):
        raise RecipeError(f"axis: found {axis} for an array of shape {shape}, expected {-len(shape)} to {len(shape) - 1}")
    return axis % len(shape)
