"""One case for each way to break a rule: broken, the network breaks that rule and no other; mended, it breaks none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from zeropoint.graph.load import load
from zeropoint.rules import RULES, Rule, lint_model
from zeropoint.targets import TARGETS, Target, get_target

CHANNELS = 16
SCALE = 0.0625
ZERO = np.int8(0)
INPUT = [1, CHANNELS, 8, 8]
BLOCKS = {"axis": 0, "block_size": 32}


@dataclass
class Draft:
    """A network in the making, of the input x and the output y."""

    opset: int = 21
    input_shape: Sequence[int] = tuple(INPUT)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)

    def constant(self, array: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def op(self, op_type: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=f"{op_type}{len(self.nodes)}", domain=domain, **attributes))
        return output

    def pair(self, tensor: str, zero_point: Any = ZERO, scale: Any = SCALE, **attributes: Any) -> str:
        numbers = self.constant(np.asarray(scale, np.float32)), self.constant(np.asarray(zero_point))
        codes = self.op("QuantizeLinear", tensor, *numbers, **attributes)
        return self.op("DequantizeLinear", codes, *numbers, **attributes)

    def weight(self, shape: Sequence[int], dtype: Any = np.int8, scale: Any = SCALE, **attributes: Any) -> str:
        scales = np.asarray(scale, np.float32)
        numbers = self.constant(scales), self.constant(np.zeros(scales.shape, dtype))
        return self.op("DequantizeLinear", self.constant(np.ones(shape, dtype)), *numbers, **attributes)

    def conv(self, data: str, *bias: str, channels: int = CHANNELS) -> str:
        return self.op("Conv", data, self.weight((CHANNELS, channels, 1, 1)), *bias)

    def float_conv(self, data: str) -> str:
        return self.op("Conv", data, self.constant(np.ones((CHANNELS, CHANNELS, 1, 1), np.float32)))

    def finish(self, result: str) -> onnx.ModelProto:
        self.nodes[-1].output[0] = "y"
        assert result == f"t{len(self.nodes) - 1}"
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.input_shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        domains = {node.domain for node in self.nodes if node.domain}
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


Build = Callable[[Draft, bool], str]


def opset_too_old(net: Draft, broken: bool) -> str:
    net.opset = 12 if broken else 13
    return net.op("Relu", "x")


def opset_too_new(net: Draft, broken: bool) -> str:
    net.opset = 99 if broken else 25
    return net.op("Relu", "x")


def foreign_operator(net: Draft, broken: bool) -> str:
    return net.op("Gelu", "x", domain="com.microsoft" if broken else "")


def foreign_pair(net: Draft, broken: bool) -> str:
    return net.conv(net.pair("x", domain="com.microsoft" if broken else ""))


def operator_of_another_house(net: Draft, broken: bool) -> str:
    return net.op("Gelu", "x", domain="com.example" if broken else "com.microsoft")


def integer_matmul(net: Draft, broken: bool) -> str:
    if not broken:
        return net.op("MatMul", "x", net.constant(np.ones((8, 8), np.float32)))
    codes = net.op("Cast", "x", to=TensorProto.INT8)
    return net.op("MatMulInteger", codes, net.constant(np.ones((8, 8), np.int8)))


def unsigned_activation(net: Draft, broken: bool) -> str:
    return net.conv(net.pair("x", np.uint8(0) if broken else np.int8(0)))


def zero_point_left_out(net: Draft, broken: bool) -> str:
    # Without a zero point the codes are uint8, unless output_dtype says otherwise.
    scale = net.constant(np.float32(SCALE))
    told: dict[str, Any] = {} if broken else {"output_dtype": TensorProto.INT8}
    codes = net.op("QuantizeLinear", "x", scale, **told)
    return net.conv(net.op("DequantizeLinear", codes, scale))


def unsigned_weight(net: Draft, broken: bool) -> str:
    return net.op("Conv", net.pair("x"), net.weight((CHANNELS, CHANNELS, 1, 1), np.uint8 if broken else np.int8))


def nonzero_zero_point(net: Draft, broken: bool) -> str:
    return net.conv(net.pair("x", np.int8(3 if broken else 0)))


def nonzero_zero_point_of_a_channel(net: Draft, broken: bool) -> str:
    numbers = net.constant(np.full(CHANNELS, SCALE, np.float32)), net.constant(np.array([0, broken] + [0] * 14, np.int8))
    weight = net.op("DequantizeLinear", net.constant(np.ones((CHANNELS, CHANNELS, 1, 1), np.int8)), *numbers, axis=0)
    return net.op("Conv", net.pair("x"), weight)


def integer_bias(net: Draft, broken: bool) -> str:
    floating = net.constant(np.ones(CHANNELS, np.float32))
    return net.conv(net.pair("x"), net.weight((CHANNELS,), np.int32, SCALE**2) if broken else floating)


def bad_scale(value: float) -> Build:
    def build(net: Draft, broken: bool) -> str:
        return net.conv(net.pair("x", scale=value if broken else SCALE))

    return build


def computed_scale(net: Draft, broken: bool) -> str:
    zero_point = net.constant(np.int8(0))
    scale = net.op("ReduceMax", "x", keepdims=0) if broken else net.op("Identity", net.constant(np.float32(SCALE)))
    codes = net.op("QuantizeLinear", "x", scale, zero_point)
    return net.conv(net.op("DequantizeLinear", codes, scale, zero_point))


def scale_of_another_length(net: Draft, broken: bool) -> str:
    return net.op("Conv", net.pair("x"), net.weight((CHANNELS, CHANNELS, 1, 1), scale=[SCALE] * (5 if broken else CHANNELS), axis=0))


def scale_along_a_missing_axis(net: Draft, broken: bool) -> str:
    return net.op("Conv", net.pair("x"), net.weight((CHANNELS, CHANNELS, 1, 1), scale=[SCALE] * CHANNELS, axis=4 if broken else -4))


def scale_of_other_blocks(net: Draft, broken: bool) -> str:
    scale = np.full((3 if broken else 2, 32), SCALE)
    return net.op("MatMul", "x", net.weight((64, 32), ml_dtypes.int4, scale, axis=0, block_size=32))


def one_zero_point_for_many_scales(net: Draft, broken: bool) -> str:
    numbers = net.constant(np.full(CHANNELS, SCALE, np.float32)), net.constant(np.zeros(3 if broken else CHANNELS, np.int8))
    weight = net.op("DequantizeLinear", net.constant(np.ones((CHANNELS, CHANNELS, 1, 1), np.int8)), *numbers, axis=0)
    return net.op("Conv", net.pair("x"), weight)


def activation_per_channel(net: Draft, broken: bool) -> str:
    return net.conv(net.pair("x", np.zeros(CHANNELS, np.int8), [SCALE] * CHANNELS, axis=1) if broken else net.pair("x"))


def only_weight_quantized(net: Draft, broken: bool) -> str:
    return net.conv("x" if broken else net.pair("x"))


def only_data_quantized(net: Draft, broken: bool) -> str:
    return net.float_conv(net.pair("x")) if broken else net.conv(net.pair("x"))


def only_one_product_of_activations_quantized(net: Draft, broken: bool) -> str:
    moved = net.op("Transpose", net.pair("x"), perm=[0, 1, 3, 2])
    return net.op("MatMul", moved, "x" if broken else net.pair("x"))


def four_bit_convolution(net: Draft, broken: bool) -> str:
    return net.op("Conv", net.pair("x"), net.weight((CHANNELS, CHANNELS, 1, 1), ml_dtypes.int4 if broken else np.int8))


def four_bits_beside_codes(net: Draft, broken: bool) -> str:
    net.input_shape = [1, CHANNELS]
    return net.op("MatMul", net.pair("x") if broken else "x", net.weight((CHANNELS, CHANNELS), ml_dtypes.int4))


def an_odd_number_of_four_bits(net: Draft, broken: bool) -> str:
    net.input_shape = [1, 17]
    return net.op("Gemm", "x", net.weight((17 if broken else 18, 17), ml_dtypes.int4), transB=1)


def byte_blocks(net: Draft, broken: bool) -> str:
    scale = np.full((2, 32), SCALE)
    return net.op(
        "MatMul", "x" if not broken else net.pair("x"), net.weight((64, 32), np.int8 if broken else ml_dtypes.int4, scale, **BLOCKS)
    )


def part_of_a_block(net: Draft, broken: bool) -> str:
    rows = 60 if broken else 64
    net.input_shape = [1, rows]
    return net.op("MatMul", "x", net.weight((rows, 32), ml_dtypes.int4, np.full((2, 32), SCALE), **BLOCKS))


def part_of_a_block_counted_from_the_end(net: Draft, broken: bool) -> str:
    rows = 60 if broken else 64
    net.input_shape = [1, rows]
    return net.op("MatMul", "x", net.weight((rows, 32), np.int8, np.full((2, 32), SCALE), axis=-2, block_size=32))


def pair_before(op_type: str) -> Build:
    def build(net: Draft, broken: bool) -> str:
        result = net.conv(net.pair("x"))
        return net.op(op_type, net.pair(result) if broken else result)

    return build


def pair_after_batch_normalization(net: Draft, broken: bool) -> str:
    constants = [net.constant(np.ones(CHANNELS, np.float32)) for _ in range(4)]
    result = net.op("BatchNormalization", net.conv(net.pair("x")), *constants)
    return net.op("Relu", net.pair(result) if broken else result)


def residual(net: Draft, broken: bool) -> str:
    skip = net.pair("x")
    main = net.conv(skip)
    return net.op("Add", net.pair(main) if broken else main, skip)


def concat_inputs(net: Draft, broken: bool) -> str:
    parts = [net.pair(net.conv(net.pair("x")), scale=scale) for scale in (SCALE, 2 * SCALE if broken else SCALE)]
    return net.op("Relu", net.op("Concat", *parts, axis=1))


def concat_output(net: Draft, broken: bool) -> str:
    joined = net.op("Concat", net.pair("x"), net.op("Relu", "x"), axis=1)
    return net.op("Relu", net.pair(joined, scale=2 * SCALE if broken else SCALE))


def quantized_output(net: Draft, broken: bool) -> str:
    result = net.op("Relu", net.conv(net.pair("x")))
    return net.op("Flatten", net.pair(result)) if broken else net.op("Flatten", result)


def quantized_output_through_concat(net: Draft, broken: bool) -> str:
    result = net.op("Relu", net.conv(net.pair("x")))
    return net.op("Concat", "x", net.pair(result) if broken else result, axis=1)


def quantized_softmax(net: Draft, broken: bool) -> str:
    result = net.conv(net.pair("x"))
    return net.op("Softmax", net.pair(result) if broken else result)


def quantized_layer_normalization(net: Draft, broken: bool) -> str:
    result = net.conv(net.pair("x"))
    return net.op("LayerNormalization", net.pair(result) if broken else result, net.constant(np.ones(8, np.float32)))


def three_channels(net: Draft, broken: bool) -> str:
    channels = 3 if broken else CHANNELS
    net.input_shape = [1, channels, 8, 8]
    return net.conv(net.pair("x"), channels=channels)


def three_columns(net: Draft, broken: bool) -> str:
    net.input_shape = [1, CHANNELS]
    return net.op("Gemm", net.pair("x"), net.weight((3 if broken else CHANNELS, CHANNELS)), transB=1)


def depthwise_of_few_channels(net: Draft, broken: bool) -> str:
    channels = 8 if broken else CHANNELS
    net.input_shape = [1, channels, 8, 8]
    return net.op("Conv", net.pair("x"), net.weight((channels, 1, 1, 1)), group=channels)


def x86_signed_activation(net: Draft, broken: bool) -> str:
    return net.op("Relu", net.pair("x", np.int8(3) if broken else np.uint8(3)))


def arm_unsigned_activation(net: Draft, broken: bool) -> str:
    return net.op("Relu", net.pair("x", np.uint8(3) if broken else np.int8(3)))


def unsigned_weight_codes(net: Draft, broken: bool) -> str:
    return net.op("MatMul", "x", net.weight((8, 8), np.uint8 if broken else np.int8))


def convolution_read_as_float(net: Draft, broken: bool) -> str:
    result = net.op("Relu", net.conv(net.pair("x", np.uint8(3))))
    return net.op("Sigmoid", result) if broken else net.op("Sigmoid", net.pair(result, np.uint8(0)))


def convolution_read_as_both(net: Draft, broken: bool) -> str:
    result = net.conv(net.pair("x", np.uint8(3)))
    coded = net.pair(result, np.uint8(5))
    return net.op("Add", net.op("Sigmoid", result if broken else coded), coded)


def convolution_as_output(net: Draft, broken: bool) -> str:
    return net.conv(net.pair("x", np.uint8(3))) if broken else net.float_conv(net.pair("x", np.uint8(3)))


def float_bias(net: Draft, broken: bool) -> str:
    floating = net.constant(np.ones(CHANNELS, np.float32))
    bias = floating if broken else net.weight((CHANNELS,), np.int32, SCALE**2)
    return net.pair(net.conv(net.pair("x", np.uint8(3)), bias), np.uint8(3))


def bias_at_another_scale(net: Draft, broken: bool) -> str:
    scales = np.full(CHANNELS, SCALE**2)
    scales[7] *= 1.0001 if broken else 1.000001
    return net.pair(net.conv(net.pair("x", np.uint8(3)), net.weight((CHANNELS,), np.int32, scales, axis=0)), np.uint8(3))


def bias_in_bytes(net: Draft, broken: bool) -> str:
    return net.pair(net.conv(net.pair("x", np.uint8(3)), net.weight((CHANNELS,), np.int8 if broken else np.int32, SCALE**2)), np.uint8(3))


def gemm_bias(change: Callable[[Draft], str]) -> Build:
    def build(net: Draft, broken: bool) -> str:
        data = net.pair(net.op("Flatten", "x"), np.uint8(3))
        bias = change(net) if broken else net.weight((CHANNELS,), np.int32, SCALE**2)
        return net.op("Gemm", data, net.weight((CHANNELS * 64, CHANNELS)), bias)

    return build


def asymmetric(zero_point: Any) -> Build:
    def build(net: Draft, broken: bool) -> str:
        return net.conv(net.pair("x", zero_point if broken else np.uint8(0)))

    return build


CASES: list[tuple[str, str, Build]] = [
    ("opset", "tensorrt", opset_too_old),
    ("opset", "tensorrt", opset_too_new),
    ("opset", "onnxruntime", opset_too_old),
    ("opset", "openvino", opset_too_old),
    ("default-domain", "tensorrt", foreign_operator),
    ("default-domain", "tensorrt", foreign_pair),
    ("openvino-domains", "openvino", operator_of_another_house),
    ("no-integer-operators", "tensorrt", integer_matmul),
    ("signed-codes", "tensorrt", unsigned_activation),
    ("signed-codes", "tensorrt", zero_point_left_out),
    ("signed-codes", "tensorrt", unsigned_weight),
    ("zero-points", "tensorrt", nonzero_zero_point),
    ("zero-points", "tensorrt", nonzero_zero_point_of_a_channel),
    ("float-bias", "tensorrt", integer_bias),
    ("scale-values", "tensorrt", bad_scale(0.0)),
    ("scale-values", "tensorrt", bad_scale(-1.0)),
    ("scale-values", "tensorrt", bad_scale(np.nan)),
    ("scale-values", "openvino", bad_scale(np.inf)),
    ("scale-values", "tensorrt", computed_scale),
    ("scale-shape", "tensorrt", scale_of_another_length),
    ("scale-shape", "openvino", scale_along_a_missing_axis),
    ("scale-shape", "tensorrt", scale_of_other_blocks),
    ("scale-shape", "tensorrt", one_zero_point_for_many_scales),
    ("one-activation-scale", "tensorrt", activation_per_channel),
    ("both-operands", "tensorrt", only_weight_quantized),
    ("both-operands", "tensorrt", only_data_quantized),
    ("both-operands", "tensorrt", only_one_product_of_activations_quantized),
    ("four-bit-weights", "tensorrt", four_bit_convolution),
    ("four-bit-weights", "tensorrt", four_bits_beside_codes),
    ("four-bit-weights", "tensorrt", an_odd_number_of_four_bits),
    ("block-scales", "tensorrt", byte_blocks),
    ("whole-blocks", "tensorrt", part_of_a_block),
    ("whole-blocks", "openvino", part_of_a_block),
    ("whole-blocks", "openvino", part_of_a_block_counted_from_the_end),
    ("pair-after-activation", "tensorrt", pair_before("Relu")),
    ("pair-after-activation", "tensorrt", pair_before("HardSwish")),
    ("pair-after-activation", "tensorrt", pair_after_batch_normalization),
    ("residual-skip-only", "tensorrt", residual),
    ("concat-one-scale", "tensorrt", concat_inputs),
    ("concat-one-scale", "tensorrt", concat_output),
    ("float-outputs", "tensorrt", quantized_output),
    ("float-outputs", "tensorrt", quantized_output_through_concat),
    ("float-norms", "tensorrt", quantized_softmax),
    ("float-norms", "tensorrt", quantized_layer_normalization),
    ("enough-channels", "tensorrt", three_channels),
    ("enough-channels", "tensorrt", three_columns),
    ("enough-channels", "tensorrt", depthwise_of_few_channels),
    ("activation-format", "onnxruntime", x86_signed_activation),
    ("activation-format", "onnxruntime-arm", arm_unsigned_activation),
    ("weight-format", "onnxruntime", unsigned_weight_codes),
    ("convolution-output", "onnxruntime", convolution_read_as_float),
    ("convolution-output", "onnxruntime", convolution_read_as_both),
    ("convolution-output", "onnxruntime", convolution_as_output),
    ("convolution-bias", "onnxruntime", float_bias),
    ("convolution-bias", "onnxruntime", bias_at_another_scale),
    ("convolution-bias", "onnxruntime", bias_in_bytes),
    ("convolution-bias", "onnxruntime", gemm_bias(lambda net: net.constant(np.ones(CHANNELS, np.float32)))),
    ("convolution-bias", "onnxruntime", gemm_bias(lambda net: net.weight((CHANNELS,), np.int32, 2 * SCALE**2))),
    ("symmetric-activations", "openvino", asymmetric(np.int8(3))),
    ("symmetric-activations", "openvino", asymmetric(np.uint8(128))),
]
every_case = pytest.mark.parametrize(
    ("rule", "target", "build"), CASES, ids=[f"{target}-{rule}-{build.__qualname__.partition('.')[0]}" for rule, target, build in CASES]
)


def rules_broken(model: onnx.ModelProto, target: str) -> list[str]:
    return [finding.rule for finding in lint_model(load(model), get_target(target)).findings]


@every_case
def test_broken_network_has_findings_of_its_rule_alone(rule: str, target: str, build: Build) -> None:
    net = Draft()
    assert set(rules_broken(net.finish(build(net, True)), target)) == {rule}


@every_case
def test_mended_network_has_no_findings(rule: str, target: str, build: Build) -> None:
    net = Draft()
    assert rules_broken(net.finish(build(net, False)), target) == []


def test_every_rule_has_a_case() -> None:
    assert {rule for rule, _, _ in CASES} == set(RULES)


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_targets_name_rules_that_exist(target: Target) -> None:
    assert target.lint
    assert set(target.lint) <= set(RULES)
    assert len(set(target.lint)) == len(target.lint)


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_rules_give_a_reason_and_are_wanted_by_a_target(rule: Rule) -> None:
    assert rule.reason.endswith(".")
    assert any(rule.name in target.lint for target in TARGETS.values())


CODINGS = {
    "float": ("y = Neg(x)", False),
    "pair": ("q = QuantizeLinear(x, s) y = DequantizeLinear(q, s)", True),
    "weight-alone": ("d = DequantizeLinear(w, s) y = Add(x, d)", True),
    "pair-of-onnxruntime": ("q = com.microsoft.QuantizeLinear(x, s) y = com.microsoft.DequantizeLinear(q, s)", True),
    "pair-of-another-domain": ("q = house.QuantizeLinear(x, s) y = house.DequantizeLinear(q, s)", False),
    "in-a-body": (
        "y = If(c) <then_branch = one () => (float[4] p) { q = QuantizeLinear(x, s) p = DequantizeLinear(q, s) }, "
        "else_branch = two () => (float[4] n) { n = Neg(x) }>",
        True,
    ),
}


@pytest.mark.parametrize(("nodes", "quantized"), CODINGS.values(), ids=CODINGS)
def test_network_is_quantized_where_it_has_codes(nodes: str, quantized: bool) -> None:
    header = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1, "house" : 1]>'
    given = "float s = {0.5}, bool c = {1}, int8[4] w = {1, 2, 3, 4}"
    model = load(onnx.parser.parse_model(f"{header} g (float[4] x) => (float[4] y) <{given}> {{ {nodes} }}"))
    assert lint_model(model, get_target("tensorrt")).quantized is quantized


def test_four_bits_excuse_a_gemm_on_float_data_but_no_convolution() -> None:
    net = Draft()
    model = net.finish(net.op("Conv", "x", net.weight((CHANNELS, CHANNELS, 1, 1), ml_dtypes.int4)))
    assert rules_broken(model, "tensorrt") == ["four-bit-weights", "both-operands"]


@pytest.mark.parametrize(
    ("dtype", "scale", "attributes"),
    [
        pytest.param(ml_dtypes.int4, SCALE, {}, id="4 bits"),
        pytest.param(np.int8, np.full((CHANNELS, 2, 1, 1), SCALE), {"axis": 1, "block_size": 8}, id="blocks"),
    ],
)
def test_a_convolution_that_no_integer_kernel_takes_needs_nothing_around_it(dtype: Any, scale: Any, attributes: dict[str, int]) -> None:
    net = Draft()
    weight = net.weight((CHANNELS, CHANNELS, 1, 1), dtype, scale, **attributes)
    model = net.finish(net.op("Conv", net.pair("x", np.uint8(3)), weight, net.constant(np.ones(CHANNELS, np.float32))))
    assert rules_broken(model, "onnxruntime") == []


def test_finding_says_what_where_and_what_to_do() -> None:
    net = Draft()
    model = load(net.finish(nonzero_zero_point(net, True)))
    assert [str(finding) for finding in lint_model(model, get_target("tensorrt")).findings] == [
        "QuantizeLinear0: 'x' has zero point 3, expected 0; quantize symmetrically [zero-points]"
    ]


def test_constant_that_no_weighted_operator_reads_is_no_weight() -> None:
    header = '<ir_version: 8, opset_import: ["" : 17]>'
    given = "int64[4] p = {0, 0, 0, 0}, uint8 v = {0}, float s = {0.5}, uint8 z = {0}"
    nodes = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) f = DequantizeLinear(v, s, z) y = Pad(d, p, f)"
    model = load(onnx.parser.parse_model(f"{header} g (float[4, 4] x) => (float[4, 4] y) <{given}> {{ {nodes} }}"))
    assert lint_model(model, get_target("onnxruntime")).findings == ()
