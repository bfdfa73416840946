"""Where a tensor's elements lie in memory, and which scale is whose: what lets a kernel read any dense tensor without a copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

Tensor = Any  # of PyTorch, which has no types here


@dataclass(frozen=True, slots=True)
class Layout:
    """A tensor in the order of its memory, as (outer, channels, inner), with one scale for each of the channels."""

    outer: int
    channels: int
    inner: int

    @property
    def size(self) -> int:
        """How many elements there are."""
        return self.outer * self.channels * self.inner


def memory_order(x: Tensor) -> tuple[int, ...] | None:
    """Return the axes of `x` longer than 1 from the slowest to the fastest in memory; None where it has gaps or meets itself.

    Example:
        >>> import torch
        >>> memory_order(torch.empty(2, 3, 4, 5, memory_format=torch.channels_last))
        (0, 2, 3, 1)
    """
    if x.is_contiguous():
        return tuple(axis for axis, size in enumerate(x.shape) if size > 1)
    strides = x.stride()
    order = sorted((axis for axis, size in enumerate(x.shape) if size > 1), key=lambda axis: -strides[axis])
    expected = 1
    for axis in reversed(order):
        if strides[axis] != expected:
            return None
        expected *= x.shape[axis]
    return tuple(order)


def layout(x: Tensor, scale_shape: Sequence[int]) -> Layout | None:
    """Return how the scales of shape `scale_shape`, which broadcasts against `x`, lie over its memory.

    None where `x` is not dense, or where the axes that have scales of their own are not next to each other and in order.

    Example:
        >>> import torch
        >>> layout(torch.empty(8, 3, 5, 5), (3, 1, 1))
        Layout(outer=8, channels=3, inner=25)
    """
    order = memory_order(x)
    if order is None:
        return None
    own = {axis + x.ndim - len(scale_shape) for axis, size in enumerate(scale_shape) if size > 1}
    places = [place for place, axis in enumerate(order) if axis in own]
    if not places:
        return Layout(1, 1, x.numel())
    first, last = places[0], places[-1] + 1
    axes = order[first:last]
    if len(places) != len(axes) or list(axes) != sorted(axes):
        return None
    outer, channels, inner = (prod(x.shape[axis] for axis in part) for part in (order[:first], axes, order[last:]))
    return Layout(outer, channels, inner)


def flat(x: Tensor) -> Tensor:
    """Return the elements of `x` as (n,) in the order of its memory, without a copy where it is dense."""
    if x.is_contiguous() or memory_order(x) is None:
        return x.reshape(-1)
    return x.as_strided((x.numel(),), (1,), x.storage_offset())


def alike(x: Tensor, pattern: Tensor) -> Tensor:
    """Return `x` with its elements in the same places of memory as those of the dense `pattern`, itself where they are."""
    if x.stride() == pattern.stride():
        return x
    same = all(mine == its for size, mine, its in zip(x.shape, x.stride(), pattern.stride(), strict=True) if size > 1)
    if same:
        return x
    import torch

    return torch.empty_like(pattern, dtype=x.dtype).copy_(x)
