from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.parser import parse_model

from zeropoint.errors import ModelError
from zeropoint.graph import facts
from zeropoint.graph.facts import Fact, capture_facts
from zeropoint.graph.load import load
from zeropoint.graph.prepare import prepare
from zeropoint.graph.store import open_proto, serialize
from zeropoint.runtime.onnxruntime import Session

Array = np.ndarray[Any, Any]
IMAGE = np.linspace(-1, 1, 2 * 3 * 5 * 4, dtype=np.float32).reshape(2, 3, 5, 4)
IMAGES = "float[N, 3, H, W] y"
IDS = np.array([[1, 0, 2]])


def network(nodes: str, constants: str = "float[3, 1, 1] w = {1, 2, 3}", *, outputs: str = IMAGES) -> onnx.ModelProto:
    return parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> net (float[N, 3, H, W] x, int64[B, T] ids) => ({outputs}) <{constants}> {{ {nodes} }}'
    )


def run_all(proto: onnx.ModelProto, feed: dict[str, Array]) -> dict[str, Any]:
    """Every tensor of the main graph, by ONNX Runtime: the oracle."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(proto)
    del tapped.graph.output[:]
    names = [name for node in proto.graph.node for name in node.output if name]
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(tapped.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return {**feed, **dict(zip(names, session.run(names, feed), strict=True))}


NETWORKS = {
    "arithmetic": ("a = Mul(x, w) b = Relu(a) y = Neg(b)", IMAGES),
    "shapes that depend on data": ("a = NonZero(x) s = Shape(x) e = Expand(w, s) y = Add(x, e)", IMAGES),
    "other types": ("a = Cast<to = 10>(x) b = Less(x, w) c = Cast<to = 11>(x) y = Identity(x) d = Mul(ids, ids)", IMAGES),
    "scalars": ("a = ReduceSum<keepdims = 0>(x) b = Size(x) y = Div(x, a)", IMAGES),
    "left out outputs": ("y, , i = LayerNormalization(x, v)", IMAGES),
    "several outputs": ("a, b = TopK(x, k) y = Neg(x)", IMAGES),
    "nothing in it": ("a = Slice(x, zero, zero) b = Neg(a) y = Neg(x)", IMAGES),
    "two outputs": ("a = Neg(x) y = Relu(a) z = Neg(ids)", f"{IMAGES}, int64[B, T] z"),
    "text": ("a = Cast<to = 8>(x) y = Neg(x)", f"{IMAGES}, string[N, 3, H, W] a"),
    "bodies": (
        "a = If(yes) <then_branch = t () => (float[N, 3, H, W] t1) { t0 = Neg(x) t1 = Abs(t0) }, "
        "else_branch = e () => (float[N, 3, H, W] e1) { e1 = Identity(x) }> y = Neg(a)", IMAGES),
}  # fmt: skip
CONSTANTS = "float[3, 1, 1] w = {1, 2, 3}, float[4] v = {1, 2, 3, 4}, int64[1] k = {2}, int64[1] zero = {0}, bool yes = {1}"


@pytest.mark.parametrize(("nodes", "outputs"), NETWORKS.values(), ids=NETWORKS)
def test_facts_are_what_running_shows(nodes: str, outputs: str) -> None:
    proto = network(nodes, CONSTANTS, outputs=outputs)
    feed = {"x": IMAGE, "ids": IDS}
    expected = {name: Fact(array.dtype, array.shape) for name, array in run_all(proto, feed).items()}
    expected |= {t.name: Fact(onnx.numpy_helper.to_array(t).dtype, tuple(t.dims)) for t in proto.graph.initializer}
    assert capture_facts(load(proto), feed) == expected


OPAQUE = {
    "sequence": ("s = SequenceConstruct(x, x) i = Constant<value = int64 {1}>() y = SequenceAt(s, i)", {"s"}),
    "sequence of splits": ("s = SplitToSequence<axis = 0>(x) i = Constant<value = int64 {0}>() y = SequenceAt(s, i)", {"s"}),
    "optional": ("o = Optional(x) y = OptionalGetElement(o)", set()),
}


@pytest.mark.parametrize(("nodes", "opaque"), OPAQUE.values(), ids=OPAQUE)
def test_sequences_and_optionals_have_no_facts_and_do_no_harm(nodes: str, opaque: set[str]) -> None:
    found = capture_facts(load(network(nodes)), {"x": IMAGE, "ids": IDS})
    assert opaque.isdisjoint(found)
    assert {"x", "y", "w"} <= set(found)


def test_sequences_as_outputs_do_no_harm() -> None:
    proto = network("y = SequenceConstruct(x, x)", outputs="seq(float[N, 3, H, W]) y")
    assert set(capture_facts(load(proto), {"x": IMAGE, "ids": IDS})) == {"x", "ids", "w"}


def test_facts_follow_the_feed() -> None:
    model = load(network("y = Mul(x, w)"))
    for batch in (1, 3):
        found = capture_facts(model, {"x": np.zeros((batch, 3, 2, 7), np.float32), "ids": IDS})
        assert found["y"] == Fact(np.dtype(np.float32), (batch, 3, 2, 7))


def test_facts_of_a_prepared_network() -> None:
    model = load(network("k = Constant<value = float {2}>() a = Mul(x, k) y = Identity(a)"))
    prepare(model)
    found = capture_facts(model, {"x": IMAGE, "ids": IDS})
    assert {name: fact.shape for name, fact in found.items()} == {"x": IMAGE.shape, "ids": IDS.shape, "y": IMAGE.shape, "k": ()}


def test_capturing_leaves_the_network_and_the_feed_alone() -> None:
    model = load(network("a = Neg(x) y = Mul(a, w)"))
    before, image = serialize(model), IMAGE.copy()
    image.flags.writeable = False
    capture_facts(model, {"x": image, "ids": IDS})
    assert serialize(model) == before


def test_weights_that_an_operator_will_have_constant_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those above some kilobytes are inputs at first, which is cheaper."""
    # Where NonZero finds something only a run tells.
    proto = network("a = MatMul(x, large) y = Mul(a, w) z = NonZero(x)", "float[3, 1, 1] w = {1, 2, 3}")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 2000), np.float32), "large"))
    expected = capture_facts(load(proto), {"x": IMAGE, "ids": IDS})
    assert expected["y"].shape == (2, 3, 5, 2000)
    opened = []

    def picky(*given: Any, **options: Any) -> Session:
        opened.append(options.get("single_run", False))
        if options.get("single_run"):
            raise ModelError("the weight must be constant")
        return open_proto(*given, **options)

    monkeypatch.setattr(facts, "open_proto", picky)
    assert capture_facts(load(proto), {"x": IMAGE, "ids": IDS}) == expected
    assert opened == [True, False]


def test_a_feed_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"cannot run the model on x float32 \(2, 3, 5, 4\)"):
        capture_facts(load(network("a = Cast<to = 1>(ids) y = Add(x, a)")), {"x": IMAGE, "ids": IDS})


INFERRED = {
    "a network of fixed operators": ("a = Neg(x) y = Mul(a, w)", True),
    "a shape that is computed": ("s = Shape(x) r = Reshape(x, s) y = Mul(r, w)", True),
    "a shape in the data": ("z = NonZero(x) y = Mul(x, w)", False),
    "an operator of another domain": ("g = com.microsoft.Gelu(x) y = Mul(g, w)", False),
}


@pytest.mark.parametrize(("nodes", "inferred"), INFERRED.values(), ids=INFERRED)
def test_a_run_is_spared_where_inference_finds_all(nodes: str, inferred: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it finds is what the run shows."""
    model = load(network(nodes))
    given = {"x": IMAGE, "ids": IDS}
    ran = []

    def spied(*arguments: Any, **options: Any) -> Session:
        ran.append(options)
        return open_proto(*arguments, **options)

    monkeypatch.setattr(facts, "open_proto", spied)
    found = capture_facts(model, given)
    assert bool(ran) != inferred
    monkeypatch.setattr(facts, "_whole_fact", lambda _: None)
    assert capture_facts(model, given) == found
