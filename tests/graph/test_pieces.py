from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from tests.graph.networks import Array, Feed, feed, network, run, run_all

from zeropoint.errors import ModelError
from zeropoint.graph.load import load
from zeropoint.graph.pieces import Pieces, cut
from zeropoint.graph.store import serialize

Tensors = dict[str, Any]
LARGE = (64, 64)  # 16 KiB, which stays out of the ONNX bytes
ROWS = "float[N,64] x"


@dataclass(frozen=True)
class Case:
    """A network; `unnamed` are outputs of nodes that nobody wants."""

    name: str
    body: str
    inputs: str = "float[2,16,4,4] x"
    outputs: str = "y"
    weights: Mapping[str, object] = field(default_factory=dict)
    opset: int = 13
    unnamed: tuple[str, ...] = ()

    @property
    def network(self) -> onnx.ModelProto:
        model = network(self.body, inputs=self.inputs, outputs=self.outputs, weights=self.weights, opset=self.opset)
        for node in model.graph.node:
            node.output[:] = ["" if name in self.unnamed else name for name in node.output]
        return model


def branches(then: str, otherwise: str) -> str:
    return f"If(c) <then_branch = t () => (float t1) {{ {then} }}, else_branch = e () => (float e1) {{ {otherwise} }}>"


INNER = "If(c) <then_branch = i () => (float i1) { i1 = Add(a, b) }, else_branch = j () => (float j1) { j1 = Neg(a) }>"
YES: Mapping[str, object] = {"c": np.array(True), "k": (16, 4, 4)}
CASES = [
    Case("a chain", "a = Mul(x, k) b = Relu(a) d = Neg(b) y = Exp(d)", weights=YES),
    Case("a single node", "y = Relu(x)"),
    Case("residual branches", "a = Conv(x, v) b = Relu(a) d = Conv(b, w) e = Add(d, b) f = Relu(e) g = Add(f, x) y = Add(g, b)"),
    Case(
        "several inputs and outputs",
        "a = Neg(x) b = Mul(a, z) y = Add(b, u) s = Sub(b, x) q = Mul(u, u)",
        inputs="float[2,3] x, float[2,3] z, float[2,3] u",
        outputs="q, y, s",
    ),
    Case("an output that others read", "y = Neg(x) z = Abs(y) u = Exp(z)", outputs="u, y"),
    Case("an input that nobody reads", "a = Neg(x) y = Abs(a)", inputs="float[2,3] x, float[2,3] z"),
    Case("a node whose result nobody reads", "a = Neg(x) u = Abs(a) y = Exp(a)"),
    Case(
        "a body that reads results, inputs and constants",
        f"a = Neg(x) b = Abs(a) d = {branches('t1 = Add(a, k)', 'e1 = Neg(x)')} y = Add(d, b)",
        weights=YES,
    ),
    Case(
        "the other body",
        f"a = Neg(x) b = Abs(a) d = {branches('t1 = Add(a, k)', 'e0 = Neg(x) e1 = Add(e0, b)')} y = Add(d, b)",
        weights={**YES, "c": np.array(False)},
    ),
    Case(
        "a body that gives out what it reads", f"a = Neg(x) d = {branches('t1 = Identity(a)', 'e1 = Identity(k)')} y = Neg(d)", weights=YES
    ),
    Case(
        "bodies within bodies",
        f"a = Neg(x) b = Abs(x) d = {branches(f't0 = {INNER} t1 = Neg(t0)', 'e1 = Neg(x)')} y = Neg(d)".replace("float", "float[2,16,4,4]"),
        weights={"c": np.array(True)},
    ),
    Case(
        "a condition that is computed",
        f"m = ReduceMax <keepdims=0> (x) c = Greater(m, zero) a = Neg(x) y = {branches('t1 = Abs(a)', 'e1 = Identity(a)')}",
        weights={"zero": np.float32(0.0)},
    ),
    Case("constants that pieces share", "a = Mul(x, k) b = Neg(a) d = Mul(b, k) e = Add(d, k) y = Mul(e, k)", weights=YES),
    Case(
        "large constants", "a = MatMul(x, u) b = Relu(a) d = MatMul(b, v) y = MatMul(d, u)", inputs=ROWS, weights={"u": LARGE, "v": LARGE}
    ),
    Case(
        "a large constant in a body",
        f"a = Neg(x) d = {branches('t1 = MatMul(a, u)', 'e1 = Identity(x)')} y = MatMul(d, u)",
        inputs=ROWS,
        weights={**YES, "u": LARGE},
    ),
    Case("an output that is an input", "a = Neg(x) y = Abs(a)", outputs="y, x"),
    Case("an output that is a constant", "a = Mul(x, k) y = Neg(a)", outputs="y, k", weights=YES),
    Case("an output that is a large constant", "a = MatMul(x, u) y = Neg(a)", inputs=ROWS, outputs="u, y", weights={"u": LARGE}),
    Case("an output that is computed from constants", "d = Neg(k) a = Mul(x, k) y = Neg(a)", outputs="y, d", weights=YES),
    Case(
        "integers and booleans",
        "s = Shape(x) h = Slice(s, two, four) n = ReduceSum(h) m = Cast <to=1> (n) g = Greater(x, m) r = Not(g) i = ArgMax <axis=1> (x) "
        "w = Where(r, x, m) y = Reshape(w, s)",
        outputs="y, int64 i, int64 s, bool g",
        weights={"two": np.array([2]), "four": np.array([4])},
    ),
    Case("integer inputs", "e = Gather(table, ids) a = Neg(e) y = Abs(a)", inputs="int64[5] ids", weights={"table": (8, 4)}),
    Case("half precision", "h = Cast <to=10> (x) a = Neg(h) b = Abs(a) y = Cast <to=1> (b)"),
    Case(
        "optional inputs",
        "a = Neg(x) b = Clip(a, , k) d = Abs(b) y = Resize(d, , scales)",
        weights={"k": np.float32(0.5), "scales": np.array([1, 1, 2, 2], np.float32)},
    ),
    Case(
        "optional outputs",
        "a = Neg(x) all, h, c = LSTM <hidden_size=8> (a, w, r) b = Squeeze(h, first) y = Neg(b)",
        inputs="float[3,2,16] x",
        weights={"w": (1, 32, 16), "r": (1, 32, 8), "first": np.array([0])},
        unnamed=("all", "c"),
    ),
    Case(
        "several outputs of a node",
        "a, b, d = Split <axis=1> (x, parts) e = Add(a, b) f = Concat <axis=1> (e, d) g = Neg(f) y = Concat <axis=1> (g, a)",
        weights={"parts": np.array([4, 4, 8])},
    ),
    Case("an operator of another domain", "a = Neg(x) b = com.microsoft.Gelu(a) y = Neg(b)"),
]
NAMED = {case.name: case for case in CASES}
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def states(pieces: Pieces, given: Feed, **options: Any) -> Iterator[Tensors]:
    """Yield what a sample has come to behind each piece."""
    tensors: Tensors = dict(given)
    for number in range(len(pieces.pieces)):
        tensors = pieces.open(number, tensors, **options).advanced(tensors)
        yield tensors


def last(pieces: Pieces, given: Feed, **options: Any) -> Tensors:
    return [*states(pieces, given, **options)][-1]


def names(model: onnx.ModelProto) -> list[str]:
    return [node.name for node in model.graph.node]


def given_to(model: onnx.ModelProto, seed: int = 0) -> Feed:
    """Return random indices, or numbers that half precision holds too: ONNX Runtime computes with halves in single precision."""
    arrays = feed(model, seed)
    return {name: np.abs(array) % 5 if array.dtype.kind == "i" else np.rint(8 * array) / 8 for name, array in arrays.items()}


def assert_whole(model: onnx.ModelProto, before: Sequence[str], **options: Any) -> None:
    """Running the pieces one after the other gives what the whole network gives, to the bit, and no more."""
    given = given_to(model)
    outputs = [value.name for value in model.graph.output]
    expected = dict(zip(outputs, run(model, given), strict=True))
    found = last(cut(load(model), dict.fromkeys(before, ())), given, optimize="none", **options)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


# --- the pieces give what the whole gives -----------------------------------------------------------------------------------


@every_case
def test_a_piece_for_each_node_gives_what_the_whole_gives(case: Case) -> None:
    assert_whole(case.network, names(case.network))


@every_case
def test_two_pieces_give_what_the_whole_gives(case: Case) -> None:
    model = case.network
    for name in names(model):
        assert_whole(model, [name])


@every_case
def test_one_piece_gives_what_the_whole_gives(case: Case) -> None:
    assert_whole(case.network, [])


@every_case
def test_optimized_pieces_give_about_the_same(case: Case) -> None:
    model = case.network
    given = given_to(model)
    found = last(cut(load(model), dict.fromkeys(names(model)[::2], ())), given)
    for value, array in zip(model.graph.output, run(model, given, optimize=True), strict=True):
        np.testing.assert_allclose(found[value.name], array, rtol=1e-4, atol=1e-5)


@every_case
def test_the_network_stays_as_it_is(case: Case) -> None:
    model = load(case.network)
    before = serialize(model)
    last(cut(model, dict.fromkeys(names(case.network), ())), given_to(case.network), replaced={"u": np.zeros(LARGE, np.float32)})
    assert serialize(model) == before


def test_pieces_are_runs_of_nodes_that_begin_where_asked() -> None:
    model = NAMED["residual branches"].network
    pieces = cut(load(model), {"d": (), "f": ()})
    assert [[node.name for node in piece.nodes] for piece in pieces.pieces] == [["a", "b"], ["d", "e"], ["f", "g", "y"]]
    assert [piece.inputs for piece in pieces.pieces] == [("x",), ("b",), ("e", "x", "b")]
    assert [piece.outputs for piece in pieces.pieces] == [("b",), ("e",), ("y",)]


def test_before_the_first_node_stands_an_empty_piece() -> None:
    model = NAMED["a chain"].network
    given = given_to(model)
    pieces = cut(load(model), {"a": ()})
    assert [len(piece.nodes) for piece in pieces.pieces] == [0, 4]
    assert pieces.open(0, given).advanced(given) == given


def test_any_number_of_samples_may_go_through_a_piece_at_once() -> None:
    model = NAMED["large constants"].network
    pieces = cut(load(model), {"d": ()})
    feeds = [feed(model, seed, batch=3) for seed in range(8)]
    with ThreadPoolExecutor(4) as executor:
        states: list[Tensors] = [*feeds]
        for number in range(2):
            session = pieces.open(number, states[0], optimize="none")
            states = [*executor.map(session.advanced, states)]
    for state, given in zip(states, feeds, strict=True):
        np.testing.assert_array_equal(state["y"], run(model, given)[0])


def test_a_piece_takes_other_shapes_than_those_of_the_sample_that_it_was_loaded_for() -> None:
    model = network("a = Relu(x) y = Neg(a)", inputs="float[N,M] x")
    pieces = cut(load(model), {"y": ()})
    small, large = feed(model, batch=2), feed(model, batch=7)
    sessions = [pieces.open(0, small), pieces.open(1, {"a": small["x"]})]
    state: Tensors = dict(large)
    for session in sessions:
        state = session.advanced(state)
    np.testing.assert_array_equal(state["y"], run(model, large)[0])


# --- what is held ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "held"),
    [
        ("a chain", [{"x"}, {"a"}, {"b"}, {"d"}, {"y"}]),
        ("residual branches", [{"x"}, {"x", "a"}, {"x", "b"}, {"x", "b", "d"}, {"x", "b", "e"}, {"x", "b", "f"}, {"b", "g"}, {"y"}]),
        (
            "several inputs and outputs",
            [{"x", "z", "u"}, {"x", "a", "z", "u"}, {"x", "b", "u"}, {"x", "b", "u", "y"}, {"u", "y", "s"}, {"y", "s", "q"}],
        ),
        ("an input that nobody reads", [{"x"}, {"a"}, {"y"}]),
        ("a node whose result nobody reads", [{"x"}, {"a"}, {"a"}, {"y"}]),
        ("an output that is an input", [{"x"}, {"x", "a"}, {"x", "y"}]),
        ("a body that reads results, inputs and constants", [{"x"}, {"x", "a"}, {"x", "a", "b"}, {"b", "d"}, {"y"}]),
        ("optional outputs", [{"x"}, {"a"}, {"h"}, {"b"}, {"y"}]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_nobody_reads_any_more_is_let_go_of(case: str, held: list[set[str]]) -> None:
    model = NAMED[case].network
    pieces = cut(load(model), dict.fromkeys(names(model), ()))
    assert [state.keys() for state in states(pieces, given_to(model))] == held


def test_a_sample_stays_as_it_is() -> None:
    model = NAMED["a chain"].network
    given = given_to(model)
    before = dict(given)
    after = cut(load(model), {}).open(0, given).advanced(given)
    assert given == before
    assert after.keys() == {"y"}


def test_nothing_is_loaded_for_a_piece_that_nobody_needs() -> None:
    model = NAMED["a node whose result nobody reads"].network
    pieces = cut(load(model), {"u": (), "y": ()})
    assert [
        pieces.open(number, {"x": np.ones((2, 16, 4, 4), np.float32), "a": np.ones(1, np.float32)}).session is None for number in range(3)
    ] == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("before", "held"),
    [
        pytest.param({"d": ["x"]}, [{"b", "x"}, {"y"}], id="an input"),
        pytest.param({"d": ["a", "x"]}, [{"a", "b", "x"}, {"y"}], id="a result"),
        pytest.param({"b": [], "y": ["a"]}, [{"a"}, {"a", "d"}, {"y"}], id="a result of an earlier piece than the last"),
        pytest.param({"d": ["b"]}, [{"b"}, {"y"}], id="what is read anyway"),
        pytest.param({"b": ["a"], "y": ["a"]}, [{"a"}, {"a", "d"}, {"y"}], id="twice"),
        pytest.param({"a": ["x"]}, [{"x"}, {"y"}], id="before the first node"),
    ],
)
def test_tensors_asked_for_are_at_hand_where_their_piece_begins(before: dict[str, list[str]], held: list[set[str]]) -> None:
    model = NAMED["a chain"].network
    given = given_to(model)
    expected = run_all(model, given)
    found = [*states(cut(load(model), before), given, optimize="none")]
    assert [state.keys() for state in found] == held
    for state in found:
        for name, array in state.items():
            np.testing.assert_array_equal(array, expected[name])


# --- replaced constants ------------------------------------------------------------------------------------------------------


def with_constant(model: onnx.ModelProto, name: str, array: Array) -> onnx.ModelProto:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    tensor = next(tensor for tensor in other.graph.initializer if tensor.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))
    return other


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("constants that pieces share", "k"),
        ("large constants", "u"),
        ("a body that reads results, inputs and constants", "k"),
        ("a large constant in a body", "u"),
        ("an output that is a constant", "k"),
        ("an output that is a large constant", "u"),
    ],
)
def test_a_constant_is_replaced_in_every_piece(case: str, name: str) -> None:
    model = NAMED[case].network
    given = given_to(model)
    pieces = cut(load(model), dict.fromkeys(names(model), ()))
    [shape] = [tuple(tensor.dims) for tensor in model.graph.initializer if tensor.name == name]
    array = np.random.default_rng(5).normal(0.0, 1.0, shape).astype(np.float32)
    found = last(pieces, given, replaced={name: array, "of no piece": array}, optimize="none")
    for value, expected in zip(model.graph.output, run(with_constant(model, name, array), given), strict=True):
        np.testing.assert_array_equal(found[value.name], expected)
    plain = last(pieces, given, optimize="none")
    for value, expected in zip(model.graph.output, run(model, given), strict=True):
        np.testing.assert_array_equal(plain[value.name], expected)


# --- what cannot be ----------------------------------------------------------------------------------------------------------


def test_a_sequence_between_pieces_is_an_error() -> None:
    model = network("s = SplitToSequence(x) n = SequenceLength(s) y = Cast <to=1> (n)", inputs="float[2,3] x")
    assert_whole(model, ["y"])
    with pytest.raises(ModelError, match="tensor 's': found a list between two operators, expected an array"):
        last(cut(load(model), {"n": ()}), given_to(model))


def test_a_piece_that_cannot_be_loaded_is_an_error() -> None:
    model = network("a = Neg(x) y = com.example.Unknown(a)")
    given = given_to(model)
    pieces = cut(load(model), {"y": ()})
    state = pieces.open(0, given).advanced(given)
    with pytest.raises(ModelError, match="Unknown"):
        pieces.open(1, state)
