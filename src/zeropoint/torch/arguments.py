"""What a module is called with: its tensors by name, which axes of them are dynamic, and others of the same kind to check by."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from zeropoint.data.inputs import Array, InputInfo, batch_axis
from zeropoint.errors import DataError, RecipeError

if TYPE_CHECKING:
    import torch

Axes = Mapping[tuple[int, int], str]  # number of the tensor among the inputs, axis -> the axis's name
DynamicAxes = Mapping[str, Mapping[int, str]] | Literal["batch", "none"]
BATCH = "batch"


@dataclass(frozen=True, slots=True, eq=False)
class Arguments:
    """A call of a module: `values` by parameter of its forward, in the parameters' order; `names` of the tensors in them."""

    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    values: Mapping[str, object]
    names: tuple[str, ...]

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All tensors, in the order of the network's inputs."""
        return tuple(tensor for value in self.values.values() for _, tensor in leaves(value))

    @property
    def infos(self) -> tuple[InputInfo, ...]:
        """Name, dtype and shape of each tensor."""
        arrays = map(as_numpy, self.tensors)
        return tuple(InputInfo(name, array.dtype, array.shape) for name, array in zip(self.names, arrays, strict=True))

    @property
    def feed(self) -> dict[str, Array]:
        """The tensors as arrays, by name of the input."""
        return dict(zip(self.names, map(as_numpy, self.tensors), strict=True))

    def replaced(self, tensors: Sequence[torch.Tensor]) -> Arguments:
        """Return the same call with other tensors."""
        queue = iter(tensors)
        args = tuple(mapped(value, lambda _: next(queue)) for value in self.args)
        kwargs = {name: mapped(value, lambda _: next(queue)) for name, value in self.kwargs.items()}
        queue = iter(tensors)
        return Arguments(args, kwargs, {name: mapped(v, lambda _: next(queue)) for name, v in self.values.items()}, self.names)


def bind(module: torch.nn.Module, args: object, kwargs: Mapping[str, object], *, names: Sequence[str]) -> Arguments:
    """Take the arguments of a call as `module.forward` would, and name their tensors: as asked, or as its parameters are called.

    Raises:
        DataError: forward cannot be called so, or there is no tensor.
        RecipeError: there are not as many names as tensors, or one is there twice.
    """
    given = tuple(args) if isinstance(args, tuple | list) else (args,)
    try:
        bound = inspect.signature(module.forward).bind(*given, **kwargs).arguments
    except TypeError as error:
        raise DataError(
            f"args: {type(module).__name__}.forward cannot be called with them ({error}); expected a tensor, or a tuple of its arguments"
        ) from None
    # The exporter's inputs stand as the arguments are given; those by keyword are put in the order of the parameters.
    ordered = {name: kwargs[name] for name in (*bound, *kwargs) if name in kwargs}
    labels = tuple(f"{name}{path}" for name, value in bound.items() for path, _ in leaves(value))
    if not labels:
        raise DataError(f"args: found no tensor in the arguments of {type(module).__name__}, expected one at least; give it a sample input")
    return Arguments(given, ordered, bound, checked_names(names, labels, option="input_names", what="tensors in the arguments"))


def checked_names(names: Sequence[str], found: Sequence[str], *, option: str, what: str) -> tuple[str, ...]:
    """Return `names`, or where there are none `found`.

    Raises:
        RecipeError: there are not as many as found, or one is there twice.
    """
    if not names:
        return tuple(found)
    if len(names) != len(found) or len(set(names)) != len(names) or not all(names):
        raise RecipeError(f"{option}: found {list(names)}, expected a name each for the {len(found)} {what}: {', '.join(found)}")
    return tuple(names)


def leaves(value: object) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors in lists, tuples and dicts, each behind what leads to it, as in `_0_mask`."""
    import torch

    if isinstance(value, torch.Tensor):
        yield "", value
    elif isinstance(value, Mapping):
        yield from ((f"_{key}{path}", tensor) for key, inner in value.items() for path, tensor in leaves(inner))
    elif isinstance(value, list | tuple):
        yield from ((f"_{number}{path}", tensor) for number, inner in enumerate(value) for path, tensor in leaves(inner))


def mapped(value: Any, change: Callable[[torch.Tensor], object], *, other: Callable[[object], object] = lambda value: value) -> Any:
    """Return `value` with each tensor in it changed, in the same lists, tuples and dicts; what else is there becomes `other` of it."""
    import torch

    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: mapped(inner, change, other=other) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        changed = [mapped(inner, change, other=other) for inner in value]
        return changed if isinstance(value, list) else tuple(changed)
    return other(value)


def as_numpy(tensor: torch.Tensor) -> Array:
    """Return a tensor as an array of its own type.

    Raises:
        DataError: numpy has no such type.
    """
    try:
        array: Array = tensor.detach().cpu().numpy()
    except TypeError:
        raise DataError(f"found a tensor of {tensor.dtype}, expected a type that arrays have; use module.float() and float32") from None
    return array


def dynamic(arguments: Arguments, wanted: DynamicAxes) -> Axes:
    """Return the axes that are dynamic: the batch axis of the inputs that have one, none, or those that are named.

    Raises:
        RecipeError: there is no such input or axis, or one name stands for two lengths.
    """
    if wanted == "none":
        return {}
    if wanted == BATCH:
        batched = batch_axis(arguments.infos).names
        return {(number, 0): BATCH for number, name in enumerate(arguments.names) if name in batched}
    if isinstance(wanted, str):
        raise RecipeError(f"dynamic_axes: found {wanted!r}, expected 'batch', 'none', or axes by input as in {{'image': {{0: 'batch'}}}}")
    shapes = {info.name: info.shape for info in arguments.infos}
    axes, lengths = {}, dict[str, int | None]()
    for name, named in wanted.items():
        if name not in shapes:
            raise RecipeError(f"dynamic_axes: found input {name!r}, expected one of {', '.join(shapes)}")
        for axis, text in named.items():
            if not 0 <= axis < len(shapes[name]) or not str(text).isidentifier():
                raise RecipeError(f"dynamic_axes: {name!r}: found {axis}: {text!r}, expected an axis of {shapes[name]} and a name for it")
            length = shapes[name][axis]
            if lengths.setdefault(text, length) != length:
                raise RecipeError(f"dynamic_axes: {text!r}: found lengths {lengths[text]} and {length} in the arguments, expected the same")
            axes[arguments.names.index(name), axis] = text
    return axes


def at_other_size(arguments: Arguments, axes: Axes) -> dict[tuple[int, int], int]:
    """Return another length for each dynamic axis: one more of a batch, twice as much of what strides may have to divide."""
    tensors = arguments.tensors
    return {(n, axis): tensors[n].shape[axis] + 1 if axis == 0 else 2 * tensors[n].shape[axis] for (n, axis) in axes}


def drawn(arguments: Arguments, *, seed: int, sizes: Mapping[tuple[int, int], int]) -> Arguments:
    """Return the call with tensors of values drawn from those given, so that indices stay in range, at `sizes` where these say so.

    Floats that are all alike, as zeros and ones are, become standard normal ones.
    """
    import torch

    generator = np.random.default_rng(seed)
    tensors = []
    for number, tensor in enumerate(arguments.tensors):
        shape = tuple(sizes.get((number, axis), length) for axis, length in enumerate(tensor.shape))
        values = as_numpy(tensor).reshape(-1)
        if tensor.is_floating_point() and (values.size == 0 or values.min() == values.max()):
            array = generator.standard_normal(shape).astype(values.dtype)
        else:
            array = generator.choice(values, shape) if values.size else np.zeros(shape, values.dtype)
        tensors.append(torch.from_numpy(np.asarray(array)).to(tensor.device))
    return arguments.replaced(tensors)


def repeated(arguments: Arguments, axes: Axes) -> Arguments:
    """Return the call with axes of length 1 that are to be dynamic at length 2: tracing takes a 1 for a constant."""
    tensors = list(arguments.tensors)
    for number, axis in axes:
        if tensors[number].shape[axis] == 1:
            tensors[number] = tensors[number].repeat_interleave(2, axis)
    return arguments.replaced(tensors)
