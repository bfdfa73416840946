"""What a node takes of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTime:
    """One node as a runtime runs it, after its own fusions; `operator` is the runtime's name for what it does.

    seconds: of one run. in_integers: whether its kernel computes on 8-bit codes; quantizing and dequantizing are no computing.
    """

    node: str
    operator: str
    seconds: float
    in_integers: bool
