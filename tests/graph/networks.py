"""Networks written as the nodes of ONNX text. Each node is called after its first output, and a weight that is not given is random."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import numpy_helper

from zeropoint.graph.facts import Facts, capture_facts
from zeropoint.graph.load import load
from zeropoint.graph.prepare import prepare
from zeropoint.graph.sites import Placement, find_sites
from zeropoint.graph.store import serialize
from zeropoint.graph.taps import Taps, tap
from zeropoint.plan import Plan
from zeropoint.planner import make_plan
from zeropoint.recipe import Recipe
from zeropoint.statistics.network import Statistics
from zeropoint.statistics.observation import NetworkObservation
from zeropoint.targets import Target, get_target

Array = np.ndarray[Any, Any]
Feed = dict[str, Array]

CHANNELS = 16
INPUT = "float[1,16,8,8] x"
QUICK = Recipe(solver="minmax")
WEIGHT = (CHANNELS, CHANNELS, 1, 1)  # of a convolution that keeps its input's shape


def network(
    body: str, *, inputs: str = INPUT, outputs: str = "y", weights: Mapping[str, object] | None = None, opset: int = 13
) -> onnx.ModelProto:
    """Return a network of the nodes in `body`; `weights` holds arrays, or shapes as tuples, of names that nothing else defines.

    Outputs are of float unless their type stands before their name.
    """
    header = f'<ir_version: 8, opset_import: ["": {opset}, "com.microsoft": 1, "com.example": 1]>'
    told = ", ".join(output if " " in output else f"float {output}" for output in outputs.split(", "))
    model = onnx.parser.parse_model(f"{header} net ({inputs}) => ({told}) {{ {body} }}")
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    for node in model.graph.node:
        node.name = node.output[0]
    given = weights or {}
    model.graph.initializer.extend(numpy_helper.from_array(weight(name, given.get(name, WEIGHT)), name) for name in _undefined(model))
    return model


def weight(name: str, given: object) -> Array:
    """Return `given`, or if it is a shape an array of it, the same for the same name."""
    if not isinstance(given, tuple):
        return np.asarray(given)
    return np.random.default_rng(crc32(name.encode())).normal(0.0, 0.25, given).astype(np.float32)


def _undefined(model: onnx.ModelProto) -> list[str]:
    graphs = [model.graph, *(a.g for node in model.graph.node for a in node.attribute if a.HasField("g"))]
    known = {name for graph in graphs for node in graph.node for name in node.output} | {value.name for value in model.graph.input}
    return list(dict.fromkeys(name for graph in graphs for node in graph.node for name in node.input if name and name not in known))


def feed(model: onnx.ModelProto, seed: int = 0, *, batch: int = 2) -> Feed:
    """Return random values for each input; dimensions without a number have the length `batch`."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for value in model.graph.input:
        tensor = value.type.tensor_type
        shape = [dim.dim_value or batch for dim in tensor.shape.dim]
        arrays[value.name] = np.asarray(rng.normal(0.0, 1.0, shape)).astype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return arrays


def run(model: ir.Model | onnx.ModelProto, feed: Feed, outputs: Sequence[str] | None = None, *, optimize: bool = False) -> list[Array]:
    """Return the outputs in ONNX Runtime, without its graph optimizations unless asked for."""
    content = serialize(model) if isinstance(model, ir.Model) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return [np.asarray(array) for array in session.run(outputs, feed)]


def run_all(model: onnx.ModelProto, feed: Feed) -> dict[str, Any]:
    """Return every tensor of the main graph: its inputs, and its results in ONNX Runtime without graph optimizations."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    names = [name for node in shown.graph.node for name in node.output if name]
    del shown.graph.output[:]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return {**feed, **dict(zip(names, session.run(names, feed), strict=True))}


def observed(model: ir.Model, facts: Facts, taps: Taps, feeds: Iterable[Feed]) -> Statistics:
    """Return what one feed after the other shows of `taps`."""
    session = tap(model, taps, facts).open(threads=1)
    observation = NetworkObservation(taps.tensors)
    for one in feeds:
        seen = session.run(one)
        observation.add_means(seen.channels)
        for tensor, array in seen.tensors.items():
            observation.add(tensor, array)
    return observation.statistics()


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A network on its way to the quantized one."""

    model: ir.Model
    facts: Facts
    placement: Placement
    plan: Plan


def place(
    model: onnx.ModelProto, target: str | Target, *, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> tuple[ir.Model, Facts, Placement]:
    """Return the prepared network, its facts and its sites."""
    goal = target if isinstance(target, Target) else get_target(target)
    prepared = load(model, min_opset=goal.min_opset)
    prepare(prepared)
    facts = capture_facts(prepared, feed(model))
    return prepared, facts, find_sites(prepared, facts, goal, include=include, exclude=exclude)


def plan_network(model: onnx.ModelProto, target: str | Target, *, recipe: Recipe = QUICK, feeds: Iterable[Feed] | None = None) -> Planned:
    """Return what quantizing the network for `target` decides; random values calibrate it unless there are `feeds`."""
    goal = target if isinstance(target, Target) else get_target(target)
    prepared, facts, placement = place(model, goal, include=recipe.include, exclude=recipe.exclude)
    seen = feeds if feeds is not None else [feed(model, seed) for seed in range(4)]
    statistics = observed(prepared, facts, Taps(tuple(site.tensor for site in placement.activations)), seen)
    return Planned(model=prepared, facts=facts, placement=placement, plan=make_plan(prepared, placement, statistics.tensors, goal, recipe))
