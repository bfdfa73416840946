"""`zeropoint doctor`: what it prints on machines of several kinds, at 80 columns."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.cli.commands import Zeropoint
from tests.diagnosis.machines import ARM, H100, OLD, UNKNOWN, ZEN_4, machine, trials

from zeropoint.api import machine as facade
from zeropoint.diagnosis.survey import Survey

CLEAR = trials(onnxruntime=(0.34, 0.32), onnxruntime_arm=(1.29, 0.31), openvino=(0.36, 0.25))
EVERYTHING = {"openvino": "2026.4.1", "altair": "6", "jinja2": "3", "vl-convert-python": "1", "netron": "9", "nvidia-ml-py": "13"}


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the command find a machine."""

    def found(survey: Survey) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(facade, "survey", lambda: survey)
        monkeypatch.setattr(facade, "run_trials", lambda *, progress: (CLEAR, ()))

    return found


@pytest.mark.parametrize(
    ("survey", "words"),
    [
        pytest.param(
            machine(ZEN_4),
            ["AMD EPYC; 4 cores, 16.0 GB of memory, 8.0 free", "products of bytes by AVX512-VNNI", "not AVX-VNNI, AMX-INT8"],
            id="zen-4",
        ),
        pytest.param(machine(OLD), ["no product of bytes that sums in 32 bits (has AVX2;", "saturate in 16 bits"], id="avx2-only"),
        pytest.param(machine(ARM), ["products of bytes by i8mm (has NEON, NEON dot product, i8mm)"], id="arm"),
        pytest.param(machine(UNKNOWN), ["no name told", "unknown: this system does not tell"], id="unknown"),
        pytest.param(
            machine(ZEN_4, gpus=H100), ["GPU: NVIDIA H100; 80.0 GB, compute capability 9.0, driver 580", "--target tensorrt"], id="gpu"
        ),
        pytest.param(machine(ZEN_4), ["GPU: no NVIDIA GPU found (nvidia-smi: not found)"], id="no-gpu"),
        pytest.param(machine(ZEN_4, native=False), ["compiled loops: missing, numpy does the same work in more time"], id="not-compiled"),
        pytest.param(machine(ZEN_4), ['extra report: missing; with pip install "zeropoint[report]"', "extras: openvino"], id="extras"),
        pytest.param(machine(ZEN_4, packages=EVERYTHING), ["extras: openvino, report, view, nvidia"], id="all-extras"),
    ],
)
def test_what_is_told(zeropoint: Zeropoint, on: Any, survey: Survey, words: list[str]) -> None:
    on(survey)
    run = zeropoint("doctor")
    assert run.code == 0
    said = " ".join(run.out.split())
    assert [word for word in words if word not in said] == []
    assert max(map(len, run.out.splitlines())) <= 80
    assert "…" not in run.out


def test_ratios_stand_in_the_table_and_in_the_recommendation(zeropoint: Zeropoint, on: Any) -> None:
    on(machine(ZEN_4))
    out = zeropoint("doctor").out
    row = next(line.split() for line in out.splitlines() if line.startswith(" onnxruntime-arm"))
    assert row == ["onnxruntime-arm", "onnxruntime", "int8", "×", "int8", "1.29", "0.31"]
    assert "quantize with --target onnxruntime, uint8 activations" in " ".join(out.split())


def test_json_has_everything(zeropoint: Zeropoint, on: Any) -> None:
    on(machine(ZEN_4))
    run = zeropoint("doctor", "--json")
    found = json.loads(run.out)
    assert run.err == ""
    assert found["cpu"]["instruction_sets"] == ["AVX2", "AVX512", "AVX512-VNNI"]
    assert found["recommendation"] == found["advice"][0]["sentence"]
    assert [trial["ratio"] for trial in found["trials"]] == [0.34, 0.32, 1.29, 0.31, 0.36, 0.25]
    assert {"package", "version", "what", "remedy", "source"} == found["traps"][0].keys()


def test_no_measure_times_nothing(zeropoint: Zeropoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(**_: Any) -> Any:
        raise AssertionError("it timed")

    monkeypatch.setattr(facade, "run_trials", unexpected)
    run = zeropoint("doctor", "--no-measure")
    assert run.code == 0
    assert "not timed here" in " ".join(run.out.split())
