from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.calibrate.subjects import (
    ELEMENTWISE,
    FUSED,
    IMAGES,
    ROWS,
    all_taps,
    calibrated,
    digits,
    one_by_one,
    seen_bytes,
    source,
    subject,
)
from tests.graph.networks import Array, network, run_all

from zeropoint.calibrate import Resources, Subject, calibrate, calibration, load_statistics
from zeropoint.calibrate.passes import SPARE, STATISTIC_BYTES, schedule
from zeropoint.calibrate.saved import to_bytes
from zeropoint.demo import load_digits
from zeropoint.errors import DataError
from zeropoint.graph.store import serialize, weight_bytes
from zeropoint.graph.taps import Taps, tap
from zeropoint.statistics.channel_sums import observe_rows
from zeropoint.statistics.network import Statistics
from zeropoint.statistics.tensor import EMPTY, observe

TENSORS = ("x", "a", "r", "s", "y")
QUIET = Resources()


def statistics(of: Subject, taps: Taps, **resources: Any) -> Statistics:
    return calibrate(of, taps, Resources(**resources))[0]


# --- what is seen, against a plain loop ------------------------------------------------------------------------------------

NETWORKS: dict[str, onnx.ModelProto] = {
    "elementwise": ELEMENTWISE,
    "MatMul and Split": network(
        "a = MatMul(x, w) s, r = Split <axis=1> (a, parts) y = Relu(s)",
        inputs="float[N,16] x",
        weights={"w": (16, 16), "parts": np.array([8, 8])},
    ),
    "NaN": network("a = Log(x) y = Exp(a)", inputs="float[N,16] x"),
}


@pytest.mark.parametrize("model", NETWORKS.values(), ids=NETWORKS)
def test_is_a_plain_loop_over_a_session_that_shows_every_tensor(model: onnx.ModelProto) -> None:
    seen = [run_all(model, feed) for feed in one_by_one(model, ROWS)]
    expected = {name: observe(np.concatenate([arrays[name] for arrays in seen])) for name in seen[0]}
    found = statistics(subject(model, ROWS), Taps(tuple(expected))).tensors
    assert set(found) == set(expected)
    assert [name for name in found if not found[name].equals(expected[name])] == []


def test_means_of_channels_are_sums_of_the_rows_that_the_network_computes() -> None:
    of = subject(FUSED, IMAGES, batch_size=3)
    taps = Taps(("x",), (("a", 1), ("x", 1), ("x", -1)))
    found = statistics(of, taps)
    session = tap(of.model, taps, of.facts).open(threads=1)
    rows = [session.run(feed).channels for block in of.batches for feed in block]
    assert (set(found.tensors), set(found.channels)) == ({"x"}, set(taps.channels))
    for key, sums in found.channels.items():
        assert sums.equals(observe_rows(np.concatenate([np.asarray(one[key]) for one in rows])))
    for (name, axis), sums in found.channels.items():
        array = np.moveaxis(run_all(FUSED, {"x": IMAGES})[name].astype(np.float64), axis, 0)
        np.testing.assert_allclose(sums.means, array.reshape(len(array), -1).mean(axis=1), rtol=0, atol=1e-6)


def test_samples_of_other_shapes_are_all_seen() -> None:
    model = network("a = Mul(x, k) y = Relu(a)", inputs="float[N,T,16] x", weights={"k": (16,)})
    items = [np.full((length, 16), float(length), np.float32) for length in (3, 5, 4, 4)]
    assert statistics(subject(model, items, batch_size=4), Taps(("x",))).tensors["x"].count == 16 * 16


def test_a_block_left_out_shows() -> None:
    whole, part = (statistics(subject(ELEMENTWISE, rows), Taps(TENSORS)).tensors for rows in (ROWS, ROWS[:12]))
    assert all(whole[name].count == 2 * part[name].count for name in TENSORS)
    assert not any(whole[name].equals(part[name]) for name in TENSORS)


RESOURCES: dict[str, dict[str, Any]] = {"a pass": {}, "passes": {"memory_budget": 1}}
any_resources = pytest.mark.parametrize("resources", RESOURCES.values(), ids=RESOURCES)


@any_resources
def test_inputs_alone_need_no_run(resources: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    of = subject(network("y = Add(x, z)", inputs="float[N,8] x, float[N,8] z"), {"x": ROWS[:, :8], "z": ROWS[:, 8:]})
    monkeypatch.setattr("zeropoint.graph.taps.Session", None)
    found = statistics(of, Taps(("x", "z"), (("x", 1), ("z", 1))), **resources)
    assert seen_bytes(found) == seen_bytes(
        Statistics(
            {"x": observe(ROWS[:, :8]), "z": observe(ROWS[:, 8:])},
            {("x", 1): observe_rows(ROWS[:, :8]), ("z", 1): observe_rows(ROWS[:, 8:])},
        )
    )


@any_resources
def test_no_taps_give_no_statistics(resources: dict[str, Any]) -> None:
    found = statistics(subject(ELEMENTWISE, ROWS), Taps(()), **resources)
    assert (dict(found.tensors), dict(found.channels)) == ({}, {})


def test_a_tensor_of_no_elements_is_there_and_empty() -> None:
    model = network("a = Slice(x, zero, zero) y = Relu(x)", inputs="float[N,16] x", outputs="y, a", weights={"zero": np.array([0])})
    assert statistics(subject(model, ROWS), Taps(("a",))).tensors["a"].equals(EMPTY)


def test_the_network_and_the_data_stay_as_they_are() -> None:
    data = ROWS.copy()
    data.flags.writeable = False
    of = subject(ELEMENTWISE, data)
    before = serialize(of.model)
    calibrate(of, all_taps(of), Resources(memory_budget=1))
    assert serialize(of.model) == before


# --- the law: resources, order and division change no bit ---------------------------------------------------------------------

SUBJECTS: dict[str, Callable[[], Subject]] = {
    "fused": lambda: subject(FUSED, IMAGES),
    "fused, in batches": lambda: subject(FUSED, IMAGES, batch_size=4),
    "digits": digits,
}
every_subject = pytest.mark.parametrize("make", SUBJECTS.values(), ids=SUBJECTS)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Pretend to have so many cores, and so much room that each has its stream."""

    def pretend(cores: int) -> None:
        monkeypatch.setattr(calibration, "cores", lambda: cores)
        monkeypatch.setattr("zeropoint.calibrate.passes.STREAM_BYTES", 1 << 40)

    return pretend


@every_subject
def test_streams_change_no_bit(make: Callable[[], Subject], machine: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for cores in (1, 2, 4):
        machine(cores)
        found.append(calibrated(make()))
    monkeypatch.setattr("zeropoint.calibrate.passes.STREAM_BYTES", 1)  # one stream of four threads
    assert {*found, calibrated(make())} == {found[0]}


@every_subject
def test_passes_change_no_bit(make: Callable[[], Subject], machine: Callable[[int], None]) -> None:
    machine(2)
    of = make()
    notes = calibrate(of, all_taps(of), Resources(memory_budget=1))[1]
    assert any("a pass with a single tensor still takes" in note.reason for note in notes)
    assert calibrated(of, memory_budget=1) == calibrated(of)


@pytest.mark.parametrize("groups", [2, 3])
@every_subject
def test_some_tensors_at_a_time_give_the_bits_of_all_at_once(
    make: Callable[[], Subject], groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = make()
    expected = calibrated(of)

    def divided(model: Any, facts: Any, taps: Taps, **how: Any) -> Any:
        means = [tuple(c for c in taps.channels if taps.tensors.index(c[0]) % groups == k) for k in range(groups)]
        return replace(schedule(model, facts, taps, **how), passes=tuple(Taps(taps.tensors[k::groups], means[k]) for k in range(groups)))

    monkeypatch.setattr(calibration, "schedule", divided)
    assert calibrated(of) == expected


@every_subject
def test_a_checkpoint_changes_no_bit(make: Callable[[], Subject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = make()
    expected = calibrated(of)
    for seconds in (0.0, 0.01, 100.0):
        monkeypatch.setattr(calibration, "SECONDS_BETWEEN_SAVES", seconds)
        path = tmp_path / f"{seconds}.stats"
        assert calibrated(of, checkpoint=path) == expected, "as it is made"
        assert calibrated(of, checkpoint=path) == expected, "and read again"
    files = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(files) == 1


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda order: subject(FUSED, IMAGES[order[order < 10]]), id="fused"),
        pytest.param(lambda order: digits(data=load_digits().calibration[:24][order]), id="digits"),
    ],
)
def test_the_order_of_batches_changes_no_bit(make: Callable[[Array], Subject]) -> None:
    plain = np.arange(24)
    found = {calibrated(make(order)) for order in (plain, plain[::-1], np.random.default_rng(1).permutation(24))}
    assert len(found) == 1


@pytest.mark.parametrize("size", [1, 5, 24])
@pytest.mark.parametrize("shuffled", [False, True], ids=["in order", "shuffled"])
def test_batches_of_any_size_change_no_bit_where_the_network_computes_the_same(size: int, shuffled: bool) -> None:
    data = ROWS[np.random.default_rng(1).permutation(24)] if shuffled else ROWS
    assert calibrated(subject(ELEMENTWISE, data, batch_size=size)) == calibrated(subject(ELEMENTWISE, ROWS, batch_size=12))


# --- checkpoints -----------------------------------------------------------------------------------------------------------


def reads(of: Subject, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list of the blocks that are read from now on."""
    read: list[int] = []
    real = type(of.batches).__getitem__

    def spy(batches: Any, block: int) -> Any:
        read.append(block)
        return real(batches, block)

    monkeypatch.setattr(type(of.batches), "__getitem__", spy)
    return read


def test_what_a_checkpoint_holds_is_not_observed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = subject(ELEMENTWISE, ROWS)
    path = tmp_path / "stats"
    expected = calibrated(of, checkpoint=path)
    saved = path.read_bytes()
    read = reads(of, monkeypatch)
    told: list[tuple[str, int, int]] = []
    found, _ = calibrate(of, all_taps(of), Resources(checkpoint=path), progress=lambda *step: told.append(step))
    assert (read, seen_bytes(found), path.read_bytes()) == ([], expected, saved)
    assert [step[1:] for step in told] == [(0, 0)]


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("fails_at", [0, 1, 7, 23])
def test_a_run_that_failed_is_gone_on_with(
    fails_at: int, cores: int, tmp_path: Path, machine: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(cores)
    monkeypatch.setattr(calibration, "SECONDS_BETWEEN_SAVES", 0.0)
    of = subject(ELEMENTWISE, ROWS)
    expected, path = calibrated(of), tmp_path / "stats"
    real = type(of.batches).__getitem__

    def failing(batches: Any, block: int) -> Any:
        if block == fails_at:
            raise DataError("broken sample")
        return real(batches, block)

    with monkeypatch.context() as patch, pytest.raises(DataError, match="broken sample"):
        patch.setattr(type(of.batches), "__getitem__", failing)
        calibrate(of, all_taps(of), Resources(checkpoint=path))
    done = load_statistics(path).parts[0].done if path.exists() else frozenset()
    assert fails_at not in done
    assert len(done) >= fails_at - 2 * cores
    read = reads(of, monkeypatch)
    assert calibrated(of, checkpoint=path) == expected
    assert set(read) == set(range(24)) - done


def test_taps_that_a_checkpoint_lacks_are_observed_beside_it(tmp_path: Path) -> None:
    of = subject(ELEMENTWISE, ROWS)
    path = tmp_path / "stats"
    some, more = Taps(("x", "a"), (("a", 1),)), Taps(("a", "y"), (("x", 1),))
    statistics(of, some, checkpoint=path)
    assert seen_bytes(statistics(of, more, checkpoint=path)) == seen_bytes(statistics(of, more))
    held = load_statistics(path)
    assert len(held.parts) == 1
    assert held.parts[0].taps == Taps(("a", "x", "y"), (("a", 1), ("x", 1)))
    assert held.parts[0].done == frozenset(range(24))


UNLIKE = {
    "model_sha256": "another",
    "data": "a folder",
    "data_sha256": "others",
    "batch_size": 7,
    "provider": "CUDAExecutionProvider",
    "zeropoint": "0.0.1",
    "onnxruntime": "9.9",
}


@pytest.mark.parametrize(("field", "value"), UNLIKE.items(), ids=UNLIKE)
def test_a_checkpoint_of_another_calibration_is_refused_by_what_differs(field: str, value: object, tmp_path: Path) -> None:
    of, path = subject(ELEMENTWISE, ROWS), tmp_path / "mine.stats"
    statistics(of, Taps(("a",)), checkpoint=path)
    before = path.read_bytes()
    changes: dict[str, Any] = {field: value}
    other = replace(of, source=replace(of.source, **changes))
    with pytest.raises(DataError, match=rf"checkpoint .*mine\.stats: found {field} .*, expected {value!r}; it is of another calibration"):
        calibrate(other, Taps(("a",)), Resources(checkpoint=path))
    assert path.read_bytes() == before


def test_of_other_batches_the_size_is_told(tmp_path: Path) -> None:
    statistics(subject(ELEMENTWISE, ROWS), Taps(("a",)), checkpoint=tmp_path / "stats")
    with pytest.raises(DataError, match="found batch_size 1, expected 5"):
        statistics(subject(ELEMENTWISE, ROWS, batch_size=5), Taps(("a",)), checkpoint=tmp_path / "stats")


def test_what_a_finished_run_writes_is_what_it_saw(tmp_path: Path) -> None:
    of = subject(ELEMENTWISE, ROWS)
    found = calibrated(of, checkpoint=tmp_path / "stats")
    saved = load_statistics(tmp_path / "stats")
    assert seen_bytes(saved.whole.statistics) == found
    assert (saved.source, saved.facts) == (of.source, of.facts)
    assert to_bytes(saved) == (tmp_path / "stats").read_bytes()
    assert source() != of.source


# --- progress and notes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch_size", "steps"), [(1, 24), (5, 5), (24, 1)])
def test_progress_begins_with_an_estimate_and_counts_blocks(batch_size: int, steps: int) -> None:
    told: list[tuple[str, int, int]] = []
    calibrate(subject(ELEMENTWISE, ROWS, batch_size=batch_size), Taps(TENSORS), QUIET, progress=lambda *step: told.append(step))
    assert [step[1:] for step in told] == [(done, steps) for done in range(steps + 1)]
    [label] = {step[0] for step in told}
    assert label.startswith("calibrating (about ")
    assert label.endswith(" MB)")


def test_progress_counts_all_passes() -> None:
    told: list[tuple[str, int, int]] = []
    calibrate(subject(ELEMENTWISE, ROWS), Taps(TENSORS), Resources(memory_budget=1), progress=lambda *step: told.append(step))
    [passes] = {re.match(r"calibrating in (\d+) passes \(about \d+ MB\)$", step[0]) for step in told[:1]}
    assert passes is not None
    steps = 24 * int(passes[1])
    assert steps > 24
    assert [step[1:] for step in told] == [(done, steps) for done in range(steps + 1)]


def test_passes_are_noted_with_what_was_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "library", object())
    of = subject(FUSED, IMAGES)
    monkeypatch.setattr("zeropoint.calibrate.passes.resident_bytes", lambda: 0)
    budget = 5 * STATISTIC_BYTES + weight_bytes(of.model) + int(4.5 * SPARE * IMAGES[:1].nbytes)
    [note] = calibrate(of, Taps(("x", "d", "a", "s", "r")), Resources(memory_budget=budget))[1]
    assert (note.where, note.kind) == ("memory_budget", "run")
    assert re.match(r"the data was run [2-5] times, each for some of the tensors: about \d MB, where \d MB were allowed", note.reason)


def test_nothing_is_noted_of_a_run_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "library", object())
    assert calibrate(subject(ELEMENTWISE, ROWS), Taps(TENSORS), QUIET)[1] == ()


def test_that_no_compiled_code_is_there_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "library", None)
    [note] = calibrate(subject(ELEMENTWISE, ROWS), Taps(TENSORS), QUIET)[1]
    assert (note.where, note.kind) == ("calibration", "run")
    assert "numpy" in note.reason
