from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from tests.graph.networks import feed, network, run_all

from zeropoint.graph.load import load
from zeropoint.graph.sources import sources
from zeropoint.statistics.tensor import merge, observe

SHAPE = np.array([2, -1])
CASES: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "computed": ("a = Relu(x) y = Neg(a)", {"a": ("a",), "y": ("y",)}),
    "reordered": ("a = Relu(x) b = Transpose(a) y = Reshape(b, k)", {"a": ("a",), "b": ("a",), "y": ("a",)}),
    "reordered, from what is not among them": ("a = Relu(x) y = Transpose(a)", {"y": ("y",)}),
    "an input reordered": ("y = Flatten(x)", {"x": ("x",), "y": ("x",)}),
    "joined": ("a = Relu(x) b = Neg(x) y = Concat <axis = 1> (a, b)", {"a": ("a",), "b": ("b",), "y": ("a", "b")}),
    "joined with itself": ("a = Relu(x) y = Concat <axis = 0> (a, a)", {"a": ("a",), "y": ("a", "a")}),
    "joined, one of them not among them": ("a = Relu(x) b = Neg(x) y = Concat <axis = 1> (a, b)", {"a": ("a",), "y": ("y",)}),
    "joined with a constant": ("a = Relu(x) y = Concat <axis = 1> (a, c)", {"a": ("a",), "y": ("y",)}),
    "joined and reordered": (
        "a = Relu(x) b = Neg(x) t = Transpose(b) u = Transpose(t) c2 = Concat <axis = 1> (a, u) y = Flatten(c2)",
        {"a": ("a",), "b": ("b",), "y": ("a", "b")},
    ),
    "one of another domain": ("a = Relu(x) y = com.example.Transpose(a)", {"a": ("a",), "y": ("y",)}),
    "split": ("a = Relu(x) b, y = Split <axis = 1> (a)", {"a": ("a",), "b": ("b",), "y": ("y",)}),
}


@pytest.mark.parametrize(("nodes", "expected"), CASES.values(), ids=CASES)
def test_sources(nodes: str, expected: dict[str, tuple[str, ...]]) -> None:
    model = network(nodes, weights={"k": SHAPE, "c": (1, 16, 8, 8)})
    assert dict(sources(load(model), expected)) == expected


@pytest.mark.parametrize("name", [name for name in CASES if "domain" not in name])
def test_statistics_of_the_sources_are_those_of_the_tensor(name: str) -> None:
    nodes, expected = CASES[name]
    model = network(nodes, weights={"k": SHAPE, "c": (1, 16, 8, 8)})
    given = feed(model)
    arrays = {**given, **run_all(model, given)}
    for tensor, origins in expected.items():
        assert reduce(merge, (observe(arrays[origin]) for origin in origins)).equals(observe(arrays[tensor]))
