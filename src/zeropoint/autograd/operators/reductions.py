"""Reductions over axes: sums, norms, extremes, and where these stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from zeropoint.autograd.operators.tensors import Operator, ints, through

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _reducing(function: Reduction) -> Operator:
    """Give a reduction over a list of axes ONNX's ways to name them: an input, an attribute (before opset 13 or 18), or all."""

    def reduce(
        x: Tensor, dims: Tensor | None = None, *, axes: Sequence[int] | None = None, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Tensor:
        over = list(axes or ()) if dims is None else ints(dims)
        if over:
            return function(x, over, bool(keepdims))
        if noop_with_empty_axes:
            # Over one element each: what the operator computes beside the reduction still applies.
            return function(x.unsqueeze(-1), [-1], False)
        return function(x, list(range(x.ndim)), bool(keepdims)) if x.ndim else function(x.reshape(1), [0], False)

    return reduce


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.sum(x, axes, keepdim=keep, dtype=x.dtype)


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = torch.prod(x, axis, keepdim=keep, dtype=x.dtype)
    return x


def _extreme(function: Operator, *, largest: bool) -> Reduction:
    def reduce(x: Tensor, axes: list[int], keep: bool) -> Tensor:
        if x.numel():
            return function(x, axes, keepdim=keep)
        # torch knows no extreme of nothing; ONNX takes the other end of the type's range.
        return torch.full_like(torch.sum(x, axes, keepdim=keep), _limit(x.dtype, lowest=largest), dtype=x.dtype)

    return reduce


def _limit(dtype: torch.dtype, *, lowest: bool) -> float:
    if dtype == torch.bool:
        return not lowest
    if dtype.is_floating_point:
        return float("-inf") if lowest else float("inf")
    return torch.iinfo(dtype).min if lowest else torch.iinfo(dtype).max  # type: ignore[no-any-return]


def _norm(order: int) -> Reduction:
    def reduce(x: Tensor, axes: list[int], keep: bool) -> Tensor:
        return through(torch.float64, lambda x: torch.linalg.vector_norm(x, order, axes, keepdim=keep), x)

    return reduce


def _floating(function: Reduction) -> Reduction:
    return lambda x, axes, keep: through(torch.float64, lambda x: function(x, axes, keep), x)


def _position(function: Operator) -> Operator:
    def position(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
        if not select_last_index:
            return function(x, axis, keepdim=bool(keepdims))
        return x.shape[axis] - 1 - function(x.flip(axis), axis, keepdim=bool(keepdims))

    return position


def _running(function: Operator, neutral: int) -> Operator:
    def accumulate(x: Tensor, axis: Tensor, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
        dim = ints(axis)[0]
        y = x.flip(dim) if reverse else x
        if exclusive:
            first = torch.full_like(y.narrow(dim, 0, 1), neutral)
            y = torch.cat([first, y.narrow(dim, 0, y.shape[dim] - 1)], dim)
        y = function(y, dim, dtype=x.dtype)
        return y.flip(dim) if reverse else y

    return accumulate


REDUCTIONS: Mapping[str, Operator] = {
    "ArgMax": _position(torch.argmax),
    "ArgMin": _position(torch.argmin),
    "CumProd": _running(torch.cumprod, 1),
    "CumSum": _running(torch.cumsum, 0),
    "ReduceL1": _reducing(_norm(1)),
    "ReduceL2": _reducing(_norm(2)),
    "ReduceLogSum": _reducing(_floating(lambda x, axes, keep: torch.log(torch.sum(x, axes, keepdim=keep)))),
    "ReduceLogSumExp": _reducing(_floating(lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep))),
    "ReduceMax": _reducing(_extreme(torch.amax, largest=True)),
    "ReduceMean": _reducing(_floating(lambda x, axes, keep: torch.mean(x, axes, keepdim=keep))),
    "ReduceMin": _reducing(_extreme(torch.amin, largest=False)),
    "ReduceProd": _reducing(_product),
    "ReduceSum": _reducing(_sum),
    "ReduceSumSquare": _reducing(lambda x, axes, keep: _sum(x * x, axes, keep)),
}
