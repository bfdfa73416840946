"""The network from its input to its output: what each operator computes in, and how near to the float network it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from zeropoint.evaluate.layers import LayerComparison, LayerFidelity
from zeropoint.graph.model import Model, Node, Value
from zeropoint.graph.operators import is_constant, is_default_domain, weighted
from zeropoint.plan import Entry, Plan
from zeropoint.report.table import Cell, Column, Row, Table, decibels
from zeropoint.targets import Role, Target, get_target

FLOATS = {"FLOAT": "float", "FLOAT16": "float16", "BFLOAT16": "bfloat16", "DOUBLE": "float64"}
CODES = frozenset({"int8", "uint8", "int4", "uint4", "int16", "uint16"})
FUSED = Cell("fused", None, "muted", "computed together with the operator before it, so that no codes stand between them")
_NONE = (decibels(None), decibels(None))
COLUMNS = (
    Column(title="Layer"),
    Column(title="#", align="right", hint="The place in the network, from its input"),
    Column(title="Operator"),
    Column(title="Input", hint="What the operator reads"),
    Column(title="Weight"),
    Column(title="Output", hint="What the operator after it reads"),
    Column(title="SQNR", align="right", hint="Of the output as it is read, both networks run whole: the lower, the further from float"),
    Column(
        title="Own SQNR", align="right", hint="Of the output where the inputs are the float network's: the error that is this layer's own"
    ),
)


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """The plan by the node inputs that read codes, and what the target makes of operators."""

    entries: Mapping[tuple[str, int], Entry]
    by_tensor: Mapping[str, Entry]
    nodes: frozenset[str]
    target: Target

    def of(self, node: Node, role: str) -> list[Entry]:
        """Return the entries of that role that `node` reads, in the order of its inputs."""
        found = (self.entries.get((str(node.name), index)) for index in range(len(node.inputs)))
        return [entry for entry in found if entry is not None and entry.role == role]


def reading(plan: Plan) -> Reading:
    """Return who reads what in codes."""
    entries = {(reader.node, reader.input): entry for entry in plan.entries for reader in entry.readers}
    by_tensor = {entry.tensor: entry for entry in plan.entries}
    return Reading(entries, by_tensor, frozenset(node for node, _ in entries), get_target(plan.target))


def layer_table(network: Model, plan: Plan, comparison: LayerComparison | None, *, opening: Iterable[str], lead: str = "") -> Table:
    """Return the operators of the prepared `network` in order; those called one of `opening` open what has that place at a click."""
    known, opens = reading(plan), {name: str(place) for place, name in enumerate(opening)}
    reasons = {note.where: note.reason for note in plan.notes if note.kind == "float"}
    measured = {layer.tensor: layer for layer in comparison.layers} if comparison is not None else {}
    rows = [
        Row((Cell(str(value.name), None, "code"), Cell("0", 0), Cell("input"), Cell(""), Cell(""), _chip([_coded(value, known)]), *_NONE))
        for value in network.graph.inputs
        if str(value.name) not in network.graph.initializers
    ]
    for place, node in enumerate(network.graph, start=1):
        found = next((measured[str(value.name)] for value in node.outputs if str(value.name) in measured), None)
        rows.append(Row((*_identity(node, place), *_formats(node, known, reasons), *_fidelity(found)), opens.get(str(node.name), "")))
    return Table(heading="Layers", lead=lead, columns=COLUMNS, rows=rows, search="Search layers, operators, formats")


def _coded(value: Value, known: Reading) -> str:
    entry = known.by_tensor.get(str(value.name))
    return entry.format if entry is not None else _format(value)


def _identity(node: Node, place: int) -> tuple[Cell, ...]:
    operator = node.op_type if is_default_domain(node) else f"{node.domain}::{node.op_type}"
    return Cell(str(node.name), None, "code"), Cell(str(place), place), Cell(operator)


def _formats(node: Node, known: Reading, reasons: Mapping[str, str]) -> tuple[Cell, ...]:
    weights = [entry.format for entry in known.of(node, "weight")]
    weight = _chip(weights or ["float"]) if weights or weighted(node) is not None else Cell("")
    if _is_fused(node, known):
        return FUSED, weight, _written(node, known)
    read = [entry.format for entry in known.of(node, "activation")]
    if not read:
        read = [format for value in node.inputs if value is not None and not is_constant(value) and (format := _format(value))][:1]
        if not read and (node.name in reasons or node.op_type in known.target.operators):
            read = ["float"]
    return _chip(read, reasons.get(str(node.name), "")), weight, _written(node, known)


def _is_fused(node: Node, known: Reading) -> bool:
    """Whether the node is an activation that the operator before it, which reads codes, takes in."""
    if known.target.operators.get(node.op_type) is not Role.FUSES or node.name in known.nodes or not node.inputs:
        return False
    value = node.inputs[0]
    producer = value.producer() if value is not None else None
    return value is not None and producer is not None and producer.name in known.nodes and len(value.uses()) == 1


def _written(node: Node, known: Reading) -> Cell:
    """What readers of the output see: codes, also those that an operator that fuses with this one writes."""
    value = next((value for value in node.outputs if value.name), None)
    while value is not None:
        entry = known.by_tensor.get(str(value.name))
        if entry is not None:
            return _chip([entry.format])
        readers = [reader for reader, _ in value.uses()]
        if len(readers) != 1 or not _is_fused(readers[0], known):
            break
        value = readers[0].outputs[0]
    computes = node.name in known.nodes or node.op_type in known.target.operators
    return _chip([_format(value) or ("float" if computes else "")]) if value is not None else Cell("")


def _format(value: Value) -> str:
    """The type that the network declares; "" where it does not."""
    return FLOATS.get(value.dtype.name, value.dtype.name.lower()) if value.dtype is not None else ""


def _chip(formats: Iterable[str], hint: str = "") -> Cell:
    found = list(dict.fromkeys(format for format in formats if format))
    return Cell(" + ".join(found), None, "int" if CODES.issuperset(found) else "float", hint) if found else Cell("")


def _fidelity(layer: LayerFidelity | None) -> tuple[Cell, Cell]:
    return (decibels(layer.sqnr_db), decibels(layer.own_db)) if layer is not None else _NONE
