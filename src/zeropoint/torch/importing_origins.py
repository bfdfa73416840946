"""From which module, and which operator of it, each node of an exported network comes."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from zeropoint.graph.model import Model, Node, Value
from zeropoint.graph.operators import Weighted, is_constant, weighted
from zeropoint.torch.foreign.checkpoint import Operand, operator_kind

SCOPES, CLASSES = "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy"
OF_WEIGHT = re.compile(r"^(.*)\.weight(/folded\d*)?$")


@dataclass(frozen=True, slots=True)
class Origin:
    """The innermost module, the kind of operator, and the traced node's name."""

    module: str
    kind: str
    traced: str


Origins = Mapping[str, Origin]


def origins(model: Model) -> Origins:
    """Return the origin of each node of PyTorch's export, by the node's name, in the order of the nodes."""
    found = {}
    for node in model.graph:
        scopes, classes = (_names(node.metadata_props.get(key, "")) for key in (SCOPES, CLASSES))
        if len(scopes) > 1 and classes:
            found[str(node.name)] = Origin(scopes[-2], operator_kind(classes[-1]), scopes[-1])
    return found


def _names(text: str) -> tuple[str, ...]:
    try:
        return tuple(map(str, ast.literal_eval(text)))
    except (ValueError, SyntaxError):
        return ()


@dataclass(frozen=True, slots=True)
class Product:
    """A node with a constant weight, its form, and the module that the weight is of."""

    node: Node
    form: Weighted
    module: str

    @property
    def weight(self) -> Value:
        """The constant."""
        value = self.node.inputs[self.form.weight]
        assert value is not None  # or there were no form
        return value


@dataclass(frozen=True, slots=True, eq=False)
class Traced:
    """The prepared network, where its nodes come from, and which of them multiply by a module's weight."""

    network: Model
    origins: Origins
    products: tuple[Product, ...]

    def fed(self, module: str) -> tuple[str, ...]:
        """Return the tensors that `module` is fed: what meets its weight, or what its first node reads."""
        products = [_name(product.node.inputs[product.form.data]) for product in self.products if product.module == module]
        if products:
            return tuple(dict.fromkeys(products))
        nodes = self.inside(module)
        own = {value for node in nodes for value in node.outputs}
        first = [value for value in nodes[0].inputs if value is not None and not is_constant(value) and value not in own] if nodes else []
        return tuple(_name(value) for value in dict.fromkeys(first)) if len(set(first)) == 1 else ()

    def given_out(self, module: str) -> tuple[str, ...]:
        """Return the tensor that `module` gives out."""
        products = [product.node for product in self.products if product.module == module]
        nodes = products or self.inside(module)
        return (_name(nodes[-1].outputs[0]),) if nodes else ()

    def inside(self, module: str) -> list[Node]:
        """Return the nodes of `module` and of the modules in it."""
        prefix = f"{module}." if module else ""
        return [node for node in self.network.graph if self._module(node) == module or (self._module(node) or "").startswith(prefix)]

    def skips(self, module: str) -> tuple[str, ...]:
        """Return what the Adds that `module` itself calls add to the longer of two ways; () where one has two ways of the same length."""
        depths = dict[Value, int]()
        for node in self.network.graph:
            depth = 1 + max((depths.get(value, 0) for value in node.inputs if value is not None), default=0)
            depths.update(dict.fromkeys(node.outputs, depth))
        adds = [node for node in self.network.graph if self._module(node) == module and node.op_type == "Add"]
        ways = [[value for value in node.inputs if value is not None] for node in adds if not any(map(is_constant, node.inputs))]
        found = [sorted(values, key=lambda value: depths.get(value, 0)) for values in ways]
        if any(depths.get(values[0], 0) == depths.get(values[-1], 0) for values in found):
            return ()
        return tuple(dict.fromkeys(_name(values[0]) for values in found))

    def operand(self, place: Operand) -> tuple[str, ...]:
        """Return the input or output of an operator; () where the network has not as many of its kind in that module."""
        same = [o.traced for o in self.origins.values() if (o.module, o.kind) == (place.module, place.operator)]
        names = list(dict.fromkeys(same))
        if len(names) != place.count:
            return ()
        nodes = [n for n in self.network.graph if str(n.name) in self.origins and self.origins[str(n.name)].traced == names[place.number]]
        if not nodes:
            return ()
        if place.index is None:
            return (_name(nodes[-1].outputs[0]),)
        inputs = nodes[0].inputs
        value = inputs[place.index] if place.index < len(inputs) else None
        return () if value is None or is_constant(value) else (_name(value),)

    def _module(self, node: Node) -> str | None:
        origin = self.origins.get(str(node.name))
        return None if origin is None else origin.module


def _name(value: Value | None) -> str:
    return "" if value is None else str(value.name)


def traced(network: Model, origins: Origins, modules: Collection[str]) -> Traced:
    """Return the prepared `network` with the products in it. modules: those that have a weight of two axes or more."""
    products = []
    for node in network.graph:
        form = weighted(node)
        if form is None:
            continue
        scope, name = origins.get(str(node.name)), OF_WEIGHT.match(_name(node.inputs[form.weight]))
        if scope is not None and scope.module in modules:  # of tied weights, the name tells only the first owner
            products.append(Product(node, form, scope.module))
        elif name is not None:  # batch normalization was folded into it, and left its own origin behind
            products.append(Product(node, form, name[1]))
    return Traced(network, origins, tuple(products))
