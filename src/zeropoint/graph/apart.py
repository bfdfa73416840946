"""Let tensors out of a network while others are fed in their place, so that what stands between them runs alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from zeropoint.errors import ModelError
from zeropoint.graph.facts import Fact
from zeropoint.graph.store import open_proto, skeleton
from zeropoint.graph.taps import give_out
from zeropoint.runtime.onnxruntime import Session

Array = npt.NDArray[np.generic]
NOTHING_FED: Mapping[str, Fact] = {}


@dataclass(frozen=True, slots=True, eq=False)
class Apart:
    """A loaded network that gives out tensors; `given` are the names under which it does, by the tensors' own."""

    session: Session | None
    given: Mapping[str, str]
    wanted: tuple[str, ...]

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Return the tensors by their own names; `feed` holds its inputs and what is fed in the place of tensors.

        Raises:
            ModelError: the run failed.
        """
        made = {} if self.session is None else self.session.run({name: feed[name] for name in self.wanted})
        return {tensor: made[name] if name in made else feed[name] for tensor, name in self.given.items()}


def open_apart(model: ir.Model, tensors: Sequence[str], *, fed: Mapping[str, Fact] = NOTHING_FED) -> Apart:
    """Load `model`, which stays as it is, with `tensors` for outputs and its nodes as they stand, without any fusion.

    fed: tensors that become inputs, whatever reads them; what would compute them runs only where they are among `tensors` too.

    Raises:
        ModelError: ONNX Runtime cannot load it.
    """
    proto, weights = skeleton(model)
    graph = proto.graph
    computed = {name for node in graph.node for name in node.output if name}
    taken = computed | {value.name for value in (*graph.input, *graph.initializer)}
    free = (name for name in (f"apart_{number}" for number in count()) if name not in taken)
    own = {tensor: next(free) for tensor in fed if tensor in computed}
    for node in graph.node:
        node.output[:] = [own.get(name, name) for name in node.output]
    del graph.value_info[:]  # what a file says of shapes may be wrong
    graph.input.extend(
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(fed[name].dtype), [None] * len(fed[name].shape))
        for name in own
    )
    given = {tensor: own.get(tensor, tensor) for tensor in tensors}
    give_out(graph, list(given.values()))
    constants = {value.name for value in graph.initializer}
    wanted = tuple(value.name for value in graph.input if value.name not in constants)
    if not graph.output:
        return Apart(None, given, ())
    kept = {name: array for name, array in weights.items() if name in constants}
    return Apart(_opened(proto, kept), given, wanted)


def _opened(proto: onnx.ModelProto, weights: Mapping[str, Array]) -> Session:
    try:
        return open_proto(proto, weights, optimize="none")
    except ModelError:  # it may be an operator that will have its weights constant
        return open_proto(proto, weights, optimize="basic")
