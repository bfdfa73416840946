"""Whole small networks against ONNX Runtime, other batch sizes than the first, and mixed precision."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest

pytest.importorskip("torch")

import torch
from tests.autograd.graphs import call, run

NETWORKS: dict[str, str] = {
    "convolutions": """
        <ir_version: 9, opset_import: ["" : 17]>
        g (float[n, 3, 16, 16] x) => (float[n, 5] y)
        {
            a = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, w8_3_3_3, w8)
            b = BatchNormalization (a, w8b, w8c, w8d, p8)
            c = Relu (b)
            d = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (c)
            e = Conv <group = 8, pads = [1, 1, 1, 1]> (d, w8_1_3_3)
            s = HardSigmoid <alpha = 0.16666667> (e)
            f = Mul (e, s)
            h = GlobalAveragePool (f)
            i = Flatten (h)
            j = Gemm <transB = 1> (i, w5_8, w5)
            y = Softmax (j)
        }""",
    "attention of two heads": """
        <ir_version: 9, opset_import: ["" : 17]>
        g (float[n, t, 8] x) => (float[n, t, 8] y)
        <int64[1] zero = {0}, int64 i0 = {0}, int64 i1 = {1}, int64[1] two = {2}, int64[1] rest = {-1}, float half = {0.5}>
        {
            a = LayerNormalization (x, w8, w8b)
            s = Shape (x)
            n0 = Gather (s, i0)
            t0 = Gather (s, i1)
            n1 = Unsqueeze (n0, zero)
            t1 = Unsqueeze (t0, zero)
            split = Concat <axis = 0> (n1, t1, two, rest)
            joined = Concat <axis = 0> (n1, t1, rest)
            q0 = MatMul (a, w8_8)
            q1 = Reshape (q0, split)
            q = Transpose <perm = [0, 2, 1, 3]> (q1)
            k0 = MatMul (a, w8_8b)
            k1 = Reshape (k0, split)
            k = Transpose <perm = [0, 2, 3, 1]> (k1)
            scores = MatMul (q, k)
            scaled = Mul (scores, half)
            shares = Softmax <axis = -1> (scaled)
            v = Transpose <perm = [0, 2, 1, 3]> (q1)
            o0 = MatMul (shares, v)
            o1 = Transpose <perm = [0, 2, 1, 3]> (o0)
            o = Reshape (o1, joined)
            r = Add (x, o)
            e = Erf (r)
            y = Mul (e, r)
        }""",
    "down and up again": """
        <ir_version: 9, opset_import: ["" : 18]>
        g (float[n, 2, h, w] x) => (float[n, 2, h, w] y)
        <int64[8] pads = {0, 0, 1, 0, 0, 0, 0, 1}, int64 i2 = {2}, int64 i4 = {4}, float[4] scales = {1, 1, 2, 2}, int64[2] cut = {1, 3}>
        {
            p = Pad <mode = "reflect"> (x, pads)
            a = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (p, w4_2_3_3, w4)
            b = LeakyRelu <alpha = 0.1> (a)
            u = ConvTranspose <strides = [2, 2], output_padding = [1, 1], pads = [1, 1, 1, 1]> (b, w4_2_3_3b)
            r = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (b, , scales)
            c = Concat <axis = 1> (u, r)
            m, n1 = Split <axis = 1, num_outputs = 2> (c)
            d = Sub (m, n1)
            s = Shape <start = 2> (x)
            s0 = Shape <end = 1> (x)
            s1 = Shape <start = 1, end = 2> (d)
            all = Concat <axis = 0> (s0, s1, s)
            z = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (d, , , all)
            g0 = ReduceMean <keepdims = 1> (z, axes)
            k = Sub (z, g0)
            q = Conv (k, w2_3_1_1)
            y = Clip (q, low, high)
        }""",
}
WEIGHTS: dict[str, np.ndarray] = {
    "axes": np.array([2, 3]),
    "low": np.array(-1, np.float32),
    "high": np.array(1, np.float32),
}


def shape_in(name: str) -> list[int]:
    """Of weights by their name: w4_2 is 4 by 2; a letter behind tells two apart."""
    return [int(size) for size in re.findall(r"\d+", name)]


def network(name: str) -> onnx.ModelProto:
    """The network, with weights of the shapes that their names tell."""
    model = onnx.parser.parse_model(NETWORKS[name])
    rng = np.random.default_rng(0)
    known = {x.name for x in (*model.graph.input, *model.graph.initializer)} | {y for n in model.graph.node for y in n.output}
    for read in sorted({x for n in model.graph.node for x in n.input} - known - {""}):
        drawn = rng.normal(size=shape_in(read)).astype(np.float32) * np.float32(0.5)
        array = WEIGHTS.get(read, np.abs(drawn) + np.float32(0.1) if read.startswith("p") else drawn)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, read))
    return model


SHAPES: dict[str, list[tuple[int, ...]]] = {
    "convolutions": [(1, 3, 16, 16), (3, 3, 16, 16)],
    "attention of two heads": [(1, 5, 8), (3, 4, 8)],
    "down and up again": [(1, 2, 8, 6), (2, 2, 5, 9)],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_network_computes_what_onnx_runtime_computes(name: str) -> None:
    proto = network(name)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    model = ir.serde.deserialize_model(proto)
    rng = np.random.default_rng(1)
    for shape in SHAPES[name]:
        x = rng.normal(size=shape).astype(np.float32)
        (expected,) = session.run(None, {"x": x})
        leaf = torch.tensor(x, requires_grad=True)
        (actual,) = run(model, {"x": leaf})
        np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
        actual.square().sum().backward()
        assert leaf.grad.abs().sum() > 0


def test_shapes_stay_on_the_cpu_wherever_the_data_is() -> None:
    x = torch.empty(4, 5, 8, device="meta")
    (shape,) = call("Shape", x)
    assert (shape.device.type, shape.dtype, shape.tolist()) == ("cpu", torch.int64, [4, 5, 8])
    (size,) = call("Size", x)
    assert (size.device.type, size.item()) == ("cpu", 160)
    (batch,) = call("Gather", shape, torch.tensor([0]))
    (wanted,) = call("Concat", batch, torch.tensor([2, -1]), axis=0)
    assert call("Reshape", x, wanted)[0].shape == (4, 2, 20)


MIXED: dict[str, tuple[str, list[Any], Any]] = {
    "convolution": ("Conv", [torch.ones(1, 2, 4, 4), torch.ones(2, 2, 3, 3)], torch.bfloat16),
    "linear layer": ("Gemm", [torch.ones(2, 3), torch.ones(3, 2), torch.ones(2)], torch.bfloat16),
    "matrix product": ("MatMul", [torch.ones(2, 3), torch.ones(3, 2)], torch.bfloat16),
    "sum with a float32": ("Add", [torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(2, 3)], torch.float32),
    "bias": ("Add", [torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(3)], torch.bfloat16),
    "bias before the product": ("Add", [torch.ones(3), torch.ones(2, 3, dtype=torch.bfloat16)], torch.bfloat16),
    "product with a constant": ("Mul", [torch.ones(2, 3, dtype=torch.bfloat16), torch.tensor(2.0)], torch.bfloat16),
    "scattering": ("ScatterND", [torch.ones(2), torch.zeros(1, 1).long(), torch.ones(1, dtype=torch.bfloat16)], torch.float32),
    "scattered sum": ("ScatterElements", [torch.ones(2), torch.zeros(1).long(), torch.ones(1, dtype=torch.bfloat16)], torch.float32),
    "choice": ("Where", [torch.tensor([True]), torch.ones(1), torch.ones(1, dtype=torch.bfloat16)], torch.float32),
}


@pytest.mark.parametrize("name", MIXED)
def test_autocast(name: str) -> None:
    operator, inputs, dtype = MIXED[name]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert call(operator, *inputs)[0].dtype == dtype
