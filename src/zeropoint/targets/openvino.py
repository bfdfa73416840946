"""OpenVINO on Intel CPUs and GPUs: low-precision transformations move the dequantization behind the weighted operator.

Symmetric activations need no zero-point correction in its kernels; a tensor that is never negative gets the unsigned codes.
"""

from __future__ import annotations

from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import Spec
from zeropoint.targets.target import Role, Target
from zeropoint.targets.tensorrt import ACTIVATIONS, MOVES

OPENVINO = Target(
    name="openvino",
    runs_on="OpenVINO on an Intel CPU or GPU",
    activation=Spec(FORMATS["int8"], symmetric=True),
    nonnegative_activation=Spec(FORMATS["uint8"], symmetric=True),
    weight=Spec(FORMATS["int8"], symmetric=True, narrow=True),
    bias="float",
    min_opset=13,
    max_opset=26,
    operators={
        "Conv": Role.WEIGHTED,
        "ConvTranspose": Role.WEIGHTED,
        "Gemm": Role.WEIGHTED,
        "MatMul": Role.WEIGHTED,
        "Add": Role.RESIDUAL,
        **dict.fromkeys(ACTIVATIONS, Role.FUSES),
        "AveragePool": Role.READS,
        "GlobalAveragePool": Role.READS,
        **dict.fromkeys(MOVES, Role.MOVES),
    },
    codes_everywhere=False,
    float_weights="OpenVINO makes floats of them, a convolution's once and a matrix's at each run: the file is smaller, but not faster",
    lint=("opset", "openvino-domains", "scale-values", "scale-shape", "whole-blocks", "one-activation-scale", "symmetric-activations"),
    runtime="openvino",
    next_command="benchmark_app -m {model}",
)
