"""Scale channels of activations in a float network without changing what it computes: constants take up the factors.

Equalization between layers (Nagel et al., 2019), SmoothQuant (Xiao et al., 2022) and Outlier Suppression+ (Wei et al., 2023) choose the
factors and shifts; here they are applied. A tensor t becomes (t - shift) / factor. Each node's constants are rewritten from the factors
of what the node reads and writes alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from zeropoint.errors import PlanError
from zeropoint.graph.initializers import Array, add_initializer, constant_array, free_name
from zeropoint.graph.operators import Weighted, int_attribute, is_constant, weighted
from zeropoint.plan import Reader, Scaling, Tied

Float64Array = npt.NDArray[np.float64]
Numbers = Sequence[float] | npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalable:
    """Tensors that can be divided by the same `channels` factors, while the weights that `readers` meet take these up.

    free: no node is added, and all of `tied` change. Else there is one tensor, which stays as it is: the readers will read a scaled one
    beside it. shiftable: the tensors that `readers` read can also have a number for each channel subtracted. loose: Clips that count as
    ReLU, as their inputs were seen to stay well below the upper bound. widened: nodes with a single number as their constant, which
    becomes one for each channel; a runtime that fuses, say, the nodes of a GELU may no longer know them.
    """

    tied: tuple[Tied, ...]
    channels: int
    readers: tuple[Reader, ...]
    shiftable: bool
    free: bool
    loose: tuple[str, ...] = ()
    widened: tuple[str, ...] = ()

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of the tensors."""
        return tuple(tied.tensor for tied in self.tied)


def scaling(scalable: Scalable, factors: Numbers, shifts: Numbers = (), *, reason: str) -> Scaling:
    """Return the scaling of `scalable` by `factors`, one for each channel, all positive.

    Raises:
        ValueError: there are more or fewer factors or shifts than channels, or shifts where none can be taken up.
    """
    if len(factors) != scalable.channels or len(shifts) not in (0, scalable.channels) or (len(shifts) and not scalable.shiftable):
        raise ValueError(
            f"scaling of {scalable.tensors[0]!r}: found {len(factors)} factors and {len(shifts)} shifts, expected {scalable.channels} "
            f"factors and {'as many or' if scalable.shiftable else ''} no shifts"
        )
    return Scaling(
        tied=scalable.tied,
        readers=scalable.readers,
        free=scalable.free,
        loose=scalable.loose,
        factors=tuple(float(factor) for factor in factors),
        shifts=tuple(float(shift) for shift in shifts),
        reason=reason,
    )


def apply_scalings(model: ir.Model, scalings: Sequence[Scaling]) -> None:
    """Apply `scalings`, in place, to the prepared network that they were found for; in which order they are given does not matter.

    A constant keeps its name unless it has other readers, which still need the old one. The tensor that the readers of a scaling that
    is not free read instead is called after the old one, with "/scaled" behind.

    Raises:
        PlanError: a scaling is inconsistent, names what the network does not have, or makes numbers that its weights cannot hold.
    """
    for one in sorted(scalings, key=lambda one: not one.free):  # what is free must not meet the new nodes
        _check(one)
        nodes = list(model.graph)
        edits = _Edits(one, model.graph, {str(value.name): value for value in _activations(model.graph)})
        if one.free:
            edits.place(one.tied)
        else:
            _branch(edits, one)
        for node in nodes:
            if any(value in edits.divisors for value in (*node.inputs, *node.outputs)):
                _rewrite(edits, node)
        edits.commit()
        for name in one.loose:
            _loosen(edits, name)


def _check(scaling: Scaling) -> None:
    where, numbers = f"scaling of {scaling.tied[0].tensor!r}" if scaling.tied else "scaling", np.array(scaling.factors)
    if not scaling.tied or not (np.isfinite(numbers).all() and (numbers > 0).all()):
        raise PlanError(f"{where}: factors: found {scaling.factors}, expected positive finite numbers, and the tensors that they divide")
    if len(scaling.shifts) not in (0, len(numbers)) or not np.isfinite(scaling.shifts).all():
        raise PlanError(f"{where}: shifts: found {scaling.shifts}, expected none, or {len(numbers)} finite numbers, as many as factors")
    for tied in scaling.tied:
        size = int(np.prod(tied.shape))
        index = tied.index or range(size)
        if len(index) != size or not all(-1 <= number < len(numbers) for number in index):
            raise PlanError(
                f"{where}: {tied.tensor!r}: found {len(index)} numbers from {min(index)} to {max(index)} in the shape {list(tied.shape)}, "
                f"expected one of the {len(numbers)} factors or -1 for each of its {size} elements"
            )


@dataclass(slots=True)
class _Edits:
    """Constants to be rewritten.

    divisors, offsets: per changed tensor, arrays that broadcast against it; it becomes (t - offset) / divisor.
    """

    scaling: Scaling
    graph: ir.Graph
    activations: dict[str, ir.Value]
    divisors: dict[ir.Value, Float64Array] = field(default_factory=dict)
    offsets: dict[ir.Value, Float64Array] = field(default_factory=dict)
    constants: dict[tuple[ir.Node, int], Float64Array] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return f"scaling of {self.scaling.tied[0].tensor!r}"

    def value(self, name: str) -> ir.Value:
        """Return the activation called `name`."""
        if name not in self.activations:
            raise PlanError(f"{self.where}: found no tensor {name!r} in the network, expected those that the scaling was made for")
        return self.activations[name]

    def place(self, tied: Sequence[Tied]) -> None:
        """Say what becomes of the tensors in `tied`."""
        for one in tied:
            value = self.value(one.tensor)
            self.divisors[value] = one.spread(self.scaling.factors, 1.0)
            if one.shifted and self.scaling.shifts:
                self.offsets[value] = one.spread(self.scaling.shifts, 0.0)

    def divisor(self, value: ir.Value | None) -> Float64Array:
        return self.divisors.get(value, np.ones(())) if value is not None else np.ones(())

    def offset(self, value: ir.Value | None) -> Float64Array:
        return self.offsets.get(value, np.zeros(())) if value is not None else np.zeros(())

    def constant(self, node: ir.Node, index: int) -> Float64Array:
        """Return a constant input in float64, as it is after the edits so far."""
        known = self.constants.get((node, index))
        return constant_array(node.inputs[index]).astype(np.float64) if known is None else known

    def dtype(self, node: ir.Node) -> np.dtype[np.generic]:
        """Return the dtype that a weighted operator computes in."""
        form = weighted(node)
        return np.dtype(np.float32) if form is None else constant_array(node.inputs[form.weight]).dtype

    def commit(self) -> None:
        """Write the new constants: in place of the old one where all of its readers get the same, else beside it."""
        by_old: dict[ir.Value, list[tuple[ir.Node, int]]] = {}
        for node, index in self.constants:
            by_old.setdefault(node.inputs[index], []).append((node, index))  # type: ignore[arg-type]
        for old, places in by_old.items():
            dtype = constant_array(old).dtype
            made: dict[bytes, ir.Value] = {}
            for place in places:
                array = self._stored(old, place, dtype)
                key = repr(array.shape).encode() + array.tobytes()
                if key not in made:
                    made[key] = add_initializer(self.graph, free_name(self.graph, f"{old.name}/scaled"), array)
                place[0].replace_input_with(place[1], made[key])
            if not old.uses() and not old.is_graph_output():
                name = str(old.name)
                del self.graph.initializers[name]
                next(iter(made.values())).name = name

    def _stored(self, old: ir.Value, place: tuple[ir.Node, int], dtype: np.dtype[np.generic]) -> Array:
        with np.errstate(over="ignore"):
            array = self.constants[place].astype(dtype)
        if not np.isfinite(array).all() and np.isfinite(constant_array(old)).all():
            raise PlanError(f"{self.where}: it makes numbers in {old.name!r} beyond {dtype}; use factors nearer to 1")
        return array


def _activations(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from (value for node in graph for value in node.outputs)


def _branch(edits: _Edits, scaling: Scaling) -> None:
    """Let the readers read a scaled tensor beside the one that stays."""
    [tied] = scaling.tied
    graph, data = edits.graph, edits.value(tied.tensor)
    readers = {(node, reader.input) for reader in scaling.readers for node in graph if node.name == reader.node}
    if len(readers) != len(scaling.readers) or any(node.inputs[index] is not data for node, index in readers):
        raise PlanError(f"{edits.where}: readers: found {scaling.readers}, expected nodes that read {tied.tensor!r}")
    divisor, offset = tied.spread(scaling.factors, 1.0), tied.spread(scaling.shifts, 0.0) if scaling.shifts else None
    first = next(node for node in graph if any(node is reader for reader, _ in readers))
    name = free_name(graph, f"{tied.tensor}/scaled")
    steps = {} if offset is not None and (divisor == 1.0).all() else {"Mul": 1.0 / divisor}
    steps |= {} if offset is None else {"Add": -offset / divisor}
    scaled = data
    for op_type, constant in steps.items():
        operand = add_initializer(graph, free_name(graph, f"{name}/{op_type}/constant"), np.asarray(constant, edits.dtype(first)))
        node = ir.node(op_type, inputs=[scaled, operand], name=free_name(graph, f"{name}/{op_type}"))
        scaled = node.outputs[0]
        scaled.name, scaled.type = f"{node.name}/result", data.type
        graph.insert_before(first, node)
    scaled.name = name
    for node, index in readers:
        node.replace_input_with(index, scaled)
    edits.divisors[scaled] = divisor
    if offset is not None:
        edits.offsets[scaled] = offset


def _loosen(edits: _Edits, name: str) -> None:
    """Turn a Clip into ReLU, unless another scaling did."""
    node = next((node for node in edits.graph if node.name == name and node.op_type in ("Clip", "Relu")), None)
    if node is None:
        raise PlanError(f"{edits.where}: loose: found no Clip {name!r} in the network, expected those that the scaling was made for")
    bounds = node.inputs[1:]
    node.op_type = "Relu"
    node.resize_inputs(1)
    for value in bounds:
        if value is not None and not value.uses() and not value.is_graph_output():
            del edits.graph.initializers[str(value.name)]


# --- what becomes of a node's constants ---------------------------------------------------------------------------------------


def _rewrite(edits: _Edits, node: ir.Node) -> None:
    """Rewrite the constants of `node`, so that it writes what it should when it reads what it will."""
    form = weighted(node)
    if form is not None:
        _rewrite_weights(edits, node, form)
        return
    match node.op_type:
        case "Add" | "Sub":
            _rewrite_addend(edits, node)
        case "Mul" | "Div":
            _rewrite_factor(edits, node)
        case "LayerNormalization" | "InstanceNormalization" | "BatchNormalization":
            _rewrite_normalization(edits, node)


def _rewrite_weights(edits: _Edits, node: ir.Node, form: Weighted) -> None:
    data, output = node.inputs[form.data], node.outputs[0]
    weight = edits.constant(node, form.weight)
    by, over = edits.divisor(data).reshape(-1), edits.divisor(output).reshape(-1)
    groups = int_attribute(node, "group", 1)
    channel, summed = form.channel_axis % weight.ndim, form.summed_axis % weight.ndim
    # A grouped convolution's weight holds one group after the other along the axis that comes first, and the other axis for each group.
    split = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:]) if groups > 1 else weight[np.newaxis]

    def along(values: Float64Array, axis: int) -> Float64Array:
        """`values` of all channels, shaped to go along `axis` of the split weight."""
        whole = np.broadcast_to(values, (groups * split.shape[1 + axis],))
        return whole.reshape([groups, *(-1 if i == axis else 1 for i in range(weight.ndim))])

    edits.constants[node, form.weight] = (split * along(by, summed) / along(over, channel)).reshape(weight.shape)
    added = np.zeros(())
    if data in edits.offsets:
        products = split * along(edits.offset(data).reshape(-1), summed)
        added = products.sum(axis=tuple(1 + axis for axis in range(weight.ndim) if axis != channel)).reshape(-1)  # (channels,)
    if form.bias is None:
        if data in edits.offsets:  # the Add behind takes this up
            edits.offsets[output] = added
            edits.divisors.setdefault(output, np.ones(()))
    elif is_constant([*node.inputs, None][form.bias]):
        bias = edits.constant(node, form.bias)
        edits.constants[node, form.bias] = (bias + added - edits.offset(output).reshape(-1)) / over


def _rewrite_addend(edits: _Edits, node: ir.Node) -> None:
    index = _constant_input(node)
    if index is None:
        return
    data, output = node.inputs[1 - index], node.outputs[0]
    signs = (1.0, -1.0) if node.op_type == "Sub" else (1.0, 1.0)
    moved = signs[1 - index] * edits.offset(data) - edits.offset(output)
    edits.constants[node, index] = (edits.constant(node, index) + signs[index] * moved) / edits.divisor(output)


def _rewrite_factor(edits: _Edits, node: ir.Node) -> None:
    index = _constant_input(node)
    if index is None:
        return
    ratio = edits.divisor(node.inputs[1 - index]) / edits.divisor(node.outputs[0])
    edits.constants[node, index] = edits.constant(node, index) * (ratio if node.op_type == "Mul" else 1.0 / ratio)


def _rewrite_normalization(edits: _Edits, node: ir.Node) -> None:
    data, output = node.inputs[0], node.outputs[0]
    by, over, offset = edits.divisor(data), edits.divisor(output), edits.offset(output)
    if node.op_type != "LayerNormalization":  # their constants are vectors
        by, over, offset = by.reshape(-1), over.reshape(-1), offset.reshape(-1)
    edits.constants[node, 1] = edits.constant(node, 1) * by / over
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        edits.constants[node, 2] = (edits.constant(node, 2) - offset) / over
    if node.op_type == "BatchNormalization":
        edits.constants[node, 3] = edits.constant(node, 3) / by


def _constant_input(node: ir.Node) -> int | None:
    return next((index for index, value in enumerate(node.inputs) if is_constant(value)), None)
