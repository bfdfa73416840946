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
from zeropoint.graph.operators import is_constant
from zeropoint.graph.store import open_proto, skeleton

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Fact:
    """The dtype and shape of one tensor in one run."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]


Facts = Mapping[str, Fact]


def capture_facts(model: ir.Model, feed: Mapping[str, Array]) -> dict[str, Fact]:
    """Run the network once on `feed` and return a fact for each tensor of the main graph: inputs, constants and results.

    Where ONNX knows the type of a tensor the network gives out its shape alone, so that its memory is free again once it was read.

    Raises:
        ModelError: the network cannot be run.
    """
    proto, weights = skeleton(model)
    types = _element_types(proto)
    shapes = _give_out_shapes(proto.graph, types)
    try:
        # Folding constants, ONNX Runtime loses a tensor of which only a body and a Shape are left to read.
        found = open_proto(proto, weights, optimize="none", single_run=True).run(feed)
    except ModelError:  # it may be an operator that will have its weights constant
        found = open_proto(proto, weights, optimize="basic").run(feed)
    facts = {name: Fact(types[name], tuple(found.pop(shape).tolist())) for name, shape in shapes.items()}
    # Sequences and optionals come back as lists and None, whatever the runtime's signature says.
    facts |= {name: Fact(array.dtype, array.shape) for name, array in {**feed, **found}.items() if hasattr(array, "dtype")}
    for name, value in model.graph.initializers.items():
        if is_constant(value) and value.const_value is not None:
            facts[name] = Fact(np.dtype(value.const_value.dtype.numpy()), tuple(value.const_value.shape.numpy()))
    return facts


def _element_types(proto: onnx.ModelProto) -> dict[str, np.dtype[np.generic]]:
    """Return the type of each computed tensor that has one, by ONNX's inference from operator to operator."""
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    known = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    computed = [name for node in proto.graph.node for name in node.output if known.get(name)]
    return {name: np.dtype(onnx.helper.tensor_dtype_to_np_dtype(known[name])) for name in computed}


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
