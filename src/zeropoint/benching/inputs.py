"""What networks are fed while they are timed: numbers of the right shape, which mean nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from zeropoint.data import Array, Feed, InputInfo
from zeropoint.data.fit import is_float
from zeropoint.data.inputs import batch_axis, shape_text
from zeropoint.errors import RecipeError

SEED = 0
Shapes = Mapping[str, tuple[int, ...]]


def check_shapes(models: Sequence[Sequence[InputInfo]], shapes: Shapes) -> None:
    """Refuse a shape for what is an input of none of the models.

    Raises:
        RecipeError: `shapes` names no input.
    """
    known = dict.fromkeys(info.name for inputs in models for info in inputs)
    unknown = sorted(shapes.keys() - known.keys())
    if unknown:
        names = ", ".join(map(repr, known))
        raise RecipeError(f"shape: found the name {unknown[0]!r}, expected an input of a network: {names}")


def numbers(inputs: Sequence[InputInfo], *, shapes: Shapes, batch: int | None, file: str) -> tuple[Feed, int]:
    """Return a feed, and how many samples it holds: standard normal floats, the same at each call, and zeros for all other types.

    Zeros are in range as index, token and mask alike; floats are not zero, since some kernels skip those. shapes: of inputs by name, others
    are ignored; dynamic axes that none is given for are 1. batch: what a dynamic batch axis is; None for the shapes as they are.

    Raises:
        RecipeError: a shape does not fit, or the network has no batch axis of the size `batch`.
    """
    batched = batch_axis(inputs)
    feed: Feed = {}
    for info in inputs:
        sizes = tuple(1 if size is None else size for size in info.shape)
        if batch is not None and info.name in batched.names and info.shape[0] is None:
            sizes = (batch, *sizes[1:])
        shape = shapes.get(info.name, sizes)
        if not info.takes(shape):
            raise RecipeError(f"shape: {file}: found {shape} for {info.name!r}, expected one that fits {shape_text(info.shape)}")
        feed[info.name] = _draw(info, shape)
    found = sorted({feed[name].shape[0] for name in batched.names})
    samples = found[0] if len(found) == 1 else 1
    if batch is not None and samples != batch:
        declared = ", ".join(f"{info.name} {shape_text(info.shape)}" for info in inputs)
        raise RecipeError(
            f"batch: {file}: found {batch}, expected {samples}, which is fixed there ({declared}); "
            "export the network with a dynamic batch axis, or leave the batch as it is"
        )
    return feed, samples


def guessed(inputs: Sequence[InputInfo], shapes: Shapes) -> tuple[str, ...]:
    """Return the inputs of which an axis that counts no samples is dynamic, and no shape is given: 1 is a guess there."""
    batched = batch_axis(inputs).names
    return tuple(info.name for info in inputs if info.name not in shapes and None in info.shape[1 if info.name in batched else 0 :])


def _draw(info: InputInfo, shape: tuple[int, ...]) -> Array:
    if info.dtype == np.object_:
        return np.full(shape, "", np.object_)
    if is_float(info.dtype):
        return np.asarray(np.random.default_rng(SEED).standard_normal(shape)).astype(info.dtype)
    return np.zeros(shape, info.dtype)
