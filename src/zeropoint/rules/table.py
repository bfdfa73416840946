"""All rules by name. A new rule is one function in the file of its theme, one line here, and its name in the targets that want it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from zeropoint.rules import kernels, numbers, placement
from zeropoint.rules.finding import Fault
from zeropoint.rules.network import Network
from zeropoint.targets import Target

Check = Callable[[Network, Target], Iterator[Fault]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; `reason` says why a target wants it kept."""

    name: str
    reason: str
    check: Check


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule("opset", "The runtime's ONNX parser reads this range of opsets.", kernels.check_opset),
        Rule("default-domain", "The parser knows ONNX's own operators; others need a plugin.", kernels.check_default_domain),
        Rule("openvino-domains", "The ONNX frontend reads these domains; others need an extension.", kernels.check_openvino_domains),
        Rule("no-integer-operators", "The parser rejects operators on codes; it wants Q/DQ pairs.", kernels.check_no_integer_operators),
        Rule("signed-codes", "There are kernels for signed codes only, and uint8 is read as if it were int8.", numbers.check_signed_codes),
        Rule("zero-points", "The parser rejects zero points other than 0.", numbers.check_zero_points),
        Rule("symmetric-activations", "A zero point costs a correction in each kernel that reads it.", numbers.check_symmetric_activations),
        Rule("float-bias", "No DequantizeLinear layer takes int32, so that the engine does not build.", numbers.check_float_bias),
        Rule("scale-values", "Kernels are built for scales that are known and can be divided by.", numbers.check_scale_values),
        Rule("scale-shape", "A scale of another length than its axis is an error when the file is read.", numbers.check_scale_shape),
        Rule("one-activation-scale", "Integer kernels sum over channels, which need one scale.", numbers.check_activation_scales),
        Rule("activation-format", "With the other sign of codes, kernels are slower than in float.", numbers.check_activation_format),
        Rule("weight-format", "The integer kernels multiply by codes of this type.", numbers.check_weight_format),
        Rule("four-bit-weights", "Kernels take them in a Gemm or MatMul of float data alone.", kernels.check_four_bit_weights),
        Rule("block-scales", "The parser reads them beside codes of 4 bits, and floats of 8 or 4, alone.", numbers.check_block_scales),
        Rule("whole-blocks", "A block size that does not divide its axis is an error when the file is read.", numbers.check_whole_blocks),
        Rule("both-operands", "An integer kernel needs codes on both sides of a product.", placement.check_both_operands),
        Rule("pair-after-activation", "A pair in between undoes the fusion of the two.", placement.check_no_pair_before_activation),
        Rule("residual-skip-only", "A convolution takes the Add in only where nothing stands between.", placement.check_residual),
        Rule("concat-one-scale", "With other scales each input is requantized in a copy.", placement.check_concat_scales),
        Rule("float-outputs", "A pair at an output costs accuracy and computes nothing faster.", placement.check_float_outputs),
        Rule("float-norms", "Normalizations and Softmax have no integer kernels.", placement.check_float_norms),
        Rule("enough-channels", "With few channels there is no integer kernel, or none that pays.", placement.check_enough_channels),
        Rule("convolution-output", "The integer convolution can write nothing but codes.", kernels.check_convolution_output),
        Rule("convolution-bias", "The integer Conv or Gemm adds its bias to int32 sums.", kernels.check_convolution_bias),
    )
}
