"""Which traps are told on which machine."""

from __future__ import annotations

import pytest
from tests.diagnosis.machines import ARM, ICE_LAKE, OLD, PACKAGES, UNKNOWN, ZEN_4, machine

from zeropoint.diagnosis.traps import TRAPS, find_traps, within
from zeropoint.runtime.cpu import Cpu


def told(cpu: Cpu, packages: dict[str, str] = PACKAGES) -> str:
    return "\n".join(f"{trap.package} {trap.version}: {trap.what}" for trap in find_traps(machine(cpu, packages=packages)))


@pytest.mark.parametrize(
    ("cpu", "saturates"),
    [
        pytest.param(OLD, True, id="avx2-only"),
        pytest.param(ICE_LAKE, False, id="ice-lake"),
        pytest.param(ZEN_4, False, id="zen-4"),
        pytest.param(ARM, False, id="arm"),
        pytest.param(UNKNOWN, False, id="unknown"),
    ],
)
def test_saturation_without_vnni(cpu: Cpu, saturates: bool) -> None:
    assert ("saturate in 16 bits" in told(cpu)) is saturates


def test_slow_signed_activations_are_of_x86() -> None:
    assert "int8 activations run about as slow as float" in told(OLD)
    assert "int8 activations run about as slow as float" not in told(ARM)


def test_bfloat16_needs_a_processor_that_has_it() -> None:
    assert "bfloat16" in told(ZEN_4)
    assert "bfloat16" not in told(ICE_LAKE)


@pytest.mark.parametrize(
    ("packages", "words", "absent"),
    [
        pytest.param({"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.0"}, "installed last", "openvino", id="both-onnxruntimes"),
        pytest.param({"onnxruntime": "1.32.0"}, "idle session", "installed last", id="one-onnxruntime"),
        pytest.param({"onnxruntime-gpu": "1.32.0"}, "onnxruntime 1.32.0: the threads", "installed last", id="gpu-distribution-alone"),
        pytest.param({"tensorrt": "11.4.1"}, "calibrators, dynamic ranges", "--stronglyTyped", id="tensorrt-11"),
        pytest.param({"tensorrt-cu12": "10.9.0.34"}, "--stronglyTyped", "calibrators, dynamic ranges", id="tensorrt-10"),
        pytest.param({"tensorrt": "8.6.1"}, "older versions find no implementation", "--stronglyTyped", id="tensorrt-8"),
        pytest.param({}, "", ":", id="nothing-installed"),
    ],
)
def test_traps_of_what_is_installed(packages: dict[str, str], words: str, absent: str) -> None:
    assert words in told(ICE_LAKE, packages)
    assert absent not in told(ICE_LAKE, packages)


@pytest.mark.parametrize(
    ("version", "since", "before", "expected"),
    [
        ("1.9.0", "1.10", "", False),
        ("1.10.0", "1.10", "", True),
        ("11.0.0rc1", "11", "", True),
        ("2026.4.1", "", "2026.4.1", False),
        ("2026.4.0", "", "2026.4.1", True),
        ("unknown", "", "", True),
    ],
)
def test_versions_are_compared_as_numbers(version: str, since: str, before: str, expected: bool) -> None:
    assert within(version, since, before) is expected


def test_every_trap_says_what_to_do_and_how_it_is_known() -> None:
    assert all(trap.what and trap.remedy and trap.source for trap in TRAPS)
    assert len({(trap.package, trap.what) for trap in TRAPS}) == len(TRAPS)
