"""Put a checkpoint's float weights into a copy of the float module."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch

from zeropoint.errors import DataError, ModelError
from zeropoint.notes import Note, counted
from zeropoint.torch.foreign.checkpoint import Checkpoint

FACTOR = "pre_quant_scale"
MADE_IN_TRAINING = "num_batches_tracked"
SHOWN = 3


def with_weights(module: torch.nn.Module, checkpoint: Checkpoint) -> tuple[torch.nn.Module, tuple[Note, ...]]:
    """Return a copy of `module` in eval mode with the checkpoint's weights, and notes on what is different in it.

    Batch normalization that the weights hold already becomes an Identity, and a factor a product before the module that it is for.

    Raises:
        ModelError: the checkpoint has weights that the module lacks, or the other way round, or of another shape.
        DataError: a weight is stored in codes.
    """
    copied = deepcopy(module).eval()
    notes = []
    for path in checkpoint.norms:
        copied.set_submodule(path, torch.nn.Identity())
        notes.append(Note(path, "batch normalization is an Identity: the weights of the checkpoint hold it already"))
    for name in checkpoint.weights:
        _give_bias(copied, name, checkpoint.weights[name])
    if checkpoint.weights:
        _check(copied, checkpoint.weights)
        copied.load_state_dict(dict(checkpoint.weights), strict=False)
    else:
        notes.append(Note("weights", "the checkpoint holds none: they are the module's own", kind="warning"))
    for path, factor in checkpoint.factors.items():
        _multiply_input(copied, path, factor)
        notes.append(Note(path, "its input is multiplied by pre_quant_scale, as when it was quantized: a Mul in the network"))
    return copied, tuple(notes)


def _give_bias(module: torch.nn.Module, name: str, value: Any) -> None:
    """Register a bias where what was folded into a module brought one along."""
    path, _, parameter = name.rpartition(".")
    part = dict(module.named_modules()).get(path)
    if parameter == "bias" and part is not None and getattr(part, "bias", value) is None:
        part.bias = torch.nn.Parameter(torch.zeros_like(value, device=part.weight.device), requires_grad=False)


def _check(module: torch.nn.Module, weights: Mapping[str, Any]) -> None:
    own = module.state_dict()
    missing = [key for key in own if key not in weights and not key.endswith(MADE_IN_TRAINING)]
    unknown = [key for key in weights if key not in own]
    if missing or unknown:
        told = [f"none for {_listed(missing)}"] * bool(missing) + [f"{_listed(unknown)}, which it lacks"] * bool(unknown)
        raise ModelError(
            f"{type(module).__name__}: found {' and '.join(told)} among the checkpoint's weights, expected one for each parameter and "
            "buffer; give the float network that was quantized"
        )
    for key, value in weights.items():
        if value.shape != own[key].shape:
            raise ModelError(
                f"{key}: found shape {tuple(value.shape)} in the checkpoint, expected {tuple(own[key].shape)}; give the network that was "
                "quantized, and a checkpoint that was not compressed"
            )
        if own[key].is_floating_point() and not value.is_floating_point():
            raise DataError(f"{key}: found {value.dtype} in the checkpoint, expected float weights; save it before it is converted")
        if own[key].is_floating_point() and not torch.isfinite(value).all():
            raise DataError(f"{key}: found NaN or infinity in the checkpoint, expected numbers; look at how it was trained")


def _listed(keys: list[str]) -> str:
    more = len(keys) - SHOWN
    return ", ".join(keys[:SHOWN]) + (f" and {counted(more, 'other')}" if more > 0 else "")


def _multiply_input(module: torch.nn.Module, path: str, factor: Any) -> None:
    part = dict(module.named_modules()).get(path)
    if part is None:
        raise ModelError(f"{path}: found a pre_quant_scale for it, but no such module; give the float network that was quantized")
    if not torch.isfinite(factor).all():
        raise DataError(f"{path}: found NaN or infinity in its pre_quant_scale, expected numbers; quantize it again")
    device = next((tensor.device for tensor in part.parameters()), factor.device)
    part.register_buffer(FACTOR, factor.detach().clone().to(device, torch.float32))
    part.register_forward_pre_hook(_multiplied)


def _multiplied(module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return (arguments[0] * getattr(module, FACTOR), *arguments[1:])
