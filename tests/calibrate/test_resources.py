from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from zeropoint.calibrate import Resources, resources
from zeropoint.calibrate.resources import UNITS, parsed_bytes
from zeropoint.errors import RecipeError
from zeropoint.runtime.onnxruntime import CPU

GIVEN: dict[str, Any] = {"workers": 1, "memory_budget": None, "provider": "cpu", "checkpoint": None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (4096, 4096),
        (1, 1),
        ("4096", 4096),
        ("4096B", 4096),
        ("4 kB", 4_000),
        ("4k", 4_000),
        ("500MB", 500_000_000),
        ("500 MB", 500_000_000),
        (" 500mb ", 500_000_000),
        ("1.5GB", 1_500_000_000),
        ("0.5g", 500_000_000),
        ("2TB", 2_000_000_000_000),
        ("4KiB", 4096),
        ("4Ki", 4096),
        ("1MiB", 1 << 20),
        ("1.5GiB", 3 << 29),
        ("2gib", 2 << 30),
        ("1TiB", 1 << 40),
    ],
)
def test_bytes_are_read_as_people_write_them(text: int | str, expected: int) -> None:
    assert parsed_bytes(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", " ", "-1", -1, 0, "0", "0GB", "0.0001 K", "2XB", "GB", "2GBB", "2 G B", "1,5GB", "1e9", "inf", "nan", "half", "2GB 3MB", ".5GB"],
)
def test_what_is_no_number_of_bytes_is_refused(text: int | str) -> None:
    with pytest.raises(RecipeError, match=r"^memory_budget: found .*, expected a number of bytes, such as 500MB or 2GB$") as caught:
        parsed_bytes(text)
    assert repr(text) in str(caught.value)


def test_units_are_decimal_and_binary() -> None:
    assert {unit: size for unit, size in UNITS.items() if unit.endswith("I")} == {
        f"{letter}I": 1024**power for power, letter in enumerate("KMGT", start=1)
    }
    assert {unit: size for unit, size in UNITS.items() if unit and not unit.endswith("I")} == {
        letter: 1000**power for power, letter in enumerate("KMGT", start=1)
    }


@pytest.mark.parametrize(
    "given", [{}, {"workers": 3}, {"memory_budget": "2GB"}, {"checkpoint": "a/b.stats"}, {"checkpoint": Path("c")}], ids=str
)
def test_words_become_resources(given: dict[str, Any]) -> None:
    found = resources(**{**GIVEN, **given})
    assert found.workers == given.get("workers", 1)
    assert found.memory_budget == (2_000_000_000 if "memory_budget" in given else None)
    assert found.provider == CPU
    assert found.checkpoint == (Path(given["checkpoint"]) if "checkpoint" in given else None)


@pytest.mark.parametrize("provider", ["torch", "TORCH", "torch:cpu", "Torch:CPU"])
def test_pytorch_is_meant_in_any_case(provider: str) -> None:
    pytest.importorskip("torch")
    assert resources(**{**GIVEN, "provider": provider}).provider == provider.lower()


def test_the_defaults_are_those_of_no_words() -> None:
    assert resources(**GIVEN) == Resources()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"workers": 0}, "workers: found 0, expected at least 1 process"),
        ({"workers": -2}, "workers: found -2, expected at least 1 process"),
        ({"workers": 1.5}, r"workers: found 1\.5, expected at least 1 process"),
        ({"workers": "2"}, "workers: found '2', expected at least 1 process"),
        ({"memory_budget": "much"}, "memory_budget: found 'much', expected a number of bytes"),
        ({"provider": "gpu"}, r"provider: found 'gpu', expected one of .*cpu"),
    ],
    ids=str,
)
def test_what_is_impossible_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        resources(**{**GIVEN, **given})


OTHERS: dict[str, Any] = {"workers": 2, "memory_budget": 10, "provider": "CUDAExecutionProvider", "checkpoint": Path("a.stats")}


@pytest.mark.parametrize(("option", "value"), OTHERS.items(), ids=OTHERS)
def test_beside_a_plan_every_option_is_refused(option: str, value: object) -> None:
    given: dict[str, Any] = {option: value}
    with pytest.raises(
        RecipeError, match=rf"^{option}: found {value} beside a plan, with which nothing is calibrated; leave one of them out"
    ):
        Resources(**given).check_beside_plan()


def test_beside_a_plan_the_defaults_are_taken() -> None:
    Resources().check_beside_plan()
    assert set(OTHERS) == {field.name for field in fields(Resources)}
