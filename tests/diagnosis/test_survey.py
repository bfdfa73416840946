"""What is found on a machine, and that finding it loads nothing heavy."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.diagnosis.machines import ZEN_4, machine

from zeropoint.diagnosis.findings import Runtime, diagnose
from zeropoint.diagnosis.survey import EXTRAS, find_packages, survey
from zeropoint.notes import Note

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
FOR_DEVELOPERS = {"dev", "docs"}


def test_this_machine() -> None:
    found = survey()
    assert found.packages["onnxruntime"] == version("onnxruntime")
    assert "CPU" in found.runs_on["onnxruntime"]
    assert 0 < found.free_bytes <= found.memory_bytes
    assert found.cores >= 1


def test_packages_are_found_without_importing_them() -> None:
    code = "import sys; from zeropoint.diagnosis.survey import find_packages; find_packages(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"openvino", "torch", "tensorrt", "netron", "altair", "jinja2", "pynvml"}.isdisjoint(loaded)


def test_only_what_is_installed_is_found() -> None:
    def find(name: str) -> str:
        if name not in ("torch", "onnxruntime-gpu"):
            raise PackageNotFoundError(name)
        return "1.0"

    assert find_packages(find) == {"onnxruntime-gpu": "1.0", "torch": "1.0"}


def test_extras_are_those_of_the_project() -> None:
    section = PROJECT.read_text(encoding="utf-8").split("[project.optional-dependencies]")[1].split("\n[")[0]
    lines = dict(re.findall(r"^(\w+) = \[(.*)\]$", section, re.MULTILINE))
    declared = {extra: tuple(re.findall(r'"([\w-]+)', parts)) for extra, parts in lines.items() if extra not in FOR_DEVELOPERS}
    assert {extra: parts for extra, (parts, _) in EXTRAS.items()} == declared


def test_what_is_missing_of_an_extra() -> None:
    found = diagnose(machine(ZEN_4, packages={"openvino": "2026.4.1", "jinja2": "3.1.6"}), ())
    missing = {extra.name: extra.missing for extra in found.extras}
    assert missing == {
        "openvino": (),
        "torch": ("torch", "onnxscript"),
        "report": ("altair", "vl-convert-python"),
        "view": ("netron",),
        "nvidia": ("nvidia-ml-py",),
    }


def test_runtimes_are_told_also_where_they_are_not_here() -> None:
    found = diagnose(machine(ZEN_4, packages={"onnxruntime": "1.32.0", "tensorrt-cu13": "11.4.1"}), (), [Note("a", "b")])
    assert found.runtimes == (
        Runtime("onnxruntime", "onnxruntime", "1.32.0", ("CPU",)),
        Runtime("openvino", "", "", ()),
        Runtime("tensorrt", "tensorrt-cu13", "11.4.1", ()),
        Runtime("torch", "", "", ()),
    )
    assert found.notes == (Note("a", "b"),)
