"""Whatever prepare does, outputs equal those of the original in ONNX Runtime; test_affine_folding and test_pad_folding go deeper."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.parser import parse_model
from onnx.printer import to_text

from zeropoint.errors import ModelError
from zeropoint.graph.load import load
from zeropoint.graph.prepare import prepare
from zeropoint.graph.store import serialize

Array = np.ndarray[Any, Any]
X = np.linspace(-2, 2, 8, dtype=np.float32).reshape(2, 4)
X.flags.writeable = False
W = "float[4] w = {1, -2, 3, 0.5}"
MATRIX = "float[4, 4] m = {1, -2, 3, 4, 0.5, 6, -7, 8, 1, 2, 3, -4, 5, 6, 7, 8}"
Y = "float[N, 4] y"


def network(
    nodes: str, constants: str = W, *, outputs: str = Y, inputs: str = "", opset: int = 17, ir_version: int = 8, functions: str = ""
) -> onnx.ModelProto:
    return parse_model(
        f"""<ir_version: {ir_version}, opset_import: ["" : {opset}, "house" : 1], producer_name: "trainer", producer_version: "7",
             domain: "org.example", model_version: 3, doc_string: "what it is for", metadata_props: ["classes" : "cat,dog"]>
        net (float[N, 4] x{inputs}) => ({outputs}) <{constants}> {{ {nodes} }} {functions}"""
    )


def run(model: bytes, feed: dict[str, Array]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return list(onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, feed))


def described(model: onnx.ModelProto) -> list[object]:
    """All that a user of the network sees or wrote about it, less the version of the file format."""
    known = [model.producer_name, model.producer_version, model.domain, model.model_version, model.doc_string, model.graph.doc_string]
    initializers = {initializer.name for initializer in model.graph.initializer}
    inputs = [str(value) for value in model.graph.input if value.name not in initializers]
    return [*known, list(map(str, model.metadata_props)), inputs, list(map(str, model.graph.output))]


def prepared(proto: onnx.ModelProto, feed: dict[str, Array] | None = None, *, roundings: int = 0) -> tuple[onnx.ModelProto, list[str]]:
    """Prepare, check that outputs (to `roundings` ULPs of the largest) and descriptions stay, and return the network and the notes."""
    feed = feed or {"x": X}
    model = load(proto)
    notes = [str(note) for note in prepare(model)]
    content = serialize(model)
    for found, expected in zip(run(content, feed), run(proto.SerializeToString(), feed), strict=True):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        tolerance = roundings * float(np.spacing(np.abs(expected).max())) if roundings else 0
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
    result = onnx.load_from_string(content)
    assert described(result) == described(proto)

    assert [note for note in prepare(model) if "constants now" in note.reason] == []
    assert serialize(model) == content, "preparing what is prepared changes nothing"
    return result, notes


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def initializers(model: onnx.ModelProto) -> set[str]:
    return {initializer.name for initializer in model.graph.initializer}


# --- constants ------------------------------------------------------------------------------------------------------------

CONSTANTS = {
    "value": "w1 = Constant<value = float[4] {1, 2, 3, 4}>()",
    "value_floats": "w1 = Constant<value_floats = [1.0, 2.0, 3.0, 4.0]>()",
    "value_float": "w1 = Constant<value_float = 3.0>()",
    "folded": "w0 = Constant<value = float[4] {1, 2, 3, 4}>() w1 = Exp(w0)",
}


@pytest.mark.parametrize("constant", CONSTANTS.values(), ids=CONSTANTS)
def test_constant_nodes_become_initializers_of_their_names(constant: str) -> None:
    model, _ = prepared(network(f"{constant} y = Mul(x, w1)"))
    assert (operators(model), initializers(model)) == (["Mul"], {"w1"})


def test_constant_nodes_serve_as_weights() -> None:
    weight = "m1 = Constant<value = float[4, 4] {1, -2, 3, 4, 0.5, 6, -7, 8, 1, 2, 3, -4, 5, 6, 7, 8}>()"
    model, _ = prepared(network(f"{weight} a = Gemm(x, m1) y = Mul(a, w)"), roundings=8)
    assert operators(model) == ["Gemm"]


def test_a_constant_that_is_an_output_stays() -> None:
    model, _ = prepared(network("k = Constant<value = float[2] {1, 2}>() y = Neg(x)", outputs=f"{Y}, float[2] k"))
    assert operators(model) == ["Constant", "Neg"]


def test_a_constant_read_twice_becomes_one_initializer() -> None:
    model, _ = prepared(network("k = Constant<value = float {3}>() a = Mul(x, k) y = Add(a, k)"))
    assert (operators(model), initializers(model)) == (["Mul", "Add"], {"k"})


def test_tied_weights_stay_tied() -> None:
    model, _ = prepared(network("a = MatMul(x, m) b = Relu(a) y = MatMul(b, m)", MATRIX))
    assert (operators(model), initializers(model)) == (["MatMul", "Relu", "MatMul"], {"m"})


def test_random_and_huge_constants_stay() -> None:
    nodes = """k = Constant<value = int64[2] {70000, 4}>() e = Expand(w, k) r = RandomNormal<shape = [4], seed = 1.0>()
        a = Mul(x, r) s = ReduceMax<keepdims = 0>(x) b = Mul(e, s) c = ReduceMax<axes = [0], keepdims = 0>(b) y = Add(a, c)"""
    model, _ = prepared(network(nodes))
    assert {"Expand", "RandomNormal"} < set(operators(model))
    assert len(model.SerializeToString()) < 5000


@pytest.mark.parametrize("ir_version", [3, 4, 8])
def test_initializers_listed_as_inputs_become_constants(ir_version: int) -> None:
    proto = network(
        "a = Gemm(x, m, w) y = Mul(a, k)", opset=9, ir_version=ir_version, inputs=f", {W}, {MATRIX}, float[4] k = {{1, 2, 3, 4}}"
    )
    assert len(proto.graph.input) == 4
    model, notes = prepared(proto, roundings=8)
    assert [value.name for value in model.graph.input] == ["x"]
    assert operators(model) == ["Gemm"]
    assert model.ir_version == max(ir_version, 4)
    told = ["w: 3 weights were also listed as inputs; they are constants now and cannot be fed"]
    assert notes == ([] if ir_version == 3 else told)


def test_unused_nodes_and_initializers_go() -> None:
    model, _ = prepared(network("a = Neg(x) b = Add(a, u) y = Mul(x, w)", f"{W}, float u = {{1}}, float v = {{2}}"))
    assert (operators(model), initializers(model)) == (["Mul"], {"w"})


def test_an_initializer_that_is_an_output_stays() -> None:
    model, _ = prepared(network("y = Neg(x)", outputs=f"{Y}, float[4] w"))
    assert initializers(model) == {"w"}


# --- functions ------------------------------------------------------------------------------------------------------------

FUNCTION = """<opset_import: ["" : 17], domain: "house"> scaled <by: float = 2.0> (a) => (b)
    { k = Constant<value_float: float = @by>() c = Mul(a, k) b = Relu(c) }"""


def test_functions_are_inlined() -> None:
    model, _ = prepared(network("a = house.scaled(x) b = house.scaled<by = 3.0>(a) y = Add(b, w)", functions=FUNCTION))
    assert operators(model) == ["Mul", "Relu", "Mul", "Relu", "Add"]
    assert not model.functions
    assert len({node.name for node in model.graph.node}) == 5


def test_functions_are_inlined_in_bodies_too() -> None:
    branches = "then_branch = t () => (float[N, 4] ty) { ty = house.scaled(x) }, else_branch = e () => (float[N, 4] ey) { ey = Neg(x) }"
    model, _ = prepared(network(f"y = If(k) <{branches}>", "bool k = {1}", functions=FUNCTION))
    assert operators(model) == ["If"]
    assert not model.functions


def test_functions_that_cannot_be_inlined_are_refused() -> None:
    model = load(network("y = house.scaled(x)", functions=FUNCTION.replace('"" : 17', '"" : 12')))
    with pytest.raises(ModelError, match=r"^functions: found some .* \(.*[Oo]pset mismatch.*\); export the network without functions$"):
        prepare(model)


def test_functions_that_call_each_other_are_refused() -> None:
    function = """<opset_import: ["" : 17, "house" : 1], domain: "house"> scaled (a) => (b) { b = house.scaled(a) }"""
    model = load(network("y = house.scaled(x)", functions=function))
    with pytest.raises(ModelError, match=r"^functions: found some .* \(.*[Cc]yclic.*\); export the network without functions$"):
        prepare(model)


# --- Dropout and Identity -------------------------------------------------------------------------------------------------

DROPOUT = {
    "opset 7": (7, "a = Dropout<ratio = 0.3>(x) y = Mul(a, w)", ["Mul"]),
    "opset 10": (10, "a = Dropout(x) y = Mul(a, w)", ["Mul"]),
    "opset 12": (12, "a = Dropout(x, ratio) y = Mul(a, w)", ["Mul"]),
    "opset 13": (13, "a = Dropout(x, ratio) y = Mul(a, w)", ["Mul"]),
    "training mode off": (13, "a = Dropout(x, ratio, no) y = Mul(a, w)", ["Mul"]),
    "training mode off, by a Constant node": (13, "n = Constant<value = bool {0}>() a = Dropout(x, ratio, n) y = Mul(a, w)", ["Mul"]),
    "no ratio": (13, "a = Dropout(x, , no) y = Mul(a, w)", ["Mul"]),
    "an unused mask": (13, "a, mask = Dropout(x) y = Mul(a, w)", ["Mul"]),
    "last": (13, "a = Mul(x, w) y = Dropout(a)", ["Mul"]),
    "from input to output": (13, "y = Dropout(x)", ["Identity"]),
    "a mask that is used": (13, "a, mask = Dropout(x, ratio) b = Cast<to = 1>(mask) y = Mul(a, b)", ["Dropout", "Cast", "Mul"]),
    "training mode on": (13, "a = Dropout<seed = 1>(x, ratio, yes) y = Mul(a, w)", ["Dropout", "Mul"]),
    "training mode computed": (13, "s = ReduceSum<keepdims = 0>(x) t = Less(s, s) a = Dropout(x, ratio, t) y = Mul(a, w)",
                               ["ReduceSum", "Less", "Dropout", "Mul"]),
}  # fmt: skip


@pytest.mark.parametrize(("opset", "nodes", "left"), DROPOUT.values(), ids=DROPOUT)
def test_dropout_goes_where_it_does_nothing(opset: int, nodes: str, left: list[str]) -> None:
    model, _ = prepared(network(nodes, f"{W}, float ratio = {{0.4}}, bool no = {{0}}, bool yes = {{1}}", opset=opset))
    assert operators(model) == left


def test_dropout_whose_mask_is_an_output_stays() -> None:
    model, _ = prepared(network("y, mask = Dropout(x)", outputs=f"{Y}, bool[N, 4] mask"))
    assert operators(model) == ["Dropout"]


IDENTITY = {
    "between": ("a = Neg(x) b = Identity(a) y = Mul(b, w)", Y, ["Neg", "Mul"]),
    "a chain": ("a = Identity(x) b = Identity(a) c = Neg(b) d = Identity(c) e = Identity(d) y = Identity(e)", Y, ["Neg"]),
    "of a weight": ("a = Identity(w) y = Mul(x, a)", Y, ["Mul"]),
    "from input to output": ("y = Identity(x)", Y, ["Identity"]),
    "a chain from input to output": ("a = Identity(x) y = Identity(a)", Y, ["Identity"]),
    "of a value with other readers": ("a = Neg(x) y = Identity(a) z = Relu(a)", f"{Y}, float[N, 4] z", ["Neg", "Relu"]),
    "one value as two outputs": ("y = Neg(x) z = Identity(y)", f"{Y}, float[N, 4] z", ["Neg", "Identity"]),
    "one inner value as two outputs": ("a = Neg(x) y = Identity(a) z = Identity(a)", f"{Y}, float[N, 4] z", ["Neg", "Identity"]),
    "of a weight to an output": ("y = Mul(x, w) z = Identity(w)", f"{Y}, float[4] z", ["Mul", "Identity"]),
}


@pytest.mark.parametrize(("nodes", "outputs", "left"), IDENTITY.values(), ids=IDENTITY)
def test_identity_goes_where_names_allow(nodes: str, outputs: str, left: list[str]) -> None:
    model, _ = prepared(network(nodes, outputs=outputs))
    assert operators(model) == left


def test_operators_of_other_domains_are_not_mistaken_for_these() -> None:
    model = load(network("a = house.Identity(x) b = house.Dropout(a) y = Mul(b, w)"))
    prepare(model)
    assert [node.op_type for node in model.graph] == ["Identity", "Dropout", "Mul"]


# --- names and descriptions -----------------------------------------------------------------------------------------------

STRANGE = ["/model/layer.0/w:0", "a tensor with spaces", "<b>bold</b>&amp;", "größe", "'quoted\"", "w/folded"]


@pytest.mark.parametrize("name", STRANGE)
def test_strange_names_survive(name: str) -> None:
    proto = network("a = Neg(x) b = Identity(a) y = Mul(b, w)")
    for node in proto.graph.node:
        node.input[:] = [{"x": f"{name}/x", "w": f"{name}/w", "a": name}.get(value, value) for value in node.input]
        node.output[:] = [{"y": f"{name}/y", "a": name}.get(value, value) for value in node.output]
        node.name = f"{name}: {node.op_type}"
    proto.graph.input[0].name, proto.graph.output[0].name, proto.graph.initializer[0].name = f"{name}/x", f"{name}/y", f"{name}/w"
    model, _ = prepared(proto, {f"{name}/x": X})
    assert [node.name for node in model.graph.node] == [f"{name}: Neg", f"{name}: Mul"]
    assert (list(model.graph.node[0].output), initializers(model)) == ([name], {f"{name}/w"})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(["", "", ""], ["node", "node_1", "node_2"], id="none"),
        pytest.param(["a", "b", "c"], ["a", "b", "c"], id="all"),
        pytest.param(["a", "a", "a"], ["a", "a_1", "a_2"], id="one for all"),
        pytest.param(["a", "a", "a_1"], ["a", "a_2", "a_1"], id="one that a duplicate would get"),
        pytest.param(["", "node", "node"], ["node_1", "node", "node_2"], id="one that a nameless would get"),
    ],
)
def test_nodes_get_names_of_their_own(before: list[str], after: list[str]) -> None:
    proto = network("a = Neg(x) b = Abs(a) y = Mul(b, w)")
    for node, name in zip(proto.graph.node, before, strict=True):
        node.name = name
    model = load(proto)
    prepare(model)
    assert [node.name for node in model.graph] == after
    np.testing.assert_array_equal(run(serialize(model), {"x": X})[0], np.abs(X) * np.array([1, -2, 3, 0.5], np.float32))


def test_outputs_keep_their_axes_whatever_stood_before_them() -> None:
    proto = network(
        "a = Gemm(x, m) b = Mul(a, k) c = Dropout(b) y = Identity(c)", f"{MATRIX}, float k = {{2}}", outputs="float[batch, ?] y"
    )
    proto.graph.value_info.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, [2, 4]))
    proto.graph.doc_string = "the graph"
    model, _ = prepared(proto, roundings=4)
    assert operators(model) == ["Gemm"]


@pytest.mark.parametrize("dtype", ["int64", "int32", "bool", "double", "float16"])
def test_inputs_and_outputs_of_other_types(dtype: str) -> None:
    nodes = "e = Gather(table, i) c = Cast<to = 1>(z) d = Add(x, c) a = Add(e, d) y = Identity(a) k = Identity(z)"
    proto = network(
        nodes, "float[3, 4] table = {1,2,3,4,5,6,7,8,9,10,11,12}", inputs=f", int64[N] i, {dtype}[N, 4] z", outputs=f"{Y}, {dtype}[N, 4] k"
    )
    numbers = np.ones((2, 4), {"double": np.float64}.get(dtype, dtype))
    model, _ = prepared(proto, {"x": X, "i": np.array([2, 0]), "z": numbers})
    assert operators(model) == ["Gather", "Cast", "Add", "Add", "Identity"]


# --- folding --------------------------------------------------------------------------------------------------------------


def convolution(*after: onnx.NodeProto, opset: int = 17, pads: bool = True) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    names = ["gamma", "beta", "mean", "var"]
    arrays = {name: rng.uniform(0.5, 2, 4).astype(np.float32) for name in [*names, "bias"]}
    arrays["weight"] = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["padded"], name="pad"),
        helper.make_node("Conv", ["padded" if pads else "x", "weight", "bias"], ["c"], name="conv"),
        helper.make_node("BatchNormalization", ["c", *names], ["b"], name="bn"),
        *after,
    ]
    graph = helper.make_graph(
        nodes[0 if pads else 1 :],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, ["N", 4, "H", "W"])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()]
        + ([numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "pads")] if pads else []),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


IMAGES = {"x": np.random.default_rng(1).normal(size=(2, 3, 5, 5)).astype(np.float32)}


@pytest.mark.parametrize(("opset", "pads"), [(7, False), (9, False), (13, True), (17, True)])
def test_padding_and_batch_normalization_fold_into_the_convolution(opset: int, pads: bool) -> None:
    relu = helper.make_node("Relu", ["b"], ["y"], name="relu")
    model, notes = prepared(convolution(relu, opset=opset, pads=pads), IMAGES, roundings=16)
    assert ([node.name for node in model.graph.node], notes) == (["conv", "relu"], [])


def test_constants_become_known_before_they_fold() -> None:
    """The scale reaches the convolution through a Constant, Unsqueeze, Identity and Dropout."""
    after = [
        helper.make_node("Dropout", ["b"], ["d"]),
        helper.make_node("Constant", [], ["s"], value=numpy_helper.from_array(np.array([1, 2, 3, 4], np.float32))),
        helper.make_node("Constant", [], ["axes"], value=numpy_helper.from_array(np.array([1, 2]))),
        helper.make_node("Unsqueeze", ["s", "axes"], ["u"]),
        helper.make_node("Identity", ["d"], ["i"]),
        helper.make_node("Mul", ["u", "i"], ["y"]),
    ]
    model, _ = prepared(convolution(*after), IMAGES, roundings=16)
    assert operators(model) == ["Conv"]


def test_batch_normalization_that_stays_is_told() -> None:
    after = [helper.make_node("Relu", ["c"], ["r"], name="relu"), helper.make_node("Add", ["b", "r"], ["y"], name="add")]
    model, notes = prepared(convolution(*after), IMAGES, roundings=8)
    assert [node.name for node in model.graph.node] == ["conv", "bn", "relu", "add"]
    assert notes == ["bn: BatchNormalization stays: the output of 'conv' has other readers"]


# --- bodies ---------------------------------------------------------------------------------------------------------------

DEAD = "dead = Neg(h) i = Identity(h) d = Dropout(i) k1 = Constant<value = float[4] {1, 2, 3, 4}>() k2 = Exp(k1) j = Mul(d, k2)"
BODIES = {
    "If": f"""h = Relu(x) q = If(yes) <
        then_branch = t () => (float[N, 4] t1) {{ {DEAD} t1 = Add(j, w) }},
        else_branch = e () => (float[N, 4] e1) {{ i2 = Identity(x) e1 = Mul(i2, w) }}>""",
    "If that hands out outer values": """h = Relu(x) q = If(yes) <
        then_branch = t () => (float[N, 4] t1) { t1 = Identity(h) },
        else_branch = e () => (float[N, 4] e1) { e1 = Identity(x) }>""",
    "Loop": """h = Relu(x) q = Loop(three, yes, h) <
        body = b (int64 n, bool c, float[N, 4] s) => (bool c1, float[N, 4] s1) { c1 = Identity(c) s0 = Identity(s) s1 = Add(s0, w) }>""",
    "Scan": """h = Relu(x) q0, q = Scan(w, h) <num_scan_inputs = 1,
        body = b (float[4] s, float[4] v) => (float[4] s1, float[4] v1) { s1 = Add(s, v) v1 = Identity(s1) }>""",
    "If in a Loop": """h = Relu(x) q = Loop(three, yes, h) <
        body = b (int64 n, bool c, float[N, 4] s) => (bool c1, float[N, 4] s1) {
            c1 = Identity(c) s1 = If(c) <
                then_branch = t () => (float[N, 4] t1) { t0 = Identity(h) tw = Identity(w) t2 = Add(t0, tw) t1 = Add(t2, s) },
                else_branch = e () => (float[N, 4] e1) { e1 = Identity(s) }> }>""",
}


@pytest.mark.parametrize("nodes", BODIES.values(), ids=BODIES)
def test_bodies_pass_through_untouched_with_a_note(nodes: str) -> None:
    proto = network(f"{nodes} p = Identity(q) y = Mul(p, w)", f"{W}, bool yes = {{1}}, int64 three = {{3}}")
    node = proto.graph.node[1]
    node.name = "branch"
    model, notes = prepared(proto)
    assert [found.name for found in model.graph.node] == ["node", "branch", "node_2"]
    assert to_text(model.graph.node[1]) == to_text(node)
    assert notes == [f"branch: the body of this {node.op_type} is passed through untouched, in float"]


def test_bodies_read_what_is_left_of_what_they_read() -> None:
    """The values that the branches read are a lifted constant, a folded one, a removed Identity and a folded BatchNormalization."""
    branches = [f"{name} = g () => (float[N, 4, H, W] {op}o) {{ {op}1 = Mul(i, k) {op}2 = Add({op}1, f) {op}o = {op}({op}2) }}"
                for name, op in (("then_branch", "Neg"), ("else_branch", "Abs"))]  # fmt: skip
    after = parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4, H, W] b, bool yes) => (float[N, 4, H, W] y) {{
        i = Identity(b) k = Constant<value = float {{2}}>() f = Exp(k) y = If(yes) <{", ".join(branches)}> }}"""
    )
    proto = convolution(*after.graph.node)
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model, notes = prepared(proto, IMAGES, roundings=16)
    assert operators(model) == ["Conv", "If"]
    assert len(notes) == 1


# --- what is refused ------------------------------------------------------------------------------------------------------

PAIR = "c = QuantizeLinear(x, s, z) y = DequantizeLinear(c, s, z)"
QUANTIZED = {
    "pair": (PAIR, "", "QuantizeLinear"),
    "weights alone": ("d = DequantizeLinear(z4, s, z) y = Mul(x, d)", "", "DequantizeLinear"),
    "dynamic": ("c, s1, z1 = DynamicQuantizeLinear(x) y = DequantizeLinear(c, s1, z1)", "", "DynamicQuantizeLinear"),
    "integer operator": ("y = QLinearMatMul(x, s, z, x, s, z, s, z)", "", "QLinearMatMul"),
    "in a function": (
        "y = house.pair(x, s, z)",
        f'<opset_import: ["" : 17], domain: "house"> pair (x, s, z) => (y) {{ {PAIR} }}',
        "QuantizeLinear",
    ),
}


@pytest.mark.parametrize(("nodes", "functions", "found"), QUANTIZED.values(), ids=QUANTIZED)
def test_refuses_a_network_that_is_already_quantized(nodes: str, functions: str, found: str) -> None:
    proto = network(nodes, "float s = {0.5}, int8 z = {0}, int8[4] z4 = {1, 2, 3, 4}", functions=functions)
    with pytest.raises(
        ModelError, match=rf"^node 'node.*': found {found}: the network is already quantized; start from the float one, or use "
    ):
        prepare(load(proto))
