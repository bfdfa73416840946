from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from tests.graph.networks import Array, Feed, feed, network, run, run_all

from zeropoint.graph.detours import with_detours
from zeropoint.graph.load import load
from zeropoint.graph.store import serialize
from zeropoint.plan import Reader

IMAGE = "float[2,16,4,4] x"
Sites = Mapping[str, tuple[Reader, ...]]


def reads(*places: str) -> tuple[Reader, ...]:
    return tuple(Reader(place.split(".")[0], int(place.split(".")[1])) for place in places)


def by_hand(model: onnx.ModelProto, sites: Sites) -> onnx.ModelProto:
    """The oracle: the same network, written out with an input for each site, which the readers name."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    nodes = {node.name: node for node in other.graph.node}
    for tensor, readers in sites.items():
        other.graph.input.append(onnx.ValueInfoProto(name=f"instead of {tensor}"))
        for reader in readers:
            nodes[reader.node].input[reader.input] = f"instead of {tensor}"
    return other


def with_types(model: onnx.ModelProto, arrays: Mapping[str, Array]) -> onnx.ModelProto:
    """Write the types of inputs into the network, which ONNX Runtime asks for."""
    for value in model.graph.input:
        array = arrays[value.name]
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape))
    return model


def assert_detours(model: onnx.ModelProto, sites: Sites) -> None:
    """The readers see other numbers, where they are given some, and what the tensor holds, where they are given that."""
    plain = load(model)
    before = serialize(plain)
    detoured, names = with_detours(plain, sites)
    assert serialize(plain) == before
    assert [*names] == [*sites]
    assert len({*names.values()}) == len(sites)
    given = feed(model)
    tensors = run_all(model, given)
    others: Feed = {tensor: np.ascontiguousarray(np.asarray(tensors[tensor])[::-1]) for tensor in sites}
    outputs = [value.name for value in model.graph.output]
    for seen in ({tensor: np.asarray(tensors[tensor]) for tensor in sites}, others):
        ours: Feed = {**given, **{names[tensor]: array for tensor, array in seen.items()}}
        theirs: Feed = {**given, **{f"instead of {tensor}": array for tensor, array in seen.items()}}
        found = run(with_types(onnx.load_from_string(serialize(detoured)), ours), ours)
        expected = run(with_types(by_hand(model, sites), theirs), theirs)
        for name, mine, their in zip(outputs, found, expected, strict=True):
            np.testing.assert_array_equal(mine, their)
            if seen is not others:
                np.testing.assert_array_equal(mine, tensors[name])


CASES: dict[str, tuple[str, str, str, Sites]] = {
    "one reader of several": ("a = Relu(x) b = Neg(a) c = Abs(a) y = Sub(b, c)", IMAGE, "y", {"a": reads("c.0")}),
    "all readers": ("a = Relu(x) b = Neg(a) c = Abs(a) y = Sub(b, c)", IMAGE, "y", {"a": reads("b.0", "c.0")}),
    "one of two inputs of a node": ("a = Relu(x) y = Sub(a, a)", IMAGE, "y", {"a": reads("y.1")}),
    "both inputs of a node": ("a = Relu(x) y = Sub(a, a)", IMAGE, "y", {"a": reads("y.0", "y.1")}),
    "an input": ("a = Neg(x) b = Exp(x) y = Sub(a, b)", IMAGE, "y", {"x": reads("a.0")}),
    "one of several outputs of a node": ("a, b = Split <axis=1> (x) y = Sub(a, b)", IMAGE, "y", {"b": reads("y.1")}),
    "several tensors": ("a = Relu(x) b = Exp(a) y = Sub(b, a)", IMAGE, "y", {"b": reads("y.0"), "x": reads("a.0"), "a": reads("y.1")}),
    "an output, which stays": ("a = Exp(x) y = Neg(a) z = Abs(a)", IMAGE, "a, y, z", {"a": reads("z.0")}),
    "a tensor of integers": ("s = Shape(x) i = Cast <to=1> (s) y = Neg(i)", IMAGE, "y", {"s": reads("i.0")}),
    "a tensor that a body reads too": (
        "a = Neg(x) d = If (c) <then_branch = t () => (float[2,16,4,4] t1) { t1 = Abs(a) }, "
        "else_branch = e () => (float[2,16,4,4] e1) { e1 = Neg(a) }> y = Add(d, a)",
        IMAGE,
        "y",
        {"a": reads("y.1")},
    ),
    "no tensors": ("a = Relu(x) y = Neg(a)", IMAGE, "y", {}),
    "names that are taken by results": (
        "detour_0 = Relu(x) detour_2 = Neg(detour_0) y = Sub(detour_2, x)",
        IMAGE,
        "y",
        {"detour_0": reads("detour_2.0"), "x": reads("y.1")},
    ),
    "a name that is taken by an input": ("a = Neg(detour_0) y = Sub(a, detour_0)", "float[2,3] detour_0", "y", {"detour_0": reads("y.1")}),
    "a name that is taken by a constant": ("a = Mul(x, detour_0) y = Sub(a, detour_1)", IMAGE, "y", {"a": reads("y.0")}),
    "names that are taken within a body": (
        "a = Neg(x) d = If (c) <then_branch = t () => (float[2,16,4,4] t1) { detour_0 = Abs(a) t1 = Neg(detour_0) }, "
        "else_branch = e () => (float[2,16,4,4] detour_1) { detour_1 = Neg(a) }> y = Add(d, a)",
        IMAGE,
        "y",
        {"a": reads("y.1"), "d": reads("y.0")},
    ),
}


@pytest.mark.parametrize(("body", "inputs", "outputs", "sites"), CASES.values(), ids=CASES)
def test_readers_read_what_they_are_given_instead(body: str, inputs: str, outputs: str, sites: Sites) -> None:
    weights = {"c": np.array(True), "detour_0": (16, 4, 4), "detour_1": (16, 4, 4)}
    assert_detours(network(body, inputs=inputs, outputs=outputs, weights=weights), sites)


@pytest.mark.parametrize("case", [name for name in CASES if name.startswith(("a name", "names"))])
def test_new_names_are_free(case: str) -> None:
    body, inputs, outputs, sites = CASES[case]
    weights = {"c": np.array(True), "detour_0": (16, 4, 4), "detour_1": (16, 4, 4)}
    _, names = with_detours(load(network(body, inputs=inputs, outputs=outputs, weights=weights)), sites)
    assert not any(name in body + inputs for name in names.values())
