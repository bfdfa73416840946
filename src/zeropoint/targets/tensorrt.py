"""NVIDIA TensorRT 10 and 11: explicit quantization, symmetric int8, float bias.

Follows the Q/DQ placement recommendations of the TensorRT developer guide: the inputs of weighted operators and the skip input of
a residual Add are quantized, nothing between a convolution and its activation, and the inputs of a Concat share one scale.
"""

from __future__ import annotations

from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import Spec
from zeropoint.targets.target import Role, Target

INT8 = Spec(FORMATS["int8"], symmetric=True)

ACTIVATIONS = ("Clip", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Selu", "Sigmoid", "Softplus", "Tanh")
MOVES = (
    "Concat",
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Identity",
    "MaxPool",
    "Reshape",
    "Resize",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)

TENSORRT = Target(
    name="tensorrt",
    runs_on="TensorRT 10 or 11 on an NVIDIA GPU",
    activation=INT8,
    nonnegative_activation=INT8,
    weight=Spec(FORMATS["int8"], symmetric=True, narrow=True),
    bias="float",
    min_opset=13,
    max_opset=25,
    operators={
        "Conv": Role.WEIGHTED,
        "Gemm": Role.WEIGHTED,
        "MatMul": Role.WEIGHTED,
        # It does not fuse with the Q that follows and is often slower than in FP16.
        "ConvTranspose": Role.HELD_BACK,
        "Add": Role.RESIDUAL,
        **dict.fromkeys(ACTIVATIONS, Role.FUSES),
        "AveragePool": Role.READS,
        "GlobalAveragePool": Role.READS,
        **dict.fromkeys(MOVES, Role.MOVES),
    },
    codes_everywhere=False,
    # With fewer channels there is no INT8 kernel, or none that pays; an INT8 stem on three channels fails to build.
    min_channels=16,
    # Behind a float stem it has too little arithmetic to pay for the conversion, and in mobile networks the most to lose by it.
    depthwise_stem=False,
    float_weights=(
        "TensorRT takes such weights in a Gemm or MatMul of float data at most, and builds no engine from this file: it tells what they "
        "cost in accuracy, and is for other runtimes"
    ),
    lint=(
        "opset",
        "default-domain",
        "no-integer-operators",
        "signed-codes",
        "zero-points",
        "float-bias",
        "scale-values",
        "scale-shape",
        "one-activation-scale",
        "four-bit-weights",
        "block-scales",
        "whole-blocks",
        "both-operands",
        "pair-after-activation",
        "residual-skip-only",
        "concat-one-scale",
        "float-outputs",
        "float-norms",
        "enough-channels",
    ),
    runtime="tensorrt",
    next_command="trtexec --onnx={model} --stronglyTyped --saveEngine={stem}.engine",
)
