"""Sessions: the only package that imports the runtimes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from zeropoint.runtime import onnxruntime, openvino


class Session(Protocol):
    """A loaded network."""

    def run(self, feed: Mapping[str, npt.NDArray[np.generic]], /) -> Mapping[str, npt.NDArray[np.generic]]:
        """Return all outputs for one feed, by name."""


def open_runtime(name: str, model: bytes) -> Session | None:
    """Load `model` in the runtime called `name`, or return None where that is not on this machine."""
    if name == "onnxruntime":
        return onnxruntime.Session(model)
    if name == "openvino" and openvino.is_installed():
        return openvino.Session(model)
    return None
