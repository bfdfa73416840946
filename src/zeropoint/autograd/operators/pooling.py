"""Pools: maxima, means and norms over windows or over all that is spatial."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from zeropoint.autograd.operators.tensors import Operator, flat_pads, through
from zeropoint.autograd.operators.windows import Windows, windows_over

MAX_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
MEAN_POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def max_pool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Return the largest element of each window."""
    windows = windows_over(
        x.shape[2:], kernel_shape, strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad, ceil_mode=ceil_mode
    )
    x, padding, ceil = _padded_for_max(x, windows, ceil_mode)
    return MAX_POOLS[x.ndim - 2](x, windows.kernel, windows.strides, padding, windows.dilations, ceil_mode=ceil)


def max_pool_with_indices(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the largest element of each window, and where it stands in x laid out flat, its spatial axes by rows or by columns."""
    shape = x.shape[2:]
    windows = windows_over(shape, kernel_shape, strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad, ceil_mode=ceil_mode)
    padded, padding, ceil = _padded_for_max(x, windows, ceil_mode)
    pool = MAX_POOLS[len(shape)]
    y, flat = pool(padded, windows.kernel, windows.strides, padding, windows.dilations, ceil_mode=ceil, return_indices=True)
    begins = [0] * len(shape) if padded is x else [begin for begin, _ in windows.pads]
    indices = torch.zeros_like(flat)
    for axis in reversed(range(len(shape))):
        place = flat % padded.shape[2 + axis] - begins[axis]
        flat = flat // padded.shape[2 + axis]
        indices = indices + place * prod(shape[:axis] if storage_order else shape[axis + 1 :])
    planes = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(*x.shape[:2], *(1,) * len(shape))
    return y, indices + planes * prod(shape)


def _padded_for_max(x: Tensor, windows: Windows, ceil_mode: int) -> tuple[Tensor, tuple[int, ...], bool]:
    """Return x, the padding left to torch, and whether torch rounds up: it pads both sides alike, by at most half a kernel."""
    if windows.fit_torch:
        return x, windows.symmetric or (), bool(ceil_mode)
    lowest = float("-inf") if x.is_floating_point() else torch.iinfo(x.dtype).min
    return F.pad(x, flat_pads(windows.exact), value=lowest), (0,) * len(windows.kernel), False


def average_pool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Return the mean of each window, over the data in it or, with count_include_pad, over the pads too."""
    shape = x.shape[2:]
    windows = windows_over(shape, kernel_shape, strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad, ceil_mode=ceil_mode)
    if windows.fit_torch and all(dilation == 1 for dilation in windows.dilations):
        pool = MEAN_POOLS[len(shape)]
        return pool(x, windows.kernel, windows.strides, windows.symmetric, bool(ceil_mode), bool(count_include_pad))
    exact = windows.exact
    means = _means(F.pad(x, flat_pads(exact)), windows)
    if count_include_pad and exact == windows.pads:
        return means
    # Which share of each window counts: all but the pads, or all but what rounding up adds behind them.
    counted = x.new_ones(1, 1, *shape)
    if count_include_pad:
        counted = F.pad(counted, flat_pads(windows.pads), value=1.0)
        rest = [(0, e - end) for (_, e), (_, end) in zip(exact, windows.pads, strict=True)]
    else:
        rest = list(exact)
    return means / _means(F.pad(counted, flat_pads(rest)), windows)


def lp_pool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    p: int = 2,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Return the p-norm of each window."""
    windows = windows_over(
        x.shape[2:], kernel_shape, strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad, ceil_mode=ceil_mode
    )
    powers = F.pad(x.abs().pow(p), flat_pads(windows.exact))
    return (_means(powers, windows) * prod(kernel_shape)).pow(1 / p)


def _means(x: Tensor, windows: Windows) -> Tensor:
    """Return the mean of each window, in x as it is padded."""
    rank = x.ndim - 2
    if all(dilation == 1 for dilation in windows.dilations):
        return MEAN_POOLS[rank](x, windows.kernel, windows.strides)
    # torch's pools of means know no dilation; a mean over a box is one along each axis in turn.
    for axis, (k, stride, dilation) in enumerate(zip(windows.kernel, windows.strides, windows.dilations, strict=True)):
        x = x.unfold(2 + axis, (k - 1) * dilation + 1, stride)[..., ::dilation].mean(-1)
    return x


def _over_all(function: Callable[[Tensor, list[int]], Tensor]) -> Operator:
    def pool(x: Tensor) -> Tensor:
        return through(torch.float32, lambda x: function(x, list(range(2, x.ndim))), x)

    return pool


POOLS: Mapping[str, Operator] = {
    "AveragePool": average_pool,
    "GlobalAveragePool": _over_all(lambda x, axes: torch.mean(x, axes, keepdim=True)),
    "GlobalLpPool": lambda x, *, p=2: torch.linalg.vector_norm(x, p, list(range(2, x.ndim)), keepdim=True),
    "GlobalMaxPool": _over_all(lambda x, axes: torch.amax(x, axes, keepdim=True)),
    "LpPool": lp_pool,
    "MaxPool": max_pool,
}
