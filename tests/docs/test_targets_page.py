from __future__ import annotations

import re
from pathlib import Path

import pytest

from zeropoint.rules.table import RULES
from zeropoint.targets import TARGETS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "targets.md").read_text(encoding="utf-8")
SECTIONS = {text.partition("\n")[0]: text for text in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}
RULE = re.compile(r"^\| `(?P<name>[a-z-]+)` \| (?P<reason>[^|]+) \| (?P<remedy>[^|]+) \|$", re.MULTILINE)

every_target = pytest.mark.parametrize("target", TARGETS)


def format_text(target: str) -> list[str]:
    goal = TARGETS[target]
    return [goal.activation.format.name, goal.nonnegative_activation.format.name, goal.weight.format.name]


def test_each_target_has_a_section() -> None:
    assert [name for name in SECTIONS if name != "What all of them share"] == list(TARGETS)


@every_target
def test_rules_are_those_of_the_target(target: str) -> None:
    assert [match["name"] for match in RULE.finditer(SECTIONS[target])] == list(TARGETS[target].lint)
    assert set(TARGETS[target].lint) <= RULES.keys()


@every_target
def test_opsets_and_formats_are_those_of_the_target(target: str) -> None:
    goal, section = TARGETS[target], SECTIONS[target]
    assert f"Opset {goal.min_opset} to {goal.max_opset}." in section
    activations, weights, biases = (
        re.search(rf"^\| {row} \| (.+) \|$", section, re.MULTILINE) for row in ("activations", "weights", "biases")
    )
    assert activations is not None
    assert weights is not None
    assert biases is not None
    assert set(re.findall(r"u?int8", activations[1])) == {goal.activation.format.name, goal.nonnegative_activation.format.name}
    assert ("asymmetric" in activations[1]) is not goal.activation.symmetric
    assert weights[1] == f"{goal.weight.format.name}, symmetric, -127..127"
    assert biases[1].split(",")[0] == goal.bias


def test_channels_that_are_needed_are_those_of_the_target() -> None:
    assert f"fewer than {TARGETS['tensorrt'].min_channels} input or output channels" in SECTIONS["tensorrt"]
    assert [name for name, target in TARGETS.items() if target.min_channels > 1] == ["tensorrt"]
