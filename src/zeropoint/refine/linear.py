"""Weighted operators as products of matrices: rows of inputs, one for each place that an output is computed at, times weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zeropoint.data.split import spread
from zeropoint.graph.initializers import constant_array
from zeropoint.graph.model import Node
from zeropoint.graph.operators import int_attribute, ints_attribute, string_attribute, weighted

Array = npt.NDArray[Any]
MATRIX = 2  # axes


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A node with a constant weight whose output at each place is W @ row: W (groups, outputs / groups, inputs / groups * taps).

    A Conv's row holds what lies below its kernel, channel by channel, with the zeros of its padding.
    """

    node: Node
    groups: int
    transposed: bool = False  # the weight holds inputs before outputs
    kernel: tuple[int, ...] = ()  # spatial sizes of a Conv's

    def matrix(self, weight: Array) -> Array:
        """Return the weight as W."""
        rows = weight.T if self.transposed else weight.reshape(len(weight), -1)
        return rows.reshape(self.groups, len(rows) // self.groups, rows.shape[1])

    def weight(self, matrix: Array, shape: tuple[int, ...]) -> Array:
        """Return W, or what has its shape, as a weight of `shape`."""
        rows = matrix.reshape(-1, matrix.shape[-1])
        return np.ascontiguousarray(rows.T if self.transposed else rows.reshape(shape))

    def rows(self, data: Array, count: int) -> Array:
        """Return the rows at up to `count` places, evenly spread: (groups, places, inputs / groups * taps), of the dtype of `data`."""
        if self.node.op_type != "Conv":
            flat = data.reshape(-1, data.shape[-1])
            return np.asarray(flat[spread(len(flat), count)][None])
        places = _patches(self.node, data, count, self.kernel)  # (places, channels, taps...)
        return np.ascontiguousarray(places.reshape(len(places), self.groups, -1).transpose(1, 0, 2))


def linear(node: Node) -> Linear | None:
    """Return how to see a node as a product of matrices, or None where that is no help: no constant weight, or another operator."""
    form = weighted(node)
    if form is None or form.weight == 0 or node.op_type == "ConvTranspose":
        return None
    shape = constant_array(node.inputs[form.weight]).shape
    match node.op_type:
        case "Conv":
            return Linear(node, int_attribute(node, "group", 1), kernel=shape[2:])
        case "Gemm":
            plain = not int_attribute(node, "transA", 0)
            return Linear(node, 1, transposed=not int_attribute(node, "transB", 0)) if plain else None
        case _:
            return Linear(node, 1, transposed=True) if len(shape) == MATRIX else None


def _patches(node: Node, data: Array, count: int, kernel: tuple[int, ...]) -> Array:
    """Return what lies below the kernel at up to `count` places of all that it is put on: (places, channels, *kernel)."""
    spatial = len(kernel)
    strides = ints_attribute(node, "strides") or (1,) * spatial
    dilations = ints_attribute(node, "dilations") or (1,) * spatial
    extents = [dilation * (size - 1) + 1 for dilation, size in zip(dilations, kernel, strict=True)]
    before, after = _pads(node, data.shape[2:], strides, extents)
    if any((*before, *after)):
        data = np.pad(data, [(0, 0), (0, 0), *zip(before, after, strict=True)])
    steps = [max(0, size - extent) // stride + 1 for size, extent, stride in zip(data.shape[2:], extents, strides, strict=True)]
    sizes = (len(data), *steps)
    chosen = np.unravel_index(spread(int(np.prod(sizes)), count), sizes)
    taps = np.ix_(*(np.arange(size) * dilation for size, dilation in zip(kernel, dilations, strict=True)))
    ones = (1,) * spatial
    at: list[Any] = [start.reshape(-1, *ones) * stride + tap for start, stride, tap in zip(chosen[1:], strides, taps, strict=True)]
    found = data[(chosen[0].reshape(-1, *ones), slice(None), *at)]  # (places, *kernel, channels): indexed axes come first
    return np.moveaxis(found, -1, 1)


def _pads(node: Node, sizes: tuple[int, ...], strides: tuple[int, ...], extents: list[int]) -> tuple[list[int], list[int]]:
    """Return the zeros before and after each spatial axis."""
    how = string_attribute(node, "auto_pad", "NOTSET")
    if not how.startswith("SAME"):
        given = ints_attribute(node, "pads") if how == "NOTSET" else ()
        pads = given or (0,) * (2 * len(sizes))
        return list(pads[: len(sizes)]), list(pads[len(sizes) :])
    whole = [
        max(0, (-(-size // stride) - 1) * stride + extent - size) for size, stride, extent in zip(sizes, strides, extents, strict=True)
    ]
    small = [total // 2 for total in whole]
    large = [total - half for total, half in zip(whole, small, strict=True)]
    return (small, large) if how == "SAME_UPPER" else (large, small)
