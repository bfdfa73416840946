"""Products with weights: convolutions, Gemm, MatMul and Einsum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from zeropoint.autograd.operators.tensors import Operator, flat_pads, on_one_device, two_inputs
from zeropoint.autograd.operators.windows import windows_over

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Convolve x of shape (N, C, ...) with weights (M, C / group, ...)."""
    windows = windows_over(x.shape[2:], weight.shape[2:], strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad)
    padding = windows.symmetric
    if padding is None:
        x, padding = F.pad(x, flat_pads(windows.pads)), (0,) * len(windows.pads)
    return CONVOLUTIONS[x.ndim - 2](x, weight, bias, windows.strides, padding, windows.dilations, group)


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Convolve, transposed, x of shape (N, C, ...) with weights (C, M / group, ...)."""
    rank = x.ndim - 2
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    added = output_padding or (0,) * rank
    whole = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(x.shape[2:], strides, weight.shape[2:], dilations, strict=True)]
    if auto_pad.startswith("SAME") and output_shape is None:
        output_shape = [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
    if output_shape is not None:
        cut = [w + a - n for w, a, n in zip(whole, added, output_shape[-rank:], strict=True)]
        halves = [(c // 2, c - c // 2) if auto_pad == "SAME_UPPER" else (c - c // 2, c // 2) for c in cut]
        # What is wanted beyond the whole is added behind it.
        crops = [half if c >= 0 else (0, c) for half, c in zip(halves, cut, strict=True)]
    else:
        crops = [*zip(pads[:rank], pads[rank:], strict=True)] if pads and auto_pad == "NOTSET" else [(0, 0)] * rank
    # torch crops both sides alike and adds at the end, less than a stride: enough for most crops that differ.
    more = [a + begin - end for a, (begin, end) in zip(added, crops, strict=True)]
    transposed = TRANSPOSED[rank]
    if all(0 <= m < max(s, d) or m == 0 for m, s, d in zip(more, strides, dilations, strict=True)) and all(b >= 0 for b, _ in crops):
        return transposed(x, weight, bias, strides, [begin for begin, _ in crops], more, group, dilations)
    y = transposed(x, weight, None, strides, 0, 0, group, dilations)
    y = F.pad(y, flat_pads([(-begin, a - end) for a, (begin, end) in zip(added, crops, strict=True)]))
    return y if bias is None else y + bias.reshape(-1, *(1,) * rank)


def gemm(
    a: Tensor, b: Tensor, c: Tensor | None = None, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0
) -> Tensor:
    """Return alpha · A @ B + beta · C, as one linear layer where it is one."""
    a = a.t() if transA else a
    if alpha == 1 and (c is None or (beta == 1 and c.ndim == 1 and c.shape[0] == b.shape[0 if transB else 1])):
        return F.linear(a, b if transB else b.t(), c)
    b = b.t() if transB else b
    if not a.is_floating_point():
        product = a @ b * alpha
        return (product if c is None else product + c * beta).to(a.dtype)
    return a @ b * alpha if c is None else torch.addmm(c, a, b, beta=beta, alpha=alpha)


PRODUCTS: Mapping[str, Operator] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Einsum": on_one_device(lambda *xs, equation: torch.einsum(equation, *xs)),
    "Gemm": on_one_device(gemm),
    "MatMul": two_inputs(torch.matmul),
}
