"""Operators that pick elements, put them, and order them."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from zeropoint.autograd.operators.tensors import Operator, ints, on_one_device, together, wrapped

REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """Pick slices along the axis by indices of any shape."""
    if indices.device.type == "cpu" and indices.ndim == 0:
        return x.select(axis, int(indices.item()))
    x, indices = together(x, indices)
    axis = axis % x.ndim
    indices = wrapped(indices, x.shape[axis])
    if axis == 0 and x.ndim == 2 and x.is_floating_point():
        return F.embedding(indices, x)
    return x.index_select(axis, indices.reshape(-1)).reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    """Pick slices by the index tuples in the last axis of `indices`, batch by batch."""
    return x[_index_tuple(x, indices, batch_dims)]


def _index_tuple(x: Tensor, indices: Tensor, batch_dims: int = 0) -> tuple[Tensor, ...]:
    rank = indices.ndim - 1
    batch = [
        torch.arange(x.shape[axis], device=x.device).reshape([-1 if axis == other else 1 for other in range(rank)])
        for axis in range(batch_dims)
    ]
    return (*batch, *indices.long().unbind(-1))


def scatter_elements(x: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none") -> Tensor:
    """Put, or reduce, elements at indices along the axis."""
    indices, updates = wrapped(indices, x.shape[axis]), updates.to(x.dtype)
    if reduction == "none":
        return x.scatter(axis, indices, updates)
    return x.scatter_reduce(axis, indices, updates, REDUCTIONS[reduction])


def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    """Put, or reduce, slices at the index tuples in the last axis of `indices`."""
    updates = updates.to(x.dtype)
    if reduction == "none":
        return x.index_put(_index_tuple(x, indices), updates)
    depth = indices.shape[-1]
    places = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=x.device)
    for axis in range(depth):
        places = places * x.shape[axis] + wrapped(indices[..., axis], x.shape[axis])
    rows = x.reshape(prod(x.shape[:depth]), -1)
    updates = updates.reshape(places.numel(), -1)
    return rows.scatter_reduce(0, places.reshape(-1, 1).expand_as(updates), updates, REDUCTIONS[reduction]).reshape(x.shape)


def slice_(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
    """Cut a range out of each of the axes; a negative step goes backwards."""
    begins = ints(starts)
    over = range(len(begins)) if axes is None else ints(axes)
    strides = [1] * len(begins) if steps is None else ints(steps)
    cuts, backwards = [slice(None)] * x.ndim, []
    for axis, start, stop, step in zip(over, begins, ints(ends), strides, strict=True):
        picks = _picks(x.shape[axis], start, stop, step)
        if step < 0:
            picks = picks[::-1]
            backwards.append(axis)
        cuts[axis] = slice(picks.start, max(picks.stop, picks.start), picks.step)
    y = x[tuple(cuts)]
    return y.flip(backwards) if backwards else y


def _picks(size: int, start: int, stop: int, step: int) -> range:
    """Return which elements a slice takes. Python's own rule differs going backwards from before the first element: ONNX takes that one."""
    start, stop = (place + size if place < 0 else place for place in (start, stop))
    if step > 0:
        return range(min(max(start, 0), size), min(max(stop, 0), size), step)
    return range(min(max(start, 0), size - 1), min(max(stop, -1), size - 1), step)


def one_hot(indices: Tensor, depth: Tensor, values: Tensor, *, axis: int = -1) -> Tensor:
    """Return values[1] at each index along a new axis and values[0] elsewhere, also where the index is out of range."""
    count = ints(depth)[0]
    indices, values = together(indices, values)
    places = torch.where(indices < 0, indices + count, indices).unsqueeze(axis)
    rank = places.ndim
    classes = torch.arange(count, device=places.device).reshape([-1 if i == axis % rank else 1 for i in range(rank)])
    return torch.where(places == classes, values[1], values[0])


def top_k(x: Tensor, k: Tensor, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Tensor, Tensor]:
    """Return the k largest, or smallest, elements and their indices; of equal ones the first, which torch.topk does not promise."""
    values, indices = torch.sort(x, dim=axis, descending=bool(largest), stable=True)
    count = ints(k)[0]
    return values.narrow(axis, 0, count), indices.narrow(axis, 0, count)


def compress(x: Tensor, condition: Tensor, *, axis: int | None = None) -> Tensor:
    """Keep the slices, or elements, for which the condition holds."""
    x, axis = (x.reshape(-1), 0) if axis is None else (x, axis)
    return x.index_select(axis, torch.nonzero(condition).reshape(-1))


def grid_sample(x: Tensor, grid: Tensor, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros") -> Tensor:
    """Interpolate x at the grid's places."""
    names = {"linear": "bilinear", "cubic": "bicubic"}
    return F.grid_sample(x, grid, mode=names.get(mode, mode), padding_mode=padding_mode, align_corners=bool(align_corners))


INDEXING: Mapping[str, Operator] = {
    "Compress": on_one_device(compress),
    "Gather": gather,
    "GatherElements": on_one_device(lambda x, indices, *, axis=0: torch.gather(x, axis, wrapped(indices, x.shape[axis]))),
    "GatherND": on_one_device(gather_nd),
    "GridSample": grid_sample,
    "NonZero": lambda x: torch.nonzero(x).t(),
    "OneHot": one_hot,
    "ScatterElements": on_one_device(scatter_elements),
    "ScatterND": on_one_device(scatter_nd),
    "Slice": slice_,
    "TopK": top_k,
}
