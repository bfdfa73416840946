"""ONNX Runtime's CPU provider: integer kernels are chosen where quantized values stand on all sides of an operator.

A convolution becomes QLinearConv only between codes, with an int32 bias at scale input x weight. MatMul and Gemm also write float.
x86 with VNNI multiplies unsigned by signed bytes, so activations are uint8 there; ARM's dot product multiplies signed by signed.
"""

from __future__ import annotations

from dataclasses import replace

from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import Spec
from zeropoint.targets.target import Role, Target

UINT8 = Spec(FORMATS["uint8"], symmetric=False)
INT8 = Spec(FORMATS["int8"], symmetric=False)

JOINS = ("Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid")
MOVES = (
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
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

ONNXRUNTIME = Target(
    name="onnxruntime",
    runs_on="ONNX Runtime on an x86 CPU",
    activation=UINT8,
    nonnegative_activation=UINT8,
    weight=Spec(FORMATS["int8"], symmetric=True, narrow=True),
    bias="int32",
    min_opset=13,
    max_opset=26,
    operators={
        "Conv": Role.WEIGHTED_TO_CODES,
        "Gemm": Role.WEIGHTED,
        "MatMul": Role.WEIGHTED,
        "Relu": Role.FUSES,
        "Clip": Role.FUSES,
        **dict.fromkeys(JOINS, Role.JOINS),
        **dict.fromkeys(MOVES, Role.MOVES),
    },
    codes_everywhere=True,
    left_weights=False,
    clips_anywhere=False,
    float_weights="ONNX Runtime makes floats of them at each run, and multiplies those: the file is smaller, but not faster",
    lint=(
        "opset",
        "scale-values",
        "scale-shape",
        "one-activation-scale",
        "activation-format",
        "weight-format",
        "convolution-output",
        "convolution-bias",
    ),
    runtime="onnxruntime",
    machines=("x86_64", "AMD64"),
    next_command="python -m onnxruntime.tools.onnxruntime_test {model} 100",  # prints the mean latency of 100 runs
)

ONNXRUNTIME_ARM = replace(
    ONNXRUNTIME,
    name="onnxruntime-arm",
    runs_on="ONNX Runtime on an ARM CPU",
    activation=INT8,
    nonnegative_activation=INT8,
    machines=("aarch64", "arm64"),
)
