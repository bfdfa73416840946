"""Nodes made from a line, and small networks run node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("torch")

import onnx_ir as ir

from zeropoint.autograd.operators import bound
from zeropoint.autograd.operators.tensors import tensor_of

OPSET = 24


def node(operator: str, inputs: int | Sequence[bool] = 1, outputs: int = 1, *, domain: str = "", **attributes: Any) -> ir.Node:
    """A node called "n"; `inputs` is how many, or which are there."""
    present = [True] * inputs if isinstance(inputs, int) else inputs
    values = [ir.Value(name=f"x{i}") if there else None for i, there in enumerate(present)]
    converted = ir.convenience.convert_attributes(attributes)
    return ir.Node(domain, operator, values, converted, num_outputs=outputs, name="n")


def call(operator: str, *inputs: Any, outputs: int = 1, opset: int = OPSET, **attributes: Any) -> tuple[Any, ...]:
    """What a node of the operator makes of the inputs."""
    made = node(operator, [x is not None for x in inputs], outputs, **attributes)
    return bound(made, opset)(inputs)


def run(model: ir.Model, feeds: dict[str, Any]) -> list[Any]:
    """The network's outputs, computed node by node."""
    graph, opset = model.graph, model.graph.opset_imports[""]
    values: dict[Any, Any] = dict(feeds)
    for name, value in graph.initializers.items():
        assert value.const_value is not None
        values[name] = tensor_of(value.const_value.numpy())
    for each in graph:
        outputs = bound(each, opset)([None if value is None else values[value.name] for value in each.inputs])
        values |= {value.name: y for value, y in zip(each.outputs, outputs, strict=False)}
    return [values[value.name] for value in graph.outputs]
