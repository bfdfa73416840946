"""Let tensors out of a network as it runs: whole, or as the means of their channels, which the network computes itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from zeropoint.errors import DataError
from zeropoint.graph.facts import Facts
from zeropoint.graph.store import skeleton
from zeropoint.numerics.affine import checked_axis
from zeropoint.runtime.onnxruntime import CPU, Optimization, Session, write_optimized

Array = npt.NDArray[np.generic]
Channels = tuple[str, int]  # a tensor, and the axis along which its channels lie
AXES_ARE_AN_INPUT = 18  # of ReduceMean, from this opset on


@dataclass(frozen=True, slots=True)
class Taps:
    """What is wanted of each run: tensors as they are, and means of channels, one for each entry along axis 0."""

    tensors: tuple[str, ...]
    channels: tuple[Channels, ...] = ()

    def with_(self, more: Taps) -> Taps:
        """Return both, each tap once."""
        return Taps(tuple(dict.fromkeys((*self.tensors, *more.tensors))), tuple(dict.fromkeys((*self.channels, *more.channels))))

    def less(self, known: Taps) -> Taps:
        """Return what is not in `known`."""
        tensors, channels = set(known.tensors), set(known.channels)
        return Taps(tuple(t for t in self.tensors if t not in tensors), tuple(c for c in self.channels if c not in channels))


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What one run let out: tensors by name, to be let go of one by one; channel means (rows, channels) by tensor and axis."""

    tensors: dict[str, Array]
    channels: Mapping[Channels, Array]


@dataclass(frozen=True, slots=True, eq=False)
class Tapped:
    """A network that gives out its taps and nothing else.

    content: ONNX bytes, whose large weights are in `weights`, or the path of a file; None where all taps are inputs. outputs, means:
    which of its inputs or outputs each tap is.
    """

    content: bytes | Path | None
    weights: Mapping[str, Array]
    outputs: Mapping[str, str]
    means: Mapping[Channels, str]

    @property
    def taps(self) -> Taps:
        """What it gives out."""
        return Taps(tuple(self.outputs), tuple(self.means))

    def open(self, *, threads: int = 0, provider: str = CPU) -> TappedSession:
        """Load it.

        Raises:
            ModelError: ONNX Runtime cannot load it, or does not offer the provider.
        """
        if self.content is None:
            return TappedSession(self, None)
        # The taps are all alive when a run ends: a plan of its memory would only hold them a second time.
        optimize: Optimization = "none" if isinstance(self.content, Path) else "all"
        session = Session(self.content, weights=self.weights, optimize=optimize, threads=threads, provider=provider, plan_memory=False)
        return TappedSession(self, session)


@dataclass(frozen=True, slots=True, eq=False)
class TappedSession:
    """A loaded network with taps; any number of threads may run it at once."""

    model: Tapped
    session: Session | None

    def run(self, feed: Mapping[str, Array]) -> Seen:
        """Return what the taps let out for one feed.

        Raises:
            ModelError: the run failed.
        """
        arrays = {**feed, **(self.session.run(feed) if self.session is not None else {})}
        outputs, means = self.model.outputs, self.model.means
        return Seen({tap: arrays[name] for tap, name in outputs.items()}, {tap: arrays[name] for tap, name in means.items()})


def tap(model: ir.Model, taps: Taps, facts: Facts) -> Tapped:
    """Return `model`, which stays as it is, with `taps` for outputs and without what these do not need.

    Raises:
        RecipeError: a tensor has no such axis.
        DataError: the channels lie along axis 0.
    """
    proto, weights = skeleton(model)
    inputs = {value.name for value in proto.graph.input}
    taken = inputs | {name for node in proto.graph.node for name in node.output} | {value.name for value in proto.graph.initializer}
    free = (f"channel_means_{number}" for number in count())
    means: dict[Channels, str] = {}
    opset = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    for tensor, axis in taps.channels:
        shape = facts[tensor].shape
        along = checked_axis(axis, shape)
        if along == 0:
            raise DataError(
                f"channel means of {tensor!r}: found the channels along axis 0 of {shape}, expected another axis: it holds the rows"
            )
        axes = [a for a in range(1, len(shape)) if a != along]
        means[tensor, axis] = next(name for name in free if taken.isdisjoint((name, _axes_of(name)))) if axes else tensor
        if axes:
            _add_mean(proto.graph, tensor, means[tensor, axis], axes=axes, opset=opset)
    outputs = {tensor: tensor for tensor in taps.tensors}
    give_out(proto.graph, [*outputs.values(), *means.values()])
    kept = {value.name for value in proto.graph.initializer}
    content = proto.SerializeToString() if proto.graph.output else None
    return Tapped(content, {name: array for name, array in weights.items() if name in kept}, outputs, means)


def _add_mean(graph: onnx.GraphProto, tensor: str, mean: str, *, axes: list[int], opset: int) -> None:
    if opset < AXES_ARE_AN_INPUT:
        graph.node.append(onnx.helper.make_node("ReduceMean", [tensor], [mean], name=mean, axes=axes, keepdims=0))
        return
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(axes, np.int64), _axes_of(mean)))
    graph.node.append(onnx.helper.make_node("ReduceMean", [tensor, _axes_of(mean)], [mean], name=mean, keepdims=0))


def _axes_of(mean: str) -> str:
    return f"{mean}_axes"


def give_out(graph: onnx.GraphProto, names: Sequence[str]) -> None:
    """Make the tensors among `names` that are no inputs the outputs, and take out what they do not need."""
    computed = {name for node in graph.node for name in node.output} | {value.name for value in graph.initializer}  # folded ones too
    known = {value.name: value for value in graph.output}
    wanted = [name for name in dict.fromkeys(names) if name in computed]
    outputs = [known.get(name, onnx.ValueInfoProto(name=name)) for name in wanted]
    del graph.output[:]
    graph.output.extend(outputs)
    needed = set(wanted)
    kept = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            needed.update(read_names(node))
            kept.append(node)
    constants = [value for value in graph.initializer if value.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)


def read_names(node: onnx.NodeProto) -> Iterator[str]:
    """Yield all names that a node reads, also inside its bodies."""
    yield from node.input
    for attribute in node.attribute:
        for body in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
            yield from (value.name for value in body.output)
            for inner in body.node:
                yield from read_names(inner)


def divide(whole: Tapped, groups: Sequence[Taps], folder: Path, *, provider: str = CPU) -> list[Tapped]:
    """Return for each of `groups`, which are parts of the taps of `whole`, a network in `folder` that gives out those alone.

    All taps keep the bits that they have in `whole`: it is optimized first, as a whole, and then cut. Where a tensor were not tapped,
    ONNX Runtime could fuse its operator with the next, which adds in another order.

    Raises:
        ModelError: ONNX Runtime cannot load `whole`.
    """
    if whole.content is None:
        return [replace(whole, outputs={t: t for t in group.tensors}, means={c: c[0] for c in group.channels}) for group in groups]
    optimized = folder / "optimized.onnx"
    assert isinstance(whole.content, bytes)  # as `tap` made it
    write_optimized(whole.content, optimized, weights=whole.weights, provider=provider)
    parts = []
    for number, group in enumerate(groups):
        proto = onnx.load(optimized, load_external_data=False)
        outputs = {tensor: whole.outputs[tensor] for tensor in group.tensors}
        means = {channels: whole.means[channels] for channels in group.channels}
        give_out(proto.graph, [*outputs.values(), *means.values()])
        path = folder / f"part{number}.onnx"
        if proto.graph.output:
            path.write_bytes(proto.SerializeToString())
        parts.append(Tapped(path if proto.graph.output else None, {}, outputs, means))
    return parts


def peak_bytes(model: ir.Model, facts: Facts, kept: Collection[str]) -> int:
    """Return about how many bytes the tensors take that are alive at once in a run, where those in `kept` stay to its end.

    Counted are inputs and results, each from its making to its last reader; constants and what operators need inside are not.
    """
    readers = {value: len(value.uses()) for node in model.graph for value in node.outputs}
    alive = peak = sum(tensor_bytes(facts, value) for value in model.graph.inputs)
    for node in model.graph:
        alive += sum(tensor_bytes(facts, value) for value in node.outputs)
        peak = max(peak, alive)
        for value in node.inputs:  # a node may read one twice
            if value in readers:
                readers[value] -= 1
        touched = {value for value in (*node.inputs, *node.outputs) if value is not None}
        alive -= sum(tensor_bytes(facts, value) for value in touched if readers.get(value) == 0 and value.name not in kept)
    return peak


def tensor_bytes(facts: Facts, value: ir.Value) -> int:
    """Return how many bytes a tensor takes; 0 where its shape is not known."""
    fact = facts.get(str(value.name))
    return 0 if fact is None else int(np.prod(fact.shape, dtype=np.int64)) * fact.dtype.itemsize
