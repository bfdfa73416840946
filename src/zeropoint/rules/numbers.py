"""Rules on the numbers of each Q/DQ pair: code types, scales and zero points."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from zeropoint.rules.finding import Fault
from zeropoint.rules.network import Network, Tensor
from zeropoint.rules.pairs import Coding, codings, is_weighted
from zeropoint.targets import Target

TENSORRT_ACTIVATIONS = frozenset({"int8", "float8e4m3fn", "float4e2m1"})
TENSORRT_WEIGHTS = TENSORRT_ACTIVATIONS | {"int4"}
FOUR_BITS = frozenset({"int4", "uint4"})
TENSORRT_BLOCKS = frozenset({"int4", "float8e4m3fn", "float4e2m1"})


def check_signed_codes(network: Network, target: Target) -> Iterator[Fault]:
    """Find codes in a type that TensorRT does not compute in; int32 has a rule of its own."""
    for coding in codings(network):
        allowed = TENSORRT_WEIGHTS if coding.of_weight else TENSORRT_ACTIVATIONS
        if coding.format and coding.format != "int32" and coding.format not in allowed:
            expected = "int8 or int4" if coding.of_weight else "int8"
            yield _fault(coding, f"{_what(coding)} has {coding.format} codes, expected {expected}", "quantize to signed, symmetric int8")


def check_zero_points(network: Network, target: Target) -> Iterator[Fault]:
    """Find zero points other than 0."""
    for coding in codings(network):
        other = _other_than_zero(network, coding)
        if other is not None:
            yield _fault(coding, f"{_what(coding)} has zero point {other}, expected 0", "quantize symmetrically")


def check_symmetric_activations(network: Network, target: Target) -> Iterator[Fault]:
    """Find activations with zero points other than 0."""
    for coding in codings(network):
        other = None if coding.of_weight else _other_than_zero(network, coding)
        if other is not None:
            message = f"{_what(coding)} has zero point {other}, expected 0: each kernel that reads it adds a correction"
            yield _fault(coding, message, "quantize symmetrically, to uint8 where the tensor is never negative")


def check_float_bias(network: Network, target: Target) -> Iterator[Fault]:
    """Find biases that are stored as int32 codes."""
    for coding in codings(network):
        if coding.format == "int32":
            remedy = "keep the bias in float; ONNX Runtime's quantizer does with QuantizeBias=False"
            yield _fault(coding, f"{_what(coding)} has int32 codes", remedy)


def check_scale_values(network: Network, target: Target) -> Iterator[Fault]:
    """Find scales and zero points that are computed while the network runs, and scales that are not positive and finite."""
    for coding in codings(network):
        for what, tensor in (("scale", coding.scale), ("zero point", coding.zero_point)):
            if tensor is not None and tensor not in network.rooted:
                message = f"the {what} of {_what(coding)} is computed while the network runs, expected a constant"
                yield _fault(coding, message, "calibrate it: quantize statically")
        scale = network.array(coding.scale)
        if scale is None:
            continue
        values = scale.astype(np.float64)
        unusable = values[~(np.isfinite(values) & (values > 0.0))]
        if unusable.size:
            message = f"{_what(coding)} has scale {unusable.flat[0]}, expected positive finite numbers"
            yield _fault(coding, message, "make it again from a range; look for NaN or dead channels in the data")


def check_scale_shape(network: Network, target: Target) -> Iterator[Fault]:
    """Find scales that are not one number, one for each index of an existing axis, or one for each block."""
    for coding in codings(network):
        shape = _shape(network, coding.scale)
        problem = _misfit(shape, coding) if shape is not None else ""
        if problem:
            yield _fault(coding, f"{_what(coding)}: {problem}", "make the scale again, for the axis of the output channels")
        zero_point = _shape(network, coding.zero_point)
        if shape is not None and zero_point is not None and _size(shape) != _size(zero_point):
            message = f"{_what(coding)} has a scale of shape {shape} and a zero point of shape {zero_point}, expected the same"
            yield _fault(coding, message, "give each scale its zero point")


def check_activation_scales(network: Network, target: Target) -> Iterator[Fault]:
    """Find activations with several scales."""
    for coding in codings(network):
        shape = _shape(network, coding.scale)
        if not coding.of_weight and shape is not None and _size(shape) > 1:
            message = f"the activation {_what(coding)} has scales of shape {shape}, expected one scale"
            yield _fault(coding, message, "quantize activations per tensor; only weights go per channel")


def check_activation_format(network: Network, target: Target) -> Iterator[Fault]:
    """Find activations in codes that the target has no fast kernels for."""
    allowed = dict.fromkeys((target.activation.format.name, target.nonnegative_activation.format.name))
    for coding in codings(network):
        if not coding.of_weight and coding.format and coding.format not in allowed:
            message = f"the activation {_what(coding)} has {coding.format} codes, expected {' or '.join(allowed)}"
            yield _fault(coding, message, f"quantize for {target.runs_on}")


def check_weight_format(network: Network, target: Target) -> Iterator[Fault]:
    """Find weights in codes that the target has no fast kernels for; 4 bits are weight-only kernels' business, int32 is for biases."""
    allowed = {target.weight.format.name, "int32", *FOUR_BITS}
    for coding in codings(network):
        if coding.of_weight and coding.format and coding.format not in allowed and _meets_data(network, coding):
            message = f"the weight {_what(coding)} has {coding.format} codes, expected {target.weight.format.name}"
            yield _fault(coding, message, f"quantize for {target.runs_on}")


def check_block_scales(network: Network, target: Target) -> Iterator[Fault]:
    """Find scales per block beside codes for which TensorRT reads one for a tensor or a channel."""
    for coding in codings(network):
        if coding.block_size > 0 and coding.format and coding.format not in TENSORRT_BLOCKS:
            message = f"{_what(coding)} has {coding.format} codes with a scale for each block of {coding.block_size}"
            yield _fault(coding, message, "give it a scale for each output channel")


def check_whole_blocks(network: Network, target: Target) -> Iterator[Fault]:
    """Find blocks that do not divide their axis."""
    for coding in codings(network):
        shape = coding.data.shape if coding.data is not None else None
        if coding.block_size <= 0 or shape is None or not -len(shape) <= coding.axis < len(shape):
            continue
        size = shape[coding.axis]
        if size is not None and size % coding.block_size:
            message = f"{_what(coding)} has {size} elements along axis {coding.axis}, in blocks of {coding.block_size}"
            yield _fault(coding, message, "take a block size that divides the axis, or a scale for each output channel")


def _meets_data(network: Network, coding: Coding) -> bool:
    """Whether a weighted operator reads the coded constant: others, such as what a Pad fills in, meet no kernel's weights."""
    return any(is_weighted(reader) for tensor in coding.operator.outputs for reader, _ in network.uses(tensor))


def _fault(coding: Coding, message: str, remedy: str) -> Fault:
    return Fault(coding.operator.name, message, remedy)


def _what(coding: Coding) -> str:
    return repr(coding.data.name) if coding.data is not None else "its input"


def _other_than_zero(network: Network, coding: Coding) -> str | None:
    zero_point = network.array(coding.zero_point)
    if zero_point is None:
        return None
    values = zero_point.astype(np.float64)
    others = values[values != 0.0]
    return f"{others.flat[0]:g}" if others.size else None


def _shape(network: Network, tensor: Tensor | None) -> tuple[int | None, ...] | None:
    array = network.array(tensor)
    return array.shape if array is not None else tensor.shape if tensor is not None else None


def _size(shape: tuple[int | None, ...]) -> int:
    return int(np.prod([1 if dim is None else dim for dim in shape], dtype=np.int64))


def _misfit(shape: tuple[int | None, ...], coding: Coding) -> str:
    """Say how a scale of `shape` does not fit the tensor that it belongs to, or ""; a tensor of unknown shape fits any."""
    data = coding.data.shape if coding.data is not None else None
    if data is None or None in shape or _size(shape) == 1:
        return ""
    axis = coding.axis + len(data) if coding.axis < 0 else coding.axis
    if not 0 <= axis < len(data):
        return f"axis {coding.axis} of a tensor of shape {data}, expected {-len(data)} to {len(data) - 1}"
    if len(shape) == 1:
        expected = data[axis : axis + 1]
    elif coding.block_size > 0:
        expected = tuple(_blocks(dim, coding.block_size) if i == axis else dim for i, dim in enumerate(data))
    else:
        return f"a scale of shape {shape} without block_size, expected one number, or one for each index of an axis"
    fits = len(shape) == len(expected) and all(dim in (None, number) for dim, number in zip(expected, shape, strict=True))
    return "" if fits else f"a scale of shape {shape} for axis {axis} of a tensor of shape {data}, expected {expected}"


def _blocks(dim: int | None, size: int) -> int | None:
    return None if dim is None else -(-dim // size)
