"""What smoothing decides, with a probe whose answers are known: the errors of sites that it is shown, weighed as a test wants it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from tests.graph.networks import Array, network

from zeropoint.graph.load import load
from zeropoint.graph.model import Model
from zeropoint.graph.prepare import prepare
from zeropoint.graph.scaling import Scalable
from zeropoint.plan import Entry, Plan, Reader, Tied
from zeropoint.refine.probe import Change, Probe
from zeropoint.refine.smoothing import BETTER, WORTH_A_NODE, Extremes, Scalables, Smoothed, channel_extremes, smooth, wider

WIDTH, SAMPLES = 32, 6
Judge = Callable[[Array, Array], float]  # of a sample: what its readers should see, and what they do
READER = Reader("y", 0)


def mean_square(x: Array, seen: Array) -> float:
    return float(np.square(seen - x).mean())


class Known:
    """In place of a probe: values of sites, and an error that is the sum of what `judge` says of each that is changed."""

    def __init__(self, values: Mapping[str, Sequence[Array]], judge: Judge) -> None:
        self.held, self.judge = values, judge
        self.places = {tensor: place for place, tensor in enumerate(values)}
        self.asked: list[tuple[str, ...]] = []

    def advance(self, tensor: str, executor: ThreadPoolExecutor) -> None:
        pass

    def values(self, tensor: str) -> Sequence[Array]:
        return self.held[tensor]

    def errors(self, changes: Mapping[str, Change], executor: ThreadPoolExecutor) -> Any:
        self.asked.append(tuple(changes))
        return np.array(
            [sum(self.judge(self.held[t][i], change(self.held[t][i])) for t, change in changes.items()) for i in range(SAMPLES)]
        )


def drawn(seed: int = 0, *, rows: int = 200) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0.0, 1.0, (1, rows, WIDTH)).astype(np.float32) for _ in range(SAMPLES)]


def with_outlying_channels(gain: float = 40.0) -> list[Array]:
    values = drawn()
    for x in values:
        x[..., [3, 17]] *= gain
    return values


def entry(tensor: str, values: Sequence[Array]) -> Entry:
    peak = float(max(np.abs(x).max() for x in values))
    return Entry(
        tensor=tensor,
        role="activation",
        format="int8",
        symmetric=True,
        range=(-peak, peak),
        scale=(peak / 127.0,),
        zero_point=(0,),
        solver="minmax",
        reason="",
        readers=(READER,),
    )


def product(weight: Array | tuple[int, ...] = (WIDTH, WIDTH)) -> Model:
    model = load(network("y = MatMul(x, w)", inputs=f"float[N,200,{WIDTH}] x", weights={"w": weight}))
    prepare(model)
    return model


WEIGHT = Entry(
    tensor="w",
    role="weight",
    format="int8",
    symmetric=True,
    narrow=True,
    axis=1,
    scale=(1.0,) * WIDTH,
    zero_point=(0,),
    solver="",
    reason="",
    readers=(Reader("y", 1),),
)
FREE = Scalable(tied=(Tied(tensor="x", shape=(WIDTH,)),), channels=WIDTH, readers=(READER,), shiftable=False, free=True)


def smoothed(values: Sequence[Array], scalables: Sequence[Scalable] = (), *, judge: Judge = mean_square, **options: Any) -> Smoothed:
    return run(Known({"x": values}, judge), scalables, **options)


def run(
    probe: Known,
    scalables: Sequence[Scalable] = (),
    *,
    whole: Sequence[Scalable] = (),
    model: Model | None = None,
    changed: Callable[[Entry], Entry] = lambda entry: entry,
) -> Smoothed:
    def extremes(ties: Mapping[str, tuple[Scalable, Tied]]) -> dict[str, Extremes]:
        found: dict[str, Extremes] = {}
        for tensor, (scalable, tied) in ties.items():
            for x in probe.held[tensor]:
                found[tensor] = wider(found.get(tensor), channel_extremes(tied, scalable.channels, x))
        return found

    entries = tuple(changed(entry(tensor, values)) for tensor, values in probe.held.items())
    plan = Plan(target="tensorrt", entries=(*entries, WEIGHT))
    return smooth(
        product() if model is None else model,
        plan,
        Scalables(scalables, whole),
        cast("Probe", probe),
        extremes=extremes,
        solver="minmax",
        tick=lambda done, total: None,
    )


# --- ranges ----------------------------------------------------------------------------------------------------------------


def test_a_range_is_narrowed_as_long_as_the_outputs_gain() -> None:
    values = drawn()
    for x in values:
        x[:, 0] *= 30.0
    harmless = smoothed(values, judge=lambda x, seen: mean_square(x[:, 1:], seen[:, 1:]))
    assert harmless.widths["x"] <= 0.25
    assert smoothed(values).widths == {}  # where the huge row counts


def test_a_single_sample_that_gains_is_not_enough() -> None:
    values = drawn()
    for x in values:
        x[:, 0] *= 30.0

    def judge(x: Array, seen: Array) -> float:
        gains = x is values[0]
        return 1e6 * mean_square(x[:, 1:], seen[:, 1:]) if gains else 1e-3

    assert smoothed(values, judge=judge).widths == {}


# --- channels --------------------------------------------------------------------------------------------------------------


def test_channels_are_scaled_where_some_outlie() -> None:
    found = smoothed(with_outlying_channels(), [FREE])
    [scaling] = found.scalings
    assert {*np.argsort(scaling.factors)[-2:].tolist()} == {3, 17}
    assert scaling.shifts == ()
    assert smoothed(drawn(), [FREE]).scalings == ()


def test_a_node_must_bring_more_than_what_is_free() -> None:
    def judged(gain: float) -> Known:
        return Known({"x": with_outlying_channels(gain)}, mean_square)

    branch = replace(FREE, free=False)
    gains = [gain for gain in np.linspace(1.0, 4.0, 25) if run(judged(float(gain)), [FREE]).scalings]
    assert WORTH_A_NODE < BETTER
    assert gains
    assert not run(judged(float(gains[0])), [branch]).scalings
    assert run(judged(40.0), [branch]).scalings


@pytest.mark.parametrize("shiftable", [True, False])
def test_channels_are_centred_where_that_is_possible_and_helps(shiftable: bool) -> None:
    centres = np.random.default_rng(1).choice([-8.0, 8.0], WIDTH).astype(np.float32)
    values = [x + centres for x in drawn()]
    one = replace(FREE, tied=(Tied(tensor="x", shape=(WIDTH,), shifted=True),), shiftable=shiftable)
    found = smoothed(values, [one])
    assert bool(found.scalings) is shiftable
    for scaling in found.scalings:
        assert scaling.reason.endswith("centred")
        np.testing.assert_allclose(scaling.shifts, centres, atol=1.0)


def test_factors_that_the_weights_could_not_bear_are_not_taken() -> None:
    values = with_outlying_channels(200.0)
    spread = np.where(np.arange(WIDTH) % 2 == 0, 1e3, 1e-3).astype(np.float32)  # rounding hurts these, and factors more
    weight = np.random.default_rng(2).normal(0.0, 1.0, (WIDTH, WIDTH)).astype(np.float32)
    easy, hard = (smoothed(values, [FREE], model=product(w)) for w in (weight, weight * spread[None].T))
    assert easy.scalings
    assert not hard.scalings or hard.scalings[0].factors != easy.scalings[0].factors


def test_the_range_of_what_is_scaled_is_narrowed_too() -> None:
    """Before that it cannot be: two channels, which little weight reads, reach further than all others do in a row that does not count."""
    weight = np.random.default_rng(2).normal(0.0, 1.0, (WIDTH, WIDTH)).astype(np.float32)
    weight[[3, 17]] *= 0.01
    values = with_outlying_channels(150.0)
    for x in values:
        x[:, 0, [channel for channel in range(WIDTH) if channel not in (3, 17)]] *= 30.0
    found = smoothed(values, [FREE], judge=lambda x, seen: mean_square(x[:, 1:] @ weight, seen[:, 1:] @ weight), model=product(weight))
    assert found.scalings
    assert found.widths["x"] < 1.0


def test_bounds_hold_where_the_range_was_narrowed_first() -> None:
    values = with_outlying_channels()
    for x in values:
        x[:, 0] *= 30.0
    found = smoothed(values, [FREE], judge=lambda x, seen: mean_square(x[:, 1:], seen[:, 1:]))
    assert found.scalings
    clipped = float(max(np.abs(x).max() for x in values)) / np.array(found.scalings[0].factors)
    assert found.bounds["x"].hi < 0.8 * clipped.max()


def test_elements_that_stay_keep_their_range() -> None:
    """They share the tensor with scaled channels, and may be larger."""
    values = with_outlying_channels()
    for x in values:
        x[..., -4:] *= 300.0
        x[:, 0] *= 30.0
    index = tuple(range(WIDTH - 4)) + (-1,) * 4
    partly = replace(FREE, tied=(Tied(tensor="x", shape=(WIDTH,), index=index),), channels=WIDTH - 4)
    found = smoothed(
        values, [partly], judge=lambda x, seen: mean_square(x[:, 1:] / (1 + np.abs(x[:, 1:])), seen[:, 1:] / (1 + np.abs(x[:, 1:])))
    )
    staying = max(float(np.abs(x[:, 1:, -4:]).max()) for x in values)
    for bounds in found.bounds.values():
        assert bounds.hi > 0.5 * staying


def test_clips_that_would_have_to_go_are_left() -> None:
    assert smoothed(with_outlying_channels(), [replace(FREE, loose=("c",))]).scalings == ()


def test_sites_that_make_little_of_the_error_are_left() -> None:
    small = [1e-3 * x for x in with_outlying_channels()]
    probe = Known({"x": with_outlying_channels(), "little": small}, mean_square)
    run(probe, [FREE, replace(FREE, tied=(Tied(tensor="little", shape=(WIDTH,)),))])
    assert probe.asked.count(("little",)) == 1
    assert probe.asked.count(("x",)) > 3


# --- ranges that are not around zero ----------------------------------------------------------------------------------------

WHOLE = Scalable(tied=(Tied(tensor="x", shape=(), shifted=True),), channels=1, readers=(READER,), shiftable=True, free=False)


def behind_gelu() -> list[Array]:
    return [np.maximum(x, -0.17) * (x > -2.0) for x in drawn()]


@pytest.mark.parametrize("scalables", [[], [FREE]], ids=["unscaled", "scaled"])
def test_a_range_is_moved_by_whole_steps(scalables: Sequence[Scalable]) -> None:
    values = [x * np.where(np.arange(WIDTH) == 3, 40.0, 1.0).astype(np.float32) for x in behind_gelu()] if scalables else behind_gelu()
    found = smoothed(values, scalables, whole=[WHOLE])
    *scaled, moved = found.scalings
    assert [scaling.free for scaling in scaled] == [True] * len(scalables)
    assert (moved.factors, moved.free, len(moved.shifts)) == ((1.0,), False, 1)
    step = found.exact["x"].hi / 127.0
    assert np.float32(step) == np.float32(-found.exact["x"].lo / 127.0)
    assert moved.shifts[0] / step == pytest.approx(round(moved.shifts[0] / step), abs=1e-6)
    assert moved.shifts[0] > 60 * step
    factors = np.array(scaled[0].factors) if scaled else np.ones(WIDTH)
    peak = max(float((x / factors).max()) for x in values)
    assert 254 * step == pytest.approx(peak + max(float(-(x / factors).min()) for x in values), rel=0.3)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        pytest.param(drawn(), {"whole": [WHOLE]}, id="a range around zero"),
        pytest.param(behind_gelu(), {"whole": []}, id="nothing takes it up"),
        pytest.param(
            behind_gelu(), {"whole": [WHOLE], "changed": lambda e: replace(e, format="uint8", symmetric=False)}, id="asymmetric already"
        ),
        pytest.param(
            behind_gelu(),
            {"whole": [WHOLE], "changed": lambda e: replace(e, readers=(READER, Reader("other", 0)))},
            id="others read it, too",
        ),
        pytest.param(behind_gelu(), {"whole": [WHOLE], "judge": lambda x, seen: 1e-3 + 1e-9 * mean_square(x, seen)}, id="no gain"),
    ],
)
def test_a_range_stays_around_zero(values: Sequence[Array], options: dict[str, Any]) -> None:
    found = smoothed(values, **options)
    assert (found.scalings, found.exact) == ((), {})


@pytest.mark.parametrize("gain", [1.0, 40.0], ids=["all channels alike", "one outlies"])
def test_a_branch_scales_or_moves(gain: float) -> None:
    values = [x * np.where(np.arange(WIDTH) == 3, gain, 1.0).astype(np.float32) for x in behind_gelu()]
    found = smoothed(values, [replace(FREE, free=False)], whole=[WHOLE])
    [scaling] = found.scalings
    assert bool(found.exact) == (len(scaling.shifts) == 1) == (gain == 1.0)
