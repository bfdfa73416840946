"""What to exclude so that a tensor stays in float: who asks for its codes, as patterns of few letters."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase

import onnx_ir as ir

from zeropoint.graph.eligibility import becomes_float_gemm
from zeropoint.graph.trouble.scene import Scene
from zeropoint.targets import Role

PASSING = (Role.MOVES, Role.FUSES)
MOST_PATTERNS = 4


def to_exclude(scene: Scene, tensor: str) -> frozenset[str]:
    """Return the names of the nodes because of which `tensor` has codes: those that compute from them, and that must write them."""
    if not scene.target.codes_everywhere:
        return frozenset(reader.node for reader in scene.entries[tensor].readers)
    value = scene.values[tensor]
    writer = _writer(scene, value)
    asking = [*_readers(scene, value), *([] if writer is None or not _writes_codes(scene, writer) else [writer])]
    return frozenset(str(node.name) for node in asking) - scene.floats


def _readers(scene: Scene, value: ir.Value) -> Iterator[ir.Node]:
    """Those that compute from `value`, also behind operators that only move values."""
    for node, _ in value.uses():
        role = scene.target.operators.get(node.op_type)
        if node.graph is not scene.network.graph or role is None:
            continue
        if role in PASSING:
            for output in node.outputs:
                yield from _readers(scene, output)
        elif any(scene.reads_codes(node, index) for index in range(len(node.inputs))):
            yield node


def _writer(scene: Scene, value: ir.Value) -> ir.Node | None:
    node = value.producer()
    while node is not None and scene.target.operators.get(node.op_type) in PASSING and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node


def _writes_codes(scene: Scene, node: ir.Node) -> bool:
    role = scene.target.operators.get(node.op_type)
    return role in (Role.WEIGHTED_TO_CODES, Role.JOINS) or (role is Role.WEIGHTED and becomes_float_gemm(node, scene.facts))


def patterns(scene: Scene, names: Collection[str]) -> tuple[str, ...]:
    """Return patterns that fit the nodes called `names` and no other that could be quantized; () where these would be too many."""
    others = [node for node in scene.network.graph if scene.target.operators.get(node.op_type) not in (None, *PASSING)]
    strangers = {str(node.name) for node in others} - set(names)
    types = {node.op_type for node in scene.network.graph}
    alike: dict[str, list[str]] = {}
    for name in sorted(names):
        alike.setdefault(re.sub(r"\d+", "*", _literal(name, types)), []).append(name)
    found: list[str] = []
    for pattern, those in alike.items():
        is_theirs = len(those) > 1 and not any(fnmatchcase(stranger, pattern) for stranger in strangers)
        found += [pattern] if is_theirs else [_literal(name, types) for name in those]
    return tuple(found) if len(found) <= MOST_PATTERNS else ()


def _literal(name: str, types: Collection[str]) -> str:
    """The pattern that fits this name alone: in brackets its letters mean themselves, and it is no operator's type."""
    return f"[{name[0]}]{name[1:]}" if name in types else re.sub(r"[*?[]", r"[\g<0>]", name)
