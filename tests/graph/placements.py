"""Networks, and for each where every target wants its pairs: which tensors take one, who reads it, and what stays in float."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from tests.graph.networks import network


@dataclass(frozen=True, kw_only=True)
class Expected:
    """pairs: per tensor, the node inputs that read it through a pair. together: tensors that share one scale.

    notes: per node, words of the reason for which it stays in float.
    """

    pairs: Mapping[str, str]
    together: Sequence[str] = ()
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network and what is expected of it; where a table says nothing of OpenVINO, it wants what TensorRT wants."""

    name: str
    network: onnx.ModelProto
    tensorrt: Expected
    onnxruntime: Expected
    openvino: Expected | None = None

    def expected(self, target: str) -> Expected:
        if target == "openvino":
            return self.openvino or self.tensorrt
        return self.tensorrt if target == "tensorrt" else self.onnxruntime


CHANNELS = 16
ONES = np.ones(CHANNELS, np.float32)
HALVES = np.array([4, 4])
WIDE = (CHANNELS, 2 * CHANNELS, 1, 1)
OUTPUT = "it computes a network output"
NOT_ALL = "not all of its inputs come from integer kernels"
NONE = "none of its inputs comes from an integer kernel"
NO_CONVOLUTION = "none of its inputs comes from an integer convolution that nothing else reads"
OTHER_SHAPE = "no convolution adds a tensor of another shape than its own"
FLOAT_INPUT = "its input comes from no integer kernel"
FROM_ZERO = "it fuses on onnxruntime"
IN_A_BODY = "the body of another operator reads its result in float"
FLAG = "float[1,16,8,8] x, bool flag"

CASES = [
    # --- what fuses into a convolution -------------------------------------------------------------------------------------
    Case(
        name="Conv-BatchNormalization-Relu",
        network=network(
            "a = Conv(x, w1) n = BatchNormalization(a, g, h, m, v) r = Relu(n) c = Conv(r, w2) y = Softmax(c)",
            weights=dict.fromkeys("ghmv", ONES),
        ),
        tensorrt=Expected(pairs={"x": "a.0", "r": "c.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "r": "c.0", "c": "y.0"}),
    ),
    Case(
        name="Clip",
        network=network(
            "a = Conv(x, w1) r = Clip(a, lo, hi) c = Conv(r, w2) y = Softmax(c)", weights={"lo": np.float32(0.0), "hi": np.float32(6.0)}
        ),
        tensorrt=Expected(pairs={"x": "a.0", "r": "c.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "r": "c.0", "c": "y.0"}),
    ),
    *(
        Case(
            name=f"Clip {what}",  # rounding the zero point would move the codes past such a bound
            network=network(
                f"a = Conv(x, w1) r = Clip({bounds}) c = Conv(r, w2) y = Softmax(c)",
                weights={"lo": np.float32(-1.0), "hi": np.float32(1.0)},
            ),
            tensorrt=Expected(pairs={"x": "a.0", "r": "c.0"}),
            onnxruntime=Expected(pairs={"x": "a.0", "a": "r.0", "r": "c.0", "c": "y.0"}, notes={"r": FROM_ZERO}),
        )
        for what, bounds in (("to a range around 0", "a, lo, hi"), ("from below alone", "a, lo"), ("from above alone", "a, , hi"))
    ),
    *(
        Case(
            name=f"Clip {what}",
            network=network(f"a = Conv(x, w1) r = Clip({bounds}) c = Conv(r, w2) y = Softmax(c)", weights={"lo": np.float32(0.0)}),
            tensorrt=Expected(pairs={"x": "a.0", "r": "c.0"}),
            onnxruntime=Expected(pairs={"x": "a.0", "r": "c.0", "c": "y.0"}),
        )
        for what, bounds in (("at 0", "a, lo"), ("without bounds", "a"))
    ),
    Case(
        name="Clip to a computed bound",
        network=network(
            "a = Conv(x, w1) m = ReduceMax <keepdims=0> (x) r = Clip(a, lo, m) c = Conv(r, w2) y = Softmax(c)",
            weights={"lo": np.float32(0.0)},
        ),
        tensorrt=Expected(pairs={"x": "a.0", "r": "c.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "r.0", "r": "c.0", "c": "y.0"}, notes={"r": FROM_ZERO}),
    ),
    Case(
        name="HardSwish",  # ONNX Runtime's convolution does not take it in
        network=network("a = Conv(x, w1) r = HardSwish(a) c = Conv(r, w2) y = Softmax(c)", opset=14),
        tensorrt=Expected(pairs={"x": "a.0", "r": "c.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "r.0", "r": "c.0", "c": "y.0"}),
    ),
    Case(
        name="LeakyRelu",  # ONNX Runtime has an integer kernel of its own for it
        network=network("a = Conv(x, w1) r = LeakyRelu(a) c = Conv(r, w2) y = Softmax(c)"),
        tensorrt=Expected(pairs={"x": "a.0", "r": "c.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "r.0", "r": "c.0", "c": "y.0"}),
    ),
    Case(
        name="SiLU",
        network=network("a = Conv(x, w1) s = Sigmoid(a) m = Mul(a, s) c = Conv(m, w2) y = Softmax(c)"),
        tensorrt=Expected(pairs={"x": "a.0", "m": "c.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "s.0 m.0", "s": "m.1", "m": "c.0", "c": "y.0"}),
    ),
    Case(
        name="Relu beside another reader",  # what two nodes read does not fuse into either
        network=network("a = Conv(x, w1) r = Relu(a) t = Tanh(a) c = Conv(r, w2) d = Conv(t, w3) s = Sum(c, d) y = Softmax(s)"),
        tensorrt=Expected(pairs={"x": "a.0", "r": "c.0", "t": "d.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "r.0 t.0", "r": "c.0", "t": "d.0", "c": "s.0", "d": "s.1"}),
    ),
    # --- residual connections ----------------------------------------------------------------------------------------------
    Case(
        name="residual Add with the identity",
        network=network("a = Conv(x, w1) r = Relu(a) b = Conv(r, w2) d = Add(b, r) s = Relu(d) e = Conv(s, w3) y = Softmax(e)"),
        tensorrt=Expected(pairs={"x": "a.0", "r": "b.0 d.1", "s": "e.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "r": "b.0 d.1", "b": "d.0", "s": "e.0", "e": "y.0"}),
    ),
    Case(
        name="residual Add with the identity on the left",
        network=network("a = Conv(x, w1) r = Relu(a) b = Conv(r, w2) d = Add(r, b) s = Relu(d) e = Conv(s, w3) y = Softmax(e)"),
        tensorrt=Expected(pairs={"x": "a.0", "r": "b.0 d.0", "s": "e.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "r": "b.0 d.0", "b": "d.1", "s": "e.0", "e": "y.0"}),
    ),
    Case(
        name="residual Add with a downsample branch",  # the deeper branch takes the Add in
        network=network(
            "r = Conv(x, w1) b = Conv(r, w2) q = Relu(b) c = Conv(q, w3) k = Conv(r, w5) d = Add(k, c) s = Relu(d) e = Conv(s, w4) "
            "y = Softmax(e)"
        ),
        tensorrt=Expected(pairs={"x": "r.0", "r": "b.0 k.0", "q": "c.0", "k": "d.0", "s": "e.0"}),
        onnxruntime=Expected(pairs={"x": "r.0", "r": "b.0 k.0", "q": "c.0", "k": "d.0", "c": "d.1", "s": "e.0", "e": "y.0"}),
    ),
    Case(
        name="residual Add with the network's input",
        network=network("a = Conv(x, w1) d = Add(a, x) y = Softmax(d)"),
        tensorrt=Expected(pairs={"x": "a.0 d.1"}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "d.0"}, notes={"d": NOT_ALL}),
    ),
    Case(
        name="Add of a convolution that is an output too",  # which cannot take the Add in
        network=network("a = Conv(x, w1) d = Add(a, x) c = Conv(d, w2) y = Softmax(c)", outputs="y, a"),
        tensorrt=Expected(pairs={"x": "a.0", "d": "c.0"}, notes={"d": NO_CONVOLUTION}),
        onnxruntime=Expected(pairs={"d": "c.0", "c": "y.0"}, notes={"a": OUTPUT, "d": NONE}),
    ),
    Case(
        name="Add of a convolution that others read too",
        network=network("a = Conv(x, w1) d = Add(a, x) e = Conv(a, w2) s = Sum(d, e) y = Softmax(s)"),
        tensorrt=Expected(pairs={"x": "a.0", "a": "e.0"}, notes={"d": NO_CONVOLUTION}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "d.0 e.0", "e": "s.1"}, notes={"d": NOT_ALL}),
    ),
    Case(
        name="Add of a tensor to itself",
        network=network("a = Conv(x, w1) d = Add(a, a) y = Softmax(d)"),
        tensorrt=Expected(pairs={"x": "a.0"}, notes={"d": NO_CONVOLUTION}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "d.0 d.1", "d": "y.0"}),
    ),
    Case(
        name="Add of a constant",
        network=network("a = Conv(x, w1) r = Relu(a) d = Add(r, t) c = Conv(d, w2) y = Softmax(c)", weights={"t": (1, 16, 8, 8)}),
        tensorrt=Expected(pairs={"x": "a.0", "d": "c.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "r": "d.0", "d": "c.0", "c": "y.0"}, notes={"d": NOT_ALL}),
    ),
    Case(
        name="Add that broadcasts",  # which no convolution takes in
        network=network("a = Conv(x, w1) p = GlobalAveragePool(a) e = Conv(p, w2) b = Conv(x, w3) d = Add(b, e) y = Softmax(d)"),
        tensorrt=Expected(pairs={"x": "a.0 b.0", "a": "p.0", "p": "e.0"}, notes={"d": OTHER_SHAPE}),
        onnxruntime=Expected(pairs={"x": "a.0 b.0", "a": "p.0", "p": "e.0", "b": "d.0", "e": "d.1", "d": "y.0"}),
    ),
    Case(
        name="Add of a constant to a convolution",
        network=network("a = Conv(x, w1) d = Add(a, t) c = Conv(d, w2) y = Softmax(c)", weights={"t": (1, 16, 8, 8)}),
        tensorrt=Expected(pairs={"x": "a.0", "d": "c.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "d.0", "d": "c.0", "c": "y.0"}, notes={"d": NOT_ALL}),
    ),
    Case(
        name="Add as the network's output",
        network=network("a = Conv(x, w1) b = Conv(a, w2) y = Add(b, a)"),
        tensorrt=Expected(pairs={"x": "a.0", "a": "b.0 y.1"}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "b.0 y.1", "b": "y.0"}, notes={"y": OUTPUT}),
    ),
    # --- operators that only move values -----------------------------------------------------------------------------------
    Case(
        name="Concat between MaxPool and Transpose",
        network=network(
            "a = Conv(x, w1) b = Conv(x, w2) p = MaxPool <kernel_shape=[1,1]> (b) k = Concat <axis=1> (a, p) "
            "t = Transpose <perm=[0,1,3,2]> (k) c = Conv(t, w3) y = Softmax(c)",
            weights={"w3": WIDE},
        ),
        tensorrt=Expected(pairs={"x": "a.0 b.0", "t": "c.0"}),
        onnxruntime=Expected(
            pairs={"x": "a.0 b.0", "a": "k.0", "b": "p.0", "p": "k.1", "k": "t.0", "t": "c.0", "c": "y.0"}, together=("b p", "k t")
        ),
    ),
    Case(
        name="Concat of tensors with other readers",  # one scale for both inputs and the output
        network=network(
            "a = Conv(x, w1) b = Conv(x, w2) c = Conv(a, w3) p = MaxPool <kernel_shape=[1,1]> (b) f = Reshape(p, shape) "
            "k = Concat <axis=1> (a, f) d = Conv(k, w4) e = Conv(p, w5) s = Sum(c, d, e) y = Softmax(s)",
            weights={"w4": WIDE, "shape": np.array([1, 16, 8, 8])},
        ),
        tensorrt=Expected(pairs={"x": "a.0 b.0", "a": "c.0", "p": "e.0", "k": "d.0"}, together=("a k p",)),
        onnxruntime=Expected(
            pairs={
                "x": "a.0 b.0",
                "a": "c.0 k.0",
                "b": "p.0",
                "p": "f.0 e.0",
                "f": "k.1",
                "k": "d.0",
                "c": "s.0",
                "d": "s.1",
                "e": "s.2",
            },
            together=("b f p",),
        ),
    ),
    Case(
        name="Concat with a float",
        network=network(
            "a = Conv(x, w1) t = Softmax(a) k = Concat <axis=1> (a, t) c = Conv(k, w3) y = Softmax(c)",
            weights={"w3": WIDE},
        ),
        tensorrt=Expected(pairs={"x": "a.0", "k": "c.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "t.0 k.0", "k": "c.0", "c": "y.0"}, notes={"k": NOT_ALL}),
    ),
    Case(
        name="MaxPool",
        network=network("a = Conv(x, w1) p = MaxPool <kernel_shape=[2,2]> (a) c = Conv(p, w2) y = Softmax(c)"),
        tensorrt=Expected(pairs={"x": "a.0", "p": "c.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "p.0", "p": "c.0", "c": "y.0"}, together=("a p",)),
    ),
    Case(
        name="MaxPool with indices",  # which are integers already
        network=network(
            "a = Conv(x, w1) p, i = MaxPool <kernel_shape=[2,2], strides=[2,2]> (a) c = Conv(p, w2) "
            "y = MaxUnpool <kernel_shape=[2,2], strides=[2,2]> (c, i)"
        ),
        tensorrt=Expected(pairs={"x": "a.0", "p": "c.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "p.0", "p": "c.0", "c": "y.0"}, together=("a p",)),
    ),
    Case(
        name="MaxPool of the input",
        network=network(
            "p = MaxPool <kernel_shape=[2,2]> (x) a = Conv(p, w1) c = Conv(x, w2) y = Softmax(c) z = Softmax(a)", outputs="y, z"
        ),
        tensorrt=Expected(pairs={"x": "c.0", "p": "a.0"}, together=("p x",)),
        onnxruntime=Expected(pairs={"x": "c.0", "p": "a.0", "a": "z.0", "c": "y.0"}, together=("p x",)),
    ),
    Case(
        name="Slice, Transpose and Reshape",
        network=network(
            "a = Conv(x, w1) s = Slice(a, begin, end) t = Transpose <perm=[0,1,3,2]> (s) r = Reshape(t, shape) c = Conv(r, w2) "
            "y = Softmax(c)",
            weights={"begin": np.array([0, 0, 0, 0]), "end": np.array([1, 16, 4, 8]), "shape": np.array([1, 16, 4, 8])},
        ),
        tensorrt=Expected(pairs={"x": "a.0", "r": "c.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "s.0", "s": "t.0", "t": "r.0", "r": "c.0", "c": "y.0"}, together=("a r s t",)),
    ),
    Case(
        name="Split",
        network=network(
            "a = Conv(x, w1) l, r = Split <axis=2> (a, parts) c = Conv(l, w2) d = Conv(r, w3) s = Sum(c, d) y = Softmax(s)",
            weights={"parts": HALVES},
        ),
        tensorrt=Expected(pairs={"x": "a.0", "l": "c.0", "r": "d.0"}),
        onnxruntime=Expected(
            pairs={"x": "a.0", "a": "l.0", "l": "c.0", "r": "d.0", "c": "s.0", "d": "s.1"},
            together=("a l r",),
        ),
    ),
    Case(
        name="Split with a part that nobody reads",
        network=network("a = Conv(x, w1) l, r = Split <axis=2> (a, parts) c = Conv(l, w2) y = Softmax(c)", weights={"parts": HALVES}),
        tensorrt=Expected(pairs={"x": "a.0", "l": "c.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "l.0", "l": "c.0", "c": "y.0"}, together=("a l",)),
    ),
    Case(
        name="Split with a part that is an output",
        network=network(
            "a = Conv(x, w1) l, r = Split <axis=2> (a, parts) c = Conv(l, w2) y = Softmax(c)", weights={"parts": HALVES}, outputs="y, r"
        ),
        tensorrt=Expected(pairs={"x": "a.0", "l": "c.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "l.0", "l": "c.0", "c": "y.0"}, together=("a l",)),
    ),
    Case(
        name="Pad by reflection",
        network=network(
            'a = Conv(x, w1) p = Pad <mode="reflect"> (a, amounts) c = Conv(p, w2) y = Softmax(c)',
            weights={"amounts": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        ),
        tensorrt=Expected(pairs={"x": "a.0", "p": "c.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "p.0", "p": "c.0", "c": "y.0"}),
    ),
    *(
        Case(
            name=f"Resize, {mode}",
            network=network(
                f'a = Conv(x, w1) u = Resize <mode="{mode}"> (a, , scales) c = Conv(u, w2) y = Softmax(c)',
                weights={"scales": np.array([1, 1, 2, 2], np.float32)},
            ),
            tensorrt=Expected(pairs={"x": "a.0", "u": "c.0"}),
            onnxruntime=Expected(pairs={"x": "a.0", "a": "u.0", "u": "c.0", "c": "y.0"}, together=together),
        )
        for mode, together in (("nearest", ("a u",)), ("linear", ()))
    ),
    Case(
        name="MatMul before Reshape and Transpose",  # it can write codes, and does where that lets others pass them on
        network=network(
            "a = MatMul(x, w1) r = Reshape(a, shape) t = Transpose <perm=[1,0,2]> (r) s = MatMul(t, w2) y = Softmax(s)",
            inputs="float[4,16] x",
            weights={"w1": (16, 32), "w2": (16, 16), "shape": np.array([4, 2, 16])},
        ),
        tensorrt=Expected(pairs={"x": "a.0", "t": "s.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "r.0", "r": "t.0", "t": "s.0"}, together=("a r t",)),
    ),
    # --- pools and heads ---------------------------------------------------------------------------------------------------
    Case(
        name="AveragePool",  # no operator that only moves values: its output has a scale of its own
        network=network("a = Conv(x, w1) p = AveragePool <kernel_shape=[2,2]> (a) c = Conv(p, w2) y = Softmax(c)"),
        tensorrt=Expected(pairs={"x": "a.0", "a": "p.0", "p": "c.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "p.0", "p": "c.0", "c": "y.0"}),
    ),
    Case(
        name="AveragePool of the input",
        network=network("p = AveragePool <kernel_shape=[2,2]> (x) c = Conv(p, w2) y = Softmax(c)"),
        tensorrt=Expected(pairs={"p": "c.0"}, notes={"p": FLOAT_INPUT}),
        onnxruntime=Expected(pairs={"p": "c.0", "c": "y.0"}, notes={"p": NONE}),
    ),
    Case(
        name="GlobalAveragePool, Flatten and Gemm",
        network=network(
            "a = Conv(x, w1) r = Relu(a) p = GlobalAveragePool(r) f = Flatten(p) y = Gemm <transB=1> (f, w2, b2)",
            weights={"w2": (20, 16), "b2": (20,)},
        ),
        tensorrt=Expected(pairs={"x": "a.0", "r": "p.0", "f": "y.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "r": "p.0", "p": "f.0", "f": "y.0"}, together=("f p",)),
    ),
    # --- what stays in float -----------------------------------------------------------------------------------------------
    Case(
        name="Softmax",
        network=network("a = Conv(x, w1) s = Softmax(a) c = Conv(s, w2) y = Softmax(c)"),
        tensorrt=Expected(pairs={"x": "a.0", "s": "c.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "s.0", "s": "c.0", "c": "y.0"}),
    ),
    Case(
        name="LayerNormalization behind a MatMul",
        network=network(
            "a = MatMul(x, w1) n = LayerNormalization(a, g) c = MatMul(n, w2) y = Softmax(c)",
            inputs="float[4,16] x",
            weights={"w1": (16, 16), "w2": (16, 16), "g": ONES},
            opset=17,
        ),
        tensorrt=Expected(pairs={"x": "a.0", "n": "c.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "n": "c.0"}),
    ),
    Case(
        name="attention",  # products of activations are quantized on both sides, and Softmax is not
        network=network(
            "q = MatMul(x, wq) k = MatMul(x, wk) t = Transpose <perm=[0,2,1]> (k) s = MatMul(q, t) p = Softmax(s) v = MatMul(p, x) "
            "o = MatMul(v, wo) y = Add(o, x)",
            inputs="float[2,16,16] x",
            weights=dict.fromkeys(("wq", "wk", "wo"), (16, 16)),
        ),
        tensorrt=Expected(pairs={"x": "q.0 k.0 v.1", "q": "s.0", "t": "s.1", "p": "v.0", "v": "o.0"}, notes={"y": NO_CONVOLUTION}),
        onnxruntime=Expected(
            pairs={"x": "q.0 k.0 v.1", "q": "s.0", "k": "t.0", "t": "s.1", "p": "v.0", "v": "o.0"},
            together=("k t",),
            notes={"y": NOT_ALL},
        ),
    ),
    Case(
        name="Gemm, Relu and Gemm",
        network=network(
            "a = Gemm <transB=1> (x, w1, b1) r = Relu(a) c = Gemm(r, w2, b2) y = Relu(c)",
            inputs="float[4,16] x",
            weights={"w1": (32, 16), "b1": (32,), "w2": (32, 20), "b2": (20,)},
        ),
        tensorrt=Expected(pairs={"x": "a.0", "r": "c.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "r": "c.0"}),
    ),
    Case(
        name="a tensor with a float reader",  # TensorRT lets that one have the float, ONNX Runtime has the codes only
        network=network("a = Conv(x, w1) e = Erf(a) c = Conv(a, w2) s = Sum(e, c) y = Softmax(s)"),
        tensorrt=Expected(pairs={"x": "a.0", "a": "c.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "e.0 c.0", "c": "s.1"}),
    ),
    Case(
        name="an input with a float reader",
        network=network("a = Conv(x, w1) e = Erf(x) s = Sum(a, e) y = Softmax(s)"),
        tensorrt=Expected(pairs={"x": "a.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "s.0"}),
    ),
    Case(
        name="Mul by a constant",
        network=network("a = Conv(x, w1) r = Relu(a) m = Mul(r, k) c = Conv(m, w2) y = Softmax(c)", weights={"k": (1, 16, 8, 8)}),
        tensorrt=Expected(pairs={"x": "a.0", "m": "c.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "r": "m.0", "m": "c.0", "c": "y.0"}, notes={"m": NOT_ALL}),
    ),
    Case(
        name="MatMul before an Add of a matrix",  # ONNX Runtime makes a float Gemm of the two, unless a pair stands between them
        network=network("a = MatMul(x, w1) y = Add(a, t)", inputs="float[4,16] x", weights={"w1": (16, 16), "t": (4, 16)}),
        tensorrt=Expected(pairs={"x": "a.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "y.0"}, notes={"y": NOT_ALL}),
    ),
    Case(
        name="MatMul that is an output before an Add of a matrix",
        network=network("a = MatMul(x, w1) y = Add(a, t)", inputs="float[4,16] x", weights={"w1": (16, 16), "t": (4, 16)}, outputs="y, a"),
        tensorrt=Expected(pairs={"x": "a.0"}),
        onnxruntime=Expected(pairs={"x": "a.0"}, notes={"y": NOT_ALL}),
    ),
    Case(
        name="Add of indices",  # which was never meant for codes
        network=network(
            "s = Shape(x) d = Add(s, s) h = Div(d, two) e = Reshape(x, h) a = Conv(e, w1) y = Softmax(a)",
            weights={"two": np.array([2])},
            inputs="float[1,16,N,8] x",
        ),
        tensorrt=Expected(pairs={"e": "a.0"}),
        onnxruntime=Expected(pairs={"e": "a.0", "a": "y.0"}),
    ),
    # --- outputs -----------------------------------------------------------------------------------------------------------
    Case(
        name="a single Conv",
        network=network("y = Conv(x, w1)"),
        tensorrt=Expected(pairs={"x": "y.0"}),
        onnxruntime=Expected(pairs={}, notes={"y": OUTPUT}),
    ),
    Case(
        name="Conv and Relu as the output",
        network=network("a = Conv(x, w1) y = Relu(a)"),
        tensorrt=Expected(pairs={"x": "a.0"}),
        onnxruntime=Expected(pairs={}, notes={"a": OUTPUT}),
    ),
    Case(
        name="an output that moves codes",
        network=network("a = Conv(x, w1) y = Flatten(a)"),
        tensorrt=Expected(pairs={"x": "a.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "y.0"}),
    ),
    Case(
        name="an output that moves floats",  # MatMul may write either
        network=network("a = MatMul(x, w1) y = Flatten(a)", inputs="float[4,16] x", weights={"w1": (16, 16)}),
        tensorrt=Expected(pairs={"x": "a.0"}),
        onnxruntime=Expected(pairs={"x": "a.0"}),
    ),
    Case(
        name="an output that others read",
        network=network("a = Conv(x, w1) y = Relu(a) c = Conv(y, w2) z = Softmax(c)", outputs="y, z"),
        tensorrt=Expected(pairs={"x": "a.0", "y": "c.0"}),
        onnxruntime=Expected(pairs={"y": "c.0", "c": "z.0"}, notes={"a": OUTPUT}),
    ),
    # --- operators of other kinds ------------------------------------------------------------------------------------------
    Case(
        name="operators of another domain",
        network=network('a = com.microsoft.FusedConv <activation="Relu"> (x, w1) g = com.microsoft.Gelu(a) c = Conv(g, w2) y = Softmax(c)'),
        tensorrt=Expected(pairs={"g": "c.0"}),
        onnxruntime=Expected(pairs={"g": "c.0", "c": "y.0"}),
    ),
    *(
        Case(
            name=op_type,
            network=network(
                f"y = {op_type} <hidden_size=8> (x, w, r)",
                inputs="float[3,2,16] x",
                weights={"w": (1, 8 * gates, 16), "r": (1, 8 * gates, 8)},
            ),
            tensorrt=Expected(pairs={}, notes={"y": "tensorrt has no integer kernel for it"}),
            openvino=Expected(pairs={}, notes={"y": "openvino has no integer kernel for it"}),
            onnxruntime=Expected(pairs={}, notes={"y": "has no integer kernel for it"}),
        )
        for op_type, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1))
    ),
    Case(
        name="If that reads what is quantized",  # bodies stay as they are, and read floats
        network=network(
            "a = Conv(x, w1) r = Relu(a) c = Conv(r, w2) d = Conv(r, w4) s = Softmax(d) "
            "y = If (flag) <then_branch = one () => (float[1,16,8,8] t) { t = Conv(r, w3) }, "
            "else_branch = two () => (float[1,16,8,8] e) { e = Add(c, s) }>",
            inputs=FLAG,
        ),
        tensorrt=Expected(pairs={"x": "a.0", "r": "c.0 d.0"}),
        onnxruntime=Expected(pairs={"r": "d.0", "d": "s.0"}, notes={"a": IN_A_BODY, "c": IN_A_BODY}),
    ),
    Case(
        name="If that reads what moved",  # a body sees the float before the pair
        network=network(
            "a = Conv(x, w1) p = MaxPool <kernel_shape=[1,1]> (a) c = Conv(p, w2) s = Softmax(c) "
            "y = If (flag) <then_branch = one () => (float[1,16,8,8] t) { t = Relu(p) }, "
            "else_branch = two () => (float[1,16,8,8] e) { e = Relu(s) }>",
            inputs=FLAG,
        ),
        tensorrt=Expected(pairs={"x": "a.0", "p": "c.0"}),
        onnxruntime=Expected(pairs={"x": "a.0", "a": "p.0", "p": "c.0", "c": "s.0"}, together=("a p",)),
    ),
    Case(
        name="If with the activation of a convolution",
        network=network(
            "a = Conv(x, w1) y = If (flag) <then_branch = one () => (float[1,16,8,8] t) { u = Relu(a) t = Neg(u) }, "
            "else_branch = two () => (float[1,16,8,8] e) { e = Relu(x) }>",
            inputs=FLAG,
        ),
        tensorrt=Expected(pairs={"x": "a.0"}),
        onnxruntime=Expected(pairs={}, notes={"a": IN_A_BODY}),
    ),
]
