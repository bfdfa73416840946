"""Quantize one activation, or a few that belong together, in an otherwise float network, and see what its outputs make of that.

The errors of different sites are nearly independent, so that a network's error is about the sum of what each of them does alone. Alone, a
site's error is not lost among the others': a few samples tell which of two ranges is better. What comes before a site is not run again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from zeropoint.data.inputs import Feed
from zeropoint.graph.detours import with_detours
from zeropoint.graph.model import Model
from zeropoint.graph.pieces import PieceSession, cut
from zeropoint.plan import Reader
from zeropoint.refine.trial import Outputs, relative_errors

Array = npt.NDArray[Any]
Change = Callable[[Array], Array]  # what the readers of a site see in place of the tensor
NO_CHANGES: Mapping[str, Change] = {}


class Probe:
    """A float network that can be run on from any of its sites; the samples have come as far as `advance` took them."""

    def __init__(self, network: Model, sites: Mapping[str, Sequence[Reader]], feeds: Sequence[Feed], floats: Sequence[Outputs]) -> None:
        """Load the prepared `network` in pieces that begin at the sites: tensors, and who reads them. floats: its outputs for `feeds`.

        Raises:
            ModelError: a piece cannot be loaded or run.
        """
        detoured, self._detours = with_detours(network, sites)
        first = _first_readers(detoured, self._detours)
        needed: dict[str, list[str]] = {}
        for tensor, node in first.items():
            needed.setdefault(node, []).append(tensor)
        pieces = cut(detoured, needed)
        begins = {piece.nodes[0].name: number for number, piece in enumerate(pieces.pieces) if piece.nodes}
        self.places = {tensor: begins[node] for tensor, node in first.items()}
        self._sites: dict[int, list[str]] = {}
        for tensor, place in self.places.items():
            self._sites.setdefault(place, []).append(tensor)
        self._floats, self._feeds = floats, feeds
        self._states = [dict(feed) for feed in feeds]
        self._place = 0
        self._values: dict[str, list[Array]] = {}
        self._sessions: list[PieceSession] = []
        trial = self._states[0]
        for number in range(len(pieces.pieces)):
            trial = self._turned(trial, number, NO_CHANGES)
            self._sessions.append(pieces.open(number, trial))
            trial = self._sessions[-1].advanced(trial)

    def advance(self, tensor: str, executor: ThreadPoolExecutor) -> None:
        """Run all samples up to the site of `tensor`, from the inputs where they are beyond it."""
        if self._place > self.places[tensor]:
            self._states, self._place = [dict(feed) for feed in self._feeds], 0
        stop = self.places[tensor]
        self._states = [*executor.map(lambda state: self._run(state, self._place, stop, NO_CHANGES), self._states)]
        self._place = stop
        self._values.clear()

    def values(self, tensor: str) -> list[Array]:
        """Return what `tensor` of this site or a later one is in each sample."""
        if tensor not in self._values:
            ahead = [self._run(state, self._place, self.places[tensor], NO_CHANGES) for state in self._states]
            self._values[tensor] = [state[tensor] for state in ahead]
        return self._values[tensor]

    def errors(self, changes: Mapping[str, Change], executor: ThreadPoolExecutor) -> npt.NDArray[np.float64]:
        """Return the relative squared error of each sample's outputs (samples,), under changes at this site and later ones."""
        outputs = executor.map(lambda state: self._run(state, self._place, len(self._sessions), changes), self._states)
        return relative_errors(self._floats, [*outputs])

    def _run(self, state: dict[str, Any], start: int, stop: int, changes: Mapping[str, Change]) -> dict[str, Any]:
        for number in range(start, stop):
            state = self._sessions[number].advanced(self._turned(state, number, changes))
        return state

    def _turned(self, state: dict[str, Any], number: int, changes: Mapping[str, Change]) -> dict[str, Any]:
        """Return the state with what the readers see at the sites of piece `number`."""
        seen = {self._detours[t]: changes[t](state[t]) if t in changes else state[t] for t in self._sites.get(number, ())}
        return {**state, **seen}


def _first_readers(model: Model, detours: Mapping[str, str]) -> dict[str, str]:
    """Return the first node that reads each site's detour."""
    tensors = {name: tensor for tensor, name in detours.items()}
    reading = [
        (tensors[str(value.name)], str(node.name))
        for node in model.graph
        for value in node.inputs
        if value is not None and value.name in tensors
    ]
    return dict(reversed(reading))
