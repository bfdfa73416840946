"""Run networks in ONNX Runtime."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime

from zeropoint.errors import ModelError, RecipeError
from zeropoint.runtime.node_time import NodeTime

Array = npt.NDArray[np.generic]
FATAL_ONLY = 4
NO_WEIGHTS: Mapping[str, Array] = {}
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
VERSION = str(onnxruntime.__version__)  # of what runs: onnxruntime and onnxruntime-gpu are two distributions of one package
CAUSE = re.compile(r"(?:CUDA|CUDNN|CUBLAS) failure [^;]+|cuDNN (?:is|library)[^;\n]+")  # what a message of the provider comes to
SUFFIX = "ExecutionProvider"
CODES = frozenset({"int8", "uint8"})
KERNEL, HAS_BODY = "_kernel_time", frozenset({"If", "Loop", "Scan"})  # in profiles
CONVERTS = frozenset({"QuantizeLinear", "DequantizeLinear", "Cast"})  # reads or writes codes, and computes nothing
# What a provider would round away by default: statistics are of the network as it was trained.
FULL_PRECISION: Mapping[str, Mapping[str, str]] = {CUDA: {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}}
Optimization = Literal["all", "basic", "none"]
LEVELS = {
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


class Session:
    """A loaded network; `run` maps input arrays to output arrays, by name."""

    def __init__(
        self,
        model: bytes | Path,
        *,
        weights: Mapping[str, Array] = NO_WEIGHTS,
        optimize: Optimization = "all",
        threads: int = 0,
        single_run: bool = False,
        provider: str = CPU,
        plan_memory: bool = True,
    ) -> None:
        """Load `model`.

        weights: by name, those of its initializers that it says lie in files; they are read where they lie. optimize: fuse operators,
        fold constants only, or run the nodes as they stand. threads: 0 takes all cores. single_run: prepare nothing that only many
        runs pay for; the weights are inputs then. provider: what runs it, and the CPU where that cannot. plan_memory: lay all tensors
        of a run out in one piece of memory, which takes more of it where many are alive at the end.

        Raises:
            ModelError: ONNX Runtime cannot load it; the message holds its reason.
        """
        self._fed = weights if single_run else NO_WEIGHTS
        options = _options(optimize, threads=threads, provider=provider)
        options.enable_mem_pattern = plan_memory and not single_run
        if single_run:
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.enable_cpu_mem_arena = False
        self._session = _load(model, NO_WEIGHTS if single_run else weights, options, provider=provider)
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
            return dict(zip(names, self._session.run(names, {**self._fed, **feed}), strict=True))
        except Exception as error:
            shapes = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in feed.items())
            raise ModelError(f"ONNX Runtime cannot run the model on {shapes or 'no input'}: {_first_line(error)}") from None


def write_optimized(model: bytes, path: Path, *, weights: Mapping[str, Array], provider: str = CPU) -> None:
    """Write `model` to `path` as a session with all optimizations would run it, with its weights in files beside it.

    Raises:
        ModelError: ONNX Runtime cannot load it; the message holds its reason.
    """
    options = _options("all", threads=1, provider=provider)
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", f"{path.name}.data")
    _load(model, weights, options, provider=provider)


def time_nodes(model: Path, feed: Mapping[str, Array], *, runs: int, threads: int = 0, provider: str = CPU) -> tuple[NodeTime, ...]:
    """Return what each node takes of a run, the mean of `runs` behind one that does not count, by ONNX Runtime's profiler.

    Raises:
        ModelError: ONNX Runtime cannot load or run it.
    """
    with TemporaryDirectory(prefix="zeropoint-") as folder:
        options = _options("all", threads=threads, provider=provider)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = _load(model, NO_WEIGHTS, options, provider=provider)
        try:
            for _ in range(runs + 1):
                session.run(None, dict(feed))
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot run the model: {_first_line(error)}") from None
        finally:
            written = Path(session.end_profiling())
        events = json.loads(written.read_text(encoding="utf-8"))
    return _node_times(events, runs=runs)


def _node_times(events: Sequence[Mapping[str, Any]], *, runs: int) -> tuple[NodeTime, ...]:
    """Return the mean of the last `runs` of each node: of those in a body too, and not of the node that has the body."""
    starts = sorted(event["ts"] for event in events if event["name"] == "model_run")
    seconds: dict[tuple[str, str], float] = {}  # by name and index: nodes may have no name, and bodies count their own
    last: dict[tuple[str, str], Mapping[str, Any]] = {}
    for event in events:
        name, told = str(event["name"]), event.get("args", {})
        if name.endswith(KERNEL) and event["ts"] >= starts[-runs] and told["op_name"] not in HAS_BODY:
            node = name.removesuffix(KERNEL), str(told["node_index"])
            seconds[node] = seconds.get(node, 0.0) + event["dur"] * 1e-6 / runs
            last[node] = told
    return tuple(
        NodeTime(
            node=node[0] or f"node {node[1]}",
            operator=str(last[node]["op_name"]),
            seconds=spent,
            in_integers=_computes_on_codes(last[node]),
        )
        for node, spent in seconds.items()
    )


def _computes_on_codes(told: Mapping[str, Any]) -> bool:
    """Whether a kernel's first input holds codes; one that quantizes its input by itself is told by its name."""
    name, inputs = str(told["op_name"]), told.get("input_type_shape") or [{}]
    if name.startswith("DynamicQuantize"):
        return name != "DynamicQuantizeLinear"
    return not CODES.isdisjoint(inputs[0]) and name not in CONVERTS


def _options(optimize: Optimization, *, threads: int, provider: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.use_deterministic_compute = provider != CPU  # a GPU would add some sums in the order in which its threads finish
    options.log_severity_level = FATAL_ONLY
    options.intra_op_num_threads = threads
    options.graph_optimization_level = LEVELS[optimize]
    return options


def _load(model: bytes | Path, weights: Mapping[str, Array], options: Any, *, provider: str) -> Any:
    try:
        options.add_external_initializers(list(weights), [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()])
        source = model if isinstance(model, bytes) else str(model)
        providers = [(name, dict(FULL_PRECISION.get(name, {}))) for name in dict.fromkeys([provider, CPU])]
        told = _preload() if provider == CUDA else ""
        # Without a word but on the standard output, ONNX Runtime would go on on the CPU where a provider fails.
        session = onnxruntime.InferenceSession(source, options, providers=providers, enable_fallback=0)
        session.disable_fallback()  # of older versions, which take no notice of the argument
    except Exception as error:  # the bindings raise a dozen classes without a common root
        raise ModelError(f"ONNX Runtime cannot load the model: {_first_line(error)}") from None
    if provider not in session.get_providers():  # of which ONNX Runtime tells only its log
        raise ModelError(
            f"ONNX Runtime cannot run the model on {provider}, which failed to start; see that its libraries are installed "
            f"(for CUDA: pip install onnxruntime-gpu[cuda,cudnn]){told}"
        )
    return session


@cache
def _preload() -> str:
    """Load CUDA's libraries from their Python packages, where ONNX Runtime alone does not look, and return what was not found."""
    preload = getattr(onnxruntime, "preload_dlls", None)  # from 1.21 on
    said = io.StringIO()
    if preload is not None:
        with redirect_stdout(said):
            preload()
    missing = re.findall(r"Failed to load ([\w.]+):", said.getvalue())
    return f": not found {', '.join(missing)}" if missing else ""


def providers() -> tuple[str, ...]:
    """Return the execution providers that this installation of ONNX Runtime has."""
    return tuple(str(name) for name in onnxruntime.get_available_providers())


def provider_name(text: str) -> str:
    """Return ONNX Runtime's name of the execution provider that `text` stands for, such as "cpu" or "CUDAExecutionProvider".

    Raises:
        RecipeError: this installation of ONNX Runtime does not have it.
    """
    offered = {name.removesuffix(SUFFIX).lower(): name for name in providers()}
    name = offered.get(text.removesuffix(SUFFIX).lower())
    if name is None:
        raise RecipeError(
            f"provider: found {text!r}, expected one of {', '.join(offered)}, which this onnxruntime has; "
            "others come with other packages, such as onnxruntime-gpu"
        )
    return name


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    cause = CAUSE.search(text)
    return cause[0].strip() if cause is not None else text.partition("\n")[0][:500]
