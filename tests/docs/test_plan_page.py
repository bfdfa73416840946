from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from zeropoint.plan import VERSION, Correction, Entry, Plan, Provenance, Rounding, Scaling, Step, Tied

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "plan.md").read_text(encoding="utf-8")


KINDS = {
    "the file": Plan,
    "an entry": Entry,
    "a correction": Correction,
    "a scaling": Scaling,
    "a tied tensor": Tied,
    "a rounding": Rounding,
    "a step": Step,
    "the provenance": Provenance,
}


@pytest.mark.parametrize(("what", "kind"), KINDS.items(), ids=KINDS)
def test_every_field_is_told_in_order(what: str, kind: type) -> None:
    rows = PAGE[PAGE.index(f"\nOf {what}:\n") :].split("\n\n")[1].splitlines()[2:]
    names = [name for row in rows for name in re.findall(r"`([a-z_0-9]+)`", row.split("|")[1])]
    told = [field.name for field in fields(kind)]
    assert sorted(names) == sorted(told)
    assert kind is Plan or names == told


def test_version_is_that_of_the_code() -> None:
    assert f"of this format: {VERSION} |" in PAGE
