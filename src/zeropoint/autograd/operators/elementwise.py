"""Operators that work element by element: arithmetic, comparison, logic, rounding, types."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor

from zeropoint.autograd.operators.tensors import DTYPES, Operator, number, on_one_device, one_input, together, two_inputs

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz)


HALVES = (torch.float16, torch.bfloat16)


def add(a: Tensor, b: Tensor) -> Tensor:
    """Add; under autocast a float32 bias is added in the precision of the product, as a linear layer of torch's adds it."""
    if a.dtype != b.dtype:
        a = a.to(b.dtype) if b.dtype in HALVES and a.ndim <= 1 else a
        b = b.to(a.dtype) if a.dtype in HALVES and b.ndim <= 1 else b
    return torch.add(a, b)


def divide(a: Tensor, b: Tensor) -> Tensor:
    """Divide; integers towards zero."""
    return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def modulo(a: Tensor, b: Tensor, *, fmod: int = 0) -> Tensor:
    """Return the remainder with the sign of the divisor, or of the dividend as C's fmod does."""
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


def power(x: Tensor, exponent: Tensor) -> Tensor:
    """Raise to a power, in the type of the base."""
    constant = number(exponent)
    if isinstance(constant, Tensor):
        x, exponent = together(x, exponent)
        return torch.pow(x, exponent).to(x.dtype)
    return torch.pow(x, constant).to(x.dtype)


def clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Limit to [low, high]."""
    if low is None and high is None:
        return x
    limits = [None if limit is None else number(limit) for limit in (low, high)]
    if any(isinstance(limit, Tensor) for limit in limits):
        # torch takes limits of one kind, numbers or tensors.
        limits = [None if limit is None else limit.to(x.device, non_blocking=True) for limit in (low, high)]
    return torch.clamp(x, *limits)


def cast_to(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert to `dtype`; to 8-bit floating point with saturation."""
    if dtype in FLOAT8:
        limit = torch.finfo(dtype).max
        x = torch.clamp(x.float(), -limit, limit)
    return x.to(dtype)


def cast(x: Tensor, *, to: int, saturate: int = 1, round_mode: str = "up") -> Tensor:
    """Convert to the type with ONNX's number `to`; round_mode is only for types that torch lacks."""
    return cast_to(x, DTYPES[to])


def cast_like(x: Tensor, like: Tensor, *, saturate: int = 1, round_mode: str = "up") -> Tensor:
    """Convert to the type of `like`."""
    return cast_to(x, like.dtype)


def is_inf(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    """Tell which elements are infinite, with a sign that is asked for."""
    if detect_negative and detect_positive:
        return torch.isinf(x)
    if detect_positive:
        return torch.isposinf(x)
    return torch.isneginf(x) if detect_negative else torch.zeros_like(x, dtype=torch.bool)


def bit_shift(x: Tensor, by: Tensor, *, direction: str) -> Tensor:
    """Shift bits to the left or right."""
    return torch.bitwise_left_shift(x, by) if direction == "LEFT" else torch.bitwise_right_shift(x, by)


def where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Take a where the condition holds and b elsewhere."""
    return torch.where(condition, a, b)


def _any_number(function: Operator) -> Operator:
    def apply(*xs: Tensor) -> Tensor:
        return reduce(function, together(*xs))

    return apply


UNARY: Mapping[str, Operator] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseNot": torch.bitwise_not,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,  # half to even
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
}

BINARY: Mapping[str, Operator] = {
    "Add": add,
    "And": torch.logical_and,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Div": divide,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Mul": torch.mul,
    "Or": torch.logical_or,
    "Sub": torch.sub,
    "Xor": torch.logical_xor,
}

ELEMENTWISE: Mapping[str, Operator] = {
    **{name: one_input(function) for name, function in UNARY.items()},
    **{name: two_inputs(function) for name, function in BINARY.items()},
    "BitShift": on_one_device(bit_shift),
    "Cast": cast,
    "CastLike": cast_like,
    "Clip": clip,
    "Identity": lambda x: x,
    "IsInf": is_inf,
    "Max": _any_number(torch.maximum),
    "Mean": on_one_device(lambda *xs: reduce(torch.add, xs) / len(xs)),
    "Min": _any_number(torch.minimum),
    "Mod": on_one_device(modulo),
    "Pow": power,
    "Sum": _any_number(torch.add),
    "Where": on_one_device(where),
}
