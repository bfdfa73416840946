"""What has no translation, what is not accepted, and tensors in attributes."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("torch")

import torch
from tests.autograd.graphs import call, node

from zeropoint.autograd.operators import OPERATORS, bound
from zeropoint.autograd.operators.tensors import tensor_of
from zeropoint.errors import ModelError


def graph_node() -> ir.Node:
    empty = ir.Graph([], [], nodes=[])
    branches = [ir.AttrGraph("then_branch", empty), ir.AttrGraph("else_branch", empty)]
    return ir.Node("", "If", [ir.Value(name="x")], branches, name="n")


def of_type(operator: str, dtypes: list[ir.DataType], **attributes: Any) -> ir.Node:
    made = node(operator, len(dtypes), **attributes)
    for value, dtype in zip(made.inputs, dtypes, strict=True):
        assert value is not None
        value.dtype = dtype
    return made


REFUSED: dict[str, tuple[ir.Node, str]] = {
    "subgraph": (graph_node(), "node 'n' (If of domain 'ai.onnx'): found an operator without a translation"),
    "sequence": (node("SequenceConstruct"), "node 'n' (SequenceConstruct of domain 'ai.onnx')"),
    "other domain": (node("Gelu", domain="com.microsoft"), "node 'n' (Gelu of domain 'com.microsoft')"),
    "unknown attribute": (node("Relu", slope=1.0), "found the attribute slope, which has no translation"),
    "text": (node("Constant", 0, value_string="a"), "found the attribute value_string"),
    "missing attribute": (node("Concat", 2), "missing a required argument: 'axis'"),
    "missing input": (node("Conv", 1), "missing a required argument: 'weight'"),
    "too many inputs": (node("Relu", 2), "too many positional arguments"),
    "peepholes": (node("LSTM", 8, hidden_size=1), "too many positional arguments"),
    "other gates": (node("GRU", 3, hidden_size=1, activations=["HardSigmoid", "Tanh"]), "found activations = ('HardSigmoid', 'Tanh')"),
    "antialias": (node("Resize", [True, False, True], antialias=1), "found antialias = 1, which has no translation"),
    "training": (node("BatchNormalization", 5, training_mode=1), "found training_mode = 1"),
    "type that torch lacks": (node("Cast", to=8), "found to = 8"),
    "codes of 4 bits": (of_type("CastLike", [ir.DataType.FLOAT, ir.DataType.INT4]), "found a cast to INT4"),
    "mode": (node("Pad", 2, mode="mirror"), "found mode = 'mirror'"),
    "tensor of text": (node("Constant", 0, value=ir.StringTensor([b"a"], shape=ir.Shape([1]))), "of type STRING, which PyTorch lacks"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    refused, message = REFUSED[name]
    with pytest.raises(ModelError, match=re.escape(message)):
        bound(refused, 24)


def test_refuses_to_drop() -> None:
    x = torch.ones(3)
    assert call("Dropout", x, torch.tensor(0.0), torch.tensor(True))[0] is x
    with pytest.raises(ModelError, match="found training_mode true"):
        call("Dropout", x, torch.tensor(0.5), torch.tensor(True))


def test_refuses_sequences_of_other_lengths() -> None:
    x, w, r = torch.ones(3, 2, 1), torch.ones(1, 4, 1), torch.ones(1, 4, 1)
    (whole, *_), (same, *_) = (call("LSTM", x, w, r, None, lengths, hidden_size=1) for lengths in (None, torch.tensor([3, 3])))
    assert torch.equal(whole, same)
    with pytest.raises(ModelError, match=r"found sequence_lens \[3, 2\], expected 3 for all"):
        call("LSTM", x, w, r, None, torch.tensor([3, 2]), hidden_size=1)


def test_says_which_outputs_are_missing() -> None:
    apply = bound(node("BatchNormalization", 5, 3), 24)
    with pytest.raises(ModelError, match="found 3 outputs, of which 1 have a translation"):
        apply([torch.ones(1, 2), *[torch.ones(2)] * 4])


ARRAYS = {
    "float32": (np.array([1.5], np.float32), torch.float32),
    "bfloat16": (np.array([1.5], ml_dtypes.bfloat16), torch.bfloat16),
    "float8": (np.array([1.5], ml_dtypes.float8_e4m3fn), torch.float8_e4m3fn),
    "int4": (np.array([-8, 7], ml_dtypes.int4), torch.int8),
    "uint4": (np.array([15, 0], ml_dtypes.uint4), torch.uint8),
    "a scalar": (np.array(3, np.int64), torch.int64),
    "a transposed view": (np.arange(6, dtype=np.int32).reshape(2, 3).T, torch.int32),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_tensor_of_an_array(name: str) -> None:
    array, dtype = ARRAYS[name]
    array.setflags(write=False)
    tensor = tensor_of(array)
    assert (tensor.dtype, tuple(tensor.shape)) == (dtype, array.shape)
    assert tensor.double().numpy().tolist() == array.astype(np.float64).tolist()


CONSTANTS: dict[str, tuple[dict[str, Any], Any]] = {
    "tensor": ({"value": ir.Tensor(np.array([[1, 2]], np.int32))}, torch.tensor([[1, 2]], dtype=torch.int32)),
    "float": ({"value_float": 1.5}, torch.tensor(1.5)),
    "floats": ({"value_floats": [1.5, 2.0]}, torch.tensor([1.5, 2.0])),
    "int": ({"value_int": 3}, torch.tensor(3)),
    "ints": ({"value_ints": [3, 4]}, torch.tensor([3, 4])),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_constant(name: str) -> None:
    attributes, expected = CONSTANTS[name]
    (actual,) = call("Constant", **attributes)
    assert actual.dtype == expected.dtype
    assert torch.equal(actual, expected)


def test_group_normalization_of_opset_18_has_a_scale_per_group() -> None:
    x, scale, bias = torch.randn(2, 4, 3), torch.tensor([1.0, 2.0]), torch.tensor([0.5, -0.5])
    (actual,) = call("GroupNormalization", x, scale, bias, opset=20, num_groups=2)
    groups = x.reshape(2, 2, -1)
    normal = (groups - groups.mean(-1, keepdim=True)) / (groups.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(actual, (normal * scale[:, None] + bias[:, None]).reshape(x.shape))


def test_split_by_the_number_of_outputs() -> None:
    assert [part.shape[0] for part in call("Split", torch.ones(6, 2), outputs=3, opset=13)] == [2, 2, 2]


def test_codes_of_4_bits_saturate_at_their_own_limits() -> None:
    quantize = of_type("QuantizeLinear", [ir.DataType.FLOAT, ir.DataType.FLOAT, ir.DataType.INT4], axis=0)
    codes: Any
    (codes,) = bound(quantize, 21)([torch.tensor([-20.0, 2.5, 20.0]), torch.tensor(1.0), torch.tensor(0, dtype=torch.int8)])
    assert codes.tolist() == [-8, 2, 7]


def test_norm_of_all() -> None:
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(call("GlobalLpPool", x, p=3)[0], x.abs().pow(3).sum((2, 3), keepdim=True).pow(1 / 3))


COPIES: dict[str, tuple[ir.Node, int, list[Any]]] = {
    "softmax": (node("Softmax", axis=0), 24, [torch.randn(3, 2)]),
    "an older operator": (node("GroupNormalization", 3, num_groups=2), 20, [torch.randn(1, 4, 2), torch.ones(2), torch.ones(2)]),
    "further outputs": (node("MaxPool", 1, 2, kernel_shape=[2]), 24, [torch.randn(1, 2, 4)]),
    "a constant": (node("Constant", 0, value_floats=[1.0, 2.0]), 24, []),
}


@pytest.mark.parametrize("name", COPIES)
def test_can_be_sent_to_another_process(name: str) -> None:
    made, opset, inputs = COPIES[name]
    apply = bound(made, opset)
    for other in (pickle.loads(pickle.dumps(apply)), copy.deepcopy(apply)):
        pairs: Any = zip(apply(inputs), other(inputs), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        OPERATORS["Relu"] = torch.relu  # type: ignore[index]
