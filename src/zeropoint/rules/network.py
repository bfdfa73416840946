"""A network as the rules read it: the operators of all its graphs in one list, functions expanded, constants found.

Nothing here changes the model. Tensors are told apart by identity, since graphs beside each other may use a name twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from zeropoint.graph.model import Model, Node, Value
from zeropoint.graph.operators import has_subgraph

Array = npt.NDArray[np.generic]
Float64Array = npt.NDArray[np.float64]
Reading = tuple["Operator", int]
DEFAULT_DOMAINS = ("", "ai.onnx")
CONSTANTS = ("value", "value_float", "value_floats", "value_int", "value_ints")
KEEPS_VALUES = frozenset({"Identity", "Cast"})
# Their outputs differ from run to run, or do not follow from their inputs alone.
NEVER_CONSTANT = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"})


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A tensor; None stands for a dimension that is not fixed, a shape that is not told and data that is computed.

    dtype: ONNX's name in lower case, "" where it is not told.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    data: Callable[[], Array] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """One operator; None stands for an optional input that is left out."""

    name: str
    op_type: str
    domain: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    attributes: Mapping[str, object]

    @property
    def is_standard(self) -> bool:
        """Whether the operator is one of ONNX's own."""
        return self.domain in DEFAULT_DOMAINS

    @property
    def full_type(self) -> str:
        """The type, with the domain before it where it is not one of ONNX's own."""
        return self.op_type if self.is_standard else f"{self.domain}::{self.op_type}"

    def input(self, index: int) -> Tensor | None:
        """Return the input at `index`, or None where there is none."""
        return self.inputs[index] if index < len(self.inputs) else None

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute, or `default`."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, int) else default


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """All operators in the order of their graphs.

    opset: of the default domain, None where no operator needs one. outputs: of the main graph. rooted: tensors that can be
    computed before any input is known.
    """

    opset: int | None
    operators: tuple[Operator, ...]
    outputs: frozenset[Tensor]
    rooted: frozenset[Tensor]
    producers: Mapping[Tensor, Operator]
    readers: Mapping[Tensor, tuple[Reading, ...]]

    @property
    def operators_by_type(self) -> dict[str, int]:
        """How many operators of each type there are, the most frequent first."""
        return dict(Counter(operator.full_type for operator in self.operators).most_common())

    def producer(self, tensor: Tensor | None) -> Operator | None:
        """Return the operator that computes `tensor`; None for inputs, initializers and inputs that are left out."""
        return self.producers.get(tensor) if tensor is not None else None

    def uses(self, tensor: Tensor) -> tuple[Reading, ...]:
        """Return the operators that read `tensor`, each with the position of the input."""
        return self.readers.get(tensor, ())

    def array(self, tensor: Tensor | None) -> Array | None:
        """Return the data of a constant, also behind Identity and Cast; None where `tensor` is computed."""
        while tensor is not None and tensor.data is None:
            producer = self.producer(tensor)
            tensor = producer.input(0) if producer is not None and producer.op_type in KEEPS_VALUES else None
        return np.asarray(tensor.data()) if tensor is not None and tensor.data is not None else None


def read_network(model: Model) -> Network:
    """Return what the rules need to know of `model`, which stays as it is."""
    reader = _Reader(model)
    scope: dict[Value, Tensor] = {}
    reader.read(model.graph, scope, {}, "")
    outputs = frozenset(reader.tensor(value, scope) for value in model.graph.outputs)
    readers: dict[Tensor, list[Reading]] = {}
    for operator in reader.operators:
        for index, tensor in enumerate(operator.inputs):
            if tensor is not None:
                readers.setdefault(tensor, []).append((operator, index))
    return Network(
        opset=next((version for domain, version in model.opset_imports.items() if domain in DEFAULT_DOMAINS), None),
        operators=tuple(reader.operators),
        outputs=outputs,
        rooted=_rooted(reader.operators, reader.branching),
        producers={tensor: operator for operator in reader.operators for tensor in operator.outputs},
        readers={tensor: tuple(found) for tensor, found in readers.items()},
    )


@dataclass(slots=True)
class _Reader:
    """What the walk over the graphs has found so far; `active` are the functions that it is inside of."""

    model: Model
    operators: list[Operator] = field(default_factory=list)
    branching: set[Operator] = field(default_factory=set)
    active: list[tuple[str, str, str]] = field(default_factory=list)

    def tensor(self, value: Value, scope: dict[Value, Tensor]) -> Tensor:
        """Return the tensor that `value` stands for in this expansion of its graph."""
        if value not in scope:
            scope[value] = _tensor(value)
        return scope[value]

    def read(self, nodes: Iterable[Node], scope: dict[Value, Tensor], given: Mapping[str, object], prefix: str) -> None:
        """Add the operators of one graph; `given` holds the attributes of the call, where the graph is a function's body."""
        for node in nodes:
            attributes = _attributes(node, given)
            if node.op_identifier() in self.model.functions and node.op_identifier() not in self.active:
                self._expand(node, scope, attributes, prefix)
                continue
            inputs = tuple(self.tensor(value, scope) if value is not None else None for value in node.inputs)
            if node.op_type == "Constant" and len(node.outputs) == 1:
                scope[node.outputs[0]] = _constant(node.outputs[0], attributes)
            outputs = tuple(self.tensor(value, scope) for value in node.outputs)
            operator = Operator(_name(node, prefix), node.op_type, node.domain, inputs, outputs, attributes)
            self.operators.append(operator)
            if has_subgraph(node):
                self.branching.add(operator)
            for attribute in node.attributes.values():
                for graph in _graphs(attribute.value):
                    self.read(graph, scope, given, f"{operator.name}/")

    def _expand(self, node: Node, scope: dict[Value, Tensor], attributes: Mapping[str, object], prefix: str) -> None:
        """Add the operators of the function that `node` calls, with the call's tensors for the function's inputs and outputs."""
        identifier = node.op_identifier()
        function = self.model.functions[identifier]
        defaults = {name: attribute.value for name, attribute in function.attributes.items() if attribute.value is not None}
        passed = [self.tensor(value, scope) if value is not None else None for value in node.inputs]
        inner = {formal: tensor for formal, tensor in zip(function.inputs, passed, strict=False) if tensor is not None}
        self.active.append(identifier)
        self.read(function, inner, {**defaults, **attributes}, f"{_name(node, prefix)}/")
        self.active.pop()
        for value, formal in zip(node.outputs, function.outputs, strict=False):
            scope[value] = self.tensor(formal, inner)


def _tensor(value: Value) -> Tensor:
    stored = value.const_value if value.is_initializer() else None
    dtype = stored.dtype if stored is not None else value.dtype
    shape = stored.shape if stored is not None else value.shape
    return Tensor(
        name=str(value.name or ""),
        dtype=dtype.name.lower() if dtype is not None else "",
        shape=tuple(dim if isinstance(dim, int) else None for dim in shape) if shape is not None else None,
        data=stored.numpy if stored is not None else None,
    )


def _constant(value: Value, attributes: Mapping[str, object]) -> Tensor:
    """The output of a Constant node: a tensor as it is, a number or list of them in the type that ONNX gives it."""
    content = next((attributes[name] for name in CONSTANTS if name in attributes), None)
    numbers = content.numpy() if hasattr(content, "numpy") else content
    if not isinstance(numbers, int | float | Sequence | np.ndarray) or isinstance(numbers, str):
        return _tensor(value)
    integral = any(name.startswith("value_int") for name in attributes)
    array = numbers if isinstance(numbers, np.ndarray) else np.asarray(numbers, np.int64 if integral else np.float32)
    dtype = content.dtype.name.lower() if hasattr(content, "dtype") and hasattr(content.dtype, "name") else str(array.dtype)
    return Tensor(str(value.name or ""), dtype, array.shape, lambda: array)


def _attributes(node: Node, given: Mapping[str, object]) -> dict[str, object]:
    """The attributes by name, those that a function takes from its call among them, less those that the call leaves out."""
    found = {}
    for name, attribute in node.attributes.items():
        value = given.get(str(attribute.ref_attr_name)) if attribute.is_ref() else attribute.value
        if value is not None:
            found[name] = value
    return found


def _graphs(value: object) -> list[Iterable[Node]]:
    held = value if isinstance(value, list | tuple) else [value]
    return [graph for graph in held if hasattr(graph, "initializers") and isinstance(graph, Iterable)]


def _name(node: Node, prefix: str) -> str:
    """The node's name; nodes without one are called after what they write."""
    written = next((value.name for value in node.outputs if value.name), "nothing")
    return prefix + (node.name or f"{node.op_type} that writes {written}")


def _rooted(operators: Sequence[Operator], branching: set[Operator]) -> frozenset[Tensor]:
    rooted: set[Tensor] = set()
    for operator in operators:
        inputs = [tensor for tensor in operator.inputs if tensor is not None]
        rooted.update(tensor for tensor in (*inputs, *operator.outputs) if tensor.data is not None)
        is_pure = operator not in branching and operator.op_type not in NEVER_CONSTANT
        if inputs and is_pure and rooted.issuperset(inputs):
            rooted.update(operator.outputs)
    return frozenset(rooted)
