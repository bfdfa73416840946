"""What the operators share: ONNX's types in torch, tensors on one device, and small tensors read as numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Operator: TypeAlias = Callable[..., Any]

# By the numbers of onnx.TensorProto.DataType. Strings and types narrower than a byte have none in torch.
DTYPES: dict[int, torch.dtype] = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    4: torch.uint16,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    12: torch.uint32,
    13: torch.uint64,
    14: torch.complex64,
    15: torch.complex128,
    16: torch.bfloat16,
    17: torch.float8_e4m3fn,
    18: torch.float8_e4m3fnuz,
    19: torch.float8_e5m2,
    20: torch.float8_e5m2fnuz,
}

# Codes narrower than a byte, which are stored in bytes, one each: the type that stores them, and their limits.
NARROW = {21: (torch.uint8, 0, 15), 22: (torch.int8, -8, 7), 25: (torch.uint8, 0, 3), 26: (torch.int8, -2, 1)}
# By the names of numpy's and ml_dtypes' types: those that torch doesn't read, but knows under the same name, or in another type.
_SAME_BITS = {"bfloat16": np.int16, **dict.fromkeys(("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"), np.uint8)}
_WIDER = {"int4": np.int8, "uint4": np.uint8, "int2": np.int8, "uint2": np.uint8}


def tensor_of(array: npt.NDArray[Any]) -> Tensor:
    """Return a copy of an array as a tensor on the CPU; codes narrower than a byte take a byte each.

    Raises:
        TypeError: torch has no such type.
    """
    name = array.dtype.name
    if name in _SAME_BITS:
        return torch.from_numpy(array.view(_SAME_BITS[name]).copy()).view(getattr(torch, name))
    return torch.from_numpy(array.astype(_WIDER.get(name, array.dtype), copy=True))


def together(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """Return the tensors on one device: those on the CPU follow the first that is not, without waiting for it."""
    device = next((t.device for t in tensors if t is not None and t.device.type != "cpu"), None)
    if device is None:
        return tensors
    # The copies are small and pageable: CUDA takes them before the call returns, in the order of the stream.
    return tuple(t.to(device, non_blocking=True) if t is not None and t.device.type == "cpu" else t for t in tensors)


def on_one_device(function: Operator) -> Operator:
    """Let `function` take inputs from the CPU beside those of a GPU."""

    @wraps(function)
    def apply(*inputs: Tensor | None, **attributes: Any) -> Any:
        return function(*together(*inputs), **attributes)

    return apply


def one_input(function: Operator) -> Operator:
    """Give a function of torch's, which may have no signature or parameters of its own, that of an operator without attributes."""

    def apply(x: Tensor) -> Tensor:
        return function(x)

    return apply


def two_inputs(function: Operator) -> Operator:
    """Do so for two inputs, one of which may be on the CPU."""

    def apply(a: Tensor, b: Tensor) -> Tensor:
        return function(*together(a, b))

    return apply


def ints(tensor: Tensor) -> list[int]:
    """Return a small tensor of integers as a flat list."""
    return [int(value) for value in tensor.reshape(-1).tolist()]


def number(tensor: Tensor) -> Any:
    """Return a constant single value on the CPU as a Python number, which is the quicker argument, and anything else as it is."""
    return tensor.item() if tensor.numel() == 1 and tensor.device.type == "cpu" and not tensor.requires_grad else tensor


def wrapped(indices: Tensor, size: int) -> Tensor:
    """Return indices into an axis of `size` as int64 from 0, where ONNX counts negative ones from the end."""
    indices = indices.long()
    if indices.device.type == "cpu" and not bool((indices < 0).any()):
        return indices
    return torch.where(indices < 0, indices + size, indices)


def through(dtype: torch.dtype, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function that torch has for floating point alone to `x`, in `dtype` where `x` holds integers, and return x's own type."""
    return function(x) if x.is_floating_point() else function(x.to(dtype)).to(x.dtype)


def flat_pads(pads: Sequence[tuple[int, int]]) -> list[int]:
    """Return (begin, end) of each of the last axes as F.pad takes them: last axis first."""
    return [amount for pair in reversed(pads) for amount in pair]
