"""Try a network out on a few samples, and say in one number how far its outputs are from the float network's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from zeropoint.data.inputs import Feed
from zeropoint.graph.model import Model
from zeropoint.graph.store import open_session
from zeropoint.runtime.machine import cores

Array64 = npt.NDArray[np.float64]
Outputs = Mapping[str, npt.NDArray[Any]]


def outputs_of(network: Model, feeds: Sequence[Feed]) -> list[Outputs]:
    """Return what `network` makes of each of `feeds`.

    Raises:
        ModelError: it cannot be loaded or run.
    """
    session = open_session(network, threads=1)
    with ThreadPoolExecutor(cores()) as executor:
        return [*executor.map(session.run, feeds)]


def relative_errors(floats: Sequence[Outputs], others: Sequence[Mapping[str, Any]]) -> Array64:
    """Return for each sample (samples,) the squared error over the power of the float network's outputs, the mean of all outputs.

    Outputs that are no floats, and those that are zero or hold NaN or infinity already in float, do not count; where the shape of one
    differs, the error is infinite.
    """
    return np.array([_relative_error(theirs, ours) for theirs, ours in zip(floats, others, strict=True)])


@np.errstate(over="ignore")  # what overflows counts as infinite
def _relative_error(theirs: Outputs, ours: Mapping[str, Any]) -> float:
    errors = []
    for name, expected in theirs.items():
        if getattr(expected, "dtype", np.dtype(np.int64)).kind != "f":
            continue
        reference = np.asarray(expected, np.float64)
        power = float(np.square(reference).sum())
        if 0.0 < power < math.inf:
            error = float(np.square(ours[name] - reference).sum()) if np.shape(ours[name]) == reference.shape else math.inf
            errors.append(math.inf if math.isnan(error) else error / power)
    return float(np.mean(errors)) if errors else 0.0
