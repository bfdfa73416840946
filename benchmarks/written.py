"""What a quantized file says of itself: how many of its operators read codes, and which codes its activations are in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MOVERS = ("Flatten", "Identity", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")  # of codes as of floats


@dataclass(frozen=True, slots=True)
class Written:
    """A file in QDQ form.

    weighted: its Conv, ConvTranspose, Gemm and MatMul; integer: those of them that read codes on both sides. codes: the types of its
    activations, as NumPy calls them. around_zero: whether their zero points are all 0.
    """

    weighted: int
    integer: int
    codes: tuple[str, ...]
    around_zero: bool

    @property
    def suits_tensorrt(self) -> bool:
        """Whether TensorRT takes its activations, which have to be int8 around zero."""
        return self.codes in ((), ("int8",)) and self.around_zero


def read_written(path: Path) -> Written:
    """Read the file at `path`."""
    graph = onnx.load(path).graph
    made = {output: node for node in graph.node for output in node.output}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    weights |= {
        node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant" and node.attribute[0].HasField("t")
    }
    weighted = [node for node in graph.node if node.op_type in WEIGHTED]
    rounded = [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] not in weights]
    zeros = [_zero_point(node, weights) for node in rounded]
    return Written(
        weighted=len(weighted),
        integer=sum(all(_reads_codes(name, made) for name in node.input[:2]) for node in weighted),
        codes=tuple(sorted({str(zero.dtype) for zero in zeros})),
        around_zero=not any(zero.any() for zero in zeros),
    )


def _zero_point(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> npt.NDArray[np.generic]:
    if len(node.input) > 2 and node.input[2] in weights:
        return numpy_helper.to_array(weights[node.input[2]])
    told = next((attribute.i for attribute in node.attribute if attribute.name == "output_dtype"), 0)
    return np.zeros((), helper.tensor_dtype_to_np_dtype(told or onnx.TensorProto.UINT8))


def _reads_codes(name: str, made: dict[str, onnx.NodeProto]) -> bool:
    node = made.get(name)
    while node is not None and node.op_type in MOVERS:
        node = made.get(node.input[0])
    return node is not None and node.op_type == "DequantizeLinear"
