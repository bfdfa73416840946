"""NVIDIA's Model Optimizer: `PATH.input_quantizer._amax`, `PATH.weight_quantizer._amax`, `PATH.output_quantizer._amax`, and modelopt_state.

modelopt_state, which `modelopt.torch.opt.save` stores beside the weights, tells bits, blocks and what is disabled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zeropoint.errors import DataError
from zeropoint.notes import Note
from zeropoint.torch.foreign.amax import AMAX, Names, divided, quantizers
from zeropoint.torch.foreign.checkpoint import Checkpoint, Format, Given

if TYPE_CHECKING:
    import torch

NAMES = Names(input="input_quantizer", weight="weight_quantizer", output="output_quantizer")
FACTOR = "_pre_quant_scale"
OWN = r"(input|weight|output|softmax|[a-z]+_bmm)_quantizer(\.\d+)?"  # of modules; a quantizer with another name may be of any tool
KEY = re.compile(rf"(^|\.){OWN}\._(amax|pre_quant_scale|bias_value|global_amax|scale)$")
HOLDS_MORE = ("_bias_value", "_global_amax")
EIGHT_BITS = 8
OTHERWISE = "quantize the float network with zeropoint instead"


def recognizes(given: Given) -> bool:
    """Return whether a quantizer is called as modelopt does, or its state is there."""
    return "modelopt_state" in given.metadata or any(KEY.search(key) for key in given.tensors)


def read(given: Given, module: torch.nn.Module) -> Checkpoint:
    """Return the quantizers, the weights, and the factors of SmoothQuant and AWQ.

    Raises:
        ModelError: a quantized weight belongs to a module that the network does not have.
        DataError: an amax cannot be used, or a quantizer is of a format that has no counterpart.
    """
    states = _states(given.metadata)
    found = {key.removesuffix(f".{AMAX}"): value for key, value in given.tensors.items() if key.endswith(f".{AMAX}")}
    notes = [Note(name, "not imported: it is disabled in modelopt_state") for name in found if states.get(name, {}).get("_disabled")]
    enabled = {name: amax for name, amax in found.items() if not states.get(name, {}).get("_disabled")}
    for name in enabled:
        _check(name, states.get(name, {}), given)
    found_quantizers, unknown = quantizers(enabled, module, NAMES)
    factors = {
        key.removesuffix(f".{NAMES.input}.{FACTOR}"): value
        for key, value in given.tensors.items()
        if key.endswith(f".{NAMES.input}.{FACTOR}") and states.get(key.removesuffix(f".{FACTOR}"), {}).get("_enable_pre_quant_scale", True)
    }
    used = {f"{name}.{AMAX}" for name in found} | {f"{path}.{NAMES.input}.{FACTOR}" for path in factors}
    weights, more = divided(given.tensors, module, used=used)
    return Checkpoint(quantizers=found_quantizers, weights=weights, factors=factors, notes=(*notes, *unknown, *more))


def _states(metadata: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Return what modelopt_state says of each quantizer, by its name; what is in no known form is left out."""
    state = metadata.get("modelopt_state")
    modes = state.get("modelopt_state_dict", ()) if isinstance(state, Mapping) else ()
    told: dict[str, Mapping[str, Any]] = {}
    for mode in modes:
        content = mode[1] if isinstance(mode, list | tuple) and len(mode) > 1 and isinstance(mode[1], Mapping) else {}
        found = content.get("metadata", {}).get("quantizer_state", {})
        told.update({str(name): properties for name, properties in found.items() if isinstance(properties, Mapping)})
    return told


def _check(name: str, state: Mapping[str, Any], given: Given) -> None:
    bits, sizes = state.get("_num_bits", EIGHT_BITS), state.get("_block_sizes")
    blocks = any(isinstance(axis, int) and size for axis, size in sizes.items()) if isinstance(sizes, Mapping) else sizes
    if bits != EIGHT_BITS or state.get("_unsigned"):
        kind = f"floats of {bits[0]} exponent and {bits[1]} mantissa bits" if isinstance(bits, list | tuple) else f"{bits} bits"
        raise DataError(
            f"{name}: found {kind}{', unsigned' if state.get('_unsigned') else ''} in modelopt_state, expected signed integers of 8 bits; "
            f"{OTHERWISE}"
        )
    if blocks:
        raise DataError(f"{name}: found scales for blocks in modelopt_state, expected one, or one for each channel; {OTHERWISE}")
    more = next((suffix for suffix in HOLDS_MORE if f"{name}.{suffix}" in given.tensors), None)
    if more is not None or state.get("_rotate") or name.rpartition(".")[2].isdigit():
        what = more or ("a rotation" if state.get("_rotate") else "one of several quantizers in a row")
        raise DataError(f"{name}: found {what}, expected a quantizer of one amax alone; {OTHERWISE}")


MODELOPT = Format("modelopt", "keys that end in .input_quantizer._amax or .weight_quantizer._amax, or modelopt_state", recognizes, read)
