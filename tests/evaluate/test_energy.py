"""With a fake clock and a fake meter: what a network spends is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from zeropoint.evaluate import energy, latency
from zeropoint.evaluate.energy import joules_per_run
from zeropoint.evaluate.latency import compare_latency
from zeropoint.runtime.energy import Reading

IDLE_WATTS = 2.0


@dataclass
class FakeMachine:
    """A clock that runs and pauses move, and a counter in nanojoules, which never stands still."""

    now: float = 0.0
    spent: float = 0.0
    source: str = "a fake"

    def network(self, seconds: float, watts: float) -> Callable[[], None]:
        return lambda: self._pass(seconds, watts)

    def _pass(self, seconds: float, watts: float) -> None:
        self.now += seconds
        self.spent += seconds * watts

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self._pass(seconds, IDLE_WATTS)

    def read(self) -> Reading:
        return (round(1e9 * self.spent),)

    def joules(self, before: Reading, after: Reading) -> float:
        return (after[0] - before[0]) * 1e-9


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    made = FakeMachine()
    monkeypatch.setattr(energy, "time", made)
    monkeypatch.setattr(latency, "time", made)
    return made


def test_a_run_takes_its_time_at_its_power(machine: FakeMachine) -> None:
    runs = [machine.network(0.004, 50.0), machine.network(0.001, 80.0), machine.network(3.0, 10.0)]
    assert joules_per_run(runs, machine) == pytest.approx([0.2, 0.08, 30.0])


def test_the_run_behind_a_pause_does_not_count(machine: FakeMachine) -> None:
    woken: list[float] = []

    def run() -> None:
        woken.append(machine.now)
        is_first = len(woken) == 1 or machine.now - woken[-2] > 0.015  # a pause lies before it
        machine._pass(0.01, 500.0 if is_first else 50.0)

    assert joules_per_run([run], machine) == pytest.approx([0.5])


def test_a_latency_has_energy_where_there_is_a_meter(machine: FakeMachine) -> None:
    runs = machine.network(0.004, 50.0), machine.network(0.001, 80.0)
    with_meter, without = compare_latency(*runs, runtime="fake", meter=machine), compare_latency(*runs, runtime="fake")
    assert (with_meter.float_joules, with_meter.quantized_joules) == pytest.approx((0.2, 0.08))
    assert (without.float_joules, without.quantized_joules) == (None, None)
    assert (with_meter.ratio, without.ratio) == pytest.approx((0.25, 0.25))
