"""Rules on where TensorRT wants Q/DQ pairs and where it does not, after its developer guide's placement recommendations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from zeropoint.rules.finding import Fault
from zeropoint.rules.network import Network, Operator, Tensor
from zeropoint.rules.pairs import (
    before_pair,
    behind_moves,
    fuses,
    is_dequantize,
    is_quantize,
    is_weighted,
    reads_activation,
    scale_values,
)
from zeropoint.targets import Target

FUSES_WITH_ACTIVATION = frozenset({"BatchNormalization", "Conv", "ConvTranspose", "Gemm"})
NORMALIZES = frozenset(
    {
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "LogSoftmax",
        "LpNormalization",
        "MeanVarianceNormalization",
        "RMSNormalization",
        "Softmax",
    }
)
# What multiplies float data by 4-bit weights is a kernel of its own; convolutions have none.
WEIGHT_ONLY = frozenset({"Gemm", "MatMul"})
WEIGHT_ONLY_FORMAT = "int4"


def check_both_operands(network: Network, target: Target) -> Iterator[Fault]:
    """Find weighted operators with one operand in codes and the other in float."""
    for operator in filter(is_weighted, network.operators):
        data, weight = (behind_moves(network, operator.input(index), target) for index in (0, 1))
        if (data is None) == (weight is None):
            continue
        coded = data or weight
        if coded is not None and operator.op_type in WEIGHT_ONLY and _is_weight_only(network, coded):
            continue
        plain = operator.input(0 if data is None else 1)
        which = "second" if data is None else "first"
        message = f"only the {which} operand of this {operator.op_type} is quantized"
        yield Fault(operator.name, message, f"put a Q/DQ pair before {plain.name if plain else 'the other'!r} too, or before neither")


def check_no_pair_before_activation(network: Network, target: Target) -> Iterator[Fault]:
    """Find pairs that part a convolution, Gemm or BatchNormalization from its activation."""
    for operator in network.operators:
        pair = reads_activation(network, operator, 0) if fuses(operator, target) else None
        before = network.producer(before_pair(network, pair)) if pair is not None else None
        if before is not None and before.is_standard and before.op_type in FUSES_WITH_ACTIVATION:
            message = f"a Q/DQ pair stands between {before.op_type} {before.name!r} and its {operator.op_type}, which then don't fuse"
            yield Fault(operator.name, message, "move the pair behind the activation")


def check_residual(network: Network, target: Target) -> Iterator[Fault]:
    """Find residual Adds that read codes on both sides, which keeps the Add out of its convolution."""
    for operator in network.operators:
        if operator.op_type != "Add" or not operator.is_standard:
            continue
        pairs = [pair for index in (0, 1) if (pair := reads_activation(network, operator, index)) is not None]
        main = [source for pair in pairs if (source := _lone_convolution(network, before_pair(network, pair))) is not None]
        if len(pairs) == len(operator.inputs) and main:
            message = f"both inputs of this residual Add are quantized, so that it does not fuse into Conv {main[-1].name!r}"
            yield Fault(operator.name, message, "remove the pair between that convolution and the Add; keep the one on the skip input")


def check_concat_scales(network: Network, target: Target) -> Iterator[Fault]:
    """Find Concats whose quantized inputs, and output if quantized, have not one scale."""
    for operator in network.operators:
        if operator.op_type != "Concat" or not operator.is_standard:
            continue
        pairs = [pair for index in range(len(operator.inputs)) if (pair := reads_activation(network, operator, index)) is not None]
        after = [reader for tensor in operator.outputs for reader, index in network.uses(tensor) if index == 0 and is_quantize(reader)]
        if not pairs or not (after or len(pairs) == len(operator.inputs)):
            continue
        scales = [scale for coding in (*pairs, *after) if (scale := scale_values(network, coding)) is not None]
        if any(not np.array_equal(scale.reshape(-1), scales[0].reshape(-1)) for scale in scales):
            told = ", ".join(dict.fromkeys(f"{scale.reshape(-1)[0]:g}" for scale in scales if scale.size))
            message = f"the quantized inputs and output of this Concat have the scales {told}, expected one scale"
            yield Fault(operator.name, message, "give them one range, that of the output")


def check_float_outputs(network: Network, target: Target) -> Iterator[Fault]:
    """Find network outputs that hold dequantized codes."""
    for tensor in sorted(network.outputs, key=lambda tensor: tensor.name):
        found = behind_moves(network, tensor, target)
        if found is not None and found.input(0) not in network.rooted:
            message = f"the network output {tensor.name!r} is rounded to codes"
            yield Fault(found.name, message, "remove the pair before it: outputs stay in float")


def check_float_norms(network: Network, target: Target) -> Iterator[Fault]:
    """Find normalizations and Softmax that read codes."""
    for operator in network.operators:
        if operator.is_standard and operator.op_type in NORMALIZES and reads_activation(network, operator, 0) is not None:
            message = f"{operator.op_type} reads codes: it computes in float, and loses accuracy for a conversion"
            yield Fault(operator.name, message, "remove the pair before it")


def check_enough_channels(network: Network, target: Target) -> Iterator[Fault]:
    """Find quantized operators with fewer channels than the target has integer kernels for."""
    for operator in filter(is_weighted, network.operators):
        channels = _channels(network, operator)
        is_quantized = any(is_dequantize(network.producer(operator.input(index))) for index in (0, 1))
        if is_quantized and min(channels, default=target.min_channels) < target.min_channels:
            told = " and ".join(map(str, channels))
            message = f"a quantized {operator.op_type} with {told} input and output channels, expected {target.min_channels} or more"
            yield Fault(operator.name, message, "leave it in float: there is no integer kernel for it, or none that pays")


def _is_weight_only(network: Network, dequantize: Operator) -> bool:
    codes = dequantize.input(0)
    return codes is not None and codes in network.rooted and codes.dtype == WEIGHT_ONLY_FORMAT


def _lone_convolution(network: Network, tensor: Tensor | None) -> Operator | None:
    """The Conv that computes `tensor`, if the pair behind is its only reader: it could take the Add in."""
    producer = network.producer(tensor)
    alone = tensor is not None and len(network.uses(tensor)) == 1 and tensor not in network.outputs
    return producer if alone and producer is not None and producer.is_standard and producer.op_type == "Conv" else None


def _channels(network: Network, operator: Operator) -> tuple[int, ...]:
    """Input and output channels as far as the shape of a constant weight tells them."""
    shape = _weight_shape(network, operator.input(1))
    if len(shape) < 2:
        return ()
    groups = operator.integer("group", 1)
    match operator.op_type:
        case "Conv":
            return shape[1] * groups, shape[0]
        case "ConvTranspose":
            return shape[0], shape[1] * groups
        case "Gemm" if operator.integer("transB", 0):
            return shape[1], shape[0]
        case _:
            return shape[-2], shape[-1]


def _weight_shape(network: Network, tensor: Tensor | None) -> tuple[int, ...]:
    """The shape of a constant weight, also behind its pair; () where another operator stands between."""
    while tensor is not None and tensor.data is None:
        producer = network.producer(tensor)
        tensor = producer.input(0) if producer is not None and (is_dequantize(producer) or is_quantize(producer)) else None
    shape = tensor.shape if tensor is not None and tensor.shape is not None else ()
    return tuple(dim for dim in shape if dim is not None)
