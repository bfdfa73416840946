"""Find the sites: the tensors that take a Q/DQ pair, and the node inputs that read them through it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase

import onnx_ir as ir

from zeropoint.errors import RecipeError
from zeropoint.graph.eligibility import FLOAT32, becomes_float_gemm, why_not
from zeropoint.graph.facts import Facts
from zeropoint.graph.initializers import constant_array
from zeropoint.graph.operators import is_constant, is_default_domain, is_depthwise, moved_inputs, weighted
from zeropoint.graph.own_biases import bias_input
from zeropoint.notes import Note
from zeropoint.plan import Reader
from zeropoint.targets import Role, Target

RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
WEIGHTED_ROLES = frozenset({Role.WEIGHTED, Role.WEIGHTED_TO_CODES})


@dataclass(frozen=True, slots=True)
class Site:
    """One activation to quantize. Sites of the same `group` share one scale."""

    tensor: str
    readers: tuple[Reader, ...]
    group: str


@dataclass(frozen=True, slots=True)
class WeightUse:
    """One node input that reads a weight, the activation that meets it there, and the bias that is added, if constant, and where."""

    reader: Reader
    data: str
    bias: str | None
    bias_reader: Reader | None


@dataclass(frozen=True, slots=True)
class WeightSite:
    """A constant weight; `axis` holds its output channels, None asks for one scale. `summed` holds its input channels, if one axis does."""

    tensor: str
    axis: int | None
    summed: int | None
    uses: tuple[WeightUse, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """All sites of a network for a target, and a note for each operator that could hold integers but stays in float."""

    activations: tuple[Site, ...]
    weights: tuple[WeightSite, ...]
    notes: tuple[Note, ...]


_Axes = tuple[int | None, int | None]  # of output channels, and of input channels


@dataclass(slots=True)
class _Draft:
    """What the walk over the graph has found so far.

    readers: per site, who asked for codes. integer: tensors that an integer kernel computes. codes: those that it must write
    as codes. downstream: tensors that depend on one of an integer kernel. depth: per tensor, the longest path from an input.
    excludable, includable: nodes that would be quantized, and those that are held back, unless the user says otherwise.
    """

    readers: dict[ir.Value, list[Reader]] = field(default_factory=dict)
    integer: set[ir.Value] = field(default_factory=set)
    codes: set[ir.Value] = field(default_factory=set)
    downstream: set[ir.Value] = field(default_factory=set)
    depth: dict[ir.Value, int] = field(default_factory=dict)
    excludable: list[ir.Node] = field(default_factory=list)
    includable: list[ir.Node] = field(default_factory=list)
    weights: dict[str, list[tuple[_Axes, WeightUse]]] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def demand(self, node: ir.Node, index: int) -> None:
        """Let `node` read its input `index` through a Q/DQ pair."""
        value = node.inputs[index]
        if value is not None:
            self.readers.setdefault(value, []).append(Reader(str(node.name), index))

    def note(self, node: ir.Node, reason: str) -> None:
        """Say why `node` stays in float."""
        self.notes.append(Note(str(node.name), f"{node.op_type} stays in float: {reason}", kind="float"))


def find_sites(model: ir.Model, facts: Facts, target: Target, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Placement:
    """Return where `target` wants Q/DQ pairs in the prepared `model`.

    `include` and `exclude` are shell patterns over node names and operator types: operators that the target holds back are
    quantized where included, and excluded nodes stay in float.

    Raises:
        RecipeError: a pattern fits no node and no operator type, or none whose treatment it could change.
    """
    _check_patterns(model, include=include, exclude=exclude)
    draft = _Draft()
    for node in model.graph:
        deepest = max((draft.depth.get(value, 0) for value in node.inputs if value is not None), default=0)
        draft.depth.update(dict.fromkeys(node.outputs, deepest + 1))
        if any(value in draft.integer or value in draft.downstream for value in node.inputs):
            draft.downstream.update(node.outputs)
        role = _role(draft, node, target, include=include, exclude=exclude)
        if role in WEIGHTED_ROLES:
            _place_weighted(draft, node, facts, target, to_codes=role is Role.WEIGHTED_TO_CODES)
        elif role is Role.JOINS:
            _place_joining(draft, node, facts, target)
        elif role is Role.READS:
            _place_reading(draft, node)
        elif role is Role.RESIDUAL:
            _place_residual(draft, node, facts, target)
        elif role is Role.MOVES:
            _place_moving(draft, node, target)
        elif role is Role.FUSES and node.inputs[0] in draft.integer and not _fuses(node, target):
            draft.note(node, f"it fuses on {target.name} only where its lower bound is the constant 0")
    _check_effects(draft, target, include=include, exclude=exclude)
    _spread_codes(draft, model.graph)
    groups = _groups(draft, target)
    activations = tuple(Site(str(v.name), tuple(readers), str(groups[v].name)) for v, readers in draft.readers.items() if readers)
    return Placement(activations, _weight_sites(draft), tuple(draft.notes))


def _role(draft: _Draft, node: ir.Node, target: Target, *, include: Sequence[str], exclude: Sequence[str]) -> Role | None:
    role = target.operators.get(node.op_type) if is_default_domain(node) else None
    if role is None:
        if node.op_type in RECURRENT:
            draft.note(node, f"{target.name} has no integer kernel for it")
        return None
    if role in (Role.MOVES, Role.FUSES):
        return role
    draft.excludable.append(node)
    held_back = _why_held_back(draft, node, role, target)
    if held_back:
        draft.includable.append(node)
    if _matches(node, exclude):
        draft.note(node, "excluded by name or operator type")
        return None
    if held_back and not _matches(node, include):
        draft.note(node, f"{held_back} on {target.name}; include it by name or operator type to quantize it")
        return None
    return Role.WEIGHTED if role is Role.HELD_BACK else role


def _why_held_back(draft: _Draft, node: ir.Node, role: Role, target: Target) -> str:
    if role is Role.HELD_BACK:
        return "it seldom pays"
    is_stem = not any(value in draft.downstream for value in node.outputs)
    return "a depthwise stem seldom pays" if is_stem and is_depthwise(node) and not target.depthwise_stem else ""


def _matches(node: ir.Node, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(str(node.name), pattern) or node.op_type == pattern for pattern in patterns)


def _check_patterns(model: ir.Model, *, include: Sequence[str], exclude: Sequence[str]) -> None:
    nodes = list(model.graph)
    for option, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns:
            if any(_matches(node, [pattern]) for node in nodes):
                continue
            names = [str(node.name) for node in nodes]
            like = get_close_matches(pattern, names, n=3) or names[:3]
            raise RecipeError(
                f"{option}: found {pattern!r}, which fits no node and no operator type of the prepared network; expected a node's name or "
                f"a shell pattern for several (as {', '.join(map(repr, like))}), or one of {', '.join(sorted({n.op_type for n in nodes}))}"
            )


def _check_effects(draft: _Draft, target: Target, *, include: Sequence[str], exclude: Sequence[str]) -> None:
    """Refuse patterns that fit operators, but none whose treatment they could change."""
    for option, patterns, nodes, what in (
        ("include", include, draft.includable, "holds back"),
        ("exclude", exclude, draft.excludable, "computes in integers"),
    ):
        for pattern in patterns:
            if not any(_matches(node, [pattern]) for node in nodes):
                found = ", ".join(sorted({f"{node.op_type} {node.name!r}" for node in nodes})[:3]) or "none"
                raise RecipeError(
                    f"{option}: found {pattern!r}, which fits no operator that {target.name} {what}; "
                    f"expected one of those ({found}); it would change nothing, so leave it out"
                )


def _place_weighted(draft: _Draft, node: ir.Node, facts: Facts, target: Target, *, to_codes: bool) -> None:
    reason = why_not(node, facts, target)
    result = _end_of_fusion(node.outputs[0], target)
    if not reason:
        to_codes = to_codes or (target.codes_everywhere and becomes_float_gemm(node, facts))
        reason = _why_not_to_codes(result, target) if to_codes else ""
    if reason:
        draft.note(node, reason)
        return
    form = weighted(node)
    if form is None:
        draft.demand(node, 0)
        draft.demand(node, 1)
    else:
        draft.demand(node, form.data)
        weight, data = node.inputs[form.weight], node.inputs[form.data]
        rank = len(weight.shape)  # type: ignore[arg-type, union-attr]
        biased = bias_input(node, form) if _adds_in_integers(node, data, facts) else None
        bias = None if biased is None else str(biased[0].inputs[biased[1]].name)  # type: ignore[union-attr]
        bias_reader = None if biased is None else Reader(str(biased[0].name), biased[1])
        use = WeightUse(Reader(str(node.name), form.weight), str(data.name), bias, bias_reader)  # type: ignore[union-attr]
        # ONNX Runtime multiplies batched matrices with one scale only, and the result has to run there before it is handed over.
        axis = None if rank == 1 or (node.op_type == "MatMul" and rank > 2) else form.channel_axis % rank
        axes = (axis, None if rank == 1 else form.summed_axis % rank)
        draft.weights.setdefault(str(weight.name), []).append((axes, use))  # type: ignore[union-attr]
    _write_integers(draft, result, to_codes=to_codes)


def _adds_in_integers(node: ir.Node, data: ir.Value | None, facts: Facts) -> bool:
    """Whether ONNX Runtime joins the operator and its bias in one kernel; of a MatMul and its Add only for matrices or fixed shapes.

    Elsewhere its float fusions take the Add, with the next operators, and codes in its constant would undo them.
    """
    shapes = [value.shape for value in node.graph.inputs] if isinstance(node.graph, ir.Graph) else []
    is_fixed = all(shape is not None and all(isinstance(size, int) for size in shape) for shape in shapes)
    return node.op_type != "MatMul" or is_fixed or (data is not None and len(facts[str(data.name)].shape) == 2)


def _why_not_to_codes(value: ir.Value, target: Target) -> str:
    """Return why no pair can stand behind `value`, or ""."""
    if value.is_graph_output():
        return f"it computes a network output, and outputs are never quantized, which its integer kernel on {target.name} needs"
    if any(node.graph is not value.graph for node, _ in value.uses()):
        return f"the body of another operator reads its result in float, while its integer kernel on {target.name} writes codes"
    return ""


def _write_integers(draft: _Draft, value: ir.Value, *, to_codes: bool) -> None:
    draft.integer.add(value)
    if to_codes:
        draft.codes.add(value)
        draft.readers.setdefault(value, [])


def _end_of_fusion(value: ir.Value, target: Target) -> ir.Value:
    """The tensor behind the activations that fuse into the operator computing `value`."""
    while not value.is_graph_output() and len(value.uses()) == 1:
        [(node, index)] = value.uses()
        if index != 0 or not _fuses(node, target) or node.graph is not value.graph:
            break
        value = node.outputs[0]
    return value


def _fuses(node: ir.Node, target: Target) -> bool:
    if not is_default_domain(node) or target.operators.get(node.op_type) is not Role.FUSES:
        return False
    if node.op_type != "Clip" or target.clips_anywhere:
        return True
    lo, hi = [*node.inputs[1:], None, None][:2]
    if lo is None or hi is None:
        return lo is hi or _is_zero(lo)
    return _is_zero(lo) and is_constant(hi)


def _is_zero(value: ir.Value | None) -> bool:
    return is_constant(value) and not constant_array(value).any()


def _place_reading(draft: _Draft, node: ir.Node) -> None:
    if node.inputs[0] in draft.integer:
        draft.demand(node, 0)
    else:
        draft.note(node, "its input comes from no integer kernel")


def _place_joining(draft: _Draft, node: ir.Node, facts: Facts, target: Target) -> None:
    result = _end_of_fusion(node.outputs[0], target)
    if not all(value in draft.integer for value in node.inputs):
        if any(value in draft.integer for value in node.inputs):
            draft.note(node, "not all of its inputs come from integer kernels")
        elif _is_float(node, facts):
            draft.note(node, "none of its inputs comes from an integer kernel")
    elif result.is_graph_output():
        draft.note(node, "it computes a network output, and outputs are never quantized")
    else:
        for index in range(len(node.inputs)):
            draft.demand(node, index)
        _write_integers(draft, result, to_codes=True)


def _place_residual(draft: _Draft, node: ir.Node, facts: Facts, target: Target) -> None:
    if any(is_constant(value) for value in node.inputs) or not _is_float(node, facts):  # a bias, or numbers that are no activations
        return
    main = [value for value in node.inputs if value in draft.integer and _is_fusable_convolution(value)]
    if not main:
        draft.note(node, "none of its inputs comes from an integer convolution that nothing else reads")
        return
    if len({facts[str(value.name)].shape for value in node.inputs if value is not None}) > 1:
        draft.note(node, "no convolution adds a tensor of another shape than its own")
        return
    deepest = max(main, key=lambda value: draft.depth.get(value, 0))
    draft.demand(node, 1 - node.inputs.index(deepest))
    _write_integers(draft, _end_of_fusion(node.outputs[0], target), to_codes=False)


def _is_float(node: ir.Node, facts: Facts) -> bool:
    """Return whether the node computes float32, and not what shapes and indices are made of."""
    fact = facts.get(str(node.outputs[0].name))
    return fact is not None and fact.dtype == FLOAT32


def _is_fusable_convolution(value: ir.Value | None) -> bool:
    if value is None or value.is_graph_output() or len(value.uses()) != 1:
        return False
    producer = value.producer()
    return producer is not None and producer.op_type == "Conv"


def _place_moving(draft: _Draft, node: ir.Node, target: Target) -> None:
    indices = moved_inputs(node)
    if not indices or not all(node.inputs[index] in draft.integer for index in indices):
        return
    outputs = node.outputs[:1] if node.op_type == "MaxPool" else node.outputs  # its second output holds indices
    to_codes = target.codes_everywhere and not any(value.is_graph_output() for value in outputs)
    for index in indices if to_codes else ():
        draft.demand(node, index)
    for value in outputs:
        _write_integers(draft, value, to_codes=to_codes)


def _spread_codes(draft: _Draft, graph: ir.Graph) -> None:
    """Let every reader of a tensor that a kernel writes as codes read those: a float beside them would undo the fusion."""
    for value in draft.codes:
        draft.readers[value] = [Reader(str(node.name), index) for node, index in value.uses() if node.graph is graph]


def _groups(draft: _Draft, target: Target) -> dict[ir.Value, ir.Value]:
    """Per site, the site that its group is named after: sites along operators that only move values share one scale."""
    parent = {value: value for value in draft.readers}

    def root(value: ir.Value) -> ir.Value:
        while parent[value] is not value:
            value = parent[value]
        return value

    for value in draft.readers:
        for source in _moved_from(value, draft, target):
            parent[root(value)] = root(source)
    return {value: root(value) for value in draft.readers}


def _moved_from(value: ir.Value, draft: _Draft, target: Target) -> Iterator[ir.Value]:
    """The nearest sites upstream of `value` along operators that only move values."""
    node = value.producer()
    if node is None or not is_default_domain(node) or target.operators.get(node.op_type) is not Role.MOVES:
        return
    for index in moved_inputs(node):
        source = node.inputs[index]
        if source in draft.readers:
            yield source
        elif source is not None:
            yield from _moved_from(source, draft, target)


def _weight_sites(draft: _Draft) -> tuple[WeightSite, ...]:
    sites = []
    for name, uses in draft.weights.items():
        axes = {axes for axes, _ in uses}
        if len({axis for axis, _ in axes}) > 1:
            draft.notes.append(Note(name, "one scale for the whole weight: its readers have their output channels on different axes"))
        axis, summed = axes.pop() if len(axes) == 1 else (None, None)
        sites.append(WeightSite(name, axis, summed, tuple(use for _, use in uses)))
    return tuple(sites)
