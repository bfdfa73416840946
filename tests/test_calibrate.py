from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
import pytest
from tests.graph.networks import Array, Feed, feed, network

from zeropoint.calibrate import calibrate
from zeropoint.graph.load import load
from zeropoint.graph.store import serialize
from zeropoint.statistics.channel_sums import observe_channels
from zeropoint.statistics.tensor import EMPTY, TensorStatistic, observe

INPUT = "float[N,16] x"
# Every output element depends on one input element alone, so that a batch of any size computes the same bits.
ELEMENTWISE = network("a = Mul(x, k) r = Relu(a) s = Add(r, x) y = Sub(s, k)", inputs=INPUT, weights={"k": (16,)})
TENSORS = ["x", "a", "r", "s", "y"]
DATA = np.random.default_rng(0).normal(0.0, 2.0, (24, 16)).astype(np.float32)


def run_all(model: onnx.ModelProto, given: Feed) -> dict[str, Array]:
    """Run the network once with all of its tensors as outputs."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    known = {value.name for value in shown.graph.output}
    names = [name for node in shown.graph.node for name in node.output if name]
    shown.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return given | dict(zip(names, session.run(names, given), strict=True))


def batches(sizes: list[int], order: Array | None = None) -> list[Feed]:
    rows = DATA if order is None else DATA[order]
    return [{"x": part} for part in np.split(rows, np.cumsum(sizes)[:-1])]


def statistics(model: onnx.ModelProto, tensors: list[str], feeds: list[Feed]) -> dict[str, TensorStatistic]:
    return dict(calibrate(load(model), tensors, feeds, total=len(feeds)).tensors)


def assert_same(found: dict[str, TensorStatistic], expected: dict[str, TensorStatistic]) -> None:
    assert list(found) == list(expected)
    assert [name for name in found if not found[name].equals(expected[name])] == []


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(ELEMENTWISE, id="elementwise"),
        pytest.param(
            network(
                "a = MatMul(x, w) s, r = Split <axis=1> (a, parts) y = Relu(s)",
                inputs=INPUT,
                weights={"w": (16, 16), "parts": np.array([8, 8])},
            ),
            id="MatMul and Split",
        ),
        pytest.param(network("a = Log(x) y = Exp(a)", inputs=INPUT), id="NaN"),
    ],
)
def test_is_a_plain_loop_over_a_session_that_shows_every_tensor(model: onnx.ModelProto) -> None:
    given = batches([8, 8, 8])
    seen = [run_all(model, one) for one in given]
    expected = {name: observe(np.concatenate([arrays[name] for arrays in seen])) for name in seen[0]}
    assert_same(statistics(model, list(expected), given), expected)


@pytest.mark.parametrize(
    ("sizes", "order"),
    [
        pytest.param([24], None, id="one batch"),
        pytest.param([1] * 24, None, id="a sample at a time"),
        pytest.param([7, 1, 16], None, id="uneven batches"),
        pytest.param([8, 8, 8], np.arange(24)[::-1], id="reversed"),
        pytest.param([5, 19], np.random.default_rng(1).permutation(24), id="shuffled and uneven"),
    ],
)
def test_neither_order_nor_batches_change_a_bit(sizes: list[int], order: Array | None) -> None:
    assert_same(statistics(ELEMENTWISE, TENSORS, batches(sizes, order)), statistics(ELEMENTWISE, TENSORS, batches([12, 12])))


def test_a_feed_left_out_shows() -> None:
    whole, part = (statistics(ELEMENTWISE, TENSORS, feeds) for feeds in (batches([12, 12]), batches([12, 12])[:1]))
    assert all(whole[name].count == 2 * part[name].count for name in TENSORS)
    assert not any(whole[name].equals(part[name]) for name in TENSORS)


def test_inputs_alone_need_no_run() -> None:
    found = statistics(network("y = Conv(x, w)"), ["x"], [feed(network("y = Conv(x, w)"), seed) for seed in range(3)])
    arrays = [feed(network("y = Conv(x, w)"), seed)["x"] for seed in range(3)]
    assert_same(found, {"x": observe(np.concatenate(arrays))})


def test_no_tensors_give_no_statistics() -> None:
    assert statistics(ELEMENTWISE, [], batches([24])) == {}


def test_no_feeds_give_empty_statistics() -> None:
    assert_same(statistics(ELEMENTWISE, ["x", "r"], []), {"x": EMPTY, "r": EMPTY})


def test_outputs_are_tensors_like_any_other() -> None:
    expected = observe(run_all(ELEMENTWISE, {"x": DATA})["y"])
    assert statistics(ELEMENTWISE, ["y"], batches([24]))["y"].equals(expected)


def test_channel_means_are_taken_where_asked_for() -> None:
    seen = calibrate(load(ELEMENTWISE), ["x"], batches([8, 16]), channel_axes=[("a", 1), ("x", 1), ("x", -1)], total=2)
    arrays = run_all(ELEMENTWISE, {"x": DATA})
    assert set(seen.tensors) == {"x"}
    assert set(seen.channels) == {("a", 1), ("x", 1), ("x", -1)}
    assert all(sums.equals(observe_channels(arrays[name], axis)) for (name, axis), sums in seen.channels.items())


def test_the_network_and_the_feeds_stay_as_they_are() -> None:
    model, given = load(ELEMENTWISE), batches([12, 12])
    before = serialize(model)
    copies = [one["x"].copy() for one in given]
    calibrate(model, TENSORS, given, total=2)
    assert serialize(model) == before
    assert all(np.array_equal(one["x"], copy) for one, copy in zip(given, copies, strict=True))


def test_feeds_are_read_one_by_one_and_progress_is_told_after_each() -> None:
    told: list[tuple[str, int, int]] = []

    def lazy() -> Iterator[Feed]:
        for done, one in enumerate(batches([8, 8, 8])):
            assert len(told) == done
            yield one

    calibrate(load(ELEMENTWISE), ["r"], lazy(), total=3, progress=lambda stage, done, total: told.append((stage, done, total)))
    assert told == [("calibrating", done, 3) for done in (1, 2, 3)]
