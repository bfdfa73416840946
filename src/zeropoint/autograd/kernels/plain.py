"""The kernels in PyTorch's own operators: on any device, for any layout, and what the fused ones must equal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

Tensor = Any  # of PyTorch, which has no types here

EXACT = 1 << 22  # float32 holds the sum of two integers below this
CHUNK = 1 << 24  # elements counted at once: their keys take 8 bytes each
KEYS = 1 << 16
INFINITY_BITS = 0x7F800000


@dataclass(frozen=True, slots=True)
class Codes:
    """The codes that may be used, from `qmin` to `qmax`."""

    qmin: int
    qmax: int

    @property
    def fit_float32(self) -> bool:
        """Whether float32 holds every code less every zero point."""
        return max(abs(self.qmin), abs(self.qmax)) < EXACT


@dataclass(frozen=True, slots=True)
class Gradients:
    """What a backward pass gives: None where it was not asked for. Those of scale and zero point have their shapes."""

    x: Tensor | None
    scale: Tensor | None
    zero_point: Tensor | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which gradients a backward pass is asked for, and by what those of scale and zero point are multiplied; None: not asked for."""

    x: bool = True
    scale: float | None = 1.0
    zero_point: float | None = 1.0


def quantized(x: Tensor, scale: Tensor, zero_point: Tensor, codes: Codes) -> Tensor:
    """Return what `x` is once quantized and dequantized, in its dtype; scale and zero point broadcast against it."""
    ratio = torch.div(x.to(scale.dtype), scale)
    rounded = ratio.round_()
    if not codes.fit_float32:
        rounded, zero_point = rounded.double(), zero_point.double()
    zero_point = zero_point.round()
    offset = rounded.add_(zero_point).clamp_(codes.qmin, codes.qmax).sub_(zero_point)
    return offset.to(scale.dtype).mul_(scale).to(x.dtype)


def gradients(grad: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor, *, codes: Codes, wanted: Wanted) -> Gradients:
    """Return the gradients by straight-through estimation (x), LSQ (scale) and LSQ+ (zero point)."""
    wide = grad.to(scale.dtype)
    ratio = torch.div(x.to(scale.dtype), scale)
    rounded = ratio.round()
    zero_point = zero_point.round()
    code = rounded + zero_point
    below, above = code < codes.qmin, code > codes.qmax
    clipped = below | above
    of_scale = of_zero_point = None
    if wanted.scale is not None:
        slope = torch.where(below, codes.qmin - zero_point, torch.where(above, codes.qmax - zero_point, rounded - ratio))
        of_scale = (wide * slope).sum_to_size(scale.shape) * wanted.scale
    if wanted.zero_point is not None:
        of_zero_point = torch.where(clipped, wide * -scale, 0.0).sum_to_size(zero_point.shape) * wanted.zero_point
    return Gradients(torch.where(clipped, 0.0, grad).to(x.dtype) if wanted.x else None, of_scale, of_zero_point)


def observe(values: Tensor, counts: Tensor, bounds: Tensor, others: Tensor) -> None:
    """Add `values` (n,), of a float dtype, to the tally.

    counts: int64 (65536,), how often each upper half of a float32 pattern occurred, where those of NaN and infinities mean nothing and
    zeros may count in either key. bounds: int32 (2,), the lowest and the highest finite value, as `ordered` ints. others: int64 (2,),
    how many NaN and infinities.
    """
    for chunk in values.split(CHUNK):
        if chunk.numel() == 0:
            continue
        x = chunk.float()
        keys = (x.view(torch.int32) >> 16) & (KEYS - 1)
        counts.scatter_add_(0, keys.long(), torch.ones((), dtype=torch.int64, device=x.device).expand(x.shape))
        others += torch.stack([torch.isnan(x).sum(), torch.isinf(x).sum()])
        finite = torch.isfinite(x)
        lo = torch.where(finite, x, torch.inf).min()
        hi = torch.where(finite, x, -torch.inf).max()
        seen = ordered(torch.stack([lo, hi]).view(torch.int32))
        torch.minimum(bounds[0], seen[0], out=bounds[0])
        torch.maximum(bounds[1], seen[1], out=bounds[1])


def ordered(bits: Tensor) -> Tensor:
    """Map float32 patterns, as int32, to ints that are ordered as the floats are; and back: it is its own inverse."""
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def no_bounds(device: Any) -> Tensor:
    """Return the bounds, as `ordered` ints, of no value at all: infinity and minus infinity."""
    return torch.tensor([INFINITY_BITS, (INFINITY_BITS - (1 << 31)) ^ 0x7FFFFFFF], dtype=torch.int32, device=device)
