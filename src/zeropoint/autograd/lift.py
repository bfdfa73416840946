"""A network as a PyTorch module: differentiable operators in the graph's order, its weights as parameters, pairs as fake quantization."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from zeropoint.autograd.fake_quantize import FakeQuantize, fake_quantize
from zeropoint.autograd.operators import bound
from zeropoint.errors import ModelError, PlanError
from zeropoint.graph.exported import default_opset
from zeropoint.graph.initializers import Array, constant_array
from zeropoint.graph.model import Model, Node, Value
from zeropoint.graph.operators import is_constant, weighted
from zeropoint.graph.own_biases import MATRIX, bias_input
from zeropoint.numerics.formats import FORMATS
from zeropoint.plan import Entry, Plan, Reader

Tensor = Any  # of PyTorch, which has no types here
Device = Any  # a torch.device or its name
Function = Callable[[Sequence[Tensor]], Sequence[Tensor]]
Maker = Callable[[Entry, int], FakeQuantize]
NORMS = frozenset({"BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "RMSNormalization"})
ON_HOST = frozenset({("Resize", 1), ("Resize", 2)})  # floats that tell a shape


@dataclass(frozen=True, slots=True)
class Step:
    """One operator: what it computes, of which tensors, into which, and which nobody reads behind it."""

    name: str
    function: Function
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    finished: tuple[str, ...] = ()


@dataclass(slots=True)
class _Draft:
    """The steps so far, and the modules that quantize, by the tensor that they quantize."""

    steps: list[Step] = field(default_factory=list)
    quantizers: dict[str, FakeQuantize] = field(default_factory=dict)


class Lifted(nn.Module):
    """The network as a module: `forward` takes its inputs and returns its output, or a tuple of several.

    Its weights are parameters under the names that they have in the network, other floats are buffers. Integers, which are indices and
    shapes, stay where the host reads them. `quantizers` are the modules that quantize, `quantizer_of` tells them by tensor.
    """

    def __init__(self, network: Model, draft: _Draft, *, trainable: Collection[str], device: Device) -> None:
        super().__init__()
        self.inputs, self.outputs = (tuple(str(v.name) for v in values) for values in (network.graph.inputs, network.graph.outputs))
        self.steps = tuple(_with_ends(draft.steps, self.inputs, self.outputs))
        self.quantizer_of = dict(draft.quantizers)
        self.quantizers = nn.ModuleList(dict.fromkeys(draft.quantizers.values()))
        self.places: dict[str, tuple[nn.Module, str]] = {}
        self.on_host: dict[str, Tensor] = {}
        read = {name for step in self.steps for name in step.inputs} | {*self.outputs}
        for name, value in network.graph.initializers.items():
            if name not in read or not is_constant(value):
                continue
            array = np.asarray(constant_array(value), order="C")
            if name not in trainable and _belongs_on_host(value, array):
                self.on_host[name] = torch.tensor(array)
            else:
                tensor = torch.tensor(array, device=device)
                self.places[name] = _place(self, name, nn.Parameter(tensor) if name in trainable else tensor)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run the network on its inputs, in their order."""
        outputs, _ = self.features(inputs, ())
        return outputs[0] if len(outputs) == 1 else outputs

    def features(self, inputs: Sequence[Tensor], names: Collection[str]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Run the network, and return its outputs and the tensors inside that have these names, as they are before fake quantization."""
        kept: dict[str, Tensor] = {}
        return self.visit(inputs, names, kept.__setitem__), kept

    def visit(self, inputs: Sequence[Tensor], names: Collection[str], see: Callable[[str, Tensor], None]) -> tuple[Tensor, ...]:
        """Run the network and return its outputs; `see` is shown each tensor of `names` as soon as it is there."""
        if len(inputs) != len(self.inputs):
            raise ModelError(f"inputs: found {len(inputs)} tensors, expected {len(self.inputs)}: {', '.join(self.inputs)}")
        tensors = self.constants() | dict(zip(self.inputs, inputs, strict=True))
        for name in tensors.keys() & names:
            see(name, tensors[name])
        self._run(tensors, self.steps, names, see)
        return tuple(tensors[name] for name in self.outputs)

    def advanced(self, tensors: Mapping[str, Tensor], steps: slice) -> dict[str, Tensor]:
        """Return what is at hand behind some of the steps, of what was before them; constants are not told."""
        constants = self.constants()
        found = constants | dict(tensors)
        self._run(found, self.steps[steps], (), _unseen)
        return {name: tensor for name, tensor in found.items() if name not in constants}

    def constants(self) -> dict[str, Tensor]:
        """Return the tensors that no run changes, by name: weights, other numbers, shapes and indices."""
        return self.on_host | {name: getattr(module, leaf) for name, (module, leaf) in self.places.items()}

    def _run(self, tensors: dict[str, Tensor], steps: Sequence[Step], names: Collection[str], see: Callable[[str, Tensor], None]) -> None:
        for step in steps:
            made = step.function([tensors[name] if name else None for name in step.inputs])
            for name, tensor in zip(step.outputs, made, strict=False):
                if name:
                    tensors[name] = tensor
                    if name in names:
                        see(name, tensor)
            for name in step.finished:
                del tensors[name]

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The parameters that are weights of the network, by their names in it."""
        found = ((name, getattr(module, leaf)) for name, (module, leaf) in self.places.items())
        return {name: tensor for name, tensor in found if isinstance(tensor, nn.Parameter)}


def fixed_quantizer(entry: Entry, rank: int) -> FakeQuantize:
    """Return fake quantization at the numbers of an entry, which do not learn."""
    return FakeQuantize(entry.qparams(), entry.spec, rank, learning="fixed")


def lift(
    network: Model,
    plan: Plan | None = None,
    *,
    trainable: Collection[str] | None = None,
    quantizer: Maker = fixed_quantizer,
    device: Device = "cpu",
) -> Lifted:
    """Return the prepared float `network` as a module of differentiable operators, on a device.

    plan: what `graph.settle.settle` leaves: a FakeQuantize then stands before each node input that an entry names. trainable: names of
    the constants that are to be parameters, `trainable_weights` of the network where it is None. quantizer: makes the module for an entry
    and the number of axes of its tensor.

    Raises:
        ModelError: an operator has no translation.
        PlanError: the plan names a tensor or node input that the network does not have, or a group in it has several scales.
    """
    entries = () if plan is None else plan.entries
    draft, opset = _Draft(quantizers=_quantizers(network, entries, quantizer)), default_opset(network)
    pairs = {reader: entry for entry in entries for reader in entry.readers}
    factors = dict(products(network, {entry.tensor for entry in entries if entry.role == "bias"}))
    done: set[str] = set()
    for node in network.graph:
        inputs = [str(value.name) if value is not None else "" for value in node.inputs]
        for index, tensor in enumerate(inputs):
            entry = pairs.pop(Reader(str(node.name), index), None)
            if entry is None:
                continue
            if entry.tensor != tensor:
                raise PlanError(f"plan: node {node.name!r} reads {tensor!r} as its input {index}, expected {entry.tensor!r}")
            inputs[index] = _quantized(tensor)
            if tensor not in done:
                done.add(tensor)
                draft.steps.append(_pair(draft, entry, factors))
        outputs = tuple(str(value.name or "") for value in node.outputs)
        draft.steps.append(Step(str(node.name), bound(node, opset), tuple(inputs), outputs))
    if pairs:
        reader, entry = next(iter(pairs.items()))
        raise PlanError(f"plan: tensor {entry.tensor!r}: found no node {reader.node!r} with an input {reader.input} in the network")
    trained = trainable_weights(network) if trainable is None else trainable
    lifted = Lifted(network, draft, trainable=trained, device=device)
    lifted.to(device)
    return lifted


def trainable_weights(network: Model) -> frozenset[str]:
    """Return the names of the float constants that training moves, judged by who reads them.

    They are the weights and biases of Conv, ConvTranspose, Gemm and MatMul, scales and biases of norms, slopes of PRelu, and tables
    of embeddings; other constants, such as anchors, masks and running statistics, are not.
    """
    found = (value for node in network.graph for value in _weights_of(node) if is_constant(value))
    return frozenset(str(value.name) for value in found if constant_array(value).dtype.kind == "f" and constant_array(value).ndim > 0)


def bias_scale(data: FakeQuantize, weight: FakeQuantize) -> Tensor:
    """Return the scale of the products of what two modules quantize: one, or one for each output channel."""
    with torch.no_grad():
        scale = data.numbers()[0].reshape(()) * weight.numbers()[0]
        return scale.reshape(-1) if scale.numel() > 1 else scale.reshape(())


def products(network: Model, biases: Collection[str]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield for each of `biases` the tensors whose product it is added to: the data and the weight."""
    for node in network.graph if biases else ():
        form = weighted(node)
        added = None if form is None else bias_input(node, form)
        if form is not None and added is not None:
            read = (added[0].inputs[added[1]], node.inputs[form.data], node.inputs[form.weight])
            bias, data, weight = (str(value.name) for value in read)  # type: ignore[union-attr]
            if bias in biases:
                yield bias, (data, weight)


def _weights_of(node: Node) -> Iterator[Value]:
    form = weighted(node)
    inputs: Sequence[Value | None] = ()
    if form is not None:
        added = bias_input(node, form)
        inputs = (*node.inputs, None if added is None else added[0].inputs[added[1]])
    elif node.op_type in NORMS:
        inputs = node.inputs[1:3]
    elif node.op_type == "PRelu":
        inputs = node.inputs[1:2]
    elif node.op_type == "Gather" and is_constant(node.inputs[0]) and constant_array(node.inputs[0]).ndim == MATRIX:
        inputs = node.inputs[:1]
    yield from (value for value in inputs if value is not None)


def _belongs_on_host(value: Value, array: Array) -> bool:
    if array.dtype.kind != "f" or array.ndim == 0:
        return True
    return all((node.op_type, index) in ON_HOST for node, index in value.uses())


def _place(root: nn.Module, name: str, tensor: Tensor) -> tuple[nn.Module, str]:
    """Register a tensor under its dotted name, so that a state dict calls it as the network does, or a flat one where that is taken."""
    owner, (*path, leaf) = root, name.split(".")
    for part in path:
        if part not in owner._modules:
            if not part or hasattr(owner, part):
                return _place(root, name.replace(".", "/"), tensor)
            owner.add_module(part, nn.Module())
        owner = owner._modules[part]
    if not leaf or hasattr(owner, leaf):
        return _place(root, f"{name.replace('.', '/')}_", tensor)
    if isinstance(tensor, nn.Parameter):
        owner.register_parameter(leaf, tensor)
    else:
        owner.register_buffer(leaf, tensor)
    return owner, leaf


def _quantizers(network: Model, entries: Sequence[Entry], make: Maker) -> dict[str, FakeQuantize]:
    """Make a module for each entry but those of biases, whose scale follows from two others; tensors of a group share one."""
    values = {str(value.name): value for value in network.graph.inputs} | dict(network.graph.initializers)
    values |= {str(value.name): value for node in network.graph for value in node.outputs}
    shared: dict[str, tuple[Entry, FakeQuantize]] = {}
    found = {}
    for entry in entries:
        if entry.tensor not in values:
            raise PlanError(f"plan: tensor {entry.tensor!r} is not in the network; was it made for another one?")
        if entry.role == "bias":
            continue
        value = values[entry.tensor]
        rank = constant_array(value).ndim if is_constant(value) else 0  # an activation has one scale, whatever its axes
        name = entry.group or entry.tensor
        if name not in shared:
            shared[name] = (entry, make(entry, rank))
        first, found[entry.tensor] = shared[name]
        if (first.spec, first.scale, first.zero_point) != (entry.spec, entry.scale, entry.zero_point):
            raise PlanError(
                f"plan: tensor {entry.tensor!r}: found other numbers than those of {first.tensor!r}, expected the same in all of group "
                f"{name!r}; give them one format, scale and zero point, or no group"
            )
    return found


def _unseen(name: str, tensor: Tensor) -> None:
    """See nothing."""


def _quantized(tensor: str) -> str:
    return f"{tensor}/fake_quantized"


def _pair(draft: _Draft, entry: Entry, factors: Mapping[str, tuple[str, str]]) -> Step:
    function: Function
    if entry.role != "bias":
        function = _Quantize(draft.quantizers[entry.tensor])
    elif entry.tensor in factors and all(tensor in draft.quantizers for tensor in factors[entry.tensor]):
        function = _QuantizeBias(*(draft.quantizers[tensor] for tensor in factors[entry.tensor]))
    else:
        raise PlanError(f"plan: bias {entry.tensor!r}: found codes, but not for both of what it is added to the product of")
    return Step(f"{entry.tensor}/FakeQuantize", function, (entry.tensor,), (_quantized(entry.tensor),))


@dataclass(frozen=True, slots=True, eq=False)
class _Quantize:
    module: FakeQuantize

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor]:
        return (self.module(inputs[0]),)


@dataclass(frozen=True, slots=True, eq=False)
class _QuantizeBias:
    """Codes at the scale of the products, which does not learn by them: they are too fine to matter."""

    data: FakeQuantize
    weight: FakeQuantize

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor]:
        scale, codes = bias_scale(self.data, self.weight), FORMATS["int32"]
        return (fake_quantize(inputs[0], scale, torch.zeros_like(scale), qmin=codes.qmin, qmax=codes.qmax),)


def _with_ends(steps: Sequence[Step], inputs: Sequence[str], outputs: Sequence[str]) -> Iterator[Step]:
    """Tell for each step which tensors nobody reads any more behind it, so that their memory is free; constants stay."""
    made = {*inputs, *(name for step in steps for name in step.outputs if name)}
    last = {name: number for number, step in enumerate(steps) for name in (*step.outputs, *step.inputs) if name in made}
    for number, step in enumerate(steps):
        names = dict.fromkeys((*step.inputs, *step.outputs))
        finished = tuple(name for name in names if last.get(name) == number and name not in outputs)
        yield Step(step.name, step.function, step.inputs, step.outputs, finished)
