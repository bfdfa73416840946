"""Rules on operators: which the target can run at all, and what its integer kernels need around them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from zeropoint.rules.finding import Fault
from zeropoint.rules.network import DEFAULT_DOMAINS, Network, Operator, Tensor
from zeropoint.rules.numbers import FOUR_BITS
from zeropoint.rules.pairs import fuses, is_quantize, is_weighted, read_coding, reads_activation, reads_codes, scale_values
from zeropoint.targets import Target

WHOLE_MODEL = "model"
OPENVINO_DOMAINS = (*DEFAULT_DOMAINS, "com.microsoft", "org.openvinotoolkit")
INTEGER_OPERATORS = frozenset({"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"})
BIAS_TOLERANCE = 1e-5  # relative; the product of two float32 scales is rounded to float32 by whoever wrote the file


def check_opset(network: Network, target: Target) -> Iterator[Fault]:
    """Find an opset outside the target's range."""
    if network.opset is not None and not target.min_opset <= network.opset <= target.max_opset:
        message = f"the network is of opset {network.opset}, expected {target.min_opset} to {target.max_opset}"
        yield Fault(WHOLE_MODEL, message, "export it again at such an opset, or convert it with onnx.version_converter")


def check_default_domain(network: Network, target: Target) -> Iterator[Fault]:
    """Find operators that are not ONNX's own."""
    return _foreign_operators(network, target, DEFAULT_DOMAINS)


def check_openvino_domains(network: Network, target: Target) -> Iterator[Fault]:
    """Find operators of domains that OpenVINO does not read."""
    return _foreign_operators(network, target, OPENVINO_DOMAINS)


def _foreign_operators(network: Network, target: Target, domains: tuple[str, ...]) -> Iterator[Fault]:
    for operator in network.operators:
        if operator.domain not in domains:
            message = f"{operator.op_type} is of the domain {operator.domain!r}, which {target.name} does not know"
            yield Fault(operator.name, message, "write it with ONNX's own operators, or bring a plugin for it")


def check_no_integer_operators(network: Network, target: Target) -> Iterator[Fault]:
    """Find operators that compute on codes, or choose scales while the network runs."""
    for operator in network.operators:
        if operator.is_standard and operator.op_type in INTEGER_OPERATORS:
            message = f"{target.name} has no {operator.op_type}: it reads Q/DQ pairs around float operators only"
            yield Fault(operator.name, message, "quantize the float network statically, to Q/DQ form")


def check_convolution_output(network: Network, target: Target) -> Iterator[Fault]:
    """Find convolutions that read codes but whose output is also read as float, so that they run in float although they need not."""
    for operator in network.operators:
        if not _multiplies_codes(network, operator, ("Conv",)):
            continue
        reader = _float_reader(network, operator.outputs[0], target)
        if reader:
            message = f"Conv reads codes, but {reader} as float, so that it runs in float behind two conversions"
            yield Fault(operator.name, message, "put a Q/DQ pair behind it and its activation, or leave it in float altogether")


def check_convolution_bias(network: Network, target: Target) -> Iterator[Fault]:
    """Find convolutions and Gemms between codes whose bias is not int32 at the scale of their products."""
    for operator in network.operators:
        if not _multiplies_codes(network, operator, ("Conv", "Gemm")) or operator.input(2) is None:
            continue
        problem = _bias_problem(network, operator)
        if problem:
            remedy = "store it as int32 codes at scale of the data x scale of the weight"
            yield Fault(operator.name, f"the bias of this {operator.op_type} {problem}", remedy)


def _multiplies_codes(network: Network, operator: Operator, op_types: tuple[str, ...]) -> bool:
    """Whether an integer kernel could take the operator's operands: no kernel takes weights of 4 bits, or with a scale for each block."""
    if operator.op_type not in op_types or not operator.is_standard or not operator.outputs:
        return False
    weight = reads_codes(network, operator, 1)
    if weight is None or reads_activation(network, operator, 0) is None:
        return False
    coding = read_coding(network, weight)
    return coding.format not in FOUR_BITS and coding.block_size == 0


def check_four_bit_weights(network: Network, target: Target) -> Iterator[Fault]:
    """Find 4-bit weights where TensorRT has no kernel for them: in convolutions, beside codes, or of an odd number of elements."""
    for operator in filter(is_weighted, network.operators):
        weight = reads_codes(network, operator, 1)
        coding = read_coding(network, weight) if weight is not None else None
        if coding is None or not coding.of_weight or coding.format not in FOUR_BITS:
            continue
        shape = coding.data.shape if coding.data is not None else None
        if operator.op_type in ("Conv", "ConvTranspose"):
            problem = "convolutions have no kernel for them"
        elif reads_activation(network, operator, 0) is not None:
            problem = "they are multiplied by float data, and here are codes"
        elif shape is not None and None not in shape and math.prod(size or 0 for size in shape) % 2:
            problem = "their number is odd"
        else:
            continue
        message = f"this {operator.op_type} has {coding.format} weights: {problem}"
        yield Fault(operator.name, message, "take weights of 8 bits there, or leave its data in float")


def _float_reader(network: Network, tensor: Tensor, target: Target) -> str:
    """Say who reads `tensor` as float, behind the activations that fuse; "" where only QuantizeLinears do."""
    uses = network.uses(tensor)
    while len(uses) == 1 and uses[0][1] == 0 and fuses(uses[0][0], target) and tensor not in network.outputs:
        tensor = uses[0][0].outputs[0]
        uses = network.uses(tensor)
    if tensor in network.outputs:
        return f"its result is the network output {tensor.name!r}, which leaves"
    others = [reader for reader, index in uses if index != 0 or not is_quantize(reader)]
    return f"{others[0].op_type} {others[0].name!r} reads its result" if others else ""


def _bias_problem(network: Network, operator: Operator) -> str:
    bias, data, weight = (reads_codes(network, operator, index) for index in (2, 0, 1))
    if bias is None or data is None or weight is None:
        return "is float, expected int32 codes"
    codes = bias.input(0)
    if codes is not None and codes.dtype not in ("", "int32"):
        return f"has {codes.dtype} codes, expected int32"
    found, of_data, of_weight = (scale_values(network, coding) for coding in (bias, data, weight))
    if found is None or of_data is None or of_weight is None or of_data.size != 1:
        return ""  # other rules speak of scales that are computed, or several for an activation
    expected = of_data.reshape(-1) * of_weight.reshape(-1)  # (channels,) or (1,)
    if len({found.size, expected.size} - {1}) > 1:
        return f"has {found.size} scales, expected {expected.size}"
    found, expected = np.broadcast_arrays(found.reshape(-1), expected)
    wrong = ~np.isclose(found, expected, rtol=BIAS_TOLERANCE, atol=0.0, equal_nan=True)
    if not wrong.any():
        return ""
    channel = int(wrong.argmax())
    return f"has scale {found[channel]:g} for channel {channel}, expected {expected[channel]:g}"
