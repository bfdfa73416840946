"""A node's attributes bound to the function of its operator."""

from __future__ import annotations

import inspect
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Protocol

from torch import Tensor

from zeropoint.autograd.operators.table import BEFORE, OPERATORS, WITH_FURTHER_OUTPUTS
from zeropoint.autograd.operators.tensors import DTYPES, NARROW, Operator, tensor_of
from zeropoint.errors import ModelError

Inputs = Sequence[Tensor | None]
Outputs = tuple[Tensor | None, ...]

_AUTO_PAD = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
_REDUCTIONS = ("none", "add", "mul", "max", "min")
_FLOATS = (0, 1, 10, 11, 16)
_DIRECTIONS = ("forward", "reverse", "bidirectional")
# What the functions take of attributes that choose between ways to compute.
ACCEPTED: Mapping[str, Mapping[str, Container[Any]]] = {
    "Attention": {"qk_matmul_output_mode": range(4), "softmax_precision": _FLOATS},
    "AveragePool": {"auto_pad": _AUTO_PAD},
    "BatchNormalization": {"training_mode": (0,)},
    "BitShift": {"direction": ("LEFT", "RIGHT")},
    "Cast": {"to": DTYPES, "saturate": (1,)},
    "CastLike": {"saturate": (1,)},
    "Conv": {"auto_pad": _AUTO_PAD},
    "ConvTranspose": {"auto_pad": _AUTO_PAD},
    "DepthToSpace": {"mode": ("DCR", "CRD")},
    "DequantizeLinear": {"output_dtype": _FLOATS},
    "EyeLike": {"dtype": DTYPES},
    "Gelu": {"approximate": ("none", "tanh")},
    "GRU": {"activations": (("Sigmoid", "Tanh"), ("Sigmoid", "Tanh") * 2), "direction": _DIRECTIONS},
    "GridSample": {"mode": ("linear", "bilinear", "nearest", "cubic", "bicubic"), "padding_mode": ("zeros", "border", "reflection")},
    "LSTM": {"activations": (("Sigmoid", "Tanh", "Tanh"), ("Sigmoid", "Tanh", "Tanh") * 2), "direction": _DIRECTIONS, "input_forget": (0,)},
    "LpPool": {"auto_pad": _AUTO_PAD},
    "MaxPool": {"auto_pad": _AUTO_PAD},
    "Pad": {"mode": ("constant", "reflect", "edge", "wrap")},
    "QuantizeLinear": {"output_dtype": (0, *DTYPES, *NARROW), "precision": _FLOATS, "saturate": (1,)},
    "RNN": {"activations": (("Tanh",), ("Tanh",) * 2, ("Relu",), ("Relu",) * 2), "direction": _DIRECTIONS},
    "Resize": {
        "antialias": (0,),
        "coordinate_transformation_mode": (
            "half_pixel",
            "half_pixel_symmetric",
            "pytorch_half_pixel",
            "align_corners",
            "asymmetric",
            "tf_crop_and_resize",
        ),
        "keep_aspect_ratio_policy": ("stretch", "not_larger", "not_smaller"),
        "mode": ("nearest", "linear", "cubic"),
        "nearest_mode": ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
    },
    "ScatterElements": {"reduction": _REDUCTIONS},
    "ScatterND": {"reduction": _REDUCTIONS},
}


class Node(Protocol):
    """What is read of an onnx_ir node."""

    @property
    def domain(self) -> str:
        """The operator's domain; "" is ONNX's own."""

    @property
    def op_type(self) -> str:
        """The operator."""

    @property
    def name(self) -> str | None:
        """The node's name, for messages."""

    @property
    def inputs(self) -> Sequence[Any]:
        """The values it reads, None where one is left out."""

    @property
    def outputs(self) -> Sequence[Any]:
        """The values it computes."""

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Its attributes by name."""


def bound(node: Node, opset: int) -> Bound:
    """Return the function that computes a node's outputs from its inputs: a sequence of tensors or None to a tuple of them.

    node: an onnx_ir node of opset 13 or later. opset: the version of ONNX's own operators that the network uses.

    Raises:
        ModelError: there is no translation of the operator, of one of its attributes or of an attribute's value.

    >>> import onnx_ir as ir, torch
    >>> relu = ir.node("Relu", [ir.Value(name="x")])
    >>> bound(relu, 21)([torch.tensor([-1.0, 2.0])])
    (tensor([0., 2.]),)
    """
    where = f"node {node.name!r} ({node.op_type} of domain {node.domain or 'ai.onnx'!r})"
    if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
        raise ModelError(f"{where}: found an operator without a translation to PyTorch, expected one of ONNX's own that computes tensors")
    attributes = {name: _value(attribute, where) for name, attribute in node.attributes.items()} | _implied(node)
    function = _function(node.op_type, opset, len(node.outputs))
    unknown = sorted(attributes.keys() - _keywords(function))
    if unknown:
        raise ModelError(f"{where}: found the attribute {', '.join(unknown)}, which has no translation to PyTorch")
    for name, accepted in ACCEPTED.get(node.op_type, {}).items():
        if name in attributes and attributes[name] not in accepted:
            raise ModelError(f"{where}: found {name} = {attributes[name]!r}, which has no translation to PyTorch")
    if node.op_type == "CastLike" and node.inputs[1].dtype in NARROW:
        raise ModelError(f"{where}: found a cast to {node.inputs[1].dtype}, which PyTorch lacks")
    try:
        _signature(function).bind(*node.inputs, **attributes)
    except TypeError as error:
        raise ModelError(f"{where}: found inputs or attributes that the operator does not allow: {error}") from None
    return Bound(partial(function, **attributes), node.op_type, opset, len(node.outputs), where)


@dataclass(frozen=True, slots=True)
class Bound:
    """A node's function. It can be copied and sent to another process, where the table gives its operator again."""

    function: partial[Any]
    operator: str
    opset: int
    outputs: int
    where: str

    def __call__(self, inputs: Inputs) -> Outputs:
        """Return what the node computes.

        Raises:
            ModelError: the node has outputs without a translation.
        """
        result = self.function(*inputs)
        outputs = result if isinstance(result, tuple) else (result,)
        if len(outputs) < self.outputs:
            raise ModelError(f"{self.where}: found {self.outputs} outputs, of which {len(outputs)} have a translation to PyTorch")
        return outputs

    def __reduce__(self) -> tuple[Any, ...]:
        return _bound_again, (self.function.keywords, self.operator, self.opset, self.outputs, self.where)


def _bound_again(attributes: dict[str, Any], operator: str, opset: int, outputs: int, where: str) -> Bound:
    return Bound(partial(_function(operator, opset, outputs), **attributes), operator, opset, outputs, where)


def _function(operator: str, opset: int, outputs: int) -> Operator:
    first, older = BEFORE.get(operator, (0, None))
    if older is not None and opset < first:
        return older
    least, larger = WITH_FURTHER_OUTPUTS.get(operator, (0, None))
    return larger if larger is not None and outputs >= least else OPERATORS[operator]


@cache
def _signature(function: Operator) -> inspect.Signature:
    return inspect.signature(function)


@cache
def _keywords(function: Operator) -> frozenset[str]:
    parameters = _signature(function).parameters.values()
    return frozenset(parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)


def _value(attribute: Any, where: str) -> Any:
    """Return an attribute's value as an int, a float, a string, a tuple of them or a tensor."""
    kind = attribute.type.name
    if attribute.is_ref() or kind not in ("INT", "INTS", "FLOAT", "FLOATS", "STRING", "STRINGS", "TENSOR"):
        raise ModelError(f"{where}: found the attribute {attribute.name} of kind {kind}, expected a number, text or a tensor")
    if kind != "TENSOR":
        return tuple(attribute.value) if kind.endswith("S") else attribute.value
    try:
        return tensor_of(attribute.value.numpy())
    except TypeError:
        raise ModelError(f"{where}: found the attribute {attribute.name} of type {attribute.value.dtype}, which PyTorch lacks") from None


def _implied(node: Node) -> dict[str, Any]:
    """Return attributes that stand elsewhere in a node: in how many outputs it has, or in the type of an input."""
    if node.op_type == "Split" and (len(node.inputs) < 2 or node.inputs[1] is None):
        return {"num_outputs": len(node.outputs)}
    if node.op_type == "QuantizeLinear" and len(node.inputs) > 2 and node.inputs[2] is not None and node.inputs[2].dtype in NARROW:
        return {"output_dtype": int(node.inputs[2].dtype)}
    return {}
