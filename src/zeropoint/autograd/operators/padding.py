"""Padding: with a constant, a reflection, the edge, or the other end."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from zeropoint.autograd.operators.tensors import Operator, flat_pads, ints

FUSED = {"reflect": "reflect", "edge": "replicate"}


def pad(x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None, *, mode: str = "constant") -> Tensor:
    """Add to both ends of the axes, or, where a pad is negative, take away."""
    amounts = ints(pads)
    over = [axis % x.ndim for axis in (range(x.ndim) if axes is None else ints(axes))]
    pairs = [(0, 0)] * x.ndim
    for axis, begin, end in zip(over, amounts[: len(over)], amounts[len(over) :], strict=True):
        pairs[axis] = (begin, end)
    if mode == "constant":
        return F.pad(x, flat_pads(pairs), value=0 if value is None else value.item())
    if mode in FUSED and _is_fused(x, pairs):
        return F.pad(x, flat_pads(pairs[2:]), mode=FUSED[mode])
    for axis, (begin, end) in enumerate(pairs):
        if begin or end:
            x = x.index_select(axis, _sources(x, axis, begin, end, mode))
    return x


def _is_fused(x: Tensor, pairs: list[tuple[int, int]]) -> bool:
    """Whether torch has it as one function: all but the first two axes, each by less than its length."""
    spatial = all(0 <= amount < size for size, pair in zip(x.shape[2:], pairs[2:], strict=True) for amount in pair)
    return x.is_floating_point() and 3 <= x.ndim <= 5 and spatial and pairs[:2] == [(0, 0), (0, 0)]


def _sources(x: Tensor, axis: int, begin: int, end: int, mode: str) -> Tensor:
    """Return which element along the axis each padded one repeats."""
    size = x.shape[axis]
    places = torch.arange(-begin, size + end, device=x.device)
    if mode == "edge":
        return places.clamp(0, size - 1)
    if mode == "wrap":
        return places % size
    period = max(2 * (size - 1), 1)
    folded = places % period
    return torch.minimum(folded, period - folded) if size > 1 else torch.zeros_like(places)


PADDING: Mapping[str, Operator] = {"Pad": pad}
