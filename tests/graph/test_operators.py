from __future__ import annotations

import onnx_ir as ir
import pytest
from onnx.parser import parse_model

from zeropoint.graph import operators
from zeropoint.graph.initializers import add_initializer, constant_array
from zeropoint.graph.load import load
from zeropoint.graph.operators import Weighted


def node(text: str) -> ir.Node:
    """The last node of a network with inputs x, a and c, and constants w and b."""
    return load(
        parse_model(
            f"""<ir_version: 8, opset_import: ["" : 17, "house" : 1]> net (float[N, 4] x, float[N, 4] a, bool c) => (float[N, 4] y)
            <float[4, 4] w = {{1,2,3,4,1,2,3,4,1,2,3,4,1,2,3,4}}, float[4] b = {{1, 2, 3, 4}}> {{ {text} }}"""
        )
    ).graph[-1]


WEIGHTED = {
    "Conv": ("y = Conv(x, w, b)", Weighted(0, 1, 2, 0)),
    "Conv without bias": ("y = Conv(x, w)", Weighted(0, 1, 2, 0)),
    "ConvTranspose": ("y = ConvTranspose(x, w)", Weighted(0, 1, 2, 1)),
    "Gemm": ("y = Gemm(x, w, b)", Weighted(0, 1, 2, 1)),
    "Gemm transA": ("y = Gemm<transA = 1>(x, w, b)", Weighted(0, 1, 2, 1)),
    "Gemm transB": ("y = Gemm<transB = 1>(x, w, b)", Weighted(0, 1, 2, 0)),
    "MatMul": ("y = MatMul(x, w)", Weighted(0, 1, None, -1)),
    "MatMul from the left": ("y = MatMul(w, x)", Weighted(1, 0, None, -2)),
    "two activations": ("y = MatMul(x, a)", None),
    "two constants": ("y = MatMul(w, w)", None),
    "computed weight": ("v = Relu(w) y = Conv(x, v)", None),
    "constant data": ("y = Conv(w, x)", None),
    "other operator": ("y = Mul(x, w)", None),
    "other domain": ("y = house.MatMul(x, w)", None),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), WEIGHTED.values(), ids=WEIGHTED)
def test_weighted(text: str, expected: Weighted | None) -> None:
    assert operators.weighted(node(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("y = Conv(x, w)", 1),
        ("y = ConvTranspose(x, w)", 0),
        ("y = Gemm(x, w)", 0),
        ("y = Gemm<transB = 1>(x, w)", 1),
        ("y = MatMul(x, w)", -2),
        ("y = MatMul(w, x)", -1),
    ],
)
def test_the_axis_that_is_summed_over(text: str, expected: int) -> None:
    form = operators.weighted(node(text))
    assert form is not None
    assert form.summed_axis == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("y = Concat<axis = 0>(x, a, x)", (0, 1, 2)),
        ("y = Reshape(x, w)", (0,)),
        ("y = MaxPool<kernel_shape = [2]>(x)", (0,)),
        ("y = Resize(x, , b)", (0,)),
        ('y = Resize<mode = "nearest">(x, , b)', (0,)),
        ('y = Resize<mode = "linear">(x, , b)', ()),
        ('y = Resize<mode = "cubic">(x, , b)', ()),
        ("y = Gather(x, a)", (0,)),
        ("y = Gather(w, a)", ()),
    ],
)
def test_moved_inputs(text: str, expected: tuple[int, ...]) -> None:
    assert operators.moved_inputs(node(text)) == expected


def test_attributes_and_their_defaults() -> None:
    given, absent = node('y = Foo<i = 3, f = 0.5, s = "text">(x)'), node("y = Foo(x)")
    assert (operators.int_attribute(given, "i", 7), operators.int_attribute(absent, "i", 7)) == (3, 7)
    assert (operators.float_attribute(given, "f", 7.0), operators.float_attribute(absent, "f", 7.0)) == (0.5, 7.0)
    assert (operators.string_attribute(given, "s", "no"), operators.string_attribute(absent, "s", "no")) == ("text", "no")


def test_constants_are_initializers_alone() -> None:
    given = node("k = Constant<value = float[4] {1, 2, 3, 4}>() y = Sum(x, w, k)")
    assert [operators.is_constant(value) for value in (*given.inputs, *given.outputs, None)] == [False, True, False, False, False]


@pytest.mark.parametrize(("text", "expected"), [("y = Neg(x)", True), ("y = ai.onnx.Neg(x)", True), ("y = house.Neg(x)", False)])
def test_default_domain(text: str, expected: bool) -> None:
    assert operators.is_default_domain(node(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("y = Neg(x)", False),
        ("y = Clip<min = 0.0>(x)", False),
        (
            "y = If(c) <then_branch = t () => (float[N, 4] t1) { t1 = Neg(x) }, else_branch = e () => (float[N, 4] e1) { e1 = Abs(x) }>",
            True,
        ),
    ],
    ids=["none", "attributes", "If"],
)
def test_subgraphs(text: str, expected: bool) -> None:
    assert operators.has_subgraph(node(text)) == expected


def test_initializers_are_made_and_read() -> None:
    graph = node("y = Neg(x)").graph
    assert isinstance(graph, ir.Graph)
    array = constant_array(graph.initializers["w"])[1:3]
    value = add_initializer(graph, "new", array)
    assert graph.initializers["new"] is value
    assert (value.shape, value.dtype) == (ir.Shape([2, 4]), ir.DataType.FLOAT)
    assert constant_array(value).tolist() == array.tolist()


def test_what_is_no_constant_cannot_be_read() -> None:
    with pytest.raises(ValueError, match="expected a constant, found 'x'"):
        constant_array(node("y = Neg(x)").inputs[0])
    with pytest.raises(ValueError, match="expected a constant, found None"):
        constant_array(None)
