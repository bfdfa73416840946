"""Run networks in OpenVINO, where it is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zeropoint.errors import ModelError

Array = npt.NDArray[np.generic]


def is_installed() -> bool:
    """Return whether the openvino package is here, without importing it."""
    return find_spec("openvino") is not None


@cache  # each sets up a stack for signals on its thread, and two that end in the order of their making leave it to the next interrupt
def _core() -> Any:
    import openvino

    return openvino.Core()


class Session:
    """A network compiled for the CPU; `run` maps input arrays to output arrays, by name."""

    def __init__(self, model: bytes | Path) -> None:
        """Load and compile `model`.

        Raises:
            ModelError: OpenVINO cannot load it; the message holds its reason.
        """
        core = _core()
        try:
            source = core.read_model(model=model, weights=b"") if isinstance(model, bytes) else core.read_model(str(model))
            self._compiled = core.compile_model(source, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"})
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot load the model: {_reason(error)}") from None
        # any_name may be that of a tensor which an Identity made into the output; the result's node is called after the output.
        self.outputs: tuple[str, ...] = tuple(output.node.friendly_name.rpartition("/sink_port_")[0] for output in self._compiled.outputs)

    def run(self, feed: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Return the named outputs, all of them by default, for one feed.

        Raises:
            ModelError: the run failed; the message holds OpenVINO's reason.
        """
        # OpenVINO would run a missing input on what it was fed the last time, and raise a KeyError for a missing output.
        missing = [port.any_name for port in self._compiled.inputs if port.names.isdisjoint(feed)]
        missing += [name for name in outputs or () if name not in self.outputs]
        if missing:
            raise ModelError(f"OpenVINO cannot run the model: it has no {missing[0]!r}; found inputs {[*feed]}, outputs {[*self.outputs]}")
        try:
            results = self._compiled(dict(feed))
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot run the model: {_reason(error)}") from None
        return {name: np.array(results[name]) for name in (self.outputs if outputs is None else outputs)}


def _reason(error: RuntimeError) -> str:
    """The line that says most: the summary of what could not be converted, or the last."""
    lines = str(error).strip().splitlines()
    summary = [line for line in lines if line.startswith("-- ")]
    return [*lines, *summary][-1].removeprefix("-- ").strip()[:500]
