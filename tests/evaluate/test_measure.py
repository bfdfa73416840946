from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from tests.graph.networks import Array, Feed, network, plan_network

from zeropoint.data import Samples, open_data
from zeropoint.errors import DataError
from zeropoint.evaluate import measure as module
from zeropoint.evaluate.evidence import Coverage, Evidence
from zeropoint.evaluate.latency import Latency
from zeropoint.evaluate.measure import Candidate, measure
from zeropoint.graph.load import input_infos, load
from zeropoint.graph.materialize import materialize
from zeropoint.graph.store import serialize
from zeropoint.plan import Plan
from zeropoint.progress import silent
from zeropoint.targets import Target, get_target

INPUT, FIXED = "float[N,16] x", "float[4,16] x"
BODY = "a = MatMul(x, w) r = Relu(a) y = MatMul(r, v)"
WEIGHTS = {"w": (16, 16), "v": (16, 16)}
DATA = np.random.default_rng(0).normal(0.0, 1.0, (10, 16)).astype(np.float32)
HERE = (platform.machine(),)


@pytest.fixture(autouse=True)
def timed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The runtimes that were timed, in place of a stopwatch."""
    runtimes: list[str] = []

    def compare_latency(float_run: Callable[[], object], quantized_run: Callable[[], object], *, runtime: str, meter: object) -> Latency:
        float_run()
        quantized_run()
        runtimes.append(runtime)
        return Latency(runtime=runtime, float_ms=2.0, quantized_ms=1.0, ratio=0.5, rounds=1)

    monkeypatch.setattr(module, "compare_latency", compare_latency)
    yield runtimes


def candidate(target: str = "onnxruntime", *, body: str = BODY, inputs: str = INPUT, plan: Plan | None = None) -> Candidate:
    model = network(body, inputs=inputs, weights=WEIGHTS)
    planned = plan_network(model, target)
    decided = plan or planned.plan
    return Candidate(original=model, prepared=planned.model, quantized=materialize(planned.model, decided), plan=decided)


def here(target: str = "onnxruntime") -> Target:
    """The target, as if this machine were of its kind."""
    return replace(get_target(target), machines=HERE)


def judges(of: Candidate, data: Array = DATA) -> Samples:
    return open_data(data, input_infos(load(of.original)))


def measured(of: Candidate, target: Target, data: Array | None = DATA, **given: Any) -> Evidence:
    samples = None if data is None else judges(of, data)
    return measure(of, target, samples, labels=given.get("labels"), progress=given.get("progress", silent))


def notes(evidence: Evidence) -> dict[str, str]:
    return {note.where: note.reason for note in evidence.notes}


# --- fidelity --------------------------------------------------------------------------------------------------------------


def test_a_network_without_codes_is_as_good_as_float() -> None:
    of = candidate(plan=Plan(target="onnxruntime", entries=()))
    evidence = measured(of, here())
    assert evidence.fidelity[0].sqnr_db == np.inf
    assert evidence.coverage == Coverage(0, 0)
    assert evidence.notes == ()


def test_the_original_is_what_the_quantized_network_is_compared_with() -> None:
    of = candidate()
    doubled = onnx.load_from_string(network(BODY, inputs=INPUT, weights=WEIGHTS).SerializeToString())
    doubled.graph.initializer[0].raw_data = (2 * onnx.numpy_helper.to_array(doubled.graph.initializer[0])).tobytes()
    near, far = (measured(replace(of, original=original), here()).fidelity[0].sqnr_db for original in (of.original, doubled))
    assert near > 25
    assert far < 10


@pytest.mark.parametrize(("inputs", "feeds"), [(INPUT, 10), (FIXED, 2)], ids=["dynamic-batch", "fixed-batch"])
def test_progress_is_told_after_each_feed(inputs: str, feeds: int) -> None:
    told: list[tuple[str, int, int]] = []
    measured(candidate(inputs=inputs), here(), progress=lambda *step: told.append(step))
    assert told == [("evaluating", done, feeds) for done in range(1, feeds + 1)]


def test_samples_that_fill_no_batch_are_noted_once() -> None:
    evidence = measured(candidate(inputs=FIXED), here())
    assert [note.reason for note in evidence.notes] == ["2 of 10 samples left out: they fill no batch of 4"]


def test_labels_give_the_accuracy_of_both() -> None:
    labels = np.zeros(10, np.int64)
    [output] = measured(candidate(), here(), labels=labels).fidelity
    assert output.float_accuracy is not None
    assert 0.0 <= output.float_accuracy < 1.0
    assert measured(candidate(), here()).fidelity[0].float_accuracy is None


@pytest.mark.parametrize(("samples", "right", "told"), [(60, 0, True), (60, 2, False), (40, 0, False)], ids=["none", "some", "few samples"])
def test_labels_that_no_answer_meets_are_told(samples: int, right: int, told: bool) -> None:
    data = np.random.default_rng(1).normal(0.0, 1.0, (samples, 16)).astype(np.float32)
    answers = measured(candidate(), here(), data).fidelity[0].classes
    assert answers is not None
    labels = (answers[:, 0] + 1) % 16
    labels[:right] = answers[:right, 0]
    found = notes(measured(candidate(), here(), data, labels=labels))
    assert ("labels" in found) is told
    assert not told or found["labels"].startswith("the float network is right in 0.0% of the samples")


def test_labels_of_another_number_are_an_error() -> None:
    with pytest.raises(DataError, match="labels: found 9 for 10 samples"):
        measured(candidate(), here(), labels=np.zeros(9, np.int64))


def test_a_quantized_network_that_gives_nan_is_noted() -> None:
    of = candidate()
    broken = onnx.load_from_string(serialize(of.quantized))
    for tensor in broken.graph.initializer:
        if tensor.name == "r/scale":
            tensor.raw_data = np.array(np.nan, np.float32).tobytes()
    evidence = measured(replace(of, quantized=load(broken)), here())
    assert evidence.fidelity[0].incomparable == 10
    assert "infinitely wrong" in notes(evidence)["y"]
    assert "10 samples" in notes(evidence)["y"]


# --- without judges --------------------------------------------------------------------------------------------------------


def test_without_judges_sizes_coverage_and_rules_remain(timed: list[str]) -> None:
    of = candidate()
    with_judges, without = measured(of, here()), measured(of, here(), None)
    assert timed == ["onnxruntime"]
    for field in ("float_bytes", "quantized_bytes", "coverage", "findings", "notes"):
        assert getattr(without, field) == getattr(with_judges, field)
    assert (without.fidelity, without.latency, without.evaluation_data) == ((), None, "")
    assert with_judges.evaluation_data == "10 of 10 samples of arrays in memory"


def test_without_judges_no_network_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    of = candidate()
    for name in ("open_session", "open_runtime"):
        monkeypatch.setattr(module, name, None)
    assert measured(of, here(), None).fidelity == ()


# --- rules -----------------------------------------------------------------------------------------------------------------


def test_each_broken_rule_is_a_finding_and_a_note() -> None:
    evidence = measured(candidate("onnxruntime"), get_target("tensorrt"), None)
    assert {finding.rule for finding in evidence.findings} >= {"signed-codes"}
    assert [note.where for note in evidence.notes] == [finding.node for finding in evidence.findings]
    for note, finding in zip(evidence.notes, evidence.findings, strict=True):
        assert note.reason == f"breaks {finding.rule}: {finding.message}; {finding.remedy}"


def test_the_target_decides_the_rules() -> None:
    assert measured(candidate("onnxruntime"), get_target("onnxruntime"), None).findings == ()


# --- latency ---------------------------------------------------------------------------------------------------------------


def test_latency_is_that_of_the_targets_runtime(timed: list[str]) -> None:
    evidence = measured(candidate(), here())
    assert timed == ["onnxruntime"]
    assert evidence.latency is not None
    assert evidence.latency.ratio == 0.5


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(replace(get_target("onnxruntime"), machines=("another",)), id="another machine"),
        pytest.param(replace(get_target("onnxruntime"), machines=(), runtime="tensorrt"), id="no such runtime here"),
    ],
)
def test_latency_that_says_nothing_of_the_target_is_not_measured(target: Target, timed: list[str]) -> None:
    evidence = measured(candidate(), target)
    assert timed == []
    assert evidence.latency is None
    assert notes(evidence) == {"latency": "not measured: ONNX Runtime on an x86 CPU is not here"}


@pytest.mark.parametrize(("inputs", "rows"), [(INPUT, 1), (FIXED, 4)], ids=["dynamic-batch", "fixed-batch"])
def test_latency_is_that_of_one_feed_in_float_and_then_quantized(inputs: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[tuple[bool, int]] = []

    class Spy:
        def __init__(self, content: bytes) -> None:
            self.quantized = b"QuantizeLinear" in content

        def run(self, feed: Feed) -> None:
            runs.append((self.quantized, len(feed["x"])))

    monkeypatch.setattr(module, "open_runtime", lambda _, content: Spy(content))
    measured(candidate(inputs=inputs), here())
    assert runs == [(False, rows), (True, rows)]
