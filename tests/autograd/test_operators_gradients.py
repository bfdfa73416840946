"""Gradients of operators against finite differences, and that usual layers are one function of torch's each."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from tests.autograd.graphs import call, node
from torch.utils._python_dispatch import TorchDispatchMode

from zeropoint.autograd.operators import bound


def ints(*values: int) -> Any:
    return torch.tensor(values, dtype=torch.int64)


# Operator, shapes of the differentiable inputs, the other inputs, attributes.
GRADIENTS: dict[str, tuple[str, list[tuple[int, ...]], list[Any], dict[str, Any]]] = {
    "convolution": ("Conv", [(2, 4, 5), (6, 2, 3), (6,)], [], {"group": 2, "pads": [1, 1]}),
    "convolution with pads that differ": ("Conv", [(1, 2, 4, 4), (2, 2, 3, 2)], [], {"pads": [0, 1, 1, 0], "strides": [2, 1]}),
    "same convolution": ("Conv", [(1, 1, 5, 5), (1, 1, 2, 2)], [], {"auto_pad": "SAME_UPPER"}),
    "transposed convolution": ("ConvTranspose", [(1, 2, 3), (2, 2, 3), (2,)], [], {"strides": [2], "pads": [1, 1], "output_padding": [1]}),
    "transposed convolution, cut unevenly": ("ConvTranspose", [(1, 2, 3), (2, 2, 3), (2,)], [], {"strides": [2], "pads": [0, 2]}),
    "transposed convolution to a shape": ("ConvTranspose", [(1, 1, 3, 3), (1, 2, 2, 2), (2,)], [], {"output_shape": [6, 5]}),
    "matrix product": ("MatMul", [(2, 3, 4), (4, 2)], [], {}),
    "linear layer": ("Gemm", [(3, 4), (2, 4), (2,)], [], {"transB": 1}),
    "scaled sum of a product": ("Gemm", [(4, 3), (4, 2), (3, 1)], [], {"transA": 1, "alpha": 0.5, "beta": 2.0}),
    "einsum": ("Einsum", [(2, 3, 4), (2, 5, 4)], [], {"equation": "bij,bkj->bik"}),
    "gelu": ("Gelu", [(5,)], [], {}),
    "gelu by tanh": ("Gelu", [(5,)], [], {"approximate": "tanh"}),
    "softmax": ("Softmax", [(3, 4)], [], {"axis": 0}),
    "log softmax": ("LogSoftmax", [(3, 4)], [], {}),
    "prelu": ("PRelu", [(2, 3, 2), (3, 1)], [], {}),
    "swish": ("Swish", [(5,)], [], {"alpha": 0.5}),
    "layer normalization": ("LayerNormalization", [(2, 3, 4), (3, 4), (3, 4)], [], {"axis": 1}),
    "layer normalization with a scale that broadcasts": ("LayerNormalization", [(2, 3, 4), (4,), (4,)], [], {"axis": 1}),
    "root mean square normalization": ("RMSNormalization", [(2, 3, 4), (4,)], [], {}),
    "batch normalization": ("BatchNormalization", [(2, 3, 4), (3,), (3,)], [torch.zeros(3).double(), torch.ones(3).double()], {}),
    "group normalization": ("GroupNormalization", [(2, 4, 3), (4,), (4,)], [], {"num_groups": 2}),
    "instance normalization": ("InstanceNormalization", [(2, 3, 4), (3,), (3,)], [], {}),
    "local response normalization": ("LRN", [(1, 4, 2, 2)], [], {"size": 2}),
    "largest of windows": ("MaxPool", [(1, 2, 5, 5)], [], {"kernel_shape": [2, 3], "pads": [0, 1, 1, 0], "ceil_mode": 1}),
    "mean of windows": ("AveragePool", [(1, 2, 5, 5)], [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "mean of windows with pads that differ": ("AveragePool", [(1, 1, 5)], [], {"kernel_shape": [3], "pads": [0, 1], "dilations": [2]}),
    "norm of windows": ("LpPool", [(1, 1, 6)], [], {"kernel_shape": [2]}),
    "mean of all": ("GlobalAveragePool", [(2, 2, 3, 3)], [], {}),
    "sum": ("ReduceSum", [(2, 3)], [ints(-1)], {"keepdims": 0}),
    "product": ("ReduceProd", [(2, 3)], [ints(0, 1)], {}),
    "2-norm": ("ReduceL2", [(2, 3)], [], {}),
    "logarithm of a sum of exponentials": ("ReduceLogSumExp", [(2, 3)], [ints(1)], {}),
    "running sum": ("CumSum", [(2, 3)], [ints(1)], {"exclusive": 1, "reverse": 1}),
    "nearest, by torch": ("Resize", [(1, 1, 3, 2)], [None, torch.tensor([1.0, 1, 2, 3])], {"mode": "nearest"}),
    "nearest": ("Resize", [(1, 1, 3, 2)], [None, None, ints(1, 1, 4, 5)], {"mode": "nearest", "nearest_mode": "ceil"}),
    "linear, by torch": ("Resize", [(1, 1, 3, 3)], [None, None, ints(1, 1, 5, 7)], {"mode": "linear"}),
    "linear": ("Resize", [(1, 2, 3)], [None, torch.tensor([1.0, 2.0, 1.5])], {"mode": "linear"}),
    "cubic": ("Resize", [(1, 1, 4, 4)], [None, None, ints(1, 1, 3, 6)], {"mode": "cubic", "cubic_coeff_a": -0.5}),
    "constant pad": ("Pad", [(2, 3)], [ints(1, 0, -1, 2)], {}),
    "reflection of one axis of two": ("Pad", [(2, 4)], [ints(2, 1), None, ints(1)], {"mode": "reflect"}),
    "wrapped pad": ("Pad", [(1, 3)], [ints(0, 2, 0, 4)], {"mode": "wrap"}),
    "gather": ("Gather", [(3, 4)], [ints(2, -1, 2).reshape(1, 3)], {"axis": 1}),
    "embedding": ("Gather", [(3, 4)], [ints(2, -1, 2)], {}),
    "gather of tuples": ("GatherND", [(2, 3, 2)], [ints(1, -1, 0, 0).reshape(2, 2)], {}),
    "scattered sum": ("ScatterND", [(4, 2)], [ints(1, 1).reshape(2, 1), torch.ones(2, 2).double()], {"reduction": "add"}),
    "backward slice": ("Slice", [(4, 3)], [ints(-1), ints(-9), ints(0), ints(-2)], {}),
    "depth to space": ("DepthToSpace", [(1, 4, 2, 2)], [], {"blocksize": 2}),
    "attention": ("Attention", [(1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4)], [], {"is_causal": 1}),
    "attention with a cap": ("Attention", [(1, 2, 3, 4), (1, 1, 3, 4), (1, 1, 3, 4)], [], {"softcap": 2.0}),
    "rotary embedding": ("RotaryEmbedding", [(1, 2, 3, 4), (1, 3, 2), (1, 3, 2)], [], {"interleaved": 1}),
    "lstm": ("LSTM", [(3, 2, 2), (2, 8, 2), (2, 8, 2), (2, 16)], [], {"direction": "bidirectional"}),
    "gru": ("GRU", [(3, 2, 2), (1, 6, 2), (1, 6, 2), (1, 12)], [], {"direction": "reverse", "linear_before_reset": 1}),
    "gru, step by step": ("GRU", [(3, 2, 2), (2, 6, 2), (2, 6, 2), (2, 12)], [], {"direction": "bidirectional"}),
    "limits that are learned": ("Clip", [(6,), (), ()], [], {}),
    "power": ("Pow", [(5,)], [torch.tensor(3.0)], {}),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient(name: str) -> None:
    operator, shapes, rest, attributes = GRADIENTS[name]
    torch.manual_seed(1)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    apply = bound(node(operator, [x is not None for x in [*inputs, *rest]], **attributes), 24)
    assert torch.autograd.gradcheck(lambda *xs: apply([*xs, *rest])[0], inputs)


class Recorded(TorchDispatchMode):
    """The operators of torch that run, without views."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in ("t", "view", "transpose", "expand", "_unsafe_view", "unsqueeze", "alias", "detach"):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def randn(*shape: int) -> Any:
    return torch.randn(shape, requires_grad=True)


FUSED: dict[str, tuple[list[str], str, list[Any], dict[str, Any]]] = {
    "convolution": (["convolution"], "Conv", [randn(1, 2, 6, 6), randn(2, 2, 3, 3), randn(2)], {"pads": [1] * 4}),
    "strided same convolution": (
        ["convolution"],
        "Conv",
        [randn(1, 2, 5, 5), randn(2, 2, 3, 3)],
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    ),
    "transposed convolution": (
        ["convolution"],
        "ConvTranspose",
        [randn(1, 2, 6, 6), randn(2, 2, 4, 4)],
        {"strides": [2, 2], "pads": [1] * 4},
    ),
    "linear layer": (["addmm"], "Gemm", [randn(2, 3), randn(4, 3), randn(4)], {"transB": 1}),
    "matrix product": (["mm"], "MatMul", [randn(2, 5, 3), randn(3, 4)], {}),
    "layer normalization": (["native_layer_norm"], "LayerNormalization", [randn(2, 3), randn(3), randn(3)], {}),
    "gelu": (["gelu"], "Gelu", [randn(4)], {}),
    "softmax": (["_softmax"], "Softmax", [randn(2, 4)], {}),
    "largest of windows": (["max_pool2d_with_indices"], "MaxPool", [randn(1, 2, 6, 6)], {"kernel_shape": [3, 3], "pads": [1] * 4}),
    "mean of windows": (["avg_pool2d"], "AveragePool", [randn(1, 2, 6, 6)], {"kernel_shape": [3, 3], "pads": [1] * 4}),
    "nearest": (["upsample_nearest2d"], "Resize", [randn(1, 2, 3, 3), None, torch.tensor([1.0, 1, 2, 2])], {}),
    "bilinear": (["upsample_bilinear2d"], "Resize", [randn(1, 2, 3, 3), None, None, ints(1, 2, 7, 5)], {"mode": "linear"}),
    "slopes of channels": (["_prelu_kernel"], "PRelu", [randn(1, 2, 3, 3), randn(2, 1, 1)], {}),
    "relu6": (["clamp"], "Clip", [randn(4), torch.tensor(0.0), torch.tensor(6.0)], {}),
    "embedding": (["embedding"], "Gather", [randn(5, 3), ints(1, 2)], {}),
    "square": (["pow"], "Pow", [randn(4), torch.tensor(2.0)], {}),
}


@pytest.mark.parametrize("name", FUSED)
def test_is_one_function(name: str) -> None:
    expected, operator, inputs, attributes = FUSED[name]
    with Recorded() as recorded:
        call(operator, *inputs, **attributes)
    names = [
        name for name in recorded.names if name not in ("lt", "any", "_local_scalar_dense", "is_nonzero")
    ]  # looks at the CPU's indices
    assert names == expected


def test_what_one_call_keeps_serves_another_that_records_gradients() -> None:
    attributes: dict[str, Any] = {"mode": "linear", "coordinate_transformation_mode": "asymmetric"}
    sizes = ints(1, 1, 5, 7)
    with torch.inference_mode():
        call("Resize", torch.ones(1, 1, 3, 3), None, None, sizes, **attributes)
    x = torch.ones(1, 1, 3, 3, requires_grad=True)
    call("Resize", x, None, None, sizes, **attributes)[0].sum().backward()
    assert x.grad.sum() == pytest.approx(35)
