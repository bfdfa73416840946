"""How blocks of data are read ahead of a device."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Barrier
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from zeropoint.autograd import running
from zeropoint.autograd.running import DeviceRun
from zeropoint.demo import load_digits
from zeropoint.graph.load import load
from zeropoint.graph.prepare import prepare
from zeropoint.graph.taps import Taps

BLOCKS = 20


class Reader:
    """Blocks of one image each, with what was asked for so far."""

    def __init__(self, barrier: Barrier | None = None) -> None:
        self.asked: list[int] = []
        self.barrier = barrier

    def __getitem__(self, block: int) -> list[dict[str, Any]]:
        self.asked.append(block)
        if self.barrier is not None and block < running.MOST:
            self.barrier.wait(timeout=30)
        return [{"image": np.zeros((1, 1, 8, 8), np.float32)}]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> DeviceRun:
    network = load(load_digits().model)
    prepare(network)
    monkeypatch.setattr(running, "cores", lambda: running.MOST)
    return DeviceRun(network, Taps(()), "cpu")


def observed(run: DeviceRun, reader: Reader) -> Iterator[int]:
    return run.observe(reader, range(BLOCKS))  # type: ignore[arg-type]


def test_few_blocks_are_read_at_once_where_reading_is_quick(run: DeviceRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "QUICK", 60.0)
    reader, ahead = Reader(), []
    for number, block in enumerate(observed(run, reader)):
        assert block == number
        ahead.append(len(reader.asked) - number)
    assert sorted(reader.asked) == list(range(BLOCKS))
    assert ahead[0] <= running.FIRST
    assert max(ahead) <= running.MOST


def test_all_threads_read_where_reading_is_slow(run: DeviceRun) -> None:
    reader = Reader(Barrier(running.MOST))  # none of the first has come before all of them are asked for
    assert list(observed(run, reader)) == list(range(BLOCKS))
