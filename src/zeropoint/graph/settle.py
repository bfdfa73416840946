"""Apply what a plan changes in the weights of a float network: scaled channels, corrected biases, other codes than the nearest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from zeropoint.errors import PlanError, RecipeError
from zeropoint.graph.initializers import Array, add_initializer, constant_array, free_name
from zeropoint.graph.operators import is_constant
from zeropoint.graph.scaling import apply_scalings
from zeropoint.numerics.affine import dequantize_array, quantize_array
from zeropoint.plan import Correction, Entry, Plan, Reader, Rounding, stored_steps


def settle(model: ir.Model, plan: Plan) -> tuple[ir.Model, Plan]:
    """Return a copy of the prepared float `model` that has the plan's scalings, corrections and roundings in it, and the plan less those.

    The entries that are left, its pairs, give the same codes as the whole plan does in `model`: a weight with a rounding is set to what
    its codes stand for.

    Raises:
        PlanError: the plan names a tensor or node that the network does not have, or its numbers don't fit the tensor's shape.
    """
    settled = model.clone()
    apply_scalings(settled, plan.scalings)
    values, nodes = by_name(settled.graph)
    for correction in plan.corrections:
        _correct(values.get(correction.tensor), correction)
    for rounding in plan.roundings:
        _constant(values.get(rounding.tensor), f"rounding of {rounding.tensor!r}")
    roundings = {rounding.tensor: rounding for rounding in plan.roundings}

    def rounded(entry: Entry) -> Entry:
        if entry.role != "weight" or entry.tensor not in roundings:
            return entry
        try:
            value = _own(settled.graph, values[entry.tensor], entry, nodes)
            _round_weight(value, entry, roundings[entry.tensor])
        except RecipeError as error:
            raise PlanError(f"plan: tensor {entry.tensor!r}: {error}") from None
        return replace(entry, tensor=str(value.name))

    return settled, replace(plan, entries=tuple(map(rounded, plan.entries)), corrections=(), scalings=(), roundings=())


def with_constants(model: ir.Model, constants: Mapping[str, Array]) -> ir.Model:
    """Return a copy of `model` with other numbers in some of its constants, by name.

    Raises:
        PlanError: there is no such constant, or it has another shape or type.
    """
    changed = model.clone()
    for name, array in constants.items():
        value = _constant(changed.graph.initializers.get(name), f"constant {name!r}")
        here = constant_array(value)
        if (here.shape, here.dtype) != (array.shape, array.dtype):
            raise PlanError(f"constant {name!r}: found {array.dtype} of shape {array.shape}, expected {here.dtype} of {here.shape}")
        value.const_value = ir.Tensor(array, name=name)
    return changed


def by_name(graph: ir.Graph) -> tuple[dict[str, ir.Value], dict[str, ir.Node]]:
    """Return the tensors and the nodes of a graph by their names."""
    values = {str(value.name): value for value in graph.inputs}
    values |= {str(value.name): value for node in graph for value in node.outputs} | dict(graph.initializers)
    return values, {str(node.name): node for node in graph}


def reroute(nodes: Mapping[str, ir.Node], value: ir.Value, to: ir.Value, readers: Sequence[Reader]) -> None:
    """Let `readers` of `value` read another.

    Raises:
        PlanError: one of them does not read it.
    """
    for reader in readers:
        node = nodes.get(reader.node)
        if node is None or reader.input not in range(len(node.inputs)) or node.inputs[reader.input] is not value:
            raise PlanError(
                f"plan: tensor {value.name!r}: node {reader.node!r} does not read it as its input {reader.input}; "
                "was the plan made for another network?"
            )
        node.replace_input_with(reader.input, to)


def _correct(value: ir.Value | None, correction: Correction) -> None:
    value = _constant(value, f"correction of {correction.tensor!r}")
    bias = constant_array(value)
    if bias.size != len(correction.added):
        raise PlanError(
            f"plan: correction of {correction.tensor!r}: found {len(correction.added)} numbers, expected {bias.size}; "
            "was the plan made for another network?"
        )
    corrected = bias + np.asarray(correction.added, np.float32).reshape(bias.shape)
    value.const_value = ir.Tensor(corrected.astype(bias.dtype), name=value.name)


def _constant(value: ir.Value | None, what: str) -> ir.Value:
    if value is None or not is_constant(value):
        raise PlanError(f"plan: {what}: the network has no such constant; was the plan made for another one?")
    return value


def _own(graph: ir.Graph, value: ir.Value, entry: Entry, nodes: Mapping[str, ir.Node]) -> ir.Value:
    """Return `value`, or a copy for the entry's readers where there are others, which keep the float one."""
    readers = {(nodes.get(reader.node), reader.input) for reader in entry.readers}
    if not value.is_graph_output() and all((node, index) in readers for node, index in value.uses()):
        return value
    copy = add_initializer(graph, free_name(graph, f"{value.name}/rounded"), constant_array(value))
    reroute(nodes, value, copy, entry.readers)
    return copy


def _round_weight(value: ir.Value, entry: Entry, rounding: Rounding) -> None:
    """Set a weight to what the codes of a learned rounding stand for."""
    weight, qparams = constant_array(value), entry.qparams()
    steps = stored_steps(rounding)
    if steps.size != weight.size:
        raise RecipeError(f"rounding: found {steps.size} numbers, expected {weight.size}; was it made for another network?")
    codes = quantize_array(weight, qparams).astype(np.int64) + steps.reshape(weight.shape)
    lowest, highest = entry.spec.qmin, entry.spec.qmax
    rounded = dequantize_array(np.clip(codes, lowest, highest).astype(qparams.format.dtype), qparams)
    value.const_value = ir.Tensor(rounded.astype(weight.dtype), name=value.name)
