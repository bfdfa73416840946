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
from zeropoint.runtime.node_time import NodeTime

Array = npt.NDArray[np.generic]
CODES = frozenset({"i8", "u8"})
CONVERTS = frozenset({"FakeQuantize", "Quantize", "Reorder", "Convert"})  # reads or writes codes, and computes nothing


def is_installed() -> bool:
    """Return whether the openvino package is here, without importing it."""
    return find_spec("openvino") is not None


def devices() -> tuple[str, ...]:
    """Return what OpenVINO can compile for on this machine, such as "CPU" and "GPU"."""
    return tuple(str(name) for name in _core().available_devices)


@cache  # each sets up a stack for signals on its thread, and two that end in the order of their making leave it to the next interrupt
def _core() -> Any:
    import openvino

    return openvino.Core()


def version() -> str:
    """Return the version of what runs, without the build that it is of."""
    import openvino

    _core()
    return str(openvino.get_version()).partition("-")[0]


class Session:
    """A network compiled for the CPU; `run` maps input arrays to output arrays, by name."""

    def __init__(self, model: bytes | Path, *, threads: int = 0) -> None:
        """Load and compile `model`; threads: that one run takes, 0 for OpenVINO's choice.

        Raises:
            ModelError: OpenVINO cannot load it; the message holds its reason.
        """
        self._compiled = _compile(model, threads=threads)
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


def time_nodes(model: Path, feed: Mapping[str, Array], *, runs: int, threads: int = 0) -> tuple[NodeTime, ...]:
    """Return what each node takes of a run, the mean of `runs` behind one that does not count, by OpenVINO's counters.

    Raises:
        ModelError: OpenVINO cannot load or run it.
    """
    compiled = _compile(model, threads=threads, count=True)
    seconds: dict[str, float] = {}
    kinds: dict[str, tuple[str, bool]] = {}
    try:
        request = compiled.create_infer_request()
        request.infer(dict(feed))
        for _ in range(runs):
            request.infer(dict(feed))
            for told in request.get_profiling_info():
                spent = told.real_time.total_seconds()
                if spent or told.node_name in seconds:  # else it was taken into another, or is a constant
                    seconds[told.node_name] = seconds.get(told.node_name, 0.0) + spent / runs
                    kinds[told.node_name] = told.node_type, _computes_on_codes(told.node_type, told.exec_type)
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot run the model: {_reason(error)}") from None
    return tuple(NodeTime(node=node, operator=kinds[node][0], seconds=spent, in_integers=kinds[node][1]) for node, spent in seconds.items())


def _computes_on_codes(node_type: str, exec_type: str) -> bool:
    """Whether a kernel does, which the end of its name tells, as in brgconv_avx512_I8."""
    return node_type not in CONVERTS and exec_type.rpartition("_")[2].lower() in CODES


def _compile(model: bytes | Path, *, threads: int, count: bool = False) -> Any:
    core = _core()
    how: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": count}
    if threads:
        how["INFERENCE_NUM_THREADS"] = threads
    try:
        source = core.read_model(model=model, weights=b"") if isinstance(model, bytes) else core.read_model(str(model))
        return core.compile_model(source, "CPU", how)
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot load the model: {_reason(error)}") from None


def _reason(error: RuntimeError) -> str:
    """The line that says most: the summary of what could not be converted, or the last."""
    lines = str(error).strip().splitlines()
    summary = [line for line in lines if line.startswith("-- ")]
    return [*lines, *summary][-1].removeprefix("-- ").strip()[:500]
