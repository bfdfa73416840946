from __future__ import annotations

import numpy as np
import pytest
from tests.graph.networks import network

from zeropoint.calibrate import passes
from zeropoint.calibrate.passes import SHARE_OF_FREE, SPARE, STATISTIC_BYTES, STREAM_BYTES, Schedule, schedule
from zeropoint.graph.facts import Fact, Facts
from zeropoint.graph.load import load
from zeropoint.graph.model import Model
from zeropoint.graph.store import weight_bytes
from zeropoint.graph.taps import Taps, peak_bytes

TENSORS = ("x", "a", "b", "c", "y")
CHANNELS = (("a", 1), ("a", -1), ("c", 1), ("n", 1))  # of "n" the tensor itself is not tapped
TAPS = Taps(TENSORS, CHANNELS)
MB = 1_000_000
RESIDENT = 200 * MB
HUGE = 1 << 50


def chain() -> Model:
    return load(network("a = Mul(x, k) b = Relu(a) c = Neg(b) n = Abs(c) y = Neg(n)", inputs="float[N,16] x", weights={"k": (16,)}))


def facts(*, x: int = MB, a: int = MB, b: int = MB, c: int = MB, n: int = MB, y: int = MB) -> Facts:
    """The tensors have so many bytes."""
    sizes = {"x": x, "a": a, "b": b, "c": c, "n": n, "y": y}
    return {name: Fact(np.dtype(np.int8), (1, size)) for name, size in sizes.items()}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "resident_bytes", lambda: RESIDENT)
    monkeypatch.setattr(passes, "available_bytes", lambda: 10_000 * MB)


def held(model: Model, taps: Taps = TAPS) -> int:
    """What the process takes whatever it taps."""
    return RESIDENT + weight_bytes(model) + STATISTIC_BYTES * len(taps.tensors)


def needed(model: Model, sizes: Facts, tensors: tuple[str, ...]) -> int:
    return int(SPARE * peak_bytes(model, sizes, frozenset(tensors)))


def groups(found: Schedule) -> list[tuple[str, ...]]:
    return [taps.tensors for taps in found.passes]


# --- passes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [None, HUGE], ids=["none", "huge"])
def test_where_there_is_room_one_pass_taps_all(budget: int | None) -> None:
    assert schedule(chain(), facts(), TAPS, streams=2, budget=budget).passes == (TAPS,)


BUDGETS = {
    "a byte": 1,
    "less than is held": RESIDENT,
    **{f"{size} MB of tensors": held(chain()) + int(SPARE * size * MB) for size in range(1, 8)},
}


@pytest.mark.parametrize("streams", [1, 4])
@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
def test_every_tap_is_in_one_pass_and_none_in_two(budget: int, streams: int) -> None:
    found = schedule(chain(), facts(b=3 * MB), TAPS, streams=streams, budget=budget)
    assert tuple(tensor for group in groups(found) for tensor in group) == TENSORS
    assert sorted(c for taps in found.passes for c in taps.channels) == sorted(CHANNELS)
    assert all(taps.tensors for taps in found.passes)


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
def test_means_are_taken_where_their_tensor_is_tapped_and_others_in_the_last_pass(budget: int) -> None:
    found = schedule(chain(), facts(b=3 * MB), TAPS, streams=1, budget=budget)
    for taps in found.passes:
        expected = [c for c in CHANNELS if c[0] in taps.tensors or (c[0] == "n" and taps is found.passes[-1])]
        assert list(taps.channels) == expected


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
def test_a_pass_needs_no_more_than_is_allowed_or_than_the_largest_tensor(budget: int) -> None:
    model, sizes = chain(), facts(b=3 * MB)
    found = schedule(model, sizes, TAPS, streams=1, budget=budget)
    room = max(budget - held(model), *(needed(model, sizes, (tensor,)) for tensor in TENSORS))
    for group in groups(found):
        assert needed(model, sizes, group) <= room
    for group, following in zip(groups(found), groups(found)[1:], strict=False):
        assert needed(model, sizes, (*group, following[0])) > room, "it holds as many as there is room for"
    assert found.estimate == held(model) + max(needed(model, sizes, group) for group in groups(found))
    assert found.budget == budget


def test_a_budget_between_a_byte_and_a_huge_one_gives_passes_between() -> None:
    counts = [len(schedule(chain(), facts(), TAPS, streams=1, budget=budget).passes) for budget in BUDGETS.values()]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 2
    assert counts[-1] == 1
    assert len(set(counts)) > 2


@pytest.mark.parametrize("budget", [None, 1, HUGE])
@pytest.mark.parametrize("taps", [Taps(()), Taps((), (("a", 1),))], ids=["nothing", "means alone"])
def test_without_tensors_there_is_one_pass(taps: Taps, budget: int | None) -> None:
    assert schedule(chain(), facts(), taps, streams=2, budget=budget).passes == (taps,)


# --- streams ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", [1, 2, 4, 64])
def test_no_more_streams_than_are_asked_for(streams: int) -> None:
    assert schedule(chain(), facts(), TAPS, streams=streams, budget=HUGE).streams == streams


@pytest.mark.parametrize("fitting", [1, 2, 3, 4])
def test_streams_are_reduced_before_passes_are_divided(fitting: int) -> None:
    model, sizes = chain(), facts()
    budget = held(model) + fitting * needed(model, sizes, TENSORS)
    found = schedule(model, sizes, TAPS, streams=4, budget=budget)
    assert (found.passes, found.streams, found.estimate) == ((TAPS,), fitting, budget)
    assert schedule(model, sizes, TAPS, streams=4, budget=budget - 1).streams == max(1, fitting - 1)


def test_passes_have_one_stream() -> None:
    model, sizes = chain(), facts()
    found = schedule(model, sizes, TAPS, streams=4, budget=held(model) + needed(model, sizes, TENSORS) - 1)
    assert (len(found.passes), found.streams) == (2, 1)


@pytest.mark.parametrize(("size", "streams"), [(MB, 8), (100 * MB, 1), (30 * MB, 3)], ids=["small", "large", "between"])
def test_without_a_budget_streams_take_no_more_together_than_pays(size: int, streams: int) -> None:
    model, sizes = chain(), facts(x=size, a=size, b=size, c=size, n=size, y=size)
    found = schedule(model, sizes, TAPS, streams=8, budget=None)
    assert found.streams == max(1, min(8, 8 * STREAM_BYTES // needed(model, sizes, TENSORS))) == streams
    assert found.budget == held(model) + int(SHARE_OF_FREE * 10_000 * MB)


def test_without_a_budget_half_of_what_is_free_is_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = chain(), facts()
    all_of_it = needed(model, sizes, TENSORS)
    for free, count in ((int(all_of_it / SHARE_OF_FREE) + 2, 1), (int(all_of_it / SHARE_OF_FREE) - 2, 2)):
        monkeypatch.setattr(passes, "available_bytes", lambda free=free: free)
        assert len(schedule(model, sizes, TAPS, streams=1, budget=None).passes) == count
