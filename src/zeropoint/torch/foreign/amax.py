"""Quantizers that store the largest magnitude of what they quantize, `amax`: their keys, and the grids that these stand for."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np

from zeropoint.errors import DataError, ModelError
from zeropoint.notes import Note
from zeropoint.torch.foreign.checkpoint import Float64Array, Grid, Input, Inside, Output, Place, Quantizer, Weight, as_float64, checked_grid

if TYPE_CHECKING:
    import torch

QMAX = 127
AMAX = "_amax"
IN_QUANTIZER = re.compile(r"(^|\.)[^.]*quantizers?(\.|$)")


@dataclass(frozen=True, slots=True)
class Names:
    """What a quantizer calls those of a module's input, output and weight."""

    input: str
    weight: str
    output: str = ""


def divided(
    tensors: Mapping[str, torch.Tensor], module: torch.nn.Module, *, used: Collection[str]
) -> tuple[dict[str, torch.Tensor], tuple[Note, ...]]:
    """Return the tensors of the float network, and a note for each that a quantizer holds beside those that were `used`."""
    own, weights, notes = module.state_dict().keys(), dict[str, Any](), []
    quantizers = {key.rpartition(".")[0] for key in used}
    for key, value in tensors.items():
        if key in own or (IN_QUANTIZER.search(key) is None and key.rpartition(".")[0] not in quantizers and key not in used):
            weights[key] = value
        elif key not in used:
            notes.append(Note(key, "not used: it is none of the numbers by which an activation or a weight is rounded to 8 bits"))
    return weights, tuple(notes)


def quantizers(amaxes: Mapping[str, torch.Tensor], module: torch.nn.Module, names: Names) -> tuple[tuple[Quantizer, ...], tuple[Note, ...]]:
    """Return the quantizers of `amaxes` by their names, and notes on those that store what has no counterpart.

    Raises:
        ModelError: it belongs to the weight of a module that the network does not have.
        DataError: amax is NaN, infinite, negative or 0, or does not fit the weight.
    """
    modules = dict(module.named_modules())
    found = [_quantizer(name, amax, modules, names) for name, amax in amaxes.items()]
    notes = tuple(item for item in found if isinstance(item, Note))
    return tuple(item for item in found if not isinstance(item, Note)), notes


def _quantizer(name: str, amax: torch.Tensor, modules: Mapping[str, torch.nn.Module], names: Names) -> Quantizer | Note:
    owner, _, kind = name.rpartition(".")
    values = as_float64(amax)
    if kind == names.weight:
        weight = _weight(owner, name, modules)
        axis, amaxes = _per_channel(values, tuple(weight.shape), name)
        dead = _dead(as_float64(weight), axis)
        grid = checked_grid(_grid(amaxes, axis), name, may_be_zero=bool(dead.all() if axis is None else dead[amaxes == 0.0].all()))
        return Quantizer(name, (Weight(owner),), grid)
    if values.size != 1:
        return Note(name, f"not imported: found {values.size} amax for an activation, and a tensor between operators takes one scale only")
    grid = checked_grid(_grid(values.reshape(()), None), name)
    return Quantizer(name, (_place(owner, kind, modules, names),), grid)


def _place(owner: str, kind: str, modules: Mapping[str, torch.nn.Module], names: Names) -> Place:
    if owner in modules and kind == names.input:
        return Input(owner)
    if owner in modules and kind == names.output:
        return Output(owner)
    while owner not in modules:
        owner = owner.rpartition(".")[0]
    return Inside(owner)


def _weight(owner: str, name: str, modules: Mapping[str, torch.nn.Module]) -> torch.Tensor:
    weight = getattr(modules.get(owner), "weight", None)
    if weight is None:
        like = get_close_matches(owner, modules, n=3) or [path for path, part in modules.items() if hasattr(part, "weight")][:3]
        raise ModelError(
            f"{name}: found no module {owner!r} with a weight in the float network, expected one as in {', '.join(map(repr, like))}; give "
            "the network that was quantized, before it was, or rename the checkpoint's keys"
        )
    found: torch.Tensor = weight
    return found


def _per_channel(values: Float64Array, shape: tuple[int, ...], name: str) -> tuple[int | None, Float64Array]:
    """Return the axis of the weight that each amax stands for, and one amax per index of it; None and one for the whole weight."""
    if values.size == 1:
        return None, values.reshape(())
    long = [axis for axis, size in enumerate(values.shape) if size > 1]
    if values.ndim == 1 and values.size == shape[0]:
        return 0, values
    if values.ndim == len(shape) and len(long) == 1 and values.shape[long[0]] == shape[long[0]]:
        return long[0], values.reshape(-1)
    raise DataError(
        f"{name}: found amax of shape {values.shape} for a weight of shape {shape}, expected one, or one for each channel with the other "
        "axes kept at 1; blocks, as those of 4-bit formats, have no counterpart: quantize the float network with zeropoint instead"
    )


def _dead(weight: Float64Array, axis: int | None) -> Float64Array:
    return np.asarray(~weight.any() if axis is None else ~np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).any(axis=1))


def _grid(amax: Float64Array, axis: int | None) -> Grid:
    return Grid(amax / QMAX, np.zeros(amax.shape, np.int64), -QMAX - 1, QMAX, axis)
