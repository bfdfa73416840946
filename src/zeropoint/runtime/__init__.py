"""Sessions: the only package that imports the runtimes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from zeropoint.runtime import onnxruntime, openvino
from zeropoint.runtime.node_time import NodeTime

RUNTIMES = ("onnxruntime", "openvino")


class Session(Protocol):
    """A loaded network."""

    def run(self, feed: Mapping[str, npt.NDArray[np.generic]], /) -> Mapping[str, npt.NDArray[np.generic]]:
        """Return all outputs for one feed, by name."""


def is_installed(name: str) -> bool:
    """Return whether networks can be run in the runtime called `name` on this machine."""
    return name == "onnxruntime" or (name == "openvino" and openvino.is_installed())


def version(name: str) -> str:
    """Return the version of an installed runtime."""
    return onnxruntime.VERSION if name == "onnxruntime" else openvino.version()


def open_runtime(name: str, model: bytes | Path, *, threads: int = 0, provider: str = onnxruntime.CPU) -> Session | None:
    """Load `model` in the runtime called `name`, or return None where that is not on this machine.

    threads: that one run takes, 0 for the runtime's choice. provider: what runs it in ONNX Runtime.
    """
    if name == "onnxruntime":
        return onnxruntime.Session(model, threads=threads, provider=provider)
    if name == "openvino" and openvino.is_installed():
        return openvino.Session(model, threads=threads)
    return None


def warm_runtime(name: str) -> None:
    """Load an installed runtime's libraries, which it would else load with the first network."""
    if name == "openvino":
        openvino.version()


def time_nodes(
    name: str, model: Path, feed: Mapping[str, npt.NDArray[np.generic]], *, runs: int, threads: int = 0, provider: str = onnxruntime.CPU
) -> tuple[NodeTime, ...]:
    """Return what each node that an installed runtime runs takes of a run, by its own profiler, which slows the run down.

    Raises:
        ModelError: the runtime cannot load or run the model.
    """
    if name == "onnxruntime":
        return onnxruntime.time_nodes(model, feed, runs=runs, threads=threads, provider=provider)
    return openvino.time_nodes(model, feed, runs=runs, threads=threads)
