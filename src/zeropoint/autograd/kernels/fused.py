"""Fake quantization on a GPU in one pass over memory each way, as Triton kernels.

They divide and round as IEEE 754 and ONNX do, so that the forward pass equals the plain one bit for bit. Sums are taken within blocks, in
an order that only the layout tells, and then over blocks: there are no atomic additions, so gradients are the same on every run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from zeropoint.autograd.kernels.layout import Layout, alike
from zeropoint.autograd.kernels.plain import Codes, Gradients, Wanted

try:
    import triton
    import triton.language as tl
    from triton.language.extra import libdevice

    jit = triton.jit
except ImportError:  # PyTorch brings it along for GPUs only
    triton = tl = libdevice = None

    def jit(function: Callable[..., Any]) -> Callable[..., Any]:
        """Leave the function as it is: it is never called."""
        return function


Tensor = Any  # of PyTorch, which has no types here

INSTALLED = triton is not None
BLOCK = 4096  # elements of a program
WARPS = 8
SHORTEST_ROW = 64  # elements of one scale that lie together: below, a program takes columns of several scales
COLUMNS = 64
MOST_ELEMENTS = (1 << 31) - (1 << 16)  # that 32 bits can tell apart, whole blocks of them


@jit
def _grid(x, scale, zero_point, qmin, qmax):  # type: ignore[no-untyped-def]
    ratio = tl.div_rn(x, scale)
    rounded = libdevice.rint(ratio)
    code = rounded + zero_point
    return ratio, rounded, code, code < qmin, code > qmax


@jit
def _slope(ratio, rounded, zero_point, below, above, qmin, qmax):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    return tl.where(below, qmin - zero_point, tl.where(above, qmax - zero_point, rounded - ratio))


@jit  # type: ignore[untyped-decorator]
def _forward(  # type: ignore[no-untyped-def]  # noqa: PLR0913, PLR0917
    x_at, out_at, scale_at, zero_at, size, channels, inner, qmin, qmax, CHANNELS: tl.constexpr, BLOCK: tl.constexpr
):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    channel = (at // inner) % channels if CHANNELS else 0
    x = tl.load(x_at + at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(scale_at + channel)
    zero_point = libdevice.rint(tl.load(zero_at + channel))
    _, _, code, below, above = _grid(x, scale, zero_point, qmin, qmax)
    code = tl.where(below, qmin, tl.where(above, qmax, code))
    tl.store(out_at + at, ((code - zero_point) * scale).to(out_at.dtype.element_ty), mask=inside)


@jit  # type: ignore[untyped-decorator]
def _backward_rows(  # type: ignore[no-untyped-def]  # noqa: PLR0913, PLR0917
    grad_at, x_at, scale_at, zero_at, of_x_at, of_scale_at, of_zero_at, channels, inner, chunks, qmin, qmax, by_scale, by_zero,
    X: tl.constexpr, SCALE: tl.constexpr, ZERO: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    row = program // chunks
    column = (program % chunks) * BLOCK + tl.arange(0, BLOCK)
    inside = column < inner
    at = row * inner + column
    grad = tl.load(grad_at + at, mask=inside, other=0.0)
    x = tl.load(x_at + at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(scale_at + row % channels)
    zero_point = libdevice.rint(tl.load(zero_at + row % channels))
    ratio, rounded, _, below, above = _grid(x, scale, zero_point, qmin, qmax)
    clipped = below | above
    if X:
        tl.store(of_x_at + at, tl.where(clipped, 0.0, grad).to(of_x_at.dtype.element_ty), mask=inside)
    wide = grad.to(tl.float32)
    if SCALE:
        slope = _slope(ratio, rounded, zero_point, below, above, qmin, qmax)
        tl.store(of_scale_at + program, tl.sum(wide * slope, axis=0) * by_scale)
    if ZERO:
        tl.store(of_zero_at + program, tl.sum(tl.where(clipped, wide * -scale, 0.0), axis=0) * by_zero)


@jit  # type: ignore[untyped-decorator]
def _backward_columns(  # type: ignore[no-untyped-def]  # noqa: PLR0913, PLR0917
    grad_at, x_at, scale_at, zero_at, of_x_at, of_scale_at, of_zero_at, outer, width, inner, strips, qmin, qmax, by_scale, by_zero,
    X: tl.constexpr, SCALE: tl.constexpr, ZERO: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    strip = program // strips
    column = (program % strips) * COLUMNS + tl.arange(0, COLUMNS)
    row = strip * ROWS + tl.arange(0, ROWS)
    within = column < width
    inside = (row < outer)[:, None] & within[None, :]
    at = row[:, None] * width + column[None, :]
    grad = tl.load(grad_at + at, mask=inside, other=0.0)
    x = tl.load(x_at + at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(scale_at + column // inner, mask=within, other=1.0)[None, :]
    zero_point = libdevice.rint(tl.load(zero_at + column // inner, mask=within, other=0.0))[None, :]
    ratio, rounded, _, below, above = _grid(x, scale, zero_point, qmin, qmax)
    clipped = below | above
    if X:
        tl.store(of_x_at + at, tl.where(clipped, 0.0, grad).to(of_x_at.dtype.element_ty), mask=inside)
    wide = grad.to(tl.float32)
    if SCALE:
        slope = _slope(ratio, rounded, zero_point, below, above, qmin, qmax)
        tl.store(of_scale_at + strip * width + column, tl.sum(wide * slope, axis=0) * by_scale, mask=within)
    if ZERO:
        tl.store(of_zero_at + strip * width + column, tl.sum(tl.where(clipped, wide * -scale, 0.0), axis=0) * by_zero, mask=within)


def quantized(x: Tensor, scale: Tensor, zero_point: Tensor, *, codes: Codes, places: Layout) -> Tensor:
    """Return what `plain.quantized` does, in the memory order of `x`."""
    out = torch.empty_like(x)
    scale, zero_point = scale.contiguous(), zero_point.contiguous()
    programs = -(-places.size // BLOCK)
    with torch.cuda.device(x.device):
        _forward[(programs,)](
            x, out, scale, zero_point, places.size, places.channels, places.inner, float(codes.qmin), float(codes.qmax),
            CHANNELS=places.channels > 1, BLOCK=BLOCK, num_warps=WARPS,
        )  # fmt: skip
    return out


def gradients(grad: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor, *, codes: Codes, places: Layout, wanted: Wanted) -> Gradients:
    """Return what `plain.gradients` does, but for the rounding of sums."""
    grad, scale, zero_point = alike(grad, x), scale.contiguous(), zero_point.contiguous()
    tile = _tile(places)
    of_x = torch.empty_like(x) if wanted.x else x  # what is not wanted is not written to, wherever it points
    asked = wanted.scale is not None, wanted.zero_point is not None
    sums = torch.empty((sum(asked), *tile.sums), dtype=torch.float32, device=x.device) if any(asked) else None
    parts = iter(()) if sums is None else iter(sums.unbind())
    of_scale, of_zero = (next(parts) if one else scale for one in asked)
    tensors = (grad, x, scale, zero_point, of_x, of_scale, of_zero)
    numbers = (float(codes.qmin), float(codes.qmax), wanted.scale or 0.0, wanted.zero_point or 0.0)
    with torch.cuda.device(x.device):
        tile.kernel[(tile.programs,)](
            *tensors, *tile.sizes, *numbers, X=wanted.x, SCALE=asked[0], ZERO=asked[1], **tile.constants, num_warps=tile.warps
        )
    if sums is None:
        return Gradients(of_x if wanted.x else None, None, None)
    if tile.sums[0] * tile.sums[2] > 1:
        sums = sums.sum((1, 3))
    whole = iter(sums.reshape(-1, *scale.shape).unbind())
    return Gradients(of_x if wanted.x else None, *(next(whole) if one else None for one in asked))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tile:
    """How a backward kernel is launched. sums: the shape of its partial sums, (parts, channels, parts)."""

    kernel: Any
    programs: int
    sums: tuple[int, int, int]
    sizes: tuple[int, ...]
    constants: Mapping[str, int]
    warps: int


@lru_cache(maxsize=1024)
def _tile(places: Layout) -> _Tile:
    return _row_tile(places) if places.inner >= SHORTEST_ROW or places.channels == 1 else _column_tile(places)


def _row_tile(places: Layout) -> _Tile:
    """Return the launch in which each program takes a part of one scale's row."""
    block = min(BLOCK, triton.next_power_of_2(places.inner))
    chunks = -(-places.inner // block)
    return _Tile(
        kernel=_backward_rows,
        programs=places.outer * places.channels * chunks,
        sums=(places.outer, places.channels, chunks),
        sizes=(places.channels, places.inner, chunks),
        constants={"BLOCK": block},
        warps=max(1, block * WARPS // BLOCK),
    )


def _column_tile(places: Layout) -> _Tile:
    """Return the launch in which each program takes some rows of several scales' columns."""
    width = places.channels * places.inner
    columns = min(COLUMNS, triton.next_power_of_2(width))
    rows = min(BLOCK // columns, triton.next_power_of_2(places.outer))
    strips, heights = -(-width // columns), -(-places.outer // rows)
    return _Tile(
        kernel=_backward_columns,
        programs=strips * heights,
        sums=(heights, places.channels, places.inner),
        sizes=(places.outer, width, places.inner, strips),
        constants={"ROWS": rows, "COLUMNS": columns},
        warps=max(1, rows * columns * WARPS // BLOCK),
    )
