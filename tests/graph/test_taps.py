from __future__ import annotations

import pickle
import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from tests.graph.networks import Array, feed, network, run_all

from zeropoint.errors import ModelError, RecipeError
from zeropoint.graph.facts import capture_facts
from zeropoint.graph.load import load
from zeropoint.graph.store import serialize
from zeropoint.graph.taps import Tapped, Taps, divide, peak_bytes, tap

SIZES = (2, 3, 4, 5, 6)
ULP = 2.0**-23


def tapped(model: onnx.ModelProto, taps: Taps, seed: int = 0) -> Tapped:
    loaded = load(model)
    return tap(loaded, taps, capture_facts(loaded, feed(model, seed)))


@dataclass(frozen=True)
class Shown:
    """What a run let out, as arrays of any kind."""

    tensors: dict[str, Array]
    channels: dict[tuple[str, int], Array]


def seen(model: onnx.ModelProto, taps: Taps, seed: int = 0) -> Shown:
    found = tapped(model, taps, seed).open(threads=1).run(feed(model, seed))
    return Shown(dict(found.tensors), dict(found.channels))


def operators(network: Tapped) -> list[str]:
    assert isinstance(network.content, bytes)
    return [node.op_type for node in onnx.load_from_string(network.content).graph.node]


def body(then: str, otherwise: str) -> str:
    return f"If(c) <then_branch = t () => (float t1) {{ {then} }}, else_branch = e () => (float e1) {{ {otherwise} }}>"


# --- whole tensors, against a session that shows every tensor --------------------------------------------------------------

YES: dict[str, object] = {"c": np.array(True), "k": (16, 8, 8)}
TENSORS: dict[str, tuple[str, dict[str, object], tuple[str, ...]]] = {
    "in the middle": ("a = Mul(x, k) b = Relu(a) y = Neg(b)", YES, ("b", "a")),
    "an output": ("a = Mul(x, k) y = Neg(a)", YES, ("y",)),
    "an output that others read": ("a = Mul(x, k) y = Neg(a) z = Abs(y)", YES, ("y", "z")),
    "an input": ("a = Mul(x, k) y = Neg(a)", YES, ("x",)),
    "an input beside results": ("a = Mul(x, k) y = Neg(a)", YES, ("x", "a", "y")),
    "one of several outputs of a node": ("a, b = Split <axis = 1> (x, parts) y = Neg(b)", {"parts": np.array([6, 10])}, ("b",)),
    "an operator with a body": (f"a = {body('t0 = Neg(x) t1 = Abs(t0)', 'e1 = Identity(x)')} y = Neg(a)", YES, ("a", "y")),
    "what only a body reads": (f"b = Mul(x, k) a = {body('t1 = Abs(b)', 'e1 = Identity(x)')} y = Neg(a)", YES, ("a", "b")),
    "what a body gives out as it is": (f"b = Mul(x, k) a = {body('t1 = Identity(b)', 'e1 = Neg(b)')} y = Neg(a)", YES, ("a",)),
    "computed from constants": ("b = Relu(k) y = Add(x, b)", YES, ("b", "y")),
    "an Identity": ("a = Mul(x, k) b = Identity(a) y = Neg(b)", YES, ("a", "b")),
    "a cast": ("a = Cast <to = 1> (x) y = Neg(a)", YES, ("a",)),
}


@pytest.mark.parametrize(("nodes", "weights", "taps"), TENSORS.values(), ids=TENSORS)
def test_tensors_are_those_of_a_session_that_shows_all(nodes: str, weights: dict[str, object], taps: tuple[str, ...]) -> None:
    model = network(nodes, weights=weights)
    expected = run_all(model, feed(model))
    found = seen(model, Taps(taps)).tensors
    assert tuple(found) == taps
    for name in taps:
        np.testing.assert_array_equal(found[name], expected[name], strict=True)


def test_the_taps_are_the_only_outputs() -> None:
    network_ = tapped(network("a = Mul(x, k) b = Relu(a) y = Neg(b)", weights=YES), Taps(("x", "b", "a")))
    session = network_.open().session
    assert session is not None
    assert session.outputs == ("b", "a")
    assert network_.taps == Taps(("x", "b", "a"))


LARGE = (64, 64)
CHAIN = network("a = MatMul(x, u) b = Relu(a) y = MatMul(b, v)", inputs="float[N,64] x", weights={"u": LARGE, "v": LARGE})


@pytest.mark.parametrize(
    ("taps", "nodes", "weights"),
    [
        (Taps(("a",)), ["MatMul"], {"u"}),
        (Taps(("x", "b")), ["MatMul", "Relu"], {"u"}),
        (Taps(("y",)), ["MatMul", "Relu", "MatMul"], {"u", "v"}),
        (Taps((), (("b", 1),)), ["MatMul", "Relu"], {"u"}),
    ],
    ids=["the first", "an input and the middle", "all", "means"],
)
def test_what_the_taps_do_not_need_is_taken_out(taps: Taps, nodes: list[str], weights: set[str]) -> None:
    model = load(CHAIN.SerializeToString())
    found = tap(model, taps, capture_facts(model, feed(CHAIN)))
    assert operators(found) == nodes
    assert set(found.weights) == weights  # these are large, and handed over where they lie


@pytest.mark.parametrize("taps", [Taps(("x",)), Taps(("x",), (("x", 1), ("x", -1))), Taps(())], ids=["input", "its means", "none"])
def test_inputs_alone_need_no_session(taps: Taps) -> None:
    found = tapped(CHAIN, taps)
    assert found.content is None
    session = found.open(provider="no such provider")
    assert session.session is None
    given = feed(CHAIN)
    assert dict(session.run(given).tensors) == {name: given["x"] for name in taps.tensors}
    assert all(means is given["x"] for means in session.run(given).channels.values())


def test_the_network_stays_as_it_is() -> None:
    model = load(CHAIN)
    before = serialize(model)
    facts = capture_facts(model, feed(CHAIN))
    tap(model, Taps(("a",), (("b", 1), ("y", -1))), facts)
    assert serialize(model) == before


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_session_that_cannot_be_opened_is_an_error() -> None:
    with pytest.raises(ModelError, match="no such provider"):
        tapped(CHAIN, Taps(("a",))).open(provider="no such provider")


# --- means of channels, against numpy --------------------------------------------------------------------------------------


def slow_means(array: Array, axis: int) -> Array:
    """One row for each entry along axis 0: the mean of each channel, of exact sums."""
    moved = np.moveaxis(array.astype(np.float64), axis, 1)
    return np.array([[np.mean(moved[n, c]) for c in range(moved.shape[1])] for n in range(moved.shape[0])])


MEANS = [(rank, axis) for rank in (2, 3, 4, 5) for axis in (1, -1, rank - 1, 1 - rank)]


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
@pytest.mark.parametrize("what", ["an input", "a result"])
@pytest.mark.parametrize(("rank", "axis"), list(dict.fromkeys(MEANS)), ids="{}".format)
def test_means_are_those_of_each_entry_along_axis_0(rank: int, axis: int, what: str, opset: int) -> None:
    shape = ",".join(map(str, SIZES[:rank]))
    model = network("a = Mul(x, k) y = Relu(a)", inputs=f"float[{shape}] x", weights={"k": (1,)}, opset=opset)
    name = "x" if what == "an input" else "a"
    [(key, found)] = seen(model, Taps((), ((name, axis),))).channels.items()
    assert key == (name, axis)
    array = run_all(model, feed(model))[name]
    expected = slow_means(array, axis)
    assert (found.shape, found.dtype) == (expected.shape, np.float32)
    np.testing.assert_allclose(found, expected, rtol=0, atol=16 * ULP * np.abs(array).max())


@pytest.mark.parametrize("axis", [4, -5, 17])
def test_an_axis_that_is_not_there_is_an_error(axis: int) -> None:
    with pytest.raises(RecipeError, match=rf"axis.*{axis}"):
        tapped(network("y = Relu(x)"), Taps((), (("x", axis),)))


def test_means_of_one_tensor_along_two_axes_beside_the_tensor() -> None:
    model = network("a = Mul(x, k) y = Relu(a)", inputs="float[2,3,4] x", weights={"k": (3, 4)})
    found = seen(model, Taps(("y", "a"), (("a", 1), ("a", 2), ("y", 1))))
    arrays = run_all(model, feed(model))
    assert list(found.channels) == [("a", 1), ("a", 2), ("y", 1)]
    for (name, axis), rows in found.channels.items():
        np.testing.assert_allclose(rows, slow_means(arrays[name], axis), rtol=0, atol=4 * ULP * np.abs(arrays[name]).max())
    np.testing.assert_array_equal(found.tensors["a"], arrays["a"])


def test_means_alone_let_no_tensor_out() -> None:
    found = seen(network("a = Relu(x) y = Neg(a)"), Taps((), (("a", 1),)))
    assert dict(found.tensors) == {}
    assert found.channels["a", 1].shape == (1, 16)


NAMES = {
    "a result": "channel_means_0 = Neg(x) y = Relu(channel_means_0)",
    "a constant": "a = Mul(x, channel_means_0) y = Relu(a)",
    "the first two": "channel_means_0 = Neg(x) channel_means_1 = Neg(channel_means_0) y = Relu(channel_means_1)",
    "axes": "channel_means_0_axes = Neg(x) y = Relu(channel_means_0_axes)",
    "within a body": (
        "a = If(c) <then_branch = t () => (float channel_means_0) { channel_means_0 = Abs(x) }, "
        "else_branch = e () => (float e1) { e1 = Identity(x) }> y = Relu(a)"
    ),
}


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("nodes", NAMES.values(), ids=NAMES)
def test_a_name_that_is_taken_is_left_alone(nodes: str, opset: int) -> None:
    model = network(nodes, weights={"channel_means_0": (16, 8, 8), "c": np.array(True)}, opset=opset)
    found = seen(model, Taps(("y",), (("x", 1), ("y", 1))))
    arrays = run_all(model, feed(model))
    np.testing.assert_array_equal(found.tensors["y"], arrays["y"])
    for (name, axis), rows in found.channels.items():
        np.testing.assert_allclose(rows, slow_means(arrays[name], axis), rtol=0, atol=16 * ULP * np.abs(arrays[name]).max())


def test_an_input_of_that_name_is_left_alone() -> None:
    model = network("y = Relu(channel_means_0)", inputs="float[1,16,8,8] channel_means_0")
    rows = seen(model, Taps((), (("channel_means_0", 1),))).channels["channel_means_0", 1]
    np.testing.assert_allclose(rows, slow_means(feed(model)["channel_means_0"], 1), rtol=0, atol=16 * ULP * 4)


# --- taps as sets ----------------------------------------------------------------------------------------------------------


def test_taps_are_joined_in_order_each_once_and_taken_away_again() -> None:
    a, b = Taps(("x", "y"), (("x", 1),)), Taps(("y", "z"), (("x", 1), ("x", -1)))
    assert a.with_(b) == Taps(("x", "y", "z"), (("x", 1), ("x", -1)))
    assert a.with_(b).less(a) == Taps(("z",), (("x", -1),))
    assert a.less(a) == Taps(())


# --- divide ----------------------------------------------------------------------------------------------------------------

SQUARE: dict[str, object] = {"w": (16, 16, 3, 3), "v": (16, 16, 1, 1), "b": (16,), "k": (16, 8, 8)}
CONV = "Conv <pads = [1, 1, 1, 1]> (x, w, b)"
FUSED: dict[str, str] = {
    "Conv, Add and Relu": f"d = Conv(x, v) a = {CONV} s = Add(a, d) r = Relu(s) y = Conv(r, v)",
    "Conv and Relu": f"a = {CONV} r = Relu(a) y = Conv(r, v)",
    "Conv and Mul": f"a = {CONV} r = Mul(a, f) y = Conv(r, v)",
    "Conv and Sigmoid": f"a = {CONV} g = Sigmoid(a) r = Mul(a, g) y = Conv(r, v)",
    "an If between": f"a = {CONV} r = {body('t1 = Relu(a)', 'e1 = Neg(a)')} y = Conv(r, v)",
    "constants to be folded": f"a = {CONV} h = Relu(k) r = Add(a, h) y = Conv(r, v)",
}


def names(model: onnx.ModelProto) -> tuple[str, ...]:
    return tuple(name for node in model.graph.node for name in node.output)


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("nodes", FUSED.values(), ids=FUSED)
def test_parts_have_the_bits_of_the_whole(nodes: str, opset: int, tmp_path: Path) -> None:
    model = network(nodes, weights={**SQUARE, "c": np.array(True), "f": (16, 1, 1)}, opset=opset)
    tensors = ("x", *names(model))
    whole = tapped(model, Taps(tensors, (("x", 1), ("r", 1), ("r", -1))))
    alone = [Taps((tensor,), tuple(c for c in whole.means if c[0] == tensor)) for tensor in tensors]
    given = feed(model, 3)
    expected = whole.open(threads=1).run(given)
    for groups in (alone, [whole.taps], [Taps(tensors[::2]), Taps(tensors[1::2], tuple(whole.means))]):
        folder = tmp_path / str(len(groups))
        folder.mkdir()
        parts = divide(whole, groups, folder)
        assert [part.taps for part in parts] == groups
        for part in parts:
            found = part.open(threads=2).run(given)
            assert (tuple(found.tensors), tuple(found.channels)) == (part.taps.tensors, part.taps.channels)
            for name, array in found.tensors.items():
                np.testing.assert_array_equal(array, expected.tensors[name], strict=True)
            for key, rows in found.channels.items():
                np.testing.assert_array_equal(rows, expected.channels[key], strict=True)


@pytest.mark.parametrize("case", ["Conv, Add and Relu", "Conv and Mul"])
def test_tapping_less_would_change_bits_where_dividing_does_not(case: str) -> None:
    """What the test above guards against is there: ONNX Runtime fuses where nothing between two operators is an output."""
    model = network(FUSED[case], weights={**SQUARE, "f": (16, 1, 1)})
    whole, part = (seen(model, Taps(taps), 3).tensors["r"] for taps in (("a", "r"), ("r",)))
    if platform.machine() == "x86_64":
        assert not np.array_equal(whole, part)
    np.testing.assert_allclose(whole, part, rtol=0, atol=64 * ULP * np.abs(whole).max())


def test_parts_compute_no_more_than_they_need(tmp_path: Path) -> None:
    first, last, only_input = divide(tapped(CHAIN, Taps(("x", "a", "y"))), [Taps(("a",)), Taps(("y",)), Taps(("x",))], tmp_path)
    assert isinstance(first.content, Path)
    assert isinstance(last.content, Path)
    count = [len(onnx.load(part, load_external_data=False).graph.node) for part in (first.content, last.content)]
    assert count[0] < count[1]
    assert only_input.content is None


def test_inputs_alone_are_divided_without_a_network(tmp_path: Path) -> None:
    model = network("y = Add(x, z)", inputs="float[2,3] x, float[2,3] z")
    whole = tapped(model, Taps(("x", "z"), (("x", 1), ("z", 1))))
    groups = [Taps(("x",), (("x", 1),)), Taps(("z",), (("z", 1),))]
    parts = divide(whole, groups, tmp_path)
    assert [part.taps for part in parts] == groups
    assert list(tmp_path.iterdir()) == []
    given = feed(model)
    for part, name in zip(parts, "xz", strict=True):
        assert part.open().run(given).tensors[name] is given[name]


def test_any_number_of_threads_may_run_a_part_and_it_can_be_pickled(tmp_path: Path) -> None:
    [part] = divide(tapped(CHAIN, Taps(("y",))), [Taps(("y",))], tmp_path)
    session = pickle.loads(pickle.dumps(part)).open(threads=1)
    feeds = [feed(CHAIN, seed, batch=5) for seed in range(8)]
    expected = [session.run(one).tensors["y"] for one in feeds]
    with ThreadPoolExecutor(4) as executor:
        for found, one in zip(executor.map(session.run, feeds), expected, strict=True):
            np.testing.assert_array_equal(found.tensors["y"], one)


# --- peak_bytes, against a simulation --------------------------------------------------------------------------------------


def simulated_peak(model: ir.Model, sizes: dict[str, int], kept: Sequence[str]) -> int:
    """For each node, all that is alive while it runs: the inputs, what was made by then, less what no later node reads."""
    nodes = list(model.graph)
    inputs = [str(value.name) for value in model.graph.inputs]
    made = {str(value.name): number for number, node in enumerate(nodes) for value in node.outputs}
    last = {name: number for number, node in enumerate(nodes) for name in (str(v.name) for v in node.inputs if v is not None)}
    peaks = [sum(sizes[name] for name in inputs)]
    for number in range(len(nodes)):
        alive = [n for n, born in made.items() if born <= number and (n in kept or max(last.get(n, 0), born) >= number)]
        peaks.append(sum(sizes[name] for name in [*inputs, *alive]))
    return max(peaks)


PEAKS: dict[str, str] = {
    "a chain": "a = Neg(x) b = Neg(a) c = Neg(b) y = Neg(c)",
    "a tensor read late": "a = Neg(x) b = Neg(a) c = Concat <axis = 1> (b, b, b) d = ReduceMean <axes = [1]> (c) y = Add(d, a)",
    "a tensor read twice by one node": "a = Neg(x) b = Mul(a, a) c = Neg(b) d = Concat <axis = 1> (c, c, c) y = Neg(d)",
    "a result that nothing reads": "a, n = Split <axis = 1> (x, parts) b = Neg(a) y = Concat <axis = 1> (b, b, b, b)",
    "an output that others read": "y = Neg(x) z = Neg(y) q = Concat <axis = 1> (z, z)",
    "a large one first": "a = Concat <axis = 1> (x, x, x, x, x) b = ReduceMean <axes = [1]> (a) c = Neg(b) y = Neg(c)",
}


@pytest.mark.parametrize("kept", ["none", "first", "all"])
@pytest.mark.parametrize("nodes", PEAKS.values(), ids=PEAKS)
def test_peak_is_that_of_a_simulation(nodes: str, kept: str) -> None:
    proto = network(nodes, weights={"parts": np.array([6, 10])})
    model = load(proto)
    facts = capture_facts(model, feed(proto))
    sizes: dict[str, Any] = {name: int(np.prod(fact.shape)) * fact.dtype.itemsize for name, fact in facts.items()}
    tensors = names(proto)
    stay = {"none": (), "first": tensors[:1], "all": tensors}[kept]
    assert peak_bytes(model, facts, frozenset(stay)) == simulated_peak(model, sizes, stay)


def test_what_a_body_reads_is_taken_to_stay() -> None:
    """An estimate may be too high, not too low."""
    proto = network(f"b = Neg(x) a = {body('t1 = Abs(b)', 'e1 = Identity(x)')} z = Neg(a) y = Neg(z)", weights=YES)
    model = load(proto)
    facts = capture_facts(model, feed(proto))
    assert peak_bytes(model, facts, frozenset()) >= 3 * feed(proto)["x"].nbytes


def test_tensors_of_unknown_shape_count_nothing() -> None:
    model = load(network("a = Neg(x) y = Neg(a)"))
    facts = capture_facts(model, feed(network("a = Neg(x) y = Neg(a)")))
    assert peak_bytes(model, {"x": facts["x"]}, frozenset()) == 16 * 8 * 8 * 4
