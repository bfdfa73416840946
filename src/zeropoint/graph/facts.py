"""What running the network once tells of its tensors: shapes and dtypes, without symbolic inference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from zeropoint.graph.operators import is_constant
from zeropoint.graph.store import open_session
from zeropoint.runtime.onnxruntime import Session


@dataclass(frozen=True, slots=True)
class Fact:
    """The dtype and shape of one tensor in one run."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]


Facts = Mapping[str, Fact]


def capture_facts(model: ir.Model, feed: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, Fact]:
    """Run the network once on `feed` and return a fact for each tensor of the main graph: inputs, constants and results."""
    computed = [str(value.name) for node in model.graph for value in node.outputs if value.name]
    arrays: dict[str, npt.NDArray[np.generic]] = dict(feed)
    arrays.update(open_tapped(model, computed, optimize=False).run(feed, computed))
    # Sequences and optionals come back as lists and None, whatever the runtime's signature says.
    facts = {name: Fact(array.dtype, array.shape) for name, array in arrays.items() if hasattr(array, "dtype")}
    for name, value in model.graph.initializers.items():
        if is_constant(value) and value.const_value is not None:
            facts[name] = Fact(np.dtype(value.const_value.dtype.numpy()), tuple(value.const_value.shape.numpy()))
    return facts


def open_tapped(model: ir.Model, tensors: Iterable[str], *, optimize: bool = True, threads: int = 0) -> Session:
    """Return a session on a copy of the network in which `tensors` are outputs too."""
    tapped = model.clone()
    outputs = {value.name for value in tapped.graph.outputs}
    values = {value.name: value for node in tapped.graph for value in node.outputs}
    tapped.graph.outputs.extend(values[name] for name in tensors if name in values and name not in outputs)
    return open_session(tapped, optimize=optimize, threads=threads)
