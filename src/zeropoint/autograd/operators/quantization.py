"""QuantizeLinear and DequantizeLinear as ONNX defines them. Rounding has no gradient: training puts fake quantization in their place.

Codes of 2 and 4 bits are stored in bytes, one each.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from zeropoint.autograd.operators.elementwise import FLOAT8, cast_to
from zeropoint.autograd.operators.tensors import DTYPES, NARROW, Operator, on_one_device


def quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Tensor:
    """Return round(x / scale) + zero point, half to even and saturated."""
    if output_dtype in NARROW:
        dtype, low, high = NARROW[output_dtype]
    else:
        dtype = zero_point.dtype if zero_point is not None else DTYPES[output_dtype or 2]
        low, high = (0, 0) if dtype in FLOAT8 else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    quotient = x / along(scale, x, axis, block_size)
    if dtype in FLOAT8:
        return cast_to(quotient, dtype)
    codes = torch.round(quotient)
    if zero_point is not None:
        codes = codes + along(zero_point.to(codes.dtype), x, axis, block_size)
    return torch.clamp(codes, low, high).to(torch.int32).to(dtype)


def dequantize(
    x: Tensor, scale: Tensor, zero_point: Tensor | None = None, *, axis: int = 1, block_size: int = 0, output_dtype: int = 0
) -> Tensor:
    """Return (codes - zero point) · scale."""
    dtype = DTYPES[output_dtype] if output_dtype else scale.dtype
    codes = x.to(torch.float32) if x.dtype in FLOAT8 else x.to(torch.int32)
    if zero_point is not None:
        codes = codes - along(zero_point.to(codes.dtype), x, axis, block_size)
    return codes.to(scale.dtype).mul(along(scale, x, axis, block_size)).to(dtype)


def along(values: Tensor, x: Tensor, axis: int, block_size: int) -> Tensor:
    """Return one value per tensor, per element of the axis or per block along it, shaped to broadcast to x."""
    if values.numel() == 1 and not block_size:
        return values.reshape(())
    if block_size:
        return values.repeat_interleave(block_size, axis).narrow(axis, 0, x.shape[axis])
    return values.reshape([-1 if place == axis % x.ndim else 1 for place in range(x.ndim)])


QUANTIZATION: Mapping[str, Operator] = {"DequantizeLinear": on_one_device(dequantize), "QuantizeLinear": on_one_device(quantize)}
