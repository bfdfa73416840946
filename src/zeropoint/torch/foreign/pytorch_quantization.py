"""NVIDIA's pytorch-quantization: `PATH._input_quantizer._amax`, `PATH._weight_quantizer._amax`, and TensorQuantizers of other names.

A TensorQuantizer of b bits rounds x * (2**(b - 1) - 1) / amax to integers; the state dict holds amax, and neither bits nor signs.
"""

from __future__ import annotations

import torch

from zeropoint.torch.foreign.amax import AMAX, Names, divided, quantizers
from zeropoint.torch.foreign.checkpoint import Checkpoint, Format, Given

NAMES = Names(input="_input_quantizer", weight="_weight_quantizer")
LEARNED = ("clip.clip_value_min", "clip.clip_value_max")  # where amax was learned, these count and not the buffer


def recognizes(given: Given) -> bool:
    """Return whether there is an amax, of whatever quantizer."""
    return any(key.endswith(f".{AMAX}") or key.endswith(LEARNED) for key in given.tensors)


def read(given: Given, module: torch.nn.Module) -> Checkpoint:
    """Return the quantizers and the weights.

    Raises:
        ModelError: a quantized weight belongs to a module that the network does not have.
        DataError: an amax cannot be used.
    """
    found = {key.removesuffix(f".{AMAX}"): value for key, value in given.tensors.items() if key.endswith(f".{AMAX}")}
    for key, value in given.tensors.items():
        if key.endswith(f".{LEARNED[1]}"):
            name = key.removesuffix(f".{LEARNED[1]}")
            low = given.tensors.get(f"{name}.{LEARNED[0]}", -value)
            found[name] = torch.maximum(-low, value)
    found_quantizers, notes = quantizers(found, module, NAMES)
    used = {f"{name}.{suffix}" for name in found for suffix in (AMAX, *LEARNED)}
    weights, more = divided(given.tensors, module, used=used)
    return Checkpoint(quantizers=found_quantizers, weights=weights, notes=(*notes, *more))


PYTORCH_QUANTIZATION = Format(
    "pytorch-quantization", "keys that end in ._input_quantizer._amax or ._weight_quantizer._amax", recognizes, read
)
