"""With a fake clock that only the fake networks and the pauses move: no test depends on the machine's pace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from zeropoint.evaluate import latency
from zeropoint.evaluate.latency import (
    SETTLE_SECONDS,
    SHORTEST_BURST,
    balanced_rounds,
    burst_medians,
    compare_latency,
    median_ratio,
    take_turns,
)

Pace = Callable[[float], float]  # the time now -> how many times slower than usual the machine is


@dataclass
class FakeMachine:
    """What the module takes from `time`, and two networks that take their time on it."""

    float_ms: float
    quantized_ms: float
    pace: Pace = lambda now: 1.0
    now: float = 0.0
    log: list[str] = field(default_factory=list)

    def perf_counter(self) -> float:
        self.log.append("clock")
        return self.now

    def sleep(self, seconds: float) -> None:
        self.log.append(f"sleep {seconds}")
        self.now += seconds

    def float_run(self) -> None:
        self.log.append("float")
        self.now += self.float_ms * 1e-3 * self.pace(self.now)

    def quantized_run(self) -> None:
        self.log.append("quantized")
        self.now += self.quantized_ms * 1e-3 * self.pace(self.now)

    def bursts(self) -> list[list[str]]:
        """What was run between one pause and the next."""
        found: list[list[str]] = []
        for entry in self.log:
            if entry == f"sleep {SETTLE_SECONDS}":
                found.append([])
            else:
                found[-1].append(entry)
        return found


def measure(monkeypatch: pytest.MonkeyPatch, machine: FakeMachine, rounds: int) -> latency.Latency:
    monkeypatch.setattr(latency, "time", machine)
    return compare_latency(machine.float_run, machine.quantized_run, runtime="fake", rounds=rounds)


@pytest.mark.parametrize(
    ("float_ms", "quantized_ms"), [(4.0, 1.0), (1.0, 4.0), (50.0, 20.0), (0.01, 0.02)], ids=["faster", "slower", "slow", "tiny"]
)
def test_times_and_ratio_are_those_of_the_networks(monkeypatch: pytest.MonkeyPatch, float_ms: float, quantized_ms: float) -> None:
    found = measure(monkeypatch, FakeMachine(float_ms, quantized_ms), rounds=3)
    assert (found.float_ms, found.quantized_ms, found.ratio) == pytest.approx((float_ms, quantized_ms, quantized_ms / float_ms))
    assert (found.runtime, found.rounds) == ("fake", 3)


def test_networks_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = FakeMachine(8.0, 4.0)
    measure(monkeypatch, machine, rounds=4)
    [first, *bursts] = [set(burst) - {"clock"} for burst in machine.bursts()]
    assert first == {"float"}  # the one that says how often to repeat
    assert bursts == [{"float"}, {"quantized"}, {"quantized"}, {"float"}] * 2  # each begins as often as the other


@pytest.mark.parametrize(("float_ms", "repeats"), [(100.0, 1), (31.0, 1), (7.0, 4), (1.3, 23)], ids="{0}ms".format)
def test_each_turn_warms_up_and_then_lasts_long_enough(monkeypatch: pytest.MonkeyPatch, float_ms: float, repeats: int) -> None:
    machine = FakeMachine(float_ms, 2.0)
    measure(monkeypatch, machine, rounds=1)
    [_, of_float, of_quantized] = machine.bursts()
    assert of_float == ["float", *["clock", "float", "clock"] * repeats]
    assert of_quantized == ["quantized", *["clock", "quantized", "clock"] * repeats]
    assert repeats == max(1, int(SHORTEST_BURST / (float_ms * 1e-3)))


@pytest.mark.parametrize(
    "pace",
    [
        pytest.param(lambda now: 1.0 + now, id="slowing-down"),
        pytest.param(lambda now: 1.0 if now < 0.5 else 2.0, id="twice-as-slow-from-some-moment-on"),
        pytest.param(lambda now: 30.0 if 0.3 < now < 0.35 else 1.0, id="one-stalled-call"),
        pytest.param(lambda now: 30.0 if 0.3 < now < 0.9 else 1.0, id="one-stalled-turn"),
    ],
)
def test_ratio_does_not_follow_the_machines_pace(monkeypatch: pytest.MonkeyPatch, pace: Pace) -> None:
    assert measure(monkeypatch, FakeMachine(4.0, 2.0, pace), rounds=15).ratio == pytest.approx(0.5, rel=0.15)


def test_a_machine_that_slows_down_steadily_disfavours_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = FakeMachine(10.0, 10.0, lambda now: 1.0 + 10 * now)  # by which the second of a round is half as slow again
    monkeypatch.setattr(latency, "time", machine)
    runs = (machine.float_run, machine.quantized_run)
    medians = burst_medians(take_turns(runs, repeats=(3, 3), rounds=16))
    assert np.abs(medians[1] / medians[0] - 1).max() > 0.3  # what rounds show by themselves
    assert median_ratio(medians[1], medians[0]) == pytest.approx(1, abs=0.005)


def test_each_of_three_begins_as_often_as_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, order = FakeMachine(1.0, 1.0), list[int]()
    monkeypatch.setattr(latency, "time", machine)
    stages: list[tuple[str, int, int]] = []
    runs = [lambda number=number: order.append(number) for number in range(3)]
    bursts = take_turns(runs, repeats=(1, 2, 1), rounds=3, progress=lambda *step: stages.append(step))
    assert [[len(burst) for burst in of_run] for of_run in bursts] == [[1] * 3, [2] * 3, [1] * 3]
    assert order == [0, 0, 1, 1, 1, 2, 2, 1, 1, 1, 2, 2, 0, 0, 2, 2, 0, 0, 1, 1, 1]  # a call more than is timed
    assert stages == [("timing", 1, 3), ("timing", 2, 3), ("timing", 3, 3)]


@pytest.mark.parametrize(
    ("seconds", "burst", "runs", "rounds"),
    [(5.0, 0.1, 2, 42), (5.0, 0.1, 3, 42), (5.0, 0.1, 4, 44), (0.01, 0.1, 2, 6), (0.01, 0.1, 4, 8), (5.0, 60.0, 1, 6)],
)
def test_rounds_take_the_time_that_is_given_or_are_the_fewest(seconds: float, burst: float, runs: int, rounds: int) -> None:
    assert balanced_rounds(seconds, burst, runs=runs, least=6) == rounds
    assert rounds % runs == 0
