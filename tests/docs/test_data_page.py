from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from zeropoint.data.preprocess import Preprocess
from zeropoint.data.presets import PRESETS
from zeropoint.data.resize import RESIZES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


def table(heading: str) -> dict[str, list[str]]:
    """The rows below a heading row that starts so: the names in code of the first column, and the other cells."""
    body = PAGE[PAGE.index(f"\n| {heading} |") :].split("\n\n", maxsplit=1)[0]
    rows = [line.strip("| ").split(" | ") for line in body.strip().splitlines()[2:]]
    return {name: cells[1:] for cells in rows for name in re.findall(r"`([^`]+)`", cells[0])}


def test_presets_are_all_there_with_what_they_do() -> None:
    found = table("preset")
    assert list(found) == list(PRESETS)
    assert {name: cells[-1] for name, cells in found.items()} == {name: preset.describe() for name, preset in PRESETS.items()}


def test_keys_are_those_of_a_preprocess() -> None:
    assert set(table("key")) == {"preset", *(field.name for field in fields(Preprocess))}


def test_ways_to_resize_are_all_there_with_their_keys() -> None:
    found = table("`kind` of `resize`")
    assert list(found) == list(RESIZES)
    for kind, cells in found.items():
        keys = {field.name for field in fields(RESIZES[kind])} - {"kind"}
        assert keys == set(re.findall(r"`([a-z_]+)`", cells[1] if len(cells) > 1 else "")), kind
