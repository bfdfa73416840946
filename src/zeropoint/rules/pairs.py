"""QuantizeLinear and DequantizeLinear as the rules see them: formats, axes, and what stands before a pair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from zeropoint.rules.network import Float64Array, Network, Operator, Tensor
from zeropoint.targets import Role, Target

# What a stored constant passes on its way to who computes with it.
CASTS_AND_CODINGS = frozenset({"Cast", "Identity", "QuantizeLinear", "DequantizeLinear"})

# ONNX Runtime's own domain has the pair too, from before ONNX knew 16-bit codes.
DOMAINS = ("", "ai.onnx", "com.microsoft")
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# Of ONNX's numbers for types, those that output_dtype may hold.
TYPE_NAMES = {2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 17: "float8e4m3fn", 21: "uint4", 22: "int4"}


@dataclass(frozen=True, slots=True, eq=False)
class Coding:
    """One QuantizeLinear or DequantizeLinear.

    of_weight: whether a constant is coded. format: of its codes, "" where the file does not tell. zero_point: None where the
    input is left out, which stands for 0. block_size: 0 where the scale is not per block.
    """

    operator: Operator
    of_weight: bool
    format: str
    data: Tensor | None
    scale: Tensor | None
    zero_point: Tensor | None
    axis: int
    block_size: int


def is_quantize(operator: Operator | None) -> bool:
    """Return whether the operator turns reals into codes by a scale that is given."""
    return operator is not None and operator.op_type == "QuantizeLinear" and operator.domain in DOMAINS


def is_dequantize(operator: Operator | None) -> bool:
    """Return whether the operator turns codes into reals."""
    return operator is not None and operator.op_type == "DequantizeLinear" and operator.domain in DOMAINS


def codings(network: Network) -> Iterator[Coding]:
    """Yield every coding of the network, but a DequantizeLinear only where its numbers are not those of the QuantizeLinear before it."""
    for operator in network.operators:
        before = network.producer(operator.input(0))
        repeats = is_dequantize(operator) and before is not None and is_quantize(before) and before.inputs[1:3] == operator.inputs[1:3]
        if (is_quantize(operator) or is_dequantize(operator)) and not repeats:
            yield read_coding(network, operator)


def read_coding(network: Network, operator: Operator) -> Coding:
    """Return what the QuantizeLinear or DequantizeLinear `operator` says."""
    data = operator.input(0)
    return Coding(
        operator=operator,
        of_weight=data in network.rooted,
        format=_quantized_format(operator) if is_quantize(operator) else _dequantized_format(network, operator),
        data=data,
        scale=operator.input(1),
        zero_point=operator.input(2),
        axis=operator.integer("axis", 1),
        block_size=operator.integer("block_size", 0),
    )


def _quantized_format(operator: Operator) -> str:
    zero_point = operator.input(2)
    if zero_point is not None and zero_point.dtype:
        return zero_point.dtype
    if operator.outputs and operator.outputs[0].dtype:
        return operator.outputs[0].dtype
    output_dtype = operator.integer("output_dtype", 0)
    if output_dtype:
        return TYPE_NAMES.get(output_dtype, "")
    return "uint8" if zero_point is None else ""  # ONNX's default


def _dequantized_format(network: Network, operator: Operator) -> str:
    told = next((tensor.dtype for tensor in (operator.input(0), operator.input(2)) if tensor is not None and tensor.dtype), "")
    before = network.producer(operator.input(0))
    return told or (_quantized_format(before) if before is not None and is_quantize(before) else "")


def scale_values(network: Network, operator: Operator) -> Float64Array | None:
    """Return the scale of a coding as float64, or None where it is not constant."""
    array = network.array(operator.input(1))
    return None if array is None else array.astype(np.float64)


def reads_codes(network: Network, operator: Operator, index: int) -> Operator | None:
    """Return the DequantizeLinear that computes the input `index` of `operator`, if one does."""
    producer = network.producer(operator.input(index))
    return producer if is_dequantize(producer) else None


def reads_activation(network: Network, operator: Operator, index: int) -> Operator | None:
    """Return the DequantizeLinear that computes the input `index` of `operator` if it is one, and not of a weight."""
    found = reads_codes(network, operator, index)
    return found if found is not None and found.input(0) not in network.rooted else None


def before_pair(network: Network, dequantize: Operator) -> Tensor | None:
    """Return the tensor that the QuantizeLinear before `dequantize` reads, or None where the codes come from elsewhere."""
    quantize = network.producer(dequantize.input(0))
    return quantize.input(0) if quantize is not None and is_quantize(quantize) else None


def behind_moves(network: Network, tensor: Tensor | None, target: Target) -> Operator | None:
    """Return the DequantizeLinear whose values `tensor` holds, moved about or not; for a Concat the first one that is found."""
    waiting, seen = [tensor], set[Tensor]()
    while waiting:
        current = waiting.pop()
        producer = network.producer(current)
        if current is None or producer is None or current in seen:
            continue
        seen.add(current)
        if is_dequantize(producer):
            return producer
        if producer.is_standard and target.operators.get(producer.op_type) is Role.MOVES:
            waiting += reversed(producer.inputs if producer.op_type == "Concat" else producer.inputs[:1])
    return None


def is_weighted(operator: Operator) -> bool:
    """Return whether the operator multiplies by weights."""
    return operator.is_standard and operator.op_type in WEIGHTED


def fuses(operator: Operator, target: Target) -> bool:
    """Return whether the operator is an activation that `target` fuses into the one before it."""
    return operator.is_standard and target.operators.get(operator.op_type) is Role.FUSES
