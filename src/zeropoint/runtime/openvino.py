"""Run networks in OpenVINO, where it is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zeropoint.errors import ModelError

Array = npt.NDArray[np.generic]


def is_installed() -> bool:
    """Return whether the openvino package is here, without importing it."""
    return find_spec("openvino") is not None


class Session:
    """A network compiled for the CPU; `run` maps input arrays to output arrays, by name."""

    def __init__(self, model: bytes | Path) -> None:
        """Load and compile `model`.

        Raises:
            ModelError: OpenVINO cannot load it; the message holds its reason.
        """
        import openvino

        try:
            core = openvino.Core()
            source = core.read_model(model=model, weights=b"") if isinstance(model, bytes) else core.read_model(str(model))
            self._compiled = core.compile_model(source, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"})
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot load the model: {str(error).strip().splitlines()[-1][:500]}") from None
        self.outputs: tuple[str, ...] = tuple(output.any_name for output in self._compiled.outputs)

    def run(self, feed: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Return the named outputs, all of them by default, for one feed.

        Raises:
            ModelError: the run failed; the message holds OpenVINO's reason.
        """
        try:
            results = self._compiled(dict(feed))
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot run the model: {str(error).strip().splitlines()[-1][:500]}") from None
        return {name: np.array(results[name]) for name in (self.outputs if outputs is None else outputs)}
