"""Find the module that is meant, and a sample input for it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zeropoint.data.callables import load_reference
from zeropoint.errors import DataError, ModelError, RecipeError

if TYPE_CHECKING:
    import torch
Shapes = Mapping[str, Sequence[int]]
NO_SHAPES: Shapes = {}


def resolve(module: torch.nn.Module | str, args: object, shapes: Shapes, *, seed: int) -> tuple[torch.nn.Module, Any]:
    """Return the module and its positional arguments: as given, as the function at "module:function" returns them, or random ones.

    Raises:
        ModelError: the function cannot be imported or fails, or there is no nn.Module.
        RecipeError: there are arguments twice, none, or shapes that are not for them.
    """
    found, own = load_module(module)
    if own is not None:
        if args is not None or shapes:
            raise RecipeError(f"shapes: {module} returns arguments as well; leave the shapes out, or let it return the module alone")
        args = own
    if shapes:
        if args is not None:
            raise RecipeError("shapes: found arguments and shapes, expected one of them; random inputs of the shapes take args=None")
        return found, _random(found, shapes, seed=seed)
    if args is None:
        raise RecipeError(
            f"args: found none for {type(found).__name__}, expected a sample input; give one, or a shape for each of its inputs, as in "
            "shapes={'x': (1, 3, 224, 224)} or --shape x=1x3x224x224"
        )
    return found, args


def load_module(module: torch.nn.Module | str) -> tuple[torch.nn.Module, Any]:
    """Return the module and its positional arguments as the function at "module:function" returns them; None for arguments if it has none.

    Raises:
        ModelError: the function cannot be imported or fails, or there is no nn.Module.
    """
    import torch

    found: object = module
    args: object = None
    if isinstance(module, str):
        try:
            found = load_reference(module, returns="an nn.Module, or one and its arguments")
        except DataError as error:
            raise ModelError(str(error)) from error
        if isinstance(found, tuple) and len(found) == 2:
            found, args = found
    if not isinstance(found, torch.nn.Module):
        where = module if isinstance(module, str) else "module"
        raise ModelError(f"{where}: found {_kind(found)}, expected a torch.nn.Module, or from a function one and its arguments")
    return found, args


def _random(module: torch.nn.Module, shapes: Shapes, *, seed: int) -> tuple[object, ...]:
    import torch

    parameters = inspect.signature(module.forward).parameters
    unknown = next((name for name in shapes if name not in parameters), None)
    if unknown is not None:
        raise RecipeError(f"shapes: found {unknown!r}, expected parameters of {type(module).__name__}.forward: {', '.join(parameters)}")
    generator = np.random.default_rng(seed)
    given = list(parameters)[: 1 + max(list(parameters).index(name) for name in shapes)]
    missing = next((name for name in given if name not in shapes and parameters[name].default is inspect.Parameter.empty), None)
    if missing is not None:
        raise RecipeError(f"shapes: found none for {missing!r} of {type(module).__name__}.forward, expected one for each of its inputs")
    values = {name: generator.standard_normal(tuple(shape)).astype(np.float32) for name, shape in shapes.items()}
    return tuple(torch.from_numpy(values[name]) if name in values else parameters[name].default for name in given)


def _kind(found: object) -> str:
    return f"the class {found.__name__}" if isinstance(found, type) else f"a {type(found).__name__}"
