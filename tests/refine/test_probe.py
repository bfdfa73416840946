from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from tests.graph.networks import Array, Feed, feed, network, plan_network, run, run_all

from zeropoint.graph.materialize import materialize
from zeropoint.graph.store import serialize
from zeropoint.numerics.affine import dequantize_array, quantize_array
from zeropoint.plan import Entry, Plan
from zeropoint.refine.probe import Change, Probe

# All numbers are small multiples of powers of two, so that sums are exact in whatever order, and errors the same to the last bits.
STEP = 0.125
SAMPLES = 5


def weight(seed: int, shape: tuple[int, ...] = (16, 16, 1, 1)) -> Array:
    return np.rint(np.random.default_rng(seed).normal(0.0, 1.5, shape)).clip(-3, 3).astype(np.float32) * STEP


WEIGHTS: Mapping[str, object] = {name: weight(seed) for seed, name in enumerate(("w1", "w2", "w3", "w4"))}


@dataclass(frozen=True)
class Case:
    """A network, and the sites in it in the order in which it runs."""

    body: str
    sites: tuple[str, ...]
    inputs: str = "float[1,16,4,4] x"
    outputs: str = "y"


CASES = {
    "a chain": Case("a = Conv(x, w1) b = Relu(a) c = Conv(b, w2) d = Relu(c) y = Conv(d, w3)", ("x", "b", "d")),
    "a residual connection": Case(
        "a = Conv(x, w1) b = Relu(a) c = Conv(b, w2) d = Add(c, b) e = Relu(d) f = Conv(e, w3) g = Add(f, e) y = Conv(g, w4)",
        ("x", "b", "e", "g"),
    ),
    "two readers, one of them late": Case(
        "a = Conv(x, w1) b = Relu(a) c = Conv(b, w2) d = Relu(c) e = Conv(d, w3) f = Conv(b, w4) y = Sub(e, f)", ("x", "b", "d")
    ),
    "an operator that reads two sites": Case(
        "a = Conv(x, w1) b = Conv(x, w2) c = MatMul(a, b) y = Conv(c, w3)", ("x", "a", "b", "c"), inputs="float[1,16,16,16] x"
    ),
    "several inputs and outputs": Case(
        "a = Conv(x, w1) b = Conv(z, w2) c = Add(a, b) y = Conv(c, w3) u = Conv(z, w4)",
        ("x", "z", "c"),
        inputs="float[1,16,4,4] x, float[1,16,4,4] z",
        outputs="y, u, c",
    ),
    "a site that is an output": Case("a = Conv(x, w1) b = Relu(a) y = Conv(b, w2)", ("x", "b"), outputs="b, y"),
    "an output of integers": Case("a = Conv(x, w1) i = ArgMax <axis=1> (a) y = Conv(a, w2)", ("x", "a"), outputs="y, int64 i"),
    "an output that is a constant": Case("a = Conv(x, w1) y = Conv(a, w2)", ("x", "a"), outputs="y, w1"),
    "an output that is an input": Case("a = Conv(x, w1) y = Conv(a, w2)", ("x", "a"), outputs="y, x"),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@dataclass(frozen=True)
class Subject:
    """A network with a plan for its activations, and what it makes of some samples in float."""

    model: ir.Model
    plan: Plan
    feeds: list[Feed]
    outputs: list[str]

    @property
    def floats(self) -> list[dict[str, Array]]:
        return [self.run(self.model, given) for given in self.feeds]

    @property
    def entries(self) -> dict[str, Entry]:
        return {entry.tensor: entry for entry in self.plan.entries}

    def run(self, model: ir.Model, given: Feed) -> dict[str, Array]:
        return dict(zip(self.outputs, run(model, given), strict=True))

    def probe(self, *tensors: str) -> Probe:
        sites = {tensor: entry.readers for tensor, entry in self.entries.items() if tensor in tensors or not tensors}
        return Probe(self.model, sites, self.feeds, self.floats)

    def change(self, tensor: str) -> Change:
        qparams = self.entries[tensor].qparams()
        return lambda x: dequantize_array(quantize_array(x, qparams), qparams)

    def expected(self, *tensors: str) -> list[float]:
        """The oracle: the errors of the whole network with Q/DQ pairs at `tensors`, as written."""
        quantized = materialize(self.model, replace(self.plan, entries=tuple(self.entries[tensor] for tensor in tensors)))
        return [self._error(float_, self.run(quantized, given)) for float_, given in zip(self.floats, self.feeds, strict=True)]

    def _error(self, floats: Mapping[str, Array], others: Mapping[str, Array]) -> float:
        errors = []
        for name, array in floats.items():
            if array.dtype.kind == "f":
                expected, found = (a.astype(np.float64) for a in (array, others[name]))
                errors.append(np.square(found - expected).sum() / np.square(expected).sum())
        return float(np.mean(errors))


def subject(case: Case) -> Subject:
    model = network(case.body, inputs=case.inputs, outputs=case.outputs, weights=WEIGHTS)
    feeds = [{name: np.rint(2.0 * array).clip(-4, 4) for name, array in feed(model, seed).items()} for seed in range(SAMPLES)]
    planned = plan_network(model, "tensorrt", feeds=feeds)
    entries = [replace(entry, range=(), scale=(16.0 * STEP,)) for entry in planned.plan.entries if entry.role == "activation"]
    assert {entry.tensor for entry in entries} >= {*case.sites}
    plan = replace(planned.plan, entries=tuple(entry for entry in entries if entry.tensor in case.sites), corrections=())
    return Subject(planned.model, plan, feeds, [value.name for value in model.graph.output])


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


# --- errors, against the network with Q/DQ pairs -------------------------------------------------------------------------------


@every_case
def test_errors_are_those_of_the_network_with_a_pair_at_the_site(case: Case, executor: ThreadPoolExecutor) -> None:
    one = subject(case)
    probe = one.probe()
    for tensor in case.sites:
        probe.advance(tensor, executor)
        found = probe.errors({tensor: one.change(tensor)}, executor)
        expected = one.expected(tensor)
        assert min(expected) > 1e-4, "there is something to see"
        assert found.tolist() == pytest.approx(expected, rel=1e-9)


@every_case
def test_nothing_changed_is_no_error(case: Case, executor: ThreadPoolExecutor) -> None:
    one = subject(case)
    probe = one.probe()
    for tensor in case.sites:
        probe.advance(tensor, executor)
        assert probe.errors({}, executor).tolist() == [0.0] * SAMPLES


@every_case
def test_errors_of_several_sites_at_once_from_the_first_of_them(case: Case, executor: ThreadPoolExecutor) -> None:
    one = subject(case)
    probe = one.probe()
    for first in range(len(case.sites)):
        for second in range(first + 1, len(case.sites)):
            pair = case.sites[first], case.sites[second]
            probe.advance(pair[0], executor)
            found = probe.errors({tensor: one.change(tensor) for tensor in pair}, executor)
            assert found.tolist() == pytest.approx(one.expected(*pair), rel=1e-9)
    probe.advance(case.sites[0], executor)
    found = probe.errors({tensor: one.change(tensor) for tensor in case.sites}, executor)
    assert found.tolist() == pytest.approx(one.expected(*case.sites), rel=1e-9)


def test_a_later_site_can_be_changed_from_an_earlier_one(executor: ThreadPoolExecutor) -> None:
    one = subject(CASES["a residual connection"])
    probe = one.probe()
    probe.advance("x", executor)
    for tensor in ("g", "e", "b", "x"):
        assert probe.errors({tensor: one.change(tensor)}, executor).tolist() == pytest.approx(one.expected(tensor), rel=1e-9)


def test_any_change_can_be_made(executor: ThreadPoolExecutor) -> None:
    one = subject(CASES["a chain"])
    probe = one.probe()
    probe.advance("d", executor)
    assert probe.errors({"d": np.zeros_like}, executor).tolist() == [1.0] * SAMPLES
    assert probe.errors({"d": lambda x: 3.0 * x}, executor).tolist() == [4.0] * SAMPLES
    assert probe.errors({"d": lambda x: np.full_like(x, np.nan)}, executor).tolist() == [np.inf] * SAMPLES


def test_some_of_the_sites_are_enough(executor: ThreadPoolExecutor) -> None:
    one = subject(CASES["a residual connection"])
    probe = one.probe("e")
    assert set(probe.places) == {"e"}
    probe.advance("e", executor)
    assert probe.errors({"e": one.change("e")}, executor).tolist() == pytest.approx(one.expected("e"), rel=1e-9)


# --- going on and going back -----------------------------------------------------------------------------------------------------


@every_case
def test_sites_are_in_the_order_of_the_network(case: Case) -> None:
    probe = subject(case).probe()
    assert set(probe.places) == {*case.sites}
    places = [probe.places[tensor] for tensor in case.sites]
    assert places == sorted(places)


def test_sites_that_one_operator_reads_first_have_one_place() -> None:
    probe = subject(CASES["an operator that reads two sites"]).probe()
    assert probe.places == {"x": 1, "a": 2, "b": 2, "c": 3}


@pytest.mark.parametrize("walk", [("g", "x"), ("x", "g", "b", "e"), ("e", "e"), ("b", "e", "x", "x", "g")], ids=" ".join)
def test_the_way_to_a_site_makes_no_difference(walk: tuple[str, ...], executor: ThreadPoolExecutor) -> None:
    one = subject(CASES["a residual connection"])
    probe = one.probe()
    for tensor in walk:
        probe.advance(tensor, executor)
        assert probe.errors({tensor: one.change(tensor)}, executor).tolist() == pytest.approx(one.expected(tensor), rel=1e-9)


@every_case
def test_values_are_those_of_the_float_network_here_and_later(case: Case, executor: ThreadPoolExecutor) -> None:
    one = subject(case)
    probe = one.probe()
    expected = [run_all(onnx.load_from_string(serialize(one.model)), given) for given in one.feeds]
    for start, first in enumerate(case.sites):
        probe.advance(first, executor)
        for tensor in case.sites[start:]:
            found = probe.values(tensor)
            assert len(found) == SAMPLES
            for array, all_ in zip(found, expected, strict=True):
                np.testing.assert_array_equal(array, all_[tensor], strict=True)


def test_errors_leave_the_values_and_the_samples_as_they_are(executor: ThreadPoolExecutor) -> None:
    one = subject(CASES["a residual connection"])
    before = [{name: array.copy() for name, array in given.items()} for given in one.feeds]
    probe = one.probe()
    probe.advance("b", executor)
    values = [array.copy() for array in probe.values("e")]
    first = probe.errors({"b": one.change("b"), "e": one.change("e")}, executor)
    np.testing.assert_array_equal(probe.errors({"b": one.change("b"), "e": one.change("e")}, executor), first)
    for found, value in zip(probe.values("e"), values, strict=True):
        np.testing.assert_array_equal(found, value)
    for given, kept in zip(one.feeds, before, strict=True):
        assert given.keys() == kept.keys()
        for name, array in kept.items():
            np.testing.assert_array_equal(given[name], array)


def test_the_network_stays_as_it_is(executor: ThreadPoolExecutor) -> None:
    one = subject(CASES["a residual connection"])
    before = serialize(one.model)
    probe = one.probe()
    probe.advance("e", executor)
    probe.errors({"e": one.change("e")}, executor)
    assert serialize(one.model) == before
