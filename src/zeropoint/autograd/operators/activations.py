"""Activation functions, each as torch's fused one where that means the same."""

from __future__ import annotations

from collections.abc import Mapping
from math import isclose

import torch
import torch.nn.functional as F
from torch import Tensor

from zeropoint.autograd.operators.tensors import Operator, on_one_device, one_input

SELU_ALPHA, SELU_GAMMA = 1.6732631921768188, 1.0507010221481323


def hard_sigmoid(x: Tensor, *, alpha: float = 0.20000000298023224, beta: float = 0.5) -> Tensor:
    """Return alpha·x + beta limited to [0, 1]."""
    # torch's own has the slope 1/6, which networks that were trained with it store as a float32.
    if beta == 0.5 and isclose(alpha, 1 / 6, rel_tol=1e-6):
        return F.hardsigmoid(x)
    return torch.clamp(alpha * x + beta, 0, 1)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """Scale negative elements by a slope that broadcasts to x; one slope per channel is the fused case."""
    per_channel = 0 < slope.ndim == x.ndim - 1 and slope.numel() == slope.shape[0]
    if x.is_floating_point() and (slope.numel() == 1 or per_channel):
        return F.prelu(x, slope.reshape(-1))
    return torch.where(x < 0, x * slope, x)


def selu(x: Tensor, *, alpha: float = SELU_ALPHA, gamma: float = SELU_GAMMA) -> Tensor:
    """Return gamma times the ELU with alpha."""
    fused = isclose(alpha, SELU_ALPHA, rel_tol=1e-6) and isclose(gamma, SELU_GAMMA, rel_tol=1e-6)
    return F.selu(x) if fused else gamma * F.elu(x, alpha)


def swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Return x · sigmoid(alpha·x)."""
    return F.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)


def shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    """Move elements outside [-lambd, lambd] towards zero by `bias`, and make the others zero."""
    moved = torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, torch.zeros_like(x)))
    return moved.to(x.dtype)


def hardmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """Return 1 at the first largest element along the axis and 0 elsewhere."""
    return torch.zeros_like(x).scatter(axis, torch.argmax(x, axis, keepdim=True), 1)


ACTIVATIONS: Mapping[str, Operator] = {
    "Celu": lambda x, *, alpha=1.0: F.celu(x, alpha),
    "Elu": lambda x, *, alpha=1.0: F.elu(x, alpha),
    "Gelu": lambda x, *, approximate="none": F.gelu(x, approximate=approximate),
    "HardSigmoid": hard_sigmoid,
    "HardSwish": one_input(F.hardswish),
    "Hardmax": hardmax,
    "LeakyRelu": lambda x, *, alpha=0.009999999776482582: F.leaky_relu(x, alpha),
    "LogSoftmax": lambda x, *, axis=-1: F.log_softmax(x, axis),
    "Mish": one_input(F.mish),
    "PRelu": on_one_device(prelu),
    "Relu": one_input(F.relu),
    "Selu": selu,
    "Shrink": shrink,
    "Sigmoid": one_input(torch.sigmoid),
    "Softmax": lambda x, *, axis=-1: F.softmax(x, axis),
    "Softplus": one_input(F.softplus),
    "Softsign": one_input(F.softsign),
    "Swish": swish,
    "Tanh": one_input(torch.tanh),
    "ThresholdedRelu": lambda x, *, alpha=1.0: F.threshold(x, alpha, 0.0),
}
