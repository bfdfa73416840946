"""What running the network once tells of its tensors: shapes and dtypes, without symbolic inference."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt
import onnx
import onnx.shape_inference
import onnx_ir as ir

from zeropoint.errors import ModelError
from zeropoint.graph.operators import has_subgraph, is_constant
from zeropoint.graph.store import open_proto, skeleton

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Fact:
    """The dtype and shape of one tensor in one run."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]


Facts = Mapping[str, Fact]


def capture_facts(model: ir.Model, feed: Mapping[str, Array]) -> dict[str, Fact]:
    """Return a fact for each tensor of the main graph when it runs on `feed`: inputs, constants and results.

    What ONNX's inference from operator to operator does not find, one run shows. It gives out the shapes of tensors of known type
    alone, so that their memory is free again once they were read.

    Raises:
        ModelError: the network cannot be run.
    """
    proto, weights = skeleton(model)
    types = _inferred(proto, feed)
    found = {name: fact for name, type in types.items() if (fact := _whole_fact(type)) is not None}
    computed = {name for node in proto.graph.node for name in node.output if name}
    if not computed <= found.keys() or any(map(has_subgraph, model.graph)):  # inference believes what a body says of itself
        found = _seen(proto, weights, feed, {name: _dtype(type) for name, type in types.items()})
    facts = found | {name: Fact(array.dtype, array.shape) for name, array in feed.items()}
    for name, value in model.graph.initializers.items():
        if is_constant(value) and value.const_value is not None:
            facts[name] = Fact(np.dtype(value.const_value.dtype.numpy()), tuple(value.const_value.shape.numpy()))
    return facts


def _inferred(proto: onnx.ModelProto, feed: Mapping[str, Array]) -> dict[str, onnx.TypeProto.Tensor]:
    """Return the type of each computed tensor that has one, with its shape as far as it follows from those of `feed`."""
    given = onnx.ModelProto()
    given.CopyFrom(proto)
    del given.graph.value_info[:], given.graph.output[:]  # what a file says of shapes may be wrong
    for value in given.graph.input:
        if value.name in feed:
            value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, feed[value.name].shape))
    try:
        inferred = onnx.shape_inference.infer_shapes(given, data_prop=True)
    except onnx.shape_inference.InferenceError:  # an operator that ONNX knows nothing of
        return {}
    known = {value.name: value.type.tensor_type for value in inferred.graph.value_info}
    return {name: known[name] for node in proto.graph.node for name in node.output if name in known and known[name].elem_type}


def _dtype(type: onnx.TypeProto.Tensor) -> np.dtype[np.generic]:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(type.elem_type))


def _whole_fact(type: onnx.TypeProto.Tensor) -> Fact | None:
    sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in type.shape.dim]
    if not type.HasField("shape") or min(sizes, default=0) < 0:  # a kernel that has no place on its input leaves less than nothing
        return None
    return Fact(_dtype(type), tuple(sizes))


def _seen(
    proto: onnx.ModelProto, weights: Mapping[str, Array], feed: Mapping[str, Array], types: Mapping[str, np.dtype[np.generic]]
) -> dict[str, Fact]:
    """Run the network once and return a fact for each result that is a tensor."""
    shapes = _give_out_shapes(proto.graph, types)
    try:
        # Folding constants, ONNX Runtime loses a tensor of which only a body and a Shape are left to read.
        found = open_proto(proto, weights, optimize="none", single_run=True).run(feed)
    except ModelError:  # it may be an operator that will have its weights constant
        found = open_proto(proto, weights, optimize="basic").run(feed)
    facts = {name: Fact(types[name], tuple(found.pop(shape).tolist())) for name, shape in shapes.items()}
    # Sequences and optionals come back as lists and None, whatever the runtime's signature says.
    return facts | {name: Fact(array.dtype, array.shape) for name, array in found.items() if hasattr(array, "dtype")}


def _give_out_shapes(graph: onnx.GraphProto, types: Container[str]) -> dict[str, str]:
    """Make the shape of each tensor of known type an output, and return the outputs' names; the other tensors are outputs themselves."""
    computed = list(dict.fromkeys(name for node in graph.node for name in node.output if name))
    taken = {*computed, *(value.name for value in (*graph.input, *graph.initializer))}
    free = (name for name in (f"shape_{number}" for number in count()) if name not in taken)
    shapes = {name: next(free) for name in computed if name in types}
    graph.node.extend(onnx.helper.make_node("Shape", [name], [shape], name=shape) for name, shape in shapes.items())
    del graph.output[:], graph.value_info[:]  # what a file says of shapes may be wrong
    graph.output.extend(onnx.ValueInfoProto(name=shapes.get(name, name)) for name in computed)
    return shapes
