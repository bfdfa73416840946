"""Constants of a graph: initializers made from arrays, and arrays read from them."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[Any]  # of the dtype that the network stores


def add_initializer(graph: ir.Graph, name: str, content: Array | ir.TensorProtocol) -> ir.Value:
    """Register an initializer called `name`, which must be free, and return its value."""
    tensor = ir.Tensor(content, name=name) if isinstance(content, np.ndarray) else content
    value = ir.Value(name=name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def constant_array(value: ir.Value | None) -> Array:
    """Return the data of an initializer."""
    if value is None or value.const_value is None:
        raise ValueError(f"expected a constant, found {value and value.name!r}")
    return np.asarray(value.const_value.numpy())


def replace_constant(graph: ir.Graph, node: ir.Node, index: int, array: Array, name: str) -> None:
    """Give `node` a constant of its own at input `index`, called `name` or that with a number; the old one goes with its last reader."""
    node.replace_input_with(index, add_initializer(graph, free_name(graph, name), array))


def free_name(graph: ir.Graph, name: str) -> str:
    """Return `name`, with a number behind it where a tensor or a node of the graph has it already."""
    taken = {value.name for value in graph.inputs} | set(graph.initializers)
    for node in graph:
        taken.update((node.name, *(value.name for value in node.outputs)))
    return next(candidate for n in count() if (candidate := f"{name}{n or ''}") not in taken)
