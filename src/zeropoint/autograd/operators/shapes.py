"""Operators that rearrange elements and read shapes, which are int64 tensors on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from zeropoint.autograd.operators.tensors import DTYPES, Operator, ints, on_one_device
from zeropoint.errors import ModelError


def reshape(x: Tensor, shape: Tensor, *, allowzero: int = 0) -> Tensor:
    """Return x in another shape, in which -1 is what remains and 0, unless it is allowed to mean none, x's own length."""
    sizes = ints(shape)
    return x.reshape(sizes if allowzero else [size or x.shape[axis] for axis, size in enumerate(sizes)])


def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    """Return x as a matrix: the axes before `axis` by the others."""
    axis = axis % x.ndim if axis < 0 else axis
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


def squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Remove the axes, or all of length 1."""
    return x.squeeze() if axes is None else x.squeeze(ints(axes))


def unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    """Insert axes of length 1, counted in the result."""
    places = ints(axes)
    for axis in sorted(place % (x.ndim + len(places)) for place in places):
        x = x.unsqueeze(axis)
    return x


def transpose(x: Tensor, *, perm: Sequence[int] | None = None) -> Tensor:
    """Permute the axes, or reverse them."""
    return x.permute(*(range(x.ndim)[::-1] if perm is None else perm))


def split(x: Tensor, sizes: Tensor | None = None, *, axis: int = 0, num_outputs: int | None = None) -> tuple[Tensor, ...]:
    """Cut x along the axis into parts of the sizes, or into `num_outputs` equal ones, of which the last may be smaller."""
    if sizes is not None:
        return tuple(torch.split(x, ints(sizes), axis))
    length, count = x.shape[axis], num_outputs or 1
    part = -(-length // count)
    parts = [min(part, max(length - i * part, 0)) for i in range(count)]
    return tuple(torch.split(x, parts, axis))


def expand(x: Tensor, shape: Tensor) -> Tensor:
    """Broadcast x and the shape with each other."""
    return x.expand(torch.broadcast_shapes(x.shape, ints(shape)))


def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """Move channels into blocks of pixels; the block's place is the slower part of the channel (DCR) or the quicker one (CRD)."""
    if mode == "CRD":
        return F.pixel_shuffle(x, blocksize)
    n, c, h, w = x.shape
    blocks = x.reshape(n, blocksize, blocksize, c // blocksize**2, h, w)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(n, -1, h * blocksize, w * blocksize)


def space_to_depth(x: Tensor, *, blocksize: int) -> Tensor:
    """Move blocks of pixels into channels."""
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // blocksize, blocksize, w // blocksize, blocksize)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(n, -1, h // blocksize, w // blocksize)


def shape_of(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    """Return x's shape, or a part of it, on the CPU."""
    return torch.tensor(x.shape[start:end], dtype=torch.int64)


def constant_of_shape(shape: Tensor, *, value: Tensor | None = None) -> Tensor:
    """Return a tensor on the CPU filled with a value, or with float zeros."""
    filler = torch.zeros(1) if value is None else value
    return torch.full(ints(shape), filler.item(), dtype=filler.dtype)


def constant(
    *,
    value: Tensor | None = None,
    value_float: float | None = None,
    value_floats: Sequence[float] | None = None,
    value_int: int | None = None,
    value_ints: Sequence[int] | None = None,
) -> Tensor:
    """Return the one value that is given, on the CPU."""
    if value is not None:
        return value
    floats = value_float if value_floats is None else value_floats
    if floats is not None:
        return torch.tensor(floats, dtype=torch.float32)
    return torch.tensor(value_int if value_ints is None else value_ints, dtype=torch.int64)


def arange(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Return start, start + delta, ... below the limit, on the CPU."""
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def eye_like(x: Tensor, *, dtype: int | None = None, k: int = 0) -> Tensor:
    """Return ones on the k-th diagonal of a matrix of zeros shaped like x."""
    ones = torch.ones(x.shape, dtype=x.dtype if dtype is None else DTYPES[dtype], device=x.device)
    return ones.triu(k).tril(k)


def trilu(x: Tensor, k: Tensor | None = None, *, upper: int = 1) -> Tensor:
    """Keep the triangle above, or below, the k-th diagonal."""
    diagonal = 0 if k is None else ints(k)[0]
    return torch.triu(x, diagonal) if upper else torch.tril(x, diagonal)


def dropout(x: Tensor, ratio: Tensor | None = None, training_mode: Tensor | None = None, *, seed: int | None = None) -> Tensor:
    """Return x: inference drops nothing.

    Raises:
        ModelError: it is told to drop.
    """
    if training_mode is not None and bool(training_mode) and (ratio is None or float(ratio) > 0):
        raise ModelError("Dropout: found training_mode true, expected an inference network; export the network for inference")
    return x


def dropout_with_mask(
    x: Tensor, ratio: Tensor | None = None, training_mode: Tensor | None = None, *, seed: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return x and a mask that keeps all of it."""
    return dropout(x, ratio, training_mode), torch.ones_like(x, dtype=torch.bool)


SHAPES: Mapping[str, Operator] = {
    "Concat": on_one_device(lambda *xs, axis: torch.cat(xs, axis)),
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "DepthToSpace": depth_to_space,
    "Dropout": dropout,
    "Expand": expand,
    "EyeLike": eye_like,
    "Flatten": flatten,
    "Range": arange,
    "Reshape": reshape,
    "Shape": shape_of,
    "Size": lambda x: torch.tensor(x.numel()),
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Squeeze": squeeze,
    "Tile": lambda x, repeats: x.repeat(ints(repeats)),
    "Transpose": transpose,
    "Trilu": trilu,
    "Unsqueeze": unsqueeze,
}
