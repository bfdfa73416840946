"""Tell which of the affine operators behind a convolution in one network are folded into it in another one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from zeropoint.graph.operators import float_attribute
from zeropoint.graph.signals import Signals, constant_values

Float64Array = npt.NDArray[np.float64]
AFFINE = frozenset({"BatchNormalization", "Mul", "Div", "Add", "Sub"})
TAKES_AFFINE = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "FusedConv", "FusedMatMul", "FusedGemm"})
BIAS = 2  # which input it is
SAME = 0.25  # how far, as a share of their norm, constants are from each other that codes alone tell apart
EPSILON = 1e-5


def behind_folded(signals: Signals, root: ir.Value, others: Signals, folded: ir.Value) -> tuple[ir.Value, ...] | None:
    """Return what affine operators make of `root`, one after the other, as far as they are folded into what computes `folded`.

    How far that is its bias tells, which is then that of the operator in front with their factors and shifts in it. None where constants
    that cannot be read leave that open.
    """
    original, producer = root.producer(), folded.producer()
    if original is None or producer is None or not {original.op_type, producer.op_type} <= TAKES_AFFINE:
        return ()
    chain = list(_chain(signals, root, others, folded))
    theirs = _bias(producer)
    if not chain:
        return ()
    if theirs is None:  # factors alone leave no other trace than in the weights
        is_scaled = chain[0].op_type in ("Mul", "Div") and SAME < constants_apart(original, producer) < float("inf")
        return (chain[0].outputs[0],) if is_scaled else ()
    own = _bias(original)
    biases = [np.zeros(1) if own is None else own]
    for node in chain:
        after = _applied(node, biases[-1], signals)
        if after is None:
            break
        biases.append(after)
    shares = [_apart(theirs, bias) for bias in biases]
    if len(biases) <= len(chain) and min(shares) > SAME:
        return None
    return tuple(node.outputs[0] for node in chain[: int(np.argmin(shares))])


def _chain(signals: Signals, root: ir.Value, others: Signals, folded: ir.Value) -> Iterator[ir.Node]:
    """Yield the affine operators behind `root`, each the only reader of the one before, up to one that `folded` has behind it as well."""
    while not root.is_graph_output():
        readers = list(signals.readers(root))
        if len(readers) != 1 or not _is_affine(signals, readers[0]):
            return
        node = readers[0]
        if any(
            reader.op_type == node.op_type and _is_affine(others, reader) and constants_apart(node, reader) < SAME
            for reader in others.readers(folded)
        ):
            return
        yield node
        root = node.outputs[0]


def _is_affine(signals: Signals, node: ir.Node) -> bool:
    """Whether the node adds or multiplies by constants."""
    constants = [value for value in node.inputs if value is not None and value in signals.constants]
    of_data = node.op_type not in ("Sub", "Div") or node.inputs[0] not in signals.constants
    return node.op_type in AFFINE and of_data and len(constants) == len(node.inputs) - 1


def _bias(node: ir.Node) -> Float64Array | None:
    values = constant_values(node.inputs[BIAS]) if len(node.inputs) > BIAS else None
    return None if values is None else values.astype(np.float64).reshape(-1)


def _applied(node: ir.Node, bias: Float64Array, signals: Signals) -> Float64Array | None:
    """Return the bias of what stands in front of `node` with that folded in; None where it cannot be told."""
    found = [constant_values(value) for value in node.inputs if value is not None and value in signals.constants]
    constants = [values.astype(np.float64).reshape(-1) for values in found if values is not None]
    if len(constants) != len(found) or not {values.size for values in (*constants, bias)} <= {1, max(c.size for c in (*constants, bias))}:
        return None
    with np.errstate(all="ignore"):
        match node.op_type:
            case "BatchNormalization":
                gamma, beta, mean, variance = constants
                return (bias - mean) * gamma / np.sqrt(variance + float_attribute(node, "epsilon", EPSILON)) + beta
            case "Mul":
                return bias * constants[0]
            case "Div":
                return bias / constants[0]
            case "Add":
                return bias + constants[0]
            case _:
                return bias - constants[0]


def constants_apart(node: ir.Node, other: ir.Node) -> float:
    """How far the constants that two nodes read are from each other, as a share of their norm; infinite where they have no such."""
    shares = []
    for one, two in zip(node.inputs, other.inputs, strict=False):
        first, second = constant_values(one), constant_values(two)
        if first is None or second is None:
            continue
        if first.shape != second.shape:
            return float("inf")
        if first.dtype.kind == "f":
            shares.append(_apart(first.astype(np.float64), second.astype(np.float64)))
        elif not np.array_equal(first, second):  # indices, axes and shapes
            return float("inf")
        else:
            shares.append(0.0)
    return max(shares, default=float("inf"))


def _apart(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float:
    if first.shape != second.shape and 1 not in (first.size, second.size):
        return float("inf")
    norm = float(np.linalg.norm(first))
    share = float(np.linalg.norm(second - first)) / norm if norm else float(np.any(second != first))
    return share if np.isfinite(share) else float("inf")
