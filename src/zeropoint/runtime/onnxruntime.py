"""Run networks in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from zeropoint.errors import ModelError

Array = npt.NDArray[np.generic]
FATAL_ONLY = 4


class Session:
    """A loaded network; `run` maps input arrays to output arrays, by name."""

    def __init__(self, model: bytes | Path, *, optimize: bool = True, threads: int = 0) -> None:
        """Load `model`; `optimize` lets the runtime fuse operators, `threads` = 0 takes all cores.

        Raises:
            ModelError: ONNX Runtime cannot load it; the message holds its reason.
        """
        options = onnxruntime.SessionOptions()
        options.log_severity_level = FATAL_ONLY
        options.intra_op_num_threads = threads
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_ENABLE_BASIC
        try:
            source = model if isinstance(model, bytes) else str(model)
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the bindings raise a dozen classes without a common root
            raise ModelError(f"ONNX Runtime cannot load the model: {_first_line(error)}") from None
        self.outputs: tuple[str, ...] = tuple(output.name for output in self._session.get_outputs())

    def run(self, feed: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Return the named outputs, all of them by default, for one feed.

        Raises:
            ModelError: the run failed; the message holds ONNX Runtime's reason.
        """
        names = list(self.outputs if outputs is None else outputs)
        if not names:  # by which ONNX Runtime would mean all
            return {}
        try:
            return dict(zip(names, self._session.run(names, dict(feed)), strict=True))
        except Exception as error:
            shapes = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in feed.items())
            raise ModelError(f"ONNX Runtime cannot run the model on {shapes or 'no input'}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:500]
