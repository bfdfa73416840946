"""Find the tensors that are the same in two networks: by their names, and by their places where one of them has others.

What is in doubt stays without a partner: a wrong pair would blame a layer that has no fault.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from zeropoint.graph.facts import Facts
from zeropoint.graph.folded import behind_folded, constants_apart
from zeropoint.graph.operators import is_default_domain
from zeropoint.graph.signals import Array, Signals, as_read, constant_values, is_recoded, read_signals

MULTIPLIES = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
LEAST_COSINE = 0.2  # of weights; those of another layer are at a right angle, while smoothing and folding turn them by less
COMMUTATIVE = frozenset({"Add", "Mul", "Max", "Min", "Sum", "Mean", "And", "Or", "Xor", "Equal"})
NEAR, CLEARLY = 0.25, 0.5  # relative distance of weights that may be the same, and by how much nearer than any others they must be


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """One tensor of network a and the same one of network b, each as all of its readers see it.

    node, operator: what computes it in a, or the one with weights where that and others have no counterpart of their own; the input's
    own name, and "input", where it is fed. others: all tensors of b that hold the same as `other`, itself among them. before: the matched
    tensors (as `tensor`) that b computes it from, with none between. is_layer: whether anything is computed, or coded, to come to it.
    """

    node: str
    operator: str
    tensor: str
    other: str
    others: tuple[str, ...]
    before: tuple[str, ...]
    is_layer: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """inputs: b's name of each input of a. tensors: in the order of a. unmatched: tensors of a, with their nodes, without a partner."""

    inputs: Mapping[str, str]
    tensors: tuple[Match, ...]
    unmatched: tuple[tuple[str, str], ...]


def match_inputs(a: ir.Model, b: ir.Model) -> dict[str, str]:
    """Return b's name for each input of a that must be fed: the same, or that of the input in its place."""
    ours, theirs = ([str(value.name) for value in model.graph.inputs if value.name not in model.graph.initializers] for model in (a, b))
    found = {name: name for name in ours if name in theirs}
    left = [name for name in ours if name not in found], [name for name in theirs if name not in found]
    return found | dict(zip(*left, strict=False))


def match_tensors(a: ir.Model, b: ir.Model, facts: tuple[Facts, Facts], *, apart: Collection[str] = ()) -> Matching:
    """Return what is the same in `a` and `b`; the tensors of a in `apart` get no partner.

    facts: of one run of each on the same feed, by which tensors of other shapes are told apart.
    """
    search = _Search(read_signals(a), read_signals(b), facts)
    inputs = match_inputs(a, b)
    for ours, theirs in inputs.items():
        search.pair(search.a.named[ours], search.b.named[theirs])
    for node in search.a.nodes:
        for value in node.outputs:
            search.by_name(value)
    search.outputs(a, b)
    while search.forward() or search.backward():
        pass
    return _matching(search, inputs, set(apart))


@dataclass(slots=True)
class _Search:
    """Roots of a and b that were found to be the same so far, and those of which it cannot be told."""

    a: Signals
    b: Signals
    facts: tuple[Facts, Facts]
    partner: dict[ir.Value, ir.Value] = field(default_factory=dict)
    owner: dict[ir.Value, ir.Value] = field(default_factory=dict)  # the other way round
    doubtful: set[ir.Value] = field(default_factory=set)

    def pair(self, ours: ir.Value, theirs: ir.Value) -> bool:
        """Take two roots for the same, unless one of them has a partner already or their shapes differ; return whether they are new."""
        first, second = (facts.get(str(value.name)) for facts, value in zip(self.facts, (ours, theirs), strict=True))
        alike = first is None or second is None or (first.shape == second.shape and (first.dtype.kind == second.dtype.kind))
        if ours in self.partner or theirs in self.owner or not self.doubtful.isdisjoint((ours, theirs)) or not alike:
            return False
        self.partner[ours], self.owner[theirs] = theirs, ours
        return True

    def by_name(self, ours: ir.Value) -> None:
        """Pair a root of a with what has its name in b, if nothing is known that speaks against it."""
        found = self.b.named.get(str(ours.name))
        theirs = self.b.root(found)
        node, other = ours.producer(), theirs.producer() if theirs is not None else None
        if theirs is None or node is None or other is None or self._contradicted(node, other):
            return
        if node.op_type != other.op_type and str(ours.name).isdigit():  # of counted names, which another exporter counts otherwise
            return
        if node.op_type == other.op_type and _alikeness(node, other) < LEAST_COSINE:
            return
        placed = self._counterpart(node) if not self._fits(node, other) and self._is_reached(node) else None
        if placed is not None:
            if not str(ours.name).isdigit():
                self.doubtful |= {ours, theirs, *placed.outputs}  # the name says this, the place that
            return
        behind = self._behind_affine(ours, theirs)
        if behind is not None:
            self.pair(*behind)

    def _contradicted(self, node: ir.Node, other: ir.Node) -> bool:
        """Whether both read what has a partner, but not each other's."""
        if node.op_type != other.op_type:
            return False
        ours, theirs = self.a.read(node), self.b.read(other)
        if node.op_type in COMMUTATIVE:
            known = {self.partner[value] for value in ours if value in self.partner}
            return bool(known) and known.isdisjoint(theirs) and all(value in self.owner for value in theirs if value is not None)
        return any(
            value in self.partner and value_b in self.owner and self.partner[value] is not value_b
            for value, value_b in zip(ours, theirs, strict=False)
            if value is not None and value_b is not None
        )

    def _behind_affine(self, ours: ir.Value, theirs: ir.Value) -> tuple[ir.Value, ir.Value] | None:
        """Go on to what a BatchNormalization, or another affine operator, makes of one of them, if it is folded in the other.

        None where it cannot be told, or has a partner of its own name in the other network: nothing is the same as what stands before it.
        """
        in_a = behind_folded(self.a, ours, self.b, theirs)
        if in_a is None:
            return None
        for behind in in_a:
            ours = behind
            if self.b.root(self.b.named.get(str(ours.name))) not in (None, theirs):
                return None
        in_b = behind_folded(self.b, theirs, self.a, ours)
        if in_b is None:
            return None
        for behind in in_b:
            theirs = behind
            if self.a.root(self.a.named.get(str(theirs.name))) not in (None, ours):
                return None
        return ours, theirs

    def outputs(self, a: ir.Model, b: ir.Model) -> None:
        """Pair outputs of the networks: those of one name, and the others by their places, where there are as many."""
        theirs = [value for value in b.graph.outputs if value.name not in {output.name for output in a.graph.outputs}]
        ours = [value for value in a.graph.outputs if value.name not in {output.name for output in b.graph.outputs}]
        if len(ours) == len(theirs):
            for one, other in zip(ours, theirs, strict=True):
                roots = self.a.root(one), self.b.root(other)
                if roots[0] is not None and roots[1] is not None:
                    self.pair(roots[0], roots[1])

    def forward(self) -> bool:
        """Pair what nodes of one type make of pairs, where there is no choice; return whether there were any."""
        found = False
        for node in self.a.nodes:
            if any(value in self.partner for value in node.outputs) or not self._is_reached(node):
                continue
            other = self._counterpart(node)
            if other is not None:
                for ours, theirs in zip(node.outputs, other.outputs, strict=True):
                    behind = self._behind_affine(ours, theirs)
                    found |= behind is not None and self.pair(*behind)
        return found

    def _is_reached(self, node: ir.Node) -> bool:
        read = [value for value in self.a.read(node) if value is not None]
        return bool(read) and all(value in self.partner for value in read)

    def _counterpart(self, node: ir.Node) -> ir.Node | None:
        first = next(value for value in self.a.read(node) if value is not None)
        theirs = [other for other in self.b.readers(self.partner[first]) if self._fits(node, other) and self._is_free(other)]
        ours = [one for one in self.a.readers(first) if any(self._fits(one, other) for other in theirs) and not self._has_partner(one)]
        if len(theirs) == len(ours) > 0 and all(_computes_alike(nodes[0], one) for nodes in (ours, theirs) for one in nodes[1:]):
            return theirs[ours.index(node)] if node in ours else None  # all of them give out the same
        return _nearest(node, ours, theirs)

    def _has_partner(self, node: ir.Node) -> bool:
        return any(value in self.partner for value in node.outputs)

    def _is_free(self, other: ir.Node) -> bool:
        return not any(value in self.owner for value in other.outputs)

    def _fits(self, node: ir.Node, other: ir.Node) -> bool:
        """Whether two nodes are of one type and read pairs in the same places."""
        if not _same_operator(node, other):
            return False
        ours, theirs = self.a.read(node), self.b.read(other)
        shorter = min(len(ours), len(theirs))
        if any(value is not None for value in (*ours[shorter:], *theirs[shorter:])):
            return False
        return all((self.partner.get(one) if one is not None else None) is two for one, two in zip(ours, theirs, strict=False))

    def backward(self) -> bool:
        """Pair what pairs are computed from, where nodes of one type read a single signal each; return whether there were any."""
        found = False
        for node in reversed(self.a.nodes):
            theirs = next((self.partner[value] for value in node.outputs if value in self.partner), None)
            other = theirs.producer() if theirs is not None else None
            if other is None or not _same_operator(node, other):
                continue
            ours, read = ([v for v in signals.read(one) if v is not None] for signals, one in ((self.a, node), (self.b, other)))
            if len(ours) == len(read) == 1 and self._may_be(ours[0].producer(), read[0].producer()):
                found |= self.pair(ours[0], read[0])
        return found

    def _may_be(self, node: ir.Node | None, other: ir.Node | None) -> bool:
        return node is not None and other is not None and _same_operator(node, other) and not self._contradicted(node, other)


def _same_operator(node: ir.Node, other: ir.Node) -> bool:
    if node.op_type != other.op_type or len(node.outputs) != len(other.outputs):
        return False
    if node.domain != other.domain and not (is_default_domain(node) and is_default_domain(other)):
        return False
    shared = node.attributes.keys() & other.attributes.keys()
    return all(_same_attribute(node.attributes[name].value, other.attributes[name].value) for name in shared)


def _same_attribute(one: object, two: object) -> bool:
    plain = (int, float, str, tuple, list)
    return not (isinstance(one, plain) and isinstance(two, plain)) or one == two


def _computes_alike(node: ir.Node, other: ir.Node) -> bool:
    """Whether two nodes of a network compute the same from the same tensors."""
    if not _same_operator(node, other) or node.attributes.keys() != other.attributes.keys() or len(node.inputs) != len(other.inputs):
        return False
    return all(
        one is two or (one is not None and two is not None and _equal(constant_values(one), constant_values(two)))
        for one, two in zip(node.inputs, other.inputs, strict=True)
    )


def _equal(one: Array | None, two: Array | None) -> bool:
    return one is not None and two is not None and one.dtype == two.dtype and np.array_equal(one, two)


def _nearest(node: ir.Node, ours: list[ir.Node], theirs: list[ir.Node]) -> ir.Node | None:
    """Return which of `theirs` has the constants of `node`, near enough, and not those of another of `ours`."""
    distances = sorted(((constants_apart(node, other), number) for number, other in enumerate(theirs)))
    if not distances or distances[0][0] > NEAR:
        return None
    best = theirs[distances[0][1]]
    rivals = [distance for distance, _ in distances[1:]] + [constants_apart(one, best) for one in ours if one is not node]
    return best if all(distances[0][0] < CLEARLY * rival for rival in rivals) else None


def _alikeness(node: ir.Node, other: ir.Node) -> float:
    """Return the smallest cosine between weights that two nodes read in the same places; 1 where there are none."""
    cosines = [1.0]
    for one, two in zip(node.inputs, other.inputs, strict=False):
        first, second = constant_values(one), constant_values(two)
        if node.op_type in MULTIPLIES and first is not None and second is not None and first.shape == second.shape and first.ndim > 1:
            x, y = first.reshape(-1).astype(np.float64), second.reshape(-1).astype(np.float64)
            norm = float(np.sqrt(np.square(x).sum() * np.square(y).sum()))
            cosines.append(float((x * y).sum()) / norm if norm else 1.0)
    return min(cosines)


def _matching(search: _Search, inputs: Mapping[str, str], apart: set[str]) -> Matching:
    pairs = {}  # by a's root
    for ours in (*search.a.model.graph.inputs, *(value for node in search.a.nodes for value in node.outputs)):
        if ours in search.partner:
            seen = as_read(ours)[0]
            if str(seen.name) not in apart:
                pairs[ours] = (str(seen.name), as_read(search.partner[ours]))
    makers = _makers(search.a, pairs.keys())
    before = _before(search.b, {value: tensor for tensor, others in pairs.values() for value in others})
    tensors = tuple(
        Match(
            node=str((node.name if (node := makers.get(ours)) is not None else "") or ours.name),
            operator=node.op_type if node is not None else "input",
            tensor=tensor,
            other=str(others[0].name),
            others=tuple(str(value.name) for value in others),
            before=before[others[0]],
            is_layer=node is not None or is_recoded(search.a.named[tensor]) or is_recoded(others[0]),
        )
        for ours, (tensor, others) in pairs.items()
    )
    unmatched = tuple(
        (str(value.name), str(node.name)) for node in search.a.nodes for value in node.outputs if value.name and value not in pairs
    )
    return Matching(inputs=inputs, tensors=tensors, unmatched=unmatched)


def _makers(signals: Signals, matched: Collection[ir.Value]) -> dict[ir.Value, ir.Node]:
    """Return the node of each matched root: the one with weights, if there is one among those between it and other matched ones."""
    between: dict[ir.Value, tuple[ir.Node, ...]] = {}
    found = {}
    for node in signals.nodes:
        nodes = (*dict.fromkeys(one for value in signals.read(node) if value is not None for one in between.get(value, ())), node)
        multiplying = [one for one in nodes if one.op_type in MULTIPLIES and any(value in signals.constants for value in one.inputs[:2])]
        for value in node.outputs:
            found[value] = multiplying[0] if len(multiplying) == 1 else node
            between[value] = () if value in matched else nodes
    return found


def _before(signals: Signals, matched: Mapping[ir.Value, str]) -> dict[ir.Value, tuple[str, ...]]:
    """Return for each of the tensors in `matched` the names of those that it is computed from, with none between."""
    found: dict[ir.Value, tuple[str, ...]] = {}
    sources: dict[ir.Value, tuple[str, ...]] = {value: (matched[value],) for value in signals.model.graph.inputs if value in matched}
    found.update({value: () for value in sources})
    for node in signals.model.graph:
        read = dict.fromkeys(name for value in _all_read(node) for name in sources.get(value, ()))
        for value in node.outputs:
            if value in matched:
                found[value] = tuple(read)
                sources[value] = (matched[value],)
            else:
                sources[value] = tuple(read)
    return found


def _all_read(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what a node reads, also inside its bodies."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        held = attribute.value if isinstance(attribute.value, list | tuple) else [attribute.value]
        for body in held:
            if isinstance(body, ir.Graph):
                yield from (value for value in body.outputs)
                for inner in body:
                    yield from _all_read(inner)
