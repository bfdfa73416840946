from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zeropoint.data import InputInfo
from zeropoint.data import choice as module
from zeropoint.data.choice import Choice, Request, choose_samples
from zeropoint.data.random import NOT_REAL
from zeropoint.errors import DataError, RecipeError
from zeropoint.recipe import Recipe

FREE, FIXED = (InputInfo("x", np.dtype(np.float32), (batch, 2)) for batch in (None, 4))


def ramp(count: int, start: int = 0) -> np.ndarray[Any, Any]:
    """Samples that are told apart by their first element."""
    return np.arange(2 * start, 2 * (start + count), dtype=np.float32).reshape(count, 2)


def request(data: object = None, *, samples: int = 10, info: InputInfo = FREE, **given: Any) -> Request:
    return Request(data, given.get("eval_data"), given.get("labels"), None, Recipe(samples=samples, seed=given.get("seed", 0)), (info,))


def firsts(part: Any) -> list[int]:
    """Which samples of `ramp` are in it."""
    return [int(feed["x"][0, 0]) // 2 for feed in part] if part is not None else []


def reasons(chosen: Choice) -> dict[str, str]:
    return {note.where: note.reason for note in chosen.notes}


# --- who calibrates, who judges --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("calibrate", "evaluate", "eval_count", "calibrating", "judging"),
    [
        pytest.param(True, True, None, 10, 30, id="both from one"),
        pytest.param(True, True, 7, 10, 7, id="data of its own to judge"),
        pytest.param(True, False, None, 10, None, id="calibration alone"),
        pytest.param(False, True, None, None, 30, id="a plan, judged by what it left"),
        pytest.param(False, True, 7, None, 7, id="a plan, judged by data of its own"),
        pytest.param(False, False, None, None, None, id="neither"),
    ],
)
def test_what_is_not_asked_for_is_none(
    calibrate: bool, evaluate: bool, eval_count: int | None, calibrating: int | None, judging: int | None
) -> None:
    given = request(ramp(40), eval_data=None if eval_count is None else ramp(eval_count, start=100))
    chosen = choose_samples(given, calibrate=calibrate, evaluate=evaluate)
    found = [None if part is None else len(part) for part in (chosen.calibration, chosen.evaluation)]
    assert found == [calibrating, judging]
    assert all(index >= 100 for index in firsts(chosen.evaluation)) or eval_count is None


def test_the_same_samples_judge_beside_a_plan_as_beside_calibration() -> None:
    beside = choose_samples(request(ramp(40)), calibrate=True, evaluate=True)
    alone = choose_samples(request(ramp(40)), calibrate=False, evaluate=True)
    assert firsts(alone.evaluation) == firsts(beside.evaluation)
    assert set(firsts(beside.calibration)).isdisjoint(firsts(beside.evaluation))


@pytest.mark.parametrize("evaluate", [True, False])
def test_the_same_samples_calibrate_whether_or_not_others_judge(evaluate: bool) -> None:
    chosen = choose_samples(request(ramp(40)), calibrate=True, evaluate=evaluate)
    assert firsts(chosen.calibration) == [2 + 4 * i for i in range(10)]  # the middles of ten runs of four


@pytest.mark.parametrize(("count", "judging"), [(40, 16), (26, 16), (20, 10)], ids=str)
def test_at_most_so_many_judge_evenly_spread(count: int, judging: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_EVALUATED", 16)
    own = choose_samples(request(ramp(4), eval_data=ramp(count)), calibrate=True, evaluate=True)
    assert len(firsts(own.evaluation)) == min(count, 16)
    assert max(np.diff(firsts(own.evaluation))) <= -(-count // 16)
    held_out = choose_samples(request(ramp(count)), calibrate=True, evaluate=True)
    assert len(firsts(held_out.evaluation)) == judging


@pytest.mark.parametrize(("evaluate", "eval_data", "most"), [(True, False, 26), (True, True, 10), (False, False, 10)], ids=str)
def test_a_generator_is_read_no_further_than_needed(evaluate: bool, eval_data: bool, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_EVALUATED", 16)
    read: list[int] = []

    def endless() -> Iterator[np.ndarray[Any, Any]]:
        for index in range(1000):
            read.append(index)
            yield ramp(1, start=index)[0]

    chosen = choose_samples(request(endless(), eval_data=ramp(3) if eval_data else None), calibrate=True, evaluate=evaluate)
    assert len(firsts(chosen.calibration)) == 10
    assert most <= len(read) <= most + 1


def test_random_samples_are_drawn_by_the_seed_of_the_recipe() -> None:
    drawn = [choose_samples(request("random", seed=seed), calibrate=True, evaluate=False).calibration for seed in (0, 0, 1)]
    values = [[feed["x"].tobytes() for feed in part] for part in drawn if part is not None]
    assert values[0] == values[1] != values[2]


# --- labels ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("info", "count", "judging"),
    [
        pytest.param(FREE, 20, 10, id="dynamic batch"),
        pytest.param(FIXED, 20, 8, id="fixed batch, of which two samples fill none"),
    ],
)
def test_labels_are_those_of_the_samples_that_are_fed(info: InputInfo, count: int, judging: int) -> None:
    chosen = choose_samples(request(ramp(count), info=info, labels=list(range(count))), calibrate=True, evaluate=True)
    assert chosen.labels is not None
    assert chosen.labels.tolist() == firsts(chosen.evaluation)[:judging]
    assert len(chosen.labels) == judging


def test_labels_of_evaluation_data_are_counted_in_it() -> None:
    chosen = choose_samples(request(ramp(20), eval_data=ramp(3, start=50), labels=[7, 8, 9]), calibrate=True, evaluate=True)
    assert chosen.labels is not None
    assert chosen.labels.tolist() == [7, 8, 9]


def test_labels_are_not_read_where_no_sample_is_left_to_judge_by(tmp_path: Path) -> None:
    chosen = choose_samples(request(ramp(2), labels=tmp_path / "missing.csv"), calibrate=True, evaluate=True)
    assert (chosen.labels, chosen.evaluation) == (None, None)


# --- notes and errors ------------------------------------------------------------------------------------------------------

FEW, NONE_LEFT = "{} samples, where 10 were asked for", "too few samples were left to judge by; give more, or evaluation data of their own"


@pytest.mark.parametrize(
    ("data", "eval_data", "evaluate", "notes"),
    [
        pytest.param(ramp(40), None, True, {}, id="enough"),
        pytest.param(ramp(4), None, False, {"calibration": FEW.format(4)}, id="few to calibrate"),
        pytest.param(ramp(4), ramp(1), True, {"calibration": FEW.format(4)}, id="few to calibrate, one to judge"),
        pytest.param(ramp(4), None, True, {"calibration": FEW.format(4), "evaluation": NONE_LEFT}, id="none to judge"),
        pytest.param(ramp(11), None, True, {"calibration": FEW.format(9)}, id="some are kept to judge by"),
        pytest.param(ramp(12), None, True, {}, id="enough for both"),
    ],
)
def test_notes_say_what_was_missing(data: object, eval_data: object, evaluate: bool, notes: dict[str, str]) -> None:
    assert reasons(choose_samples(request(data, eval_data=eval_data), calibrate=True, evaluate=evaluate)) == notes


def test_a_plan_judged_by_few_samples_needs_no_note_on_calibration() -> None:
    assert choose_samples(request(eval_data=ramp(3)), calibrate=False, evaluate=True).notes == ()


def test_random_evaluation_beside_a_plan_is_noted() -> None:
    notes = reasons(choose_samples(request(eval_data="random"), calibrate=False, evaluate=True))
    assert list(notes) == ["evaluation"]
    assert NOT_REAL in notes["evaluation"]


@pytest.mark.parametrize("option", ["eval_data", "labels"])
@pytest.mark.parametrize("calibrate", [True, False], ids=["calibrated", "by-a-plan"])
def test_what_only_judges_is_refused_where_nothing_is_judged(option: str, calibrate: bool) -> None:
    with pytest.raises(RecipeError, match=f"^{option}: found a list, but evaluation is turned off"):
        choose_samples(request(ramp(40), **dict[str, Any]({option: [1]})), calibrate=calibrate, evaluate=False)


@pytest.mark.parametrize(
    ("eval_data", "calibrate", "evaluate", "what"),
    [
        pytest.param(None, True, True, "calibrate with", id="nothing"),
        pytest.param(ramp(3), True, True, "calibrate with", id="only data to judge"),
        pytest.param(None, False, True, "judge by", id="a plan and nothing to judge it by"),
    ],
)
def test_missing_data_is_named_by_what_needs_it(eval_data: object, calibrate: bool, evaluate: bool, what: str) -> None:
    with pytest.raises(DataError, match=f"^data: found none to {what}, expected samples"):
        choose_samples(request(eval_data=eval_data), calibrate=calibrate, evaluate=evaluate)


def test_nothing_asked_for_needs_no_data() -> None:
    assert choose_samples(request(), calibrate=False, evaluate=False) == Choice(None, None, None)


def test_too_few_to_fill_a_fixed_batch_judge_nothing_but_are_noted() -> None:
    chosen = choose_samples(request(ramp(12), info=FIXED), calibrate=True, evaluate=True)
    assert chosen.calibration is not None
    assert chosen.evaluation is None
    assert any("too few samples were left to judge by" in reason for reason in reasons(chosen).values())


@pytest.mark.parametrize("form", ["same-array", "same-path", "other-array", "other-path"])
def test_judging_by_what_calibrates_is_a_warning(form: str, tmp_path: Path) -> None:
    first, second = ramp(8), ramp(8)
    data: object = first
    eval_data: object = first if form == "same-array" else second
    if form.endswith("path"):
        for name in ("a.npy", "b.npy"):
            np.save(tmp_path / name, first)
        data, eval_data = tmp_path / "a.npy", str(tmp_path / ("a.npy" if form == "same-path" else "b.npy"))
    chosen = choose_samples(request(data, eval_data=eval_data), calibrate=True, evaluate=True)
    assert [note.where for note in chosen.notes if note.kind == "warning"] == (["held-out"] if form.startswith("same") else [])
