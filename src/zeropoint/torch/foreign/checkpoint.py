"""What a checkpoint of another quantizer says, in one form for all of them: grids of codes, what each one quantizes, and float weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zeropoint.errors import DataError
from zeropoint.notes import Note

if TYPE_CHECKING:
    import torch

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
NORMALIZES = frozenset({"batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit", "cudnn_batch_norm"})
FEWEST_CODES = 127  # above the lowest one: of 7 bits, to which some kernels keep for fear of overflow


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The reals that codes stand for: scale * (code - zero_point), with codes from qmin to qmax.

    scale: float64, zero_point: int64, of shape (), or (channels,) along `axis` of the weight.
    """

    scale: Float64Array
    zero_point: Int64Array
    qmin: int
    qmax: int
    axis: int | None = None

    @property
    def is_symmetric(self) -> bool:
        """Whether 0 lies in the middle of the codes."""
        return bool((self.zero_point * 2 == self.qmin + self.qmax + (self.qmax - self.qmin) % 2).all())

    @property
    def amax(self) -> Float64Array:
        """The largest magnitude that the codes reach; of a symmetric grid without the lowest code, which has no counterpart."""
        highest = (self.qmax - self.zero_point) * self.scale
        return highest if self.is_symmetric else np.maximum(highest, (self.zero_point - self.qmin) * self.scale)


@dataclass(frozen=True, slots=True)
class Input:
    """What the module called `module` is fed; of a convolution or linear layer what meets its weight."""

    module: str


@dataclass(frozen=True, slots=True)
class Output:
    """What the module gives out."""

    module: str


@dataclass(frozen=True, slots=True)
class Weight:
    """The module's parameter `weight`; `folded` where batch normalization was folded into it before it was quantized."""

    module: str
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Inside:
    """Something in the module that only its code tells: a skip connection, or an operand of a product."""

    module: str


@dataclass(frozen=True, slots=True)
class Operand:
    """The input `index` (or the output, where None) of the `number`-th `operator`, of `count`, that the module itself calls."""

    module: str
    operator: str
    number: int
    count: int
    index: int | None


@dataclass(frozen=True, slots=True)
class NetworkInput:
    """The network's input of that number."""

    number: int


Place = Input | Output | Weight | Inside | Operand | NetworkInput


@dataclass(frozen=True, slots=True, eq=False)
class Quantizer:
    """One quantizer: its name in the checkpoint, all places that its grid is for, and the grid."""

    name: str
    places: tuple[Place, ...]
    grid: Grid


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Checkpoint:
    """All that was read.

    weights: float tensors as the float module calls them. norms: batch normalizations that the weights hold already. factors: by which
    the input of a module is multiplied before it is quantized.
    """

    quantizers: tuple[Quantizer, ...]
    weights: Mapping[str, torch.Tensor]
    norms: tuple[str, ...] = ()
    factors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Given:
    """What the user gave: the tensors by name, the traced graph where there is one, and what was stored beside them."""

    where: str
    tensors: Mapping[str, torch.Tensor]
    graph: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Format:
    """One quantizer's way to write. keys: what it is known by, in words. read: from what was given, for the float module."""

    name: str
    keys: str
    recognizes: Callable[[Given], bool]
    read: Callable[[Given, torch.nn.Module], Checkpoint]


def checked_grid(grid: Grid, where: str, *, may_be_zero: bool = False) -> Grid:
    """Return `grid` where it can be used.

    Raises:
        DataError: a scale is NaN, infinite, negative or 0, or there are codes of less than 7 or more than 8 bits.
    """
    unusable = ~np.isfinite(grid.scale) | (grid.scale < 0.0) | ((grid.scale == 0.0) & (not may_be_zero))
    if unusable.any():
        raise DataError(
            f"{where}: found {np.asarray(grid.scale)[unusable].flat[0]} among its amax or scales, expected positive numbers; it was not "
            "calibrated, or saw no values: calibrate it again, or take its keys out of the checkpoint"
        )
    if not FEWEST_CODES <= grid.qmax - grid.qmin <= 255:
        raise DataError(
            f"{where}: found codes from {grid.qmin} to {grid.qmax}, expected 8 bits; quantize the float network with zeropoint instead"
        )
    return grid


def operator_kind(target: str) -> str:
    """Return what an operator of ATen does: its name without overload, and whatever its form; "" for what is none of ATen's.

    Example:
        >>> operator_kind("aten.add_.Tensor")
        'add'
    """
    name = target.split(".")[1].rstrip("_") if target.startswith("aten.") else ""
    return "batch_norm" if name in NORMALIZES else name


def as_float64(tensor: torch.Tensor) -> Float64Array:
    """Return the numbers of a tensor."""
    return np.asarray(tensor.detach().cpu().double().numpy())
