from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from zeropoint.data import InputInfo, Samples, open_data
from zeropoint.evaluate.fidelity import OutputFidelity, compare_outputs
from zeropoint.progress import silent
from zeropoint.report.samples import MOST_PICTURES, MOST_ROWS, SampleView, sample_view

F4 = np.dtype(np.float32)


def pictures(count: int) -> Samples:
    values = np.random.default_rng(0).standard_normal((count, 1, 8, 8)).astype(np.float32)
    return open_data(values, [InputInfo("x", F4, (None, 1, 8, 8))])


def vectors(count: int) -> Samples:
    return open_data(np.zeros((count, 3), np.float32), [InputInfo("x", F4, (None, 3))])


def compared(count: int, changed: int, *, classes: int = 4, name: str = "y") -> OutputFidelity:
    """Return what networks say of `count` samples, of which the first `changed` get another class, the later ones by a larger error."""
    reference = np.tile(np.eye(classes, dtype=np.float32)[:1] * 4, (count, 1))
    other = reference.copy()
    for i in range(changed):
        other[i, 1] = 5 + i
    [found] = compare_outputs(lambda feed: {name: reference}, lambda feed: {name: other}, [{}])
    return found


def view(samples: Samples | None, *fidelity: OutputFidelity, labels: Any = None) -> SampleView:
    return sample_view(samples, fidelity, labels, progress=silent)


def test_samples_that_changed_are_shown_with_both_answers() -> None:
    found = view(pictures(9), compared(9, 3), labels=np.array([0, 1, 2, *[0] * 6]))
    assert found.lead == "3 of 9 samples changed the largest class, the furthest from float first."
    assert [shown.name for shown in found.pictures] == ["data[2]", "data[1]", "data[0]"]
    answers = [[(answer.who, answer.text, answer.tone) for answer in shown.answers] for shown in found.pictures]
    assert answers == [
        [("float", "0", "bad"), ("quantized", "1", "bad"), ("label", "2", "")],
        [("float", "0", "bad"), ("quantized", "1", "good"), ("label", "1", "")],
        [("float", "0", "good"), ("quantized", "1", "bad"), ("label", "0", "")],
    ]
    assert all(shown.uri.startswith("data:image/png;base64,") for shown in found.pictures)


def test_many_pictures_are_cut_off_and_counted() -> None:
    found = view(pictures(40), compared(40, 30))
    assert len(found.pictures) == MOST_PICTURES == 24
    assert found.lead.startswith("30 of 40 samples changed the largest class")
    assert found.lead.endswith("24 of these are shown.")


def test_where_no_sample_changed_the_furthest_are_listed() -> None:
    found = view(pictures(60), compared(60, 0))
    assert not found.pictures
    assert found.lead.startswith("None of 60 samples changed the largest class.")
    assert len(found.table.rows) == MOST_ROWS


def test_what_is_no_picture_is_listed_from_the_worst() -> None:
    found = view(vectors(9), compared(9, 3))
    assert not found.pictures
    assert [[cell.text for cell in row.cells] for row in found.table.rows] == [
        ["data[2]", "-4.9 dB", "0", "1"],
        ["data[1]", "-3.5 dB", "0", "1"],
        ["data[0]", "-1.9 dB", "0", "1"],
    ]


def test_output_of_logits_is_preferred_to_a_worse_one() -> None:
    other = replace(compared(9, 9), classes=None, sqnr_db=-5.0, output="boxes")
    assert view(pictures(9), other, compared(9, 1)).lead.startswith("1 of 9 samples changed")
    assert view(pictures(9), other).lead == "9 samples by output boxes: the 9 furthest from the float network."


@pytest.mark.parametrize(
    ("samples", "fidelity", "said"),
    [
        pytest.param(None, (compared(9, 1),), "The networks were not compared on samples.", id="not-judged"),
        pytest.param(pictures(9), (), "The networks were not compared on samples.", id="no-output"),
        pytest.param(pictures(5), (compared(9, 1),), "No output has a row for each sample, so that they cannot be told apart.", id="rows"),
    ],
)
def test_what_cannot_be_shown_is_said(samples: Samples | None, fidelity: tuple[OutputFidelity, ...], said: str) -> None:
    found = view(samples, *fidelity)
    assert (found.lead, found.pictures, found.table.rows) == (said, (), [])


def test_nan_is_no_class() -> None:
    fidelity = compared(3, 0)
    assert fidelity.classes is not None
    fidelity.classes[1, 1] = -2
    found = view(vectors(3), fidelity)
    assert [cell.text for cell in found.table.rows[0].cells][-1] == "none (NaN)"
