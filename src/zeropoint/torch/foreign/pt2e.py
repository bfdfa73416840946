"""torchao's PT2E: a traced graph with observers or fake quantization (prepared), or with nodes of quantized_decomposed (converted)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from zeropoint.errors import DataError
from zeropoint.notes import Note
from zeropoint.torch.foreign.checkpoint import (
    Checkpoint,
    Format,
    Given,
    Grid,
    Input,
    NetworkInput,
    Operand,
    Output,
    Place,
    Quantizer,
    Weight,
    as_float64,
    checked_grid,
    operator_kind,
)

WEIGHTED = frozenset({"conv1d", "conv2d", "conv3d", "convolution", "linear", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
QUANTIZE, DEQUANTIZE = "quantized_decomposed.quantize_per_", "quantized_decomposed.dequantize_per_"
TRACED_APART = "WrapperModule"  # what was put into the graph from a trace of its own: the arithmetic of folding, which the module lacks
CODES = {"torch.int8": (-128, 127), "torch.uint8": (0, 255)}


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """A traced graph, and the float module that it was traced from, with the paths of the modules in it."""

    graph: Any
    module: Any
    paths: frozenset[str]

    def path(self, node: Any) -> str | None:
        """Return the innermost module that a node was traced in; None where the float module has no such."""
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        if not stack or str(stack[-1][1]).endswith(TRACED_APART):
            return None
        path = str(stack[-1][0])
        return path if path in self.paths else None

    def tensor(self, node: Any) -> Any:
        """Return the tensor that a get_attr node reads, or a number as one; None for what is computed."""
        if isinstance(node, int | float):
            return torch.tensor(node, dtype=torch.float64)
        if not isinstance(node, torch.fx.Node) or node.op != "get_attr":
            return None
        found = self.graph
        for part in str(node.target).split("."):
            found = getattr(found, part)
        return found

    def observer(self, node: Any) -> Any:
        """Return the observer or fake quantization that a node calls; None where it calls none."""
        called = self.graph.get_submodule(str(node.target)) if node.op == "call_module" else None
        has_numbers = all(isinstance(getattr(called, name, None), torch.Tensor) for name in ("scale", "zero_point"))
        return called if has_numbers or hasattr(called, "calculate_qparams") else None


def recognizes(given: Given) -> bool:
    """Return whether there is a traced graph that quantizes something."""
    if given.graph is None:
        return False
    trace = Trace(given.graph, given.graph, frozenset())
    return any(_quantizes(node) or _dequantizes(node) or trace.observer(node) is not None for node in given.graph.graph.nodes)


def read(given: Given, module: torch.nn.Module) -> Checkpoint:
    """Return the quantizers, and the weights less what was folded into them.

    Raises:
        DataError: a scale cannot be used.
    """
    trace = Trace(given.graph, module, frozenset(path for path, _ in module.named_modules()))
    numbers = _numbers(trace)
    quantizers, notes = [], []
    for node in given.graph.graph.nodes:
        found = _quantizer(trace, node, numbers)
        if isinstance(found, Note):
            notes.append(found)
        elif found is not None:
            quantizers.append(found)
    own = module.state_dict()
    weights = {name: value for name, value in given.graph.state_dict().items() if name in own}
    weights.update(_folded_weights(trace))
    norms = _folded_norms(trace)
    kept = {name: value for name, value in weights.items() if name.rpartition(".")[0] not in norms}
    return Checkpoint(quantizers=tuple(quantizers), weights=kept, norms=norms, notes=tuple(notes))


def _kind(node: Any) -> str:
    return operator_kind(str(node.target)) if node.op == "call_function" else ""


def _quantizes(node: Any) -> bool:
    return node.op == "call_function" and str(node.target).startswith(QUANTIZE)


def _dequantizes(node: Any) -> bool:
    return node.op == "call_function" and str(node.target).startswith(DEQUANTIZE)


def _numbers(trace: Trace) -> Mapping[Any, Operand]:
    """Return for each node which one of its operator it is in its module."""
    counts, order = Counter[tuple[str, str]](), dict[Any, tuple[str, str, int]]()
    for node in trace.graph.graph.nodes:
        path, kind = trace.path(node), _kind(node)
        if path is not None and kind:
            order[node] = (path, kind, counts[path, kind])
            counts[path, kind] += 1
    return {node: Operand(path, kind, number, counts[path, kind], None) for node, (path, kind, number) in order.items()}


def _quantizer(trace: Trace, node: Any, numbers: Mapping[Any, Operand]) -> Quantizer | Note | None:
    observer = trace.observer(node)
    is_stored = _dequantizes(node) and trace.tensor(node.args[0]) is not None  # a weight that is in codes already
    if observer is None and not _quantizes(node) and not is_stored:
        return None
    source = node.args[0]
    name = f"{node.name} of {source.name}"
    places = _places(trace, node, source, numbers)
    if not places:
        return Note(name, "not imported: found nothing in the float network that it quantizes")
    grid = _observed(observer) if observer is not None else _told(trace, node)
    if grid is None:
        return Note(name, "not imported: it is not one of 8 bits with a fixed scale")
    is_weight = isinstance(places[0], Weight)
    if grid.axis is not None and not is_weight:
        return Note(name, f"not imported: found {grid.scale.size} scales for an activation, which takes one scale only")
    return Quantizer(name, places, checked_grid(grid, name, may_be_zero=False))


def _told(trace: Trace, node: Any) -> Grid | None:
    """Return the grid in the arguments of a node of quantized_decomposed."""
    per_channel = "per_channel" in str(node.target)
    arguments = [*node.args[1:], *node.kwargs.values()]
    scale, zero_point = (trace.tensor(argument) for argument in arguments[:2])
    if scale is None or zero_point is None:  # computed: a dynamic scale
        return None
    axis, rest = (int(arguments[2]), arguments[3:]) if per_channel else (None, arguments[2:])
    return _grid(scale, zero_point, (int(rest[0]), int(rest[1])), axis)


def _observed(observer: Any) -> Grid | None:
    """Return the grid of an observer or of fake quantization."""
    scale, zero_point = getattr(observer, "scale", None), getattr(observer, "zero_point", None)
    if scale is None or zero_point is None:
        scale, zero_point = observer.calculate_qparams()
    bounds = (getattr(observer, "quant_min", None), getattr(observer, "quant_max", None))
    codes = CODES.get(str(getattr(observer, "dtype", None)))
    if codes is None:
        return None
    low, high = (codes[side] if bound is None else int(bound) for side, bound in enumerate(bounds))
    axis = getattr(observer, "ch_axis", -1) if "per_channel" in str(getattr(observer, "qscheme", "")) else None
    return _grid(scale, zero_point, (low, high), axis)


def _grid(scale: Any, zero_point: Any, codes: tuple[int, int], axis: int | None) -> Grid:
    shape = () if axis is None else (-1,)
    if axis is None and scale.numel() != 1:
        raise DataError(f"scale: found {scale.numel()} numbers, expected one for the tensor; convert the graph again")
    return Grid(as_float64(scale).reshape(shape), as_float64(zero_point).reshape(shape).astype(np.int64), *codes, axis)


def _places(trace: Trace, node: Any, source: Any, numbers: Mapping[Any, Operand]) -> tuple[Place, ...]:
    """Return what is quantized: by all who read it, and by who computes it."""
    found: list[Place] = []
    for reader, index in _readers(trace, node):
        weighted = _kind(reader) in WEIGHTED
        path = _owner(trace, reader) if weighted else trace.path(reader)
        if path is None:
            continue
        if weighted and index == 1:
            found.append(Weight(path, folded=_is_computed(trace, source)))
        elif weighted and index == 0:
            found.append(Input(path))
        elif reader in numbers:
            found.append(_at(numbers[reader], index))
    if source.op == "placeholder":
        inputs = [other for other in trace.graph.graph.nodes if other.op == "placeholder"]
        found.append(NetworkInput(inputs.index(source)))
    elif _kind(source) in WEIGHTED and (path := _owner(trace, source)) is not None:
        found.append(Output(path))
    elif source in numbers:
        found.append(numbers[source])
    return tuple(dict.fromkeys(found))


def _at(operand: Operand, index: int) -> Operand:
    return Operand(operand.module, operand.operator, operand.number, operand.count, index)


def _readers(trace: Trace, node: Any) -> Iterator[tuple[Any, int]]:
    """Yield who reads what a node quantizes, and as which input; behind a quantize node those of its dequantize nodes."""
    for user in node.users:
        if _quantizes(node) and _dequantizes(user):
            yield from _readers(trace, user)
            continue
        operands = [operand for argument in user.args for operand in (argument if isinstance(argument, list | tuple) else (argument,))]
        yield from ((user, index) for index, operand in enumerate(operands) if operand is node)


def _is_computed(trace: Trace, source: Any) -> bool:
    return trace.tensor(source) is None


def _owner(trace: Trace, node: Any) -> str | None:
    """Return the convolution or linear layer that a weighted node is: by the trace, or by the name of its weight."""
    path = trace.path(node)
    if path is not None and hasattr(trace.module.get_submodule(path), "weight"):
        return path
    weight = _behind(trace, node.args[1])
    name = str(weight.target) if weight is not None else ""
    return name.removesuffix(".weight") if name in trace.module.state_dict() else None


def _behind(trace: Trace, node: Any) -> Any:
    """Return the get_attr node that a weight comes from, through observers and pairs; None where it is computed."""
    while isinstance(node, torch.fx.Node) and (_quantizes(node) or _dequantizes(node) or trace.observer(node) is not None):
        node = node.args[0]
    return node if isinstance(node, torch.fx.Node) and node.op == "get_attr" else None


def _folded_weights(trace: Trace) -> dict[str, Any]:
    """Return weights and biases as the weighted nodes read them, by their names in the float module."""
    found = {}
    for node in trace.graph.graph.nodes:
        path = _owner(trace, node) if _kind(node) in WEIGHTED else None
        source = None if path is None else _behind(trace, node.args[1])
        if path is None or source is None:
            continue
        found[f"{path}.weight"] = _float_weight(trace, node.args[1], source)
        bias = trace.tensor(node.args[2]) if len(node.args) > 2 else None
        if bias is not None:
            found[f"{path}.bias"] = bias
    return found


def _float_weight(trace: Trace, read: Any, source: Any) -> Any:
    """Return the weight; where its codes are all that is left of it, what these stand for."""
    tensor = trace.tensor(source).detach().cpu()
    grid = _told(trace, read) if _dequantizes(read) and not tensor.is_floating_point() else None
    if grid is None:
        return tensor
    shape = [1] * tensor.dim()
    if grid.axis is not None:
        shape[grid.axis] = -1
    scale, zero_point = (torch.from_numpy(np.asarray(array)).reshape(shape) for array in (grid.scale, grid.zero_point))
    return ((tensor.double() - zero_point) * scale).float()


def _folded_norms(trace: Trace) -> tuple[str, ...]:
    """Return the batch normalizations that the graph no longer computes: nothing reads their tensors."""
    read = {str(node.target).rpartition(".")[0] for node in trace.graph.graph.nodes if node.op == "get_attr" and node.users}
    kinds = torch.nn.modules.batchnorm._BatchNorm
    return tuple(path for path, part in trace.module.named_modules() if isinstance(part, kinds) and path not in read)


PT2E = Format("torchao PT2E", "a GraphModule with observers, fake quantization or nodes of quantized_decomposed", recognizes, read)
