"""What the onnxruntime target claims to compute in integers is what ONNX Runtime's own optimizer makes integer operators of."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from tests.graph.networks import network, plan_network

from zeropoint.evaluate.evidence import coverage
from zeropoint.graph.materialize import materialize
from zeropoint.graph.store import serialize
from zeropoint.rules import lint_model
from zeropoint.targets import get_target
from zeropoint.targets.onnxruntime import ONNXRUNTIME

INTEGER = ("QLinear", "QGemm", "MatMulIntegerToFloat", "NhwcQLinear")


@dataclass(frozen=True, kw_only=True)
class Form:
    """A network, and how many of its operators compute in integers; `left` are those that could but don't."""

    body: str
    integer: int
    left: int = 0
    inputs: str = "float[1,16,8,8] x"
    outputs: str = "y"
    weights: dict[str, Any] = field(default_factory=dict)


ROWS = "float[4,16] x"
BATCH = "float[2,4,16] x"
DENSE = {"w": (16, 16), "v": (16, 16), "b": (16,), "row": (1, 16), "column": (4, 1), "one": np.array([0.5], np.float32)}
BOUNDS = {"lo": np.float32(0.0), "hi": np.float32(6.0), "minus": np.float32(-1.0), "plus": np.float32(1.0)}

FORMS = {
    "Conv": Form(body="a = Conv(x, w, b) y = Softmax(a)", integer=1, weights={"b": (16,)}),
    "Conv without a bias": Form(body="a = Conv(x, w) y = Softmax(a)", integer=1),
    "Conv, grouped": Form(body="a = Conv <group=2> (x, w) y = Softmax(a)", integer=1, weights={"w": (16, 8, 3, 3)}),
    "Conv, depthwise": Form(body="a = Conv <group=16> (x, w) y = Softmax(a)", integer=1, weights={"w": (16, 1, 3, 3)}),
    "Conv, 1 axis": Form(body="a = Conv(x, w) y = Softmax(a)", inputs="float[1,16,8] x", integer=1, weights={"w": (16, 16, 3)}),
    "Conv with a computed bias": Form(body="a = Conv(x, w, z) y = Softmax(a)", inputs="float[1,16,8,8] x, float[16] z", integer=0, left=1),
    "Conv that is an output": Form(body="y = Conv(x, w)", integer=0, left=1),
    "Convs that share a bias": Form(body="a = Conv(x, w, b) c = Conv(a, v, b) y = Softmax(c)", integer=2, weights={"b": (16,)}),
    "Convs that share a weight": Form(body="a = Conv(x, w) c = Conv(a, w) y = Softmax(c)", integer=2),
    "Conv and Relu": Form(body="a = Conv(x, w) r = Relu(a) y = Softmax(r)", integer=1),
    "Conv and Clip(0, 6)": Form(body="a = Conv(x, w) r = Clip(a, lo, hi) y = Softmax(r)", integer=1, weights=BOUNDS),
    "Conv and Clip(0)": Form(body="a = Conv(x, w) r = Clip(a, lo) y = Softmax(r)", integer=1, weights=BOUNDS),
    "Conv and Clip(-1, 1)": Form(body="a = Conv(x, w) r = Clip(a, minus, plus) y = Softmax(r)", integer=1, weights=BOUNDS),
    "Conv and Clip(, 1)": Form(body="a = Conv(x, w) r = Clip(a, , plus) y = Softmax(r)", integer=1, weights=BOUNDS),
    "Conv and LeakyRelu": Form(body="a = Conv(x, w) r = LeakyRelu(a) c = Conv(r, v) y = Softmax(c)", integer=3),
    "SiLU": Form(body="a = Conv(x, w) s = Sigmoid(a) m = Mul(a, s) c = Conv(m, v) y = Softmax(c)", integer=4),
    "residual": Form(body="a = Conv(x, w) r = Relu(a) c = Conv(r, v) d = Add(c, r) s = Relu(d) y = Softmax(s)", integer=3),
    "residual, clipped": Form(
        body="a = Conv(x, w) c = Conv(a, v) d = Add(c, a) s = Clip(d, minus, plus) y = Softmax(s)", integer=3, weights=BOUNDS
    ),
    "Add with a float": Form(body="a = Conv(x, w) d = Add(a, x) y = Softmax(d)", integer=1, left=1),
    "Add of floats": Form(body="d = Add(x, x) a = Conv(d, w) y = Softmax(a)", integer=1, left=1),
    "Concat": Form(
        body="a = Conv(x, w) c = Conv(x, v) k = Concat <axis=1> (a, c) d = Conv(k, u) y = Softmax(d)",
        integer=4,
        weights={"u": (16, 32, 1, 1)},
    ),
    "MaxPool and Reshape": Form(
        body="a = Conv(x, w) p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (a) f = Flatten(p) g = Gemm(f, m) y = Softmax(g)",
        integer=2,
        weights={"m": (256, 16)},
    ),
    "AveragePool": Form(body="a = Conv(x, w) p = AveragePool <kernel_shape=[2,2]> (a) c = Conv(p, v) y = Softmax(c)", integer=3),
    "AveragePool of the input": Form(body="p = AveragePool <kernel_shape=[2,2]> (x) c = Conv(p, v) y = Softmax(c)", integer=1, left=1),
    "GlobalAveragePool": Form(
        body="a = Conv(x, w) p = GlobalAveragePool(a) f = Flatten(p) y = Gemm(f, m, b)", integer=3, weights={"m": (16, 16), "b": (16,)}
    ),
    **{
        f"Gemm({inputs}) {attributes}".strip(): Form(body=f"y = Gemm {attributes} ({inputs})", inputs=ROWS, integer=1, weights=DENSE)
        for inputs in ("x, w", "x, w, b", "x, w, row", "x, w, one")
        for attributes in ("", "<transB=1>", "<alpha=0.5>", "<beta=2.0>", "<transB=1, alpha=-2.0, beta=0.0>")
    },
    "Gemm with transA": Form(body="y = Gemm <transA=1> (x, w, b)", inputs="float[16,4] x", integer=1, weights=DENSE),
    "Gemm with a bias for each row": Form(body="y = Gemm(x, w, column)", inputs=ROWS, integer=0, left=1, weights=DENSE),
    "Gemms that share a bias": Form(body="a = Gemm(x, w, b) r = Relu(a) y = Gemm(r, v, b)", inputs=ROWS, integer=2, weights=DENSE),
    "Gemms that share a weight on different axes": Form(
        body="a = Gemm(x, w, b) r = Relu(a) y = Gemm <transB=1> (r, w, b)", inputs=ROWS, integer=2, weights=DENSE
    ),
    "MatMul by a matrix": Form(body="y = MatMul(x, w)", inputs=BATCH, integer=1, weights=DENSE),
    "MatMul by batched matrices": Form(body="y = MatMul(x, w)", inputs=BATCH, integer=1, weights={"w": (2, 16, 16)}),
    "MatMul by a constant on the left": Form(body="y = MatMul(w, x)", inputs="float[16,16] x", integer=0, left=1, weights=DENSE),
    "MatMul of two activations": Form(body="y = MatMul(x, z)", inputs="float[4,16] x, float[16,4] z", integer=1),
    "MatMul and Add": Form(body="a = MatMul(x, w) y = Add(a, b)", inputs=BATCH, integer=1, left=1, weights=DENSE),
    **{
        f"MatMul and {what}": Form(body=body, inputs=inputs, integer=1, left=1, weights=DENSE | {"s": (4, 16)})
        for what, body, inputs in (
            ("Add of a matrix", "a = MatMul(x, w) y = Add(a, s)", ROWS),
            ("Add of rows", "a = MatMul(x, w) y = Add(a, column)", ROWS),
            ("Add of one number", "a = MatMul(x, w) y = Add(a, one)", ROWS),
            ("Add of a vector, 2 axes", "a = MatMul(x, w) y = Add(row, a)", ROWS),
            ("Add of a vector, any batch", "a = MatMul(x, w) y = Add(b, a)", "float[N,4,16] x"),
            ("Add of the input", "a = MatMul(x, w) y = Add(a, x)", ROWS),
            ("Add of the input, 3 axes", "a = MatMul(x, w) y = Add(a, x)", BATCH),
            ("Add of a fed vector", "a = MatMul(x, w) y = Add(a, z)", f"{ROWS}, float[16] z"),
            ("Add of a fed vector, 3 axes", "a = MatMul(x, w) y = Add(a, z)", f"{BATCH}, float[16] z"),
            ("Add behind two activations", "a = MatMul(x, z) y = Add(a, b)", f"{ROWS}, float[16,16] z"),
        )
    },
    "MatMul that is an output, and Add": Form(
        body="a = MatMul(x, w) y = Add(a, s)", outputs="y, a", inputs=ROWS, integer=1, left=1, weights=DENSE | {"s": (4, 16)}
    ),
    "MatMuls with one vector": Form(
        body="a = MatMul(x, w) c = Add(a, b) r = Relu(c) d = MatMul(r, v) y = Add(d, b)", inputs=BATCH, integer=2, left=2, weights=DENSE
    ),
    "MatMul between codes": Form(
        body="a = MatMul(x, w) t = Transpose <perm=[1,0]> (a) y = MatMul(t, u)", inputs=ROWS, integer=2, weights=DENSE | {"u": (4, 8)}
    ),
}


def optimized(model: ir.Model, folder: Path) -> list[str]:
    """Return the operators of the network that ONNX Runtime runs in place of `model`."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(serialize(model), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_what_is_claimed_is_what_runs_in_integers(form: Form, tmp_path: Path) -> None:
    planned = plan_network(network(form.body, inputs=form.inputs, outputs=form.outputs, weights=form.weights), "onnxruntime")
    quantized = materialize(planned.model, planned.plan)
    claimed = coverage(planned.model, planned.plan, ONNXRUNTIME)
    assert (claimed.quantized, claimed.candidates) == (form.integer, form.integer + form.left)
    found = optimized(quantized, tmp_path)
    assert len([op_type for op_type in found if op_type.startswith(INTEGER)]) == claimed.quantized, found
    assert lint_model(quantized, get_target("onnxruntime")).findings == ()
