from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_layers_are_those_that_are_checked() -> None:
    """One list is for people and one for import-linter."""
    checked = re.search(r"^layers = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    told = re.search(r"^cli  .*?(?=^```)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert checked is not None
    assert told is not None
    layers = [re.findall(r"\w+", line) for line in checked[1].splitlines()]
    names = [re.findall(r"\w+", re.split(r"  +", line)[0]) for line in told[0].splitlines()]
    assert names == layers
