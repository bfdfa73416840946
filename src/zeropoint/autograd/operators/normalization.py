"""Normalizations by mean and variance, by root mean square, and over neighbouring channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from zeropoint.autograd.operators.tensors import Operator, on_one_device

EPSILON = 9.999999747378752e-06  # 1e-5 as a float32: ONNX's default
MOMENTUM = 0.8999999761581421


def batch_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = EPSILON,
    momentum: float = MOMENTUM,
    training_mode: int = 0,
) -> Tensor:
    """Normalize each channel by the mean and variance that are given."""
    return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)


def group_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = EPSILON, num_groups: int, stash_type: int = 1
) -> Tensor:
    """Normalize groups of channels, with a scale and bias per channel: as from opset 21 on."""
    return F.group_norm(x, num_groups, scale, bias, epsilon)


def group_normalization_18(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = EPSILON, num_groups: int) -> Tensor:
    """Normalize groups of channels, with a scale and bias per group: as before opset 21."""
    size = x.shape[1] // num_groups
    return F.group_norm(x, num_groups, scale.repeat_interleave(size), bias.repeat_interleave(size), epsilon)


def instance_normalization(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = EPSILON) -> Tensor:
    """Normalize each channel of each sample."""
    # torch's instance_norm refuses a single spatial element, of which ONNX makes the bias; groups of one channel are the same.
    return F.group_norm(x, x.shape[1], scale, bias, epsilon)


def layer_normalization(
    x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int = -1, epsilon: float = EPSILON, stash_type: int = 1
) -> Tensor:
    """Normalize over the axes from `axis` on."""
    shape = x.shape[axis:] if axis < 0 else x.shape[axis % x.ndim :]
    if scale.shape == shape and (bias is None or bias.shape == shape):
        return F.layer_norm(x, shape, scale, bias, epsilon)
    y = F.layer_norm(x, shape, None, None, epsilon) * scale
    return y if bias is None else y + bias


def layer_normalization_with_statistics(
    x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int = -1, epsilon: float = EPSILON, stash_type: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize over the axes from `axis` on; return the mean and the inverse standard deviation as well."""
    axes = list(range(axis % x.ndim, x.ndim))
    variance, mean = torch.var_mean(x.float() if stash_type == 1 else x, axes, correction=0, keepdim=True)
    return layer_normalization(x, scale, bias, axis=axis, epsilon=epsilon), mean, torch.rsqrt(variance + epsilon)


def rms_normalization(x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = EPSILON, stash_type: int = 1) -> Tensor:
    """Divide by the root mean square over the axes from `axis` on."""
    shape = x.shape[axis % x.ndim :]
    return F.rms_norm(x, shape, scale, epsilon) if scale.shape == shape else F.rms_norm(x, shape, None, epsilon) * scale


def local_response_normalization(
    x: Tensor, *, alpha: float = 9.999999747378752e-05, beta: float = 0.75, bias: float = 1.0, size: int
) -> Tensor:
    """Divide by a power of the mean square over `size` neighbouring channels."""
    squares = F.pad((x * x).reshape(x.shape[0], 1, x.shape[1], -1), (0, 0, (size - 1) // 2, size // 2))
    return x / (bias + alpha * F.avg_pool2d(squares, (size, 1), 1).reshape(x.shape)).pow(beta)


def mean_variance_normalization(x: Tensor, *, axes: Sequence[int] = (0, 2, 3)) -> Tensor:
    """Subtract the mean over `axes` and divide by the standard deviation."""
    variance, mean = torch.var_mean(x, list(axes), correction=0, keepdim=True)
    return (x - mean) / (torch.sqrt(variance) + 1e-9)


def lp_normalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    """Divide by the p-norm along the axis; zeros stay zeros."""
    norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return x / torch.where(norm == 0, torch.ones_like(norm), norm)


NORMALIZATIONS: Mapping[str, Operator] = {
    "BatchNormalization": batch_normalization,
    "GroupNormalization": group_normalization,
    "InstanceNormalization": instance_normalization,
    "LRN": local_response_normalization,
    "LayerNormalization": on_one_device(layer_normalization),
    "LpNormalization": lp_normalization,
    "MeanVarianceNormalization": mean_variance_normalization,
    "RMSNormalization": on_one_device(rms_normalization),
}
