"""Quantize trained networks to INT8 Q/DQ form, measure what that costs, and say why."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zeropoint import torch as torch
    from zeropoint.api import bench, compare, doctor, inspect, lint, quantize, solve, solve_range
    from zeropoint.errors import DataError, ModelError, OutputError, PlanError, RecipeError, ZeropointError
    from zeropoint.numerics.affine import QParams, Range, dequantize_array, qparams_from_range, quantize_array
    from zeropoint.numerics.formats import FORMATS
    from zeropoint.numerics.spec import PerBlock, PerChannel, PerTensor, Spec
    from zeropoint.recipe import Recipe

# The facade is found where it is first used: `import zeropoint` alone loads no runtime.
_HOMES = {
    # networks
    "quantize": "zeropoint.api.quantizing",
    "solve": "zeropoint.api.quantizing",
    "inspect": "zeropoint.api.inspecting",
    "lint": "zeropoint.api.inspecting",
    "compare": "zeropoint.api.comparing",
    "bench": "zeropoint.api.benching",
    "doctor": "zeropoint.api.machine",
    "Recipe": "zeropoint.recipe",
    # arrays
    "quantize_array": "zeropoint.numerics.affine",
    "dequantize_array": "zeropoint.numerics.affine",
    "solve_range": "zeropoint.api.ranges",
    "qparams_from_range": "zeropoint.numerics.affine",
    "QParams": "zeropoint.numerics.affine",
    "Range": "zeropoint.numerics.affine",
    "FORMATS": "zeropoint.numerics.formats",
    "Spec": "zeropoint.numerics.spec",
    "PerTensor": "zeropoint.numerics.spec",
    "PerChannel": "zeropoint.numerics.spec",
    "PerBlock": "zeropoint.numerics.spec",
    # errors
    "ZeropointError": "zeropoint.errors",
    "ModelError": "zeropoint.errors",
    "DataError": "zeropoint.errors",
    "RecipeError": "zeropoint.errors",
    "PlanError": "zeropoint.errors",
    "OutputError": "zeropoint.errors",
}

__all__ = [  # noqa: RUF022  (grouped as _HOMES is)
    # networks
    "quantize",
    "solve",
    "inspect",
    "lint",
    "compare",
    "bench",
    "doctor",
    "Recipe",
    # arrays
    "quantize_array",
    "dequantize_array",
    "solve_range",
    "qparams_from_range",
    "QParams",
    "Range",
    "FORMATS",
    "Spec",
    "PerTensor",
    "PerChannel",
    "PerBlock",
    # errors
    "ZeropointError",
    "ModelError",
    "DataError",
    "RecipeError",
    "PlanError",
    "OutputError",
]


def __getattr__(name: str) -> Any:
    if name == "torch":  # a package of its own, so that its functions may be called as PyTorch's are
        return importlib.import_module("zeropoint.torch")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "__version__":
        from zeropoint.release import own_version

        return own_version()
    raise AttributeError(f"module 'zeropoint' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "torch", "__version__"])
