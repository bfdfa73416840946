from __future__ import annotations

import re
from pathlib import Path

import pytest

from zeropoint.improve import EFFORTS, FEWEST, Effort
from zeropoint.recipe import REFINEMENT_NAMES

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "effort.md").read_text(encoding="utf-8")
ROWS = {cells[0].split("`")[1]: cells[1:] for cells in re.findall(r"^\| (`.*) \| (.*) \| (.*)\|$", PAGE, re.MULTILINE)}


def test_efforts_are_all_there_in_order() -> None:
    assert list(ROWS) == list(EFFORTS)


@pytest.mark.parametrize(("name", "effort"), EFFORTS.items(), ids=EFFORTS)
def test_each_effort_is_told_as_it_is(name: str, effort: Effort) -> None:
    what, counts = ROWS[name]
    formats = sorted(effort.rounded) if "rounding" in effort.refinements else []
    reconstructed = ["reconstruction", *sorted(effort.reconstructed)] if "reconstruction" in effort.refinements else []
    others = [name for name in effort.refinements if name != "reconstruction"]
    assert re.findall(r"`(\w+)`", what) == [*others, *formats, *reconstructed]
    told = f"{effort.probed}, {effort.observed}, {effort.checked}, {effort.swept}" if effort.refinements else ""
    assert counts.strip() == told


def test_the_fewest_samples_are_told() -> None:
    assert f"It takes {FEWEST} calibration samples at least" in PAGE


@pytest.mark.parametrize("name", REFINEMENT_NAMES)
def test_each_refinement_has_a_page(name: str) -> None:
    assert f"(methods/{name}.md)" in PAGE
    assert (DOCS / "methods" / f"{name}.md").exists()
