"""Networks' own trouble spots, recognised from the graph: where 8 bits are known to hurt, what was done there, and what can be done."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx_ir as ir

from zeropoint.graph.facts import Facts
from zeropoint.graph.trouble import kinds
from zeropoint.graph.trouble.remedy import patterns, to_exclude
from zeropoint.graph.trouble.scene import Scene, Spot, scene, written
from zeropoint.notes import Note
from zeropoint.plan import Plan
from zeropoint.statistics.network import Statistics
from zeropoint.targets import Target

__all__ = ["KINDS", "trouble_spots"]

# A new kind is one function and one line here. A tensor is told of once, by the first kind that finds it.
KINDS: tuple[Callable[[Scene], Iterator[Spot]], ...] = (
    kinds.joined_ranges,
    kinds.probabilities,
    kinds.gates,
    kinds.norms,
    kinds.activations,
    kinds.ends,
    kinds.products,
    kinds.channels,
)
MOST_NAMED = 3


def trouble_spots(network: ir.Model, plan: Plan, *, target: Target, facts: Facts, statistics: Statistics) -> tuple[Note, ...]:
    """Return a note for each kind of trouble spot that the prepared `network` has where `plan` quantizes it for `target`.

    statistics: of each activation that the plan quantizes; means of channels tell more, where there are any. A note names the worst
    place of its kind and counts the others.
    """
    found, told, notes = scene(network, plan, target=target, facts=facts, statistics=statistics), set[str](), list[Note]()
    for kind in KINDS:
        by_tensor = {spot.tensor: spot for spot in sorted(kind(found), key=lambda spot: -spot.decibels) if spot.tensor not in told}
        told.update(by_tensor)
        if by_tensor:
            notes.append(_note(found, sorted(by_tensor.values(), key=lambda spot: spot.decibels)))
    return tuple(notes)


def _note(scene: Scene, spots: list[Spot]) -> Note:
    """What to say of `spots`, the worst first."""
    first = spots[0]
    bounds = " to ".join(map(written, scene.entries[first.tensor].range))
    left = f"{first.part!r} about {first.decibels:.0f} dB" if first.part else f"{first.decibels:.1f} dB"
    parts = [first.danger, f"one scale for {bounds} leaves {left}"]
    nodes = list(dict.fromkeys(spot.node for spot in spots[1:] if spot.node != first.node))
    if nodes:
        shown = len(nodes) if len(nodes) <= MOST_NAMED else MOST_NAMED - 1
        more = f" and {len(nodes) - shown} more" if shown < len(nodes) else ""
        parts.append(f"the same, if less, at {', '.join(map(repr, nodes[:shown]))}{more}")
    return Note(first.node, "; ".join([*parts, _remedy(scene, spots)]))


def _remedy(scene: Scene, spots: list[Spot]) -> str:
    every = patterns(scene, frozenset().union(*(to_exclude(scene, spot.tensor) for spot in spots)))
    if every and len(spots) > 1:
        return f"exclude {_listed(every)} to keep all of that in float"
    return f"exclude {_listed(patterns(scene, to_exclude(scene, spots[0].tensor)))} to keep it in float"


def _listed(patterns: tuple[str, ...]) -> str:
    return ", ".join(map(repr, patterns)) or "what reads it"
