"""What is measured of entries whose sessions, clock, processes and profiler are made up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.benching.benches import FIRST, SECOND

from zeropoint.benching import measure as module
from zeropoint.benching.bench import Ratio
from zeropoint.benching.entries import Entry, Request, Subject
from zeropoint.benching.measure import LONGER, Measured, measure, noise_notes
from zeropoint.errors import ModelError
from zeropoint.evaluate import energy, latency
from zeropoint.progress import silent
from zeropoint.runtime.node_time import NodeTime

Pace = Callable[[float], float]
REQUEST = Request(models=("a", "b"), runtimes=("onnxruntime",), threads=3, batch=None, seconds=0.6, shapes={})
EMPTY_BYTES, NODES = 50, (NodeTime(node="n", operator="Conv", seconds=1e-3, in_integers=True),)


@dataclass
class World:
    """A clock that the networks move, at a pace, and what was asked of the machine."""

    pace: Pace = lambda now: 1.0
    now: float = 0.0
    peaks: dict[str, int] = field(default_factory=lambda: {"a": 450, "b": 250})
    asked: list[Any] = field(default_factory=list)

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def entry(self, file: str, milliseconds: float, *, runtime: str = "onnxruntime", first: bool = False, samples: int = 1) -> Entry:
        subject = Subject(file=file, bytes=len(file), feed={"x": np.zeros((samples, 2), np.float32)}, batch=samples)
        return Entry(subject=subject, runtime=runtime, session=FakeSession(self, milliseconds), is_first=first)

    def peak_bytes(self, model: Path | None, runtime: str, feed: Mapping[str, Any], *, threads: int = 0, provider: str = "") -> int:
        self.asked.append((None if model is None else str(model), runtime, threads))
        if model is None:
            return EMPTY_BYTES
        if str(model) not in self.peaks:
            raise ModelError("peak memory: the process that measures it failed: Killed")
        return self.peaks[str(model)]

    def time_nodes(self, name: str, model: Path, feed: Any, *, runs: int, threads: int, provider: str) -> tuple[NodeTime, ...]:
        self.asked.append(("profile", str(model), runs))
        if str(model) not in self.peaks:
            raise ModelError("no profiler")
        return NODES


@dataclass
class FakeSession:
    world: World
    milliseconds: float

    def run(self, feed: Mapping[str, Any], /) -> Mapping[str, Any]:
        self.world.now += 1e-3 * self.milliseconds * self.world.pace(self.world.now)
        return {}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    for part in (latency, energy):
        monkeypatch.setattr(part, "time", made)
    for name in ("peak_bytes", "time_nodes"):
        monkeypatch.setattr(module, name, getattr(made, name))
    monkeypatch.setattr(module, "open_meter", lambda provider: "not measurable here: no counter")
    return made


def pair(world: World, first: float = 8.0, second: float = 4.0) -> list[Entry]:
    return [world.entry("a", first, first=True), world.entry("b", second)]


def test_on_a_quiet_machine_the_figures_are_those_of_the_networks(world: World) -> None:
    found = measure([world.entry("a", 8.0, first=True, samples=4), world.entry("b", 3.0, samples=4)], REQUEST, progress=silent)
    a, b = found.timings
    assert (a.median_ms, a.p90_ms, a.p99_ms, a.throughput) == pytest.approx((8, 8, 8, 500))
    assert (b.median_ms, b.throughput) == pytest.approx((3, 4000 / 3))
    assert a.ratio is None
    assert b.ratio is not None
    assert (b.ratio.value, b.ratio.low, b.ratio.high) == pytest.approx((0.375, 0.375, 0.375))
    assert (a.rounds, a.runs, b.rounds, b.runs) == (6, 6 * 12, 6, 6 * 33)  # at least 6, of a tenth of a second each
    assert (a.peak_bytes, b.peak_bytes) == (400, 200)
    assert (a.batch, a.threads, a.shapes, a.bytes) == (4, 3, {"x": (4, 2)}, 1)
    assert a.noise == pytest.approx(0, abs=1e-9)
    assert (found.energy, found.notes, a.joules) == ("not measurable here: no counter", (), None)


def test_the_provider_is_kept_as_it_is_typed(world: World) -> None:
    [found] = measure([world.entry("a", 8.0, first=True)], replace(REQUEST, provider="CUDAExecutionProvider"), progress=silent).timings
    assert found.provider == "cuda"


def test_percentiles_are_of_all_runs(world: World) -> None:
    rng = np.random.default_rng(0)
    drawn: list[float] = []

    def pace(_: float) -> float:
        drawn.append(float(rng.lognormal()))
        return drawn[-1]

    world.pace = pace
    [found] = measure([world.entry("a", 10.0, first=True)], REQUEST, progress=silent).timings
    timed = drawn[6:]  # five for the pace behind one
    per_round = len(timed) // found.rounds
    calls = 10.0 * np.array(timed).reshape(found.rounds, per_round)[:, 1:]  # the first of each burst is not timed
    assert calls.size == found.runs
    assert (found.median_ms, found.p90_ms, found.p99_ms) == pytest.approx(tuple(np.percentile(calls, (50, 90, 99))))
    assert found.noise == pytest.approx(
        np.subtract(*np.percentile(np.median(calls, axis=1), (90, 10))) / np.median(np.median(calls, axis=1))
    )


@pytest.mark.parametrize(
    "pace",
    [
        pytest.param(lambda now: 1 + now, id="slowing-down"),
        pytest.param(lambda now: 20 / (1 + now), id="speeding-up"),
        pytest.param(lambda now: 1.0 if now < 1 else 3.0, id="throttled-from-some-moment-on"),
    ],
)
def test_the_ratio_is_the_true_one_where_the_machine_changes_its_pace(world: World, pace: Pace) -> None:
    world.pace = pace
    found = measure(pair(world), replace(REQUEST, seconds=2.0), progress=silent)
    first, second = found.timings
    assert second.ratio is not None
    assert second.ratio.value == pytest.approx(0.5, rel=0.02)
    assert second.ratio.low <= 0.5 <= second.ratio.high
    assert first.noise > 0.3  # it did change


def test_each_runtime_has_a_baseline_of_its_own(world: World) -> None:
    entries = [*pair(world, 8.0, 4.0), world.entry("a", 6.0, runtime="openvino", first=True), world.entry("b", 1.5, runtime="openvino")]
    ratios = [timing.ratio and timing.ratio.value for timing in measure(entries, REQUEST, progress=silent).timings]
    assert ratios == [None, pytest.approx(0.5), None, pytest.approx(0.25)]


def test_without_the_first_model_there_is_no_ratio(world: World) -> None:
    [found] = measure([world.entry("b", 4.0)], REQUEST, progress=silent).timings
    assert found.ratio is None


def test_it_goes_on_where_ratios_are_not_sure_but_not_for_ever(world: World) -> None:
    rng = np.random.default_rng(1)
    world.pace = lambda now: float(np.exp(2 * np.sin(97 * now) + rng.normal()))
    stages: list[str] = []
    found = measure(pair(world), REQUEST, progress=lambda stage, done, total: stages.append(stage))
    assert found.timings[0].rounds == 3 * stages.count("timing")
    assert list(dict.fromkeys(stages)) == ["measuring memory", "timing", LONGER]
    assert {note.where for note in found.notes} == {"noise", "b on onnxruntime"}


def test_memory_is_less_what_the_runtime_takes_alone_which_is_asked_once(world: World) -> None:
    entries = [*pair(world), world.entry("a", 6.0, runtime="openvino", first=True)]
    measure(entries, REQUEST, progress=silent)
    asked = [of for of in world.asked if of[0] != "profile"]
    assert asked == [
        (None, "onnxruntime", 0),
        ("a", "onnxruntime", 3),
        ("b", "onnxruntime", 3),
        (None, "openvino", 0),
        ("a", "openvino", 3),
    ]


def test_what_cannot_be_measured_has_a_note_and_the_rest_is(world: World) -> None:
    del world.peaks["b"]
    found = measure(pair(world), REQUEST, progress=silent)
    assert (found.timings[1].peak_bytes, found.timings[1].profile) == (None, None)
    assert found.timings[1].ratio is not None
    assert found.timings[0].profile is not None
    assert [str(note) for note in found.notes] == [
        "b on onnxruntime: peak memory: the process that measures it failed: Killed",
        "b on onnxruntime: there is no profile: no profiler",
    ]


@pytest.mark.parametrize(("milliseconds", "runs"), [(0.1, 50), (50.0, 10), (2000.0, 3)])
def test_a_profile_takes_half_a_second_or_three_runs(world: World, milliseconds: float, runs: int) -> None:
    measure([world.entry("a", milliseconds, first=True)], REQUEST, progress=silent)
    assert ("profile", "a", runs) in world.asked


def test_energy_is_measured_where_there_is_a_counter(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Meter:
        source = "a fake"

        def read(self) -> tuple[int, ...]:
            return (round(1e9 * world.now),)

        def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
            return 7e-9 * (after[0] - before[0])

    monkeypatch.setattr(module, "open_meter", lambda provider: Meter())
    found: Measured = measure(pair(world), REQUEST, progress=silent)
    assert [timing.joules for timing in found.timings] == pytest.approx([0.056, 0.028])
    assert found.energy.startswith("a fake; all that these take meanwhile")


def test_notes_on_noise_name_the_worst_and_what_to_do() -> None:
    calm, unsure = replace(FIRST, noise=0.25), replace(SECOND, ratio=Ratio(value=1.0, low=0.9, high=1.2))
    assert noise_notes([calm, SECOND]) == []
    [note] = noise_notes([replace(FIRST, noise=0.3), replace(SECOND, noise=0.5)])
    assert (note.where, note.kind) == ("noise", "warning")
    assert "net.int8.onnx on onnxruntime lie 50% apart" in note.reason
    assert "fewer threads" in note.reason
    [unsure_note] = noise_notes([calm, unsure])
    assert "between 0.90 and 1.20" in unsure_note.reason
