"""Open what holds another quantizer's results: a file, a state dict, or a traced graph."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from zeropoint.errors import DataError
from zeropoint.torch.foreign.checkpoint import Given

WRAPPED_IN = ("model_state_dict", "state_dict", "model", "module", "network")
SHOWN = 5
REFUSED = re.compile(r"(?<=: )Unsupported [^\n]*?(?= was not|\.?\n|$)|[Ii]nvalid [^\n.]*")


def open_state(state: object, module: torch.nn.Module) -> Given:
    """Return the tensors of a checkpoint, under names as the float `module` has them, and what is stored beside them.

    state: a path of a file that torch.save wrote, a state dict, alone or in a dict with other things, or a GraphModule.

    Raises:
        DataError: the file cannot be read without running code in it, or there are no tensors.
    """
    if isinstance(state, str | Path):
        return _named_alike(_from_mapping(_loaded(Path(state)), str(state)), module)
    if isinstance(state, torch.export.ExportedProgram):
        state = state.module()
    if isinstance(state, torch.nn.Module):
        graph = state if isinstance(state, torch.fx.GraphModule) else None
        given = Given(where=f"the {type(state).__name__}", tensors=state.state_dict(), graph=graph)
        return given if graph is not None else _named_alike(given, module)
    if isinstance(state, Mapping):
        return _named_alike(_from_mapping(state, "state"), module)
    raise DataError(f"state: found a {type(state).__name__}, expected the path of a checkpoint, a state dict or a GraphModule")


def _loaded(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a file that torch.save wrote, check the path") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        told = REFUSED.search(str(error))
        reason = told[0] if told else type(error).__name__
        raise DataError(
            f"{path}: found more than tensors and plain values, or no such file ({reason}); it is not read, since code in it would run: "
            "save model.state_dict() and give that, or load it yourself (torch.load, torch.export.load) and give what that returns"
        ) from None


def _from_mapping(content: Any, where: str) -> Given:
    if isinstance(content, Mapping):
        tensors = _tensors(content)
        if tensors:
            return Given(where=where, tensors=tensors, metadata={k: v for k, v in content.items() if k not in tensors})
        for key in WRAPPED_IN:
            inner = content.get(key)
            tensors = _tensors(inner.state_dict() if isinstance(inner, torch.nn.Module) else inner)
            if tensors:
                return Given(where=where, tensors=tensors, metadata={str(name): value for name, value in content.items() if name != key})
    keys = ", ".join(map(str, list(content)[:SHOWN])) if isinstance(content, Mapping) else f"a {type(content).__name__}"
    raise DataError(f"{where}: found no tensors by name ({keys}), expected a state dict, alone or under one of {', '.join(WRAPPED_IN)}")


def _tensors(content: object) -> dict[str, torch.Tensor]:
    return {str(k): v for k, v in content.items() if isinstance(v, torch.Tensor)} if isinstance(content, Mapping) else {}


def _named_alike(given: Given, module: torch.nn.Module) -> Given:
    """Take away the names of wrappers, such as DataParallel's, that stand before all keys and that the module does not have."""
    tensors = dict(given.tensors)
    while True:
        first = {key.partition(".")[0] for key in tensors}
        own = {
            name for name, _ in (*module.named_children(), *module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        }
        if len(first) != 1 or first <= own or not all("." in key for key in tensors):
            return replace(given, tensors=tensors)
        tensors = {key.partition(".")[2]: value for key, value in tensors.items()}
