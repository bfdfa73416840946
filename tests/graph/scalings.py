"""Networks, and what can be scaled in each of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from tests.graph.networks import feed, network

from zeropoint.graph.facts import capture_facts
from zeropoint.graph.load import load
from zeropoint.graph.prepare import prepare
from zeropoint.graph.scalable import find_scalable
from zeropoint.graph.scaling import Scalable

IMAGE = "float[N,16,8,8] x"
TOKENS = "float[N,6,32] x"
DEPTHWISE = (16, 1, 3, 3)
GAMMA = np.linspace(0.5, 1.5, 32, dtype=np.float32)
BETA = np.linspace(-1.0, 1.0, 32, dtype=np.float32)
VECTORS = {"gamma": GAMMA, "beta": BETA, "eps": np.float32(1e-5), "two": np.float32(2.0)}
HEADS = {"heads": np.array([0, 0, 4, 8]), "merged": np.array([0, 0, 32])}
ERF = {"root2": np.float32(2**0.5), "one": np.float32(1.0), "half": np.float32(0.5)}
LAYER_NORM = """
    mean = ReduceMean <axes=[-1]> (x)
    centred = Sub(x, mean)
    squared = Pow(centred, two)
    variance = ReduceMean <axes=[-1]> (squared)
    shifted = Add(variance, eps)
    deviation = Sqrt(shifted)
    normal = Div(centred, deviation)
    scaled = Mul(normal, gamma)
    t = Add(scaled, beta)
"""


@dataclass(frozen=True)
class Case:
    """A network, and what can be scaled in it: the tied tensors and, behind a bar, the readers.

    Behind the readers stand "shift" where these can be subtracted too, and "branch" where a node is added.
    """

    name: str
    body: str
    found: list[str]
    inputs: str = IMAGE
    outputs: str = "y"
    weights: dict[str, Any] = field(default_factory=dict)
    opset: int = 13
    maxima: dict[str, float] = field(default_factory=dict)

    @property
    def network(self) -> onnx.ModelProto:
        return network(self.body, inputs=self.inputs, outputs=self.outputs, weights=self.weights, opset=self.opset)


CASES = [
    Case("Conv, Conv", "t = Conv(x, w0) y = Conv(t, w1)", ["t | y.0 shift", "x | t.0 shift branch"]),
    Case(
        "Conv with padding has no shift",
        "t = Conv(x, w0) y = Conv <pads=[1,1,1,1]> (t, w1)",
        ["t | y.0", "x | t.0 shift branch"],
        weights={"w1": (16, 16, 3, 3)},
    ),
    Case("Relu", "a = Conv(x, w0) b = Relu(a) y = Conv(b, w1)", ["a b | y.0", "x | a.0 shift branch"]),
    Case("LeakyRelu", "a = Conv(x, w0) b = LeakyRelu <alpha=0.1> (a) y = Conv(b, w1)", ["a b | y.0", "x | a.0 shift branch"]),
    Case(
        "PRelu",
        "a = Conv(x, w0) b = PRelu(a, slope) y = Conv(b, w1)",
        ["a b | y.0", "x | a.0 shift branch"],
        weights={"slope": (16, 1, 1)},
    ),
    Case("Sigmoid blocks", "a = Conv(x, w0) b = Sigmoid(a) y = Conv(b, w1)", ["x | a.0 shift branch", "b | y.0 shift branch"]),
    Case(
        "residual chain",
        "a = Conv(x, w0) b = Relu(a) c = Conv(b, w1) d = Add(c, b) e = Relu(d) f = Conv(e, w2) g = Add(e, f) y = Conv(g, w3)",
        ["a b c d e f g | c.0 f.0 y.0", "x | a.0 shift branch"],
    ),
    Case(
        "depthwise",
        "a = Conv(x, w0) b = Relu(a) c = Conv <group=16, pads=[1,1,1,1]> (b, depthwise) d = Relu(c) y = Conv(d, w1)",
        ["a b | c.0", "c d | y.0", "x | a.0 shift branch"],
        weights={"depthwise": DEPTHWISE},
    ),
    Case(
        "grouped Conv",
        "a = Conv <group=4> (x, w0) b = Relu(a) y = Conv <group=2> (b, w1)",
        ["a b | y.0", "x | a.0 shift branch"],
        weights={"w0": (24, 4, 3, 3), "w1": (8, 12, 1, 1)},
    ),
    Case(
        "grouped ConvTranspose",
        "a = ConvTranspose <group=4> (x, w0) b = Relu(a) y = ConvTranspose <group=2> (b, w1)",
        ["a b | y.0", "x | a.0 branch"],
        weights={"w0": (16, 3, 2, 2), "w1": (12, 5, 3, 3)},
    ),
    Case(
        "ReLU6 blocks",
        "a = Conv(x, w0) b = Clip(a, zero, six) y = Conv(b, w1)",
        ["x | a.0 shift branch", "b | y.0 shift branch"],
        weights={"zero": np.float32(0.0), "six": np.float32(6.0)},
    ),
    Case(
        "ReLU6 that is never reached",
        "a = Conv(x, w0) b = Clip(a, zero, hundred) y = Conv(b, w1)",
        ["a b | y.0", "x | a.0 shift branch"],
        weights={"zero": np.float32(0.0), "hundred": np.float32(100.0)},
        maxima={"a": 79.0},
    ),
    Case(
        "ReLU6 that may be reached",
        "a = Conv(x, w0) b = Clip(a, zero, hundred) y = Conv(b, w1)",
        ["x | a.0 shift branch", "b | y.0 shift branch"],
        weights={"zero": np.float32(0.0), "hundred": np.float32(100.0)},
        maxima={"a": 81.0},
    ),
    Case(
        "Clip without upper bound",
        "a = Conv(x, w0) b = Clip(a, zero) y = Conv(b, w1)",
        ["a b | y.0", "x | a.0 shift branch"],
        weights={"zero": np.float32(0.0)},
    ),
    Case(
        "pooling, resizing and padding with zeros",
        """a = Conv(x, w0) b = MaxPool <kernel_shape=[2,2], strides=[2,2]> (a) c = Resize(b, , scales)
        d = Pad(c, pads) e = AveragePool <kernel_shape=[3,3]> (d) f = Pad <mode="reflect"> (e, pads) y = Conv(f, w1)""",
        ["a b c d e f | y.0", "x | a.0 shift branch"],
        weights={"scales": np.array([1.0, 1.0, 2.0, 2.0], np.float32), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
    ),
    Case(
        "Pad with other numbers than zero blocks",
        "a = Conv(x, w0) b = Pad(a, pads, one) y = Conv(b, w1)",
        ["x | a.0 shift branch", "b | y.0 shift branch"],
        weights={"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "one": np.float32(1.0)},
    ),
    Case(
        "Pad of channels in a residual connection",
        "a = Conv(x, w0) b = Pad(a, pads) c = Conv(x, w1) d = Add(b, c) y = Conv(d, w2)",
        ["a b c d | y.0", "b c d | y.0", "x | a.0 c.0 shift branch"],
        weights={"pads": np.array([0, 4, 0, 0, 0, 4, 0, 0]), "w0": (8, 16, 1, 1)},
    ),
    Case(
        "Pad of some axes",
        "a = Conv(x, w0) b = Pad(a, pads, , axes) c = Relu(b) y = Conv(c, w1)",
        ["a b c | y.0", "b c | y.0", "x | a.0 shift branch"],
        weights={"pads": np.array([1, 2, 1, 0]), "axes": np.array([-1, -3]), "w1": (8, 18, 1, 1)},
        opset=18,
    ),
    Case(
        "squeeze-excite",
        "a = Conv(x, w0) b = GlobalAveragePool(a) c = Conv(b, w1) d = Relu(c) e = Conv(d, w2) g = Sigmoid(e) m = Mul(a, g) y = Conv(m, w3)",
        ["a b m | c.0 y.0", "c d | e.0", "x | a.0 shift branch"],
        weights={"w1": (4, 16, 1, 1), "w2": (16, 4, 1, 1)},
    ),
    Case(
        "squeeze-excite with a gate that is not bounded",
        "a = Conv(x, w0) b = ReduceMean <axes=[2, 3]> (a) g = Conv(b, w1) m = Mul(g, a) y = Conv(m, w3)",
        ["a b m | g.0 y.0", "x | a.0 shift branch"],
    ),
    Case(
        "hard-swish with a Div",
        "a = Conv(x, w0) b = Add(a, three) c = Clip(b, zero, six) d = Mul(a, c) e = Div(d, six) y = Conv(e, w1)",
        ["e | y.0", "x | a.0 shift branch"],
        weights={"three": np.float32(3.0), "zero": np.float32(0.0), "six": np.float32(6.0)},
    ),
    Case(
        "swish with a constant",
        "a = Conv(x, w0) b = Mul(a, beta) c = Sigmoid(b) d = Mul(a, c) y = Conv(d, w1)",
        ["a d | y.0", "x | a.0 shift branch"],
        weights={"beta": np.array([1.0], np.float32)},
    ),
    Case(
        "channel shuffle",
        """a = Conv(x, w0) b = Conv(x, w1) c = Concat <axis=1> (a, b) d = Reshape(c, split) e = Transpose <perm=[0,2,1,3,4]> (d)
        f = Reshape(e, joined) g, h = Split <axis=1> (f) i = Conv(g, w2) j = Conv(h, w3) y = Concat <axis=1> (i, j)""",
        [f"{first} c d e f {last} shift" for first in "ab" for last in ("g | i.0", "h | j.0")] + ["x | a.0 b.0 shift branch"],
        weights={"split": np.array([0, 2, 16, 8, 8]), "joined": np.array([0, 32, 8, 8])},
    ),
]
CASES += [
    Case(
        "Concat in front of a Conv",
        "a = Conv(x, w0) b = Relu(a) s = Sigmoid(x) c = Concat <axis=1> (b, s) y = Conv(c, w1)",
        ["a b c | y.0", "x | a.0 shift branch", "c | y.0 shift branch"],
        weights={"w1": (8, 32, 1, 1)},
    ),
    Case(
        "Concat along another axis ties",
        "a = Conv(x, w0) b = Conv(x, w1) c = Concat <axis=2> (a, b) y = Conv(c, w2)",
        ["a b c | y.0 shift", "x | a.0 b.0 shift branch"],
    ),
    Case(
        "Slice and Gather of channels",
        "a = Conv(x, w0) b = Slice(a, one, three, one) c = Gather <axis=1> (a, picked) y = Conv(b, w1) z = Conv(c, w2)",
        ["a b c | y.0 z.0 shift", "x | a.0 shift branch"],
        outputs="y, z",
        weights={"one": np.array([1]), "three": np.array([3]), "picked": np.array([2, 1, 2]), "w1": (8, 2, 1, 1), "w2": (8, 3, 1, 1)},
    ),
    Case(
        "one Gemm's channels after another's",
        "t = Gemm(x, w0) y = Gemm <transB=1> (t, w1)",
        ["t | y.0 shift", "x | t.0 shift branch"],
        inputs="float[N,16] x",
        weights={"w0": (16, 24), "w1": (8, 24)},
    ),
    Case(
        "Gemm of transposed data",
        "t = Gemm(x, w0) u = Transpose <perm=[1,0]> (t) y = Gemm <transA=1> (u, w1)",
        ["t u | y.0 shift", "x | t.0 shift branch"],
        inputs="float[N,16] x",
        weights={"w0": (16, 24), "w1": (24, 8)},
    ),
    Case(
        "pooled, flattened, Gemm",
        "a = Conv(x, w0) b = Relu(a) c = GlobalAveragePool(b) d = Flatten(c) y = Gemm <transB=1> (d, w1, bias)",
        ["a b c d | y.0", "x | a.0 shift branch"],
        weights={"w1": (10, 16), "bias": (10,)},
    ),
    Case(
        "flattened with its positions",
        "a = Conv(x, w0) b = Relu(a) c = Flatten(b) y = Gemm(c, w1)",
        ["a b c | y.0", "x | a.0 shift branch"],
        weights={"w1": (1024, 10)},
    ),
    Case(
        "two readers with one weight",
        "a = Conv(x, w0) b = Conv(a, w) s = Sigmoid(b) c = Conv(s, w) d = Conv(a, w) y = Add(c, d)",
        ["a | b.0 d.0 shift", "x | a.0 shift branch", "s | c.0 shift branch"],
    ),
    Case(
        "a network output",
        "t = Conv(x, w0) y = Conv(t, w1)",
        ["x | t.0 shift branch", "t | y.0 shift branch"],
        outputs="t, y",
    ),
    Case(
        "read by the body of another operator",
        """t = Conv(x, w0) u = Conv(t, w1) y = If (which) <then_branch = g1 () => (float[N,16,8,8] p) { p = Add(t, u) },
        else_branch = g2 () => (float[N,16,8,8] q) { q = Identity(u) }>""",
        ["x | t.0 shift branch", "t | u.0 shift branch"],
        inputs=IMAGE + ", bool which",
    ),
    Case(
        "a weight on the left",
        "t = MatMul(w0, x) y = MatMul(w1, t)",
        ["t | y.1", "x | t.1 branch"],
        inputs="float[N,16,5] x",
        weights={"w0": (24, 16), "w1": (8, 24)},
    ),
    Case(
        "batched weights",
        "t = MatMul(x, w0) y = MatMul(t, w1)",
        ["t | y.0", "x | t.0 branch"],
        inputs="float[3,N,16] x",
        weights={"w0": (3, 16, 24), "w1": (3, 24, 8)},
    ),
    Case(
        "MatMul with and without a bias",
        "t = MatMul(x, w0) u = Add(t, b0) r = Relu(u) v = MatMul(r, w1) w = Sub(v, b1) z = MatMul(w, w2) y = Add(z, b2)",
        ["t u r | v.0", "v w | z.0 shift", "x | t.0 shift branch"],
        inputs=TOKENS,
        weights={"w0": (32, 24), "w1": (24, 20), "w2": (20, 8), "b0": (24,), "b1": (20,), "b2": (8,)},
    ),
    Case(
        "LayerNormalization",
        """t = LayerNormalization(x, gamma, beta) s = Shape(t) a = MatMul(t, w0) b = Add(a, b0)
        c = MatMul(t, w1) d = Add(c, b1) y = Add(b, d)""",
        ["t | a.0 c.0 shift"],
        inputs=TOKENS,
        outputs="y, int64 s",
        weights={**VECTORS, "w0": (32, 8), "w1": (32, 8), "b0": (8,), "b1": (8,)},
        opset=17,
    ),
    Case(
        "LayerNormalization without bias",
        "t = LayerNormalization(x, gamma) a = MatMul(t, w0) y = Add(a, b0)",
        ["t | a.0"],
        inputs=TOKENS,
        weights={**VECTORS, "w0": (32, 8), "b0": (8,)},
        opset=17,
    ),
    Case(
        "LayerNormalization that a residual connection reads too",
        "t = LayerNormalization(x, gamma, beta) a = MatMul(t, w0) b = Add(a, b0) c = Add(t, b) y = LayerNormalization(c, gamma, beta)",
        ["t | a.0 shift branch"],
        inputs=TOKENS,
        weights={**VECTORS, "w0": (32, 32), "b0": (32,)},
        opset=17,
    ),
    Case(
        "LayerNormalization in pieces",
        LAYER_NORM + "a = MatMul(t, w0) y = Add(a, b0)",
        ["scaled t | a.0 shift"],
        inputs=TOKENS,
        weights={**VECTORS, "w0": (32, 8), "b0": (8,)},
    ),
    Case(
        "InstanceNormalization and BatchNormalization",
        """a = Conv(x, w0) b = Relu(a) c = BatchNormalization(b, scale, bias, mean, var) d = InstanceNormalization(c, scale, bias)
        y = Conv(d, w1)""",
        ["d | y.0 shift", "x | a.0 shift branch"],
        weights={"scale": (16,), "bias": (16,), "mean": (16,), "var": np.linspace(0.5, 2.0, 16, dtype=np.float32)},
    ),
    Case(
        "BatchNormalization between weights",
        """a = Conv(x, w0) b = Relu(a) c = BatchNormalization(b, scale, bias, mean, var) d = Conv(b, w1) e = Conv(c, w2) y = Add(d, e)""",
        ["a b | d.0", "c | e.0 shift", "x | a.0 shift branch"],
        weights={"scale": (16,), "bias": (16,), "mean": (16,), "var": np.linspace(0.5, 2.0, 16, dtype=np.float32)},
    ),
]
GELU = {
    "its half last": "d = Div(a, root2) e = Erf(d) f = Add(e, one) g = Mul(a, f) h = Mul(g, half)",
    "its half first": "k = Mul(half, a) d = Div(a, root2) e = Erf(d) f = Add(e, one) h = Mul(k, f)",
    "its half on the gate": "d = Div(a, root2) e = Erf(d) f = Add(e, one) g = Mul(f, half) h = Mul(a, g)",
}
TIED_BY_GELU = {"its half last": "h", "its half first": "k h", "its half on the gate": "m a h"}
CASES += [
    Case(
        f"GELU with {name}",
        f"m = MatMul(x, w0) a = Add(m, b0) {body} y = MatMul(h, w1)",
        [f"{TIED_BY_GELU[name]} | y.0", "x | m.0 shift branch"],
        inputs=TOKENS,
        weights={**ERF, "w0": (32, 64), "b0": (64,), "w1": (64, 8)},
    )
    for name, body in GELU.items()
]
PROJECTION = {"wq": (32, 32), "wk": (32, 32), "wv": (32, 32), "wo": (32, 8), "bv": (32,), **HEADS}
CASES += [
    Case(
        "attention",
        """q0 = MatMul(x, wq) q1 = Reshape(q0, heads) q = Transpose <perm=[0,2,1,3]> (q1)
        k0 = MatMul(x, wk) k1 = Reshape(k0, heads) k = Transpose <perm=[0,2,3,1]> (k1)
        v0 = MatMul(x, wv) v1 = Add(v0, bv) v2 = Reshape(v1, heads) v = Transpose <perm=[0,2,1,3]> (v2)
        scores = MatMul(q, k) probabilities = Softmax(scores) o0 = MatMul(probabilities, v)
        o1 = Transpose <perm=[0,2,1,3]> (o0) o2 = Reshape(o1, merged) y = MatMul(o2, wo)""",
        ["v0 v1 v2 v o0 o1 o2 | y.0", "x | q0.0 k0.0 v0.0 branch"],
        inputs=TOKENS,
        weights=PROJECTION,
    ),
    Case(
        "attention with a joint projection",
        """m = MatMul(x, wqkv) a = Add(m, b) r = Reshape(a, split) t = Transpose <perm=[2,0,3,1,4]> (r)
        q, k0, v = Split(t) k = Transpose <perm=[0,1,2,4,3]> (k0)
        scores = MatMul(q, k) probabilities = Softmax(scores) o0 = MatMul(probabilities, v)
        o1 = Squeeze(o0, first) o2 = Transpose <perm=[0,2,1,3]> (o1) o3 = Reshape(o2, merged) y = MatMul(o3, wo)""",
        ["m a r t v o0 o1 o2 o3 | y.0", "x | m.0 shift branch"],
        inputs=TOKENS,
        weights={**PROJECTION, "wqkv": (32, 96), "b": (96,), "split": np.array([0, 0, 3, 4, 8]), "first": np.array([0])},
    ),
]
CASES += [
    Case(
        "a bias for each row",
        "t = Gemm(x, w0, rows) y = Gemm(t, w1)",
        ["t | y.0", "x | t.0 branch"],
        inputs="float[4,16] x",
        weights={"w0": (16, 24), "w1": (24, 8), "rows": (4, 24)},
    ),
    Case(
        "a computed bias",
        "s = Sigmoid(b) t = Conv(x, w0, s) y = Conv(t, w1)",
        ["x | t.0 branch", "t | y.0 shift branch"],
        inputs=IMAGE + ", float[16] b",
    ),
    Case(
        "computed weights",
        "s = Sigmoid(k) t = Conv(x, w0) y = Conv(t, s)",
        ["x | t.0 shift branch"],
        inputs=IMAGE + ", float[8,16,1,1] k",
    ),
    Case(
        "signs, and a constant from which is subtracted",
        "a = Conv(x, w0) n = Neg(a) b = Abs(n) c = Sub(two, b) d = Transpose <perm=[0,2,3,1]> (c) e = MatMul(d, w1) y = Add(e, b1)",
        ["a n b c d | e.0 shift", "x | a.0 shift branch"],
        weights={"two": np.float32(2.0), "w1": (16, 8), "b1": (8,)},
    ),
    Case(
        "a computed divisor, and a constant that is divided",
        "a = Conv(x, w0) s = Sigmoid(x) b = Div(a, s) c = Div(two, b) d = Conv(b, w1) e = Conv(c, w2) y = Add(d, e)",
        ["x | a.0 shift branch", "b | d.0 shift branch", "c | e.0 shift branch"],
        weights={"two": np.float32(2.0)},
    ),
    Case(
        "a computed divisor",
        "a = Conv(x, w0) s = Sigmoid(x) b = Div(a, s) y = Conv(b, w1)",
        ["a b | y.0", "x | a.0 shift branch"],
    ),
    Case(
        "a square",
        "a = Conv(x, w0) b = Mul(a, a) y = Conv(b, w1)",
        ["x | a.0 shift branch", "b | y.0 shift branch"],
    ),
    Case(
        "probabilities on the right",
        "a = MatMul(w0, x) s = Softmax(p) b = MatMul(a, s) y = MatMul(w1, b)",
        ["a b | y.1", "x | a.1 branch"],
        inputs="float[N,16,5] x, float[N,5,5] p",
        weights={"w0": (24, 16), "w1": (8, 24)},
    ),
    Case(
        "reductions with and without the axes that are reduced",
        """a = Conv(x, w0) b = ReduceMax <axes=[3], keepdims=0> (a) c = ReduceL2 <axes=[-1]> (b) d = Squeeze(c, last) e = Unsqueeze(d, last)
        f = Expand(e, shape) y = Conv(f, w1)""",
        ["a b c d e f | y.0", "x | a.0 shift branch"],
        weights={"last": np.array([2]), "shape": np.array([1, 1, 7]), "w1": (8, 16, 1)},
    ),
    Case(
        "slices that are not known before",
        """a = Conv(x, w0) sizes = Shape(a) height = Slice(sizes, two, three) last = Sub(height, one)
        b = Slice(a, zero, height, two) c = Gather <axis=2> (b, last) y = Conv(c, w1)""",
        ["a b c | y.0 shift", "x | a.0 shift branch"],
        inputs="float[N,16,H,8] x",
        weights={name: np.array([value]) for value, name in enumerate(("zero", "one", "two", "three"))},
    ),
    Case(
        "channels backwards",
        "a = Conv(x, w0) b = Slice(a, last, before_first, channels, back) y = Conv(b, w1)",
        ["a b | y.0 shift", "x | a.0 shift branch"],
        weights={"last": np.array([-1]), "before_first": np.array([-17]), "channels": np.array([1]), "back": np.array([-1])},
    ),
    Case(
        "half precision stays",
        "h = Cast <to=10> (x) a = Conv(h, w0) b = Conv(a, w1) y = Cast <to=1> (b)",
        [],
        weights={"w0": np.zeros((16, 16, 1, 1), np.float16), "w1": np.zeros((16, 16, 1, 1), np.float16)},
    ),
    Case(
        "an operator of another domain",
        "a = Conv(x, w0) b = com.microsoft.Gelu(a) y = Conv(b, w1)",
        ["x | a.0 shift branch", "b | y.0 shift branch"],
    ),
]
NAMED = {case.name: case for case in CASES}


def told(scalable: Scalable) -> str:
    """Return what was found as a Case tells it."""
    flags = (" shift" if scalable.shiftable else "") + ("" if scalable.free else " branch")
    return f"{' '.join(scalable.tensors)} | {' '.join(f'{reader.node}.{reader.input}' for reader in scalable.readers)}{flags}"


def prepared(model: onnx.ModelProto, maxima: dict[str, float] | None = None) -> tuple[ir.Model, tuple[Scalable, ...]]:
    """Return the prepared network, and what can be scaled in it."""
    plain = load(model, min_opset=13)
    prepare(plain)
    return plain, find_scalable(plain, capture_facts(plain, feed(model)), maxima or {})
