"""What trouble spots are looked for in: a network, what its plan quantizes, and what was seen there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from zeropoint.graph.facts import Facts
from zeropoint.graph.operators import is_default_domain, moved_inputs
from zeropoint.graph.sources import REORDERING
from zeropoint.numerics.measures import decibels
from zeropoint.plan import Entry, Plan, Reader
from zeropoint.statistics.histogram import expected_mse, histogram, mean_square
from zeropoint.statistics.network import Statistics
from zeropoint.statistics.tensor import TensorStatistic
from zeropoint.targets import Role, Target

FEW_DECIBELS = 30.0  # of signal to rounding noise, below which a tensor's error is 3 % of it or more
FAR = 12.0  # times the rms, up to which 8 bits leave more than that
OUTLYING = 20.0  # times as large as most: with 8 bits six steps or fewer are left for those
GOOD_PART = 0.1  # of the range
FEWEST_CHANNELS = 8  # of which a median tells something


@dataclass(frozen=True, slots=True)
class Spot:
    """One place: the node that it is named after, the quantized tensor that suffers, the dB left there, and the danger in words.

    part: the tensor that those dB are left to, where it is a part of the quantized one.
    """

    node: str
    tensor: str
    decibels: float
    danger: str
    part: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A prepared network under a plan. entries: of the quantized activations, by tensor; floats: names of nodes that stay in float.

    noises, peaks: what `decibels` and `peak` found, which is asked for again and takes most of the time.
    """

    network: ir.Model
    target: Target
    facts: Facts
    statistics: Statistics
    values: Mapping[str, ir.Value]
    entries: Mapping[str, Entry]
    floats: frozenset[str]
    noises: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)

    def reads_codes(self, node: ir.Node, index: int) -> bool:
        """Say whether the node computes in integers from its input `index`."""
        value = node.inputs[index]
        entry = None if value is None else self.entries.get(str(value.name))
        return entry is not None and str(node.name) not in self.floats and Reader(str(node.name), index) in entry.readers

    def shape(self, value: ir.Value | None) -> tuple[int, ...]:
        """Return the shape seen; () where none is known."""
        fact = None if value is None else self.facts.get(str(value.name))
        return () if fact is None else fact.shape

    def seen(self, value: ir.Value) -> TensorStatistic | None:
        """Return what was seen of `value`; None where that was nothing."""
        found = self.statistics.tensors.get(str(value.name))
        return found if found is not None and found.count else None

    def has_few_codes(self, tensor: str) -> bool:
        """Say whether few values far from most leave these few of the codes."""
        return self.peak(tensor) > FAR and self.decibels(tensor) < FEW_DECIBELS

    def peak(self, tensor: str) -> float:
        """Return the largest magnitude seen as a multiple of the rms; 0 where nothing but 0 was."""
        if tensor not in self.peaks:
            seen = self.seen(self.values[tensor])
            rms = 0.0 if seen is None else math.sqrt(mean_square(histogram(seen)))
            self.peaks[tensor] = reach(seen) / rms if seen is not None and rms > 0.0 else 0.0
        return self.peaks[tensor]

    def decibels(self, tensor: str) -> float:
        """Return the signal to noise that the entry's numbers leave of what was seen; infinite where nothing was."""
        if tensor not in self.noises:
            self.noises[tensor] = self._decibels(self.entries[tensor], self.seen(self.values[tensor]))
        return self.noises[tensor]

    def _decibels(self, entry: Entry, seen: TensorStatistic | None) -> float:
        if seen is None or not entry.range:
            return math.inf
        values = histogram(seen)
        noise = float(expected_mse(values, *entry.range, spec=entry.spec)[0])
        return decibels(mean_square(values), noise)

    def moved_from(self, value: ir.Value) -> ir.Value:
        """Return the tensor that `value` holds elements of, behind all that moves them alone; joined ones count as made where they meet."""
        node = value.producer()
        while node is not None and self._only_moves(node):
            value = node.inputs[0]  # type: ignore[assignment]
            node = value.producer()
        return value

    def _only_moves(self, node: ir.Node) -> bool:
        if not is_default_domain(node) or node.op_type == "Concat" or node.inputs[0] is None:
            return False
        return node.op_type in REORDERING or (self.target.operators.get(node.op_type) is Role.MOVES and moved_inputs(node) == (0,))


def scene(network: ir.Model, plan: Plan, *, target: Target, facts: Facts, statistics: Statistics) -> Scene:
    """Return the prepared `network` as `plan` quantizes it."""
    entries = {entry.tensor: entry for entry in plan.entries if entry.role == "activation"}
    floats = frozenset(note.where for note in plan.notes if note.kind == "float")
    values = {str(value.name): value for value in (*network.graph.inputs, *(value for node in network.graph for value in node.outputs))}
    return Scene(network, target, facts, statistics, values, entries, floats)


def reach(seen: TensorStatistic) -> float:
    """Return the largest magnitude seen."""
    return max(-seen.minimum, seen.maximum, 0.0)


def written(value: float) -> str:
    """Write a number with three digits, or with all before its point.

    Example:
        >>> written(0.12345), written(1280.3)
        ('0.123', '1280')
    """
    return f"{value:.3g}" if abs(value) < 1000.0 else f"{value:.0f}"


def channel_means(scene: Scene, tensor: str, axis: int) -> npt.NDArray[np.float64]:
    """Return the mean of each channel along `axis`, none where they were not observed."""
    rank = len(scene.facts[tensor].shape) if tensor in scene.facts else 0
    for key in ((tensor, axis), (tensor, axis - rank), (tensor, axis + rank)):
        sums = scene.statistics.channels.get(key)
        if sums is not None and sums.rows:
            return sums.means
    return np.empty(0)


def outlying_channel(scene: Scene, tensor: str) -> tuple[int, float, float] | None:
    """Return the channel whose mean is far from those of most and a good part of the range, that mean, and the median in magnitude."""
    means = next((found for axis in (1, -1) if (found := channel_means(scene, tensor, axis)).size), np.empty(0))
    sizes = np.abs(means)
    if sizes.size < FEWEST_CHANNELS:
        return None
    first, median = int(sizes.argmax()), float(np.median(sizes))
    widest = max(map(abs, scene.entries[tensor].range), default=math.inf)
    outlies = sizes[first] > OUTLYING * median and sizes[first] > GOOD_PART * widest
    return (first, float(means[first]), median) if outlies else None
