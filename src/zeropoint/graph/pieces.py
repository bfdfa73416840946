"""Run a network piece by piece, so that a piece can be decided on by what those before it made of all samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from zeropoint.errors import ModelError
from zeropoint.graph.store import skeleton
from zeropoint.graph.taps import read_names
from zeropoint.runtime.onnxruntime import CPU, Optimization, Session

Array = npt.NDArray[np.generic]
NOTHING_REPLACED: Mapping[str, Array] = {}


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Consecutive nodes of a network: what they read of earlier ones, what later ones read of them, and what nobody reads behind them."""

    nodes: tuple[onnx.NodeProto, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    finished: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """A network in pieces; `weights` are its large constants."""

    pieces: tuple[Piece, ...]
    proto: onnx.ModelProto
    weights: Mapping[str, Array]

    def open(
        self, number: int, feed: Mapping[str, Array], *, replaced: Mapping[str, Array] = NOTHING_REPLACED, optimize: Optimization = "all"
    ) -> PieceSession:
        """Load a piece, for inputs of the types in `feed`, with the constants in `replaced` for those of the network.

        Raises:
            ModelError: ONNX Runtime cannot load it, or a tensor between two pieces is none.
        """
        piece = self.pieces[number]
        if not piece.outputs:
            return PieceSession(piece, None)
        proto, weights = self._part(piece, feed, replaced)
        return PieceSession(piece, Session(proto.SerializeToString(), weights=weights, optimize=optimize, threads=1, provider=CPU))

    def _part(self, piece: Piece, feed: Mapping[str, Array], replaced: Mapping[str, Array]) -> tuple[onnx.ModelProto, Mapping[str, Array]]:
        proto = onnx.ModelProto(ir_version=self.proto.ir_version, opset_import=self.proto.opset_import)
        proto.graph.name = self.proto.graph.name
        proto.graph.node.extend(piece.nodes)
        proto.graph.input.extend(_typed(name, feed[name]) for name in piece.inputs)
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in piece.outputs)
        read = {name for node in piece.nodes for name in read_names(node)} | {*piece.outputs}
        constants = [tensor for tensor in self.proto.graph.initializer if tensor.name in read]
        proto.graph.initializer.extend(tensor for tensor in constants if tensor.name not in replaced)
        given = {tensor.name: replaced[tensor.name] for tensor in constants if tensor.name in replaced}
        proto.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in given.items())
        kept = {tensor.name for tensor in constants} - given.keys()
        return proto, {name: array for name, array in self.weights.items() if name in kept}


@dataclass(frozen=True, slots=True, eq=False)
class PieceSession:
    """A loaded piece; any number of threads may run it at once."""

    piece: Piece
    session: Session | None

    def advanced(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Return what one sample has come to behind the piece: with what it computes, and without what nobody reads any more.

        Raises:
            ModelError: the run failed.
        """
        made = {} if self.session is None else self.session.run({name: tensors[name] for name in self.piece.inputs})
        return {name: array for name, array in (*tensors.items(), *made.items()) if name not in self.piece.finished}


def cut(model: ir.Model, before: Mapping[str, Sequence[str]]) -> Pieces:
    """Return `model`, which stays as it is, in pieces: the first one ends, and another begins, before each of the nodes named.

    before: by the node's name, tensors that are to be at hand where its piece begins, whether it reads them or not.
    """
    proto, weights = skeleton(model)
    runs: list[list[onnx.NodeProto]] = [[]]
    for node in proto.graph.node:
        if node.name in before:
            runs.append([])
        runs[-1].append(node)
    reads = [[name for node in nodes for name in (*before.get(node.name, ()), *read_names(node))] for nodes in runs]
    inputs, outputs = ([value.name for value in values] for values in (proto.graph.input, proto.graph.output))
    *first, last = _pieces(runs, reads, inputs, outputs)
    constants = {tensor.name for tensor in proto.graph.initializer}  # outputs may be among them: the last piece gives these out
    last = replace(last, outputs=(*last.outputs, *(name for name in dict.fromkeys(outputs) if name in constants)))
    return Pieces((*first, last), proto, weights)


def _pieces(
    runs: Sequence[Sequence[onnx.NodeProto]], reads: Sequence[Sequence[str]], inputs: Sequence[str], outputs: Sequence[str]
) -> Iterator[Piece]:
    last = dict.fromkeys(inputs, 0) | {name: number for number, names in enumerate(reads) for name in names}
    last |= dict.fromkeys(outputs, len(runs))
    made = set(inputs)
    for number, nodes in enumerate(runs):
        computed = [name for node in nodes for name in node.output if name]
        read = dict.fromkeys(name for node in nodes for name in read_names(node))
        given = tuple(name for name in read if name in made)
        made.update(computed)
        kept = tuple(name for name in computed if last.get(name, -1) > number)
        yield Piece(tuple(nodes), given, kept, frozenset(name for name in made if last.get(name, -1) <= number))


def _typed(name: str, array: Array) -> onnx.ValueInfoProto:
    if not isinstance(array, np.ndarray):
        raise ModelError(f"tensor {name!r}: found a {type(array).__name__} between two operators, expected an array")
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
