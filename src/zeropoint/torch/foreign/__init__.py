"""Checkpoints of other quantizers: one file for each format, and one line in `FORMATS`."""

from __future__ import annotations

from zeropoint.errors import DataError
from zeropoint.torch.foreign.checkpoint import Format, Given
from zeropoint.torch.foreign.modelopt import MODELOPT
from zeropoint.torch.foreign.pt2e import PT2E
from zeropoint.torch.foreign.pytorch_quantization import PYTORCH_QUANTIZATION

FORMATS = (PT2E, MODELOPT, PYTORCH_QUANTIZATION)  # the first that recognizes what was given reads it
SHOWN = 5
OBSERVER = "activation_post_process"


def recognized(given: Given) -> Format:
    """Return the format of what was given.

    Raises:
        DataError: it is of no known format.
    """
    found = next((format for format in FORMATS if format.recognizes(given)), None)
    if found is None and any(key.startswith(OBSERVER) for key in given.tensors):
        raise DataError(
            f"{given.where}: found the state dict of a graph that PT2E prepared, which does not tell what each observer is for, expected "
            "the graph; give the GraphModule, with this state dict loaded into it"
        )
    if found is None:
        keys = ", ".join(list(given.tensors)[:SHOWN]) or "none"
        known = "; ".join(f"{format.name} ({format.keys})" for format in FORMATS)
        raise DataError(
            f"{given.where}: found no quantizer in it (its first keys are {keys}), expected one of {known}; a float checkpoint is "
            "calibrated by quantize with data"
        )
    return found
